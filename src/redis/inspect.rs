//! Asks Redis how it is set up, for `sidecache check`. Changes nothing, and is not for the way of a
//! request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::Value;

use crate::redis::RedisClient;
use crate::redis::error::CallError;
use crate::redis::node::{RedisCommand, RedisNode};

/// How long to wait before the primary is looked for again.
const PRIMARY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a Redis says of itself; nothing where it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisInfo {
    /// `master` or `slave`.
    pub role: Option<String>,
    /// Whether it is still reading what it had saved.
    pub loading: bool,
    /// How much it may hold, in bytes; zero for no bound.
    pub maxmemory: Option<u64>,
    /// What it does when that is reached.
    pub policy: Option<String>,
    /// Whether it keeps a log of all writes on disk.
    pub appendonly: Option<bool>,
    /// When it saves all that it holds to disk, empty for never; or why it did not say, where there
    /// is a reason.
    pub save: Result<String, Option<CallError>>,
}

impl RedisClient {
    /// Waits for the primary and asks it. The caller minds the time.
    ///
    /// # Errors
    /// When it cannot be reached, or does not tell strangers about itself.
    pub async fn inspect(&self) -> Result<RedisInfo, CallError> {
        let primary = self.primary().await?;
        // A connection that fails says why; that it is over comes after.
        tokio::select! {
            biased;
            connected = primary.client(0).wait_for_connect() => connected.map_err(|error| CallError::from_fred(&error))?,
            () = primary.closed() => return Err(CallError::Connection("it cannot be reached".to_owned())),
        }
        let told = query(&primary, RedisCommand::new("INFO", Vec::new())).await?;
        let mut facts = read(&told.into_string().unwrap_or_default());
        facts.save =
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
        Ok(facts)
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

/// Reads what `INFO` says.
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
    fn what_is_not_said_is_not_known() {
        let info = "# Memory\r\nmaxmemory:1048576\r\nmaxmemory_human:1.00M\r\nmaxmemory_policy:allkeys-lru\r\n# Persistence\r\nloading:0\r\n";
        let facts = read(info);
        assert_eq!(
            (facts.maxmemory, facts.policy.as_deref(), facts.loading),
            (Some(1_048_576), Some("allkeys-lru"), false)
        );
        assert_eq!((facts.role, facts.appendonly, facts.save), (None, None, Err(None)));
        assert!(read("loading:1\naof_enabled:1\nrole:slave").loading);
    }
}
