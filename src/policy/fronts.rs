//! What is known of the headers that load balancers, content delivery networks and platforms add to
//! the requests that they forward: the fronts of a sidecar. The operator names those that stand in
//! front (`fronts`, at the top of the file).
//!
//! Invariants:
//! 1. *One name, one class*, whichever front adds it.
//! 2. *Identity is neither dropped nor passed.* A header that says who asks is a credential
//!    (`[credential] headers`) or a field of the key; else the request is a `BYPASS`, whatever
//!    `unknown_headers`, `drop_headers`, `pass_headers` and the origin's `Vary` say.
//! 3. *Nothing else of a front reaches the origin on a fill without being in the key.* What is
//!    neither in the key nor identity is withheld.

use std::fmt;

use crate::policy::glob::Glob;

/// What a header of a front is for, and so what becomes of it on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontClass {
    /// Who asks. See the second invariant.
    Identity,
    /// The client's address. Withheld on fills, like `X-Forwarded-For`; a response that varies on
    /// it is not stored.
    Address,
    /// What the front says of the request as the client made it: its scheme, path or host. From a
    /// trusted proxy it is in the key and sent, like `X-Forwarded-Proto`; else it is unknown.
    Request,
    /// Where the client is. Withheld on fills, until a field reads it or the origin names it in
    /// `Vary`. Then it is in the key.
    Location,
    /// Ids, times and counters. Withheld on fills; a response that varies on it is not stored.
    Noise,
}

impl FrontClass {
    /// All of them, in the order of the manual.
    pub const ALL: [Self; 5] =
        [Self::Identity, Self::Address, Self::Request, Self::Location, Self::Noise];

    /// The word in the manual.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Address => "address",
            Self::Request => "request",
            Self::Location => "location",
            Self::Noise => "noise",
        }
    }
}

/// A header of a front. A name that ends with `*` stands for all that begin so; only names of
/// identity do, which are the careful choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontHeader {
    /// Its name, lower-case.
    pub name: &'static str,
    /// What it is for.
    pub class: FrontClass,
}

/// What is known of one front.
#[derive(Debug)]
pub struct FrontTable {
    /// The front.
    pub front: Front,
    /// Its headers.
    pub headers: &'static [FrontHeader],
    /// Headers that it alone adds: two of them give it away.
    pub signs: &'static [&'static str],
    /// Where its headers are described.
    pub sources: &'static [&'static str],
}

macro_rules! fronts {
    ($( $(#[$doc:meta])* $variant:ident = $word:literal
        { $( $class:ident: [$($name:literal),+ $(,)?], )+ }
        signs [$($sign:literal),*] sources [$($source:literal),+ $(,)?] ),+ $(,)?) => {
        /// What may stand in front of a sidecar.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Front { $( $(#[$doc])* $variant, )+ }

        impl Front {
            /// The word in `proxy.toml`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }
        }

        /// All that is known, in the order of their names.
        pub const TABLES: &[FrontTable] = &[ $( FrontTable {
            front: Front::$variant,
            headers: &[ $( $( FrontHeader {
                name: $name, class: FrontClass::$class
            }, )+ )+ ],
            signs: &[$($sign),*],
            sources: &[$($source),+],
        }, )+ ];
    };
}

fronts! {
    /// An Application Load Balancer of AWS.
    AwsAlb = "aws-alb" {
        Identity: ["x-amzn-oidc-*", "x-amzn-mtls-*"],
        Noise: ["x-amzn-tls-version", "x-amzn-tls-cipher-suite"],
    }
    // It adds `X-Amzn-Trace-Id` to every request, as other products of AWS do.
    signs ["x-amzn-tls-version", "x-amzn-tls-cipher-suite"]
    sources [
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/\
         listener-authenticate-users.html",
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/\
         mutual-authentication.html",
        "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/\
         x-forwarded-headers.html",
    ],
    /// Azure Front Door, Application Gateway and App Service.
    Azure = "azure" {
        Identity: ["x-ms-client-principal*", "x-ms-token-*", "x-zumo-auth", "x-arr-clientcert"],
        Address: ["x-azure-clientip", "x-azure-socketip", "client-ip"],
        Request: [
            "x-appservice-proto",
            "x-arr-ssl",
            "x-azure-fdid",
            "x-fd-healthprobe",
            "x-original-host",
            "x-original-url",
            "x-waws-unencoded-url",
            "disguised-host",
            "was-default-hostname",
        ],
        Noise: [
            "x-azure-ref",
            "x-azure-requestchain",
            "x-appgw-trace-id",
            "x-arr-log-id",
            "x-site-deployment-id",
        ],
    }
    signs ["x-azure-ref", "x-azure-fdid", "x-arr-log-id", "x-site-deployment-id"]
    sources [
        "https://learn.microsoft.com/azure/frontdoor/front-door-http-headers-protocol",
        "https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works",
        "https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities",
        "https://learn.microsoft.com/azure/app-service/app-service-web-configure-tls-mutual-auth",
    ],
    /// Cloudflare, with Access.
    Cloudflare = "cloudflare" {
        Identity: ["cf-access-*", "cf-cert-*", "cf-client-cert-*"],
        Address: ["cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "true-client-ip"],
        Request: ["cf-visitor"],
        Location: [
            "cf-ipcountry",
            "cf-ipcity",
            "cf-ipcontinent",
            "cf-iplatitude",
            "cf-iplongitude",
            "cf-region",
            "cf-region-code",
            "cf-metro-code",
            "cf-postal-code",
            "cf-timezone",
        ],
        Noise: ["cf-ray", "cf-ew-via", "cf-worker", "cf-warp-tag-id", "cdn-loop"],
    }
    signs ["cf-ray", "cf-visitor", "cf-connecting-ip"]
    sources [
        "https://developers.cloudflare.com/fundamentals/reference/http-headers/",
        "https://developers.cloudflare.com/rules/transform/managed-transforms/reference/",
        "https://developers.cloudflare.com/cloudflare-one/identity/authorization-cookie/\
         application-token/",
        "https://developers.cloudflare.com/cloudflare-one/identity/service-tokens/",
        "https://www.rfc-editor.org/rfc/rfc8586",
    ],
    /// Envoy, and what is made of it: Istio, Contour, Emissary.
    Envoy = "envoy" {
        Identity: [
            "x-forwarded-client-cert",
            "x-envoy-downstream-service-cluster",
            "x-envoy-downstream-service-node",
            "x-envoy-peer-metadata*",
        ],
        Address: ["x-envoy-external-address"],
        Request: ["x-envoy-internal", "x-envoy-original-path", "x-envoy-original-host"],
        Noise: [
            "x-envoy-attempt-count",
            "x-envoy-decorator-operation",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-force-trace",
            "x-envoy-is-timeout-retry",
            "x-client-trace-id",
        ],
    }
    signs [
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-attempt-count",
        "x-envoy-internal",
        "x-envoy-decorator-operation"
    ]
    sources [
        "https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers",
        "https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter",
    ],
    /// Fastly.
    Fastly = "fastly" {
        Address: ["fastly-client-ip"],
        Request: ["fastly-ssl"],
        Noise: [
            "fastly-client",
            "fastly-ff",
            "fastly-debug",
            "fastly-force-shield",
            "fastly-no-shield",
            "cdn-loop",
            "x-forwarded-server",
            "x-timer",
            "x-varnish",
        ],
    }
    signs ["fastly-client-ip", "fastly-ff", "fastly-ssl", "fastly-client"]
    sources [
        "https://www.fastly.com/documentation/reference/http/http-headers/",
        "https://www.rfc-editor.org/rfc/rfc8586",
    ],
    /// The router of Heroku.
    Heroku = "heroku" {
        Noise: ["x-request-start", "connect-time", "total-route-time"],
    }
    signs ["connect-time", "total-route-time"]
    sources ["https://devcenter.heroku.com/articles/http-routing#heroku-headers"],
    /// Traefik.
    Traefik = "traefik" {
        Identity: [
            "x-forwarded-tls-client-cert",
            "x-forwarded-tls-client-cert-info",
            "x-forwarded-user",
        ],
        Request: ["x-replaced-path"],
        Noise: ["x-forwarded-server"],
    }
    // Apache and Fastly add `X-Forwarded-Server` as well.
    signs []
    sources [
        "https://doc.traefik.io/traefik/getting-started/faq/",
        "https://doc.traefik.io/traefik/middlewares/http/passtlsclientcert/",
        "https://doc.traefik.io/traefik/middlewares/http/forwardauth/",
        "https://doc.traefik.io/traefik/middlewares/http/replacepath/",
    ],
}

/// The fronts that the operator has named.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Fronts(u8);

impl Fronts {
    /// These and one more.
    #[must_use]
    pub const fn with(self, front: Front) -> Self {
        Self(self.0 | 1 << front as u8)
    }

    /// Whether it is one of them.
    #[must_use]
    pub const fn has(self, front: Front) -> bool {
        self.0 & 1 << front as u8 != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is known of them.
    pub fn tables(self) -> impl Iterator<Item = &'static FrontTable> {
        TABLES.iter().filter(move |table| self.has(table.front))
    }

    /// Their headers.
    pub fn headers(self) -> impl Iterator<Item = FrontHeader> {
        self.tables().flat_map(|table| table.headers.iter().copied())
    }

    /// Their headers of a class.
    pub fn of_class(self, class: FrontClass) -> impl Iterator<Item = &'static str> {
        self.headers().filter(move |header| header.class == class).map(|header| header.name)
    }

    /// Whether a header, by its name in lower case, says who asks.
    #[must_use]
    pub fn is_identity(self, name: &str) -> bool {
        self.of_class(FrontClass::Identity).any(|known| covers(known, name))
    }
}

/// The words of `proxy.toml`: this text is part of the fingerprint of routes.
impl fmt::Debug for Fronts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tables().map(|table| table.front.as_str())).finish()
    }
}

/// Whether a name of the table is or covers this one.
#[must_use]
pub fn covers(known: &str, name: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => known == name,
    }
}

/// Whether a pattern of an operator may match what a name of the table is or covers.
#[must_use]
pub fn meets(known: &str, pattern: &Glob) -> bool {
    let Some(start) = known.strip_suffix('*') else { return pattern.matches(known.as_bytes()) };
    // Both match some name if one of what stands before the first stars begins with the other.
    let literal = pattern.as_str().split('*').next().unwrap_or_default();
    literal.starts_with(start) || !pattern.is_literal() && start.starts_with(literal)
}

/// What is known of a header of any front, named by the operator or not.
#[must_use]
pub fn known(name: &str) -> Option<FrontHeader> {
    let all = TABLES.iter().flat_map(|table| table.headers);
    all.copied().find(|header| covers(header.name, name))
}

/// The fronts besides those named whose signs are among these headers, each with what was seen of
/// it.
#[must_use]
pub fn seen<'a>(named: Fronts, headers: &[&'a str]) -> Vec<(&'static FrontTable, Vec<&'a str>)> {
    let others = TABLES.iter().filter(|table| !named.has(table.front));
    others
        .filter_map(|table| {
            let signs = headers.iter().filter(|name| table.signs.contains(name)).count();
            let is_seen = signs >= 2;
            let of = |name: &&&str| table.headers.iter().any(|known| covers(known.name, name));
            is_seen.then(|| (table, headers.iter().filter(of).copied().collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderName;

    use super::*;
    use crate::policy::known_headers;
    use crate::policy::names::{Meaning, meaning};
    use crate::policy::route::headers as roles;

    #[test]
    fn no_header_is_in_two_classes() {
        let mut classes: BTreeMap<&str, FrontClass> = BTreeMap::new();
        for header in TABLES.iter().flat_map(|table| table.headers) {
            let known = *classes.entry(header.name).or_insert(header.class);
            assert_eq!(known, header.class, "{}", header.name);
        }
        for (pattern, class) in classes.iter().filter(|(name, _)| name.contains('*')) {
            assert_eq!(*class, FrontClass::Identity, "{pattern}: only identity has patterns");
            for (name, other) in &classes {
                assert!(!covers(pattern, name) || other == class, "{pattern} covers {name}");
            }
        }
    }

    #[test]
    fn no_header_has_a_role_without_its_front_as_well() {
        let lists = [
            roles::TRANSPORT,
            roles::SUBSTITUTED,
            roles::HARMLESS,
            roles::NEGOTIATED,
            roles::IMPLICIT,
            roles::FROM_TRUSTED,
            roles::WITHHELD,
        ];
        for header in TABLES.iter().flat_map(|table| table.headers) {
            let plain = header.name.trim_end_matches('*');
            assert_eq!(HeaderName::from_static(plain).as_str(), plain);
            let listed = lists.iter().copied().flatten();
            assert!(!listed.copied().any(|name| covers(header.name, name)), "{}", header.name);
            assert!(!known_headers::is_known(header.name), "{}", header.name);
        }
    }

    #[test]
    fn what_a_name_says_and_its_class_agree() {
        for header in TABLES.iter().flat_map(|table| table.headers) {
            let says = meaning(header.name.trim_end_matches(['*', '-']));
            // `CF-Visitor` says whether the visitor came by https, and nothing else.
            let is_who = matches!(says, Some(Meaning::Credential | Meaning::Caller))
                && header.name != "cf-visitor";
            assert!(!is_who || header.class == FrontClass::Identity, "{}", header.name);
            let is_address = says == Some(Meaning::Address);
            assert!(!is_address || header.class == FrontClass::Address, "{}", header.name);
        }
    }

    #[test]
    fn signs_are_of_one_front_and_sources_are_links() {
        for table in TABLES {
            assert!(table.sources.iter().all(|source| source.starts_with("https://")));
            for sign in table.signs {
                assert!(table.headers.iter().any(|header| header.name == *sign), "{sign}");
                let others = TABLES.iter().filter(|other| other.front != table.front);
                let taken = others.filter(|other| other.signs.contains(sign)).count();
                assert_eq!(taken, 0, "{sign} is a sign of two fronts");
            }
        }
        assert!(TABLES.windows(2).all(|two| two[0].front.as_str() < two[1].front.as_str()));
    }

    #[test]
    fn a_front_is_known_by_two_of_its_signs() {
        let words = |named: Fronts, headers: &[&str]| -> Vec<(&'static str, usize)> {
            let found = seen(named, headers);
            found.iter().map(|(table, names)| (table.front.as_str(), names.len())).collect()
        };
        let none = Fronts::default();
        assert_eq!(words(none, &["cf-ray"]), []);
        assert_eq!(words(none, &["cf-ray", "cf-visitor", "cf-ipcountry"]), [("cloudflare", 3)]);
        assert_eq!(words(none.with(Front::Cloudflare), &["cf-ray", "cf-visitor"]), []);
        assert_eq!(words(none, &["x-forwarded-server", "x-odd"]), []);
        assert_eq!(words(none, &["x-amzn-oidc-data", "x-request-start"]), []);
    }

    #[test]
    fn a_pattern_that_may_match_identity_meets_it() {
        for (known, pattern, expected) in [
            ("cf-access-*", "cf-*", true),
            ("cf-access-*", "cf-access-jwt*", true),
            ("cf-access-*", "*-assertion", true),
            ("cf-access-*", "cf-access-jwt-assertion", true),
            ("cf-access-*", "cf-ray*", false),
            ("cf-access-*", "cf-access", false),
            ("x-zumo-auth", "x-*-auth", true),
            ("x-zumo-auth", "x-zumo-*-auth", false),
        ] {
            assert_eq!(meets(known, &Glob::new(pattern)), expected, "{known} {pattern}");
        }
    }

    #[test]
    fn identity_is_known_by_its_front() {
        let azure = Fronts::default().with(Front::Azure);
        assert!(azure.is_identity("x-ms-client-principal-name") && !azure.is_identity("x-ms"));
        assert!(!Fronts::default().is_identity("x-ms-client-principal"));
        assert_eq!(known("x-amzn-oidc-data").map(|one| one.class), Some(FrontClass::Identity));
        assert_eq!(known("x-odd"), None);
        assert_eq!(format!("{:?}", azure.with(Front::AwsAlb)), "[\"aws-alb\", \"azure\"]");
    }
}
