//! What there is to ask for: one row for each path, and the few lines that answer it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT, ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::auth::{Guard, Refusal};
use super::response::{Posted, Refused, told, whole};
use super::state::{Office, PurgeOrder};
use super::{Ready, events, openapi};
use crate::policy::explain::Question;

/// The largest body of a request: a whole `proxy.toml` with room to spare.
const MAX_BODY: usize = 1 << 20;

/// The paths that are answered, as the 404 tells them.
pub(super) const PATHS: [&str; 15] = [
    "/",
    "/live",
    "/ready",
    "/metrics",
    "/stats",
    "/routes",
    "/purge",
    "/explain",
    "/events",
    "/reload",
    "/check",
    "/shadow",
    "/openapi.json",
    "/dashboard.css",
    "/dashboard.js",
];

/// What the handlers share.
pub(super) struct Desk {
    pub(super) office: Arc<Office>,
    pub(super) guard: Guard,
}

/// The whole API.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(async || page("text/html; charset=utf-8", include_str!("dashboard/index.html"))))
        .route("/dashboard.css", get(async || page("text/css; charset=utf-8", include_str!("dashboard/dashboard.css"))))
        .route("/dashboard.js", get(async || page("text/javascript; charset=utf-8", include_str!("dashboard/dashboard.js"))))
        .route("/live", get(async || whole(StatusCode::OK, "text/plain; charset=utf-8", "live")))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/stats", get(async |State(desk): State<Arc<Desk>>| told(StatusCode::OK, &desk.office.stats())))
        .route("/routes", get(async |State(desk): State<Arc<Desk>>| told(StatusCode::OK, &desk.office.routes())))
        .route("/shadow", get(async |State(desk): State<Arc<Desk>>| told(StatusCode::OK, &desk.office.shadow())))
        .route("/openapi.json", get(async || told(StatusCode::OK, &openapi::document())))
        .route("/events", get(events))
        .route("/purge", post(purge))
        .route("/explain", post(explain))
        .route("/reload", post(reload))
        .route("/check", post(check))
        .fallback(async || nowhere())
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&desk), guarded))
        .with_state(desk)
}

/// Who may ask at all. Before everything else, so that a stranger does not even learn what there is.
async fn guarded(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = desk.guard.check(request.uri(), request.headers()) {
        return refuse(refusal);
    }
    let is_probe = matches!(request.uri().path(), "/live" | "/ready");
    if !is_probe && !desk.guard.admits(request.headers()) {
        return refuse(Refusal::Token);
    }
    next.run(request).await
}

fn refuse(refusal: Refusal) -> Response {
    let mut refused = Refused::new(refusal.status(), refusal.as_str());
    if let Some(hint) = refusal.hint() {
        refused = refused.hint(hint);
    }
    let mut response = refused.into_response();
    if refusal == Refusal::Token {
        // RFC 9110 11.6.1: a 401 says how to authenticate. Basic is for browsers, which ask for it by themselves.
        for way in ["Bearer realm=\"sidecache\"", "Basic realm=\"sidecache: any name, the admin token as password\", charset=\"UTF-8\""] {
            response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(way));
        }
    }
    response
}

fn page(content_type: &'static str, text: &'static str) -> Response {
    whole(StatusCode::OK, content_type, text)
}

fn nowhere() -> Response {
    told(StatusCode::NOT_FOUND, &json!({ "error": "there is no such page", "pages": PATHS }))
}

/// The path is right and the method is not.
async fn not_so(method: Method, uri: Uri) -> Response {
    let takes_posts = matches!(uri.path(), "/purge" | "/explain" | "/reload" | "/check");
    let allowed = if takes_posts { "POST" } else { "GET, HEAD" };
    let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this page")).hint(format!("use {allowed}"));
    let mut response = refused.into_response();
    // RFC 9110 15.5.6: a 405 says which methods there are.
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let ready = desk.office.ready();
    let code = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let Ready { degraded, .. } = &ready;
    told(code, &json!({ "status": ready.status(), "reasons": degraded }))
}

async fn metrics(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (content_type, text) = desk.office.metrics(accept);
    whole(StatusCode::OK, content_type, text)
}

#[derive(Deserialize)]
struct Last {
    #[serde(default)]
    last: usize,
}

async fn events(
    State(desk): State<Arc<Desk>>,
    last: Result<Query<Last>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(Last { last })) = last else {
        return Refused::bad("`last` is not a number", "write /events?last=20").into_response();
    };
    events::stream(&desk.office, last, request.extensions())
}

async fn purge(State(desk): State<Arc<Desk>>, Posted(order): Posted<PurgeOrder>) -> Response {
    // A task of its own: a caller who leaves must not leave a purge half done.
    let office = Arc::clone(&desk.office);
    match desk.office.proxy.tasks.spawn(async move { office.purge(&order).await }).await {
        Ok(Ok(done)) => told(StatusCode::OK, &done),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => {
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the purge failed within").hint("purge again, and see the log").into_response()
        }
    }
}

async fn explain(State(desk): State<Arc<Desk>>, Posted(question): Posted<Question>) -> Response {
    match desk.office.explain(&question).await {
        Ok(told_so) => told(StatusCode::OK, &told_so),
        Err(why) => {
            Refused::bad(why, "POST {\"method\":\"GET\",\"target\":\"/path\",\"headers\":[[\"x-tenant-id\",\"acme\"]]}").into_response()
        }
    }
}

/// Nothing is asked of a reload; an empty object is JSON, and so no page of another origin can send it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn reload(State(desk): State<Arc<Desk>>, Posted(Nothing {}): Posted<Nothing>) -> Response {
    let report = desk.office.reloader.reload_elsewhere().await;
    let code = if report.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    told(code, &report)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

async fn check(State(desk): State<Arc<Desk>>, Posted(Text { text }): Posted<Text>) -> Response {
    let report = desk.office.reloader.check(&text);
    let code = if report.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    told(code, &report)
}
