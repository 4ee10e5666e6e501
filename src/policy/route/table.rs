//! All routes of a file, and which of them takes a request.
//!
//! The order of precedence, in which routes are tried:
//! 1. the route with the more specific path ([`Pattern::is_more_specific`]);
//! 2. of equally specific paths, one whose case counts;
//! 3. of these, the one with the narrower conditions: every request that meets them meets those of
//!    the other. Two that some request may meet, and of which neither is narrower, are an error.
//!
//! A route whose conditions are not met is skipped. Where it is in doubt whether they are, no route
//! takes the request: the next one might give it what the origin gives to others.

use std::fmt;
use std::sync::Arc;

use crate::policy::apps::AppId;
use crate::policy::credential::CredentialRule;
use crate::policy::fronts::Fronts;
use crate::policy::request_match::{Condition, MatchVerdict, RequestMatch};
use crate::policy::route::pattern::Tree;
use crate::policy::route::{
    Captures, KnownRoles, Neighbours, PathCase, Pattern, ResponseRules, Route, RouteSpec, ToldApart,
};

/// Two routes that take the same requests, so that neither is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The index of the earlier route.
    pub first: usize,
    /// The index of the later route.
    pub second: usize,
}

impl fmt::Display for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "routes {} and {} match the same requests", self.first + 1, self.second + 1)
    }
}

/// Which route takes a request.
#[derive(Debug)]
pub enum ChosenRoute<'a> {
    /// None has its path.
    NoPath,
    /// Some have its path, and it meets the conditions of none.
    Unmet,
    /// It is in doubt whether it meets this condition of a route that would take it.
    Doubtful(&'a Arc<Route>, Condition<'a>),
    /// This one, with the captures of its path.
    Taken(&'a Arc<Route>, Captures),
}

/// All routes, looked up by app and path.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    list: Vec<Arc<Route>>,
    /// Those of each app, by its place.
    trees: Vec<AppTrees>,
    /// For each route that the trees find: those that are tried in its place, itself among them,
    /// in the order of precedence. Empty where no route has conditions.
    chains: Vec<Option<Box<[usize]>>>,
    /// Whether one of them is a GraphQL endpoint.
    has_graphql: bool,
}

/// The routes of one app. No request of another one gets to them.
#[derive(Clone, Debug, Default)]
struct AppTrees {
    /// Those whose case counts.
    exact: Tree,
    /// Those whose case does not, by their patterns in lower case.
    in_any_case: Option<Tree>,
}

impl AppTrees {
    /// Adds a route. Returns the one that has its path already.
    fn insert(&mut self, spec: &RouteSpec, id: usize) -> Option<usize> {
        match spec.case {
            PathCase::Exact => self.exact.insert(&spec.pattern, id),
            PathCase::Ignore => self
                .in_any_case
                .get_or_insert_with(Tree::default)
                .insert(&spec.pattern.in_lower_case(), id),
        }
    }
}

impl Routes {
    /// Compiles routes. Their order does not matter.
    pub fn new(
        specs: Vec<RouteSpec>,
        credential: &CredentialRule,
        fronts: Fronts,
        response_rules: &Arc<ResponseRules>,
    ) -> Result<Self, Tie> {
        let apps = specs.iter().map(|spec| spec.app.id.index() + 1).max().unwrap_or(0);
        let mut trees = vec![AppTrees::default(); apps];
        let mut is_lead: Vec<bool> = Vec::with_capacity(specs.len());
        let mut earlier = Neighbours::default();
        for (id, spec) in specs.iter().enumerate() {
            let mut near = earlier.of(&spec.pattern).into_iter();
            if let Some(first) = near.find(|first| specs[*first].ties(spec)) {
                return Err(Tie { first, second: id });
            }
            earlier.push(&spec.pattern);
            // Of those that differ by their conditions alone, the trees have the first.
            let known = trees[spec.app.id.index()].insert(spec, id);
            is_lead.push(known.is_none());
        }
        let conditional: Vec<&RouteSpec> =
            specs.iter().filter(|spec| !spec.conditions.is_empty()).collect();
        let told_apart: Vec<ToldApart> =
            specs.iter().map(|spec| told_apart(spec, &conditional)).collect();
        let chains = if conditional.is_empty() {
            Vec::new()
        } else {
            let chain = |(lead, is_lead): (usize, &bool)| {
                let may_pass = |other: &&RouteSpec| other.ties_by_path(&specs[lead]);
                let has_chain = *is_lead && conditional.iter().any(may_pass);
                has_chain.then(|| chain(&specs, lead))
            };
            is_lead.iter().enumerate().map(chain).collect()
        };
        let has_graphql = specs.iter().any(|spec| spec.graphql);
        let known = KnownRoles::new(fronts, credential);
        let list = specs
            .into_iter()
            .zip(&told_apart)
            .enumerate()
            .map(|(id, (spec, told_apart))| {
                Arc::new(Route::new(id, spec, credential, &known, response_rules, told_apart))
            })
            .collect();
        Ok(Self { list, trees, chains, has_graphql })
    }

    /// Whether one of them is a GraphQL endpoint.
    #[must_use]
    pub const fn have_graphql(&self) -> bool {
        self.has_graphql
    }

    /// The route of an app that takes a request for a path in normal form, by what it says of
    /// conditions.
    #[must_use]
    pub fn choose<'a>(
        &'a self,
        app: AppId,
        path: &str,
        verdict: impl Fn(&'a RequestMatch) -> MatchVerdict<'a>,
    ) -> ChosenRoute<'a> {
        let Some(lead) = self.lead(app, path) else { return ChosenRoute::NoPath };
        let Some(chain) = self.chains.get(lead).and_then(Option::as_deref) else {
            // The tree has compared all that is literal.
            let is_literal = self.list[lead].spec.pattern.is_literal();
            let taken = if is_literal { Some(Captures::new()) } else { self.captures(lead, path) };
            return taken.map_or(ChosenRoute::NoPath, |captures| {
                ChosenRoute::Taken(&self.list[lead], captures)
            });
        };
        for &id in chain {
            let Some(captures) = self.captures(id, path) else { continue };
            let route = &self.list[id];
            if route.spec.conditions.is_empty() {
                return ChosenRoute::Taken(route, captures);
            }
            match verdict(&route.spec.conditions) {
                MatchVerdict::Met => return ChosenRoute::Taken(route, captures),
                MatchVerdict::Doubtful(condition) => {
                    return ChosenRoute::Doubtful(route, condition);
                }
                MatchVerdict::Unmet => {}
            }
        }
        ChosenRoute::Unmet
    }

    /// Whether a route of an app has this path in normal form, whatever its conditions. Which one
    /// takes a request is for [`Routes::choose`] alone.
    #[must_use]
    pub fn have_path(&self, app: AppId, path: &str) -> bool {
        self.lead(app, path).is_some_and(|lead| self.captures(lead, path).is_some())
    }

    /// All routes of an app that may take a request for a path in normal form, in the order in
    /// which they are tried, up to the first that has no conditions.
    #[must_use]
    pub fn candidates(&self, app: AppId, path: &str) -> Vec<&Arc<Route>> {
        let Some(lead) = self.lead(app, path) else { return Vec::new() };
        let alone = [lead];
        let chain = self.chains.get(lead).and_then(Option::as_deref).unwrap_or(&alone);
        let mut found = Vec::new();
        for &id in chain.iter().filter(|id| self.captures(**id, path).is_some()) {
            found.push(&self.list[id]);
            if self.list[id].spec.conditions.is_empty() {
                break;
            }
        }
        found
    }

    /// The most specific route of an app for a path; of several with equal paths, one.
    fn lead(&self, app: AppId, path: &str) -> Option<usize> {
        let trees = self.trees.get(app.index())?;
        let exact = trees.exact.find(path);
        match &trees.in_any_case {
            None => exact,
            Some(tree) => {
                let other = tree.find(&path.to_ascii_lowercase());
                self.more_specific(exact, other)
            }
        }
    }

    fn captures(&self, id: usize, path: &str) -> Option<Captures> {
        let spec = &self.list[id].spec;
        match spec.case {
            PathCase::Exact => spec.pattern.captures_of(path),
            PathCase::Ignore => spec.pattern.captures_in_any_case(path),
        }
    }

    /// Of two routes that match one path, the more specific; of equals, the one whose case counts.
    fn more_specific(&self, exact: Option<usize>, other: Option<usize>) -> Option<usize> {
        let (Some(one), Some(two)) = (exact, other) else { return exact.or(other) };
        let is_better = self.list[two].spec.pattern.is_more_specific(&self.list[one].spec.pattern);
        Some(if is_better { two } else { one })
    }

    /// The route with this index.
    #[must_use]
    pub fn get(&self, id: usize) -> Option<&Arc<Route>> {
        self.list.get(id)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.list.iter()
    }

    /// The number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Whether a path of `other` may fall to `spec`, because conditions are not met.
fn may_follow(spec: &RouteSpec, other: &RouteSpec) -> bool {
    spec.app.id == other.app.id
        && !spec.pattern.is_more_specific(&other.pattern)
        && spec.pattern.may_meet_in_any_case(&other.pattern)
}

/// `conditional`: all routes that have conditions.
fn told_apart(spec: &RouteSpec, conditional: &[&RouteSpec]) -> ToldApart {
    let mut told_apart = ToldApart::default();
    for other in conditional.iter().filter(|other| may_follow(spec, other)) {
        told_apart.add(&other.conditions);
    }
    told_apart
}

/// The routes that are tried where the trees find this one.
fn chain(specs: &[RouteSpec], lead: usize) -> Box<[usize]> {
    let mut chain: Vec<usize> = Vec::new();
    for (id, _) in specs.iter().enumerate().filter(|(_, spec)| may_follow(spec, &specs[lead])) {
        let at = chain.iter().position(|&other| precedes(&specs[id], &specs[other]));
        chain.insert(at.unwrap_or(chain.len()), id);
    }
    let last = chain.iter().position(|&id| {
        let spec = &specs[id];
        spec.conditions.is_empty()
            && spec.case == specs[lead].case
            && spec.pattern.same_shape(&specs[lead].pattern)
    });
    chain.truncate(last.map_or(chain.len(), |last| last + 1));
    chain.into()
}

/// Whether a route is tried before another one, where a request may meet both.
fn precedes(one: &RouteSpec, two: &RouteSpec) -> bool {
    let is_narrower = |one: &Pattern, two: &Pattern| one.is_more_specific(two);
    if is_narrower(&one.pattern, &two.pattern) || is_narrower(&two.pattern, &one.pattern) {
        return is_narrower(&one.pattern, &two.pattern);
    }
    if one.case != two.case {
        return one.case == PathCase::Exact;
    }
    one.conditions.implies(&two.conditions) && !two.conditions.implies(&one.conditions)
}
