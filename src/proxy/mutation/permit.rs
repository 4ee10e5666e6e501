//! The place of a mutation among those in flight.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::proxy::resources::Resources;

/// A permit for a mutation; `None` if too many are in flight.
pub(super) fn take_permit(resources: &Resources) -> Option<OwnedSemaphorePermit> {
    let permit = Arc::clone(&resources.mutation_permits).try_acquire_owned().ok();
    if permit.is_none() {
        resources.counters.mutations_rejected.inc();
    }
    permit
}
