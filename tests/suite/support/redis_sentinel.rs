//! A master, a replica, and three sentinels that watch over them.

use super::redis_node::{RedisNode, until};

/// The processes. Dropping it kills them.
pub struct RedisSentinel {
    /// The master at the start.
    pub master: RedisNode,
    /// Its replica.
    pub replica: RedisNode,
    sentinels: Vec<RedisNode>,
}

impl RedisSentinel {
    /// Starts them, and returns when they know each other.
    pub fn start() -> Self {
        let master = RedisNode::start(&["--repl-diskless-sync-delay", "0"]);
        let replica = RedisNode::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
        until("the replica follows", || {
            replica.ask(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<RedisNode> = (0..3).map(|_| RedisNode::sentinel(master.port)).collect();
        until("the sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let lines: Vec<String> = sentinel
                    .ask(&["SENTINEL", "MASTER", "mymaster"])
                    .lines()
                    .map(str::to_owned)
                    .collect();
                let says = |name: &str, value: &str| {
                    lines.windows(2).any(|pair| pair[0] == name && pair[1] == value)
                };
                says("num-other-sentinels", "2") && says("num-slaves", "1")
            })
        });
        Self { master, replica, sentinels }
    }

    /// The `[redis]` table of a proxy.toml that uses them.
    pub fn table(&self) -> String {
        let [one, two, three] = [0, 1, 2].map(|at: usize| self.sentinels[at].port);
        let query =
            format!("sentinelServiceName=mymaster&node=localhost:{two}&node=127.0.0.1:{three}");
        format!("[redis]\nurl = \"redis-sentinel://127.0.0.1:{one}?{query}\"\n")
    }
}
