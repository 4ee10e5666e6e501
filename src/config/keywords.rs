//! The words of `proxy.toml`: each choice between words, and the value of each word in the running
//! program.

use super::decode::words;
use crate::policy::fronts::Front;
use crate::policy::jwt::Algorithm;
use crate::policy::purge_rule::{MutationGuard, PurgeOn};
use crate::policy::query_rule::QueryOrder;
use crate::policy::route::{
    AdmitRule, ClientCacheControl, Collapse, EncodedSlash, PathCase, RouteMode, UnknownHeaders,
    VaryCookie,
};
use crate::policy::scope::Scope;
use crate::policy::webhook_signature::SignatureEncoding;
use crate::policy::webhook_signature::presets::SignaturePreset;
use crate::redis::{OnLoss, WritePolicy};
use crate::semantics::content_coding::Coding;
use crate::semantics::storability::OriginRule;
use crate::telemetry::log::LogFormat;
use crate::upstream::HostHeader;

words! {
    /// Which `Host` the origin gets.
    HostWord -> HostHeader, "a choice of host" {
        "preserve" => HostHeader::Preserve, "upstream" => HostHeader::Upstream,
    }
}

words! {
    /// Whether the order of query parameters counts.
    OrderWord -> QueryOrder, "a choice of order" {
        "keep" => QueryOrder::Keep, "ignore" => QueryOrder::Ignore,
    }
}

words! {
    /// What stands in front of the sidecar.
    FrontWord -> Front, "a front" {
        "aws-alb" => Front::AwsAlb,
        "azure" => Front::Azure,
        "cloudflare" => Front::Cloudflare,
        "envoy" => Front::Envoy,
        "fastly" => Front::Fastly,
        "heroku" => Front::Heroku,
        "traefik" => Front::Traefik,
    }
}

words! {
    /// What to do without Redis.
    OnLossWord -> OnLoss, "a choice for lost Redis" {
        "memory" => OnLoss::Memory, "bypass" => OnLoss::Bypass,
    }
}

words! {
    /// How bodies are compressed.
    CompressWord -> bool, "a choice of compression" {
        "zstd" => true, "off" => false,
    }
}

words! {
    /// A coding of bodies for clients.
    CodingWord -> Coding, "a coding" {
        "zstd" => Coding::Zstd, "br" => Coding::Brotli, "gzip" => Coding::Gzip,
    }
}

words! {
    /// What to do with writes without Redis.
    WritesWord -> WritePolicy, "a rule for writes" {
        "forward" => WritePolicy::Forward, "refuse" => WritePolicy::Refuse,
    }
}

words! {
    /// Which sidecars share one fill per key.
    CollapseWord -> Collapse, "a choice of collapsing" {
        "process" => Collapse::Process, "cluster" => Collapse::Cluster,
    }
}

words! {
    /// The form of log lines.
    FormatWord -> LogFormat, "a log format" {
        "text" => LogFormat::Text, "json" => LogFormat::Json,
    }
}

/// What a source listens to; where that is are keys of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceWordKind {
    /// Notifications of a PostgreSQL.
    Postgres,
    /// A table of a MySQL or MariaDB.
    Mysql,
    /// A stream of Redis.
    RedisStream,
    /// A URL that is fetched now and then.
    Poll,
    /// A file that is looked at now and then.
    File,
    /// Signed requests that a service sends.
    Webhook,
}

impl SourceWordKind {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::RedisStream => "redis-stream",
            Self::Poll => "poll",
            Self::File => "file",
            Self::Webhook => "webhook",
        }
    }
}

words! {
    /// What a source listens to.
    SourceWord -> SourceWordKind, "a kind of source" {
        "postgres" => SourceWordKind::Postgres,
        "mysql" => SourceWordKind::Mysql,
        "redis-stream" => SourceWordKind::RedisStream,
        "poll" => SourceWordKind::Poll,
        "file" => SourceWordKind::File,
        "webhook" => SourceWordKind::Webhook,
    }
}

/// Who is told of purges; where that is are keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyWordKind {
    /// The API of Cloudflare.
    Cloudflare,
    /// The API of Fastly.
    Fastly,
    /// Whoever takes signed requests.
    Webhook,
}

impl NotifyWordKind {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::Fastly => "fastly",
            Self::Webhook => "webhook",
        }
    }
}

words! {
    /// Who is told of purges.
    NotifyWord -> NotifyWordKind, "a kind of notification" {
        "cloudflare" => NotifyWordKind::Cloudflare,
        "fastly" => NotifyWordKind::Fastly,
        "webhook" => NotifyWordKind::Webhook,
    }
}

words! {
    /// How a webhook is signed.
    SignatureWord -> SignaturePreset, "a form of signatures (one of your own goes in braces)" {
        "github" => SignaturePreset::GitHub,
        "shopify" => SignaturePreset::Shopify,
        "slack" => SignaturePreset::Slack,
        "standard" => SignaturePreset::Standard,
        "stripe" => SignaturePreset::Stripe,
    }
}

words! {
    /// How a signature is written.
    EncodingWord -> SignatureEncoding, "a way to write a signature" {
        "hex" => SignatureEncoding::Hex, "base64" => SignatureEncoding::Base64,
    }
}

/// How much of the `Authorization` header counts; the length of a prefix is a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// All of it.
    Token,
    /// The start of its token.
    Prefix,
}

words! {
    /// How much of the `Authorization` header counts.
    AuthWord -> AuthKind, "a form of auth field" {
        "token" => AuthKind::Token, "prefix" => AuthKind::Prefix,
    }
}

words! {
    /// What counts of the client.
    AddressWord -> (), "a property of the client" {
        "address" => (),
    }
}

words! {
    /// What a caller may be given once the origin has answered it.
    AdmitWord -> AdmitRule, "a rule for admission" {
        "entry" => AdmitRule::Entry, "route" => AdmitRule::Route,
    }
}

words! {
    /// An algorithm of signatures (RFC 7518 3.1). `none` is none.
    AlgorithmWord -> Algorithm, "an algorithm of signatures" {
        "HS256" => Algorithm::HS256, "HS384" => Algorithm::HS384, "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256, "RS384" => Algorithm::RS384, "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256, "PS384" => Algorithm::PS384, "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256, "ES384" => Algorithm::ES384, "EdDSA" => Algorithm::EdDSA,
    }
}

words! {
    /// What a `Vary` that names cookies means.
    VaryCookieWord -> VaryCookie, "a rule for Vary" {
        "respect" => VaryCookie::Respect, "ignore" => VaryCookie::Ignore,
    }
}

words! {
    /// Whether a route caches.
    ModeWord -> RouteMode, "a mode" {
        "on" => RouteMode::On, "off" => RouteMode::Off, "shadow" => RouteMode::Shadow,
    }
}

words! {
    /// Whose freshness wins.
    OriginWord -> OriginRule, "a rule for the origin" {
        "respect" => OriginRule::Respect, "ignore" => OriginRule::Ignore,
    }
}

words! {
    /// Who may share an entry.
    ScopeWord -> Scope, "a scope" {
        "private" => Scope::Private, "shared" => Scope::Shared, "public" => Scope::Public,
    }
}

words! {
    /// What to do with headers that are not part of the key.
    UnknownWord -> UnknownHeaders, "a rule for headers" {
        "bypass" => UnknownHeaders::Bypass,
        "drop" => UnknownHeaders::Drop,
        "pass" => UnknownHeaders::Pass,
    }
}

words! {
    /// Whether the client's own `Cache-Control` counts.
    ClientWord -> ClientCacheControl, "a rule for the client" {
        "respect" => ClientCacheControl::Respect, "ignore" => ClientCacheControl::Ignore,
    }
}

words! {
    /// Whether hits are served during a write.
    GuardWord -> MutationGuard, "a guard" {
        "mark" => MutationGuard::Mark, "bypass" => MutationGuard::Bypass,
    }
}

words! {
    /// Which answers purge.
    PurgeOnWord -> PurgeOn, "a choice of answers" {
        "success" => PurgeOn::Success, "2xx" => PurgeOn::Ok, "any" => PurgeOn::Any,
    }
}

words! {
    /// Whether the case of a path counts.
    CaseWord -> PathCase, "a rule for the case of paths" {
        "exact" => PathCase::Exact, "ignore" => PathCase::Ignore,
    }
}

words! {
    /// What to do with an escaped slash.
    SlashWord -> EncodedSlash, "a rule for escaped slashes" {
        "pass" => EncodedSlash::Pass, "keep" => EncodedSlash::Keep,
    }
}
