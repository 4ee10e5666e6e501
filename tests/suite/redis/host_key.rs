//! Two sidecars on two ports of one machine, each reached by its own port.

use std::time::Duration;

use serde_json::json;
use sidecache::app::Clock;

use crate::support::origin::VERSIONED_RULES;
use crate::support::{Client, Origin, RedisServer, Response, Sidecar, eventually};

/// A client that asks for the host that it connects to, as curl does.
fn curl(sidecar: &Sidecar) -> Client {
    Client::of_admin(sidecar.address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_share_by_the_host_that_stands_for_all() {
    for (key, expected) in [("", "MISS"), ("host_key = \"app.test\"", "HIT")] {
        let app = Origin::start(|request| Response::ok(request.header("host").unwrap_or_default()));
        let redis = RedisServer::start();
        let rules = format!("{}\n{VERSIONED_RULES}", redis.table());
        let more = [("[upstream]", key)];
        let [first, second] = [
            Sidecar::start_with(Clock::system(), app.address, &more, &rules).await,
            Sidecar::start_with(Clock::system(), app.address, &more, &rules).await,
        ];
        let mut probe = 0;
        eventually("sidecars of one name share", Duration::from_secs(10), || {
            probe += 1;
            let (path, [one, two]) = (format!("/v/{probe}"), [first.address, second.address]);
            async move {
                Client::new(one).get(&path, &[]).await;
                Client::new(two).get(&path, &[]).await.cache() == "HIT"
            }
        })
        .await;
        let made = curl(&first).get("/v/a", &[]).await;
        assert_eq!(made.cache(), "MISS");
        let read = curl(&second).get("/v/a", &[]).await;
        assert_eq!(read.cache(), expected, "{key}");
        if key.is_empty() {
            continue;
        }
        assert_eq!([made.text(), read.text()], ["app.test"; 2], "no client's own host");
        let passed = curl(&first).get("/elsewhere", &[]).await;
        assert_eq!(passed.text(), first.address.to_string(), "what is passed keeps it");
        // A purge by any of its URLs, and a write through any port.
        let url = format!("http://{}/v/a", second.address);
        second.admin_ok("/purge", &json!({ "urls": [url] })).await;
        assert_eq!(curl(&first).get("/v/a", &[]).await.cache(), "MISS");
        assert_eq!(curl(&second).get("/v/a", &[]).await.cache(), "HIT");
        assert_eq!(curl(&second).send("PUT", "/v/a", &[], "x").await.status, 200);
        assert_eq!(curl(&first).get("/v/a", &[]).await.cache(), "MISS");
    }
}
