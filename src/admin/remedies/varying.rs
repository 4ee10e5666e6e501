//! Words and changes about parts of keys that differ each time.

use super::evidence::KeyEvidence;
use super::proposal::Proposal;
use crate::policy::cookie_purpose::CookiePurpose;
use crate::policy::edit::{Edit, EditValue};
use crate::policy::field::FieldSource;
use crate::policy::plan::PartKind;
use crate::policy::route::{QueryRule, Route};
use crate::policy::scope::Scope;
use crate::policy::varying_keys::VaryingFinding;
use crate::telemetry::log::printable;

/// The longest name that is shown, in bytes.
const MAX_SHOWN: usize = 64;

/// How frameworks are told to renew a session less often.
pub(super) const RENEW_LESS: &str = "Let the app renew it only when it changes (Flask: \
    SESSION_REFRESH_EACH_REQUEST = False; Django: SESSION_SAVE_EVERY_REQUEST = False; Express: \
    rolling: false; Laravel: this route without the `web` middleware).";

/// A part with its kind: `parameter _`.
pub(super) fn subject(finding: &VaryingFinding) -> String {
    let kind = match finding.kind {
        PartKind::Parameter => "parameter",
        PartKind::Cookie => "cookie",
        PartKind::Header | PartKind::Unkeyed => "header",
    };
    format!("{kind} {}", printable(&finding.name, MAX_SHOWN))
}

/// What differs each time, and the way out.
pub(super) fn words(evidence: &KeyEvidence, route: &Route) -> Option<String> {
    let (last, first) = evidence.varying.split_last()?;
    let all: Vec<String> = first.iter().chain([last]).map(subject).collect();
    let (verb, it) = if all.len() == 1 { ("has", "it") } else { ("have", "them") };
    let most = evidence.varying.first()?;
    let ways = evidence.varying.iter().map(|finding| way_out(finding, evidence, route));
    Some(format!(
        "Keys never repeat: {} {verb} another value each time, and without {it} {} of {} of these \
         requests would have been hits. {}",
        all.join(", "),
        most.alone,
        most.seen,
        ways.collect::<Vec<_>>().join(" ")
    ))
}

fn way_out(finding: &VaryingFinding, evidence: &KeyEvidence, route: &Route) -> String {
    let name = printable(&finding.name, MAX_SHOWN);
    match finding.kind {
        PartKind::Parameter => parameter(finding, &name, evidence, route),
        PartKind::Cookie => {
            let rolls = evidence.rolling.iter().any(|known| **known == *finding.name);
            cookie(&name, rolls, route)
        }
        PartKind::Header | PartKind::Unkeyed => header(finding, &name, route),
    }
}

fn parameter(
    finding: &VaryingFinding,
    name: &str,
    evidence: &KeyEvidence,
    route: &Route,
) -> String {
    let condition = if finding.is_buster() {
        format!("Clients add `{name}` to get round caches. Let them stop it, or")
    } else {
        format!("If no response depends on `{name}`,")
    };
    let way = match &route.spec.query {
        QueryRule::All | QueryRule::Most(_) => {
            "list in `query` the parameters that count, or name it in \
             `query = { except = [\u{2026}] }`"
        }
        QueryRule::None | QueryRule::Only(_) => "take it out of `query`, or out of `key`",
    };
    let others = match &evidence.parameters {
        Some(others) if !others.is_empty() => {
            let others: Vec<_> = others.iter().map(|name| printable(name, MAX_SHOWN)).collect();
            format!(" Seen besides it: {}.", others.join(", "))
        }
        Some(_) => " No other was seen.".to_owned(),
        None => String::new(),
    };
    format!("{condition} {way}: what is not listed is withheld from the app.{others}")
}

fn cookie(name: &str, rolls: bool, route: &Route) -> String {
    let by = if rolls { "the app replaces it each time that it comes back" } else { "it changes" };
    let way = match CookiePurpose::from_name(name) {
        CookiePurpose::Noise => {
            "no app answers by it: name it in `[credential] ignore_cookies`.".to_owned()
        }
        CookiePurpose::Session => format!(
            "it looks like a session or the token of a form, so that it must count: neither ignore \
             nor strip it. {RENEW_LESS}"
        ),
        CookiePurpose::Consent | CookiePurpose::Unknown => format!(
            "if no response depends on it, name it in `[credential] ignore_cookies`; if it is a \
             session, leave it. {RENEW_LESS}"
        ),
    };
    let part = if route.spec.scope == Scope::Public { "the key" } else { "who asks" };
    format!("The cookie `{name}` is a part of {part}, and {by}: {way}")
}

fn header(finding: &VaryingFinding, name: &str, route: &Route) -> String {
    let mut fields = route.fields.iter();
    let field = fields.find(|field| field.header().is_some_and(|own| *own == *finding.name));
    match field {
        _ if finding.name.eq_ignore_ascii_case("authorization") => {
            "The credential is made for each request: let clients use a token for as long as it \
             holds."
                .to_owned()
        }
        Some(field) => format!(
            "If no response depends on `{name}`, take the field `{}` out of `key` by hand and list \
             the header in `drop_headers`; a reload asks for `# check: ok` on that route.",
            field.name
        ),
        None => format!("If no response depends on `{name}`, list it in `drop_headers`."),
    }
}

/// The change that takes out what is known to be noise, if all that differs is.
pub(super) fn proposal(evidence: &KeyEvidence, route: &Route) -> Option<Proposal> {
    let varying = &evidence.varying;
    if varying.is_empty() {
        return None;
    }
    let (mut cookies, mut parameters) = (Vec::new(), Vec::new());
    for finding in varying {
        match finding.kind {
            PartKind::Parameter if may_leave(finding, route) => parameters.push(&*finding.name),
            PartKind::Cookie if is_noise(&finding.name, evidence, route) => {
                cookies.push(finding.name.to_string());
            }
            // With one part that stays, the others change nothing.
            _ => return None,
        }
    }
    let (mut edits, mut does, mut risks) = (Vec::new(), Vec::new(), Vec::new());
    if !cookies.is_empty() {
        does.push(format!("{} no longer count, on any route.", cookies.join(", ")));
        risks.push(
            "The app no longer gets them on fills: behind a load balancer that keeps callers on \
             one server by them, fills reach any server.",
        );
        let value = EditValue::More(cookies);
        edits.push(Edit::Section { section: "credential", key: "ignore_cookies", value });
    }
    if let (QueryRule::Only(listed), false) = (&route.spec.query, parameters.is_empty()) {
        let kept = listed.iter().filter(|name| !parameters.contains(&&***name));
        let kept = kept.map(ToString::to_string).collect();
        edits.push(Edit::list(route.name(), "query", kept));
        does.push(format!("{} no longer counts.", parameters.join(", ")));
        risks.push("The app no longer gets the parameter on fills.");
    }
    Some(Proposal { edits, does: does.join(" "), risks: risks.join(" ") })
}

/// Whether a parameter may leave the list that it stands in: its name is one that clients make up
/// against caches, and no field or tag reads it.
fn may_leave(finding: &VaryingFinding, route: &Route) -> bool {
    let is_read = route
        .fields
        .iter()
        .any(|field| matches!(&field.source, FieldSource::Query(name) if **name == *finding.name));
    let is_listed = matches!(&route.spec.query, QueryRule::Only(names)
        if names.iter().any(|name| **name == *finding.name));
    finding.is_buster() && is_listed && !is_read
}

fn is_noise(name: &str, evidence: &KeyEvidence, route: &Route) -> bool {
    CookiePurpose::from_name(name) == CookiePurpose::Noise
        && !evidence.exempt.iter().any(|exempt| exempt == name)
        && !route.keyed_cookies.iter().any(|keyed| **keyed == *name)
}
