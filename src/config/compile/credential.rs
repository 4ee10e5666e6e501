//! Compiles `[credential]`, and the names and globs of cookies wherever they stand.

use std::str::FromStr as _;

use http::HeaderName;

use crate::config::context::CompileContext;
use crate::config::decode::{Located, Setting, TomlString, nearest};
use crate::config::diagnostics::diagnostic::DiagnosticBuilder;
use crate::config::file;
use crate::policy::cookies::{COOKIE_SETS, IgnoredCookies};
use crate::policy::credential::{CredentialRule, login_glob};
use crate::policy::glob::Glob;
use crate::policy::session::SessionRules;

/// `[credential]`.
pub fn credential(
    file: &file::CredentialSection,
    context: &mut CompileContext,
) -> Option<CredentialRule> {
    let headers = context.headers(&file.headers);
    let cookies: Option<Box<[Glob]>> = match &file.cookies {
        Setting::Absent => None,
        slot => Some(context.names(&slot.get()?.0, cookie_glob).into()),
    };
    let entries = context.names(&file.ignore_cookies.get()?.0, ignored_cookie);
    let texts = entries.iter().map(|entry| &**entry);
    let ignored_cookies =
        IgnoredCookies::new(texts, cookies.as_deref().unwrap_or_default()).ok()?;
    contradictions(file, context);
    let login_paths = context.names(&file.login_paths.get()?.0, login_path).into();
    let names_logins = file.login_paths.given().is_some();
    // The sessions are those of `[fields]`.
    let sessions = SessionRules::default();
    Some(CredentialRule { headers, cookies, ignored_cookies, login_paths, names_logins, sessions })
}

/// Reports cookies that both identify the caller and count for nothing.
fn contradictions(file: &file::CredentialSection, context: &mut CompileContext) {
    let cookies = file.cookies.get().map_or(&[][..], |list| &list.0);
    for text in file.ignore_cookies.get().map_or(&[][..], |list| &list.0) {
        if cookies.iter().any(|cookie| cookie.value.as_str() == text.value.as_str()) {
            let builder = DiagnosticBuilder::error(
                text.span.clone(),
                format!("`{}` is both in cookies and in ignore_cookies", text.value.shown()),
            );
            context.report.push(builder.hint("remove it from one of the two"));
        }
    }
}

/// A cookie's name (RFC 6265 4.1.1).
pub fn cookie_name(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let name = text.value.as_str();
    is_cookie_name(name, text, context).then(|| name.into())
}

/// A pattern of cookies' names. The characters of a name include `*`.
pub fn cookie_glob(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Glob> {
    let name = text.value.as_str();
    is_cookie_name(name, text, context).then(|| Glob::new(name))
}

fn is_cookie_name(name: &str, text: &Located<TomlString>, context: &mut CompileContext) -> bool {
    let valid = HeaderName::from_str(name).is_ok();
    if !valid {
        let what = format!("`{}` is not a valid cookie name", text.value.shown());
        context.report.malformed(
            text,
            "a cookie name",
            what,
            Some("letters, digits and !#$%&'*+-.^_`|~"),
            "write only the name, without `=`",
        );
    }
    valid
}

/// An entry of `ignore_cookies`: a glob or the name of a set, perhaps after `!`.
fn ignored_cookie(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Box<str>> {
    let whole = text.value.as_str();
    let entry = whole.strip_prefix('!').unwrap_or(whole);
    if !entry.starts_with('@') {
        return is_cookie_name(entry, text, context).then(|| whole.into());
    }
    let known = COOKIE_SETS.map(|(name, _)| name);
    if known.contains(&entry) {
        return Some(whole.into());
    }
    let what = format!("`{}` is not a set of cookies", text.value.shown());
    let hint = nearest(entry, &known).map_or_else(
        || "choose one of them".to_owned(),
        |near| format!("did you mean \"{near}\"?"),
    );
    context.report.malformed(text, "a set of cookies", what, Some(&known.join(", ")), &hint);
    None
}

/// Whether a segment is a capture, of a route or of another tool.
fn is_foreign(segment: &str) -> bool {
    let is_within = |open, close| segment.starts_with(open) && segment.ends_with(close);
    is_within('{', '}')
        || is_within('<', '>')
        || is_within('[', ']')
        || segment.strip_prefix(':').is_some_and(|name| !name.is_empty())
}

/// A pattern of paths.
fn login_path(context: &mut CompileContext, text: &Located<TomlString>) -> Option<Glob> {
    let path = text.value.as_str();
    let valid = path.starts_with(['/', '*'])
        && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#;".contains(&b));
    if !valid {
        let what = format!("`{}` is not a pattern of paths", text.value.shown());
        let hint = if path.contains("://") {
            "write only the path: a login at any host counts"
        } else if path.contains(['?', '#', ';']) {
            "end it before the query: only the path counts"
        } else if path.starts_with('^') {
            "write `*` for any text, without `^` and `$`"
        } else {
            "write it as \"/login\" or \"*/login\""
        };
        let allowed = Some("a path that begins with `/` or `*`, where `*` stands for any text");
        context.report.malformed(text, "a pattern of paths", what, allowed, hint);
    }
    let foreign = path.split('/').find(|segment| is_foreign(segment));
    if let Some(segment) = foreign.filter(|_| valid) {
        let form: Vec<_> =
            path.split('/').map(|part| if is_foreign(part) { "*" } else { part }).collect();
        let what = format!("`{segment}` stands for itself in a pattern of login paths");
        let allowed = Some("a path that begins with `/` or `*`, where `*` stands for any text");
        let hint = format!("write {:?}", form.join("/"));
        context.report.malformed(text, "a pattern of paths", what, allowed, &hint);
        return None;
    }
    valid.then(|| login_glob(path))
}
