//! Compiles `match` of a rule: what a request must have besides its path and method.

use std::str::FromStr as _;

use http::HeaderName;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file::MatchSection;
use crate::policy::request_match::RequestMatch;

/// The conditions of a rule; none without `match`.
pub fn conditions(slot: &Setting<MatchSection>, context: &mut CompileContext) -> RequestMatch {
    let Some(given) = slot.given() else { return RequestMatch::default() };
    let MatchSection { query, header, host, unknown } = &given.value;
    let is_bad = matches!(query, Setting::Bad) || matches!(header, Setting::Bad);
    let query = query.get().map_or(&[][..], |table| &table.0);
    let header = header.get().map_or(&[][..], |table| &table.0);
    let is_empty = query.is_empty() && header.is_empty() && matches!(host, Setting::Absent);
    let may_be_lost = is_bad || !unknown.0.is_empty();
    if is_empty && !may_be_lost && !context.report.may_have_lost_keys(&given.span) {
        let builder = DiagnosticBuilder::error(given.span.clone(), "`match` has no conditions");
        context.report.push(
            builder.hint("write match = { query.action = \"trash\" }, or remove it to match all"),
        );
    }
    let query = query.iter().filter_map(|(name, value)| {
        if name.value.is_empty() {
            let builder = DiagnosticBuilder::error(name.span.clone(), "a parameter has no name");
            context.report.push(builder.hint("write query.action = \"trash\""));
            return None;
        }
        Some((name.value.as_str().into(), value.value.as_str().into()))
    });
    let query = query.collect();
    let headers = header.iter().filter_map(|pair| self::header(pair, context)).collect();
    RequestMatch { query, headers, host: host.given().and_then(|host| self::host(host, context)) }
}

fn header(
    (name, value): &(Located<String>, Located<TomlString>),
    context: &mut CompileContext,
) -> Option<(HeaderName, Box<str>)> {
    let parsed = HeaderName::from_str(&name.value).ok();
    if parsed.is_none() {
        let message = format!("`{}` is not the name of a header", name.value);
        let builder = DiagnosticBuilder::error(name.span.clone(), message);
        context.report.push(builder.hint("write header.x-requested-with = \"XMLHttpRequest\""));
    }
    let text = value.value.as_str();
    if text.trim() != text || text.bytes().any(|byte| byte.is_ascii_control()) {
        let what = "a header's value neither begins nor ends with white space";
        context.report.malformed(value, "a header's value", what, None, "remove the white space");
    }
    Some((parsed?, text.into()))
}

fn host(host: &Located<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let text = host.value.as_str();
    let port = text.rsplit_once(':').filter(|_| !text.ends_with(']')).map(|(_, port)| port);
    let valid = !text.is_empty()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#*,".contains(&byte));
    if !valid {
        let what = format!("`{}` is not a host", host.value.shown());
        let allowed = Some("a name or an address, perhaps with a port");
        context.report.malformed(host, "a host", what, allowed, "write \"app.example.com\"");
    }
    valid.then(|| text.to_ascii_lowercase().into())
}
