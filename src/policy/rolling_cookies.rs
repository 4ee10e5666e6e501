//! Which cookies the origin replaces each time: a session that is renewed with every response, as
//! Flask, Laravel and others do it.
//!
//! The proof is a chain: the origin has set a value, a request brings it back, and the origin
//! replaces it again. Many callers behind one address do not look like that, nor does a login.
//!
//! SECURITY: values are kept as hashes under a key that the process makes up, 64 bits of each. How
//! many are kept is fixed, whatever origins and callers send.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use http::header::{COOKIE, HeaderMap, SET_COOKIE};
use parking_lot::Mutex;

use crate::policy::cookie_header;
use crate::policy::session::SessionFormat;
use crate::policy::varying_keys::{shortened, slot};

/// How many values of cookies that the origin has set are remembered.
const VALUES: usize = 1024;
/// How many cookies are counted at once.
const MAX_NAMES: usize = 16;
/// How many lines of `Set-Cookie` of one response are read.
const MAX_LINES: usize = 16;
/// How many cookies of one request are read.
const MAX_COOKIES: usize = 64;
/// How many values must have come back and been replaced before a cookie is said to roll.
const MIN_ROLLED: u64 = 4;

/// The cookies that the origin replaces.
#[derive(Debug, Default)]
pub struct RollingCookies {
    hasher: RandomState,
    state: Mutex<RollingState>,
}

#[derive(Debug, Default)]
struct RollingState {
    /// Hashes of names with values that the origin has set, each at the place that it names.
    values: Vec<u64>,
    names: Vec<CookieCount>,
}

/// The counts of one cookie.
#[derive(Debug)]
struct CookieCount {
    name: Box<str>,
    /// Its claim to the place: others wear it down.
    weight: u64,
    /// Values that the origin had set, came back, and were replaced.
    rolled: u64,
    /// Values that it had set, came back, and were left as they are.
    left: u64,
    /// How its last new value looks signed, if it does.
    format: Option<SessionFormat>,
}

impl RollingCookies {
    /// Observes a response of the origin to a request with these headers.
    pub fn observe(&self, sent: &HeaderMap, response: &HeaderMap) {
        if !sent.contains_key(COOKIE) {
            return;
        }
        let sets = response.contains_key(SET_COOKIE);
        // Read once: the header may be long.
        let sent: Vec<(&[u8], &[u8])> = cookie_header::cookies(sent).take(MAX_COOKIES).collect();
        let mut state = self.state.lock();
        if !sets && state.names.is_empty() {
            return;
        }
        let mut replaced: Vec<&[u8]> = Vec::new();
        for line in response.get_all(SET_COOKIE).iter().take(MAX_LINES) {
            let Some((name, new)) = cookie_header::set_cookie(line.as_bytes()) else { continue };
            let Some(old) = value_of(&sent, name).filter(|old| *old != new) else { continue };
            if new.is_empty() || old.is_empty() {
                continue;
            }
            replaced.push(name);
            let hash = |value: &[u8]| self.hasher.hash_one((name, value));
            let was_set = state.has(hash(old));
            if let Some(count) = state.count(name, was_set) {
                count.rolled += u64::from(was_set);
                count.format = SessionFormat::guess(new);
            }
            state.keep(hash(new));
        }
        let RollingState { values, names } = &mut *state;
        for count in names {
            let name = count.name.as_bytes();
            if replaced.iter().any(|replaced| shortened(replaced) == *count.name) {
                continue;
            }
            let value = value_of(&sent, name).map(|value| self.hasher.hash_one((name, value)));
            count.left += u64::from(value.is_some_and(|hash| has(values, hash)));
        }
    }

    /// How the values of this cookie look signed, if they do.
    #[must_use]
    pub fn format(&self, name: &str) -> Option<SessionFormat> {
        let state = self.state.lock();
        state.names.iter().find(|count| *count.name == *name)?.format
    }

    /// Whether the origin replaces this cookie each time that it comes back.
    #[must_use]
    pub fn rolls(&self, name: &str) -> bool {
        let state = self.state.lock();
        let mut names = state.names.iter();
        names.any(|count| *count.name == *name && count.rolled >= MIN_ROLLED.max(count.left))
    }
}

impl RollingState {
    fn has(&self, hash: u64) -> bool {
        has(&self.values, hash)
    }

    fn keep(&mut self, hash: u64) {
        self.values.resize(VALUES, 0);
        self.values[slot(hash, VALUES)] = hash;
    }

    /// The counts of this cookie, which gets a place if there is one (Misra and Gries, 1982). Only
    /// one whose value has come back counts against others.
    fn count(&mut self, name: &[u8], has_come_back: bool) -> Option<&mut CookieCount> {
        let name = shortened(name);
        if let Some(at) = self.names.iter().position(|count| *count.name == *name) {
            self.names[at].weight += 1;
            return self.names.get_mut(at);
        }
        if self.names.len() == MAX_NAMES {
            if !has_come_back {
                return None;
            }
            self.names.iter_mut().for_each(|count| count.weight = count.weight.saturating_sub(1));
            let worn = self.names.iter().position(|count| count.weight == 0)?;
            self.names.swap_remove(worn);
        }
        let (name, format) = (name.into(), None);
        self.names.push(CookieCount { name, weight: 1, rolled: 0, left: 0, format });
        self.names.last_mut()
    }
}

fn has(values: &[u64], hash: u64) -> bool {
    values.get(slot(hash, VALUES)) == Some(&hash)
}

/// The value of a request's cookie.
fn value_of<'a>(cookies: &[(&[u8], &'a [u8])], name: &[u8]) -> Option<&'a [u8]> {
    cookies.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn exchange(cookies: &RollingCookies, request: &str, lines: &[String]) {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        let sent = [(COOKIE, value(request))].into_iter().collect();
        let mut response = HeaderMap::new();
        for line in lines {
            response.append(SET_COOKIE, value(line));
        }
        cookies.observe(&sent, &response);
    }

    #[test]
    fn a_session_that_is_renewed_each_time_rolls() {
        let cookies = RollingCookies::default();
        for at in 0..6 {
            let (old, new) = (format!("a=1; session=v{at}"), format!("session=v{}", at + 1));
            assert!(!cookies.rolls("session") || at > 4);
            exchange(&cookies, &old, &[new]);
        }
        assert!(cookies.rolls("session") && !cookies.rolls("a"));
    }

    #[test]
    fn a_login_or_many_callers_are_no_rolling_session() {
        let cookies = RollingCookies::default();
        for caller in 0..100 {
            // Each has a cookie from elsewhere, logs in once, and keeps what it gets.
            let own = format!("session=own{caller}");
            exchange(&cookies, &format!("session=x{caller}"), std::slice::from_ref(&own));
            for _ in 0..3 {
                exchange(&cookies, &own, &[]);
            }
        }
        assert!(!cookies.rolls("session"));
    }

    #[test]
    fn a_session_that_is_renewed_now_and_then_does_not_roll() {
        let cookies = RollingCookies::default();
        for at in 0..200_u32 {
            let (now, next) = (at / 10, (at + 1) / 10);
            let set = (next != now).then(|| format!("session=v{next}"));
            exchange(&cookies, &format!("session=v{now}"), set.as_slice());
        }
        assert!(!cookies.rolls("session"));
    }

    #[test]
    fn any_number_of_names_takes_fixed_room_and_hides_no_rolling_session() {
        let cookies = RollingCookies::default();
        for at in 0..10_000 {
            exchange(&cookies, &format!("c{at}=1"), &[format!("c{at}=2")]);
            exchange(&cookies, &format!("s=v{at}"), &[format!("s=v{}", at + 1)]);
        }
        let state = cookies.state.lock();
        assert!(state.names.len() <= MAX_NAMES && state.values.len() == VALUES);
        drop(state);
        assert!(cookies.rolls("s"));
    }
}
