//! The session cookies of a request, as its route reads them: once for each lookup.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::HeaderMap;
use smallvec::SmallVec;

use crate::clock::Wall;
use crate::policy::cookie_header::cookie_pieces;
use crate::policy::session::counters::{SessionResult, count};
use crate::policy::session::{SessionFault, SessionRule, VerifiedSession};
use crate::secret::Hasher;

/// The session cookies of a request that a route reads.
#[derive(Debug, Default)]
pub struct RouteSessions<'a>(SmallVec<[ReadSession<'a>; 1]>);

#[derive(Debug)]
struct ReadSession<'a> {
    rule: &'a Arc<SessionRule>,
    read: Result<Arc<VerifiedSession>, SessionFault>,
}

/// What of a session identifies the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityPart {
    /// What counts by the field: the operator has chosen who shares.
    Counted,
    /// The whole payload.
    Whole,
}

impl<'a> RouteSessions<'a> {
    /// Reads the session cookies of a lookup, and counts them, unless this is done again.
    #[must_use]
    pub fn of_lookup(
        rules: &'a [Arc<SessionRule>],
        headers: &HeaderMap,
        hasher: &Hasher,
        now: Wall,
        is_again: bool,
    ) -> Self {
        let read = |rule: &'a Arc<SessionRule>| {
            let read = rule.read_counted(headers, hasher).and_then(|(session, remembered)| {
                rule.check_age(&session, now)?;
                Ok((session, remembered))
            });
            let result = match &read {
                Ok((_, true)) => SessionResult::Remembered,
                Ok((_, false)) => SessionResult::Verified,
                Err(fault) => SessionResult::Fault(*fault),
            };
            if !is_again {
                count(rule.settings.format, result);
            }
            ReadSession { rule, read: read.map(|(session, _)| session) }
        };
        Self(rules.iter().map(read).collect())
    }

    /// Reads those of a request or of a fill, whatever their age.
    #[must_use]
    pub fn of_request(rules: &'a [Arc<SessionRule>], headers: &HeaderMap, hasher: &Hasher) -> Self {
        let read = |rule| ReadSession { rule, read: SessionRule::read(rule, headers, hasher) };
        Self(rules.iter().map(read).collect())
    }

    /// What the cookie of this field says.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn get(&self, rule: &Arc<SessionRule>) -> Result<&VerifiedSession, SessionFault> {
        let own = self.0.iter().find(|session| Arc::ptr_eq(session.rule, rule));
        match own.map(|session| &session.read) {
            Some(Ok(session)) => Ok(session),
            Some(Err(fault)) => Err(*fault),
            None => Err(SessionFault::Absent),
        }
    }

    /// The verified ones with their rules.
    pub fn verified(&self) -> impl Iterator<Item = (&SessionRule, &VerifiedSession)> {
        self.0.iter().filter_map(|session| Some((&**session.rule, &**session.read.as_ref().ok()?)))
    }

    /// The cookies that identify a client, with the payload of each verified session in place of
    /// its text. A cookie that is not verified stays as it is.
    #[must_use]
    pub fn identity<'t>(&self, cookies: Cow<'t, [u8]>, part: IdentityPart) -> Cow<'t, [u8]> {
        if self.verified().next().is_none() {
            return cookies;
        }
        let mut text = Vec::with_capacity(cookies.len());
        for (name, piece) in cookie_pieces(&cookies) {
            let sessions = self.verified().filter(|(rule, _)| rule.reads_cookie(name));
            let mut sessions = sessions.peekable();
            if !text.is_empty() {
                text.extend_from_slice(b"; ");
            }
            if sessions.peek().is_none() {
                text.extend_from_slice(piece);
                continue;
            }
            text.extend_from_slice(name);
            for (rule, session) in sessions {
                // The signature of an equal payload may be another one: it counts for nothing.
                if rule.is_signature_cookie(name) {
                    continue;
                }
                // No header has a NUL, so that no cookie imitates a session.
                text.push(0);
                text.extend_from_slice(match part {
                    IdentityPart::Counted => &session.kept,
                    IdentityPart::Whole => &session.whole,
                });
            }
        }
        Cow::Owned(text)
    }
}
