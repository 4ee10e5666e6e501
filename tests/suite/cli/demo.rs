//! The tour that the demo prints holds: the same app, the shipped proxy.toml, the same requests.

use std::path::Path;

use crate::guide;
use crate::support::demo::demo;
use crate::support::{Client, Sidecar};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_the_tour_is_as_printed() {
    let (app_address, stats) = demo().await;
    let sidecar = Sidecar::start_shipped(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml"),
        app_address,
    )
    .await;

    let mut client = Client::new(sidecar.address);
    let mut asked = 0;
    for (number, step) in guide::STEPS.iter().enumerate() {
        let authorization = step.token.map(|token| format!("Bearer {token}"));
        let mut headers = Vec::new();
        headers.extend(step.tenant.map(|tenant| ("x-tenant-id", tenant)));
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(step.body.map(|_| ("content-type", "application/json")));
        // What curl sends of its own accord.
        headers.extend([("user-agent", "curl/8.0"), ("accept", "*/*")]);
        let reply =
            client.send(step.method, step.path, &headers, step.body.unwrap_or_default()).await;
        let context =
            format!("step {number}, {}: {} {}", step.title, reply.cache_status(), reply.text());
        assert_eq!((reply.status, reply.cache()), (step.status, step.cache), "{context}");
        assert!(reply.text().contains(step.contains), "{context}");
        // A refused fill is repeated as a pass.
        asked += if step.status == 401 { 2 } else { u64::from(step.cache != "HIT") };
    }
    assert_eq!(
        stats.snapshot().values().sum::<u64>(),
        asked,
        "hits do not reach the app, all else does once, and a refusal twice"
    );

    // A refusal passes each time.
    for _ in 0..2 {
        let refused =
            client.get("/api/v1/campaigns?page=1&limit=3", &[("x-tenant-id", "acme")]).await;
        assert_eq!((refused.status, refused.cache()), (401, "BYPASS"));
    }
}

#[test]
fn tour_names_the_addresses_in_use() {
    let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let text = guide::text(address(1), address(2), address(3));
    for part in
        ["http://127.0.0.1:1/api/v1/campaigns", "http://127.0.0.1:2", "http://127.0.0.1:3/stats"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}
