//! What the server calls for each request.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};

use crate::semantics::body::Body;
use crate::semantics::forward::{BadRequest, ClientPeer, UnreadHead};
use crate::shares::Departure;

/// What the server calls for each request. It never fails: failures are responses.
pub trait Service: Send + Sync + 'static {
    /// What the service knows of one client connection. Dropped when the connection ends, or with
    /// the last of its requests.
    type Client: Send + Sync + 'static;

    /// What the service has found of a request that it does not answer at once.
    type Found: Default + Send;

    /// A client has connected. The service says there which of its requests may be given up when
    /// it leaves, each while the request is handled.
    fn connect(&self, peer: ClientPeer, departure: &Arc<Departure>) -> Self::Client;

    /// Answers a request without a body and without a flaw at once, if that needs nothing to wait
    /// for.
    ///
    /// # Errors
    /// It is for [`Self::call`], with what was found of it.
    fn call_at_once(&self, _: &Parts, _: &Self::Client) -> Result<Response<Body>, Self::Found> {
        Err(Self::Found::default())
    }

    /// Handles a request. One with a flaw has no body and must be refused.
    ///
    /// All that it does is for its future to do: a panic inside the future becomes a 500, a panic
    /// before the future exists ends the connection. The future is dropped when the client goes
    /// away. A request body that stalls yields an [`std::io::Error`] of kind
    /// [`std::io::ErrorKind::TimedOut`].
    fn call(
        self: &Arc<Self>,
        request: Request<Body>,
        client: &Self::Client,
        flaw: Option<BadRequest>,
        found: Self::Found,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// The response to a request whose head could not be read. Its body must be in memory; it is
    /// left out where the request is a HEAD.
    fn reject(&self, head: &UnreadHead, client: &Self::Client) -> Response<Body>;

    /// The response to one connection too many, and after a panic. Its body must be in memory. The
    /// server adds `Connection: close` where the connection ends.
    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body>;
}
