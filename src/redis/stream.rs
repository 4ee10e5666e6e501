//! A reader of one stream of Redis, on a connection of its own, from the present end of the stream
//! on.
//!
//! Invariants:
//! - A reader gives each entry that is added, in order, or says that there is a gap: after each
//!   reading, the last entry of the one before must still be there. (Streams are trimmed from their
//!   beginning.) Of a stream that was not there before, all entries must be. A stream that was
//!   deleted, or set back, is a gap.
//! - A reader never reconnects. Whoever makes another one has missed what came in between.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use crate::clock::wait_while_running;
use crate::redis::error::CallError;
use crate::redis::node::RedisCommand;
use crate::redis::{RedisClient, RedisSettings};

/// For how long a reading waits in Redis for an entry.
const BLOCK: Duration = Duration::from_millis(250);

/// How long a reply may take besides.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// How many entries are read at once.
const MAX_ENTRIES: i64 = 500;

/// How long to wait between two looks for the primary.
const PRIMARY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The place of an entry in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct StreamId(u64, u64);

impl StreamId {
    fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl From<StreamId> for Value {
    fn from(StreamId(ms, number): StreamId) -> Self {
        format!("{ms}-{number}").into()
    }
}

/// What an entry holds: the names and values of its fields, in order.
pub type StreamFields = Vec<(Bytes, Bytes)>;

/// What a reading has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamNews {
    /// These entries, or none.
    Entries(Vec<StreamFields>),
    /// Entries may have gone before they were read.
    Gap,
}

/// A reader of a stream.
#[derive(Debug)]
pub struct StreamReader {
    client: RedisClient,
    stream: Bytes,
    last: StreamId,
}

impl StreamReader {
    /// Connects, and finds the end of the stream. What is added from now on is read.
    ///
    /// # Errors
    /// Redis cannot be reached, or the key is no stream.
    pub async fn open(settings: RedisSettings, stream: &str) -> Result<Self, CallError> {
        let within = settings.connect_time();
        let client = RedisClient::new(RedisSettings { connections: 1, ..settings })
            .map_err(|error| CallError::Connection(error.to_string()))?;
        let connected = async {
            loop {
                let session = client.session.load_full();
                match session.servers() {
                    Ok(_) => return client.connected().await,
                    Err(error) if session.is_exhausted() => return Err(error),
                    Err(_) => tokio::time::sleep(PRIMARY_POLL_INTERVAL).await,
                }
            }
        };
        wait_while_running(within, connected).await.unwrap_or(Err(CallError::Timeout))?;
        let stream = Bytes::copy_from_slice(stream.as_bytes());
        let mut reader = Self { client, stream, last: StreamId::default() };
        reader.last = reader.end().await?.unwrap_or_default();
        Ok(reader)
    }

    /// Waits a moment for entries. A reply of any kind says that there were no others until then.
    ///
    /// # Errors
    /// Redis cannot be reached, or the key is no stream.
    pub async fn read(&mut self) -> Result<StreamNews, CallError> {
        let block = i64::try_from(BLOCK.as_millis()).unwrap_or(i64::MAX);
        let args = vec![
            "COUNT".into(),
            MAX_ENTRIES.into(),
            "BLOCK".into(),
            block.into(),
            "STREAMS".into(),
            Value::Bytes(self.stream.clone()),
            self.last.into(),
        ];
        let reply = self.call("XREAD", args, BLOCK + REPLY_TIMEOUT).await?;
        let entries = entries_of_one(reply).ok_or_else(unexpected)?;
        let Some((newest, _)) = entries.last() else { return self.check_end().await };
        let before = std::mem::replace(&mut self.last, *newest);
        let is_whole = if before == StreamId::default() {
            // There was no stream: these have to be all that were ever added to it.
            self.added().await? == i64::try_from(entries.len()).ok()
        } else {
            self.has(before).await?
        };
        if !is_whole {
            return Ok(StreamNews::Gap);
        }
        Ok(StreamNews::Entries(entries.into_iter().map(|(_, fields)| fields).collect()))
    }

    /// Whether an entry is still there.
    async fn has(&self, id: StreamId) -> Result<bool, CallError> {
        let args = vec![Value::Bytes(self.stream.clone()), id.into(), id.into()];
        let reply = self.call("XRANGE", args, REPLY_TIMEOUT).await?;
        Ok(matches!(reply, Value::Array(found) if !found.is_empty()))
    }

    /// Nothing was added: is it still the same stream?
    async fn check_end(&mut self) -> Result<StreamNews, CallError> {
        let end = self.end().await?.unwrap_or_default();
        if end < self.last {
            self.last = end;
            return Ok(StreamNews::Gap);
        }
        Ok(StreamNews::Entries(Vec::new()))
    }

    /// The place of the last entry that was ever added; `None` if there is no stream.
    async fn end(&self) -> Result<Option<StreamId>, CallError> {
        let Some(info) = self.info().await? else { return Ok(None) };
        let end = info.get("last-generated-id").and_then(Value::as_string);
        end.as_deref().and_then(StreamId::parse).map(Some).ok_or_else(unexpected)
    }

    /// How many entries were ever added; `None` where nobody knows, as before Redis 7.
    async fn added(&self) -> Result<Option<i64>, CallError> {
        let info = self.info().await?;
        Ok(info.and_then(|info| info.get("entries-added").and_then(Value::as_i64)))
    }

    /// What Redis says of the stream; `None` if there is none.
    async fn info(&self) -> Result<Option<HashMap<String, Value>>, CallError> {
        let args = vec!["STREAM".into(), Value::Bytes(self.stream.clone())];
        let info = match self.call("XINFO", args, REPLY_TIMEOUT).await {
            Err(CallError::Reply(why)) if why.contains("no such key") => return Ok(None),
            info => info?,
        };
        info.convert().map(Some).map_err(|_| unexpected())
    }

    async fn call(
        &self,
        name: &'static str,
        args: Vec<Value>,
        within: Duration,
    ) -> Result<Value, CallError> {
        let call = self.client.boxed(self.stream.clone(), RedisCommand::new(name, args));
        wait_while_running(within, call).await.unwrap_or(Err(CallError::Timeout))
    }
}

fn unexpected() -> CallError {
    CallError::Reply("an unexpected reply to a command of streams".to_owned())
}

/// The entries in a reply to `XREAD` of one stream: a list of pairs in RESP2, a map in RESP3, and
/// null where there are none.
fn entries_of_one(reply: Value) -> Option<Vec<(StreamId, StreamFields)>> {
    let entries = match reply {
        Value::Null => return Some(Vec::new()),
        Value::Map(streams) => streams.inner().into_values().next()?,
        Value::Array(streams) => match streams.into_iter().next()? {
            Value::Array(pair) => pair.into_iter().nth(1)?,
            _ => return None,
        },
        _ => return None,
    };
    let Value::Array(entries) = entries else { return None };
    entries.into_iter().map(entry).collect()
}

fn entry(entry: Value) -> Option<(StreamId, StreamFields)> {
    let Value::Array(pair) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(pair).ok()?;
    let id = StreamId::parse(&id.as_string()?)?;
    let Value::Array(texts) = fields else { return None };
    let mut texts = texts.into_iter().map(Value::into_bytes);
    let mut fields = Vec::new();
    while let Some(name) = texts.next() {
        fields.push((name?, texts.next()??));
    }
    Some((id, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: Vec<Value>) -> Value {
        Value::Array(values)
    }

    #[test]
    fn a_reply_is_read_in_both_protocols() {
        let entry = || {
            let fields = list(vec!["tag".into(), "a:1".into(), "tag".into(), "b".into()]);
            list(vec![list(vec!["17-3".into(), fields])])
        };
        let two = list(vec![list(vec!["s".into(), entry()])]);
        let three = Value::Map(HashMap::from([("s".to_owned(), entry())]).try_into().unwrap());
        let field = |value: &'static str| {
            (Bytes::from_static(b"tag"), Bytes::from_static(value.as_bytes()))
        };
        let expected = vec![(StreamId(17, 3), vec![field("a:1"), field("b")])];
        for reply in [two, three] {
            assert_eq!(entries_of_one(reply), Some(expected.clone()));
        }
        assert_eq!(entries_of_one(Value::Null), Some(Vec::new()));
        for odd in [Value::from("x"), list(vec!["x".into()]), list(Vec::new())] {
            assert_eq!(entries_of_one(odd), None);
        }
    }

    #[test]
    fn places_are_in_the_order_of_their_numbers() {
        let parse = |text| StreamId::parse(text).expect("an id");
        assert!(parse("9-1") < parse("10-0") && parse("10-2") < parse("10-10"));
        assert_eq!(Value::from(parse("10-2")), Value::from("10-2"));
        assert_eq!((StreamId::parse("10"), StreamId::parse("-1")), (None, None));
    }
}
