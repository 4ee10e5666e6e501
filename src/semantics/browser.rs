//! `browser` of a route: what clients are told of the freshness of a response, in place of what the
//! origin says.
//!
//! Purges reach the cache, not its clients: a client that may use a response without asking shows
//! what is old for up to that time. So an operator can tell clients less than the app does, or
//! more.
//!
//! - `no-store` holds for every response of the route: it only makes clients more careful.
//! - A time holds for what the cache has stored or is storing. All else (an error, a response to
//!   one caller, what the app forbids to store) goes on with the app's own words.
//! - A time counts from when the client gets the response, whatever its age is by then.

use std::fmt;
use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderMap, HeaderValue, PRAGMA};

use crate::semantics::cache_control::CacheControl;
use crate::units::show_duration;

/// What clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserRule {
    /// To store nothing.
    NoStore,
    /// To use a response without asking for this long, in whole seconds.
    For(Duration),
}

/// As it stands in `proxy.toml`.
impl fmt::Display for BrowserRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore => f.write_str("no-store"),
            Self::For(time) => f.write_str(&show_duration(*time)),
        }
    }
}

impl BrowserRule {
    /// What it does, for `explain`.
    #[must_use]
    pub fn explained(self) -> String {
        match self {
            Self::NoStore => "no-store, whatever the origin says".to_owned(),
            Self::For(time) => format!(
                "to use what is stored for {} without asking, whatever the origin says",
                show_duration(time)
            ),
        }
    }

    /// Puts it into the head of a response. `is_stored`: the cache has stored it, or does so now.
    /// `is_shared`: everybody may have it.
    pub fn apply(self, headers: &mut HeaderMap, is_stored: bool, is_shared: bool) {
        let value = match self {
            Self::NoStore => HeaderValue::from_static("no-store"),
            Self::For(_) if !is_stored => return,
            Self::For(time) => {
                // RFC 9111 4.2: clients take the age off.
                let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok());
                let seconds = time.as_secs().saturating_add(age.unwrap_or_default());
                let audience = if is_shared { "" } else { "private, " };
                // RFC 9110 7.7: what must not be transformed stays so.
                let fixed = CacheControl::from_headers(headers).no_transform;
                let fixed = if fixed { ", no-transform" } else { "" };
                let text = format!("{audience}max-age={seconds}{fixed}");
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
            }
        };
        headers.insert(CACHE_CONTROL, value);
        headers.remove(EXPIRES);
        headers.remove(PRAGMA);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    /// The head of a response after the rule, as `name: value`.
    fn told(rule: BrowserRule, is_stored: bool, is_shared: bool, head: &[(&str, &str)]) -> String {
        let mut headers: HeaderMap = head
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::try_from(*name).expect("a name");
                (name, HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        rule.apply(&mut headers, is_stored, is_shared);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("text"))
        };
        headers.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    const HALF_A_MINUTE: BrowserRule = BrowserRule::For(Duration::from_secs(30));

    #[test]
    fn no_store_holds_for_every_response() {
        for is_stored in [true, false] {
            let head = [("cache-control", "max-age=60, public"), ("expires", "0"), ("pragma", "x")];
            assert_eq!(
                told(BrowserRule::NoStore, is_stored, true, &head),
                "cache-control: no-store"
            );
        }
        assert_eq!(told(BrowserRule::NoStore, false, false, &[]), "cache-control: no-store");
    }

    #[test]
    fn a_time_counts_from_when_the_client_gets_the_response() {
        let head = [("cache-control", "no-cache, no-transform"), ("age", "12")];
        assert_eq!(
            told(HALF_A_MINUTE, true, true, &head),
            "cache-control: max-age=42, no-transform\nage: 12"
        );
    }

    #[test]
    fn what_is_not_for_everybody_is_private_to_the_client() {
        assert_eq!(told(HALF_A_MINUTE, true, false, &[]), "cache-control: private, max-age=30");
    }

    #[test]
    fn a_time_leaves_what_is_not_stored_as_the_origin_has_it() {
        let head = [("cache-control", "private, no-store"), ("expires", "0")];
        assert_eq!(
            told(HALF_A_MINUTE, false, true, &head),
            "cache-control: private, no-store\nexpires: 0"
        );
    }
}
