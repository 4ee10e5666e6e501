//! Compiles `match` of a rule: what a request must have besides its path and method.

use std::str::FromStr as _;

use http::HeaderName;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TextsForm, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{self, MatchSection, QueryForm};
use crate::policy::apps::RuleApp;
use crate::policy::credential::CredentialRule;
use crate::policy::fronts::{FrontClass, Fronts};
use crate::policy::request_match::{MatchValues, RequestMatch, match_label};
use crate::policy::route::headers::{FROM_TRUSTED, NEGOTIATED, SUBSTITUTED, TRANSPORT, WITHHELD};

/// The most conditions of one rule.
pub const MAX_CONDITIONS: usize = 16;

/// The most values of one condition.
pub const MAX_VALUES: usize = 64;

/// The conditions of a rule for this app; none without `match`.
pub fn conditions(
    slot: &Setting<MatchSection>,
    app: &RuleApp,
    context: &mut CompileContext,
) -> RequestMatch {
    let Some(given) = slot.given() else {
        return RequestMatch { label: label(None, app).into(), ..RequestMatch::default() };
    };
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
    if query.len() + header.len() > MAX_CONDITIONS {
        let message = format!("`match` has more than {MAX_CONDITIONS} conditions");
        context.report.push(
            DiagnosticBuilder::error(given.span.clone(), message)
                .hint("keep those that tell its requests from all others"),
        );
    }
    let label = label(Some(&given.value), app);
    let query = query.iter().filter_map(|(name, value)| {
        if name.value.is_empty() {
            let builder = DiagnosticBuilder::error(name.span.clone(), "a parameter has no name");
            context.report.push(builder.hint("write query.action = \"trash\""));
            return None;
        }
        let values = values(value, context, |_, text| Some(text.value.as_str().into()));
        Some((name.value.as_str().into(), values))
    });
    let query = query.collect();
    let headers = header.iter().filter_map(|pair| self::header(pair, context)).collect();
    let hosts = host.given().map(|given| values(given, context, self::host)).unwrap_or_default();
    RequestMatch { query, headers, hosts, label: label.into() }
}

/// The conditions and the app for people. SECURITY: variables by their names, since it is shown to
/// callers of the admin API and in metrics.
fn label(section: Option<&MatchSection>, app: &RuleApp) -> String {
    let shown = |form: &'_ TextsForm| -> Vec<String> {
        form.0.iter().map(|text| text.value.shown().to_owned()).collect()
    };
    let table = |kind: &'static str, slot: &Setting<_>| -> Vec<(String, Vec<String>)> {
        let table: Option<&crate::config::decode::ValueTable> = slot.get();
        let pairs = table.map_or(&[][..], |table| &table.0);
        pairs
            .iter()
            .map(|(name, form)| (format!("{kind}.{}", name.value), shown(&form.value)))
            .collect()
    };
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    if let Some(section) = section {
        all.extend(table("query", &section.query));
        all.extend(table("header", &section.header));
        all.extend(section.host.get().map(|form| ("host".to_owned(), shown(form))));
    }
    all.extend(app.name.iter().map(|name| ("app".to_owned(), vec![name.to_string()])));
    match_label(
        all.iter()
            .map(|(name, values)| (name.clone(), values.iter().map(String::as_str).collect())),
    )
}

/// The values of a condition, each once.
fn values(
    form: &Located<TextsForm>,
    context: &mut CompileContext,
    read: impl Fn(&mut CompileContext, &Located<TomlString>) -> Option<Box<str>>,
) -> MatchValues {
    let texts = &form.value.0;
    if texts.is_empty() && context.report.source().is_empty_list(&form.span) {
        let builder = DiagnosticBuilder::error(form.span.clone(), "the list has no value");
        context.report.push(builder.hint("name a value, or remove the condition"));
    }
    if texts.len() > MAX_VALUES {
        let message = format!("the list has more than {MAX_VALUES} values");
        let builder = DiagnosticBuilder::error(form.span.clone(), message);
        context.report.push(builder.hint("write a second rule for the others"));
    }
    let mut values: Vec<Box<str>> = Vec::with_capacity(texts.len());
    for text in texts {
        let Some(value) = read(context, text) else { continue };
        if values.contains(&value) {
            let message = format!("`{}` is listed twice", text.value.shown());
            let builder = DiagnosticBuilder::error(text.span.clone(), message);
            context.report.push(builder.hint("remove one of the two"));
        }
        values.push(value);
    }
    values.sort_unstable();
    values.into()
}

fn header(
    (name, value): &(Located<String>, Located<TextsForm>),
    context: &mut CompileContext,
) -> Option<(HeaderName, MatchValues)> {
    let parsed = HeaderName::from_str(&name.value).ok();
    if parsed.is_none() {
        let message = format!("`{}` is not the name of a header", name.value);
        let builder = DiagnosticBuilder::error(name.span.clone(), message);
        context.report.push(builder.hint("write header.x-requested-with = \"XMLHttpRequest\""));
    }
    let values = values(value, context, |context, value| {
        let text = value.value.as_str();
        if text.trim() != text || text.bytes().any(|byte| byte.is_ascii_control()) {
            let what = "a header's value neither begins nor ends with white space";
            let hint = "remove the white space";
            context.report.malformed(value, "a header's value", what, None, hint);
        }
        Some(text.into())
    });
    Some((parsed?, values))
}

fn host(context: &mut CompileContext, host: &Located<TomlString>) -> Option<Box<str>> {
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

/// The other sections that the conditions of a route depend on.
pub struct MatchContext<'a> {
    /// `[credential]`.
    pub credential: &'a CredentialRule,
    /// `fronts`.
    pub fronts: Fronts,
    /// Whether one host stands for all, by `host_key`.
    pub joins_hosts: bool,
}

/// SECURITY: rejects conditions of a route on what its key cannot hold as it was sent, and those
/// that other keys of the route contradict.
pub(super) fn for_route(
    file: &file::RouteSection,
    shared: &MatchContext<'_>,
    context: &mut CompileContext,
) {
    let Some(section) = file.r#match.given().map(|given| &given.value) else { return };
    if let (true, Some(host)) = (shared.joins_hosts, section.host.given()) {
        let message = "`host_key` in [upstream] makes all hosts one, so that the origin does not \
                       see the host that this asks for";
        let builder = DiagnosticBuilder::error(host.span.clone(), message);
        context.report.push(builder.hint("remove one of the two"));
    }
    let headers = section.header.get().map_or(&[][..], |table| &table.0);
    for (name, form) in headers {
        let Ok(parsed) = HeaderName::from_str(&name.value) else { continue };
        unusable(&parsed, &name.span, shared, context);
        listed(file, &parsed, context);
        for text in form.value.0.iter().filter(|text| text.value.as_str().contains(',')) {
            never(
                &text.span,
                "some programs read a list where a header's value has a comma",
                context,
            );
        }
    }
    let texts = section.query.get().map_or(&[][..], |table| &table.0);
    left_out(file, texts, context);
    let stars = texts.iter().chain(headers).flat_map(|(_, form)| &form.value.0);
    for text in stars.filter(|text| text.value.as_str().contains('*')) {
        let message = "`*` stands for no other text here: a value is compared as it is";
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.hint("list the values: [\"list\", \"show\"]"));
    }
    let hosts = section.host.get().map_or(&[][..], |form| &form.0);
    let has_final_dot = |text: &&Located<TomlString>| {
        text.value.as_str().split(':').next().is_some_and(|name| name.ends_with('.'))
    };
    for text in hosts.iter().filter(has_final_dot) {
        never(&text.span, "some programs tell a host with a final dot from one without", context);
    }
}

/// Reports parameters that the route asks for and leaves out of the key.
fn left_out(
    file: &file::RouteSection,
    asked: &[(Located<String>, Located<TextsForm>)],
    context: &mut CompileContext,
) {
    let Some(QueryForm::Table(section)) = file.query.get() else { return };
    let except = section.except.given().map_or(&[][..], |except| &except.value.0);
    for text in except {
        if asked.iter().any(|(name, _)| *name.value == *text.value.as_str()) {
            let message = format!(
                "`{}` is left out, but `match` chooses the route by it",
                text.value.shown()
            );
            let hint = "it is part of the key: remove it from `except`";
            context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
        }
    }
}

/// Reports a value that no request has by every reading.
fn never(at: &SourceSpan, why: &str, context: &mut CompileContext) {
    let message = format!("no request can match this: {why}");
    context.report.push(DiagnosticBuilder::error(at.clone(), message).hint("write another value"));
}

/// Reports a header that is not in the key as it was sent, or that says who asks.
fn unusable(
    name: &HeaderName,
    at: &SourceSpan,
    shared: &MatchContext<'_>,
    context: &mut CompileContext,
) {
    let text = name.as_str();
    let is_caller = [http::header::AUTHORIZATION, http::header::COOKIE].contains(name)
        || shared.credential.headers.contains(name)
        || shared.fronts.is_identity(text);
    let (why, hint) = if is_caller {
        ("says who asks", "use `scope`, or a field in `key`")
    } else if text == "host" {
        ("is a condition of its own", "write match = { host = \"app.example.com\" }")
    } else if NEGOTIATED.contains(&text) {
        ("is in the key in a normal form", "leave it out: the key tells its values apart")
    } else if FROM_TRUSTED.contains(&text) {
        ("counts from trusted proxies alone", "match the host, or a header of the client")
    } else if TRANSPORT.contains(&text)
        || SUBSTITUTED.contains(&text)
        || WITHHELD.contains(&text)
        || shared.fronts.of_class(FrontClass::Address).any(|known| known == text)
    {
        ("does not reach the origin on a fill as it was sent", "match something else")
    } else {
        return;
    };
    let message = format!("a route cannot be chosen by `{text}`, which {why}");
    context.report.push(DiagnosticBuilder::error(at.clone(), message).hint(hint));
}

/// Reports a header that the route asks for and withholds, or passes without a place in the key.
fn listed(file: &file::RouteSection, name: &HeaderName, context: &mut CompileContext) {
    for (key, list) in [("drop_headers", &file.drop_headers), ("pass_headers", &file.pass_headers)]
    {
        let texts = list.get().map_or(&[][..], |list| &list.0);
        let is_it = |text: &&Located<TomlString>| {
            super::headers::glob(text.value.as_str()).matches(name.as_ref())
        };
        for text in texts.iter().filter(is_it) {
            let message = format!("`{name}` is in {key}, but `match` chooses the route by it");
            let hint = format!("it is part of the key: remove it from {key}");
            context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
        }
    }
}
