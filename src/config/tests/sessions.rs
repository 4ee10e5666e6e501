//! Fields that read signed session cookies.

use std::time::Duration;

use super::{diagnostics, parse};
use crate::config::Config;
use crate::policy::field::FieldSource;
use crate::policy::session::{SessionFormat, SessionSettings};

const SECRET: &str = "a-secret-of-the-app-with-length";

fn file(field: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\nsession = {field}\n[[routes]]\n\
         path = \"/a\" # check: ok\nttl = \"5m\"\nkey = [\"session?\"]\n"
    )
}

fn settings(config: &Config) -> SessionSettings {
    let route = config.routes.iter().next().expect("a route");
    match &route.fields[0].source {
        FieldSource::Session(rule) => rule.settings.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_field_has_its_settings() {
    let text = file(
        "{ cookie = \"session\", format = \"flask\", max_age = \"31d\", pointer = \"/_user_id\", \
         secret = [\"${NEW}\", \"an-older-one-of-the-app\"], \
         ignore = [\"_fresh\", \"user/seen*\"] }",
    );
    let env = |name: &str| (name == "NEW").then(|| SECRET.to_owned());
    let config = Config::parse(&text, "proxy.toml", &env).expect("a valid file");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let own = settings(&config);
    assert_eq!((&*own.cookie, own.format), ("session", SessionFormat::Flask));
    let secrets: Vec<&str> = own.secrets.iter().map(crate::secret::Secret::expose).collect();
    assert_eq!(secrets, [SECRET, "an-older-one-of-the-app"]);
    assert_eq!(own.max_age, Some(Duration::from_hours(24 * 31)));
    assert_eq!(own.pointer.as_deref(), Some("/_user_id"));
    let ignored: Vec<&str> = own.ignore.iter().map(crate::policy::glob::Glob::as_str).collect();
    assert_eq!(ignored, ["_fresh", "user/seen*"]);
    assert_eq!(config.credential.sessions.0.len(), 1, "it tells who the caller is on writes");
    for (format, expected) in [("django", true), ("express", false)] {
        let max_age = if expected { ", max_age = \"1h\"" } else { "" };
        let text = file(&format!(
            "{{ cookie = \"session\", format = \"{format}\", secret = \"{SECRET}\"{max_age} }}"
        ));
        let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings(&config).max_age.is_some(), expected);
    }
}

#[test]
fn each_mistake_in_a_session_field_is_told() {
    let field = |rest: &str| format!("s = {{ cookie = \"session\", {rest} }}\n[listen]\n");
    let good = "format = \"flask\", secret = \"a-secret-of-the-app\", max_age = \"1h\"";
    for (rest, text) in [
        ("format = \"rails\", secret = \"a-secret-of-the-app\", max_age = \"1h\"", "encrypted"),
        ("format = \"laravel\", secret = \"a-secret-of-the-app\", max_age = \"1h\"", "[identity]"),
        ("format = \"flsk\", secret = \"a-secret-of-the-app\", max_age = \"1h\"", "\"flask\"?"),
        ("format = \"flask\", max_age = \"1h\"", "`secret` is missing"),
        ("format = \"flask\", secret = \"a-secret-of-the-app\"", "`max_age` is missing"),
        ("format = \"flask\", secret = [], max_age = \"1h\"", "no secret"),
        ("format = \"flask\", secret = \"\", max_age = \"1h\"", "empty"),
        ("format = \"flask\", secret = 1, max_age = \"1h\"", "a list of strings"),
        ("pointer = \"/a\"", "add `format`"),
        ("max_age = \"1h\"", "only for a signed session cookie"),
        (&*format!("{good}, pointer = \"a\""), "not a JSON pointer"),
        (&*format!("{good}, pointer = \"/a/*\""), "a caller is one"),
        (&*format!("{good}, pointer = \"/a/b\", ignore = [\"a\"]"), "`pointer` names"),
        (&*format!("{good}, ignore = [\"/a\"]"), "without the first `/`"),
    ] {
        let shown = diagnostics(&super::cases::with(&field(rest))).to_string();
        assert!(shown.contains(text), "{rest}\n{shown}");
        assert!(!shown.contains("a-secret-of-the-app"), "{rest}\n{shown}");
    }
    let header = "s = { header = \"x\", format = \"flask\" }\n[listen]\n";
    let shown = diagnostics(&super::cases::with(header)).to_string();
    assert!(shown.contains("`format` is only for cookies"), "{shown}");
}

#[test]
fn a_session_is_never_read_for_everyone() {
    let text = file(&format!(
        "{{ cookie = \"session\", format = \"flask\", secret = \"{SECRET}\", max_age = \"1h\" }}"
    ));
    let public = text.replace("ttl =", "scope = \"public\"\nttl =");
    let shown = diagnostics(&public).to_string();
    assert!(shown.contains("is a credential"), "{shown}");
}

#[test]
fn what_a_session_field_may_leak_is_warned_of() {
    let warned = |field: &str| {
        let config = parse(&file(field)).unwrap_or_else(|problems| panic!("{problems}"));
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let flask = |secret: &str, rest: &str| {
        warned(&format!(
            "{{ cookie = \"session\", format = \"flask\", max_age = \"1h\", \
             secret = \"{secret}\"{rest} }}"
        ))
    };
    assert_eq!(flask(SECRET, ""), "");
    assert!(flask("dev", "").contains("shorter than 16 characters"));
    assert!(flask(SECRET, ", ignore = [\"csrf_*\"]").contains("ignores `csrf_token`"));
    assert!(
        flask(SECRET, ", pointer = \"/tenant\", ignore = [\"_*\"]").contains("tells callers apart")
    );
    let express = format!(
        "{{ cookie = \"session\", format = \"express\", secret = \"{SECRET}\", max_age = \"1h\" }}"
    );
    assert!(warned(&express).contains("has no effect on Express"));
}
