//! Asks the origin who a caller is, where a route has that in its key: `[identity]`.
//!
//! Invariants:
//! - A request asks at most once before it is planned. Whatever keeps the origin from telling makes
//!   it a pass; it never waits for longer than `timeout`, nor in a queue.
//! - One question is in flight for each caller: others who need its answer wait for it, but only if
//!   their caller has written nothing since it was begun. It is sent in a task of its own, so that
//!   no client's departure ends it for the others.
//! - What the origin answers to a fill is stored for others only if the origin, asked again once
//!   the answer is whole, says the same of the caller as the key does ([`is_same_caller`]).

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, SET_COOKIE};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;

use crate::outcome::Reason;
use crate::policy::apps::AppId;
use crate::policy::identity::{
    IdentityAnswer, IdentityFault, IdentityTable, MAX_IDENTITY_BYTES, RequestIdentity,
};
use crate::policy::plan::{IdentityCheck, IdentityProbe, RequestView};
use crate::proxy::active_config::{ActiveConfig, LiveConfig};
use crate::proxy::context::RequestContext;
use crate::proxy::fill::request::new_request_id;
use crate::proxy::identity_probes::{BegunProbe, IdentityProbes, ProbeResult, ProbeRole};
use crate::proxy::resources::Resources;
use crate::semantics::body::Body;
use crate::shares::ShareOwner;
use crate::upstream::UpstreamError;

/// Asks the origin, or waits for the answer to another request's question.
async fn ask(
    probes: &IdentityProbes,
    resources: &Resources,
    config: &Arc<ActiveConfig>,
    (probe, peer): (&IdentityProbe, ShareOwner),
    is_anew: bool,
) -> ProbeResult {
    let mut receiver = match probes.role(probe, is_anew, resources.clock.wall()) {
        ProbeRole::Settled(result) => return result,
        ProbeRole::Wait(receiver) => receiver,
        ProbeRole::Ask(receiver, begun) => {
            send(&probes.table, resources, config, (probe, peer), *begun);
            receiver
        }
    };
    let Some(_place) = probes.wait() else {
        probes.table.counters.waiters.inc();
        return Err(IdentityFault::Busy);
    };
    // A task that panicked has logged it.
    let settled = receiver.wait_for(Option::is_some).await;
    settled.ok().and_then(|settled| settled.clone()).unwrap_or(Err(IdentityFault::Unreachable))
}

fn send(
    table: &Arc<IdentityTable>,
    resources: &Resources,
    config: &Arc<ActiveConfig>,
    (probe, peer): (&IdentityProbe, ShareOwner),
    begun: BegunProbe,
) {
    let (config, table) = (Arc::clone(config), Arc::clone(table));
    let (clock, key) = (resources.clock.clone(), probe.key);
    let request = probe.to_request(new_request_id());
    resources.tasks.spawn(async move {
        let BegunProbe { sender, start, permit, guard } = begun;
        let asking = async {
            let sent =
                config.origins.of(key.app).send((peer, None), request, &config.table, None).await;
            let response = sent.map_err(|error| fault_of(&error))?;
            read_answer(&table, key.app, response).await
        };
        let result = match tokio::time::timeout(table.settings.timeout, asking).await {
            Ok(result) => result,
            Err(_) => Err(IdentityFault::Timeout),
        };
        let settled = table.settle(key, start, result, clock.wall());
        table.counters.result(&settled);
        drop((guard, permit));
        sender.send_replace(Some(settled));
    });
}

fn fault_of(error: &UpstreamError) -> IdentityFault {
    match error.reason() {
        Reason::UpstreamTimeout => IdentityFault::Timeout,
        Reason::UpstreamBusy => IdentityFault::Busy,
        _ => IdentityFault::Unreachable,
    }
}

/// Reads who the caller is.
async fn read_answer(table: &IdentityTable, app: AppId, response: Response<Body>) -> ProbeResult {
    let (status, headers) = (response.status(), response.headers());
    // An answer that tells nobody anything ends the cookie of a session that is over already.
    if status == StatusCode::OK && headers.contains_key(SET_COOKIE) {
        if table.switch_off(app) {
            tracing::warn!(
                path = &*table.settings.path,
                "the answer of [identity] sets a cookie: asking would consume what the cookie \
                 replaces, so nothing is asked until the next reload, and routes with such fields \
                 pass. Name a path that sets none"
            );
        }
        return Err(IdentityFault::Off);
    }
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(IdentityFault::Refused),
        status if status.is_redirection() => return Err(IdentityFault::Redirect),
        _ => return Err(IdentityFault::Status),
    }
    if !is_plain_json(headers) {
        return Err(IdentityFault::NotJson);
    }
    let mut body = response.into_body();
    let mut data = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| IdentityFault::Unreachable)?;
        let Ok(chunk) = frame.into_data() else { continue };
        if data.len() + chunk.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityFault::TooLarge);
        }
        data.extend_from_slice(&chunk);
    }
    let answer = IdentityAnswer::parse(&data, &table.pointers);
    answer.map(Arc::new).ok_or(IdentityFault::NotJson)
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    let is_json = kind == b"application/json" || kind.ends_with(b"+json");
    is_json && headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity")
}

/// Asks the origin who the caller of a request is. `waits`: for its answer. Otherwise a later
/// request knows it, and this one is no slower than without the sidecar, as in shadow mode.
pub(super) async fn identify(
    resources: &Resources,
    context: RequestContext<'_>,
    view: &RequestView<'_>,
    parts: &Parts,
    waits: bool,
) -> RequestIdentity {
    let config = context.config;
    // Another process of this sidecar may carry out writes of which nothing is known here.
    if resources.overlap.passes() {
        return RequestIdentity::Fault(IdentityFault::Unasked);
    }
    let (probe, _) = match config.rules.identity_probe(view) {
        Ok(probe) => probe,
        Err(known) => return known,
    };
    let Some(probes) = &config.identity_probes else {
        return RequestIdentity::Fault(IdentityFault::Unasked);
    };
    let peer = context.requester(parts).peer;
    if !waits {
        if let ProbeRole::Ask(_, begun) = probes.role(&probe, false, resources.clock.wall()) {
            send(&probes.table, resources, config, (&probe, peer), *begun);
        }
        return RequestIdentity::Fault(IdentityFault::Unasked);
    }
    match ask(probes, resources, config, (&probe, peer), false).await {
        Ok(answer) => RequestIdentity::Known(answer),
        Err(fault) => RequestIdentity::Fault(fault),
    }
}

/// Whether the origin, asked anew, says the same of a caller as the key of a fill that has ended.
pub(super) async fn is_same_caller(
    resources: &Resources,
    config: &Arc<ActiveConfig>,
    check: &IdentityCheck,
    peer: ShareOwner,
) -> bool {
    let Some(probes) = &config.identity_probes else { return false };
    let answer = ask(probes, resources, config, (&check.probe, peer), true).await;
    answer.is_ok_and(|answer| check.is_met_by(&answer))
}

/// A write of a caller: from before it is sent to after the end of its response.
pub(super) struct CallerWrite {
    /// The configuration that it began under.
    config: Arc<ActiveConfig>,
    live: Arc<LiveConfig>,
    headers: HeaderMap,
}

impl CallerWrite {
    /// The write begins.
    pub(super) fn begin(
        config: &Arc<ActiveConfig>,
        live: &Arc<LiveConfig>,
        headers: &HeaderMap,
    ) -> Self {
        let (config, live) = (Arc::clone(config), Arc::clone(live));
        let write = Self { config, live, headers: headers.clone() };
        write.record();
        write
    }

    /// Whatever the origin has said of the caller is over, and so is what it is saying.
    pub(super) fn record(&self) {
        self.config.rules.end_identity(&self.headers);
        // A reload may have begun to ask meanwhile.
        self.live.load().rules.end_identity(&self.headers);
    }

    /// So is what it has said of whoever has a cookie that the response sets.
    pub(super) fn answered(&self, response: &HeaderMap) {
        self.config.rules.end_identity_by(&self.headers, response);
        self.live.load().rules.end_identity_by(&self.headers, response);
    }
}

impl Drop for CallerWrite {
    fn drop(&mut self) {
        self.record();
    }
}
