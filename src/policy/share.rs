//! `share` of a route: it caches for that share of callers alone, so that it can be rolled out step
//! by step.
//!
//! Invariants:
//! 1. *A caller stays in or out*: it is drawn by a hash of what it alone knows, or of its address,
//!    which restarts and other sidecars with the same secret make again.
//! 2. *Raising the share adds callers and takes none away*: those below a bound are in.
//! 3. *Writes purge in any case*: whoever sends them.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::header::HeaderMap;

use crate::policy::cookie_header;
use crate::policy::credential::{Credential, CredentialRule};
use crate::policy::session::{IdentityPart, RouteSessions};
use crate::secret::Hasher;

/// A share of callers, above 0 and below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallerShare(f64);

/// As it stands in `proxy.toml`.
impl fmt::Display for CallerShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl CallerShare {
    /// A share, 0 to 1. `None` for all callers.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (share < 1.0).then_some(Self(share))
    }

    /// The share.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether a caller that was drawn so is among them.
    #[must_use]
    pub fn has(self, drawn: CallerDraw) -> bool {
        // A number of 32 bits is exact in an f64.
        f64::from(drawn.0) < self.0 * f64::from(u32::MAX) + self.0
    }
}

/// What a caller has drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerDraw(u32);

impl CallerDraw {
    /// The draw of the caller of a request: by `Authorization`, by headers that `[credential]`
    /// names, and by cookies that it alone knows; without any of them by its address, of IPv6 by
    /// the network, in which addresses change.
    #[must_use]
    pub fn of(
        headers: &HeaderMap,
        client: Option<IpAddr>,
        rule: &CredentialRule,
        sessions: &RouteSessions<'_>,
        hasher: &Hasher,
    ) -> Self {
        let mut cookies: Vec<u8> = Vec::new();
        for (name, value) in cookie_header::cookies(headers)
            .filter(|(name, value)| rule.is_identifying_cookie(name, value))
        {
            let separator: &[u8] = if cookies.is_empty() { b"" } else { b"; " };
            for part in [separator, name, b"=", value] {
                cookies.extend_from_slice(part);
            }
        }
        let cookies = (!cookies.is_empty()).then_some(Cow::Owned(cookies));
        let cookies = cookies.map(|cookies| sessions.identity(cookies, IdentityPart::Counted));
        let digest = match rule.credential(headers, &[], cookies.as_deref(), hasher) {
            Some(Credential(hash)) => hasher.digest("share", &hash),
            None => hasher.digest("share of addresses", &network(client)),
        };
        Self(digest.iter().take(4).fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
    }
}

fn network(client: Option<IpAddr>) -> Vec<u8> {
    match client.map(|client| client.to_canonical()) {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets()[..8].to_vec(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn drawn(client: &str, lines: &[(&'static str, &str)]) -> CallerDraw {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let (rule, hasher) = (CredentialRule::default(), Hasher::default());
        CallerDraw::of(&headers, client.parse().ok(), &rule, &RouteSessions::default(), &hasher)
    }

    #[test]
    fn a_caller_is_drawn_by_what_it_alone_knows_or_by_its_address() {
        let session = ("cookie", "sessionid=1");
        let one = drawn("192.0.2.1", &[session]);
        assert_eq!(one, drawn("192.0.2.2", &[("cookie", "theme=dark; sessionid=1")]));
        assert_ne!(one, drawn("192.0.2.1", &[("cookie", "sessionid=2")]));
        assert_ne!(one, drawn("192.0.2.1", &[session, ("authorization", "a")]));
        let anonymous = drawn("192.0.2.1", &[("cookie", "theme=dark")]);
        assert_eq!(anonymous, drawn("::ffff:192.0.2.1", &[]));
        assert_ne!(anonymous, drawn("192.0.2.2", &[]));
        assert_eq!(drawn("2001:db8::1", &[]), drawn("2001:db8::ffff:2", &[]));
        assert_ne!(drawn("2001:db8::1", &[]), drawn("2001:db8:0:1::1", &[]));
        // Another version of the sidecar draws the same.
        assert_eq!(one.0, 3_121_637_349);
    }

    #[test]
    fn about_that_share_of_callers_is_in() {
        let tenth = CallerShare::new(0.1).expect("a share");
        let is_in =
            |number: &u32| tenth.has(drawn("192.0.2.1", &[("authorization", &number.to_string())]));
        let count = (0..2000).filter(is_in).count();
        assert!((140..=260).contains(&count), "{count} of 2000");
    }

    proptest! {
        #[test]
        fn a_higher_share_keeps_the_earlier_callers(
            draw in any::<u32>(),
            one in 0.0..1.0_f64,
            two in 0.0..1.0_f64,
        ) {
            let (low, high) = (one.min(two), one.max(two));
            let has = |share: f64| {
                CallerShare::new(share).is_none_or(|share| share.has(CallerDraw(draw)))
            };
            prop_assert!(!has(low) || has(high));
            prop_assert!(!has(0.0) && has(1.0));
        }
    }
}
