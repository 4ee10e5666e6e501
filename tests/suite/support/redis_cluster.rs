//! A cluster of three masters with a replica each.

use super::process::free_port;
use super::redis_node::{RedisNode, until};

const RANGES: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

/// The processes. Dropping it kills them.
pub struct RedisCluster {
    /// The masters at the start.
    pub masters: Vec<RedisNode>,
    /// Their replicas, in the same order.
    pub replicas: Vec<RedisNode>,
    /// The ids of the masters, in the same order.
    pub ids: Vec<String>,
    /// The slot of the sidecars' metadata.
    pub slot: u16,
    /// Which of the masters keeps it at the start.
    pub home: usize,
}

impl RedisCluster {
    /// Starts them, and returns when they serve all slots and each replica follows.
    pub fn start() -> Self {
        let buses: Vec<u16> = (0..6).map(|_| free_port()).collect();
        let nodes: Vec<RedisNode> = buses
            .iter()
            .map(|bus| {
                let bus = bus.to_string();
                let cluster = [
                    "--cluster-enabled",
                    "yes",
                    "--cluster-node-timeout",
                    "1500",
                    "--cluster-port",
                    &bus,
                ];
                // One shard that is gone says nothing of the others.
                RedisNode::start(
                    &[
                        &cluster[..],
                        &[
                            "--cluster-require-full-coverage",
                            "no",
                            "--repl-diskless-sync-delay",
                            "0",
                        ],
                    ]
                    .concat(),
                )
            })
            .collect();
        for (at, node) in nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (node, (first, last)) in nodes.iter().zip(RANGES) {
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            nodes[0].ask(&[
                "CLUSTER",
                "MEET",
                "127.0.0.1",
                &node.port.to_string(),
                &bus.to_string(),
            ]);
        }
        until("all members know each other", || {
            nodes
                .iter()
                .all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_known_nodes:6"))
        });
        let ids: Vec<String> =
            nodes.iter().take(3).map(|node| node.ask(&["CLUSTER", "MYID"])).collect();
        for (replica, id) in nodes[3..].iter().zip(&ids) {
            until("a replica is told", || replica.ask(&["CLUSTER", "REPLICATE", id]) == "OK");
        }
        until("the replicas follow", || {
            nodes[3..]
                .iter()
                .all(|node| node.ask(&["INFO", "replication"]).contains("master_link_status:up"))
                && nodes
                    .iter()
                    .all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        let slot: u16 =
            nodes[0].ask(&["CLUSTER", "KEYSLOT", "{sidecache}"]).parse().expect("a slot");
        let home = RANGES
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&slot))
            .expect("every slot is in a range");
        let mut masters = nodes;
        let replicas = masters.split_off(3);
        Self { masters, replicas, ids, slot, home }
    }

    /// The `[redis]` table of a proxy.toml that uses it.
    pub fn table(&self) -> String {
        let [one, two, three] = [0, 1, 2].map(|at: usize| self.masters[at].port);
        format!(
            "[redis]\nurl = \
            \"redis-cluster://127.0.0.1:{one}?node=127.0.0.1:{two}&node=127.0.0.1:{three}\"\n"
        )
    }
}
