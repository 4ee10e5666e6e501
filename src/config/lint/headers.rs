//! Lint of headers that reach the origin without being in the key: `pass_headers` and
//! `unknown_headers = "pass"`.

use std::str::FromStr as _;

use http::{HeaderName, header};

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::{LintFile, LintRoute, texts};
use crate::policy::field::FieldSource;
use crate::policy::names::{Meaning, meaning};
use crate::policy::route::headers::may_choose;
use crate::policy::route::{AdmitRule, UnknownHeaders};
use crate::policy::scope::Scope;

/// Checks each cached route.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached() {
        passed(route, whole, context);
        unknown(route, context);
    }
}

fn passed(route: &LintRoute<'_>, whole: &LintFile<'_>, context: &mut CompileContext) {
    let chosen = route.spec.key.iter().any(|field| matches!(field.source, FieldSource::Auth(_)));
    let is_credential = |name: &HeaderName| {
        *name == header::AUTHORIZATION
            || *name == header::COOKIE
            || whole.credential.headers.contains(name)
    };
    let fields = || super::scopes::fields(route);
    for text in texts(&route.file.pass_headers) {
        let Ok(name) = HeaderName::from_str(text.value.as_str()) else { continue };
        // The credential is in the key or authorized by the origin, unless a field of the key has
        // taken its place.
        let seen = is_credential(&name) && (!chosen || name == header::AUTHORIZATION);
        if seen || fields().any(|field| field.header() == Some(&name)) {
            continue;
        }
        if !may_choose(name.as_str()) {
            continue;
        }
        let meaning = meaning(name.as_str());
        let (message, hint) = passed_name(&name, meaning, text.value.shown(), counts(route, &name));
        context.report.push(DiagnosticBuilder::warning(text.span.clone(), message).hint(hint));
    }
}

/// Whether a header of this name would tell the callers of this route apart as a part of the
/// credential.
fn counts(route: &LintRoute<'_>, name: &HeaderName) -> bool {
    let is_compared = match route.spec.scope {
        Scope::Private => true,
        Scope::Shared => route.spec.admit == AdmitRule::Entry,
        Scope::Public => false,
    };
    // These two are a part of it anyway.
    is_compared && *name != header::AUTHORIZATION && *name != header::COOKIE
}

/// The message and the hint for a name in `pass_headers`. `counts` says whether it could be a part
/// of the credential.
fn passed_name(
    name: &HeaderName,
    meaning: Option<Meaning>,
    shown: &str,
    counts: bool,
) -> (String, String) {
    let what = match meaning {
        Some(Meaning::Credential) => "identifies the caller",
        Some(Meaning::Caller) => "identifies the user",
        Some(Meaning::Address) => "tells the client's address",
        Some(Meaning::Choice | Meaning::Negotiated) => "changes the responses of many apps",
        Some(Meaning::Cache) => "addresses the cache",
        None => "may change responses",
    };
    let message = format!(
        "`{shown}` {what}, but reaches the origin without being in the key: one response would be \
         served for all its values"
    );
    // SECURITY: a name that holds the value of a variable is not repeated.
    let field = if shown.contains("${") {
        "field".to_owned()
    } else {
        name.as_str().trim_start_matches("x-").replace('-', "_")
    };
    let in_key = format!(
        "add it to the key: {field} = {{ header = \"{shown}\" }} in [fields] and \"{field}\" in \
         `key`"
    );
    let hint = match meaning {
        Some(Meaning::Credential) if counts => format!(
            "remove it, and make it a part of the credential: headers = [\"{shown}\"] in \
             [credential]"
        ),
        Some(Meaning::Credential) => {
            format!("use drop_headers instead: drop_headers = [\"{shown}\"]")
        }
        Some(Meaning::Address) => "remove it, and add the address to the key: office = { client = \
                                   \"address\", prefix = \"/24\" } in [fields] and \"office\" in \
                                   `key`"
            .to_owned(),
        Some(Meaning::Cache) => "remove it: the cache answers it from what is stored".to_owned(),
        Some(Meaning::Negotiated) if name == header::USER_AGENT => {
            format!("remove it: on a fill the origin gets user_agent of [upstream]; or {in_key}")
        }
        Some(Meaning::Negotiated) => {
            format!("remove it: the key has it where it is not passed; or {in_key}")
        }
        Some(Meaning::Caller | Meaning::Choice) => format!("{in_key}; or add it to drop_headers"),
        None => format!(
            "{in_key}; or add it to drop_headers; if no response depends on it, end the line with \
             `# check: ok`"
        ),
    };
    (message, hint)
}

fn unknown(route: &LintRoute<'_>, context: &mut CompileContext) {
    let given = route
        .file
        .unknown_headers
        .given()
        .filter(|_| route.spec.unknown_headers == UnknownHeaders::Pass);
    if let Some(given) = given {
        let message = "every header that is not part of the key reaches the origin: anyone can \
                       change the stored response for others with a header of their own";
        let hint = "write unknown_headers = \"drop\", and name harmless headers that the origin \
                    needs in pass_headers";
        context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
    }
}
