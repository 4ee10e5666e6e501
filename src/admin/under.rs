//! Purges of folders by the admin API.

use url::Url;

use super::response::ApiError;
use crate::policy::apps::Apps;
use crate::policy::folder::Folder;
use crate::policy::plan::PolicyRules;
use crate::policy::tag::Tag;

/// The tags of the folder that a URL names, one for each spelling of its host.
pub(super) fn tags_of_folder(text: &str, rules: &PolicyRules) -> Result<Vec<Tag>, ApiError> {
    const FORM: &str = "write it with the host that clients use, as in \
                        http://app.example.com/api/v1/reports/";
    let refused = || ApiError::bad_request(format!("{text:?} is not the URL of a folder"), FORM);
    let url = Url::parse(text).map_err(|_| refused())?;
    let host =
        url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")).ok_or_else(refused)?;
    // The text as it was sent: the parser resolves and escapes.
    let path = text.split_once("://").map(|(_, rest)| rest.trim_start_matches(|c| c != '/'));
    let folder = Folder::parse(path.unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.what, &error.hint))?;
    if !rules.routes.iter().any(|route| route.folders.covers(&folder)) {
        let what = format!("no entry carries the folder {:?}", folder.as_str());
        let hint = "write folders = true in [tags], or `under` in a purge rule: entries that are \
                    stored from then on carry it; until then purge by tag, by URL, or everything";
        return Err(ApiError::bad_request(what, hint));
    }
    let hosts = hosts_of_url(&url, host, &rules.apps);
    Ok(hosts.iter().map(|host| folder.tag(host)).collect())
}

/// Each spelling of the host of a URL that entries may be stored under.
pub(super) fn hosts_of_url(url: &Url, host: &str, apps: &Apps) -> Vec<String> {
    let mut hosts =
        vec![url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))];
    if url.port().is_none() {
        // Some clients send the default port.
        hosts.extend(url.port_or_known_default().map(|port| format!("{host}:{port}")));
    }
    let app = apps.get(apps.of_host(host));
    hosts.extend(app.host_key.as_deref().map(str::to_owned));
    hosts
}
