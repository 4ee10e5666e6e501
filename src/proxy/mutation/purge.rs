//! Purges for a mutation: by the rules that it began under, by those in force when it ends, and
//! again after the times that they say.

use std::sync::Arc;
use std::time::Duration;

use crate::coherence::{PendingMutation, PurgeKind};
use crate::policy::tag::Tag;
use crate::proxy::mutation::new_rules::{MutationContext, NewRulePurges};
use crate::proxy::resources::Resources;
use crate::telemetry::events::{EventKind, PurgeEvent, truncate};
use crate::telemetry::hot_tags::TagEvent;

/// Purges the tags of a mutation that was, or may have been, committed; again after these times.
pub(super) async fn purge(
    resources: &Resources,
    pending: PendingMutation,
    context: &MutationContext,
    repurge_after: &[Duration],
) {
    let coherence = &resources.coherence;
    resources.counters.purging.inc();
    let mut tags: Vec<Tag> =
        if repurge_after.is_empty() { Vec::new() } else { pending.tags().to_vec() };
    // Before it is committed: what is filled by still later rules is read after the mutation.
    let new_rule_purges = context.new_rule_purges(pending.tags());
    coherence.committed(pending).await;
    match new_rule_purges {
        NewRulePurges::Nothing => {}
        NewRulePurges::Tags(more) => {
            coherence.purge(&more).await;
            tags.extend(more);
        }
        NewRulePurges::Everything => coherence.purge_everything(PurgeKind::Hard).await,
    }
    for &after in repurge_after {
        let (coherence, tags) = (Arc::clone(coherence), tags.clone());
        // Not tracked: a drain does not wait for it. The purge itself has been made; a repeat that
        // ends with the process is lost.
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            coherence.purge(&tags).await;
        });
    }
}

/// Shows operators that a mutation has purged.
pub(super) fn publish_purge(resources: &Resources, context: &MutationContext, tags: &[Tag]) {
    let names = || tags.iter().map(Tag::as_str);
    resources.counters.purges.write.inc();
    resources.hot_tags.record(names(), TagEvent::Purged);
    let parts = &context.parts;
    let (method, path) = (Some(truncate(parts.method.as_str())), Some(truncate(parts.uri.path())));
    let purged =
        PurgeEvent { by: "write", method, path, ..PurgeEvent::default() }.with_tags(names());
    resources.events.publish(resources.clock.wall(), EventKind::Purge(purged));
}
