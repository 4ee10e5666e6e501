//! Lint of what a route makes of callers: who is admitted to an entry, which cookies are removed
//! from responses, and keys that have no effect.

use std::sync::Arc;

use http::header::ACCEPT_LANGUAGE;

use super::super::context::CompileContext;
use super::super::decode::Setting;
use super::super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::scopes::fields;
use super::view::{LintFile, LintRoute, texts};
use crate::policy::cookie_purpose::may_name_session;
use crate::policy::field::{Field, FieldSource};
use crate::policy::glob::{Glob, any_matches};
use crate::policy::names::{Meaning, meaning};
use crate::policy::route::{AdmitRule, QueryRule, StripSetCookie};
use crate::policy::scope::Scope;
use crate::units::show_duration;

/// Checks each cached route, and the ignored cookies.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached() {
        strips_all(route, context);
        strips_tokens(route, context);
        admits_all(route, context);
        shares_without_key(route, context);
        without_effect(route, context);
    }
    ignores_sessions(whole, context);
}

/// Warns about `strip_set_cookie = true`.
fn strips_all(route: &LintRoute<'_>, context: &mut CompileContext) {
    let (StripSetCookie::All, Some(given)) =
        (&route.spec.strip_set_cookie, route.file.strip_set_cookie.given())
    else {
        return;
    };
    let message = if route.spec.scope == Scope::Public {
        "`true` has no effect in scope \"public\": it is for requests that carry a credential, \
         and fills carry none"
    } else {
        "`true` removes every cookie from a stored response, also one that a form in its body \
         needs, such as that of a CSRF token"
    };
    context.report.push(
        DiagnosticBuilder::warning(given.span.clone(), message)
            .hint("name the cookies that nothing needs: strip_set_cookie = [\"_ga\", \"pref_*\"]"),
    );
}

/// Warns about a list that strips the cookie of a token or a session.
fn strips_tokens(route: &LintRoute<'_>, context: &mut CompileContext) {
    let (StripSetCookie::Named(globs), Some(given)) =
        (&route.spec.strip_set_cookie, route.file.strip_set_cookie.given())
    else {
        return;
    };
    if route.spec.signed_in.is_some() {
        // For guests alone, once a second answer has proven that no page depends on it.
        return;
    }
    // What is verified is stripped only where its payload stays the same.
    let verified: Vec<&str> = sessions(route).collect();
    let mut names = globs.iter().filter(|name| !verified.contains(&name.as_str()));
    let Some(name) = names.find(|name| may_name_session(name)).map(Glob::as_str) else {
        return;
    };
    let message = format!(
        "`{name}` looks like the cookie of a token or a session: the body may hold what belongs to \
         it, and whoever is given the stored body would not have the cookie"
    );
    context.report.push(
        DiagnosticBuilder::warning(given.span.clone(), message)
            .hint("take it out of the list: such responses are for their own caller"),
    );
}

/// The cookies of the signed sessions that the fields of a route read.
fn sessions<'a>(route: &LintRoute<'a>) -> impl Iterator<Item = &'a str> {
    fields(route).filter_map(|field| match &field.source {
        FieldSource::Session(rule) => Some(&*rule.settings.cookie),
        _ => None,
    })
}

/// Warns about `admit = "route"` if more than the fields of the key tells entries apart.
fn admits_all(route: &LintRoute<'_>, context: &mut CompileContext) {
    let admits = route.spec.scope == Scope::Shared && route.spec.admit == AdmitRule::Route;
    let (true, None, Some(given)) = (admits, token(route), route.file.admit.given()) else {
        return;
    };
    let is_keyed = |source: &FieldSource| fields(route).any(|field| field.source == *source);
    let capture = route
        .spec
        .pattern
        .captures()
        .find(|capture| !is_keyed(&FieldSource::Path((*capture).into())))
        .map(|capture| format!("the capture `{capture}` of the path"));
    let what = capture.or_else(|| match &route.spec.query {
        QueryRule::All | QueryRule::Most(_) => Some("each query".to_owned()),
        QueryRule::None => None,
        QueryRule::Only(names) => names
            .iter()
            .find(|name| !is_keyed(&FieldSource::Query((*name).clone())))
            .map(|name| format!("the query parameter `{name}`")),
    });
    let Some(what) = what else { return };
    let message = format!(
        "who may read one entry of this route may read all, but {what} selects another entry, \
         which the origin may refuse to some callers"
    );
    context.report.push(
        DiagnosticBuilder::warning(given.span.clone(), message)
            .hint("write admit = \"entry\", or add a field that reads it to `key`"),
    );
}

/// The field by which each caller has its own entries.
fn token<'a>(route: &LintRoute<'a>) -> Option<&'a Arc<Field>> {
    route.spec.key.iter().find(|field| matches!(field.source, FieldSource::Auth(_)))
}

/// Warns about scope `shared` without any field.
fn shares_without_key(route: &LintRoute<'_>, context: &mut CompileContext) {
    if let (Scope::Shared, None, Some(scope)) =
        (route.spec.scope, fields(route).next(), route.file.scope.given())
    {
        let message = "no field tells callers apart, so all that the origin accepts get the \
                       response that one of them was given";
        let hint = "add a `key` such as the tenant, or write scope = \"private\"; if the response \
                    is the same for all of them, end the line with `# check: ok`";
        context.report.push(DiagnosticBuilder::warning(scope.span.clone(), message).hint(hint));
    }
}

/// Warns about keys that have no effect on this route.
fn without_effect(route: &LintRoute<'_>, context: &mut CompileContext) {
    let mut warn = |at: &SourceSpan, message: String| {
        // What `[defaults]` says may be for other routes.
        if context.report.is_default(at) {
            return;
        }
        context.report.push(DiagnosticBuilder::warning(at.clone(), message).hint("remove it"));
    };
    let (spec, file) = (route.spec, route.file);
    if let (true, Some(given)) = (spec.scope != Scope::Public, file.vary_cookie.given()) {
        warn(&given.span, "`vary_cookie` has no effect outside scope \"public\"".to_owned());
    }
    if let Some(given) = file.admit.given() {
        if spec.scope != Scope::Shared {
            warn(&given.span, "`admit` has no effect outside scope \"shared\"".to_owned());
        } else if let Some(field) = token(route) {
            let name = &field.name;
            let message = format!(
                "`admit` has no effect, because each caller has its own entries by the field \
                 `{name}`"
            );
            warn(&given.span, message);
        }
    }
    if let (Some(after), Some(given)) = (spec.revalidate_after, file.revalidate_after.given()) {
        match spec.scope {
            Scope::Public => {
                let message = "`revalidate_after` has no effect in scope \"public\", in which no \
                               credential counts";
                warn(&given.span, message.to_owned());
            }
            // `admit_for` is at most that long.
            Scope::Shared if spec.admit_for < after => {
                let message = format!(
                    "`revalidate_after` has no effect, because `admit_for` ends before, after {}",
                    show_duration(spec.admit_for)
                );
                warn(&given.span, message);
            }
            Scope::Private | Scope::Shared => {}
        }
    }
    if let Some(given) = file.languages.given() {
        let listed = [
            ("drop_headers", any_matches(&spec.drop_headers, ACCEPT_LANGUAGE.as_str().as_bytes())),
            ("pass_headers", spec.pass_headers.contains(&ACCEPT_LANGUAGE)),
        ];
        if let Some((list, _)) = listed.into_iter().find(|(_, listed)| *listed) {
            let message =
                format!("`languages` has no effect, because {list} names `accept-language`");
            warn(&given.span, message);
        }
    }
}

/// Warns about ignored cookies that probably identify the caller.
fn ignores_sessions(whole: &LintFile<'_>, context: &mut CompileContext) {
    let Setting::Given(section) = &whole.file.credential else { return };
    for text in texts(&section.value.ignore_cookies) {
        let name = text.value.as_str();
        let message = if name.bytes().all(|byte| byte == b'*') {
            "this ignores all cookies, also those by which the origin knows its callers"
        } else if !name.starts_with(['!', '@']) && meaning(name) == Some(Meaning::Credential) {
            "this looks like a cookie by which the origin knows its callers: on fills they would \
             be strangers to it"
        } else {
            continue;
        };
        context.report.push(
            DiagnosticBuilder::warning(text.span.clone(), message)
                .hint("remove it, and name in `ignore_cookies` only what changes no response"),
        );
    }
}
