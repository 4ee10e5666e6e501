//! `[[apps]]`, and `app` of rules.

use super::{diagnostics, parse};
use crate::config::diff::{self, ConfigSnapshot};
use crate::config::{Config, sharing};
use crate::policy::apps::AppId;

const FIRST: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\nmax_connections = 7\n";
const SHOP: &str = "[[apps]]\nname = \"shop\"\nhosts = [\"Shop.test\", \"*.shop.test\"]\n\
                    url = \"http://127.0.0.1:8001\"\n";

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn an_app_has_what_upstream_says_but_for_its_own() {
    let config = valid(&format!("{FIRST}{SHOP}host = \"upstream\"\nhost_key = \"Shop.test\"\n"));
    let [app] = &*config.apps else { panic!("one app") };
    assert_eq!((&*app.name, &*app.upstream.target.authority), ("shop", "127.0.0.1:8001"));
    assert_eq!(app.upstream.max_connections, 7);
    assert_eq!((app.host_key.as_deref(), config.host_key.as_deref()), (Some("shop.test"), None));
    let rules = config.app_rules();
    let (first, shop) = (rules.get(AppId::FIRST), rules.get(AppId::of_listed(0)));
    assert_eq!((first.fill.host.as_ref(), first.name.as_deref()), (None, None));
    let host = shop.fill.host.as_ref().and_then(|host| host.to_str().ok());
    assert_eq!((host, shop.name.as_deref()), (Some("127.0.0.1:8001"), Some("shop")));
    assert_eq!(config.app_hosts.of("eu.shop.test:80"), AppId::of_listed(0));
}

#[test]
fn what_is_wrong_with_an_app_is_told() {
    let app = |from: &str, to: &str| SHOP.replace(from, to);
    let second = |hosts: &str| {
        format!("{SHOP}[[apps]]\nname = \"b\"\nhosts = [{hosts}]\nurl = \"http://127.0.0.1:1\"\n")
    };
    for (text, expected) in [
        (app("name = \"shop\"\n", ""), "`name` is missing"),
        (app("url = \"http://127.0.0.1:8001\"\n", ""), "`url` is missing"),
        (app("hosts = [\"Shop.test\", \"*.shop.test\"]\n", ""), "`hosts` is missing"),
        (app("[\"Shop.test\", \"*.shop.test\"]", "[]"), "an app without a host gets no request"),
        (app("\"shop\"", "\"my shop\""), "not a name of an app"),
        (app("\"shop\"", "\"\""), "not a name of an app"),
        (app("\"shop\"", "\"upstream\""), "the name of the app in [upstream]"),
        (app("\"shop\"", "\"${NAME:-shop}\""), "cannot be a variable"),
        (app("Shop.test", "shop.test:80"), "the port does not count"),
        (app("Shop.test", "http://shop.test"), "not a host"),
        (app("Shop.test", "shop.*.test"), "not a host"),
        (app("Shop.test", "*"), "not a host"),
        (app("Shop.test", "*."), "not a host"),
        (app("Shop.test", "::1"), "\"[::1]\""),
        (app("Shop.test", "shop.test."), "not a host"),
        (app("Shop.test", "*.SHOP.test"), "listed twice"),
        (app("8001", "0"), "port 0"),
        (app("http://127.0.0.1:8001", "http://127.0.0.1:8080"), "requests would loop"),
        (
            format!("{SHOP}{}", SHOP.replace("shop", "SHOP").replace("\"SHOP\"", "\"shop\"")),
            "is called `shop`, too",
        ),
        (second("\"SHOP.test\""), "is a host of the app `shop` already"),
        (second("\"*.shop.test\""), "is a host of the app `shop` already"),
        (app("url =", "timeout = \"1s\"\nurl ="), "timeout"),
    ] {
        let found = diagnostics(&format!("{FIRST}{text}"));
        assert!(found.to_string().contains(expected), "{text}\n{found}");
    }
    let many: String = (0..33)
        .map(|at| SHOP.replace("shop", &format!("s{at}")).replace("Shop", &format!("S{at}")))
        .collect();
    assert!(diagnostics(&format!("{FIRST}{many}")).to_string().contains("at most 32"));
    let hosts: Vec<String> = (0..65).map(|at| format!("\"h{at}.test\"")).collect();
    let text = app("\"Shop.test\", \"*.shop.test\"", &hosts.join(", "));
    assert!(diagnostics(&format!("{FIRST}{text}")).to_string().contains("at most 64"));
}

#[test]
fn a_rule_names_an_app_that_is_there() {
    let route = |app: &str| {
        format!("{FIRST}{SHOP}[[routes]]\npath = \"/a\"\nttl = \"1m\"\nscope = \"public\"\n{app}\n")
    };
    let unknown = diagnostics(&route("app = \"shp\"")).to_string();
    assert!(unknown.contains("there is no app `shp`"), "{unknown}");
    assert!(
        unknown.contains("did you mean \"shop\"?") && unknown.contains("upstream"),
        "{unknown}"
    );
    let purge = format!("{FIRST}[[purges]]\npath = \"/a\"\ntags = [\"a\"]\napp = \"shop\"\n");
    assert!(diagnostics(&purge).to_string().contains("there is no app `shop`"));
    let variable = diagnostics(&route("app = \"${A:-shop}\"")).to_string();
    assert!(variable.contains("cannot be a variable"), "{variable}");
    for (keys, name) in [
        ("app = \"shop\"", "/a [app=shop]"),
        ("app = \"upstream\"", "/a"),
        ("", "/a"),
        ("app = \"shop\"\nmatch.query.a = \"1\"", "/a [app=shop, query.a=1]"),
    ] {
        let config = valid(&route(keys));
        assert_eq!(config.routes.get(0).expect("a route").name(), name);
    }
    // Routes of two apps for one path never tie; two of one app do.
    let twice = format!("{}[[routes]]\npath = \"/a\"\nttl = \"1m\"\n", route("app = \"shop\""));
    assert_eq!(valid(&twice).routes.len(), 2);
    let tied = diagnostics(&format!("{twice}app = \"shop\"\n")).to_string();
    assert!(tied.contains("the same path"), "{tied}");
    // A host of another app in `match`.
    for (keys, name) in [
        ("match.host = \"shop.test:81\"", "app `shop`"),
        ("app = \"shop\"\nmatch.host = \"else.test\"", "app `upstream`"),
    ] {
        let config = valid(&route(keys));
        let told = |warning: &&crate::config::Diagnostic| warning.message.contains(name);
        assert!(config.warnings.iter().any(|it| told(&it)), "{keys}: {:?}", config.warnings);
    }
    for fits in ["match.host = \"else.test\"", "app = \"shop\"\nmatch.host = \"a.shop.test\""] {
        let config = valid(&route(fits));
        assert!(!config.warnings.iter().any(|it| it.message.contains("gets no request")), "{fits}");
    }
    // An app without a rule is noted.
    let config = valid(&route(""));
    assert!(config.warnings.iter().any(|note| note.message.contains("no route is for the app")));
}

#[test]
fn fingerprints_tell_apps_apart() {
    let route = |app: &str| format!("[[routes]]\npath = \"/a\"\nttl = \"1m\"\n{app}\n");
    let two = SHOP.replace("shop", "mall").replace("Shop", "Mall").replace("8001", "8002");
    let text = format!(
        "{FIRST}{SHOP}{two}{}{}{}",
        route(""),
        route("app = \"shop\""),
        route("app = \"mall\"")
    );
    let config = valid(&text);
    let mut prints: Vec<_> = config.routes.iter().map(|route| route.fingerprint).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 3);
    // That of the first app is what it was without others.
    let alone = valid(&format!("{FIRST}{}", route("")));
    assert!(prints.contains(&alone.routes.get(0).expect("a route").fingerprint));
}

#[test]
fn changes_of_apps_are_told_by_their_names() {
    let of = |text: &str| ConfigSnapshot::from_config(&valid(&format!("{FIRST}{text}")));
    let changed = |from: &str, to: &str| {
        let changes = diff::changes(&of(from), &of(to));
        let [change] = &*changes else { panic!("one change: {changes:?}") };
        assert_eq!(change.what, "app shop");
        format!("{:?} {:?}", change.change, change.effect)
    };
    assert_eq!(changed("", SHOP), "Added Some(LeftBehind)");
    assert_eq!(changed(SHOP, ""), "Removed Some(LeftBehind)");
    assert_eq!(changed(SHOP, &SHOP.replace("8001", "8002")), "Changed Some(LeftBehind)");
    assert_eq!(changed(SHOP, &SHOP.replace("*.shop", "*.mall")), "Changed Some(LeftBehind)");
    assert_ne!(of(SHOP).rules_digest(), of("").rules_digest());
    let other = SHOP.replace("8001", "8002").replace("shop", "b").replace("Shop", "B");
    let (one, two) = (format!("{SHOP}{other}"), format!("{other}{SHOP}"));
    assert_eq!(of(&one).rules_digest(), of(&two).rules_digest(), "their order does not count");
}

#[test]
fn who_shares_is_compared_where_hosts_meet() {
    let route = |keys: &str| format!("[[routes]]\npath = \"/a\"\nttl = \"1m\"\n{keys}\n");
    let of = |text: &str| ConfigSnapshot::from_config(&valid(&format!("{FIRST}{text}"))).sharing;
    let public = "scope = \"public\"";
    let widened = |before: &str, after: &str| of(after).widened_from(&of(before)).len();
    let private = format!("{SHOP}{}", route(""));
    // A route of another app for the same path is new.
    assert_eq!(
        widened(&private, &format!("{private}{}", route("app = \"shop\"\nscope = \"public\""))),
        0
    );
    assert_eq!(widened(&private, &format!("{SHOP}{}", route(public))), 1);
    // Hosts that were those of the first app are those of the shop now.
    let moved = format!("{SHOP}{}", route("app = \"shop\"\nscope = \"public\""));
    assert_eq!(widened(&route(""), &moved), 1);
    assert_eq!(widened(&moved, &route(public)), 0);
    let joined = |line: &str| format!("{SHOP}host_key = \"shop.test\"{line}\n{}", route(""));
    assert_eq!(widened(&private, &joined("")), 1);
    // An app that is new does with its hosts what it likes.
    assert_eq!(widened(&route(""), &joined("")), 0);
    // The line of the app is the one that accepts it.
    let refused = |line: &str| {
        let config = valid(&format!("{FIRST}{}", joined(line)));
        sharing::refusals(&config, "proxy.toml", &of(&private)).map(|found| found.to_string())
    };
    let told = refused("").expect("it is refused");
    assert!(told.contains("proxy.toml:8:12") && told.contains("gives all hosts"), "{told}");
    assert_eq!(refused(" # check: ok"), None);
}
