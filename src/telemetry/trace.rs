//! Spans of requests, for an OpenTelemetry collector: which requests get one, what it holds, and
//! the queue before the exporter.
//!
//! Owns the decision and the bounds. Must not know how a request was handled: callers pass the
//! outcome. A request never waits for the queue: a span that finds no room is counted and dropped.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::outcome::Outcome;
use crate::peer_address::PeerAddress;
use crate::telemetry::metrics::Counter;

pub use self::parent::TraceParent;

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
pub mod export;
mod parent;
#[cfg(feature = "otel")]
mod span_data;

/// `[trace]`, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// Where the collector listens: a name or an address, without brackets.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Host and port as the URL has them.
    pub authority: Box<str>,
    /// The path that takes spans.
    pub path: Box<str>,
    /// The share of requests that get a span although no caller has asked for it.
    pub sample: f64,
    /// How many spans a second peers that are not trusted may ask for.
    pub strangers: u32,
    /// How many finished spans wait for the exporter at most.
    pub queue: usize,
}

impl TraceSettings {
    /// The URL that spans are sent to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.path)
    }
}

/// Counts of what happens to spans.
#[derive(Clone, Debug, Default)]
pub struct TraceCounters {
    /// The collector has taken them.
    pub exported: Arc<Counter>,
    /// The collector has not taken them, or the queue was full.
    pub dropped: Arc<Counter>,
    /// The queue was full.
    pub queue_full: Arc<Counter>,
    /// Spans that a peer has asked for in vain.
    pub strangers_refused: Arc<Counter>,
}

/// A span that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanStart {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The span of the caller, if it has named one.
    pub parent_id: Option<[u8; 8]>,
    /// When it began, since the Unix epoch.
    pub since_epoch: Duration,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct FinishedSpan {
    /// How it began.
    pub start: SpanStart,
    /// How long it took.
    pub duration: Duration,
    /// The request's method.
    pub method: Method,
    /// The request's path, escaped, without the query.
    pub path: String,
    /// The requested host.
    pub host: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// What connected.
    pub peer: PeerAddress,
    /// The pattern of the route that matched.
    pub route: Option<String>,
    /// The response's status.
    pub status: u16,
    /// What happened, and why.
    pub outcome: Outcome,
}

/// Decides which requests get a span, and takes the spans.
#[derive(Debug)]
pub struct Tracer {
    sample: f64,
    strangers: StrangerBudget,
    queue: mpsc::Sender<FinishedSpan>,
    /// Counts.
    pub counters: TraceCounters,
}

impl Tracer {
    /// A tracer, and the spans that it takes.
    #[must_use]
    pub fn new(settings: &TraceSettings) -> (Self, mpsc::Receiver<FinishedSpan>) {
        let (queue, spans) = mpsc::channel(settings.queue);
        let strangers = StrangerBudget { limit: settings.strangers, used: Mutex::default() };
        let counters = TraceCounters::default();
        (Self { sample: settings.sample, strangers, queue, counters }, spans)
    }

    /// Begins a span, if the request gets one. A caller that has decided for its trace has decided
    /// for this request. SECURITY: one that is not trusted may ask for a few spans a second;
    /// beyond that, and without a caller, chance decides.
    pub fn begin(&self, headers: &HeaderMap, trusted: bool, clock: &Clock) -> Option<SpanStart> {
        let parent = TraceParent::from_headers(headers);
        let sampled = match &parent {
            Some(parent) if !parent.sampled => false,
            Some(_) if trusted || self.strangers.take(clock) => true,
            Some(_) => {
                self.counters.strangers_refused.inc();
                self.by_chance()
            }
            None => self.by_chance(),
        };
        sampled.then(|| SpanStart {
            trace_id: parent.as_ref().map_or_else(random_id, |parent| parent.trace_id),
            span_id: random_id(),
            parent_id: parent.map(|parent| parent.span_id),
            since_epoch: clock.since_epoch(),
        })
    }

    /// Hands a span to the exporter, or drops it.
    pub fn finish(&self, span: FinishedSpan) {
        if let Err(refused) = self.queue.try_send(span) {
            self.counters.dropped.inc();
            if matches!(refused, mpsc::error::TrySendError::Full(_)) {
                self.counters.queue_full.inc();
            }
        }
    }

    /// SECURITY: not by the trace id, which callers choose.
    fn by_chance(&self) -> bool {
        self.sample > 0.0 && rand::thread_rng().r#gen::<f64>() < self.sample
    }
}

/// An id at random. Zeros are no id.
fn random_id<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    rand::thread_rng().fill(&mut id[..]);
    if id == [0; N] { [1; N] } else { id }
}

/// How many spans peers that are not trusted have asked for within this second.
#[derive(Debug)]
struct StrangerBudget {
    limit: u32,
    /// The second, and the number.
    used: Mutex<(u64, u32)>,
}

impl StrangerBudget {
    fn take(&self, clock: &Clock) -> bool {
        let second = clock.wall().seconds();
        let mut used = self.used.lock();
        if used.0 != second {
            *used = (second, 0);
        }
        let has_room = used.1 < self.limit;
        used.1 += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn tracer(sample: f64, strangers: u32) -> (Tracer, mpsc::Receiver<FinishedSpan>) {
        Tracer::new(&TraceSettings {
            host: "collector".into(),
            port: 4318,
            authority: "collector:4318".into(),
            path: "/v1/traces".into(),
            sample,
            strangers,
            queue: 2,
        })
    }

    fn headers(flags: &str) -> HeaderMap {
        let value = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
        HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            value.parse().expect("a value"),
        )])
    }

    fn finished(start: SpanStart) -> FinishedSpan {
        FinishedSpan {
            start,
            duration: Duration::ZERO,
            method: Method::GET,
            path: "/".to_owned(),
            host: None,
            request_id: None,
            peer: PeerAddress::Unix,
            route: None,
            status: 200,
            outcome: Outcome::new(crate::outcome::Disposition::Hit),
        }
    }

    #[test]
    fn a_caller_that_is_trusted_decides() {
        let clock = Clock::manual();
        let (never, _spans) = tracer(0.0, 0);
        let start = never.begin(&headers("01"), true, &clock).expect("asked for");
        assert_eq!(start.trace_id.map(|byte| format!("{byte:02x}")).concat(), TRACE);
        assert_eq!(start.parent_id, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        assert_eq!(never.begin(&HeaderMap::new(), true, &clock), None);
        let (always, _spans) = tracer(1.0, 0);
        assert_eq!(always.begin(&headers("00"), true, &clock), None);
        let start = always.begin(&HeaderMap::new(), true, &clock).expect("chance is certain");
        assert_eq!(start.parent_id, None);
        assert_ne!(start.trace_id, always.begin(&HeaderMap::new(), true, &clock).unwrap().trace_id);
    }

    #[test]
    fn strangers_ask_for_a_few_spans_a_second() {
        let clock = Clock::manual();
        let (tracer, _spans) = tracer(0.0, 3);
        let asked =
            |n| (0..n).filter(|_| tracer.begin(&headers("01"), false, &clock).is_some()).count();
        // A second of the machine's clock may end in between.
        let first = asked(100);
        assert!((3..=6).contains(&first), "{first}");
        assert_eq!(tracer.counters.strangers_refused.get(), 100 - first as u64);
        clock.advance(Duration::from_secs(2));
        assert!((3..=6).contains(&asked(100)));
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let (tracer, mut spans) = tracer(1.0, 0);
        for _ in 0..5 {
            let start = tracer.begin(&HeaderMap::new(), true, &Clock::manual()).expect("a span");
            tracer.finish(finished(start));
        }
        assert_eq!((tracer.counters.dropped.get(), tracer.counters.queue_full.get()), (3, 3));
        spans.close();
        let start = tracer.begin(&HeaderMap::new(), true, &Clock::manual()).expect("a span");
        tracer.finish(finished(start));
        assert_eq!((tracer.counters.dropped.get(), tracer.counters.queue_full.get()), (4, 3));
    }
}
