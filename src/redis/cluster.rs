//! The map of a cluster: which node serves which slot, and what redirections say.
//!
//! fred's own cluster client is not used: one primary that is down makes it unusable until that
//! primary has a successor, and it silently follows a slot to another primary (both measured, or
//! read in its source). Here each node has a client of its own.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use fred::types::Value;

use crate::redis::node::{CONNECT_TIMEOUT, ConnectOptions, NodeAddress, RedisCommand, RedisNode};
use crate::redis::sentinel::vote;

/// The number of slots.
const SLOTS: usize = 16_384;

/// The slot of a key.
pub(super) fn slot(key: &[u8]) -> u16 {
    fred::util::redis_keyslot(key)
}

/// Which node serves which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterMap {
    /// First slot, last slot, primary.
    ranges: Vec<(u16, u16, NodeAddress)>,
    /// All members, including replicas.
    pub(super) members: Vec<NodeAddress>,
}

impl ClusterMap {
    /// Parses the reply to `CLUSTER SLOTS`; a member without a name is the one that replied.
    fn parse(reply: Value, by: &NodeAddress) -> Option<Self> {
        let Value::Array(rows) = reply else { return None };
        let (mut ranges, mut members) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let Value::Array(row) = row else { return None };
            let (first, last) = (number(row.first()?)?, number(row.get(1)?)?);
            let mut nodes = row.iter().skip(2).map(|node| {
                let Value::Array(node) = node else { return None };
                node_address(
                    &node.first()?.as_string().unwrap_or_default(),
                    number(node.get(1)?)?,
                    by,
                )
            });
            let primary = nodes.next()??;
            members.push(primary.clone());
            members.extend(nodes.flatten());
            ranges.push((first, last, primary));
        }
        members.sort();
        members.dedup();
        Some(Self { ranges, members })
    }

    /// The primary of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&NodeAddress> {
        self.ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .map(|(_, _, address)| address)
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_i64().and_then(|number| u16::try_from(number).ok())
}

/// The address of a server as another server names it.
fn node_address(host: &str, port: u16, by: &NodeAddress) -> Option<NodeAddress> {
    match (host, by) {
        ("" | "?", NodeAddress::Tcp(host, _)) => Some(NodeAddress::Tcp(host.clone(), port)),
        ("" | "?", NodeAddress::Unix(_)) => None,
        (host, _) => Some(NodeAddress::Tcp(host.to_owned(), port)),
    }
}

/// Asks members for the map, and returns the one whose owner of the metadata most of them name.
pub(super) async fn discover(
    addresses: Vec<NodeAddress>,
    access: &ConnectOptions,
    home: u16,
) -> Option<ClusterMap> {
    let all = addresses.len();
    let replies = addresses.into_iter().map(|address| async move {
        let node = RedisNode::open(address, access, 1, false).ok()?;
        let read = async { if node.connected().await { read_map(&node).await } else { None } };
        tokio::time::timeout(CONNECT_TIMEOUT, read)
            .await
            .ok()
            .flatten()
            .filter(|map| map.owner(home).is_some())
    });
    vote(replies.collect(), all, |map| map.owner(home).cloned()).await
}

/// Asks one member for the map.
pub(super) async fn read_map(node: &RedisNode) -> Option<ClusterMap> {
    let reply = tokio::time::timeout(
        CONNECT_TIMEOUT,
        node.send(0, RedisCommand::new("CLUSTER", vec!["SLOTS".into()])),
    )
    .await;
    ClusterMap::parse(reply.ok()?.ok()?, &node.address)
}

/// The nodes that hold entries.
pub(super) struct ClusterShards {
    /// The node of each slot, as an index into `nodes`.
    owners: Box<[u16]>,
    nodes: Vec<Arc<RedisNode>>,
}

/// In `owners`: no node serves this slot.
const NOBODY: u16 = u16::MAX;

impl ClusterShards {
    /// The nodes of this map. Connected nodes are reused; the others are opened.
    pub(super) fn new(
        map: &ClusterMap,
        primary: &Arc<RedisNode>,
        known: Option<&Self>,
        open: impl Fn(NodeAddress) -> Option<Arc<RedisNode>>,
    ) -> Self {
        let mut nodes = vec![Arc::clone(primary)];
        let mut addresses = HashMap::from([(primary.address.clone(), Some(0))]);
        let mut owners = vec![NOBODY; SLOTS].into_boxed_slice();
        for (first, last, address) in &map.ranges {
            let owner = *addresses.entry(address.clone()).or_insert_with(|| {
                let reused = known.and_then(|known| {
                    known.nodes.iter().find(|node| node.address == *address && !node.is_closed())
                });
                nodes.push(reused.cloned().or_else(|| open(address.clone()))?);
                u16::try_from(nodes.len() - 1).ok()
            });
            if let (Some(owner), Some(slots)) =
                (owner, owners.get_mut(usize::from(*first)..=usize::from(*last)))
            {
                slots.fill(owner);
            }
        }
        Self { owners, nodes }
    }

    /// The node that serves a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<RedisNode>> {
        self.nodes.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    /// The node at an address.
    pub(super) fn node_at(&self, address: &NodeAddress) -> Option<&Arc<RedisNode>> {
        self.nodes.iter().find(|node| node.address == *address)
    }

    /// Returns when a connection to one of the nodes has ended.
    pub(super) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let nodes: Vec<Arc<RedisNode>> = self.nodes.clone();
        async move {
            let over = nodes.iter().map(|node| -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
                Box::pin(node.closed())
            });
            futures_util::future::select_all(over).await;
        }
    }
}

/// Where a node redirects a command to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot is there now.
    Moved(NodeAddress),
    /// The slot is moving there, and the key may be there already.
    Ask(NodeAddress),
}

impl Redirect {
    /// Parses `MOVED 3999 127.0.0.1:6381`, as the node at this address replied it.
    pub(super) fn parse(error: &str, by: &NodeAddress) -> Option<Self> {
        let mut words = error.split(' ');
        let kind: fn(NodeAddress) -> Self = match words.next()? {
            "MOVED" => Self::Moved,
            "ASK" => Self::Ask,
            _ => return None,
        };
        let (host, port) = words.nth(1)?.rsplit_once(':')?;
        Some(kind(node_address(host, port.parse().ok()?, by)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> NodeAddress {
        NodeAddress::Tcp(host.to_owned(), port)
    }

    fn row(first: i64, last: i64, nodes: &[(&str, i64)]) -> Value {
        let node = |(host, port): &(&str, i64)| {
            Value::Array(vec![(*host).into(), (*port).into(), "id".into()])
        };
        Value::Array(
            [first.into(), last.into()].into_iter().chain(nodes.iter().map(node)).collect(),
        )
    }

    #[test]
    fn a_map_says_which_node_serves_a_slot_and_who_the_members_are() {
        let reply = Value::Array(vec![
            row(0, 99, &[("a", 1), ("r", 9)]),
            row(100, 16_383, &[("", 2)]),
            row(50, 50, &[("b", 3)]),
        ]);
        let map = ClusterMap::parse(reply, &tcp("asked", 7)).expect("a map");
        assert_eq!(map.owner(99), Some(&tcp("a", 1)));
        assert_eq!(map.owner(100), Some(&tcp("asked", 2)));
        assert_eq!(map.members, [tcp("a", 1), tcp("asked", 2), tcp("b", 3), tcp("r", 9)]);
        let gap = ClusterMap::parse(Value::Array(vec![row(0, 1, &[("a", 1)])]), &tcp("asked", 7))
            .expect("a map");
        assert_eq!(gap.owner(2), None);
    }

    #[test]
    fn a_malformed_map_is_none() {
        for reply in [
            Value::Null,
            Value::Array(vec![Value::Null]),
            Value::Array(vec![row(0, 1, &[])]),
            Value::Array(vec![row(-1, 1, &[("a", 1)])]),
            Value::Array(vec![row(0, 1, &[("a", 70_000)])]),
        ] {
            assert_eq!(ClusterMap::parse(reply.clone(), &tcp("asked", 7)), None, "{reply:?}");
        }
    }

    #[test]
    fn redirections_are_read() {
        let by = tcp("by", 1);
        assert_eq!(
            Redirect::parse("MOVED 3999 127.0.0.1:6381", &by),
            Some(Redirect::Moved(tcp("127.0.0.1", 6381)))
        );
        assert_eq!(
            Redirect::parse("ASK 3999 ::1:6381", &by),
            Some(Redirect::Ask(tcp("::1", 6381)))
        );
        assert_eq!(
            Redirect::parse("MOVED 3999 :6381", &by),
            Some(Redirect::Moved(tcp("by", 6381)))
        );
        for other in
            ["", "ASK", "MOVED 3999", "MOVED 3999 nowhere", "MOVED 3999 h:x", "ERR MOVED 1 h:1"]
        {
            assert_eq!(Redirect::parse(other, &by), None, "{other}");
        }
    }

    #[test]
    fn all_metadata_is_in_one_slot_and_entries_are_not() {
        assert_eq!(slot(b"{sidecache}:seq"), slot(b"{sidecache}:t:a{b}"));
        assert_eq!(slot(b"{sidecache}:seq"), slot(b"{sidecache}"));
        assert_ne!(slot(b"sidecache:e:00"), slot(b"sidecache:e:01"));
    }
}
