//! Compiles `[[routes]]`: paths and ties between them, keys, tags, scopes and headers.

use std::sync::Arc;
use std::time::Duration;

use http::header;

use super::apps::AppTable;
use super::conditions::{self, MatchContext};
use super::credential::cookie_glob;
use super::fields::FieldTable;
use super::freshness::freshness_settings;
use super::read_methods::{add_document, read_methods, requires_body};
use super::rule_names::{BodyUse, RuleNames, pattern};
use super::{codings, fronts, graphql_tags, headers, identity, query, signed_in};
use crate::config::context::CompileContext;
use crate::config::decode::{Located, Period, Setting, StripForm, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file;
use crate::policy::compress_rule::CompressRule;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Field, FieldSource};
use crate::policy::fronts::Fronts;
use crate::policy::route::{
    AdmitRule, Collapse, Neighbours, Pattern, ReadMethods, RouteMode, RouteSpec, StripSetCookie,
    VaryCookie,
};
use crate::policy::scope::Scope;
use crate::policy::share::CallerShare;
use crate::policy::template::Template;
use crate::semantics::storability::OriginRule;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);

/// The most routes of one path, which are tried one after the other.
pub const MAX_ROUTES_OF_PATH: usize = 128;

/// A compiled route and the position of its path.
pub struct CompiledRoute {
    /// The new value.
    pub spec: RouteSpec,
    path: SourceSpan,
}

/// The other sections that routes depend on.
pub struct RouteContext<'a> {
    /// `[fields]`.
    pub fields: &'a FieldTable,
    /// `[credential]`.
    pub credential: &'a CredentialRule,
    /// The `collapse` of `[redis]`; none without `[redis]`.
    pub collapse: Option<Collapse>,
    /// The switch for all routes.
    pub mode: RouteMode,
    /// `fronts`.
    pub fronts: Fronts,
    /// The apps.
    pub apps: &'a AppTable,
    /// `[compress]`.
    pub codings: Option<CompressRule>,
}

/// Compiles the routes. Routes with an invalid path are left out, but all their keys are checked.
pub fn routes(
    list: Option<&TomlList<file::RouteSection>>,
    shared: &RouteContext<'_>,
    context: &mut CompileContext,
) -> Vec<CompiledRoute> {
    let (mut routes, mut places) = (Vec::<CompiledRoute>::new(), Neighbours::default());
    for route in list.map_or(&[][..], |list| &list.0) {
        if let Some(route) = self::route(route, shared, context) {
            let near = places.of(&route.spec.pattern).into_iter();
            let near: Vec<&CompiledRoute> = near.map(|place| &routes[place]).collect();
            crowd(&near, &route, context);
            if let Some(earlier) = near.iter().find(|earlier| earlier.spec.ties(&route.spec)) {
                tie(earlier, &route, context);
            }
            places.push(&route.spec.pattern);
            routes.push(route);
        }
    }
    routes
}

/// Reports a route beyond [`MAX_ROUTES_OF_PATH`].
fn crowd(earlier: &[&CompiledRoute], route: &CompiledRoute, context: &mut CompileContext) {
    if route.spec.conditions.is_empty() {
        return;
    }
    let beside = earlier.iter().filter(|other| other.spec.ties_by_path(&route.spec)).count();
    if beside >= MAX_ROUTES_OF_PATH {
        let message = format!("this path has more than {MAX_ROUTES_OF_PATH} routes");
        let builder = DiagnosticBuilder::error(route.path.clone(), message);
        context
            .report
            .push(builder.hint("let one route have several values: [\"list\", \"show\"]"));
    }
}

fn tie(earlier: &CompiledRoute, later: &CompiledRoute, context: &mut CompileContext) {
    let place = context.report.source().line_for(&earlier.path, &later.path);
    let (one, two) = (&earlier.spec.conditions, &later.spec.conditions);
    let (message, hint) = if !one.is_empty() && !two.is_empty() {
        let hint = if one.implies(two) && two.implies(one) {
            "remove one of the two"
        } else {
            "let one of them ask for all that the other one asks for, and more; or give both \
             another value of one parameter"
        };
        let message = format!(
            "a request may meet `match` of this route and of the route at {place}, and neither \
             is narrower"
        );
        (message, hint)
    } else if earlier.spec.pattern.as_str() == later.spec.pattern.as_str() {
        (
            format!("the route at {place} has the same path"),
            "remove one of the two, or tell their requests apart by `match`",
        )
    } else {
        // SECURITY: the earlier path is quoted from the source, which has no values of variables.
        let path = context.report.source().shown(&earlier.path);
        (
            format!(
                "this path and {path} at {place} match the same requests, and neither is more \
                 specific"
            ),
            "make one of them more specific, or merge the two",
        )
    };
    context.report.push(DiagnosticBuilder::error(later.path.clone(), message).hint(hint));
}

fn route(
    located: &Located<file::RouteSection>,
    shared: &RouteContext<'_>,
    context: &mut CompileContext,
) -> Option<CompiledRoute> {
    let (file, fields) = (&located.value, shared.fields);
    let pattern = pattern(&file.path, (&located.span, &file.unknown), fields, context);
    let methods = read_methods(file, context);
    let bodies = if methods.with_body.is_empty() { BodyUse::None } else { BodyUse::Key };
    let names = RuleNames::new(fields, &file.path, pattern.as_ref(), bodies);
    let key = key(file, &names, &methods, context);
    let tags = names.templates(&file.tags, context);
    graphql_tags::check_route(file, &tags, context);
    let has_path = pattern.is_some();
    let timing = freshness_settings(file, shared.collapse, context);
    let revalidate_after = revalidate_after(&file.revalidate_after, context);
    // In scope `shared` it bounds the authorization.
    let admit_for =
        context.period(&file.admit_for, MS, DAY).min(revalidate_after.unwrap_or(Duration::MAX));
    let query = query::query(file.query.get()?, context);
    let (app, conditions) = shared.apps.conditions(&file.app, &file.r#match, context);
    let strip_set_cookie = strip_set_cookie(file.strip_set_cookie.get()?, context);
    let languages = languages(&file.languages, context);
    let signed_in = signed_in::signed_in(file, fields, context);
    let spec = RouteSpec {
        place: context.report.source().rule_place(located.span.start),
        defaults: defaults(&located.span, context),
        app,
        methods,
        graphql: file.graphql.get().is_some_and(|is| *is),
        mode: file.mode.get().map_or(RouteMode::On, |word| word.0).and(shared.mode),
        share: file.share.get().and_then(|share| CallerShare::new(share.0)),
        audit: file.audit.get().map_or(0.0, |share| share.0),
        ttl: timing.ttl,
        expires_at: timing.expires_at,
        browser: timing.browser,
        origin: file.origin.get().map_or(OriginRule::Respect, |word| word.0),
        stale_while_revalidate: timing.stale_while_revalidate,
        stale_if_error: timing.stale_if_error,
        jitter: timing.jitter,
        early_refresh: timing.early_refresh,
        collapse: timing.collapse,
        strip_set_cookie,
        scope: file.scope.get().map_or(Scope::Private, |word| word.0),
        key: key.into(),
        query,
        tags,
        conditions,
        drop_headers: headers::dropped(&file.drop_headers, context),
        pass_headers: headers::passed(&file.pass_headers, context),
        unknown_headers: file.unknown_headers.get().map(|word| word.0)?,
        admit: file.admit.get().map_or(AdmitRule::Entry, |word| word.0),
        admit_for,
        revalidate_after,
        languages,
        vary_cookie: file.vary_cookie.get().map_or(VaryCookie::Respect, |word| word.0),
        client_cache_control: file.client_cache_control.get().map(|word| word.0)?,
        case: file.case.get().map(|word| word.0)?,
        encoded_slash: file.encoded_slash.get().map(|word| word.0)?,
        signed_in: signed_in?,
        compress: codings::of_route(file, shared.codings.as_ref(), context),
        pattern: match pattern {
            Some(pattern) => pattern,
            // The path has been reported; the rest of the route is still checked.
            None => Pattern::parse("/").ok()?,
        },
    };
    headers::contradictions(file, &spec, context);
    query::contradictions(file, &spec, context);
    let RouteContext { credential, fronts, apps, .. } = *shared;
    let joins_hosts = apps.joins_hosts(spec.app.id);
    let match_context = MatchContext { credential, fronts, joins_hosts };
    conditions::for_route(file, &match_context, context);
    fronts::guard_identity(file, shared.fronts, shared.credential, context);
    credentials(file, &spec, shared.credential, context);
    signed_in::contradictions(file, &spec, shared.credential, context);
    without_effect(file, &spec, shared.credential, context);
    let path = file.path.given()?.span.clone();
    has_path.then_some(CompiledRoute { spec, path })
}

/// Warns about keys that have no effect on this route.
fn without_effect(
    file: &file::RouteSection,
    spec: &RouteSpec,
    credential: &CredentialRule,
    context: &mut CompileContext,
) {
    // What `[defaults]` says may be for other routes.
    let own = |span: &SourceSpan, context: &CompileContext| !context.report.is_default(span);
    if let (OriginRule::Ignore, true, Some(origin)) =
        (spec.origin, spec.ttl.is_empty(), file.origin.given())
        && own(&origin.span, context)
    {
        let builder = DiagnosticBuilder::warning(
            origin.span.clone(),
            "origin = \"ignore\" has no effect without a `ttl`",
        );
        context.report.push(builder.hint("add ttl = \"5m\""));
    }
    if let Some(given) = file.share.given()
        && own(&given.span, context)
        && (spec.mode == RouteMode::Off || given.value.0 <= 0.0)
    {
        let message = "`share` has no effect: this route caches for nobody";
        let hint = "remove it, or write a share above 0 and mode = \"on\"";
        context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
    }
    // Where logins are named, it also says for how long a caller is known.
    let counts = spec.scope == Scope::Shared || credential.names_logins;
    if let (false, Some(given)) = (counts, file.admit_for.given())
        && own(&given.span, context)
    {
        let builder = DiagnosticBuilder::warning(
            given.span.clone(),
            "`admit_for` has no effect outside scope \"shared\"",
        );
        context.report.push(builder.hint("remove it"));
    }
}

/// The keys that a route takes over from `[defaults]`, with their lines.
fn defaults(route: &SourceSpan, context: &CompileContext) -> Box<[(Box<str>, usize)]> {
    let line = |span: &SourceSpan| context.report.source().line(span.start);
    let inherited = context.defaults.inherited(route).iter();
    inherited.map(|(key, span)| (key.as_str().into(), line(span))).collect()
}

fn revalidate_after(slot: &Setting<Period>, context: &mut CompileContext) -> Option<Duration> {
    slot.given()?;
    Some(context.period(slot, MS, DAY))
}

fn strip_set_cookie(form: &StripForm, context: &mut CompileContext) -> StripSetCookie {
    match form {
        StripForm::All(false) => StripSetCookie::No,
        StripForm::All(true) => StripSetCookie::All,
        StripForm::Named(list) => StripSetCookie::Named(context.names(&list.0, cookie_glob).into()),
    }
}

fn languages(
    slot: &Setting<TomlList<TomlString>>,
    context: &mut CompileContext,
) -> Option<Box<[Box<str>]>> {
    let given = slot.given()?;
    if given.value.0.is_empty() {
        let builder = DiagnosticBuilder::error(given.span.clone(), "the list has no language");
        context.report.push(builder.allowed("languages such as \"en\" or \"pt-BR\"").hint(
            "name those that the origin has; if it has one, write \
             drop_headers = [\"accept-language\"]",
        ));
    }
    Some(context.names(&given.value.0, language).into())
}

/// A language range (RFC 4647 2.1), in lower case.
fn language(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let lower = text.value.as_str().to_ascii_lowercase();
    let is_subtag = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let primary = lower.split('-').next().unwrap_or_default();
    let valid = lower.split('-').all(is_subtag) && primary.bytes().all(|b| b.is_ascii_alphabetic());
    if !valid {
        let what = format!("`{}` is not a language", text.value.shown());
        let hint = if lower.contains('_') {
            "write `-` between its parts: \"pt-BR\""
        } else {
            "write one language, without a weight: \"en\""
        };
        let allowed = Some("a language such as \"en\" or \"pt-BR\"");
        context.report.malformed(text, "a language", what, allowed, hint);
    }
    valid.then(|| lower.into())
}

/// The fields that the operator puts into the key.
fn key(
    file: &file::RouteSection,
    names: &RuleNames<'_>,
    methods: &ReadMethods,
    context: &mut CompileContext,
) -> Vec<Arc<Field>> {
    let mut key: Vec<Arc<Field>> = file
        .key
        .get()
        .map(|list| context.names(&list.0, |context, text| names.key_field(text, context)))
        .unwrap_or_default();
    add_document(file, &mut key);
    requires_body(file, (methods, &key), context);
    key
}

/// The fields that tell a route's entries apart, including those of its tags.
fn key_fields(spec: &RouteSpec) -> impl Iterator<Item = &Arc<Field>> {
    spec.key.iter().chain(spec.tags.iter().flat_map(Template::fields))
}

/// SECURITY: rejects rules by which one caller's credential would fill entries for others.
fn credentials(
    file: &file::RouteSection,
    spec: &RouteSpec,
    credential: &CredentialRule,
    context: &mut CompileContext,
) {
    identity::check_scope(file, spec, context);
    let is_credential = |field: &Arc<Field>| match &field.source {
        FieldSource::Auth(_) | FieldSource::Session(_) => true,
        FieldSource::Header(name) => credential.headers.contains(name),
        _ => false,
    };
    if spec.scope == Scope::Public
        && let Some(field) = key_fields(spec).find(|field| is_credential(field))
        && let Some(scope) = file.scope.given()
    {
        let message = format!(
            "scope \"public\" withholds credentials, but the field `{}` in the key or tags is a \
             credential",
            field.name
        );
        context.report.push(
            DiagnosticBuilder::error(scope.span.clone(), message)
                .hint("use scope \"shared\" or \"private\", or remove the field"),
        );
    }
    let names_caller =
        |template: &Template| template.fields().any(|field| field.source == FieldSource::Caller);
    if let (true, Some(tags)) =
        (spec.scope != Scope::Private && spec.tags.iter().any(names_caller), file.tags.given())
    {
        let message = "{caller} in the tags of a route that several callers share: an entry would \
                       have the tag of the caller who filled it";
        context.report.push(
            DiagnosticBuilder::error(tags.span.clone(), message)
                .allowed("{caller} in scope \"private\"")
                .hint("write scope = \"private\", or remove the tag"),
        );
    }
    let by_name = |list: &Setting<TomlList<TomlString>>| -> Vec<SourceSpan> {
        let texts = list.get().map_or(&[][..], |list| &list.0);
        let named = |text: &&Located<TomlString>| {
            let glob = headers::glob(text.value.as_str());
            let all = [&header::AUTHORIZATION, &header::COOKIE];
            all.into_iter()
                .chain(&credential.headers)
                .any(|name| glob.matches(name.as_str().as_bytes()))
        };
        texts.iter().filter(named).map(|text| text.span.clone()).collect()
    };
    if spec.scope == Scope::Public {
        for at in by_name(&file.pass_headers) {
            let builder = DiagnosticBuilder::error(
                at,
                "scope \"public\" withholds credentials, so this header cannot be passed",
            );
            context.report.push(
                builder.hint("remove it: the response for one caller would be stored for everyone"),
            );
        }
    }
    let is_token = |field: &Arc<Field>| {
        is_credential(field) && !matches!(field.source, FieldSource::Session(_))
    };
    let chosen = spec.key.iter().any(is_token);
    if spec.scope == Scope::Shared && !chosen {
        for at in by_name(&file.drop_headers) {
            let builder = DiagnosticBuilder::error(
                at,
                "scope \"shared\" needs this header at the origin, which authorizes callers by it",
            );
            context.report.push(
                builder.hint("remove it, or use scope \"public\" if everyone may see the response"),
            );
        }
    }
}
