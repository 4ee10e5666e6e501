//! How often a line of one kind is logged: strangers can cause warnings, and must not be able to
//! fill a disk with them.
//!
//! A kind is a place in the code. What was suppressed is counted, and told in a line of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::switches::Switches;
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
pub(super) struct RepeatLimit {
    switches: Arc<Switches>,
    clock: Clock,
    /// Bounded: the code has only so many places that log.
    kinds: Mutex<HashMap<Identifier, KindCount>>,
}

struct KindCount {
    since: Instant,
    lines: u32,
}

impl RepeatLimit {
    pub(super) fn new(switches: Arc<Switches>, clock: Clock) -> Self {
        Self { switches, clock, kinds: Mutex::default() }
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
        let is_logged = count.lines <= self.switches.repeats();
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

/// The format of lines that are not suppressed. It is not a filter: one that refuses single events
/// of a kind breaks `tracing_subscriber`'s bookkeeping.
pub(super) struct LimitedFormat<F> {
    pub(super) format: F,
    pub(super) limit: RepeatLimit,
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.limit.lets_through(event.metadata()) {
            self.format.format_event(context, writer, event)
        } else {
            Ok(())
        }
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
