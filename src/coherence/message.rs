//! What sidecars say to each other over the bus, and who they are.
//!
//! Anybody who may publish in Redis can say these things. Nothing on the bus ever makes an entry
//! current: the most that a forged message can do is what a forged record could do as well.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::tag::Tag;

/// One run of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process(pub u64);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A name under which a sidecar is registered: one for each time that it had to register, so that
/// who was taken for dead never comes back under the name that was struck out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// Whose name it is.
    pub process: Process,
    /// How often it has registered before.
    pub incarnation: u32,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.incarnation)
    }
}

impl PeerId {
    /// Reads a name. What does not look like one is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (process, incarnation) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let process =
            Process(u64::from_str_radix(process, 16).ok().filter(|_| process.len() == 16)?);
        Some(Self { process, incarnation: incarnation.parse().ok()? })
    }
}

/// The name of a mutation under way, of a purge, or of whatever else others are to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub enum Message {
    /// I live. Who hears this from itself has heard everything that was said before it.
    #[serde(rename = "beat")]
    Heartbeat {
        /// Who.
        of: Process,
        /// The number of the beat.
        number: u64,
        /// Whether I may hold a lease.
        registered: bool,
    },
    /// I trust my table no more: do not wait for me.
    #[serde(rename = "quit")]
    Leave {
        /// Who.
        of: Process,
    },
    /// Trust nothing any more that your table says of these tags.
    #[serde(rename = "distrust")]
    Invalidate {
        /// Who wants to hear that it is done.
        by: Process,
        /// The name of what is to be acknowledged.
        id: OperationId,
        /// The tags; all of them where there is no list.
        tags: Option<Vec<Tag>>,
    },
    /// It is done.
    Ack {
        /// Who wanted to hear it.
        to: Process,
        /// What was done.
        id: OperationId,
        /// Who has done it.
        of: Process,
    },
}

impl Message {
    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers under string keys: nothing in it can fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a message. What does not look like one is none: anybody may publish.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_node_is_read_as_it_is_written() {
        let node = PeerId { process: Process(0xfe), incarnation: 7 };
        assert_eq!(node.to_string(), "00000000000000fe.7");
        assert_eq!(PeerId::parse(node.to_string().as_bytes()), Some(node));
        for broken in ["", "fe.7", "00000000000000fe", "00000000000000fe.x", "0000000000000+fe.7x"]
        {
            assert_eq!(PeerId::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_is_written(names in proptest::option::of(proptest::collection::vec(".{0,20}", 0..4)), number in any::<u64>()) {
            let tags = names.map(|names| names.iter().map(|name| Tag::new(name)).collect());
            for message in [
                Message::Heartbeat { of: Process(number), number, registered: true },
                Message::Leave { of: Process(number) },
                Message::Invalidate { by: Process(1), id: OperationId(number), tags },
                Message::Ack { to: Process(number), id: OperationId(2), of: Process(3) },
            ] {
                prop_assert_eq!(Message::parse(&message.to_bytes()), Some(message));
            }
        }

        #[test]
        fn whatever_is_published_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Message::parse(&bytes);
        }
    }
}
