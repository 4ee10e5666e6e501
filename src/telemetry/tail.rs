//! The live tail: finished requests, told to whoever listens while they happen.
//!
//! Owns the form of a line and the limits of its listeners. While nobody listens a request pays for
//! one relaxed load. While somebody does, whoever answers a request filters it, counts it against
//! the listener's rate, and puts one shared line into the listener's queue: without a lock, without
//! waiting. The listener's own task turns it into text. Must not know how a request was handled:
//! callers pass the outcome.
//!
//! SECURITY: as in the access log there are no fields for secrets: no query, no header, no body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Method;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock::Wall;
use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::telemetry::log::printable;
use crate::telemetry::metrics::{Counter, NONE};

/// How many listeners there may be. Each costs every request a little.
pub const MAX_TAIL_LISTENERS: usize = 8;
/// How many lines a second a listener gets, unless it asks for fewer or more.
pub const DEFAULT_TAIL_RATE: u32 = 200;
/// How many lines a second a listener may ask for.
pub const MAX_TAIL_RATE: u32 = 1000;
/// How many lines a listener may fall behind before it misses some.
pub const TAIL_BACKLOG: usize = 512;
/// The longest text in a line, in bytes: clients choose paths and names of headers.
pub const MAX_TAIL_TEXT: usize = 256;
/// The longest method in a line, in bytes: clients choose it, too.
const MAX_METHOD: usize = 32;
/// How often a listener is told what it has missed.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A request that has its response, as its caller knows it.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path. A query is left out.
    pub path: &'a str,
    /// The name of the route that matched.
    pub route: Option<&'a str>,
    /// The status of its response.
    pub status: u16,
    /// What happened, and why.
    pub outcome: &'a Outcome,
    /// The size of its body in bytes, if known.
    pub bytes: Option<u64>,
    /// From its head to the head of its response.
    pub duration: Duration,
}

/// A line of the tail, as it is on the wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TailLine {
    /// When the response began, in milliseconds since the Unix epoch.
    at_ms: u64,
    method: String,
    path: String,
    /// `none` where no route matches, as in metrics.
    route: String,
    status: u16,
    disposition: &'static str,
    reason: Option<&'static str>,
    subject: Option<String>,
    tier: Option<&'static str>,
    duration_ms: f64,
    /// How long the app took for the head of its response.
    app_ms: Option<f64>,
    bytes: Option<u64>,
    stored: bool,
    collapsed: bool,
}

/// What a listener wants to see. What is `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailFilter {
    /// The name of a route; `none` for requests without one.
    pub route: Option<String>,
    /// One disposition.
    pub disposition: Option<Disposition>,
    /// Text in the path.
    pub path: Option<String>,
    /// One reason.
    pub reason: Option<Reason>,
    /// The least and the greatest status.
    pub status: Option<(u16, u16)>,
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq)]
pub enum TailItem {
    /// A request.
    Request(Arc<TailLine>),
    /// Requests that it did not get since it was last told.
    Missed(MissedLines),
}

/// Requests that a listener did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MissedLines {
    /// Beyond its rate.
    pub more: u64,
    /// Because it reads more slowly than they come.
    pub lost: u64,
}

/// All listeners.
#[derive(Debug, Default)]
pub struct Tail {
    count: AtomicUsize,
    listeners: ArcSwap<Vec<Arc<TailSlot>>>,
    /// What the tail counts.
    pub counters: TailCounters,
}

/// How often each limit was reached, and how many lines were told.
#[derive(Clone, Debug, Default)]
pub struct TailCounters {
    /// Lines put into the queues of listeners.
    pub lines: Arc<Counter>,
    /// Lines beyond the rate of a listener.
    pub beyond_rate: Arc<Counter>,
    /// Lines that found the queue of a listener full.
    pub lost: Arc<Counter>,
    /// Listeners refused because there were as many as there may be.
    pub refused: Arc<Counter>,
}

/// What the one who tells knows of a listener.
#[derive(Debug)]
struct TailSlot {
    filter: TailFilter,
    rate: RateWindow,
    queue: mpsc::Sender<Arc<TailLine>>,
    more: AtomicU64,
    lost: AtomicU64,
}

/// One listener. Dropping it ends it.
#[derive(Debug)]
pub struct TailListener {
    tail: Arc<Tail>,
    listener: Arc<TailSlot>,
    lines: mpsc::Receiver<Arc<TailLine>>,
    tick: Interval,
}

impl Tail {
    /// Whether anybody listens: all that a request pays where nobody does.
    #[inline]
    pub fn is_heard(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// The number of listeners.
    pub fn listeners(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells all listeners that want to know of it of a request.
    pub fn tell(&self, now: Instant, at: Wall, request: &FinishedRequest<'_>) {
        let mut line = None;
        for listener in self.listeners.load().iter() {
            if !listener.filter.matches(request) {
                continue;
            }
            if !listener.rate.admits(now) {
                listener.more.fetch_add(1, Ordering::Relaxed);
                self.counters.beyond_rate.inc();
                continue;
            }
            match listener.queue.try_reserve() {
                // It is made once for all, and only if there is room for it.
                Ok(place) => {
                    let line = line.get_or_insert_with(|| Arc::new(TailLine::new(at, request)));
                    place.send(Arc::clone(line));
                    self.counters.lines.inc();
                }
                Err(TrySendError::Full(())) => {
                    listener.lost.fetch_add(1, Ordering::Relaxed);
                    self.counters.lost.inc();
                }
                // It is just going away.
                Err(TrySendError::Closed(())) => {}
            }
        }
    }

    /// A new listener, at most `rate` lines a second; `None` if there are
    /// [`MAX_TAIL_LISTENERS`] already. Needs a runtime.
    pub fn listen(
        self: &Arc<Self>,
        now: Instant,
        filter: TailFilter,
        rate: u32,
    ) -> Option<TailListener> {
        let more = |count| (count < MAX_TAIL_LISTENERS).then_some(count + 1);
        if self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.counters.refused.inc();
            return None;
        }
        let (queue, lines) = mpsc::channel(TAIL_BACKLOG);
        let rate = RateWindow::new(now, rate);
        let (more, lost) = Default::default();
        let listener = Arc::new(TailSlot { filter, rate, queue, more, lost });
        self.listeners.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(Arc::clone(&listener));
            all
        });
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(TailListener { tail: Arc::clone(self), listener, lines, tick })
    }
}

impl TailListener {
    /// What comes next. Waits for as long as nothing does.
    pub async fn next(&mut self) -> TailItem {
        loop {
            tokio::select! {
                // The sender is among `self`, so that the queue stays open.
                Some(line) = self.lines.recv() => return TailItem::Request(line),
                _ = self.tick.tick() => {
                    let missed = self.listener.take_missed();
                    if missed != MissedLines::default() {
                        return TailItem::Missed(missed);
                    }
                }
            }
        }
    }
}

impl Drop for TailListener {
    fn drop(&mut self) {
        let own = &self.listener;
        self.tail.listeners.rcu(|all| {
            let others = all.iter().filter(|other| !Arc::ptr_eq(other, own));
            others.cloned().collect::<Vec<_>>()
        });
        self.tail.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TailSlot {
    fn take_missed(&self) -> MissedLines {
        MissedLines {
            more: self.more.swap(0, Ordering::Relaxed),
            lost: self.lost.swap(0, Ordering::Relaxed),
        }
    }
}

impl TailFilter {
    fn matches(&self, request: &FinishedRequest<'_>) -> bool {
        let Self { route, disposition, path, reason, status } = self;
        let outcome = request.outcome;
        route.as_deref().is_none_or(|wanted| request.route.unwrap_or(NONE) == wanted)
            && disposition.is_none_or(|wanted| outcome.disposition == wanted)
            && reason.is_none_or(|wanted| outcome.reason == Some(wanted))
            && status.is_none_or(|(least, most)| (least..=most).contains(&request.status))
            && path.as_deref().is_none_or(|wanted| without_query(request.path).contains(wanted))
    }
}

impl TailLine {
    fn new(at: Wall, request: &FinishedRequest<'_>) -> Self {
        let outcome = request.outcome;
        let short = |text| printable(text, MAX_TAIL_TEXT).into_owned();
        let app = outcome.origin.as_deref().and_then(|call| call.took);
        Self {
            at_ms: at.0,
            method: printable(request.method.as_str(), MAX_METHOD).into_owned(),
            path: short(without_query(request.path)),
            route: short(request.route.unwrap_or(NONE)),
            status: request.status,
            disposition: outcome.disposition.as_str(),
            reason: outcome.reason.map(Reason::as_str),
            subject: outcome.subject.as_deref().map(short),
            tier: outcome.tier.map(Tier::as_str),
            duration_ms: millis(request.duration),
            app_ms: app.map(millis),
            bytes: request.bytes,
            stored: outcome.stored,
            collapsed: outcome.collapsed,
        }
    }
}

/// SECURITY: query strings carry tokens and e-mail addresses, and so may a fragment that a broken
/// client sends.
fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Milliseconds with a precision of one microsecond.
fn millis(duration: Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// So many in each second that begins when the listener came. The second is in the upper half, how
/// many it had in the lower one, so that one atomic holds both.
#[derive(Debug)]
struct RateWindow {
    since: Instant,
    rate: u32,
    state: AtomicU64,
}

impl RateWindow {
    const fn new(since: Instant, rate: u32) -> Self {
        Self { since, rate, state: AtomicU64::new(0) }
    }

    fn admits(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.since).as_secs() << 32;
        let count = |state: u64| {
            // Whoever comes late, from the second before, counts in the one that has begun.
            let state = if state >= second { state } else { second };
            ((state & u64::from(u32::MAX)) < u64::from(self.rate)).then_some(state + 1)
        };
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok()
    }
}

#[cfg(test)]
mod tests;
