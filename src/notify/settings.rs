//! The settings of a notification: who is told of purges, and how.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::surrogate::SurrogateHeader;
use crate::policy::webhook_signature::WebhookKey;
use crate::secret::Secret;
use crate::upstream::UrlSource;

/// How many of them a file may have.
pub const MAX_NOTIFY: usize = 8;

/// Who is told of purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifySettings {
    /// What it is called in logs and metrics. No other one is called so.
    pub name: Arc<str>,
    /// Who it is.
    pub kind: NotifyKind,
    /// Where it is: the whole URL of a webhook, the base of an API.
    pub url: UrlSource,
    /// How long purges are gathered.
    pub gather: Duration,
    /// Whether everything is purged there at the start of the sidecar.
    pub at_start: bool,
    /// The header in which responses name their tags for it.
    pub header: Option<SurrogateHeader>,
}

/// Who is told, and what only this kind needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// A webhook that is signed as Standard Webhooks are.
    Webhook {
        /// What it is signed with.
        key: WebhookKey,
    },
    /// The API of Cloudflare.
    Cloudflare {
        /// The zone.
        zone: Box<str>,
        /// The token.
        token: Secret,
    },
    /// The API of Fastly.
    Fastly {
        /// The service.
        service: Box<str>,
        /// The token.
        token: Secret,
        /// Whether tags are purged softly there.
        soft: bool,
    },
}

impl NotifyKind {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Cloudflare { .. } => "cloudflare",
            Self::Fastly { .. } => "fastly",
        }
    }

    /// How many tags one request may name. Cloudflare: 100 operations, see
    /// <https://developers.cloudflare.com/cache/how-to/purge-cache/>; Fastly: 256 keys, see
    /// <https://www.fastly.com/documentation/reference/api/purging/>.
    #[must_use]
    pub const fn max_tags(&self) -> usize {
        match self {
            Self::Cloudflare { .. } => 100,
            Self::Fastly { .. } => 256,
            Self::Webhook { .. } => 1000,
        }
    }
}
