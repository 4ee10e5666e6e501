//! What the requests of all fills have in common, in place of what a client would say of itself.

use http::HeaderValue;

use crate::semantics::forward::NOBODYS_ADDRESS;

/// The address that the origin receives in place of the client's.
pub const FILL_ADDRESS: &str = NOBODYS_ADDRESS;

/// The `User-Agent` of fills without a client's own, unless `[upstream] user_agent` names another:
/// that of an ordinary browser, so that origins give their ordinary page.
pub const FILL_USER_AGENT: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// What all fills have in common.
#[derive(Clone, Debug)]
pub struct FillConstants {
    /// The `User-Agent` of fills without a client's own.
    pub user_agent: HeaderValue,
    /// The `Host` that the origin receives in place of the client's.
    pub host: Option<HeaderValue>,
    /// Whether the origin is told in `Via` that the sidecar stands in between.
    pub via: bool,
}

impl Default for FillConstants {
    fn default() -> Self {
        Self { user_agent: HeaderValue::from_static(FILL_USER_AGENT), host: None, via: false }
    }
}
