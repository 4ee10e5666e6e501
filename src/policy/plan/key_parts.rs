//! The parts of a key, each with a hash of its value, to find out which one differs each time
//! ([`crate::policy::varying_keys`]). Names what callers choose the values of: parameters, cookies,
//! headers.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};

use http::header::{AUTHORIZATION, USER_AGENT};
use smallvec::SmallVec;

use crate::policy::cookie_header;
use crate::policy::field::FieldSource;
use crate::policy::plan::canonical::KeyedHeaders;
use crate::policy::plan::lookup::Lookup;
use crate::policy::scope::Scope;
use crate::policy::session::RouteSessions;

/// A key of more parts than this is not observed.
const MAX_PARTS: usize = 32;
/// The longest name that is kept, in bytes. Longer ones are cut.
pub const MAX_NAME_BYTES: usize = 64;

/// What a part of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// A parameter of the query.
    Parameter,
    /// A cookie.
    Cookie,
    /// A header.
    Header,
    /// A header that is not in the key, so that the request was passed.
    Unkeyed,
}

/// A part of a key.
#[derive(Clone, Debug)]
pub struct VaryingPart<'a> {
    /// What it is.
    pub kind: PartKind,
    /// Its name, as it was sent.
    pub name: Cow<'a, [u8]>,
    /// A keyed hash of its kind, name and value.
    pub hash: u64,
    /// Whether the value looks made for one request: a time, a long number, a token.
    pub is_made: bool,
    /// Whether it tells who asks.
    pub identifies: bool,
}

/// The parts of a key.
#[derive(Clone, Debug)]
pub struct KeyParts<'a> {
    /// What has no name that callers choose: the host, the path, the client's network.
    pub base: u64,
    /// What else tells who asks, although it is not in the key: the address, the `User-Agent` and
    /// the cookies that count for nothing.
    pub anchor: u64,
    /// Whether any of it is more than an address, which many may share.
    pub has_anchor: bool,
    /// Those with a name.
    pub parts: SmallVec<[VaryingPart<'a>; 8]>,
}

impl KeyParts<'_> {
    /// The same for later.
    #[must_use]
    pub fn into_owned(self) -> KeyParts<'static> {
        let own = |part: VaryingPart<'_>| {
            let name = Cow::Owned(part.name[..part.name.len().min(MAX_NAME_BYTES)].to_vec());
            VaryingPart { name, ..part }
        };
        let Self { base, anchor, has_anchor, parts } = self;
        KeyParts { base, anchor, has_anchor, parts: parts.into_iter().map(own).collect() }
    }
}

impl Lookup<'_> {
    /// The parts of the key; `None` if there are too many.
    #[must_use]
    pub fn key_parts(&self, hasher: &RandomState) -> Option<KeyParts<'_>> {
        let (route, headers) = (self.route, self.request.headers);
        let mut list = PartList { hasher, parts: SmallVec::new() };
        let body = self.body.as_ref().map(|body| body.digest);
        let mut base = hasher.hash_one((self.host(), self.path(), route.fingerprint, body));
        for parameter in self.query().into_iter().flat_map(|query| query.split('&')) {
            match parameter.split_once('=') {
                Some((name, value)) if !looks_made(name.as_bytes()) => {
                    list.add(PartKind::Parameter, name.as_bytes(), value.as_bytes(), false)?;
                }
                // SECURITY: what stands alone, or looks like a token, may be a value. It is not
                // shown as a name.
                _ => base = base.wrapping_add(hasher.hash_one(parameter)),
            }
        }
        for field in &route.fields {
            let value = field.value(&self.view()).ok().flatten().unwrap_or_default();
            let (kind, name, identifies) = match &field.source {
                FieldSource::Query(name) => (PartKind::Parameter, name.as_bytes(), false),
                FieldSource::Cookie(name) => (PartKind::Cookie, name.as_bytes(), true),
                FieldSource::Session(rule) => {
                    (PartKind::Cookie, rule.settings.cookie.as_bytes(), true)
                }
                FieldSource::Header(name) => (PartKind::Header, name.as_str().as_bytes(), false),
                FieldSource::Auth(_) => (PartKind::Header, AUTHORIZATION.as_str().as_bytes(), true),
                FieldSource::Path(_)
                | FieldSource::Host
                | FieldSource::Client(_)
                | FieldSource::Body(_)
                | FieldSource::Response(_)
                | FieldSource::Caller
                | FieldSource::Identity(_)
                | FieldSource::Jwt(_) => {
                    base = base.wrapping_add(hasher.hash_one((&field.name, &value)));
                    continue;
                }
            };
            list.add(kind, name, &value, identifies)?;
        }
        for (name, value) in KeyedHeaders::new(route, &self.roles, headers).implicit {
            list.add(PartKind::Header, name.as_str().as_bytes(), &value, false)?;
        }
        if route.spec.scope != Scope::Public {
            self.add_credential(&mut list)?;
        }
        let rule = &self.rules.credential;
        let ignored = cookie_header::cookies(headers)
            .filter(|(name, _)| rule.ignored_cookies.ignores(name))
            .take(MAX_PARTS)
            .fold(0, |sum: u64, cookie| sum.wrapping_add(hasher.hash_one(cookie)));
        let agent = headers.get(USER_AGENT).map(http::HeaderValue::as_bytes);
        let anchor = ignored.wrapping_add(hasher.hash_one((self.request.client, agent)));
        Some(KeyParts { base, anchor, has_anchor: ignored != 0, parts: list.parts })
    }

    /// The headers that no key has seen, as parts.
    #[must_use]
    pub fn unkeyed_parts(&self, hasher: &RandomState) -> SmallVec<[VaryingPart<'_>; 8]> {
        let mut list = PartList { hasher, parts: SmallVec::new() };
        for name in self.unlearned().iter().take(MAX_PARTS) {
            if let Some(value) = self.request.headers.get(*name) {
                let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
                let _ = list.add(PartKind::Unkeyed, name, value, false);
            }
        }
        list.parts
    }

    fn add_credential<'a>(&'a self, list: &mut PartList<'a, '_>) -> Option<()> {
        let (rule, headers) = (&self.rules.credential, self.request.headers);
        let further = &self.route.credential_headers;
        for name in [&AUTHORIZATION].into_iter().chain(&rule.headers).chain(further) {
            for value in headers.get_all(name) {
                let name = name.as_str().as_bytes();
                list.add(PartKind::Header, name, value.as_bytes(), true)?;
            }
        }
        if self.cookies().on_the_wire().is_none() {
            return Some(());
        }
        let (sessions, hasher) = (&self.route.session_rules, &self.rules.hasher);
        let sessions = RouteSessions::of_request(sessions, headers, hasher);
        // A verified session counts as a field, however it is signed.
        let is_session = |name: &[u8]| sessions.verified().any(|(rule, _)| rule.reads_cookie(name));
        for (name, value) in cookie_header::cookies(headers) {
            if !rule.ignored_cookies.ignores(name) && !is_session(name) {
                list.add(PartKind::Cookie, name, value, true)?;
            }
        }
        Some(())
    }
}

struct PartList<'a, 'h> {
    hasher: &'h RandomState,
    parts: SmallVec<[VaryingPart<'a>; 8]>,
}

impl<'a> PartList<'a, '_> {
    /// Adds a part, unless it is there already; `None` if there are too many.
    fn add(
        &mut self,
        kind: PartKind,
        name: &'a [u8],
        value: &[u8],
        identifies: bool,
    ) -> Option<()> {
        let hash = self.hasher.hash_one((kind, name, value));
        if let Some(known) = self.parts.iter_mut().find(|part| part.hash == hash) {
            known.identifies |= identifies;
            return Some(());
        }
        let is_made = looks_made(value);
        let name = Cow::Borrowed(name);
        self.parts.push(VaryingPart { kind, name, hash, is_made, identifies });
        (self.parts.len() <= MAX_PARTS).then_some(())
    }
}

/// Whether a value looks made for one request: a time in seconds or finer, a UUID, or a token.
fn looks_made(value: &[u8]) -> bool {
    const MIN_DIGITS: usize = 10;
    const MIN_RUN: usize = 12;
    const MIN_HEX: usize = 16;
    const MAX_READ: usize = 96;
    let read = &value[..value.len().min(MAX_READ)];
    let digits = read.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_number = read.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let is_hex = read.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let mut runs = read.split(|byte| !byte.is_ascii_alphanumeric());
    is_number && digits >= MIN_DIGITS
        || is_hex && read.len() >= MIN_HEX && digits >= 2
        || runs.any(|run| run.len() >= MIN_RUN && is_mixed(run))
}

/// Whether letters and digits are mixed as in no word.
fn is_mixed(run: &[u8]) -> bool {
    let digits = run.iter().filter(|byte| byte.is_ascii_digit()).count();
    let has_both = run.iter().any(u8::is_ascii_uppercase) && run.iter().any(u8::is_ascii_lowercase);
    digits >= 3 || digits >= 1 && has_both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tokens_look_made_for_one_request() {
        for made in [
            "1712345678",
            "1712345678901",
            "1712345678.123",
            "0b1f9a34-4c1f-4a86-9c6a-1f6f3c1d2e3f",
            "eyJfZnJlc2giOmZhbHNlfQ.Zx9k2A.3qvU",
        ] {
            assert!(looks_made(made.as_bytes()), "{made}");
        }
        for plain in [
            "",
            "1",
            "2024",
            "20261129",
            "en-GB",
            "red%20shoes%20in%20size%2042",
            "summer-sale-2026-all",
            "dark",
        ] {
            assert!(!looks_made(plain.as_bytes()), "{plain}");
        }
    }
}
