//! Plans of requests: what bypasses the cache, and why. Keys, mutations and properties that hold
//! for every request have files of their own.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};

use super::*;
use crate::clock::Wall;
use crate::config::Config;
use crate::policy::client_address::ClientAddressRule;
use crate::policy::keyed_body::SeenBody;
use crate::policy::tag::Tag;
use crate::secret::Hasher;
use crate::semantics::forward;
use crate::semantics::forward::Upgrades;
use crate::semantics::request_fields::RequestFields;

mod apps;
mod body_reads;
mod fill_bytes;
mod guests;
mod identity;
mod keys;
mod matches;
mod mutations;
mod properties;

/// The rules of a `proxy.toml` with these tables and an `[upstream]`.
fn rules(toml: &str) -> PolicyRules {
    rules_with("", toml)
}

/// The same, with this line in `[upstream]`.
fn rules_with(upstream: &str, toml: &str) -> PolicyRules {
    let text = format!("[upstream]\nurl = \"http://127.0.0.1:1\"\n{upstream}\n{toml}");
    let config = Config::parse(&text, "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let max_key = usize::try_from(config.limits.key).expect("a small number");
    let trusted = config.server.trusted_proxies.networks();
    let apps = config.app_rules();
    PolicyRules {
        apps,
        documents: Arc::default(),
        tokens: None,
        identities: None,
        webhooks: config.webhook_paths(),
        purge_requests: config.purge_requests,
        client_address: ClientAddressRule::new(&config.routes, &config.purges, &trusted),
        routes: config.routes,
        purges: config.purges,
        credential: config.credential,
        hasher: Hasher::default(),
        max_key,
        max_read_body: config.limits.read_body,
        upgrades: Upgrades::default(),
    }
}

/// A request, owned.
#[derive(Clone, Debug)]
struct SentRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    has_body: bool,
    body: Option<SeenBody>,
    trusted: bool,
}

impl SentRequest {
    fn new(method: &str, target: &str) -> Self {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("app.test"))]);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Self {
            method,
            uri: target.parse().unwrap(),
            headers,
            has_body: false,
            body: None,
            trusted: false,
        }
    }

    fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn trusted(self) -> Self {
        Self { trusted: true, ..self }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            app: AppId::FIRST,
            method: &self.method,
            uri: &self.uri,
            version: Version::HTTP_11,
            headers: &self.headers,
            fields: RequestFields::of(&self.headers),
            has_body: self.has_body,
            seen_body: self.body.as_ref(),
            identity: None,
            peer_is_trusted: self.trusted,
            bypass: forward::offered_upgrade(&self.headers, Version::HTTP_11, &Upgrades::default())
                .map(|_| Reason::Upgrade),
            client: Some([192, 0, 2, 7].into()),
            now: Wall::default(),
            is_again: false,
        }
    }
}

/// The plan of a request, in a few words.
fn verdict(rules: &PolicyRules, sent: &SentRequest) -> String {
    match rules.plan(&sent.view()) {
        Plan::Lookup(lookup) if lookup.unknown.is_empty() => "lookup".to_owned(),
        Plan::Lookup(lookup) => format!("unkeyed header {}", lookup.unknown[0]),
        Plan::Mutate(method) => format!("mutate {method}"),
        Plan::Pass(_, outcome) => {
            outcome.detail().map(|detail| detail.to_string()).unwrap_or_default()
        }
        Plan::Refuse(_, name) => format!("refuse {name}"),
        Plan::Identify(_) => "ask who it is".to_owned(),
        Plan::ReadBody(_) => "read the body".to_owned(),
    }
}

fn lookup<'a>(rules: &'a PolicyRules, sent: &'a SentRequest) -> Box<Lookup<'a>> {
    match rules.plan(&sent.view()) {
        Plan::Lookup(lookup) => lookup,
        other => panic!("{sent:?} is not looked up: {other:?}"),
    }
}

fn key(rules: &PolicyRules, sent: &SentRequest) -> Vec<u8> {
    lookup(rules, sent).key.canonical().to_vec()
}

fn request_id() -> HeaderValue {
    HeaderValue::from_static("1")
}

/// The value of a header in the request of a fill.
fn filled(rules: &PolicyRules, sent: &SentRequest, name: &str) -> Option<String> {
    let FillHead { headers, .. } = lookup(rules, sent).fill_request(request_id());
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

fn target(rules: &PolicyRules, sent: &SentRequest) -> String {
    lookup(rules, sent).fill_request(request_id()).target.to_string()
}

const TENANT: &str = "[fields]\ntenant = { header = \"x-tenant-id\" }\nlang = \
    { cookie = \"lang\" }\nplace = { query = \"place\" }\n";

fn with_route(keys: &str) -> PolicyRules {
    rules(&format!("{TENANT}[[routes]]\npath = \"/a/{{id}}\"\nttl = \"5m\"\n{keys}\n"))
}

#[test]
fn a_missing_field_bypasses_and_is_named() {
    let rules = with_route("key = [\"tenant\", \"lang\", \"place\"]");
    let whole =
        || SentRequest::get("/a/1?place=x").with("x-tenant-id", "acme").with("cookie", "lang=de");
    assert_eq!(verdict(&rules, &whole()), "lookup");
    let cases = [
        (SentRequest::get("/a/1?place=x").with("cookie", "lang=de"), "missing field tenant"),
        (
            SentRequest::get("/a/1?place=x").with("x-tenant-id", "").with("cookie", "lang=de"),
            "missing field tenant",
        ),
        (
            SentRequest::get("/a/1?place=x").with("x-tenant-id", " ").with("cookie", "lang=de"),
            "missing field tenant",
        ),
        (SentRequest::get("/a/1?place=x").with("x-tenant-id", "acme"), "missing field lang"),
        (
            SentRequest::get("/a/1?place=x").with("x-tenant-id", "acme").with("cookie", "lang="),
            "missing field lang",
        ),
        (
            SentRequest::get("/a/1").with("x-tenant-id", "acme").with("cookie", "lang=de"),
            "missing field place",
        ),
        (
            SentRequest::get("/a/1?place=").with("x-tenant-id", "acme").with("cookie", "lang=de"),
            "missing field place",
        ),
    ];
    for (sent, expected) in cases {
        assert_eq!(verdict(&rules, &sent), expected, "{sent:?}");
    }
    // A field that only a tag reads is required as well: without it a purge could miss the entry.
    let rules = with_route("tags = [\"a:{tenant}\"]");
    assert_eq!(verdict(&rules, &SentRequest::get("/a/1")), "missing field tenant");
}

#[test]
fn a_header_of_the_key_that_is_repeated_or_removed_by_connection_is_refused() {
    let rules = with_route("key = [\"tenant\"]");
    let acme = || SentRequest::get("/a/1").with("x-tenant-id", "acme");
    assert_eq!(
        verdict(&rules, &acme().with("x-tenant-id", "acme")),
        "refuse x-tenant-id",
        "repeating the same value counts as well"
    );
    assert_eq!(
        verdict(&rules, &acme().with("authorization", "a").with("authorization", "b")),
        "refuse authorization"
    );
    for (line, expected) in [
        ("x-tenant-id", "refuse x-tenant-id"),
        ("close, X-Tenant-ID", "refuse x-tenant-id"),
        ("keep-alive,\tx-TENANT-id ,foo", "refuse x-tenant-id"),
        ("Authorization", "refuse authorization"),
        ("cookie", "refuse cookie"),
        ("close", "lookup"),
        ("keep-alive, te", "lookup"),
    ] {
        assert_eq!(verdict(&rules, &acme().with("connection", line)), expected, "{line}");
    }
    let hidden = acme().with("connection", "keep-alive").with("connection", "x-tenant-id");
    assert_eq!(verdict(&rules, &hidden), "refuse x-tenant-id", "also on a second line");
    // Without a route no header is read, so the request is not refused.
    assert_eq!(
        verdict(&rules, &SentRequest::get("/b").with("x-tenant-id", "a").with("x-tenant-id", "b")),
        "no route"
    );
}

#[test]
fn repeated_cookies_and_parameters_of_a_field_bypass() {
    let rules = with_route("key = [\"lang\"]");
    assert_eq!(
        verdict(&rules, &SentRequest::get("/a/1").with("cookie", "lang=de; lang=en")),
        "ambiguous cookie lang"
    );
    assert_eq!(
        verdict(
            &rules,
            &SentRequest::get("/a/1").with("cookie", "lang=de").with("cookie", "lang=de")
        ),
        "ambiguous cookie lang"
    );
    let rules = with_route("key = [\"place\"]");
    for query in [
        "place=a&place=b",
        "place=a&pl%61ce=b",
        "place[]=a",
        "place=a;x=1",
        "x=1;place=b&place=a",
        "place=%zz",
    ] {
        assert_eq!(
            verdict(&rules, &SentRequest::get(&format!("/a/1?{query}"))),
            "ambiguous query",
            "{query}"
        );
    }
}

#[test]
fn an_unknown_header_bypasses_or_is_dropped_or_passes() {
    let account = || SentRequest::get("/a/1").with("x-account-id", "7");
    let rules = with_route("");
    assert_eq!(verdict(&rules, &account()), "unkeyed header x-account-id");
    for rule in ["unknown_headers = \"drop\"", "drop_headers = [\"x-account-id\"]"] {
        let rules = with_route(rule);
        assert_eq!(verdict(&rules, &account()), "lookup", "{rule}");
        assert_eq!(filled(&rules, &account(), "x-account-id"), None, "{rule}");
        assert_eq!(key(&rules, &account()), key(&rules, &SentRequest::get("/a/1")), "{rule}");
    }
    for rule in ["unknown_headers = \"pass\"", "pass_headers = [\"x-account-id\"]"] {
        let rules = with_route(rule);
        assert_eq!(verdict(&rules, &account()), "lookup", "{rule}");
        assert_eq!(filled(&rules, &account(), "x-account-id").as_deref(), Some("7"), "{rule}");
        assert_eq!(key(&rules, &account()), key(&rules, &SentRequest::get("/a/1")), "{rule}");
    }
    // The lists name headers; other unknown headers still bypass.
    let rules = with_route("drop_headers = [\"x-a\"]\npass_headers = [\"x-b\"]");
    let sent = SentRequest::get("/a/1").with("x-a", "1").with("x-b", "2").with("x-c", "3");
    assert_eq!(verdict(&rules, &sent), "unkeyed header x-c");
    // `drop_headers` also withholds headers that would otherwise be forwarded or keyed.
    let rules = with_route("drop_headers = [\"user-agent\", \"accept\"]");
    let sent = SentRequest::get("/a/1").with("user-agent", "x").with("accept", "text/html");
    assert_eq!(
        (filled(&rules, &sent, "user-agent"), filled(&rules, &sent, "accept")),
        (None, None)
    );
    assert_eq!(key(&rules, &sent), key(&rules, &SentRequest::get("/a/1")));
}

#[test]
fn ambiguous_paths_bypass_with_a_reason_of_their_own() {
    let rules = with_route("");
    for path in [
        "/a%2f1",
        "/a;v=1/1",
        "/a/1;x.css",
        "//a/1",
        "/a//1",
        "/a/./1",
        "/b/../a/1",
        "/a/%2e/1",
        "/a/1%00",
        "/a/1%5c",
    ] {
        assert_eq!(verdict(&rules, &SentRequest::get(path)), "ambiguous path", "{path}");
    }
    assert_eq!(verdict(&rules, &SentRequest::get("/b;x")), "no route");
    assert_eq!(
        key(&rules, &SentRequest::get("/%61/1")),
        key(&rules, &SentRequest::get("/a/1")),
        "one normal form"
    );
}

#[test]
fn an_escaped_slash_is_a_part_of_its_segment_where_the_route_says_so() {
    let keeping = |more: &str| {
        rules(&format!(
            "[[routes]]\npath = \"/p/{{id}}\"\nttl = \"5m\"\nscope = \"shared\"\n\
             encoded_slash = \"keep\"\n{more}"
        ))
    };
    let other = |keys: &str| format!("[[routes]]\npath = \"/p/{{a}}/{{b}}\"\nttl = \"5m\"\n{keys}");
    let plain = keeping("");
    let get = SentRequest::get;
    assert_eq!(key(&plain, &get("/p/a%2fb")), key(&plain, &get("/p/a%2Fb")), "one key");
    for different in ["/p/ab", "/p/a%2fB", "/p/a%2fb%2fc"] {
        assert_ne!(key(&plain, &get("/p/a%2fb")), key(&plain, &get(different)), "{different}");
    }
    for doubtful in ["/p/a%252fb", "/p/..%2fb", "/p/a%2f%2fb", "/p/a%5cb"] {
        assert_eq!(verdict(&plain, &get(doubtful)), "ambiguous path", "{doubtful}");
    }
    // The other reading is on a route of its own.
    for (keys, is_cached) in [
        ("scope = \"shared\"", true),
        ("scope = \"public\"", true),
        ("scope = \"private\"", false),
        ("scope = \"public\"\nmode = \"off\"", false),
    ] {
        let rules = keeping(&other(keys));
        let verdict = verdict(&rules, &get("/p/a%2fb"));
        assert_eq!(verdict != "ambiguous path", is_cached, "{keys}: {verdict}");
    }
    let passing = rules(&other(""));
    assert_eq!(verdict(&passing, &get("/p/a/b%2fc")), "ambiguous path", "the default");
    assert_eq!(verdict(&passing, &get("/q/a%2fb")), "no route");
}

#[test]
fn requests_that_the_cache_cannot_answer_bypass() {
    let rules = with_route("key = [\"tenant\"]");
    let get = || SentRequest::get("/a/1").with("x-tenant-id", "acme");
    assert_eq!(verdict(&rules, &SentRequest { has_body: true, ..get() }), "request body");
    assert_eq!(verdict(&rules, &get().with("if-match", "\"1\"")), "precondition");
    assert_eq!(
        verdict(&rules, &get().with("upgrade", "websocket").with("connection", "upgrade")),
        "upgrade"
    );
    assert_eq!(
        verdict(&rules, &get().with("upgrade", "spice").with("connection", "upgrade")),
        "lookup",
        "an offer that is not taken up changes nothing"
    );
    assert_eq!(verdict(&rules, &SentRequest::new("OPTIONS", "/a/1")), "method");
    assert_eq!(verdict(&rules, &SentRequest::new("POST", "/a/1")), "mutate POST");
    assert_eq!(verdict(&rules, &get().with("x-http-method-override", "delete")), "method override");
    assert_eq!(
        verdict(&rules, &get().with("x-http-method-override", "get")),
        "unkeyed header x-http-method-override"
    );
    assert_eq!(verdict(&rules, &get().with("x-method-override", "PUT")), "method override");
    assert_eq!(verdict(&with_route("mode = \"off\""), &SentRequest::get("/a/1")), "mode off");
    let long = get().with("origin", &"a".repeat(rules.max_key));
    assert_eq!(verdict(&rules, &long), "key too long");
    // Conditions and ranges are addressed to the cache: the fill fetches the whole response.
    let range = get().with("range", "bytes=0-1").with("if-range", "\"1\"");
    assert_eq!(
        (verdict(&rules, &range), key(&rules, &range)),
        ("lookup".to_owned(), key(&rules, &get()))
    );
    assert_eq!((filled(&rules, &range, "range"), filled(&rules, &range, "if-range")), (None, None));
    let conditional = get().with("if-none-match", "\"1\"").with("cache-control", "no-cache");
    assert_eq!(key(&rules, &conditional), key(&rules, &get()));
    assert_eq!(
        (
            filled(&rules, &conditional, "if-none-match"),
            filled(&rules, &conditional, "cache-control")
        ),
        (None, None)
    );
}
