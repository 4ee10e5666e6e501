//! A fill that no request waits for any more: the cache still wants it, so it goes on, until
//! another request needs its place.

use tokio::sync::oneshot;

use crate::cache::fills::Leader;
use crate::proxy::fill::origin_response::{OriginResponse, revalidate_or_fetch};
use crate::proxy::fill::request::{FillRequest, FillResult};
use crate::proxy::resources::Resources;
use crate::upstream::UpstreamError;

/// The origin's response to a fill.
///
/// # Errors
/// When there is none; also when the fill was given up, because no request had waited for it for
/// as long as `listen.half_closed`, and another one needed its place.
pub(super) async fn fetch_while_wanted(
    resources: &Resources,
    request: &FillRequest,
    sender: &mut oneshot::Sender<FillResult>,
    leader: Option<&Leader>,
) -> Result<OriginResponse, UpstreamError> {
    let fetching = revalidate_or_fetch(resources, request);
    if request.departure.is_none() {
        return fetching.await;
    }
    tokio::select! {
        biased;
        result = fetching => result,
        () = until_given_up(request, sender, leader) => {
            resources.counters.fills_given_up.inc();
            Err(UpstreamError::GivenUp)
        }
    }
}

async fn until_given_up(
    request: &FillRequest,
    sender: &mut oneshot::Sender<FillResult>,
    leader: Option<&Leader>,
) {
    let Some(departure) = &request.departure else { return };
    sender.closed().await;
    loop {
        if let Some(leader) = leader {
            leader.until_no_followers().await;
        }
        tokio::time::sleep(request.config.settings.half_closed).await;
        if leader.is_some_and(Leader::has_followers) {
            continue;
        }
        departure.leave();
        departure.until_cut().await;
        if !leader.is_some_and(Leader::has_followers) {
            return;
        }
        departure.stay();
    }
}
