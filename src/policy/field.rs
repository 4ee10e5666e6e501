//! Fields: named values of a request, from which keys, tags and purge rules are made.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::clock::Wall;
use crate::policy::body_fields::{BodyFields, BodyValues};
use crate::policy::caller;
use crate::policy::cookie_header::cookies;
use crate::policy::credential::CredentialRule;
use crate::policy::identity::{IdentityFault, IdentityField, RequestIdentity};
use crate::policy::jwt::{
    ClaimValue, RequestTokens, TokenError, TokenFault, TokenField, TokenPlace,
};
use crate::policy::request_target;
use crate::policy::response_fields;
use crate::policy::session::{SessionFault, SessionRule};
use crate::secret::Hasher;

#[cfg(test)]
mod tests;

/// A named value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name that keys and templates use.
    pub name: Arc<str>,
    /// Where the value comes from.
    pub source: FieldSource,
    /// Whether a request may lack it: it was written with a `?`. That it is absent is then a value
    /// of its own, which the empty string is not.
    pub is_optional: bool,
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
    /// A JSON pointer into the JSON body of the response. For tags only.
    Response(Box<str>),
    /// A signed cookie that carries the session.
    Session(Arc<SessionRule>),
    /// The names of the caller, of which there may be several. For tags only.
    Caller,
    /// A claim of a verified token.
    Jwt(TokenField),
    /// What the origin says of who the caller is.
    Identity(IdentityField),
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
    /// Whether there is a body.
    pub has_body: bool,
    /// The body of the response, if a purge rule reads it.
    pub response: AnsweredBody<'a>,
    /// The time by which signatures are judged.
    pub now: Wall,
    /// The signed sessions by which the caller is named, too.
    pub sessions: &'a [Arc<SessionRule>],
    /// What identifies a caller.
    pub credential: &'a CredentialRule,
    /// Hashes values that must not be stored in the clear.
    pub hasher: &'a Hasher,
    /// What was found of the tokens that fields read.
    pub tokens: &'a RequestTokens,
    /// What is known of who the caller is.
    pub identity: &'a RequestIdentity,
}

/// What is known of the body of a response, for the tags of purge rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweredBody<'a> {
    /// It is not there yet.
    #[default]
    Awaited,
    /// It is too long, no plain JSON, or has not come whole.
    Unread,
    /// All of it.
    Whole(&'a [u8]),
}

/// The most values of a response that a field of a write has. A template renders fewer tags.
const MAX_RESPONSE_VALUES: usize = 1024;

/// Why a field has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// The request lacks it, or its value is empty.
    Missing,
    /// The request has it more than once, or in a form that can be read in two ways.
    Ambiguous,
    /// It is in a token that is not verified.
    Token(TokenFault),
    /// It is in a signed cookie that does not count, or that lacks it.
    Session(SessionFault),
    /// Nobody knows who the caller is.
    Identity(IdentityFault),
}

impl<'a> FieldView<'a> {
    /// The names of the caller.
    #[must_use]
    pub fn caller_names(&self) -> Vec<String> {
        let (rule, sessions) = (self.credential, self.sessions);
        caller::caller_names(rule, sessions, self.headers, self.hasher, caller::MAX_NAMES)
    }

    /// What the origin says of the caller at this place.
    ///
    /// # Errors
    /// There is no caller, or nobody knows.
    pub fn identity_value(&self, field: &IdentityField) -> Result<&'a ClaimValue, FieldError> {
        match self.identity {
            RequestIdentity::Nobody | RequestIdentity::Unread => Err(FieldError::Missing),
            RequestIdentity::Fault(fault) => Err(FieldError::Identity(*fault)),
            RequestIdentity::Known(answer) => {
                let value = answer.value(&field.pointer);
                value.ok_or(FieldError::Identity(IdentityFault::NoValue))
            }
        }
    }
}

impl Field {
    /// A field that a request must have.
    #[must_use]
    pub fn new(name: &str, source: FieldSource) -> Self {
        Self { name: name.into(), source, is_optional: false }
    }

    /// The field's value in this request; `None` if an optional field is absent.
    pub fn value<'a>(&self, view: &FieldView<'a>) -> Result<Option<Cow<'a, [u8]>>, FieldError> {
        match self.sent_value(view) {
            Err(error) => self.absent_or(error),
            Ok(value) if value.is_empty() && !self.is_optional => Err(FieldError::Missing),
            Ok(value) => Ok(Some(value)),
        }
    }

    /// An optional field that the request lacks is absent; anything else is an error.
    pub(in crate::policy) fn absent_or<T>(
        &self,
        error: FieldError,
    ) -> Result<Option<T>, FieldError> {
        if self.is_optional && error.is_absence() { Ok(None) } else { Err(error) }
    }

    /// The value as it was sent, even if it is empty.
    fn sent_value<'a>(&self, view: &FieldView<'a>) -> Result<Cow<'a, [u8]>, FieldError> {
        Ok(match &self.source {
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
            FieldSource::Jwt(field) => match view.tokens.claim(field) {
                Ok(Some(value)) => Cow::Borrowed(value.text.as_bytes()),
                Ok(None) | Err(TokenError::Missing) => return Err(FieldError::Missing),
                Err(TokenError::Ambiguous) => return Err(FieldError::Ambiguous),
                Err(TokenError::Unverified(fault)) => return Err(FieldError::Token(fault)),
            },
            FieldSource::Identity(field) => {
                Cow::Borrowed(view.identity_value(field)?.text.as_bytes())
            }
            FieldSource::Session(rule) => {
                let session = rule.current(view.headers, view.hasher, view.now)?;
                Cow::Owned(session.text()?.into_bytes())
            }
            // No key and no tag of a single value is made of these.
            FieldSource::Body(_) | FieldSource::Response(_) | FieldSource::Caller => {
                return Err(FieldError::Missing);
            }
        })
    }

    /// Every value that a mutation could give this field. Used for purges: a value too many costs a
    /// miss, a value too few a stale response. `None` if nobody can tell all of them. An optional
    /// field that is absent has the empty value.
    #[must_use]
    pub fn every_value(&self, view: &FieldView<'_>) -> Option<Vec<Vec<u8>>> {
        let mut values: Vec<Vec<u8>> = match &self.source {
            FieldSource::Query(name) => request_target::every_value(view.query, name)?
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            FieldSource::Cookie(name) => cookies(view.headers)
                .filter(|(key, _)| *key == name.as_bytes())
                .map(|(_, value)| value.to_vec())
                .collect(),
            FieldSource::Body(pointer) => self.body_values(pointer, view)?,
            FieldSource::Response(pointer) => self.response_values(pointer, view)?,
            FieldSource::Session(rule) => {
                let session = rule.current(view.headers, view.hasher, view.now);
                match session.and_then(|session| session.text()) {
                    Ok(text) => vec![text.into_bytes()],
                    Err(fault) if FieldError::from(fault).is_absence() => Vec::new(),
                    // The origin may know a session there that is none here.
                    Err(_) => return None,
                }
            }
            // Whoever it was when the origin was asked need not be whoever it is for this write.
            FieldSource::Identity(_) => return None,
            FieldSource::Caller => {
                return Some(view.caller_names().into_iter().map(String::into_bytes).collect());
            }
            FieldSource::Header(_)
            | FieldSource::Path(_)
            | FieldSource::Host
            | FieldSource::Client(_)
            | FieldSource::Auth(_)
            // Of a token that is not verified nobody can tell whom the origin took the caller for.
            | FieldSource::Jwt(_) => match self.value(view) {
                Ok(value) => value.into_iter().map(Cow::into_owned).collect(),
                Err(_) => return None,
            },
        };
        if self.is_optional && values.is_empty() {
            values.push(Vec::new());
        }
        values.retain(|value| self.is_optional || !value.is_empty());
        values.sort();
        values.dedup();
        (!values.is_empty()).then_some(values)
    }

    fn body_values(&self, pointer: &str, view: &FieldView<'_>) -> Option<Vec<Vec<u8>>> {
        let found = match view.body {
            Some(body) => body.read(pointer),
            // It is too long, or neither JSON nor a form.
            None if view.has_body => return None,
            None => BodyValues { is_missing: true, ..BodyValues::default() },
        };
        let mut values: Vec<Vec<u8>> = found.values.into_iter().map(String::into_bytes).collect();
        let is_missing = found.is_missing || values.iter().any(Vec::is_empty);
        if found.is_unreadable || (is_missing && !self.is_optional) {
            return None;
        }
        if is_missing {
            values.push(Vec::new());
        }
        Some(values)
    }

    /// What the response names, where it names something at each place of the pointer.
    fn response_values(&self, pointer: &str, view: &FieldView<'_>) -> Option<Vec<Vec<u8>>> {
        let AnsweredBody::Whole(body) = view.response else { return None };
        let found = response_fields::read(body, pointer, MAX_RESPONSE_VALUES)?;
        // A write that names nothing may have changed anything.
        let is_missing = found.is_missing || found.has_empty_list;
        if found.is_unreadable || found.has_too_many || (is_missing && !self.is_optional) {
            return None;
        }
        let mut values: Vec<Vec<u8>> = found.values.into_iter().map(String::into_bytes).collect();
        if is_missing {
            values.push(Vec::new());
        }
        Some(values)
    }

    /// Whether its value comes with the response, which is not there yet.
    #[must_use]
    pub fn awaits_response(&self, view: &FieldView<'_>) -> bool {
        matches!(self.source, FieldSource::Response(_)) && view.response == AnsweredBody::Awaited
    }

    /// The header that this field reads.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.source {
            FieldSource::Header(name) => Some(name),
            FieldSource::Cookie(_) | FieldSource::Session(_) => Some(const { &COOKIE }),
            FieldSource::Auth(_) => Some(const { &AUTHORIZATION }),
            FieldSource::Jwt(TokenField { place: TokenPlace::Authorization, .. }) => {
                Some(const { &AUTHORIZATION })
            }
            FieldSource::Jwt(TokenField { place: TokenPlace::Cookie(_), .. }) => {
                Some(const { &COOKIE })
            }
            FieldSource::Query(_)
            | FieldSource::Path(_)
            | FieldSource::Host
            | FieldSource::Client(_)
            | FieldSource::Body(_)
            | FieldSource::Response(_)
            | FieldSource::Identity(_)
            | FieldSource::Caller => None,
        }
    }

    /// The header whose whole value is the field's: one that a key of the field holds.
    #[must_use]
    pub fn whole_header(&self) -> Option<&HeaderName> {
        match &self.source {
            // A key holds one claim of it.
            FieldSource::Jwt(_) => None,
            _ => self.header(),
        }
    }

    /// Where the token is that this field reads, if it reads one.
    #[must_use]
    pub const fn token_place(&self) -> Option<&TokenPlace> {
        match &self.source {
            FieldSource::Jwt(field) => Some(&field.place),
            _ => None,
        }
    }

    /// Where in the origin's answer the field's value is, if it comes from there.
    #[must_use]
    pub const fn identity(&self) -> Option<&IdentityField> {
        match &self.source {
            FieldSource::Identity(field) => Some(field),
            _ => None,
        }
    }

    /// Whether the value may be shown to an operator as it is.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(
            self.source,
            FieldSource::Auth(_)
                | FieldSource::Cookie(_)
                | FieldSource::Session(_)
                | FieldSource::Caller
        )
    }
}

impl FieldError {
    /// Whether the request lacks the field, and says nothing else in its place.
    pub(in crate::policy) const fn is_absence(self) -> bool {
        matches!(self, Self::Missing | Self::Session(SessionFault::Absent | SessionFault::NoValue))
    }
}

impl From<SessionFault> for FieldError {
    fn from(fault: SessionFault) -> Self {
        Self::Session(fault)
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

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
