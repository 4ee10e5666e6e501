//! The summaries of sidecars in Redis: one key for each, in one of a fixed number of slots.
//!
//! Invariants:
//! - *All work is bounded.* The names of the slots are known, so nothing is listed or scanned, and
//!   of each value no more is read than the largest summary has.
//! - *Nothing of the cache depends on it.* The calls are [`RedisClient::run_aside`]'s.
//! - *A key belongs to the sidecar whose id it begins with*, until that has been silent for
//!   [`SILENT_AFTER`] and another sidecar finds no free slot.
//!
//! SECURITY: anybody who may write to Redis can write summaries. They are shown, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use super::summary::{MAX_SUMMARY_BYTES, PeerSummary};
use crate::clock::millis;
use crate::coherence::message::Process;
use crate::redis::{CallError, RedisClient, Script, ScriptReply};

/// How many sidecars of one namespace can publish a summary.
pub const MAX_SIDECARS: usize = 256;

/// How long the summary of a sidecar is kept after it fell silent.
pub const SUMMARY_TTL: Duration = Duration::from_mins(10);

/// After how long without a new summary a sidecar counts as silent: three are missing then.
pub const SILENT_AFTER: Duration = Duration::from_secs(15);

/// How many slots one call reads, so that other calls to Redis do not wait for all of them.
const SLOTS_AT_ONCE: usize = 64;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// How many digits the id of a process has.
const ID_DIGITS: usize = 16;

/// What became of a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in Redis.
    Yes,
    /// All slots belong to sidecars that are not silent.
    Full,
    /// Redis refused it, with these words.
    Refused(String),
}

/// The summaries that were found in Redis.
#[derive(Clone, Debug, Default)]
pub struct SummaryReading {
    /// Those that can be read, in no order.
    pub found: Vec<HeardSummary>,
    /// How many values are in their place that are none.
    pub unreadable: u64,
}

/// A summary, and how old it is.
#[derive(Clone, Debug)]
pub struct HeardSummary {
    /// The process that published it, as it says.
    pub process: Process,
    /// The summary.
    pub summary: PeerSummary,
    /// How long ago it was published. Redis counts that, as the time that the key has lived, so
    /// that no clocks of two machines are compared.
    pub age: Duration,
}

/// The summaries in Redis.
#[derive(Debug)]
pub struct SummaryStore {
    client: Arc<RedisClient>,
    owner: Process,
    slots: Vec<Bytes>,
    /// The slot that is tried first: ours, once there is one.
    slot: AtomicUsize,
    publish: Script,
    read: Script,
    withdraw: Script,
}

impl SummaryStore {
    /// The summaries of this client's namespace, where `owner` publishes its own.
    #[must_use]
    pub fn new(client: Arc<RedisClient>, owner: Process) -> Self {
        // The same slot of a cluster as the metadata.
        let prefix = format!("{{{}}}:s:", client.settings().namespace);
        let slots = (0..MAX_SIDECARS).map(|slot| format!("{prefix}{slot}").into()).collect();
        let first = usize::try_from(owner.0 % MAX_SIDECARS as u64).unwrap_or_default();
        Self {
            client,
            owner,
            slots,
            slot: AtomicUsize::new(first),
            publish: Script::new(&[include_str!("lua/publish.lua")]),
            read: Script::new(&[include_str!("lua/read.lua")]),
            withdraw: Script::new(&[include_str!("lua/withdraw.lua")]),
        }
    }

    /// Publishes our summary.
    pub async fn publish(&self, summary: &PeerSummary) -> Result<Published, CallError> {
        let value: Bytes = format!("{} {}", self.owner, summary.to_json()).into();
        let ours = self.slot.load(Relaxed);
        match self.try_slots(vec![self.slots[ours].clone()], &value, false).await? {
            Attempt::Done(_) => return Ok(Published::Yes),
            Attempt::Refused(why) => return Ok(Published::Refused(why)),
            Attempt::Taken => {}
        }
        let slots = (0..MAX_SIDECARS).map(|by| self.slots[(ours + by) % MAX_SIDECARS].clone());
        match self.try_slots(slots.collect(), &value, true).await? {
            Attempt::Done(by) => {
                self.slot.store((ours + by) % MAX_SIDECARS, Relaxed);
                Ok(Published::Yes)
            }
            Attempt::Refused(why) => Ok(Published::Refused(why)),
            Attempt::Taken => Ok(Published::Full),
        }
    }

    async fn try_slots(
        &self,
        slots: Vec<Bytes>,
        value: &Bytes,
        take: bool,
    ) -> Result<Attempt, CallError> {
        let number = |time: Duration| Bytes::from(millis(time).to_string());
        let args = vec![
            self.owner.to_string().into(),
            value.clone(),
            number(SUMMARY_TTL),
            number(SILENT_AFTER),
            Bytes::from_static(if take { b"1" } else { b"0" }),
        ];
        let reply = self.client.run_aside(&self.publish, slots, args, CALL_TIMEOUT).await?;
        let ScriptReply::Many(words) = reply else { return Err(unexpected()) };
        let [word, detail] = &words[..] else { return Err(unexpected()) };
        match &**word {
            b"ok" => {
                let at = std::str::from_utf8(detail).ok().and_then(|text| text.parse().ok());
                let at: usize = at.filter(|at| (1..=MAX_SIDECARS).contains(at)).unwrap_or(1);
                Ok(Attempt::Done(at - 1))
            }
            b"taken" => Ok(Attempt::Taken),
            _ => Ok(Attempt::Refused(String::from_utf8_lossy(detail).into_owned())),
        }
    }

    /// Reads the summaries of all sidecars, our own among them.
    pub async fn read(&self) -> Result<SummaryReading, CallError> {
        let mut reading = SummaryReading::default();
        for slots in self.slots.chunks(SLOTS_AT_ONCE) {
            self.read_slots(slots, &mut reading).await?;
        }
        Ok(reading)
    }

    async fn read_slots(
        &self,
        slots: &[Bytes],
        reading: &mut SummaryReading,
    ) -> Result<(), CallError> {
        let args = vec![MAX_SUMMARY_BYTES.to_string().into()];
        let reply = self.client.run_aside(&self.read, slots.to_vec(), args, CALL_TIMEOUT).await?;
        let ScriptReply::Many(words) = reply else { return Err(unexpected()) };
        let [error, rest @ ..] = &words[..] else { return Err(unexpected()) };
        let [strange, pairs @ ..] = rest else {
            return Err(CallError::Reply(String::from_utf8_lossy(error).into_owned()));
        };
        reading.unreadable += number(strange).and_then(|count| count.try_into().ok()).unwrap_or(0);
        for pair in pairs.chunks_exact(2).take(slots.len()) {
            match heard(&pair[0], &pair[1]) {
                Some(heard) => reading.found.push(heard),
                None => reading.unreadable += 1,
            }
        }
        Ok(())
    }

    /// Withdraws our summary, because this sidecar ends.
    pub async fn withdraw(&self) -> Result<(), CallError> {
        let slot = vec![self.slots[self.slot.load(Relaxed)].clone()];
        let args = vec![self.owner.to_string().into()];
        self.client.run_aside(&self.withdraw, slot, args, CALL_TIMEOUT).await.map(drop)
    }
}

enum Attempt {
    /// It is in the slot of this index in the list.
    Done(usize),
    Taken,
    Refused(String),
}

/// What a value says; `None` if it is no summary. One that never expires is nobody's who publishes.
fn heard(left_ms: &[u8], value: &[u8]) -> Option<HeardSummary> {
    let left = Duration::from_millis(number(left_ms)?.try_into().ok()?);
    let (id, json) = value.split_at_checked(ID_DIGITS)?;
    let id = std::str::from_utf8(id).ok().filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(HeardSummary {
        process: Process(u64::from_str_radix(id, 16).ok()?),
        summary: PeerSummary::parse(json.strip_prefix(b" ")?)?,
        age: SUMMARY_TTL.saturating_sub(left),
    })
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn unexpected() -> CallError {
    CallError::Reply("the reply of a script is not what it returns".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample;
    use super::*;

    #[test]
    fn a_value_is_a_summary_or_nothing() {
        let json = sample("a").to_json();
        let whole = format!("00000000000000ff {json}");
        let heard_at = |left: &str, text: &str| heard(left.as_bytes(), text.as_bytes());
        let found = heard_at("597000", &whole).expect("a summary");
        assert_eq!((found.process, found.age), (Process(255), Duration::from_secs(3)));
        let future = heard_at("99999999999", &whole).expect("a summary");
        assert_eq!(future.age, Duration::ZERO, "by somebody who sets another time to live");
        let nothing = [
            ("-1", whole.clone()),
            ("597000", json.clone()),
            ("597000", format!("00000000000000f{json}")),
            ("597000", format!("+0000000000000ff {json}")),
            ("597000", format!("00000000000000ff{json}")),
            ("597000", "00000000000000ff".to_owned()),
            ("597000", "00000000000000ff []".to_owned()),
            ("597000", "\u{e9}".repeat(30)),
            ("597000", String::new()),
        ];
        for (left, text) in nothing {
            assert!(heard_at(left, &text).is_none(), "{left} {text}");
        }
    }
}
