//! Compiles `[upstream]`: the origin's URL, the limits towards it, and what it gets of each client.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::config::compile::socket_path;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::input_file::MAX_CA_BYTES;
use crate::semantics::forward;
use crate::upstream;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SOCKET_HINT: &str = "write a Unix socket as \"unix:/run/app.sock\", without http://";

/// `[upstream]`.
pub fn upstream(
    file: &file::UpstreamSection,
    section: &SourceSpan,
    context: &mut CompileContext,
) -> Option<upstream::UpstreamSettings> {
    let url = file.url.required(
        "url",
        (section, &file.unknown),
        "url = \"http://127.0.0.1:8000\"",
        &mut context.report,
    );
    let target = url.and_then(|url| target(url, context));
    let is_tls = |target: &upstream::Target| {
        matches!(target.address, upstream::UpstreamAddress::Tcp { tls: true, .. })
    };
    let ca_file = context.file(&file.ca_file, MAX_CA_BYTES).map(|(path, _)| path);
    if let (Some(target), Some(given)) = (&target, file.ca_file.given())
        && !is_tls(target)
    {
        let builder = DiagnosticBuilder::warning(
            given.span.clone(),
            "`ca_file` has no effect, because the URL is not https",
        );
        context.report.push(builder.hint("remove it, or write the url with https://"));
    }
    let upgrades = file.upgrades.get().map(|list| context.names(&list.0, protocol));
    let user_agent = user_agent(&file.user_agent, context);
    let header_bytes = context.size(&file.max_header_bytes, 8 * KIB, 16 * MIB);
    let interim_bytes = context.size(&file.max_interim_bytes, KIB, 16 * MIB);
    let settings = upstream::UpstreamSettings {
        connect_timeout: context.period(&file.connect_timeout, MS, HOUR),
        first_byte_timeout: context.period(&file.first_byte_timeout, MS, DAY),
        idle_timeout: context.period(&file.idle_timeout, MS, DAY),
        tunnel_timeout: context.period(&file.tunnel_timeout, MS, 30 * DAY),
        keep_alive: context.period(&file.keep_alive, Duration::ZERO, DAY),
        max_age: context.period(&file.max_age, MS, 30 * DAY),
        max_connections: context.count(&file.max_connections, 1, 100_000),
        max_tunnels: context.count(&file.max_tunnels, 1, 100_000),
        max_waiting: context.count(&file.max_waiting, 0, 1_000_000),
        wait_timeout: context.period(&file.wait_timeout, MS, HOUR),
        max_header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
        max_interim_bytes: usize::try_from(interim_bytes).unwrap_or(usize::MAX),
        max_headers: context.count(&file.max_headers, 10, 10_000),
        upgrades: upgrades?.into(),
        reuse_after_body: *file.reuse_after_body.get()?,
        via: *file.via.get()?,
        title_case_headers: *file.title_case_headers.get()?,
        user_agent: user_agent?,
        host: file.host.get()?.0,
        ca_file,
        target: target?,
    };
    Some(settings)
}

/// Where an origin is.
pub fn target(
    text: &Located<TomlString>,
    context: &mut CompileContext,
) -> Option<upstream::Target> {
    const FORM: &str = "http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH";
    let value = text.value.as_str();
    if socket_path::is_socket(value) {
        let path = socket_path::socket_path(text, context)?;
        // As other clients of such sockets do.
        let authority = "localhost".into();
        return Some(upstream::Target {
            address: upstream::UpstreamAddress::Unix(path),
            authority,
        });
    }
    let lower = value.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        // SECURITY: a URL may contain a password, so messages never repeat its text.
        let what = "the origin's URL is neither http nor https";
        let hint = if lower.starts_with("fastcgi://") || lower.starts_with("uwsgi://") {
            "only HTTP origins are supported: put a web server before it, or let it speak HTTP"
        } else if value.contains("://") {
            "only HTTP origins are supported"
        } else if value.starts_with('/') {
            "put unix: before the path of a socket, or http:// before a host"
        } else {
            "put http:// before it"
        };
        context.report.malformed(text, "an http or https URL", what, Some(FORM), hint);
        return None;
    }
    if lower.starts_with("http://unix:") || lower.starts_with("http:///") {
        let what = "this is not the address of a socket";
        context.report.malformed(text, "the URL of an origin", what, Some(FORM), SOCKET_HINT);
        return None;
    }
    let (what, hint) = match Url::parse(value) {
        Err(error) => {
            (format!("this is not a URL: {error}"), "write it as \"http://127.0.0.1:8000\"")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            "the origin's URL has a user or password".into(),
            "remove it; clients send their own credentials",
        ),
        Ok(url) if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => (
            "the origin's URL has a path or a query".into(),
            "end it after the host and port; requests keep their own paths",
        ),
        Ok(url) if url.port_or_known_default() == Some(0) => {
            ("the origin's URL has port 0".into(), "write the port that the origin listens on")
        }
        Ok(url) => {
            let tls = url.scheme() == "https";
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
                return None;
            };
            let authority =
                url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")).into();
            let host = host.trim_start_matches('[').trim_end_matches(']').into();
            let address = upstream::UpstreamAddress::Tcp { tls, host, port };
            return Some(upstream::Target { address, authority });
        }
    };
    context.report.malformed(text, "the URL of an origin", what, Some(FORM), hint);
    None
}

/// The host that stands for all, in lower case.
pub fn host_key(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let given = slot.given()?;
    let host = given.value.as_str();
    if forward::is_host(host.as_bytes()) && !host.is_empty() {
        return Some(host.to_ascii_lowercase().into());
    }
    context.report.malformed(
        given,
        "a host",
        "this is not a host",
        Some("a name or an address, perhaps with a port"),
        "write the name by which clients reach the site, such as \"app.example.com\"",
    );
    None
}

/// A protocol that requests may upgrade to, in lower case.
fn protocol(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let lower = text.value.as_str().to_ascii_lowercase();
    let mut parts = lower.split('/');
    // A protocol is one or two tokens (RFC 9110 7.8), and so is a header's name.
    let is_token = |part: &str| HeaderName::try_from(part).is_ok();
    let valid = parts.clone().count() <= 2 && parts.clone().all(is_token);
    if !valid {
        let what = format!("`{}` is not a protocol", text.value.shown());
        let allowed = Some("a name, perhaps with a version, as it stands in `Upgrade`");
        context.report.malformed(text, "a protocol", what, allowed, "write \"websocket\"");
        return None;
    }
    // SECURITY: such a tunnel would carry requests to which no rule is applied.
    if parts.next().is_some_and(|name| forward::HIDDEN_HTTP.contains(&name)) {
        let what = format!("`{}` would carry requests past the rules", text.value.shown());
        context.report.malformed(
            text,
            "a protocol that is allowed",
            what,
            Some("a protocol other than HTTP and TLS"),
            "remove it",
        );
        return None;
    }
    Some(lower.into())
}

/// The `User-Agent` of fills.
fn user_agent(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<HeaderValue> {
    let text = slot.get()?.as_str();
    let valid = !text.trim().is_empty() && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if !valid && let Some(given) = slot.given() {
        context.report.malformed(
            given,
            "a User-Agent",
            "this is not a User-Agent",
            Some("visible ASCII characters and spaces"),
            "copy that of a current browser, or remove the key",
        );
    }
    HeaderValue::from_str(text.trim()).ok().filter(|_| valid)
}
