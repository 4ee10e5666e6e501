//! The settings of a source: what it listens to, and which tags it may name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::webhook::settings::WebhookSettings;
use crate::policy::template::Template;
use crate::redis::RedisSettings;
use crate::secret::Secret;
use crate::upstream::UrlSource;

/// How many sources a file may have.
pub const MAX_SOURCES: usize = 16;

/// How many templates a source may have.
pub const MAX_TEMPLATES: usize = 32;

/// The longest name of a channel, in bytes: PostgreSQL cuts longer ones.
pub const MAX_CHANNEL: usize = 63;

/// A source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// What it is called in logs and metrics. No other source is called so.
    pub name: Arc<str>,
    /// What it listens to.
    pub kind: SourceKind,
    /// The tags that it may name.
    pub tags: Arc<[Template]>,
    /// How long entries with such a tag may be served while it is deaf.
    pub degraded_ttl: Duration,
}

/// What a source listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Notifications of a PostgreSQL.
    Postgres(PostgresSettings),
    /// A table of a MySQL or MariaDB.
    Mysql(MysqlSettings),
    /// A stream of Redis.
    RedisStream(Box<StreamSettings>),
    /// A URL that is fetched now and then.
    Poll(PollSettings),
    /// A file that is looked at now and then.
    File(FileSettings),
    /// Webhooks that a service sends.
    Webhook(Box<WebhookSettings>),
}

/// Where a PostgreSQL is, and what is listened to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSettings {
    /// The URL, in the form that `postgres::parse` accepts.
    pub url: Secret,
    /// The channel that triggers notify.
    pub channel: Box<str>,
    /// A PEM file of the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a MySQL or MariaDB is, and what is read there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlSettings {
    /// The URL, in the form that `MysqlUrl` accepts.
    pub url: Secret,
    /// The table, after its database and a dot where that is another one.
    pub table: Box<str>,
    /// How often it is read.
    pub every: Duration,
    /// How long a transaction of another server may take.
    pub max_transaction: Duration,
    /// A PEM file of the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a Redis is, and what is read there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// The Redis.
    pub redis: RedisSettings,
    /// The key of the stream.
    pub stream: Box<str>,
}

/// A URL, and what of its answer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollSettings {
    /// Where to fetch.
    pub url: UrlSource,
    /// How often.
    pub every: Duration,
    /// The place in the JSON of the answer; none for its `ETag`, or its body.
    pub pointer: Option<Box<str>>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// Its path.
    pub path: PathBuf,
    /// How often it is looked at.
    pub every: Duration,
}

impl SourceKind {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::RedisStream(_) => "redis-stream",
            Self::Poll(_) => "poll",
            Self::File(_) => "file",
            Self::Webhook(_) => "webhook",
        }
    }
}

impl SourceSettings {
    /// The path to which its webhooks are sent, if it receives any.
    #[must_use]
    pub fn webhook_path(&self) -> Option<&str> {
        match &self.kind {
            SourceKind::Webhook(settings) => Some(&settings.path),
            _ => None,
        }
    }

    /// Whether a source with these settings need not begin anew for those.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let texts = |settings: &Self| -> Vec<String> {
            let texts = settings.tags.iter().map(|tag| tag.as_str().to_owned());
            let fields = settings.tags.iter().flat_map(Template::fields);
            texts.chain(fields.map(|field| format!("{:?}", field.source))).collect()
        };
        self.name == other.name
            && self.kind == other.kind
            && self.degraded_ttl == other.degraded_ttl
            && texts(self) == texts(other)
    }
}
