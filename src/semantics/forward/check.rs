//! The rules of HTTP that hyper leaves to its users and that a cache in front of an origin must
//! enforce.
//!
//! Runs on every request, hits included, and does not allocate.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::outcome::Reason;

use super::host::{is_host, is_same_host};
use super::members;
use crate::semantics::request_fields::{RequestFields, host_line, is_repeated};

macro_rules! bad_requests {
    ($($(#[$comment:meta])* $name:ident = $status:ident, $text:literal;)+) => {
        /// Why a request is rejected before it is processed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum BadRequest { $($(#[$comment])* $name,)+ }

        impl BadRequest {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as text for the client and the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The status of the response.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

bad_requests! {
    /// No `Host` in HTTP/1.1 (RFC 9112 3.2).
    HostMissing = BAD_REQUEST, "missing Host header";
    /// More than one `Host`.
    HostRepeated = BAD_REQUEST, "repeated Host header";
    /// `Host`, or the target's authority, is not `host` or `host:port`.
    HostMalformed = BAD_REQUEST, "malformed Host header";
    /// `Host` and `:authority` differ in HTTP/2.
    HostMismatch = BAD_REQUEST, "Host header and request target differ";
    /// The target is neither a path nor the `*` of `OPTIONS`, or has characters that no target has.
    Target = BAD_REQUEST, "malformed request target";
    /// The target has a fragment, which no request may send (RFC 9112 3.2).
    Fragment = BAD_REQUEST, "fragment in the request target";
    /// `CONNECT`: this is no forward proxy.
    Connect = METHOD_NOT_ALLOWED, "CONNECT is not supported";
    /// `Transfer-Encoding` is anything but a single `chunked` in HTTP/1.1.
    TransferEncoding = BAD_REQUEST, "unsupported Transfer-Encoding";
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 6.1).
    TwoLengths = BAD_REQUEST, "both Content-Length and Transfer-Encoding";
    /// The message stands behind one whose end is in doubt.
    Framing = BAD_REQUEST, "unclear end of the message before";
    /// `Expect` is anything but `100-continue`.
    Expect = EXPECTATION_FAILED, "unsupported Expect header";
    /// `Connection` lists an end-to-end field.
    ConnectionOption = BAD_REQUEST, "Connection names an end-to-end header";
    /// The request line begins with something that is no method.
    MethodMalformed = BAD_REQUEST, "malformed method";
    /// Neither HTTP/1.1 nor HTTP/1.0.
    HttpVersion = BAD_REQUEST, "unsupported or malformed HTTP version";
    /// A field has a malformed name or value, or goes on in another line.
    FieldMalformed = BAD_REQUEST, "malformed header field";
    /// `Content-Length` is no number, or two of them differ.
    LengthMalformed = BAD_REQUEST, "malformed Content-Length";
    /// The target is longer than any URI may be here.
    TargetTooLong = URI_TOO_LONG, "request target too long";
    /// The head is larger than `listen.max_header_bytes`.
    HeadTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large";
    /// The head has more fields than `listen.max_headers`.
    TooManyFields = REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields";
    /// A TLS handshake.
    Tls = BAD_REQUEST, "TLS on a port that speaks plain HTTP";
    /// The line or the block that the PROXY protocol begins with.
    ProxyProtocol = BAD_REQUEST, "PROXY protocol on a port that does not speak it";
    /// What HTTP/2 begins with, behind other bytes or mangled.
    Http2Preface = BAD_REQUEST, "HTTP/2 preface that does not begin the connection";
    /// Anything else that the parser refuses.
    Unreadable = BAD_REQUEST, "malformed request";
}

impl BadRequest {
    /// The reason that it is logged and counted under.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::TargetTooLong | Self::HeadTooLarge | Self::TooManyFields => Reason::HeadTooLarge,
            Self::Tls | Self::ProxyProtocol => Reason::NotHttp,
            _ => Reason::BadRequest,
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

/// Checks whether the request with these headers, which have these fields, may proceed.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_request(
    method: &Method,
    uri: &Uri,
    version: Version,
    (headers, fields): (&HeaderMap, RequestFields),
) -> Result<ConnectionOptions, BadRequest> {
    if method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    check_target(method, uri)?;
    check_host(uri, version, headers)?;
    if fields.has(RequestFields::TRANSFER_ENCODING) {
        check_framing(version, headers)?;
    }
    if fields.has(RequestFields::EXPECT)
        && let Some(expected) = headers.get(EXPECT)
        && (is_repeated(headers, &EXPECT)
            || !expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(BadRequest::Expect);
    }
    // SECURITY: a client that could have `Authorization` removed after the key was computed would
    // get another client's response.
    let mut options = ConnectionOptions { upgrade: false };
    if !fields.has(RequestFields::CONNECTION) {
        return Ok(options);
    }
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
    if authority.is_some_and(|authority| !is_host(authority.as_bytes())) {
        return Err(BadRequest::HostMalformed);
    }
    let Some(host) = host_line(headers) else {
        return match (version, authority) {
            // HTTP/2 sends it in `:authority` (RFC 9113 8.3.1). RFC 9112 3.2 asks for it in
            // HTTP/1.1 alone.
            (Version::HTTP_2, Some(_)) => Ok(()),
            (version, _) if version < Version::HTTP_11 => Ok(()),
            _ => Err(BadRequest::HostMissing),
        };
    };
    if is_repeated(headers, &HOST) {
        return Err(BadRequest::HostRepeated);
    }
    if !is_host(host.as_bytes()) {
        return Err(BadRequest::HostMalformed);
    }
    match authority {
        // SECURITY: a client that sends two different hosts wants two parties to disagree. RFC 9113
        // 8.3.1 has HTTP/2 refuse that; in HTTP/1 the target wins (RFC 9112 3.2.2), and
        // `settle_host` overwrites the header before anybody reads it.
        Some(authority)
            if version >= Version::HTTP_2 && !is_same_host(authority, host.as_bytes(), uri) =>
        {
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
