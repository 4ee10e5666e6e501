//! Requests of a GraphQL endpoint: which are answered from the cache, which pass, and which write.
//!
//! Invariants:
//! - A request is a write by any reading of its path: another spelling of the path of an endpoint
//!   does not hide a mutation, neither here nor from the purge.
//! - What every mutation purges, unless purge rules name all that it does, is a tag that every
//!   entry of the endpoint has.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use crate::outcome::{Outcome, Reason};
use crate::policy::apps::AppId;
use crate::policy::body_fields::BodyFields;
use crate::policy::graphql::{
    GraphqlRequest, KnownDocument, WrittenFields, read_get, read_post, written_by,
};
use crate::policy::keyed_body::{KeyedBody, SeenBody, fields_of};
use crate::policy::plan::Plan;
use crate::policy::plan::body_read::{contradicts, refuse_head};
use crate::policy::plan::mutation::mutation_reason;
use crate::policy::plan::request_headers::ambiguous_header;
use crate::policy::plan::rules::{PolicyRules, RequestView};
use crate::policy::plan::write_methods::{ReadOverride, WriteMethods, read_override};
use crate::policy::purge_rule::is_safe;
use crate::policy::request_target;
use crate::policy::route::{Captures, Route};
use crate::policy::tag::Tag;

impl PolicyRules {
    /// What to do with a POST to an endpoint, whose body was read.
    pub(super) fn plan_graphql<'a>(
        &'a self,
        route: &'a Arc<Route>,
        (captures, path): (Captures, Cow<'a, str>),
        request: &RequestView<'a>,
        seen: &SeenBody,
    ) -> Plan<'a> {
        let query = request.uri.query().unwrap_or_default();
        let SeenBody::Whole(bytes) = seen else { return self.doubtful() };
        if bytes.len() as u64 > self.max_read_body {
            return self.doubtful();
        }
        let document = match read_post(request.headers, query, bytes, Some(&self.documents)) {
            GraphqlRequest::Read(document) => document,
            GraphqlRequest::Pass(cause) => {
                return Plan::Pass(Some(route), Outcome::bypass_with(Reason::Graphql, cause));
            }
            GraphqlRequest::UnknownDocument => {
                self.documents.unknown.inc();
                return self.doubtful();
            }
            GraphqlRequest::Write(WrittenFields::Unknown) => return self.doubtful(),
            GraphqlRequest::Write(WrittenFields::These(_)) => return Plan::Mutate(Method::POST),
        };
        // SECURITY: as with every read that has a body.
        let has_conditions = !route.spec.conditions.query.is_empty();
        let fields = || fields_of(request.headers, bytes);
        if has_conditions && fields().is_none_or(|fields| contradicts(route, &fields)) {
            return self.doubtful();
        }
        if let Some(header) = ambiguous_header(route.headers.read(), request) {
            return Plan::Refuse(Some(route), header);
        }
        let path = route.keyed_path(path, &captures);
        let planned = refuse_head(request.headers)
            .and_then(|()| KeyedBody::new(route, request.headers, bytes))
            .and_then(|body| self.lookup(route, captures, path, request, Some(body)));
        match planned {
            Ok(mut lookup) => {
                lookup.document = document;
                Plan::Lookup(Box::new(lookup))
            }
            Err(outcome) => Self::unplanned(route, request, outcome),
        }
    }

    fn doubtful<'a>(&self) -> Plan<'a> {
        self.documents.in_doubt.inc();
        Plan::Mutate(Method::POST)
    }

    /// The document of a GET, if it is a query; or why the request passes.
    pub(super) fn graphql_query(
        &self,
        request: &RequestView<'_>,
    ) -> Result<Option<KnownDocument>, Outcome> {
        let query = request.uri.query().unwrap_or_default();
        let refused = |cause: &'static str| Outcome::bypass_with(Reason::Graphql, cause);
        match read_get(query, request.has_body, Some(&self.documents)) {
            GraphqlRequest::Read(document) => Ok(document),
            GraphqlRequest::Pass(cause) => Err(refused(cause)),
            GraphqlRequest::UnknownDocument => {
                self.documents.unknown.inc();
                Err(refused("(unknown document)"))
            }
            GraphqlRequest::Write(_) => Err(refused("(mutation)")),
        }
    }

    /// Whether a request with another safe method has a body for an endpoint: a server that looks
    /// at no method runs what is in it.
    pub(super) fn may_carry_mutation(&self, request: &RequestView<'_>) -> bool {
        request.has_body && self.is_endpoint(request.app, request.uri.path())
    }

    /// Whether a GET or HEAD of an endpoint may be a mutation: some servers run it.
    pub(super) fn writes_by_graphql(&self, request: &RequestView<'_>) -> bool {
        if !self.routes.have_graphql() || (request.uri.query().is_none() && !request.has_body) {
            return false;
        }
        if !self.is_endpoint(request.app, request.uri.path()) {
            return false;
        }
        let query = request.uri.query().unwrap_or_default();
        let is_write = matches!(
            read_get(query, request.has_body, Some(&self.documents)),
            GraphqlRequest::Write(_)
        );
        is_write || matches!(read_override(request), ReadOverride::Unsafe(_))
    }

    /// Why the cache takes no part in a write.
    #[must_use]
    pub fn reason_of_write(&self, request: &RequestView<'_>, effective: &Method) -> Reason {
        let is_override = matches!(read_override(request), ReadOverride::Unsafe(_));
        let by_graphql = match *request.method {
            Method::GET | Method::HEAD => self.writes_by_graphql(request),
            _ => self.may_carry_mutation(request),
        };
        if !is_override && is_safe(request.method) && by_graphql {
            Reason::Graphql
        } else {
            mutation_reason(request.method, effective)
        }
    }

    /// Whether this is the path of an endpoint of an app, by any reading of it.
    #[must_use]
    pub fn is_endpoint(&self, app: AppId, path: &str) -> bool {
        self.endpoints(app, path).next().is_some()
    }

    /// The endpoints of an app that have this path by any reading of it.
    fn endpoints(&self, app: AppId, path: &str) -> impl Iterator<Item = &Arc<Route>> {
        let is_there = self.routes.have_graphql();
        let readings = if is_there { request_target::write_readings(path) } else { Vec::new() };
        let endpoints =
            self.routes.iter().filter(move |route| route.spec.graphql && route.spec.app.id == app);
        endpoints.filter(move |route| {
            let pattern = route.spec.pattern.for_writes();
            readings.iter().any(|reading| pattern.captures_of(reading).is_some())
        })
    }

    /// The tags of all entries of the endpoints of an app that a write has the path of.
    pub(super) fn endpoint_tags(&self, app: AppId, path: &str, hosts: &[String]) -> Vec<Tag> {
        let of = |route: &Arc<Route>| {
            let tags = hosts.iter().map(|host| endpoint_tag(host, route));
            tags.collect::<Vec<_>>()
        };
        self.endpoints(app, path).flat_map(of).collect()
    }

    /// The root fields of the mutation in a write.
    pub(super) fn written_fields(
        request: &RequestView<'_>,
        methods: &WriteMethods,
        body: Option<&BodyFields>,
    ) -> WrittenFields {
        let is_read = matches!(*request.method, Method::GET | Method::HEAD);
        if !is_read && !methods.is_only(&Method::POST) {
            return WrittenFields::Unknown;
        }
        let query = request.uri.query().unwrap_or_default();
        written_by(request.method, request.headers, query, request.has_body, body)
    }
}

/// The tag that every entry of an endpoint has. Where the path has no captures, it is that of its
/// URI.
pub(super) fn endpoint_tag(host: &str, route: &Route) -> Tag {
    Tag::for_uri(host, route.spec.pattern.as_str())
}
