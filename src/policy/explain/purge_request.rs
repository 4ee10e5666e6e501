//! What a `PURGE` or `BAN` would purge, for `explain`. Who sends it is not asked.

use crate::policy::plan::{PolicyRules, RequestView};
use crate::policy::purge_request::{PurgeTarget, purge_target};

/// What it purges, one text for each; or why it is refused, with the status.
pub(super) fn purged_names(
    rules: &PolicyRules,
    view: &RequestView<'_>,
) -> Result<Vec<String>, String> {
    let host = rules.host(view.app, view.uri, view.headers);
    match purge_target(view.headers, &host, view.uri.path()) {
        Ok(PurgeTarget::Everything) => Ok(vec!["everything".to_owned()]),
        Ok(PurgeTarget::Path(tags) | PurgeTarget::Tags(tags)) => {
            Ok(tags.iter().map(|tag| tag.shown().to_owned()).collect())
        }
        Err(why) => Err(format!("{}: {}", why.status().as_u16(), why.as_str())),
    }
}
