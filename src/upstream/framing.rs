//! How a response's head says where its body ends, and what is made of heads that say it oddly.
//!
//! hyper has decided by then how it reads the body. What its decision does not settle is settled
//! here: what goes on to clients has at most one `Content-Length`, and that one is true.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, response};

use super::error::UpstreamError;

/// What the head says of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// Whether it comes in chunks.
    pub(super) is_chunked: bool,
    /// Whether it is framed in a way that senders must not use. The connection serves no other
    /// request.
    pub(super) is_dubious: bool,
}

/// Reads and cleans the framing of a head. `is_empty`: hyper reads no body.
///
/// # Errors
/// When the end of the body is in doubt.
pub(super) fn settle(head: &mut response::Parts, is_empty: bool) -> Result<Framing, UpstreamError> {
    let has_coding = head.headers.contains_key(TRANSFER_ENCODING);
    if is_empty {
        // RFC 9112 6.3: to HEAD, and with 204 and 304, there is no body, whatever the head says.
        // RFC 9110 8.6: a 204 has no length either, and HTTP/2 clients would wait for that many
        // bytes.
        let length = only_length(&head.headers)
            .filter(|_| !has_coding && head.status != StatusCode::NO_CONTENT);
        set_length(&mut head.headers, length);
        return Ok(Framing::default());
    }
    if !has_coding {
        let mut lines = head.headers.get_all(CONTENT_LENGTH).iter();
        let is_settled = match (lines.next(), lines.next()) {
            (None, _) => true,
            // As nearly all say it, and as it is left.
            (Some(line), None) => is_plain(line) && length(line.as_bytes()).is_some(),
            (Some(_), Some(_)) => false,
        };
        if !is_settled {
            let length = only_length(&head.headers);
            let length = length.ok_or_else(|| broken("differing or invalid Content-Length"))?;
            set_length(&mut head.headers, Some(length));
        }
        return Ok(Framing::default());
    }
    // SECURITY: RFC 9112 6.3 calls this an attempt at response splitting; a cache might store a
    // part of another response.
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(broken("both Content-Length and Transfer-Encoding"));
    }
    coding(&head.headers).ok_or_else(|| broken("unsupported Transfer-Encoding"))
}

fn broken(why: &'static str) -> UpstreamError {
    UpstreamError::Broken(why.into())
}

/// The framing by `Transfer-Encoding`; `None` for a coding besides `chunked`, which would be lost
/// with the header that names it.
fn coding(headers: &HeaderMap) -> Option<Framing> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter().flat_map(members);
    let first = codings.next()?;
    if first.eq_ignore_ascii_case(b"identity") {
        return codings.next().is_none().then(Framing::default);
    }
    let mut count = 1;
    let is_chunked = first.eq_ignore_ascii_case(b"chunked")
        && codings.inspect(|_| count += 1).all(|next| next.eq_ignore_ascii_case(b"chunked"));
    // Apps that copy the fields of another response send it twice, and apply it once.
    is_chunked.then_some(Framing { is_chunked, is_dubious: count > 1 })
}

/// The length that all members of `Content-Length` agree on (RFC 9110 8.6).
fn only_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(length);
    let first = lengths.next()??;
    lengths.all(|other| other == Some(first)).then_some(first)
}

/// Digits alone: `+5` is none.
fn length(member: &[u8]) -> Option<u64> {
    let digits = member.trim_ascii();
    let text = str::from_utf8(digits).ok()?;
    digits.iter().all(u8::is_ascii_digit).then(|| text.parse().ok()).flatten()
}

/// Whether a line is digits alone.
fn is_plain(line: &HeaderValue) -> bool {
    line.as_bytes().iter().all(u8::is_ascii_digit)
}

/// Makes this length the only one. A head that has it as its one plain number stays as it is.
fn set_length(headers: &mut HeaderMap, length: Option<u64>) {
    let Some(length) = length else {
        headers.remove(CONTENT_LENGTH);
        return;
    };
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    if !lines.next().is_some_and(is_plain) || lines.next().is_some() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The members of a list, without empty ones (RFC 9110 5.6.1).
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Response};

    use super::*;

    fn head(status: u16, lines: &[(&'static str, &'static str)]) -> response::Parts {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).expect("a status");
        for (name, value) in lines {
            let name = HeaderName::from_static(name);
            head.headers.append(name, HeaderValue::from_static(value));
        }
        head
    }

    fn settled(
        status: u16,
        lines: &[(&'static str, &'static str)],
        is_empty: bool,
    ) -> (Result<Framing, String>, Vec<String>) {
        let mut head = head(status, lines);
        let framing = settle(&mut head, is_empty).map_err(|error| error.to_string());
        let left = head.headers.get_all(CONTENT_LENGTH).iter();
        (framing, left.map(|value| value.to_str().expect("text").to_owned()).collect())
    }

    const CL: &str = "content-length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn one_length_goes_on_however_often_it_is_said() {
        for lines in [
            &[(CL, "5")][..],
            &[(CL, "5"), (CL, "5")],
            &[(CL, "5, 5")],
            &[(CL, "5 ,5"), (CL, "5")],
            &[(CL, "5,005")],
        ] {
            for is_empty in [true, false] {
                let (framing, left) = settled(200, lines, is_empty);
                assert_eq!(
                    (framing, left),
                    (Ok(Framing::default()), vec!["5".into()]),
                    "{lines:?}"
                );
            }
        }
        for lines in [
            &[(CL, "5"), (CL, "6")][..],
            &[(CL, "5, 6")],
            &[(CL, "+5")],
            &[(CL, "5,")],
            &[(CL, "")],
        ] {
            let (framing, _) = settled(200, lines, false);
            assert!(framing.is_err_and(|why| why.contains("Content-Length")), "{lines:?}");
            let (framing, left) = settled(200, lines, true);
            assert_eq!((framing, left.len()), (Ok(Framing::default()), 0), "{lines:?}");
        }
    }

    #[test]
    fn a_response_without_a_body_has_no_length_that_is_none() {
        assert_eq!(settled(204, &[(CL, "5")], true).1, [""; 0]);
        assert_eq!(settled(204, &[(CL, "0")], true).1, [""; 0]);
        assert_eq!(settled(304, &[(CL, "5"), (CL, "5")], true).1, ["5"]);
        assert_eq!(settled(304, &[(CL, "5"), (TE, "chunked")], true).1, [""; 0]);
        assert_eq!(settled(200, &[], true).1, [""; 0]);
    }

    #[test]
    fn chunks_are_chunks_however_often_they_are_said() {
        let chunked = |is_dubious| Ok(Framing { is_chunked: true, is_dubious });
        assert_eq!(settled(200, &[(TE, "Chunked")], false).0, chunked(false));
        assert_eq!(settled(200, &[(TE, "chunked"), (TE, "chunked")], false).0, chunked(true));
        assert_eq!(settled(200, &[(TE, "chunked, chunked")], false).0, chunked(true));
        assert_eq!(settled(200, &[(TE, "identity")], false).0, Ok(Framing::default()));
        for coding in
            ["gzip, chunked", "gzip", "chunked, gzip", "identity, chunked", "xchunked", ""]
        {
            assert!(settled(200, &[(TE, coding)], false).0.is_err(), "{coding}");
        }
        assert!(settled(200, &[(TE, "chunked"), (CL, "5")], false).0.is_err());
    }
}
