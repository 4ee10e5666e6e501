//! A sidecar without listeners: requests are handed to its flow, and what it knows can be asked
//! for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use sidecache::app::{Clock, Sidecar};
use sidecache::config::Config;
use sidecache::internals::metrics::MetricsFormat;
use sidecache::internals::{Body, ClientConnection, ClientPeer, Proxy, RouteReport, ShadowReport};
use tokio_util::sync::CancellationToken;

use super::client::Reply;

/// The flow of a sidecar. Dropping it ends what it does in the background.
pub struct Flow {
    /// The flow.
    pub proxy: Arc<Proxy>,
    /// Its clock, which can be moved forward.
    pub clock: Clock,
    stop: CancellationToken,
}

impl Flow {
    /// A sidecar with these tables of proxy.toml besides `[upstream]`. With Redis it has joined and
    /// holds a lease.
    pub async fn start(app: SocketAddr, rules: &str) -> Self {
        Self::of(&format!("[upstream]\nurl = \"http://{app}\"\n{rules}")).await
    }

    /// A sidecar with this proxy.toml.
    pub async fn of(text: &str) -> Self {
        let mut config = Config::parse(text, "proxy.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (clock, stop) = (Clock::manual(), CancellationToken::new());
        let sidecar =
            Sidecar::new(&mut config, clock.clone()).unwrap_or_else(|error| panic!("{error}"));
        let proxy = sidecar.proxy;
        if proxy.coherence.records().is_some() {
            tokio::spawn(Arc::clone(&proxy.coherence).drive(stop.clone()));
            proxy.coherence.wait_for_lease().await;
        }
        Self { proxy, clock, stop }
    }

    /// Any request, and the head of its response.
    pub async fn open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(target).header("host", "app.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::full(body)).expect("a test's request is well-formed");
        let peer = ClientPeer { addr: Ipv4Addr::LOCALHOST.into(), trusted: false };
        self.proxy.handle(request, &ClientConnection::new(peer), None).await
    }

    /// Any request, and its whole response. One that breaks off has an empty body.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let (head, body) = self.open(method, target, headers, body).await.into_parts();
        let body =
            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Reply::new(head.status.as_u16(), head.headers, body)
    }

    /// A GET.
    pub async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", target, headers, "").await
    }

    /// What shadow mode has found.
    pub fn report(&self) -> ShadowReport {
        let live = self.proxy.active_config();
        self.proxy.shadow.report(&live.rules)
    }

    /// What it has found of one route.
    pub fn route(&self, name: &str) -> RouteReport {
        let report = self.report();
        report
            .routes
            .iter()
            .find(|route| route.route == name)
            .cloned()
            .unwrap_or_else(|| panic!("{name} is not in {report:?}"))
    }

    /// A line of the metrics, by its name and labels.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.proxy.metrics.encode_as(MetricsFormat::Text);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in {text}")).parse().expect("a whole number")
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
