//! Access control of the admin listener: rejects web pages of other origins, and callers without
//! the token if one is configured.
//!
//! Knows the headers of requests, not the paths.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// The token's own header, for callers that need `Authorization` for something else.
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-sidecache-token");
/// Where a request comes from, according to the browser (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessDenied {
    /// No `Host`, or more than one.
    NoHost,
    /// A `Host` other than this listener's.
    Host,
    /// A page of another origin sent the request.
    Origin,
    /// The token is missing or wrong.
    Token,
}

impl AccessDenied {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::Token => StatusCode::UNAUTHORIZED,
        }
    }

    /// The message for the caller. It is the same for a missing and a wrong token.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoHost => "exactly one Host header is required",
            Self::Host => "unknown Host; use localhost or the address of the listener",
            Self::Origin => "requests from pages of other origins are rejected",
            Self::Token => "the admin token is missing or wrong",
        }
    }

    /// How to fix it.
    pub(super) const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Token => Some(
                "send it as `Authorization: Bearer TOKEN` or `X-Sidecache-Token: TOKEN`; in a \
                 browser it is the password",
            ),
            Self::Host => Some(
                "use the address, or localhost through a tunnel, or add the host to `hosts` in \
                 [admin]",
            ),
            Self::NoHost | Self::Origin => None,
        }
    }
}

/// The access rules of one listener.
pub(super) struct AdminAuth {
    bound: IpAddr,
    // Host names that the operator has configured.
    hosts: Box<[Box<str>]>,
    // Only the hash of the token: comparing hashes in constant time reveals nothing, not even the
    // token's length.
    token: Option<[u8; 32]>,
}

impl AdminAuth {
    pub(super) fn new(bound: IpAddr, token: Option<&Secret>, hosts: Box<[Box<str>]>) -> Self {
        Self { bound, hosts, token: token.map(|token| hash(token.expose().as_bytes())) }
    }

    /// Checks that the request is meant for this listener and was not sent by a page of another
    /// origin.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), AccessDenied> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(AccessDenied::NoHost);
        };
        // SECURITY: DNS rebinding. A page of evil.example can point its own name here, but then
        // `Host` is still evil.example.
        let host = host
            .to_str()
            .ok()
            .filter(|host| self.is_this_listener(host))
            .ok_or(AccessDenied::Host)?;
        if uri.authority().is_some_and(|authority| !self.is_this_listener(authority.as_str())) {
            return Err(AccessDenied::Host);
        }
        // SECURITY: cross-site requests. Scripts of other sites send `Origin`; for other cross-site
        // requests, browsers send `Sec-Fetch-Site`.
        let foreign_origin =
            headers.get_all(ORIGIN).iter().any(|origin| !is_same_origin(origin, host));
        let foreign_site =
            headers.get_all(FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none");
        if foreign_origin || foreign_site { Err(AccessDenied::Origin) } else { Ok(()) }
    }

    /// Whether the caller sent the token, or none is configured.
    pub(super) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.token else { return true };
        let bearer = headers.get(AUTHORIZATION).and_then(bearer);
        let own = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes);
        let password = headers.get(AUTHORIZATION).and_then(password);
        bearer.into_iter().chain(own).any(|presented| is_token(presented, expected))
            || password.is_some_and(|presented| is_token(&presented, expected))
    }

    /// Whether `authority` (with or without a port) names this listener: a loopback name, or the
    /// address it is bound to.
    fn is_this_listener(&self, authority: &str) -> bool {
        let Some(host) = without_port(authority) else { return false };
        if host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| host.eq_ignore_ascii_case(own))
        {
            return true;
        }
        // A listener on all addresses cannot know which one callers use (containers map addresses).
        // Any address is accepted, because rebinding needs a name.
        host.parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip == self.bound || self.bound.is_unspecified())
    }
}

/// The host of `host[:port]`; an IPv6 address without its brackets. None if it is malformed.
fn without_port(authority: &str) -> Option<&str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

/// Whether an `Origin` is this listener itself. `null` is not.
fn is_same_origin(origin: &HeaderValue, host: &str) -> bool {
    origin.to_str().is_ok_and(|origin| {
        origin.strip_prefix("http://").is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    })
}

/// The token of `Authorization: Bearer …` (RFC 6750 2.1; the scheme in any case).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The password of `Authorization: Basic …` (RFC 7617 2), with any user name.
fn password(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SECURITY: compares the hashes in constant time, so that the duration does not show how much of a
/// guess is right.
fn is_token(presented: &[u8], expected: &[u8; 32]) -> bool {
    hash(presented).ct_eq(expected).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(bound: &str, token: Option<&str>) -> AdminAuth {
        AdminAuth::new(bound.parse().unwrap(), token.map(Secret::new).as_ref(), [].into())
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn check(bound: &str, pairs: &[(&'static str, &'static str)]) -> Result<(), AccessDenied> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        guard(bound, None).check(&Uri::from_static("/metrics"), &map)
    }

    #[test]
    fn loopback_names_and_the_bound_address_are_here() {
        for host in [
            "localhost",
            "LocalHost:9090",
            "127.0.0.1:9090",
            "127.1.2.3",
            "[::1]:9090",
            "[::1]",
            "10.0.0.5:9090",
        ] {
            assert_eq!(check("10.0.0.5", &[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_not() {
        for host in [
            "evil.example:9090",
            "localhost.evil.example",
            "10.0.0.6",
            "127.0.0.1.evil.example",
            "",
            "127.0.0.1:x",
            "[::1",
            "[::1]x",
        ] {
            assert_eq!(check("10.0.0.5", &[("host", host)]), Err(AccessDenied::Host), "{host}");
        }
    }

    #[test]
    fn bound_to_all_addresses_any_address_will_do_but_no_name() {
        assert_eq!(check("0.0.0.0", &[("host", "10.9.8.7:9090")]), Ok(()));
        assert_eq!(check("::", &[("host", "[2001:db8::1]:9090")]), Ok(()));
        assert_eq!(check("0.0.0.0", &[("host", "evil.example:9090")]), Err(AccessDenied::Host));
    }

    #[test]
    fn a_name_that_the_operator_gave_is_here() {
        let guard = AdminAuth::new("0.0.0.0".parse().unwrap(), None, ["sidecache".into()].into());
        let ask = |host| guard.check(&Uri::from_static("/metrics"), &headers(&[("host", host)]));
        assert_eq!((ask("sidecache:9090"), ask("SideCache")), (Ok(()), Ok(())));
        assert_eq!(ask("sidecache.evil.example"), Err(AccessDenied::Host));
    }

    #[test]
    fn the_host_is_one() {
        assert_eq!(check("127.0.0.1", &[]), Err(AccessDenied::NoHost));
        assert_eq!(
            check("127.0.0.1", &[("host", "localhost"), ("host", "localhost")]),
            Err(AccessDenied::NoHost)
        );
    }

    #[test]
    fn an_absolute_target_must_be_here_too() {
        let guard = guard("127.0.0.1", None);
        let headers = headers(&[("host", "localhost")]);
        assert_eq!(
            guard.check(&Uri::from_static("http://evil.example/metrics"), &headers),
            Err(AccessDenied::Host)
        );
        assert_eq!(guard.check(&Uri::from_static("http://localhost/metrics"), &headers), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = ("host", "localhost:9090");
        assert_eq!(check("127.0.0.1", &[host, ("origin", "http://localhost:9090")]), Ok(()));
        for origin in
            ["http://evil.example", "http://localhost:3000", "null", "https://localhost:9090", ""]
        {
            assert_eq!(
                check("127.0.0.1", &[host, ("origin", origin)]),
                Err(AccessDenied::Origin),
                "{origin}"
            );
        }
        assert_eq!(check("127.0.0.1", &[host, ("sec-fetch-site", "none")]), Ok(()));
        assert_eq!(check("127.0.0.1", &[host, ("sec-fetch-site", "same-origin")]), Ok(()));
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                check("127.0.0.1", &[host, ("sec-fetch-site", site)]),
                Err(AccessDenied::Origin),
                "{site}"
            );
        }
    }

    #[test]
    fn the_token_admits_in_either_header() {
        let guard = guard("127.0.0.1", Some("s3cret"));
        // "anybody:s3cret" and ":s3cret"
        for basic in ["Basic YW55Ym9keTpzM2NyZXQ=", "basic OnMzY3JldA=="] {
            assert!(guard.is_authorized(&headers(&[("authorization", basic)])), "{basic}");
        }
        for good in [
            ("authorization", "Bearer s3cret"),
            ("authorization", "bearer s3cret"),
            ("x-sidecache-token", "s3cret"),
        ] {
            assert!(guard.is_authorized(&headers(&[good])), "{good:?}");
        }
        let bad = [
            "Bearer s3cre",
            "Bearer s3cret2",
            "Bearer S3CRET",
            "Basic s3cret",
            "Basic czNjcmV0",
            "Basic YW55Ym9keTpzM2NyZQ==",
            "Basic",
            "s3cret",
            "Bearer",
            "Bearer ",
        ];
        for bad in bad {
            assert!(!guard.is_authorized(&headers(&[("authorization", bad)])), "{bad:?}");
        }
        assert!(!guard.is_authorized(&HeaderMap::new()));
    }

    #[test]
    fn without_a_token_everybody_is_admitted() {
        assert!(guard("127.0.0.1", None).is_authorized(&HeaderMap::new()));
    }

    #[test]
    fn a_difference_anywhere_is_found() {
        let hash = hash(b"x");
        assert!(is_token(b"x", &hash));
        for at in 0..32 {
            let mut other = hash;
            other[at] ^= 0x80;
            assert!(!is_token(b"x", &other));
        }
    }
}
