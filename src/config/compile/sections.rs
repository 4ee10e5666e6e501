//! Compiles the plain sections: the kind and range of each key, and checks across the keys of a
//! section.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, header};

use crate::cache::snapshot::SnapshotSettings;
use crate::cache::store;
use crate::config::compile::{compress, socket_path};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Period, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::config::model::ConfigLimits;
use crate::config::redis_url;
use crate::input_file::{MAX_CA_BYTES, MAX_TOKEN_BYTES};
use crate::policy::field::ClientPrefix;
use crate::policy::tag;
use crate::proxy::DebugHeaders;
use crate::redis::MAX_LEASE;
use crate::secret::Secret;
use crate::semantics::forward;
use crate::telemetry::log;
use crate::units::show_size;
use crate::{admin, server};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// How many targeted headers are allowed: each is looked up in every response.
const MAX_TARGETED: usize = 8;

/// `watch`.
pub fn watch(slot: &Setting<Period>, context: &mut CompileContext) -> Option<Duration> {
    let every = slot.get().map_or(SECOND, |period| period.0);
    if every.is_zero() { None } else { Some(context.period(slot, 100 * MS, HOUR)) }
}

/// `[listen]`.
pub fn server(
    file: &file::ListenSection,
    limits: &ConfigLimits,
    context: &mut CompileContext,
) -> Option<server::ServerSettings> {
    let networks = file.trusted_proxies.get().map_or(&[][..], |list| &list.0);
    let trusted_proxies: Vec<_> =
        networks.iter().filter_map(|text| network(text, context)).collect();
    let settings = (
        context.count(&file.max_connections, 1, 1_000_000),
        context.size(&file.max_header_bytes, 8 * KIB, 16 * MIB),
        context.count(&file.max_headers, 10, 10_000),
        context.period(&file.header_timeout, MS, HOUR),
        context.period(&file.idle_timeout, MS, DAY),
        context.period(&file.body_timeout, MS, DAY),
        context.period(&file.write_timeout, MS, DAY),
        context.period(&file.half_closed, Duration::ZERO, DAY),
        context.count(&file.max_streams, 1, 10_000),
        context.period(&file.drain, Duration::ZERO, HOUR),
        context.period(&file.stream_drain, Duration::ZERO, HOUR),
    );
    let (
        max_connections,
        header_bytes,
        max_headers,
        header_timeout,
        idle_timeout,
        body_timeout,
        write_timeout,
        half_closed,
        streams,
        drain,
        stream_drain,
    ) = settings;
    if let Some(given) = file.stream_drain.given()
        && stream_drain > drain
    {
        let message = "`stream_drain` has no effect above `drain`, which ends everything";
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("make it smaller, or raise `drain`"),
        );
    }
    Some(server::ServerSettings {
        address: listen_address(file, context)?,
        trusted_proxies: trusted_proxies.into(),
        max_connections,
        max_header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
        max_headers,
        header_timeout,
        idle_timeout,
        body_timeout,
        write_timeout,
        half_closed,
        stall: limits.stall,
        max_streams: u32::try_from(streams).unwrap_or(u32::MAX),
        drain,
        stream_drain,
    })
}

/// `address` and `socket_mode` of `[listen]`.
fn listen_address(
    file: &file::ListenSection,
    context: &mut CompileContext,
) -> Option<server::ListenAddress> {
    let mode = socket_mode(&file.socket_mode, context);
    match file.address.given() {
        Some(given) if socket_path::is_socket(given.value.as_str()) => {
            let path = socket_path::socket_path(given, context)?;
            Some(server::ListenAddress::Unix { path, mode: mode? })
        }
        _ => {
            if let Some(given) = file.socket_mode.given() {
                let what = "`socket_mode` has no effect, because `address` is not a socket";
                let hint = "remove it, or write address = \"unix:/run/sidecache/sidecache.sock\"";
                context
                    .report
                    .push(DiagnosticBuilder::warning(given.span.clone(), what).hint(hint));
            }
            Some(context.address(&file.address)?.into())
        }
    }
}

/// The mode of a socket's file, in octal digits.
fn socket_mode(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<u32> {
    const ANY_WRITE: u32 = 0o222;
    let text = slot.get()?.as_str();
    let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
    let is_octal = digits.len() == 3 && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    let (what, hint) = match mode {
        Some(mode) if mode & ANY_WRITE != 0 => return Some(mode),
        Some(_) => (
            "nobody could connect with this mode",
            "connecting takes the right to write: \"0660\" is for owner and group",
        ),
        None => ("this is not the mode of a file", "write \"0660\" for owner and group"),
    };
    let given = slot.given()?;
    context.report.malformed(
        given,
        "the mode of a file",
        what,
        Some("three octal digits after a 0, such as \"0660\""),
        hint,
    );
    None
}

pub(super) fn network(
    text: &Located<TomlString>,
    context: &mut CompileContext,
) -> Option<forward::Network> {
    let network = text.value.as_str().parse();
    if network.is_err() {
        let what = format!("`{}` is not a network", text.value.shown());
        let allowed = Some("an IP address, a network such as \"10.0.0.0/8\", or \"unix\"");
        let hint = if socket_path::is_socket(text.value.as_str()) {
            "write \"unix\" for whatever connects to the socket of `address`".to_owned()
        } else {
            network_hint(text.value.as_str())
        };
        context.report.malformed(text, "a network", what, allowed, &hint);
    }
    network.ok()
}

fn network_hint(text: &str) -> String {
    let parts = text.split_once('/');
    let Some((address, bits)) =
        parts.and_then(|(address, bits)| Some((address.parse::<IpAddr>().ok()?, bits)))
    else {
        return "names are not resolved here; write the address".to_owned();
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.parse() {
        Ok(bits) if bits <= most => {
            let network = ClientPrefix { v4: bits, v6: bits }.apply(address);
            format!("write \"{network}/{bits}\" for the network, or \"{address}\" for this address")
        }
        _ => format!("after the slash stands how many bits count, 0 to {most}"),
    }
}

/// `[admin]`.
pub fn admin(
    file: &file::AdminSection,
    context: &mut CompileContext,
) -> Option<admin::AdminSettings> {
    if let (Some(_), Some(second)) = (file.token.given(), file.token_file.given()) {
        let builder = DiagnosticBuilder::error(
            second.span.clone(),
            "both `token` and `token_file` are given",
        );
        context.report.push(builder.hint("remove one of the two"));
    }
    let from_key =
        file.token.given().and_then(|token| context.secret(&token.span, token.value.as_str()));
    let from_file =
        file.token_file.given().filter(|_| matches!(file.token, Setting::Absent)).and_then(
            |given| {
                // A file that cannot be read has been reported.
                let (_, token) = context.file(&file.token_file, MAX_TOKEN_BYTES)?;
                let token = String::from_utf8(token?);
                if token.is_err() {
                    context.report.push(
                        DiagnosticBuilder::error(given.span.clone(), "the file is not UTF-8")
                            .hint("write the token as plain text"),
                    );
                }
                context.secret(&given.span, token.ok()?.trim())
            },
        );
    let address = context.address(&file.address)?;
    let tried = !matches!((&file.token, &file.token_file), (Setting::Absent, Setting::Absent));
    if !address.ip().is_loopback()
        && !tried
        && let Some(given) = file.address.given()
    {
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            "[admin] listens beyond loopback and has no token",
        );
        let hint = "add token = \"${ADMIN_TOKEN}\" or token_file, or listen on 127.0.0.1";
        context.report.push(
            builder.allowed("a loopback address without a token, any address with one").hint(hint),
        );
    }
    let names = file.hosts.get().map_or(&[][..], |list| &list.0);
    let hosts = context.names(names, host_name).into();
    let name = sidecar_name(&file.name, context);
    Some(admin::AdminSettings { address, token: from_key.or(from_file), hosts, name })
}

/// What the sidecar is called in lists. Its text goes to other sidecars, so it is plain.
fn sidecar_name(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let given = slot.given()?;
    let name = given.value.as_str();
    let valid = (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@/-".contains(&b));
    if !valid {
        let what = format!("`{}` is not a valid name of a sidecar", given.value.shown());
        let allowed = Some("1 to 64 letters, digits, `_`, `.`, `:`, `@`, `/`, `-`");
        let hint = "it is shown where sidecars are listed; write \"${HOSTNAME}\", or leave it out";
        context.report.malformed(given, "a name of a sidecar", what, allowed, hint);
    }
    valid.then(|| name.into())
}

/// A host name without a port.
fn host_name(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let name = text.value.as_str();
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Some(name.to_ascii_lowercase().into());
    }
    let what = format!("`{}` is not a host name", text.value.shown());
    context.report.malformed(
        text,
        "a host name",
        what,
        Some("letters, digits, `-`, `.`, `_`"),
        "write it without a scheme and a port",
    );
    None
}

/// `[memory]`.
pub fn memory(
    file: &file::MemorySection,
    limits: &ConfigLimits,
    context: &mut CompileContext,
) -> store::memory::MemorySettings {
    let size = context.size(&file.size, 0, 64 * TIB);
    if let Some(given) = file.size.given()
        && size > 0
    {
        context.in_range(&given.span, size, MIB, 64 * TIB, show_size);
    }
    store::memory::MemorySettings { size, max_object: limits.object }
}

/// The keys of `[memory]` that speak of the snapshot. A name that cannot be written is no error:
/// without a snapshot the sidecar only starts empty.
pub fn snapshot(
    file: &file::MemorySection,
    context: &mut CompileContext,
) -> Option<SnapshotSettings> {
    let path = context.path(&file.snapshot);
    let size = context.size(&file.snapshot_size, KIB, 64 * TIB);
    let time = context.period(&file.snapshot_time, MS, 60 * SECOND);
    Some(SnapshotSettings { path: path?, size, time })
}

/// `[redis]`. `write_wait` is the `wait_timeout` of `[upstream]`.
pub fn redis(
    file: &file::RedisSection,
    section: &SourceSpan,
    write_wait: Duration,
    context: &mut CompileContext,
) -> Option<crate::redis::RedisSettings> {
    let url = file.url.required(
        "url",
        (section, &file.unknown),
        "url = \"redis://127.0.0.1:6379/0\"",
        &mut context.report,
    );
    let location = url.and_then(|url| redis_url::parse(url, &mut context.report));
    let (mut username, mut password) =
        (context.text(&file.username), context.text(&file.password).map(Secret::new));
    if let Some(location) = &location {
        let doubled = [
            (&location.username.is_some(), &file.username),
            (&location.password.is_some(), &file.password),
        ];
        for given in
            doubled.into_iter().filter(|(in_url, _)| **in_url).filter_map(|(_, slot)| slot.given())
        {
            let builder = DiagnosticBuilder::error(given.span.clone(), "this is also in the URL");
            context.report.push(builder.hint("remove it here or from the URL"));
        }
        username = username.or_else(|| location.username.clone());
        password = password.or_else(|| location.password.clone());
    }
    if let (Some(given), None, false) =
        (file.username.given(), &password, matches!(file.password, Setting::Bad))
    {
        let builder =
            DiagnosticBuilder::error(given.span.clone(), "there is a user but no password");
        context.report.push(builder.hint("add password = \"${REDIS_PASSWORD}\""));
    }
    let secret =
        file.secret.given().and_then(|secret| context.secret(&secret.span, secret.value.as_str()));
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    let journal = context.new_file(&file.journal);
    let namespace = namespace(&file.namespace, context);
    let settings = crate::redis::RedisSettings {
        deadline: context.period(&file.deadline, MS, 10 * SECOND),
        loss_after: context.period(&file.loss_after, 50 * MS, 30 * SECOND),
        write_wait,
        connections: context.count(&file.connections, 1, 64),
        lease: context.period(&file.lease, 100 * MS, MAX_LEASE),
        rejoin_grace: context.period(&file.rejoin_grace, Duration::ZERO, 60 * SECOND),
        on_redis_loss: file.on_redis_loss.get()?.0,
        degraded_ttl: context.period(&file.degraded_ttl, Duration::ZERO, HOUR),
        writes: file.writes.get()?.0,
        journal,
        wait_replicas: u8::try_from(context.count(&file.wait_replicas, 0, 16)).unwrap_or(u8::MAX),
        namespace: namespace?,
        username,
        password,
        ca_file,
        secret,
        compress: compress::compress(&file.compress, context),
        database: location.as_ref()?.database,
        address: location?.address,
    };
    Some(settings)
}

fn namespace(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<String> {
    let value = slot.get()?.as_str();
    let valid = (1..=64).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !valid && let Some(given) = slot.given() {
        let what = format!("`{}` is not a valid namespace", given.value.shown());
        let allowed = Some("1 to 64 letters, digits, `_`, `.`, `-`");
        context.report.malformed(
            given,
            "a namespace",
            what,
            allowed,
            "the namespace is the prefix of all keys in Redis; write \"sidecache\"",
        );
    }
    valid.then(|| value.to_owned())
}

/// `[limits]`.
pub fn limits(file: &file::LimitsSection, context: &mut CompileContext) -> ConfigLimits {
    let limits = ConfigLimits {
        object: context.size(&file.object, 1, 16 << 30),
        tags: context.count(&file.tags, 1, 4096),
        key: context.size(&file.key, 256, MIB),
        read_body: context.size(&file.read_body, 1, MIB),
        purge_body: context.size(&file.purge_body, 1, 64 * MIB),
        tag_body: context.size(&file.tag_body, 1, 64 * MIB),
        uploads: context.size(&file.uploads, 1, 1 << 40),
        upload_time: context.period(&file.upload_time, SECOND, DAY),
        gather: context.period(&file.gather, Duration::ZERO, HOUR),
        authorized_clients: context.count(&file.admissions, 1, 100_000_000),
        fills: context.size(&file.fills, 1, 1 << 40),
        waiters: context.count(&file.waiters, 1, 10_000_000),
        wait: context.period(&file.wait, MS, HOUR),
        mutations: context.count(&file.mutations, 1, 1_000_000),
        stall: context.period(&file.stall, MS, HOUR),
        variants: context.count(&file.variants, 1, 1024),
        stale: context.period(&file.stale, Duration::ZERO, 30 * DAY),
        ranges: context.count(&file.ranges, 1, 256),
        range_fill: context.size(&file.range_fill, 0, u64::MAX),
        range_factor: context.count(&file.range_factor, 1, 1_000_000) as u64,
        refreshes: context.count(&file.refreshes, 1, 1_000_000),
        shadow_keys: context.count(&file.shadow_keys, 1, 10_000_000),
        pinned: context.count(&file.pinned, 0, 100_000),
    };
    if let Some(given) = file.range_fill.given()
        && limits.range_fill > limits.object
    {
        let message = format!(
            "`range_fill` has no effect above `object` ({}), because larger responses are not \
             stored",
            show_size(limits.object)
        );
        context.report.push(
            DiagnosticBuilder::warning(given.span.clone(), message)
                .hint("make it smaller, or raise `object`"),
        );
    }
    limits
}

/// `[freshness]`.
pub fn targeted(file: &file::FreshnessSection, context: &mut CompileContext) -> Box<[HeaderName]> {
    let list = file.targeted.get().map_or(&[][..], |list| &list.0);
    if let (Some(given), true) = (file.targeted.given(), list.len() > MAX_TARGETED) {
        let builder = DiagnosticBuilder::error(
            given.span.clone(),
            format!("the list has {} headers", list.len()),
        );
        context.report.push(
            builder
                .allowed(format!("at most {MAX_TARGETED}"))
                .hint("remove those that the origin never sends"),
        );
    }
    context.names(list, target_field).into()
}

/// A response header for caches like this one (RFC 9213 2).
fn target_field(context: &mut CompileContext, text: &Located<TomlString>) -> Option<HeaderName> {
    let name = context.header(text)?;
    if name == header::CACHE_CONTROL || name == header::EXPIRES {
        let builder = DiagnosticBuilder::error(
            text.span.clone(),
            format!("`{}` is for all caches, so it is not a targeted header", text.value.shown()),
        );
        context.report.push(
            builder.hint("remove it: it always counts if none of the targeted headers applies"),
        );
        return None;
    }
    Some(name)
}

/// `[debug]`.
pub fn debug(file: &file::DebugSection) -> Option<DebugHeaders> {
    Some(DebugHeaders { keys: *file.headers.get()?, server_timing: *file.server_timing.get()? })
}

/// `[log]`.
pub fn log(file: &file::LogSection, context: &mut CompileContext) -> Option<log::LogSettings> {
    let level = file.level.get()?.as_str().to_owned();
    if let (Err(what), Some(given)) = (log::check_level(&level), file.level.given()) {
        let allowed = Some(
            "off, error, warn, info, debug, trace, or directives such as \"warn,sidecache=debug\"",
        );
        context.report.malformed(given, "a level", what, allowed, "write \"info\"");
    }
    let repeats = context.count(&file.repeats, 1, 1_000_000);
    Some(log::LogSettings {
        level,
        format: file.format.get()?.0,
        access: *file.access.get()?,
        repeats: u32::try_from(repeats).unwrap_or(u32::MAX),
    })
}

/// `[tags]`.
pub fn response_tags(
    file: &file::TagsSection,
    context: &mut CompileContext,
) -> Option<tag::ResponseTags> {
    Some(tag::ResponseTags {
        headers: context.headers(&file.response_headers),
        keep: *file.keep.get()?,
    })
}
