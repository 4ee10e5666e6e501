//! Request headers that are known to change no response, wherever they come from: ids and
//! decisions of tracing, and what tells that a page is only fetched ahead. Each is listed by its
//! whole name, with the documentation of whoever sends it: of a name that nobody has described,
//! nobody knows what it does.
//!
//! Invariant: none of them reaches the origin on a fill. What a response depends on nevertheless
//! can so never be stored for others.

use crate::policy::fronts::{self, FrontClass};

/// Headers of one product or standard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownHeaders {
    /// Whose they are.
    pub(crate) whose: &'static str,
    /// Their names, lower-case.
    pub(crate) names: &'static [&'static str],
    /// Where they are described.
    pub(crate) source: &'static str,
}

/// Headers of tracing. They differ in each request, so a response that varies on one is not
/// stored. Some of them are in [`crate::policy::route::headers::SUBSTITUTED`] as well, where they
/// have been since the first version: of those no field may read the client's value.
pub(crate) const TRACING: &[KnownHeaders] = &[
    KnownHeaders {
        whose: "W3C Trace Context and Baggage",
        names: &["traceparent", "tracestate", "baggage"],
        source: "https://www.w3.org/TR/trace-context/",
    },
    KnownHeaders {
        whose: "Zipkin B3",
        names: &[
            "b3",
            "x-b3-traceid",
            "x-b3-spanid",
            "x-b3-parentspanid",
            "x-b3-sampled",
            "x-b3-flags",
        ],
        source: "https://github.com/openzipkin/b3-propagation",
    },
    KnownHeaders {
        whose: "Jaeger",
        names: &["uber-trace-id", "jaeger-debug-id"],
        source: "https://www.jaegertracing.io/sdk-migration/#propagation-format",
    },
    KnownHeaders {
        whose: "OpenTracing, LightStep",
        names: &["x-ot-span-context", "ot-tracer-traceid", "ot-tracer-spanid", "ot-tracer-sampled"],
        source: "https://opentelemetry.io/docs/specs/otel/context/api-propagators/",
    },
    KnownHeaders {
        whose: "Sentry",
        names: &["sentry-trace"],
        source: "https://develop.sentry.dev/sdk/telemetry/traces/",
    },
    KnownHeaders {
        whose: "Datadog",
        names: &[
            "x-datadog-trace-id",
            "x-datadog-parent-id",
            "x-datadog-sampling-priority",
            "x-datadog-sampled",
            "x-datadog-origin",
            "x-datadog-tags",
        ],
        source: "https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/",
    },
    KnownHeaders {
        whose: "New Relic",
        names: &["newrelic", "x-newrelic-id", "x-newrelic-transaction", "x-newrelic-synthetics"],
        source: "https://docs.newrelic.com/docs/distributed-tracing/concepts/\
                 how-new-relic-distributed-tracing-works/",
    },
    KnownHeaders {
        whose: "Elastic APM",
        names: &["elastic-apm-traceparent"],
        source: "https://www.elastic.co/docs/solutions/observability/apm/traces",
    },
    KnownHeaders {
        whose: "Dynatrace",
        names: &["x-dynatrace"],
        source: "https://docs.dynatrace.com/docs/observe/application-observability/\
                 distributed-traces",
    },
    KnownHeaders {
        whose: "AWS X-Ray and Elastic Load Balancing",
        names: &["x-amzn-trace-id"],
        source: "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/\
                 load-balancer-request-tracing.html",
    },
    KnownHeaders {
        whose: "Google Cloud Trace",
        names: &["x-cloud-trace-context"],
        source: "https://cloud.google.com/trace/docs/trace-context",
    },
    KnownHeaders {
        whose: "Azure Application Insights",
        names: &["request-id", "request-context"],
        source: "https://github.com/dotnet/runtime/blob/main/src/libraries/\
                 System.Diagnostics.DiagnosticSource/src/HttpCorrelationProtocol.md",
    },
    KnownHeaders {
        whose: "ids of requests",
        names: &["x-request-id", "x-correlation-id"],
        source: "https://http.dev/x-request-id",
    },
];

/// Anti-forgery tokens, which clients of many frameworks send with every request, and which count
/// for writes alone. A response that varies on one has it in its key.
pub(crate) const FORGERY_TOKENS: &[KnownHeaders] = &[
    KnownHeaders {
        whose: "Django",
        names: &["x-csrftoken"],
        source: "https://docs.djangoproject.com/en/stable/howto/csrf/",
    },
    KnownHeaders {
        whose: "Rails, Laravel, Express",
        names: &["x-csrf-token", "csrf-token", "xsrf-token"],
        source: "https://guides.rubyonrails.org/security.html",
    },
    KnownHeaders {
        whose: "Angular, axios",
        names: &["x-xsrf-token"],
        source: "https://angular.dev/best-practices/security",
    },
];

/// What tells that nobody has asked for the page yet.
pub(crate) const PREFETCH: &[KnownHeaders] = &[
    KnownHeaders {
        whose: "browsers that fetch ahead",
        names: &["sec-purpose"],
        source: "https://fetch.spec.whatwg.org/#sec-purpose-header",
    },
    KnownHeaders {
        whose: "browsers before `Sec-Purpose`",
        names: &["purpose", "x-purpose", "x-moz"],
        source: "https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Purpose",
    },
];

/// The names of such a list.
pub(crate) fn names(list: &'static [KnownHeaders]) -> impl Iterator<Item = &'static str> {
    list.iter().flat_map(|known| known.names.iter().copied())
}

/// Whether a name, lower-case, is in one of the lists.
pub(crate) fn is_known(name: &str) -> bool {
    [TRACING, FORGERY_TOKENS, PREFETCH].into_iter().flat_map(names).any(|known| known == name)
}

/// Headers of delivery of products that are no fronts, or that come from several of them.
const DELIVERY: &[&str] = &[
    "x-amz-cf-id",
    "x-amzn-requestid",
    "x-akamai-edgescape-trace",
    "x-fastly-trace",
    "x-nginx-request-id",
    "x-vercel-id",
];

/// Whether a header, by its name in lower case, is known as one of tracing or delivery, by which no
/// app answers.
pub(crate) fn is_delivery(name: &str) -> bool {
    let of_front = fronts::known(name).map(|known| known.class);
    of_front == Some(FrontClass::Noise)
        || DELIVERY.contains(&name)
        || names(TRACING).any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderName;

    use super::*;
    use crate::policy::names::{Meaning, meaning};

    #[test]
    fn each_name_is_listed_once_with_a_source() {
        let lists = [TRACING, FORGERY_TOKENS, PREFETCH];
        let mut seen = BTreeSet::new();
        for known in lists.into_iter().flatten() {
            assert!(known.source.starts_with("https://") && !known.source.contains(' '));
            for name in known.names {
                assert_eq!(HeaderName::from_static(name).as_str(), *name);
                assert!(seen.insert(name) && is_known(name), "{name} is listed twice");
            }
        }
        assert!(!is_known("x-datadog-user"));
    }

    #[test]
    fn no_name_says_who_asks() {
        for name in [TRACING, FORGERY_TOKENS, PREFETCH].into_iter().flat_map(names) {
            let says = meaning(name);
            let who = matches!(says, Some(Meaning::Credential | Meaning::Caller));
            assert!(!who, "{name}: {says:?}");
        }
    }
}
