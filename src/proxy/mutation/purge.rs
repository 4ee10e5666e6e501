//! Purges for a mutation: by the rules that it began under, by those in force when it ends, and
//! again after the times that they say.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::coherence::{PendingMutation, PurgeKind};
use crate::policy::tag::Tag;
use crate::proxy::hit::named;
use crate::proxy::mutation::answer::PurgedShare;
use crate::proxy::mutation::new_rules::{MutationContext, NewRulePurges};
use crate::proxy::resources::Resources;
use crate::telemetry::events::{EventKind, PurgeEvent, truncate};
use crate::telemetry::hot_tags::TagEvent;

/// Purges this share of the tags of a mutation that was, or may have been, committed; again after
/// these times.
pub(super) async fn purge(
    resources: &Resources,
    pending: PendingMutation,
    context: &MutationContext,
    share: &PurgedShare,
    repurge_after: &[Duration],
) {
    let coherence = &resources.coherence;
    resources.counters.purging.inc();
    let mut tags: Vec<Tag> =
        if repurge_after.is_empty() { Vec::new() } else { share.of(pending.tags()) };
    // Before it is committed: what is filled by still later rules is read after the mutation.
    let new_rule_purges = context.new_rule_purges(&share.of(pending.tags()));
    match share {
        PurgedShare::All => coherence.committed(pending).await,
        PurgedShare::Some(purged) => {
            // While the marks still stand, so that no fill comes between.
            coherence.purge(purged).await;
            coherence.refused(pending).await;
        }
    }
    match new_rule_purges {
        NewRulePurges::Nothing => {}
        NewRulePurges::Tags(more) => {
            coherence.purge(&more).await;
            tags.extend(more);
        }
        NewRulePurges::Everything => {
            coherence.purge_everything(PurgeKind::Hard).await;
        }
    }
    resources.late_purges.purge_after(&Handle::current(), &tags, repurge_after);
}

/// Shows operators that a mutation has purged.
pub(super) fn publish_purge(resources: &Resources, context: &MutationContext, tags: &[Tag]) {
    let names = || tags.iter().map(Tag::shown);
    resources.counters.purges.write.inc();
    resources.hot_tags.record(named(tags), TagEvent::Purged);
    let parts = &context.parts;
    let (method, path) = (Some(truncate(parts.method.as_str())), Some(truncate(parts.uri.path())));
    let purged =
        PurgeEvent { by: "write", method, path, ..PurgeEvent::default() }.with_tags(names());
    resources.events.publish(resources.clock.wall(), EventKind::Purge(purged));
}
