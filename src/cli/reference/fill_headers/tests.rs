//! Each row of the table, header by header, against the plan of a request with that header.

use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Method, Uri, Version};

use super::*;
use crate::config::Config;
use crate::outcome::Reason;
use crate::policy::apps::{AppId, Apps};
use crate::policy::client_address::ClientAddressRule;
use crate::policy::plan::{FillHead, Plan, PolicyRules, RequestView};
use crate::secret::Hasher;
use crate::semantics::forward;
use crate::semantics::forward::Upgrades;
use crate::semantics::request_fields::RequestFields;
use crate::semantics::vary::VarySpec;

/// The rules of a file with one route.
fn rules(route: &str) -> PolicyRules {
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[credential]\nheaders = [\"x-api-key\"]\n\
         cookies = [\"sid\"]\n[fields]\nlang = {{ cookie = \"lang\" }}\n\
         office = {{ client = \"address\" }}\n[[routes]]\npath = \
         \"/{{*rest}}\"\nttl = \"5m\"\n{route}\n"
    );
    let config = Config::parse(&text, "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    PolicyRules {
        apps: Apps::default(),
        webhooks: config.webhook_paths(),
        documents: std::sync::Arc::default(),
        client_address: ClientAddressRule::new(&config.routes, &config.purges, &[].into()),
        routes: config.routes,
        purges: config.purges,
        credential: config.credential,
        hasher: Hasher::default(),
        max_key: 16 * 1024,
        max_read_body: 0,
        upgrades: Upgrades::default(),
        tokens: None,
        identities: None,
        purge_requests: None,
    }
}

/// What becomes of a request with these headers.
#[derive(Debug, PartialEq)]
enum Treatment {
    /// A fill with this key and these headers.
    Fill(Vec<u8>, HeaderMap),
    /// A pass, for this reason.
    Pass(Reason),
}

impl Treatment {
    fn fill(self) -> (Vec<u8>, HeaderMap) {
        match self {
            Self::Fill(key, headers) => (key, headers),
            Self::Pass(reason) => panic!("it passes: {}", reason.as_str()),
        }
    }
}

fn treatment(rules: &PolicyRules, headers: &[(&str, &str)], peer_is_trusted: bool) -> Treatment {
    let uri = Uri::from_static("/a?b=1");
    let mut map = HeaderMap::from_iter([(HOST, HeaderValue::from_static("app.test"))]);
    for (name, value) in headers {
        map.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let plan = rules.plan(&RequestView {
        app: AppId::FIRST,
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &map,
        fields: RequestFields::of(&map),
        has_body: false,
        seen_body: None,
        identity: None,
        peer_is_trusted,
        now: crate::clock::Wall::default(),
        is_again: false,
        bypass: forward::offered_upgrade(&map, Version::HTTP_11, &Upgrades::default())
            .map(|_| Reason::Upgrade),
        client: Some([198, 51, 100, 7].into()),
    });
    match plan {
        Plan::Lookup(lookup) if lookup.unknown.is_empty() => {
            let FillHead { headers, .. } = lookup.fill_request(HeaderValue::from_static("id"));
            Treatment::Fill(lookup.key.canonical().to_vec(), headers)
        }
        Plan::Lookup(_) => Treatment::Pass(Reason::UnkeyedHeader),
        Plan::Pass(_, outcome) => Treatment::Pass(outcome.reason.unwrap()),
        other => panic!("{headers:?}: {other:?}"),
    }
}

/// Two values of a header that mean something different, as they are sent.
fn values(name: &str) -> [&'static str; 2] {
    match name {
        "accept" => ["application/json", "text/html"],
        "accept-encoding" => ["gzip", "br"],
        "accept-language" => ["de", "en"],
        "connection" => ["close", "keep-alive"],
        "content-length" => ["0", "1"],
        "cookie" => ["sid=1", "sid=2"],
        "host" => ["one.test", "two.test"],
        "upgrade" => ["h2c", "tls/1.0"],
        _ => ["one", "two"],
    }
}

/// Both values of a header have a key of their own, and reach the origin.
fn assert_keyed(rules: &PolicyRules, name: &str, trusted: bool) {
    let (bare, _) = treatment(rules, &[], trusted).fill();
    let [one, two] = values(name).map(|value| {
        let (key, headers) = treatment(rules, &[(name, value)], trusted).fill();
        assert_eq!(headers[name], value, "{name} reaches the origin as the key has it");
        key
    });
    assert!(one != two && one != bare && two != bare, "{name} is in the key");
}

/// Neither the key nor the origin sees the header.
fn assert_unseen(rules: &PolicyRules, name: &str, trusted: bool) {
    let bare = treatment(rules, &[], trusted);
    for value in values(name) {
        assert_eq!(treatment(rules, &[(name, value)], trusted), bare, "{name} is withheld");
    }
}

#[test]
fn each_row_says_what_becomes_of_its_headers() {
    for scope in ["public", "shared", "private"] {
        let fresh = || rules(&format!("scope = {scope:?}"));
        let all = fresh();
        for row in rows() {
            assert!(!row.names.is_empty() && !row.text.is_empty());
            for name in &row.names {
                match row.fate {
                    HeaderFate::Keyed => assert_keyed(&all, name, false),
                    HeaderFate::KeyedFromTrusted => {
                        assert_keyed(&all, name, true);
                        let stranger = treatment(&all, &[(name, "one")], false);
                        assert_eq!(stranger, Treatment::Pass(Reason::UnkeyedHeader), "{name}");
                    }
                    HeaderFate::Replaced => {
                        assert_unseen(&all, name, false);
                        assert_unseen(&all, name, true);
                        assert!(is_refused_in_vary(&all, name), "{name}");
                    }
                    HeaderFate::WithheldUntilNamed => {
                        assert_unseen(&all, name, false);
                        assert!(!is_refused_in_vary(&all, name), "{name}");
                        let learned = fresh();
                        let route = learned.routes.iter().next().unwrap();
                        let _ = route.headers.learn(&HeaderName::from_static(name));
                        assert_keyed(&learned, name, false);
                    }
                    HeaderFate::Withheld if *name == "host" => assert_keyed(&all, name, false),
                    HeaderFate::Withheld => assert_unseen(&all, name, false),
                    HeaderFate::Passes => assert_eq!(
                        treatment(&all, &[(name, "one")], false),
                        Treatment::Pass(Reason::Precondition)
                    ),
                    HeaderFate::Credential => match scope {
                        "public" => assert_unseen(&all, name, false),
                        "private" => assert_sent(&all, name, true),
                        _ => assert_sent(&all, name, false),
                    },
                }
            }
        }
    }
}

/// Whether a response that varies on this header is not stored.
fn is_refused_in_vary(rules: &PolicyRules, name: &'static str) -> bool {
    let route = rules.routes.iter().next().unwrap();
    let response = HeaderMap::from_iter([(http::header::VARY, HeaderValue::from_static(name))]);
    let vary = VarySpec::from_response(&HeaderMap::new(), &response).unwrap();
    route.variants_by(&vary, &route.headers.context(false)).is_err()
}

/// A credential reaches the origin, and is in the key or not.
fn assert_sent(rules: &PolicyRules, name: &str, is_keyed: bool) {
    let [one, two] = values(name).map(|value| {
        let (key, headers) = treatment(rules, &[(name, value)], false).fill();
        assert_eq!(headers[name], value, "{name}");
        key
    });
    assert_eq!(one != two, is_keyed, "{name}");
    let digits =
        |value: &str, key: &[u8]| key.windows(value.len()).any(|bytes| bytes == value.as_bytes());
    assert!(!digits(values(name)[0], &one), "{name} is hashed");
}

#[test]
fn what_the_texts_add_to_their_rows_is_so() {
    let public = rules("scope = \"public\"");
    let (_, bare) = treatment(&public, &[], false).fill();
    for (name, value) in [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("x-forwarded-for", FILL_ADDRESS),
        ("x-real-ip", FILL_ADDRESS),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "app.test"),
        ("x-request-id", "id"),
        ("user-agent", FILL_USER_AGENT),
        ("host", "app.test"),
    ] {
        assert_eq!(bare[name], value, "{name}");
    }
    assert!(bare["forwarded"].to_str().unwrap().contains(FILL_ADDRESS));
    // All that is not named here is withheld.
    let named = ["forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let rest = ["accept", "accept-encoding", "user-agent", "x-real-ip", "x-request-id"];
    let mut sent: Vec<&str> = bare.keys().map(HeaderName::as_str).collect();
    sent.sort_unstable();
    let mut expected = [&named[..], &rest].concat();
    expected.sort_unstable();
    assert_eq!(sent, expected);

    for name in ["sec-fetch-mode", "sec-ch-ua"] {
        assert_unseen(&public, name, false);
    }
    // A range counts as one without `Accept-Encoding`.
    let (gzip, range) = (("accept-encoding", "gzip"), ("range", "bytes=0-1"));
    assert_eq!(treatment(&public, &[gzip, range], false), treatment(&public, &[], false));
    // An address that the key holds.
    let office = rules("scope = \"public\"\nkey = [\"office\"]");
    assert_eq!(treatment(&office, &[], false).fill().1["x-real-ip"], "198.51.100.7");
    assert!(!is_refused_in_vary(&office, "x-forwarded-for"));
    assert!(is_refused_in_vary(&office, "x-request-id"));
    // An upgrade.
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(treatment(&public, &upgrade, false), Treatment::Pass(Reason::Upgrade));
    // Any other header.
    assert_eq!(
        treatment(&public, &[("x-other", "1")], false),
        Treatment::Pass(Reason::UnkeyedHeader)
    );
}

#[test]
fn credentials_and_cookies_are_as_the_rows_of_their_scopes_say() {
    let of = |scope: &str| rules(&format!("scope = {scope:?}"));
    let agent = [("user-agent", "curl/8"), ("authorization", "Bearer 1")];
    let seen = |scope: &str| treatment(&of(scope), &agent, false).fill().1["user-agent"].clone();
    assert_eq!(seen("private"), "curl/8");
    assert_eq!(
        (seen("shared"), seen("public")),
        (FILL_USER_AGENT.parse().unwrap(), FILL_USER_AGENT.parse().unwrap())
    );
    assert_sent(&of("private"), "x-api-key", true);
    assert_sent(&of("shared"), "x-api-key", false);
    assert_unseen(&of("public"), "x-api-key", false);

    let cookie = |rules: &PolicyRules, line: &str| {
        let (key, headers) = treatment(rules, &[("cookie", line)], false).fill();
        (key, headers.get("cookie").map(|value| value.to_str().unwrap().to_owned()))
    };
    for scope in ["private", "shared"] {
        let rules = of(scope);
        let (key, sent) = cookie(&rules, "_ga=1; sid=a; theme=dark");
        assert_eq!(sent.as_deref(), Some("sid=a; theme=dark"), "{scope}");
        assert_ne!(key, cookie(&rules, "sid=a; theme=light").0, "{scope}");
        assert_eq!(key != cookie(&rules, "sid=b; theme=dark").0, scope == "private");
    }
    let public = rules("scope = \"public\"\nkey = [\"lang\"]");
    let (key, sent) = cookie(&public, "sid=a; lang=de");
    assert_eq!(sent.as_deref(), Some("lang=de"));
    assert_eq!(key, cookie(&public, "sid=b; lang=de").0);
    assert_ne!(key, cookie(&public, "sid=a; lang=en").0);
}
