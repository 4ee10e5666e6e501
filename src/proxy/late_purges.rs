//! Purges that come after the response of a mutation has begun: at its end, because an origin that
//! streams its response may commit as late as that, and at the times that purge rules set.
//!
//! Invariant: the number of purges at the ends of responses is bounded, and so is what waits for
//! them. Those that are due together are made together, and beyond a number of tags everything is
//! purged: none is dropped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use crate::coherence::{Coherence, PurgeKind};
use crate::policy::tag::Tag;
use crate::semantics::body::Body;
use crate::shares::Departure;
use crate::telemetry::metrics::Counter;

/// How many purges at the ends of responses run at once. One that waits for a sidecar that has died
/// does not hold up all others.
const MAX_RUNNING: usize = 4;

/// How many tags may wait. Beyond that everything is purged.
const MAX_TAGS: usize = 100_000;

/// How long the rest of a response is read whose client has left.
pub(crate) const READ_OUT: Duration = Duration::from_secs(30);

/// How many such responses are read at once.
const MAX_READING: usize = 64;

/// How a response ended that was read in place of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOut {
    /// The origin has ended it.
    Whole,
    /// It was broken off: the origin may have more to commit.
    BrokenOff,
}

/// The purges after the responses of mutations have begun.
#[derive(Debug)]
pub(crate) struct LatePurges {
    coherence: Arc<Coherence>,
    /// A drain waits for the purges at the ends of responses.
    tasks: TaskTracker,
    /// Responses that were purged for at their end.
    counter: Arc<Counter>,
    due: Mutex<DuePurges>,
    /// For responses that are read in place of their clients.
    reading: Arc<Semaphore>,
}

/// What is due, and whom to tell.
#[derive(Debug, Default)]
struct DuePurges {
    tags: HashSet<Tag>,
    everything: bool,
    waiting: Vec<oneshot::Sender<()>>,
    running: usize,
}

impl DuePurges {
    fn add(&mut self, tags: Option<Vec<Tag>>) {
        self.everything |= tags.is_none();
        if !self.everything {
            self.tags.extend(tags.into_iter().flatten());
            self.everything = self.tags.len() > MAX_TAGS;
        }
        if self.everything {
            self.tags = HashSet::new();
        }
    }

    /// What is due now. `None`: nothing, and the task that asks ends.
    fn take(&mut self) -> Option<Self> {
        if self.waiting.is_empty() {
            // Under the lock: what is added next finds that a task has ended.
            self.running -= 1;
            return None;
        }
        let running = self.running;
        Some(std::mem::replace(self, Self { running, ..Self::default() }))
    }
}

impl LatePurges {
    pub(crate) fn new(
        coherence: &Arc<Coherence>,
        tasks: &TaskTracker,
        counter: &Arc<Counter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            coherence: Arc::clone(coherence),
            tasks: tasks.clone(),
            counter: Arc::clone(counter),
            due: Mutex::default(),
            reading: Arc::new(Semaphore::new(MAX_READING)),
        })
    }

    /// Purges these tags because a response has ended; without tags, everything. The receiver is
    /// told when it is done.
    pub(crate) fn purge_at_end(
        self: &Arc<Self>,
        runtime: &Handle,
        tags: Option<Vec<Tag>>,
    ) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let mut due = self.due.lock();
        due.add(tags);
        due.waiting.push(done);
        if due.running < MAX_RUNNING {
            due.running += 1;
            let own = Arc::clone(self);
            self.tasks.spawn_on(async move { own.run().await }, runtime);
        }
        receiver
    }

    async fn run(&self) {
        loop {
            // A statement of its own, so that the lock is not held while it purges.
            let due = self.due.lock().take();
            let Some(due) = due else { return };
            self.counter.add(due.waiting.len() as u64);
            if due.everything {
                self.coherence.purge_everything(PurgeKind::Hard).await;
            } else {
                let tags: Vec<Tag> = due.tags.into_iter().collect();
                self.coherence.purge(&tags).await;
            }
            for done in due.waiting {
                // The response does not wait any longer, or its client is gone.
                let _ = done.send(());
            }
        }
    }

    /// Reads the rest of a response whose client has left, and then says whether it has come. It
    /// takes so long at most, ends when another request needs the place at the origin, and beyond a
    /// number of such responses nothing is read.
    pub(crate) fn read_out(
        &self,
        runtime: &Handle,
        mut rest: Body,
        departure: Arc<Departure>,
        then: impl FnOnce(ReadOut) + Send + 'static,
    ) {
        let Ok(permit) = Arc::clone(&self.reading).try_acquire_owned() else {
            return then(ReadOut::BrokenOff);
        };
        self.tasks.spawn_on(
            async move {
                departure.leave();
                let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
                let end = tokio::select! {
                    () = reading => ReadOut::Whole,
                    () = departure.until_cut() => ReadOut::BrokenOff,
                    () = tokio::time::sleep(READ_OUT) => ReadOut::BrokenOff,
                };
                drop((rest, permit));
                then(end);
            },
            runtime,
        );
    }

    /// Purges tags again after each of these times.
    pub(crate) fn purge_after(&self, runtime: &Handle, tags: &[Tag], times: &[Duration]) {
        for &after in times {
            let (coherence, tags) = (Arc::clone(&self.coherence), tags.to_vec());
            // Not tracked: a drain does not wait for it. The purge itself has been made; a repeat
            // that ends with the process is lost.
            runtime.spawn(async move {
                tokio::time::sleep(after).await;
                coherence.purge(&tags).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn tags(count: usize) -> Vec<Tag> {
        (0..count).map(|n| Tag::new(&format!("t{n}"))).collect()
    }

    #[test]
    fn what_waits_is_bounded_and_none_is_dropped() {
        let mut due = DuePurges::default();
        due.add(Some(tags(2)));
        due.add(Some(tags(3)));
        assert_eq!((due.tags.len(), due.everything), (3, false), "the same tag waits once");
        due.add(Some(tags(MAX_TAGS + 1)));
        assert_eq!((due.tags.len(), due.everything), (0, true));
        due.add(Some(tags(1)));
        assert_eq!((due.tags.len(), due.everything), (0, true));
    }

    #[tokio::test]
    async fn many_ends_are_purged_by_few_tasks() {
        let coherence = Arc::new(Coherence::new(None, Clock::system()));
        let (tasks, counter) = (TaskTracker::new(), Arc::<Counter>::default());
        let late = LatePurges::new(&coherence, &tasks, &counter);
        let runtime = Handle::current();
        let ends: Vec<_> = (0..100).map(|_| late.purge_at_end(&runtime, Some(tags(2)))).collect();
        assert!(tasks.len() <= MAX_RUNNING);
        for end in ends {
            end.await.expect("each is told");
        }
        tasks.close();
        tasks.wait().await;
        assert_eq!((counter.get(), late.due.lock().running), (100, 0));
    }
}
