//! The HTTP client of the exporter: a connection for each batch, within a time.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::telemetry::trace::TraceSettings;

/// How long the collector may take for a batch.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Sends batches to the collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    host: Box<str>,
    port: u16,
    authority: Box<str>,
    /// Why the last batch was not taken, in words.
    failure: Mutex<Option<String>>,
}

impl CollectorClient {
    pub(super) fn new(settings: &TraceSettings) -> Self {
        Self {
            host: settings.host.clone(),
            port: settings.port,
            authority: settings.authority.clone(),
            failure: Mutex::default(),
        }
    }

    /// Why the last batch was not taken.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.lock().take()
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        let broken = |error: hyper::Error| format!("the connection broke: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
        let host = HeaderValue::from_str(&self.authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        let answer = sender.send_request(request.map(Full::new)).await.map_err(broken)?;
        let (parts, body) = answer.into_parts();
        if !parts.status.is_success() {
            return Err(format!("it answered {}", parts.status));
        }
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| format!("its answer cannot be read: {error}"))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = tokio::time::timeout(BATCH_TIMEOUT, self.send(request)).await;
        let answer = answer
            .unwrap_or_else(|_| Err(format!("no answer within {}s", BATCH_TIMEOUT.as_secs())));
        answer.map_err(|failure| {
            *self.failure.lock() = Some(failure.clone());
            failure.into()
        })
    }
}
