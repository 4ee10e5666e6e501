//! The digest of a response: whether two responses say the same, without keeping both.

use http::StatusCode;
use http::header::{
    AGE, ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH, DATE, ETAG, EXPIRES, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED, SET_COOKIE, TRANSFER_ENCODING, VIA,
};
use sha2::{Digest as _, Sha256};

use crate::semantics::cache_status::{CACHE_STATUS, X_CACHE};

/// The first half of the SHA-256 of a status and a body, or of these and the head.
pub type Digest = [u8; 16];

/// How much of a body is read in search of the end of a gzip header.
pub(crate) const MAX_GZIP_HEADER: usize = 4096;

/// Digests a status and the body that follows it.
#[derive(Clone)]
pub struct Digester {
    hash: Sha256,
    /// The start of a body in gzip, until its header has ended.
    start: Option<Vec<u8>>,
}

impl Digester {
    /// A digester for a response of this status.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { hash: Sha256::new_with_prefix(status.as_u16().to_be_bytes()), start: None }
    }

    /// A digester for a response with this head. Of a body that is coded in gzip, the header does
    /// not count: some frameworks put random bytes into it, to hide the length of secrets.
    #[must_use]
    pub fn for_response(status: StatusCode, headers: &HeaderMap) -> Self {
        Self { start: is_gzip(headers).then(Vec::new), ..Self::new(status) }
    }

    /// Adds the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        let Some(start) = &mut self.start else { return self.hash.update(bytes) };
        start.extend_from_slice(bytes);
        let skipped = match gzip_header(start) {
            Some(length) => length,
            None if start.len() < MAX_GZIP_HEADER => return,
            None => 0,
        };
        self.hash.update(&start[skipped..]);
        self.start = None;
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        if let Some(start) = self.start.take() {
            self.hash.update(&start);
        }
        half(self.hash)
    }
}

/// Whether a body is coded in gzip.
pub(crate) fn is_gzip(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
    [&b"gzip"[..], b"x-gzip"].iter().any(|gzip| coding.eq_ignore_ascii_case(gzip))
}

/// The length of the header that these bytes begin with (RFC 1952 2.3). None if it goes on, or if
/// it is none.
pub(crate) fn gzip_header(bytes: &[u8]) -> Option<usize> {
    const CHECKSUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let flags = *bytes.get(3).filter(|_| bytes.starts_with(b"\x1f\x8b\x08"))?;
    let mut length = 10;
    if flags & EXTRA != 0 {
        let extra = bytes.get(length..length + 2)?;
        length += 2 + usize::from(u16::from_le_bytes([extra[0], extra[1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            length += 1 + bytes.get(length..)?.iter().position(|&byte| byte == 0)?;
        }
    }
    if flags & CHECKSUM != 0 {
        length += 2;
    }
    (length <= bytes.len()).then_some(length)
}

/// The response headers that count for no digest, because they may differ at each response and say
/// nothing of its caller: times, the way that the response took, and ids of requests and traces.
///
/// `Content-Length` follows from the body, which counts; `Set-Cookie` is never stored. `ETag`
/// counts without its strength.
pub static UNCOUNTED_HEADERS: [HeaderName; 44] = [
    AGE,
    ALT_SVC,
    CACHE_STATUS,
    HeaderName::from_static("cf-cache-status"),
    HeaderName::from_static("cf-ray"),
    CONTENT_LENGTH,
    DATE,
    EXPIRES,
    LAST_MODIFIED,
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("server-timing"),
    SET_COOKIE,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("traceresponse"),
    HeaderName::from_static("tracestate"),
    TRANSFER_ENCODING,
    VIA,
    HeaderName::from_static("x-amz-cf-id"),
    HeaderName::from_static("x-amz-cf-pop"),
    HeaderName::from_static("x-amz-id-2"),
    HeaderName::from_static("x-amz-request-id"),
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-amzn-trace-id"),
    HeaderName::from_static("x-b3-sampled"),
    HeaderName::from_static("x-b3-spanid"),
    HeaderName::from_static("x-b3-traceid"),
    X_CACHE,
    HeaderName::from_static("x-cache-hits"),
    HeaderName::from_static("x-cloud-trace-context"),
    HeaderName::from_static("x-correlation-id"),
    HeaderName::from_static("x-envoy-upstream-service-time"),
    HeaderName::from_static("x-kong-proxy-latency"),
    HeaderName::from_static("x-kong-request-id"),
    HeaderName::from_static("x-kong-upstream-latency"),
    HeaderName::from_static("x-ms-request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-response-time"),
    HeaderName::from_static("x-runtime"),
    HeaderName::from_static("x-served-by"),
    HeaderName::from_static("x-timer"),
    HeaderName::from_static("x-trace-id"),
    HeaderName::from_static("x-varnish"),
];

/// The digest of a response: of its status and body, which have this digest, and of all that counts
/// in its head. The order of the names does not matter; that of the lines of one name does.
#[must_use]
pub fn with_head(content: Digest, headers: &HeaderMap) -> Digest {
    let mut names: Vec<&HeaderName> =
        headers.keys().filter(|name| !UNCOUNTED_HEADERS.contains(name)).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let mut digest = Sha256::new_with_prefix(content);
    for name in names {
        for value in headers.get_all(name) {
            for bytes in [name.as_str().as_bytes(), counting_part(name, value)] {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
    }
    half(digest)
}

/// The part of a value that counts. A server that compresses makes an entity-tag weak.
fn counting_part<'a>(name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
    let value = value.as_bytes();
    if *name == ETAG { value.strip_prefix(b"W/").unwrap_or(value) } else { value }
}

fn half(digest: Sha256) -> Digest {
    let whole: [u8; 32] = digest.finalize().into();
    let mut half = Digest::default();
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&'static str, &'static str)]) -> Digest {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        with_head([1; 16], &headers)
    }

    #[test]
    fn the_header_of_a_gzip_body_does_not_count_however_it_is_cut() {
        let gzip = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let named = |name: &str| {
            let head = [&b"\x1f\x8b\x08\x0c\x01\x02\x03\x04\x00\x03"[..], b"\x02\x00xx"].concat();
            [&head[..], name.as_bytes(), b"\0deflated"].concat()
        };
        let of = |headers: &HeaderMap, pieces: &[&[u8]]| {
            let mut digester = Digester::for_response(StatusCode::OK, headers);
            for piece in pieces {
                digester.update(piece);
            }
            digester.finish()
        };
        let (one, two) = (named("random"), named("other"));
        let digest = of(&gzip, &[&one]);
        for cut in 0..one.len() {
            assert_eq!(of(&gzip, &[&one[..cut], &one[cut..]]), digest, "cut at {cut}");
        }
        assert_eq!(of(&gzip, &[&two]), digest);
        assert_ne!(of(&HeaderMap::new(), &[&one]), of(&HeaderMap::new(), &[&two]));
        assert_ne!(of(&gzip, &[&named("random"), b"more"]), digest);
        // What is no gzip, or has no end of its header, counts as a whole.
        assert_ne!(of(&gzip, &[b"plain"]), of(&gzip, &[b"other"]));
        assert_ne!(of(&gzip, &[&one[..12]]), of(&gzip, &[&one[..13]]));
        let endless = |last: u8| [&one[..14], &[b'a'; 5000], &[last]].concat();
        assert_ne!(of(&gzip, &[&endless(1)]), of(&gzip, &[&endless(2)]));
    }

    #[test]
    fn the_head_counts_but_for_what_differs_at_each_response() {
        let plain = of(&[("link", "<a>"), ("etag", "\"1\"")]);
        assert_eq!(of(&[("etag", "W/\"1\""), ("link", "<a>")]), plain, "in any order");
        for name in &UNCOUNTED_HEADERS {
            let mut headers = HeaderMap::new();
            headers.insert("link", HeaderValue::from_static("<a>"));
            headers.insert("etag", HeaderValue::from_static("\"1\""));
            headers.insert(name, HeaderValue::from_static("x"));
            assert_eq!(with_head([1; 16], &headers), plain, "{name}");
        }
        for name in ["x-auth-user", "authorization", "x-csrf-token", "cache-control", "vary"] {
            assert_ne!(of(&[("link", "<a>"), ("etag", "\"1\""), (name, "x")]), plain, "{name}");
        }
        assert_ne!(of(&[("link", "<a>"), ("etag", "\"2\"")]), plain);
        assert_ne!(of(&[("link", "<a>")]), plain);
        assert_ne!(of(&[("x", "ab"), ("x", "c")]), of(&[("x", "a"), ("x", "bc")]));
        assert_ne!(with_head([2; 16], &HeaderMap::new()), of(&[]));
    }

    #[test]
    fn the_uncounted_headers_are_sorted_and_documented() {
        let names: Vec<&str> = UNCOUNTED_HEADERS.iter().map(HeaderName::as_str).collect();
        assert!(names.is_sorted_by(|one, two| one < two), "{names:?}");
        let page = include_str!("../../docs/src/reference/keys.md");
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "keys.md names {name}");
        }
    }
}
