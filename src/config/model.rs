//! The compiled configuration: the settings of all parts. They are valid by construction.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::diagnostics::diagnostic::{Diagnostic, Severity};
use super::include::{FileTexts, IncludedFile};
use crate::admin;
use crate::cache::snapshot::SnapshotSettings;
use crate::cache::store;
use crate::notify::NotifySettings;
use crate::policy::apps::{AppHosts, AppRules, Apps};
use crate::policy::credential::CredentialRule;
use crate::policy::field::FieldSource;
use crate::policy::fill_constants::FillConstants;
use crate::policy::fronts::Fronts;
use crate::policy::identity::IdentitySettings;
use crate::policy::jwt::{TokenRules, VerifyKey};
use crate::policy::purge_request::PurgeRequestRule;
use crate::policy::purge_rule::{PurgeRule, PurgeRules};
use crate::policy::route;
use crate::policy::webhook_path::{WebhookPath, WebhookPaths};
use crate::proxy::DebugHeaders;
use crate::redis;
use crate::server;
use crate::sources::SourceSettings;
use crate::telemetry::log;
use crate::telemetry::trace::TraceSettings;
use crate::upstream;

/// All settings of a sidecar.
pub struct Config {
    /// Where clients connect.
    pub server: server::ServerSettings,
    /// The origin.
    pub upstream: upstream::UpstreamSettings,
    /// The host that all requests count for, if one is named.
    pub host_key: Option<Box<str>>,
    /// The apps beside that of the origin, by their places.
    pub apps: Box<[AppSettings]>,
    /// Which hosts are of which app.
    pub app_hosts: Arc<AppHosts>,
    /// The admin listener.
    pub admin: admin::AdminSettings,
    /// The memory tier.
    pub memory: store::memory::MemorySettings,
    /// The file in which the memory tier outlives the process, if there is one.
    pub snapshot: Option<SnapshotSettings>,
    /// The Redis tier, if there is one.
    pub redis: Option<redis::RedisSettings>,
    /// The log.
    pub log: log::LogSettings,
    /// Where spans of requests go, if anywhere.
    pub trace: Option<TraceSettings>,
    /// Limits.
    pub limits: ConfigLimits,
    /// The routes.
    pub routes: route::Routes,
    /// The purge rules.
    pub purges: PurgeRules,
    /// What identifies a caller.
    pub credential: Arc<CredentialRule>,
    /// Who may send `PURGE` and `BAN`; none where the app gets them.
    pub purge_requests: Option<PurgeRequestRule>,
    /// What tells of changes that no request tells.
    pub sources: Vec<SourceSettings>,
    /// Who is told of purges.
    pub notify: Vec<NotifySettings>,
    /// How tokens are verified, if they are.
    pub jwt: Option<JwtSettings>,
    /// How the app is asked who a caller is, if it is.
    pub identity: Option<IdentitySettings>,
    /// How the origin's responses are read.
    pub response_rules: Arc<route::ResponseRules>,
    /// Headers that help to find out why.
    pub debug: DebugHeaders,
    /// The switch for all routes. The mode of each route already includes it.
    pub mode: route::RouteMode,
    /// What stands in front of the sidecar.
    pub fronts: Fronts,
    /// How often the file is checked for changes; none if never.
    pub watch: Option<Duration>,
    /// The file, if the config was read from one.
    pub file: Option<PathBuf>,
    /// Its text.
    pub text: Arc<str>,
    /// The files that it includes.
    pub included: Arc<[IncludedFile]>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// The texts of the file and of those that it includes.
    #[must_use]
    pub fn texts(&self) -> FileTexts {
        FileTexts { main: Arc::clone(&self.text), included: Arc::clone(&self.included) }
    }

    /// The paths of the webhooks, and their sources.
    #[must_use]
    pub fn webhook_paths(&self) -> WebhookPaths {
        let paths = self.sources.iter().filter_map(|source| {
            let path = source.webhook_path()?.into();
            Some(WebhookPath { path, source: Arc::clone(&source.name) })
        });
        WebhookPaths(paths.collect())
    }

    /// Logs the warnings and notes.
    pub fn log_warnings(&self) {
        for Diagnostic { severity, file, line, message, .. } in &self.warnings {
            match severity {
                Severity::Error | Severity::Warning => tracing::warn!(%file, line, "{message}"),
                Severity::Note => tracing::info!(%file, line, "{message}"),
            }
        }
    }

    /// The claims that fields of rules read, in order.
    #[must_use]
    pub fn claim_pointers(&self) -> Box<[Arc<str>]> {
        let keyed = self.routes.iter().flat_map(|route| {
            let signed_in =
                route.guests.as_ref().and_then(|guests| guests.signed_in.field.as_ref());
            route.fields.iter().chain(signed_in)
        });
        let purged = self.purges.iter().flat_map(PurgeRule::fields);
        let mut pointers: Vec<Arc<str>> = keyed
            .chain(purged)
            .filter_map(|field| match &field.source {
                FieldSource::Jwt(field) => Some(Arc::clone(&field.pointer)),
                _ => None,
            })
            .collect();
        pointers.sort();
        pointers.dedup();
        pointers.into()
    }

    /// The places in the app's answers about callers that fields of routes read, in order.
    #[must_use]
    pub fn identity_pointers(&self) -> Box<[Arc<str>]> {
        let keyed = self.routes.iter().flat_map(|route| route.fields.iter());
        let mut pointers: Vec<Arc<str>> = keyed
            .filter_map(|field| field.identity())
            .map(|field| Arc::clone(&field.pointer))
            .collect();
        pointers.sort();
        pointers.dedup();
        pointers.into()
    }

    /// The apps, as the rules know them.
    #[must_use]
    pub fn app_rules(&self) -> Apps {
        self.app_rules_with(|_| None)
    }

    /// The same; `origin` says, by the name of an app, which origin has come in the place of its
    /// first one.
    #[must_use]
    pub fn app_rules_with(&self, origin: impl Fn(Option<&str>) -> Option<[u8; 8]>) -> Apps {
        let first = AppRules {
            name: None,
            fill: fill_constants(&self.upstream),
            host_key: self.host_key.clone(),
            origin: origin(None),
        };
        let listed = self.apps.iter().map(|app| AppRules {
            name: Some(Arc::clone(&app.name)),
            fill: fill_constants(&app.upstream),
            host_key: app.host_key.clone(),
            origin: origin(Some(&app.name)),
        });
        Apps::new(Arc::clone(&self.app_hosts), first, listed.collect())
    }
}

/// What the requests of all fills of an app have in common.
#[must_use]
pub fn fill_constants(upstream: &upstream::UpstreamSettings) -> FillConstants {
    let host = match upstream.host {
        upstream::HostHeader::Preserve => None,
        upstream::HostHeader::Upstream => HeaderValue::from_str(&upstream.target.authority).ok(),
    };
    FillConstants { user_agent: upstream.user_agent.clone(), host, via: upstream.via }
}

/// An app of `[[apps]]`.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Its origin.
    pub upstream: upstream::UpstreamSettings,
    /// The host that all its requests count for, if one is named.
    pub host_key: Option<Box<str>>,
}

/// `[jwt]`, compiled.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// What a token must have.
    pub rules: TokenRules,
    /// The keys of files.
    pub fixed: Vec<VerifyKey>,
    /// Where further keys are fetched, if they are.
    pub source: Option<upstream::UrlSource>,
    /// How often they are fetched.
    pub refresh: Duration,
    /// How long they hold when they cannot be fetched again.
    pub keep: Duration,
}

/// Limits on memory and work that requests and responses can cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLimits {
    /// The largest response that is stored, in bytes.
    pub object: u64,
    /// How many tags an entry may have.
    pub tags: usize,
    /// The longest canonical key, in bytes.
    pub key: u64,
    /// The longest request body that is a part of a key, in bytes.
    pub read_body: u64,
    /// The longest request body that purge rules read, in bytes.
    pub purge_body: u64,
    /// The longest response body that tags are read from, in bytes.
    pub tag_body: u64,
    /// How many bytes the bodies that are read before their requests are forwarded may take.
    pub uploads: u64,
    /// How long a client may take for the body of a mutation of a path that rules know.
    pub upload_time: Duration,
    /// The least time between two purges of a tag for mutations that their clients broke off.
    pub gather: Duration,
    /// How many authorized clients are remembered.
    pub authorized_clients: usize,
    /// How many bytes the bodies of all fills in progress may take.
    pub fills: u64,
    /// How many requests may wait for fills, all together.
    pub waiters: usize,
    /// How long a request may wait for a fill.
    pub wait: Duration,
    /// How many mutations may be in progress at once.
    pub mutations: usize,
    /// How long a client may pause while clients of another address wait for what it holds.
    pub stall: Duration,
    /// How many variants one key may have.
    pub variants: usize,
    /// How long a stale entry is kept.
    pub stale: Duration,
    /// How many ranges a request may ask for.
    pub ranges: usize,
    /// The largest response that is fetched whole when a request asks for a part of it, in bytes.
    pub range_fill: u64,
    /// How many bytes may be fetched for the sake of parts, for each byte of parts that a peer
    /// received.
    pub range_factor: u64,
    /// How many background refreshes may run at once.
    pub refreshes: usize,
    /// How many keys routes in shadow mode remember.
    pub shadow_keys: usize,
    /// How many connections to the origin may belong to one client each.
    pub pinned: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: settings hold secrets, so most of them are never printed.
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .field("warnings", &self.warnings.len())
            .finish_non_exhaustive()
    }
}
