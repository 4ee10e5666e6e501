//! Which fields a proxy removes from a message and adds to it (RFC 9110 7.6), and which requests
//! are rejected before anything else.
//!
//! Pure: headers in, headers out. Knows nothing of connections, routes or the cache.

mod check;
mod client;
mod host;
mod login;
mod network;
mod original;
mod target;
mod unread;
mod upgrade;

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{
    CONNECTION, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use crate::peer_address::PeerAddress;
use crate::semantics::recent_values::RecentValues;

pub use check::{BadRequest, check_request, complete_target};
pub use client::client_address;
pub use host::{is_host, settle_host, without_default_port};
pub use login::logs_in_connection;
pub use network::Network;
pub use original::{original_pairs, original_request};
pub use target::{carried_target, escaped, find_refused, push_escape, unfinished};
pub use unread::UnreadHead;
pub use upgrade::{Upgrades, accepts_upgrade, offered_upgrade, take_upgrade};

/// The address that the origin receives in place of one that is not known or not shown: one of
/// those reserved for documentation (RFC 5737), so that it is nobody's, and that no page opens that
/// is for this host or this network alone.
pub(crate) const NOBODYS_ADDRESS: &str = "192.0.2.1";
/// What a proxy knew about the client (RFC 7239).
pub(crate) const FORWARDED: HeaderName = http::header::FORWARDED;
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// The addresses of the client and of the proxies before this one.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the client requested.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The port that the client requested.
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The protocol that the client spoke.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The address of the client.
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a field says which address the client has.
pub(crate) fn is_client_address(name: &HeaderName) -> bool {
    [X_FORWARDED_FOR, X_REAL_IP, FORWARDED].contains(name)
}

/// Whether a field says which host and protocol the client requested.
pub(crate) fn is_original(name: &HeaderName) -> bool {
    [X_FORWARDED_HOST, X_FORWARDED_PROTO].contains(name)
}

/// Whether a field says where a request came from.
pub(crate) fn is_address(name: &HeaderName) -> bool {
    [X_FORWARDED_FOR, X_REAL_IP, FORWARDED, VIA].contains(name)
}

/// Fields that belong to one connection, whether or not `Connection` names them.
///
/// SECURITY: `HTTP2-Settings` with `Upgrade: h2c` would let a client speak HTTP/2 past the rules.
pub(crate) static HOP_BY_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// The protocols in whose tunnels requests would go past the rules.
pub(crate) const HIDDEN_HTTP: [&str; 4] = ["h2c", "h2", "http", "tls"];

/// The peer that sent a request, one hop away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPeer {
    /// The address at the other end of the connection.
    pub addr: PeerAddress,
    /// Whether it is one of `[listen] trusted_proxies`, whose forwarding fields are trusted.
    pub trusted: bool,
}

/// Fields that are meant for every recipient. RFC 9110 7.6.1: a sender must not list them in
/// `Connection`. If one does, removing them would lose the framing, or the `no-store` that keeps a
/// response out of the cache.
const NEVER_CONNECTION_OPTIONS: [&str; 11] = [
    "age",
    "cache-control",
    "cdn-cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expires",
    "host",
    "surrogate-control",
    "vary",
];

/// Removes the fields of one connection: everything that `Connection` lists, and the fields that
/// older senders do not list (RFC 9110 7.6.1). `TE` is reduced to `trailers`; `Trailer` stays,
/// since hyper sends only the trailers that it announces.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_found(headers, RemovedFields::in_head(headers));
}

fn strip_found(headers: &mut HeaderMap, found: RemovedFields) {
    if found.connection {
        strip_connection(headers);
    }
    if found.hop_by_hop {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    // `Connection` may have brought it.
    if (found.te || found.connection) && headers.contains_key(TE) && !te_trailers(headers) {
        headers.remove(TE);
    }
}

/// Which of the fields that are removed a head has. Most have none of them, and one look at all
/// names costs less than a search for each.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one field")]
struct RemovedFields {
    connection: bool,
    te: bool,
    /// One of [`HOP_BY_HOP`].
    hop_by_hop: bool,
    expect: bool,
    /// `Forwarded` or `X-Real-IP`.
    address: bool,
}

impl RemovedFields {
    fn in_head(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            // Their lengths tell nearly all others apart.
            match name.as_str().len() {
                2 => found.te |= *name == TE,
                6 => found.expect |= *name == EXPECT,
                9 => found.address |= *name == FORWARDED || *name == X_REAL_IP,
                10 if *name == CONNECTION => found.connection = true,
                7 | 10 | 14 | 16..=19 => found.hop_by_hop |= HOP_BY_HOP.contains(name),
                _ => {}
            }
        }
        found
    }
}

fn strip_connection(headers: &mut HeaderMap) {
    // Connection lists TE whenever it is sent (RFC 9110 10.1.4), so the one member that may be
    // forwarded is saved first.
    let trailers = te_trailers(headers);
    let named: SmallVec<[HeaderValue; 2]> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    for option in named.iter().flat_map(|value| members(value.as_bytes())) {
        let Ok(name) = HeaderName::from_bytes(option) else { continue };
        if !NEVER_CONNECTION_OPTIONS.contains(&name.as_str()) {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether `TE` accepts trailers; if it does, nothing else is left in it.
fn te_trailers(headers: &mut HeaderMap) -> bool {
    let accepted =
        headers.get_all(TE).iter().flat_map(|value| members(value.as_bytes())).any(|member| {
            let name = member.split(|&byte| byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"trailers")
        });
    if accepted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    accepted
}

/// Turns a client's request headers into those for the origin.
///
/// `version` is the client's; `host` is the host that the client requested (its `Host`, or HTTP/2's
/// `:authority`) and becomes `Host` if there is none. `keep_upgrade` is the protocol of
/// [`take_upgrade`] if the request may become a tunnel. `names_itself`: whether `Via` says so.
///
/// RFC 9110 7.6.3 asks for that. But nginx (`gzip_proxied off`, the default) and IIS
/// (`noCompressionForProxies`) answer a request with `Via` uncompressed.
pub fn prepare_request(
    headers: &mut HeaderMap,
    version: Version,
    host: &HeaderValue,
    peer: &ClientPeer,
    keep_upgrade: Option<&HeaderValue>,
    names_itself: bool,
) {
    let found = RemovedFields::in_head(headers);
    strip_found(headers, found);
    if found.expect {
        // The sidecar itself sends `100 Continue`, when it starts to read the body (RFC 9110
        // 10.1.1).
        headers.remove(EXPECT);
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if !headers.contains_key(HOST) {
        headers.insert(HOST, host.clone());
    }
    if names_itself {
        headers.append(VIA, via(version));
    }
    set_forwarded(headers, host, peer, found.address);
    if let Some(protocol) = keep_upgrade {
        set_upgrade(headers, protocol);
    }
}

/// Turns the origin's response headers into those for the client. `version` is that of the origin's
/// response.
pub fn prepare_response(headers: &mut HeaderMap, version: Version) {
    strip_hop_by_hop(headers);
    headers.append(VIA, via(version));
}

/// Restores the fields that make a message an upgrade: `Connection: upgrade` and the protocol.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.clone());
}

/// Whether a field must not appear in trailers: one that frames, routes, authenticates, or decides
/// about storing (RFC 9110 6.5.1).
#[must_use]
pub fn is_forbidden_trailer(name: &HeaderName) -> bool {
    const FORBIDDEN: [&str; 32] = [
        "age",
        "authorization",
        "cache-control",
        "cache-groups",
        "cache-tag",
        "cdn-cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "set-cookie",
        "surrogate-key",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "www-authenticate",
    ];
    FORBIDDEN.binary_search(&name.as_str()).is_ok() || name.as_str().starts_with("x-forwarded-")
}

/// The `Via` member that this proxy adds (RFC 9110 7.6.3): the received version and a pseudonym.
const fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2.0 sidecache",
        Version::HTTP_10 => "1.0 sidecache",
        _ => "1.1 sidecache",
    })
}

fn set_forwarded(
    headers: &mut HeaderMap,
    host: &HeaderValue,
    peer: &ClientPeer,
    has_address: bool,
) {
    if !peer.trusted && has_address {
        // SECURITY: what an untrusted peer claims about the client's address, host and protocol is
        // removed here.
        headers.remove(FORWARDED);
        headers.remove(X_REAL_IP);
    }
    let own = peer.addr.ip();
    let before = if peer.trusted { joined(headers, &X_FORWARDED_FOR, b", ") } else { None };
    let chain = match (before, own) {
        (Some(mut chain), Some(own)) => {
            chain.extend_from_slice(b", ");
            chain.extend_from_slice(own.to_string().as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain))
        }
        // The peers of a Unix socket have no address to add.
        (Some(chain), None) if !chain.trim_ascii().is_empty() => {
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain))
        }
        (None, Some(own)) => Ok(shown_address(own)),
        // SECURITY: without the header the origin would take the sidecar's own address, which it
        // may trust, for the client's.
        (_, None) => Ok(HeaderValue::from_static(NOBODYS_ADDRESS)),
    };
    // All parts are valid header text, so this always succeeds; if it ever fails, no chain is
    // better than a forged one.
    match chain {
        Ok(chain) => drop(headers.insert(X_FORWARDED_FOR, chain)),
        Err(_) => drop(headers.remove(X_FORWARDED_FOR)),
    }
    if !peer.trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !peer.trusted || !headers.contains_key(X_FORWARDED_HOST) {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

/// An address as the value of a field.
fn shown_address(address: IpAddr) -> HeaderValue {
    thread_local! {
        static ADDRESSES: RefCell<RecentValues<IpAddr>> =
            const { RefCell::new(RecentValues::new()) };
    }
    let spread = match address {
        IpAddr::V4(address) => i64::from(address.to_bits()),
        IpAddr::V6(address) => {
            i64::from(address.segments()[3]) << 16 | i64::from(address.segments()[7])
        }
    };
    // An address is the text of a header.
    let write = || {
        HeaderValue::from_str(&address.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static(NOBODYS_ADDRESS))
    };
    ADDRESSES.with_borrow_mut(|known| known.get(spread, address, write))
}

/// HTTP/2 may split `Cookie` into several fields; HTTP/1.1 has one, joined by `; ` (RFC 9113
/// 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    if let Some(whole) = joined(headers, &COOKIE, b"; ")
        && let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole))
    {
        headers.insert(COOKIE, value);
    }
}

/// All values of a field, joined into one; `None` if the field is absent.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter();
    let mut whole = values.next()?.as_bytes().to_vec();
    for value in values {
        whole.extend_from_slice(separator);
        whole.extend_from_slice(value.as_bytes());
    }
    Some(whole)
}

/// Whether `Connection` lists this option.
fn lists(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| members(value.as_bytes()))
        .any(|member| member.eq_ignore_ascii_case(option.as_bytes()))
}

/// The members of a comma-separated list, without empty ones (RFC 9110 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests;
