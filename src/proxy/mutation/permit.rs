//! The place of a mutation among those in flight.

use std::sync::{Arc, Weak};

use crate::proxy::resources::Resources;
use crate::shares::{FairPermit, PauseWatch, PermitHolder, Requester};

/// A permit for a mutation, for which it may have to wait; `None` if too many are in flight.
pub(super) async fn take_permit(
    resources: &Resources,
    requester: &Requester,
) -> Option<FairPermit> {
    let Ok(permit) = resources.mutation_permits.acquire(requester.peer).await else {
        resources.counters.mutations_rejected.inc();
        return None;
    };
    if let Some(upload) = &requester.upload {
        let holder: Weak<dyn PermitHolder> = Arc::<PauseWatch>::downgrade(upload);
        permit.watch(holder);
    }
    Some(permit)
}
