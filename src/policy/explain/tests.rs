//! What is explained: routes, keys, headers and writes.

use super::*;
use crate::config::Config;
use crate::policy::client_address::ClientAddressRule;
use crate::secret::Hasher;
use crate::semantics::forward::Upgrades;

/// The rules of a file.
fn rules_of(text: &str) -> PolicyRules {
    let config = Config::parse(text, "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let apps = config.app_rules();
    PolicyRules {
        webhooks: config.webhook_paths(),
        apps,
        documents: std::sync::Arc::default(),
        routes: config.routes,
        purges: config.purges,
        credential: config.credential,
        client_address: ClientAddressRule::default(),
        hasher: Hasher::default(),
        max_key: 4096,
        max_read_body: 4096,
        upgrades: Upgrades::default(),
        tokens: None,
        identities: None,
        purge_requests: config.purge_requests,
    }
}

/// Explains a GET on a route with these keys. `before` is inserted above the route.
fn explain_get(before: &str, keys: &str) -> Vec<ExplainLine> {
    explain_get_with(before, keys, Vec::new())
}

/// The same, with headers in the request.
fn explain_get_with(before: &str, keys: &str, headers: Vec<(String, String)>) -> Vec<ExplainLine> {
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n{before}\n[[routes]]\npath = \
        \"/a\"\n{keys}\n"
    );
    let rules = rules_of(&text);
    let question = ExplainRequest {
        method: "get".into(),
        target: "/a".into(),
        headers,
        ..ExplainRequest::default()
    };
    let explained = explain(&rules, &question.read().expect("a request"), Wall::default());
    assert_eq!(explained.request, "GET /a");
    explained.lines
}

fn lines<'a>(shown: &'a [ExplainLine], name: &str) -> Vec<&'a str> {
    shown.iter().filter(|line| line.name == name).map(|line| line.value.as_str()).collect()
}

#[test]
fn what_the_app_says_of_the_caller_is_asked_for_elsewhere() {
    let before = "[identity]\npath = \"/me\"\n[fields]\nt = { identity = \"/tenant/id\" }";
    let keys = "ttl = \"5m\"\nscope = \"shared\"\nkey = [\"t\"]";
    let shown = explain_get_with(before, keys, vec![("cookie".into(), "sid=1".into())]);
    let said = "what the app says at /tenant/id, when it is asked at /me";
    assert_eq!(lines(&shown, "field t"), [said]);
    assert_eq!(lines(&shown, "X-Cache"), ["depends on what the app says of this caller"]);
    let shown = explain_get(before, keys);
    assert_eq!(lines(&shown, "reason"), ["missing field t"], "a guest is nobody");
}

#[test]
fn a_reason_has_its_meaning_and_its_remedy() {
    let shown = explain_get_with("", "ttl = \"5m\"", vec![("x-unheard-of".into(), "1".into())]);
    let reason = Reason::UnkeyedHeader;
    assert_eq!(lines(&shown, "reason"), ["unkeyed header x-unheard-of"]);
    assert_eq!(lines(&shown, "meaning"), [reason.meaning()]);
    assert_eq!(lines(&shown, "remedy"), [reason.remedy().expect("there is one")]);
}

#[test]
fn hosts_that_share_nothing_and_one_that_stands_for_all_are_told() {
    let host = |before: &str, host: &str| {
        let shown = explain_get_with(before, "ttl = \"5m\"", vec![("host".into(), host.into())]);
        lines(&shown, "host").join("; ")
    };
    assert_eq!(host("", "app.test"), "app.test");
    assert_eq!(host("", "[::1]"), "[::1]");
    for with_port in ["localhost:8081", "[::1]:8081"] {
        let told = host("", with_port);
        assert!(told.starts_with(&format!("{with_port}; ")) && told.contains("host_key"), "{told}");
    }
    let told = host("host_key = \"app.test\"", "localhost:8081");
    assert!(told.starts_with("app.test; ") && told.ends_with("localhost:8081"), "{told}");
}

#[test]
fn the_directives_of_the_request_decide_what_is_served() {
    let explained = |keys: &str, name: &str, value: &str| {
        let shown = explain_get_with("", keys, vec![(name.into(), value.into())]);
        let [verdict] = lines(&shown, "X-Cache")[..] else { panic!("{shown:?}") };
        let reasons = lines(&shown, "reason").iter().map(ToString::to_string).collect();
        (verdict.to_owned(), reasons)
    };
    let hit = "HIT when it is stored, else MISS";
    let newer = "REVALIDATED when the origin confirms what is stored, else MISS";
    let rows: [(&str, &str, &str, &[&str]); 11] = [
        ("x-request-id", "1", hit, &[]),
        ("cache-control", "max-stale", hit, &[]),
        ("cache-control", "no-store", "BYPASS", &["request no-store"]),
        ("cache-control", "no-cache", newer, &["request no-cache"]),
        ("cache-control", "max-age=0", newer, &["request no-cache"]),
        ("pragma", "no-cache", newer, &["request no-cache"]),
        ("pragma", "other", hit, &[]),
        (
            "cache-control",
            "max-age=30, min-fresh=5",
            "HIT when it is stored and at most 30s old and fresh for 5s more, else MISS",
            &["request no-cache"],
        ),
        ("cache-control", "only-if-cached", "HIT when it is stored, else 504", &["only if cached"]),
        (
            "cache-control",
            "only-if-cached, no-cache",
            "504, whether or not it is stored",
            &["request no-cache", "only if cached"],
        ),
        ("cache-control", "no-store, only-if-cached", "BYPASS", &["request no-store"]),
    ];
    for (name, value, verdict, reasons) in rows {
        let expected = (verdict.to_owned(), reasons.iter().map(ToString::to_string).collect());
        let found: (String, Vec<String>) = explained("ttl = \"5m\"", name, value);
        assert_eq!(found, expected, "{name}: {value}");
        let ignored = "ttl = \"5m\"\nclient_cache_control = \"ignore\"";
        assert_eq!(explained(ignored, name, value).0, hit, "{name}: {value}");
    }
}

#[test]
fn the_times_of_a_route_are_shown_if_they_are_set() {
    let keys = "ttl = \"5m\"\njitter = \"30s\"\nstale_while_revalidate = \
        \"30s\"\nstale_if_error = \"0s\"\nearly_refresh = false";
    let shown = explain_get("", keys);
    assert_eq!(
        lines(&shown, "fresh for"),
        ["as the origin says, else 300s, less a random time of up to 30s (origin = respect)"]
    );
    assert_eq!(
        lines(&shown, "stale"),
        [
            "for 30s while it is refreshed, where the origin gives no time for it",
            "never in place of an error of the origin, where the origin gives no time for it"
        ]
    );
    assert_eq!(lines(&shown, "refresh"), ["only after it has expired (early_refresh = false)"]);
    assert_eq!(lines(&shown, "collapse"), [""; 0]);
}

#[test]
fn a_route_without_times_has_one_line() {
    let shown = explain_get("", "ttl = \"5m\"");
    assert_eq!(lines(&shown, "fresh for"), ["as the origin says, else 300s (origin = respect)"]);
    for name in ["stale", "refresh", "collapse"] {
        assert_eq!(lines(&shown, name), [""; 0], "{shown:?}");
    }
    let ignored = explain_get("", "ttl = \"5m\"\norigin = \"ignore\"");
    assert_eq!(lines(&ignored, "fresh for"), ["300s, whatever the origin says (origin = ignore)"]);
}

#[test]
fn what_was_stored_last_follows_what_the_rules_say() {
    for (from, expected) in [
        (LifetimeSource::Origin, "60s by the origin's own word"),
        (LifetimeSource::Route, "60s by `ttl`"),
        (LifetimeSource::Heuristic, "60s estimated from its Last-Modified"),
    ] {
        let lines_before = explain_get("", "ttl = \"5m\"");
        let mut shown = Explanation { request: "GET /a".to_owned(), lines: lines_before };
        shown.add_lifetime(None);
        assert_eq!(lines(&shown.lines, "last stored"), [""; 0]);
        shown.add_lifetime(Some((Duration::from_mins(1), from)));
        let expected = format!("{expected}, for the response that was stored last");
        assert_eq!(lines(&shown.lines, "last stored"), [expected]);
        let at = |name| shown.lines.iter().position(|line| line.name == name);
        assert_eq!(at("last stored"), at("fresh for").map(|at| at + 1));
    }
}

#[test]
fn collapsing_across_sidecars_is_shown_wherever_it_is_set() {
    let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
    let cluster = ["cluster: one fill per key among all sidecars that share the Redis"];
    assert_eq!(
        lines(&explain_get(&format!("{redis}collapse = \"cluster\""), ""), "collapse"),
        cluster
    );
    assert_eq!(lines(&explain_get(redis, "collapse = \"cluster\""), "collapse"), cluster);
    assert_eq!(
        lines(
            &explain_get(&format!("{redis}collapse = \"cluster\""), "collapse = \"process\""),
            "collapse"
        ),
        [""; 0]
    );
}

#[test]
fn an_invalid_request_is_named_without_values_that_may_be_secret() {
    let question = |method: &str, target: &str, name: &str| ExplainRequest {
        method: method.into(),
        target: target.into(),
        headers: vec![(name.into(), "hunter2".into())],
        ..ExplainRequest::default()
    };
    assert!(question("G T", "/a", "x").read().unwrap_err().contains("not a method"));
    assert!(question("GET", "http://host/a", "x").read().unwrap_err().contains("not a path"));
    let error = question("GET", "/a", "a b").read().unwrap_err();
    assert!(error.contains("a b") && !error.contains("hunter2"), "{error}");
}

#[test]
fn whether_the_caller_is_a_guest_is_said() {
    let keys = "ttl = \"5m\"\nsigned_in = { cookie = [\"in_*\", \"remember\"] }";
    let with = |cookies: &str| explain_get_with("", keys, vec![("cookie".into(), cookies.into())]);
    let (guest, user) = (with("sid=1"), with("sid=1; in_1=x"));
    assert_eq!(
        lines(&guest, "caller"),
        ["a guest: without the cookie in_* or the cookie remember"]
    );
    assert!(lines(&guest, "scope")[0].starts_with("public, for guests"), "{guest:?}");
    assert!(lines(&guest, "the app would get").iter().all(|line| !line.starts_with("cookie")));
    assert!(lines(&user, "caller")[0].starts_with("no guest: with the cookie in_*"), "{user:?}");
    assert!(lines(&user, "scope")[0].starts_with("private"), "{user:?}");
    assert!(lines(&explain_get("", "ttl = \"5m\""), "caller").is_empty());
}

#[test]
fn purge_requests_and_tags_of_responses_are_told() {
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
                [purge_requests]\nfrom = [\"10.0.0.1\"]\n\
                [[routes]]\npath = \"/a/{id}\"\nttl = \"5m\"\ntags = [\"a:{response:/*/id}\"]\n\
                [[purges]]\npath = \"/a\"\ntags = [\"a:{response:/id}\"]\n";
    let rules = rules_of(text);
    let shown = |method: &str, target: &str, headers: &[(&str, &str)]| {
        let question = ExplainRequest {
            method: method.into(),
            target: target.into(),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            ..ExplainRequest::default()
        };
        explain(&rules, &question.read().expect("a request"), Wall::default()).lines
    };
    let regex = shown("BAN", "/", &[("x-purge-regex", "^/a/.*")]);
    assert_eq!(lines(&regex, "purges"), ["under localhost/a/"]);
    let refused = shown("BAN", "/", &[("x-purge-regex", "^/(a|b)/.*")]);
    assert!(lines(&refused, "refused")[0].starts_with("400: "), "{refused:?}");
    let read = shown("GET", "/a/1", &[]);
    assert_eq!(lines(&read, "tag of the response"), ["a:{response:/*/id}"]);
    assert!(lines(&read, "auxiliary tag").contains(&"family a:{}"), "{read:?}");
    assert!(lines(&read, "auxiliary tag").contains(&"under localhost/a/"), "{read:?}");
    let write = shown("POST", "/a", &[]);
    assert_eq!(lines(&write, "purges"), ["uri:localhost/a"]);
    assert_eq!(lines(&write, "purges, by the response"), ["a:{response:/id}"]);
    let unread = lines(&write, "purges, if the response cannot be read");
    assert!(unread.contains(&"family a:{}"), "{write:?}");
    assert!(lines(&write, "missing").is_empty());
}
