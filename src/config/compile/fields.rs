//! Compiles `[fields]`: each field has exactly one source. Tracks which fields the rules use.

use std::cell::Cell;
use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::credential::cookie_name;
use super::identity;
use super::jwt;
use super::pointer::pointer;
use super::session_fields;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, NamedTable, Setting, TomlString, UnknownKeys};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{FieldForm, IdentitySection};
use crate::config::keywords::AuthKind;
use crate::policy::field::{Auth, ClientPrefix, Field, FieldSource};
use crate::policy::session::SessionRules;

const SOURCES: &str = "one of header, cookie, query, path, host, auth, client, body, jwt, identity";
const SHORTEST_PREFIX: u64 = 8;
const LONGEST_PREFIX: u64 = 512;
/// The network that a customer of an Internet provider usually has.
const DEFAULT_V6_PREFIX: u8 = 56;

/// The fields of the file.
pub struct FieldTable {
    declared: Vec<Declared>,
    /// Whether the table is complete. If not, an unknown name may be a field that another error has
    /// hidden.
    complete: bool,
}

struct Declared {
    name: Arc<str>,
    span: SourceSpan,
    // None if it is invalid, which has been reported.
    field: Option<Arc<Field>>,
    used: Cell<bool>,
}

/// The result of looking up a name.
pub enum FieldLookup {
    /// The field.
    Found(Arc<Field>),
    /// A field with an error, or one that another error may have hidden.
    Lost,
    /// Not a field.
    Unknown,
}

impl FieldTable {
    /// Compiles the section.
    pub fn compile(
        named: Option<&NamedTable<FieldForm>>,
        section: &Setting<IdentitySection>,
        context: &mut CompileContext,
    ) -> Self {
        let mut declared = Vec::new();
        for (name, form) in named.map_or(&[][..], |named| &named.0) {
            let valid = is_name(&name.value);
            if !valid {
                let builder = DiagnosticBuilder::error(
                    name.span.clone(),
                    format!("`{}` is not a valid name of a field", name.value),
                );
                context.report.push(
                    builder
                        .allowed("letters, digits, `_` and `-`, beginning with a letter")
                        .hint("keys and tags refer to it as {name}"),
                );
            }
            let source = form.given().and_then(|form| source(form, section, context));
            let name_text: Arc<str> = name.value.as_str().into();
            if let Some(FieldSource::Auth(Auth::Prefix(_))) = source {
                let message = format!(
                    "`{name_text}` uses only the start of a token, but tokens of one issuer start \
                     alike (JWTs for 48 to 155 characters)"
                );
                let hint = format!(
                    "write {name_text} = {{ auth = \"token\" }}: if a token looks like a JWT, or \
                     in scope \"private\", all of it counts anyway"
                );
                context
                    .report
                    .push(DiagnosticBuilder::warning(name.span.clone(), message).hint(hint));
            }
            let field =
                source.filter(|_| valid).map(|source| Arc::new(Field::new(&name_text, source)));
            declared.push(Declared {
                name: name_text,
                span: name.span.clone(),
                field,
                used: Cell::new(false),
            });
        }
        let lost = named.is_none() || context.report.has_broken_header();
        let section_broken =
            declared.iter().any(|field| context.report.may_have_lost_keys(&field.span));
        Self { declared, complete: !lost && !section_broken }
    }

    /// The field of this name.
    pub fn lookup(&self, name: &str) -> FieldLookup {
        match self.declared.iter().find(|declared| *declared.name == *name) {
            Some(declared) => {
                declared.used.set(true);
                declared
                    .field
                    .as_ref()
                    .map_or(FieldLookup::Lost, |field| FieldLookup::Found(Arc::clone(field)))
            }
            None if self.complete => FieldLookup::Unknown,
            None => FieldLookup::Lost,
        }
    }

    /// Whether the file declares this name.
    pub fn declares(&self, name: &str) -> bool {
        self.declared.iter().any(|declared| *declared.name == *name)
    }

    /// All declared names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|declared| &*declared.name)
    }

    /// The signed session cookies that fields read.
    pub fn sessions(&self) -> SessionRules {
        let fields = self.declared.iter().filter_map(|declared| declared.field.as_deref());
        let rules = fields.filter_map(|field| match &field.source {
            FieldSource::Session(rule) => Some(Arc::clone(rule)),
            _ => None,
        });
        SessionRules(rules.collect())
    }

    /// Warns about fields that no rule uses.
    pub fn warn_unused(&self, context: &mut CompileContext) {
        for declared in self.declared.iter().filter(|declared| !declared.used.get()) {
            let message = format!("the field `{}` is not used", declared.name);
            context.report.push(
                DiagnosticBuilder::warning(declared.span.clone(), message)
                    .hint("use it in the key or the tags of a rule, or remove it"),
            );
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The one source of a field.
fn source(
    form: &Located<FieldForm>,
    section: &Setting<IdentitySection>,
    context: &mut CompileContext,
) -> Option<FieldSource> {
    let FieldForm {
        header,
        cookie,
        query,
        path,
        host,
        auth,
        length,
        client,
        prefix,
        body,
        jwt,
        identity: said,
        format,
        pointer: _,
        secret: _,
        max_age: _,
        ignore: _,
        unknown,
    } = &form.value;
    // Beside `jwt`, a cookie is where the token is.
    let own_cookie = if matches!(jwt, Setting::Absent) { cookie } else { &Setting::Absent };
    let texts = [header, own_cookie, query, path, body, jwt, said]
        .map(|slot| !matches!(slot, Setting::Absent));
    let others = [
        !matches!(host, Setting::Absent),
        !matches!(auth, Setting::Absent),
        !matches!(client, Setting::Absent),
    ];
    let given = texts.iter().chain(&others).filter(|given| **given).count();
    if given != 1 {
        report_sources(given, (&form.span, unknown), context);
        return None;
    }
    report_misplaced(&form.value, context);
    if jwt.given().or(said.given()).is_some() {
        return told_source((jwt, said), cookie, section, context);
    }
    if session_fields::reports_foreign_keys(&form.value, context) {
        return None;
    }
    if !matches!(format, Setting::Absent) {
        return session_fields::session(form, context).map(FieldSource::Session);
    }
    if client.given().is_some() {
        return client_prefix(prefix, context).map(FieldSource::Client);
    }
    if let Some(host) = host.given() {
        if !host.value {
            context.report.push(
                DiagnosticBuilder::error(host.span.clone(), "`host` cannot be false")
                    .allowed("true")
                    .hint("write { host = true }"),
            );
        }
        return host.value.then_some(FieldSource::Host);
    }
    if let Some(auth) = auth.given() {
        return auth_source(auth.value.0, length, form, context).map(FieldSource::Auth);
    }
    if let Some(text) = header.given() {
        return header_source(text, context);
    }
    if let Some(text) = cookie.given() {
        return cookie_name(context, text).map(FieldSource::Cookie);
    }
    if let Some(text) = query.given() {
        return named(text, "a query parameter", context).map(FieldSource::Query);
    }
    if let Some(text) = path.given() {
        return named(text, "a capture", context).map(FieldSource::Path);
    }
    body.given().and_then(|text| pointer(text, context)).map(FieldSource::Body)
}

/// The source of a field that somebody else tells: a token, or the app.
fn told_source(
    (claim, said): (&Setting<TomlString>, &Setting<TomlString>),
    cookie: &Setting<TomlString>,
    section: &Setting<IdentitySection>,
    context: &mut CompileContext,
) -> Option<FieldSource> {
    match claim.given() {
        Some(claim) => jwt::field_source(&pointer(claim, context)?, cookie, context),
        None => identity::field_source(pointer(said.given()?, context), section),
    }
}

/// Reports keys that are only for another source.
fn report_misplaced(form: &FieldForm, context: &mut CompileContext) {
    let FieldForm { auth, length, client, prefix, .. } = form;
    if let Some(length) = length.given().filter(|_| {
        !matches!(auth, Setting::Bad) && auth.get().is_none_or(|word| word.0 != AuthKind::Prefix)
    }) {
        let builder =
            DiagnosticBuilder::error(length.span.clone(), "`length` is only for auth = \"prefix\"");
        context.report.push(builder.hint("remove it"));
    }
    if let (Some(prefix), Setting::Absent) = (prefix.given(), client) {
        let builder = DiagnosticBuilder::error(
            prefix.span.clone(),
            "`prefix` is only for client = \"address\"",
        );
        context.report.push(builder.hint("remove it"));
    }
}

/// Reports a field with no source, or with more than one.
fn report_sources(
    given: usize,
    (span, unknown): (&SourceSpan, &UnknownKeys),
    context: &mut CompileContext,
) {
    let message =
        if given == 0 { "this field has no source" } else { "this field has more than one source" };
    if given > 1 || (unknown.0.is_empty() && !context.report.may_have_lost_keys(span)) {
        let builder = DiagnosticBuilder::error(span.clone(), message).allowed(SOURCES);
        context.report.push(builder.hint(
            "write exactly one, as in { header = \"x-tenant-id\" \
            }; a key may have several fields",
        ));
    }
}

fn auth_source(
    kind: AuthKind,
    length: &Setting<crate::config::decode::Count>,
    form: &Located<FieldForm>,
    context: &mut CompileContext,
) -> Option<Auth> {
    if kind == AuthKind::Token {
        return Some(Auth::Token);
    }
    let place = (&form.span, &form.value.unknown);
    let length = length.required(
        "length",
        place,
        "the number of characters: { auth = \"prefix\", length = 20 }",
        &mut context.report,
    )?;
    let range = (SHORTEST_PREFIX, LONGEST_PREFIX);
    let fits = context
        .in_range(&length.span, length.value.0, range.0, range.1, |number| number.to_string());
    usize::try_from(length.value.0).ok().filter(|_| fits).map(Auth::Prefix)
}

/// How much of the client's address counts: `/24`, or `/24,/56` for both families.
fn client_prefix(slot: &Setting<TomlString>, context: &mut CompileContext) -> Option<ClientPrefix> {
    let text = match slot {
        Setting::Absent => return Some(ClientPrefix::WHOLE),
        slot => slot.given()?,
    };
    let length = |part: &str, most: u8| {
        let digits = part.trim().strip_prefix('/')?;
        // `+8` and `08` parse as numbers, but are most likely mistakes.
        let length = digits.parse::<u8>().ok().filter(|length| length.to_string() == digits)?;
        (1..=most).contains(&length).then_some(length)
    };
    let parsed = match text.value.as_str().split_once(',') {
        Some((v4, v6)) => length(v4, 32).zip(length(v6, 128)),
        None => length(text.value.as_str(), 32).map(|v4| (v4, DEFAULT_V6_PREFIX)),
    };
    if parsed.is_none() {
        let what = format!("`{}` is not a prefix of addresses", text.value.shown());
        let allowed = Some("/1 to /32 for IPv4; after a comma, /1 to /128 for IPv6");
        let hint = "write \"/24\", by which IPv6 counts as /56, or \"/24,/48\"";
        context.report.malformed(text, "a prefix of addresses", what, allowed, hint);
    }
    parsed.map(|(v4, v6)| ClientPrefix { v4, v6 })
}

/// SECURITY: values of fields appear in keys, tags and diagnostics, so credentials must be hashed.
fn header_source(text: &Located<TomlString>, context: &mut CompileContext) -> Option<FieldSource> {
    if text.value.as_str().eq_ignore_ascii_case("host") {
        context.report.push(
            DiagnosticBuilder::error(text.span.clone(), "the host has a source of its own")
                .hint("write { host = true }"),
        );
        return None;
    }
    let name: HeaderName = context.header(text)?;
    let hint = match &name {
        name if name == AUTHORIZATION => "write { auth = \"token\" }, which is hashed",
        name if name == COOKIE => "write { cookie = \"name\" }, which reads one cookie",
        _ => return Some(FieldSource::Header(name)),
    };
    context.report.push(
        DiagnosticBuilder::error(text.span.clone(), "this header holds credentials").hint(hint),
    );
    None
}

fn named(text: &Located<TomlString>, kind: &str, context: &mut CompileContext) -> Option<Box<str>> {
    if text.value.as_str().is_empty() {
        context.report.push(
            DiagnosticBuilder::error(text.span.clone(), format!("the name of {kind} is empty"))
                .hint("write its name"),
        );
        return None;
    }
    Some(text.value.as_str().into())
}
