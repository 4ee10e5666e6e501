//! Reads what the scripts return.

use std::time::Duration;

use bytes::Bytes;

use crate::coherence::core::{RegisteredPeer, Subscribers};
use crate::coherence::message::PeerId;
use crate::redis::{CallError, ScriptReply};

pub(super) fn unexpected_reply() -> CallError {
    CallError::Reply("not what the script returns".to_owned())
}

pub(super) fn list_from(returned: ScriptReply) -> Result<Vec<Bytes>, CallError> {
    match returned {
        ScriptReply::Many(words) => Ok(words),
        ScriptReply::Nil | ScriptReply::One(_) => Err(unexpected_reply()),
    }
}

/// How many listened, and the list of names; nothing of either where nothing was said.
pub(super) fn subscribers_from(returned: ScriptReply) -> Result<Subscribers, CallError> {
    let words = list_from(returned)?;
    let Some((listeners, names)) = words.split_first() else { return Ok(Subscribers::default()) };
    let listeners = std::str::from_utf8(listeners)
        .ok()
        .and_then(|listeners| listeners.parse().ok())
        .ok_or_else(unexpected_reply)?;
    Ok(Subscribers { listeners, names: peers_from(names) })
}

/// The list of names: each with its lease, or with what says that it was struck out.
pub(super) fn peers_from(words: &[Bytes]) -> Vec<RegisteredPeer> {
    words
        .chunks_exact(2)
        .filter_map(|pair| {
            Some(RegisteredPeer { node: PeerId::parse(&pair[0])?, evicted: *pair[1] == *b"0" })
        })
        .collect()
}

/// The longest lease in the list of names.
pub(super) fn longest_lease_from(words: &[Bytes]) -> Duration {
    let leases =
        words.chunks_exact(2).filter_map(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
    Duration::from_millis(leases.max().unwrap_or_default())
}
