//! Properties of every request: the origin receives nothing that is not in the key, and both ways
//! to compute a variant's key agree.

use http::header::{AUTHORIZATION, COOKIE, USER_AGENT};
use proptest::prelude::*;

use super::*;
use crate::policy::route::HeaderRole;
use crate::policy::scope::Scope;
use crate::semantics::forward;
use crate::semantics::vary::VarySpec;

/// Rules of every kind, all for the path `/a/{id}`.
const KINDS: [&str; 12] = [
    "",
    "key = [\"tenant\"]",
    "key = [\"tenant\", \"lang\"]\nscope = \"shared\"",
    "key = [\"lang\"]\nscope = \"public\"",
    "key = [\"token\"]",
    "key = [\"token\", \"lang\"]",
    "key = [\"token\", \"tenant\"]\nscope = \"shared\"\npass_headers = [\"cookie\"]",
    "unknown_headers = \"drop\"\nquery = [\"page\"]",
    "unknown_headers = \"pass\"\nscope = \"public\"",
    "scope = \"shared\"\nunknown_headers = \"drop\"\nquery = \"none\"",
    "drop_headers = [\"x-odd\", \"origin\", \"cookie\"]\npass_headers = [\"x-requested-with\"]",
    "tags = [\"a:{tenant}:{lang}\"]\nunknown_headers = \"drop\"",
];

const CREDENTIALS: [&str; 3] = [
    "",
    "[credential]\nheaders = [\"x-api-key\"]\n",
    "[credential]\nheaders = [\"x-api-key\"]\ncookies = [\"sid\"]\n",
];

fn every_kind() -> Vec<PolicyRules> {
    let fields = "[fields]\ntenant = { header = \"x-tenant-id\" }\nlang = \
        { cookie = \"lang\" }\ntoken = { auth = \"prefix\", length = 8 }\n";
    let all = CREDENTIALS.iter().flat_map(|credential| {
        KINDS.map(|kind| {
            format!("{credential}{fields}[[routes]]\npath = \"/a/{{id}}\"\nttl = \"5m\"\n{kind}\n")
        })
    });
    all.map(|toml| rules(&toml)).collect()
}

/// Headers with values that are often equal, and sometimes mean the same without being equal.
const POOL: [(&str, &[&str]); 20] = [
    ("accept", &["*/*", "text/html", "application/json"]),
    ("accept-language", &["de", "en, de;q=0.5", "EN,de;q=0.5", "x y"]),
    ("accept-encoding", &["gzip, br", "br,gzip", "identity", "*;q=0"]),
    ("authorization", &["Bearer aaaaaaaaaaaa", "Bearer aaaaaaaaaaab", "Basic eA=="]),
    (
        "cookie",
        &["sid=1", "sid=2; lang=de", "lang=de; sid=2", "lang=en", "theme=dark; lang=de", "", "odd"],
    ),
    ("x-tenant-id", &["acme", "other"]),
    ("x-api-key", &["k1", "k2"]),
    ("origin", &["https://a.test", "https://b.test"]),
    ("x-requested-with", &["XMLHttpRequest"]),
    ("content-type", &["text/plain"]),
    ("x-forwarded-host", &["a.test", "b.test"]),
    ("x-forwarded-proto", &["https"]),
    ("x-odd", &["1", "2"]),
    ("user-agent", &["one", "two"]),
    ("referer", &["https://a.test/"]),
    ("cache-control", &["no-cache", "max-age=0"]),
    ("if-none-match", &["\"1\""]),
    ("sec-fetch-mode", &["cors"]),
    ("x-request-id", &["1", "2"]),
    ("pragma", &["no-cache"]),
];

const TARGETS: [&str; 6] =
    ["/a/1", "/a/1?page=1", "/a/1?page=1&utm=2", "/a/1?utm=3&page=1", "/a/1?", "/a/%31"];

type HeaderLines = Vec<(usize, usize)>;

fn sent(target: usize, lines: &HeaderLines, trusted: bool) -> SentRequest {
    let mut sent = SentRequest { trusted, ..SentRequest::get(TARGETS[target % TARGETS.len()]) };
    for (name, value) in lines {
        let (name, values) = POOL[name % POOL.len()];
        sent = sent.with(name, values[value % values.len()]);
    }
    sent
}

/// Two requests that have most of their headers in common.
fn pair() -> impl Strategy<Value = (usize, bool, [SentRequest; 2])> {
    let line = (0..POOL.len(), 0_usize..7, 0_u8..6);
    (
        any::<usize>(),
        0..TARGETS.len(),
        0..TARGETS.len(),
        prop::collection::vec(line, 0..7),
        any::<bool>(),
    )
        .prop_map(|(kind, one, two, lines, trusted)| {
            let of = |absent: u8| {
                lines
                    .iter()
                    .filter(|line| line.2 != absent)
                    .map(|line| (line.0, line.1))
                    .collect::<HeaderLines>()
            };
            (kind, trusted, [sent(one, &of(0), trusted), sent(two, &of(1), trusted)])
        })
}

/// The request of a fill as bytes, without what the key need not hold: the credential in scope
/// `shared`, what the operator passes, and in scope `private` a known client's `User-Agent`.
fn bytes_by_key(rules: &PolicyRules, lookup: &Lookup<'_>) -> Vec<Vec<u8>> {
    let FillHead { target, headers } = lookup.fill_request(request_id());
    let scope = lookup.route.spec.scope;
    let is_exempt = |name: &HeaderName| {
        let identifies =
            *name == AUTHORIZATION || *name == COOKIE || rules.credential.headers.contains(name);
        let role = lookup.route.headers.role(name, &lookup.roles);
        role == HeaderRole::Passed
            || (scope == Scope::Shared && identifies)
            || (scope == Scope::Private && lookup.credential.is_some() && *name == USER_AGENT)
    };
    let lines = headers.iter().filter(|(name, _)| !is_exempt(name));
    let lines =
        lines.map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
    std::iter::once(target.to_string().into_bytes()).chain(lines).collect()
}

/// Asserts that the origin cannot distinguish two requests that have the same key and that no
/// unknown header makes bypass.
fn assert_indistinguishable(
    rules: &PolicyRules,
    one: &Lookup<'_>,
    two: &Lookup<'_>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(bytes_by_key(rules, one), bytes_by_key(rules, two));
    let sent = one.fill_request(request_id()).headers;
    for name in sent.keys().filter(|name| !forward::is_original(name)) {
        let role = one.route.headers.role(name, &one.roles);
        prop_assert!(role != HeaderRole::Withheld, "{} is withheld, but reaches the origin", name);
    }
    if one.route.spec.scope == Scope::Public {
        prop_assert!(!sent.contains_key(AUTHORIZATION));
    }
    Ok(())
}

/// A `Vary` with some of the names above, and a name that no request has.
fn vary(names: &[usize]) -> VarySpec {
    let names: Vec<&str> =
        names.iter().map(|at| POOL.get(*at).map_or("x-never", |(name, _)| name)).collect();
    let response = HeaderMap::from_iter([(
        http::header::VARY,
        HeaderValue::from_str(&names.join(", ")).unwrap(),
    )]);
    VarySpec::from_response(&HeaderMap::new(), &response).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    // Each case runs under all 36 sets of rules.
    #[test]
    fn the_key_covers_all_that_the_origin_receives((_, _, pair) in pair()) {
        for rules in EVERY_KIND.iter() {
            let (Plan::Lookup(one), Plan::Lookup(two)) =
                (rules.plan(&pair[0].view()), rules.plan(&pair[1].view()))
            else {
                continue;
            };
            if one.unknown.is_empty()
                && two.unknown.is_empty()
                && one.key.canonical() == two.key.canonical()
            {
                assert_indistinguishable(rules, &one, &two)?;
            }
        }
    }

    #[test]
    fn both_ways_to_a_variants_key_agree(
        (_, _, [sent, _]) in pair(),
        names in prop::collection::vec(0..=POOL.len(), 0..6),
    ) {
        let spec = vary(&names);
        for rules in EVERY_KIND.iter() {
            let Plan::Lookup(lookup) = rules.plan(&sent.view()) else { continue };
            let Ok(spec) = lookup.route.variants_by(&spec, &lookup.roles) else { continue };
            let filled = lookup.fill_request(request_id()).headers;
            let by_fill =
                rules.variant_of(lookup.route, &lookup.roles, &lookup.key, &spec, &filled);
            if lookup.withheld_from(&spec).is_some() {
                continue;
            }
            let by_request = lookup.variant(&spec);
            prop_assert_eq!(
                by_request.canonical(),
                by_fill.canonical(),
                "{:?} varies by {:?}",
                filled,
                spec
            );
        }
    }

    #[test]
    fn secrets_are_not_in_the_key_in_the_clear(
        (_, _, [sent, _]) in pair(),
        names in prop::collection::vec(0..POOL.len(), 0..6),
    ) {
        for rules in EVERY_KIND.iter() {
            let Plan::Lookup(lookup) = rules.plan(&sent.view()) else { continue };
            let key = lookup.variant(&vary(&names));
            let held = |needle: &[u8]| {
                key.canonical().windows(needle.len()).any(|bytes| bytes == needle)
            };
            prop_assert!(!held(b"aaaaaaaa") && !held(b"sid="), "{:?}", sent);
        }
    }

    #[test]
    fn no_request_makes_the_rules_panic(
        target in "/[ -~]{0,30}",
        lines in prop::collection::vec((0..POOL.len(), any::<usize>()), 0..8),
    ) {
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        for method in ["GET", "POST"] {
            let sent = SentRequest {
                uri: uri.clone(),
                method: method.parse().unwrap(),
                ..sent(0, &lines, false)
            };
            for rules in EVERY_KIND.iter() {
                match rules.plan(&sent.view()) {
                    Plan::Lookup(lookup) => {
                        drop(lookup.fill_request(request_id()));
                        drop((lookup.tags(), lookup.shown_fields()));
                    }
                    Plan::Mutate(method) => drop(rules.mutation(&sent.view(), &method, None)),
                    Plan::ReadBody(_) | Plan::Identify(_) | Plan::Pass(..) | Plan::Refuse(..) => {}
                }
            }
        }
    }
}

static EVERY_KIND: std::sync::LazyLock<Vec<PolicyRules>> = std::sync::LazyLock::new(every_kind);

/// Guards against vacuous properties: they would also hold if no request were looked up.
#[test]
fn the_strategies_yield_lookups_with_equal_and_with_different_keys() {
    use proptest::strategy::ValueTree as _;
    let (mut runner, strategy) = (proptest::test_runner::TestRunner::deterministic(), pair());
    let (mut same, mut different) = (0, 0);
    for _ in 0..300 {
        let (_, _, pair) = strategy.new_tree(&mut runner).unwrap().current();
        for rules in EVERY_KIND.iter() {
            if let (Plan::Lookup(one), Plan::Lookup(two)) =
                (rules.plan(&pair[0].view()), rules.plan(&pair[1].view()))
            {
                *(if one.key.canonical() == two.key.canonical() {
                    &mut same
                } else {
                    &mut different
                }) += 1;
            }
        }
    }
    assert!(same > 500 && different > 500, "{same} pairs with one key, {different} with two");
}
