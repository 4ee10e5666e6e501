//! `[defaults]`: what routes take over, and where messages about it point.

use std::time::Duration;

use super::{diagnostics, parse};
use crate::config::Config;
use crate::policy::scope::Scope;

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
    [fields]\ntenant = { header = \"x-tenant\" }\n";

fn file(defaults: &str, routes: &str) -> Config {
    let text = format!("{HEAD}[defaults]\n{defaults}\n{routes}");
    parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The lines with warnings, but for those on tags.
fn warned(config: &Config) -> Vec<usize> {
    let others = config.warnings.iter().filter(|one| !one.message.contains("no tags"));
    others.map(|one| one.line).collect()
}

fn route(path: &str, keys: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\n{keys}\n")
}

#[test]
fn a_route_takes_over_what_it_lacks() {
    let defaults = "ttl = \"1m\"\nscope = \"shared\"\nkey = [\"tenant\"]\nmode = \"shadow\"";
    let routes = route("/a", "") + &route("/b", "ttl = \"5s\"\nscope = \"private\"\nkey = []");
    let config = file(defaults, &routes);
    let specs: Vec<_> = config.routes.iter().map(|route| &route.spec).collect();
    let seen: Vec<_> =
        specs.iter().map(|spec| (spec.ttl.plain(), spec.scope, spec.key.len())).collect();
    let time = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(seen, [(time(60), Scope::Shared, 1), (time(5), Scope::Private, 0)]);
    let lines = |at: usize| {
        let mut keys: Vec<(&str, usize)> =
            specs[at].defaults.iter().map(|(key, line)| (&**key, *line)).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(lines(0), [("key", 8), ("mode", 9), ("scope", 7), ("ttl", 6)]);
    assert_eq!(lines(1), [("mode", 9)]);
    assert_eq!(warned(&config), [0; 0], "{:?}", config.warnings);
    // Routes in a list of the key `routes`.
    let text = format!(
        "routes = [{{ path = \"/a\" }}]\n{HEAD}[defaults]\nttl = \"1m\"\nscope = \"shared\"\n\
         key = [\"tenant\"]\n"
    );
    let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.routes.iter().next().expect("a route").spec.ttl.plain(), time(60));
}

#[test]
fn a_mistake_is_reported_once_where_it_stands() {
    let routes = route("/a", "") + &route("/b", "") + &route("/c/{id}", "");
    for (defaults, column, text) in [
        ("path = \"/x\"", 1, "a path belongs to one route"),
        ("tll = \"1m\"", 1, "did you mean `ttl`?"),
        ("ttl = \"soon\"", 7, "duration"),
        ("ttl = \"0s\"", 7, "too small"),
        ("scope = \"all\"", 9, "private"),
        ("key = [\"other\"]", 9, "other"),
        ("drop_headers = [\"a b\"]", 17, "not a valid header name"),
    ] {
        let found = diagnostics(&format!("{HEAD}[defaults]\n{defaults}\n{routes}"));
        let errors: Vec<_> = found.errors().collect();
        assert_eq!(errors.len(), 1, "{defaults}: {found}");
        assert_eq!((errors[0].line, errors[0].column), (6, column), "{found}");
        assert!(found.to_string().contains(text), "{text}: {found}");
    }
    let alone = diagnostics(&format!("{HEAD}[defaults]\nttl = 5\n"));
    assert_eq!(alone.errors().count(), 1, "without routes as well: {alone}");
}

#[test]
fn what_has_no_effect_on_some_routes_is_no_mistake() {
    let defaults = "jitter = \"1s\"\nadmit_for = \"5s\"\nadmit = \"entry\"\norigin = \"ignore\"";
    let shared = "ttl = \"1m\"\nscope = \"shared\"\nkey = [\"tenant\"]\norigin = \"respect\"";
    let config = file(defaults, &(route("/a", "") + &route("/b", shared)));
    assert_eq!(warned(&config), [0; 0], "{:?}", config.warnings);
    let config = file("ttl = \"1m\"\nscope = \"private\"", &route("/a", "ttl = \"2m\""));
    assert_eq!(warned(&config), [4, 6], "no route takes it over: {:?}", config.warnings);
}
