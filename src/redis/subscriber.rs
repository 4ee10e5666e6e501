//! An ear on one channel of Redis.
//!
//! Invariants:
//! - An ear that says it is listening has heard, on the connection it listens on, something that
//!   was sent after the subscription. fred does not wait for Redis to acknowledge a subscription,
//!   and nobody hears of one that was refused; so the ear also subscribes to a channel of its own,
//!   and counts as listening from the first message on that.
//! - A connection is never mended: fred's own re-subscription loses messages and does not say so.
//!   Any sign of a lost connection, a receiver that lags, another primary, or a message to itself
//!   that does not come back, ends the client. (The last is how a slot is noticed that has moved:
//!   Redis ends the subscription, and fred does not pass that on.) First the ear no longer says
//!   that it is listening, then it tells of the [`BusEvent::Gap`], then it begins anew.
//! - It listens where the link writes: on the primary, in a cluster on that of the metadata's slot,
//!   by sharded pub/sub.
//! - It ends when it is dropped, a wedged client included.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::types::{Message, Value};
use tokio::sync::{Notify, broadcast};

use crate::redis::node::AbortOnDrop;
use crate::redis::session::{RedisSession, Topology};
use crate::redis::{RedisClient, commands};
use crate::telemetry::metrics::Counter;

/// How often it says something to itself.
const SELF_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long to wait before a new try: from this, doubling, up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);

/// What an ear hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A message, from whoever may publish. It may come before [`BusEvent::Listening`].
    Message(Bytes),
    /// Everything that is published from now on will be heard, or be followed by a gap.
    Listening,
    /// Messages may have been missed.
    Lagged,
}

/// The ear. Dropped, it ends.
#[derive(Debug)]
pub struct Subscriber {
    listening: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    /// Whether everything that is published from now on will be heard, or be followed by a gap.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listening.load(SeqCst)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RedisClient {
    /// Listens to a channel, on a connection of its own. `hear` is called from one task, and must
    /// not wait.
    pub fn subscribe(
        &self,
        channel: String,
        hear: impl Fn(BusEvent) + Send + Sync + 'static,
    ) -> Subscriber {
        let listening = Arc::new(AtomicBool::new(false));
        let listener = SubscriberTask {
            topology: Arc::clone(&self.topology),
            is_sharded: self.is_sharded(),
            deadline: self.settings.deadline,
            publisher: Arc::clone(&self.session),
            calls: Arc::clone(&self.counters.calls),
            listening: Arc::clone(&listening),
            channel,
        };
        Subscriber { listening, task: tokio::spawn(async move { listener.run(&hear).await }) }
    }
}

struct SubscriberTask {
    topology: Arc<Topology>,
    is_sharded: bool,
    deadline: Duration,
    /// The client of the link: what is said to oneself goes this way, since RESP2 has no PUBLISH on
    /// a connection that listens.
    publisher: Arc<ArcSwap<RedisSession>>,
    calls: Arc<Counter>,
    listening: Arc<AtomicBool>,
    channel: String,
}

impl SubscriberTask {
    /// Listens for ever.
    async fn run(&self, hear: &(impl Fn(BusEvent) + Send + Sync)) {
        let mut wait = MIN_RETRY_DELAY;
        let mut told = false;
        loop {
            self.listen(hear).await;
            if self.listening.swap(false, SeqCst) {
                hear(BusEvent::Lagged);
                (wait, told) = (MIN_RETRY_DELAY, false);
            } else if wait == MAX_RETRY_DELAY && !told {
                told = true;
                tracing::warn!(
                    channel = self.channel,
                    "no subscription in Redis yet; where Redis answers, its ACL may forbid the channel"
                );
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// Listens until something is wrong.
    async fn listen(&self, hear: &(impl Fn(BusEvent) + Send + Sync)) {
        let (over, primary) = {
            let current = self.publisher.load();
            // Not connected yet.
            let Ok(servers) = current.servers() else { return };
            (current.closed(), servers.primary.address.clone())
        };
        let client = match self.topology.access().client(&primary) {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "the Redis client could not be made"),
        };
        let (messages, mut errors) = (client.message_rx(), client.error_rx());
        let router = AbortOnDrop(client.connect());
        let own = format!("{}:{}", self.channel, crate::units::hex(&rand::random::<[u8; 16]>()));
        let back = Notify::new();
        let listening = async {
            if !matches!(
                tokio::time::timeout(self.self_check_timeout(), client.wait_for_connect()).await,
                Ok(Ok(()))
            ) {
                return;
            }
            // In this order: who hears the second has subscribed to the first.
            if self.is_sharded {
                // One by one: fred takes each acknowledgement for the answer to one command.
                for channel in [&self.channel, &own] {
                    if client.ssubscribe(channel.clone()).await.is_err() {
                        return;
                    }
                }
            } else if client.subscribe(vec![self.channel.clone(), own.clone()]).await.is_err() {
                return;
            }
            tokio::select! {
                () = self.receive(messages, &own, &back, hear) => {}
                () = self.self_check(&own, &back) => {}
            }
        };
        // An error is a sign of a lost connection, and so is a receiver that lags behind the
        // errors.
        tokio::select! {
            () = listening => {}
            _ = errors.recv() => {}
            () = pin!(router) => {}
            () = over.cancelled() => {}
        }
    }

    async fn receive(
        &self,
        mut messages: broadcast::Receiver<Message>,
        own: &str,
        back: &Notify,
        hear: &(impl Fn(BusEvent) + Send + Sync),
    ) {
        // A receiver that lags has missed messages.
        while let Ok(Message { channel, value, .. }) = messages.recv().await {
            if &*channel == own {
                if !self.listening.swap(true, SeqCst) {
                    tracing::debug!(channel = self.channel, "listening");
                    hear(BusEvent::Listening);
                }
                back.notify_one();
            } else if let (true, Some(bytes)) =
                (*channel == *self.channel, Value::into_bytes(value))
            {
                hear(BusEvent::Message(bytes));
            }
        }
    }

    /// Says something to itself now and then; ends when it does not hear it.
    async fn self_check(&self, own: &str, back: &Notify) {
        let mut unheard = Duration::ZERO;
        loop {
            self.calls.inc();
            let speaker = self.publisher.load_full();
            let said = Box::pin(commands::publish(
                &speaker,
                0,
                self.is_sharded,
                own,
                Bytes::from_static(b"."),
            ));
            if !matches!(tokio::time::timeout(self.deadline, said).await, Ok(Ok(()))) {
                return;
            }
            // What was said before Redis had the subscription is not heard: say it again soon, and
            // give up late.
            let patience = if self.listening.load(SeqCst) {
                self.self_check_timeout()
            } else {
                MIN_RETRY_DELAY
            };
            if tokio::time::timeout(patience, back.notified()).await.is_ok() {
                tokio::time::sleep(SELF_CHECK_INTERVAL).await;
            } else if self.listening.load(SeqCst) || unheard > self.self_check_timeout() {
                return;
            }
            unheard += patience;
        }
    }

    /// How long to wait for what one has said, and for a connection: as long as a few calls may
    /// take.
    fn self_check_timeout(&self) -> Duration {
        self.deadline.saturating_mul(4)
    }
}
