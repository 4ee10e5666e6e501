//! Lint of headers that reach the origin without being in the key.

use super::*;

fn passing(header: &str) -> String {
    with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\npass_headers = [\"{header}\"]"))
}

#[test]
fn what_changes_answers_reaches_the_app_unkeyed() {
    for (header, hint) in [
        ("x-user-id", "user_id = { header = \"x-user-id\" } in [fields]"),
        ("accept-language", "\"accept_language\" in `key`"),
        ("x-forwarded-host", "or add it to drop_headers"),
        ("x-forwarded-for", "office = { client = \"address\", prefix = \"/24\" } in [fields]"),
        ("true-client-ip", "\"office\" in `key`"),
        ("x-ssl-client-dn", "ssl_client_dn = { header = \"x-ssl-client-dn\" }"),
        ("x-api-key", "headers = [\"x-api-key\"] in [credential]"),
        ("x-client-version", "end the line with `# check: ok`"),
        ("x-mandant", "mandant = { header = \"x-mandant\" } in [fields]"),
    ] {
        one(&passing(header), &format!("\"{header}\""), "without being in the key", hint);
    }
    for header in ["accept", "accept-encoding", "accept-language", "origin", "content-type"] {
        one(
            &passing(header),
            &format!("\"{header}\""),
            "changes the responses",
            "the key has it where it is not",
        );
    }
    one(
        &passing("user-agent"),
        "\"user-agent\"",
        "changes the responses",
        "user_agent of [upstream]",
    );
    for header in ["if-none-match", "if-range", "cache-control", "pragma", "range"] {
        one(
            &passing(header),
            &format!("\"{header}\""),
            "addresses the cache",
            "answers it from what is stored",
        );
    }
    let field = with(
        &with(&passing("origin"), "[\"tenant\"]", "[\"tenant\", \"from\"]"),
        "[fields]\n",
        "[fields]\nfrom = { header = \"origin\" }\n",
    );
    silent(&field);
    silent(&passing("traceparent"));
    silent(&passing("x-request-start"));
    silent(&passing("x-tenant-id"));
    silent(&format!("{}[credential]\nheaders = [\"x-api-key\"]\n", passing("x-api-key")));
    silent(&passing("cookie"));
}

#[test]
fn a_cookie_beside_the_identity_that_the_key_names() {
    let token = with(
        &with(&passing("cookie"), "[\"tenant\"]", "[\"tenant\", \"token\"]"),
        "[fields]\n",
        "[fields]\ntoken = { auth = \"token\" }\n",
    );
    one(&token, "\"cookie\"", "identifies the caller", "drop_headers = [\"cookie\"]");
    silent(&with(&token, "pass_headers", "drop_headers"));
}

#[test]
fn all_unknown_headers_let_through() {
    let unknown = |word: &str| {
        with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\nunknown_headers = \"{word}\""))
    };
    one(
        &unknown("pass"),
        "\"pass\"",
        "every header that is not part of the key",
        "unknown_headers = \"drop\"",
    );
    silent(&unknown("drop"));
    silent(&unknown("bypass"));
}

#[test]
fn a_parameter_that_a_tag_reads_is_in_the_key_whatever_the_query_list_says() {
    let text = with(
        &with(LIST, "header = \"x-tenant-id\"", "query = \"tenant\""),
        "ttl   = \"5m\"",
        "ttl = \"5m\"\nquery = \"none\"",
    );
    silent(&text);
    let config = Config::parse(&format!("{HEAD}{text}"), "proxy.toml", &|_| None)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let found = config.routes.candidates(crate::policy::apps::AppId::FIRST, "/api/items");
    let route = found.first().expect("the route");
    assert_eq!(route.spec.query, crate::policy::route::QueryRule::Only(["tenant".into()].into()));
}

#[test]
fn r1219_a_hint_does_not_repeat_the_value_of_a_variable() {
    let text = "[[routes]]\npath = \"/a\"\nttl = \"5m\"\npass_headers = [\"x-${SECRET}\"]\n";
    let shown: String = warnings(text).iter().map(ToString::to_string).collect();
    assert!(shown.contains("x-${SECRET}"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
