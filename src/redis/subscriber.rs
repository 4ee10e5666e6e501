//! A subscription to channels of Redis.
//!
//! Invariants:
//! - A subscriber that says it is listening has received, on its own connection, a message sent
//!   after the subscription. fred does not wait for Redis to confirm a subscription and does not
//!   report a refused one. So the subscriber also subscribes to a channel of its own, and counts as
//!   listening from the first message there.
//! - A connection is never reconnected: fred's own re-subscription silently loses messages. The
//!   client ends at any sign of a lost connection, a receiver that lags, another primary, or a
//!   message to itself that does not come back. (The last one reveals a slot that has moved: Redis
//!   ends the subscription, and fred does not report it.) The subscriber first stops saying that it
//!   is listening, then reports [`BusEvent::Lagged`], then starts again.
//! - Whether a message came back is measured in time in which this process ran: one that was
//!   stopped finds its messages unread, not lost.
//! - It listens where the client writes: on the primary; in a cluster on the primary of the
//!   metadata's slot, by sharded pub/sub.
//! - Dropping it ends it, even if its client is wedged.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::types::{Message, Value};
use tokio::sync::{Notify, broadcast};

use crate::clock::wait_while_running;
use crate::redis::fault::RedisFault;
use crate::redis::node::AbortOnDrop;
use crate::redis::session::RedisSession;
use crate::redis::topology::Topology;
use crate::redis::{CallError, RedisClient, commands, probe};
use crate::telemetry::metrics::Counter;

/// How often it sends itself a message.
const SELF_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The delay before a new attempt: it starts here and doubles up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(500);

/// After how many attempts in which Redis replied, but no message came back, that is told.
const UNHEARD_ATTEMPTS: u32 = 3;

/// What happens to a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A message, from any client that may publish. It may come before [`BusEvent::Listening`].
    Message(Bytes),
    /// From now on every message arrives, or [`BusEvent::Lagged`] follows.
    Listening,
    /// Messages may have been missed.
    Lagged,
}

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Subscriber {
    listening: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    /// Whether every message arrives from now on, or [`BusEvent::Lagged`] follows.
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
    /// Subscribes to channels, on a connection of its own; in a cluster all of them must be in the
    /// slot of the metadata. `on_event` is called from one task, and must not block.
    pub fn subscribe(
        &self,
        channels: Vec<String>,
        on_event: impl Fn(BusEvent) + Send + Sync + 'static,
    ) -> Subscriber {
        let listening = Arc::new(AtomicBool::new(false));
        let listener = SubscriberTask {
            topology: Arc::clone(&self.topology),
            is_sharded: self.is_sharded(),
            loss_after: self.settings.loss_after,
            connect_time: self.settings.connect_time(),
            publisher: Arc::clone(&self.session),
            calls: Arc::clone(&self.counters.calls),
            listening: Arc::clone(&listening),
            channels,
        };
        Subscriber { listening, task: tokio::spawn(async move { listener.run(&on_event).await }) }
    }
}

/// Why an attempt to listen has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenEnd {
    /// A connection broke, or Redis was silent. Others tell that.
    Broken,
    /// Redis replied, but no message came back, or it refused the channel.
    Unheard,
}

impl ListenEnd {
    const fn of(error: &CallError) -> Self {
        if matches!(error, CallError::Reply(_)) { Self::Unheard } else { Self::Broken }
    }
}

struct SubscriberTask {
    topology: Arc<Topology>,
    is_sharded: bool,
    loss_after: Duration,
    connect_time: Duration,
    /// The session of the client, for messages to itself: in RESP2 a subscribed connection cannot
    /// `PUBLISH`.
    publisher: Arc<ArcSwap<RedisSession>>,
    calls: Arc<Counter>,
    listening: Arc<AtomicBool>,
    channels: Vec<String>,
}

impl SubscriberTask {
    /// Runs for ever.
    async fn run(&self, on_event: &(impl Fn(BusEvent) + Send + Sync)) {
        let mut wait = MIN_RETRY_DELAY;
        let mut unheard = 0_u32;
        loop {
            let ended = self.listen(on_event).await;
            if self.listening.swap(false, SeqCst) {
                on_event(BusEvent::Lagged);
                (wait, unheard) = (MIN_RETRY_DELAY, 0);
            } else if ended == ListenEnd::Unheard {
                unheard = unheard.saturating_add(1);
                if unheard == UNHEARD_ATTEMPTS {
                    self.tell_unheard().await;
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }

    /// The channel by whose name it is known.
    fn first_channel(&self) -> &str {
        self.channels.first().map_or("", |channel| channel)
    }

    /// Tells that nothing comes back over the subscription, and why, if an ACL says so.
    async fn tell_unheard(&self) {
        let channel = self.first_channel();
        let primary = match self.publisher.load().servers() {
            Ok(servers) => servers.primary.address.clone(),
            Err(_) => return,
        };
        let command = if self.is_sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        let refused =
            probe::refused_channel(&primary, self.topology.access(), command, channel).await;
        if let Some(RedisFault { kind, address, detail }) = refused {
            tracing::warn!(
                address,
                channel,
                reply = detail,
                remedy = kind.remedy(),
                "the ACL of Redis refuses the channel; without it every hit asks Redis"
            );
        } else {
            tracing::warn!(
                %primary,
                channel,
                "Redis replies, but no message comes back over the subscription; without it every \
                 hit asks Redis"
            );
        }
    }

    /// Listens until something goes wrong, and tells what that was.
    async fn listen(&self, on_event: &(impl Fn(BusEvent) + Send + Sync)) -> ListenEnd {
        let (closed, primary) = {
            let current = self.publisher.load();
            // Not connected yet.
            let Ok(servers) = current.servers() else { return ListenEnd::Broken };
            (current.closed(), servers.primary.address.clone())
        };
        let client = match self.topology.access().client(&primary) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "the Redis client could not be made");
                return ListenEnd::Broken;
            }
        };
        let (messages, mut errors) = (client.message_rx(), client.error_rx());
        let router = AbortOnDrop(client.connect());
        let own =
            format!("{}:{}", self.first_channel(), crate::units::hex(&rand::random::<[u8; 16]>()));
        let echo = Notify::new();
        let listening = async {
            if !matches!(
                wait_while_running(self.connect_time, client.wait_for_connect()).await,
                Some(Ok(()))
            ) {
                return ListenEnd::Broken;
            }
            // In this order: a message on the last channel proves the subscription to the others.
            let channels = self.channels.iter().chain([&own]);
            if self.is_sharded {
                // One by one: fred takes each confirmation for the reply to one command.
                for channel in channels {
                    if let Err(error) = client.ssubscribe(channel.clone()).await {
                        return ListenEnd::of(&CallError::from_fred(&error));
                    }
                }
            } else if let Err(error) = client.subscribe(channels.cloned().collect::<Vec<_>>()).await
            {
                return ListenEnd::of(&CallError::from_fred(&error));
            }
            tokio::select! {
                () = self.receive(messages, &own, &echo, on_event) => ListenEnd::Broken,
                ended = self.self_check(&own, &echo) => ended,
            }
        };
        // An error means a lost connection, and so does a receiver that lags behind the errors.
        tokio::select! {
            ended = listening => ended,
            _ = errors.recv() => ListenEnd::Broken,
            () = pin!(router) => ListenEnd::Broken,
            () = closed.cancelled() => ListenEnd::Broken,
        }
    }

    async fn receive(
        &self,
        mut messages: broadcast::Receiver<Message>,
        own: &str,
        echo: &Notify,
        on_event: &(impl Fn(BusEvent) + Send + Sync),
    ) {
        // A receiver that lags has missed messages.
        while let Ok(Message { channel, value, .. }) = messages.recv().await {
            if &*channel == own {
                if !self.listening.swap(true, SeqCst) {
                    tracing::debug!(channel = self.first_channel(), "listening");
                    on_event(BusEvent::Listening);
                }
                echo.notify_one();
            } else if let (true, Some(bytes)) =
                (self.channels.iter().any(|own| *channel == **own), Value::into_bytes(value))
            {
                on_event(BusEvent::Message(bytes));
            }
        }
    }

    /// Sends itself a message now and then; returns when one does not come back.
    async fn self_check(&self, own: &str, echo: &Notify) -> ListenEnd {
        let mut waited = Duration::ZERO;
        loop {
            self.calls.inc();
            let session = self.publisher.load_full();
            let published = Box::pin(commands::publish(
                &session,
                0,
                self.is_sharded,
                own,
                Bytes::from_static(b"."),
            ));
            match wait_while_running(self.loss_after, published).await {
                Some(Ok(())) => {}
                Some(Err(error)) => return ListenEnd::of(&error),
                None => return ListenEnd::Broken,
            }
            // A message sent before Redis had the subscription is lost: send the next one soon, and
            // give up late.
            let timeout =
                if self.listening.load(SeqCst) { self.loss_after } else { MIN_RETRY_DELAY };
            if wait_while_running(timeout, echo.notified()).await.is_some() {
                tokio::time::sleep(SELF_CHECK_INTERVAL).await;
            } else if self.listening.load(SeqCst) || waited > self.loss_after {
                // Redis took the messages.
                return ListenEnd::Unheard;
            }
            waited += timeout;
        }
    }
}
