//! Media types, as far as their names decide what is done with a response.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether the body is a stream of server-sent events, which has no end. The type and subtype are
/// compared whole and in any case; parameters do not count (RFC 9110 8.3.1).
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    is_type(headers, b"text/event-stream")
}

/// Whether the body has no end by its type: a stream of events, or of pictures that replace one
/// another.
#[must_use]
pub fn has_no_end(headers: &HeaderMap) -> bool {
    is_event_stream(headers) || is_type(headers, b"multipart/x-mixed-replace")
}

fn is_type(headers: &HeaderMap, name: &[u8]) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().split(|&byte| byte == b';').next())
        .is_some_and(|found| found.trim_ascii().eq_ignore_ascii_case(name))
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
}
