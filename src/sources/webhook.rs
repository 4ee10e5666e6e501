//! A webhook: what a service on the internet sends when something has changed there, signed.
//!
//! Nothing proves that a service has sent all that it should: such a source is never deaf, and
//! what it is not sent lives for its `ttl`.
//!
//! Invariants:
//! 1. *Nobody purges without the secret.* Whatever is wrong with a signature, the answer is the
//!    same, and nothing is purged.
//! 2. *A delivery is accepted once its purge is done*: by all sidecars, or in the journal. Its
//!    sender repeats what is not accepted.
//! 3. *A delivery purges all that it names, or nothing.* Beyond a rate, the families of all tags
//!    are purged in its place.
//! 4. *A delivery that comes again too often is purged all the same*, with what else is due, since
//!    senders may repeat themselves where something has changed again. None of these is accepted,
//!    so that none keeps anybody waiting.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use parking_lot::Mutex;

use self::repeats::SeenSignatures;
use self::settings::WebhookSettings;
use super::due::TemplateSet;
use super::payload;
use super::queue::PurgeQueue;
use super::settings::SourceKind;
use super::status::DeliveryOutcome;
use crate::coherence::Released;
use crate::policy::webhook_signature::SignatureFault;

mod repeats;
pub(super) mod settings;

/// How long the purge of a delivery may take. Its sender does not wait longer, and sends it again.
const PURGE_TIME: Duration = Duration::from_secs(20);

/// Receives the deliveries of one source.
pub struct WebhookReceiver {
    queue: Arc<PurgeQueue>,
    settings: WebhookSettings,
    seen: Mutex<SeenSignatures>,
}

impl std::fmt::Debug for WebhookReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookReceiver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl WebhookReceiver {
    /// That of a source; `None` if it is of another kind.
    pub(super) fn of(queue: &Arc<PurgeQueue>) -> Option<Arc<Self>> {
        let SourceKind::Webhook(settings) = &queue.settings.kind else { return None };
        let (queue, settings) = (Arc::clone(queue), (**settings).clone());
        Some(Arc::new(Self { queue, settings, seen: Mutex::default() }))
    }

    /// The longest body that is read, in bytes.
    #[must_use]
    pub const fn max_body(&self) -> usize {
        self.settings.max_body
    }

    /// Counts what has become of a delivery, and logs it if something is wrong with it.
    pub fn count(&self, outcome: DeliveryOutcome) {
        let status = &self.queue.status;
        status.counters.deliveries.of(outcome).inc();
        if outcome == DeliveryOutcome::Repeated {
            tracing::warn!(
                source = &*status.name,
                "a webhook comes again and again: it purges, and is not accepted"
            );
        } else if outcome.is_refusal() {
            tracing::warn!(
                source = &*status.name,
                why = outcome.as_str(),
                "a webhook is refused: nothing is purged"
            );
        }
    }

    /// Purges what a delivery names, and says what has become of it once that is done.
    pub async fn deliver(&self, headers: &HeaderMap, body: &[u8]) -> DeliveryOutcome {
        let (queue, clock) = (&self.queue, &self.queue.context.clock);
        let (keys, form) = (&self.settings.keys, &self.settings.form);
        let is_repeat = match form.verify(headers, body, keys, (clock.wall(), self.settings.window))
        {
            Ok(signature) => !self.seen.lock().note(&signature, clock.now()),
            Err(SignatureFault::Unsigned) => return DeliveryOutcome::Unsigned,
            Err(SignatureFault::Time) => return DeliveryOutcome::Late,
            Err(SignatureFault::Wrong) => return DeliveryOutcome::WrongSignature,
        };
        queue.status.note_heard(clock.wall());
        queue.status.counters.events.inc();
        let (tags, families) = if queue.has_room() {
            let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            match payload::read_body(kind, body, &queue.settings.tags) {
                Ok(told) => (told.tags, told.families),
                Err(why) => {
                    queue.refuse(&why);
                    return match why {
                        payload::BadPayload::Malformed(_) => DeliveryOutcome::Malformed,
                        _ => DeliveryOutcome::Ignored,
                    };
                }
            }
        } else {
            (Vec::new(), TemplateSet::ALL)
        };
        if is_repeat {
            queue.context.repeats.inc();
            queue.add(tags, families);
            return DeliveryOutcome::Repeated;
        }
        let purged = tokio::time::timeout(PURGE_TIME, queue.purge_and_wait(tags, families)).await;
        match purged {
            Ok(Some(Released::PublishFailed)) => DeliveryOutcome::Pending,
            Ok(Some(Released::Acknowledged | Released::LeaseExpired)) => DeliveryOutcome::Purged,
            Ok(None) | Err(_) => DeliveryOutcome::Unfinished,
        }
    }
}
