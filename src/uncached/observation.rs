//! What is noted of one request that no route matches: names, numbers and keyed hashes, no values.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderName, SET_COOKIE, VARY,
};
use http::{Method, StatusCode};

use crate::semantics::cache_control::CacheControl;
use crate::uncached::sample::SampledRead;
use crate::uncached::trail::TrailFacts;

/// The longest path that is looked at, in bytes.
pub const MAX_PATH: usize = 512;
/// The most names of query parameters that are kept of a request, and the longest one, in bytes.
pub const MAX_PARAMETERS: usize = 8;
pub const MAX_PARAMETER: usize = 32;
/// The most names of headers that are kept of a request, and the longest one, in bytes.
pub const MAX_HEADERS: usize = 24;
pub const MAX_HEADER: usize = 64;

/// A request, and its response from the app.
#[derive(Clone, Debug)]
pub struct UnroutedNote {
    /// Its path, at most [`MAX_PATH`] bytes; empty if it is longer.
    pub path: Box<str>,
    /// What it was.
    pub request: RequestFacts,
    /// When the response began, in milliseconds from some start.
    pub at: u64,
    /// How long the app took for it.
    pub took: Duration,
    /// What the head of its response says.
    pub response: ResponseFacts,
    /// A keyed hash of the response, if one was made.
    pub digest: Option<u64>,
    /// What the trail remembers of it, if there is one.
    pub trail: Option<Box<TrailFacts>>,
}

/// What is noted of a request.
#[derive(Clone, Debug)]
pub enum RequestFacts {
    /// A GET or HEAD.
    Read(ReadFacts),
    /// A write.
    Write(Method),
}

/// What is noted of a read.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign, and they are counted")]
pub struct ReadFacts {
    /// A keyed hash of method, host, path and query.
    pub key: u64,
    /// How it counts.
    pub sample: SampledRead,
    /// A keyed hash of what identifies its caller; 0 for nobody.
    pub caller: u64,
    /// It has `Authorization`, or a header of `[credential]`.
    pub has_credential: bool,
    /// It has cookies.
    pub has_cookies: bool,
    /// It has a JWT in `Authorization`, by its looks.
    pub has_jwt: bool,
    /// One of its cookies protects forms.
    pub guards_forms: bool,
    /// The names of its query parameters.
    pub parameters: Vec<Box<str>>,
    /// The names of its headers.
    pub headers: Vec<HeaderName>,
}

/// What is noted of the head of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign, and they are counted")]
pub struct ResponseFacts {
    /// The status.
    pub status: u16,
    /// It sets a cookie.
    pub sets_cookie: bool,
    /// It sets no other cookie than the session of the request, signed anew.
    pub renews_session: bool,
    /// It sets a cookie that protects forms.
    pub guards_forms: bool,
    /// `Cache-Control: no-store`.
    pub no_store: bool,
    /// `Cache-Control: no-cache`, or `max-age=0`.
    pub no_cache: bool,
    /// `Cache-Control: private`.
    pub private: bool,
    /// `Vary: *`.
    pub varies_on_all: bool,
    /// A page.
    pub is_html: bool,
    /// An event stream.
    pub is_stream: bool,
    /// A download.
    pub is_attachment: bool,
    /// The page was read to its end, and no form in it has a token.
    pub has_no_form: bool,
}

impl ResponseFacts {
    /// What the head of a response says.
    #[must_use]
    pub fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let is = |name: &HeaderName, prefix: &str| {
            headers.get(name).is_some_and(|value| starts_with(value.as_bytes(), prefix))
        };
        let cache = if headers.contains_key(CACHE_CONTROL) {
            CacheControl::from_headers(headers)
        } else {
            CacheControl::default()
        };
        let mut cookies = headers.get_all(SET_COOKIE).iter();
        Self {
            status: status.as_u16(),
            sets_cookie: headers.contains_key(SET_COOKIE),
            renews_session: false,
            guards_forms: cookies.any(|cookie| guards_forms(cookie.as_bytes())),
            no_store: cache.no_store,
            no_cache: cache.no_cache || cache.max_age == Some(Duration::ZERO),
            private: cache.private,
            varies_on_all: headers
                .get_all(VARY)
                .iter()
                .any(|value| value.as_bytes().contains(&b'*')),
            is_html: is(&CONTENT_TYPE, "text/html") || is(&CONTENT_TYPE, "application/xhtml"),
            is_stream: is(&CONTENT_TYPE, "text/event-stream")
                || is(&CONTENT_TYPE, "multipart/x-mixed-replace"),
            is_attachment: is(&CONTENT_DISPOSITION, "attachment"),
            has_no_form: false,
        }
    }

    /// Whether the app has found what was asked for, so that the path deserves a place.
    #[must_use]
    pub const fn is_found(&self) -> bool {
        matches!(self.status, 101 | 200..=299 | 304)
    }
}

fn starts_with(value: &[u8], prefix: &str) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Whether a `Cookie` or `Set-Cookie` header names a cookie that protects forms.
#[must_use]
pub fn guards_forms(cookies: &[u8]) -> bool {
    const SIGNS: [&[u8]; 3] = [b"csrf", b"xsrf", b"antiforgery"];
    SIGNS.iter().any(|sign| cookies.windows(sign.len()).any(|part| part.eq_ignore_ascii_case(sign)))
}
