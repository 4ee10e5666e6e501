//! Tests of what lets more callers share.

use super::*;

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[fields]\n\
    tenant = { header = \"x-tenant\" }\nother = { header = \"x-other\" }\n\
    token = { auth = \"token\" }\nstart = { auth = \"prefix\", length = 20 }\n\
    wide = { client = \"address\", prefix = \"/24\" }\nnarrow = { client = \"address\" }\n\
    site = { host = true }\npage = { query = \"page\" }\nraw = { cookie = \"s\" }\n\
    whole = { cookie = \"s\", format = \"flask\", secret = \"0123456789abcdef\", \
    max_age = \"1h\" }\nuser = { cookie = \"s\", format = \"flask\", \
    secret = \"0123456789abcdef\", max_age = \"1h\", pointer = \"/id\", ignore = [\"x\"] }\n\
    seen = { cookie = \"s\", format = \"flask\", secret = \"fedcba9876543210\", \
    max_age = \"2h\", ignore = [\"x\", \"y\"] }\n";

fn rules(route: &str) -> SharingRules {
    let text = format!("{HEAD}[[routes]]\npath = \"/a/{{id}}\"\nttl = \"1m\"\n{route}\n");
    let config = Config::parse(&text, "proxy.toml", &|_| None);
    SharingRules::from_config(&config.unwrap_or_else(|problems| panic!("{problems}")))
}

fn keys(before: &str, after: &str) -> Vec<&'static str> {
    let found = rules(after).widened_from(&rules(before));
    found.into_iter().map(|widening| widening.key).collect()
}

#[test]
fn what_lets_more_callers_share_is_found() {
    let public = "scope = \"public\"";
    let shared = "scope = \"shared\"";
    for (before, after, key) in [
        ("", public, "scope"),
        ("", shared, "scope"),
        (shared, public, "scope"),
        ("key = [\"tenant\"]", "", "key"),
        ("key = [\"tenant\", \"other\"]", "key = [\"other\"]", "key"),
        ("tags = [\"a:{tenant}\"]", "tags = [\"a\"]", "key"),
        ("key = [\"token\"]", "key = [\"start\"]", "key"),
        ("key = [\"narrow\"]", "key = [\"wide\"]", "key"),
        ("", "pass_headers = [\"x-tenant-id\"]", "pass_headers"),
        ("", "pass_headers = [\"x-api-key\"]", "pass_headers"),
        ("", "pass_headers = [\"x-forwarded-host\"]", "pass_headers"),
        ("", "pass_headers = [\"x-theme\"]", "pass_headers"),
        ("", "unknown_headers = \"pass\"", "unknown_headers"),
        (shared, "scope = \"shared\"\nstrip_set_cookie = true", "strip_set_cookie"),
        (shared, "scope = \"shared\"\nadmit = \"route\"", "admit"),
        (public, "scope = \"public\"\norigin = \"ignore\"", "origin"),
        (public, "scope = \"public\"\nvary_cookie = \"ignore\"", "vary_cookie"),
        ("", "signed_in = { cookie = \"a\" }", "signed_in"),
        ("signed_in = { cookie = [\"a\", \"b\"] }", "signed_in = { cookie = \"a\" }", "signed_in"),
        ("signed_in = { cookie = \"a*\" }", "signed_in = { cookie = \"ab*\" }", "signed_in"),
        (
            "signed_in = { field = \"user\", cookie = \"a\" }",
            "signed_in = { cookie = \"a\" }",
            "signed_in",
        ),
        (
            "signed_in = { cookie = \"a\" }",
            "signed_in = { cookie = \"a\" }\norigin = \"ignore\"",
            "origin",
        ),
        // A part of the session stands for the whole caller.
        ("", "key = [\"user\"]", "key"),
        ("", "key = [\"seen\"]", "key"),
    ] {
        assert_eq!(keys(before, after), [key], "{before:?} to {after:?}");
        assert!(keys(after, before).is_empty(), "{after:?} to {before:?} is narrower");
    }
}

/// What is no part of the key is withheld; but by `admit = "route"` who may read one body's answer
/// may read all.
#[test]
fn less_of_a_body_in_the_key_is_wider_only_where_the_key_says_who_may_read() {
    let head = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[fields]\n\
                item = { body = \"/f/id\" }\nfilter = { body = \"/f\" }\n[[routes]]\n\
                path = \"/a\"\nttl = \"1m\"\nmethods = [\"POST\"]\nread_only = true\n";
    let of = |route: &str| {
        let config = Config::parse(&format!("{head}{route}\n"), "proxy.toml", &|_| None);
        SharingRules::from_config(&config.unwrap_or_else(|problems| panic!("{problems}")))
    };
    let keys = |before: &str, after: &str| -> Vec<&str> {
        of(after).widened_from(&of(before)).into_iter().map(|widening| widening.key).collect()
    };
    let by_route = "scope = \"shared\"\nadmit = \"route\"\n";
    for (before, after) in [("body", "filter"), ("body", "item"), ("filter", "item")] {
        let [before, after] = [before, after].map(|name| format!("key = [\"{name}\"]"));
        assert!(keys(&before, &after).is_empty(), "{before} to {after}");
        let [before, after] = [before, after].map(|key| format!("{by_route}{key}"));
        assert_eq!(keys(&before, &after), ["key"], "{before} to {after}");
        assert!(keys(&after, &before).is_empty(), "{after} to {before}");
    }
}

#[test]
fn what_lets_no_more_callers_share_is_not() {
    for (before, after) in [
        ("", "key = [\"tenant\"]"),
        ("key = [\"tenant\"]", "key = [\"tenant?\", \"other\"]"),
        ("key = [\"token\"]", ""),
        ("", "pass_headers = [\"traceparent\"]"),
        ("", "drop_headers = [\"x-tenant-id\"]"),
        ("", "origin = \"ignore\""),
        ("mode = \"off\"", "mode = \"on\""),
        ("", "query = \"none\""),
        ("tags = [\"a:{id}\"]", "tags = [\"a\"]"),
        ("key = [\"id\", \"site\", \"page\"]", ""),
        ("key = [\"raw\"]", "key = [\"whole\"]"),
        ("key = [\"user\"]", "key = [\"whole\"]"),
        ("", "key = [\"whole\"]"),
        ("key = [\"whole\"]", ""),
        ("key = [\"token\"]\nunknown_headers = \"pass\"", "unknown_headers = \"pass\""),
        ("tags = [\"a:{id}\"]", "tags = [\"a\"]"),
        ("key = [\"id\", \"site\", \"page\"]", ""),
    ] {
        assert!(keys(before, after).is_empty(), "{before:?} to {after:?}");
    }
}

#[test]
fn a_reload_is_refused_unless_the_file_accepts_it() {
    let text = |route: &str, comment: &str| {
        format!("{HEAD}[[routes]]{comment}\npath = \"/a/{{id}}\"\nttl = \"1m\"\n{route}\n")
    };
    let refused = |after: &str| {
        let config = Config::parse(after, "proxy.toml", &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        refusals(&config, "proxy.toml", &rules("key = [\"tenant\", \"other\"]"))
    };
    let found = refused(&text("key = [\"other\"]", "")).expect("a field is gone");
    let one = found.errors().next().expect("an error");
    assert_eq!((one.line, found.errors().count()), (19, 1), "{found}");
    assert!(one.message.contains("takes `tenant` out of the key on /a/{id},"), "{found}");
    let found = refused(&text("", "")).expect("all fields are gone");
    assert_eq!(found.errors().map(|one| one.line).collect::<Vec<_>>(), [16, 16], "{found}");
    for (route, comment) in [
        ("key = [\"other\"] # check: ok, one tenant", ""),
        ("key = [\"other\"]", " # check: ok"),
        ("", " # check: ok"),
        ("key = [\"tenant\", \"other\"]", ""),
    ] {
        let text = text(route, comment);
        assert_eq!(refused(&text), None, "{text}");
    }
}

fn file(rest: &str) -> SharingRules {
    let config = Config::parse(&format!("{HEAD}{rest}"), "proxy.toml", &|_| None);
    SharingRules::from_config(&config.unwrap_or_else(|problems| panic!("{problems}")))
}

fn route(path: &str, rest: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nttl = \"1m\"\n{rest}\n")
}

#[test]
fn paths_are_compared_whatever_their_routes_are_called() {
    let (own, all) = ("key = [\"tenant\"]", "scope = \"public\"");
    let both = |one: String, two: String| one + &two;
    for (before, after, widens) in [
        (route("/a/{id}", own), route("/a/{name}", all), true),
        (route("/a/{id}", own), route("/a/{*rest}", all), true),
        (route("/a/{*rest}", own), both(route("/a/{*rest}", own), route("/a/me", all)), true),
        (both(route("/a/{*rest}", all), route("/a/me", own)), route("/a/{*rest}", all), true),
        (route("/A/x", own), route("/a/x", &format!("{all}\ncase = \"ignore\"")), true),
        (route("/{a}-{b}", own), route("/{id}.json", all), true),
        (route("/a/{id}.json", own), route("/a/{id}", all), true),
        (route("/a/{id}", own), route("/a/{name}", own), false),
        (route("/a", own), both(route("/a", own), route("/b", all)), false),
        (route("/a/{id}.json", own), route("/a/{id}.xml", all), false),
        (route("/a/{id}", own), route("/a/{id}/more", all), false),
        // The paths of the route that is widened have another one, before and after.
        (
            both(route("/a/{*rest}", all), route("/a/me", own)),
            both(route("/a/{*rest}", all), route("/a/me", own)),
            false,
        ),
    ] {
        let found = file(&after).widened_from(&file(&before));
        assert_eq!(!found.is_empty(), widens, "{before} to {after}: {found:?}");
    }
}

#[test]
fn what_told_callers_apart_is_not_passed_beside_the_key() {
    let credential = "[credential]\nheaders = [\"x-odd\"]\n";
    let before = file(&format!("{credential}{}", route("/a", "")));
    let found = file(&route("/a", "pass_headers = [\"x-odd\"]")).widened_from(&before);
    assert_eq!(found.iter().map(|one| one.key).collect::<Vec<_>>(), ["pass_headers"]);
}

#[test]
fn r1028_a_session_that_counts_less_lets_more_callers_share() {
    for (before, after, widens) in [
        ("key = [\"whole\"]", "key = [\"user\"]", true),
        ("key = [\"whole\"]", "key = [\"seen\"]", true),
        ("key = [\"raw\"]", "key = [\"user\"]", true),
        ("key = [\"user\"]", "key = [\"seen\"]", true),
        ("scope = \"shared\"\nkey = [\"user\"]", "scope = \"shared\"", true),
        ("key = [\"seen\"]", "key = [\"whole\"]", false),
        ("key = [\"user\"]", "key = [\"user?\"]", false),
    ] {
        let found = keys(before, after);
        assert_eq!(!found.is_empty(), widens, "{before} to {after}: {found:?}");
        assert!(found.iter().all(|key| *key == "key"), "{found:?}");
    }
}

#[test]
fn a_host_key_joins_hosts() {
    let text = format!("{HEAD}{}", route("/a", ""));
    let joined = |comment: &str| {
        text.replace("[fields]", &format!("host_key = \"a.test\"{comment}\n[fields]"))
    };
    let refused = |after: &str| {
        let config = Config::parse(after, "proxy.toml", &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        refusals(&config, "proxy.toml", &file(&route("/a", "")))
    };
    let found = refused(&joined("")).expect("hosts share");
    assert_eq!(found.errors().map(|one| one.line).collect::<Vec<_>>(), [3], "{found}");
    assert_eq!(refused(&joined(" # check: ok")), None);
}

#[test]
fn a_comment_counts_wherever_the_route_and_its_list_stand() {
    let refused = |rest: &str, before: &str| {
        let environment = |name: &str| (name == "AT").then(|| "/a".to_owned());
        let config = Config::parse(&format!("{HEAD}{rest}"), "proxy.toml", &environment);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        refusals(&config, "proxy.toml", &file(before)).is_some()
    };
    let passed =
        |comment: &str| route("/a", &format!("pass_headers = [\n  \"x-user-id\",{comment}\n]"));
    assert!(refused(&passed(""), &route("/a", "")));
    assert!(!refused(&passed(" # check: ok"), &route("/a", "")));
    let public = |comment: &str| route("${AT}", &format!("scope = \"public\"{comment}"));
    assert!(refused(&public(""), &route("/a", "")));
    assert!(!refused(&public(" # check: ok"), &route("/a", "")));
}

#[test]
fn another_route_is_another_entry() {
    let two = "scope = \"private\"\n[[routes]]\npath = \"/b\"\nttl = \"1m\"\nscope = \"public\"";
    assert!(keys("", two).is_empty());
}

#[test]
fn a_value_of_the_defaults_widens_each_route_that_takes_it_over() {
    let own = route("/a", "key = [\"tenant\"]") + &route("/b", "scope = \"private\"");
    let before = file(&own);
    let refused = |defaults: &str, routes: &str| {
        let text = format!("{HEAD}[defaults]\n{defaults}\n{routes}");
        let config = Config::parse(&text, "proxy.toml", &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        refusals(&config, "proxy.toml", &before)
    };
    let found = refused("scope = \"public\"", &own).expect("/a is public now");
    let one = found.errors().next().expect("an error");
    let line = HEAD.lines().count() + 2;
    assert_eq!((one.line, found.errors().count()), (line, 1), "{found}");
    assert!(one.message.contains("makes a private route public on /a"), "{found}");
    assert_eq!(refused("scope = \"public\" # check: ok", &own), None);
    // What moves to the defaults changes nothing; what leaves them does.
    let plain = route("/a", "") + &route("/b", "scope = \"private\"");
    assert_eq!(refused("key = [\"tenant\"]", &plain), None);
    let found = refused("ttl = \"1m\"", &plain).expect("the key is gone");
    assert!(found.to_string().contains("takes `tenant` out of the key on /a"), "{found}");
}

#[test]
fn a_front_that_is_no_longer_named_keeps_nobody_apart() {
    let all = route("/a", "unknown_headers = \"pass\"");
    let behind = |fronts: &str, route: &str| {
        let text = format!("fronts = [{fronts}]\n{HEAD}{route}");
        let config = Config::parse(&text, "proxy.toml", &|_| None);
        config.unwrap_or_else(|problems| panic!("{problems}"))
    };
    let azure = SharingRules::from_config(&behind("\"azure\"", &all));
    let found = refusals(&behind("\"envoy\"", &all), "proxy.toml", &azure);
    let found = found.expect("what Azure says of callers passes");
    assert_eq!(found.errors().map(|one| one.line).collect::<Vec<_>>(), [1], "{found}");
    for (fronts, route) in
        [("\"azure\", \"envoy\"", all.as_str()), ("", &route("/a", "unknown_headers = \"drop\""))]
    {
        assert_eq!(refusals(&behind(fronts, route), "proxy.toml", &azure), None, "{fronts}");
    }
}

#[test]
fn requests_that_another_route_had_are_compared() {
    let list = "match.query.action = \"list\"";
    let public = |more: &str| route("/a", &format!("scope = \"public\"\n{more}"));
    let private = |more: &str| route("/a", more);
    let refused = |before: &str, after: &str| {
        let config = Config::parse(&format!("{HEAD}{after}"), "proxy.toml", &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        refusals(&config, "proxy.toml", &file(before)).map(|found| found.to_string())
    };
    let both = public(list) + &private("");
    for (before, after) in [
        // Some requests of a private route are public now.
        (private(""), both.clone()),
        (private(list), public(list)),
        (both.clone(), public("match.query.action = [\"list\", \"save\"]") + &private("")),
        (both.clone(), public("")),
        (private(list) + &public(""), public("")),
        (route("/{*rest}", ""), public("match.host = \"a.test\"")),
    ] {
        let found = refused(&before, &after);
        let found = found.unwrap_or_else(|| panic!("{before} to {after}"));
        assert!(found.contains("makes a private route public"), "{found}");
        assert_eq!(refused(&after, &before), None, "{after} to {before} is narrower");
    }
    for (before, after) in [
        (both.clone(), both.clone()),
        (both.clone(), private("") + &public(list)),
        (both.clone(), public("match.query = { action = \"list\", x = \"1\" }") + &private("")),
        (private("match.query.action = \"save\""), public(list)),
        (private("match.host = \"a.test\""), public("match.host = \"b.test\"")),
    ] {
        assert_eq!(refused(&before, &after), None, "{before} to {after}");
    }
    let passing = "unknown_headers = \"pass\"";
    let keyed = private(&format!("{passing}\nmatch.header.x-flavor = \"new\""));
    let found = refused(&keyed, &private(passing)).expect("it passes without a place in the key");
    assert!(found.contains("takes `x-flavor` out of the key"), "{found}");
}

#[test]
fn r1061_a_header_that_is_no_credential_any_more_makes_guests() {
    let file = |headers: &str| {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[credential]\nheaders = [{headers}]\n\
             [[routes]]\npath = \"/a\"\nttl = \"1m\"\nsigned_in = {{ cookie = \"in\" }}\n"
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None);
        SharingRules::from_config(&config.unwrap_or_else(|problems| panic!("{problems}")))
    };
    let (one, two) = (file("\"x-api-key\""), file("\"x-api-key\", \"x-user\""));
    let widened = |new: &SharingRules, old: &SharingRules| new.widened_from(old).len();
    assert!(widened(&one, &two) > 0);
    assert_eq!(widened(&two, &one), 0);
}
