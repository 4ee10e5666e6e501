//! What of the log's lines a reload changes: their form, and how often one kind may be repeated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The settings that are read for each line.
#[derive(Debug, Default)]
pub(super) struct Switches {
    is_json: AtomicBool,
    repeats: AtomicU32,
}

impl Switches {
    pub(super) fn set(&self, is_json: bool, repeats: u32) {
        self.is_json.store(is_json, Ordering::Relaxed);
        self.repeats.store(repeats, Ordering::Relaxed);
    }

    /// How many WARN and ERROR lines of one kind are logged in a minute.
    pub(super) fn repeats(&self) -> u32 {
        self.repeats.load(Ordering::Relaxed)
    }
}

/// One of two formats.
pub(super) struct SwitchedFormat<T, J> {
    pub(super) text: T,
    pub(super) json: J,
    pub(super) switches: Arc<Switches>,
}

impl<S, N, T, J> FormatEvent<S, N> for SwitchedFormat<T, J>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    T: FormatEvent<S, N>,
    J: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.switches.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}
