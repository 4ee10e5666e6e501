//! Purges that go beyond what a write asks for: on behalf of sidecars that died or left a journal,
//! and for those that speak another protocol and may call the tags otherwise.

use crate::coherence::Coherence;
use crate::coherence::core::Released;
use crate::coherence::message::{OperationId, PeerId};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::redis_records::{MAX_BATCH_TAGS, RecordStore};
use crate::policy::tag::Tag;
use crate::redis::CallError;

/// Why nothing is cached while sidecars of several protocols share a namespace.
const OTHER_PROTOCOL: &str = "a sidecar of another version, which speaks another protocol, uses \
                              the same namespace in redis: nothing is cached here until it is gone";

impl Coherence {
    /// Why nothing is cached while sidecars of several protocols share the namespace.
    pub(super) fn other_protocol() -> String {
        OTHER_PROTOCOL.to_owned()
    }

    /// Tells that a sidecar of another protocol was met.
    pub(super) fn tell_other_protocol(&self) {
        self.counters.other_protocols.inc();
        tracing::warn!("{OTHER_PROTOCOL}");
    }

    /// Whether a sidecar that speaks another protocol shares the namespace: nothing is served or
    /// stored by what Redis says.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.core().core.is_mixed()
    }

    /// Purges everything after a purge of tags, if sidecars are there that may call them otherwise.
    pub(super) async fn purge_for_other_protocols(
        &self,
        shared: &RecordStore,
        kind: PurgeKind,
    ) -> Released {
        if self.is_mixed() {
            self.purge_batch(shared, None, None, kind).await
        } else {
            Released::Acknowledged
        }
    }

    /// Purges tags on behalf of another sidecar: no response waits for it.
    pub(super) async fn purge_on_behalf(
        &self,
        shared: &RecordStore,
        mark: Option<(OperationId, PeerId)>,
        tags: &[Tag],
    ) -> Result<(), CallError> {
        self.table.purge(tags);
        for batch in tags.chunks(MAX_BATCH_TAGS) {
            drop(
                self.publish_with(Some(batch), async |message| {
                    shared.purge(mark, batch, PurgeKind::Hard, &message).await
                })
                .await?,
            );
            self.table.purge(batch);
        }
        self.purge_observer.told(Some(tags));
        if self.is_mixed() {
            self.purge_everything_on_behalf(shared).await?;
        }
        Ok(())
    }

    /// Purges everything on behalf of another sidecar.
    pub(super) async fn purge_everything_on_behalf(
        &self,
        shared: &RecordStore,
    ) -> Result<(), CallError> {
        drop(
            self.publish_with(None, async |message| {
                shared.purge_everything(PurgeKind::Hard, &message).await
            })
            .await?,
        );
        self.table.purge_everything();
        self.purge_observer.told(None);
        Ok(())
    }
}
