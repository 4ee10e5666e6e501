//! What the purge rules say of a mutation.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HeaderName;

use crate::field::BodyFields;
use crate::plan::{Asked, Rules, authority, doubted_header, rule_view};
use crate::rule::{Guard, PurgeRule};
use crate::tag::Tag;
use crate::target;

/// What a mutation purges.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The tags, that of its own target among them.
    pub tags: Vec<Tag>,
    /// Fields that a purge template needs and the request lacks: those templates purge nothing, which is counted and logged.
    pub missing: Vec<Arc<str>>,
    /// Whether any purge rule speaks of it.
    pub covered: bool,
    /// Whether it goes to a path below which a route caches, although no rule speaks of it.
    pub uncovered_cached_path: bool,
    /// What hits on the tags do while it is under way.
    pub guard: Guard,
    /// When to purge again.
    pub repurge_after: Vec<Duration>,
}

/// A rule with the captures of the path it matched.
type Matched<'a> = Vec<(&'a PurgeRule, crate::route::Captures)>;

impl Rules {
    /// The methods under which a mutation is known: its own, and the one that a header or the query asks for instead.
    fn mutation_methods(asked: &Asked<'_>, effective: &Method) -> Vec<Method> {
        let mut methods = vec![asked.method.clone(), effective.clone()];
        if let Some(method) = super::overridden_method(asked.headers) {
            methods.push(method);
        }
        let query = asked.uri.query().unwrap_or_default();
        if let Ok(Some(method)) = target::parameter(query, "_method") {
            methods.extend(Method::from_bytes(method.to_ascii_uppercase().as_bytes()));
        }
        methods
    }

    /// The rules that speak of a mutation. Matched against the path as it is, and against its most permissive reading.
    fn matching<'a>(&'a self, asked: &Asked<'_>, effective: &Method) -> Matched<'a> {
        let methods = Self::mutation_methods(asked, effective);
        let raw = asked.uri.path();
        let normal = target::normal_path(raw);
        let permissive = target::permissive_path(raw);
        let mut matched = Matched::new();
        for rule in &self.purges {
            let plain = normal.as_ref().and_then(|path| rule.matches(&methods, path));
            if let Some(captures) = plain.or_else(|| rule.matches(&methods, &permissive)) {
                matched.push((rule, captures));
            }
        }
        matched
    }

    /// Whether the body has to be read before it can be told what the mutation purges.
    #[must_use]
    pub fn mutation_reads_body(&self, asked: &Asked<'_>, effective: &Method) -> bool {
        self.purges.iter().any(PurgeRule::reads_body) && self.matching(asked, effective).iter().any(|(rule, _)| rule.reads_body())
    }

    /// What a mutation purges; or the header that makes it impossible to tell.
    pub fn mutation(&self, asked: &Asked<'_>, effective: &Method, body: Option<&BodyFields>) -> Result<Mutation, HeaderName> {
        let host = authority(asked.uri, asked.headers);
        let raw = asked.uri.path();
        let permissive = target::permissive_path(raw);
        let mut mutation = Mutation {
            tags: vec![Tag::of_uri(&host, &permissive)],
            missing: Vec::new(),
            covered: false,
            uncovered_cached_path: false,
            guard: Guard::Mark,
            repurge_after: Vec::new(),
        };
        if let Some(normal) = target::normal_path(raw) {
            mutation.tags.push(Tag::of_uri(&host, &normal));
        }
        for (rule, captures) in self.matching(asked, effective) {
            let read: Vec<HeaderName> = rule.fields().filter_map(|field| field.header().cloned()).collect();
            if let Some(header) = doubted_header(&read, asked.headers) {
                return Err(header);
            }
            let (tags, missing) = rule.render(&rule_view(asked, &host, &captures, body, &self.hasher));
            mutation.tags.extend(tags);
            mutation.missing.extend(missing);
            mutation.covered = true;
            if rule.guard == Guard::Bypass {
                mutation.guard = Guard::Bypass;
            }
            mutation.repurge_after.extend(&rule.repurge_after);
        }
        mutation.uncovered_cached_path = !mutation.covered && self.routes.find(&permissive).is_some();
        mutation.tags.sort();
        mutation.tags.dedup();
        mutation.repurge_after.sort();
        mutation.repurge_after.dedup();
        Ok(mutation)
    }
}
