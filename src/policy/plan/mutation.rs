//! What a mutation purges, by the purge rules.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};

use crate::policy::body_fields::BodyFields;
use crate::policy::caller;
use crate::policy::field::FieldView;
use crate::policy::plan::request_headers::{ambiguous_header, overridden_methods};
use crate::policy::plan::rules::{PolicyRules, RequestView, authority};
use crate::policy::purge_rule::{MutationGuard, PurgeRule};
use crate::policy::request_target;
use crate::policy::route::Captures;
use crate::policy::tag::Tag;
use crate::policy::template::UnreadTemplate;

/// What a mutation purges.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The tags, including the tag of its own target.
    pub tags: Vec<Tag>,
    /// Fields that a purge template needs and that the request lacks, or whose value cannot be
    /// read. The families of those templates are purged; the flow counts and logs it.
    pub missing: Vec<Arc<str>>,
    /// Fields that have more values than are purged one by one. The same holds for them.
    pub too_many: Vec<Arc<str>>,
    /// Whether a purge rule matched.
    pub covered: bool,
    /// Whether its path is on a route, although no purge rule matched.
    pub uncovered_cached_path: bool,
    /// What hits on the tags do while the mutation is in flight.
    pub guard: MutationGuard,
    /// When to purge again.
    pub repurge_after: Vec<Duration>,
}

/// The rules that match a mutation, each with the captures of the path.
type MatchedRules<'a> = Vec<(&'a PurgeRule, Captures)>;

/// The media type of forms.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

impl PolicyRules {
    /// The methods that purge rules are matched against: the mutation's own, and those that
    /// headers, the query or a form name instead.
    fn mutation_methods(
        request: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
    ) -> Vec<Method> {
        let mut methods = vec![request.method.clone(), effective.clone()];
        methods.extend(overridden_methods(request));
        let in_form = body.map(|body| body.every("/_method")).unwrap_or_default();
        methods.extend(
            in_form.iter().filter_map(|method| {
                Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()
            }),
        );
        methods
    }

    /// The rules that match a mutation by any reading of its path, so that an escaped or padded
    /// path cannot avoid its purge.
    fn matching<'a>(&'a self, request: &RequestView<'_>, methods: &[Method]) -> MatchedRules<'a> {
        let readings = request_target::readings(request.uri.path());
        let each = |rule: &'a PurgeRule| {
            let mut captures: Vec<Captures> =
                readings.iter().filter_map(|path| rule.matches(methods, path)).collect();
            captures.dedup();
            captures.into_iter().map(move |captures| (rule, captures))
        };
        self.purges.iter().flat_map(each).collect()
    }

    /// Whether the body is needed to decide what the mutation purges: a matching rule reads a field
    /// from it, or the method may be in it.
    #[must_use]
    pub fn mutation_reads_body(&self, request: &RequestView<'_>, effective: &Method) -> bool {
        let methods = Self::mutation_methods(request, effective, None);
        if self.purges.iter().any(PurgeRule::reads_body)
            && self.matching(request, &methods).iter().any(|(rule, _)| rule.reads_body())
        {
            return true;
        }
        let kind = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let form = kind.len() >= FORM.len() && kind[..FORM.len()].eq_ignore_ascii_case(FORM);
        let for_other_methods = |rule: &PurgeRule| {
            rule.methods.as_ref().is_some_and(|named| !named.contains(request.method))
        };
        form && request.method == Method::POST && self.purges.iter().any(for_other_methods)
    }

    /// What a mutation purges.
    ///
    /// # Errors
    /// The header that makes the mutation ambiguous.
    pub fn mutation(
        &self,
        request: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
    ) -> Result<Mutation, HeaderName> {
        let host = authority(request.uri, request.headers);
        let readings = request_target::readings(request.uri.path());
        let mut mutation = Mutation {
            tags: readings.iter().map(|path| Tag::for_uri(&host, path)).collect(),
            missing: Vec::new(),
            too_many: Vec::new(),
            covered: false,
            uncovered_cached_path: false,
            guard: MutationGuard::Mark,
            repurge_after: Vec::new(),
        };
        for (rule, captures) in
            self.matching(request, &Self::mutation_methods(request, effective, body))
        {
            let read: Vec<HeaderName> = rule
                .fields()
                .filter_map(|field| field.header().cloned())
                .filter(|name| *name != COOKIE)
                .collect();
            if let Some(header) = ambiguous_header(&read, request.headers) {
                return Err(header);
            }
            let (tags, unread) = rule.render(&FieldView {
                headers: request.headers,
                host: &host,
                query: request.uri.query().unwrap_or_default(),
                captures: &captures,
                client: request.client,
                body,
                has_body: request.has_body,
                credential: &self.credential,
                hasher: &self.hasher,
            });
            mutation.tags.extend(tags);
            for template in unread {
                self.add_families(&mut mutation, template);
            }
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
        mutation.too_many.sort();
        mutation.too_many.dedup();
        mutation.repurge_after.sort();
        mutation.repurge_after.dedup();
        Ok(mutation)
    }

    /// Adds what a template purges of which not every tag can be told.
    fn add_families(&self, mutation: &mut Mutation, template: UnreadTemplate<'_>) {
        let routes = self.routes.iter().flat_map(|route| &route.spec.tags);
        mutation.tags.extend(template.families(routes));
        let fields =
            if template.has_too_many { &mut mutation.too_many } else { &mut mutation.missing };
        fields.push(template.field);
    }

    /// What a mutation purges of its caller: all that the caller was given before, and under the
    /// cookies that the response sets, if it sets or clears one that counts. No response: nobody
    /// can tell, so it counts as if it had.
    #[must_use]
    pub fn caller_purges(&self, request: &HeaderMap, response: Option<&HeaderMap>) -> Vec<Tag> {
        let (rule, hasher) = (&self.credential, &self.hasher);
        let set = match response {
            Some(response) => match caller::names_set_by(rule, response, hasher) {
                Some(set) => set,
                None => return Vec::new(),
            },
            None => Vec::new(),
        };
        let before = caller::caller_names(rule, request, hasher, caller::MAX_PURGED_NAMES);
        let mut tags: Vec<Tag> =
            before.iter().chain(&set).map(|name| Tag::for_caller(name)).collect();
        tags.sort();
        tags.dedup();
        tags
    }
}
