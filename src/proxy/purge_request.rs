//! Answers `PURGE` and `BAN`, where `[purge_requests]` lets clients send them. The app never sees
//! them, and the answer goes out when no sidecar serves the purged entries any more, or says that
//! the others cannot be told yet.

use http::request::Parts;
use http::{Method, StatusCode};

use crate::coherence::{PurgeKind, Released};
use crate::outcome::{Outcome, Reason};
use crate::policy::purge_request::{PurgeRefusal, PurgeRequestRule, PurgeTarget, purge_target};
use crate::policy::tag::Tag;
use crate::proxy::context::RequestContext;
use crate::proxy::hit::named;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::telemetry::events::{EventKind, PurgeEvent, truncate};
use crate::telemetry::hot_tags::TagEvent;

/// What is answered while the other sidecars cannot be told.
const NOT_PUBLISHED: &str =
    "purged here; Redis cannot be reached, and other sidecars follow when it can";

/// The rule for this request, if it is a purge request and the file has one.
pub(super) fn rule_for<'a>(
    context: &RequestContext<'a>,
    method: &Method,
) -> Option<&'a PurgeRequestRule> {
    let rule = context.config.rules.purge_requests.as_ref()?;
    PurgeRequestRule::is_for(method).then_some(rule)
}

/// Purges what the request names, or refuses it.
pub(super) async fn answer(
    resources: &Resources,
    context: RequestContext<'_>,
    rule: &PurgeRequestRule,
    parts: &Parts,
) -> ProxyResponse {
    let (rules, headers) = (&context.config.rules, &parts.headers);
    let allowed = rule.allow(headers, &context.peer, &rules.client_address);
    let host = rules.host(context.app(), &parts.uri, headers);
    let target = allowed.and_then(|()| purge_target(headers, &host, parts.uri.path()));
    let target = match target {
        Ok(target) => target,
        Err(why) => return refuse(resources, parts, why),
    };
    // A hit between the two is no harm: then it was in the cache.
    let was_held = is_held(resources, &target);
    let (tags, everything) = match &target {
        PurgeTarget::Everything => (&[][..], true),
        PurgeTarget::Path(tags) | PurgeTarget::Tags(tags) => (&tags[..], false),
    };
    let released = if everything {
        resources.coherence.purge_everything(PurgeKind::Hard).await
    } else {
        resources.coherence.purge(tags).await
    };
    record(resources, parts, tags, everything);
    // What plugins expect of Varnish: a path that is not in the cache is a 404. Tags are never.
    let (status, text) = match target {
        _ if released == Released::PublishFailed => (StatusCode::ACCEPTED, NOT_PUBLISHED),
        PurgeTarget::Path(_) if !was_held => (StatusCode::NOT_FOUND, "not in the cache"),
        _ => (StatusCode::OK, "purged"),
    };
    let outcome = Outcome::bypass(Reason::PurgeRequest);
    let response = response::own_answer(status, text, &outcome);
    ProxyResponse { response, outcome, route: None }
}

/// Whether something carries one of the tags. With Redis, another sidecar may know of entries that
/// this one does not.
fn is_held(resources: &Resources, target: &PurgeTarget) -> bool {
    let coherence = &resources.coherence;
    match target {
        PurgeTarget::Path(tags) => {
            coherence.records().is_some() || tags.iter().any(|tag| coherence.is_held(tag))
        }
        PurgeTarget::Tags(_) | PurgeTarget::Everything => true,
    }
}

fn refuse(resources: &Resources, parts: &Parts, why: PurgeRefusal) -> ProxyResponse {
    resources.counters.purge_requests_refused.inc();
    tracing::debug!(
        method = parts.method.as_str(),
        why = why.as_str(),
        "a purge request is refused"
    );
    let outcome = Outcome::bypass_with(Reason::PurgeRefused, why.as_str());
    let response = response::own_answer(why.status(), why.as_str(), &outcome);
    ProxyResponse { response, outcome, route: None }
}

fn record(resources: &Resources, parts: &Parts, tags: &[Tag], everything: bool) {
    resources.counters.purges.request.inc();
    resources.hot_tags.record(named(tags), TagEvent::Purged);
    let (method, path) = (Some(truncate(parts.method.as_str())), Some(truncate(parts.uri.path())));
    let purged = PurgeEvent { by: "request", method, path, everything, ..PurgeEvent::default() }
        .with_tags(tags.iter().map(Tag::shown));
    resources.events.publish(resources.clock.wall(), EventKind::Purge(purged));
}
