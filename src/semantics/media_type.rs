//! Media types, as far as their names decide what is done with a response.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The type of streams of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Whether the body is a stream of server-sent events, which has no end. The type and subtype are
/// compared whole and in any case; parameters do not count (RFC 9110 8.3.1).
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    type_of(headers).is_some_and(|found| found.eq_ignore_ascii_case(EVENT_STREAM))
}

/// Whether the body has no end by its type: a stream of events, or of pictures that replace one
/// another.
#[must_use]
pub fn has_no_end(headers: &HeaderMap) -> bool {
    type_of(headers).is_some_and(|found| {
        found.eq_ignore_ascii_case(EVENT_STREAM)
            || found.eq_ignore_ascii_case(b"multipart/x-mixed-replace")
    })
}

/// Types beside text whose bodies become smaller by compression. What is compressed already
/// (pictures, films, `font/woff2`, archives, PDF) is not among them.
const COMPRESSIBLE: &[&[u8]] = &[
    b"application/cbor",
    b"application/dns-json",
    b"application/ecmascript",
    b"application/graphql",
    b"application/javascript",
    b"application/json",
    b"application/json-seq",
    b"application/jsonl",
    b"application/ndjson",
    b"application/rtf",
    b"application/sql",
    b"application/toml",
    b"application/vnd.ms-fontobject",
    b"application/wasm",
    b"application/x-javascript",
    b"application/x-ndjson",
    b"application/x-www-form-urlencoded",
    b"application/x-yaml",
    b"application/xml",
    b"application/xml-dtd",
    b"application/yaml",
    b"font/otf",
    b"font/ttf",
    b"image/bmp",
    b"image/vnd.microsoft.icon",
    b"image/x-icon",
];

/// Suffixes that say in which syntax a type is written (RFC 6838 4.2.8).
const COMPRESSIBLE_SYNTAXES: &[&[u8]] = &[b"+cbor", b"+json", b"+json-seq", b"+xml", b"+yaml"];

/// Whether bodies of this type become smaller by compression, as long as no coding has made them so
/// already.
#[must_use]
pub fn is_compressible(headers: &HeaderMap) -> bool {
    let Some(name) = type_of(headers) else { return false };
    let ends_with = |syntax: &&[u8]| {
        name.len() > syntax.len() && name[name.len() - syntax.len()..].eq_ignore_ascii_case(syntax)
    };
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"))
        || COMPRESSIBLE.iter().any(|known| name.eq_ignore_ascii_case(known))
        || COMPRESSIBLE_SYNTAXES.iter().any(ends_with)
}

/// The type and subtype, without parameters.
fn type_of(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(CONTENT_TYPE)?.as_bytes();
    value.split(|&byte| byte == b';').next().map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_whole_name_counts_in_any_case_and_parameters_do_not() {
        let is = |kind| {
            is_event_stream(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "text/event-stream;charset=utf-8",
            " TEXT/EVENT-STREAM ; x",
        ] {
            assert!(is(kind), "{kind}");
        }
        for kind in ["text/event-streamer", "text/event-strea", "text/plain; text/event-stream", ""]
        {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_event_stream(&HeaderMap::new()));
        for (kind, endless) in [
            ("text/event-stream", true),
            ("multipart/x-mixed-replace; boundary=b", true),
            ("multipart/mixed", false),
        ] {
            let value = HeaderValue::from_static(kind);
            assert_eq!(has_no_end(&HeaderMap::from_iter([(CONTENT_TYPE, value)])), endless);
        }
    }

    #[test]
    fn text_in_any_syntax_is_compressible_and_what_is_compressed_already_is_not() {
        let is = |kind| {
            is_compressible(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "text/x-anything",
            "application/json",
            "APPLICATION/JSON ;charset=utf-8",
            "application/vnd.api+json",
            "application/problem+xml; a=b",
            "image/svg+xml",
            "application/geo+json-seq",
            "application/javascript",
            "application/wasm",
            "font/ttf",
        ] {
            assert!(is(kind), "{kind}");
        }
        for kind in [
            "",
            "text",
            "+json",
            "image/png",
            "image/jpeg",
            "font/woff2",
            "application/pdf",
            "application/zip",
            "application/octet-stream",
            "application/jsonx",
            "x/text/html",
            "multipart/form-data; boundary=text/html",
            "application/octet-stream; application/json",
        ] {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_compressible(&HeaderMap::new()));
    }
}
