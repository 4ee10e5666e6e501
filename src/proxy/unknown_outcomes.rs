//! When to purge for mutations whose outcome is unknown and whose clients have left without an
//! answer: one purge covers many of them. Pure bookkeeping: the flow marks, waits and purges.
//!
//! Nobody has the answer to such a mutation, so that no promise says when its purge is due. It must
//! only be made after the origin can have committed, and before anybody is answered. If each were
//! purged for by itself, whoever breaks off an upload a second would empty the cache.
//!
//! Invariants:
//! - Each mutation is covered by a purge of each of its tags that begins at least one latency of
//!   the origin after it was planned.
//! - There is at most one purge of a tag in each interval, and so at most two are planned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::policy::tag::Tag;
use crate::telemetry::metrics::Counter;

/// The most tags whose purges are remembered. Beyond it a mutation purges at once.
const MAX_TAGS: usize = 10_000;
/// How long the origin is given where it has answered no mutation yet.
const UNMEASURED_LATENCY: Duration = Duration::from_secs(1);
/// The least that it is given.
const MIN_LATENCY: Duration = Duration::from_millis(100);

/// The purges that are planned, and those of the last interval.
#[derive(Debug, Default)]
pub struct UnknownOutcomes {
    tags: Mutex<HashMap<Tag, PlannedPurge>>,
    /// How long the origin takes for mutations at most, of late, in microseconds; 0 if unknown.
    latency_us: AtomicU64,
    /// Mutations that are covered by the purge of another one.
    pub gathered: Arc<Counter>,
    /// Mutations that purged at once, because too many tags are remembered.
    pub overflowed: Arc<Counter>,
}

/// The latest purge of a tag, planned or made.
#[derive(Debug)]
struct PlannedPurge {
    due: Instant,
    made: CancellationToken,
}

/// What covers a mutation.
#[derive(Debug)]
pub struct PurgePlan {
    /// The purge that it makes itself, of tags for which none is planned that comes late enough.
    pub own: Option<OwnPurge>,
    /// The purges of others that cover the rest. Each is cancelled when it has been made.
    pub others: Vec<CancellationToken>,
}

/// A purge to make.
#[derive(Debug)]
pub struct OwnPurge {
    /// Of what.
    pub tags: Vec<Tag>,
    /// The origin may commit until then.
    pub earliest: Instant,
    /// When to make it.
    pub due: Instant,
    /// Dropped when it has been made: those that it covers wait for that.
    pub made: DropGuard,
}

impl UnknownOutcomes {
    /// Notes how long the origin took for a mutation that it had all of.
    pub fn record_latency(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slower = |known: u64| took.max(known - known / 16).max(1);
        let _ = self.latency_us.fetch_update(Relaxed, Relaxed, |known| Some(slower(known)));
    }

    /// How long the origin may go on with a mutation that was broken off: twice its latency.
    fn latency(&self) -> Duration {
        match self.latency_us.load(Relaxed) {
            0 => UNMEASURED_LATENCY,
            us => (2 * Duration::from_micros(us)).max(MIN_LATENCY),
        }
    }

    /// Plans the purge of a mutation whose outcome is unknown, with at most one purge of each tag
    /// in each `interval`. `None` if there are too many: it purges at once.
    #[must_use]
    pub fn plan(&self, tags: &[Tag], now: Instant, interval: Duration) -> Option<PurgePlan> {
        let latency = self.latency();
        let earliest = now + latency;
        let mut planned = self.tags.lock();
        if planned.len() + tags.len() > MAX_TAGS {
            planned.retain(|_, purge| purge.due + interval > now);
            if planned.len() + tags.len() > MAX_TAGS {
                drop(planned);
                self.overflowed.inc();
                return None;
            }
        }
        let (mut own, mut others, mut due) = (Vec::new(), Vec::new(), earliest);
        for tag in tags {
            match planned.get(tag) {
                Some(purge) if purge.due >= earliest => others.push(purge.made.clone()),
                Some(purge) => {
                    due = due.max(purge.due + interval);
                    own.push(tag.clone());
                }
                None => own.push(tag.clone()),
            }
        }
        if own.is_empty() {
            drop(planned);
            self.gathered.inc();
            return Some(PurgePlan { own: None, others });
        }
        let made = CancellationToken::new();
        for tag in &own {
            planned.insert(tag.clone(), PlannedPurge { due, made: made.clone() });
        }
        drop(planned);
        let made = made.drop_guard();
        Some(PurgePlan { own: Some(OwnPurge { tags: own, earliest, due, made }), others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| Tag::new(name)).collect()
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn outcomes() -> (UnknownOutcomes, Instant) {
        let outcomes = UnknownOutcomes::default();
        outcomes.record_latency(Duration::from_millis(500));
        (outcomes, Clock::system().now())
    }

    #[test]
    fn the_first_purge_comes_after_the_latency_and_the_next_ones_are_gathered() {
        let (outcomes, start) = outcomes();
        let mut purges = Vec::new();
        // One a second, for a minute.
        for second in 0..60 {
            let now = start + after(second);
            let plan = outcomes.plan(&tags(&["v"]), now, INTERVAL).expect("room");
            if let Some(own) = plan.own {
                assert!(plan.others.is_empty() && own.due >= now + after(1));
                purges.push(own.due.duration_since(start).as_secs());
            } else {
                assert_eq!(plan.others.len(), 1);
                let last = start + after(*purges.last().expect("there was one before"));
                assert!(last >= now + after(1), "each is followed by a purge");
            }
        }
        assert_eq!(purges, [1, 11, 21, 31, 41, 51, 61]);
        assert_eq!(outcomes.gathered.get(), 60 - 7);
    }

    #[test]
    fn other_tags_have_purges_of_their_own() {
        let (outcomes, now) = outcomes();
        let first = outcomes.plan(&tags(&["v", "uri/1"]), now, INTERVAL).expect("room");
        assert_eq!(first.own.as_ref().map(|own| own.tags.len()), Some(2));
        let second = outcomes.plan(&tags(&["v", "uri/2"]), now, INTERVAL).expect("room");
        let own = second.own.expect("of its own path");
        assert_eq!((own.tags, own.due), (tags(&["uri/2"]), now + after(1)));
        assert!(second.others.len() == 1 && !second.others[0].is_cancelled());
        drop(first.own);
        assert!(second.others[0].is_cancelled(), "the purge that it waits for was made");
    }

    #[test]
    fn quiet_tags_are_forgotten_only_when_there_are_too_many() {
        let (outcomes, now) = outcomes();
        let name = |number: usize| vec![Tag::new(&number.to_string())];
        for number in 0..MAX_TAGS {
            assert!(outcomes.plan(&name(number), now, INTERVAL).is_some());
        }
        assert!(outcomes.plan(&name(MAX_TAGS), now, INTERVAL).is_none());
        assert_eq!(outcomes.overflowed.get(), 1);
        let later = now + after(12);
        assert!(outcomes.plan(&name(MAX_TAGS), later, INTERVAL).is_some());
        assert_eq!(outcomes.tags.lock().len(), 1);
    }

    #[test]
    fn the_latency_is_the_most_of_late() {
        let outcomes = UnknownOutcomes::default();
        assert_eq!(outcomes.latency(), UNMEASURED_LATENCY);
        outcomes.record_latency(Duration::from_secs(4));
        assert_eq!(outcomes.latency(), after(8));
        outcomes.record_latency(Duration::from_millis(1));
        assert!(outcomes.latency() > after(7));
        for _ in 0..200 {
            outcomes.record_latency(Duration::from_millis(1));
        }
        assert_eq!(outcomes.latency(), MIN_LATENCY);
    }
}
