//! An origin that a test directs as it goes, with a sidecar in front of it: each test says what the
//! origin answers now, what is asked, and looks at what the origin got to see. Both go by one
//! clock, which a test moves forward instead of waiting.

use std::time::Duration;

use bytes::Bytes;
use sidecache::app::Clock;

use super::client::{Client, Reply};
use super::http1;
use super::origin::{Hold, Origin, Point, Request, Response};
use super::sidecar::Sidecar;

/// The origin and the sidecar. Dropping it ends both.
pub struct Scene {
    /// The sidecar.
    pub sidecar: Sidecar,
    /// The clock of both.
    pub clock: Clock,
    /// The origin.
    pub origin: Origin,
}

impl Scene {
    /// A sidecar with these tables, in front of an origin that answers so until it is told
    /// otherwise.
    pub async fn start(
        rules: &str,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(&[], rules, handler).await
    }

    /// The same with these lines in tables that the sidecar's file has anyway, such as
    /// `[upstream]`, or at its top, which has no name.
    pub async fn start_with(
        more: &[(&str, &str)],
        rules: &str,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let (origin, clock) = (Origin::start(handler), Clock::manual());
        origin.follow(&clock);
        let sidecar = Sidecar::start_with(clock.clone(), origin.address, more, rules).await;
        Self { sidecar, clock, origin }
    }

    /// From now on the origin answers so.
    pub fn answers(&self, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) {
        self.origin.answers(handler);
    }

    /// From now on nobody listens where the origin was, and connections that are open end at the
    /// next request.
    pub async fn origin_goes_away(&self) {
        self.answers(|_| Response::hang_up());
        self.origin.stop_listening();
        let address = self.origin.address;
        super::eventually(
            "the origin's port refuses connections",
            Duration::from_secs(5),
            || async { tokio::net::TcpStream::connect(address).await.is_err() },
        )
        .await;
    }

    /// Makes what was fresh for one second, when it was stored before this call, stale.
    pub fn until_stale(&self) {
        self.clock.advance(Duration::from_millis(1_200));
    }

    /// Holds requests of this method and path at this point.
    pub fn hold(&self, method: &str, path: &str, point: Point) -> Hold {
        self.origin.hold(method, path, point)
    }

    /// A GET without further headers, on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(path, &[]).await
    }

    /// A GET with these headers, on a connection of its own.
    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        Client::new(self.sidecar.address).get(path, headers).await
    }

    /// A GET over HTTP/2 with these headers, on a connection of its own.
    pub async fn ask_http2(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        Client::http2(self.sidecar.address).get(path, headers).await
    }

    /// Any request, on a connection of its own.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        Client::new(self.sidecar.address).send(method, path, headers, body).await
    }

    /// A first GET, which must reach the origin.
    pub async fn fill(&self, path: &str) -> Reply {
        let reply = self.get(path).await;
        assert_eq!(reply.cache(), "MISS", "{path}: {}", reply.cache_status());
        reply
    }

    /// The requests for this path, without the query, that reached the origin, in order.
    pub fn seen(&self, path: &str) -> Vec<Request> {
        self.origin.seen(path)
    }

    /// How many requests for this path reached the origin.
    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    /// The last request for this path that reached the origin.
    pub fn last(&self, path: &str) -> Request {
        self.origin.last(path)
    }
}

/// Asserts what `X-Cache` says, and shows `Cache-Status` when it does not.
#[track_caller]
pub fn assert_cache(reply: &Reply, expected: &str, case: &str) {
    assert_eq!(
        reply.cache(),
        expected,
        "{case}: {} {}",
        reply.status,
        reply.header("cache-status")
    );
}

/// The HTTP-date so many seconds from now; negative for the past.
pub fn date(offset: i64) -> String {
    http1::date(&Clock::system(), offset)
}

/// The parameters of the sidecar's own member of `Cache-Status`, which is the last.
pub fn cache_status(reply: &Reply) -> Vec<String> {
    let member = reply.header("cache-status").rsplit(", ").next().unwrap_or_default().to_owned();
    let mut parameters = member.split("; ").map(str::to_owned);
    assert_eq!(parameters.next().as_deref(), Some("sidecache"), "{}", reply.header("cache-status"));
    parameters.collect()
}

/// The `ttl` that `Cache-Status` states.
pub fn ttl(reply: &Reply) -> i64 {
    let parameters = cache_status(reply);
    let ttl = parameters.iter().find_map(|parameter| parameter.strip_prefix("ttl="));
    ttl.and_then(|ttl| ttl.parse().ok())
        .unwrap_or_else(|| panic!("no ttl in {}", reply.header("cache-status")))
}
