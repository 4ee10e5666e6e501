//! Which callers have written something: a count for each of many slots, into which the parts of
//! credentials fall by a keyed hash.
//!
//! Invariants:
//! - A write moves the slots of each part of its credential, before it is sent and after its answer
//!   is known; so that an answer of the origin, which was asked for before and holds the slots of
//!   its own parts, is known to be old.
//! - One part in common is enough: the cookies of a login form and of a page need not be the same.
//!   Nor need they be spelled alike: parts count as apps read them.
//! - Who has no part of a credential cannot end the answers about it, but by chance: one of
//!   [`SLOTS`] for each part, of which at most [`MAX_PARTS`] of a request count.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, HeaderMap, SET_COOKIE};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use crate::policy::cookie_header::{cookies, set_cookie};
use crate::policy::credential::{Credential, CredentialRule};

/// How many slots there are: half a mebibyte.
const SLOTS: usize = 1 << 16;

/// The most parts of a credential that count. Of more, none does: the caller is not asked about.
pub const MAX_PARTS: usize = 32;

/// The shortest value of a cookie that can be a secret of one caller, in bytes. A shorter one, such
/// as a theme, is the same for many, and counts only as a part of the whole.
const MIN_SECRET: usize = 16;

/// The slots of the parts of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerSlots(SmallVec<[u16; 4]>);

/// Counts the writes of callers. It outlives reloads.
pub struct IdentityWrites {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for IdentityWrites {
    fn default() -> Self {
        let slots = std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self { slots, hasher: RandomState::new() }
    }
}

impl IdentityWrites {
    /// The slots of a request's credential; `None` where it has more parts than count.
    #[must_use]
    pub fn slots_of(
        &self,
        rule: &CredentialRule,
        whole: &Credential,
        headers: &HeaderMap,
    ) -> Option<CallerSlots> {
        let slots = self.slots(rule, Some(whole), headers);
        (slots.len() <= MAX_PARTS).then_some(CallerSlots(slots))
    }

    fn slots(
        &self,
        rule: &CredentialRule,
        whole: Option<&Credential>,
        headers: &HeaderMap,
    ) -> SmallVec<[u16; 4]> {
        let authorization = headers.get_all(AUTHORIZATION).iter();
        let authorization = authorization
            .map(|value| (&b"authorization"[..], authorization_as_read(value.as_bytes())));
        let own = rule.headers.iter().flat_map(|name| {
            let values = headers.get_all(name).iter();
            values.map(move |value| (name.as_str().as_bytes(), Cow::from(value.as_bytes())))
        });
        let read = cookies(headers).map(|(name, value)| (name, cookie_as_read(value)));
        let counting = read.filter(|(name, value)| {
            !rule.ignored_cookies.ignores(name)
                && (value.len() >= MIN_SECRET || rule.is_identifying_cookie(name, value))
        });
        let whole = whole.map(|whole| (&b"\0whole"[..], Cow::from(&whole.0[..])));
        // What surely identifies comes first, since the rest of a long list does not count.
        let parts = whole.into_iter().chain(authorization).chain(own).chain(counting);
        let mut slots: SmallVec<[u16; 4]> = SmallVec::new();
        for part in parts {
            let slot = self.slot((part.0, &part.1));
            if !slots.contains(&slot) {
                slots.push(slot);
            }
            if slots.len() > MAX_PARTS {
                break;
            }
        }
        slots
    }

    /// Ends all answers about callers who have a part of this credential. Of a credential with too
    /// many parts, only the first count.
    pub fn record(&self, rule: &CredentialRule, whole: Option<&Credential>, headers: &HeaderMap) {
        for slot in self.slots(rule, whole, headers) {
            self.move_slot(slot);
        }
    }

    /// Ends all answers about callers who have a cookie that this response sets.
    pub fn record_set(&self, rule: &CredentialRule, response: &HeaderMap) {
        let lines = response.get_all(SET_COOKIE).iter();
        let set = lines.filter_map(|line| set_cookie(line.as_bytes()));
        for part in set.filter(|(name, _)| !rule.ignored_cookies.ignores(name)).take(MAX_PARTS) {
            self.move_slot(self.slot((part.0, &cookie_as_read(part.1))));
        }
    }

    fn slot(&self, part: (&[u8], &[u8])) -> u16 {
        #[allow(clippy::cast_possible_truncation, reason = "a slot is 16 bits of the hash")]
        let slot = self.hasher.hash_one(part) as u16;
        slot
    }

    fn move_slot(&self, slot: u16) {
        self.slots[usize::from(slot)].fetch_add(1, Ordering::SeqCst);
    }

    /// How often each of these slots was moved.
    #[must_use]
    pub fn counts(&self, slots: &CallerSlots) -> SmallVec<[u64; 4]> {
        let count = |slot: &u16| self.slots[usize::from(*slot)].load(Ordering::SeqCst);
        slots.0.iter().map(count).collect()
    }
}

/// The value of a cookie as apps read it: many take one session by its value with quotes, without
/// them, and escaped.
fn cookie_as_read(value: &[u8]) -> Cow<'_, [u8]> {
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    percent_decode(bare.unwrap_or(value)).into()
}

/// Credentials as apps read them: the scheme in any case, and any number of spaces behind it (RFC
/// 9110 11.4).
fn authorization_as_read(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    [&scheme.to_ascii_lowercase()[..], b" ", rest.trim_ascii()].concat().into()
}

impl fmt::Debug for IdentityWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityWrites")
    }
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let line = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    /// Whether a write with these headers ends an answer about a caller with those.
    fn ends(write: &[(HeaderName, &str)], caller: &[(HeaderName, &str)]) -> bool {
        let (writes, rule) = (IdentityWrites::default(), CredentialRule::default());
        let (own, other) = (Credential([1; 32]), Credential([2; 32]));
        let slots = writes.slots_of(&rule, &own, &headers(caller)).expect("few parts");
        let before = writes.counts(&slots);
        writes.record(&rule, Some(&other), &headers(write));
        writes.counts(&slots) != before
    }

    #[test]
    fn one_part_in_common_ends_an_answer() {
        let (session, other) = ("app=0123456789abcdef", "app=0123456789abcdeX");
        for (write, caller, expected) in [
            (session, session, true),
            ("app=0123456789abcdef; csrftoken=1", session, true),
            (session, "theme=dark; app=0123456789abcdef", true),
            ("sessionid=1", "sessionid=1; theme=dark", true),
            (other, session, false),
            // The same for many, so that a stranger cannot end the answers about all of them.
            ("theme=dark", "theme=dark; app=0123456789abcdef", false),
            ("_ga=GA1.2.1234567890.1234567890", "_ga=GA1.2.1234567890.1234567890", false),
        ] {
            assert_eq!(ends(&[(COOKIE, write)], &[(COOKIE, caller)]), expected, "{write} {caller}");
        }
        let token = [(AUTHORIZATION, "Bearer 1")];
        assert!(ends(&token, &[(AUTHORIZATION, "Bearer 1"), (COOKIE, session)]));
        assert!(!ends(&token, &[(AUTHORIZATION, "Bearer 2")]));
        assert!(!ends(&[], &token));
    }

    #[test]
    fn a_caller_with_too_many_parts_is_not_asked_about() {
        let (writes, rule) = (IdentityWrites::default(), CredentialRule::default());
        let cookies = |count: usize| {
            let all: Vec<String> =
                (0..count).map(|at| format!("sid{at}=0123456789abcdef")).collect();
            headers(&[(COOKIE, &all.join("; "))])
        };
        let whole = Credential([0; 32]);
        assert!(writes.slots_of(&rule, &whole, &cookies(MAX_PARTS - 1)).is_some());
        assert!(writes.slots_of(&rule, &whole, &cookies(2 * MAX_PARTS)).is_none());
        // A write of as many still ends what its first parts are about.
        let many = cookies(2 * MAX_PARTS);
        let first = writes.slots_of(&rule, &whole, &cookies(4)).expect("few");
        let before = writes.counts(&first);
        writes.record(&rule, None, &many);
        assert_ne!(writes.counts(&first), before);
    }
}
