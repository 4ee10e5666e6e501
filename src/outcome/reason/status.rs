//! The statuses of responses that the sidecar makes itself.

use http::StatusCode;

use super::Reason;

impl Reason {
    /// The status of the response that the sidecar makes itself when a request fails for this
    /// reason.
    #[must_use]
    pub fn failure_status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::NotHttp => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpstreamUnreachable | Self::UpstreamProtocolError | Self::UpstreamError => {
                StatusCode::BAD_GATEWAY
            }
            Self::UpstreamBusy
            | Self::TooManyTunnels
            | Self::WriteRefused
            | Self::CacheUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            // For the log alone: nobody gets it.
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::UpstreamTimeout | Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::WebhookRefused => StatusCode::UNAUTHORIZED,
            Self::PurgeRefused => StatusCode::FORBIDDEN,
            // These let the origin's response through. A request that fails with one of them has
            // lost that response on its way, which only a fault of the sidecar can cause.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
