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

/// The readers.
pub struct Hammer {
    /// How many changes are to be made.
    pub changes: usize,
    address: SocketAddr,
    /// What must be seen of each campaign: versions that were committed at least a second ago.
    committed: Arc<Vec<AtomicI64>>,
    ended: Arc<AtomicBool>,
    readers: Vec<JoinHandle<u64>>,
}

impl Hammer {
    /// Four readers of all campaigns.
    pub fn start(address: SocketAddr, changes: usize) -> Self {
        let committed: Vec<_> = (0..CAMPAIGNS).map(|_| AtomicI64::new(1)).collect();
        let (committed, ended) = (Arc::new(committed), Arc::<AtomicBool>::default());
        let readers = (0..4)
            .map(|_| tokio::spawn(hammer(address, Arc::clone(&committed), Arc::clone(&ended))))
            .collect();
        Self { changes, address, committed, ended, readers }
    }

    /// Waits for changes that one client makes.
    pub fn changer(&self) -> Changer {
        let committed = Arc::clone(&self.committed);
        Changer { client: Client::new(self.address), committed, took: Vec::new() }
    }

    /// How many of the changes are those of this campaign, where each has a client of its own.
    pub fn share_of(&self, id: i32) -> i64 {
        let (changes, campaigns) =
            (i64::try_from(self.changes).expect("few"), i64::from(CAMPAIGNS));
        changes / campaigns + i64::from(i64::from(id) <= changes % campaigns)
    }

    /// Asserts that half of the changes were seen within that time, and all within a second.
    pub async fn judge(self, changers: Vec<Changer>, median_bound: Duration) {
        self.ended.store(true, SeqCst);
        let mut reads = 0;
        for reader in self.readers {
            reads += reader.await.expect("no reader has seen anything stale");
        }
        let mut took: Vec<Duration> = changers.into_iter().flat_map(|one| one.took).collect();
        took.sort();
        let (count, median) = (took.len(), took[took.len() / 2]);
        let worst = took[count - 1];
        println!(
            "{count} of {} changes, {reads} reads beside: seen after {median:?}, at worst {worst:?}",
            self.changes
        );
        assert_eq!(count, self.changes);
        assert!(median < median_bound, "{median:?}");
        assert!(worst < BOUND, "{worst:?}");
    }
}

/// A client that waits until changes are seen.
pub struct Changer {
    client: Client,
    committed: Arc<Vec<AtomicI64>>,
    took: Vec<Duration>,
}

impl Changer {
    /// A campaign has this version since then: returns when it is seen.
    pub async fn changed(&mut self, id: i32, version: i64, began: Instant) {
        let path = format!("/campaigns/{id}");
        while read(&mut self.client, &path).await.0 < version {
            assert!(began.elapsed() < PATIENCE, "{path} does not change");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.took.push(began.elapsed());
        let (at, known) = (usize::try_from(id - 1).expect("an index"), Arc::clone(&self.committed));
        tokio::spawn(async move {
            tokio::time::sleep(BOUND).await;
            known[at].fetch_max(version, SeqCst);
        });
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
