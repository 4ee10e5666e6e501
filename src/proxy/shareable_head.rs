//! What of the head of a response others than its caller may get.

use http::header::{HeaderMap, SET_COOKIE};

/// The head of a response as others than its caller may get it: what is stored, and what the
/// followers of a fill get. It has no cookies, which are the caller's.
#[derive(Clone, Debug)]
pub struct ShareableHead(HeaderMap);

impl ShareableHead {
    /// This head, without what is the caller's.
    #[must_use]
    pub fn new(mut headers: HeaderMap) -> Self {
        headers.remove(SET_COOKIE);
        Self(headers)
    }

    /// Its fields.
    #[must_use]
    pub const fn fields(&self) -> &HeaderMap {
        &self.0
    }
}
