//! Asks Redis for its configuration, for `sidecache check`. Changes nothing. Requests never wait
//! for this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::Value;

use crate::redis::RedisClient;
use crate::redis::error::CallError;
use crate::redis::node::{RedisCommand, RedisNode};

/// How long to wait between two lookups of the primary.
const PRIMARY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What Redis says of its configuration; `None` for what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisInfo {
    /// `master` or `slave`.
    pub role: Option<String>,
    /// Whether it is still loading its data from disk.
    pub loading: bool,
    /// Its memory limit in bytes; zero for none.
    pub maxmemory: Option<u64>,
    /// What it does when the limit is reached.
    pub policy: Option<String>,
    /// Whether it logs all writes to disk.
    pub appendonly: Option<bool>,
    /// When it saves a snapshot to disk, empty for never; or why it does not say, if there is a
    /// reason.
    pub save: Result<String, Option<CallError>>,
}

impl RedisClient {
    /// Waits for the primary and asks it. The caller enforces a deadline.
    ///
    /// # Errors
    /// If it cannot be reached, or does not say anything about itself to this user.
    pub async fn inspect(&self) -> Result<RedisInfo, CallError> {
        let primary = self.primary().await?;
        // A connection that fails gives a reason; `closed` does not, so it comes second.
        tokio::select! {
            biased;
            connected = primary.client(0).wait_for_connect() => {
                connected.map_err(|error| CallError::from_fred(&error))?;
            }
            () = primary.closed() => {
                return Err(CallError::Connection("it cannot be reached".to_owned()));
            }
        }
        let info = query(&primary, RedisCommand::new("INFO", Vec::new())).await?;
        let mut result = read(&info.into_string().unwrap_or_default());
        result.save =
            match query(&primary, RedisCommand::new("CONFIG", vec!["GET".into(), "save".into()]))
                .await
            {
                Ok(pairs) => pairs
                    .convert::<HashMap<String, String>>()
                    .ok()
                    .and_then(|mut pairs| pairs.remove("save"))
                    .ok_or(None),
                Err(error) => Err(Some(error)),
            };
        Ok(result)
    }

    async fn primary(&self) -> Result<Arc<RedisNode>, CallError> {
        loop {
            let current = self.session.load_full();
            match current.servers() {
                Ok(servers) => return Ok(Arc::clone(&servers.primary)),
                Err(error) if current.is_exhausted() => return Err(error),
                Err(_) => tokio::time::sleep(PRIMARY_POLL_INTERVAL).await,
            }
        }
    }
}

async fn query(primary: &RedisNode, command: RedisCommand) -> Result<Value, CallError> {
    primary.send(0, command).await.map_err(|error| CallError::from_fred(&error))
}

/// Parses the reply to `INFO`.
fn read(info: &str) -> RedisInfo {
    let of = |name: &str| {
        info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
    };
    RedisInfo {
        role: of("role").map(str::to_owned),
        loading: of("loading") == Some("1"),
        maxmemory: of("maxmemory").and_then(|bytes| bytes.parse().ok()),
        policy: of("maxmemory_policy").map(str::to_owned),
        appendonly: of("aof_enabled").map(|enabled| enabled == "1"),
        save: Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_does_not_say_is_none() {
        let info = "# Memory\r\nmaxmemory:1048576\r\nmaxmemory_human:1.00M\r\n\
            maxmemory_policy:allkeys-lru\r\n# Persistence\r\nloading:0\r\n";
        let result = read(info);
        assert_eq!(
            (result.maxmemory, result.policy.as_deref(), result.loading),
            (Some(1_048_576), Some("allkeys-lru"), false)
        );
        assert_eq!((result.role, result.appendonly, result.save), (None, None, Err(None)));
        assert!(read("loading:1\naof_enabled:1\nrole:slave").loading);
    }
}
