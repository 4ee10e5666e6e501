//! What sidecars share besides tag records: the trusted server, the list of peers, and the bus.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::replies::{list_from, longest_lease_from, peers_from, time_from, unexpected_reply};
use super::{RecordStore, SHARED_TTL, clock_args};
use crate::clock::millis;
use crate::coherence::core::{HeartbeatReply, RegisteredPeer, Registration};
use crate::coherence::message::{Message, OperationId, PROTOCOL, PeerId, Process};
use crate::policy::tag::Tag;
use crate::redis::{CallError, Script, ScriptReply};

/// What a server says of its own role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRole {
    /// Its replication id.
    pub fence: String,
    /// `master` or `slave`.
    pub role: String,
    /// Whether it was a replica before.
    pub promoted: bool,
}

impl RecordStore {
    /// Asks the server for its role and its clock.
    pub async fn role(&self) -> Result<ServerRole, CallError> {
        let before = self.clock.wall();
        // Without a key the script runs on the primary, even while a slot is moving.
        let ScriptReply::Many(values) =
            self.client.run_patiently(&self.scripts.role, Vec::new(), Vec::new()).await?
        else {
            return Err(unexpected_reply());
        };
        let text = |at: usize| {
            values
                .get(at)
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        };
        self.clock_there.set(time_from(text(2).as_bytes())?, before, &self.clock);
        Ok(ServerRole { fence: text(0), role: text(1), promoted: text(3) == "1" })
    }

    /// Trusts the records of this primary from now on.
    pub fn trust(&self, fence: &str) {
        if *self.fence() != *fence {
            self.seen.reset();
        }
        self.fence.store(Arc::new(fence.into()));
    }

    /// Notes what a message on the bus says of Redis.
    pub fn note_message(&self, message: &Message, bytes: &[u8]) {
        self.seen.note_purge(message, bytes);
    }

    /// The channel that sidecars publish on.
    #[must_use]
    pub fn bus(&self) -> &str {
        &self.keys.bus
    }

    /// The channel of what is meant for one sidecar alone.
    #[must_use]
    pub fn inbox(&self, of: Process) -> String {
        format!("{}:{of}", self.keys.bus)
    }

    pub(super) fn publish_args(&self, message: Option<&Message>) -> [Bytes; 3] {
        let bytes = message.map(Message::to_bytes).unwrap_or_default();
        [
            Bytes::from_static(self.client.publish_command().as_bytes()),
            self.keys.bus.clone().into(),
            bytes.into(),
        ]
    }

    /// Sends a heartbeat under this id, and registers the id if asked to. Returns the longest lease
    /// of any sidecar with the reply.
    pub async fn heartbeat(
        &self,
        peer: PeerId,
        number: u64,
        register: bool,
    ) -> Result<(HeartbeatReply, Duration), CallError> {
        let message = Message::heartbeat(peer.process, number, register);
        let mut args = self.publish_args(Some(&message)).to_vec();
        args.push(if register { peer.to_string().into() } else { Bytes::from_static(b"-") });
        args.push(millis(self.client.settings().lease).to_string().into());
        args.push(millis(SHARED_TTL).to_string().into());
        args.extend(clock_args());
        args.push(PROTOCOL.to_string().into());
        let keys = vec![
            self.keys.peers.clone(),
            self.keys.seq.clone(),
            self.keys.generation.clone(),
            self.keys.clock.clone(),
        ];
        let before = self.clock.wall();
        let words = self.run_list(&self.scripts.heartbeat, keys, args).await?;
        let [fence, role, time, registration, company, names @ ..] = &words[..] else {
            return Err(unexpected_reply());
        };
        if **role != *b"master" {
            return Err(CallError::Connection("it is a replica now".to_owned()));
        }
        self.clock_there.set(time_from(time)?, before, &self.clock);
        let registration = match &**registration {
            b"known" => Registration::Known,
            b"new" => Registration::New,
            b"evicted" => Registration::Evicted,
            _ => Registration::Absent,
        };
        let (longest, mut names) = (longest_lease_from(names), peers_from(names));
        if registration == Registration::New {
            names.push(RegisteredPeer { peer, evicted: false });
        }
        Ok((
            HeartbeatReply {
                fence: String::from_utf8_lossy(fence).into(),
                registration,
                peers: names,
                is_mixed: **company != *b"alone",
            },
            longest,
        ))
    }

    /// Publishes a message on the bus.
    pub async fn publish(&self, message: &Message) -> Result<(), CallError> {
        self.client.publish(&self.keys.bus, message.to_bytes().into()).await
    }

    /// Sends a message to one sidecar, into its inbox.
    pub async fn tell(&self, to: Process, message: &Message) -> Result<(), CallError> {
        self.client.publish(&self.inbox(to), message.to_bytes().into()).await
    }

    /// Evicts a peer, and returns its marks: each mutation with its tags, and whether it keeps hits
    /// away.
    pub async fn evict(
        &self,
        peer: PeerId,
    ) -> Result<Vec<(OperationId, Vec<Tag>, bool)>, CallError> {
        let keys = vec![self.keys.peers.clone(), self.keys.marks(peer)];
        let words = self.run_list(&self.scripts.evict, keys, vec![peer.to_string().into()]).await?;
        let mark = |pair: &[Bytes]| {
            let id = u64::from_str_radix(std::str::from_utf8(&pair[0]).ok()?, 16).ok()?;
            let (guard, tags) = pair[1].split_first()?;
            Some((OperationId(id), serde_json::from_slice(tags).ok()?, *guard == b'b'))
        };
        Ok(words.chunks_exact(2).filter_map(mark).collect())
    }

    /// Forgets a peer and its marks. With a message: withdraws our own id, and publishes that.
    pub async fn forget(&self, peer: PeerId, message: Option<&Message>) -> Result<(), CallError> {
        let mut args = vec![peer.to_string().into()];
        args.extend(self.publish_args(message));
        self.client
            .run_patiently(
                &self.scripts.forget,
                vec![self.keys.peers.clone(), self.keys.marks(peer)],
                args,
            )
            .await
            .map(drop)
    }

    async fn run_list(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Vec<Bytes>, CallError> {
        self.client.run_patiently(script, keys, args).await.and_then(list_from)
    }
}
