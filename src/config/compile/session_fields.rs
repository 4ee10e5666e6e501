//! Compiles fields that read a signed session cookie: `{ cookie = "session", format = "flask" }`.

use std::sync::Arc;
use std::time::Duration;

use super::credential::cookie_name;
use super::pointer::pointer;
use crate::config::context::CompileContext;
use crate::config::decode::{Located, SecretsForm, Setting, TomlString, UnknownKeys, nearest};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use crate::config::file::FieldForm;
use crate::policy::glob::{Glob, any_matches};
use crate::policy::session::{SessionFormat, SessionRule, SessionSettings};
use crate::secret::Secret;
use crate::units::show_duration;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_hours(24 * 365);
/// How many secrets a field may have.
const MAX_SECRETS: usize = 8;
/// How many globs `ignore` may have.
const MAX_IGNORED: usize = 64;
/// Shorter secrets can be guessed, by which anybody could be anyone.
const SHORTEST_SAFE: usize = 16;
/// The frameworks whose session cookies are encrypted.
const ENCRYPTED: [&str; 2] = ["rails", "laravel"];
/// Members whose values belong to a form or to one page.
const VOLATILE: [&str; 8] = [
    "csrf_token",
    "_csrf_token",
    "_csrf",
    "csrfSecret",
    "_flashes",
    "flash",
    "messages",
    "_messages",
];

/// Members that tell callers apart.
const CALLERS: [&str; 10] = [
    "_user_id",
    "_auth_user_id",
    "user_id",
    "userId",
    "uid",
    "username",
    "sub",
    "email",
    "account_id",
    "accountId",
];

/// Whether a field has one of the keys that only session cookies have.
pub(super) fn reports_foreign_keys(form: &FieldForm, context: &mut CompileContext) -> bool {
    if !matches!(form.format, Setting::Absent) {
        return false;
    }
    let given = [
        ("pointer", form.pointer.given().map(|given| &given.span)),
        ("secret", form.secret.given().map(|given| &given.span)),
        ("max_age", form.max_age.given().map(|given| &given.span)),
        ("ignore", form.ignore.given().map(|given| &given.span)),
    ];
    let Some((key, span)) = given.into_iter().find_map(|(key, span)| Some((key, span?))) else {
        return false;
    };
    let message = format!("`{key}` is only for a signed session cookie");
    let hint = if form.cookie.given().is_some() {
        "add `format`, as in format = \"flask\", or remove it"
    } else {
        "remove it"
    };
    context.report.push(DiagnosticBuilder::error(span.clone(), message).hint(hint));
    true
}

/// The rule of a field with `format`.
pub(super) fn session(
    form: &Located<FieldForm>,
    context: &mut CompileContext,
) -> Option<Arc<SessionRule>> {
    let place = (&form.span, &form.value.unknown);
    let form = &form.value;
    let format = form.format.given().and_then(|text| format_of(text, context));
    let cookie = if let Some(text) = form.cookie.given() {
        cookie_name(context, text)
    } else {
        let span = form.format.given().map_or(place.0, |given| &given.span).clone();
        let builder = DiagnosticBuilder::error(span, "`format` is only for cookies");
        context
            .report
            .push(builder.hint("name the cookie: { cookie = \"session\", format = \"flask\" }"));
        None
    };
    let example = "the key that the app signs with: secret = \"${FLASK_SECRET_KEY}\"";
    let secrets = form.secret.required("secret", place, example, &mut context.report);
    let secrets = secrets.and_then(|secrets| self::secrets(secrets, context));
    let max_age = max_age(form, format, place, context);
    let pointer = match &form.pointer {
        Setting::Absent => None,
        slot => Some(whole_pointer(slot.given()?, context)?),
    };
    let ignore = ignore(form, pointer.as_deref(), context);
    let settings = SessionSettings {
        cookie: cookie?,
        format: format?,
        secrets: secrets?,
        max_age: max_age?,
        pointer,
        ignore: ignore?,
    };
    Some(Arc::new(SessionRule::new(settings)))
}

fn format_of(text: &Located<TomlString>, context: &mut CompileContext) -> Option<SessionFormat> {
    let word = text.value.as_str();
    let known = SessionFormat::ALL.into_iter().find(|format| format.as_str() == word);
    if known.is_some() {
        return known;
    }
    let words = SessionFormat::ALL.map(SessionFormat::as_str);
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let lower = word.to_ascii_lowercase();
    let (what, hint) = if ENCRYPTED.contains(&lower.as_str()) {
        (
            format!(
                "the session cookies of {} are encrypted, so that only the app can read them",
                text.value.shown()
            ),
            "remove this field: in scope \"private\" the cookie itself tells callers apart, as \
             long as the app does not renew it with each response; or let the sidecar ask the app \
             who a caller is, by [identity] and a field { identity = \"/user/id\" }"
                .to_owned(),
        )
    } else {
        let near = nearest(&lower, &words);
        (
            format!("`{}` is not a format of session cookies", text.value.shown()),
            near.map_or_else(
                || "choose one of them".to_owned(),
                |near| format!("did you mean \"{near}\"?"),
            ),
        )
    };
    let kind = "a format of session cookies";
    context.report.malformed(text, kind, what, Some(&quoted.join(" or ")), &hint);
    None
}

/// SECURITY: no message shows any part of a secret.
fn secrets(list: &Located<SecretsForm>, context: &mut CompileContext) -> Option<Box<[Secret]>> {
    let texts = &list.value.0;
    if texts.is_empty() || texts.len() > MAX_SECRETS {
        let message = if texts.is_empty() {
            "the list has no secret".to_owned()
        } else {
            format!("more than {MAX_SECRETS} secrets: each costs a signature for every stranger")
        };
        let builder = DiagnosticBuilder::error(list.span.clone(), message)
            .allowed(format!("1 to {MAX_SECRETS} secrets"));
        context.report.push(builder.hint("the current one, and those that cookies still have"));
        return None;
    }
    for text in texts {
        let length = text.value.as_str().chars().count();
        let builder = if length == 0 {
            DiagnosticBuilder::error(text.span.clone(), "this secret is empty")
                .hint("write the key that the app signs with, or remove it")
        } else if length < SHORTEST_SAFE {
            DiagnosticBuilder::warning(
                text.span.clone(),
                format!(
                    "this secret is shorter than {SHORTEST_SAFE} characters: whoever guesses it \
                     can be any user, here and at the app"
                ),
            )
            .hint("give the app a key made with `openssl rand -hex 32`")
        } else {
            continue;
        };
        context.report.push(builder);
    }
    let secrets = texts.iter().map(|text| Secret::new(text.value.as_str()));
    texts.iter().all(|text| !text.value.as_str().is_empty()).then(|| secrets.collect())
}

/// The outer `None` is an error.
#[allow(clippy::option_option, reason = "an error, or none for a format without a time")]
fn max_age(
    form: &FieldForm,
    format: Option<SessionFormat>,
    place: (&SourceSpan, &UnknownKeys),
    context: &mut CompileContext,
) -> Option<Option<Duration>> {
    if format.is_some_and(|format| !format.has_time()) {
        if let Some(given) = form.max_age.given() {
            let message = "`max_age` has no effect on Express, whose signature has no time";
            let hint = "remove it; what bounds a stolen cookie is a new key of the app, here too";
            let builder = DiagnosticBuilder::warning(given.span.clone(), message);
            context.report.push(builder.hint(hint));
        }
        return Some(None);
    }
    let example = "how long the app accepts the cookie: max_age = \"31d\"";
    let given = form.max_age.required("max_age", place, example, &mut context.report)?;
    let fits = context.in_range(&given.span, given.value.0, SECOND, YEAR, show_duration);
    fits.then_some(Some(given.value.0))
}

/// A pointer to one value.
fn whole_pointer(text: &Located<TomlString>, context: &mut CompileContext) -> Option<Box<str>> {
    let parsed = pointer(text, context)?;
    if parsed.split('/').any(|part| part == "*") {
        let message = "`*` stands for several values, and a caller is one";
        let builder = DiagnosticBuilder::error(text.span.clone(), message);
        context.report.push(builder.hint("write the path of one value: \"/_user_id\""));
        return None;
    }
    Some(parsed)
}

fn ignore(
    form: &FieldForm,
    pointer: Option<&str>,
    context: &mut CompileContext,
) -> Option<Box<[Glob]>> {
    let Some(list) = form.ignore.given() else {
        return matches!(form.ignore, Setting::Absent).then(Box::default);
    };
    if list.value.0.len() > MAX_IGNORED {
        let message = format!("more than {MAX_IGNORED} names: they are compared with each member");
        context
            .report
            .push(DiagnosticBuilder::error(list.span.clone(), message).hint("use globs: \"_*\""));
        return None;
    }
    for text in &list.value.0 {
        let (name, span) = (text.value.as_str(), text.span.clone());
        let glob = Glob::new(name);
        let hits = pointer.is_some_and(|pointer| covers(&glob, pointer));
        let builder = if name.is_empty() || name.starts_with('/') {
            DiagnosticBuilder::error(span, "this is not the name of a member")
                .allowed("names without a first `/`, such as \"_fresh\", \"user/theme\" or \"_*\"")
                .hint("write the path of the member without the first `/`")
        } else if hits {
            DiagnosticBuilder::error(span, "this ignores the value that `pointer` names")
                .hint("name the other members, without a glob that matches this one")
        } else if let Some(caller) = CALLERS.iter().find(|name| glob.matches(name.as_bytes())) {
            let message = format!(
                "this ignores `{caller}`, which tells callers apart: in scope \"private\" all \
                 that have the same value at `pointer` share their entries"
            );
            DiagnosticBuilder::warning(span, message).hint(
                "use such a field in scope \"shared\" alone, where the app must have answered \
                 each of them; then end the line with `# check: ok`",
            )
        } else if let Some(volatile) = VOLATILE.iter().find(|name| glob.matches(name.as_bytes())) {
            let message = format!(
                "this ignores `{volatile}`: a stored page would have the token or the message of \
                 the session that fetched it"
            );
            DiagnosticBuilder::warning(span, message).hint(
                "remove it, unless no response of these routes holds a form or a message; then \
                 end the line with `# check: ok`",
            )
        } else {
            continue;
        };
        context.report.push(builder);
    }
    Some(context.names(&list.value.0, |_, text| Some(Glob::new(text.value.as_str()))).into())
}

/// Whether a glob matches what a pointer names, or a member above it.
fn covers(glob: &Glob, pointer: &str) -> bool {
    let path = pointer.trim_start_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let above: Vec<Glob> = vec![glob.clone()];
    ends.map(|end| &path[..end]).any(|above_path| any_matches(&above, above_path.as_bytes()))
}
