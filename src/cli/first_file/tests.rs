//! What is written into a first file, and what keeps a rule out of it.

use super::*;
use crate::policy::session::SessionFormat;

fn rule(path: &str) -> FileRule {
    FileRule {
        reasons: vec!["seen often".to_owned()],
        path: path.to_owned(),
        ttl: "1m".to_owned(),
        tag: "items".to_owned(),
        purges: vec!["/items/{*rest}".to_owned()],
        ..FileRule::default()
    }
}

fn file(rules: Vec<FileRule>) -> FirstFile {
    let settings = "[upstream]\nurl = \"http://127.0.0.1:1\"\n\n".to_owned();
    FirstFile { settings, rules, ..FirstFile::default() }
}

#[test]
fn a_rule_that_would_make_the_file_invalid_is_left_out() {
    let rules = vec![rule("/items"), rule("/items"), rule("/items/{id}"), rule("/items/{x}")];
    let checked =
        file(rules).check("proxy.toml", IncludeSource::Nowhere).expect("the settings are valid");
    assert_eq!(checked.routes, ["/items", "/items/{id}"]);
    assert_eq!(checked.left_out, ["/items", "/items/{x}"]);
    let is_clean = is_clean(&checked.text, &[], "proxy.toml", IncludeSource::Nowhere);
    assert!(is_clean, "{}", checked.text);
    assert_eq!(checked.text.matches("[[purges]]").count(), 1, "{}", checked.text);
}

#[test]
fn all_that_was_learned_of_a_route_is_in_it() {
    let mut one = rule("/items");
    one.overrules = true;
    one.without_parameters = vec!["gclid".to_owned(), "utm_source".to_owned()];
    one.more_tags = vec!["sync".to_owned(), "items".to_owned()];
    let checked = file(vec![one]).check("proxy.toml", IncludeSource::Nowhere);
    let checked = checked.expect("the settings are valid");
    for line in [
        "origin = \"ignore\"",
        "query = { except = [\"gclid\", \"utm_source\"] }",
        "tags = [\"items\", \"sync\"]",
    ] {
        assert!(checked.text.contains(line), "{line}:\n{}", checked.text);
    }
    assert_eq!(checked.left_out.len(), 0, "{}", checked.text);
}

#[test]
fn a_signed_session_is_in_the_key_and_its_secret_is_a_variable() {
    let session = |is_optional| FileSession {
        cookie: "my-session".to_owned(),
        format: SessionFormat::Flask,
        max_age: "31d".to_owned(),
        is_optional,
    };
    let own = FileRule { session: Some(session(false)), ..rule("/desk") };
    let other = FileRule { session: Some(session(true)), ..rule("/desk/{my_session}") };
    let checked = file(vec![own, other]).check("proxy.toml", IncludeSource::Nowhere);
    let checked = checked.expect("the settings are valid");
    assert_eq!(checked.routes, ["/desk", "/desk/{my_session}"], "{}", checked.text);
    for line in [
        "# The environment of the sidecar must have FLASK_SECRET: the secret with which",
        "my_session_ = { cookie = \"my-session\", format = \"flask\", \
         secret = \"${FLASK_SECRET}\", max_age = \"31d\" }",
        "key = [\"my_session_\"]",
        "key = [\"my_session_?\"]",
        "strip_set_cookie = [\"my-session\"]",
    ] {
        assert!(checked.text.contains(line), "{line}:\n{}", checked.text);
    }
}

#[test]
fn a_claim_is_in_the_key_and_what_verifies_its_tokens_is_a_variable() {
    let claim = |algorithm: &str| FileClaim {
        name: "tenant".to_owned(),
        algorithms: vec![algorithm.to_owned()],
        issuers: vec!["https://issuer".to_owned()],
        audiences: Vec::new(),
    };
    for (algorithm, line) in
        [("HS256", "secret = \"${JWT_SECRET}\""), ("RS256", "jwks_url = \"${JWKS_URL}\"")]
    {
        let own = FileRule {
            claim: Some(claim(algorithm)),
            scope: Some("shared".to_owned()),
            ..rule("/projects")
        };
        let checked = file(vec![own]).check("proxy.toml", IncludeSource::Nowhere);
        let checked = checked.expect("the settings are valid");
        assert_eq!(checked.routes, ["/projects"], "{}", checked.text);
        let issuer = "issuer = [\"https://issuer\"]";
        let table = format!("[jwt]\n{line}\nalgorithms = [\"{algorithm}\"]\n{issuer}\n");
        for line in [&*table, "tenant = { jwt = \"/tenant\" }", "key = [\"tenant\"]"] {
            assert!(checked.text.contains(line), "{line}:\n{}", checked.text);
        }
    }
}

#[test]
fn what_strangers_have_named_stays_in_comments_and_strings() {
    let mut evil = rule("/items");
    evil.reasons = vec!["a\n[redis]\u{1b}[2J\u{202e}".to_owned(), "x ".repeat(2000)];
    evil.key_headers = vec!["x-a\"b".to_owned(), "1-x".to_owned(), "caller".to_owned()];
    let text = file(vec![evil.clone()]).render(&[evil]);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    assert!(text.parse::<toml_edit::DocumentMut>().is_ok(), "{text}");
    assert!(!text.contains("\n[redis]"), "{text}");
}
