//! Tells one receiver of purges, in the order in which requests succeed: purges are idempotent, so
//! that no other order counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::message::{NotifyBatch, NotifyMessage, message};
use super::queue::WaitingTags;
use super::settings::{NotifyKind, NotifySettings};
use super::status::{NotifyCounters, NotifyView};
use crate::clock::{Clock, Wall};
use crate::policy::tag::Tag;
use crate::telemetry::log::printable;
use crate::telemetry::metrics::Counter;
use crate::upstream::{UrlAnswer, UrlClient};

/// The pause before a request is sent again: it starts here, and doubles up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The longest pause that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// The longest pause while the sidecar stops.
const LAST_RETRY: Duration = Duration::from_millis(250);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// How much of a reason is shown, in bytes: the receiver may have written it.
const MAX_REASON: usize = 300;

/// What became of a request.
enum SendOutcome {
    /// The receiver has taken it.
    Accepted,
    /// It never takes this one.
    Rejected(String),
    /// It may take it later, after this time if it has said so.
    Failed(String, Option<Duration>),
}

/// What fails at present.
#[derive(Debug, Default)]
struct SendState {
    why: Option<String>,
    failures: u32,
    sent_at: Option<Wall>,
    /// What is being told.
    in_flight: Option<NotifyBatch>,
}

/// Tells one receiver.
#[derive(Debug)]
pub(super) struct Notifier {
    pub(super) settings: NotifySettings,
    pub(super) counters: NotifyCounters,
    waiting: Mutex<WaitingTags>,
    state: Mutex<SendState>,
    wake: Notify,
    /// Tells that nothing waits any more.
    idle: Notify,
    overflows: Arc<Counter>,
    clock: Clock,
    /// The sidecar stops: nothing is gathered any more, and pauses are short.
    hurries: AtomicBool,
    hurry: CancellationToken,
}

impl Notifier {
    pub(super) fn new(
        settings: NotifySettings,
        counters: NotifyCounters,
        overflows: &Arc<Counter>,
        clock: &Clock,
    ) -> Self {
        Self {
            settings,
            counters,
            waiting: Mutex::default(),
            state: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
            overflows: Arc::clone(overflows),
            clock: clock.clone(),
            hurries: AtomicBool::new(false),
            hurry: CancellationToken::new(),
        }
    }

    /// Adds tags, or everything for `None`. Does not wait.
    pub(super) fn add(&self, tags: Option<&[Tag]>) {
        if self.waiting.lock().add(tags, self.clock.now()) {
            self.overflows.inc();
            tracing::warn!(
                notify = &*self.settings.name,
                "more purges wait than may: everything is purged there in their place"
            );
        }
        self.wake.notify_one();
    }

    /// Takes over what another one has not told yet.
    pub(super) fn inherit(&self, other: &Self) {
        // Nobody knows whether the request under way arrives.
        match &other.state.lock().in_flight {
            Some(NotifyBatch::Tags(tags)) => self.add(Some(tags)),
            Some(NotifyBatch::Everything) => self.add(None),
            None => {}
        }
        let left = std::mem::take(&mut *other.waiting.lock());
        self.waiting.lock().join(left);
        self.wake.notify_one();
    }

    pub(super) fn view(&self) -> NotifyView {
        let state = self.state.lock();
        let waiting = self.waiting.lock();
        let since = waiting.since().map(|since| self.clock.now().saturating_duration_since(since));
        NotifyView {
            name: Arc::clone(&self.settings.name),
            kind: self.settings.kind.as_str(),
            waiting: waiting.len() + state.in_flight.as_ref().map_or(0, NotifyBatch::len),
            waits: since.unwrap_or_default(),
            sent_at: state.sent_at,
            why: state.why.clone(),
            failures: state.failures,
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.in_flight.is_none() && self.waiting.lock().is_empty()
    }

    /// Tells what waits without further ado, and returns when nothing does.
    pub(super) async fn finish(&self) {
        self.hurries.store(true, Ordering::SeqCst);
        self.hurry.cancel();
        loop {
            let idle = self.idle.notified();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Tells the receiver, until the end.
    pub(super) async fn run(self: Arc<Self>, end: CancellationToken) {
        let _ = end.run_until_cancelled(self.tell_for_ever()).await;
    }

    async fn tell_for_ever(&self) {
        let mut client = None;
        loop {
            self.wake.notified().await;
            let _ = self.hurry.run_until_cancelled(tokio::time::sleep(self.settings.gather)).await;
            while let Some(batch) = self.take() {
                self.tell(&mut client, batch).await;
                self.state.lock().in_flight = None;
            }
            self.idle.notify_waiters();
        }
    }

    fn take(&self) -> Option<NotifyBatch> {
        // In this order, as in `is_idle`: what is taken is always seen in one of the two.
        let mut state = self.state.lock();
        let batch = self.waiting.lock().take(self.settings.kind.max_tags().saturating_sub(1))?;
        state.in_flight = Some(batch.clone());
        Some(batch)
    }

    /// Tells of a batch, however often that fails.
    async fn tell(&self, client: &mut Option<UrlClient>, mut batch: NotifyBatch) {
        let (mut id, mut pause) = (new_id(), RETRY.0);
        loop {
            match self.send(client, &batch, &id).await {
                SendOutcome::Accepted => return self.note_accepted(&batch),
                SendOutcome::Rejected(why) if batch != NotifyBatch::Everything => {
                    self.counters.rejected.inc();
                    tracing::warn!(
                        notify = &*self.settings.name,
                        why,
                        "a purge is rejected there: everything is purged in its place"
                    );
                    (batch, id) = (NotifyBatch::Everything, new_id());
                }
                SendOutcome::Rejected(why) => {
                    self.pause_after(&why, pause, None).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                SendOutcome::Failed(why, after) => {
                    self.pause_after(&why, pause, after).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn send(
        &self,
        client: &mut Option<UrlClient>,
        batch: &NotifyBatch,
        id: &str,
    ) -> SendOutcome {
        let Some(message) = message(&self.settings, batch, (id, self.clock.wall())) else {
            return SendOutcome::Failed("the token cannot be sent in a header".to_owned(), None);
        };
        let client = if let Some(client) = client {
            client
        } else {
            let url = self.settings.url.clone();
            match UrlClient::new(url, MAX_ANSWER, self.clock.clone()) {
                Ok(made) => client.insert(made),
                Err(error) => return SendOutcome::Failed(error.to_string(), None),
            }
        };
        let NotifyMessage { path, headers, body } = message;
        match client.post(&path, headers, body).await {
            Ok(answer) => self.judge(&answer),
            Err(error) => SendOutcome::Failed(error.to_string(), None),
        }
    }

    fn judge(&self, answer: &UrlAnswer) -> SendOutcome {
        let status = answer.status;
        let why = || {
            let text = String::from_utf8_lossy(&answer.body);
            format!("the answer is {status}: {}", text.trim())
        };
        match status {
            // Cloudflare says so in the body, too.
            _ if status.is_success() && self.is_denied(answer) => SendOutcome::Rejected(why()),
            _ if status.is_success() => SendOutcome::Accepted,
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => SendOutcome::Rejected(why()),
            _ => SendOutcome::Failed(why(), self.retry_after(&answer.headers)),
        }
    }

    fn is_denied(&self, answer: &UrlAnswer) -> bool {
        let is_read = matches!(self.settings.kind, NotifyKind::Cloudflare { .. });
        let said = || serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        is_read && said().is_some_and(|said| said["success"] == false)
    }

    /// How long the receiver wants to be left alone (RFC 9110 10.2.3).
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let after = if let Ok(seconds) = text.parse() {
            Duration::from_secs(seconds)
        } else {
            let at = httpdate::parse_http_date(text).ok()?;
            let at = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            at.saturating_sub(Duration::from_millis(self.clock.wall().0))
        };
        Some(after.min(MAX_RETRY_AFTER))
    }

    fn note_accepted(&self, batch: &NotifyBatch) {
        self.counters.sent.inc();
        match batch {
            NotifyBatch::Tags(tags) => self.counters.tags.add(tags.len() as u64),
            NotifyBatch::Everything => self.counters.everything.inc(),
        }
        let mut state = self.state.lock();
        state.sent_at = Some(self.clock.wall());
        (state.why, state.failures) = (None, 0);
    }

    async fn pause_after(&self, why: &str, pause: Duration, after: Option<Duration>) {
        self.counters.failures.inc();
        let why = printable(why, MAX_REASON).into_owned();
        tracing::warn!(
            notify = &*self.settings.name,
            why,
            "a receiver of purges was not told, and may serve what was purged; it is told again"
        );
        {
            let mut state = self.state.lock();
            (state.why, state.failures) = (Some(why), state.failures.saturating_add(1));
        }
        if self.hurries.load(Ordering::SeqCst) {
            return tokio::time::sleep(pause.min(LAST_RETRY)).await;
        }
        let pause = after.unwrap_or(pause).max(pause);
        let _ = self.hurry.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// The id of a message.
fn new_id() -> String {
    format!("msg_{:032x}", rand::random::<u128>())
}
