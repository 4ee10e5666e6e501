//! The request of a fill is a function of the key: without sockets, for many pairs of requests. The
//! suite has the same property on the wire, in `flow::fill_bytes`.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{COOKIE, IF_MODIFIED_SINCE, IF_NONE_MATCH, USER_AGENT};
use proptest::prelude::*;

use super::*;
use crate::policy::scope::Scope;

/// Rules of every kind that lets nothing through by the operator's word, all for `/a/{id}`.
const KINDS: [&str; 9] = [
    "",
    "scope = \"public\"",
    "scope = \"shared\"",
    "encoded_slash = \"keep\"\nscope = \"public\"\ntags = [\"x:{id}\"]",
    "unknown_headers = \"drop\"\nquery = [\"page\"]",
    "unknown_headers = \"drop\"\nscope = \"public\"\nkey = [\"lang\"]\nquery = \"none\"",
    "unknown_headers = \"drop\"\nscope = \"shared\"\nkey = [\"tenant\"]",
    "unknown_headers = \"drop\"\nkey = [\"token\", \"lang\"]",
    "drop_headers = [\"x-odd\", \"origin\", \"cookie\"]",
];

static RULES: std::sync::LazyLock<Vec<PolicyRules>> = std::sync::LazyLock::new(|| {
    let fields = "[fields]\ntenant = { header = \"x-tenant-id\" }\nlang = \
        { cookie = \"lang\" }\ntoken = { auth = \"prefix\", length = 8 }\n";
    let all = KINDS.iter().enumerate().map(|(number, kind)| {
        let credential = if number % 2 == 0 { "" } else { "[credential]\ncookies = [\"sid\"]\n" };
        rules(&format!(
            "{credential}{fields}[[routes]]\npath = \"/a/{{id}}\"\nttl = \"5m\"\n{kind}"
        ))
    });
    all.collect()
});

const POOL: [(&str, &[&str]); 33] = [
    ("host", &["app.test", "APP.test", "app.test:80"]),
    ("accept", &["*/*", "text/html, */*;q=0.1", "text/html,*/*; q=0.1", "TEXT/html"]),
    ("accept-encoding", &["gzip, br", "br,GZIP", "gzip, br;q=0", "identity", "*;q=0", "x y"]),
    ("accept-language", &["de", "en, de;q=0.5", "de;q=0.50,EN", "x y", "de, fr;q=0"]),
    ("authorization", &["Bearer aaaaaaaaaaaa", "Bearer aaaaaaaaaaab", "Basic eA=="]),
    ("cookie", &["sid=1", "lang=de; sid=1", "sid=1;lang=de", "_ga=1", "sid=1; _ga=2", "odd"]),
    ("x-tenant-id", &["acme", " acme", "other"]),
    ("origin", &["https://a.test", "https://b.test"]),
    ("x-requested-with", &["XMLHttpRequest"]),
    ("content-type", &["text/plain"]),
    ("x-forwarded-host", &["a.test", "b.test"]),
    ("x-forwarded-proto", &["https"]),
    ("x-forwarded-for", &["127.0.0.1", "198.51.100.7"]),
    ("x-real-ip", &["127.0.0.1", "198.51.100.7"]),
    ("forwarded", &["for=198.51.100.7"]),
    ("via", &["1.1 other"]),
    ("x-odd", &["1", "2"]),
    ("user-agent", &["one", "two"]),
    ("referer", &["https://a.test/"]),
    ("accept-charset", &["utf-8"]),
    ("dnt", &["1"]),
    ("priority", &["u=1"]),
    ("save-data", &["on"]),
    ("sec-fetch-mode", &["cors"]),
    ("sec-ch-ua", &["\"x\""]),
    ("x-request-id", &["1", "2"]),
    ("traceparent", &["1"]),
    ("max-forwards", &["1"]),
    ("te", &["trailers"]),
    ("cache-control", &["no-cache", "max-age=0"]),
    ("pragma", &["no-cache"]),
    ("if-none-match", &["\"1\""]),
    ("range", &["bytes=0-0"]),
];

const TARGETS: [&str; 12] = [
    "/a/1",
    "/a/1?",
    "/a/1?page=1",
    "/a/1?page=1&utm=2",
    "/a/1?utm=3&page=1",
    "/a/%31",
    "/%61/1",
    "/a/caf%C3%A9",
    "/a/caf%c3%a9",
    "/a/x%2fy",
    "/a/x%2Fy",
    "/a/x%2fy?page=1",
];

const VERSIONS: [Version; 3] = [Version::HTTP_11, Version::HTTP_10, Version::HTTP_2];

/// A request, with what `SentRequest` leaves out.
#[derive(Clone, Debug)]
struct Case {
    sent: SentRequest,
    version: Version,
    address: u8,
}

impl Case {
    fn new(target: usize, version: usize, address: u8, lines: &[(usize, usize)]) -> Self {
        let trusted = address == 1;
        let mut sent = SentRequest { trusted, ..SentRequest::get(TARGETS[target % TARGETS.len()]) };
        for (name, value) in lines {
            let (name, values) = POOL[name % POOL.len()];
            let value = values[value % values.len()];
            if name == "host" {
                sent.headers.insert(HOST, HeaderValue::from_static(value));
            } else {
                sent = sent.with(name, value);
            }
        }
        let version = VERSIONS[version % VERSIONS.len()];
        if version == Version::HTTP_2 {
            // Its authority is in the target.
            let host = sent.headers.remove(HOST).expect("every request has one");
            let whole = format!("http://{}{}", host.to_str().unwrap(), sent.uri);
            sent.uri = whole.parse().unwrap();
        }
        Self { sent, version, address }
    }

    fn view(&self) -> RequestView<'_> {
        let client = IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.address));
        RequestView { version: self.version, client: Some(client), ..self.sent.view() }
    }
}

/// The head that the origin gets on a fill, as lines. The only place that knows how it is made.
fn head_of_fill(lookup: &Lookup<'_>) -> Vec<String> {
    let head = lookup.fill_request(HeaderValue::from_static("made-here"));
    let lines =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    std::iter::once(format!("GET {}", head.target)).chain(lines).collect()
}

/// Two requests of which the second has some of the first one's lines, and some others.
fn pair() -> impl Strategy<Value = [Case; 2]> {
    let line = || (0..POOL.len(), any::<usize>());
    let place = || (0..TARGETS.len(), 0..VERSIONS.len(), 1..4_u8);
    let lines = || prop::collection::vec(line(), 0..4);
    (place(), place(), any::<[bool; 3]>(), lines(), lines(), lines()).prop_map(
        |(one, two, moved, common, first, second)| {
            let (mut target, mut version, mut address) = one;
            let first = Case::new(target, version, address, &[common.clone(), first].concat());
            if moved[0] {
                target = two.0;
            }
            if moved[1] {
                version = two.1;
            }
            if moved[2] {
                address = two.2;
            }
            [first, Case::new(target, version, address, &[common, second].concat())]
        },
    )
}

/// The lines that are compared: without those of a validator, with any id that the sidecar makes;
/// without the caller where two of them share an entry.
fn comparable(lookup: &Lookup<'_>, lines: Vec<String>) -> Vec<String> {
    let shared = lookup.route.spec.scope == Scope::Shared;
    let private = lookup.route.spec.scope == Scope::Private && lookup.credential.is_some();
    let is_caller = |name: &str| {
        shared && (name == "authorization" || name == COOKIE.as_str())
            || private && name == USER_AGENT.as_str()
    };
    lines
        .into_iter()
        .filter_map(|line| {
            let name = line.split(':').next().unwrap_or_default();
            match name {
                "x-request-id" | "traceparent" => Some(format!("{name}: (an id)")),
                _ if name == IF_NONE_MATCH.as_str() || name == IF_MODIFIED_SINCE.as_str() => None,
                _ if is_caller(name) => None,
                _ => Some(line),
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_500))]

    // Each case runs under all eight sets of rules.
    #[test]
    fn equal_keys_have_one_fill([one, two] in pair()) {
        for rules in RULES.iter() {
            let (view_one, view_two) = (one.view(), two.view());
            let (Plan::Lookup(first), Plan::Lookup(second)) =
                (rules.plan(&view_one), rules.plan(&view_two))
            else {
                continue;
            };
            let known = first.unknown.is_empty() && second.unknown.is_empty();
            if known && first.key.canonical() == second.key.canonical() {
                let heads = [&first, &second]
                    .map(|lookup| comparable(lookup, head_of_fill(lookup)));
                prop_assert_eq!(&heads[0], &heads[1], "{:?}\n{:?}", one.sent, two.sent);
            }
        }
    }
}

/// Guards against a vacuous property: it would also hold if no two requests had one key.
#[test]
fn many_of_the_pairs_have_one_key() {
    use proptest::strategy::ValueTree as _;
    let (mut runner, strategy) = (proptest::test_runner::TestRunner::deterministic(), pair());
    let (mut same, mut different) = (0, 0);
    for _ in 0..500 {
        let [one, two] = strategy.new_tree(&mut runner).unwrap().current();
        for rules in RULES.iter() {
            let (view_one, view_two) = (one.view(), two.view());
            if let (Plan::Lookup(first), Plan::Lookup(second)) =
                (rules.plan(&view_one), rules.plan(&view_two))
            {
                let equal = first.key.canonical() == second.key.canonical();
                *(if equal { &mut same } else { &mut different }) += 1;
            }
        }
    }
    assert!(same > 200 && different > 200, "{same} pairs with one key, {different} with two");
}
