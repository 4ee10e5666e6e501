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
use super::reload::{ReloadHandle, first_that_passes};
use crate::outcome::Reason;
use crate::policy::edit::{Edit, EditTrial, EditValue, TriedEdits};
use crate::policy::field::FieldSource;
use crate::policy::fronts::{self, FrontClass};
use crate::policy::known_headers::is_delivery;
use crate::policy::names::{Meaning, meaning};
use crate::policy::route::headers::FROM_TRUSTED;
use crate::policy::route::{HeaderRole, Route};
use crate::policy::scope::Scope;
use crate::semantics::storability::OriginRule;
use crate::units::show_duration;

mod causes;
mod evidence;
mod proposal;
mod set_cookies;
mod signed_sessions;
mod varying;

/// How many unknown headers one suggestion speaks of. So many are counted for each route.
const MAX_HEADERS: usize = 16;

/// How many times rarer it may be that a header comes in a form that no field takes, to be told.
const RARITY: u64 = 50;

/// What is said where a change has not been tried yet.
const PENDING: &str = "A change is still being tried: ask again in a second.";

/// How much longer a suggested time is than the one in force.
const LONGER: u32 = 3;

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

/// Why requests of a route were not served from the cache.
pub(super) struct RouteReason<'a> {
    pub(super) reason: Reason,
    /// For how many requests.
    pub(super) count: u64,
    /// The names that it is about, each with its requests, the most frequent first.
    pub(super) subjects: &'a [(String, u64)],
}

/// The remedy for a reason on a route. `evidence` is what is known of the route's keys.
pub(super) fn remedy(
    of: &RouteReason<'_>,
    route: Option<(&Route, &KeyEvidence)>,
    file: &dyn ReloadHandle,
) -> Remedy {
    let reason = of.reason;
    let seen = route.and_then(|(route, evidence)| causes::words(evidence, reason, route));
    let proposals = route.map(|(route, evidence)| proposals(of, route, evidence));
    let (proposals, first) = proposals.unwrap_or_default();
    let (change, pending) = tried(proposals, file);
    let words =
        [first.as_deref(), seen.as_deref(), Some(reason.meaning()), reason.remedy(), pending];
    let why = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    Remedy { why, change }
}

/// What keeps requests of a route from the cache besides its rules, with the change that would
/// help, if there is one. None if nothing is known.
pub(super) fn key_remedies(
    route: &Route,
    evidence: &KeyEvidence,
    file: &dyn ReloadHandle,
) -> Vec<Remedy> {
    let one = |reason: Reason| {
        let words = causes::words(evidence, reason, route)?;
        let (change, pending) = tried(causes::proposal(evidence, reason, route), file);
        let why = [Some(words.as_str()), pending].into_iter().flatten().collect::<Vec<_>>();
        Some(Remedy { why: why.join(" "), change })
    };
    [Reason::NotStored, Reason::SetCookie].into_iter().filter_map(one).collect()
}

/// The first change that may be shown; or what is said where one has not been tried yet.
fn tried(
    proposals: impl IntoIterator<Item = Proposal>,
    file: &dyn ReloadHandle,
) -> (Option<RemedyChange>, Option<&'static str>) {
    let mut proposals: Vec<Proposal> = proposals.into_iter().collect();
    let ways = proposals.iter().map(|proposal| proposal.edits.as_slice());
    match first_that_passes(ways, file) {
        (at, EditTrial::Passed(tried)) => {
            let Proposal { does, risks, .. } = proposals.swap_remove(at);
            (Some(RemedyChange { tried, does, risks }), None)
        }
        (_, EditTrial::Failed) => (None, None),
        (_, EditTrial::Pending) => (None, Some(PENDING)),
    }
}

/// The changes that may help, the best first; and what has to be done before any of them does.
fn proposals(
    of: &RouteReason<'_>,
    route: &Route,
    evidence: &KeyEvidence,
) -> (Vec<Proposal>, Option<String>) {
    if of.reason != Reason::UnkeyedHeader {
        let own = causes::proposal(evidence, of.reason, route);
        return (own.into_iter().chain(proposal(of.reason, route)).collect(), None);
    }
    // What the rules speak of by now, or the route has learned from `Vary`, needs no change.
    let roles = route.headers.context(false);
    let is_open = |(name, _): &&(String, u64)| {
        HeaderName::from_str(name)
            .is_ok_and(|name| route.headers.role(&name, &roles) == HeaderRole::Unknown)
    };
    let subjects: Vec<(String, u64)> = of.subjects.iter().filter(is_open).cloned().collect();
    // On a route for everybody, a header that names one caller has no place in the key.
    let ways = [true, false].map(|with_callers| {
        let first = &subjects[..subjects.len().min(MAX_HEADERS)];
        HeaderPlaces::new(first, route, with_callers, evidence)
    });
    let blocked = |places: &HeaderPlaces| places.in_the_way(&subjects, of.count);
    // The second way leaves more as it is than the first, and is the only one for everybody.
    let is_public = route.spec.scope == Scope::Public;
    let first = blocked(&ways[usize::from(is_public)]);
    let ways = ways.into_iter().filter(|places| blocked(places).is_none());
    (ways.filter_map(|places| places.proposal(route)).collect(), first)
}

fn proposal(reason: Reason, route: &Route) -> Option<Proposal> {
    let (path, spec) = (route.name(), &route.spec);
    let one = |edit: Edit, does: &str, risks: &str| {
        Some(Proposal { edits: vec![edit], does: does.to_owned(), risks: risks.to_owned() })
    };
    match reason {
        // A field that reads a repeated parameter is ambiguous whatever else counts.
        Reason::AmbiguousQuery if reads_query(route) => None,
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
        Reason::NoFreshness if spec.ttl.is_empty() => one(
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
            longer("ttl", spec.ttl.plain()?, route, "Responses are fresh for longer")
        }
        _ => None,
    }
}

/// Whether a field of the route's key or tags reads the query.
fn reads_query(route: &Route) -> bool {
    route.fields.iter().any(|field| matches!(field.source, FieldSource::Query(_)))
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
    /// The fronts that are named by it, and what that does.
    fronts: Vec<String>,
    of_fronts: Option<String>,
    credentials: Vec<String>,
    fields: Vec<String>,
    noise: Vec<String>,
    /// Those for which no rule of the route is right.
    left: Vec<String>,
    /// Those whose value differs in each request.
    varying: Vec<String>,
    /// Those that come in a form for which a field of the key would refuse the request.
    refused: Vec<String>,
    /// Whether there may be more than these.
    is_full: bool,
}

impl HeaderPlaces {
    fn new(
        subjects: &[(String, u64)],
        route: &Route,
        with_callers: bool,
        evidence: &KeyEvidence,
    ) -> Self {
        let is_full = subjects.len() >= MAX_HEADERS;
        let names: Vec<String> = subjects.iter().map(|(name, _)| name.clone()).collect();
        let (fronts, of_fronts, open) = seen_fronts(&names, route);
        let mut places = Self { fronts, of_fronts, is_full, ..Self::default() };
        // By name: how often each has come changes from one moment to the next.
        let mut subjects: Vec<&(String, u64)> =
            subjects.iter().filter(|(name, _)| open.contains(name)).collect();
        subjects.sort();
        for (name, count) in subjects {
            let is_refused = |(known, times): &(String, u64)| {
                known == name && times.saturating_mul(RARITY) >= *count
            };
            if evidence.refused.iter().any(is_refused) {
                places.refused.push(name.clone());
                continue;
            }
            if is_delivery(name) {
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
        let mut does: Vec<String> = self.of_fronts.iter().cloned().collect();
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
        if !self.refused.is_empty() {
            does.push(refused(&self.refused));
        }
        if self.is_full {
            does.push(format!("There may be more than these {MAX_HEADERS} headers."));
        }
        does.join(" ")
    }

    /// What has to be done before any change helps: a header that stays as it is, and that all of
    /// these requests have.
    fn in_the_way(&self, subjects: &[(String, u64)], requests: u64) -> Option<String> {
        let is_in_all = |name: &&String| {
            subjects.iter().any(|(known, count)| known == *name && *count >= requests)
        };
        if let Some(name) = self.refused.iter().find(is_in_all) {
            return Some(refused(std::slice::from_ref(name)));
        }
        if let Some(name) = self.varying.iter().find(is_in_all) {
            return Some(format!(
                "{name} has another value in each request, so that no key with it would ever \
                 repeat: list it in `drop_headers` if no response depends on it."
            ));
        }
        let name = self.left.iter().find(is_in_all)?;
        Some(format!(
            "All of these requests have {name}, for which no line is safe to suggest: what becomes \
             of it decides."
        ))
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
        if !self.noise.is_empty() || !self.fronts.is_empty() {
            risks.push("Responses that depend on a withheld header no longer do.");
        }
        risks.join(" ")
    }
}

/// Why some headers are no fields.
fn refused(names: &[String]) -> String {
    let comes = if names.len() == 1 { "comes" } else { "come" };
    format!(
        "{} {comes} more than once in a request, or is named in `Connection`: with a field that \
         reads it, such a request would be refused.",
        names.join(", "),
    )
}

impl HeaderPlaces {
    /// One change for all headers that neither the key nor the route speaks of.
    fn proposal(self, route: &Route) -> Option<Proposal> {
        let (does, risks) = (self.does(), self.risks());
        let Self { fronts, credentials, fields, noise, .. } = self;
        let mut edits = Vec::new();
        if !fronts.is_empty() {
            edits.push(Edit::Top { key: "fronts", value: EditValue::More(fronts) });
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
}
