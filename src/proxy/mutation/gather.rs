//! The purge for a mutation whose outcome is unknown and whose client has no answer. It is made
//! once the origin can have committed, and covers all such mutations of the same tags.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::coherence::{HitGuard, PendingMutation};
use crate::proxy::mutation::answer::PurgedShare;
use crate::proxy::mutation::new_rules::MutationContext;
use crate::proxy::mutation::purge::{publish_purge, purge};
use crate::proxy::resources::Resources;
use crate::proxy::unknown_outcomes::OwnPurge;
use crate::shadow::mutations::TrackedMutation;
use crate::shares::FairPermit;

/// A mutation that was, or may have been, sent.
pub(super) struct UnknownOutcome<'a> {
    pub(super) pending: PendingMutation,
    pub(super) context: &'a MutationContext,
    pub(super) repurge_after: &'a [Duration],
    pub(super) tracked: TrackedMutation,
    pub(super) permit: FairPermit,
}

impl UnknownOutcome<'_> {
    /// Purges at once, before anybody is answered.
    pub(super) async fn purge(self, resources: &Resources) {
        let Self { pending, context, repurge_after, tracked, permit: _permit } = self;
        Box::pin(purge_unknown(resources, pending, context, repurge_after, tracked)).await;
    }
}

async fn purge_unknown(
    resources: &Resources,
    pending: PendingMutation,
    context: &MutationContext,
    repurge_after: &[Duration],
    tracked: TrackedMutation,
) {
    let mut purged = pending.tags().to_vec();
    // What its caller was given may be about what it has changed.
    let mut callers = context.config.rules.caller_purges(&context.parts.headers, None);
    callers.retain(|tag| !purged.contains(tag));
    if !callers.is_empty() {
        resources.coherence.purge(&callers).await;
        purged.extend(callers);
    }
    purge(resources, pending, context, &PurgedShare::All, repurge_after).await;
    tracked.ended(resources.clock.wall());
    publish_purge(resources, context, &purged);
}

/// Returns when each tag was purged. If the client has left for good, it may return earlier: then a
/// purge for another mutation follows.
pub(super) async fn gather<T>(
    resources: &Arc<Resources>,
    outcome: UnknownOutcome<'_>,
    sender: &mut oneshot::Sender<T>,
) {
    let (now, settings) = (resources.clock.now(), &outcome.context.config.settings);
    let mut tags = outcome.pending.tags().to_vec();
    tags.extend(outcome.context.config.rules.caller_purges(&outcome.context.parts.headers, None));
    let Some(plan) = resources.unknown_outcomes.plan(&tags, now, settings.gather) else {
        return Box::pin(outcome.purge(resources)).await;
    };
    let UnknownOutcome { pending, context, repurge_after, tracked, permit } = outcome;
    match plan.own {
        None => {
            drop(permit);
            tracked.refused();
            resources.coherence.refused(pending).await;
        }
        Some(OwnPurge { tags, earliest, due, made }) => {
            let within = settings.mark_for + due.saturating_duration_since(now);
            // Another mark takes the place of the first one: of these tags alone, for as long as it
            // takes, and hits go on.
            let marked = resources.coherence.mark(tags, HitGuard::Never, within).await;
            let pending = match marked {
                Ok(narrow) => {
                    resources.coherence.refused(pending).await;
                    narrow
                }
                // Redis is lost: this sidecar's own purge goes into the journal.
                Err(_) => pending,
            };
            drop(permit);
            sleep_until(resources, earliest, due).await;
            let purging = purge_unknown(resources, pending, context, repurge_after, tracked);
            Box::pin(purging).await;
            drop(made);
        }
    }
    for made in plan.others {
        tokio::select! {
            () = made.cancelled() => {}
            () = sender.closed() => return,
        }
    }
}

/// Sleeps until a purge is due. A process that is about to end makes it as soon as it may.
async fn sleep_until(resources: &Resources, earliest: Instant, due: Instant) {
    let left = |until: Instant| until.saturating_duration_since(resources.clock.now());
    tokio::select! {
        () = tokio::time::sleep(left(due)) => {}
        () = resources.leaving.cancelled() => tokio::time::sleep(left(earliest)).await,
    }
}
