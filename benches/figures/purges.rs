//! How long a purge takes: of a tag, by the number of its entries in memory, and of a write with
//! three sidecars.

use std::time::Duration;

use sidecache::app::Clock;
use sidecache::internals::{Coherence, Tag};

use crate::print;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, RedisServer, Sidecar, eventually};

/// A tag of ten entries beside one of a million.
pub async fn of_tags_in_memory() {
    let clock = Clock::system();
    let coherence = Coherence::new(None, clock.clone());
    for (name, entries) in [("ten", 10), ("a-million", 1_000_000)] {
        let tags = [Tag::new(name)];
        let mut proofs = Vec::with_capacity(entries);
        for _ in 0..entries {
            let read = coherence.read_local(&tags);
            proofs.push(coherence.commit(&read, &tags, Duration::from_mins(1)).await);
        }
        let mut times = Vec::new();
        for _ in 0..201 {
            let began = clock.now();
            coherence.purge(&tags).await;
            times.push(clock.now() - began);
        }
        print(&format!("purge of a tag of {name} entries"), times);
    }
}

/// Writes through one of three sidecars, without and with a guard.
pub async fn acknowledged_by_three() {
    for (name, lines) in [("a write", ""), ("a guarded write", "writes = \"refuse\"\n")] {
        let (redis, origin) = (RedisServer::start(), Origin::start(versioned()));
        let rules = format!("{}{lines}{VERSIONED_RULES}", redis.table());
        let mut sidecars = Vec::new();
        for _ in 0..3 {
            sidecars.push(Sidecar::spawn(origin.address, &rules).await);
        }
        for sidecar in &sidecars {
            eventually("it has a lease", Duration::from_secs(10), async || {
                sidecar.stats().await["redis"]["peers"] == 2
            })
            .await;
        }
        let mut client = Client::new(sidecars[0].address);
        let mut times = Vec::new();
        for _ in 0..200 {
            let began = clock().now();
            assert_eq!(client.send("PUT", "/w/a", &[], "").await.status, 200);
            times.push(clock().now() - began);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        print(&format!("{name} that two others acknowledge"), times);
    }
}

fn clock() -> Clock {
    Clock::system()
}
