//! Media types, as far as their names decide what is done with a response.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether the body is a stream of server-sent events, which has no end. The type and subtype are
/// compared whole and in any case; parameters do not count (RFC 9110 8.3.1).
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().split(|&byte| byte == b';').next())
        .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
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
    }
}
