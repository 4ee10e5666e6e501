//! Readers that ask again and again while somebody else changes the data: what they may still see,
//! and how soon a change is seen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::shop::{CAMPAIGNS, PATIENCE, read};
use crate::support::Client;

/// How long a change may stay unseen.
const BOUND: Duration = Duration::from_secs(1);

/// How many changes are made: what `SIDECACHE_CHANGES` says, or so many.
pub fn changes(usual: usize) -> usize {
    std::env::var("SIDECACHE_CHANGES").map_or(usual, |text| text.parse().expect("a number"))
}

/// The readers, and what was seen.
pub struct Hammer {
    /// How many changes are to be made.
    pub changes: usize,
    /// What must be seen of each campaign: versions that were committed at least a second ago.
    committed: Arc<Vec<AtomicI64>>,
    ended: Arc<AtomicBool>,
    readers: Vec<JoinHandle<u64>>,
    client: Client,
    took: Vec<Duration>,
}

impl Hammer {
    /// Four readers of all campaigns.
    pub fn start(address: SocketAddr, changes: usize) -> Self {
        let committed: Vec<_> = (0..CAMPAIGNS).map(|_| AtomicI64::new(1)).collect();
        let (committed, ended) = (Arc::new(committed), Arc::<AtomicBool>::default());
        let readers = (0..4)
            .map(|_| tokio::spawn(hammer(address, Arc::clone(&committed), Arc::clone(&ended))))
            .collect();
        let client = Client::new(address);
        Self { changes, committed, ended, readers, client, took: Vec::with_capacity(changes) }
    }

    /// A campaign has this version since then: returns when it is seen.
    pub async fn changed(&mut self, id: i32, version: i64, began: Instant) {
        let path = format!("/campaigns/{id}");
        while read(&mut self.client, &path).await.0 < version {
            assert!(began.elapsed() < PATIENCE, "{path} does not change");
        }
        self.took.push(began.elapsed());
        let (at, known) = (usize::try_from(id - 1).expect("an index"), Arc::clone(&self.committed));
        tokio::spawn(async move {
            tokio::time::sleep(BOUND).await;
            known[at].fetch_max(version, SeqCst);
        });
    }

    /// Asserts that half of the changes were seen within that time, and all within a second.
    pub async fn judge(mut self, median_bound: Duration) {
        self.ended.store(true, SeqCst);
        let mut reads = 0;
        for reader in self.readers {
            reads += reader.await.expect("no reader has seen anything stale");
        }
        self.took.sort();
        let (count, median) = (self.took.len(), self.took[self.took.len() / 2]);
        let worst = self.took[count - 1];
        println!(
            "{count} of {} changes, {reads} reads beside: seen after {median:?}, at worst {worst:?}",
            self.changes
        );
        assert_eq!(count, self.changes);
        assert!(median < median_bound, "{median:?}");
        assert!(worst < BOUND, "{worst:?}");
    }
}

/// Reads all campaigns, again and again. A version that was committed a second before a request
/// began must be seen by it.
async fn hammer(
    address: SocketAddr,
    committed: Arc<Vec<AtomicI64>>,
    ended: Arc<AtomicBool>,
) -> u64 {
    let (mut client, mut reads) = (Client::new(address), 0);
    while !ended.load(SeqCst) {
        for (at, least) in committed.iter().enumerate() {
            let least = least.load(SeqCst);
            let (version, _) = read(&mut client, &format!("/campaigns/{}", at + 1)).await;
            assert!(version >= least, "campaign {}: {version}, and it was {least}", at + 1);
            reads += 1;
        }
    }
    reads
}
