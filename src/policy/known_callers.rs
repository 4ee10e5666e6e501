//! The callers whose credentials have lately been accepted here: whoever such a caller is, a
//! redirect to a login page is not because the origin does not know them.
//!
//! Invariant: in doubt a caller is known, because then a write purges. That is so at first, until
//! as much time has passed as is remembered, and while more callers come than there is room for.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::clock::Wall;
use crate::policy::apps::AppId;
use crate::policy::cookie_header::cookies;
use crate::policy::credential::CredentialRule;
use crate::policy::glob::any_matches;
use crate::secret::Hasher;

/// How many parts of credentials are remembered.
pub const MAX_KNOWN: usize = 65_536;

/// How many parts of one credential count. Further ones are not looked at.
const MAX_PARTS: usize = 8;

/// What a request carries of a credential: a hash of each cookie that counts, of `Authorization`,
/// and of each header of `[credential]`. Apart from each other, so that a cookie which changes with
/// each response makes nobody another caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerParts(SmallVec<[u64; 4]>);

impl CallerParts {
    /// Whether the request carries no credential at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The callers that were answered with success within a time.
#[derive(Debug)]
pub struct KnownCallers {
    /// Hashes stay in this process, which alone has the key.
    hasher: RandomState,
    remember_for: Duration,
    state: Mutex<KnownState>,
}

#[derive(Debug, Default)]
struct KnownState {
    /// When each part was last accepted.
    accepted: HashMap<u64, Wall>,
    /// Until when everybody is known.
    doubtful_until: Option<Wall>,
}

impl KnownCallers {
    /// Remembers callers for this long.
    #[must_use]
    pub fn new(remember_for: Duration) -> Self {
        Self { hasher: RandomState::new(), remember_for, state: Mutex::default() }
    }

    /// What these headers carry of a credential, for this app: what one app accepts says nothing
    /// of another one.
    #[must_use]
    pub fn parts(
        &self,
        app: AppId,
        rule: &CredentialRule,
        headers: &HeaderMap,
        hasher: &Hasher,
    ) -> CallerParts {
        let hash = |name: &[u8], value: &[u8]| self.hasher.hash_one((app, name, value));
        let lines = [&AUTHORIZATION].into_iter().chain(&rule.headers).flat_map(|name| {
            headers
                .get_all(name)
                .iter()
                .map(move |line| hash(name.as_str().as_bytes(), line.as_bytes()))
        });
        let counts = |name: &[u8]| match &rule.cookies {
            Some(listed) => any_matches(listed, name),
            None => !rule.ignored_cookies.ignores(name),
        };
        let cookies = cookies(headers)
            .filter(|(name, value)| !value.is_empty() && counts(name))
            .map(|(name, value)| self.hasher.hash_one((app, 0_u8, name, value)));
        let sessions = rule.sessions.0.iter().filter_map(|session| {
            let read = session.read(headers, hasher).ok()?;
            Some(self.hasher.hash_one((app, 1_u8, &*session.settings.cookie, read.kept)))
        });
        CallerParts(sessions.chain(lines).chain(cookies).take(MAX_PARTS).collect())
    }

    /// Records that the origin has answered this caller with success. Returns whether there was
    /// room for it.
    pub fn record(&self, caller: &CallerParts, now: Wall) -> bool {
        if caller.is_empty() {
            return true;
        }
        let mut state = self.state.lock();
        state.begin(now, self.remember_for);
        for part in &caller.0 {
            if state.accepted.len() >= MAX_KNOWN && !state.accepted.contains_key(part) {
                state.accepted.retain(|_, at| now.since(*at) <= self.remember_for);
                if state.accepted.len() >= MAX_KNOWN {
                    state.doubtful_until = Some(now.after(self.remember_for));
                    return false;
                }
            }
            state.accepted.insert(*part, now);
        }
        true
    }

    /// Whether the origin may have answered this caller with success lately.
    #[must_use]
    pub fn is_known(&self, caller: &CallerParts, now: Wall) -> bool {
        if caller.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        state.begin(now, self.remember_for);
        state.doubtful_until.is_some_and(|until| now < until)
            || caller.0.iter().any(|part| {
                state.accepted.get(part).is_some_and(|at| now.since(*at) <= self.remember_for)
            })
    }

    /// How many parts of credentials are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().accepted.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl KnownState {
    /// What happened before the first question is not known.
    fn begin(&mut self, now: Wall, remember_for: Duration) {
        self.doubtful_until.get_or_insert(now.after(remember_for));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const START: Wall = Wall(1_000_000);

    fn cookie(known: &KnownCallers, line: &str) -> CallerParts {
        let headers =
            HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(line).expect("a value"))]);
        known.parts(AppId::FIRST, &CredentialRule::default(), &headers, &Hasher::default())
    }

    /// One that has been asked for longer than it remembers.
    fn settled() -> (KnownCallers, Wall) {
        let known = KnownCallers::new(MINUTE);
        assert!(known.is_known(&cookie(&known, "sid=first"), START), "nothing is known at first");
        (known, START.after(MINUTE))
    }

    #[test]
    fn a_caller_is_known_for_a_time_after_a_success() {
        let (known, now) = settled();
        let alice = cookie(&known, "sid=alice; flash=1");
        assert!(!known.is_known(&alice, now));
        assert!(known.record(&alice, now));
        let later = cookie(&known, "flash=2; sid=alice");
        assert!(known.is_known(&later, now.after(MINUTE)), "another cookie changes nothing");
        assert!(!known.is_known(&later, now.after(MINUTE + Duration::from_millis(1))));
        assert!(!known.is_known(&cookie(&known, "sid=bob"), now));
        assert!(!known.is_known(&cookie(&known, "_ga=1; sid="), now), "that is no credential");
    }

    #[test]
    fn everybody_is_known_while_there_is_no_room() {
        let (known, now) = settled();
        for number in 0..MAX_KNOWN + 10 {
            let caller = CallerParts(SmallVec::from_slice(&[number as u64]));
            assert_eq!(known.record(&caller, now), number < MAX_KNOWN);
        }
        assert_eq!(known.len(), MAX_KNOWN);
        let stranger = cookie(&known, "sid=x");
        assert!(known.is_known(&stranger, now.after(Duration::from_secs(59))));
        assert!(!known.is_known(&stranger, now.after(Duration::from_secs(61))));
        assert!(!known.is_known(&CallerParts::default(), now), "who has none is nobody");
        let later = now.after(MINUTE * 2);
        assert!(known.record(&stranger, later));
        assert_eq!(known.len(), 1, "those of before make room");
    }
}
