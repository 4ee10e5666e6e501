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
            Self::PurgeRefused => StatusCode::FORBIDDEN,
            // These let the origin's response through. A request that fails with one of them has
            // lost that response on its way, which only a fault of the sidecar can cause.
            Self::NoRoute
            | Self::UnmetMatch
            | Self::Method
            | Self::ModeOff
            | Self::SwitchedOff
            | Self::Shadow
            | Self::NotInShare
            | Self::MissingField
            | Self::UnkeyedHeader
            | Self::WithheldHeader
            | Self::FillRefused
            | Self::ContentCoding
            | Self::AmbiguousPath
            | Self::AmbiguousQuery
            | Self::AmbiguousMatch
            | Self::AmbiguousCookie
            | Self::UnverifiedToken
            | Self::TokenKeysUnavailable
            | Self::RequestBody
            | Self::AmbiguousBody
            | Self::BodyTooLarge
            | Self::Range
            | Self::Precondition
            | Self::Upgrade
            | Self::ConnectionLogin
            | Self::NoHost
            | Self::MethodOverride
            | Self::DeclaredWrite
            | Self::PurgeRequest
            | Self::MutationPending
            | Self::Handover
            | Self::RequestNoStore
            | Self::KeyTooLong
            | Self::NotStored
            | Self::Expired
            | Self::StaleWhileRevalidate
            | Self::Purged
            | Self::NotAdmitted
            | Self::CredentialUnconfirmed
            | Self::RequestNoCache
            | Self::VaryMiss
            | Self::NoStore
            | Self::Private
            | Self::NoCache
            | Self::NoFreshness
            | Self::StaleOnArrival
            | Self::SetCookie
            | Self::SessionChanged
            | Self::SessionRenewal
            | Self::GuestsDiffer
            | Self::GuestsUncompared
            | Self::VaryStar
            | Self::Status
            | Self::Authorization
            | Self::TooLarge
            | Self::Truncated
            | Self::Unframed
            | Self::EventStream
            | Self::Trailers
            | Self::TooManyTags
            | Self::TagsUnread
            | Self::TagBodyTooLarge
            | Self::PurgedDuringFill
            | Self::StoreFailed
            | Self::Unverifiable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
