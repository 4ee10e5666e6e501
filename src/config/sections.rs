//! Compiles the plain sections: addresses, sizes, durations and counts with their ranges, secrets, lists of headers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::Limits;
use super::compile::Context;
use super::file;
use super::problem::{Draft, Span};
use super::read::{Count, List, Located, Period, Size, Slot, Text};
use super::redis_url;
use crate::units::{Secret, show_duration, show_size};
use crate::{admin, forward, scope, server, store, tag, telemetry, upstream};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// The shortest token or secret: what is shorter can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Headers that belong to a connection or to the sidecar itself (RFC 9110 7.6.1), so no rule may speak of them.
const RESERVED: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "content-length",
    "via",
    "host",
];

impl Context {
    /// A duration in its range. Out of it nothing is clamped: it is a problem, and the value is not used.
    pub fn period(&mut self, slot: &Slot<Period>, least: Duration, most: Duration) -> Duration {
        let value = slot.get().map_or(Duration::ZERO, |period| period.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, show_duration);
        }
        value
    }

    fn size(&mut self, slot: &Slot<Size>, least: u64, most: u64) -> u64 {
        let value = slot.get().map_or(0, |size| size.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, show_size);
        }
        value
    }

    /// A number in its range.
    pub fn count(&mut self, slot: &Slot<Count>, least: u64, most: u64) -> usize {
        let value = slot.get().map_or(0, |count| count.0);
        if let Some(given) = slot.given() {
            self.in_range(&given.span, value, least, most, |number| number.to_string());
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// Whether a value is in its range.
    pub fn in_range<T: PartialOrd + Copy>(&mut self, at: &Span, value: T, least: T, most: T, show: impl Fn(T) -> String) -> bool {
        let (word, bound) = match value {
            value if value < least => ("small", least),
            value if value > most => ("large", most),
            _ => return true,
        };
        let draft = Draft::error(at.clone(), format!("this is too {word}"));
        self.report.push(draft.allowed(format!("{} to {}", show(least), show(most))).hint(format!("the nearest is {}", show(bound))));
        false
    }

    /// An address and port.
    fn address(&mut self, slot: &Slot<Text>) -> Option<SocketAddr> {
        let text = slot.get()?;
        if let Ok(address) = text.as_str().parse() {
            return Some(address);
        }
        let given = slot.given()?;
        let (value, shown) = (text.as_str(), text.shown());
        let hint = if let Some(port) = value.strip_prefix(':').or_else(|| value.strip_prefix("*:")) {
            format!("write \"0.0.0.0:{port}\" for all interfaces, \"127.0.0.1:{port}\" for this machine alone")
        } else if let Some(port) = value.strip_prefix("localhost:") {
            format!("names are not looked up here; write \"127.0.0.1:{port}\"")
        } else if value.parse::<u16>().is_ok() {
            format!("write \"127.0.0.1:{value}\"")
        } else if value.parse::<std::net::Ipv4Addr>().is_ok() {
            format!("add a port: \"{value}:8080\"")
        } else if value.contains("://") {
            "leave the scheme out".into()
        } else {
            "write it as \"127.0.0.1:8080\"".into()
        };
        self.report.malformed(
            given,
            "an address",
            format!("`{shown}` is not an address with a port"),
            Some("IP:PORT or [IPv6]:PORT"),
            &hint,
        );
        None
    }

    /// The text of a key that must not be empty.
    fn text(&mut self, slot: &Slot<Text>) -> Option<String> {
        let given = slot.given()?;
        if given.value.as_str().is_empty() {
            self.report.push(Draft::error(given.span.clone(), "this is empty").hint("give it a value, or remove the key"));
            return None;
        }
        Some(given.value.as_str().to_owned())
    }

    /// A file that must be readable.
    fn file(&mut self, slot: &Slot<Text>) -> Option<PathBuf> {
        let name = self.text(slot)?;
        let path = self.folder.join(name);
        if let (Err(error), Some(given)) = (std::fs::File::open(&path), slot.given()) {
            let what = format!("`{}` cannot be read: {error}", self.folder.join(given.value.shown()).display());
            self.report.malformed(
                given,
                "the name of a file that can be read",
                what,
                None,
                "paths are relative to the folder of this file",
            );
        }
        Some(path)
    }

    /// A secret that is long enough. SECURITY: nothing of its value is told.
    fn secret(&mut self, at: &Span, value: &str) -> Option<Secret> {
        let draft = if value.chars().count() < SHORTEST_SECRET {
            Draft::error(at.clone(), format!("this secret is shorter than {SHORTEST_SECRET} characters"))
                .allowed(format!("at least {SHORTEST_SECRET} characters"))
                .hint("make one with `openssl rand -hex 32`")
        } else if !value.bytes().all(|b| b.is_ascii_graphic()) {
            Draft::error(at.clone(), "this secret has characters that a header cannot carry")
                .allowed("visible ASCII characters")
                .hint("make one with `openssl rand -hex 32`")
        } else {
            return Some(Secret::new(value));
        };
        self.report.push(draft);
        None
    }

    /// A header's name that rules may speak of.
    pub fn header(&mut self, text: &Located<Text>) -> Option<HeaderName> {
        let shown = text.value.shown();
        let Ok(name) = HeaderName::from_str(text.value.as_str()) else {
            let what = format!("`{shown}` is not the name of a header");
            self.report.malformed(text, "the name of a header", what, Some("letters, digits and `-`"), "write it as \"x-tenant-id\"");
            return None;
        };
        if RESERVED.contains(&name.as_str()) {
            let draft = Draft::error(text.span.clone(), format!("`{shown}` belongs to the connection, not to the request"));
            self.report.push(draft.hint("remove it; the sidecar takes care of it"));
            return None;
        }
        Some(name)
    }

    /// A list of names, none of which comes twice or is empty.
    pub fn names<T: PartialEq>(&mut self, list: &[Located<Text>], mut read: impl FnMut(&mut Self, &Located<Text>) -> Option<T>) -> Vec<T> {
        let (mut seen, mut names): (HashSet<&str>, Vec<T>) = (HashSet::new(), Vec::new());
        for text in list {
            if text.value.as_str().is_empty() {
                self.report.push(Draft::error(text.span.clone(), "an empty name").hint("remove it"));
            } else if !seen.insert(text.value.as_str()) {
                self.twice(text);
            } else if let Some(name) = read(self, text) {
                if names.contains(&name) {
                    self.twice(text);
                } else {
                    names.push(name);
                }
            }
        }
        names
    }

    fn twice(&mut self, text: &Located<Text>) {
        self.report
            .push(Draft::error(text.span.clone(), format!("`{}` is listed twice", text.value.shown())).hint("remove one of the two"));
    }

    /// The headers of a list.
    pub fn headers(&mut self, slot: &Slot<List<Text>>) -> Box<[HeaderName]> {
        slot.get().map(|list| self.names(&list.0, Self::header)).unwrap_or_default().into()
    }
}

/// `[listen]`.
pub fn server(file: &file::Listen, context: &mut Context) -> Option<server::Settings> {
    let networks = file.trusted_proxies.get().map_or(&[][..], |list| &list.0);
    let trusted_proxies = networks.iter().filter_map(|text| network(text, context)).collect();
    let settings = (
        context.count(&file.max_connections, 1, 1_000_000),
        context.size(&file.max_header_bytes, 8 * KIB, 16 * MIB),
        context.count(&file.max_headers, 10, 10_000),
        context.period(&file.header_timeout, MS, HOUR),
        context.period(&file.idle_timeout, MS, DAY),
        context.period(&file.body_timeout, MS, DAY),
        context.period(&file.write_timeout, MS, DAY),
        context.count(&file.max_streams, 1, 10_000),
        context.period(&file.drain, Duration::ZERO, HOUR),
    );
    let (max_connections, header_bytes, max_headers, header_timeout, idle_timeout, body_timeout, write_timeout, streams, drain) = settings;
    Some(server::Settings {
        address: context.address(&file.address)?,
        trusted_proxies,
        max_connections,
        max_header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
        max_headers,
        header_timeout,
        idle_timeout,
        body_timeout,
        write_timeout,
        max_streams: u32::try_from(streams).unwrap_or(u32::MAX),
        drain,
    })
}

fn network(text: &Located<Text>, context: &mut Context) -> Option<forward::Network> {
    let network = text.value.as_str().parse();
    if network.is_err() {
        let what = format!("`{}` is not a network", text.value.shown());
        let allowed = Some("an IP address, or a network such as \"10.0.0.0/8\"");
        context.report.malformed(text, "a network", what, allowed, "names are not looked up here; write the address");
    }
    network.ok()
}

/// `[upstream]`.
pub fn upstream(file: &file::Upstream, section: &Span, context: &mut Context) -> Option<upstream::Settings> {
    let url = file.url.required("url", (section, &file.unknown), "url = \"http://127.0.0.1:8000\"", &mut context.report);
    let target = url.and_then(|url| target(url, context));
    let ca_file = context.file(&file.ca_file);
    if let (Some(target), Some(given)) = (&target, file.ca_file.given())
        && !target.tls
    {
        let draft = Draft::warning(given.span.clone(), "`ca_file` has no effect: the url is not https");
        context.report.push(draft.hint("remove it, or write the url with https://"));
    }
    let header_bytes = context.size(&file.max_header_bytes, 8 * KIB, 16 * MIB);
    let settings = upstream::Settings {
        connect_timeout: context.period(&file.connect_timeout, MS, HOUR),
        first_byte_timeout: context.period(&file.first_byte_timeout, MS, DAY),
        idle_timeout: context.period(&file.idle_timeout, MS, DAY),
        tunnel_timeout: context.period(&file.tunnel_timeout, MS, 30 * DAY),
        keep_alive: context.period(&file.keep_alive, Duration::ZERO, DAY),
        max_connections: context.count(&file.max_connections, 1, 100_000),
        max_waiting: context.count(&file.max_waiting, 0, 1_000_000),
        wait_timeout: context.period(&file.wait_timeout, MS, HOUR),
        max_header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
        max_headers: context.count(&file.max_headers, 10, 10_000),
        host: file.host.get()?.0,
        ca_file,
        target: target?,
    };
    Some(settings)
}

fn target(text: &Located<Text>, context: &mut Context) -> Option<upstream::Target> {
    const FORM: &str = "http://HOST[:PORT] or https://HOST[:PORT]";
    let value = text.value.as_str();
    let lower = value.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        // SECURITY: a url may hold a password, so its text is never repeated in a message.
        let what = "the app's url is neither http nor https";
        let hint = if value.contains("://") { "only HTTP apps can be cached" } else { "put http:// before it" };
        context.report.malformed(text, "an http or https url", what, Some(FORM), hint);
        return None;
    }
    let (what, hint) = match Url::parse(value) {
        Err(error) => (format!("this is not a url: {error}"), "write it as \"http://127.0.0.1:8000\""),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            ("the app's url has a user or password".into(), "remove it; clients bring their own credentials")
        }
        Ok(url) if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => {
            ("the app's url has a path or a query".into(), "end it after the host and port; requests keep their own paths")
        }
        Ok(url) if url.port_or_known_default() == Some(0) => ("the app's url has port 0".into(), "write the port that the app listens on"),
        Ok(url) => {
            let tls = url.scheme() == "https";
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return None };
            let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")).into();
            let host = host.trim_start_matches('[').trim_end_matches(']').into();
            return Some(upstream::Target { tls, host, port, authority });
        }
    };
    context.report.malformed(text, "the url of an app", what, Some(FORM), hint);
    None
}

/// `[admin]`.
pub fn admin(file: &file::Admin, context: &mut Context) -> Option<admin::Settings> {
    if let (Some(_), Some(second)) = (file.token.given(), file.token_file.given()) {
        let draft = Draft::error(second.span.clone(), "both `token` and `token_file` are given");
        context.report.push(draft.hint("remove one of the two"));
    }
    let from_key = file.token.given().and_then(|token| context.secret(&token.span, token.value.as_str()));
    let from_file = file.token_file.given().filter(|_| matches!(file.token, Slot::Absent)).and_then(|given| {
        let path = context.file(&file.token_file)?;
        // A file that cannot be read has been reported.
        let token = std::fs::read_to_string(path).ok()?;
        context.secret(&given.span, token.trim())
    });
    let address = context.address(&file.address)?;
    let tried = !matches!((&file.token, &file.token_file), (Slot::Absent, Slot::Absent));
    if !address.ip().is_loopback()
        && !tried
        && let Some(given) = file.address.given()
    {
        let draft = Draft::error(given.span.clone(), "[admin] listens beyond this machine and has no token");
        let hint = "add token = \"${ADMIN_TOKEN}\" or token_file, or listen on 127.0.0.1";
        context.report.push(draft.allowed("a loopback address without a token, any address with one").hint(hint));
    }
    Some(admin::Settings { address, token: from_key.or(from_file) })
}

/// `[memory]`.
pub fn memory(file: &file::Memory, limits: &Limits, context: &mut Context) -> store::memory::Settings {
    let size = context.size(&file.size, 0, 64 * TIB);
    if let Some(given) = file.size.given()
        && size > 0
    {
        context.in_range(&given.span, size, MIB, 64 * TIB, show_size);
    }
    store::memory::Settings { size, max_object: limits.object }
}

/// `[redis]`.
pub fn redis(file: &file::Redis, section: &Span, context: &mut Context) -> Option<store::redis::Settings> {
    let url = file.url.required("url", (section, &file.unknown), "url = \"redis://127.0.0.1:6379/0\"", &mut context.report);
    let location = url.and_then(|url| redis_url::parse(url, &mut context.report));
    let (mut username, mut password) = (context.text(&file.username), context.text(&file.password).map(Secret::new));
    if let Some(location) = &location {
        let doubled = [(&location.username.is_some(), &file.username), (&location.password.is_some(), &file.password)];
        for given in doubled.into_iter().filter(|(in_url, _)| **in_url).filter_map(|(_, slot)| slot.given()) {
            let draft = Draft::error(given.span.clone(), "this is given in the url, too");
            context.report.push(draft.hint("remove it here or in the url"));
        }
        username = username.or_else(|| location.username.clone());
        password = password.or_else(|| location.password.clone());
    }
    if let (Some(given), None, false) = (file.username.given(), &password, matches!(file.password, Slot::Bad)) {
        let draft = Draft::error(given.span.clone(), "there is a user but no password");
        context.report.push(draft.hint("add password = \"${REDIS_PASSWORD}\""));
    }
    let secret = file.secret.given().and_then(|secret| context.secret(&secret.span, secret.value.as_str()));
    let ca_file = context.file(&file.ca_file);
    let namespace = namespace(&file.namespace, context);
    let settings = store::redis::Settings {
        deadline: context.period(&file.deadline, MS, 10 * SECOND),
        connections: context.count(&file.connections, 1, 64),
        rejoin_grace: context.period(&file.rejoin_grace, Duration::ZERO, 60 * SECOND),
        on_redis_loss: file.on_redis_loss.get()?.0,
        degraded_ttl: context.period(&file.degraded_ttl, Duration::ZERO, HOUR),
        writes: file.writes.get()?.0,
        namespace: namespace?,
        username,
        password,
        ca_file,
        secret,
        database: location.as_ref()?.database,
        address: location?.address,
    };
    Some(settings)
}

fn namespace(slot: &Slot<Text>, context: &mut Context) -> Option<String> {
    let value = slot.get()?.as_str();
    let valid = (1..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !valid && let Some(given) = slot.given() {
        let what = format!("`{}` cannot be a namespace", given.value.shown());
        let allowed = Some("1 to 64 letters, digits, `_`, `.`, `-`");
        context.report.malformed(given, "a namespace", what, allowed, "it is the prefix of all keys in Redis; write \"sidecache\"");
    }
    valid.then(|| value.to_owned())
}

/// `[limits]`.
pub fn limits(file: &file::Limits, context: &mut Context) -> Limits {
    Limits {
        object: context.size(&file.object, 1, 16 << 30),
        tags: context.count(&file.tags, 1, 4096),
        key: context.size(&file.key, 256, MIB),
        purge_body: context.size(&file.purge_body, 1, 64 * MIB),
        admissions: context.count(&file.admissions, 1, 100_000_000),
        fills: context.size(&file.fills, 1, 1 << 40),
        waiters: context.count(&file.waiters, 1, 10_000_000),
        wait: context.period(&file.wait, MS, HOUR),
        mutations: context.count(&file.mutations, 1, 1_000_000),
        variants: context.count(&file.variants, 1, 1024),
        stale: context.period(&file.stale, Duration::ZERO, 30 * DAY),
        ranges: context.count(&file.ranges, 1, 256),
        range_fill: context.size(&file.range_fill, 0, u64::MAX),
        refreshes: context.count(&file.refreshes, 1, 1_000_000),
    }
}

/// `[freshness]`.
pub fn targeted(file: &file::Freshness, context: &mut Context) -> Box<[HeaderName]> {
    context.headers(&file.targeted)
}

/// `[log]`.
pub fn log(file: &file::Log, context: &mut Context) -> Option<telemetry::Settings> {
    let level = file.level.get()?.as_str().to_owned();
    if let (Err(what), Some(given)) = (telemetry::check_level(&level), file.level.given()) {
        let allowed = Some("off, error, warn, info, debug, trace, or directives such as \"warn,sidecache=debug\"");
        context.report.malformed(given, "a level", what, allowed, "write \"info\"");
    }
    Some(telemetry::Settings { level, format: file.format.get()?.0, access: *file.access.get()? })
}

/// `[credential]`.
pub fn credential(file: &file::Credential, context: &mut Context) -> Option<scope::CredentialRule> {
    let headers = context.headers(&file.headers);
    let cookies = match &file.cookies {
        Slot::Absent => None,
        slot => Some(context.names(&slot.get()?.0, cookie_name).into()),
    };
    Some(scope::CredentialRule { headers, cookies })
}

/// A cookie's name (RFC 6265 4.1.1).
pub fn cookie_name(context: &mut Context, text: &Located<Text>) -> Option<Box<str>> {
    let name = text.value.as_str();
    if HeaderName::from_str(name).is_ok() {
        return Some(name.into());
    }
    let what = format!("`{}` is not the name of a cookie", text.value.shown());
    context.report.malformed(
        text,
        "the name of a cookie",
        what,
        Some("letters, digits and !#$%&'*+-.^_`|~"),
        "write the name alone, without `=`",
    );
    None
}

/// `[tags]`.
pub fn response_tags(file: &file::Tags, context: &mut Context) -> Option<tag::ResponseTags> {
    Some(tag::ResponseTags { headers: context.headers(&file.response_headers), keep: *file.keep.get()? })
}
