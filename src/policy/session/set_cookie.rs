//! What a response makes of a session: the same payload, signed anew, or another one.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

use crate::clock::Wall;
use crate::policy::cookie_header::{is_cleared, set_cookie};
use crate::policy::session::{SessionFault, SessionRule, VerifiedSession, exact_cookie};
use crate::secret::Hasher;

/// What a response makes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetSession {
    /// It leaves the cookie as it is.
    Untouched,
    /// It sets the same payload again.
    Same,
    /// It sets or clears the session, or what it sets cannot be verified.
    Changed,
}

impl SessionRule {
    /// What this response makes of the session of this request.
    #[must_use]
    pub fn set_by(
        &self,
        request: &HeaderMap,
        response: &HeaderMap,
        hasher: &Hasher,
        now: Wall,
    ) -> SetSession {
        let lines = response.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let own = lines.filter(|line| set_cookie(line).is_some_and(|(n, _)| self.reads_cookie(n)));
        let own: Vec<&[u8]> = own.collect();
        if own.is_empty() {
            return SetSession::Untouched;
        }
        if own.iter().any(|line| is_cleared(line, now)) {
            return SetSession::Changed;
        }
        let (Ok(before), Ok(after)) =
            (self.read(request, hasher), self.read_set(request, &own, hasher))
        else {
            return SetSession::Changed;
        };
        let is_same = before.kept == after.kept && !after.has_others();
        if is_same && self.check_age(&after, now).is_ok() {
            SetSession::Same
        } else {
            SetSession::Changed
        }
    }

    /// The session that these lines of a response set. A cookie that they do not set is that of
    /// the request: with another key, Express sets the signature alone.
    fn read_set(
        &self,
        request: &HeaderMap,
        lines: &[&[u8]],
        hasher: &Hasher,
    ) -> Result<Arc<VerifiedSession>, SessionFault> {
        let value = |name: &str| {
            let mut set = lines.iter().filter_map(|line| set_cookie(line));
            let mut set = set.by_ref().filter(|(own, _)| *own == name.as_bytes());
            match (set.next(), set.next()) {
                (Some((_, value)), None) => Ok(value),
                (Some(_), Some(_)) => Err(SessionFault::Repeated),
                (None, _) => exact_cookie(request, name),
            }
        };
        let signature = self.signature_cookie().map(value).transpose()?;
        let (session, _) = self.verify(value(&self.settings.cookie)?, signature, hasher)?;
        Ok(session)
    }

    /// The session that a response sets, if it sets one whole.
    pub(in crate::policy) fn set_in(
        &self,
        response: &HeaderMap,
        hasher: &Hasher,
    ) -> Option<Arc<VerifiedSession>> {
        let lines = response.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let lines: Vec<&[u8]> = lines.collect();
        self.read_set(&HeaderMap::new(), &lines, hasher).ok()
    }
}
