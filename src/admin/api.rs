//! The routes of the admin API and their handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT, ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::auth::{AccessDenied, AdminAuth};
use super::history::HistoryQuery;
use super::memory::MemoryQuery;
use super::modes::ModeRequest;
use super::peers::PeerBoard;
use super::readiness::Ready;
use super::reload::CheckedText;
use super::response::{ApiError, JsonBody, content, json_response, json_text};
use super::state::{AdminState, PurgeRequest};
use super::tail::TailQuery;
use super::{dashboard, events, history, memory, openapi, stats, tail, uncached};
use crate::policy::explain::ExplainRequest;

/// The largest request body: ample for a whole `proxy.toml`.
const MAX_BODY: usize = 1 << 20;

/// A valid body of `POST /explain`, for the hint.
const EXPLAIN_EXAMPLE: &str = "POST {\"method\":\"GET\",\"target\":\"/path\",\"headers\":\
                               [[\"x-tenant-id\",\"acme\"]]}";

/// All paths, as listed in a 404.
pub(super) const PATHS: [&str; 21] = [
    "/",
    "/live",
    "/ready",
    "/metrics",
    "/stats",
    "/history",
    "/routes",
    "/peers",
    "/purge",
    "/explain",
    "/events",
    "/tail",
    "/reload",
    "/check",
    "/mode",
    "/shadow",
    "/memory",
    "/uncached",
    "/learned",
    "/openapi.json",
    "/dashboard/{file}",
];

/// The state that the handlers share.
pub(super) struct ApiContext {
    pub(super) state: Arc<AdminState>,
    pub(super) auth: AdminAuth,
    pub(super) peers: Arc<PeerBoard>,
}

/// The whole API.
pub(super) fn router(context: Arc<ApiContext>) -> Router {
    Router::new()
        .route("/", get(async || dashboard::page()))
        .route("/dashboard/{file}", get(dashboard_file))
        .route("/live", get(async || content(StatusCode::OK, "text/plain; charset=utf-8", "live")))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/stats",
            get(async |State(context): State<Arc<ApiContext>>| {
                report(move || stats::stats(&context.state)).await
            }),
        )
        .route(
            "/routes",
            get(async |State(context): State<Arc<ApiContext>>| {
                json_response(
                    StatusCode::OK,
                    &stats::rules(&context.state.proxy.active_config().rules),
                )
            }),
        )
        .route(
            "/peers",
            get(async |State(context): State<Arc<ApiContext>>| match context.peers.peers().await {
                Some(peers) => json_response(StatusCode::OK, &peers),
                None => report_failed(),
            }),
        )
        .route(
            "/shadow",
            get(async |State(context): State<Arc<ApiContext>>| {
                report(move || context.state.shadow()).await
            }),
        )
        .route("/uncached", get(uncached_paths))
        .route("/learned", get(learned_rules))
        .route("/openapi.json", get(async || json_response(StatusCode::OK, &openapi::document())))
        .route("/memory", get(memory))
        .route("/events", get(events))
        .route("/history", get(traffic_history))
        .route("/mode", get(modes).post(order_mode))
        .route("/tail", get(live_tail))
        .route("/purge", post(purge))
        .route("/explain", post(explain))
        .route("/reload", post(reload))
        .route("/check", post(check))
        .fallback(async || not_found())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&context), require_access))
        .with_state(context)
}

/// Checks access before routing, so that strangers cannot probe which paths exist.
async fn require_access(
    State(context): State<Arc<ApiContext>>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(refusal) = context.auth.check(request.uri(), request.headers()) {
        return access_denied(refusal);
    }
    let is_probe = matches!(request.uri().path(), "/live" | "/ready");
    if !is_probe && !context.auth.is_authorized(request.headers()) {
        return access_denied(AccessDenied::Token);
    }
    next.run(request).await
}

fn access_denied(refusal: AccessDenied) -> Response {
    let mut refused = ApiError::new(refusal.status(), refusal.as_str());
    if let Some(hint) = refusal.hint() {
        refused = refused.hint(hint);
    }
    let mut response = refused.into_response();
    if refusal == AccessDenied::Token {
        // RFC 9110 11.6.1: a 401 names the schemes. Browsers prompt for Basic.
        for way in [
            "Bearer realm=\"sidecache\"",
            "Basic realm=\"sidecache: any name, the admin token as password\", charset=\"UTF-8\"",
        ] {
            response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(way));
        }
    }
    response
}

async fn dashboard_file(Path(name): Path<String>) -> Response {
    dashboard::file(&name).unwrap_or_else(not_found)
}

fn not_found() -> Response {
    json_response(StatusCode::NOT_FOUND, &json!({ "error": "unknown path", "pages": PATHS }))
}

/// The 405 response.
async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let allowed = match uri.path() {
        "/purge" | "/explain" | "/reload" | "/check" => "POST",
        "/mode" => "GET, HEAD, POST",
        _ => "GET, HEAD",
    };
    let refused = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path does not accept {method}"),
    )
    .hint(format!("use {allowed}"));
    let mut response = refused.into_response();
    // RFC 9110 15.5.6: a 405 lists the allowed methods.
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// What has no route.
async fn uncached_paths(State(context): State<Arc<ApiContext>>) -> Response {
    report(move || uncached::report(&context.state)).await
}

/// The rules that were learned.
async fn learned_rules(State(context): State<Arc<ApiContext>>) -> Response {
    report(move || uncached::learned::report(&context.state)).await
}

/// A report with suggestions. Trying a change on a long file takes a tenth of a second, so it has a
/// thread of its own: those of requests must not wait for it.
async fn report<R, F>(make: F) -> Response
where
    R: Serialize + Send + 'static,
    F: FnOnce() -> R + Send + 'static,
{
    match tokio::task::spawn_blocking(make).await {
        Ok(report) => json_response(StatusCode::OK, &report),
        Err(_) => report_failed(),
    }
}

fn report_failed() -> Response {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "the report failed with an internal error")
        .hint("see the log")
        .into_response()
}

/// SECURITY: probes send no token, so strangers may be asking. They learn the state, and not the
/// reasons, which name addresses and lines of the file.
async fn ready(State(context): State<Arc<ApiContext>>, headers: HeaderMap) -> Response {
    let mut ready = context.state.ready();
    let state = ready.state();
    if !context.auth.is_authorized(&headers) {
        ready.degraded.clear();
    }
    let Ready { degraded, .. } = &ready;
    let body = json!({ "status": state.as_str(), "reasons": degraded });
    json_response(state.http_status(), &body)
}

async fn metrics(State(context): State<Arc<ApiContext>>, headers: HeaderMap) -> Response {
    // Beside the threads that serve requests, as each report: there may be thousands of routes.
    let page = tokio::task::spawn_blocking(move || {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        context.state.metrics(accept)
    });
    match page.await {
        Ok((content_type, body)) => content(StatusCode::OK, content_type, body),
        Err(_) => report_failed(),
    }
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    last: usize,
}

async fn events(
    State(context): State<Arc<ApiContext>>,
    last: Result<Query<EventsQuery>, QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(EventsQuery { last })) = last else {
        return ApiError::bad_request("`last` must be a number", "write /events?last=20")
            .into_response();
    };
    events::stream(&context.state, last, request.extensions())
}

async fn traffic_history(
    State(context): State<Arc<ApiContext>>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Response {
    history::answer(&context.state, query.ok().as_deref())
}

async fn live_tail(
    State(context): State<Arc<ApiContext>>,
    query: Result<Query<TailQuery>, QueryRejection>,
    request: Request,
) -> Response {
    match query {
        Ok(Query(query)) => tail::stream(&context.state, &query, request.extensions()),
        Err(_) => ApiError::bad_request(
            "the query has an unknown name, or one twice",
            "its names are `route`, `disposition`, `path`, `reason`, `status` and `rate`",
        )
        .into_response(),
    }
}

async fn memory(
    State(context): State<Arc<ApiContext>>,
    query: Result<Query<MemoryQuery>, QueryRejection>,
) -> Response {
    let listed = match query {
        Ok(Query(query)) => memory::list(&context.state, &query).await,
        Err(rejection) => Err(ApiError::bad_request(
            rejection.body_text(),
            "write /memory?tag=TAG, with route, path, order, limit and after as needed",
        )),
    };
    listed.map_or_else(IntoResponse::into_response, |value| json_response(StatusCode::OK, &value))
}

async fn purge(
    State(context): State<Arc<ApiContext>>,
    JsonBody(purge): JsonBody<PurgeRequest>,
) -> Response {
    // Runs in its own task, so that a disconnecting caller does not cancel a purge halfway.
    let state = Arc::clone(&context.state);
    // A process that takes over waits for it, as for any write.
    let write = state.proxy.overlap.write();
    let purging = async move {
        let done = state.purge(&purge).await;
        drop(write);
        done
    };
    match context.state.proxy.tasks.spawn(purging).await {
        Ok(Ok(done)) => json_response(StatusCode::OK, &done),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the purge failed with an internal error",
        )
        .hint("repeat the purge, and see the log")
        .into_response(),
    }
}

async fn modes(State(context): State<Arc<ApiContext>>) -> Response {
    json_response(StatusCode::OK, &context.state.modes())
}

async fn order_mode(
    State(context): State<Arc<ApiContext>>,
    JsonBody(request): JsonBody<ModeRequest>,
) -> Response {
    // In a task of its own, so that the other sidecars are told although the caller leaves.
    let state = Arc::clone(&context.state);
    let ordering = async move { state.order_mode(&request).await };
    match context.state.proxy.tasks.spawn(ordering).await {
        Ok(Ok(done)) => json_response(StatusCode::OK, &done),
        Ok(Err(refused)) => refused.into_response(),
        Err(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the switch failed with an internal error",
        )
        .hint("see `GET /mode` and the log")
        .into_response(),
    }
}

async fn explain(
    State(context): State<Arc<ApiContext>>,
    JsonBody(question): JsonBody<ExplainRequest>,
) -> Response {
    match context.state.explain(&question).await {
        Ok(explanation) => json_response(StatusCode::OK, &explanation),
        Err(why) => ApiError::bad_request(why, EXPLAIN_EXAMPLE).into_response(),
    }
}

/// A reload takes no arguments. An empty JSON object is required nevertheless, because a page of
/// another origin cannot send JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

async fn reload(
    State(context): State<Arc<ApiContext>>,
    JsonBody(EmptyBody {}): JsonBody<EmptyBody>,
) -> Response {
    if context.state.reloader.status().file.is_none() {
        return ApiError::new(
            StatusCode::CONFLICT,
            "there is no file: this sidecar was started with --upstream",
        )
        .hint(
            "write one with `sidecache init` or `sidecache advise --file`, and start `sidecache` \
             with it",
        )
        .into_response();
    }
    let report = context.state.reloader.reload().await;
    let code = if report.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    json_text(code, report.json)
}

async fn check(
    State(context): State<Arc<ApiContext>>,
    JsonBody(text): JsonBody<CheckedText>,
) -> Response {
    let report = context.state.reloader.check(text).await;
    let code = if report.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    json_text(code, report.json)
}
