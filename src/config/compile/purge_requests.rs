//! Compiles `[purge_requests]`.

use super::sections::network;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::policy::purge_request::PurgeRequestRule;

/// Compiles it. `trusts_nobody`: there are no trusted proxies.
pub fn purge_requests(
    file: &file::PurgeRequestsSection,
    span: &SourceSpan,
    trusts_nobody: bool,
    context: &mut CompileContext,
) -> Option<PurgeRequestRule> {
    let networks = file.from.get().map_or(&[][..], |list| &list.0);
    let from: Vec<_> = networks.iter().filter_map(|text| network(text, context)).collect();
    let header = file.token_header.given();
    let token_header = match header {
        Some(text) => context.header(text)?,
        None => http::HeaderName::from_static("x-purge-token"),
    };
    let token = match file.token.given() {
        Some(text) => Some(context.secret(&text.span, text.value.as_str())?),
        None => None,
    };
    let is_open = from.is_empty() && networks.is_empty() && !matches!(file.from, Setting::Bad);
    if is_open && token.is_none() && !matches!(file.token, Setting::Bad) {
        let message = "anybody could purge: neither `from` nor `token` is given";
        context.report.push(
            DiagnosticBuilder::error(span.clone(), message)
                .allowed("from, token, or both")
                .hint("write from = [\"127.0.0.1\"], or token = \"${PURGE_TOKEN}\""),
        );
    }
    let everybody = |text: &&Located<TomlString>| text.value.as_str().ends_with("/0");
    let local = |text: &&Located<TomlString>| {
        let ip = text.value.as_str().split('/').next().unwrap_or_default();
        ip.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    if let (None, true, Some(text)) = (&token, trusts_nobody, networks.iter().find(local)) {
        let message = "a proxy on this machine may send everybody's PURGE from this address";
        let builder = DiagnosticBuilder::warning(text.span.clone(), message);
        context.report.push(builder.hint(
            "add token = \"${PURGE_TOKEN}\", or name the proxy in listen.trusted_proxies and let \
             it send X-Forwarded-For",
        ));
    }
    if let (None, Some(text)) = (&token, networks.iter().find(everybody)) {
        let message = "every address may purge, and no token is asked for";
        let builder = DiagnosticBuilder::warning(text.span.clone(), message);
        context.report.push(builder.hint("name the addresses, or add token = \"${PURGE_TOKEN}\""));
    }
    Some(PurgeRequestRule::new(from.into(), token.as_ref(), token_header))
}
