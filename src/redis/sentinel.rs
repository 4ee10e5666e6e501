//! Asks sentinels for the primary.
//!
//! Invariant: the primary is the one that more than half of the replying sentinels name. A single
//! sentinel may be cut off from the others and know nothing of a failover.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use fred::types::Value;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::redis::node::{CONNECT_TIMEOUT, ConnectOptions, NodeAddress, RedisCommand, RedisNode};

/// How long a sentinel may take to reply, including the connection.
const REPLY_TIMEOUT: Duration = CONNECT_TIMEOUT;

/// The sentinels, and the open connections to them.
pub(super) struct Sentinels {
    service: String,
    access: ConnectOptions,
    nodes: Vec<(NodeAddress, Option<RedisNode>)>,
}

impl Sentinels {
    /// The sentinels that watch this service.
    pub(super) fn new(service: &str, nodes: &[(String, u16)], access: ConnectOptions) -> Self {
        let nodes = nodes
            .iter()
            .map(|(host, port)| (NodeAddress::Tcp(host.clone(), *port), None))
            .collect();
        Self { service: service.to_owned(), access, nodes }
    }

    /// The primary that most of them name, if there is one.
    pub(super) async fn primary(&mut self) -> Option<NodeAddress> {
        let all = self.nodes.len();
        let (service, access) = (self.service.as_str(), &self.access);
        let replies = self.nodes.iter_mut().map(|(address, open)| async move {
            let named =
                tokio::time::timeout(REPLY_TIMEOUT, ask_one(address, open, service, access))
                    .await
                    .ok()
                    .flatten();
            if named.is_none() {
                *open = None;
            }
            named
        });
        vote(replies.collect(), all, NodeAddress::clone).await
    }
}

async fn ask_one(
    address: &NodeAddress,
    open: &mut Option<RedisNode>,
    service: &str,
    access: &ConnectOptions,
) -> Option<NodeAddress> {
    if open.as_ref().is_none_or(RedisNode::is_closed) {
        *open = RedisNode::open(address.clone(), access, 1, false).ok();
    }
    let node = open.as_ref()?;
    if !node.connected().await {
        return None;
    }
    let args = vec!["GET-MASTER-ADDR-BY-NAME".into(), service.into()];
    let Value::Array(reply) = node.send(0, RedisCommand::new("SENTINEL", args)).await.ok()? else {
        return None;
    };
    let [host, port] = reply.as_slice() else { return None };
    Some(NodeAddress::Tcp(host.as_string()?, port.as_string()?.parse().ok()?))
}

/// The reply that most of those who reply agree on, as soon as that is certain. `key` is the part
/// that must agree.
pub(super) async fn vote<T, K: Hash + Eq, F: Future<Output = Option<T>>>(
    mut replies: FuturesUnordered<F>,
    all: usize,
    key: impl Fn(&T) -> K,
) -> Option<T> {
    let mut votes: HashMap<K, (usize, T)> = HashMap::new();
    let mut reply_count = 0;
    while let Some(reply) = replies.next().await {
        let Some(reply) = reply else { continue };
        reply_count += 1;
        let entry = votes.entry(key(&reply)).or_insert((0, reply));
        entry.0 += 1;
        if entry.0 * 2 > all {
            break;
        }
    }
    votes.into_values().find(|(count, _)| count * 2 > reply_count).map(|(_, reply)| reply)
}

/// Whether two addresses lead to the same server. Sentinels may name by address what the settings
/// name by host, and the other way round.
pub(super) async fn is_same_server(one: &NodeAddress, other: &NodeAddress) -> bool {
    if one == other {
        return true;
    }
    let (NodeAddress::Tcp(one, port), NodeAddress::Tcp(other, other_port)) = (one, other) else {
        return false;
    };
    if port != other_port {
        return false;
    }
    let resolved = async |host: &str| {
        let found =
            tokio::time::timeout(REPLY_TIMEOUT, tokio::net::lookup_host((host.to_owned(), *port)))
                .await;
        found.ok().and_then(Result::ok).map(Iterator::collect::<Vec<_>>).unwrap_or_default()
    };
    let (one, other) = (resolved(one).await, resolved(other).await);
    one.iter().any(|address| other.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn voted(replies: &[Option<u8>]) -> Option<u8> {
        vote(
            replies.iter().map(|reply| std::future::ready(*reply)).collect(),
            replies.len(),
            |reply| *reply,
        )
        .await
    }

    #[tokio::test]
    async fn the_majority_of_replies_decides() {
        assert_eq!(voted(&[Some(1), Some(1), Some(2)]).await, Some(1));
        assert_eq!(voted(&[Some(2), None, None]).await, Some(2));
        assert_eq!(voted(&[Some(1), Some(2), None]).await, None, "no more than half");
        assert_eq!(voted(&[None, None]).await, None);
        assert_eq!(voted(&[]).await, None);
    }

    #[tokio::test]
    async fn a_host_and_its_address_are_the_same_server() {
        let address = |host: &str, port| NodeAddress::Tcp(host.to_owned(), port);
        assert!(is_same_server(&address("localhost", 1), &address("127.0.0.1", 1)).await);
        assert!(!is_same_server(&address("localhost", 1), &address("127.0.0.1", 2)).await);
        assert!(!is_same_server(&address("127.0.0.2", 1), &address("127.0.0.1", 1)).await);
    }
}
