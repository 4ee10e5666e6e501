//! The rules of HTTP that hyper leaves to its users and that a cache in front of an origin must
//! enforce.
//!
//! Runs on every request, hits included, and does not allocate.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::members;

/// Why a request is rejected before it is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadRequest {
    /// No `Host` (RFC 9112 3.2), even in HTTP/1.0: the host is part of every key.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// `Host` is not `host` or `host:port`.
    HostMalformed,
    /// `Host` and the target's authority differ.
    HostMismatch,
    /// The target is neither a path nor the `*` of `OPTIONS`.
    Target,
    /// The target has a fragment, which no request may send (RFC 9112 3.2).
    Fragment,
    /// `CONNECT`: this is no forward proxy.
    Connect,
    /// `Transfer-Encoding` is anything but a single `chunked` in HTTP/1.1.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 6.1).
    TwoLengths,
    /// The message stands behind one whose end is in doubt.
    Framing,
    /// `Expect` is anything but `100-continue`.
    Expect,
    /// `Connection` lists an end-to-end field.
    ConnectionOption,
}

impl BadRequest {
    /// The reason as text for the client and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HostMissing => "missing Host header",
            Self::HostRepeated => "repeated Host header",
            Self::HostMalformed => "malformed Host header",
            Self::HostMismatch => "Host header and request target differ",
            Self::Target => "malformed request target",
            Self::Fragment => "fragment in the request target",
            Self::Connect => "CONNECT is not supported",
            Self::TransferEncoding => "unsupported Transfer-Encoding",
            Self::TwoLengths => "both Content-Length and Transfer-Encoding",
            Self::Framing => "unclear end of the message before",
            Self::Expect => "unsupported Expect header",
            Self::ConnectionOption => "Connection names an end-to-end header",
        }
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Gives a target that begins with its query, as in `http://a?x`, the path that it stands for (RFC
/// 9110 4.2.3).
pub fn complete_target(uri: &mut Uri) {
    let Some(query) = uri.path_and_query().filter(|whole| whole.as_str().starts_with('?')) else {
        return;
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("/{}", query.as_str()).parse().ok();
    // The parts are those of a target that parsed before, so this does not fail.
    if let Ok(whole) = Uri::from_parts(parts) {
        *uri = whole;
    }
}

/// What `Connection` says besides the fields that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `upgrade`: the request may offer another protocol.
    pub upgrade: bool,
}

/// Checks whether the request may proceed.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_request(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<ConnectionOptions, BadRequest> {
    if method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    check_target(method, uri)?;
    check_host(uri, version, headers)?;
    check_framing(version, headers)?;
    if let Some(expected) = headers.get(EXPECT) {
        let more = headers.get_all(EXPECT).iter().nth(1).is_some();
        if more || !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(BadRequest::Expect);
        }
    }
    // SECURITY: a client that could have `Authorization` removed after the key was computed would
    // get another client's response.
    let mut options = ConnectionOptions { upgrade: false };
    for option in headers.get_all(CONNECTION).iter().flat_map(|value| members(value.as_bytes())) {
        if is_end_to_end(option) {
            return Err(BadRequest::ConnectionOption);
        }
        options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
    }
    Ok(options)
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), BadRequest> {
    match uri.scheme_str() {
        // `GET a` parses as an authority without a scheme.
        None if uri.authority().is_some() => return Err(BadRequest::Target),
        None | Some("http" | "https") => {}
        Some(_) => return Err(BadRequest::Target),
    }
    // Not `path()`, which adds the slash that `?x` lacks.
    match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        Some("*") if method == Method::OPTIONS => Ok(()),
        Some(target) if target.starts_with('/') => Ok(()),
        _ => Err(BadRequest::Target),
    }
}

fn check_host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(), BadRequest> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        // HTTP/2 sends it in `:authority` (RFC 9113 8.3.1).
        return match authority {
            Some(authority) if version == Version::HTTP_2 => {
                if is_host(authority.as_bytes()) {
                    Ok(())
                } else {
                    Err(BadRequest::HostMalformed)
                }
            }
            _ => Err(BadRequest::HostMissing),
        };
    };
    if hosts.next().is_some() {
        return Err(BadRequest::HostRepeated);
    }
    if !is_host(host.as_bytes()) {
        return Err(BadRequest::HostMalformed);
    }
    // RFC 9112 3.2.2 lets a proxy prefer the target. Rejecting is safer: a client that sends two
    // different hosts wants two parties to disagree.
    match authority {
        Some(authority) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(BadRequest::HostMismatch)
        }
        _ => Ok(()),
    }
}

fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), BadRequest> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    // SECURITY: servers disagree about anything but a single `chunked`, which is how requests are
    // smuggled.
    if version != Version::HTTP_11
        || codings.next().is_some()
        || !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Err(BadRequest::TransferEncoding);
    }
    if headers.contains_key(CONTENT_LENGTH) { Err(BadRequest::TwoLengths) } else { Ok(()) }
}

/// `host [ ":" port ]`, a name or an address. Stricter than RFC 3986, which allows characters that
/// no DNS name has: `%`, `,`, `;`, `=`.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = if host.first() == Some(&b'[') {
        let Some(end) = host.iter().position(|&byte| byte == b']') else { return false };
        let inside = &host[1..end];
        if inside.is_empty()
            || !inside.iter().all(|&byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.')
        {
            return false;
        }
        (inside, &host[end + 1..])
    } else {
        let end = host.iter().position(|&byte| byte == b':').unwrap_or(host.len());
        let name = &host[..end];
        if !name
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
        {
            return false;
        }
        (name, &host[end..])
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && port_fits
}

/// Whether a connection option is the name of a field that must reach the origin, or that rules and
/// keys use.
fn is_end_to_end(option: &[u8]) -> bool {
    // The common ones first: `close`, `keep-alive`, `upgrade`, `te`.
    match option.len() {
        0..=3 | 5 | 7 | 8 | 9 => false,
        4 => option.eq_ignore_ascii_case(b"host"),
        6 => option.eq_ignore_ascii_case(b"cookie"),
        13 if option.eq_ignore_ascii_case(b"authorization")
            || option.eq_ignore_ascii_case(b"cache-control") =>
        {
            true
        }
        14 if option.eq_ignore_ascii_case(b"content-length") => true,
        17 if option.eq_ignore_ascii_case(b"transfer-encoding") => true,
        length => length > 12 && option[..12].eq_ignore_ascii_case(b"x-forwarded-"),
    }
}
