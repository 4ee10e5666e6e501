//! What is said of the reasons to people: the one text of the manual's page and of the page that
//! the dashboard links to.
//!
//! Texts have code in backticks, and nothing else that a page would have to interpret.

use super::{Disposition, Reason, Step};

/// What reasons are.
pub const ABOUT_REASONS: &str = "A reason says why a request was not answered from the cache, or \
    why a response was not stored. It appears in the `detail` of `Cache-Status`, in the access \
    log, in the admin API and in `sidecache explain`. Metrics have the label value instead. \
    `missing field` and `unkeyed header` are followed by the name of the field or header.";

/// A counter, and its label `reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCounter {
    /// The name of the metric.
    pub metric: &'static str,
    /// The value of its label `reason`.
    pub label: String,
}

impl Step {
    /// What its reasons have in common, as a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Bypass => "The cache took no part",
            Self::Lookup => "Nothing stored could be served",
            Self::Stale => "A stale response was served",
            Self::Store => "The response was not stored",
            Self::Body => "The response was dropped after its head had been sent",
            Self::Failure => "The sidecar answered itself",
        }
    }

    /// What the response says, in a sentence or two.
    #[must_use]
    pub fn about(self) -> String {
        let [_, stale, revalidated, miss, bypass] = Disposition::ALL.map(Disposition::as_str);
        match self {
            Self::Bypass => format!("`X-Cache` is `{bypass}`. The origin answers."),
            Self::Lookup => format!(
                "`X-Cache` is `{miss}`, or `{revalidated}` if the origin says that the stored \
                 response still holds."
            ),
            Self::Stale => format!(
                "`X-Cache` is `{stale}`. How long a stale response may be served is set by \
                 `stale_while_revalidate` and `stale_if_error`."
            ),
            Self::Store => format!(
                "`X-Cache` is `{miss}` or `{revalidated}`, and `Cache-Status` does not have \
                 `stored`."
            ),
            Self::Body => "`Cache-Status` says `stored`, and the response is not stored. The log \
                           says so at level `debug`, and `sidecache_store_aborted_total` counts \
                           it by reason."
                .to_owned(),
            Self::Failure => format!(
                "`X-Cache` is `{miss}` on a route that caches, else `{bypass}`. The body says \
                 what failed."
            ),
        }
    }
}

impl Reason {
    /// The words as they are shown to people: with `NAME` where a name follows them.
    #[must_use]
    pub fn heading(self) -> String {
        format!("{}{}", self.as_str(), if self.has_subject() { " NAME" } else { "" })
    }

    /// The anchor of its section: the words with hyphens.
    #[must_use]
    pub fn slug(self) -> String {
        self.label().replace('_', "-")
    }

    /// Where it is counted.
    #[must_use]
    pub fn counters(self) -> Vec<ReasonCounter> {
        let mut counters = Vec::new();
        if self.steps().iter().any(|step| *step != Step::Body) {
            counters.push(ReasonCounter {
                metric: "sidecache_requests_total",
                label: self.label().into_owned(),
            });
        }
        if self.steps().contains(&Step::Body) {
            // It has no counter of its own there.
            let counted_as = if self == Self::Handover { Self::StoreFailed } else { self };
            counters.push(ReasonCounter {
                metric: "sidecache_store_aborted_total",
                label: counted_as.label().into_owned(),
            });
        }
        counters
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slugs_differ_and_need_no_escape() {
        let slugs: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.slug()).collect();
        assert_eq!(slugs.len(), Reason::ALL.len());
        for slug in &slugs {
            assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{slug}");
        }
        assert_eq!(Reason::UnkeyedHeader.slug(), "unkeyed-header");
    }

    #[test]
    fn every_reason_is_counted_somewhere() {
        for reason in Reason::ALL {
            assert!(!reason.counters().is_empty(), "{reason:?}");
        }
        let of = |reason: Reason| -> Vec<&str> {
            reason.counters().iter().map(|counter| counter.metric).collect()
        };
        assert_eq!(of(Reason::NoRoute), ["sidecache_requests_total"]);
        assert_eq!(of(Reason::Trailers), ["sidecache_store_aborted_total"]);
        assert_eq!(of(Reason::TooLarge).len(), 2);
    }

    #[test]
    fn code_is_between_backticks_and_texts_hold_no_other_markup() {
        let steps = Step::ALL.into_iter().flat_map(|step| [step.title().to_owned(), step.about()]);
        let reasons = Reason::ALL.iter().flat_map(|reason| {
            [reason.meaning().to_owned(), reason.remedy().unwrap_or_default().to_owned()]
        });
        for text in steps.chain(reasons).chain([ABOUT_REASONS.to_owned()]) {
            assert!(text.matches('`').count().is_multiple_of(2), "{text}");
            assert!(!text.contains("**") && !text.contains("]("), "{text}");
        }
    }
}
