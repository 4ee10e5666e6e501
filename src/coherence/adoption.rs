//! Purges what processes of this sidecar that have ended have left in their journals, while this
//! one serves. `journal_set` says which journals there are.

use std::fs;
use std::time::Duration;

use crate::coherence::journal_set::{left_in, others};
use crate::coherence::purge_kind::PurgeKind;
use crate::coherence::{Coherence, CoherenceMode};
use crate::policy::tag::Tag;

/// How often to look whether the process of a file has ended.
const ADOPT_INTERVAL: Duration = Duration::from_millis(200);

impl Coherence {
    /// Purges what processes that have ended have left in their journals, and removes these.
    /// Returns when there is none any more.
    pub async fn adopt_journals(&self) {
        let Some((first, own)) = self.journal_paths() else { return };
        loop {
            let others = others(&first, &own);
            if others.is_empty() {
                return;
            }
            for file in others {
                if let Some((opened, left)) = left_in(&file) {
                    let tags = left.tags.len();
                    tracing::info!(
                        path = %file.display(),
                        tags,
                        everything = left.everything,
                        "purging what an earlier process has left in its journal"
                    );
                    if left.everything {
                        self.purge_everything(PurgeKind::Hard).await;
                    }
                    self.purge(&left.tags).await;
                    let _ = fs::remove_file(&file);
                    drop(opened);
                }
            }
            tokio::time::sleep(ADOPT_INTERVAL).await;
        }
    }

    /// Treats mutations past their deadline as committed.
    pub async fn settle(&self, tags: &[Tag]) {
        if let (Some(shared), CoherenceMode::Shared) = (&self.records, self.mode()) {
            self.counters.orphans.inc();
            // Fail open: the entry is a miss whether or not this succeeds.
            let until = self.clock.now() + shared.client().settings().deadline;
            let _ = self.by(until, self.purge_on_behalf(shared, None, tags)).await;
        }
    }
}
