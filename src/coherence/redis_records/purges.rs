//! Mutations and purges, as changes of records that are published in the same step.

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
    /// Marks tags as having a mutation under way, or moves its deadline. With a message, tells the
    /// others.
    pub async fn mark(
        &self,
        mark: (OperationId, PeerId),
        tags: &[Tag],
        within: Duration,
        guarded: bool,
        message: Option<&Message>,
    ) -> Result<Subscribers, CallError> {
        let (id, node) = mark;
        let guard = if guarded { "b" } else { "m" };
        let kept = [guard, &serde_json::to_string(tags).unwrap_or_default()].concat();
        let mut args = vec![
            id.to_string().into(),
            millis(within).to_string().into(),
            guard.into(),
            idle_ttl(),
            self.fence_bytes(),
            kept.into(),
        ];
        args.extend(self.publish_args(message));
        self.run_published(
            &self.scripts.mark,
            self.with_marks(Some(node), tags),
            with_nonces(args, tags),
        )
        .await
    }

    /// Gives tags new nonces, ends a pending mutation of them, and tells the others. For up to
    /// [`MAX_BATCH_TAGS`] tags.
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
        let keys = self.with_marks(mark.map(|(_, node)| node), tags);
        let told =
            self.client.run_replicated(&self.scripts.purge, keys, with_nonces(args, tags)).await;
        self.finish_purge(told, tags.iter().map(|tag| self.keys.tag(tag)), message).await
    }

    /// What became of a purge. Where Redis could not write what it was to, these keys are deleted
    /// instead, and the others told: a hard purge, whatever it was.
    async fn finish_purge(
        &self,
        told: Result<ScriptReply, CallError>,
        purged: impl Iterator<Item = Bytes>,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        match told.and_then(subscribers_from) {
            Err(CallError::Moving) => {
                // Key by key, wherever each of them is; who there is to hear it is known from what
                // was heard.
                self.client.unlink(purged.chain([self.keys.seq.clone()]).collect()).await?;
                self.publish(message).await.map(|()| Subscribers::default())
            }
            Err(CallError::OutOfMemory) => {
                let keys = [self.keys.seq.clone(), self.keys.nodes.clone()]
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
            told => told,
        }
    }

    /// Ends a pending mutation that changed nothing. For up to [`MAX_BATCH_TAGS`] tags.
    pub async fn unmark(
        &self,
        (id, node): (OperationId, PeerId),
        tags: &[Tag],
    ) -> Result<(), CallError> {
        let args = vec![id.to_string().into(), idle_ttl(), self.fence_bytes()];
        self.client
            .run(&self.scripts.unmark, self.with_marks(Some(node), tags), args)
            .await
            .map(drop)
    }

    /// Empties the cache logically, for every sidecar, or makes all of it stale.
    pub async fn purge_everything(
        &self,
        kind: PurgeKind,
        message: &Message,
    ) -> Result<Subscribers, CallError> {
        let mut args = self.publish_args(Some(message)).to_vec();
        args.extend([kind.as_str().into(), Nonce::random().to_hex().into()]);
        let keys =
            vec![self.keys.seq.clone(), self.keys.generation.clone(), self.keys.nodes.clone()];
        let told = self.client.run_replicated(&self.scripts.purge_all, keys, args).await;
        self.finish_purge(told, std::iter::once(self.keys.generation.clone()), message).await
    }

    async fn run_published(
        &self,
        script: &Script,
        keys: Vec<Bytes>,
        args: Vec<Bytes>,
    ) -> Result<Subscribers, CallError> {
        self.client.run(script, keys, args).await.and_then(subscribers_from)
    }

    fn with_marks(&self, node: Option<PeerId>, tags: &[Tag]) -> Vec<Bytes> {
        let marks = node.map_or_else(|| self.keys.seq.clone(), |node| self.keys.marks(node));
        let head = [self.keys.seq.clone(), self.keys.nodes.clone(), marks];
        head.into_iter().chain(tags.iter().map(|tag| self.keys.tag(tag))).collect()
    }
}
