//! Parses what the scripts return.

use std::time::Duration;

use bytes::Bytes;

use crate::coherence::core::{RegisteredPeer, Subscribers};
use crate::coherence::message::{PROTOCOL, PeerId};
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
    let (peers, is_mixed) = (peers_from(names), is_mixed(names));
    Ok(Subscribers { peers, listeners, is_mixed })
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

/// Whether a sidecar of another protocol may be there, by what the scripts note in the list of
/// peers (`watch_protocol`). A list without anybody is new, or was lost.
fn is_mixed(words: &[Bytes]) -> bool {
    let noted = words.chunks_exact(2).find(|pair| *pair[0] == *b"-").map(|pair| &*pair[1]);
    noted != Some(PROTOCOL.to_string().as_bytes())
        && peers_from(words).iter().any(|entry| !entry.evicted)
}

/// The longest lease in the list of peers.
pub(super) fn longest_lease_from(words: &[Bytes]) -> Duration {
    let leases =
        words.chunks_exact(2).filter_map(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
    Duration::from_millis(leases.max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_peers_tells_whether_all_speak_this_protocol() {
        let one = "00000000000000fe.0";
        for (words, expected) in [
            (&["-", "1", one, "2000"][..], false),
            (&[one, "2000", "-", "1"], false),
            (&["-", "1"], false),
            (&[], false),
            (&[one, "0"], false),
            (&[one, "2000"], true),
            (&["-", "1 1764000000000", one, "2000"], true),
            (&["-", "2", one, "2000"], true),
        ] {
            let words: Vec<Bytes> =
                words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            assert_eq!(is_mixed(&words), expected, "{words:?}");
        }
        // What is noted of the protocol is no peer, and no lease that counts.
        let words =
            ["-", "1 1764000000000", one, "2000"].map(|word| Bytes::from_static(word.as_bytes()));
        assert_eq!(peers_from(&words).len(), 1);
        assert_eq!(longest_lease_from(&words), Duration::from_secs(2));
    }
}
