//! Signed session cookies: cookies that carry the session itself and a signature, as Flask, Django
//! and Express make them. Such a cookie is often signed anew with every response; its payload says
//! that the caller is still the same.
//!
//! `signature` verifies the cookie, `payload` reads what it carries, `members` says what counts of
//! it, `memory` remembers what was verified, `set_cookie` compares what a response sets, and
//! `route_sessions` is what a lookup reads. `unverified` is for suggestions alone.
//!
//! SECURITY: nothing of a cookie counts before its signature has been verified. A cookie that
//! cannot be verified is a field without a value, never an absent one: the request goes to the
//! origin.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HeaderMap};

use crate::clock::Wall;
use crate::policy::glob::Glob;
use crate::policy::session::members::PayloadFilter;
use crate::policy::session::memory::SessionMemory;
use crate::policy::session::signature::{SignatureKeys, SignedText};
use crate::secret::{Hasher, Secret};

pub use crate::policy::session::counters::session_verifications;
pub use crate::policy::session::fault::SessionFault;
pub use crate::policy::session::format::SessionFormat;
pub use crate::policy::session::route_sessions::{IdentityPart, RouteSessions};
pub use crate::policy::session::set_cookie::SetSession;
pub use crate::policy::session::unverified::{UnverifiedSession, sessions_set_by};
pub use crate::policy::session::verified::VerifiedSession;

mod counters;
mod fault;
mod format;
mod members;
mod memory;
mod payload;
mod route_sessions;
mod set_cookie;
mod signature;
#[cfg(test)]
mod tests;
mod unverified;
mod verified;

/// The longest cookie that is verified, in bytes. Browsers keep 4096.
const MAX_COOKIE: usize = 16 * 1024;
/// How far the origin's clock may be ahead of this machine's.
const CLOCK_LEEWAY: Duration = Duration::from_mins(1);

/// The settings of a session cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// The name of the cookie.
    pub cookie: Box<str>,
    /// How it is signed.
    pub format: SessionFormat,
    /// With what it may be signed: the current secret and earlier ones, in any order.
    pub secrets: Box<[Secret]>,
    /// How old a signature may be; none where the format has no time.
    pub max_age: Option<Duration>,
    /// A JSON pointer to the part that counts; none where all of the payload does.
    pub pointer: Option<Box<str>>,
    /// The members that count for nothing, by their paths without the first `/`.
    pub ignore: Box<[Glob]>,
}

/// A session cookie that a field reads.
pub struct SessionRule {
    /// Its settings.
    pub settings: SessionSettings,
    /// The cookie that holds the signature, where it is one of its own.
    signature_cookie: Option<Box<str>>,
    keys: SignatureKeys,
    filter: PayloadFilter,
    memory: SessionMemory,
}

impl SessionRule {
    /// A rule with an empty memory.
    #[must_use]
    pub fn new(settings: SessionSettings) -> Self {
        let signature_cookie = match settings.format {
            SessionFormat::Express => Some(format!("{}.sig", settings.cookie).into()),
            SessionFormat::Flask | SessionFormat::Django => None,
        };
        let keys = SignatureKeys::new(settings.format, &settings.secrets);
        let filter = PayloadFilter::new(
            settings.pointer.as_deref(),
            &settings.ignore,
            settings.format == SessionFormat::Flask,
        );
        Self { settings, signature_cookie, keys, filter, memory: SessionMemory::default() }
    }

    /// Whether less than the whole payload counts.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.settings.pointer.is_some() || !self.settings.ignore.is_empty()
    }

    /// Whether two requests that `other` tells apart are told apart by this.
    #[must_use]
    pub fn is_as_narrow_as(&self, other: &Self) -> bool {
        let (own, other) = (&self.settings, &other.settings);
        own.cookie == other.cookie
            && own.format == other.format
            && (own.pointer.is_none() || own.pointer == other.pointer)
            && own.ignore.iter().all(|glob| other.ignore.contains(glob))
    }

    /// Whether this cookie holds the session or its signature.
    #[must_use]
    pub fn reads_cookie(&self, name: &[u8]) -> bool {
        name == self.settings.cookie.as_bytes() || self.is_signature_cookie(name)
    }

    /// Whether this cookie holds the signature alone.
    #[must_use]
    pub fn is_signature_cookie(&self, name: &[u8]) -> bool {
        self.signature_cookie.as_ref().is_some_and(|own| own.as_bytes() == name)
    }

    /// The cookie that holds the signature, where it is one of its own.
    #[must_use]
    pub fn signature_cookie(&self) -> Option<&str> {
        self.signature_cookie.as_deref()
    }

    /// What the cookie of this request says, whatever its age, if its signature is right.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn read(
        &self,
        headers: &HeaderMap,
        hasher: &Hasher,
    ) -> Result<Arc<VerifiedSession>, SessionFault> {
        self.read_counted(headers, hasher).map(|(session, _)| session)
    }

    /// The same, and whether it was remembered.
    fn read_counted(
        &self,
        headers: &HeaderMap,
        hasher: &Hasher,
    ) -> Result<(Arc<VerifiedSession>, bool), SessionFault> {
        let value = exact_cookie(headers, &self.settings.cookie)?;
        let signature = match &self.signature_cookie {
            None => None,
            Some(name) => Some(exact_cookie(headers, name).map_err(|fault| match fault {
                SessionFault::Absent => SessionFault::NoSignature,
                other => other,
            })?),
        };
        self.verify(value, signature, hasher)
    }

    /// The same of a cookie's value.
    fn verify(
        &self,
        value: &[u8],
        signature: Option<&[u8]>,
        hasher: &Hasher,
    ) -> Result<(Arc<VerifiedSession>, bool), SessionFault> {
        if value.len() > MAX_COOKIE {
            return Err(SessionFault::TooLong);
        }
        if let Some(known) = self.memory.get(value, signature) {
            return Ok((known, true));
        }
        // SECURITY: what some parsers trim or unquote, and others keep, would be one session here,
        // and another one or none at the origin.
        let is_octet = |byte: &u8| matches!(byte, b'!' | b'#'..=b'+' | b'-'..=b'[' | b']'..=b'~');
        if !value.iter().chain(signature.unwrap_or_default()).all(is_octet) {
            return Err(SessionFault::Malformed);
        }
        let SignedText { payload, signed } =
            self.keys.verify(&self.settings.cookie, value, signature)?;
        let payload = payload::parse(&payload)?;
        let session = Arc::new(self.filter.read(&payload, signed, hasher));
        self.memory.keep(value, signature, &session);
        Ok((session, false))
    }

    /// Whether this session is of an age at which it counts.
    ///
    /// # Errors
    /// It has expired, or comes from the future.
    pub fn check_age(&self, session: &VerifiedSession, now: Wall) -> Result<(), SessionFault> {
        let (Some(signed), Some(max_age)) = (session.signed, self.settings.max_age) else {
            return Ok(());
        };
        if signed > now.after(CLOCK_LEEWAY).seconds() {
            return Err(SessionFault::Future);
        }
        let is_old = now.seconds().saturating_sub(signed) > max_age.as_secs();
        if is_old { Err(SessionFault::Expired) } else { Ok(()) }
    }

    /// Whether half of the time for which this session counts has gone by.
    #[must_use]
    pub fn is_due_for_renewal(&self, session: &VerifiedSession, now: Wall) -> bool {
        let (Some(signed), Some(max_age)) = (session.signed, self.settings.max_age) else {
            return false;
        };
        now.seconds().saturating_sub(signed) > max_age.as_secs() / 2
    }

    /// What the cookie of this request says now.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn current(
        &self,
        headers: &HeaderMap,
        hasher: &Hasher,
        now: Wall,
    ) -> Result<Arc<VerifiedSession>, SessionFault> {
        let session = self.read(headers, hasher)?;
        self.check_age(&session, now)?;
        Ok(session)
    }
}

/// The value of a cookie that occurs once, without space around its name.
fn exact_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], SessionFault> {
    let lines = headers.get_all(COOKIE).iter();
    let mut found = None;
    for piece in lines.flat_map(|line| pieces(line.as_bytes())) {
        let equals = memchr::memchr(b'=', piece).unwrap_or(piece.len());
        if piece[..equals].trim_ascii() != name.as_bytes() {
            continue;
        }
        if found.replace((piece, equals)).is_some() {
            return Err(SessionFault::Repeated);
        }
    }
    let (piece, equals) = found.ok_or(SessionFault::Absent)?;
    let value = piece.get(equals + 1..).unwrap_or_default();
    if value.is_empty() {
        return Err(SessionFault::Absent);
    }
    let is_exact = !piece[..equals].ends_with(b" ")
        && !piece[..equals].ends_with(b"\t")
        && !piece.starts_with(b"\t");
    if is_exact { Ok(value) } else { Err(SessionFault::Malformed) }
}

/// The pieces of a `Cookie` header, with the space around them.
fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = memchr::memchr(b';', line);
        rest = end.map(|end| &line[end + 1..]);
        Some(&line[..end.unwrap_or(line.len())])
    })
}

/// Two rules are one if they read the same of the same cookie.
impl PartialEq for SessionRule {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for SessionRule {}

/// This text is part of the fingerprint of routes. Secrets are not: after their rotation a payload
/// means the same. Neither is `max_age`, which is judged at each request.
impl fmt::Debug for SessionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionSettings { cookie, format, secrets: _, max_age: _, pointer, ignore } =
            &self.settings;
        f.debug_struct("SessionRule")
            .field("cookie", cookie)
            .field("format", format)
            .field("pointer", pointer)
            .field("ignore", ignore)
            .finish_non_exhaustive()
    }
}

/// The session cookies that fields of a file read. They tell who a caller is, whatever the route.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SessionRules(pub Box<[Arc<SessionRule>]>);

impl SessionRules {
    /// Those that this cookie is the session of.
    pub fn of_cookie<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a Arc<SessionRule>> {
        self.0.iter().filter(move |rule| rule.settings.cookie.as_bytes() == name)
    }

    /// Whether a session is in this cookie.
    #[must_use]
    pub fn names(&self, name: &[u8]) -> bool {
        self.of_cookie(name).next().is_some()
    }
}

/// Always the same: what a route reads of them is in its fields, and the others must not change its
/// fingerprint.
impl fmt::Debug for SessionRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionRules")
    }
}
