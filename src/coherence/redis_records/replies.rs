//! Parses what the scripts return.

use std::time::Duration;

use bytes::Bytes;

use crate::coherence::core::{RegisteredPeer, Subscribers};
use crate::coherence::message::{PROTOCOL, PeerId};
use crate::redis::{CallError, MAX_LEASE, ScriptReply};

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
///
/// SECURITY: whoever writes to Redis may write any number there, and every purge waits for as long
/// once it is known. No sidecar has a longer one than [`MAX_LEASE`].
pub(super) fn longest_lease_from(words: &[Bytes]) -> Duration {
    let leases =
        words.chunks_exact(2).filter_map(|pair| std::str::from_utf8(&pair[1]).ok()?.parse().ok());
    Duration::from_millis(leases.max().unwrap_or_default()).min(MAX_LEASE)
}

/// The step that a text says, if it is one as the scripts have it (`step` in `lib.lua`): they count
/// in doubles, which are exact so far.
pub(super) fn step_from(text: &str) -> Option<u64> {
    const LAST: u64 = 9_000_000_000_000_000;
    let is_number = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().filter(|step| *step <= LAST)
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

    /// One field of the list made every purge wait for three years.
    #[test]
    fn no_lease_is_longer_than_a_sidecar_may_have() {
        let one = "00000000000000fe.0";
        for lease in ["60001", "99999999999", "18446744073709551615"] {
            let words = [one, lease].map(|word| Bytes::copy_from_slice(word.as_bytes()));
            assert_eq!(longest_lease_from(&words), MAX_LEASE, "{lease}");
        }
        for lease in ["99999999999999999999999", "-5", "inf", ""] {
            let words = [one, lease].map(|word| Bytes::copy_from_slice(word.as_bytes()));
            assert_eq!(longest_lease_from(&words), Duration::ZERO, "{lease}");
        }
    }

    #[test]
    fn a_step_is_a_number_that_scripts_can_compare() {
        for (text, expected) in [
            ("1764000000000000", Some(1_764_000_000_000_000)),
            ("9000000000000000", Some(9_000_000_000_000_000)),
            ("9000000000000001", None),
            ("9007199254740992", None),
            ("17640000000000000", None),
            ("-1", None),
            ("1e3", None),
            ("", None),
        ] {
            assert_eq!(step_from(text), expected, "{text}");
        }
    }
}
