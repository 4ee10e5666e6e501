//! The address of the client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::{ClientPeer, Network, X_FORWARDED_FOR, X_REAL_IP};

/// The address that the request comes from: the peer's, or, behind trusted proxies, the last one
/// in `X-Forwarded-For` that is not a trusted proxy's. If all of them are, the first one; where
/// there is no `X-Forwarded-For`, that in `X-Real-IP`.
///
/// SECURITY: the list is read from its end, because a client can write anything at its start.
#[must_use]
pub fn client_address(headers: &HeaderMap, peer: &ClientPeer, trusted: &[Network]) -> IpAddr {
    let mut last = peer.addr.to_canonical();
    if !peer.trusted {
        return last;
    }
    let mut lines = headers.get_all(X_FORWARDED_FOR).iter().rev().peekable();
    if lines.peek().is_none() {
        // Two of them can be read in two ways.
        let mut lines = headers.get_all(X_REAL_IP).iter();
        return match (lines.next().and_then(|line| address(line.as_bytes())), lines.next()) {
            (Some(addr), None) => addr,
            _ => last,
        };
    }
    for hop in lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')) {
        if hop.trim_ascii().is_empty() {
            continue;
        }
        // A proxy that hides its client sends `unknown` or a name: then the proxy is what is known.
        let Some(addr) = address(hop) else { break };
        last = addr;
        if !trusted.iter().any(|network| network.contains(addr)) {
            break;
        }
    }
    last
}

/// An address, with or without a port and brackets, as proxies write it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let addr = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn client(trusted: bool, lines: &[(&'static str, &'static str)]) -> String {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("valid"));
        let peer = ClientPeer { addr: [10, 0, 0, 1].into(), trusted };
        client_address(&headers, &peer, &networks).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        let claims = [("x-forwarded-for", "192.0.2.7"), ("x-real-ip", "192.0.2.8")];
        assert_eq!(client(false, &claims), "10.0.0.1");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let of = |chain: &'static str| client(true, &[("x-forwarded-for", chain)]);
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("10.9.9.9, 192.0.2.7, 10.0.0.2"), "192.0.2.7", "the start can be forged");
        assert_eq!(of("192.0.2.7,10.0.0.2,"), "192.0.2.7");
        assert_eq!(of("192.0.2.7:4711"), "192.0.2.7");
        assert_eq!(of("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(of("2001:DB8:0::1, fd00::2"), "2001:db8::1");
        assert_eq!(of("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7", "one client has one address");
        assert_eq!(of("10.1.1.1, 10.0.0.2"), "10.1.1.1", "a client inside the trusted network");
        assert_eq!(of("192.0.2.7, unknown, 10.0.0.2"), "10.0.0.2", "nobody vouches for the rest");
        assert_eq!(of(""), "10.0.0.1");
        let lines = [("x-forwarded-for", "192.0.2.6"), ("x-forwarded-for", "192.0.2.7, 10.0.0.2")];
        assert_eq!(client(true, &lines), "192.0.2.7", "lines are one list");
    }

    #[test]
    fn x_real_ip_counts_only_without_a_list() {
        let real = ("x-real-ip", "192.0.2.8");
        assert_eq!(client(true, &[real]), "192.0.2.8");
        assert_eq!(client(true, &[("x-forwarded-for", "192.0.2.7"), real]), "192.0.2.7");
        assert_eq!(client(true, &[real, ("x-real-ip", "192.0.2.9")]), "10.0.0.1");
        assert_eq!(client(true, &[("x-real-ip", "unknown")]), "10.0.0.1");
        assert_eq!(client(true, &[]), "10.0.0.1");
    }
}
