//! The address of the client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::{ClientPeer, FORWARDED, Network, X_FORWARDED_FOR, X_REAL_IP};

/// The address that the request comes from: the peer's, or, behind trusted proxies, the last one
/// in `X-Forwarded-For` or `Forwarded` (RFC 7239) that is not a trusted proxy's. If all of them are,
/// the first one; where there is neither header, that in `X-Real-IP`. `None` where a trusted proxy
/// names no address, or the two headers name different ones.
///
/// SECURITY: the lists are read from their end, because a client can write anything at their start.
/// Most proxies write only one of the two headers and pass on what a client puts into the other
/// one, so that neither is believed against the other. The proxy itself is never the client: all
/// clients whose address is not known would be one.
#[must_use]
pub fn client_address(
    headers: &HeaderMap,
    peer: &ClientPeer,
    trusted: &[Network],
) -> Option<IpAddr> {
    if !peer.trusted {
        return Some(peer.addr.to_canonical());
    }
    let list = headers.contains_key(X_FORWARDED_FOR).then(|| {
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
        last_client(hops.filter(|hop| !hop.trim_ascii().is_empty()).map(address), trusted)
    });
    let forwarded = forwarded_client(headers, trusted);
    match (list, forwarded) {
        (Some(list), Some(forwarded)) => list.filter(|_| list == forwarded),
        (Some(named), None) | (None, Some(named)) => named,
        (None, None) => {
            // Two of them can be read in two ways.
            let mut lines = headers.get_all(X_REAL_IP).iter();
            let first = lines.next().and_then(|line| address(line.as_bytes()));
            first.filter(|_| lines.next().is_none())
        }
    }
}

/// Of addresses from the last hop to the first, the first one that is not a trusted proxy's. Nobody
/// vouches for what stands before a hop without an address.
fn last_client(hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[Network]) -> Option<IpAddr> {
    let mut last = None;
    for hop in hops {
        last = Some(hop?);
        if !trusted.iter().any(|network| hop.is_some_and(|addr| network.contains(addr))) {
            break;
        }
    }
    last
}

/// The client by `Forwarded`; `None` where no hop names anybody there, `Some(None)` where it names
/// no address that can be used.
fn forwarded_client(headers: &HeaderMap, trusted: &[Network]) -> Option<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let Some(elements) = split(line.as_bytes(), b',') else { return Some(None) };
        for element in elements.into_iter().filter(|element| !element.trim_ascii().is_empty()) {
            let Some(pairs) = split(element, b';') else { return Some(None) };
            hops.push(forwarded_for(&pairs));
        }
    }
    if hops.iter().all(|hop| *hop == ForwardedFor::Nothing) {
        return None;
    }
    let addresses = hops.into_iter().rev().map(|hop| match hop {
        ForwardedFor::Address(addr) => Some(addr),
        ForwardedFor::Nothing | ForwardedFor::Unusable => None,
    });
    Some(last_client(addresses, trusted))
}

/// What one hop says in `Forwarded` of whom it got the request from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ForwardedFor {
    Nothing,
    /// `unknown`, a hidden name, or something that can be read in two ways.
    Unusable,
    Address(IpAddr),
}

fn forwarded_for(pairs: &[&[u8]]) -> ForwardedFor {
    let mut found = ForwardedFor::Nothing;
    for pair in pairs {
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else { continue };
        if !pair[..at].trim_ascii().eq_ignore_ascii_case(b"for") {
            continue;
        }
        let value = pair[at + 1..].trim_ascii();
        let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        found = match address(bare.unwrap_or(value)) {
            Some(addr) if found == ForwardedFor::Nothing => ForwardedFor::Address(addr),
            _ => ForwardedFor::Unusable,
        };
    }
    found
}

/// The parts between separators outside of quoted strings; `None` where a string does not end.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
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
        let found = client_address(&headers, &peer, &networks);
        found.map_or_else(|| "nobody".to_owned(), |addr| addr.to_string())
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
        assert_eq!(of("192.0.2.7, unknown, 10.0.0.2"), "nobody", "nobody vouches for the rest");
        assert_eq!(of(""), "nobody");
        let lines = [("x-forwarded-for", "192.0.2.6"), ("x-forwarded-for", "192.0.2.7, 10.0.0.2")];
        assert_eq!(client(true, &lines), "192.0.2.7", "lines are one list");
    }

    #[test]
    fn x_real_ip_counts_only_without_a_list() {
        let real = ("x-real-ip", "192.0.2.8");
        assert_eq!(client(true, &[real]), "192.0.2.8");
        assert_eq!(client(true, &[("x-forwarded-for", "192.0.2.7"), real]), "192.0.2.7");
        assert_eq!(client(true, &[real, ("x-real-ip", "192.0.2.9")]), "nobody");
        assert_eq!(client(true, &[("x-real-ip", "unknown")]), "nobody");
        assert_eq!(client(true, &[]), "nobody");
    }

    #[test]
    fn forwarded_names_the_client_too() {
        let of = |line: &'static str| client(true, &[("forwarded", line)]);
        assert_eq!(of("for=192.0.2.7"), "192.0.2.7");
        assert_eq!(of("proto=https; FOR=\"192.0.2.7:4711\" ;by=10.0.0.1"), "192.0.2.7");
        assert_eq!(of("for=\"[2001:DB8::1]:80\", for=10.0.0.2"), "2001:db8::1");
        assert_eq!(of("for=192.0.2.6, for=192.0.2.7,, for=10.0.0.2"), "192.0.2.7");
        assert_eq!(of("for=10.1.1.1, for=10.0.0.2"), "10.1.1.1");
        for unusable in [
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden:80\"",
            "for=",
            "for=192.0.2.7;for=192.0.2.8",
            "for=192.0.2.7, for=unknown, for=10.0.0.2",
            "for=192.0.2.7, proto=https",
            "for=192.0.2.7, for=\"10.0.0.2",
            "for=\"192.0.2.7\\\"",
            "host=\"a, for=192.0.2.7\"",
            "proto=https",
        ] {
            assert_eq!(of(unusable), "nobody", "{unusable}");
        }
        let lines = [("forwarded", "for=192.0.2.6"), ("forwarded", "for=192.0.2.7, for=10.0.0.2")];
        assert_eq!(client(true, &lines), "192.0.2.7", "lines are one list");
        // What the client sent itself may stand in the header that the proxy does not write.
        let both = |line| client(true, &[("x-forwarded-for", "192.0.2.7"), ("forwarded", line)]);
        assert_eq!(both("for=192.0.2.7:80"), "192.0.2.7");
        assert_eq!(both("proto=https"), "192.0.2.7", "it names nobody");
        assert_eq!(
            (both("for=192.0.2.8"), both("for=unknown")),
            ("nobody".into(), "nobody".into())
        );
        let real = [("forwarded", "proto=https"), ("x-real-ip", "192.0.2.8")];
        assert_eq!(client(true, &real), "192.0.2.8");
    }
}
