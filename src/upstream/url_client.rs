//! Fetches a URL now and then, within limits: one request, on a connection of its own, without
//! following redirects.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderMap, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::{
    ConnectionChoice, HostHeader, Target, Upstream, UpstreamCounters, UpstreamError,
    UpstreamLimits, UpstreamSettings, UpstreamSetupError,
};
use crate::clock::Clock;
use crate::semantics::body::Body;
use crate::shares::Requester;

/// How long a fetch may take, from the lookup of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A URL that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSource {
    /// Where to connect.
    pub target: Target,
    /// The path, with its query.
    pub path: Box<str>,
    /// PEM certificates of the authorities to trust for `https`, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What was answered to a POST, whatever its status.
#[derive(Debug)]
pub struct UrlAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It took too long.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// There was no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Another status than 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The body is too large, or broke off.
    #[error("the answer is larger than {0} KiB, or broke off")]
    Body(usize),
    /// There is no request for this URL.
    #[error("the URL cannot be requested")]
    Url,
}

/// Fetches one URL.
#[derive(Debug)]
pub struct UrlClient {
    source: UrlSource,
    client: Upstream,
    max_bytes: usize,
}

impl UrlClient {
    /// A client that has not connected yet. Answers may be `max_bytes` long.
    ///
    /// # Errors
    /// When the authorities cannot be loaded, or the host is none.
    pub fn new(
        source: UrlSource,
        max_bytes: usize,
        clock: Clock,
    ) -> Result<Self, UpstreamSetupError> {
        let limits = UpstreamLimits { pinned: 0, stall: TIMEOUT };
        let client =
            Upstream::new(settings(&source, TIMEOUT), limits, clock, UpstreamCounters::default())?;
        Ok(Self { source, client, max_bytes })
    }

    /// Fetches it.
    ///
    /// # Errors
    /// Why there is no answer of use.
    pub async fn fetch(&self, accept: &str) -> Result<Fetched, UrlError> {
        let fetched = tokio::time::timeout(TIMEOUT, Box::pin(self.exchange(accept))).await;
        fetched.unwrap_or(Err(UrlError::Timeout))
    }

    async fn exchange(&self, accept: &str) -> Result<Fetched, UrlError> {
        let request = Request::get(&*self.source.path)
            .header(HOST, &*self.source.target.authority)
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, "sidecache")
            .body(Body::empty())
            .map_err(|_| UrlError::Url)?;
        let choice = ConnectionChoice::LastUse;
        let response =
            self.client.send_for(&choice, &Requester::default(), Box::new(request)).await?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(UrlError::Status(head.status));
        }
        let body = Limited::new(body, self.max_bytes).collect().await;
        let body = body.map_err(|_| UrlError::Body(self.max_bytes / 1024))?.to_bytes();
        Ok(Fetched { headers: head.headers, body })
    }
}

impl UrlClient {
    /// Posts to a path of the same server.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<UrlAnswer, UrlError> {
        let posted = self.exchange_post(path, headers, body);
        let posted = tokio::time::timeout(TIMEOUT, Box::pin(posted)).await;
        posted.unwrap_or(Err(UrlError::Timeout))
    }

    async fn exchange_post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<UrlAnswer, UrlError> {
        let mut request = Request::post(path).body(Body::full(body)).map_err(|_| UrlError::Url)?;
        let authority = HeaderValue::try_from(&*self.source.target.authority);
        *request.headers_mut() = headers;
        let own = request.headers_mut();
        own.insert(HOST, authority.map_err(|_| UrlError::Url)?);
        own.insert(ACCEPT, HeaderValue::from_static("application/json"));
        own.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        own.insert(USER_AGENT, HeaderValue::from_static("sidecache"));
        let choice = ConnectionChoice::LastUse;
        let response =
            self.client.send_for(&choice, &Requester::default(), Box::new(request)).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.max_bytes).collect().await;
        let body = body.map_err(|_| UrlError::Body(self.max_bytes / 1024))?.to_bytes();
        Ok(UrlAnswer { status: head.status, headers: head.headers, body })
    }
}

/// The settings of a client for one URL, which is not asked often: no connection is kept.
pub(super) fn settings(source: &UrlSource, timeout: Duration) -> UpstreamSettings {
    UpstreamSettings {
        target: source.target.clone(),
        host: HostHeader::Upstream,
        connect_timeout: timeout,
        first_byte_timeout: timeout,
        idle_timeout: timeout,
        tunnel_timeout: timeout,
        keep_alive: Duration::ZERO,
        max_age: timeout,
        max_connections: 1,
        max_tunnels: 0,
        max_waiting: 1,
        wait_timeout: timeout,
        max_header_bytes: 16 * 1024,
        max_interim_bytes: 16 * 1024,
        max_headers: 100,
        upgrades: Box::default(),
        reuse_after_body: false,
        via: false,
        title_case_headers: false,
        user_agent: HeaderValue::from_static("sidecache"),
        ca_file: source.ca_file.clone(),
    }
}
