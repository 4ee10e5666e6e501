//! What the server calls for each request.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;

/// What the server calls for each request. It never fails: failures are responses.
pub trait Service: Send + Sync + 'static {
    /// Handles a request.
    ///
    /// Write it as an `async fn`: a panic inside the future becomes a 500, a panic before the
    /// future exists ends the connection. The future is dropped when the client goes away. A
    /// request body that stalls yields an [`std::io::Error`] of kind
    /// [`std::io::ErrorKind::TimedOut`].
    fn call(
        self: &Arc<Self>,
        request: Request<Body>,
        peer: ClientPeer,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// The response to a message that breaks the framing rules, to one connection too many, and
    /// after a panic. Its body must be in memory. The server adds `Connection: close` where the
    /// connection ends.
    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body>;
}
