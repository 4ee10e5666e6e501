//! What a response to an unsafe method invalidates beside the tags of its request.

use http::Uri;
use http::header::{CONTENT_LOCATION, HeaderMap, LOCATION};

use crate::policy::cache_groups;
use crate::policy::request_target;
use crate::policy::tag::Tag;
use crate::telemetry::log::LogText;

/// The URIs of the same origin that a response to an unsafe method names (RFC 9111 4.4). `host` is
/// the one of the request; entries are stored under `stored_under`, which the origin knows as well.
pub(super) fn named_targets(
    headers: &HeaderMap,
    host: &str,
    stored_under: &str,
    base: &Uri,
) -> Vec<Tag> {
    let lines = [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    lines
        .filter_map(|line| {
            same_origin_path(line, host, base)
                .or_else(|| same_origin_path(line, stored_under, base))
        })
        .map(|path| Tag::for_uri(stored_under, &path))
        .collect()
}

/// The groups that a response to an unsafe method invalidates (RFC 9875 3).
pub(super) fn named_groups(headers: &HeaderMap, host: &str) -> impl Iterator<Item = Tag> {
    let groups = cache_groups::groups(headers, &cache_groups::CACHE_GROUP_INVALIDATION)
        .inspect_err(|error| {
            let host = LogText(host);
            tracing::warn!(%error, %host, "a Cache-Group-Invalidation cannot be obeyed");
        });
    groups.unwrap_or_default().into_iter().map(move |group| cache_groups::tag(host, &group))
}

fn same_origin_path(reference: &str, host: &str, base: &Uri) -> Option<String> {
    // The scheme does not matter: http and https of one host serve the same data.
    let base = url::Url::parse(&format!("http://{host}{}", base.path())).ok()?;
    let target = base.join(reference).ok()?;
    (target.host_str() == base.host_str()).then(|| request_target::permissive_path(target.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_host_that_entries_are_stored_under() {
        let tags = |line| {
            let headers = HeaderMap::from_iter([(LOCATION, http::HeaderValue::from_static(line))]);
            named_targets(&headers, "localhost:8081", "app.test", &Uri::from_static("/a"))
        };
        let expected = [Tag::for_uri("app.test", "/b")];
        for line in ["/b", "http://localhost:8081/b", "https://app.test/b"] {
            assert_eq!(tags(line), expected, "{line}");
        }
        assert_eq!(tags("http://elsewhere/b"), []);
    }

    #[test]
    fn a_response_names_other_targets_of_its_own_origin() {
        let path = |line| same_origin_path(line, "app:8080", &Uri::from_static("/api/campaigns"));
        assert_eq!(path("/api/campaigns/7").as_deref(), Some("/api/campaigns/7"));
        assert_eq!(path("campaigns/7?x=1").as_deref(), Some("/api/campaigns/7"));
        assert_eq!(
            path("https://app/api/x").as_deref(),
            Some("/api/x"),
            "ports differ behind proxies"
        );
        assert_eq!(path("http://elsewhere/api/x"), None);
        assert_eq!(path("http://["), None);
    }
}
