//! All sidecars that share a Redis: each publishes a summary of itself there, and whoever is asked
//! reads those of all.
//!
//! Invariants:
//! - *The cache does not depend on it.* Nothing here is awaited by a request of a client, changes
//!   the state of coherence, or counts as a sign of Redis. While Redis is not in use, nothing is
//!   published or read.
//! - *It is cheap.* One call every few seconds; one more for all readers of a second together.
//! - *A summary is shown and never acted upon.* Anybody who may write to Redis can write one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::list::OtherSidecars;
use self::store::{Published, SummaryReading, SummaryStore};
use self::summary::PeerSummary;
use super::state::AdminState;
use crate::coherence::message::Process;
use crate::coherence::{Coherence, CoherenceMode};
use crate::redis::CallError;

mod list;
mod own;
mod store;
mod summary;

/// How often a summary is published, and by how much of it each time may be earlier or later, so
/// that sidecars that started together do not publish together.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(5);
const PUBLISH_JITTER: f64 = 0.2;
/// How soon the first summary follows, and another attempt while Redis is not in use.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a reading serves all who ask.
const READING_LIFETIME: Duration = Duration::from_secs(1);

/// The summaries of this sidecar and of the others.
pub(super) struct PeerBoard {
    state: Arc<AdminState>,
    name: String,
    process: Process,
    store: Option<SummaryStore>,
    number: AtomicU64,
    rate: Mutex<RequestRate>,
    /// The last reading, and when it was made. Locked while one is made.
    last: tokio::sync::Mutex<Option<(Instant, Result<SummaryReading, String>)>>,
}

/// Requests per second between the last two summaries.
#[derive(Debug, Default)]
struct RequestRate {
    before: Option<(Instant, u64)>,
    per_second: f64,
}

impl RequestRate {
    /// Notes a total, and returns the rate.
    fn note(&mut self, now: Instant, total: u64) -> f64 {
        if let Some((at, before)) = self.before {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            #[allow(clippy::cast_precision_loss, reason = "a rate for people to read")]
            let requests = total.saturating_sub(before) as f64;
            self.per_second = if seconds > 0.0 { requests / seconds } else { 0.0 };
        }
        self.before = Some((now, total));
        self.per_second
    }
}

impl PeerBoard {
    pub(super) fn new(state: Arc<AdminState>, name: Option<&str>) -> Self {
        let coherence = &state.proxy.coherence;
        let process = coherence.process();
        let client = coherence.records().map(|records| Arc::clone(records.client()));
        let store = client.map(|client| SummaryStore::new(client, process));
        Self {
            name: name.map_or_else(|| process.to_string(), str::to_owned),
            process,
            store,
            number: AtomicU64::new(0),
            rate: Mutex::default(),
            last: tokio::sync::Mutex::default(),
            state,
        }
    }

    fn coherence(&self) -> &Coherence {
        &self.state.proxy.coherence
    }

    fn is_shared(&self) -> bool {
        self.coherence().mode() == CoherenceMode::Shared
    }

    /// The summary of this sidecar. It is made beside the threads that serve requests: it reads the
    /// counts of all routes.
    async fn own(&self) -> Option<PeerSummary> {
        let number = self.number.load(Relaxed);
        let (state, name) = (Arc::clone(&self.state), self.name.clone());
        let made = tokio::task::spawn_blocking(move || own::summary(&state, &name)).await;
        // One that panics is logged, and tells nothing.
        Some(PeerSummary { number, per_second: self.rate.lock().per_second, ..made.ok()? })
    }

    /// Publishes summaries until `stop`, then withdraws the last one.
    pub(super) async fn publish(&self, stop: CancellationToken) {
        let mut wait = jittered(RETRY_INTERVAL);
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = jittered(PUBLISH_INTERVAL);
            let Some(own) = self.own().await else { continue };
            let per_second = self.rate.lock().note(self.state.proxy.clock.now(), own.total());
            match &self.store {
                Some(store) if self.is_shared() => {
                    let number = self.number.fetch_add(1, Relaxed) + 1;
                    self.publish_to(store, &PeerSummary { number, per_second, ..own }).await;
                }
                // The rate is then one of a shorter time.
                Some(_) => wait = jittered(RETRY_INTERVAL),
                None => {}
            }
        }
        if let Some(store) = self.store.as_ref().filter(|_| self.is_shared()) {
            // Fail open: the others then see it as silent.
            let _ = store.withdraw().await;
        }
    }

    async fn publish_to(&self, store: &SummaryStore, own: &PeerSummary) {
        let counters = &self.coherence().counters;
        let why = match store.publish(own).await {
            Ok(Published::Yes) => return counters.summaries_published.inc(),
            Ok(Published::Full) => "as many sidecars as can have published theirs".to_owned(),
            Ok(Published::Refused(why)) => why,
            Err(error) => error.to_string(),
        };
        counters.summaries_failed.inc();
        tracing::debug!(why, "the summary of this sidecar could not be published");
    }

    /// `GET /peers`; none if the summary of this sidecar cannot be made.
    pub(super) async fn peers(&self) -> Option<Value> {
        let others = match &self.store {
            None => OtherSidecars {
                why: Some("there is no [redis], so this sidecar knows of no other".to_owned()),
                ..OtherSidecars::default()
            },
            Some(_) if !self.is_shared() => OtherSidecars {
                why: self.coherence().degraded_reason(),
                ..OtherSidecars::default()
            },
            Some(store) => self.others(store).await,
        };
        Some(list::peers(self.process, &self.own().await?, others))
    }

    async fn others(&self, store: &SummaryStore) -> OtherSidecars {
        let mut last = self.last.lock().await;
        let now = self.state.proxy.clock.now();
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < READING_LIFETIME;
        if !last.as_ref().is_some_and(|(at, _)| is_fresh(*at)) {
            *last = Some((self.state.proxy.clock.now(), self.read(store).await));
        }
        let now = self.state.proxy.clock.now();
        match &*last {
            Some((at, Ok(reading))) => {
                let since = now.saturating_duration_since(*at);
                let mut heard = reading.found.clone();
                for one in &mut heard {
                    one.age += since;
                }
                let unreadable = reading.unreadable;
                OtherSidecars { shared: true, why: None, heard, unreadable }
            }
            Some((_, Err(why))) => {
                OtherSidecars { shared: true, why: Some(why.clone()), ..OtherSidecars::default() }
            }
            None => OtherSidecars::default(),
        }
    }

    async fn read(&self, store: &SummaryStore) -> Result<SummaryReading, String> {
        let counters = &self.coherence().counters;
        counters.summary_reads.inc();
        let read = store.read().await;
        if let Ok(reading) = &read {
            counters.summaries_unreadable.add(reading.unreadable);
        }
        read.map_err(|error| {
            counters.summary_read_failures.inc();
            tracing::debug!(%error, "the summaries of the other sidecars could not be read");
            explained(&error)
        })
    }
}

/// What an operator can do about a failed reading.
fn explained(error: &CallError) -> String {
    let text = format!("the other sidecars could not be read from Redis: {error}");
    if ACL_REFUSALS.iter().any(|words| text.contains(words)) {
        // Only the words that are ours: those of a server may be long.
        return "the other sidecars could not be read: the ACL of Redis refuses it; give the user \
                +getrange (see `an ACL user for Redis` in the manual)"
            .to_owned();
    }
    crate::telemetry::log::printable(&text, MAX_WHY_BYTES).into_owned()
}

/// How Redis 6, 7.0 and later tell a script that the ACL forbids a command.
const ACL_REFUSALS: [&str; 3] = ["NOPERM", "can't run this command", "ACL failure"];

/// How much of an error of Redis is shown, in bytes.
const MAX_WHY_BYTES: usize = 200;

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::thread_rng().gen_range(1.0 - PUBLISH_JITTER..=1.0 + PUBLISH_JITTER))
}
