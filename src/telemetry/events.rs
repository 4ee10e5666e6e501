//! Events for operators, as they happen: purges, reloads, changes of state, findings.
//!
//! Owns the form of events and keeps the last few. Publishing never waits, and costs next to
//! nothing without subscribers. A slow subscriber misses events, and notices it by the gap in their
//! numbers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::clock::Wall;
use crate::telemetry::log::printable;

/// How many past events a new subscriber can get.
const MAX_RECENT: usize = 100;
/// How many events a subscriber may fall behind before it misses some.
const LISTENER_BACKLOG: usize = 256;
/// How many tags an event names. Further tags are only counted.
pub const MAX_EVENT_TAGS: usize = 16;
/// The longest text in an event, in bytes: clients choose paths and tags.
pub const MAX_EVENT_TEXT: usize = 256;

/// An event.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorEvent {
    /// Its number: one more than that of the previous event.
    pub id: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EventKind {
    /// Tags or everything were purged.
    Purge(PurgeEvent),
    /// The file was loaded again.
    Reload {
        /// Whether its rules are active.
        ok: bool,
        /// How many settings it changed.
        changes: usize,
        /// Why it was refused.
        error: Option<String>,
    },
    /// The sidecar's own status has changed.
    State {
        /// `ready`, `degraded` or `unready`.
        status: &'static str,
        /// Why it is not `ready`.
        reasons: Vec<String>,
    },
    /// Shadow mode or an audit has found something.
    Finding {
        /// `stale`, `scope` or `audit`.
        finding: &'static str,
        /// The route.
        route: String,
        /// What was found, in a sentence.
        text: String,
    },
    /// A switch was set or has ended.
    Mode(ModeEvent),
}

impl EventKind {
    /// Its name on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Purge(_) => "purge",
            Self::Reload { .. } => "reload",
            Self::State { .. } => "state",
            Self::Finding { .. } => "finding",
            Self::Mode(_) => "mode",
        }
    }
}

/// What has become of a switch.
#[derive(Clone, Debug, Serialize)]
pub struct ModeEvent {
    /// `set` or `ended`.
    pub change: &'static str,
    /// `off` or `shadow`.
    pub mode: &'static str,
    /// The path of the route in the file; none for all of them.
    pub route: Option<String>,
    /// Who has set or ended it: `admin`, `peer`, `time` or `reload`.
    pub by: &'static str,
    /// What is left of its time, in seconds.
    pub left_s: u64,
}

/// A purge.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PurgeEvent {
    /// `write`, `request` (a `PURGE` or `BAN`), `source` or `admin`.
    pub by: &'static str,
    /// The name of the source.
    pub source: Option<String>,
    /// The method of the write or of the request.
    pub method: Option<String>,
    /// The path of the write, truncated.
    pub path: Option<String>,
    /// The tags, the first [`MAX_EVENT_TAGS`] of them.
    pub tags: Vec<String>,
    /// How many more tags there were.
    pub more_tags: usize,
    /// Whether everything was purged.
    pub everything: bool,
    /// Whether the purge was soft: entries become stale instead of invalid.
    pub soft: bool,
}

impl PurgeEvent {
    /// Adds these tags as far as there is room, and counts the others.
    #[must_use]
    pub fn with_tags<'a>(mut self, tags: impl IntoIterator<Item = &'a str>) -> Self {
        for tag in tags {
            if self.tags.len() < MAX_EVENT_TAGS {
                self.tags.push(truncate(tag));
            } else {
                self.more_tags += 1;
            }
        }
        self
    }
}

/// Truncates text that a client chose, and escapes what could do harm where it is shown.
#[must_use]
pub fn truncate(text: &str) -> String {
    printable(text, MAX_EVENT_TEXT).into_owned()
}

/// What is called with each event.
type Observer = Box<dyn Fn(&OperatorEvent) + Send + Sync>;

/// Publishes events to subscribers.
pub struct Events {
    sender: broadcast::Sender<Arc<OperatorEvent>>,
    recent: Mutex<VecDeque<Arc<OperatorEvent>>>,
    next: AtomicU64,
    observer: OnceLock<Observer>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("listeners", &self.listeners()).finish_non_exhaustive()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(LISTENER_BACKLOG),
            recent: Mutex::default(),
            next: AtomicU64::new(1),
            observer: OnceLock::new(),
        }
    }
}

impl Events {
    /// Calls this with each event from now on, in order; it must not block, nor publish. Unlike a
    /// subscriber it misses none. Only the first observer counts.
    pub fn observe(&self, observer: impl Fn(&OperatorEvent) + Send + Sync + 'static) {
        // Ignore the error: there is one already.
        let _ = self.observer.set(Box::new(observer));
    }

    /// Publishes an event to all subscribers, and keeps it among the recent ones.
    pub fn publish(&self, at: Wall, what: EventKind) {
        // One lock covers both steps, so that a new subscriber gets each event exactly once: among
        // the recent ones, or from the stream.
        let mut recent = self.recent.lock();
        let event = Arc::new(OperatorEvent {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            at_ms: at.0,
            what,
        });
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&event));
        if let Some(observer) = self.observer.get() {
            observer(&event);
        }
        // Ignore the error: there are no subscribers.
        let _ = self.sender.send(event);
    }

    /// Subscribes: returns up to `last` recent events, oldest first, and a stream of those that
    /// follow.
    #[must_use]
    pub fn listen(
        &self,
        last: usize,
    ) -> (Vec<Arc<OperatorEvent>>, broadcast::Receiver<Arc<OperatorEvent>>) {
        let recent = self.recent.lock();
        let skipped = recent.len().saturating_sub(last);
        (recent.iter().skip(skipped).cloned().collect(), self.sender.subscribe())
    }

    /// The number of subscribers.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(tags: &[&str]) -> EventKind {
        EventKind::Purge(
            PurgeEvent { by: "admin", ..PurgeEvent::default() }.with_tags(tags.iter().copied()),
        )
    }

    #[test]
    fn a_new_subscriber_gets_recent_events_and_all_that_follow() {
        let events = Events::default();
        for _ in 0..MAX_RECENT + 5 {
            events.publish(Wall(7), purge(&["a"]));
        }
        let (recent, mut more) = events.listen(3);
        let last = MAX_RECENT as u64 + 5;
        assert_eq!(
            recent.iter().map(|event| event.id).collect::<Vec<_>>(),
            [last - 2, last - 1, last]
        );
        assert_eq!(events.listen(usize::MAX).0.len(), MAX_RECENT, "no more than that are recent");
        events.publish(Wall(8), purge(&["b"]));
        assert_eq!(more.try_recv().expect("one more").id, last + 1);
        assert!(more.try_recv().is_err(), "each event comes once");
    }

    #[test]
    fn an_observer_gets_every_event_in_order() {
        let (events, seen) = (Events::default(), Arc::new(Mutex::new(Vec::new())));
        events.publish(Wall(7), purge(&["a"]));
        let ids = Arc::clone(&seen);
        events.observe(move |event| ids.lock().push(event.id));
        for _ in 0..LISTENER_BACKLOG * 2 {
            events.publish(Wall(8), purge(&["a"]));
        }
        let last = LISTENER_BACKLOG as u64 * 2 + 1;
        assert_eq!(*seen.lock(), (2..=last).collect::<Vec<_>>());
    }

    #[test]
    fn an_event_is_short_whatever_a_client_sends() {
        let names: Vec<String> = (0..50).map(|at| format!("{at}{}", "ü".repeat(1000))).collect();
        let EventKind::Purge(purged) = purge(&names.iter().map(String::as_str).collect::<Vec<_>>())
        else {
            unreachable!("a purge")
        };
        assert_eq!((purged.tags.len(), purged.more_tags), (MAX_EVENT_TAGS, 50 - MAX_EVENT_TAGS));
        assert!(
            purged.tags.iter().all(|tag| tag.len() <= MAX_EVENT_TEXT + 3 && tag.ends_with('…'))
        );
    }

    #[test]
    fn an_event_has_the_json_form_of_the_api() {
        let event = OperatorEvent { id: 1, at_ms: 2, what: purge(&["a"]) };
        let json = serde_json::to_value(&event).expect("JSON");
        assert_eq!(
            (&json["kind"], &json["id"], &json["tags"][0], &json["by"]),
            (&"purge".into(), &1.into(), &"a".into(), &"admin".into())
        );
    }
}
