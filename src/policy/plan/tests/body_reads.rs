//! Requests with a body that a route answers: what is one key, what the origin gets, and what is a
//! write all the same.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::policy::canonical_json::CanonicalJson;

const JSON: &str = "application/json";

/// A route for POST and QUERY at `/search`, with these keys.
fn reads(keys: &str) -> PolicyRules {
    rules(&format!(
        "[fields]\nid = {{ body = \"/filter/id\" }}\npage = {{ body = \"/page\" }}\n\
         [[routes]]\npath = \"/search\"\nttl = \"5m\"\nmethods = [\"POST\", \"QUERY\"]\n\
         read_only = true\n{keys}\n"
    ))
}

fn whole() -> PolicyRules {
    reads("key = [\"body\"]")
}

const TAGS: &str = "tags = [\"search:{id?}:{page?}\"]";

impl SentRequest {
    fn post(kind: &str, body: &str) -> Self {
        Self::new("POST", "/search").with_body(kind, body.as_bytes())
    }

    fn with_body(mut self, kind: &str, body: &[u8]) -> Self {
        self.has_body = !body.is_empty();
        self.body = Some(SeenBody::Whole(Bytes::copy_from_slice(body)));
        if kind.is_empty() { self } else { self.with("content-type", kind) }
    }
}

/// What the origin gets of the body on a fill.
fn filled(rules: &PolicyRules, sent: &SentRequest) -> String {
    let lookup = lookup(rules, sent);
    let body = lookup.body.as_ref().expect("a body");
    String::from_utf8(body.canonical.to_vec()).expect("text")
}

#[test]
fn nothing_changes_where_no_route_says_so() {
    let rules = rules("[[routes]]\npath = \"/search\"\nttl = \"5m\"\n");
    assert_eq!(verdict(&rules, &SentRequest::post(JSON, "{}")), "mutate POST");
    for method in ["QUERY", "PROPFIND", "REPORT", "SEARCH"] {
        assert_eq!(verdict(&rules, &SentRequest::new(method, "/search")), "method", "{method}");
    }
    let rules = whole();
    for (method, target, expected) in [
        ("POST", "/other", "mutate POST"),
        ("PUT", "/search", "mutate PUT"),
        ("DELETE", "/search", "mutate DELETE"),
        ("PROPFIND", "/search", "method"),
        ("post", "/search", "mutate post"),
        // It may be read as another path.
        ("POST", "/search/", "mutate POST"),
        ("POST", "//search", "mutate POST"),
        ("POST", "/x/../search", "mutate POST"),
        ("POST", "/search;a=b", "mutate POST"),
        ("GET", "/search", "method"),
        ("HEAD", "/search", "method"),
    ] {
        let sent = SentRequest::new(method, target);
        assert_eq!(verdict(&rules, &sent), expected, "{method} {target}");
    }
}

#[test]
fn the_body_is_asked_for_only_where_it_decides() {
    let rules = whole();
    assert_eq!(verdict(&rules, &SentRequest::new("POST", "/search")), "read the body");
    assert_eq!(verdict(&rules, &SentRequest::new("QUERY", "/search?a=1")), "read the body");
    let overridden = SentRequest::new("POST", "/search").with("x-http-method-override", "PUT");
    assert_eq!(verdict(&rules, &overridden), "mutate POST");
}

#[test]
fn json_is_compared_by_value_and_the_origin_gets_the_one_form() {
    let rules = whole();
    let one = SentRequest::post(JSON, r#"{ "page": 1, "filter": {"b": "\u0061", "a": [1, 2]} }"#);
    let two = SentRequest::post(JSON, r#"{"filter":{"a":[1,2],"b":"a"},"page":1}"#);
    assert_eq!(key(&rules, &one), key(&rules, &two));
    for sent in [&one, &two] {
        assert_eq!(filled(&rules, sent), r#"{"filter":{"a":[1,2],"b":"a"},"page":1}"#);
        let lookup = lookup(&rules, sent);
        assert_eq!(lookup.fill_method(), Method::POST);
        let head = lookup.fill_request(request_id());
        assert_eq!(head.headers["content-type"], JSON);
    }
    for other in [
        SentRequest::post(JSON, r#"{"filter":{"a":[1,2],"b":"a"},"page":1.0}"#),
        SentRequest::post(JSON, r#"{"filter":{"a":[2,1],"b":"a"},"page":1}"#),
        SentRequest::post("application/vnd.x+json", r#"{"filter":{"a":[1,2],"b":"a"},"page":1}"#),
        SentRequest::new("QUERY", "/search")
            .with_body(JSON, br#"{"filter":{"a":[1,2],"b":"a"},"page":1}"#),
        SentRequest::new("POST", "/search?x=1")
            .with_body(JSON, br#"{"filter":{"a":[1,2],"b":"a"},"page":1}"#),
    ] {
        assert_ne!(key(&rules, &two), key(&rules, &other), "{other:?}");
    }
}

#[test]
fn other_types_are_compared_by_their_bytes() {
    let rules = whole();
    for (kind, one, two) in [
        ("application/x-www-form-urlencoded", "a=1&b=2", "b=2&a=1"),
        ("application/xml", "<a/>", "<a />"),
        // In another character set, the one form would be another text.
        ("application/json; charset=iso-8859-1", "{\"a\":1}", "{ \"a\":1}"),
    ] {
        let [one, two] = [one, two].map(|body| SentRequest::post(kind, body));
        assert_ne!(key(&rules, &one), key(&rules, &two), "{kind}");
        assert_eq!(
            filled(&rules, &two).as_bytes(),
            match two.body.as_ref() {
                Some(SeenBody::Whole(bytes)) => bytes,
                _ => unreachable!(),
            }
        );
    }
    let empty = SentRequest::post("", "");
    assert_eq!(filled(&rules, &empty), "");
    assert_ne!(key(&rules, &empty), key(&rules, &SentRequest::post(JSON, "{}")));
}

#[test]
fn what_no_key_has_seen_is_withheld() {
    let rules = reads(&format!("key = [\"id\", \"page?\"]\n{TAGS}"));
    let one = SentRequest::post(JSON, r#"{"page":2,"filter":{"x":1,"id":{"b":1,"a":"é"}},"t":9}"#);
    let two = SentRequest::post(JSON, r#"{"filter":{"id":{"a":"\u00e9","b":1}},"page":2}"#);
    // A tag needs one value.
    assert_eq!(verdict(&rules, &one), "missing field id");
    let plain = |tail: &str| SentRequest::post(JSON, &format!("{{\"filter\":{{\"id\":7}}{tail}}}"));
    assert_eq!(filled(&rules, &plain(",\"page\":2,\"t\":1")), r#"{"filter":{"id":7},"page":2}"#);
    assert_eq!(filled(&rules, &plain("")), r#"{"filter":{"id":7}}"#);
    assert_eq!(key(&rules, &plain(",\"t\":1")), key(&rules, &plain(",\"T\":{}")));
    assert_ne!(key(&rules, &plain("")), key(&rules, &plain(",\"page\":null")));

    let untagged = rules_of_pointers();
    assert_eq!(key(&untagged, &one), key(&untagged, &two));
    assert_eq!(filled(&untagged, &one), r#"{"filter":{"id":{"a":"é","b":1}},"page":2}"#);
    for (body, expected) in [
        ("{}", "missing field id"),
        ("[]", "missing field id"),
        (r#"{"Filter":{"id":1}}"#, "missing field id"),
        (r#"{"filter":[{"id":1}]}"#, "missing field id"),
        ("", "missing field id"),
    ] {
        assert_eq!(verdict(&untagged, &SentRequest::post(JSON, body)), expected, "{body}");
    }
    let form = SentRequest::post("application/x-www-form-urlencoded", "filter[id]=1");
    assert_eq!(verdict(&untagged, &form), "ambiguous body (no JSON)");
}

fn rules_of_pointers() -> PolicyRules {
    rules(
        "[fields]\nid = { body = \"/filter/id\" }\npage = { body = \"/page\" }\n\
         [[routes]]\npath = \"/search\"\nttl = \"5m\"\nmethods = [\"POST\"]\nread_only = true\n\
         key = [\"id\", \"page?\"]\n",
    )
}

#[test]
fn tags_read_the_body_in_each_spelling_of_a_number() {
    let rules = reads(&format!("key = [\"body\"]\n{TAGS}"));
    let tags = |body: &str| -> Vec<String> {
        let sent = SentRequest::post(JSON, body);
        let tags = lookup(&rules, &sent).tags();
        let is_own = |tag: &&Tag| !tag.is_auxiliary() && tag.shown().starts_with("search:");
        tags.iter().filter(is_own).map(|tag| tag.shown().to_owned()).collect()
    };
    assert_eq!(tags(r#"{"filter":{"id":7},"page":"x"}"#), ["search:7:x"]);
    assert_eq!(tags(r#"{"filter":{"id":5.0}}"#), ["search:5.0:", "search:5:"]);
    assert_eq!(tags("{}"), ["search::"]);
    for unread in [
        r#"{"filter":{"id":{"a":1}}}"#,
        r#"{"filter":{"id":123456789012345678901234567890}}"#,
        r#"{"filter":{"id":[1,2,3,4,5,6,7,8,9]}}"#,
    ] {
        let sent = SentRequest::post(JSON, unread);
        assert_eq!(verdict(&rules, &sent), "missing field id", "{unread}");
    }
    // Nobody can tell what it says.
    let xml = SentRequest::post("application/xml", "<a/>");
    assert_eq!(verdict(&rules, &xml), "missing field id");
    let form = SentRequest::post("application/x-www-form-urlencoded", "filter[id]=7&page=1");
    assert_eq!(verdict(&rules, &form), "lookup");
}

#[test]
fn a_body_with_two_readings_is_passed_and_purges_nothing() {
    let rules = whole();
    for (body, cause) in [
        (r#"{"a":1,"a":2}"#, "(a member comes twice)"),
        (r#"{"a":1,"A":2}"#, "(a member comes twice)"),
        ("\u{feff}{}", "(malformed JSON)"),
        (&format!("{}{}", "[".repeat(100), "]".repeat(100)), "(nested too deep)"),
    ] {
        let sent = SentRequest::post(JSON, body);
        assert_eq!(verdict(&rules, &sent), format!("ambiguous body {cause}"), "{body}");
    }
    let trailers = SentRequest { body: Some(SeenBody::WithTrailers), ..SentRequest::post("", "") };
    let trailers = SentRequest { has_body: true, ..trailers }.with("content-type", "text/xml");
    assert_eq!(verdict(&rules, &trailers), "ambiguous body (trailers)");
}

#[test]
fn what_may_be_another_method_is_a_write() {
    let rules = whole();
    let form = "application/x-www-form-urlencoded";
    for sent in [
        SentRequest::post(JSON, "{}").with("x-http-method-override", "DELETE"),
        SentRequest::post(JSON, "{}").with("x-method-override", "GET"),
        SentRequest::new("POST", "/search?_method=put").with_body(JSON, b"{}"),
        SentRequest::post(JSON, r#"{"_method":"PUT"}"#),
        SentRequest::post(form, "a=1&_method=DELETE"),
        SentRequest::post(form, "%5fmethod=DELETE"),
        // Nobody can tell.
        SentRequest::post(JSON, "{\"a\":"),
        SentRequest::post("", "{}"),
        SentRequest::post("multipart/form-data; boundary=x", "--x--"),
        SentRequest::post("application/x-unheard-of", "x"),
        SentRequest::post(JSON, "{}").with("content-encoding", "gzip"),
        SentRequest::post(JSON, "{}").with("content-type", "text/xml"),
        SentRequest { body: Some(SeenBody::TooLarge), ..SentRequest::post(JSON, "{}") },
        SentRequest::post(JSON, &format!("\"{}\"", "x".repeat(64 * 1024))),
    ] {
        assert_eq!(verdict(&rules, &sent), "mutate POST", "{sent:?}");
    }
    // The same method in its place is none, and one that is read of bodies is read of POST alone.
    let same = SentRequest::post(JSON, "{}").with("x-http-method-override", "POST");
    assert_eq!(verdict(&rules, &same), "unkeyed header x-http-method-override");
    let query = |kind: &str, body: &str| {
        SentRequest::new("QUERY", "/search").with_body(kind, body.as_bytes())
    };
    assert_eq!(verdict(&rules, &query("application/sql", "select _method")), "lookup");
    let overridden = query(JSON, "{}").with("x-http-method-override", "PATCH");
    assert_eq!(verdict(&rules, &overridden), "mutate PATCH");
    let as_get = query(JSON, "{}").with("x-http-method-override", "GET");
    assert_eq!(verdict(&rules, &as_get), "mutate POST");
}

#[test]
fn what_cannot_name_a_method_is_passed_where_it_is_not_keyed() {
    let rules = whole();
    let opaque = SentRequest::post("application/xml", "<a/>");
    for (sent, expected) in [
        (SentRequest { body: Some(SeenBody::TooLarge), ..opaque.clone() }, "body too large"),
        (SentRequest::post("text/xml", &"x".repeat(64 * 1024 + 1)), "body too large"),
        (opaque.clone().with("content-encoding", "gzip"), "unkeyed header content-encoding"),
        (opaque.clone().with("if-none-match", "\"a\""), "precondition"),
        (opaque.clone().with("if-modified-since", "x"), "precondition"),
        (opaque.clone().with("if-match", "*"), "precondition"),
        (opaque.clone().with("connection", "content-type"), "unkeyed header content-type"),
        (opaque.clone().with("x-tenant", "a"), "unkeyed header x-tenant"),
        (opaque.with("range", "bytes=0-1"), "lookup"),
    ] {
        assert_eq!(verdict(&rules, &sent), expected, "{sent:?}");
    }
}

#[test]
fn a_purge_rule_that_names_the_method_has_the_last_word() {
    let with = |rule: &str| {
        rules(&format!(
            "[[routes]]\npath = \"/search\"\nttl = \"5m\"\nmethods = [\"POST\"]\n\
             read_only = true\nkey = [\"body\"]\n\
             [[purges]]\npath = \"/{{*rest}}\"\ntags = [\"x\"]\n{rule}\n"
        ))
    };
    let sent = SentRequest::post(JSON, "{}");
    assert_eq!(verdict(&with(""), &sent), "lookup");
    assert_eq!(verdict(&with("methods = [\"PUT\"]"), &sent), "lookup");
    assert_eq!(verdict(&with("methods = [\"PUT\", \"POST\"]"), &sent), "mutate POST");
    let except = "methods = [\"POST\"]\nexcept = [\"/search\"]";
    assert_eq!(verdict(&with(except), &sent), "lookup");
}

#[test]
fn an_anti_forgery_token_is_a_credential() {
    let rules = whole();
    let sent = |token: &str| SentRequest::post(JSON, "{}").with("x-csrftoken", token);
    assert_ne!(key(&rules, &sent("one")), key(&rules, &sent("two")));
    let one = sent("one");
    let lookup = lookup(&rules, &one);
    assert!(lookup.credential.is_some());
    assert_eq!(lookup.fill_request(request_id()).headers["x-csrftoken"], "one");
    let twice = sent("one").with("x-csrftoken", "two");
    assert_eq!(verdict(&rules, &twice), "refuse x-csrftoken");
    // A route without such methods withholds it, as before.
    let plain = self::rules("[[routes]]\npath = \"/search\"\nttl = \"5m\"\n");
    let get = |token: &str| SentRequest::get("/search").with("x-csrftoken", token);
    assert_eq!(key(&plain, &get("one")), key(&plain, &get("two")));
}

#[test]
fn one_route_may_answer_get_and_post() {
    let rules = rules(
        "[fields]\nid = { body = \"/id\" }\n\
         [[routes]]\npath = \"/a\"\nttl = \"5m\"\nmethods = [\"GET\", \"POST\"]\n\
         read_only = true\nkey = [\"body\"]\n\
         [[routes]]\npath = \"/b\"\nttl = \"5m\"\nmethods = [\"GET\", \"POST\"]\n\
         read_only = true\nkey = [\"id\"]\n",
    );
    assert_eq!(verdict(&rules, &SentRequest::get("/a")), "lookup");
    assert_eq!(verdict(&rules, &SentRequest::new("HEAD", "/a")), "lookup");
    assert_eq!(verdict(&rules, &SentRequest::get("/b")), "missing field id");
    let fat = SentRequest::get("/a").with_body(JSON, b"{}");
    assert_eq!(verdict(&rules, &fat), "request body");
    let bare = SentRequest::new("POST", "/a").with_body("", b"");
    assert_ne!(key(&rules, &bare), key(&rules, &SentRequest::get("/a")));
}

/// Texts of a few documents, many of which mean the same.
fn text() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec!["1", "1.0", "\"a\"", "\"\\u0061\"", "[1]", "[ 1 ]"]);
    let member = (prop::sample::select(vec!["a", "b", "\\u0061", "page"]), value)
        .prop_map(|(name, value)| format!("\"{name}\" : {value}"));
    prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn equal_keys_are_equal_bodies([one, two] in [text(), text()], pick in any::<bool>()) {
        let rules = if pick {
            reads("key = [\"page?\"]")
        } else {
            reads("key = [\"body\"]")
        };
        let [one, two] = [one, two].map(|body| SentRequest::post(JSON, &body));
        let (view_one, view_two) = (one.view(), two.view());
        let plans = (rules.plan(&view_one), rules.plan(&view_two));
        if let (Plan::Lookup(one), Plan::Lookup(two)) = plans {
            let bodies = [&one, &two].map(|lookup| lookup.body.as_ref().unwrap().canonical.clone());
            prop_assert_eq!(one.key.canonical() == two.key.canonical(), bodies[0] == bodies[1]);
            // What the origin gets has one form, too.
            let again = CanonicalJson::parse(&bodies[0]).unwrap().to_bytes();
            prop_assert_eq!(&again[..], &bodies[0][..]);
        }
    }
}
