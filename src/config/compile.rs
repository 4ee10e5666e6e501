//! Compiles a text into a `Config`: the order of the steps, and checks that need the whole file.
//! The other files of this folder compile the parts.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::apps::AppTable;
use self::fields::FieldTable;
use self::read::ReadFile;
use super::context::CompileContext;
use super::decode::{Setting, TomlReader};
use super::diagnostics::DiagnosticCollector;
use super::diagnostics::diagnostic::{DiagnosticBuilder, Diagnostics};
use super::diagnostics::source_text::SourceText;
use super::file::{ConfigFile, RedisSection};
use super::include::IncludeSource;
use super::lint;
use super::model::{Config, ConfigLimits, JwtSettings};
use crate::policy::credential::CredentialRule;
use crate::policy::folder::FolderTags;
use crate::policy::identity::IdentitySettings;
use crate::policy::purge_request::PurgeRequestRule;
use crate::policy::purge_rule::PurgeRules;
use crate::policy::route::{Collapse, ResponseRules, RouteMode, Routes};
use crate::server::ListenAddress;
use crate::telemetry::log::LogSettings;
use crate::telemetry::trace::TraceSettings;
use crate::units::{show_duration, show_size};
use crate::upstream::UpstreamAddress;

pub mod apps;
pub mod codings;
mod compress;
pub mod conditions;
pub mod credential;
mod expectations;
pub mod fields;
pub mod freshness;
pub mod fronts;
mod graphql_tags;
mod headers;
pub mod identity;
pub mod jwt;
mod notify;
mod pointer;
mod purge_requests;
pub mod purges;
mod query;
mod read;
mod read_methods;
pub mod routes;
mod rule_names;
pub mod sections;
mod session_fields;
mod signed_in;
pub mod socket_path;
pub mod sources;
pub mod trace;
pub mod upstream;
pub mod values;

/// Compiles a text, or returns all its diagnostics.
pub fn compile(
    text: &str,
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    from: IncludeSource<'_>,
) -> Result<Config, Diagnostics> {
    let mut report = DiagnosticCollector::new(SourceText::new(name, text));
    let mut reader = TomlReader { report: &mut report, env };
    let ReadFile { file, included, redis_left_out, defaults } = read::read(text, from, &mut reader);
    let folder = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut context = CompileContext { report, folder, defaults, redis_left_out };
    let mut config = file.as_ref().and_then(|file| assemble(file, &mut context));
    if let (Some(file), Some(config), false) = (&file, &mut config, context.report.has_errors()) {
        expectations::check(file, config, &mut context);
    }
    let broken = context.report.has_errors();
    let (file, diagnostics) = context.report.finish();
    match config {
        Some(config) if !broken => {
            let included = included.into();
            Ok(Config { warnings: diagnostics, text: text.into(), included, ..config })
        }
        _ => Err(Diagnostics::new(file, diagnostics)),
    }
}

/// Compiles all parts, even if some of them have errors.
fn assemble(file: &ConfigFile, context: &mut CompileContext) -> Option<Config> {
    let limits = file.limits.get().map(|limits| sections::limits(limits, context));
    let listen = file.listen.get().zip(limits.as_ref());
    let server = listen.and_then(|(listen, limits)| sections::server(listen, limits, context));
    let upstream = upstream(file, context);
    let admin = file.admin.get().and_then(|admin| sections::admin(admin, context));
    let memory = file.memory.get().zip(limits.as_ref());
    let memory = memory.map(|(memory, limits)| sections::memory(memory, limits, context));
    let snapshot = file.memory.get().and_then(|section| sections::snapshot(section, context));
    let redis = redis(file, upstream.as_ref(), context);
    let (log, trace) = telemetry(file, context);
    let response_rules = response_rules(file, context);
    let (fields, CallerSettings { credential, jwt, identity }) = fields(file, context);
    let mode = file.mode.get().map_or(RouteMode::On, |word| word.0);
    let apps = AppTable::compile(file, upstream.as_ref(), context);
    let route_context = routes::RouteContext {
        fields: &fields,
        credential: &credential,
        collapse: collapse(file, context),
        mode,
        fronts: fronts::fronts(&file.fronts, context),
        apps: &apps,
        codings: codings::codings(file, context),
    };
    let routes = routes::routes(file.routes.get(), &route_context, context);
    let purges = purges::purges(file.purges.get(), (&fields, &apps), context);
    let sources = sources::sources(file.sources.get(), redis.iter().flatten().next(), context);
    let notify = notify::notify(file.notify.get(), context);
    addresses(file, server.as_ref(), admin.as_ref(), (upstream.as_ref(), &apps), context);
    tiers(file, memory.as_ref(), redis.iter().flatten().next(), limits.as_ref(), context);
    // The following checks need the whole file, so it must have been decoded completely.
    let whole = !context.report.has_errors() && !context.report.has_broken_lines();
    if whole {
        let parts = lint::CompiledParts {
            routes: &routes,
            purges: &purges,
            credential: &credential,
            sources: &sources,
            limits: limits.as_ref(),
            snapshot: snapshot.as_ref(),
            redis: redis.iter().flatten().next(),
        };
        warn(file, &parts, (&fields, &apps), context);
    }
    let specs = routes.into_iter().map(|route| route.spec).collect();
    let response_rules = with_folders(response_rules?, file, &purges)?;
    let routes = Routes::new(specs, &credential, route_context.fronts, &response_rules);
    let routes = routes.map_err(|tie| report_tie(&tie.to_string(), whole, context)).ok()?;
    Some(Config {
        mode: route_context.mode,
        fronts: route_context.fronts,
        server: server?,
        upstream: upstream?,
        host_key: upstream::host_key(&file.upstream.get()?.host_key, context),
        apps: apps.settings?.into(),
        app_hosts: apps.hosts,
        admin: admin?,
        memory: memory?,
        snapshot,
        redis: redis?,
        log: log?,
        trace,
        limits: limits?,
        routes,
        purges: purge_rules(purges, file)?,
        purge_requests: purge_requests(file, context),
        sources,
        notify,
        credential,
        jwt,
        identity,
        response_rules,
        debug: sections::debug(file.debug.get()?)?,
        file: None,
        text: Arc::default(),
        included: Arc::default(),
        watch: sections::watch(&file.watch, context),
        warnings: Vec::new(),
    })
}

/// Warns about what is valid and probably not meant.
fn warn(
    file: &ConfigFile,
    parts: &lint::CompiledParts<'_>,
    (fields, apps): (&FieldTable, &AppTable),
    context: &mut CompileContext,
) {
    lint::warn(file, parts, context);
    fields.warn_unused(context);
    apps.warn_unused(context);
}

/// `[[purges]]`, with what the origin makes of reads that name another method.
fn purge_rules(purges: Vec<purges::CompiledPurge>, file: &ConfigFile) -> Option<PurgeRules> {
    let rules = purges.into_iter().map(|purge| purge.rule).collect();
    Some(PurgeRules::new(rules, *file.upstream.get()?.method_override.get()?))
}

/// What tells who a caller is.
struct CallerSettings {
    credential: Arc<CredentialRule>,
    jwt: Option<JwtSettings>,
    identity: Option<IdentitySettings>,
}

/// `[fields]`, and `[credential]`, `[jwt]` and `[identity]`, by which they tell callers apart.
fn fields(file: &ConfigFile, context: &mut CompileContext) -> (FieldTable, CallerSettings) {
    let credential =
        file.credential.get().and_then(|credential| credential::credential(credential, context));
    let fields = FieldTable::compile(file.fields.get(), &file.identity, context);
    let known = CredentialRule { sessions: fields.sessions(), ..credential.unwrap_or_default() };
    let jwt = file.jwt.given().and_then(|given| jwt::jwt(&given.value, &given.span, context));
    jwt::check_fields(&file.jwt, file.fields.get(), context);
    let identity = file
        .identity
        .given()
        .and_then(|given| identity::identity(&given.value, &given.span, context));
    identity::check_fields(&file.identity, file.fields.get(), context);
    (fields, CallerSettings { credential: Arc::new(known), jwt, identity })
}

/// `[purge_requests]`, if there is one.
fn purge_requests(file: &ConfigFile, context: &mut CompileContext) -> Option<PurgeRequestRule> {
    let given = file.purge_requests.given()?;
    let listen = file.listen.get()?;
    let trusts_nobody = listen.trusted_proxies.get().is_none_or(|list| list.0.is_empty());
    purge_requests::purge_requests(&given.value, &given.span, trusts_nobody, context)
}

/// With the folders that entries carry: all, or those that purge rules name.
fn with_folders(
    rules: ResponseRules,
    file: &ConfigFile,
    purges: &[purges::CompiledPurge],
) -> Option<Arc<ResponseRules>> {
    let folders = FolderTags {
        every: *file.tags.get()?.folders.get()? || file.purge_requests.given().is_some(),
        named: purges.iter().filter_map(|purge| purge.rule.under.clone()).collect(),
    };
    Some(Arc::new(ResponseRules { folders, ..rules }))
}

/// `[tags]` and `[freshness]`.
fn response_rules(file: &ConfigFile, context: &mut CompileContext) -> Option<ResponseRules> {
    let response_tags = file.tags.get().and_then(|tags| sections::response_tags(tags, context));
    let targeted = file.freshness.get().map(|freshness| sections::targeted(freshness, context));
    Some(ResponseRules {
        targeted: targeted.unwrap_or_default(),
        response_tags: response_tags?,
        // Known once the purge rules are.
        folders: FolderTags::default(),
    })
}

/// `[log]`, and `[trace]` if there is one.
fn telemetry(
    file: &ConfigFile,
    context: &mut CompileContext,
) -> (Option<LogSettings>, Option<TraceSettings>) {
    let log = file.log.get().and_then(|log| sections::log(log, context));
    let trace = file.trace.given();
    (log, trace.and_then(|given| trace::trace(&given.value, &given.span, context)))
}

/// Reports what the routing tree rejects, unless the file has other errors: ties between routes
/// have been reported with their lines.
fn report_tie(tie: &str, whole: bool, context: &mut CompileContext) {
    if whole {
        context.report.push(
            DiagnosticBuilder::error(0..0, tie).hint("make one of the two paths more specific"),
        );
    }
}

/// `[redis]`: none if it is invalid, `Some(None)` if the file has none. Writes wait for Redis as
/// long as requests wait for a connection to the origin.
#[allow(clippy::option_option, reason = "an invalid section differs from an absent one")]
fn redis(
    file: &ConfigFile,
    upstream: Option<&crate::upstream::UpstreamSettings>,
    context: &mut CompileContext,
) -> Option<Option<crate::redis::RedisSettings>> {
    let write_wait = upstream.map_or(Duration::ZERO, |upstream| upstream.wait_timeout);
    match &file.redis {
        Setting::Given(redis) => {
            sections::redis(&redis.value, &redis.span, write_wait, context).map(Some)
        }
        Setting::Absent | Setting::Default(_) => Some(None),
        Setting::Bad => None,
    }
}

/// The `collapse` of `[redis]`, or none if there certainly is no `[redis]`.
fn collapse(file: &ConfigFile, context: &CompileContext) -> Option<Collapse> {
    match &file.redis {
        Setting::Given(redis) => {
            redis.value.collapse.get().map_or(Some(Collapse::Process), |word| Some(word.0))
        }
        // A section that is invalid, has a broken header or a misspelt name has been reported.
        Setting::Bad => Some(Collapse::Process),
        Setting::Absent | Setting::Default(_) => {
            let meant = context.redis_left_out
                || context.report.has_broken_header()
                || file.unknown.0.iter().any(|meant| meant == "redis");
            meant.then_some(Collapse::Process)
        }
    }
}

/// `[upstream]`, the only required section.
fn upstream(
    file: &ConfigFile,
    context: &mut CompileContext,
) -> Option<crate::upstream::UpstreamSettings> {
    if matches!(file.upstream, Setting::Absent) && !context.report.has_broken_header() {
        let builder = DiagnosticBuilder::error(
            0..0,
            "the section [upstream] is missing, so the origin is unknown",
        );
        context.report.push(builder.hint("add [upstream] with url = \"http://127.0.0.1:8000\""));
    }
    let section = file.upstream.given()?;
    upstream::upstream(&section.value, &section.span, context)
}

/// Checks that addresses differ.
fn addresses(
    file: &ConfigFile,
    server: Option<&crate::server::ServerSettings>,
    admin: Option<&crate::admin::AdminSettings>,
    (upstream, apps): (Option<&crate::upstream::UpstreamSettings>, &AppTable),
    context: &mut CompileContext,
) {
    let (Some(listen), Some(server)) = (file.listen.get(), server) else { return };
    let overlap = |two: SocketAddr| {
        server.address.tcp().is_some_and(|one| {
            one.port() != 0
                && one.port() == two.port()
                && (one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified())
        })
    };
    let listen_at = listen.address.given().map(|text| text.span.clone());
    if let (Some(section), Some(admin)) = (file.admin.get(), admin)
        && overlap(admin.address)
    {
        let at = section
            .address
            .given()
            .map(|text| text.span.clone())
            .or_else(|| listen_at.clone())
            .unwrap_or(0..0);
        let builder = DiagnosticBuilder::error(at, "[listen] and [admin] have the same address");
        context.report.push(builder.hint("give one of them another port"));
    }
    let own = |upstream: &crate::upstream::UpstreamSettings| match &upstream.target.address {
        UpstreamAddress::Tcp { host, port, .. } => host.parse().is_ok_and(|ip: IpAddr| {
            let is_near = ip.is_loopback()
                || ip.is_unspecified()
                || server.address.tcp().is_some_and(|own| own.ip() == ip);
            is_near && overlap(SocketAddr::new(ip, *port))
        }),
        UpstreamAddress::Unix(app) => {
            matches!(&server.address, ListenAddress::Unix { path, .. } if path == app)
        }
    };
    let first = file.upstream.given().and_then(|section| section.value.url.given());
    let others = apps.settings.iter().flatten().map(|app| &app.upstream);
    let others = apps::urls(&file.apps).zip(others);
    for (url, _) in first.zip(upstream).into_iter().chain(others).filter(|(_, origin)| own(origin))
    {
        let builder = DiagnosticBuilder::error(
            url.span.clone(),
            "the origin's URL is the sidecar's own address: requests would loop",
        );
        context
            .report
            .push(builder.hint("let the origin listen on another address, and write that here"));
    }
}

/// Checks that there is a tier to store in, and that objects fit.
fn tiers(
    file: &ConfigFile,
    memory: Option<&crate::cache::store::memory::MemorySettings>,
    redis: Option<&crate::redis::RedisSettings>,
    limits: Option<&ConfigLimits>,
    context: &mut CompileContext,
) {
    let (Some(memory), Some(limits)) = (memory, limits) else { return };
    let Some(size) =
        file.memory.get().map(|section| &section.size).filter(|size| size.get().is_some())
    else {
        return;
    };
    let size = size.given();
    if memory.size == 0 {
        if matches!(file.redis, Setting::Absent) && !context.report.has_broken_header() {
            let at = size.map_or(0..0, |size| size.span.clone());
            let builder = DiagnosticBuilder::error(
                at,
                "the memory tier is off and there is no [redis], so nothing can be stored",
            );
            context.report.push(
                builder.hint("give [memory] a size such as \"256MiB\", or add [redis] with a url"),
            );
        }
    } else if limits.object > memory.size / 16 {
        let object = file.limits.get().and_then(|section| section.object.given());
        if let Some(at) =
            object.map(|object| object.span.clone()).or_else(|| size.map(|size| size.span.clone()))
        {
            let (object, room) = (show_size(limits.object), show_size(memory.size));
            let builder = DiagnosticBuilder::warning(
                at,
                format!("objects of up to {object} are too large for a memory tier of {room}"),
            );
            let hint = format!(
                "one such object would evict many others: set `object` in [limits] to at most {}",
                show_size(memory.size / 16)
            );
            context.report.push(builder.hint(hint));
        }
    }
    if let (Some(redis), Some(section)) = (redis, file.redis.given()) {
        let RedisSection { deadline, compress, .. } = &section.value;
        compress::lint(compress, limits, context);
        if redis.deadline > limits.wait
            && let Some(deadline) = deadline.given()
        {
            let message = format!(
                "the deadline of Redis is longer than `wait` in [limits] ({})",
                show_duration(limits.wait)
            );
            context.report.push(
                DiagnosticBuilder::warning(deadline.span.clone(), message)
                    .hint("a slow Redis would delay requests by that long"),
            );
        }
    }
}
