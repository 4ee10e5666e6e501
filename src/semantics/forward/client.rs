//! The address of the client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use super::{ClientPeer, FORWARDED, Network, X_FORWARDED_FOR, X_REAL_IP};

/// The address that the request comes from: the peer's, or, behind trusted proxies, the last one
/// in `X-Forwarded-For` or `Forwarded` (RFC 7239) that is not a trusted proxy's. If all of them
/// are, the first one; where there is neither header, that in `X-Real-IP`. `None` where a trusted
/// proxy names no address, or the two headers name different ones, and for a peer of a Unix socket
/// that is not trusted.
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
        return peer.addr.ip();
    }
    let list = listed_client(headers, trusted);
    let forwarded = forwarded_client(headers, trusted);
    match (list, forwarded) {
        (NamedClient::Address(one), NamedClient::Address(two)) => (one == two).then_some(one),
        (NamedClient::Unusable, _) | (_, NamedClient::Unusable) => None,
        (NamedClient::Address(addr), NamedClient::Nothing)
        | (NamedClient::Nothing, NamedClient::Address(addr)) => Some(addr),
        (NamedClient::Nothing, NamedClient::Nothing) => {
            // Two of them can be read in two ways.
            let mut lines = headers.get_all(X_REAL_IP).iter();
            let first = lines.next().and_then(|line| address(line.as_bytes()));
            first.filter(|_| lines.next().is_none())
        }
    }
}

/// Whom a hop, or a header, names as the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NamedClient {
    Nothing,
    /// `unknown`, a hidden name, or something that can be read in two ways.
    Unusable,
    Address(IpAddr),
}

impl NamedClient {
    fn from_address(addr: Option<IpAddr>) -> Self {
        addr.map_or(Self::Unusable, Self::Address)
    }

    /// Of hops from the last to the first, the first one that is not a trusted proxy. Nobody
    /// vouches for what stands before a hop without an address.
    fn from_hops(hops: impl Iterator<Item = Self>, trusted: &[Network]) -> Self {
        let mut last = Self::Unusable;
        for hop in hops {
            let Self::Address(addr) = hop else { return Self::Unusable };
            last = hop;
            if !trusted.iter().any(|network| network.contains(addr)) {
                break;
            }
        }
        last
    }
}

/// The client by `X-Forwarded-For`.
fn listed_client(headers: &HeaderMap, trusted: &[Network]) -> NamedClient {
    if !headers.contains_key(X_FORWARDED_FOR) {
        return NamedClient::Nothing;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let hops = lines
        .flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
        .filter(|hop| !hop.trim_ascii().is_empty());
    NamedClient::from_hops(hops.map(|hop| NamedClient::from_address(address(hop))), trusted)
}

/// The client by `Forwarded`. A header without any `for` names nobody.
fn forwarded_client(headers: &HeaderMap, trusted: &[Network]) -> NamedClient {
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let Some(elements) = split(line.as_bytes(), b',') else { return NamedClient::Unusable };
        for element in elements.into_iter().filter(|element| !element.trim_ascii().is_empty()) {
            let Some(pairs) = split(element, b';') else { return NamedClient::Unusable };
            hops.push(forwarded_for(&pairs));
        }
    }
    if hops.iter().all(|hop| *hop == NamedClient::Nothing) {
        return NamedClient::Nothing;
    }
    NamedClient::from_hops(hops.into_iter().rev(), trusted)
}

/// Whom one hop names in `Forwarded`.
fn forwarded_for(pairs: &[&[u8]]) -> NamedClient {
    let mut found = NamedClient::Nothing;
    for pair in pairs {
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else { continue };
        if !pair[..at].trim_ascii().eq_ignore_ascii_case(b"for") {
            continue;
        }
        let value = pair[at + 1..].trim_ascii();
        let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        found = match address(bare.unwrap_or(value)) {
            Some(addr) if found == NamedClient::Nothing => NamedClient::Address(addr),
            _ => NamedClient::Unusable,
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
    use crate::peer_address::PeerAddress;

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
    fn the_peer_of_a_socket_has_the_address_that_a_trusted_proxy_names() {
        let list = HeaderMap::from_iter([(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.7"))]);
        let of =
            |trusted| client_address(&list, &ClientPeer { addr: PeerAddress::Unix, trusted }, &[]);
        assert_eq!((of(false), of(true)), (None, Some([192, 0, 2, 7].into())));
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
