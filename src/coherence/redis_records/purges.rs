//! Marks and purges: changes of tag records that are published in the same step.

use std::time::Duration;

use bytes::Bytes;

use super::replies::subscribers_from;
use super::{RecordStore, idle_ttl, with_nonces};
use crate::clock::millis;
use crate::coherence::core::Subscribers;
use crate::coherence::message::{Message, OperationId, PeerId};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::stamp::Nonce;
use crate::policy::tag::Tag;
use crate::redis::{CallError, Script, ScriptReply};

impl RecordStore {
    /// Marks tags for a mutation in progress, or extends its deadline. With a message, publishes
    /// it.
    pub async fn mark(
        &self,
        mark: (OperationId, PeerId),
        tags: &[Tag],
        within: Duration,
        guarded: bool,
        message: Option<&Message>,
    ) -> Result<Subscribers, CallError> {
        let (id, peer) = mark;
        let guard = if guarded { "b" } else { "m" };
        let mark_value = [guard, &serde_json::to_string(tags).unwrap_or_default()].concat();
        let mut args = vec![
            id.to_string().into(),
            millis(within).to_string().into(),
            guard.into(),
            idle_ttl(),
            self.fence_bytes(),
            mark_value.into(),
        ];
        args.extend(self.publish_args(message));
        self.run_published(
            &self.scripts.mark,
            self.with_marks(Some(peer), tags),
            with_nonces(args, tags),
        )
        .await
    }

    /// Gives tags new nonces, ends a pending mutation of them, and publishes the message. For up to
    /// [`MAX_BATCH_TAGS`](super::MAX_BATCH_TAGS) tags.
    pub async fn purge(
        &self,
        mark: Option<(OperationId, PeerId)>,
        tags: &[Tag],
        kind: PurgeKind,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        let id = mark.map(|(id, _)| id.to_string()).unwrap_or_default();
        let mut args = vec![id.into(), idle_ttl(), self.fence_bytes()];
        args.extend(self.publish_args(Some(message)));
        args.push(kind.as_str().into());
        let keys = self.with_marks(mark.map(|(_, peer)| peer), tags);
        let result =
            self.client.run_replicated(&self.scripts.purge, keys, with_nonces(args, tags)).await;
        self.finish_purge(result, tags.iter().map(|tag| self.keys.tag(tag)), message).await
    }

    /// Completes a purge. If Redis could not write, deletes these keys instead and publishes the
    /// message: this is a hard purge in any case.
    async fn finish_purge(
        &self,
        result: Result<ScriptReply, CallError>,
        purged: impl Iterator<Item = Bytes>,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        match result.and_then(subscribers_from) {
            Err(CallError::Moving) => {
                // Key by key, wherever each of them is. Peers that sent heartbeats recently are
                // known without a reply.
                self.client.unlink(purged.chain([self.keys.seq.clone()]).collect()).await?;
                self.publish(message).await.map(|()| Subscribers::default())
            }
            Err(CallError::OutOfMemory) => {
                let keys = [self.keys.seq.clone(), self.keys.peers.clone()]
                    .into_iter()
                    .chain(purged)
                    .collect();
                self.run_published(
                    &self.scripts.purge_oom,
                    keys,
                    self.publish_args(Some(message)).to_vec(),
                )
                .await
            }
            result => result,
        }
    }

    /// Ends a pending mutation that changed nothing. For up to
    /// [`MAX_BATCH_TAGS`](super::MAX_BATCH_TAGS) tags.
    pub async fn unmark(
        &self,
        (id, peer): (OperationId, PeerId),
        tags: &[Tag],
    ) -> Result<(), CallError> {
        let args = vec![id.to_string().into(), idle_ttl(), self.fence_bytes()];
        self.client
            .run_patiently(&self.scripts.unmark, self.with_marks(Some(peer), tags), args)
            .await
            .map(drop)
    }

    /// Makes all entries of all sidecars invalid, or stale.
    pub async fn purge_everything(
        &self,
        kind: PurgeKind,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        let mut args = self.publish_args(Some(message)).to_vec();
        args.extend([kind.as_str().into(), Nonce::random().to_hex().into()]);
        let keys =
            vec![self.keys.seq.clone(), self.keys.generation.clone(), self.keys.peers.clone()];
        let result = self.client.run_replicated(&self.scripts.purge_all, keys, args).await;
        self.finish_purge(result, std::iter::once(self.keys.generation.clone()), message).await
    }

    async fn run_published(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Subscribers, CallError> {
        self.client.run_patiently(script, keys, args).await.and_then(subscribers_from)
    }

    fn with_marks(&self, peer: Option<PeerId>, tags: &[Tag]) -> Vec<Bytes> {
        let marks = peer.map_or_else(|| self.keys.seq.clone(), |peer| self.keys.marks(peer));
        let head = [self.keys.seq.clone(), self.keys.peers.clone(), marks];
        head.into_iter().chain(tags.iter().map(|tag| self.keys.tag(tag))).collect()
    }
}
