//! What to do with a request, decided from the rules alone, before any lookup. Pure: the proxy acts
//! on a plan, and `explain` prints it.
//!
//! `rules` holds the rules and the request they read, `guests` who is one, `lookup` the key of a
//! request that the cache may answer, `identity` asks who its caller is, `canonical` the parts that
//! the key is made of, `variant` its variants, `fill_request` what the origin receives on a fill,
//! `mutation` what a write purges, and `write_methods` which methods it may have; `body_read` is
//! about reads whose body is in the key, and `graphql` about those whose document says that they
//! are reads.

use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use crate::outcome::{Outcome, Reason};
use crate::policy::apps::AppId;
use crate::policy::plan::request_headers::ambiguous_header;
use crate::policy::plan::write_methods::{ReadOverride, read_override};
use crate::policy::purge_rule;
use crate::policy::request_match::MatchVerdict;
use crate::policy::request_target;
use crate::policy::route::{ChosenRoute, EncodedSlash, Route, RouteMode};

pub use crate::policy::apps::authority;
pub use crate::policy::fill_constants::{FILL_ADDRESS, FILL_USER_AGENT};
pub use crate::policy::plan::fill_request::FillHead;
pub(crate) use crate::policy::plan::fill_request::X_REQUEST_ID;
pub use crate::policy::plan::identity::{IdentityCheck, IdentityProbe};
pub use crate::policy::plan::key_parts::{KeyParts, MAX_NAME_BYTES, PartKind, VaryingPart};
pub use crate::policy::plan::lookup::Lookup;
pub use crate::policy::plan::mutation::Mutation;
pub use crate::policy::plan::rules::{PolicyRules, RequestView};

mod body_read;
mod canonical;
mod fill_request;
mod graphql;
mod guests;
mod identity;
mod key_parts;
mod keyed_fields;
mod lookup;
mod mutation;
mod request_headers;
mod rules;
#[cfg(test)]
mod tests;
mod uploads;
mod variant;
mod write_methods;
mod write_paths;

/// What to do with a request.
#[derive(Debug)]
pub enum Plan<'a> {
    /// Look it up in the cache.
    Lookup(Box<Lookup<'a>>),
    /// Read its body, which a route has in its key, and plan it again.
    ReadBody(&'a Arc<Route>),
    /// Ask the origin who its caller is, which a route has in its key, and plan it again.
    Identify(&'a Arc<Route>),
    /// The request may change the origin's data: forward it, and purge.
    Mutate(Method),
    /// Forward it without the cache. With the route that matched, if any did.
    Pass(Option<&'a Arc<Route>>, Outcome),
    /// Refuse it, because it is ambiguous. With the header that makes it so.
    Refuse(Option<&'a Arc<Route>>, HeaderName),
}

/// A plan, with its lookup out of its box.
fn unboxed(plan: Plan<'_>) -> Result<Lookup<'_>, Plan<'_>> {
    match plan {
        Plan::Lookup(lookup) => Ok(*lookup),
        other => Err(other),
    }
}

impl<'a> Plan<'a> {
    /// The route that matched, if any did.
    #[must_use]
    pub fn route(&self) -> Option<&'a Arc<Route>> {
        match self {
            Self::Lookup(lookup) => Some(lookup.route),
            Self::Pass(route, _) | Self::Refuse(route, _) => *route,
            Self::ReadBody(route) | Self::Identify(route) => Some(route),
            Self::Mutate(_) => None,
        }
    }

    /// Whether the request of this plan may be given up when its client leaves: one that changes
    /// nothing by any reading of it, and that the origin may get twice anyway.
    #[must_use]
    pub fn may_give_up(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Lookup(_) | Self::Identify(_) => true,
            Self::Pass(..) => {
                matches!(*request.method, Method::GET | Method::HEAD | Method::OPTIONS)
                    && read_override(request) == ReadOverride::None
            }
            Self::ReadBody(_) | Self::Mutate(_) | Self::Refuse(..) => false,
        }
    }
}

impl PolicyRules {
    /// What to do with a request.
    #[must_use]
    pub fn plan<'a>(&'a self, request: &RequestView<'a>) -> Plan<'a> {
        self.lookup_of(request).map_or_else(|other| other, |lookup| Plan::Lookup(Box::new(lookup)))
    }

    /// The lookup of a request that the cache may answer.
    ///
    /// # Errors
    /// What to do with any other request.
    pub fn lookup_of<'a>(&'a self, request: &RequestView<'a>) -> Result<Lookup<'a>, Plan<'a>> {
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            if let Some(plan) = self.plan_with_body(request) {
                return unboxed(plan);
            }
            return Err(if !purge_rule::is_safe(request.method) {
                Plan::Mutate(request.method.clone())
            } else if self.may_carry_mutation(request) {
                Plan::Mutate(Method::POST)
            } else {
                Plan::Pass(None, Outcome::bypass(Reason::Method))
            });
        }
        // Nothing below this line, and nothing but what is below it, treats a request as a read.
        if self.is_declared_write(request) {
            return Err(Plan::Mutate(request.method.clone()));
        }
        if self.writes_by_graphql(request) {
            return Err(Plan::Mutate(Method::POST));
        }
        let named = read_override(request);
        if let (true, ReadOverride::Unsafe(method)) = (self.purges.method_override, &named) {
            // SECURITY: the origin treats the request as one with the other method.
            return Err(Plan::Mutate(method.clone()));
        }
        let raw = request.uri.path();
        let Some(normal) = request_target::kept_path(raw) else {
            return Err(Plan::Pass(None, Outcome::bypass(self.doubt(request.app, raw))));
        };
        let path = normal.path;
        let (route, captures) = match self.choose(&path, request) {
            ChosenRoute::Taken(route, captures) => (route, captures),
            ChosenRoute::NoPath if normal.has_escaped_slash => {
                return Err(Plan::Pass(None, Outcome::bypass(self.doubt(request.app, raw))));
            }
            ChosenRoute::NoPath => return Err(Plan::Pass(None, Outcome::bypass(Reason::NoRoute))),
            ChosenRoute::Unmet => {
                return Err(Plan::Pass(None, Outcome::bypass(Reason::UnmetMatch)));
            }
            ChosenRoute::Doubtful(route, condition) => {
                let outcome = Outcome::bypass_with(Reason::AmbiguousMatch, condition.to_string());
                return Err(Plan::Pass(Some(route), outcome));
            }
        };
        if normal.has_escaped_slash && !self.keeps_escaped_slash(route, raw) {
            return Err(Plan::Pass(None, Outcome::bypass(Reason::AmbiguousPath)));
        }
        if named != ReadOverride::None {
            // SECURITY: the origin may treat the request as one with another method, so its
            // response is nobody else's. It purges nothing, because any stranger can send it: where
            // the origin obeys, the operator says so.
            return Err(Plan::Pass(Some(route), Outcome::bypass(Reason::MethodOverride)));
        }
        let route = self.policy_of(route, request.headers, request.is_again);
        if let Some(header) = ambiguous_header(route.headers.read(), request) {
            return Err(Plan::Refuse(Some(route), header));
        }
        if !route.spec.methods.get {
            return Err(Plan::Pass(Some(route), Outcome::bypass(Reason::Method)));
        }
        let path = route.keyed_path(path, &captures);
        let planned = if route.spec.graphql {
            self.graphql_query(request).and_then(|document| {
                let mut lookup = self.lookup(route, captures, path, request, None)?;
                lookup.document = document;
                Ok(lookup)
            })
        } else {
            self.lookup(route, captures, path, request, None)
        };
        planned.map_err(|outcome| Self::unplanned(route, request, outcome))
    }

    /// The route that takes a request for this path.
    fn choose<'a>(&'a self, path: &str, request: &RequestView<'_>) -> ChosenRoute<'a> {
        self.routes.choose(request.app, path, |conditions| {
            let host = authority(request.uri, request.headers);
            conditions.verdict(&host, request.uri.query().unwrap_or_default(), request.headers)
        })
    }

    /// The conditions of the routes that are tried for a request, with whether it meets them, for
    /// `explain`.
    #[must_use]
    pub fn tried<'a>(
        &'a self,
        request: &RequestView<'_>,
    ) -> Vec<(&'a Arc<Route>, MatchVerdict<'a>)> {
        let path = request_target::kept_path(request.uri.path()).map(|normal| normal.path);
        let candidates = path.map(|path| self.routes.candidates(request.app, &path));
        let candidates = candidates.unwrap_or_default();
        let host = authority(request.uri, request.headers);
        let query = request.uri.query().unwrap_or_default();
        let judged = candidates
            .into_iter()
            .map(|route| (route, route.spec.conditions.verdict(&host, query, request.headers)));
        judged.filter(|(route, _)| !route.spec.conditions.is_empty()).collect()
    }

    /// Why a path without one reading passes. `AmbiguousPath` is reported only if a reading of it
    /// belongs to a route; the request passes untouched either way.
    fn doubt(&self, app: AppId, raw: &str) -> Reason {
        let readings = request_target::readings(raw);
        let near = readings.iter().any(|path| self.routes.have_path(app, path));
        if near { Reason::AmbiguousPath } else { Reason::NoRoute }
    }

    /// Whether a path with an escaped slash has one reading on this route.
    fn keeps_escaped_slash(&self, route: &Route, raw: &str) -> bool {
        // SECURITY: the operator has said what the origin does. If that is a mistake, it must not
        // give to many what the other reading's route gives to few, or caches not at all.
        let is_stricter = |other: &Arc<Route>| {
            other.mode() == RouteMode::Off || other.spec.scope.is_narrower(route.widest_scope())
        };
        let path = request_target::permissive_path(raw);
        let others = || self.routes.candidates(route.spec.app.id, &path);
        route.spec.encoded_slash == EncodedSlash::Keep && !others().into_iter().any(is_stricter)
    }

    /// Whether a purge rule makes this GET or HEAD a mutation, by any reading of it.
    fn is_declared_write(&self, request: &RequestView<'_>) -> bool {
        let mut readings: Option<Vec<String>> = None;
        self.purges.for_reads().any(|rule| {
            let path = request.uri.path();
            if !Self::meets(rule, request) {
                return false;
            }
            let readings = readings.get_or_insert_with(|| request_target::write_readings(path));
            !rule.excludes(path) && readings.iter().any(|path| rule.captures_of(path).is_some())
        })
    }
}
