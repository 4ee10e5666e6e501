//! A request whose head the parser refused: what is known of it from its first bytes.

use http::Method;

use super::BadRequest;

/// The handshake record that TLS begins with, and its major version.
const TLS: &[u8] = b"\x16\x03";
/// The second version of the PROXY protocol, without the empty lines that it begins with.
const PROXY_V2: &[u8] = b"\0\r\nQUIT\n";
const PROXY_V1: &[u8] = b"PROXY ";
const HTTP2: &[u8] = b"PRI * HTTP/2";

/// A request whose head could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadHead {
    /// Why.
    pub why: BadRequest,
    /// Its method, if it begins with one.
    pub method: Option<Method>,
    /// Its target, if it has one, or the start of it.
    pub target: Option<String>,
}

impl UnreadHead {
    /// `parser` is what the parser found wrong; `start` are the first bytes of the head, or none
    /// where they are not known.
    #[must_use]
    pub fn new(parser: BadRequest, start: &[u8]) -> Self {
        let why = match parser {
            BadRequest::MethodMalformed | BadRequest::HttpVersion | BadRequest::Target => {
                protocol_of(start).unwrap_or(parser)
            }
            other => other,
        };
        let (mut method, mut target) = (None, None);
        if why.reason() != crate::outcome::Reason::NotHttp {
            let mut words = start.split(|&byte| matches!(byte, b' ' | b'\r' | b'\n'));
            // The first word is whole if something follows it.
            method = words.next().and_then(|word| Method::from_bytes(word).ok());
            let word = words.next().filter(|word| method.is_some() && !word.is_empty());
            target = word.map(|word| String::from_utf8_lossy(word).into_owned());
            method = method.filter(|_| target.is_some());
        }
        Self { why, method, target }
    }
}

/// Which protocol other than HTTP/1 begins so.
fn protocol_of(start: &[u8]) -> Option<BadRequest> {
    if start.starts_with(TLS) {
        Some(BadRequest::Tls)
    } else if start.starts_with(PROXY_V1) || start.starts_with(PROXY_V2) {
        Some(BadRequest::ProxyProtocol)
    } else if start.starts_with(HTTP2) {
        Some(BadRequest::Http2Preface)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_was_sent() {
        let of = |parser, start: &[u8]| {
            let head = UnreadHead::new(parser, start);
            (head.why, head.method.map(|method| method.to_string()), head.target)
        };
        let request =
            |method: &str, target: &str| (Some(method.to_owned()), Some(target.to_owned()));
        for (parser, start, why) in [
            (BadRequest::MethodMalformed, &b"\x16\x03\x01\x02\0"[..], BadRequest::Tls),
            (BadRequest::HttpVersion, b"PROXY TCP4 192.0.2.7 1 2 3\r\n", BadRequest::ProxyProtocol),
            (BadRequest::MethodMalformed, b"\0\r\nQUIT\n!\x11", BadRequest::ProxyProtocol),
            (BadRequest::MethodMalformed, b"\x80\0 a", BadRequest::MethodMalformed),
            (BadRequest::MethodMalformed, b"", BadRequest::MethodMalformed),
        ] {
            assert_eq!(of(parser, start), (why, None, None), "{start:?}");
        }
        let (why, method, target) = of(BadRequest::HttpVersion, b"GET /a HTTP/3.0\r\n");
        assert_eq!((why, (method, target)), (BadRequest::HttpVersion, request("GET", "/a")));
        let (why, method, target) = of(BadRequest::FieldMalformed, b"PUT /a HTTP/1.1\r\nA : b");
        assert_eq!((why, (method, target)), (BadRequest::FieldMalformed, request("PUT", "/a")));
        let (why, ..) = of(BadRequest::HttpVersion, b"PRI * HTTP/2.0\r\n\r\nXX");
        assert_eq!(why, BadRequest::Http2Preface);
        let (_, method, target) = of(BadRequest::HttpVersion, b"GET\r\n");
        assert_eq!((method, target), (None, None), "a line without a target");
    }
}
