//! The demo's origin (`src/cli/demo/app.rs`), without its pauses.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::app;

/// Starts it, and returns where it listens and what it counts.
pub async fn demo() -> (SocketAddr, app::Stats) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let settings = app::Settings { latency: 0.0, ..app::Settings::default() };
    let stats = settings.stats.clone();
    tokio::spawn(app::serve(listener, settings, std::future::pending::<()>()));
    (address, stats)
}
