//! `signed_in` of a route.

use super::{diagnostics, parse};
use crate::policy::glob::Glob;
use crate::policy::scope::Scope;

const FIELDS: &str = "[fields]\n\
    user = { cookie = \"session\", format = \"flask\", secret = \"a-secret-of-the-app\", \
    max_age = \"1h\", pointer = \"/_user_id\" }\n\
    whole = { cookie = \"session\", format = \"flask\", secret = \"a-secret-of-the-app\", \
    max_age = \"1h\" }\n\
    plain = { cookie = \"plain\" }\nsite = { host = true }\n";

fn file(before: &str, keys: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n{before}\n[[routes]]\npath = \"/a\"\n\
         ttl = \"5m\"\n{keys}\n"
    )
}

#[test]
fn a_route_with_guests_has_a_policy_for_them() {
    let keys = "key = [\"user\"]\ntags = [\"a\", \"b:{caller}\"]\nrevalidate_after = \"30s\"\n\
        signed_in = { cookie = [\"remember\", \"wp_*\"], field = \"user\" }";
    let config = parse(&file(FIELDS, keys)).unwrap_or_else(|problems| panic!("{problems}"));
    let route = config.routes.iter().next().expect("a route");
    let guests = route.guests.as_ref().expect("guests");
    let names: Vec<&str> = guests.signed_in.cookies.iter().map(Glob::as_str).collect();
    assert_eq!(names, ["remember", "wp_*"]);
    assert_eq!(guests.signed_in.field.as_ref().map(|field| &*field.name), Some("user"));
    let own = &guests.route;
    assert_eq!((own.spec.scope, own.id, own.name()), (Scope::Public, route.id, route.name()));
    assert!(own.spec.key.is_empty() && own.fields.is_empty(), "no part of the session");
    assert_eq!(own.spec.tags.len(), 1, "{{caller}} is nobody here");
    assert!(own.spec.revalidate_after.is_none() && own.guests.is_none());
    assert_eq!((route.spec.scope, route.fields.len()), (Scope::Private, 1));
    assert_ne!(own.fingerprint, route.fingerprint);
    let plain = parse(&file("", "")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(plain.routes.iter().all(|route| route.guests.is_none()));
}

#[test]
fn each_mistake_in_signed_in_is_told() {
    for (before, keys, text, hint) in [
        ("", "signed_in = {}", "nothing says who is signed in", "that the app sets at a login"),
        ("", "signed_in = { cookie = [] }", "nothing says who is signed in", "name the cookie"),
        ("", "signed_in = { cookie = \"a b\" }", "is not a valid cookie name", "only the name"),
        ("", "signed_in = { cookie = 1 }", "a name or a list of names", "in quotes"),
        ("", "signed_in = \"wp\"", "a table", "{ cookie = \"wordpress_logged_in_*\" }"),
        ("", "signed_in = { cookies = \"a\" }", "has no key `cookies`", "`cookie`"),
        (FIELDS, "signed_in = { field = \"usr\" }", "`usr` is no field", "\"user\""),
        (
            FIELDS,
            "signed_in = { field = \"plain\" }",
            "the field of a cookie",
            "cookie = \"plain\"",
        ),
        (
            FIELDS,
            "signed_in = { field = \"whole\" }",
            "the field has no `pointer`",
            "Authorization",
        ),
        (FIELDS, "signed_in = { field = \"site\" }", "does not tell who is signed in", "a cookie"),
        (
            "",
            "scope = \"public\"\nsigned_in = { cookie = \"a\" }",
            "everybody is a guest already",
            "remove `signed_in`",
        ),
        (
            "[credential]\nignore_cookies = [\"wp_*\"]",
            "signed_in = { cookie = \"wp_in\" }",
            "[credential] ignores the cookie `wp_in`",
            "take it out of `ignore_cookies`",
        ),
        (
            "",
            "signed_in = { cookie = \"a\" }\nstrip_set_cookie = [\"sid\", \"csrftoken\"]",
            "`csrftoken` looks like the cookie of a form's token",
            "take it out of the list",
        ),
    ] {
        let shown = diagnostics(&file(before, keys)).to_string();
        assert!(shown.contains(text) && shown.contains(hint), "{keys}\n{shown}");
    }
    let many: Vec<String> = (0..33).map(|number| format!("\"c{number}\"")).collect();
    let keys = format!("signed_in = {{ cookie = [{}] }}", many.join(", "));
    let shown = diagnostics(&file("", &keys)).to_string();
    assert!(shown.contains("more than 32 names"), "{shown}");
}

#[test]
fn what_guests_lack_is_told_where_it_keeps_them_from_the_cache() {
    let route = |tags: &str| {
        let keys = format!("tags = {tags}\nsigned_in = {{ field = \"user\" }}");
        parse(&file(FIELDS, &keys)).unwrap_or_else(|problems| panic!("{problems}")).warnings
    };
    let told = |warnings: &[_]| format!("{warnings:?}").contains("guests have no `user`");
    assert!(told(&route("[\"a:{user}\"]")) && !told(&route("[\"a:{user?}\"]")));
    // A session may be named for guests: a second answer proves that no page depends on it.
    let keys = "signed_in = { cookie = \"a\" }\nstrip_set_cookie = [\"connect.sid\"]";
    let config = parse(&file("", keys)).unwrap_or_else(|problems| panic!("{problems}"));
    let shown = format!("{:?}", config.warnings);
    assert!(!shown.contains("looks like the cookie"), "{shown}");
}

#[test]
fn what_defaults_say_of_guests_is_not_for_public_routes() {
    let before = "[defaults]\nsigned_in = { cookie = \"a\" }";
    let config = parse(&file(before, "scope = \"public\"")).unwrap_or_else(|all| panic!("{all}"));
    assert!(config.routes.iter().all(|route| route.guests.is_none()));
    let config = parse(&file(before, "")).unwrap_or_else(|all| panic!("{all}"));
    assert!(config.routes.iter().all(|route| route.guests.is_some()));
}
