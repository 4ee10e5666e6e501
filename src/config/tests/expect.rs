//! `[[expect]]`: what the rules must make of a request.

use super::parse;

const RULES: &str = r#"
[upstream]
url = "http://127.0.0.1:8000"

[fields]
tenant = { header = "x-tenant-id" }
named  = { body = "/id" }

[[routes]]
path  = "/api/campaigns/{id}"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]
query = ["page"]
tags  = ["campaign:{tenant}:{id}"]

[[purges]]
path = "/api/batch"
tags = ["campaign:{tenant}:{named}"]
"#;

const HEADERS: &str = "headers = { x-tenant-id = \"acme\" }";

fn told(expect: &str) -> String {
    let found = parse(&format!("{RULES}\n[[expect]]\n{expect}\n"));
    found.err().map(|found| found.to_string()).unwrap_or_default()
}

fn get(keys: &str) -> String {
    told(&format!("request = \"GET /api/campaigns/7?page=2\"\n{HEADERS}\n{keys}"))
}

#[test]
fn rules_that_do_as_expected_are_fine() {
    for keys in [
        "route = \"/api/campaigns/{id}\"",
        "scope = \"shared\"",
        "key = { tenant = \"acme\", id = \"7\" }",
        "tags = [\"campaign:acme:7\"]",
        "reason = \"none\"",
        "same_entry_as = { request = \"GET /api/campaigns/7?page=2&utm=1\" }",
        "differs_from = { request = \"GET /api/campaigns/8?page=2\" }",
        "differs_from = { headers = { x-tenant-id = \"other\" } }",
    ] {
        assert_eq!(get(keys), "", "{keys}");
    }
    for expect in [
        "request = \"GET /other\"\nroute = \"none\"\nreason = \"no route\"",
        "request = \"GET /api/campaigns/7\"\nreason = \"missing field tenant\"",
        "request = \"GET /api/campaigns/7\"\nheaders = { x-tenant-id = \"a\", x-odd = \"1\" }\n\
         reason = \"unkeyed header x-odd\"",
        "request = \"PUT /api/campaigns/7\"\npurges = []",
        "request = \"POST /api/batch\"\nheaders = { x-tenant-id = \"acme\" }\nbody = '{\"id\":9}'\n\
         purges = [\"campaign:acme:9\"]",
        "request = \"GET /api/campaigns/7\"\nheaders = { x-tenant-id = \"a\" }\n\
         cookies = { sid = \"1\", lang = \"de\" }\nscope = \"shared\"",
    ] {
        assert_eq!(told(expect), "", "{expect}");
    }
}

#[test]
fn rules_that_do_otherwise_are_errors_at_the_line() {
    for (keys, message) in [
        ("route = \"none\"", "expected the route `none`, got `/api/campaigns/{id}`"),
        ("scope = \"public\"", "expected scope public, got shared"),
        ("key = { tenant = \"other\" }", "expected `tenant` in the key as written, got `acme`"),
        ("key = { token = \"x\" }", "got `no such field`"),
        ("tags = [\"campaign:7\"]", "expected the tag `campaign:7`, got `campaign:acme:7`"),
        ("purges = [\"x\"]", "expected a write, got a read"),
        ("reason = \"method\"", "expected the reason `method`, got `none`"),
        ("same_entry_as = { request = \"GET /api/campaigns/8\" }", "got another one"),
        ("differs_from = { request = \"GET /api/campaigns/7?page=2\" }", "got the same one"),
        ("differs_from = { headers = { x = \"1\" } }", "(missing field tenant) for the other"),
        ("", "this expects nothing"),
        ("rout = \"none\"", "did you mean `route`?"),
    ] {
        let told = get(keys);
        assert!(told.contains(message), "{keys}: {told}");
        let line = RULES.lines().count() + 5;
        assert!(keys.is_empty() || told.contains(&format!(":{line}:")), "{keys}: {told}");
    }
    for (expect, message) in [
        ("route = \"none\"", "request = \"GET /…\""),
        ("request = \"/a\"\nroute = \"none\"", "is not a method"),
        ("request = \"GET a\"\nroute = \"none\"", "is not a path"),
        ("request = \"POST /api/batch\"\npurges = [\"x\"]", "expected a purge of `x`"),
        ("request = \"PUT /api/batch\"\npurges = []", "expected no purge rule"),
        ("request = \"PUT /api/batch\"\ntags = [\"x\"]", "got no entry, but a write"),
    ] {
        let told = told(expect);
        assert!(told.contains(message), "{expect}: {told}");
    }
}

#[test]
fn an_expectation_is_tested_only_when_the_rest_is_right() {
    let text =
        format!("{RULES}\n[memory]\nsize = 5\n[[expect]]\nrequest = \"GET /\"\nroute = \"x\"\n");
    let told = parse(&text).expect_err("a size without a unit").to_string();
    assert!(!told.contains("expected the route"), "{told}");
}

#[test]
fn the_number_of_expectations_is_bounded() {
    let one = "[[expect]]\nrequest = \"GET /\"\nroute = \"none\"\n";
    assert!(parse(&format!("{RULES}{}", one.repeat(1000))).is_ok());
    let told = parse(&format!("{RULES}{}", one.repeat(1001))).expect_err("too many").to_string();
    assert!(told.contains("at most 1000"), "{told}");
}

#[test]
fn r1064_a_failed_expectation_shows_no_value_of_a_variable() {
    let secret = "hunter2-hunter2-hunter2";
    for keys in [
        "headers = { x-tenant-id = \"${SECRET_VALUE}\" }\nkey = { tenant = \"acme\" }",
        "headers = { x-tenant-id = \"${SECRET_VALUE}\" }\ntags = [\"campaign:acme:7\"]",
        "headers = { x-tenant-id = \"acme\" }\ntags = [\"${SECRET_VALUE}\"]",
        "headers = { x-tenant-id = \"acme\" }\nroute = \"${SECRET_VALUE}\"",
        "headers = { x-tenant-id = \"acme\" }\nreason = \"${SECRET_VALUE}\"",
    ] {
        let text = told(&format!("request = \"GET /api/campaigns/7\"\n{keys}"));
        assert!(text.contains("expected"), "{keys}: {text}");
        assert!(!text.to_lowercase().contains(secret), "{keys}: {text}");
    }
    let text = told(
        "request = \"POST /api/batch\"\nheaders = { x-tenant-id = \"acme\" }\n\
         body = '{\"id\":\"${SECRET_VALUE}\"}'\npurges = [\"campaign:acme:8\"]",
    );
    assert!(text.contains("not shown") && !text.to_lowercase().contains(secret), "{text}");
}

#[test]
fn r1065_an_expectation_that_cannot_fail_is_told() {
    assert!(get("same_entry_as = {}").contains("the other request says nothing"));
    assert!(get("differs_from = {}").contains("the other request says nothing"));
    let text = told("request = \"get /api/campaigns/7\"\nroute = \"none\"");
    assert!(text.contains("compared with its case"), "{text}");
    let purge = "request = \"PURGE /api/campaigns/7\"\nroute = \"none\"";
    assert_eq!(told(purge), "", "without the section it is a write like any other");
    let text = told(&format!("{purge}\n[purge_requests]\ntoken = \"0123456789abcdef\""));
    assert!(text.contains("answered by the sidecar itself"), "{text}");
}
