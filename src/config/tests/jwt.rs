//! `[jwt]`: what it compiles to, and what is wrong with it.

use std::time::Duration;

use super::{diagnostics, parse};
use crate::config::Config;
use crate::config::diff::{ConfigSnapshot, changes};
use crate::config::sharing::SharingRules;
use crate::policy::field::FieldSource;
use crate::policy::jwt::{Algorithm, TokenPlace};

const SECRET: &str = "secret = \"0123456789abcdef0123456789abcdef\"";
const URL: &str = "jwks_url = \"https://issuer.test/keys\"";
const NAMES: &str = "issuer = [\"i\"]\naudience = [\"a\"]";

fn text(jwt: &str, rest: &str) -> String {
    format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n[jwt]\n{jwt}\n{rest}")
}

const RULES: &str = "[fields]\nt = { jwt = \"/tenant\" }\n[[routes]]\npath = \"/a\" # check: ok\n\
                     scope = \"shared\"\nttl = \"1m\"\nkey = [\"t\"]\n";

fn config(jwt: &str, rest: &str) -> Config {
    parse(&text(jwt, rest)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The messages and hints of all errors.
fn errors(jwt: &str) -> String {
    diagnostics(&text(jwt, RULES)).to_string()
}

#[test]
fn the_section_says_where_keys_come_from_and_what_a_token_must_have() {
    let jwt = format!("{URL}\nalgorithms = [\"RS256\", \"EdDSA\"]\n{NAMES}\nleeway = \"5s\"");
    let config = config(&jwt, RULES);
    let settings = config.jwt.as_ref().expect("there is one");
    let source = settings.source.as_ref().expect("a URL");
    assert_eq!((&*source.target.authority, &*source.path), ("issuer.test", "/keys"));
    assert_eq!(&*settings.rules.algorithms, [Algorithm::RS256, Algorithm::EdDSA]);
    assert_eq!(settings.rules.leeway, Duration::from_secs(5));
    assert_eq!((settings.refresh, settings.fixed.len()), (Duration::from_mins(5), 0));
    assert_eq!(config.claim_pointers().iter().map(|text| &**text).collect::<Vec<_>>(), ["/tenant"]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_field_names_a_claim_and_perhaps_a_cookie() {
    let jwt = format!("{SECRET}\nalgorithms = [\"HS256\"]\n{NAMES}");
    let rest = "[fields]\nt = { jwt = \"/org/id\", cookie = \"session\" }\n[[routes]]\npath = \
                \"/a\"\nkey = [\"t?\"]\nttl = \"1m\"\n";
    let config = config(&jwt, rest);
    let route = config.routes.iter().next().expect("a route");
    let FieldSource::Jwt(field) = &route.fields[0].source else { panic!("{:?}", route.fields) };
    assert_eq!(&*field.pointer, "/org/id");
    assert_eq!(field.place, TokenPlace::Cookie("session".into()));
    assert_eq!(&*route.token_places, std::slice::from_ref(&field.place));
    assert!(route.fields[0].is_optional);
}

#[test]
fn what_is_wrong_with_it_is_told() {
    let rs = "algorithms = [\"RS256\"]";
    for (jwt, message) in [
        (URL.to_owned(), "`algorithms` is missing"),
        (format!("{URL}\nalgorithms = []"), "no algorithm is named"),
        (format!("{URL}\nalgorithms = [\"none\"]"), "HS256"),
        (format!("{URL}\nalgorithms = [\"rs256\"]"), "RS256"),
        (format!("{URL}\nalgorithms = [\"RS256\", \"HS256\"]"), "are mixed"),
        (rs.to_owned(), "names no keys"),
        (format!("{SECRET}\n{rs}"), "`secret` is for HMAC"),
        (format!("{URL}\n{SECRET}\n{rs}"), "`secret` is for HMAC"),
        (format!("{URL}\nalgorithms = [\"HS256\"]"), "HMAC needs a secret"),
        (format!("{URL}\n{SECRET}\nalgorithms = [\"HS256\"]"), "these are public keys"),
        ("secret = \"tiny-one\"\nalgorithms = [\"HS256\"]".to_owned(), "shorter than 16"),
        (format!("jwks_url = \"issuer.test/keys\"\n{rs}"), "neither https nor http"),
        (format!("jwks_url = \"https://u:hunter2@i.test/\"\n{rs}"), "has a user or password"),
        (format!("jwks_file = \"nowhere.json\"\n{rs}"), "cannot be read"),
        (format!("public_key_file = [\"nowhere.pem\"]\n{rs}"), "cannot be read"),
        (format!("{URL}\n{rs}\nkeep_keys = \"1m\"\nrefresh = \"2m\""), "shorter than `refresh`"),
        (format!("{URL}\n{rs}\nleeway = \"1h\""), "this is too large"),
        (format!("{URL}\n{rs}\nrefresh = \"0s\""), "this is too small"),
        (format!("{URL}\n{rs}\ntokens = 0"), "this is too small"),
        (format!("{URL}\n{rs}\naudience = [\"\"]"), "this name is empty"),
        (format!("{URL}\n{rs}\naudiences = [\"a\"]"), "did you mean `audience`"),
    ] {
        let found = errors(&jwt);
        assert!(found.contains(message), "{jwt}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let own = format!("{SECRET}\nalgorithms = [\"HS256\"]\n[fields]\n");
    for (form, message) in [
        ("{ jwt = \"/sub\", header = \"a\" }", "more than one source"),
        ("{ jwt = \"/sub\", cookie = \"a\", query = \"b\" }", "more than one source"),
        ("{ jwt = \"sub\" }", "is not a JSON pointer"),
        ("{ jwt = \"/sub\", cookie = \"a b\" }", "a b"),
        ("{ jwt = \"/sub\", prefix = \"/24\" }", "is only for client"),
    ] {
        let found = diagnostics(&text(&format!("{own}t = {form}"), "")).to_string();
        assert!(found.contains(message), "{form}: {found}");
    }
    let found = diagnostics(&format!("[upstream]\nurl = \"http://127.0.0.1:1\"\n{RULES}"));
    assert!(found.to_string().contains("there is no [jwt]"), "{found}");
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let warnings = |jwt: &str, rest: &str| {
        let found = config(jwt, rest).warnings;
        found.iter().map(|one| one.message.clone()).collect::<Vec<_>>().join("; ")
    };
    let rs = format!("algorithms = [\"RS256\"]\n{NAMES}");
    for (jwt, rest, message) in [
        (format!("{URL}\nalgorithms = [\"RS256\"]"), RULES.to_owned(), "neither `issuer` nor"),
        (format!("{URL}\n{rs}"), String::new(), "no field comes from a token"),
        (format!("jwks_url = \"http://i.test/keys\"\n{rs}"), RULES.to_owned(), "by plain http"),
        (format!("{URL}\n{rs}"), RULES.replace("shared", "public"), "withholds the token"),
        (
            format!("{URL}\n{rs}"),
            RULES.replace("\"/tenant\"", "\"/tenant\", cookie = \"s\"")
                + "[credential]\ncookies = [\"other\"]\n",
            "is in the key as a whole",
        ),
        (
            format!("secret = \"0123456789abcdef\"\nalgorithms = [\"HS256\"]\n{NAMES}"),
            RULES.to_owned(),
            "shorter than 32",
        ),
    ] {
        let found = warnings(&jwt, &rest);
        assert!(found.contains(message), "{jwt} {rest}: {found}");
    }
}

#[test]
fn a_claim_that_leaves_the_key_widens_and_a_secret_is_not_shown() {
    let jwt = format!("{SECRET}\nalgorithms = [\"HS256\"]\n{NAMES}");
    let sharing = |rest: &str| SharingRules::from_config(&config(&jwt, rest));
    let keyed = sharing(RULES);
    for other in ["jwt = \"/other\"", "header = \"x-tenant\"", "jwt = \"/tenant\", cookie = \"s\""]
    {
        let found = sharing(&RULES.replace("jwt = \"/tenant\"", other)).widened_from(&keyed);
        assert_eq!(found.len(), 1, "{other}: {found:?}");
    }
    let found = sharing(&RULES.replace("key = [\"t\"]", "")).widened_from(&keyed);
    assert_eq!(found.iter().map(|one| one.key).collect::<Vec<_>>(), ["key"]);
    // In scope `private` the whole token is in the key.
    let private = |key: &str| sharing(&RULES.replace("shared", "private").replace("[\"t\"]", key));
    assert!(private("[]").widened_from(&private("[\"t\"]")).is_empty());

    let snapshot = |secret: &str| {
        let jwt = jwt.replace("0123456789abcdef0123456789abcdef", secret);
        ConfigSnapshot::from_config(&config(&jwt, RULES))
    };
    let other = "fedcba9876543210fedcba9876543210";
    let found = changes(&snapshot("0123456789abcdef0123456789abcdef"), &snapshot(other));
    assert_eq!((found.len(), &*found[0].what), (1, "jwt"));
    assert!(!format!("{found:?}").contains("fedcba"), "{found:?}");
}
