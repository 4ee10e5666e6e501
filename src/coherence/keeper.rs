//! The keeper: the task that watches Redis, and rejoins it when it was lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::coherence::shared::Shared;
use crate::coherence::{Coherence, Mode};
use crate::store::redis::CallError;
use crate::tag::Tag;

/// How often a healthy Redis is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait between two tries to rejoin: from this, doubling, up to [`SLOWEST_TRY`].
const FASTEST_TRY: Duration = Duration::from_millis(25);
const SLOWEST_TRY: Duration = Duration::from_millis(250);

/// A client that has not recovered for so long is replaced by a new one.
const RENEW_AFTER: Duration = Duration::from_secs(2);

impl Coherence {
    /// Watches Redis until `stop`. Does nothing without Redis.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let Some(shared) = &self.shared else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_shared(shared) => {}
        }
    }

    async fn keep_shared(&self, shared: &Shared) {
        let mut first = true;
        loop {
            self.rejoin(shared, first).await;
            first = false;
            self.watch_over(shared).await;
        }
    }

    /// Returns when Redis is lost.
    async fn watch_over(&self, shared: &Shared) {
        while self.mode() == Mode::Shared {
            tokio::select! {
                () = self.lost.notified() => {}
                () = shared.link().broken() => self.lose("the connection broke"),
                () = tokio::time::sleep(LOOK_EVERY) => match self.watch(shared.look().await) {
                    Ok(look) if look.role != "master" => self.lose("it is a replica now"),
                    Ok(look) if !shared.trusts(&look.fence) => self.lose("another primary answers"),
                    // Several misses in a row lose it by themselves.
                    Ok(_) | Err(CallError::Timeout) => {}
                    Err(_) => self.lose("it answers with errors"),
                },
            }
        }
    }

    /// Returns when Redis is the truth again.
    async fn rejoin(&self, shared: &Shared, first: bool) {
        let (mut wait, mut since) = (FASTEST_TRY, self.clock.now());
        let mut told = first;
        loop {
            match self.try_rejoin(shared, first).await {
                Ok(()) => return,
                Err(error) => {
                    if !told {
                        tracing::debug!(%error, "Redis is not back yet");
                        told = true;
                    }
                }
            }
            if self.clock.now().duration_since(since) >= RENEW_AFTER {
                shared.link().renew();
                since = self.clock.now();
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(SLOWEST_TRY);
        }
    }

    async fn try_rejoin(&self, shared: &Shared, first: bool) -> Result<(), CallError> {
        // What broke before this look is over; what breaks from here on ends the trust that it begins.
        let _ = shared.link().broken().now_or_never();
        let look = shared.look().await?;
        if look.role != "master" {
            return Err(CallError::Answer(format!("it is a {}, and records are never read from a replica", look.role)));
        }
        shared.trust(&look.fence);
        shared.begin().await?;
        self.replay(shared).await?;
        if !first {
            // The others may have purges to replay as well.
            tokio::time::sleep(shared.link().settings().rejoin_grace).await;
            // A break is told more than once, and late: this second look vouches for all that came before it.
            let _ = shared.link().broken().now_or_never();
            let again = shared.look().await?;
            if again != look {
                return Err(CallError::Answer("it changed meanwhile".to_owned()));
            }
        }
        loop {
            self.replay(shared).await?;
            let journal = self.journal();
            if journal.tags.is_empty() && !journal.everything {
                // Still under the journal's lock: a purge that comes now finds Redis in charge.
                self.misses.store(0, SeqCst);
                self.epoch.fetch_add(1, SeqCst);
                drop(journal);
                break;
            }
        }
        self.counters.rejoins.inc();
        tracing::info!(fence = look.fence, "Redis is in use");
        self.joined.notify_waiters();
        Ok(())
    }

    /// Purges what the journal holds. It keeps what could not be purged, and what comes meanwhile.
    async fn replay(&self, shared: &Shared) -> Result<(), CallError> {
        let taken = std::mem::take(&mut *self.journal());
        let tags: Vec<Tag> = taken.tags.iter().cloned().collect();
        let replayed = async {
            if taken.everything {
                shared.new_generation().await?;
            }
            shared.purge("", &tags).await
        };
        match replayed.await {
            Ok(()) => self.counters.replayed.add(tags.len() as u64),
            Err(error) => {
                let mut journal = self.journal();
                journal.tags.extend(tags);
                journal.everything |= taken.everything;
                return Err(error);
            }
        }
        Ok(())
    }
}
