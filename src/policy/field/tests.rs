//! Tests of fields.

use super::*;
use http::HeaderValue;

fn view<'a>(
    headers: &'a HeaderMap,
    hasher: &'a Hasher,
    query: &'a str,
    captures: &'a [(Arc<str>, Box<str>)],
) -> FieldView<'a> {
    let client = Some(Ipv4Addr::new(192, 0, 2, 7).into());
    let credential = Box::leak(Box::default());
    FieldView {
        headers,
        host: "app",
        query,
        captures,
        client,
        body: None,
        has_body: false,
        response: AnsweredBody::Awaited,
        now: Wall::default(),
        sessions: &[],
        credential,
        hasher,
        tokens: Box::leak(Box::default()),
        identity: Box::leak(Box::default()),
    }
}

fn field(source: FieldSource) -> Field {
    Field::new("x", source)
}

#[test]
fn a_header_has_a_value_only_if_it_occurs_once() {
    let hasher = Hasher::default();
    let tenant = field(FieldSource::Header(HeaderName::from_static("x-tenant-id")));
    let mut headers = HeaderMap::new();
    assert_eq!(tenant.value(&view(&headers, &hasher, "", &[])), Err(FieldError::Missing));
    headers.append("x-tenant-id", HeaderValue::from_static(""));
    assert_eq!(
        tenant.value(&view(&headers, &hasher, "", &[])),
        Err(FieldError::Missing),
        "an empty value is no tenant"
    );
    headers.insert("x-tenant-id", HeaderValue::from_static("acme"));
    assert_eq!(
        tenant.value(&view(&headers, &hasher, "", &[])).map(Option::unwrap_or_default).as_deref(),
        Ok(&b"acme"[..])
    );
    headers.append("x-tenant-id", HeaderValue::from_static("acme"));
    assert_eq!(tenant.value(&view(&headers, &hasher, "", &[])), Err(FieldError::Ambiguous));
}

#[test]
fn cookies_are_read_across_lines_and_a_repeated_one_is_ambiguous() {
    let hasher = Hasher::default();
    let sid = field(FieldSource::Cookie("sid".into()));
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, HeaderValue::from_static("a=1; sid=x"));
    headers.append(COOKIE, HeaderValue::from_static("b=2"));
    assert_eq!(
        sid.value(&view(&headers, &hasher, "", &[])).map(Option::unwrap_or_default).as_deref(),
        Ok(&b"x"[..])
    );
    headers.append(COOKIE, HeaderValue::from_static("sid=y"));
    assert_eq!(sid.value(&view(&headers, &hasher, "", &[])), Err(FieldError::Ambiguous));
}

#[test]
fn the_clients_address_counts_by_its_network() {
    let of = |v4, v6, addr: &str| {
        ClientPrefix { v4, v6 }.apply(addr.parse().expect("an address")).to_string()
    };
    assert_eq!(of(32, 128, "10.1.2.3"), "10.1.2.3");
    assert_eq!(of(24, 56, "10.1.2.3"), "10.1.2.0");
    assert_eq!(of(0, 0, "10.1.2.3"), "0.0.0.0");
    assert_eq!(of(24, 56, "::ffff:10.1.2.3"), "10.1.2.0", "one client has one address");
    assert_eq!(of(24, 56, "2001:db8:1:2ff::9"), "2001:db8:1:200::");
    assert_eq!(of(32, 128, "2001:DB8:0::1"), "2001:db8::1");
    let hasher = Hasher::default();
    let headers = HeaderMap::new();
    let office = field(FieldSource::Client(ClientPrefix { v4: 24, v6: 56 }));
    let view = view(&headers, &hasher, "", &[]);
    let unknown = FieldView { client: None, ..view };
    assert_eq!(office.value(&unknown), Err(FieldError::Missing));
    assert_eq!(
        office.value(&view).map(Option::unwrap_or_default).as_deref(),
        Ok(&b"192.0.2.0"[..])
    );
    assert_eq!(office.every_value(&view), Some(vec![b"192.0.2.0".to_vec()]));
}

#[test]
fn a_prefix_never_cuts_a_jwt() {
    let prefix = Auth::Prefix(8);
    assert_eq!(prefix.counting_part(b"Bearer abcdefghijkl"), b"Bearer abcdefgh");
    assert_eq!(prefix.counting_part(b"Bearer eyJhbGciOi.J9.x"), b"Bearer eyJhbGciOi.J9.x");
    assert_eq!(prefix.counting_part(b"Bearer abc"), b"Bearer abc");
    assert_eq!(prefix.counting_part(b"abcdefghijkl"), b"abcdefgh");
}

#[test]
fn a_tokens_value_is_a_hash() {
    let hasher = Hasher::default();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer secret-token"));
    let value = field(FieldSource::Auth(Auth::Token))
        .value(&view(&headers, &hasher, "", &[]))
        .expect("a value")
        .expect("it is there")
        .into_owned();
    assert!(!String::from_utf8(value).expect("hex").contains("secret"));
}

#[test]
fn an_absent_optional_value_is_not_the_empty_one() {
    let hasher = Hasher::default();
    let team = FieldSource::Header(HeaderName::from_static("x-team"));
    let team = Field { is_optional: true, ..field(team) };
    let mut headers = HeaderMap::new();
    assert_eq!(team.value(&view(&headers, &hasher, "", &[])), Ok(None));
    assert_eq!(team.every_value(&view(&headers, &hasher, "", &[])), Some(vec![Vec::new()]));
    headers.append("x-team", HeaderValue::from_static(""));
    assert_eq!(
        team.value(&view(&headers, &hasher, "", &[])).map(Option::unwrap).as_deref(),
        Ok(&b""[..])
    );
    headers.append("x-team", HeaderValue::from_static("red"));
    assert_eq!(team.value(&view(&headers, &hasher, "", &[])), Err(FieldError::Ambiguous));
    assert_eq!(team.every_value(&view(&headers, &hasher, "", &[])), None);
}

#[test]
fn a_body_that_cannot_be_read_has_no_known_values() {
    let (hasher, headers) = (Hasher::default(), HeaderMap::new());
    let plain = view(&headers, &hasher, "", &[]);
    let unread = FieldView { has_body: true, ..plain };
    let json = |text: &str| BodyFields::parse(b"", text.as_bytes()).expect("json");
    let id = field(FieldSource::Body("/id".into()));
    let maybe = Field { is_optional: true, ..id.clone() };
    assert_eq!((id.every_value(&unread), maybe.every_value(&unread)), (None, None));
    assert_eq!(id.every_value(&plain), None);
    assert_eq!(maybe.every_value(&plain), Some(vec![Vec::new()]));
    for (text, required, optional) in [
        (r#"{"id":7}"#, Some(vec!["7"]), Some(vec!["7"])),
        (r#"{"id":[7,8]}"#, Some(vec!["7", "8"]), Some(vec!["7", "8"])),
        (r#"{"id":[7,null]}"#, None, Some(vec!["", "7"])),
        (r#"{"id":""}"#, None, Some(vec![""])),
        (r"{}", None, Some(vec![""])),
        (r#"{"id":{}}"#, None, None),
    ] {
        let body = json(text);
        let view = FieldView { body: Some(&body), ..unread };
        let bytes = |values: Option<Vec<&str>>| {
            values.map(|values| values.iter().map(|value| value.as_bytes().to_vec()).collect())
        };
        assert_eq!(id.every_value(&view), bytes(required), "{text}");
        assert_eq!(maybe.every_value(&view), bytes(optional), "{text}");
    }
}
