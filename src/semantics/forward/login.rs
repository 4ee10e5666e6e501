//! Credentials that log in a connection and not a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Whether a request carries a credential after which its whole connection counts as logged in:
/// NTLM or Negotiate (RFC 4559 section 6). `Proxy-Authorization` is none of the origin's business
/// and never reaches it.
#[must_use]
pub fn logs_in_connection(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| {
        let value = value.as_bytes().trim_ascii_start();
        let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t' | b','));
        let scheme = &value[..end.unwrap_or(value.len())];
        [&b"NTLM"[..], b"Negotiate"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    })
}
