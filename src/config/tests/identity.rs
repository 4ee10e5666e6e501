//! `[identity]`: what it compiles to, and what is wrong with it.

use std::time::Duration;

use super::{diagnostics, parse};
use crate::config::Config;
use crate::config::sharing::SharingRules;
use crate::policy::field::FieldSource;

const SECTION: &str = "[identity]\npath = \"/api/v1/me?short=1\"\n";
const FIELDS: &str = "[fields]\nt = { identity = \"/tenant/id\" }\n";
const ROUTE: &str = "[[routes]]\npath = \"/a\" # check: ok\nscope = \"shared\"\nttl = \"1m\"\n";

fn text(rest: &str) -> String {
    format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n{rest}")
}

fn config(rest: &str) -> Config {
    parse(&text(rest)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn errors(rest: &str) -> String {
    diagnostics(&text(rest)).to_string()
}

#[test]
fn the_section_says_where_the_app_is_asked_and_fields_what_for() {
    let config = config(&format!("{SECTION}{FIELDS}{ROUTE}key = [\"t\"]\n"));
    let settings = config.identity.as_ref().expect("there is one");
    assert_eq!(&*settings.path, "/api/v1/me?short=1");
    assert_eq!((settings.ttl, settings.retry), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!(settings.timeout, Duration::from_secs(2));
    assert_eq!((settings.callers, settings.probes), (10_000, 32));
    assert_eq!(
        config.identity_pointers().iter().map(|it| &**it).collect::<Vec<_>>(),
        ["/tenant/id"]
    );
    let route = config.routes.iter().next().expect("a route");
    let FieldSource::Identity(field) = &route.fields[0].source else {
        panic!("{:?}", route.fields)
    };
    assert_eq!((&*field.path, &*field.pointer), (&*settings.path, "/tenant/id"));
    assert!(route.reads_identity);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn each_mistake_is_told() {
    let whole = |section: &str| format!("{section}{FIELDS}{ROUTE}key = [\"t\"]\n");
    for (rest, expected) in [
        (whole("[identity]\n"), "`path` is missing"),
        (whole("[identity]\npath = \"api/me\"\n"), "is not a path of the app"),
        (whole("[identity]\npath = \"//evil.test/me\"\n"), "is not a path of the app"),
        (whole("[identity]\npath = \"/me/{id}\"\n"), "is not a path of the app"),
        (whole("[identity]\npath = \"/me#a\"\n"), "is not a path of the app"),
        (whole("[identity]\npath = \"http://app/me\"\n"), "is not a path of the app"),
        (whole("[identity]\npaht = \"/me\"\n"), "`path`"),
        (whole(&format!("{SECTION}ttl = \"0s\"\n")), "ttl"),
        (whole(&format!("{SECTION}probes = 0\n")), "probes"),
        (whole(""), "there is no [identity]"),
        (
            format!("{SECTION}[fields]\nt = {{ identity = \"tenant\" }}\n{ROUTE}key = [\"t\"]\n"),
            "not a JSON pointer",
        ),
        (
            whole(SECTION).replace("\"shared\"", "\"public\""),
            "withholds the credential from the app",
        ),
        (
            whole(SECTION).replace("key = [\"t\"]", "signed_in = { field = \"t\" }"),
            "does not tell who is signed in",
        ),
    ] {
        let found = errors(&rest);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn another_path_or_pointer_shares_more_until_the_operator_says_so() {
    let file = |path: &str, pointer: &str, key: &str, scope: &str| {
        let text = format!(
            "[identity]\npath = \"{path}\"\n[fields]\nt = {{ identity = \"{pointer}\" }}\n\
             [[routes]]\npath = \"/a\"\nscope = \"{scope}\"\nttl = \"1m\"\nkey = [{key}]\n"
        );
        SharingRules::from_config(&config(&text))
    };
    let before = file("/me", "/tenant", "\"t\"", "shared");
    assert!(before.widened_from(&before).is_empty());
    for (path, pointer, key) in
        [("/who", "/tenant", "\"t\""), ("/me", "/plan", "\"t\""), ("/me", "/tenant", "")]
    {
        let after = file(path, pointer, key, "shared");
        assert_eq!(after.widened_from(&before).len(), 1, "{path} {pointer} {key}");
    }
    let private = file("/me", "/tenant", "\"t\"", "private");
    assert!(file("/me", "/tenant", "", "private").widened_from(&private).is_empty());
}

#[test]
fn an_expectation_says_what_the_app_would_say() {
    let rules = format!(
        "{SECTION}{FIELDS}{ROUTE}key = [\"t\"]\ntags = [\"a:{{t}}\"]\n[[purges]]\npath = \"/a\"\n\
         tags = [\"a:{{t}}\"]\n"
    );
    let good = "[[expect]]\nrequest = \"GET /a\"\ncookies = { sid = \"1\" }\nidentity = { \
                \"/tenant/id\" = \"acme\" }\nkey = { t = \"acme\" }\ntags = [\"a:acme\"]\n\
                same_entry_as = { cookies = { sid = \"2\" } }\n\
                differs_from = { identity = { \"/tenant/id\" = \"globex\" } }\n\
                [[expect]]\nrequest = \"GET /a\"\ncookies = { sid = \"1\" }\n\
                reason = \"identity unknown\"\n";
    config(&format!("{rules}{good}"));
    let bad = good.replace("acme\" }\nkey", "other\" }\nkey");
    assert!(errors(&format!("{rules}{bad}")).contains("got `other`"));
}
