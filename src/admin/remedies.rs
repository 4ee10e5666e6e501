//! Suggests the change of `proxy.toml` that would remove a reason for missing the cache. The
//! operator decides.
//!
//! The texts about a reason come from `outcome::Reason`; this adds the change, with the names from
//! the requests and the route, what it does and what it risks. A change is shown only after it has
//! been tried on the file ([`ReloadHandle::try_edits`]).
//!
//! Invariants:
//! 1. *No field leaves a key, and no header is passed beside it.* An unknown header becomes a field
//!    of the key, or part of the credential; it is withheld only where it is known to change
//!    nothing.
//! 2. *What the origin says of a response stands*: neither `origin = "ignore"` nor
//!    `strip_set_cookie` is suggested, since a form or a login may be behind it.
//!    Only cookies that are known to count visitors or to steer connections may be named there.
//! 3. *Each change has an effect on the requests that it is suggested for.*

use std::str::FromStr as _;
use std::time::Duration;

use http::HeaderName;

pub(super) use self::causes::subjects;
pub(super) use self::evidence::KeyEvidence;
use self::proposal::Proposal;
use super::reload::ReloadHandle;
use crate::outcome::Reason;
use crate::policy::edit::{Edit, EditValue, TriedEdits};
use crate::policy::fronts::{self, FrontClass};
use crate::policy::names::{Meaning, meaning};
use crate::policy::route::Route;
use crate::policy::route::headers::FROM_TRUSTED;
use crate::policy::scope::Scope;
use crate::semantics::storability::OriginRule;
use crate::units::show_duration;

mod causes;
mod evidence;
mod proposal;
mod set_cookies;
mod varying;

/// How many unknown headers one suggestion speaks of.
const MAX_HEADERS: usize = 16;

/// How much longer a suggested time is than the one in force.
const LONGER: u32 = 3;

/// Headers of tracing and delivery, by which no app answers, besides those of fronts.
const NOISE: &[&str] = &[
    "x-amz-cf-id",
    "x-amzn-requestid",
    "x-akamai-edgescape-trace",
    "x-fastly-trace",
    "x-nginx-request-id",
    "x-vercel-id",
];

/// Whether no app answers by this header.
pub(super) fn is_noise(name: &str) -> bool {
    let of_front = fronts::known(name).map(|known| known.class);
    of_front == Some(FrontClass::Noise) || NOISE.contains(&name)
}

/// The explanation of a reason and its remedy.
pub(super) struct Remedy {
    /// What the reason means, and what to do about it.
    pub(super) why: String,
    /// The change of `proxy.toml`, if there is one.
    pub(super) change: Option<RemedyChange>,
}

/// A change of `proxy.toml` that has been tried.
pub(super) struct RemedyChange {
    /// The change.
    pub(super) tried: TriedEdits,
    /// What it does.
    pub(super) does: String,
    /// What it risks.
    pub(super) risks: String,
}

/// The remedy for a reason on a route. `subjects` are the names that the reason is about, the most
/// frequent first; `evidence` is what is known of the route's keys.
pub(super) fn remedy(
    reason: Reason,
    subjects: &[String],
    route: Option<(&Route, &KeyEvidence)>,
    file: &dyn ReloadHandle,
) -> Remedy {
    let seen = route.and_then(|(route, evidence)| causes::words(evidence, reason, route));
    let words = [seen.as_deref(), Some(reason.meaning()), reason.remedy()];
    let why = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let proposals = route.map(|(route, evidence)| proposals(reason, subjects, route, evidence));
    Remedy { why, change: tried(proposals.unwrap_or_default(), file) }
}

/// What keeps requests of a route from the cache besides its rules, with the change that would
/// help, if there is one. None if nothing is known.
pub(super) fn key_remedies(
    route: &Route,
    evidence: &KeyEvidence,
    file: &dyn ReloadHandle,
) -> Vec<Remedy> {
    let one = |reason: Reason| {
        let why = causes::words(evidence, reason, route)?;
        let change = tried(causes::proposal(evidence, reason, route), file);
        Some(Remedy { why, change })
    };
    [Reason::NotStored, Reason::SetCookie].into_iter().filter_map(one).collect()
}

/// The first change that may be shown.
fn tried(
    proposals: impl IntoIterator<Item = Proposal>,
    file: &dyn ReloadHandle,
) -> Option<RemedyChange> {
    proposals.into_iter().find_map(|proposal| {
        let tried = file.try_edits(&proposal.edits)?;
        Some(RemedyChange { tried, does: proposal.does, risks: proposal.risks })
    })
}

/// The changes that may help, the best first.
fn proposals(
    reason: Reason,
    subjects: &[String],
    route: &Route,
    evidence: &KeyEvidence,
) -> Vec<Proposal> {
    if reason != Reason::UnkeyedHeader {
        let own = causes::proposal(evidence, reason, route);
        return own.into_iter().chain(proposal(reason, route)).collect();
    }
    // What the route has learned from `Vary` meanwhile needs no change.
    let learned = route.headers.learned();
    let is_open = |name: &&String| !learned.iter().any(|known| known.as_str() == **name);
    let subjects: Vec<String> = subjects.iter().filter(is_open).cloned().collect();
    // On a route for everybody, a header that names one caller has no place in the key.
    let all = unkeyed(&subjects, route, true, evidence);
    let others = unkeyed(&subjects, route, false, evidence);
    all.into_iter().chain(others).collect()
}

fn proposal(reason: Reason, route: &Route) -> Option<Proposal> {
    let (path, spec) = (route.name(), &route.spec);
    let one = |edit: Edit, does: &str, risks: &str| {
        Some(Proposal { edits: vec![edit], does: does.to_owned(), risks: risks.to_owned() })
    };
    match reason {
        Reason::AmbiguousQuery => one(
            Edit::text(path, "query", "all"),
            "Every parameter counts, in the order of the request.",
            "More entries: requests that differ in any parameter no longer share one.",
        ),
        Reason::RequestNoCache | Reason::RequestNoStore => one(
            Edit::text(path, "client_cache_control", "ignore"),
            "Clients get what is stored, whatever their `Cache-Control` says.",
            "A reload in a browser no longer reaches the app.",
        ),
        Reason::NoFreshness => one(
            Edit::text(path, "ttl", "5m"),
            "Responses without a lifetime of their own are fresh for five minutes.",
            "What changes without a write that a purge rule knows is old for up to that time.",
        ),
        Reason::Authorization => one(
            Edit::text(path, "scope", "private"),
            "Each caller has entries of its own.",
            "More entries: callers no longer share any.",
        ),
        // `admit_for` has no effect on callers who come for the first time, as most may do here.
        Reason::CredentialUnconfirmed => longer(
            "revalidate_after",
            spec.revalidate_after?,
            route,
            "The app is asked again about a caller less often",
        ),
        // Where the origin's word counts, `ttl` may have no effect at all.
        Reason::Expired if spec.origin == OriginRule::Ignore => {
            longer("ttl", spec.ttl?, route, "Responses are fresh for longer")
        }
        _ => None,
    }
}

/// Sets a time to a multiple of itself.
fn longer(key: &'static str, now: Duration, route: &Route, does: &str) -> Option<Proposal> {
    let time = show_duration(now.checked_mul(LONGER)?);
    Some(Proposal {
        edits: vec![Edit::text(route.name(), key, &time)],
        does: format!("{does}: {time} in place of {}.", show_duration(now)),
        risks: "What was revoked, or has changed without a purge, is served for longer.".to_owned(),
    })
}

/// Whether only a trusted proxy can vouch for this header.
pub(super) fn is_of_proxy(name: &str) -> bool {
    let of_front = fronts::known(name).map(|known| known.class);
    of_front == Some(FrontClass::Request) || FROM_TRUSTED.contains(&name)
}

/// The fronts whose signs are among the unknown headers, and what naming them does. Without those
/// of them that the front's name takes care of, the unknown headers.
fn seen_fronts(subjects: &[String], route: &Route) -> (Vec<String>, Option<String>, Vec<String>) {
    let names: Vec<&str> = subjects.iter().map(String::as_str).collect();
    let seen = fronts::seen(route.headers.fronts(), &names);
    let is_settled = |name: &str| {
        let of_seen = seen.iter().any(|(_, headers)| headers.contains(&name));
        let class = fronts::known(name).map(|known| known.class);
        // The client's place gets one in the key as well, where the origin may answer by it.
        of_seen && !matches!(class, Some(FrontClass::Identity | FrontClass::Location) | None)
    };
    let (settled, left): (Vec<_>, Vec<_>) =
        subjects.iter().cloned().partition(|name| is_settled(name));
    let words: Vec<String> =
        seen.iter().map(|(table, _)| table.front.as_str().to_owned()).collect();
    let does = (!words.is_empty()).then(|| {
        format!(
            "The headers of {} are known: {} no longer {} requests from the cache.",
            words.join(" and "),
            settled.join(", "),
            if settled.len() == 1 { "keeps" } else { "keep" }
        )
    });
    (words, does, left)
}

/// What a change does to unknown headers.
#[derive(Default)]
struct HeaderPlaces {
    credentials: Vec<String>,
    fields: Vec<String>,
    noise: Vec<String>,
    /// Those for which no rule of the route is right.
    left: Vec<String>,
    /// Those whose value differs in each request.
    varying: Vec<String>,
}

impl HeaderPlaces {
    fn new(subjects: &[String], route: &Route, with_callers: bool, evidence: &KeyEvidence) -> Self {
        let mut places = Self::default();
        for name in subjects.iter().filter(|name| HeaderName::from_str(name).is_ok()) {
            if is_noise(name) {
                places.noise.push(name.clone());
                continue;
            }
            let varies = evidence.unkeyed.iter().any(|known| **known == **name);
            let list = match meaning(name) {
                // In the key, a value that never comes again helps nobody.
                None if varies => &mut places.varying,
                Some(Meaning::Credential) if varies => &mut places.left,
                // In scope `public` a credential would be withheld, and its owner be given what the
                // app shows to strangers.
                Some(Meaning::Credential) if route.spec.scope == Scope::Public => &mut places.left,
                Some(Meaning::Credential) => &mut places.credentials,
                // A client may say anything about its address and about the target that it asked
                // for: `trusted_proxies` says whom to believe.
                _ if is_of_proxy(name) => &mut places.left,
                Some(Meaning::Address | Meaning::Cache | Meaning::Negotiated) => &mut places.left,
                Some(Meaning::Caller) if !with_callers => &mut places.left,
                Some(Meaning::Caller | Meaning::Choice) | None => &mut places.fields,
            };
            list.push(name.clone());
        }
        places
    }

    fn does(&self) -> String {
        let has = |names: &[String]| if names.len() == 1 { "has" } else { "have" };
        let is = |names: &[String]| if names.len() == 1 { "is" } else { "are" };
        let becomes = |names: &[String]| if names.len() == 1 { "becomes" } else { "become" };
        let (credentials, fields, noise) = (&self.credentials, &self.fields, &self.noise);
        let mut does = Vec::new();
        if !credentials.is_empty() {
            let names = credentials.join(", ");
            does.push(format!("{names} {} a part of the credential.", becomes(credentials)));
        }
        if !fields.is_empty() {
            does.push(format!("{} {} a place in the key.", fields.join(", "), has(fields)));
        }
        if !noise.is_empty() {
            let names = noise.join(", ");
            does.push(format!("{names} {} withheld from the app on fills.", is(noise)));
        }
        if !self.left.is_empty() {
            let names = self.left.join(", ");
            does.push(format!("Requests with {names} bypass the cache as before."));
        }
        if !self.varying.is_empty() {
            does.push(format!(
                "{} {} another value in each request, so that no key with it would ever repeat: \
                 list it in `drop_headers` if no response depends on it.",
                self.varying.join(", "),
                has(&self.varying),
            ));
        }
        does.join(" ")
    }

    fn risks(&self) -> String {
        let mut risks = Vec::new();
        if !self.credentials.is_empty() || !self.fields.is_empty() {
            risks.push(
                "More entries: requests that differ in one of these headers do not share any.",
            );
        }
        if !self.fields.is_empty() {
            risks.push("A request that repeats a header of the key is refused.");
        }
        if !self.credentials.is_empty() {
            risks.push(
                "The credential is that of all routes: those of scope `public` withhold it from \
                 the app.",
            );
        }
        if !self.noise.is_empty() {
            risks.push("Responses that depend on a withheld header no longer do.");
        }
        risks.join(" ")
    }
}

/// One change for all headers that neither the key nor the route speaks of.
fn unkeyed(
    subjects: &[String],
    route: &Route,
    with_callers: bool,
    evidence: &KeyEvidence,
) -> Option<Proposal> {
    let first = &subjects[..subjects.len().min(MAX_HEADERS)];
    let (fronts, of_fronts, first) = seen_fronts(first, route);
    let places = HeaderPlaces::new(&first, route, with_callers, evidence);
    let words = [of_fronts, Some(places.does()).filter(|does| !does.is_empty())];
    let does = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let mut risks = places.risks();
    let HeaderPlaces { credentials, fields, noise, .. } = places;
    let mut edits = Vec::new();
    if !fronts.is_empty() {
        edits.push(Edit::Top { key: "fronts", value: EditValue::More(fronts) });
        if noise.is_empty() {
            let separator = if risks.is_empty() { "" } else { " " };
            risks.push_str(separator);
            risks.push_str("Responses that depend on a withheld header no longer do.");
        }
    }
    if !credentials.is_empty() {
        edits.push(Edit::Section {
            section: "credential",
            key: "headers",
            value: EditValue::More(credentials),
        });
    }
    if !fields.is_empty() {
        let mut key = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for header in fields {
            let mut name = header.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            while names.contains(&name) {
                name.push('_');
            }
            key.push(format!("{name}?"));
            names.push(name.clone());
            edits.push(Edit::HeaderField { name, header });
        }
        edits.push(Edit::more(route.name(), "key", key));
    }
    if !noise.is_empty() {
        let dropped = route.spec.drop_headers.iter().map(|name| name.as_str().to_owned());
        edits.push(Edit::list(route.name(), "drop_headers", dropped.chain(noise).collect()));
    }
    (!edits.is_empty()).then_some(Proposal { edits, does, risks })
}
