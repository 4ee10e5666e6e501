//! Parses what the scripts return.

use std::time::Duration;

use bytes::Bytes;

use crate::coherence::core::{RegisteredPeer, Subscribers};
use crate::coherence::message::PeerId;
use crate::redis::{CallError, ScriptReply};

pub(super) fn unexpected_reply() -> CallError {
    CallError::Reply("unexpected reply from a script".to_owned())
}

pub(super) fn list_from(reply: ScriptReply) -> Result<Vec<Bytes>, CallError> {
    match reply {
        ScriptReply::Many(words) => Ok(words),
        ScriptReply::Nil | ScriptReply::One(_) => Err(unexpected_reply()),
    }
}

/// A time of Redis's clock, in milliseconds.
pub(super) fn time_from(word: &[u8]) -> Result<u64, CallError> {
    std::str::from_utf8(word).ok().and_then(|time| time.parse().ok()).ok_or_else(unexpected_reply)
}

/// The number of subscribers, and the list of peers; both empty if nothing was published.
pub(super) fn subscribers_from(reply: ScriptReply) -> Result<Subscribers, CallError> {
    let words = list_from(reply)?;
    let Some((listeners, names)) = words.split_first() else { return Ok(Subscribers::default()) };
    let listeners = std::str::from_utf8(listeners)
        .ok()
        .and_then(|listeners| listeners.parse().ok())
        .ok_or_else(unexpected_reply)?;
    Ok(Subscribers { listeners, peers: peers_from(names) })
}

/// The list of peers: each with its lease, or with `0` if it was evicted.
pub(super) fn peers_from(words: &[Bytes]) -> Vec<RegisteredPeer> {
    words
        .chunks_exact(2)
        .filter_map(|pair| {
            Some(RegisteredPeer { peer: PeerId::parse(&pair[0])?, evicted: *pair[1] == *b"0" })
        })
        .collect()
}

/// The longest lease in the list of peers.
pub(super) fn longest_lease_from(words: &[Bytes]) -> Duration {
    let leases =
        words.chunks_exact(2).filter_map(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
    Duration::from_millis(leases.max().unwrap_or_default())
}
