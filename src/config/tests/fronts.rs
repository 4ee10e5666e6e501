//! `fronts`, and what it forbids routes to say.

use super::{diagnostics, parse};

fn file(top: &str, rest: &str) -> String {
    format!(
        "{top}\n[listen]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[upstream]\nurl = \
         \"http://127.0.0.1:8000\"\n{rest}"
    )
}

fn route(keys: &str) -> String {
    format!("[[routes]]\npath = \"/a\"\nttl = \"1m\"\n{keys}\n")
}

#[test]
fn a_front_is_a_known_word_and_named_once() {
    for (top, text) in [
        ("fronts = [\"cloudfare\"]", "did you mean"),
        ("fronts = \"cloudflare\"", "put it in brackets"),
        ("fronts = [\"azure\", \"azure\"]", "`azure` is listed twice"),
    ] {
        let found = diagnostics(&file(top, "")).to_string();
        assert!(found.contains(text), "{found}");
    }
    let lost = diagnostics(&format!("{}fronts = [\"azure\"]\n", file("", &route(""))));
    assert!(lost.to_string().contains("put `fronts` at the top of the file"), "{lost}");
}

#[test]
fn identity_is_neither_dropped_nor_passed() {
    let top = "fronts = [\"azure\", \"cloudflare\"]";
    for key in ["drop_headers", "pass_headers"] {
        for name in ["x-ms-client-principal-name", "CF-Access-Jwt-Assertion"] {
            let keys = format!("{key} = [\"{name}\"]");
            let found = diagnostics(&file(top, &route(&keys)));
            let one = found.errors().next().expect("an error");
            assert_eq!((found.errors().count(), one.line), (1, 9), "{found}");
            assert!(one.message.contains("says who asks"), "{found}");
            // As a credential it is known to tell callers apart.
            let named = format!("[credential]\nheaders = [\"{name}\"]\n{}", route(&keys));
            assert!(parse(&file(top, &named)).is_ok(), "{named}");
        }
    }
    for pattern in ["cf-*", "CF-Acc*", "*-assertion", "x-ms-client-principal*", "x-zum*"] {
        let found = diagnostics(&file(top, &route(&format!("drop_headers = [\"{pattern}\"]"))));
        assert!(found.to_string().contains("says who asks"), "{pattern}: {found}");
    }
    let silent =
        file("fronts = [\"cloudflare\"]", &route("drop_headers = [\"cf-ray\", \"cf-ip*\"]"));
    let config = parse(&silent).unwrap_or_else(|problems| panic!("{problems}"));
    let others = config.warnings.iter().filter(|one| !one.message.contains("no tags"));
    assert_eq!(others.count(), 0, "{:?}", config.warnings);
}

#[test]
fn a_front_that_nobody_trusts_is_noted() {
    let text = "fronts = [\"heroku\"]\n[upstream]\nurl = \"http://127.0.0.1:8000\"\n";
    let config = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    let found = config.warnings.iter().any(|one| one.line == 1 && one.message.contains("heroku"));
    assert!(found, "{:?}", config.warnings);
}
