//! Fetches the public keys of an issuer (a JWKS), within limits: one request, on a connection of
//! its own, without following redirects.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::url_client::{UrlSource, settings};
use super::{
    ConnectionChoice, Upstream, UpstreamCounters, UpstreamError, UpstreamLimits, UpstreamSetupError,
};
use crate::clock::Clock;
use crate::semantics::body::Body;
use crate::shares::Requester;

/// How long a fetch may take, from the lookup of the name to the last byte.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches keys.
#[derive(Debug)]
pub struct JwksClient {
    source: UrlSource,
    client: Upstream,
    max_bytes: usize,
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It took too long.
    #[error("the issuer did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// There was no response.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The response was none with keys.
    #[error("the issuer answered {0}")]
    Status(StatusCode),
    /// The body is encoded, although nothing of that kind was accepted.
    #[error("the issuer's answer has a content coding")]
    Encoded,
    /// The body is too large, or broke off.
    #[error("the issuer's answer is larger than {0} KiB, or broke off")]
    Body(usize),
    /// There is no request for this URL.
    #[error("the URL of the keys cannot be requested")]
    Url,
}

impl JwksClient {
    /// A client that has not connected yet. Keys may be `max_bytes` long.
    ///
    /// # Errors
    /// When the authorities cannot be loaded, or the host is none.
    pub fn new(
        source: UrlSource,
        max_bytes: usize,
        clock: Clock,
    ) -> Result<Self, UpstreamSetupError> {
        let settings = settings(&source, FETCH_TIMEOUT);
        let limits = UpstreamLimits { pinned: 0, stall: FETCH_TIMEOUT };
        let client = Upstream::new(settings, limits, clock, UpstreamCounters::default())?;
        Ok(Self { source, client, max_bytes })
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn fetch(&self) -> Result<Bytes, FetchError> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.exchange()).await;
        fetched.unwrap_or(Err(FetchError::Timeout))
    }

    async fn exchange(&self) -> Result<Bytes, FetchError> {
        let request = Request::get(&*self.source.path)
            .header(HOST, &*self.source.target.authority)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, "sidecache")
            .body(Body::empty())
            .map_err(|_| FetchError::Url)?;
        // A JWKS is fetched once in minutes, so no connection is kept.
        let choice = ConnectionChoice::LastUse;
        let response =
            self.client.send_for(&choice, &Requester::default(), Box::new(request)).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status));
        }
        let identity = HeaderValue::from_static("identity");
        if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| *coding != identity) {
            return Err(FetchError::Encoded);
        }
        let body = Limited::new(body, self.max_bytes).collect().await;
        Ok(body.map_err(|_| FetchError::Body(self.max_bytes / 1024))?.to_bytes())
    }
}
