//! What a mutation purges, by the purge rules.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{COOKIE, HeaderMap, HeaderName};

use crate::outcome::Reason;
use crate::policy::apps::authority;
use crate::policy::body_fields::BodyFields;
use crate::policy::caller;
use crate::policy::field::{AnsweredBody, FieldSource, FieldView};
use crate::policy::graphql::WrittenFields;
use crate::policy::identity::RequestIdentity;
use crate::policy::plan::request_headers::ambiguous_header;
use crate::policy::plan::rules::{PolicyRules, RequestView};
use crate::policy::plan::write_methods::WriteMethods;
use crate::policy::plan::write_paths::{WritePath, write_paths};
use crate::policy::purge_rule;
use crate::policy::purge_rule::{MutationAnswer, MutationGuard, PurgeOn, PurgeRule};
use crate::policy::request_target;
use crate::policy::route::Captures;
use crate::policy::rule_place::RulePlace;
use crate::policy::tag::Tag;
use crate::policy::template::UnreadTemplate;
use crate::policy::token_places::token_places;

/// What a mutation purges.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The tags, including those of its own targets.
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
    /// The places of the rules that matched it and exclude its path.
    pub excluded_by: Vec<RulePlace>,
    /// The places of the rules that apply.
    pub rules: Vec<RulePlace>,
    /// What hits on the tags do while the mutation is in flight.
    pub guard: MutationGuard,
    /// When to purge again.
    pub repurge_after: Vec<Duration>,
    /// Whether the response names further tags.
    pub awaits_response: bool,
    /// The families of the tags that the response names. They are among the tags. Those here are
    /// not purged once the response has named its tags.
    pub until_response: Vec<Tag>,
    /// Which answers purge each tag: the widest word of the rules that name it.
    purge_on: HashMap<Tag, PurgeOn>,
}

/// Why the cache takes no part in a mutation.
#[must_use]
pub(super) fn mutation_reason(method: &Method, effective: &Method) -> Reason {
    if effective != method {
        Reason::MethodOverride
    } else if purge_rule::is_safe(method) {
        Reason::DeclaredWrite
    } else {
        Reason::Method
    }
}

/// The rules that match a mutation, each with the captures of the path.
type MatchedRules<'a> = Vec<(&'a PurgeRule, Captures)>;

/// The rules that are made for a path of a mutation.
#[derive(Default)]
struct PathRules<'a> {
    matched: MatchedRules<'a>,
    /// Those that exclude this path.
    excluding: Vec<&'a PurgeRule>,
}

impl Mutation {
    /// One that purges the tags of its own targets.
    fn new(tags: Vec<Tag>) -> Self {
        let purge_on = tags.iter().map(|tag| (tag.clone(), PurgeOn::default())).collect();
        Self {
            tags,
            missing: Vec::new(),
            too_many: Vec::new(),
            covered: false,
            uncovered_cached_path: false,
            excluded_by: Vec::new(),
            rules: Vec::new(),
            guard: MutationGuard::Mark,
            repurge_after: Vec::new(),
            awaits_response: false,
            until_response: Vec::new(),
            purge_on,
        }
    }

    /// Adds the tags of a target of its own.
    fn add_own(&mut self, tags: impl Iterator<Item = Tag>) {
        for tag in tags {
            self.purge_on.entry(tag.clone()).or_default();
            self.tags.push(tag);
        }
    }

    /// Adds what a rule purges that applies. `families` are those that a template of which not
    /// every tag can be told stands for.
    fn add(
        &mut self,
        rule: &PurgeRule,
        view: &FieldView<'_>,
        families: impl Fn(&UnreadTemplate<'_>) -> Vec<Tag>,
    ) {
        let (mut tags, unread) = rule.render(view);
        for template in unread {
            let substitutes = families(&template);
            if template.awaits_response {
                self.until_response.extend(substitutes.iter().cloned());
                self.awaits_response = true;
                for tag in substitutes {
                    let word = self.purge_on.entry(tag.clone()).or_insert(rule.purge_on);
                    *word = rule.purge_on.max(*word);
                }
                continue;
            }
            tags.extend(substitutes);
            // That is how such a rule works, and nothing is missing.
            if template.is_identity {
                continue;
            }
            let fields = if template.has_too_many { &mut self.too_many } else { &mut self.missing };
            fields.push(template.field);
        }
        for tag in &tags {
            let word = self.purge_on.entry(tag.clone()).or_insert(rule.purge_on);
            *word = rule.purge_on.max(*word);
        }
        self.tags.extend(tags);
        self.covered = true;
        self.rules.push(rule.place.clone());
        if rule.guard == MutationGuard::Bypass {
            self.guard = MutationGuard::Bypass;
        }
        self.repurge_after.extend(&rule.repurge_after);
    }

    /// Adds the families that stand for what the response names. Those that are purged anyway stand
    /// for nothing else.
    fn add_until_response(&mut self) {
        self.until_response.sort();
        self.until_response.dedup();
        self.until_response.retain(|tag| self.tags.binary_search(tag).is_err());
        self.tags.extend(self.until_response.iter().cloned());
        self.tags.sort();
    }

    /// Whether this answer of the origin purges this tag.
    #[must_use]
    pub fn is_purged_by(&self, answer: MutationAnswer, tag: &Tag) -> bool {
        self.purge_on.get(tag).copied().unwrap_or_default().is_met_by(answer)
    }
}

impl PolicyRules {
    /// Whether a request is for the app of a rule, and has what that asks for besides its path and
    /// method.
    pub(super) fn meets(rule: &PurgeRule, request: &RequestView<'_>) -> bool {
        let query = request.uri.query().unwrap_or_default();
        rule.app.id == request.app
            && (rule.conditions.is_empty()
                || rule.conditions.is_met(
                    &authority(request.uri, request.headers),
                    query,
                    request.headers,
                ))
    }

    /// The rules that match a mutation by any reading of a path, so that an escaped or padded path
    /// cannot avoid its purge.
    fn matching<'a>(
        &'a self,
        request: &RequestView<'_>,
        methods: &WriteMethods,
        path: &str,
    ) -> PathRules<'a> {
        let readings = request_target::write_readings(path);
        let mut rules = PathRules::default();
        let applies = |rule: &&PurgeRule| {
            methods.are_named_by(rule.methods.as_deref()) && Self::meets(rule, request)
        };
        for rule in self.purges.iter().filter(applies) {
            let mut captures: Vec<Captures> =
                readings.iter().filter_map(|path| rule.captures_of(path)).collect();
            captures.dedup();
            if !captures.is_empty() && rule.excludes(path) {
                rules.excluding.push(rule);
            } else {
                rules.matched.extend(captures.into_iter().map(|captures| (rule, captures)));
            }
        }
        rules
    }

    /// The paths that a write changes. A host may be one whose app stores under another name.
    fn write_paths(&self, request: &RequestView<'_>) -> Vec<WritePath> {
        let mut paths = write_paths(request, &self.host_of(request));
        if self.apps.are_several() {
            for path in &mut paths {
                let key = |host: &String| self.apps.get(self.apps.of_host(host)).host_key.clone();
                let keys: Vec<String> =
                    path.hosts.iter().filter_map(key).map(String::from).collect();
                path.hosts.extend(keys);
                path.hosts.sort();
                path.hosts.dedup();
            }
        }
        paths
    }

    /// Whether the body is needed to decide what the mutation purges: a matching rule reads a field
    /// from it, or the method may be in it, and further rules are for that method.
    #[must_use]
    pub fn mutation_reads_body(&self, request: &RequestView<'_>, effective: &Method) -> bool {
        let methods = WriteMethods::of_head(request, effective, self.purges.method_override);
        let may_name_method = methods.may_add_from_body(request);
        if !may_name_method && !self.purges.iter().any(PurgeRule::reads_body) {
            return false;
        }
        let paths = self.write_paths(request);
        let matching = |methods: &WriteMethods| -> Vec<&PurgeRule> {
            let all = paths.iter().map(|path| self.matching(request, methods, &path.path));
            all.flat_map(|rules| rules.matched).map(|(rule, _)| rule).collect()
        };
        let known = matching(&methods);
        known.iter().any(|rule| rule.reads_body())
            || (may_name_method && matching(&WriteMethods::Any).len() > known.len())
    }

    /// What a mutation purges. `body` is what was read of its body; None if it was not read whole.
    ///
    /// # Errors
    /// The header that makes the mutation ambiguous.
    pub fn mutation(
        &self,
        request: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
    ) -> Result<Mutation, HeaderName> {
        self.mutation_with(request, effective, body, AnsweredBody::Awaited)
    }

    /// The same, with what is known of the response.
    ///
    /// # Errors
    /// The header that makes the mutation ambiguous.
    pub fn mutation_with(
        &self,
        request: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
        response: AnsweredBody<'_>,
    ) -> Result<Mutation, HeaderName> {
        let methods = WriteMethods::new(request, effective, body, self.purges.method_override);
        let paths = self.write_paths(request);
        let host = self.host_of(request);
        let mut mutation = Mutation::new(Vec::new());
        // Read only where a rule or an endpoint asks for it.
        let written = LazyCell::new(|| Self::written_fields(request, &methods, body));
        for path in &paths {
            let PathRules { mut matched, excluding } = self.matching(request, &methods, &path.path);
            let may_be_for = |(rule, _): &(&PurgeRule, Captures)| {
                rule.mutations.as_deref().is_none_or(|globs| written.may_be_named_by(globs))
            };
            matched.retain(may_be_for);
            let named = matched.iter().filter_map(|(rule, _)| rule.mutations.as_deref());
            let of_endpoint = self.endpoint_tags(request.app, &path.path, &path.hosts);
            let is_endpoint = !of_endpoint.is_empty();
            // What rules name is what it changes; what no rule names may change the whole endpoint.
            if !is_endpoint || !written.are_all_named_by(named) {
                mutation.add_own(uri_tags(&path.hosts, &path.path).chain(of_endpoint));
            }
            mutation.excluded_by.extend(excluding.iter().map(|rule| rule.place.clone()));
            for (rule, captures) in matched {
                let read: Vec<HeaderName> = rule
                    .fields()
                    .filter_map(|field| field.header().cloned())
                    .filter(|name| *name != COOKIE)
                    .collect();
                if let Some(header) = ambiguous_header(&read, request) {
                    return Err(header);
                }
                let places = token_places(rule.fields());
                let tokens = self.tokens_in(&places, request.headers, request.is_again);
                let mut view = FieldView {
                    headers: request.headers,
                    host: &host,
                    query: request.uri.query().unwrap_or_default(),
                    captures: &captures,
                    client: request.client,
                    body,
                    has_body: request.has_body,
                    response,
                    now: request.now,
                    sessions: &self.credential.sessions.0,
                    credential: &self.credential,
                    hasher: &self.hasher,
                    tokens: &tokens,
                    identity: &RequestIdentity::UNREAD,
                };
                if is_endpoint || rule.mutations.is_some() {
                    view = view_of_mutation(view, rule, &written);
                }
                mutation.add(rule, &view, |template| self.families(template));
            }
        }
        mutation.uncovered_cached_path = !mutation.covered
            && mutation.excluded_by.is_empty()
            && request_target::readings(request.uri.path())
                .iter()
                .any(|path| self.routes.have_path(request.app, path));
        mutation.tags.sort();
        mutation.tags.dedup();
        mutation.add_until_response();
        mutation.missing.sort();
        mutation.missing.dedup();
        mutation.too_many.sort();
        mutation.too_many.dedup();
        mutation.rules.sort_unstable();
        mutation.rules.dedup();
        mutation.repurge_after.sort();
        mutation.repurge_after.dedup();
        Ok(mutation)
    }

    /// What a template purges of which not every tag can be told.
    fn families(&self, template: &UnreadTemplate<'_>) -> Vec<Tag> {
        template.families(self.routes.iter().flat_map(|route| &route.spec.tags))
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
        let (sessions, most) = (&rule.sessions.0, caller::MAX_PURGED_NAMES);
        let before = caller::caller_names(rule, sessions, request, hasher, most);
        let mut tags: Vec<Tag> =
            before.iter().chain(&set).map(|name| Tag::for_caller(name)).collect();
        tags.sort();
        tags.dedup();
        tags
    }
}

/// What a rule may read of a write that may run mutations: of its body what these fields are given,
/// and nothing of its answer.
///
/// SECURITY: clients choose variables and aliases, and servers ignore the variables that a document
/// does not use. So whatever else is there is read as nothing that can be told.
fn view_of_mutation<'a>(
    view: FieldView<'a>,
    rule: &PurgeRule,
    written: &WrittenFields,
) -> FieldView<'a> {
    let is_told = |body: &BodyFields| {
        rule.fields().all(|field| match &field.source {
            FieldSource::Body(pointer) => written.are_told_at(pointer, body),
            _ => true,
        })
    };
    let body = view.body.filter(|body| is_told(body));
    FieldView { body, has_body: true, response: AnsweredBody::Unread, ..view }
}

/// The tags of a path by any reading of it, under each of these hosts.
fn uri_tags<'a>(hosts: &'a [String], path: &str) -> impl Iterator<Item = Tag> + 'a {
    let readings = request_target::readings(path);
    hosts.iter().flat_map(move |host| {
        readings.iter().map(|path| Tag::for_uri(host, path)).collect::<Vec<_>>()
    })
}
