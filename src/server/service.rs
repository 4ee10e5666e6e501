//! What the server hands requests to.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;

/// What the server calls for each request. It never fails: failures are responses.
pub trait Service: Send + Sync + 'static {
    /// Answers a request.
    ///
    /// Write it as an `async fn`: a panic of the future becomes a 500, one before the future ends
    /// the connection. The future is dropped when the client goes. A request body that stalls gives
    /// an [`std::io::Error`] of kind [`std::io::ErrorKind::TimedOut`].
    fn call(
        self: &Arc<Self>,
        request: Request<Body>,
        peer: ClientPeer,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// The answer for a message that broke the framing rules, for too many connections, and for a
    /// panic. Its body must be bytes at hand. The server adds `Connection: close` where the
    /// connection ends.
    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body>;
}
