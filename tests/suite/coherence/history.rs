//! No read is stale, whatever breaks: the histories of runs in which readers and writers use three
//! sidecars, while Redis, the network and the sidecars themselves are killed, frozen and cut off.
//!
//! A read is stale when its value is older than one whose write had been answered before the read
//! was sent; see `support/history.rs`. Each run takes some seconds. To stage each fault again and
//! again for ten minutes each:
//!
//! ```sh
//! SIDECACHE_SOAK=600 cargo nextest run --profile soak -E 'test(/^coherence::history::/)'
//! ```
//!
//! Staged here: one Redis, by itself. Sentinel and Cluster (failover that loses answered writes,
//! demotion without a disconnect, slot migration) need other servers behind the same proxies: they
//! are further runs of the same [`stage::Stage`].
//!
//! Time is part of what is staged here: the pauses say how long a fault lasts, or how fast readers
//! and writers go.

mod checker;
mod far;
mod network;
mod proxy;
mod redis;
mod redis_dead;
mod sidecars;
mod stage;
mod starved;
mod verdict;

use std::time::Duration;

use tokio::time::sleep;

use stage::Stage;

/// Nothing that is not proven is served: of such a run no read may be stale.
const STRICT: &str = "on_redis_loss = \"bypass\"";

/// How long what is frozen stays so: longer than the second of silence that is a loss of Redis and a
/// lease of two seconds, for which a write waits then.
const LONG: Duration = Duration::from_secs(5);

/// What a sidecar that was cut off has made good after it can reach Redis again.
const REJOIN: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_all_is_well() {
    let run = Stage::set(STRICT).await.run(async |_| sleep(LONG).await).await;
    run.is_coherent();
    // Otherwise it would be no wonder: without a cache everything is fresh.
    let counts = run.history.counts(None);
    assert!(
        counts.hits * 4 > counts.reads,
        "less than a quarter of the reads were hits: {counts:?}"
    );
}
