//! Asks sentinels who the primary is.
//!
//! Invariant: a primary is one that more than half of the sentinels that answer name. One of them
//! may be cut off from the others, and does not know of a failover.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use fred::types::Value;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::redis::node::{CONNECT_TIMEOUT, ConnectOptions, NodeAddress, RedisCommand, RedisNode};

/// How long a sentinel may take to answer, the connection included.
const REPLY_TIMEOUT: Duration = CONNECT_TIMEOUT;

/// The sentinels. Their connections are kept.
pub(super) struct Sentinels {
    service: String,
    access: ConnectOptions,
    nodes: Vec<(NodeAddress, Option<RedisNode>)>,
}

impl Sentinels {
    /// Sentinels that watch over this service.
    pub(super) fn new(service: &str, nodes: &[(String, u16)], access: ConnectOptions) -> Self {
        let nodes = nodes
            .iter()
            .map(|(host, port)| (NodeAddress::Tcp(host.clone(), *port), None))
            .collect();
        Self { service: service.to_owned(), access, nodes }
    }

    /// The primary that they agree on, if they do.
    pub(super) async fn primary(&mut self) -> Option<NodeAddress> {
        let all = self.nodes.len();
        let (service, access) = (self.service.as_str(), &self.access);
        let asked = self.nodes.iter_mut().map(|(place, kept)| async move {
            let named = tokio::time::timeout(REPLY_TIMEOUT, ask_one(place, kept, service, access))
                .await
                .ok()
                .flatten();
            if named.is_none() {
                *kept = None;
            }
            named
        });
        vote(asked.collect(), all, NodeAddress::clone).await
    }
}

async fn ask_one(
    place: &NodeAddress,
    kept: &mut Option<RedisNode>,
    service: &str,
    access: &ConnectOptions,
) -> Option<NodeAddress> {
    if kept.as_ref().is_none_or(RedisNode::is_closed) {
        *kept = RedisNode::open(place.clone(), access, 1, false).ok();
    }
    let node = kept.as_ref()?;
    if !node.connected().await {
        return None;
    }
    let args = vec!["GET-MASTER-ADDR-BY-NAME".into(), service.into()];
    let Value::Array(answer) = node.send(0, RedisCommand::new("SENTINEL", args)).await.ok()? else {
        return None;
    };
    let [host, port] = answer.as_slice() else { return None };
    Some(NodeAddress::Tcp(host.as_string()?, port.as_string()?.parse().ok()?))
}

/// What most of those who answer say, as soon as that is certain. `key` is what they must agree on.
pub(super) async fn vote<T, K: Hash + Eq, F: Future<Output = Option<T>>>(
    mut asked: FuturesUnordered<F>,
    all: usize,
    key: impl Fn(&T) -> K,
) -> Option<T> {
    let mut votes: HashMap<K, (usize, T)> = HashMap::new();
    let mut answers = 0;
    while let Some(answer) = asked.next().await {
        let Some(answer) = answer else { continue };
        answers += 1;
        let entry = votes.entry(key(&answer)).or_insert((0, answer));
        entry.0 += 1;
        if entry.0 * 2 > all {
            break;
        }
    }
    votes.into_values().find(|(count, _)| count * 2 > answers).map(|(_, answer)| answer)
}

/// Whether two names lead to the same server. Sentinels may name by address whom they named by
/// host, and the other way round.
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

    async fn voted(answers: &[Option<u8>]) -> Option<u8> {
        vote(
            answers.iter().map(|answer| std::future::ready(*answer)).collect(),
            answers.len(),
            |answer| *answer,
        )
        .await
    }

    #[tokio::test]
    async fn most_of_those_who_answer_decide() {
        assert_eq!(voted(&[Some(1), Some(1), Some(2)]).await, Some(1));
        assert_eq!(voted(&[Some(2), None, None]).await, Some(2));
        assert_eq!(voted(&[Some(1), Some(2), None]).await, None, "no more than half");
        assert_eq!(voted(&[None, None]).await, None);
        assert_eq!(voted(&[]).await, None);
    }

    #[tokio::test]
    async fn a_host_and_its_address_are_the_same_place() {
        let place = |host: &str, port| NodeAddress::Tcp(host.to_owned(), port);
        assert!(is_same_server(&place("localhost", 1), &place("127.0.0.1", 1)).await);
        assert!(!is_same_server(&place("localhost", 1), &place("127.0.0.1", 2)).await);
        assert!(!is_same_server(&place("127.0.0.2", 1), &place("127.0.0.1", 1)).await);
    }
}
