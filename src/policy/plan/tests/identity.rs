//! Requests whose key has what the origin says of the caller.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::*;
use crate::policy::identity::{
    IdentityAnswer, IdentityCounters, IdentityFault, IdentitySettings, IdentityTable,
    RequestIdentity,
};

const FILE: &str = "[credential]\nheaders = [\"x-api-key\"]\n[identity]\npath = \"/me?a=1\"\n\
                    [fields]\nt = { identity = \"/t\" }\n[[routes]]\npath = \"/a\"\nttl = \"1m\"\n\
                    scope = \"shared\"\nkey = [\"t\"]\n";

fn with_table() -> PolicyRules {
    let settings = IdentitySettings {
        path: "/me?a=1".into(),
        ttl: Duration::from_secs(30),
        retry: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        callers: 10,
        probes: 1,
    };
    let pointers = Box::new(["/t".into()]);
    let counters = IdentityCounters::default();
    let table = IdentityTable::new(settings, pointers, Arc::default(), counters);
    PolicyRules { identities: Some(Arc::new(table)), ..rules(FILE) }
}

fn probed(rules: &PolicyRules, sent: &SentRequest) -> ([u8; 32], Vec<(String, Vec<u8>)>) {
    let view = sent.view();
    let (probe, _) = rules.identity_probe(&view).expect("there is somebody to ask about");
    let request = probe.to_request(HeaderValue::from_static("1"));
    assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::GET, "/me?a=1"));
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    (probe.key.digest, request.headers().iter().map(line).collect())
}

#[test]
fn the_origin_is_asked_only_where_a_key_needs_it_and_only_about_a_credential() {
    let rules = with_table();
    let asks = |sent: &SentRequest| matches!(rules.plan(&sent.view()), Plan::Identify(_));
    assert!(asks(&SentRequest::get("/a").with("cookie", "sid=1")));
    assert!(asks(&SentRequest::get("/a").with("authorization", "Bearer x")));
    assert!(asks(&SentRequest::get("/a").with("x-api-key", "x")));
    assert!(!asks(&SentRequest::get("/a")), "a guest");
    assert!(!asks(&SentRequest::get("/a").with("cookie", "_ga=1")), "a guest");
    assert!(!asks(&SentRequest::get("/b").with("cookie", "sid=1")), "no route");
    assert!(!asks(&SentRequest::new("POST", "/a").with("cookie", "sid=1")), "a write");
    assert!(!asks(&SentRequest::get("/a").with("cookie", "sid=1").with("if-match", "1")));
}

#[test]
fn what_the_origin_is_asked_with_follows_from_the_key_of_the_answer() {
    let rules = with_table();
    let get = || SentRequest::get("/a").with("cookie", "sid=1; _ga=2");
    let (key, headers) = probed(&rules, &get());
    let value = |name: &str| {
        let found = headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(value("cookie").as_deref(), Some("sid=1"));
    assert_eq!(value("accept").as_deref(), Some("application/json"));
    assert_eq!(value("host").as_deref(), Some("app.test"));
    // Whatever else a client sends, and whatever a stranger says of the way, changes nothing.
    for sent in [
        get().with("x-tenant-id", "evil"),
        get().with("x-forwarded-for", "10.0.0.1").with("x-forwarded-proto", "https"),
        get().with("x-forwarded-host", "evil.test").with("forwarded", "for=10.0.0.1"),
        get().with("accept", "text/html").with("accept-language", "de"),
        get().with("if-none-match", "\"1\"").with("range", "bytes=0-1"),
        get().with("connection", "close").with("te", "trailers"),
    ] {
        assert_eq!(probed(&rules, &sent), (key, headers.clone()), "{:?}", sent.headers);
    }
    // What does change it is another key.
    for sent in [
        SentRequest::get("/a").with("cookie", "sid=2"),
        SentRequest::get("/a").with("authorization", "Bearer x"),
        SentRequest::get("/a").with("x-api-key", "x"),
        get().trusted().with("x-forwarded-proto", "https"),
        get().trusted().with("x-forwarded-host", "other.test"),
        get().trusted().with("forwarded", "host=other.test;proto=https"),
    ] {
        assert_ne!(probed(&rules, &sent).0, key, "{:?}", sent.headers);
    }
}

#[test]
fn of_a_request_with_several_credentials_nobody_can_tell() {
    let rules = with_table();
    for sent in [
        SentRequest::get("/a").with("cookie", "sid=1").with("authorization", "Bearer x"),
        SentRequest::get("/a").with("x-api-key", "x").with("authorization", "Bearer x"),
        SentRequest::get("/a").with("cookie", "sid=1; sid=2"),
        SentRequest::get("/a").with("cookie", "app=1").with("cookie", "theme=x; app=2"),
    ] {
        assert_eq!(verdict(&rules, &sent), "identity unknown t: several credentials");
    }
    let several = SentRequest::get("/a").with("cookie", "sid=1; remember_token=2; theme=x; _ga=1");
    assert_eq!(verdict(&rules, &several), "ask who it is");
}

#[test]
fn a_key_holds_the_value_and_its_kind_and_a_fault_is_no_absent_field() {
    let rules = with_table();
    let sent = SentRequest::get("/a").with("cookie", "sid=1");
    let key = |body: &str| {
        let answer = IdentityAnswer::parse(body.as_bytes(), &["/t".into()]).expect("JSON");
        let known = RequestIdentity::Known(Arc::new(answer));
        let view = RequestView { identity: Some(&known), ..sent.view() };
        match rules.plan(&view) {
            Plan::Lookup(lookup) => Ok(lookup.key.hash()),
            Plan::Pass(_, outcome) => Err(outcome.detail().expect("a reason").to_string()),
            other => panic!("{other:?}"),
        }
    };
    let all = [r#"{"t":"1"}"#, r#"{"t":1}"#, r#"{"t":"true"}"#, r#"{"t":true}"#].map(&key);
    for (at, one) in all.iter().enumerate() {
        assert!(one.is_ok() && !all[at + 1..].contains(one), "{all:?}");
    }
    assert_eq!(key("{}"), Err("identity unknown t: no value".to_owned()));
    assert_eq!(key(r#"{"t":""}"#), Err("missing field t".to_owned()));
    for fault in IdentityFault::ALL {
        let known = RequestIdentity::Fault(fault);
        let view = RequestView { identity: Some(&known), ..sent.view() };
        let Plan::Pass(Some(_), outcome) = rules.plan(&view) else { panic!("{fault:?}") };
        assert_eq!(outcome.reason, Some(Reason::IdentityUnknown));
    }
}
