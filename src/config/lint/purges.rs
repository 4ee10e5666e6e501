//! Lint of purge rules against routes: entries that no write purges, tags that no entry has,
//! missing methods.
//!
//! Tags that the origin sends are not in the file. If the operator has set
//! `[tags] response_headers`, a tag that no route has need not be a mistake.

use http::Method;

use super::super::context::CompileContext;
use super::super::decode::{Located, Setting, TomlList, TomlString, nearest};
use super::super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::sources;
use super::template;
use super::view::{LONG_TTL, LintFile, LintPurge, LintRoute, listed, texts};
use crate::policy::field::FieldSource;
use crate::policy::template::Template;
use crate::units::show_duration;

/// How to declare that the origin sends tags.
const TAGS_FROM_ORIGIN_HINT: &str = "if the origin sends tags, declare it: response_headers = \
                                     [\"surrogate-key\", \"cache-tag\"] in [tags]";

/// Checks each cached route and each purge rule.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached().filter(|route| !is_in_folder(route, whole)) {
        if route.spec.tags.is_empty() {
            untagged(route, whole, context);
        } else {
            unpurged(route, whole, context);
        }
    }
    for purge in &whole.purges {
        if !whole.routes.is_empty() {
            dead(purge, whole, context);
            empty_folder(purge, whole, context);
        }
        forgotten_methods(purge, whole, context);
        forever_missed(purge, whole, context);
        futile_except(purge, context);
        late_answers(purge, context);
    }
}

/// Whether a purge rule purges a folder that entries of this route may be in.
fn is_in_folder(route: &LintRoute<'_>, whole: &LintFile<'_>) -> bool {
    let mut folders = whole.purges.iter().filter_map(|purge| purge.rule.under.as_ref());
    folders.any(|folder| folder.may_hold(&route.spec.pattern))
}

/// Warns about a folder that no route has paths in.
fn empty_folder(purge: &LintPurge<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let (Some(folder), Some(given)) = (&purge.rule.under, purge.file.under.given()) else { return };
    if whole.routes.iter().any(|route| folder.may_hold(&route.spec.pattern)) {
        return;
    }
    let builder = DiagnosticBuilder::warning(given.span.clone(), "no route has a path in it");
    context.report.push(builder.hint("name a folder of a route's path, or remove the key"));
}

/// The purge rule that covers writes at or below a route's path.
fn covering<'a>(route: &LintRoute<'_>, whole: &'a LintFile<'a>) -> Option<&'a LintPurge<'a>> {
    whole.purges.iter().find(|purge| purge.may_cover(route))
}

/// Whether entries of a route may have a tag of a purge template.
fn carries(route: &LintRoute<'_>, purge: &LintPurge<'_>, tag: &Template) -> bool {
    route
        .spec
        .tags
        .iter()
        .any(|own| template::overlap((own, &route.spec.pattern), (tag, &purge.rule.pattern)))
}

fn reaches(purge: &LintPurge<'_>, route: &LintRoute<'_>) -> bool {
    purge.rule.tags.iter().any(|tag| carries(route, purge, tag))
}

/// Whether entries of a route can be purged by their URL only.
fn lacks_tags(route: &LintRoute<'_>) -> bool {
    route.spec.tags.is_empty() && !route.spec.ttl.is_empty()
}

/// Warns about a route whose entries have no tag except that of their URL.
fn untagged(route: &LintRoute<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    if !lacks_tags(route) || (whole.origin_sends_tags && !whole.purges.is_empty()) {
        return;
    }
    let builder = match covering(route, whole) {
        None => DiagnosticBuilder::warning(
            route.path.clone(),
            "this route has no tags, and no purge rule covers its path: only writes to the same \
             URL purge its entries",
        )
        .hint("add tags and a [[purges]] rule if other writes change its responses"),
        Some(purge) => {
            let place = context.report.source().line_for(purge.path, route.path);
            let message = format!(
                "the purge rule at {place} covers this path but purges \
                                   nothing here, because this route has no tags"
            );
            let usable = usable_tags(purge, route, whole);
            let hint = if usable.is_empty() {
                TAGS_FROM_ORIGIN_HINT.to_owned()
            } else {
                format!("add tags = {}; {TAGS_FROM_ORIGIN_HINT}", listed(usable.iter().copied()))
            };
            DiagnosticBuilder::warning(route.path.clone(), message).hint(hint)
        }
    };
    context.report.push(builder);
}

/// Warns about a route whose tags no purge rule names.
fn unpurged(route: &LintRoute<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    if whole.origin_sends_tags
        || sources::tells_of(route, whole)
        || whole.purges.iter().any(|purge| reaches(purge, route))
    {
        return;
    }
    let Some(tags) = route.file.tags.given() else { return };
    let Some(purge) = covering(route, whole) else { return unnamed(route, context) };
    // A typo in the purge rule is reported there.
    let mut pairs = purge.rule.tags.iter().zip(texts(&purge.file.tags));
    if pairs.any(|(template, text)| {
        is_dead(template, purge, whole) && near(text, texts(&route.file.tags)).is_some()
    }) {
        return;
    }
    let place = context.report.source().line_for(purge.path, route.path);
    let message = format!(
        "the purge rule at {place} covers this path, but no purge rule names any of these tags"
    );
    let usable = usable_tags(purge, route, whole);
    let own = texts(&route.file.tags).iter().map(|text| text.value.shown());
    let hint = if usable.is_empty() {
        format!(
            "write tags = {} in the rule at {place}, if it has these fields",
            listed(shown(&purge.file.tags).chain(own))
        )
    } else {
        format!(
            "write tags = {} if its writes change the responses of this route",
            listed(own.chain(usable))
        )
    };
    context.report.push(DiagnosticBuilder::warning(tags.span.clone(), message).hint(hint));
}

fn shown(slot: &Setting<TomlList<TomlString>>) -> impl Iterator<Item = &str> {
    texts(slot).iter().map(|text| text.value.shown())
}

/// Warns about tags that no purge rule names, on a path that none covers.
fn unnamed(route: &LintRoute<'_>, context: &mut CompileContext) {
    let windows =
        route.spec.stale_while_revalidate.max(route.spec.stale_if_error).unwrap_or_default();
    let ttl = route.spec.ttl.longest();
    let most = ttl.unwrap_or_default().saturating_add(windows);
    let windows = [&route.file.stale_while_revalidate, &route.file.stale_if_error];
    let windows = windows.into_iter().filter_map(|slot| slot.given());
    let longest: Option<&SourceSpan> = windows
        .map(|given| (given.value.0, &given.span))
        .chain(ttl.zip(route.file.ttl.given().map(|given| &given.span)))
        .max_by_key(|(time, _)| *time)
        .map(|(_, span)| span);
    let (at, message) = match (longest.filter(|_| most > LONG_TTL), route.file.tags.given()) {
        (Some(longest), _) => {
            let most = show_duration(most);
            (
                longest,
                format!(
                    "entries may be served for up to {most}, and no purge rule names any of this \
                     route's tags"
                ),
            )
        }
        // The origin alone says how long, so the tags may be there for purges by hand.
        (None, Some(tags)) if !route.spec.ttl.is_empty() => (
            &tags.span,
            "no purge rule names any of these tags: only writes to the same URL, and purges by \
             hand, purge the entries of this route"
                .to_owned(),
        ),
        (None, _) => return,
    };
    let path = route.file.path.given().map_or("/…", |text| text.value.shown());
    let hint = format!(
        "add [[purges]] with path = \"{path}\" and tags = {} for the writes that change them",
        listed(shown(&route.file.tags))
    );
    context.report.push(DiagnosticBuilder::warning(at.clone(), message).hint(hint));
}

/// The tags of the purge rule that the route could use as written.
fn usable_tags<'a>(
    purge: &'a LintPurge<'_>,
    route: &LintRoute<'_>,
    whole: &LintFile<'_>,
) -> Vec<&'a str> {
    let declared = |name: &str| {
        whole
            .file
            .fields
            .get()
            .is_some_and(|fields| fields.0.iter().any(|(own, _)| own.value == *name))
    };
    let usable = |template: &&Template| {
        template.fields().all(|field| match &field.source {
            FieldSource::Body(_) | FieldSource::Response(_) => false,
            FieldSource::Path(name) => {
                route.spec.pattern.captures().any(|capture| *capture == **name)
            }
            _ => declared(&field.name),
        })
    };
    let pairs = purge.rule.tags.iter().zip(texts(&purge.file.tags));
    pairs.filter(|(template, _)| usable(template)).map(|(_, text)| text.value.shown()).collect()
}

/// Whether no route has a tag of this purge template.
fn is_dead(template: &Template, purge: &LintPurge<'_>, whole: &LintFile<'_>) -> bool {
    !whole.routes.iter().any(|route| carries(route, purge, template))
}

/// Warns about tags of a purge rule that no route has.
fn dead(purge: &LintPurge<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    for (template, text) in purge.rule.tags.iter().zip(texts(&purge.file.tags)) {
        if !is_dead(template, purge, whole) {
            continue;
        }
        // Prefer the tags of routes at this path to those of others.
        let covered = |route: &&LintRoute<'_>| purge.rule.may_cover(&route.spec.pattern);
        let here = whole
            .routes
            .iter()
            .filter(covered)
            .find_map(|route| near(text, texts(&route.file.tags)).map(|meant| (route, meant)));
        let meant = here.or_else(|| {
            whole
                .routes
                .iter()
                .find_map(|route| near(text, texts(&route.file.tags)).map(|meant| (route, meant)))
        });
        let shown = text.value.shown();
        let builder = DiagnosticBuilder::warning(
            text.span.clone(),
            format!("no route has a tag that matches `{shown}`, so this purges nothing"),
        );
        match meant {
            Some((route, meant)) => {
                let place = context.report.source().line_for(route.path, purge.path);
                context.report.push(
                    builder.hint(format!("did you mean \"{meant}\", as in the route at {place}?")),
                );
            }
            // If a route lacks tags, the warning is at that route.
            None if whole.origin_sends_tags
                || whole.cached().any(|route| covered(&route) && lacks_tags(route)) => {}
            None => context
                .report
                .push(builder.hint(format!(
                    "write a tag of a route, or remove it; {TAGS_FROM_ORIGIN_HINT}"
                ))),
        }
    }
}

/// The tag that was probably meant: one with the same first word or a similar spelling.
fn near<'a>(text: &Located<TomlString>, tags: &'a [Located<TomlString>]) -> Option<&'a str> {
    // SECURITY: values of variables may be secret.
    if text.value.is_from_environment() {
        return None;
    }
    let known: Vec<&str> = tags
        .iter()
        .filter(|tag| !tag.value.is_from_environment())
        .map(|tag| tag.value.as_str())
        .collect();
    let word = text.value.as_str();
    let head = |tag: &str| tag.split_once(':').map(|(head, _)| head.to_owned());
    let same_head =
        || known.iter().find(|tag| head(word).is_some() && head(tag) == head(word)).copied();
    same_head().or_else(|| nearest(word, &known))
}

/// Warns about methods that neither this purge rule nor another one covers.
fn forgotten_methods(purge: &LintPurge<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let (Some(methods), Some(given)) = (&purge.rule.methods, purge.file.methods.given()) else {
        return;
    };
    // A rule for GETs, for mutations, or for requests with a certain parameter, is one of several.
    if methods.iter().all(|method| *method == Method::GET)
        || purge.rule.mutations.is_some()
        || !purge.rule.conditions.is_empty()
    {
        return;
    }
    let covers = |route: &&LintRoute<'_>| purge.may_cover(route) && reaches(purge, route);
    let routes: Vec<_> = whole.cached().filter(covers).collect();
    if routes.is_empty() {
        return;
    }
    let is_read = |method: &Method| routes.iter().all(|route| route.spec.keys_body_of(method));
    let beside: Vec<_> = whole.purges.iter().filter(|other| other.is_beside(purge)).collect();
    let taken = |method: &Method| {
        beside
            .iter()
            .any(|other| other.rule.methods.as_ref().is_none_or(|methods| methods.contains(method)))
    };
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let left: Vec<&str> =
        writes.iter().filter(|it| !taken(it) && !is_read(it)).map(Method::as_str).collect();
    if left.is_empty() {
        return;
    }
    let message = format!("{} at this path purge only their own URL", left.join(", "));
    let hint = "remove `methods` to cover all unsafe methods; if the app does not use these \
                methods, end the line with `# check: ok`";
    context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
}

/// Warns about a rule that makes every GET of a cached route a write.
fn forever_missed(purge: &LintPurge<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let Some(methods) = purge.file.methods.given() else { return };
    if !purge.rule.is_for_reads() || !purge.rule.conditions.is_empty() {
        return;
    }
    let swallowed = whole.cached().find(|route| purge.contains(route));
    let Some(route) = swallowed else { return };
    let place = context.report.source().line_for(route.path, purge.path);
    let message =
        format!("every GET of the route at {place} is a write by this rule, so it never caches");
    let hint = "say which GETs change data, as in match = { query.action = \"trash\" }, or by a \
                path such as \"/items/{id}/delete\"";
    context.report.push(DiagnosticBuilder::warning(methods.span.clone(), message).hint(hint));
}

/// Warns about exceptions that the path of their rule does not match anyway.
fn futile_except(purge: &LintPurge<'_>, context: &mut CompileContext) {
    for (pattern, text) in purge.rule.except.iter().zip(texts(&purge.file.except)) {
        if purge.rule.may_cover(pattern) {
            continue;
        }
        let message = format!(
            "`{}` is not below the path of this rule, so this has no effect",
            text.value.shown()
        );
        context
            .report
            .push(DiagnosticBuilder::warning(text.span.clone(), message).hint("remove it"));
    }
}

/// What the last word of a path is called where writes are often carried out later.
const LATE_WORDS: [&str; 14] = [
    "jobs", "job", "tasks", "task", "queue", "async", "import", "imports", "bulk", "reindex",
    "rebuild", "sync", "publish", "exports",
];

/// Notes that a write which is carried out after its answer needs to purge again. Whether the
/// origin answers 202 cannot be seen in the file; paths for such writes often say so.
fn late_answers(purge: &LintPurge<'_>, context: &mut CompileContext) {
    let mut words = purge.rule.pattern.as_str().split('/').filter(|word| !word.starts_with('{'));
    let is_late = words.next_back().is_some_and(|word| {
        LATE_WORDS.iter().any(|late| late.eq_ignore_ascii_case(word.trim_start_matches(':')))
    });
    if is_late && purge.rule.repurge_after.is_empty() {
        let message = "whether the app carries out these writes before it answers cannot be \
                       checked here: where it answers 202, what is read meanwhile is stored";
        let hint = "if it does not, add repurge_after = [\"1s\", \"5s\"]; `sidecache advise` says \
                    which writes are answered 202";
        context.report.push(DiagnosticBuilder::note(purge.path.clone(), message).hint(hint));
    }
}
