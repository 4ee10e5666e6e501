//! What of the log a reload changes: the filter, the form of a line, and how many repeats there
//! are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::{LogFormat, LogSettings};

/// Changes the settings of a log.
pub(super) struct LogControl {
    pub(super) filter: reload::Handle<EnvFilter, Registry>,
    pub(super) switches: Arc<Switches>,
}

/// The settings that are read for each line.
#[derive(Debug, Default)]
pub(super) struct Switches {
    is_json: AtomicBool,
    repeats: AtomicU32,
}

impl LogControl {
    /// Puts settings in force, with the filter that they stand for.
    pub(super) fn apply(&self, settings: &LogSettings, filter: EnvFilter) {
        self.switches.set(settings);
        // It fails only once the subscriber is gone, and then nothing is logged.
        let _ = self.filter.reload(filter);
    }
}

impl Switches {
    pub(super) fn set(&self, settings: &LogSettings) {
        self.is_json.store(settings.format == LogFormat::Json, Ordering::Relaxed);
        self.repeats.store(settings.repeats, Ordering::Relaxed);
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
