//! Compiles `[[routes]]` and `[[purges]]`, and judges them against each other: ties, fields that
//! nobody defines, rules that leak.

use std::cell::RefCell;
use std::collections::HashSet;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, header};

use super::CompileContext;
use super::fields::{FieldLookup, FieldTable};
use super::freshness::freshness_settings;
use crate::config::decode::{Located, Period, Setting, TomlList, TomlString, UnknownKeys, nearest};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::config::schema::QueryForm;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::purge_rule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::{Collapse, Pattern, QueryRule, RouteMode, RouteSpec};
use crate::policy::scope::Scope;
use crate::policy::tag::Template;
use crate::semantics::storability::OriginRule;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);
const MAX_REPURGES: usize = 8;

/// A route and where its path stands.
pub struct CompiledRoute {
    /// What it says.
    pub spec: RouteSpec,
    path: SourceSpan,
}

/// What routes are compiled against.
pub struct RouteContext<'a> {
    /// `[fields]`.
    pub fields: &'a FieldTable,
    /// `[credential]`.
    pub credential: &'a CredentialRule,
    /// What `[redis]` says of collapsing; nothing without `[redis]`.
    pub collapse: Option<Collapse>,
    /// The switch for all routes.
    pub mode: RouteMode,
}

/// A purge rule.
pub struct CompiledPurge {
    /// What it says.
    pub rule: PurgeRule,
}

/// The names that one rule may use: declared fields and its own captures.
struct RuleNames<'a> {
    fields: &'a FieldTable,
    // The path as it is written, when it can be read at all: what it spells may be meant as a
    // capture.
    path: Option<&'a TomlString>,
    pattern: Option<&'a Pattern>,
    captures: Vec<Arc<Field>>,
    for_purge: bool,
}

/// Compiles the routes; those whose path is wrong are left out, but everything in them is looked
/// at.
pub fn routes(
    list: Option<&TomlList<file::RouteSection>>,
    around: &RouteContext<'_>,
    context: &mut CompileContext,
) -> Vec<CompiledRoute> {
    let mut routes: Vec<CompiledRoute> = Vec::new();
    for route in list.map_or(&[][..], |list| &list.0) {
        if let Some(route) = self::route(route, around, context) {
            if let Some(earlier) =
                routes.iter().find(|earlier| earlier.spec.pattern.same_shape(&route.spec.pattern))
            {
                tie(earlier, &route, context);
            }
            routes.push(route);
        }
    }
    routes
}

fn tie(earlier: &CompiledRoute, later: &CompiledRoute, context: &mut CompileContext) {
    let line = context.report.source().line(earlier.path.start);
    let (message, hint) = if earlier.spec.pattern.as_str() == later.spec.pattern.as_str() {
        (format!("the route of line {line} has the same path"), "remove one of the two")
    } else {
        // SECURITY: the earlier path is read from the source, where values of the environment do
        // not stand.
        let path = context.report.source().shown(&earlier.path);
        (
            format!(
                "this path and {path} in line {line} match the same requests, and neither is more specific"
            ),
            "make one of them more specific, or merge the two",
        )
    };
    context.report.push(DiagnosticBuilder::error(later.path.clone(), message).hint(hint));
}

fn pattern(
    slot: &Setting<TomlString>,
    table: (&SourceSpan, &UnknownKeys),
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Option<Pattern> {
    let text = slot.required("path", table, "path = \"/api/…\"", &mut context.report)?;
    let pattern = match Pattern::parse(text.value.as_str()) {
        Ok(pattern) => pattern,
        Err(error) => {
            context.report.malformed(text, "a path", &error.what, None, &error.hint);
            return None;
        }
    };
    for capture in pattern.captures().filter(|capture| fields.declares(capture)) {
        let at = context.report.source().within(&text.span, capture);
        let message = if text.value.is_from_environment() {
            "a capture has".to_owned()
        } else {
            format!("the capture `{capture}` has")
        };
        let draft =
            DiagnosticBuilder::error(at, format!("{message} the name of a field in [fields]"));
        context.report.push(draft.hint("captures are fields by their name; rename one of the two"));
    }
    Some(pattern)
}

fn route(
    located: &Located<file::RouteSection>,
    around: &RouteContext<'_>,
    context: &mut CompileContext,
) -> Option<CompiledRoute> {
    let (file, fields) = (&located.value, around.fields);
    let pattern = pattern(&file.path, (&located.span, &file.unknown), fields, context);
    let names = RuleNames::new(fields, &file.path, pattern.as_ref(), false);
    let key = file
        .key
        .get()
        .map(|list| {
            context.names(&list.0, |context, text| names.field(text.value.as_str(), text, context))
        })
        .unwrap_or_default();
    let tags = names.templates(&file.tags, context);
    let has_path = pattern.is_some();
    let timing = freshness_settings(file, around.collapse, context);
    let admit_for = context.period(&file.admit_for, MS, DAY);
    let query = query(file.query.get()?, context);
    let spec = RouteSpec {
        line: context.report.source().line(located.span.start),
        mode: file.mode.get().map_or(RouteMode::On, |word| word.0).and(around.mode),
        audit: file.audit.get().map_or(0.0, |share| share.0),
        ttl: timing.ttl,
        origin: file.origin.get().map_or(OriginRule::Respect, |word| word.0),
        stale_while_revalidate: timing.stale_while_revalidate,
        stale_if_error: timing.stale_if_error,
        jitter: timing.jitter,
        early_refresh: timing.early_refresh,
        collapse: timing.collapse,
        strip_set_cookie: file.strip_set_cookie.get().copied().unwrap_or_default(),
        scope: file.scope.get().map_or(Scope::Private, |word| word.0),
        key: key.into(),
        query,
        tags,
        drop_headers: context.headers(&file.drop_headers),
        pass_headers: context.headers(&file.pass_headers),
        unknown_headers: file.unknown_headers.get().map(|word| word.0)?,
        admit_for,
        client_cache_control: file.client_cache_control.get().map(|word| word.0)?,
        pattern: match pattern {
            Some(pattern) => pattern,
            // The path has been reported; the rest of the route is still judged.
            None => Pattern::parse("/").ok()?,
        },
    };
    headers(file, &spec, context);
    credentials(file, &spec, around.credential, context);
    if let (OriginRule::Ignore, None, Some(origin)) = (spec.origin, spec.ttl, file.origin.given()) {
        let draft = DiagnosticBuilder::warning(
            origin.span.clone(),
            "origin = \"ignore\" has no effect without a `ttl`",
        );
        context.report.push(draft.hint("add ttl = \"5m\""));
    }
    if let (false, Some(given)) = (spec.scope == Scope::Shared, file.admit_for.given()) {
        let draft = DiagnosticBuilder::warning(
            given.span.clone(),
            "`admit_for` has no effect outside scope \"shared\"",
        );
        context.report.push(draft.hint("remove it"));
    }
    let path = file.path.given()?.span.clone();
    has_path.then_some(CompiledRoute { spec, path })
}

fn query(form: &QueryForm, context: &mut CompileContext) -> QueryRule {
    match form {
        QueryForm::All => QueryRule::All,
        QueryForm::None => QueryRule::None,
        QueryForm::Only(list) => QueryRule::Only(
            context.names(&list.0, |_, text| Some(Box::from(text.value.as_str()))).into(),
        ),
    }
}

/// The fields that tell a route's entries apart, those of its tags included.
fn key_fields(spec: &RouteSpec) -> impl Iterator<Item = &Arc<Field>> {
    spec.key.iter().chain(spec.tags.iter().flat_map(Template::fields))
}

/// Headers that a route treats in two ways at once.
fn headers(file: &file::RouteSection, spec: &RouteSpec, context: &mut CompileContext) {
    for text in file.drop_headers.get().map_or(&[][..], |list| &list.0) {
        let Ok(name) = HeaderName::from_str(text.value.as_str()) else { continue };
        let shown = text.value.shown();
        if spec.pass_headers.contains(&name) {
            let draft = DiagnosticBuilder::error(
                text.span.clone(),
                format!("`{shown}` is in drop_headers and in pass_headers"),
            );
            context.report.push(draft.hint("remove it from one of the two"));
        }
        if let Some(field) = key_fields(spec).find(|field| field.header() == Some(&name)) {
            let message = format!(
                "`{shown}` is withheld from the app, but the field `{}` in the key or tags reads it",
                field.name
            );
            let hint = "what is in the key reaches the app: remove it from drop_headers, or the field from the rule";
            context.report.push(DiagnosticBuilder::error(text.span.clone(), message).hint(hint));
        }
    }
}

/// SECURITY: rules under which one caller's credential would fill what others are given.
fn credentials(
    file: &file::RouteSection,
    spec: &RouteSpec,
    credential: &CredentialRule,
    context: &mut CompileContext,
) {
    let identifies = |name: &HeaderName| {
        *name == header::AUTHORIZATION
            || *name == header::COOKIE
            || credential.headers.contains(name)
    };
    let is_credential = |field: &Arc<Field>| match &field.source {
        FieldSource::Auth(_) => true,
        FieldSource::Header(name) => credential.headers.contains(name),
        _ => false,
    };
    if spec.scope == Scope::Public
        && let Some(field) = key_fields(spec).find(|field| is_credential(field))
        && let Some(scope) = file.scope.given()
    {
        let message = format!(
            "scope \"public\" withholds credentials, but the field `{}` in the key or tags is one",
            field.name
        );
        context.report.push(
            DiagnosticBuilder::error(scope.span.clone(), message)
                .hint("use scope \"shared\" or \"private\", or remove the field"),
        );
    }
    let by_name = |list: &Setting<TomlList<TomlString>>| -> Vec<SourceSpan> {
        let texts = list.get().map_or(&[][..], |list| &list.0);
        let named = |text: &&Located<TomlString>| {
            HeaderName::from_str(text.value.as_str()).is_ok_and(|name| identifies(&name))
        };
        texts.iter().filter(named).map(|text| text.span.clone()).collect()
    };
    if spec.scope == Scope::Public {
        for at in by_name(&file.pass_headers) {
            let draft = DiagnosticBuilder::error(
                at,
                "scope \"public\" withholds credentials, so this header cannot be let through",
            );
            context.report.push(
                draft.hint(
                    "remove it: the app would fill everybody's entry with one caller's answer",
                ),
            );
        }
    }
    let chosen = spec.key.iter().any(is_credential);
    if spec.scope == Scope::Shared && !chosen {
        for at in by_name(&file.drop_headers) {
            let draft = DiagnosticBuilder::error(
                at,
                "scope \"shared\" needs this header at the app: its answer is what admits the caller",
            );
            context.report.push(
                draft.hint("remove it, or use scope \"public\" when everyone may see the response"),
            );
        }
    }
}

/// Compiles the purge rules.
pub fn purges(
    list: Option<&TomlList<file::PurgeSection>>,
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Vec<CompiledPurge> {
    list.map_or(&[][..], |list| &list.0)
        .iter()
        .filter_map(|located| purge(located, fields, context))
        .collect()
}

fn purge(
    located: &Located<file::PurgeSection>,
    fields: &FieldTable,
    context: &mut CompileContext,
) -> Option<CompiledPurge> {
    let file = &located.value;
    let pattern = pattern(&file.path, (&located.span, &file.unknown), fields, context);
    let names = RuleNames::new(fields, &file.path, pattern.as_ref(), true);
    let given = file.tags.required(
        "tags",
        (&located.span, &file.unknown),
        "tags = [\"…\"]",
        &mut context.report,
    );
    if let Some(empty) = given
        .filter(|tags| tags.value.0.is_empty() && context.report.source().is_empty_list(&tags.span))
    {
        let draft = DiagnosticBuilder::error(
            empty.span.clone(),
            "a purge rule without tags purges nothing",
        );
        context.report.push(
            draft
                .allowed("at least one tag")
                .hint("name the tags of the routes that show this data"),
        );
    }
    let tags = names.templates(&file.tags, context);
    let methods = match &file.methods {
        Setting::Absent => None,
        slot => {
            Some(slot.get().map(|list| context.names(&list.0, method)).unwrap_or_default().into())
        }
    };
    if let Some(empty) =
        file.methods.given().filter(|methods| context.report.source().is_empty_list(&methods.span))
    {
        let draft = DiagnosticBuilder::error(
            empty.span.clone(),
            "a purge rule without methods never applies",
        );
        context
            .report
            .push(draft.hint("remove the key: every method that is not safe is meant then"));
    }
    let repurge_after = repurges(&file.repurge_after, context);
    let guard = file.guard.get()?.0;
    let line = context.report.source().line(located.span.start);
    Some(CompiledPurge {
        rule: PurgeRule { line, pattern: pattern?, methods, tags, guard, repurge_after },
    })
}

fn method(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Method> {
    let shown = text.value.shown();
    let upper = text.value.as_str().to_ascii_uppercase();
    let parsed = Method::from_str(text.value.as_str()).ok();
    let (what, hint) = match &parsed {
        None => (format!("`{shown}` is not a method"), "write it as \"POST\"".to_owned()),
        Some(_) if text.value.as_str() != upper => {
            (format!("methods are in capitals, `{shown}` is not"), format!("write \"{upper}\""))
        }
        Some(method) if purge_rule::is_safe(method) || *method == Method::CONNECT => {
            (format!("`{shown}` changes nothing, so it never purges"), "remove it".to_owned())
        }
        Some(_) => return parsed,
    };
    context.report.malformed(
        text,
        "a method that changes data",
        what,
        Some("methods that change data, such as POST, PUT, PATCH, DELETE"),
        &hint,
    );
    None
}

fn repurges(slot: &Setting<TomlList<Period>>, context: &mut CompileContext) -> Box<[Duration]> {
    let list = slot.get().map_or(&[][..], |list| &list.0);
    if let (Some(given), true) = (slot.given(), list.len() > MAX_REPURGES) {
        let draft = DiagnosticBuilder::error(
            given.span.clone(),
            format!("these are {} times to purge again", list.len()),
        );
        context.report.push(
            draft
                .allowed(format!("at most {MAX_REPURGES}"))
                .hint("leave out those that matter least"),
        );
    }
    let (mut seen, mut times) = (HashSet::new(), Vec::new());
    for period in list {
        let fits =
            context.in_range(&period.span, period.value.0, MS, DAY, crate::units::show_duration);
        if fits && !seen.insert(period.value.0) {
            context.report.push(
                DiagnosticBuilder::error(period.span.clone(), "this time is listed twice")
                    .hint("remove one of the two"),
            );
        }
        times.push(period.value.0);
    }
    times.into()
}

impl<'a> RuleNames<'a> {
    fn new(
        fields: &'a FieldTable,
        path: &'a Setting<TomlString>,
        pattern: Option<&'a Pattern>,
        for_purge: bool,
    ) -> Self {
        let capture = |name: &str| {
            Arc::new(Field { name: name.into(), source: FieldSource::Path(name.into()) })
        };
        let captures =
            pattern.map(|pattern| pattern.captures().map(capture).collect()).unwrap_or_default();
        Self { fields, path: path.get(), pattern, captures, for_purge }
    }

    /// A field by its name, or a problem at the text that names it.
    fn field(
        &self,
        name: &str,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Arc<Field>> {
        let at = || context.report.source().within(&text.span, name);
        let hidden = text.value.is_from_environment();
        let shown = if hidden { "the field named here".to_owned() } else { format!("`{name}`") };
        if let Some(capture) = self.captures.iter().find(|capture| *capture.name == *name) {
            return Some(Arc::clone(capture));
        }
        let draft = match self.fields.lookup(name) {
            FieldLookup::Found(field) => match &field.source {
                FieldSource::Body(_) if !self.for_purge => {
                    DiagnosticBuilder::error(at(), format!("{shown} is read from the body of writes, so a route cannot use it"))
                        .hint("read it from the path, the query, a header or a cookie")
                }
                FieldSource::Path(capture) if self.pattern.is_some() && !self.captures.iter().any(|own| *own.name == **capture) => {
                    DiagnosticBuilder::error(at(), format!("{shown} is read from the capture `{capture}`, which this path does not have"))
                        .hint(format!("write the path with {{{capture}}}"))
                }
                _ => return Some(field),
            },
            // The path that was to define it is broken itself, or so is [fields].
            FieldLookup::Lost => return None,
            FieldLookup::Unknown if self.pattern.is_none() && self.path.is_none_or(|path| path.as_str().contains(name)) => return None,
            FieldLookup::Unknown => {
                let known: Vec<&str> = self.fields.names().chain(self.captures.iter().map(|capture| &*capture.name)).collect();
                let near = nearest(name, &known).filter(|_| !hidden);
                let hint = near.map_or_else(
                    || "define it in [fields], as in { header = \"x-name\" }, or capture it in the path as {name}".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let draft = DiagnosticBuilder::error(at(), format!("{shown} is not a field")).hint(hint);
                if known.is_empty() { draft } else { draft.allowed(known.join(", ")) }
            }
        };
        context.report.push(draft);
        None
    }

    /// The templates of a list. All unknown fields of a template are told, not only the first.
    fn templates(
        &self,
        slot: &Setting<TomlList<TomlString>>,
        context: &mut CompileContext,
    ) -> Box<[Template]> {
        let list = slot.get().map_or(&[][..], |list| &list.0);
        let mut templates = Vec::new();
        let mut read = |context: &mut CompileContext, text: &Located<TomlString>| {
            templates.extend(self.template(text, context));
            Some(text.value.as_str().to_owned())
        };
        context.names(list, &mut read);
        templates.into()
    }

    fn template(
        &self,
        text: &Located<TomlString>,
        context: &mut CompileContext,
    ) -> Option<Template> {
        let used = RefCell::new(Vec::new());
        let known = |name: &str| {
            used.borrow_mut().push(name.to_owned());
            let known = self.captures.iter().find(|capture| *capture.name == *name).cloned();
            // A stand-in for what is reported below, so that reading goes on.
            let found = known.or_else(|| {
                if let FieldLookup::Found(field) = self.fields.lookup(name) {
                    Some(field)
                } else {
                    None
                }
            });
            Some(found.unwrap_or_else(|| {
                Arc::new(Field { name: name.into(), source: FieldSource::Host })
            }))
        };
        let template = Template::parse(text.value.as_str(), &known);
        let mut seen = HashSet::new();
        for name in used.into_inner() {
            if seen.insert(name.clone()) {
                self.field(&name, text, context);
            }
        }
        match template {
            Ok(template) => Some(template),
            Err(error) => {
                context.report.malformed(
                    text,
                    "a tag",
                    &error.what,
                    Some("text with fields in braces, such as \"campaigns:{tenant}\""),
                    &error.hint,
                );
                None
            }
        }
    }
}
