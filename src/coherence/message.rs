//! The messages that sidecars publish on the bus, and the ids by which they know each other.
//!
//! SECURITY: any client that may publish in Redis can send these messages. No message ever makes an
//! entry current. A forged acknowledgement or departure can make a response go out before a peer
//! has the purge.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::tag::Tag;

/// The number of the protocol: what sidecars publish, what the records of tags look like, and how
/// tags are spelled. It changes with each of these. Builds from before it was told count as 0.
pub const PROTOCOL: u32 = 1;

/// The id of one run of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process(pub u64);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The id under which a sidecar is registered. Every registration uses a new one, so that an
/// evicted sidecar never comes back under the id that was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// The process that registers.
    pub process: Process,
    /// How many registrations came before.
    pub incarnation: u32,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.incarnation)
    }
}

impl PeerId {
    /// Parses an id; `None` if the text is not one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (process, incarnation) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let process =
            Process(u64::from_str_radix(process, 16).ok().filter(|_| process.len() == 16)?);
        Some(Self { process, incarnation: incarnation.parse().ok()? })
    }
}

/// The id of a mutation, a purge, or anything else that peers acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A message on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub enum Message {
    /// Heartbeat. A process that receives its own heartbeat has received all earlier messages on
    /// the channel.
    #[serde(rename = "beat")]
    Heartbeat {
        /// The sender.
        of: Process,
        /// The number of the heartbeat.
        number: u64,
        /// Whether the sender may hold a lease.
        registered: bool,
        /// The protocol that the sender speaks.
        #[serde(default)]
        protocol: u32,
    },
    /// The sender no longer trusts its local table: do not wait for its lease.
    #[serde(rename = "quit")]
    Leave {
        /// The sender.
        of: Process,
        /// Whether it has ended. Otherwise it may be cut off by now, and serve by itself.
        #[serde(default)]
        gone: bool,
    },
    /// Purge these tags in the local table.
    #[serde(rename = "distrust")]
    Invalidate {
        /// The sender, who waits for acknowledgements.
        by: Process,
        /// The operation to acknowledge.
        id: OperationId,
        /// The tags; every tag where there is no list.
        tags: Option<Vec<Tag>>,
        /// Whether the sender listens to a channel of its own, for what is meant for it alone.
        /// Versions that have none do not say so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        inbox: bool,
        /// The protocol that the sender speaks.
        #[serde(default)]
        protocol: u32,
    },
    /// The receiver did what the message says.
    Ack {
        /// The sender of the operation.
        to: Process,
        /// The operation.
        id: OperationId,
        /// The process that acknowledges it.
        of: Process,
    },
    /// The switches in Redis have changed: read them. A message says no more than this, so that a
    /// forged one costs a read, of which there are few however many messages come. Versions that
    /// do not know it ignore it, as they ignore whatever they cannot parse.
    #[serde(rename = "modes")]
    SwitchesChanged,
}

impl Message {
    /// The heartbeat of a sidecar of this version.
    #[must_use]
    pub const fn heartbeat(of: Process, number: u64, registered: bool) -> Self {
        Self::Heartbeat { of, number, registered, protocol: PROTOCOL }
    }

    /// The invalidation that a sidecar of this version sends.
    #[must_use]
    pub const fn invalidate(by: Process, id: OperationId, tags: Option<Vec<Tag>>) -> Self {
        Self::Invalidate { by, id, tags, inbox: true, protocol: PROTOCOL }
    }

    /// Whether the sender says that it speaks another protocol, or says nothing of it.
    #[must_use]
    pub const fn is_of_other_protocol(&self) -> bool {
        match self {
            Self::Heartbeat { protocol, .. } | Self::Invalidate { protocol, .. } => {
                *protocol != PROTOCOL
            }
            Self::Leave { .. } | Self::Ack { .. } | Self::SwitchesChanged => false,
        }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serializing strings and numbers under string keys cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Parses a message; `None` if the bytes are not one. Any client may publish.
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
    fn a_peer_id_is_read_as_it_is_written() {
        let peer = PeerId { process: Process(0xfe), incarnation: 7 };
        assert_eq!(peer.to_string(), "00000000000000fe.7");
        assert_eq!(PeerId::parse(peer.to_string().as_bytes()), Some(peer));
        for broken in ["", "fe.7", "00000000000000fe", "00000000000000fe.x", "0000000000000+fe.7x"]
        {
            assert_eq!(PeerId::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    /// The sender then gets its acknowledgements on the bus, as it expects them.
    #[test]
    fn r1489_an_invalidation_of_an_earlier_version_names_no_inbox() {
        let earlier = br#"{"say":"distrust","by":1,"id":2,"tags":["a"],"seq":7}"#;
        let (by, id, tags) = (Process(1), OperationId(2), Some(vec![Tag::new("a")]));
        let read = Message::Invalidate { by, id, tags, inbox: false, protocol: 0 };
        assert_eq!(Message::parse(earlier), Some(read));
    }

    /// What is published has these bytes. With other bytes, [`PROTOCOL`] has another number.
    #[test]
    fn r1345_messages_of_this_protocol_have_these_bytes() {
        let (one, two, id) = (Process(1), Process(2), OperationId(7));
        let tags = Some(vec![Tag::new("Item:\"Ü\""), Tag::for_uri("a", "/X.c")]);
        for (message, bytes) in [
            (
                Message::heartbeat(one, 3, true),
                r#"{"say":"beat","of":1,"number":3,"registered":true,"protocol":1}"#,
            ),
            (Message::Leave { of: one, gone: true }, r#"{"say":"quit","of":1,"gone":true}"#),
            (
                Message::invalidate(one, id, tags),
                concat!(
                    r#"{"say":"distrust","by":1,"id":7,"tags":["item:\"ü\"","uri:a/x"],"#,
                    r#""inbox":true,"protocol":1}"#
                ),
            ),
            (
                Message::invalidate(one, id, None),
                r#"{"say":"distrust","by":1,"id":7,"tags":null,"inbox":true,"protocol":1}"#,
            ),
            (Message::Ack { to: one, id, of: two }, r#"{"say":"ack","to":1,"id":7,"of":2}"#),
            (Message::SwitchesChanged, r#"{"say":"modes"}"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&message.to_bytes()), bytes);
            assert_eq!(Message::parse(bytes.as_bytes()), Some(message.clone()));
            assert!(!message.is_of_other_protocol(), "{message:?}");
        }
        // As 0.1 publishes them.
        for bytes in [
            r#"{"say":"beat","of":1,"number":3,"registered":true}"#,
            r#"{"say":"distrust","by":1,"id":7,"tags":["Items:A"]}"#,
            r#"{"say":"distrust","by":1,"id":7,"tags":null}"#,
        ] {
            let message = Message::parse(bytes.as_bytes()).expect("a message");
            assert!(message.is_of_other_protocol(), "{message:?}");
        }
        assert_eq!(
            Message::parse(br#"{"say":"quit","of":1}"#),
            Some(Message::Leave { of: one, gone: false })
        );
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_is_written(
            names in proptest::option::of(proptest::collection::vec(".{0,20}", 0..4)),
            number in any::<u64>(),
            inbox in any::<bool>(),
        ) {
            let tags = names.map(|names| names.iter().map(|name| Tag::new(name)).collect());
            for message in [
                Message::heartbeat(Process(number), number, true),
                Message::Leave { of: Process(number), gone: number.is_multiple_of(2) },
                Message::Invalidate {
                    by: Process(1),
                    id: OperationId(number),
                    tags,
                    inbox,
                    protocol: PROTOCOL,
                },
                Message::Ack { to: Process(number), id: OperationId(2), of: Process(3) },
                Message::SwitchesChanged,
            ] {
                prop_assert_eq!(Message::parse(&message.to_bytes()), Some(message));
            }
        }

        #[test]
        fn whatever_is_published_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = Message::parse(&bytes);
        }
    }
}
