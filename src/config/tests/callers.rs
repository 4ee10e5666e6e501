//! What the keys about callers compile to: cookies, addresses, languages, admission; and what the
//! origin gets of them.

use std::time::Duration;

use super::parse;
use crate::config::Config;
use crate::policy::field::{ClientPrefix, FieldSource};
use crate::policy::fill_constants::FillConstants;
use crate::policy::route::{AdmitRule, RouteSpec, StripSetCookie, VaryCookie};
use crate::policy::template::Template;

fn config(lines: &str) -> Config {
    let text = format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n{lines}");
    parse(&text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn only_route(keys: &str) -> RouteSpec {
    let config = config(&format!("[[routes]]\npath = \"/a\"\n{keys}\n"));
    config.routes.iter().next().map(|route| route.spec.clone()).expect("a route")
}

#[test]
fn a_route_says_what_it_makes_of_callers() {
    let plain = only_route("");
    assert_eq!((plain.admit, plain.vary_cookie), (AdmitRule::Entry, VaryCookie::Respect));
    assert_eq!((plain.languages, plain.strip_set_cookie), (None, StripSetCookie::No));
    let keys = "scope = \"shared\"\nadmit = \"route\"\nvary_cookie = \"ignore\"\nlanguages = \
                [\"en\", \"pt-BR\"]\nstrip_set_cookie = [\"_ga\", \"pref_*\"]";
    let stated = only_route(keys);
    assert_eq!((stated.admit, stated.vary_cookie), (AdmitRule::Route, VaryCookie::Ignore));
    assert_eq!(stated.languages, Some(["en".into(), "pt-br".into()].into()));
    assert_eq!(
        stated.strip_set_cookie,
        StripSetCookie::Named(["_ga".into(), "pref_*".into()].into())
    );
    for (value, rule) in [("true", StripSetCookie::All), ("false", StripSetCookie::No)] {
        assert_eq!(only_route(&format!("strip_set_cookie = {value}")).strip_set_cookie, rule);
    }
}

#[test]
fn cookies_are_patterns_and_those_of_the_credential_are_never_ignored() {
    let rule = config(
        "[credential]\ncookies = [\"wordpress_logged_in_*\", \"_ga_sid\"]\nignore_cookies = \
         [\"@consent\", \"promo*\", \"!_fbp\"]\nlogin_paths = [\"/enter\"]\n",
    )
    .credential;
    let cookies = rule.cookies.as_deref().expect("cookies");
    assert!(cookies[0].matches(b"wordpress_logged_in_0a1b"));
    let ignored = |name: &str| rule.ignored_cookies.ignores(name.as_bytes());
    assert!(["_ga", "_ga_X", "OptanonConsent", "promo_1"].into_iter().all(ignored));
    assert!(!["_ga_sid", "_fbp", "optimizelyX", "sid"].into_iter().any(ignored));
    assert!(rule.is_login(&http::HeaderValue::from_static("/enter?next=/a"), "a"));
    assert!(!rule.is_login(&http::HeaderValue::from_static("/login"), "a"), "a list replaces");
    let silent = config("").credential;
    assert!(silent.is_login(&http::HeaderValue::from_static("/en/login?next=/a"), "a"));
    assert!(silent.ignored_cookies.ignores(b"_ga") && silent.cookies.is_none());
}

#[test]
fn a_field_is_the_clients_address_or_its_network() {
    let source = |form: &str| {
        let lines =
            format!("[fields]\nx = {{ {form} }}\n[[routes]]\npath = \"/a\"\nkey = [\"x\"]\n");
        config(&lines).routes.iter().next().map(|route| route.fields[0].source.clone())
    };
    for (form, v4, v6) in [
        ("client = \"address\"", 32, 128),
        ("client = \"address\", prefix = \"/24\"", 24, 56),
        ("client = \"address\", prefix = \"/16,/48\"", 16, 48),
        ("client = \"address\", prefix = \"/16, /48\"", 16, 48),
    ] {
        assert_eq!(source(form), Some(FieldSource::Client(ClientPrefix { v4, v6 })), "{form}");
    }
}

#[test]
fn the_origin_gets_a_browsers_user_agent_and_upgrades_to_websocket() {
    let silent = config("").upstream;
    assert_eq!(silent.upgrades.join(" "), "websocket");
    assert!(silent.reuse_after_body);
    assert_eq!(silent.user_agent, FillConstants::default().user_agent);
    assert!(silent.user_agent.as_bytes().starts_with(b"Mozilla/5.0 ("));
    let lines = "upgrades = [\"WebSocket\", \"spice/1\"]\nreuse_after_body = false\nuser_agent = \
                 \"own/1\"\n[limits]\npinned = 0\n";
    let stated = config(lines);
    assert_eq!(stated.upstream.upgrades.join(" "), "websocket spice/1");
    assert!(!stated.upstream.reuse_after_body);
    assert_eq!(stated.upstream.user_agent, "own/1");
    assert_eq!((stated.limits.pinned, config("").limits.pinned), (0, 64));
    for (line, text) in [
        ("upgrades = [\"h2c\"]", "past the rules"),
        ("upgrades = [\"TLS/1.0\"]", "past the rules"),
        ("upgrades = [\"web socket\"]", "is not a protocol"),
        ("upgrades = [\"a/b/c\"]", "is not a protocol"),
        ("upgrades = [\"websocket\", \"WebSocket\"]", "listed twice"),
        ("user_agent = \" \"", "this is not a User-Agent"),
        ("user_agent = \"a\\nb\"", "this is not a User-Agent"),
    ] {
        let shown = super::diagnostics(&format!("[upstream]\nurl = \"http://h\"\n{line}\n"));
        assert_eq!(shown.errors().count(), 1, "{line}: {shown}");
        assert!(shown.to_string().contains(text), "{line}: {shown}");
    }
}

#[test]
fn what_decides_what_is_stored_is_in_the_fingerprint_and_nothing_else() {
    let fingerprint = |before: &str, keys: &str| {
        let lines = format!("{before}\n[[routes]]\npath = \"/a\"\nscope = \"shared\"\n{keys}\n");
        config(&lines).routes.iter().next().map(|route| route.fingerprint)
    };
    let plain = fingerprint("", "");
    for (before, keys) in [
        ("", "languages = [\"en\"]"),
        ("", "vary_cookie = \"ignore\""),
        ("", "strip_set_cookie = true"),
        ("", "strip_set_cookie = [\"a\"]"),
        ("[credential]\ncookies = [\"a*\"]", ""),
        ("[credential]\nignore_cookies = [\"a*\"]", ""),
        ("[credential]\nignore_cookies = [\"!_ga\"]", ""),
        ("[credential]\nlogin_paths = [\"/enter\"]", ""),
    ] {
        assert_ne!(fingerprint(before, keys), plain, "{before} {keys}");
    }
    let field = |prefix: &str| {
        let field = format!("[fields]\nx = {{ client = \"address\"{prefix} }}");
        fingerprint(&field, "key = [\"x\"]")
    };
    assert_ne!(field(""), field(", prefix = \"/24\""));
    assert_ne!(
        fingerprint("", "strip_set_cookie = [\"a\"]"),
        fingerprint("", "strip_set_cookie = true")
    );
    for keys in ["admit = \"route\"", "strip_set_cookie = false", "vary_cookie = \"respect\""] {
        assert_eq!(fingerprint("", keys), plain, "{keys}");
    }
}

#[test]
fn the_limits_of_uploads_arrive() {
    let limits = config("").limits;
    let seconds = Duration::from_secs;
    assert_eq!(
        (limits.uploads, limits.upload_time, limits.gather),
        (64 << 20, seconds(120), seconds(10))
    );
    let lines = "[limits]\nuploads = \"1MiB\"\nupload_time = \"1s\"\ngather = \"0s\"\n";
    let limits = config(lines).limits;
    assert_eq!(
        (limits.uploads, limits.upload_time, limits.gather),
        (1 << 20, seconds(1), Duration::ZERO)
    );
    for line in ["uploads = \"0\"", "upload_time = \"999ms\"", "gather = \"61m\""] {
        let shown =
            super::diagnostics(&format!("[upstream]\nurl = \"http://h\"\n[limits]\n{line}\n"));
        assert_eq!(shown.errors().count(), 1, "{line}: {shown}");
    }
}

#[test]
fn fields_may_be_optional_and_of_the_caller() {
    let fields = "[fields]\nteam = { header = \"x-team\" }\n";
    let route = |keys: &str| {
        let config = config(&format!("{fields}[[routes]]\npath = \"/a/{{id}}\"\n{keys}\n"));
        config.routes.iter().next().map(|route| route.spec.clone()).expect("a route")
    };
    let spec = route("key = [\"team?\"]\ntags = [\"a:{caller}\", \"b:{id?}\"]");
    assert!(spec.key[0].is_optional && &*spec.key[0].name == "team");
    let fields: Vec<_> = spec.tags.iter().flat_map(Template::fields).collect();
    assert_eq!((&fields[0].source, fields[0].is_optional), (&FieldSource::Caller, false));
    assert_eq!((&*fields[1].name, fields[1].is_optional), ("id", true));
    assert!(!route("key = [\"team\"]").key[0].is_optional);
    // What the file declares hides the built-in field.
    let own = config(
        "[fields]\ncaller = { header = \"x-caller\" }\n[[routes]]\npath = \"/a\"\nkey = \
         [\"caller\"]\n",
    );
    let own = own.routes.iter().next().expect("a route").spec.key[0].source.clone();
    assert!(matches!(own, FieldSource::Header(_)), "{own:?}");
}

#[test]
fn an_authorization_is_bounded_by_the_time_of_a_confirmation() {
    let times = |keys: &str| {
        let spec = only_route(&format!("scope = \"shared\"\n{keys}"));
        (spec.admit_for.as_secs(), spec.revalidate_after.map(|after| after.as_secs()))
    };
    assert_eq!(times(""), (60, None));
    assert_eq!(times("revalidate_after = \"30s\""), (30, Some(30)));
    assert_eq!(times("admit_for = \"10s\"\nrevalidate_after = \"30s\""), (10, Some(30)));
}
