//! The calls that a link makes.
//!
//! Invariants:
//! - Every call ends by its deadline.
//! - In a cluster a call of the metadata goes to the primary that [`RedisSession`] knows, or fails:
//!   `MOVED` ends that primary. Where a key is on its way to another node, `ASK` is followed for
//!   that call alone.
//! - A fault of a node that keeps entries alone is [`CallError::Apart`], never the loss of Redis.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fred::interfaces::PubsubInterface as _;
use fred::types::Value;
use futures_util::future::{join, join_all, try_join_all};

use crate::redis::cluster::{Redirect, slot};
use crate::redis::error::CallError;
use crate::redis::node::{RedisCommand, RedisNode};
use crate::redis::session::RedisSession;
use crate::redis::{RedisClient, Script, ScriptReply};

/// How much of the deadline is left to the replicas, as a divisor: the answer has to come back,
/// too.
const REPLICA_WAIT_DIVISOR: u32 = 2;

impl RedisClient {
    /// The values of some keys of the metadata and of one entry, if one is asked for. In one call
    /// where there is one server; else in two at a time, and an entry whose node is away is none.
    pub async fn fetch(
        &self,
        mut keys: Vec<Bytes>,
        entry: Option<Bytes>,
    ) -> Result<(Vec<Option<Bytes>>, Option<Bytes>), CallError> {
        let Some(entry) = entry else { return Ok((self.mget(keys).await?, None)) };
        if !self.is_sharded() {
            keys.push(entry);
            let mut values = self.mget(keys).await?;
            let entry = values.pop().flatten();
            return Ok((values, entry));
        }
        let (values, entry) = join(self.mget(keys), self.get(entry)).await;
        match entry {
            // Fail open: what cannot be reached is a miss.
            Err(CallError::NodeDown(_) | CallError::Moving) => Ok((values?, None)),
            entry => Ok((values?, entry?)),
        }
    }

    /// The values of some keys of the metadata.
    pub async fn mget(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, CallError> {
        self.counters.calls.inc();
        let call = async {
            let again = if self.is_sharded() { keys.clone() } else { Vec::new() };
            // The driver ends with the link.
            let told = self.queues[self.turn()]
                .enqueue(keys)
                .await
                .unwrap_or_else(|_| Err(CallError::Connection("the link is gone".to_owned())));
            match told {
                // One after the other they can be read. They may be of different moments, as those
                // of two calls are.
                Err(CallError::Moving) if self.is_sharded() => {
                    let gets = again.into_iter().map(|key| {
                        self.boxed(key.clone(), RedisCommand::new("GET", vec![Value::Bytes(key)]))
                    });
                    Ok(try_join_all(gets).await?.into_iter().map(Value::into_bytes).collect())
                }
                told => told,
            }
        };
        self.counted(
            tokio::time::timeout(self.settings.deadline, call)
                .await
                .unwrap_or(Err(CallError::Timeout)),
        )
    }

    /// The value of an entry's key.
    pub async fn get(&self, key: Bytes) -> Result<Option<Bytes>, CallError> {
        if !self.is_sharded() {
            return Ok(self.mget(vec![key]).await?.pop().flatten());
        }
        self.call(
            &key,
            self.boxed(key.clone(), RedisCommand::new("GET", vec![Value::Bytes(key.clone())])),
        )
        .await
        .map(Value::into_bytes)
    }

    /// Stores a value, for so many milliseconds where a number is given.
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
        self.call(&key, self.boxed(key.clone(), RedisCommand::new("SET", args))).await.map(drop)
    }

    /// Deletes keys. Allowed even when Redis is out of memory, and while a slot is moving.
    pub async fn unlink(&self, keys: Vec<Bytes>) -> Result<(), CallError> {
        let unlink = |keys: Vec<Bytes>| async {
            let Some(first) = keys.first().cloned() else { return Ok(()) };
            let args = keys.into_iter().map(Value::Bytes).collect();
            self.call(&first, self.boxed(first.clone(), RedisCommand::new("UNLINK", args)))
                .await
                .map(drop)
        };
        if self.is_sharded() {
            // Each by itself: they may be in different slots, and on different nodes while theirs
            // is moving.
            return join_all(keys.into_iter().map(|key| unlink(vec![key])))
                .await
                .into_iter()
                .collect();
        }
        unlink(keys).await
    }

    /// Runs a script. In a cluster its keys are of one slot; without keys it runs on the metadata's
    /// primary.
    pub async fn run(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        let first = keys.first().cloned().unwrap_or_default();
        let known = evaluate("EVALSHA", &script.sha1, &keys, &args);
        let call = async {
            match self.boxed(first.clone(), known).await {
                // Redis has forgotten the script, as it does at every restart.
                Err(CallError::Reply(why)) if why.contains("NOSCRIPT") => {
                    self.boxed(first.clone(), evaluate("EVAL", &script.lua, &keys, &args)).await
                }
                known => known,
            }
        };
        self.call(&first, call).await.map(returned)
    }

    /// Runs a script of the metadata, and returns when as many replicas as the settings ask for
    /// have what it wrote: by `WAIT` on the connection that it ran on, which is kept for such
    /// calls. Fewer of them are a loss: what it wrote may be forgotten.
    pub async fn run_replicated(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<ScriptReply, CallError> {
        let wanted = i64::from(self.settings.wait_replicas);
        if wanted == 0 {
            return self.run(script, keys, args).await;
        }
        let patience = i64::try_from((self.settings.deadline / REPLICA_WAIT_DIVISOR).as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        let wait = || RedisCommand::new("WAIT", vec![wanted.into(), patience.into()]);
        let call = async {
            let connected = self.session.load_full();
            let servers = connected.servers()?;
            let known = Box::pin(
                servers
                    .primary
                    .send_slowly(evaluate("EVALSHA", &script.sha1, &keys, &args), wait()),
            )
            .await;
            let (answer, replicas) = match known {
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
            let answer = answer
                .map_err(|error| CallError::from_fred(&error))
                .inspect_err(|error| connected.record_error(error))?;
            match replicas.map_err(|error| CallError::from_fred(&error))?.as_i64() {
                Some(reached) if reached >= wanted => Ok(returned(answer)),
                reached => Err(CallError::Lost(format!(
                    "only {} of {wanted} replicas have it",
                    reached.unwrap_or_default()
                ))),
            }
        };
        self.call(&Bytes::new(), call).await
    }

    /// Publishes a message to those who listen by [`RedisClient::listen`].
    pub async fn publish(&self, channel: &str, message: Bytes) -> Result<(), CallError> {
        let connected = self.session.load_full();
        self.call(
            &Bytes::new(),
            publish(&connected, self.turn(), self.is_sharded(), channel, message),
        )
        .await
    }

    /// Boxed: what waits for Redis is large, and its callers should not carry it around.
    fn boxed(
        &self,
        key: Bytes,
        command: RedisCommand,
    ) -> Pin<Box<dyn Future<Output = Result<Value, CallError>> + Send + '_>> {
        Box::pin(self.send(key, command))
    }

    /// Sends a command where its key is. The caller minds the deadline.
    async fn send(&self, key: Bytes, command: RedisCommand) -> Result<Value, CallError> {
        let connected = self.session.load_full();
        let (servers, turn) = (connected.servers()?, self.turn());
        let of = |error: &fred::error::Error| CallError::from_fred(error);
        let Some(shards) = &servers.shards else {
            let answer = servers.primary.send(turn, command).await;
            return answer
                .map_err(|error| of(&error))
                .inspect_err(|error| connected.record_error(error));
        };
        let slot = if key.is_empty() { self.topology.home } else { slot(&key) };
        let is_home = slot == self.topology.home;
        let Some(node) = (if is_home { Some(&servers.primary) } else { shards.owner(slot) }) else {
            return Err(CallError::NodeDown("no node keeps its slot".to_owned()));
        };
        let mut at = node;
        let mut answer = node.send(turn, command.clone()).await;
        let redirect =
            answer.as_ref().err().and_then(|error| Redirect::parse(error.details(), &node.address));
        match redirect.filter(|redirect| !(is_home && matches!(redirect, Redirect::Moved(_)))) {
            None => {}
            Some(Redirect::Moved(place) | Redirect::Ask(place))
                if shards.node_at(&place).is_none() =>
            {
                connected.mark_outdated();
                return Err(if is_home {
                    CallError::Moving
                } else {
                    CallError::NodeDown(format!("it is on {place} now"))
                });
            }
            Some(Redirect::Moved(place)) => {
                connected.mark_outdated();
                if let Some(there) = shards.node_at(&place) {
                    at = there;
                    answer = at.send(turn, command).await;
                }
            }
            Some(Redirect::Ask(place)) => {
                if let Some(there) = shards.node_at(&place) {
                    at = there;
                    answer = at.send_asking(turn, command).await;
                }
            }
        }
        if !Arc::ptr_eq(at, &servers.primary) {
            at.record_call(false);
        }
        answer.map_err(|error| match of(&error) {
            CallError::Connection(why) | CallError::Lost(why) if !is_home => {
                CallError::NodeDown(why)
            }
            // Where the slot is going to: the primary stands, and its own calls tell when it does
            // not.
            CallError::Connection(_) | CallError::Lost(_) if !Arc::ptr_eq(at, &servers.primary) => {
                CallError::Moving
            }
            other => {
                connected.record_error(&other);
                other
            }
        })
    }

    /// Ends the call by its deadline, and counts it.
    async fn call<T>(
        &self,
        key: &Bytes,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        self.counters.calls.inc();
        let result = tokio::time::timeout(self.settings.deadline, call)
            .await
            .unwrap_or(Err(CallError::Timeout));
        self.counted(match result {
            Err(CallError::Timeout) => Err(self.deadline_error(key)),
            result => result,
        })
    }

    /// What a missed deadline means: where it was an entry's node that missed it, nothing for Redis
    /// as a whole.
    fn deadline_error(&self, key: &Bytes) -> CallError {
        let Ok(servers) = self.session.load().servers() else { return CallError::Timeout };
        let node: Option<&Arc<RedisNode>> = servers
            .shards
            .as_ref()
            .filter(|_| !key.is_empty())
            .and_then(|shards| shards.owner(slot(key)));
        match node.filter(|node| !Arc::ptr_eq(node, &servers.primary)) {
            Some(node) => {
                node.record_call(true);
                self.counters.timeouts.inc();
                CallError::NodeDown("no answer within the deadline".to_owned())
            }
            None => CallError::Timeout,
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

/// Publishes a message. The caller minds the deadline.
pub(super) async fn publish(
    connected: &RedisSession,
    turn: usize,
    is_sharded: bool,
    channel: &str,
    message: Bytes,
) -> Result<(), CallError> {
    let client = connected.client(turn)?;
    let said = if is_sharded {
        client.spublish::<Value, _, _>(channel, Value::Bytes(message)).await
    } else {
        client.publish::<Value, _, _>(channel, Value::Bytes(message)).await
    };
    said.map(drop)
        .map_err(|error| CallError::from_fred(&error))
        .inspect_err(|error| connected.record_error(error))
}

fn evaluate(name: &'static str, script: &str, keys: &[Bytes], args: &[Bytes]) -> RedisCommand {
    let mut all: Vec<Value> = Vec::with_capacity(2 + keys.len() + args.len());
    all.extend([Value::from(script), i64::try_from(keys.len()).unwrap_or(i64::MAX).into()]);
    all.extend(keys.iter().chain(args).cloned().map(Value::Bytes));
    RedisCommand::new(name, all)
}

fn returned(value: Value) -> ScriptReply {
    match value {
        Value::Null => ScriptReply::Nil,
        Value::Array(values) => {
            ScriptReply::Many(values.into_iter().filter_map(Value::into_bytes).collect())
        }
        other => other.into_bytes().map_or(ScriptReply::Nil, ScriptReply::One),
    }
}
