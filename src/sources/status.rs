//! What a source does at present, for operators, and what it has counted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::settings::{SourceKind, SourceSettings};
use crate::clock::Wall;
use crate::telemetry::log::printable;
use crate::telemetry::metrics::Counter;
use crate::units::show_duration;

/// How much of a reason is shown, in bytes: a server may have written it.
const MAX_REASON: usize = 300;

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It connects for the first time.
    Connecting,
    /// It hears every change.
    Listening,
    /// It gets what is sent to it. Nothing proves that all is.
    Receiving,
    /// Changes may be missed: it has no connection, or its own messages do not come back.
    Deaf,
    /// A reload has removed it, or the sidecar stops.
    Stopped,
}

impl SourceState {
    /// The word for `/stats` and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listening => "listening",
            Self::Receiving => "receiving",
            Self::Deaf => "deaf",
            Self::Stopped => "stopped",
        }
    }
}

/// What has become of a delivery of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It is purged in all sidecars.
    Purged,
    /// It is purged here, and in the journal for the others.
    Pending,
    /// It names none of the tags.
    Ignored,
    /// A header of the signature is missing or malformed.
    Unsigned,
    /// It was sent too long ago, or by a clock that is wrong.
    Late,
    /// The signature is wrong.
    WrongSignature,
    /// Its signature has come too often.
    Repeated,
    /// The body is too long.
    TooLarge,
    /// The body did not arrive, or too slowly.
    Broken,
    /// There is no memory for the body.
    NoRoom,
    /// It is signed, and is neither JSON nor a form.
    Malformed,
    /// Its purge has not come to an end.
    Unfinished,
}

impl DeliveryOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
        Self::Purged,
        Self::Pending,
        Self::Ignored,
        Self::Unsigned,
        Self::Late,
        Self::WrongSignature,
        Self::Repeated,
        Self::TooLarge,
        Self::Broken,
        Self::NoRoom,
        Self::Malformed,
        Self::Unfinished,
    ];

    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Purged => "purged",
            Self::Pending => "pending",
            Self::Ignored => "ignored",
            Self::Unsigned => "unsigned",
            Self::Late => "late",
            Self::WrongSignature => "wrong_signature",
            Self::Repeated => "repeated",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
            Self::NoRoom => "no_room",
            Self::Malformed => "malformed",
            Self::Unfinished => "unfinished",
        }
    }

    /// Whether its sender is told that it was not accepted.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        !matches!(self, Self::Purged | Self::Pending | Self::Ignored)
    }
}

/// What has become of the deliveries of a webhook.
#[derive(Clone, Debug, Default)]
pub struct DeliveryCounters([Arc<Counter>; DeliveryOutcome::ALL.len()]);

impl DeliveryCounters {
    /// The counter of this outcome.
    #[must_use]
    pub const fn of(&self, outcome: DeliveryOutcome) -> &Arc<Counter> {
        &self.0[outcome as usize]
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let refusals = DeliveryOutcome::ALL.into_iter().filter(|outcome| outcome.is_refusal());
        refusals.map(|outcome| self.of(outcome).get()).sum()
    }
}

/// What a source has counted.
#[derive(Clone, Debug, Default)]
pub struct SourceCounters {
    /// What it was told: notifications, messages, rows.
    pub events: Arc<Counter>,
    /// Tags that it has purged, families included.
    pub tags: Arc<Counter>,
    /// Times that changes may have been missed.
    pub gaps: Arc<Counter>,
    /// Payloads that name no tags.
    pub bad_payloads: Arc<Counter>,
    /// Microseconds from the telling to the end of the purge, all together.
    pub purge_us: Arc<Counter>,
    /// Of a webhook: what has become of its deliveries.
    pub deliveries: DeliveryCounters,
}

/// A view of what a source does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceView {
    /// What it does.
    pub state: SourceState,
    /// Since when.
    pub since: Wall,
    /// Why it does not listen.
    pub why: Option<String>,
    /// When its hearing was proven last.
    pub heard: Option<Wall>,
}

/// The status of a source.
#[derive(Debug)]
pub struct SourceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The word for what it listens to.
    pub kind: &'static str,
    /// The templates of its tags, as written.
    pub tags: Box<[String]>,
    /// What was counted so far.
    pub counters: SourceCounters,
    degraded_ttl: Duration,
    /// Whether something proves that it hears every change.
    has_proof: bool,
    view: Mutex<SourceView>,
    /// The number of the connection in use; 0 for none.
    session: Mutex<u64>,
}

impl SourceStatus {
    pub(super) fn new(settings: &SourceSettings, counters: SourceCounters, now: Wall) -> Arc<Self> {
        let view =
            SourceView { state: SourceState::Connecting, since: now, why: None, heard: None };
        Arc::new(Self {
            name: Arc::clone(&settings.name),
            kind: settings.kind.as_str(),
            tags: settings.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
            counters,
            degraded_ttl: settings.degraded_ttl,
            has_proof: !matches!(settings.kind, SourceKind::Webhook(_)),
            view: Mutex::new(view),
            session: Mutex::new(0),
        })
    }

    /// What it does at present.
    #[must_use]
    pub fn view(&self) -> SourceView {
        self.view.lock().clone()
    }

    /// The word for what it does.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.view.lock().state.as_str()
    }

    /// Whether it hears every change, as far as that can be known.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        matches!(self.view.lock().state, SourceState::Listening | SourceState::Receiving)
    }

    /// Why entries with its tags are served for a short time alone; `None` if they are not, or if
    /// it has only just begun.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        let view = self.view.lock();
        (view.state == SourceState::Deaf).then(|| {
            format!(
                "the source {} ({}) is deaf: {}; what it could purge is stored for {} at most",
                self.name,
                self.kind,
                view.why.as_deref().unwrap_or("it has not begun"),
                show_duration(self.degraded_ttl)
            )
        })
    }

    /// Notes that an attempt to listen begins.
    pub(super) fn begin_session(&self, session: u64) {
        *self.session.lock() = session;
    }

    /// Notes that it listens, and returns what it did before; `None` if the session in which that
    /// was proven has ended since.
    pub(super) fn begin_to_listen(&self, session: u64, now: Wall) -> Option<SourceState> {
        // Held, so that the session does not end in between.
        let current = self.session.lock();
        let state = if self.has_proof { SourceState::Listening } else { SourceState::Receiving };
        (*current == session).then(|| self.change(state, None, now))
    }

    pub(super) fn note_heard(&self, now: Wall) {
        self.view.lock().heard = Some(now);
    }

    /// Notes that it does not listen from now on, and returns what it did before.
    pub(super) fn end_session(
        &self,
        state: SourceState,
        why: Option<&str>,
        now: Wall,
    ) -> SourceState {
        let mut current = self.session.lock();
        *current = 0;
        self.change(state, why, now)
    }

    /// Notes what it does from now on, and returns what it did before.
    fn change(&self, state: SourceState, why: Option<&str>, now: Wall) -> SourceState {
        let mut view = self.view.lock();
        let before = view.state;
        if before != state {
            view.since = now;
        }
        view.state = state;
        view.why = why.map(|why| printable(why, MAX_REASON).into_owned());
        before
    }
}
