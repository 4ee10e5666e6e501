//! Requests with a body that change nothing, by the operator's word: POST, QUERY, PROPFIND, REPORT
//! and SEARCH on a route that lists the method and says `read_only = true`.
//!
//! Invariants:
//! - What such a route does not list, and what does not meet its `match` without a doubt, is as it
//!   would be without the route.
//! - A request that the origin may take for another method is a write. That is one that names a
//!   method in its head or its body, and a POST of whose body nobody can tell. So is one whose body
//!   has another value of what `match` asks for.
//! - The origin gets on a fill the body that the key was made of, and nothing else of what came: in
//!   its one form where it is JSON, without what no key has seen; byte for byte where it is not.

use http::Method;
use http::header::{CONTENT_ENCODING, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH};

use crate::outcome::{Outcome, Reason};
use crate::policy::body_fields::BodyFields;
use crate::policy::keyed_body::{KeyedBody, SeenBody, fields_of};
use crate::policy::plan::Plan;
use crate::policy::plan::request_headers::ambiguous_header;
use crate::policy::plan::rules::{PolicyRules, RequestView};
use crate::policy::plan::write_methods::WriteMethods;
use crate::policy::purge_rule::{self, PurgeRule};
use crate::policy::request_target;
use crate::policy::route::{ChosenRoute, Route};

impl PolicyRules {
    /// What to do with a request that is neither a GET nor a HEAD, if a route answers it from its
    /// key.
    pub(super) fn plan_with_body<'a>(&'a self, request: &RequestView<'a>) -> Option<Plan<'a>> {
        if !self.routes.key_bodies() {
            return None;
        }
        let raw = request.uri.path();
        let normal = request_target::kept_path(raw)?;
        let path = normal.path;
        // SECURITY: what does not meet the conditions of the route, or may not, is no read of it.
        let ChosenRoute::Taken(route, captures) = self.choose(&path, request) else { return None };
        let is_kept = !normal.has_escaped_slash || self.keeps_escaped_slash(route, raw);
        if !route.spec.keys_body_of(request.method) || !is_kept {
            return None;
        }
        if self.is_named_write(request) {
            // A write as without the route; a safe method passes.
            return None;
        }
        let route = self.policy_of(route, request.headers, request.is_again);
        let head = WriteMethods::of_head(request, request.method, false);
        if !head.is_only(request.method) {
            return Some(Plan::Mutate(named_write(&head, request.method)));
        }
        let Some(seen) = request.seen_body else { return Some(Plan::ReadBody(route)) };
        if route.spec.graphql {
            return Some(self.plan_graphql(route, (captures, path), request, seen));
        }
        let whole = match seen {
            SeenBody::Whole(bytes) if bytes.len() as u64 <= self.max_read_body => Ok(bytes),
            SeenBody::Whole(_) | SeenBody::TooLarge => Err(Reason::BodyTooLarge),
            SeenBody::WithTrailers => Err(Reason::AmbiguousBody),
        };
        // SECURITY: frameworks find `_method` in bodies as well.
        let fields = whole.ok().and_then(|bytes| fields_of(request.headers, bytes));
        let methods = WriteMethods::new(request, request.method, fields.as_ref(), false);
        if !methods.is_only(request.method)
            || fields.as_ref().is_some_and(|fields| contradicts(route, fields))
        {
            return Some(Plan::Mutate(request.method.clone()));
        }
        if let Some(header) = ambiguous_header(route.headers.read(), request) {
            return Some(Plan::Refuse(Some(route), header));
        }
        let keyed = match whole {
            Ok(bytes) => KeyedBody::new(route, request.headers, bytes),
            Err(Reason::AmbiguousBody) => {
                Err(Outcome::bypass_with(Reason::AmbiguousBody, "(trailers)"))
            }
            Err(reason) => Err(Outcome::bypass(reason)),
        };
        let path = route.keyed_path(path, &captures);
        let planned = refuse_head(request.headers)
            .and(keyed)
            .and_then(|body| self.lookup(route, captures, path, request, Some(body)));
        Some(match planned {
            Ok(lookup) => Plan::Lookup(Box::new(lookup)),
            Err(outcome) => Self::unplanned(route, request, outcome),
        })
    }

    /// Whether this plan makes a write of a request that its route would answer, and why, for
    /// `explain`.
    #[must_use]
    pub fn write_in_place_of_read(&self, request: &RequestView<'_>) -> Option<&'static str> {
        let normal = request_target::kept_path(request.uri.path())?;
        let ChosenRoute::Taken(route, _) = self.choose(&normal.path, request) else { return None };
        if !route.spec.keys_body_of(request.method) {
            return None;
        }
        let head = WriteMethods::of_head(request, request.method, false);
        Some(if self.is_named_write(request) {
            "the route takes such requests for reads, but a purge rule names this method"
        } else if route.spec.graphql && head.is_only(request.method) {
            "the document has a mutation that may run, or nobody can tell: the body is no plain \
             JSON (is there a Content-Type?), names its document in another way, or cannot be read"
        } else if head.is_only(request.method) {
            "the route says `read_only`, but the body names another method, or another value of a \
             parameter in `match`, or nobody can tell whether it does: it is too long, has a \
             coding, or is of a type that is not read (is there a Content-Type?)"
        } else {
            "the route takes such requests for reads, but a header or a parameter names another \
             method"
        })
    }

    /// Whether a purge rule says of this method that it changes data, by any reading of the path.
    fn is_named_write(&self, request: &RequestView<'_>) -> bool {
        let path = request.uri.path();
        // A rule for mutations says nothing of queries.
        let names = |rule: &&PurgeRule| {
            rule.mutations.is_none()
                && rule.methods.as_ref().is_some_and(|it| it.contains(request.method))
        };
        let mut rules = self.purges.iter().filter(names).filter(|it| Self::meets(it, request));
        rules.any(|rule| {
            let readings = request_target::write_readings(path);
            !rule.excludes(path) && readings.iter().any(|path| rule.captures_of(path).is_some())
        })
    }
}

/// Whether the body has another value of a parameter that decided on the route.
///
/// SECURITY: apps that read query and body as one (`$_REQUEST`) take that of the body.
pub(super) fn contradicts(route: &Route, fields: &BodyFields) -> bool {
    route.spec.conditions.query.iter().any(|(name, allowed)| {
        let pointer = name.replace('~', "~0").replace('/', "~1");
        let found = fields.read(&format!("/{pointer}"));
        found.is_unreadable
            || found.values.iter().any(|value| !allowed.iter().any(|one| **one == **value))
    })
}

/// The method that a request is, which names others.
fn named_write(methods: &WriteMethods, own: &Method) -> Method {
    match methods {
        _ if !purge_rule::is_safe(own) => own.clone(),
        WriteMethods::These(named) => {
            let named = named.iter().find(|method| !purge_rule::is_safe(method));
            named.cloned().unwrap_or(Method::POST)
        }
        WriteMethods::Any => Method::POST,
    }
}

/// Why a request with a body is passed, whatever its route.
pub(super) fn refuse_head(headers: &HeaderMap) -> Result<(), Outcome> {
    // RFC 9110 13.1.2: with such a method they make a 412, which no stored response can answer.
    if headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE) {
        return Err(Outcome::bypass(Reason::Precondition));
    }
    // SECURITY: a fill would withhold what the body cannot be read without.
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Outcome::bypass_with(Reason::UnkeyedHeader, CONTENT_ENCODING.as_str()));
    }
    Ok(())
}
