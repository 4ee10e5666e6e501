//! Who shares an entry, by the rules of a file, and where another file lets more callers share one.
//!
//! A reload that widens sharing, and a suggestion that would, are judged by the same comparison. A
//! suggestion is not shown; a reload is refused, unless `# check: ok` stands where it widens.
//!
//! Invariants:
//! 1. *Every way to share is named here.* Two requests share an entry of a route only if its scope,
//!    its key fields and `admit` let them, and they can get each other's data only if what the
//!    origin answers by is sent on a fill without being in the key (`pass_headers`,
//!    `unknown_headers = "pass"`, `fronts` without what said who asks), if the host is not in the
//!    key (`host_key`), or if the origin's own word against sharing is overridden (`origin =
//!    "ignore"`, `vary_cookie = "ignore"`, `strip_set_cookie` of a session), or if they are guests
//!    (`signed_in`). What is sent beside
//!    the key is [`SentBesideKey`]. In scope `private` a part of a signed session may stand for the
//!    whole caller.
//! 2. *Withholding is not sharing.* What a fill does not carry (`drop_headers`, `ignore_cookies`,
//!    parameters out of `query`) cannot put one caller's data into an entry.
//! 3. *A mode shares nothing wider*: `mode` is not compared.
//! 4. *Paths count, not names.* Each route is compared with those that had its paths before, so
//!    that neither another spelling of a path, nor a route that is added or gone, nor one whose
//!    case counts or no longer does, widens unseen.

use std::collections::BTreeSet;
use std::sync::Arc;

use self::beside_key::SentBesideKey;
pub use self::refusals::refusals;
use super::model::Config;
use crate::policy::apps::{AppHosts, AppId};
use crate::policy::cookie_purpose::may_name_session;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{Auth, ClientPrefix, FieldSource};
use crate::policy::fronts::{FrontClass, Fronts};
use crate::policy::glob::Glob;
use crate::policy::jwt::{TokenField, TokenPlace};
use crate::policy::request_match::{RequestMatch, any_request};
use crate::policy::route::{
    AdmitRule, Neighbours, PathCase, Route, Routes, StripSetCookie, VaryCookie,
};
use crate::policy::scope::Scope;
use crate::policy::session::SessionRule;
use crate::policy::signed_in::SignedIn;
use crate::semantics::storability::OriginRule;

mod beside_key;
mod refusals;

fn joins_hosts(config: &Config) -> Vec<(Option<Arc<str>>, bool)> {
    let apps = config.app_rules();
    apps.iter().map(|app| (app.name.clone(), app.host_key.is_some())).collect()
}

/// Who shares the entries of each route of a file.
#[derive(Clone, Debug, Default)]
pub struct SharingRules {
    table: Routes,
    /// In the order of the table.
    routes: Vec<RouteSharing>,
    /// Whether all hosts of each app share their entries.
    joins_hosts: Vec<(Option<Arc<str>>, bool)>,
    /// Which hosts are of which app.
    hosts: Arc<AppHosts>,
    /// What stands in front: what it says of callers keeps a request from the cache.
    fronts: Fronts,
}

/// Who shares the entries of one route.
#[derive(Clone, Debug)]
struct RouteSharing {
    scope: Scope,
    /// What tells entries apart, with the names of the fields.
    keyed: Vec<(String, FieldSource)>,
    beside_key: SentBesideKey,
    admit: AdmitRule,
    /// The keys by which what the origin says against sharing does not count.
    overrides: BTreeSet<&'static str>,
    /// What `strip_set_cookie` lists of cookies that may be sessions, or tokens of forms.
    stripped_sessions: BTreeSet<String>,
    /// What those have who are no guests. Guests share as in scope `public`.
    signed_in: Option<SignedIn>,
    /// The headers of `[credential]`: who sends one is no guest.
    credentials: BTreeSet<String>,
}

/// A key of a file by which more callers share an entry than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widening {
    /// The place of the route among those of the file; `None` for what counts for all of them.
    route: Option<usize>,
    /// The app whose hosts it is about, where it is about no route.
    app: AppId,
    /// The key: of the route, of `[upstream]`, or of the top of the file.
    pub key: &'static str,
    /// What it does now, and where, to follow "this".
    pub what: String,
}

impl Widening {
    /// Of what counts for all routes.
    const fn of_all(key: &'static str, what: String) -> Self {
        Self { route: None, app: AppId::FIRST, key, what }
    }
}

impl SharingRules {
    /// Who shares by the rules of this file.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        Self {
            table: config.routes.clone(),
            routes: config
                .routes
                .iter()
                .map(|route| RouteSharing::of(route, &config.credential))
                .collect(),
            joins_hosts: joins_hosts(config),
            hosts: Arc::clone(&config.app_hosts),
            fronts: config.fronts,
        }
    }

    /// Where more callers share an entry by these rules than by `before`. Paths for which only one
    /// of the files has a route share nothing with each other.
    #[must_use]
    pub fn widened_from(&self, before: &Self) -> Vec<Widening> {
        let mut found = Vec::new();
        for app in self.joining_more_hosts_than(before) {
            let what = "gives all hosts the same entries".to_owned();
            found.push(Widening { app, ..Widening::of_all("host_key", what) });
        }
        // Where every header passes, those that a front's name has kept back pass, too.
        let guarded: Vec<&str> = before.fronts.of_class(FrontClass::Identity).collect();
        let lost = guarded
            .into_iter()
            .find(|name| !self.fronts.of_class(FrontClass::Identity).any(|kept| kept == *name));
        if let Some(name) =
            lost.filter(|_| self.routes.iter().any(|route| route.beside_key.passes_unknown))
        {
            let what = format!("passes `{name}`, which says who asks, without a place in the key");
            found.push(Widening::of_all("fronts", what));
        }
        let former: Vec<_> = before.table.iter().zip(&before.routes).collect();
        let neighbours: Neighbours = former.iter().map(|(old, _)| &old.spec.pattern).collect();
        for (now, sharing) in self.table.iter().zip(&self.routes) {
            for place in neighbours.of(&now.spec.pattern) {
                let (old, old_sharing) = former[place];
                if !self.follows(now, before, old) {
                    continue;
                }
                let place = if now.name() == old.name() {
                    format!("on {}", now.name())
                } else {
                    format!("on {}, for paths that {} had", now.name(), old.name())
                };
                for (key, what) in sharing.widened_from(old_sharing) {
                    // One of several former routes says it.
                    let is_known = |one: &Widening| {
                        one.route == Some(now.id) && one.key == key && one.what.starts_with(&what)
                    };
                    if !found.iter().any(is_known) {
                        let what = format!("{what} {place}");
                        let route = Some(now.id);
                        found.push(Widening { route, ..Widening::of_all(key, what) });
                    }
                }
            }
        }
        found
    }

    /// The apps of which all hosts count for one that did not. What an app that is new does with
    /// its hosts changes nothing for those who shared before.
    fn joining_more_hosts_than(&self, before: &Self) -> impl Iterator<Item = AppId> {
        let counts = !self.table.is_empty() && !before.table.is_empty();
        let joined_before =
            |name: &Option<Arc<str>>| before.joins_hosts.iter().find(|(known, _)| known == name);
        let joining = self.joins_hosts.iter().enumerate().filter(move |(_, (name, joins))| {
            counts && *joins && joined_before(name).is_some_and(|(_, joined)| !joined)
        });
        joining.map(|(place, _)| AppId::at(place))
    }

    /// Whether `now` has paths that `old` had, of hosts that it had.
    fn follows(&self, now: &Route, before: &Self, old: &Route) -> bool {
        let (app, former) = (now.spec.app.id, old.spec.app.id);
        if !self.hosts.meets(app, &before.hosts, former) {
            return false;
        }
        let (one, two) = (&now.spec.pattern, &old.spec.pattern);
        let meets = |path: &str| {
            takes_alike(
                (&self.table.candidates(app, path), now),
                (&before.table.candidates(former, path), old),
            )
        };
        let mut paths = one.meeting_paths(two).into_iter().chain(two.meeting_paths(one));
        // A route whose case does not count has paths that its pattern does not show.
        let has_spellings = [now, old].iter().any(|route| route.spec.case == PathCase::Ignore);
        let is_plain = now.spec.conditions.is_empty() && old.spec.conditions.is_empty();
        (is_plain && one == two && now.spec.case == old.spec.case)
            || paths.any(|path| {
                meets(&path) || (has_spellings && spellings(&path).iter().any(|path| meets(path)))
            })
    }
}

/// Whether some request is for `now` among these candidates, and was for `old` among those.
fn takes_alike(
    (candidates, now): (&[&Arc<Route>], &Route),
    (former, old): (&[&Arc<Route>], &Route),
) -> bool {
    let (own, others) = (&now.spec.conditions, &old.spec.conditions);
    let (Some(taken), Some(formerly)) = (tried_before(candidates, now), tried_before(former, old))
    else {
        return false;
    };
    let before = || taken.iter().chain(&formerly).copied();
    !own.excludes(others)
        && any_request(before().chain([own, others]), |sample| {
            sample.meets(own)
                && sample.meets(others)
                && !before().any(|earlier| sample.meets(earlier))
        })
}

/// The conditions by which earlier candidates may take what meets those of a route. `None` if it is
/// not among the candidates.
fn tried_before<'a>(candidates: &[&'a Arc<Route>], route: &Route) -> Option<Vec<&'a RequestMatch>> {
    let at = candidates.iter().position(|candidate| candidate.id == route.id)?;
    let earlier = candidates[..at].iter().map(|candidate| &candidate.spec.conditions);
    Some(earlier.filter(|earlier| !earlier.excludes(&route.spec.conditions)).collect())
}

/// Other spellings of a path, which a route whose case does not count matches as well.
fn spellings(path: &str) -> [String; 3] {
    let every_other = path.chars().enumerate().map(|(at, letter)| {
        if at % 2 == 0 { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    });
    [path.to_ascii_uppercase(), path.to_ascii_lowercase(), every_other.collect()]
}

/// What tells entries of a route apart: its fields, and where all other headers pass, those that
/// `match` names.
fn keyed(route: &Route, beside_key: &SentBesideKey) -> Vec<(String, FieldSource)> {
    let fields = route.fields.iter().map(|field| (field.name.to_string(), field.source.clone()));
    let headers = route.spec.conditions.headers.iter().filter(|_| beside_key.passes_unknown);
    let headers = headers.map(|(name, _)| (name.to_string(), FieldSource::Header(name.clone())));
    fields.chain(headers).collect()
}

impl RouteSharing {
    fn of(route: &Arc<Route>, credential: &Arc<CredentialRule>) -> Self {
        let spec = &route.spec;
        let overrides = [
            ("origin", spec.origin == OriginRule::Ignore && !spec.ttl.is_empty()),
            ("vary_cookie", spec.vary_cookie == VaryCookie::Ignore),
            ("strip_set_cookie", spec.strip_set_cookie == StripSetCookie::All),
        ];
        let stripped = match &spec.strip_set_cookie {
            StripSetCookie::Named(names) => &**names,
            StripSetCookie::No | StripSetCookie::All => &[],
        };
        // What is verified is stripped only where its payload stays the same.
        let is_verified = |name: &Glob| {
            route.session_rules.iter().any(|rule| *rule.settings.cookie == *name.as_str())
        };
        let beside_key = SentBesideKey::new(route, credential);
        let sessions = stripped.iter().filter(|name| may_name_session(name) && !is_verified(name));
        Self {
            scope: spec.scope,
            keyed: keyed(route, &beside_key),
            beside_key,
            admit: spec.admit,
            overrides: overrides.into_iter().filter_map(|(key, is)| is.then_some(key)).collect(),
            stripped_sessions: match &spec.signed_in {
                // They are taken out for guests alone, once a second answer is the same.
                Some(_) => BTreeSet::new(),
                None => sessions.map(|name| name.as_str().to_owned()).collect(),
            },
            signed_in: spec.signed_in.clone(),
            credentials: credential.headers.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }

    /// The keys by which more callers share than by `old`, and what they do.
    fn widened_from(&self, old: &Self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if width(self.scope) > width(old.scope) {
            let (from, to) = (old.scope.as_str(), self.scope.as_str());
            found.push(("scope", format!("makes a {from} route {to}")));
        }
        for (name, source) in &old.keyed {
            if !self.tells_apart(source) {
                found.push(("key", format!("takes `{name}` out of the key")));
            }
        }
        for (name, rule) in self.chosen_callers() {
            let is_known = old.scope == Scope::Public
                || old.chosen_callers().any(|(_, known)| rule.is_as_narrow_as(known));
            if !is_known {
                let what = format!("takes `{name}` of the session for the whole caller");
                found.push(("key", what));
            }
        }
        found.extend(self.beside_key.grown_from(&old.beside_key));
        found.extend(self.more_guests_than(old).map(|what| ("signed_in", what.to_owned())));
        let is_shared = self.scope == Scope::Shared;
        if is_shared && self.admit == AdmitRule::Route && old.admit == AdmitRule::Entry {
            found.push(("admit", "lets who may read one page read all".to_owned()));
        }
        let words = [
            (
                "origin",
                self.scope != Scope::Private || self.signed_in.is_some(),
                "overrides the origin's `Cache-Control: private`",
            ),
            ("vary_cookie", self.scope == Scope::Public, "overrides the origin's `Vary: Cookie`"),
            // In scope `public` it has no effect, since no fill carries a credential.
            ("strip_set_cookie", is_shared, "stores responses that set a cookie for one caller"),
        ];
        // In every scope: callers without a credential share in scope `private`, too.
        for name in self.stripped_sessions.difference(&old.stripped_sessions) {
            let what = format!("stores responses that set `{name}`, which may be a session");
            found.push(("strip_set_cookie", what));
        }
        for (key, counts, what) in words {
            if counts && self.overrides.contains(key) && !old.overrides.contains(key) {
                found.push((key, what.to_owned()));
            }
        }
        found
    }

    /// Whether callers are guests, and share one entry, who did not before, or whose cookies the
    /// origin could tell apart before.
    fn more_guests_than(&self, old: &Self) -> Option<&'static str> {
        let rule = self.signed_in.as_ref()?;
        match &old.signed_in {
            Some(before)
                if rule.covers(before) && self.credentials.is_superset(&old.credentials) =>
            {
                None
            }
            Some(_) => Some("makes guests of callers who were signed in"),
            None if old.scope == Scope::Public && old.overrides.contains("vary_cookie") => None,
            None if old.scope == Scope::Public => {
                Some("gives guests one entry, whatever the origin says by `Vary: Cookie`")
            }
            None => Some("gives all guests one entry"),
        }
    }

    /// The sessions of which a part stands for the caller, with the names of their fields.
    fn chosen_callers(&self) -> impl Iterator<Item = (&str, &SessionRule)> {
        let keyed = self.keyed.iter().filter(|_| self.scope == Scope::Private);
        keyed.filter_map(|(name, source)| match source {
            FieldSource::Session(rule) if rule.is_partial() => Some((name.as_str(), &**rule)),
            _ => None,
        })
    }

    /// Whether two requests that this source told apart have different keys still.
    fn tells_apart(&self, source: &FieldSource) -> bool {
        // The path and the host are in every key. A parameter or a member of the body that is not
        // is withheld.
        let is_keyed_anyway = matches!(
            source,
            FieldSource::Path(_) | FieldSource::Host | FieldSource::Query(_) | FieldSource::Body(_)
        ) && !(self.scope == Scope::Shared && self.admit == AdmitRule::Route);
        // In scope `private` the whole credential is in the key where no field stands for it.
        let stands_for_all = matches!(source, FieldSource::Auth(_) | FieldSource::Session(_))
            && self.scope == Scope::Private
            && !self.keyed.iter().any(|(_, own)| matches!(own, FieldSource::Auth(_)));
        // So is a token in `Authorization`, with all that it claims.
        let is_in_credential = self.scope == Scope::Private
            && matches!(
                source,
                FieldSource::Jwt(TokenField { place: TokenPlace::Authorization, .. })
            );
        // So is whatever the app has said of it.
        let is_in_credential = is_in_credential
            || self.scope == Scope::Private && matches!(source, FieldSource::Identity(_));
        is_keyed_anyway
            || is_in_credential
            || stands_for_all
            || self.keyed.iter().any(|(_, own)| is_as_narrow(own, source))
    }
}

/// How many callers a scope lets share.
const fn width(scope: Scope) -> u8 {
    match scope {
        Scope::Private => 0,
        Scope::Shared => 1,
        Scope::Public => 2,
    }
}

/// Whether `own` tells apart all that `other` does.
fn is_as_narrow(own: &FieldSource, other: &FieldSource) -> bool {
    match (own, other) {
        (FieldSource::Auth(Auth::Token), FieldSource::Auth(_)) => true,
        (FieldSource::Auth(Auth::Prefix(own)), FieldSource::Auth(Auth::Prefix(other))) => {
            own >= other
        }
        (FieldSource::Client(own), FieldSource::Client(other)) => {
            let ClientPrefix { v4, v6 } = *other;
            own.v4 >= v4 && own.v6 >= v6
        }
        (FieldSource::Session(own), FieldSource::Session(other)) => own.is_as_narrow_as(other),
        // However it is signed, one payload is one session.
        (FieldSource::Session(own), FieldSource::Cookie(name)) => {
            own.settings.cookie == *name && !own.is_partial()
        }
        // A member tells apart all that is in it; the empty pointer is the whole body.
        (FieldSource::Body(own), FieldSource::Body(other)) => {
            other.strip_prefix(&**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (FieldSource::Cookie(name), FieldSource::Session(other)) => other.settings.cookie == *name,
        _ => own == other,
    }
}

#[cfg(test)]
mod tests;
