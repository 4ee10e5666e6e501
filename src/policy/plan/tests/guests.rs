//! Guests of a route: who is one, and that neither keys nor fills mix them with others.

use http::header::COOKIE;
use proptest::prelude::*;

use super::*;
use crate::policy::key::KeyPart;
use crate::policy::scope::Scope;

const RULES: &str = r#"
[credential]
headers = ["x-api-key"]
[fields]
token = { auth = "token" }
lang = { cookie = "lang" }
[[routes]]
path = "/a"
ttl = "5m"
key = ["lang?"]
pass_headers = ["cookie"] # check: ok
signed_in = { cookie = ["in_*", "remember"] }
[[routes]]
path = "/b"
ttl = "5m"
key = ["token"]
signed_in = { cookie = "in_*" }
"#;

/// Names of cookies that are nearly, or quite, those of the rules.
const PIECE: &str = "(in_|in|rem|remember|sid|lang)[a-c]{0,2}=?[a-c]{0,2}";

fn sent(path: &str, cookies: &str) -> SentRequest {
    let sent = SentRequest::get(path);
    if cookies.is_empty() { sent } else { sent.with("cookie", cookies) }
}

#[test]
fn guests_have_one_key_and_no_credential() {
    let rules = rules(RULES);
    for path in ["/a", "/b"] {
        let plain = sent(path, "");
        let guest = lookup(&rules, &plain);
        assert!(guest.route.is_for_guests() && guest.credential.is_none(), "{path}");
        let key = guest.key.canonical().to_vec();
        assert!(key.contains(&(KeyPart::Guest as u8)));
        for cookies in ["sid=1", "_ga=1; cart=2", "xin_1=1"] {
            let sent = sent(path, cookies);
            let other = lookup(&rules, &sent);
            assert_eq!(other.key.canonical(), key, "{path} {cookies}");
            assert!(!other.fill_request(request_id()).headers.contains_key(COOKIE));
            assert!(!other.has_owner() && other.authorization.is_none());
        }
    }
    // A cookie that the key has goes along, alone.
    let sent = sent("/a", "sid=1; lang=de");
    let fill = lookup(&rules, &sent).fill_request(request_id());
    assert_eq!(fill.headers.get(COOKIE), Some(&HeaderValue::from_static("lang=de")));
}

#[test]
fn who_is_signed_in_goes_by_the_route_itself() {
    let rules = rules(RULES);
    let guest = key(&rules, &sent("/a", ""));
    for other in [
        sent("/a", "in_1=x"),
        sent("/a", "in_1="),
        sent("/a", "sid=1").with("cookie", "remember=1"),
        sent("/a", "").with("authorization", "Basic YTpi"),
        sent("/a", "").with("x-api-key", "k"),
    ] {
        let other = lookup(&rules, &other);
        assert_eq!(other.route.spec.scope, Scope::Private);
        assert!(!other.route.is_for_guests() && other.credential.is_some());
        assert_ne!(other.key.canonical(), guest);
    }
    assert_eq!(verdict(&rules, &sent("/b", "in_1=x")), "missing field token");
}

#[test]
fn a_switch_holds_for_guests_too() {
    let rules = rules(RULES);
    let route = rules.routes.iter().next().expect("a route");
    for (mode, word) in [(RouteMode::Off, "switched off"), (RouteMode::On, "lookup")] {
        route.switch(mode);
        for cookies in ["", "in_1=x"] {
            assert_eq!(verdict(&rules, &sent("/a", cookies)), word);
        }
    }
}

proptest! {
    #[test]
    fn no_key_of_a_guest_is_one_of_another(
        names in proptest::collection::vec(PIECE, 0..4),
        more in proptest::collection::vec(PIECE, 0..4),
    ) {
        let rules = rules(RULES);
        let (one, two) = (sent("/a", &names.join("; ")), sent("/a", &more.join(";")));
        let plans = (rules.plan(&one.view()), rules.plan(&two.view()));
        let (Plan::Lookup(one), Plan::Lookup(two)) = plans else { return Ok(()) };
        let counts = |piece: &String| {
            piece.starts_with("in_") || piece.split('=').next() == Some("remember")
        };
        prop_assert_eq!(one.route.is_for_guests(), !names.iter().any(counts));
        if one.route.is_for_guests() != two.route.is_for_guests() {
            prop_assert_ne!(one.key.canonical(), two.key.canonical());
        }
    }
}
