//! Compiles `[trace]`: where the collector is, and how much it gets.

use url::Url;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::telemetry::trace::TraceSettings;

/// The path of OTLP over HTTP, below that of the endpoint.
const TRACES_PATH: &str = "/v1/traces";

/// The usual port of OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

/// The section; none where it is invalid or names no collector.
pub fn trace(
    file: &file::TraceSection,
    section: &SourceSpan,
    context: &mut CompileContext,
) -> Option<TraceSettings> {
    let strangers = context.count(&file.strangers, 0, 100_000);
    let queue = context.count(&file.queue, 1, 1_000_000);
    if cfg!(not(feature = "otel")) {
        let message = "this build of Sidecache cannot send spans";
        let builder = DiagnosticBuilder::error(section.clone(), message);
        context.report.push(builder.hint("build it with the feature `otel`, or remove [trace]"));
        return None;
    }
    let Some(text) = file.endpoint.given() else {
        if file.endpoint.get().is_none() {
            let message = "[trace] has no endpoint, so nothing is traced";
            let builder = DiagnosticBuilder::note(section.clone(), message);
            context.report.push(builder.hint("add endpoint = \"http://127.0.0.1:4318\""));
        }
        return None;
    };
    let url = endpoint(text, context)?;
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let base = url.path().trim_end_matches('/');
    let base = base.strip_suffix(TRACES_PATH).unwrap_or(base);
    Some(TraceSettings {
        host: host.trim_start_matches('[').trim_end_matches(']').into(),
        port,
        authority: authority.into(),
        path: format!("{base}{TRACES_PATH}").into(),
        sample: file.sample.get()?.0,
        strangers: u32::try_from(strangers).unwrap_or(u32::MAX),
        queue,
    })
}

/// The URL of the collector. Its text may hold a password, so no message repeats it.
fn endpoint(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Url> {
    const FORM: &str = "http://HOST[:PORT]";
    let example = "write it as \"http://127.0.0.1:4318\"";
    let value = text.value.as_str();
    let lower = value.to_ascii_lowercase();
    let (what, hint) = match Url::parse(value) {
        _ if lower.starts_with("https://") => (
            "spans are not sent by https".to_owned(),
            "let a collector on this machine take them by http, and send them on",
        ),
        _ if !lower.starts_with("http://") => {
            ("the collector's URL is not http".to_owned(), example)
        }
        Err(error) => (format!("this is not a URL: {error}"), example),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => (
            "the collector's URL has a user or password".to_owned(),
            "remove it; the variable OTEL_EXPORTER_OTLP_HEADERS holds headers for it",
        ),
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            ("the collector's URL has a query or fragment".to_owned(), "end it after the port")
        }
        Ok(url) if url.port() == Some(0) => {
            ("the collector's URL has port 0".to_owned(), "the usual port is 4318")
        }
        Ok(url) => {
            warn(text, &url, context);
            return Some(url);
        }
    };
    context.report.malformed(text, "the URL of a collector", what, Some(FORM), hint);
    None
}

/// What is possible, and hardly meant.
fn warn(text: &Located<TomlString>, url: &Url, context: &mut CompileContext) {
    let path = url.path().trim_end_matches('/');
    if path.ends_with(TRACES_PATH) {
        let message = "`endpoint` has a path that is added anyway";
        let builder = DiagnosticBuilder::warning(text.span.clone(), message);
        context.report.push(builder.hint("end it after the host and port"));
    } else if !path.is_empty() {
        let message = "`endpoint` has a path: spans are sent to /v1/traces below it";
        let builder = DiagnosticBuilder::warning(text.span.clone(), message);
        context.report.push(
            builder.hint("end it after the port, unless the collector expects that: `# check: ok`"),
        );
    }
    if url.port() == Some(GRPC_PORT) {
        let message = "4317 is the usual port of OTLP over gRPC, and spans are sent over HTTP";
        let builder = DiagnosticBuilder::warning(text.span.clone(), message);
        context.report.push(builder.hint("that of OTLP over HTTP is 4318"));
    }
}
