//! Which protocols a connection may change to (RFC 9110 7.8).

use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Version};

use super::{HIDDEN_HTTP, HTTP2_SETTINGS, lists, members};

/// The protocols that a connection may change to: `[upstream] upgrades`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrades(Box<[Box<str>]>);

impl Default for Upgrades {
    fn default() -> Self {
        Self::new(["websocket"])
    }
}

impl Upgrades {
    /// These protocols. Case does not matter.
    pub fn new<N: Into<Box<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Whether a request may offer this protocol, whose version does not matter unless the setting
    /// names one.
    fn allows(&self, protocol: &[u8]) -> bool {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
        // SECURITY: in a tunnel of HTTP, or of TLS, no rule would be applied to the requests.
        let carries_http =
            HIDDEN_HTTP.iter().any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()));
        !carries_http
            && self.0.iter().any(|allowed| {
                [name, protocol].iter().any(|text| text.eq_ignore_ascii_case(allowed.as_bytes()))
            })
    }
}

/// Takes the offer of [`offered_upgrade`]. One that is not allowed is removed, and the request is
/// an ordinary one.
pub fn take_upgrade(
    headers: &mut HeaderMap,
    version: Version,
    allowed: &Upgrades,
) -> Option<HeaderValue> {
    let offered = offered_upgrade(headers, version, allowed);
    if offered.is_none() {
        headers.remove(UPGRADE);
        // Meant for the change to HTTP/2 alone (RFC 7540 3.2.1).
        headers.remove(HTTP2_SETTINGS);
    }
    offered
}

/// The protocols that a request offers to change to, if it may: HTTP/1.1, `Connection` lists
/// `upgrade`, and all of them are allowed.
#[must_use]
pub fn offered_upgrade(
    headers: &HeaderMap,
    version: Version,
    allowed: &Upgrades,
) -> Option<HeaderValue> {
    if version != Version::HTTP_11 || !lists(headers, "upgrade") {
        return None;
    }
    let mut lines = headers.get_all(UPGRADE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let mut protocols = members(line.as_bytes()).peekable();
    protocols.peek()?;
    protocols.all(|protocol| allowed.allows(protocol)).then(|| line.clone())
}

/// Whether a 101 changes to one of the protocols that were offered, and to no other.
#[must_use]
pub fn accepts_upgrade(offered: &HeaderValue, response: &HeaderMap) -> bool {
    let mut lines = response.get_all(UPGRADE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let chosen = line.as_bytes().trim_ascii();
    members(offered.as_bytes()).any(|protocol| protocol.eq_ignore_ascii_case(chosen))
}
