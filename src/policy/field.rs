//! Fields: named values of a request, from which keys, tags and purge rules are made.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::policy::request_target;
use crate::secret::Hasher;

/// A named value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name that keys and templates use.
    pub name: Arc<str>,
    /// Where the value comes from.
    pub source: FieldSource,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldSource {
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// A capture of the path pattern.
    Path(Box<str>),
    /// The authority that the request was sent to.
    Host,
    /// The `Authorization` header. Its value is only ever used as a keyed hash.
    Auth(Auth),
    /// The address of the client, or the network that it belongs to.
    Client(ClientPrefix),
    /// A JSON pointer into the body of a mutation (JSON or form). For purge rules only.
    Body(Box<str>),
}

/// How many bits of a client's address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix {
    /// Of an IPv4 address; at most 32.
    pub v4: u8,
    /// Of an IPv6 address; at most 128.
    pub v6: u8,
}

impl ClientPrefix {
    /// The whole address.
    pub const WHOLE: Self = Self { v4: 32, v6: 128 };

    /// The address, or the first address of its network.
    #[must_use]
    pub fn apply(self, addr: IpAddr) -> IpAddr {
        match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                Ipv4Addr::from_bits(addr.to_bits() & mask).into()
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                Ipv6Addr::from_bits(addr.to_bits() & mask).into()
            }
        }
    }
}

/// How much of the `Authorization` header identifies the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// All of it.
    Token,
    /// The first characters of the token. A token that looks like a JWT counts as a whole, because
    /// the JWTs of one issuer begin alike.
    Prefix(usize),
}

/// The parts of a request that fields are read from.
#[derive(Clone, Copy, Debug)]
pub struct FieldView<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The authority, lower-case.
    pub host: &'a str,
    /// The raw query, without its `?`.
    pub query: &'a str,
    /// The captures of the pattern that matched.
    pub captures: &'a [(Arc<str>, Box<str>)],
    /// The address of the client, if it is known.
    pub client: Option<IpAddr>,
    /// The fields of the body, if a purge rule reads them.
    pub body: Option<&'a BodyFields>,
    /// Hashes values that must not be stored in the clear.
    pub hasher: &'a Hasher,
}

/// Why a field has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The request lacks it, or its value is empty.
    Missing,
    /// The request has it more than once, or in a form that can be read in two ways.
    Ambiguous,
}

impl Field {
    /// The field's value in this request.
    pub fn value<'a>(&self, view: &FieldView<'a>) -> Result<Cow<'a, [u8]>, FieldError> {
        let value = match &self.source {
            FieldSource::Header(name) => Cow::Borrowed(single(view.headers, name)?),
            FieldSource::Cookie(name) => Cow::Borrowed(cookie(view.headers, name)?),
            FieldSource::Query(name) => match request_target::parameter(view.query, name) {
                Ok(value) => bytes(value.ok_or(FieldError::Missing)?),
                Err(request_target::AmbiguousQuery) => return Err(FieldError::Ambiguous),
            },
            FieldSource::Path(name) => {
                let (_, value) = view
                    .captures
                    .iter()
                    .find(|(capture, _)| **capture == **name)
                    .ok_or(FieldError::Missing)?;
                Cow::from(percent_decode_str(value))
            }
            FieldSource::Host => Cow::Borrowed(view.host.as_bytes()),
            FieldSource::Auth(auth) => {
                let value = single(view.headers, &AUTHORIZATION)?;
                Cow::Owned(view.hasher.hex("auth", auth.counting_part(value)).into_bytes())
            }
            FieldSource::Client(prefix) => {
                let client = view.client.ok_or(FieldError::Missing)?;
                Cow::Owned(prefix.apply(client).to_string().into_bytes())
            }
            FieldSource::Body(pointer) => {
                bytes(view.body.and_then(|body| body.get(pointer)).ok_or(FieldError::Missing)?)
            }
        };
        if value.is_empty() { Err(FieldError::Missing) } else { Ok(value) }
    }

    /// Every value that a mutation could give this field. Used for purges: a value too many costs a
    /// miss, a value too few a stale response.
    #[must_use]
    pub fn every_value(&self, view: &FieldView<'_>) -> Vec<Vec<u8>> {
        let mut values: Vec<Vec<u8>> = match &self.source {
            FieldSource::Query(name) => request_target::every_value(view.query, name)
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            FieldSource::Cookie(name) => cookies(view.headers)
                .filter(|(key, _)| *key == name.as_bytes())
                .map(|(_, value)| value.to_vec())
                .collect(),
            FieldSource::Body(pointer) => view
                .body
                .map(|body| body.every(pointer))
                .unwrap_or_default()
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            FieldSource::Header(_)
            | FieldSource::Path(_)
            | FieldSource::Host
            | FieldSource::Client(_)
            | FieldSource::Auth(_) => self.value(view).into_iter().map(Cow::into_owned).collect(),
        };
        values.retain(|value| !value.is_empty());
        values.sort();
        values.dedup();
        values
    }

    /// The header that this field reads.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.source {
            FieldSource::Header(name) => Some(name),
            FieldSource::Cookie(_) => Some(const { &COOKIE }),
            FieldSource::Auth(_) => Some(const { &AUTHORIZATION }),
            FieldSource::Query(_)
            | FieldSource::Path(_)
            | FieldSource::Host
            | FieldSource::Client(_)
            | FieldSource::Body(_) => None,
        }
    }

    /// Whether the value may be shown to an operator as it is.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(self.source, FieldSource::Auth(_) | FieldSource::Cookie(_))
    }
}

impl Auth {
    /// The bytes of the header that identify the client.
    #[must_use]
    pub fn counting_part(self, value: &[u8]) -> &[u8] {
        let Self::Prefix(length) = self else { return value };
        let start = value.iter().position(|&b| b == b' ').map_or(0, |space| space + 1);
        let token = &value[start..];
        // SECURITY: JWTs of one issuer were measured to share up to 155 characters, so a prefix
        // would mix up their holders.
        let looks_like_jwt = token.starts_with(b"eyJ");
        if looks_like_jwt || token.len() <= length { value } else { &value[..start + length] }
    }
}

/// The value of a header that occurs once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], FieldError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(FieldError::Missing)?;
    match values.next() {
        Some(_) => Err(FieldError::Ambiguous),
        None => Ok(value.as_bytes().trim_ascii()),
    }
}

/// The value of a cookie that occurs once. HTTP/2 clients may spread cookies over several lines
/// (RFC 9113 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], FieldError> {
    let mut found = None;
    for (key, value) in cookies(headers) {
        if key == name.as_bytes() && found.replace(value).is_some() {
            return Err(FieldError::Ambiguous);
        }
    }
    found.ok_or(FieldError::Missing)
}

/// All cookies of a request: name and value.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| cookie_pieces(line.as_bytes()))
        .filter(|(name, piece)| name.len() < piece.len())
        .map(|(name, piece)| {
            let equals = piece.iter().position(|&b| b == b'=').unwrap_or(name.len());
            (name, piece[equals + 1..].trim_ascii())
        })
}

/// The pieces of a `Cookie` header, each with the name before its `=`. A piece without `=` is a
/// name alone.
pub fn cookie_pieces(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&b| b == b';').map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()).map(
        |piece| {
            let equals = piece.iter().position(|&b| b == b'=').unwrap_or(piece.len());
            (piece[..equals].trim_ascii(), piece)
        },
    )
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The fields of a mutation's body.
#[derive(Clone, Debug)]
pub enum BodyFields {
    /// A JSON document.
    Json(serde_json::Value),
    /// The parameters of a form.
    Form(Vec<(String, String)>),
}

impl BodyFields {
    /// Reads a body by its media type. A body without a type, or of plain text, is tried as JSON.
    /// `None` if the body is neither JSON nor a form, or is malformed.
    #[must_use]
    pub fn parse(content_type: &[u8], body: &[u8]) -> Option<Self> {
        let essence = content_type.split(|&b| b == b';').next()?.trim_ascii().to_ascii_lowercase();
        let json =
            [&b"application/json"[..], b"text/json", b"text/plain", b""].contains(&&essence[..]);
        if json || essence.ends_with(b"+json") {
            // Some clients send a byte order mark first, which RFC 8259 allows parsers to ignore.
            let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            return serde_json::from_slice(body).ok().map(Self::Json);
        }
        if essence == b"application/x-www-form-urlencoded" {
            let form = url::form_urlencoded::parse(body)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            return Some(Self::Form(form));
        }
        None
    }

    /// Whether bodies of this media type, in lower case and without parameters, are read.
    #[must_use]
    pub fn reads(kind: &[u8]) -> bool {
        [&b"application/json"[..], b"text/json", b"text/plain"].contains(&kind)
            || kind.ends_with(b"+json")
            || kind == b"application/x-www-form-urlencoded"
    }

    /// Every value at a JSON pointer. A number is given in each way it can be written. In a form:
    /// all parameters that frameworks map to that pointer.
    #[must_use]
    pub fn every(&self, pointer: &str) -> Vec<String> {
        match self {
            Self::Json(document) => {
                let mut values: Vec<String> =
                    self.get(pointer).map(Cow::into_owned).into_iter().collect();
                if let Some(serde_json::Value::Number(number)) = document.pointer(pointer)
                    && let Some(whole) = number.to_string().strip_suffix(".0")
                {
                    values.push(whole.to_owned());
                }
                values
            }
            Self::Form(form) => {
                let plain = pointer.trim_start_matches('/');
                // PHP and Rails write `/a/b` as `a[b]`, other frameworks as `a.b`.
                let mut parts = plain.split('/');
                let nested = parts
                    .next()
                    .into_iter()
                    .map(str::to_owned)
                    .chain(parts.map(|part| format!("[{part}]")))
                    .collect::<String>();
                let dotted = plain.replace('/', ".");
                let named =
                    |name: &str| [plain, &nested, &dotted].contains(&name.trim_end_matches("[]"));
                form.iter()
                    .filter(|(name, _)| named(name))
                    .map(|(_, value)| value.clone())
                    .collect()
            }
        }
    }

    /// The scalar at a JSON pointer; in a form, the parameter of that name.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Json(document) => match document.pointer(pointer)? {
                serde_json::Value::String(text) => Some(Cow::Borrowed(text)),
                serde_json::Value::Number(number) => Some(Cow::Owned(number.to_string())),
                serde_json::Value::Bool(value) => {
                    Some(Cow::Borrowed(if *value { "true" } else { "false" }))
                }
                _ => None,
            },
            Self::Form(form) => {
                let name = pointer.trim_start_matches('/');
                form.iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| Cow::Borrowed(value.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn view<'a>(
        headers: &'a HeaderMap,
        hasher: &'a Hasher,
        query: &'a str,
        captures: &'a [(Arc<str>, Box<str>)],
    ) -> FieldView<'a> {
        let client = Some(Ipv4Addr::new(192, 0, 2, 7).into());
        FieldView { headers, host: "app", query, captures, client, body: None, hasher }
    }

    fn field(source: FieldSource) -> Field {
        Field { name: "x".into(), source }
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
        assert_eq!(tenant.value(&view(&headers, &hasher, "", &[])).as_deref(), Ok(&b"acme"[..]));
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
        assert_eq!(sid.value(&view(&headers, &hasher, "", &[])).as_deref(), Ok(&b"x"[..]));
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
        assert_eq!(office.value(&view).as_deref(), Ok(&b"192.0.2.0"[..]));
        assert_eq!(office.every_value(&view), [b"192.0.2.0".to_vec()]);
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
            .into_owned();
        assert!(!String::from_utf8(value).expect("hex").contains("secret"));
    }

    #[test]
    fn bodies_are_read_by_their_type() {
        let json = BodyFields::parse(
            b"application/json; charset=utf-8",
            br#"{"campaign":{"id":7,"n":null}}"#,
        )
        .expect("json");
        assert_eq!(json.get("/campaign/id").as_deref(), Some("7"));
        assert_eq!(json.get("/campaign/n"), None);
        let form =
            BodyFields::parse(b"application/x-www-form-urlencoded", b"id=a+b&x=1").expect("form");
        assert_eq!(form.get("/id").as_deref(), Some("a b"));
        assert!(BodyFields::parse(b"text/plain", b"id=1").is_none());
        assert_eq!(
            BodyFields::parse(b"", b"\xef\xbb\xbf{\"id\":9.0}").expect("json").every("/id"),
            ["9.0", "9"]
        );
        let nested = BodyFields::parse(
            b"application/x-www-form-urlencoded",
            b"campaign[id]=9&campaign[id]=10",
        )
        .expect("form");
        assert_eq!(nested.every("/campaign/id"), ["9", "10"]);
        assert!(BodyFields::parse(b"application/json", b"{").is_none());
    }
}
