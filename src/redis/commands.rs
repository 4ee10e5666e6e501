//! The calls to Redis.
//!
//! Invariants:
//! - Every call ends by its deadline. What a request waits for has `deadline`, counted in time in
//!   which this process runs; what keeps sidecars in step (heartbeats, marks, purges, commits), or
//!   is read for a fill in the background, has the settings' patience, and uses a reply that comes
//!   later.
//! - A missed `deadline` is no loss: it makes the node probe its connections.
//! - In a cluster a call for metadata goes to the primary that [`RedisSession`] knows, or fails:
//!   `MOVED` ends that primary. While a key moves to another node, `ASK` is followed for that call
//!   alone.
//! - The failure of a node that holds only entries is [`CallError::NodeDown`], never the loss of
//!   Redis.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::PubsubInterface as _;
use fred::types::Value;
use futures_util::future::{join, join_all, try_join_all};

use crate::clock::wait_while_running;
use crate::redis::cluster::{Redirect, slot};
use crate::redis::error::CallError;
use crate::redis::node::{RedisCommand, RedisNode};
use crate::redis::session::RedisSession;
use crate::redis::{RedisClient, ReplyWait, Script, ScriptReply};

/// The share of the deadline that replicas get, as a divisor: the reply must come back in time,
/// too.
const REPLICA_WAIT_DIVISOR: u32 = 2;

impl RedisClient {
    /// Reads some keys of the metadata and, if asked to, one entry. One call where there is one
    /// server; else two calls at a time, and an entry whose node is down is a miss.
    pub async fn fetch(
        &self,
        mut keys: Vec<Bytes>,
        entry: Option<Bytes>,
        wait: ReplyWait,
    ) -> Result<(Vec<Option<Bytes>>, Option<Bytes>), CallError> {
        let Some(entry) = entry else { return Ok((self.mget(keys, wait).await?, None)) };
        if !self.is_sharded() {
            keys.push(entry);
            let mut values = self.mget(keys, wait).await?;
            let entry = values.pop().flatten();
            return Ok((values, entry));
        }
        let (values, entry) = join(self.mget(keys, wait), self.get(entry, wait)).await;
        match entry {
            // Fail open: an entry that cannot be reached is a miss.
            Err(CallError::NodeDown(_) | CallError::Moving) => Ok((values?, None)),
            entry => Ok((values?, entry?)),
        }
    }

    /// Reads some keys of the metadata.
    pub async fn mget(
        &self,
        keys: Vec<Bytes>,
        wait: ReplyWait,
    ) -> Result<Vec<Option<Bytes>>, CallError> {
        match wait {
            ReplyWait::Prompt => self.mget_promptly(keys).await,
            // Boxed: it is rare, and every lookup would carry its future.
            ReplyWait::Patient => Box::pin(self.mget_patiently(keys)).await,
        }
    }

    async fn mget_promptly(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, CallError> {
        self.counters.calls.inc();
        let call = async {
            let keys_to_retry = if self.is_sharded() { keys.clone() } else { Vec::new() };
            // The task behind the queue ends with this client.
            let reply = self.queues[self.turn()]
                .enqueue(keys)
                .await
                .unwrap_or_else(|_| Err(CallError::Connection("the client is gone".to_owned())));
            match reply {
                // They can be read one by one. The values may then be from different moments, like
                // those of two calls.
                Err(CallError::Moving) if self.is_sharded() => {
                    self.get_one_by_one(keys_to_retry).await
                }
                reply => reply,
            }
        };
        let result = wait_while_running(self.settings.deadline, call).await.unwrap_or_else(|| {
            self.suspect_primary();
            Err(CallError::Timeout)
        });
        self.counted(result)
    }

    /// By a call of its own: a batch ends with the deadline of those that wait for it.
    async fn mget_patiently(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, CallError> {
        let first = keys.first().cloned().unwrap_or_default();
        let args = keys.iter().cloned().map(Value::Bytes).collect();
        let call = async {
            match self.boxed(first.clone(), RedisCommand::new("MGET", args)).await {
                Ok(Value::Array(values)) if values.len() == keys.len() => {
                    Ok(values.into_iter().map(Value::into_bytes).collect())
                }
                Ok(_) => Err(CallError::Reply("the reply to MGET has not a value each".into())),
                Err(CallError::Moving) if self.is_sharded() => {
                    self.get_one_by_one(keys.clone()).await
                }
                Err(error) => Err(error),
            }
        };
        self.call(&first, self.settings.patience(), call).await
    }

    async fn get_one_by_one(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, CallError> {
        let gets = keys
            .into_iter()
            .map(|key| self.boxed(key.clone(), RedisCommand::new("GET", vec![Value::Bytes(key)])));
        Ok(try_join_all(gets).await?.into_iter().map(Value::into_bytes).collect())
    }

    /// Reads an entry.
    pub async fn get(&self, key: Bytes, wait: ReplyWait) -> Result<Option<Bytes>, CallError> {
        if !self.is_sharded() {
            return Ok(self.mget(vec![key], wait).await?.pop().flatten());
        }
        self.call(
            &key,
            self.settings.within(wait),
            self.boxed(key.clone(), RedisCommand::new("GET", vec![Value::Bytes(key.clone())])),
        )
        .await
        .map(Value::into_bytes)
    }

    /// Stores a value, for so many milliseconds if a number is given.
    pub async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        expire_ms: Option<u64>,
    ) -> Result<(), CallError> {
        let mut args = vec![Value::Bytes(key.clone()), Value::Bytes(value)];
        if let Some(ms) = expire_ms {
            args.extend(["PX".into(), i64::try_from(ms).unwrap_or(i64::MAX).into()]);
        }
        let call = self.boxed(key.clone(), RedisCommand::new("SET", args));
        self.call(&key, self.settings.patience(), call).await.map(drop)
    }

    /// Deletes keys. Redis allows this even when it is out of memory or a slot is moving.
    pub async fn unlink(&self, keys: Vec<Bytes>) -> Result<(), CallError> {
        let unlink = |keys: Vec<Bytes>| async {
            let Some(first) = keys.first().cloned() else { return Ok(()) };
            let args = keys.into_iter().map(Value::Bytes).collect();
            let call = self.boxed(first.clone(), RedisCommand::new("UNLINK", args));
            self.call(&first, self.settings.deadline, call).await.map(drop)
        };
        if self.is_sharded() {
            // One by one: they may be in different slots, and on different nodes while their slot
            // is moving.
            return join_all(keys.into_iter().map(|key| unlink(vec![key])))
                .await
                .into_iter()
                .collect();
        }
        unlink(keys).await
    }

    /// Runs a script. In a cluster its keys must be in one slot; without keys it runs on the
    /// primary of the metadata. For what a request waits for.
    pub async fn run(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        self.run_waiting(ReplyWait::Prompt, script, keys, args).await
    }

    /// The same for what keeps sidecars in step: a reply that is later than `deadline` counts.
    pub async fn run_patiently(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        self.run_waiting(ReplyWait::Patient, script, keys, args).await
    }

    /// Runs a script, whose reply counts for this long.
    pub async fn run_waiting(
        &self,
        wait: ReplyWait,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        let first = keys.first().cloned().unwrap_or_default();
        let known = evaluate("EVALSHA", &script.sha1, &keys, &args);
        let call = async {
            match self.boxed(first.clone(), known).await {
                // Redis does not know the script, as after every restart.
                Err(CallError::Reply(why)) if why.contains("NOSCRIPT") => {
                    self.boxed(first.clone(), evaluate("EVAL", &script.lua, &keys, &args)).await
                }
                known => known,
            }
        };
        self.call(&first, self.settings.within(wait), call).await.map(script_reply)
    }

    /// Runs a script on the metadata, and returns when as many replicas as the settings ask for
    /// have what it wrote. This uses `WAIT` on the connection of the script, which is reserved for
    /// such calls. Too few replicas count as a loss of Redis, because the write may be forgotten.
    pub async fn run_replicated(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        let wanted = i64::from(self.settings.wait_replicas);
        if wanted == 0 {
            return self.run_patiently(script, keys, args).await;
        }
        let wait_ms = i64::try_from((self.settings.deadline / REPLICA_WAIT_DIVISOR).as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        let wait = || RedisCommand::new("WAIT", vec![wanted.into(), wait_ms.into()]);
        let call = async {
            let session = self.session.load_full();
            let servers = session.servers()?;
            let known = Box::pin(
                servers
                    .primary
                    .send_slowly(evaluate("EVALSHA", &script.sha1, &keys, &args), wait()),
            )
            .await;
            let (reply, replicas) = match known {
                (Err(error), _) if error.details().contains("NOSCRIPT") => {
                    Box::pin(
                        servers
                            .primary
                            .send_slowly(evaluate("EVAL", &script.lua, &keys, &args), wait()),
                    )
                    .await
                }
                known => known,
            };
            let reply = reply
                .map_err(|error| CallError::from_fred(&error))
                .inspect_err(|error| session.record_error(error))?;
            match replicas.map_err(|error| CallError::from_fred(&error))?.as_i64() {
                Some(reached) if reached >= wanted => Ok(script_reply(reply)),
                reached => Err(CallError::Lost(format!(
                    "only {} of {wanted} replicas have it",
                    reached.unwrap_or_default()
                ))),
            }
        };
        self.call(&Bytes::new(), self.settings.patience(), call).await
    }

    /// Publishes a message to those that called [`RedisClient::subscribe`].
    pub async fn publish(&self, channel: &str, message: Bytes) -> Result<(), CallError> {
        let session = self.session.load_full();
        self.call(
            &Bytes::new(),
            self.settings.patience(),
            // Boxed: the future is large, and its callers should not contain it.
            Box::pin(publish(&session, self.turn(), self.is_sharded(), channel, message)),
        )
        .await
    }

    /// Boxed, because the future is large and its callers should not contain it.
    pub(super) fn boxed(
        &self,
        key: Bytes,
        command: RedisCommand,
    ) -> Pin<Box<dyn Future<Output = Result<Value, CallError>> + Send + '_>> {
        Box::pin(self.send(key, command))
    }

    /// Sends a command to the node of its key. The caller enforces the deadline.
    async fn send(&self, key: Bytes, command: RedisCommand) -> Result<Value, CallError> {
        let session = self.session.load_full();
        let (servers, turn) = (session.servers()?, self.turn());
        let of = |error: &fred::error::Error| CallError::from_fred(error);
        let Some(shards) = &servers.shards else {
            let reply = servers.primary.send(turn, command).await;
            return reply
                .map_err(|error| of(&error))
                .inspect_err(|error| session.record_error(error));
        };
        let slot = if key.is_empty() { self.topology.home } else { slot(&key) };
        let is_home = slot == self.topology.home;
        let Some(node) = (if is_home { Some(&servers.primary) } else { shards.owner(slot) }) else {
            return Err(CallError::NodeDown("no node serves its slot".to_owned()));
        };
        let mut target = node;
        let mut reply = node.send(turn, command.clone()).await;
        let redirect =
            reply.as_ref().err().and_then(|error| Redirect::parse(error.details(), &node.address));
        match redirect.filter(|redirect| !(is_home && matches!(redirect, Redirect::Moved(_)))) {
            None => {}
            Some(Redirect::Moved(address) | Redirect::Ask(address))
                if shards.node_at(&address).is_none() =>
            {
                session.mark_outdated();
                return Err(if is_home {
                    CallError::Moving
                } else {
                    CallError::NodeDown(format!("it is on {address} now"))
                });
            }
            Some(Redirect::Moved(address)) => {
                session.mark_outdated();
                if let Some(there) = shards.node_at(&address) {
                    target = there;
                    reply = target.send(turn, command).await;
                }
            }
            Some(Redirect::Ask(address)) => {
                if let Some(there) = shards.node_at(&address) {
                    target = there;
                    reply = target.send_asking(turn, command).await;
                }
            }
        }
        reply.map_err(|error| match of(&error) {
            CallError::Connection(why) | CallError::Lost(why) if !is_home => {
                CallError::NodeDown(why)
            }
            // This node only receives the slot. The primary still counts, and its own calls show
            // when it does not.
            CallError::Connection(_) | CallError::Lost(_)
                if !Arc::ptr_eq(target, &servers.primary) =>
            {
                CallError::Moving
            }
            other => {
                session.record_error(&other);
                other
            }
        })
    }

    /// Ends the call within this time, and counts it. After `deadline` the node is suspected.
    async fn call<T>(
        &self,
        key: &Bytes,
        within: Duration,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        self.counters.calls.inc();
        let session = self.session.load_full();
        let mut call = std::pin::pin!(call);
        let prompt = self.settings.deadline.min(within);
        let result = if let Some(result) = wait_while_running(prompt, &mut call).await {
            result
        } else {
            let missed = self.deadline_error(key);
            let closed = session.closed();
            tokio::select! {
                biased;
                result = &mut call => result,
                () = closed.cancelled() => {
                    Err(CallError::Connection("its session has ended".to_owned()))
                }
                () = tokio::time::sleep(within.saturating_sub(prompt)) => Err(missed),
            }
        };
        self.counted(match result {
            // A call that its connection has left behind, whatever the client makes of that.
            Err(CallError::Reply(_)) if session.is_closed() => {
                Err(CallError::Connection("its session has ended".to_owned()))
            }
            result => result,
        })
    }

    fn suspect_primary(&self) {
        if let Ok(servers) = self.session.load().servers() {
            servers.primary.suspect();
        }
    }

    /// Suspects the node of a key, and says what the missed deadline means. If it was missed by a
    /// node that holds only entries, it says nothing about Redis as a whole.
    fn deadline_error(&self, key: &Bytes) -> CallError {
        let Ok(servers) = self.session.load().servers() else { return CallError::Timeout };
        let node: Option<&Arc<RedisNode>> = servers
            .shards
            .as_ref()
            .filter(|_| !key.is_empty())
            .and_then(|shards| shards.owner(slot(key)));
        if let Some(node) = node.filter(|node| !Arc::ptr_eq(node, &servers.primary)) {
            node.suspect();
            CallError::NodeDown("no reply within the deadline".to_owned())
        } else {
            servers.primary.suspect();
            CallError::Timeout
        }
    }

    fn counted<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        match &result {
            Ok(_) => {}
            Err(CallError::Timeout) => self.counters.timeouts.inc(),
            Err(_) => self.counters.errors.inc(),
        }
        result
    }
}

/// Publishes a message. The caller enforces the deadline.
pub(super) async fn publish(
    session: &RedisSession,
    turn: usize,
    is_sharded: bool,
    channel: &str,
    message: Bytes,
) -> Result<(), CallError> {
    let client = session.client(turn)?;
    let published = if is_sharded {
        client.spublish::<Value, _, _>(channel, Value::Bytes(message)).await
    } else {
        client.publish::<Value, _, _>(channel, Value::Bytes(message)).await
    };
    published
        .map(drop)
        .map_err(|error| CallError::from_fred(&error))
        .inspect_err(|error| session.record_error(error))
}

pub(super) fn evaluate(
    name: &'static str,
    script: &str,
    keys: &[Bytes],
    args: &[Bytes],
) -> RedisCommand {
    let mut all: Vec<Value> = Vec::with_capacity(2 + keys.len() + args.len());
    all.extend([Value::from(script), i64::try_from(keys.len()).unwrap_or(i64::MAX).into()]);
    all.extend(keys.iter().chain(args).cloned().map(Value::Bytes));
    RedisCommand::new(name, all)
}

pub(super) fn script_reply(value: Value) -> ScriptReply {
    match value {
        Value::Null => ScriptReply::Nil,
        Value::Array(values) => {
            ScriptReply::Many(values.into_iter().filter_map(Value::into_bytes).collect())
        }
        other => other.into_bytes().map_or(ScriptReply::Nil, ScriptReply::One),
    }
}
