//! The content codings that the cache applies itself (RFC 9110 8.4.1): which responses may be
//! coded, and how their heads change.
//!
//! Invariants:
//! - A head that was changed here has no strong entity-tag: two encoders make different bytes of
//!   the same body (RFC 9110 8.8.1).
//! - It varies on `Accept-Encoding`, and so does the plain form of each response that may be coded
//!   (RFC 9110 12.5.5).
//! - Nothing is coded that the origin says must stay as it is, in words or by a digest of it.
//!
//! Knows nothing of encoders, routes and keys.

use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG,
    HeaderMap, HeaderName, HeaderValue, VARY,
};

use crate::semantics::cache_control::CacheControl;
use crate::semantics::conditional::whole_entity_tag;
use crate::semantics::media_type::{has_no_end, is_compressible};

/// Fields that say which bytes the content has: RFC 9530, RFC 9421, and what came before them.
const OF_BYTES: [HeaderName; 6] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// GZIP (RFC 1952).
    Gzip,
}

impl Coding {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of this name, in any case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        let is_named = |coding: &Self| name.eq_ignore_ascii_case(coding.as_str().as_bytes());
        Self::ALL.into_iter().find(is_named).or_else(|| {
            // RFC 9110 8.4.1.3: an older name of the same coding.
            name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip)
        })
    }
}

/// Why a body is stored as the origin sent it, although its route codes bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainReason {
    /// The client accepts none of the codings, or asks for a part or for no transformation.
    Client,
    /// Its status.
    Status,
    /// The origin has coded it.
    Coded,
    /// Its media type.
    Type,
    /// The origin says `no-transform`.
    NoTransform,
    /// The origin says which bytes it has.
    Digest,
    /// It is shorter than `min_size`.
    Small,
    /// It is so long that coding it would take long.
    Large,
    /// It would be hardly smaller.
    Incompressible,
    /// Too many others are being coded.
    Busy,
}

impl PlainReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Client,
        Self::Status,
        Self::Coded,
        Self::Type,
        Self::NoTransform,
        Self::Digest,
        Self::Small,
        Self::Large,
        Self::Incompressible,
        Self::Busy,
    ];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Status => "status",
            Self::Coded => "coded",
            Self::Type => "type",
            Self::NoTransform => "no_transform",
            Self::Digest => "digest",
            Self::Small => "small",
            Self::Large => "large",
            Self::Incompressible => "incompressible",
            Self::Busy => "busy",
        }
    }
}

/// Whether a response with this head may be coded.
///
/// # Errors
/// Why it stays as it is.
pub fn may_code(status: StatusCode, headers: &HeaderMap) -> Result<(), PlainReason> {
    let is_identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !matches!(status, StatusCode::OK | StatusCode::NOT_FOUND)
        || headers.contains_key(CONTENT_RANGE)
    {
        Err(PlainReason::Status)
    } else if !is_compressible(headers) || has_no_end(headers) {
        Err(PlainReason::Type)
    } else if CacheControl::from_headers(headers).no_transform {
        Err(PlainReason::NoTransform)
    } else if states_bytes(headers) {
        Err(PlainReason::Digest)
    } else if headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        Ok(())
    } else {
        Err(PlainReason::Coded)
    }
}

/// Whether the head says which bytes the content has.
fn states_bytes(headers: &HeaderMap) -> bool {
    OF_BYTES.iter().any(|name| headers.contains_key(name))
}

/// Makes a response vary on `Accept-Encoding`, if other clients may get another form of it.
pub fn note_choice(status: StatusCode, headers: &mut HeaderMap) {
    if matches!(may_code(status, headers), Ok(()) | Err(PlainReason::Coded)) {
        vary_on_codings(headers);
    }
}

fn vary_on_codings(headers: &mut HeaderMap) {
    let is_named = |line: &HeaderValue| {
        let members = line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        members.into_iter().any(|name| {
            name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes())
        })
    };
    if !headers.get_all(VARY).iter().any(is_named) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether the entity-tag of this head becomes weak in the coded form.
#[must_use]
pub fn has_strong_tag(headers: &HeaderMap) -> bool {
    strong_tag(headers).is_some()
}

/// The entity-tag, if it is the only one and strong.
fn strong_tag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(ETAG).iter();
    let tag = lines.next().filter(|_| lines.next().is_none())?;
    let is_strong = tag.as_bytes().trim_ascii().starts_with(b"\"");
    (is_strong && whole_entity_tag(tag.as_bytes()).is_some()).then_some(tag)
}

/// The head of the coded form of a response. The length is that of the new body.
#[must_use]
pub fn coded_head(headers: &HeaderMap, coding: Coding) -> HeaderMap {
    let mut coded = headers.clone();
    coded.remove(CONTENT_LENGTH);
    coded.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    keep_coded(&mut coded);
    coded
}

/// Makes the head of a coded form, which was updated by one of the origin, that of a coded form
/// again.
pub fn keep_coded(headers: &mut HeaderMap) {
    if let Some(tag) = strong_tag(headers) {
        let weak = [b"W/", tag.as_bytes().trim_ascii()].concat();
        // Made of a header value, so this does not fail.
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) => drop(headers.insert(ETAG, weak)),
            Err(_) => drop(headers.remove(ETAG)),
        }
    }
    vary_on_codings(headers);
    // A part of it is a part of the plain form.
    headers.remove(ACCEPT_RANGES);
}

/// The head of a coded form as the origin knows it: for conditions that it is to compare, and for
/// the comparison with its own heads.
#[must_use]
pub fn original_head(coded: &HeaderMap, had_strong_tag: bool, length: u64) -> HeaderMap {
    let mut headers = coded.clone();
    headers.remove(CONTENT_ENCODING);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let strong = headers.get(ETAG).filter(|_| had_strong_tag);
    let strong = strong.and_then(|tag| tag.as_bytes().strip_prefix(b"W/"));
    if let Some(strong) = strong.and_then(|tag| HeaderValue::from_bytes(tag).ok()) {
        headers.insert(ETAG, strong);
    }
    headers
}

/// Whether the head of an update, which confirms a coded form, leaves it what it is. Otherwise the
/// origin says by now that its bytes must stay as they are.
#[must_use]
pub fn stays_coded(update: &HeaderMap) -> bool {
    !CacheControl::from_headers(update).no_transform && !states_bytes(update)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: StatusCode = StatusCode::OK;

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn json(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = head(lines);
        headers.append("content-type", HeaderValue::from_static("application/json"));
        headers
    }

    #[test]
    fn what_must_stay_as_it_is() {
        assert_eq!(may_code(OK, &json(&[])), Ok(()));
        assert_eq!(may_code(StatusCode::NOT_FOUND, &json(&[])), Ok(()));
        assert_eq!(may_code(OK, &json(&[("content-encoding", "Identity")])), Ok(()));
        for (name, value, reason) in [
            ("content-encoding", "br", PlainReason::Coded),
            ("content-encoding", "aws-chunked", PlainReason::Coded),
            ("cache-control", "public, No-Transform", PlainReason::NoTransform),
            ("content-digest", "sha-256=:AA==:", PlainReason::Digest),
            ("content-md5", "AA==", PlainReason::Digest),
            ("digest", "md5=AA==", PlainReason::Digest),
            ("repr-digest", "sha-256=:AA==:", PlainReason::Digest),
            ("signature-input", "s=()", PlainReason::Digest),
            ("content-range", "bytes 0-1/2", PlainReason::Status),
        ] {
            assert_eq!(may_code(OK, &json(&[(name, value)])), Err(reason), "{name}");
        }
        assert_eq!(may_code(StatusCode::PARTIAL_CONTENT, &json(&[])), Err(PlainReason::Status));
        assert_eq!(may_code(StatusCode::FOUND, &json(&[])), Err(PlainReason::Status));
        for kind in ["image/png", "text/event-stream", "application/pdf"] {
            assert_eq!(may_code(OK, &head(&[("content-type", kind)])), Err(PlainReason::Type));
        }
        assert_eq!(may_code(OK, &head(&[])), Err(PlainReason::Type));
        for reason in PlainReason::ALL {
            assert!(!reason.as_str().contains(' '));
        }
    }

    #[test]
    fn each_form_of_a_response_says_that_there_are_others() {
        let varies = |mut headers: HeaderMap| {
            note_choice(OK, &mut headers);
            let lines = headers.get_all(VARY).iter();
            lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(varies(json(&[])), "Accept-Encoding");
        assert_eq!(varies(json(&[("content-encoding", "gzip")])), "Accept-Encoding");
        assert_eq!(varies(json(&[("vary", "accept")])), "accept|Accept-Encoding");
        assert_eq!(varies(json(&[("vary", "accept, accept-ENCODING")])), "accept, accept-ENCODING");
        assert_eq!(varies(json(&[("vary", "accept"), ("vary", "accept-encoding")])).len(), 22);
        assert_eq!(varies(json(&[("vary", "*")])), "*");
        assert_eq!(varies(json(&[("cache-control", "no-transform")])), "");
        assert_eq!(varies(head(&[("content-type", "image/png")])), "");
    }

    #[test]
    fn a_coded_form_has_no_strong_tag_and_gives_the_original_back() {
        for (tag, weak, is_strong) in [
            ("\"1\"", "W/\"1\"", true),
            ("W/\"1\"", "W/\"1\"", false),
            // No entity-tags.
            ("1", "1", false),
            ("\"1", "\"1", false),
        ] {
            let plain = json(&[
                ("etag", tag),
                ("content-length", "9"),
                ("accept-ranges", "bytes"),
                ("vary", "accept"),
            ]);
            assert_eq!(has_strong_tag(&plain), is_strong, "{tag}");
            let coded = coded_head(&plain, Coding::Brotli);
            assert_eq!(coded[ETAG], weak);
            assert_eq!(coded[CONTENT_ENCODING], "br");
            assert!(!coded.contains_key(CONTENT_LENGTH) && !coded.contains_key(ACCEPT_RANGES));
            assert_eq!(coded.get_all(VARY).iter().count(), 2);
            let again = original_head(&coded, is_strong, 9);
            assert_eq!(
                (&again[ETAG], &again[CONTENT_LENGTH]),
                (&plain[ETAG], &plain[CONTENT_LENGTH])
            );
            assert!(!again.contains_key(CONTENT_ENCODING));
            let mut updated = coded.clone();
            updated.insert(ETAG, HeaderValue::from_static(tag));
            keep_coded(&mut updated);
            assert_eq!(updated, coded, "as after a 304 with the origin's own tag");
        }
    }

    #[test]
    fn a_confirmation_may_forbid_what_was_done() {
        assert!(stays_coded(&head(&[("etag", "\"1\""), ("cache-control", "max-age=5")])));
        assert!(!stays_coded(&head(&[("cache-control", "no-transform")])));
        assert!(!stays_coded(&head(&[("repr-digest", "sha-256=:AA==:")])));
    }

    #[test]
    fn codings_have_their_names() {
        for coding in Coding::ALL {
            assert_eq!(Coding::named(coding.as_str().to_uppercase().as_bytes()), Some(coding));
        }
        assert_eq!(Coding::named(b"X-Gzip"), Some(Coding::Gzip));
        assert_eq!(Coding::named(b"deflate"), None);
    }
}
