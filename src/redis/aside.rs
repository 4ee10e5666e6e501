//! Calls on which nothing depends. Whatever becomes of one says nothing of Redis: it raises no
//! suspicion, ends no session, and is not counted among the calls of the cache.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::wait_while_running;
use crate::redis::commands::{evaluate, script_reply};
use crate::redis::error::CallError;
use crate::redis::{RedisClient, Script, ScriptReply};

impl RedisClient {
    /// Runs a script on the primary of the metadata, in whose slot its keys must be. Fails at once
    /// without a connection, and after `within` of the time in which this process runs.
    pub async fn run_aside(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
        within: Duration,
    ) -> Result<ScriptReply, CallError> {
        let call = async {
            let (servers, turn) = (self.session.load_full().servers()?, self.turn());
            let known = evaluate("EVALSHA", &script.sha1, &keys, &args);
            let reply = match Box::pin(servers.primary.send(turn, known)).await {
                // Redis does not know the script, as after every restart.
                Err(error) if error.details().contains("NOSCRIPT") => {
                    let whole = evaluate("EVAL", &script.lua, &keys, &args);
                    Box::pin(servers.primary.send(turn, whole)).await
                }
                known => known,
            };
            reply.map(script_reply).map_err(|error| CallError::from_fred(&error))
        };
        wait_while_running(within, call).await.unwrap_or(Err(CallError::Timeout))
    }
}
