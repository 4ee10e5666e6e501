//! The paths of webhooks: requests to them are for a source, and the origin never gets them.

use std::sync::Arc;

use http::Method;

/// The path of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookPath {
    /// The path, exactly as it comes.
    pub path: Box<str>,
    /// The name of the source that gets the requests.
    pub source: Arc<str>,
}

/// The paths of all webhooks.
#[derive(Clone, Debug, Default)]
pub struct WebhookPaths(pub Box<[WebhookPath]>);

impl WebhookPaths {
    /// The source that gets a request: a POST to exactly this path, on any host. All others are for
    /// the origin.
    #[must_use]
    pub fn source_of(&self, method: &Method, path: &str) -> Option<&Arc<str>> {
        if self.0.is_empty() || *method != Method::POST {
            return None;
        }
        self.0.iter().find(|webhook| *webhook.path == *path).map(|webhook| &webhook.source)
    }
}
