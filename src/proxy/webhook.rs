//! Answers the webhooks of sources. The origin never gets them, and the answer goes out when no
//! sidecar serves what they purge any more.
//!
//! SECURITY: whoever is refused learns that a signature is expected here, and nothing else: neither
//! what is wrong with his, nor whether the sidecar caches what he named.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::outcome::{Outcome, Reason};
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::proxy::upload_budget::ReservedBytes;
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;
use crate::sources::{DeliveryOutcome, WebhookReceiver};

/// How long the body of a webhook may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Answers a request that is for the source of this name.
pub(super) async fn answer(
    resources: &Resources,
    (config, peer): (&ActiveConfig, &ClientPeer),
    source: &Arc<str>,
    request: Request<Body>,
) -> ProxyResponse {
    // While a reload changes its sources, it has none of this name for a moment.
    let Some(receiver) = resources.sources.webhook(source) else {
        return respond(DeliveryOutcome::Unfinished);
    };
    let (parts, body) = request.into_parts();
    let owner = config.rules.client_address.share(&parts.headers, peer);
    let mut reserved = resources.upload_budget.reserve(owner);
    let reading = read(&receiver, body, &mut reserved);
    let read = tokio::time::timeout(BODY_TIME, reading).await;
    let outcome = match read.unwrap_or(Err(DeliveryOutcome::Broken)) {
        Ok(body) => receiver.deliver(&parts.headers, &body).await,
        Err(outcome) => outcome,
    };
    receiver.count(outcome);
    respond(outcome)
}

/// The whole body, or why there is none.
async fn read(
    receiver: &WebhookReceiver,
    mut body: Body,
    reserved: &mut ReservedBytes,
) -> Result<BytesMut, DeliveryOutcome> {
    let most = receiver.max_body();
    if body.size_hint().lower() > most as u64 {
        return Err(DeliveryOutcome::TooLarge);
    }
    let mut data = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(DeliveryOutcome::Broken) };
        // What is signed is the body: trailers say nothing.
        let Ok(chunk) = frame.into_data() else { continue };
        if data.len() + chunk.len() > most {
            return Err(DeliveryOutcome::TooLarge);
        }
        if !reserved.grow(chunk.len() as u64) {
            return Err(DeliveryOutcome::NoRoom);
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data)
}

fn respond(outcome: DeliveryOutcome) -> ProxyResponse {
    let (status, text) = answer_to(outcome);
    let reason = if outcome.is_refusal() { Reason::WebhookRefused } else { Reason::Webhook };
    let shown = Outcome::bypass(reason);
    let mut response = response::own_answer(status, text, &shown);
    retry_after(&mut response);
    ProxyResponse { response, outcome: shown, route: None }
}

/// The status and the text of the answer.
const fn answer_to(outcome: DeliveryOutcome) -> (StatusCode, &'static str) {
    match outcome {
        DeliveryOutcome::Purged => (StatusCode::OK, "purged"),
        DeliveryOutcome::Pending => {
            (StatusCode::ACCEPTED, "purged here; other sidecars follow when Redis can be reached")
        }
        // SECURITY: the sender has proven that it knows the secret. A refusal would make it send
        // this again, or nothing any more.
        DeliveryOutcome::Ignored => (StatusCode::OK, "it names nothing that is purged"),
        DeliveryOutcome::Unsigned | DeliveryOutcome::Late | DeliveryOutcome::WrongSignature => {
            (StatusCode::UNAUTHORIZED, "the webhook is not signed as it must be")
        }
        DeliveryOutcome::Repeated | DeliveryOutcome::NoRoom => {
            (StatusCode::TOO_MANY_REQUESTS, "too many webhooks at present")
        }
        DeliveryOutcome::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"),
        DeliveryOutcome::Broken => (StatusCode::REQUEST_TIMEOUT, "the body has not arrived"),
        DeliveryOutcome::Malformed => {
            (StatusCode::BAD_REQUEST, "the body is neither JSON nor a form")
        }
        DeliveryOutcome::Unfinished => (StatusCode::SERVICE_UNAVAILABLE, "the purge has not ended"),
    }
}

/// Tells the sender when to try again, if it should.
fn retry_after(response: &mut Response<Body>) {
    let seconds = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => "60",
        StatusCode::SERVICE_UNAVAILABLE => "1",
        _ => return,
    };
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
}
