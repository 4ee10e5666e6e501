//! Compiles `[identity]`, and the fields that come from what the app says of a caller.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, NamedTable, Setting, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::{FieldForm, IdentitySection, RouteSection};
use crate::policy::field::{Field, FieldSource};
use crate::policy::identity::{IdentityField, IdentitySettings};
use crate::policy::route::RouteSpec;
use crate::policy::scope::Scope;
use crate::policy::template::Template;

const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(10));
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));

/// The section; none where it is invalid.
pub fn identity(
    file: &IdentitySection,
    section: &SourceSpan,
    context: &mut CompileContext,
) -> Option<IdentitySettings> {
    let place = (section, &file.unknown);
    let example = "where the app tells a caller who it is: path = \"/api/v1/me\"";
    let ttl = context.period(&file.ttl, TTL.0, TTL.1);
    let retry = context.period(&file.retry, RETRY.0, RETRY.1);
    let timeout = context.period(&file.timeout, TIMEOUT.0, TIMEOUT.1);
    let callers = context.count(&file.callers, 1, 1_000_000);
    let probes = context.count(&file.probes, 1, 10_000);
    let text = file.path.required("path", place, example, &mut context.report)?;
    let path = path(text, context)?;
    Some(IdentitySettings { path, ttl, retry, timeout, callers, probes })
}

/// A path of the app, with its query.
fn path(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Arc<str>> {
    let value = text.value.as_str();
    let is_path = value.starts_with('/')
        && !value.starts_with("//")
        && !value.contains(['#', '{', '}'])
        && PathAndQuery::try_from(value).is_ok();
    if is_path {
        return Some(value.into());
    }
    let what = format!("`{}` is not a path of the app", text.value.shown());
    let allowed = Some("a path that begins with one `/`, as it goes to the app, without captures");
    let hint = "write it as in \"/api/v1/me\"; it is asked at [upstream] url";
    context.report.malformed(text, "a path", what, allowed, hint);
    None
}

/// The source of a field with this pointer as `identity`.
pub(super) fn field_source(
    pointer: Option<Box<str>>,
    section: &Setting<IdentitySection>,
) -> Option<FieldSource> {
    // A section without a path has been reported.
    let path = section.get()?.path.get()?.as_str().into();
    Some(FieldSource::Identity(IdentityField { pointer: pointer?.into(), path }))
}

/// Reports fields that come from what the app says where nothing says how it is asked.
pub fn check_fields(
    section: &Setting<IdentitySection>,
    fields: Option<&NamedTable<FieldForm>>,
    context: &mut CompileContext,
) {
    if !matches!(section, Setting::Absent) || context.report.has_broken_header() {
        return;
    }
    let forms = fields.map_or(&[][..], |fields| &fields.0);
    for given in forms.iter().filter_map(|(_, form)| form.given()?.value.identity.given()) {
        let message = "this field is what the app says of the caller, and there is no [identity] \
                       to ask it by";
        let builder = DiagnosticBuilder::error(given.span.clone(), message);
        context.report.push(
            builder
                .hint("add [identity] with path = \"/…\", where the app tells a caller who it is"),
        );
    }
}

/// Reports a route that withholds from the app what it is asked about.
pub(super) fn check_scope(file: &RouteSection, spec: &RouteSpec, context: &mut CompileContext) {
    if spec.scope != Scope::Public {
        return;
    }
    let tags = spec.tags.iter().flat_map(Template::fields);
    let is_identity = |field: &&Arc<Field>| field.identity().is_some();
    let Some(field) = spec.key.iter().chain(tags).find(is_identity) else { return };
    let Some(scope) = file.scope.given() else { return };
    let message = format!(
        "scope \"public\" withholds the credential from the app, so its response cannot depend on \
         `{}`, which the app is asked for",
        field.name
    );
    let builder = DiagnosticBuilder::error(scope.span.clone(), message);
    context
        .report
        .push(builder.hint("write scope = \"shared\", or take the field out of `key` and `tags`"));
}
