//! The caller's span in a trace, as `traceparent` names it (W3C Trace Context, 3.2).

use http::HeaderMap;

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub span_id: [u8; 8],
    /// Whether the caller records its span.
    pub sampled: bool,
}

impl TraceParent {
    /// The one that a request names, if it names one and it is valid.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next()?;
        // Several are no statement.
        if values.next().is_some() { None } else { Self::parse(value.to_str().ok()?) }
    }

    /// Later versions begin in the same way, and may have more at their end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace_id = hex(parts.next()?)?;
        let span_id = hex(parts.next()?)?;
        let flags: [u8; 1] = hex(parts.next()?)?;
        let ends = version != [0] || parts.next().is_none();
        let is_valid = version != [0xff] && trace_id != [0; 16] && span_id != [0; 8] && ends;
        is_valid.then_some(Self { trace_id, span_id, sampled: flags[0] & 1 == 1 })
    }
}

/// Exactly so many bytes, in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (text, mut bytes) = (text.as_bytes(), [0; N]);
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_that_is_valid_names_a_span() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (valid, sampled) in [
            ("00-TRACE-00f067aa0ba902b7-01", true),
            ("00-TRACE-00f067aa0ba902b7-02", false),
            ("cc-TRACE-00f067aa0ba902b7-03-what-comes", true),
        ] {
            let parent = TraceParent::parse(&valid.replace("TRACE", trace)).expect(valid);
            assert_eq!((parent.trace_id[0], parent.trace_id[15]), (0x4b, 0x36), "{valid}");
            assert_eq!((parent.span_id[1], parent.sampled), (0xf0, sampled), "{valid}");
        }
        for broken in [
            "",
            "00",
            "ff-TRACE-00f067aa0ba902b7-01",
            "00-TRACE-00f067aa0ba902b7",
            "00-TRACE-00f067aa0ba902b7-01-more",
            "00-TRACE-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf9-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(&broken.replace("TRACE", trace)), None, "{broken}");
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        for expected in [true, false] {
            headers.append("traceparent", value.parse().expect("a value"));
            assert_eq!(TraceParent::from_headers(&headers).is_some(), expected);
        }
    }
}
