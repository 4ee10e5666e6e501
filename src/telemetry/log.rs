//! The log: its destination, its form, and the line for each request.
//!
//! Owns the process-wide subscriber and the fields of the access log. Must not know how a request
//! was handled: callers pass the outcome. Everything that is logged, by whomever, is bounded and
//! escaped here, and there are no fields for secrets: no query string, and no header but the host.

mod json;
mod line;
mod repeats;
mod switches;
mod text;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use self::json::BoundedJson;
use self::line::OneLine;
use self::repeats::{LimitedFormat, RepeatLimit};
use self::switches::{SwitchedFormat, Switches};
use crate::clock::Clock;
use crate::outcome::{Outcome, Tier};
use crate::peer_address::PeerAddress;

pub use self::repeats::{SUPPRESSED_LINES, tell_suppressed};
pub use self::text::{LogText, printable};

/// The target of access lines, for filters: `RUST_LOG=warn,sidecache::access=info`.
pub const ACCESS_TARGET: &str = "sidecache::access";
/// The client of Redis. What it says this program says itself, in its own words and without the
/// paths of the machine that built it.
const QUIET_CRATE: &str = "fred";
/// The environment variable that overrides [`LogSettings::level`].
const LEVEL_VARIABLE: &str = "RUST_LOG";

/// `[log]`, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is logged: a level, or directives by module as `tracing_subscriber::EnvFilter` parses
    /// them.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether each request gets a line.
    pub access: bool,
    /// How many WARN and ERROR lines of one kind are logged in a minute.
    pub repeats: u32,
}

/// What `[log] repeats` is by default.
const DEFAULT_REPEATS: u32 = 100;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, sentence, `name=value`.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Why the log could not be initialized.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level, or `RUST_LOG`, is invalid.
    #[error("{origin}: {problem}")]
    Level {
        /// The setting or variable it came from.
        origin: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The process already has a subscriber.
    #[error("the log is already initialized")]
    AlreadyInitialized,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
            access: false,
            repeats: DEFAULT_REPEATS,
        }
    }
}

/// Checks that a level is valid, for `sidecache check`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check_level(level: &str) -> Result<(), String> {
    // `EnvFilter` would take "debgu" for the name of a module and enable everything in it, so a
    // bare word must be a level.
    for word in level.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ':'])) {
        if !["off", "error", "warn", "info", "debug", "trace"]
            .contains(&word.to_ascii_lowercase().as_str())
        {
            return Err(format!(
                "{word:?} is not a level; levels are off, error, warn, info, debug and trace"
            ));
        }
    }
    parse(level).map(drop)
}

/// Parses directives. `EnvFilter` itself does not accept a space after a comma.
fn parse(directives: &str) -> Result<EnvFilter, String> {
    let mut directives: Vec<_> = directives.split(',').map(str::trim).collect();
    let quiet = format!("{QUIET_CRATE}=off");
    if needs_quieting(&directives) {
        directives.push(&quiet);
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| error.to_string())
}

/// Whether the client of Redis would say something without being asked to.
fn needs_quieting(directives: &[&str]) -> bool {
    let is_level = |word: &&str| {
        ["error", "warn", "info", "debug", "trace"].contains(&word.to_ascii_lowercase().as_str())
    };
    let names_it = |directive: &&str| {
        directive.strip_prefix(QUIET_CRATE).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(['=', '[']) || rest.starts_with("::")
        })
    };
    directives.iter().any(is_level) && !directives.iter().any(names_it)
}

/// Changes the settings of a log.
struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    switches: Arc<Switches>,
}

impl LogControl {
    /// Puts settings in force, with the filter that they stand for.
    fn apply(&self, settings: &LogSettings, filter: EnvFilter) {
        self.switches.set(settings.format == LogFormat::Json, settings.repeats);
        // It fails only once the subscriber is gone, and then nothing is logged.
        let _ = self.filter.reload(filter);
    }
}

/// The process's log, once it is initialized.
static CONTROL: OnceLock<LogControl> = OnceLock::new();

/// Initializes the process's log, to stderr. `RUST_LOG`, if it is set, replaces the level.
///
/// # Errors
/// [`TelemetryError::Level`] for invalid directives, [`TelemetryError::AlreadyInitialized`] if the
/// process already has a log, which then stays.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let (subscriber, control) =
        subscriber(settings, filter_in_force(settings)?, Clock::system(), io::stderr);
    subscriber.try_init().map_err(|_| TelemetryError::AlreadyInitialized)?;
    // It is set once: the second initialization fails above.
    let _ = CONTROL.set(control);
    Ok(())
}

/// Puts other settings in force. Does nothing where the log is not the process's own, as in tests.
///
/// # Errors
/// [`TelemetryError::Level`] for invalid directives. The old settings stay.
pub fn reconfigure(settings: &LogSettings) -> Result<(), TelemetryError> {
    let Some(control) = CONTROL.get() else { return Ok(()) };
    control.apply(settings, filter_in_force(settings)?);
    Ok(())
}

/// The filter of the settings, or of `RUST_LOG` in their place.
fn filter_in_force(settings: &LogSettings) -> Result<EnvFilter, TelemetryError> {
    match std::env::var(LEVEL_VARIABLE) {
        // Directives in the variable may name any module of any crate, so only their syntax is
        // checked.
        Ok(directives) if !directives.is_empty() => parse(&directives)
            .map_err(|problem| TelemetryError::Level { origin: LEVEL_VARIABLE, problem }),
        _ => filter(settings)
            .map_err(|problem| TelemetryError::Level { origin: "[log] level", problem }),
    }
}

/// The filter for the configured level. If access lines are enabled, they are logged at any level.
fn filter(settings: &LogSettings) -> Result<EnvFilter, String> {
    check_level(&settings.level)?;
    let access = if settings.access && !settings.level.contains(ACCESS_TARGET) {
        format!(",{ACCESS_TARGET}=info")
    } else {
        String::new()
    };
    parse(&format!("{}{access}", settings.level))
}

fn subscriber<W>(
    settings: &LogSettings,
    filter: EnvFilter,
    clock: Clock,
    writer: W,
) -> (impl Subscriber + Send + Sync, LogControl)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter);
    let switches = Arc::new(Switches::default());
    let control = LogControl { filter: handle, switches: Arc::clone(&switches) };
    control.switches.set(settings.format == LogFormat::Json, settings.repeats);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = lines.fmt_fields(OneLine).map_event_format(|text| LimitedFormat {
        format: SwitchedFormat { text, json: BoundedJson, switches: Arc::clone(&switches) },
        limit: RepeatLimit::new(switches, clock),
    });
    (tracing_subscriber::registry().with(lines.with_filter(filter)), control)
}

/// The fields of a request's line.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's path. The query is left out, because query strings carry tokens.
    pub path: &'a str,
    /// The requested host, if there is one.
    pub host: Option<&'a str>,
    /// The address of what connected: the client, or a proxy before it.
    pub peer: PeerAddress,
    /// The name of the route that matched.
    pub route: Option<&'a str>,
    /// The response's status.
    pub status: u16,
    /// What happened, and why.
    pub outcome: &'a Outcome,
    /// The size of the body sent, in bytes, if known.
    pub bytes: Option<u64>,
    /// From the request's head to the end of its response.
    pub duration: Duration,
    /// The request's id, if it has one.
    pub request_id: Option<&'a str>,
    /// The trace that it belongs to, if it names one.
    pub trace_id: Option<&'a str>,
}

/// Writes a request's line. Whether requests are logged is a setting of the proxy, so that a
/// request that is not logged costs nothing.
pub fn access(line: &AccessLine<'_>) {
    let AccessLine {
        method,
        path,
        host,
        peer,
        route,
        status,
        outcome,
        bytes,
        duration,
        request_id,
        trace_id,
    } = *line;
    // SECURITY: query strings carry tokens and e-mail addresses, and so may a fragment that a
    // broken client sends.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let reason = outcome.detail().map(|detail| detail.to_string());
    let origin = outcome.origin.as_deref();
    // A fill has an id of its own; one that is passed on has the client's.
    let app_request_id = origin
        .and_then(|call| call.request_id.as_ref()?.to_str().ok())
        .filter(|id| request_id != Some(*id));
    tracing::info!(
        target: ACCESS_TARGET,
        method = method.as_str(),
        path,
        host,
        peer = %peer,
        route,
        status,
        cache = outcome.disposition.as_str(),
        reason,
        cause = origin.and_then(|call| call.cause.as_deref()),
        tier = outcome.tier.map(Tier::as_str),
        ttl = outcome.ttl,
        stored = outcome.stored,
        collapsed = outcome.collapsed,
        bytes,
        duration_us = micros(duration),
        app_us = origin.and_then(|call| call.took).map(micros),
        request_id,
        app_request_id,
        trace_id,
        "request"
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
