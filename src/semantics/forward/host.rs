//! Which host a request was sent to: its target's authority or its `Host`, and both without the
//! port that goes without saying.

use http::header::{HOST, HeaderValue};
use http::{HeaderMap, Uri, Version};

/// Whether a byte may stand in the name of a host.
const IN_NAMES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        allowed[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    allowed
};

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
        let end = host.iter().position(|&byte| !IN_NAMES[usize::from(byte)]);
        host.split_at(end.unwrap_or(host.len()))
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && port_fits
}

/// An authority without a port that is empty or the scheme's default: `http://a`, `http://a:` and
/// `http://a:80` name one host (RFC 9110 4.2.3). A target without a scheme came over plain HTTP.
#[must_use]
pub fn without_default_port<'a>(authority: &'a str, uri: &Uri) -> &'a str {
    let default = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    authority.strip_suffix(default).or_else(|| authority.strip_suffix(':')).unwrap_or(authority)
}

/// Whether two authorities name one host.
pub(super) fn is_same_host(one: &str, two: &[u8], uri: &Uri) -> bool {
    let one = without_default_port(one, uri);
    let two = str::from_utf8(two).map(|two| without_default_port(two, uri));
    two.is_ok_and(|two| one.eq_ignore_ascii_case(two))
}

/// Gives a request that passed [`super::check_request`] the `Host` that it was sent to, so that
/// whoever reads the header later reads what the key holds. The authority of the target replaces
/// it in HTTP/1 (RFC 9112 3.2.2). A request that names no host gets `fallback`, and the answer is
/// true.
pub fn settle_host(
    headers: &mut HeaderMap,
    uri: &Uri,
    version: Version,
    fallback: impl FnOnce() -> HeaderValue,
) -> bool {
    let is_http1 = version < Version::HTTP_2;
    match uri.authority().map(http::uri::Authority::as_str).filter(|_| is_http1) {
        Some(authority) => {
            // What `is_host` accepts is the text of a header, so this does not fail.
            if headers.get(HOST).is_none_or(|host| host.as_bytes() != authority.as_bytes())
                && let Ok(host) = HeaderValue::from_str(authority)
            {
                headers.insert(HOST, host);
            }
            false
        }
        None if is_http1 && !headers.contains_key(HOST) => {
            headers.insert(HOST, fallback());
            true
        }
        None => false,
    }
}
