//! Sessions as the frameworks sign them (`tests/sessions`), and everything that is none.

use http::HeaderValue;
use http::header::SET_COOKIE;
use proptest::prelude::*;
use serde::Deserialize;

use super::payload::{MAX_PAYLOAD, PayloadValue, parse};
use super::*;

const VECTORS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sessions/vectors.json"));

#[derive(Deserialize)]
struct Vectors {
    now: u64,
    secrets: Vec<String>,
    max_age_seconds: u64,
    #[serde(rename = "vectors")]
    list: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    format: String,
    cookie: String,
    sig: Option<String>,
    payload: Option<serde_json::Value>,
    expect: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).expect("vectors")
}

fn now() -> Wall {
    Wall(vectors().now * 1000)
}

fn vector(name: &str) -> Vector {
    let own = vectors().list.into_iter().find(|vector| vector.name == name);
    own.unwrap_or_else(|| panic!("no vector {name}"))
}

fn rule_with(format: SessionFormat, pointer: Option<&str>, ignore: &[&str]) -> SessionRule {
    let vectors = vectors();
    SessionRule::new(SessionSettings {
        cookie: "session".into(),
        format,
        secrets: vectors.secrets.iter().map(Secret::new).collect(),
        max_age: format.has_time().then(|| Duration::from_secs(vectors.max_age_seconds)),
        pointer: pointer.map(Into::into),
        ignore: ignore.iter().copied().map(Glob::new).collect(),
    })
}

fn rule(format: SessionFormat) -> SessionRule {
    rule_with(format, None, &[])
}

fn format_of(vector: &Vector) -> SessionFormat {
    let mut formats = SessionFormat::ALL.into_iter();
    formats.find(|format| format.as_str() == vector.format).expect("a format")
}

fn cookies(line: &str) -> HeaderMap {
    let value = HeaderValue::from_bytes(line.as_bytes()).expect("a header");
    [(COOKIE, value)].into_iter().collect()
}

fn sent(vector: &Vector) -> HeaderMap {
    let sig = vector.sig.as_ref().map_or_else(String::new, |sig| format!("; session.sig={sig}"));
    cookies(&format!("a=1; session={}{sig}; b=2", vector.cookie))
}

fn read(rule: &SessionRule, headers: &HeaderMap) -> Result<Arc<VerifiedSession>, SessionFault> {
    rule.current(headers, &Hasher::default(), now())
}

#[test]
fn what_the_frameworks_sign_is_read_and_nothing_else() {
    for vector in vectors().list {
        let rule = rule(format_of(&vector));
        let read = read(&rule, &sent(&vector)).map_or_else(SessionFault::as_str, |_| "ok");
        assert_eq!(read, vector.expect, "{}", vector.name);
    }
    let count = vectors().list.iter().filter(|vector| vector.expect == "ok").count();
    assert!(count > 12, "{count} of them are read");
}

#[test]
fn a_session_that_is_signed_anew_is_the_same() {
    let all = vectors().list;
    let verified = |vector: &Vector| read(&rule(format_of(vector)), &sent(vector)).ok();
    let mut pairs = 0;
    for one in all.iter().filter(|vector| vector.payload.is_some()) {
        for two in all.iter().filter(|vector| vector.payload.is_some()) {
            if let (Some(first), Some(second)) = (verified(one), verified(two)) {
                let same = one.payload == two.payload;
                assert_eq!(first.whole == second.whole, same, "{} {}", one.name, two.name);
                pairs += usize::from(same && one.cookie != two.cookie);
            }
        }
    }
    assert!(pairs > 8, "{pairs}");
}

#[test]
fn no_byte_of_a_cookie_can_be_changed() {
    for vector in vectors().list.iter().filter(|vector| vector.expect == "ok") {
        let rule = rule(format_of(vector));
        let original = read(&rule, &sent(vector)).expect("a session");
        let whole = vector.cookie.len() + vector.sig.as_ref().map_or(0, String::len);
        for at in 0..whole {
            for byte in *b"AQ.:_z" {
                let (mut cookie, mut sig) = (
                    vector.cookie.clone().into_bytes(),
                    vector.sig.clone().unwrap_or_default().into_bytes(),
                );
                let place =
                    cookie.get_mut(at).or(sig.get_mut(at.wrapping_sub(vector.cookie.len())));
                *place.expect("a place") = byte;
                let changed = Vector {
                    name: String::new(),
                    format: vector.format.clone(),
                    cookie: String::from_utf8(cookie).expect("text"),
                    sig: vector.sig.is_some().then(|| String::from_utf8(sig).expect("text")),
                    payload: None,
                    expect: String::new(),
                };
                if let Ok(session) = read(&rule, &sent(&changed)) {
                    assert_eq!(session.whole, original.whole, "{} at {at}", vector.name);
                    assert_eq!(changed.cookie, vector.cookie, "{} at {at}", vector.name);
                }
            }
        }
        for end in 0..vector.cookie.len() {
            let short = cookies(&format!("session={}", &vector.cookie[..end]));
            assert!(read(&rule, &short).is_err(), "{} cut at {end}", vector.name);
        }
    }
}

#[test]
fn a_cookie_counts_once_and_in_one_reading() {
    let value = vector("flask, login").cookie;
    let rule = rule(SessionFormat::Flask);
    assert!(read(&rule, &cookies(&format!("session={value}"))).is_ok());
    assert!(read(&rule, &cookies(&format!("a=b;  session={value} "))).is_err());
    for (line, fault) in [
        (format!("session={value}; session={value}"), SessionFault::Repeated),
        (format!("session={value}; session =x"), SessionFault::Repeated),
        (format!("session ={value}"), SessionFault::Malformed),
        (format!("\tsession={value}"), SessionFault::Malformed),
        (format!("session=\"{value}\""), SessionFault::Malformed),
        (format!("session= {value}"), SessionFault::Malformed),
        (format!("Session={value}"), SessionFault::Absent),
        ("session=".to_owned(), SessionFault::Absent),
        ("session".to_owned(), SessionFault::Absent),
        (format!("session={}", "a".repeat(MAX_COOKIE + 1)), SessionFault::TooLong),
        ("session=.".to_owned(), SessionFault::Malformed),
        ("session=..".to_owned(), SessionFault::Malformed),
    ] {
        assert_eq!(read(&rule, &cookies(&line)).err(), Some(fault), "{line}");
    }
    let mut split = cookies(&format!("session={value}"));
    split.append(COOKIE, HeaderValue::from_static("session=x"));
    assert_eq!(read(&rule, &split).err(), Some(SessionFault::Repeated));
}

#[test]
fn age_is_judged_at_each_use() {
    let headers = sent(&vector("flask, login"));
    let (rule, hasher) = (rule(SessionFormat::Flask), Hasher::default());
    let at = |seconds: i64| {
        let now = Wall(vectors().now.saturating_add_signed(seconds) * 1000);
        rule.current(&headers, &hasher, now).map(|_| ())
    };
    let week = 7 * 86_400;
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(week), Ok(()));
    assert_eq!(at(week + 1), Err(SessionFault::Expired), "it is remembered, and old");
    assert_eq!(at(-60), Ok(()), "clocks differ a little");
    assert_eq!(at(-62), Err(SessionFault::Future));
    let session = rule.read(&headers, &hasher).expect("of any age");
    let due =
        |seconds: u64| rule.is_due_for_renewal(&session, Wall((vectors().now + seconds) * 1000));
    assert!(!due(0) && !due(week.unsigned_abs() / 2) && due(week.unsigned_abs() / 2 + 1));
}

#[test]
fn a_pointer_counts_alone_if_all_else_is_ignored() {
    let headers = sent(&vector("flask, login"));
    let flash = sent(&vector("flask, flash"));
    let keyed = |ignore: &[&str], headers: &HeaderMap| {
        let rule = rule_with(SessionFormat::Flask, Some("/_user_id"), ignore);
        let session = read(&rule, headers).expect("a session");
        session.keyed().map(|_| session.text().expect("a text"))
    };
    assert_eq!(keyed(&["_fresh", "_id", "csrf_token"], &headers), Ok("42".to_owned()));
    assert_eq!(keyed(&["_fresh", "*i*"], &headers), Err(SessionFault::OtherMembers));
    assert_eq!(keyed(&[], &headers), Err(SessionFault::OtherMembers));
    let all = ["_fresh", "_id", "csrf_token"];
    assert_eq!(keyed(&all, &flash), Err(SessionFault::OtherMembers), "a message is waiting");
    assert_eq!(keyed(&["_*", "csrf_token"], &flash), Ok("42".to_owned()));
    let rule = rule_with(SessionFormat::Flask, Some("/_user_id"), &all);
    let (plain, flash) = (read(&rule, &headers).expect("it"), read(&rule, &flash).expect("it"));
    assert_eq!(flash.text().as_deref(), Ok("42"), "a write says who it is");
    assert_eq!(plain.callers, flash.callers, "a message makes nobody another caller");
    assert_ne!(plain.whole, flash.whole);
}

#[test]
fn pointers_reach_into_members_and_tags() {
    let text = |vector_name: &str, pointer: &str| {
        let vector = vector(vector_name);
        let rule = rule_with(format_of(&vector), Some(pointer), &["*"]);
        read(&rule, &sent(&vector)).expect("a session").text()
    };
    assert_eq!(text("express, login", "/user/id").as_deref(), Ok("42"));
    assert_eq!(text("express, login", "/user/tenant").as_deref(), Ok("acme"));
    assert_eq!(text("express, login", "/user"), Err(SessionFault::NotPlain));
    assert_eq!(text("express, login", "/users"), Err(SessionFault::NoValue));
    assert_eq!(
        text("flask, tagged", "/_user_id").as_deref(),
        Ok("00000000000000000000000000000007")
    );
    assert_eq!(text("flask, tagged", "/n").as_deref(), Ok("1.5"));
    assert_eq!(text("flask, tagged", "/none"), Err(SessionFault::NoValue));
    assert_eq!(text("flask, tagged", "/odd"), Err(SessionFault::NotPlain));
    assert_eq!(text("flask, zlib", "/cart/3/sku").as_deref(), Ok("item-3"));
    assert_eq!(text("flask, zlib", "/cart/03/sku"), Err(SessionFault::NoValue));
    let nested = |ignore: &[&str]| {
        let rule = rule_with(SessionFormat::Express, Some("/user/id"), ignore);
        read(&rule, &sent(&vector("express, login"))).expect("a session").has_others()
    };
    assert!(nested(&["views"]) && nested(&["user/tenant"]));
    assert!(!nested(&["views", "user/tenant"]) && !nested(&["views", "user/*"]));
}

#[test]
fn what_is_ignored_counts_for_nothing() {
    let (one, two) = (sent(&vector("flask, login")), sent(&vector("flask, flash")));
    let same = |ignore: &[&str]| {
        let rule = rule_with(SessionFormat::Flask, None, ignore);
        read(&rule, &one).expect("it").kept == read(&rule, &two).expect("it").kept
    };
    assert!(!same(&[]) && !same(&["_fresh"]));
    assert!(same(&["_flashes"]));
}

#[test]
fn a_response_that_sets_the_same_payload_changes_nothing() {
    let login = vector("flask, login").cookie;
    let anew = vector("flask, signed anew").cookie;
    let (rule, hasher) = (rule(SessionFormat::Flask), Hasher::default());
    let request = cookies(&format!("session={login}"));
    let set = |lines: &[String]| {
        let mut response = HeaderMap::new();
        for line in lines {
            response.append(SET_COOKIE, HeaderValue::from_str(line).expect("a value"));
        }
        rule.set_by(&request, &response, &hasher, now())
    };
    let own = |rest: &str| set(&[format!("session={anew}{rest}")]);
    assert_eq!(set(&[]), SetSession::Untouched);
    assert_eq!(set(&["other=1".into()]), SetSession::Untouched);
    for rest in
        ["", "; Path=/; HttpOnly", "; Max-Age=60", "; Expires=Fri, 01 Jan 2100 00:00:00 GMT"]
    {
        assert_eq!(own(rest), SetSession::Same, "{rest}");
    }
    for rest in [
        "; Max-Age=0",
        "; max-age=-1; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
        "; Max-Age=9; Max-Age=0",
        "; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "; Expires=never",
        "; Max-Age=x",
    ] {
        assert_eq!(own(rest), SetSession::Changed, "{rest}");
    }
    let flash = vector("flask, flash").cookie;
    let (old, other) = (vector("flask, expired").cookie, vector("flask, another secret").cookie);
    for value in [flash, old, other, "x".to_owned(), String::new()] {
        assert_eq!(set(&[format!("session={value}")]), SetSession::Changed, "{value}");
    }
    let twice = [format!("session={anew}"), format!("session={anew}; Path=/a")];
    assert_eq!(set(&twice), SetSession::Changed, "the browser may keep both");
}

#[test]
fn express_may_renew_the_signature_alone() {
    let (old, new) = (vector("express, old key"), vector("express, login"));
    let (rule, hasher) = (rule(SessionFormat::Express), Hasher::default());
    let set = |line: String| {
        let line = HeaderValue::from_str(&line).expect("a value");
        let response = [(SET_COOKIE, line)].into_iter().collect();
        rule.set_by(&sent(&old), &response, &hasher, now())
    };
    let sig = |vector: &Vector| vector.sig.clone().expect("a signature");
    assert_eq!(set(format!("session.sig={}", sig(&new))), SetSession::Same);
    let other = vector("express, other letters");
    assert_eq!(set(format!("session.sig={}", sig(&other))), SetSession::Changed);
}

#[test]
fn a_stranger_cannot_fill_the_memory() {
    let rule = rule(SessionFormat::Flask);
    let good = sent(&vector("flask, login"));
    for at in 0..2 * memory::MAX_REMEMBERED {
        let forged = cookies(&format!("session=eyJhIjoxfQ.ahilAA.{at:027}"));
        assert!(read(&rule, &forged).is_err());
    }
    assert_eq!(rule.memory.len(), 0);
    assert!(read(&rule, &good).is_ok() && read(&rule, &good).is_ok());
    assert_eq!(rule.memory.len(), 1);
    let session = read(&rule, &good).expect("a session");
    for at in 0..2 * memory::MAX_REMEMBERED {
        rule.memory.keep(&at.to_be_bytes(), None, &session);
    }
    assert!(rule.memory.len() <= memory::MAX_REMEMBERED);
}

#[test]
fn neither_rules_nor_faults_show_what_is_secret() {
    let shown = format!("{:?} {:?}", rule(SessionFormat::Django), SessionRules::default());
    assert!(!vectors().secrets.iter().any(|secret| shown.contains(secret.as_str())), "{shown}");
    assert!(shown.contains("session") && shown.contains("Django"));
    let mut words: Vec<_> = SessionFault::ALL.map(SessionFault::as_str).into();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), SessionFault::ALL.len());
    for (at, fault) in SessionFault::ALL.into_iter().enumerate() {
        assert_eq!(fault as usize, at);
    }
}

#[test]
fn the_forms_of_known_frameworks_are_recognized() {
    for vector in vectors().list.iter().filter(|vector| vector.expect == "ok") {
        let guess = SessionFormat::guess(vector.cookie.as_bytes());
        assert_eq!(guess, Some(format_of(vector)), "{}", vector.name);
    }
    let jwt =
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1g";
    for other in [jwt, "", "abc", "0123456789abcdef0123456789abcdef", "eyJhIjox fQ"] {
        assert_eq!(SessionFormat::guess(other.as_bytes()), None, "{other}");
    }
}

fn canonical(text: &str) -> Result<Vec<u8>, SessionFault> {
    let mut bytes = Vec::new();
    parse(text.as_bytes())?.write(&mut bytes);
    Ok(bytes)
}

#[test]
fn equal_payloads_are_equal_however_they_are_written() {
    for (one, two) in [
        (r#"{"a":1,"b":[true,null]}"#, " { \"b\" : [ true , null ] , \"a\" : 1 } "),
        (r#""\u00e9\n\/""#, "\"é\\u000a/\""),
        (r#""\ud83d\ude00""#, "\"😀\""),
    ] {
        assert_eq!(canonical(one), canonical(two), "{one} {two}");
        assert!(canonical(one).is_ok(), "{one}");
    }
    for (one, two) in [
        ("1", "1.0"),
        ("1", "\"1\""),
        ("10", "1e1"),
        ("12345678901234567890123", "12345678901234567890124"),
        ("null", "false"),
        ("[]", "{}"),
        ("[[],[]]", "[[[]]]"),
        (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
        (r#""\ud800""#, r#""\udc00""#),
        (r#"["a","b"]"#, r#"["ab",""]"#),
    ] {
        assert_ne!(canonical(one).expect("JSON"), canonical(two).expect("JSON"), "{one} {two}");
    }
}

#[test]
fn what_parsers_read_differently_is_not_read() {
    for (text, fault) in [
        ("", SessionFault::NotJson),
        ("nul", SessionFault::NotJson),
        ("01", SessionFault::NotJson),
        ("1.", SessionFault::NotJson),
        ("-", SessionFault::NotJson),
        ("+1", SessionFault::NotJson),
        ("NaN", SessionFault::NotJson),
        ("Infinity", SessionFault::NotJson),
        ("[1,]", SessionFault::NotJson),
        ("{\"a\":1,}", SessionFault::NotJson),
        ("{a:1}", SessionFault::NotJson),
        ("'a'", SessionFault::NotJson),
        ("\"a", SessionFault::NotJson),
        ("\"\\x\"", SessionFault::NotJson),
        ("\"\\u12\"", SessionFault::NotJson),
        ("\"a\nb\"", SessionFault::NotJson),
        ("1 2", SessionFault::NotJson),
        ("[1", SessionFault::NotJson),
        ("{\"a\":1,\"\\u0061\":2}", SessionFault::RepeatedMember),
    ] {
        assert_eq!(canonical(text), Err(fault), "{text}");
    }
    assert_eq!(parse(b"\"\xff\""), Err(SessionFault::NotJson));
    assert_eq!(parse(&vec![b' '; MAX_PAYLOAD + 1]), Err(SessionFault::TooLarge));
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(canonical(&deep(32)).is_ok());
    assert_eq!(canonical(&deep(33)), Err(SessionFault::TooDeep));
    assert_eq!(canonical(&"[".repeat(60_000)), Err(SessionFault::TooDeep));
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[ab\u{e9}\u{1f600}\\\\\"/\n]{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[ab~/]{0,2}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn payloads_are_equal_only_if_they_say_the_same(one in value(), two in value()) {
        let texts = [one.to_string(), format!("{one:#}"), two.to_string()];
        let [own, pretty, other] = texts.map(|text| canonical(&text).expect("JSON"));
        prop_assert_eq!(&own, &pretty);
        prop_assert_eq!(own == other, one == two);
    }

    #[test]
    fn no_payload_makes_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes).map(|json: PayloadValue| json.write(&mut Vec::new()));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = canonical(&text);
    }

    #[test]
    fn no_text_of_json_makes_a_panic(text in "[\\[\\]{}\",:0-9eE+.\\\\utrnfals \\-]{0,60}") {
        // What the strict reader of serde reads, this one reads, too, unless it is ambiguous.
        let known = serde_json::from_str::<serde_json::Value>(&text);
        let read = canonical(&text);
        prop_assert!(known.is_err() || read.is_ok() || read == Err(SessionFault::RepeatedMember));
    }

    #[test]
    fn no_cookie_makes_a_panic(
        value in "[A-Za-z0-9._:=+/\"; -]{0,120}",
        sig in proptest::option::of("[A-Za-z0-9_=-]{0,40}"),
    ) {
        let sig = sig.map_or_else(String::new, |sig| format!("; session.sig={sig}"));
        let headers = cookies(&format!("session={value}{sig}"));
        for format in SessionFormat::ALL {
            prop_assert!(read(&rule(format), &headers).is_err());
        }
        let _ = SessionFormat::guess(value.as_bytes());
    }

    #[test]
    fn any_pointer_and_any_names_are_safe(
        payload in value(),
        pointer in "(/[ab~01*]{0,3}){1,3}",
        ignore in proptest::collection::vec("[ab*/~]{1,4}", 0..3),
    ) {
        let ignore: Vec<Glob> = ignore.iter().map(|text| Glob::new(text)).collect();
        let json = parse(payload.to_string().as_bytes()).expect("JSON");
        let hasher = Hasher::default();
        let whole = PayloadFilter::new(None, &[], true).read(&json, None, &hasher);
        let kept = PayloadFilter::new(None, &ignore, true).read(&json, None, &hasher);
        prop_assert_eq!(whole.whole, kept.whole);
        PayloadFilter::new(Some(&pointer), &ignore, true).read(&json, None, &hasher);
    }
}
