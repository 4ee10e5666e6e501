//! What the purge rules say of a mutation.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};

use crate::policy::field::BodyFields;
use crate::policy::plan::{PolicyRules, RequestView, ambiguous_header, authority, rule_view};
use crate::policy::purge_rule::{MutationGuard, PurgeRule};
use crate::policy::request_target;
use crate::policy::route::Captures;
use crate::policy::tag::Tag;

/// What a mutation purges.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The tags, that of its own target among them.
    pub tags: Vec<Tag>,
    /// Fields that a purge template needs and the request lacks: those templates purge nothing,
    /// which is counted and logged.
    pub missing: Vec<Arc<str>>,
    /// Whether any purge rule speaks of it.
    pub covered: bool,
    /// Whether it goes to a path below which a route caches, although no rule speaks of it.
    pub uncovered_cached_path: bool,
    /// What hits on the tags do while it is under way.
    pub guard: MutationGuard,
    /// When to purge again.
    pub repurge_after: Vec<Duration>,
}

/// A rule with the captures of the path it matched.
type Matched<'a> = Vec<(&'a PurgeRule, Captures)>;

/// The media type of forms.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

impl PolicyRules {
    /// The methods under which a mutation is known: its own, and those that headers, the query or a
    /// form ask for instead.
    fn mutation_methods(
        asked: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
    ) -> Vec<Method> {
        let mut methods = vec![asked.method.clone(), effective.clone()];
        methods.extend(super::overridden_methods(asked));
        let in_form = body.map(|body| body.every("/_method")).unwrap_or_default();
        methods.extend(
            in_form.iter().filter_map(|method| {
                Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()
            }),
        );
        methods
    }

    /// The rules that speak of a mutation. Matched against every reading of its path: a mutation in
    /// disguise is a mutation.
    fn matching<'a>(&'a self, asked: &RequestView<'_>, methods: &[Method]) -> Matched<'a> {
        let readings = request_target::readings(asked.uri.path());
        let each = |rule: &'a PurgeRule| {
            let mut captures: Vec<Captures> =
                readings.iter().filter_map(|path| rule.matches(methods, path)).collect();
            captures.dedup();
            captures.into_iter().map(move |captures| (rule, captures))
        };
        self.purges.iter().flat_map(each).collect()
    }

    /// Whether the body has to be read before it can be told what the mutation purges: a rule reads
    /// it, or its method may stand in it.
    #[must_use]
    pub fn mutation_reads_body(&self, asked: &RequestView<'_>, effective: &Method) -> bool {
        let methods = Self::mutation_methods(asked, effective, None);
        if self.purges.iter().any(PurgeRule::reads_body)
            && self.matching(asked, &methods).iter().any(|(rule, _)| rule.reads_body())
        {
            return true;
        }
        let kind = asked.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let form = kind.len() >= FORM.len() && kind[..FORM.len()].eq_ignore_ascii_case(FORM);
        let for_others = |rule: &PurgeRule| {
            rule.methods.as_ref().is_some_and(|named| !named.contains(asked.method))
        };
        form && asked.method == Method::POST && self.purges.iter().any(for_others)
    }

    /// What a mutation purges; or the header that makes it impossible to tell.
    pub fn mutation(
        &self,
        asked: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
    ) -> Result<Mutation, HeaderName> {
        let host = authority(asked.uri, asked.headers);
        let readings = request_target::readings(asked.uri.path());
        let mut mutation = Mutation {
            tags: readings.iter().map(|path| Tag::for_uri(&host, path)).collect(),
            missing: Vec::new(),
            covered: false,
            uncovered_cached_path: false,
            guard: MutationGuard::Mark,
            repurge_after: Vec::new(),
        };
        for (rule, captures) in
            self.matching(asked, &Self::mutation_methods(asked, effective, body))
        {
            let read: Vec<HeaderName> = rule
                .fields()
                .filter_map(|field| field.header().cloned())
                .filter(|name| *name != COOKIE)
                .collect();
            if let Some(header) = ambiguous_header(&read, asked.headers) {
                return Err(header);
            }
            let (tags, missing) =
                rule.render(&rule_view(asked, &host, &captures, body, &self.hasher));
            mutation.tags.extend(tags);
            mutation.missing.extend(missing);
            mutation.covered = true;
            if rule.guard == MutationGuard::Bypass {
                mutation.guard = MutationGuard::Bypass;
            }
            mutation.repurge_after.extend(&rule.repurge_after);
        }
        mutation.uncovered_cached_path =
            !mutation.covered && readings.iter().any(|path| self.routes.find(path).is_some());
        mutation.tags.sort();
        mutation.tags.dedup();
        mutation.missing.sort();
        mutation.missing.dedup();
        mutation.repurge_after.sort();
        mutation.repurge_after.dedup();
        Ok(mutation)
    }
}
