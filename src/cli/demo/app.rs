//! A sample legacy app: a multi-tenant REST API over plain HTTP/1.1, with the delays of a slow
//! database.
//!
//! Owns its data (in memory, per tenant, with the same seed at every start) and its habits, good
//! and bad: it sends hardly any caching headers, or `no-cache, private` on everything, as its
//! framework does. It does not know about caches.

#[path = "app/data.rs"]
mod data;
#[path = "app/files.rs"]
mod files;
#[path = "app/live.rs"]
mod live;
#[path = "app/reply.rs"]
mod reply;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use data::{Collection, Data};
use live::Live;
use reply::{AppError, Reply, error, refused};

/// The largest JSON body that a write may have.
const MAX_JSON: usize = 64 * 1024;
/// How long requests in flight may take once the app is stopped.
const GRACE: Duration = Duration::from_secs(3);
/// The version of the shared reference data, which never changes.
const AREAS_ETAG: &str = "\"areas-1\"";

/// The settings of the app.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The factor for every delay of the database: 1.0 is the normal delay, 0.0 is none.
    pub latency: f64,
    /// Where requests are counted. Keep a clone of it to read the counts.
    pub stats: Stats,
}

impl Default for Settings {
    fn default() -> Self {
        Self { latency: 1.0, stats: Stats::default() }
    }
}

/// How many requests the app has received, by method and path. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Mutex<BTreeMap<(String, String), u64>>>);

impl Stats {
    /// The counts so far, by method and path without the query.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<(String, String), u64> {
        self.0.lock().clone()
    }

    fn count(&self, method: &Method, path: &str) {
        let mut counts = self.0.lock();
        *counts.entry((method.to_string(), path.to_owned())).or_default() += 1;
    }
}

/// Serves requests on `listener` until `shutdown` completes, then lets requests in flight finish
/// within a few seconds.
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: impl Future) {
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let app = Arc::new(App {
        settings,
        data: Mutex::new(Data::default()),
        files: files::Files::default(),
        live: Live::new(stop.clone(), tasks.clone()),
    });
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            _ = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    drop(tasks.spawn(connection(Arc::clone(&app), stream, stop.clone())));
                }
                // Most likely the process is out of descriptors; a connection will end soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    stop.cancel();
    tasks.close();
    // Connections that are still open are dropped when the runtime ends.
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

async fn connection(app: Arc<App>, stream: TcpStream, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The user and tenant of a request.
struct AppUser {
    tenant: String,
    user: String,
}

struct App {
    settings: Settings,
    data: Mutex<Data>,
    files: files::Files,
    live: Live,
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        self.settings.stats.count(request.method(), request.uri().path());
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        match segments.as_slice() {
            [""] if reading => reply::page(INDEX),
            ["healthz"] if reading => reply::text("ok\n"),
            ["ws"] if request.method() == Method::GET => self.live.websocket(request),
            ["files", name] if request.method() == Method::POST => {
                self.files.upload(name, request.into_body()).await
            }
            ["files", name] if reading => self.files.download(name, request.uri().query()),
            ["api", "v1", "property-areas"] if reading => {
                self.property_areas(request.headers()).await
            }
            ["api", "v1", rest @ ..] => match caller(request.headers()) {
                Ok(caller) => self.api(rest, &caller, request).await,
                Err(refusal) => refused(&refusal),
            },
            ["" | "healthz" | "ws" | "files", ..] => method_not_allowed("GET"),
            _ => error(StatusCode::NOT_FOUND, "there is nothing here; GET / lists what there is"),
        }
    }

    async fn api(&self, rest: &[&str], caller: &AppUser, request: Request<Incoming>) -> Reply {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        match rest {
            ["events"] if reading => self.live.events(&caller.tenant),
            ["dashboard"] if reading => self.dashboard(caller).await,
            ["events" | "dashboard" | "property-areas"] => method_not_allowed("GET, HEAD"),
            [collection] | [collection, _] => {
                let Some(kind) = Collection::named(collection) else {
                    return error(
                        StatusCode::NOT_FOUND,
                        "no such collection; there are campaigns and forms",
                    );
                };
                let id = match rest.get(1).map(|id| id.parse::<u64>()) {
                    None => None,
                    Some(Ok(id)) => Some(id),
                    Some(Err(_)) => return error(StatusCode::NOT_FOUND, "an id is a number"),
                };
                if reading {
                    self.read(kind, id, caller, request.uri().query()).await
                } else {
                    self.write(kind, id, caller, request).await
                }
            }
            _ => error(StatusCode::NOT_FOUND, "there is nothing here; GET / lists what there is"),
        }
    }

    async fn read(
        &self,
        kind: Collection,
        id: Option<u64>,
        caller: &AppUser,
        query: Option<&str>,
    ) -> Reply {
        let page = match page_of(query) {
            Ok(page) => page,
            Err(refusal) => return refused(&refusal),
        };
        self.pause(match (kind, id) {
            (Collection::Campaigns, None) => 600,
            (Collection::Campaigns, Some(_)) => 250,
            (Collection::Forms, _) => 400,
        })
        .await;
        // Read after the delay, so that the response shows the state at the moment it leaves the
        // database.
        let found = self.with_data(|data| {
            let rows = data.rows(&caller.tenant, kind);
            match id {
                Some(id) => rows.one(id),
                None => Some(rows.page(page.0, page.1)),
            }
        });
        found.map_or_else(
            || error(StatusCode::NOT_FOUND, "no such id"),
            |value| reply::json(StatusCode::OK, &value),
        )
    }

    async fn write(
        &self,
        kind: Collection,
        id: Option<u64>,
        caller: &AppUser,
        request: Request<Incoming>,
    ) -> Reply {
        let (parts, body) = request.into_parts();
        let fields = match (&parts.method, id) {
            (&Method::POST, None) | (&Method::PUT | &Method::PATCH, Some(_)) => {
                match object(body).await {
                    Ok(fields) => fields,
                    Err(refusal) => return refused(&refusal),
                }
            }
            (&Method::DELETE, Some(_)) => Map::new(),
            (_, None) => return method_not_allowed("GET, HEAD, POST"),
            (_, Some(_)) => return method_not_allowed("GET, HEAD, PUT, PATCH, DELETE"),
        };
        self.pause(60).await;
        let written = self.with_data(|data| {
            let rows = data.rows_mut(&caller.tenant, kind);
            match (&parts.method, id) {
                (&Method::POST, _) => rows.create(fields, &caller.user),
                (&Method::PUT, Some(id)) => rows.replace(id, fields, &caller.user),
                (&Method::PATCH, Some(id)) => rows.patch(id, fields, &caller.user),
                (_, id) => id.and_then(|id| rows.delete(id)),
            }
        });
        let Some((id, row)) = written else {
            return error(StatusCode::NOT_FOUND, "no such id, or no room for another");
        };
        self.live.wrote(
            &caller.tenant,
            &json!({ "method": parts.method.as_str(), "collection": kind.as_str(), "id": id }),
        );
        match parts.method {
            Method::POST => {
                let mut created = reply::json(StatusCode::CREATED, &row);
                if let Ok(location) =
                    HeaderValue::try_from(format!("/api/v1/{}/{id}", kind.as_str()))
                {
                    created.headers_mut().insert(LOCATION, location);
                }
                created
            }
            Method::DELETE => reply::empty(StatusCode::NO_CONTENT),
            _ => reply::json(StatusCode::OK, &row),
        }
    }

    /// The data of the product's start page: a little of everything, counted again for each
    /// request.
    async fn dashboard(&self, caller: &AppUser) -> Reply {
        self.pause(850).await;
        let value = self.with_data(|data| data.dashboard(&caller.tenant, &caller.user));
        let mut reply = reply::json(StatusCode::OK, &value);
        // The framework sends this with everything that a logged-in user sees.
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        reply
    }

    /// Reference data, the same for everyone. It needs no login.
    async fn property_areas(&self, headers: &HeaderMap) -> Reply {
        self.pause(500).await;
        let known =
            headers.get(IF_NONE_MATCH).is_some_and(|etag| etag.as_bytes() == AREAS_ETAG.as_bytes());
        let mut reply = if known {
            reply::empty(StatusCode::NOT_MODIFIED)
        } else {
            reply::json(StatusCode::OK, &data::areas())
        };
        reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        reply.headers_mut().insert(ETAG, HeaderValue::from_static(AREAS_ETAG));
        reply
    }

    async fn pause(&self, millis: u64) {
        if self.settings.latency > 0.0 {
            tokio::time::sleep(Duration::from_millis(millis).mul_f64(self.settings.latency)).await;
        }
    }

    fn with_data<T>(&self, work: impl FnOnce(&mut Data) -> T) -> T {
        work(&mut self.data.lock())
    }
}

/// The tenant is named by a header, the user by a bearer token: `Bearer alice-…` is alice. A token
/// that begins with `bad` is refused.
fn caller(headers: &HeaderMap) -> Result<AppUser, AppError> {
    let tenant =
        headers.get("x-tenant-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if tenant.is_empty()
        || tenant.len() > 64
        || !tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(AppError(StatusCode::BAD_REQUEST, "say which tenant: X-Tenant-Id: acme"));
    }
    let credential =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = credential.strip_prefix("Bearer ").unwrap_or_default();
    if token.is_empty() || token.starts_with("bad") {
        return Err(AppError(
            StatusCode::UNAUTHORIZED,
            "say who you are: Authorization: Bearer alice-0001",
        ));
    }
    let user = token.split('-').next().unwrap_or(token);
    Ok(AppUser { tenant: tenant.to_owned(), user: user.to_owned() })
}

/// `page` (from 1) and `limit` (1 to 100) of a query.
fn page_of(query: Option<&str>) -> Result<(usize, usize), AppError> {
    let (mut page, mut limit) = (1, 20);
    for (name, value) in
        query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
    {
        match (name, value.parse::<usize>()) {
            ("page", Ok(number @ 1..=1_000_000)) => page = number,
            ("limit", Ok(number @ 1..=100)) => limit = number,
            ("page" | "limit", _) => {
                return Err(AppError(
                    StatusCode::BAD_REQUEST,
                    "page counts from 1, limit is 1 to 100",
                ));
            }
            _ => {}
        }
    }
    Ok((page, limit))
}

async fn object(body: Incoming) -> Result<Map<String, Value>, AppError> {
    let bytes = match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => {
            return Err(AppError(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a body of more than 64 KiB, or one that broke off",
            ));
        }
    };
    serde_json::from_slice(&bytes)
        .map_err(|_| AppError(StatusCode::BAD_REQUEST, "the body is no JSON object"))
}

fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

const INDEX: &str = "<!doctype html><title>Sample legacy app</title><h1>Sample legacy app</h1><pre>
With X-Tenant-Id and Authorization: Bearer alice-0001:
  GET                      /api/v1/campaigns?page=1&limit=20
  POST                     /api/v1/campaigns
  GET, PUT, PATCH, DELETE  /api/v1/campaigns/1
  the same under           /api/v1/forms
  GET                      /api/v1/dashboard
  GET                      /api/v1/events           server-sent events
For everybody:
  GET                      /api/v1/property-areas
  GET (WebSocket)          /ws                      echo
  POST                     /files/NAME              answers its size and SHA-256
  GET                      /files/NAME?size=BYTES   made-up bytes, the same each time
  GET                      /healthz
</pre>
";
