//! The memory tier stays within its size, whatever is requested.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::support::{Client, Origin, Response, Sidecar};

const MIB: u64 = 1024 * 1024;
const SIZE: u64 = 64 * MIB;
const RULES: &str = "[memory]\nsize = \"64MiB\"\n[[routes]]\npath = \"/obj/{id}\"\nttl = \
    \"1h\"\nscope = \"public\"\n";

async fn ask_for(address: SocketAddr, ids: std::ops::Range<u64>) {
    let mut client = Client::new(address);
    for id in ids {
        let reply = client.get(&format!("/obj/{id}"), &[]).await;
        assert_eq!(reply.status, 200, "{id}: {}", reply.text());
    }
}

/// Requests each id of the range once, from 16 concurrent clients.
async fn ask_for_all(address: SocketAddr, ids: std::ops::Range<u64>) {
    const CLIENTS: u64 = 16;
    let share = (ids.end - ids.start).div_ceil(CLIENTS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let start = ids.start + number * share;
            tokio::spawn(ask_for(address, start..(start + share).min(ids.end)))
        })
        .collect();
    for client in clients {
        client.await.expect("every request is answered");
    }
}

async fn stays_within_its_size(keys: u64, body: Vec<u8>) {
    let body = Bytes::from(body);
    let app = Origin::start(move |_| Response::ok(body.clone()));
    let sidecar = Sidecar::spawn(app.address, RULES).await;
    // The memory of connections, buffers and the program itself does not belong to the cache.
    ask_for_all(sidecar.address, 0..1_000).await;
    let before = sidecar.resident();
    ask_for_all(sidecar.address, 1_000..keys).await;
    let grown = sidecar.resident().saturating_sub(before);
    println!("{keys} keys: from {} to {} MiB", before / MIB, (before + grown) / MIB);
    assert!(
        grown <= SIZE + SIZE / 5,
        "grown by {} MiB with a cache of {} MiB",
        grown / MIB,
        SIZE / MIB
    );
    // The cache is in use: what was stored last is still there.
    let last = Client::new(sidecar.address).get(&format!("/obj/{}", keys - 1), &[]).await;
    let again = Client::new(sidecar.address).get(&format!("/obj/{}", keys - 1), &[]).await;
    assert!(last.cache() == "HIT" || again.cache() == "HIT", "{}", again.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stay_within_the_memory_tiers_size() {
    // 3,000 bodies of 64 KiB are three times what fits.
    stays_within_its_size(3_000, vec![b'x'; 64 * 1024]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute of all processors: `tests/run --all` runs it"]
async fn heavy_a_million_tiny_bodies_stay_within_the_memory_tiers_size() {
    stays_within_its_size(1_000_000, b"tiny".to_vec()).await;
}
