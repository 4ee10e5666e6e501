//! How often a line of one kind is logged: strangers can cause warnings, and must not be able to
//! fill a disk with them.
//!
//! A kind is a place in the code. What was suppressed is counted, and told in a line of its own.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::clock::Clock;
use crate::telemetry::metrics::Counter;

/// The time within which lines of one kind are counted.
pub(super) const INTERVAL: Duration = Duration::from_mins(1);

/// Lines that were not logged because there were too many of their kind. The log is the process's,
/// and so is this.
pub static SUPPRESSED_LINES: LazyLock<Arc<Counter>> = LazyLock::new(Arc::default);

/// The kinds of which lines were suppressed, for [`tell_suppressed`].
static SUPPRESSED_KINDS: Mutex<Vec<SuppressedKind>> = Mutex::new(Vec::new());

struct SuppressedKind {
    kind: &'static Metadata<'static>,
    lines: u64,
}

/// Lets at most so many WARN and ERROR lines of one kind through in each interval.
pub(super) struct RepeatFilter {
    limit: u32,
    clock: Clock,
    /// Bounded: the code has only so many places that log.
    kinds: Mutex<HashMap<Identifier, KindCount>>,
}

struct KindCount {
    since: Instant,
    lines: u32,
}

impl RepeatFilter {
    pub(super) fn new(limit: u32, clock: Clock) -> Self {
        Self { limit, clock, kinds: Mutex::default() }
    }

    fn lets_through(&self, kind: &'static Metadata<'static>) -> bool {
        if *kind.level() > Level::WARN {
            return true;
        }
        let now = self.clock.now();
        let mut kinds = self.kinds.lock();
        let count = kinds.entry(kind.callsite()).or_insert(KindCount { since: now, lines: 0 });
        if now.saturating_duration_since(count.since) >= INTERVAL {
            *count = KindCount { since: now, lines: 0 };
        }
        count.lines = count.lines.saturating_add(1);
        let is_logged = count.lines <= self.limit;
        drop(kinds);
        if !is_logged {
            SUPPRESSED_LINES.inc();
            let mut suppressed = SUPPRESSED_KINDS.lock();
            match suppressed.iter_mut().find(|known| known.kind.callsite() == kind.callsite()) {
                Some(known) => known.lines += 1,
                None => suppressed.push(SuppressedKind { kind, lines: 1 }),
            }
        }
        is_logged
    }
}

impl<S> Filter<S> for RepeatFilter {
    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.lets_through(event.metadata())
    }
}

/// Logs how many lines were suppressed since the last call, one line for each kind.
pub fn tell_suppressed() {
    let kinds = std::mem::take(&mut *SUPPRESSED_KINDS.lock());
    for SuppressedKind { kind, lines } in kinds {
        tracing::warn!(
            lines,
            kind = kind.target(),
            line = kind.line(),
            "lines of one kind were suppressed, because there were too many"
        );
    }
}
