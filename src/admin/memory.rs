//! `/memory`: what this process's memory tier holds, entry by entry, in bounded lists.
//!
//! SECURITY: whoever reads this sees requests of others. An entry is shown without its body and its
//! headers, by what an access log has of a request: no values of queries, headers or fields, and of
//! a caller the eight digits that `explain` shows. Redis is never listed.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::response::ApiError;
use super::state::{AdminState, MAX_SCANS, tags_of_url};
use crate::cache::store::scan::{
    EntryState, ListedEntry, MAX_LISTED, MemoryScan, ScanFilter, ScanOrder, ScanPlace, ScanRequest,
    ScanResult,
};
use crate::clock::Wall;
use crate::policy::apps::Apps;
use crate::policy::glob::Glob;
use crate::policy::key::view::KeyView;
use crate::policy::key::{KeyHash, primary_hash, route_of};

use crate::policy::request_target;
use crate::policy::route::{Route, Routes};
use crate::policy::tag::Tag;
use crate::telemetry::log::printable;

/// How long a scan may take. What it has found by then is shown.
const SCAN_TIME: Duration = Duration::from_secs(5);

/// How many entries are listed where the request does not say.
const DEFAULT_LISTED: usize = 100;

/// How many entries are prepared for the response before others may go on.
const SHOWN_SLICE: usize = 32;

/// The longest text of a host or a path that is shown, in bytes.
const MAX_SHOWN: usize = 512;

/// How many tags of an entry, and how many names of each kind, are shown.
const MAX_NAMES: usize = 16;

/// The longest text that a request may be about, in bytes.
const MAX_ASKED: usize = 1024;

/// The query of `GET /memory`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryQuery {
    tag: Option<String>,
    route: Option<String>,
    path: Option<String>,
    order: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// An entry, as it is shown.
#[derive(Debug, Serialize)]
struct ShownEntry {
    key: String,
    variant: Option<String>,
    method: String,
    host: String,
    path: String,
    query: Vec<String>,
    url: Option<String>,
    route: Option<String>,
    scope: Option<&'static str>,
    credential: Option<String>,
    fields: Vec<String>,
    headers: Vec<String>,
    varies_by: Vec<String>,
    tier: &'static str,
    status: u16,
    state: &'static str,
    age_s: f64,
    ttl_s: f64,
    bytes: u64,
    body_bytes: usize,
    hits: u64,
    tags: Vec<String>,
    more_tags: usize,
}

/// The list that a query asks for.
pub(super) async fn list(state: &AdminState, query: &MemoryQuery) -> Result<Value, ApiError> {
    let (proxy, live) = (&state.proxy, state.proxy.active_config());
    let request = requested(query, &live.rules.routes)?;
    let counters = &proxy.store.counters.scans;
    let Ok(_permit) = state.scans.try_acquire() else {
        counters.refused.inc();
        let error = format!("{MAX_SCANS} scans of the memory are running");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error)
            .hint(format!("each takes {} s at most; try again", SCAN_TIME.as_secs())));
    };
    let began = proxy.clock.now();
    let (filter, order) = (request.filter.clone(), request.order);
    let mut scan = MemoryScan::new(&proxy.store, request);
    let mut is_complete = true;
    loop {
        let now = proxy.clock.now();
        if !scan.step(proxy.clock.wall(), now) {
            break;
        }
        if now.saturating_duration_since(began) >= SCAN_TIME {
            counters.cut_short.inc();
            is_complete = false;
            break;
        }
        // Requests go first.
        tokio::task::yield_now().await;
    }
    let ScanResult { places, totals, looked_at, next } = scan.finish();
    let mut entries = Vec::with_capacity(places.len());
    for (at, place) in places.iter().enumerate() {
        if at % SHOWN_SLICE == SHOWN_SLICE - 1 {
            tokio::task::yield_now().await;
        }
        let (wall, now) = (proxy.clock.wall(), proxy.clock.now());
        if let Some(listed) = proxy.store.listed(*place, &filter, wall, now) {
            entries.push(show(&listed, &live.rules.routes, wall));
        }
    }
    let took = proxy.clock.now().saturating_duration_since(began);
    let states: Map<String, Value> = EntryState::ALL
        .iter()
        .zip(totals.states)
        .map(|(state, count)| (state.as_str().to_owned(), json!(count)))
        .collect();
    Ok(json!({
        "entries": entries,
        "matched": { "entries": totals.entries, "bytes": totals.bytes, "states": states },
        "order": order.as_str(),
        "next": next.map(|place| format!("{}-{place}", order.as_str())),
        "looked_at": looked_at,
        "complete": is_complete,
        "took_ms": took.as_secs_f64() * 1e3,
    }))
}

/// What a query asks for.
fn requested(query: &MemoryQuery, routes: &Routes) -> Result<ScanRequest, ApiError> {
    let MemoryQuery { tag, route, path, order, limit, after } = query;
    for (name, text) in [("tag", tag), ("route", route), ("path", path)] {
        let Some(text) = text else { continue };
        if text.is_empty() || text.len() > MAX_ASKED {
            let error = format!("`{name}` has {} bytes", text.len());
            return Err(ApiError::bad_request(error, format!("1 to {MAX_ASKED} are allowed")));
        }
    }
    let order = order.as_deref().map_or(Ok(ScanOrder::default()), |name| {
        let known = ScanOrder::ALL.into_iter().find(|order| order.as_str() == name);
        known.ok_or_else(|| {
            let names = ScanOrder::ALL.map(ScanOrder::as_str).join(", ");
            ApiError::bad_request("there is no such `order`", format!("one of: {names}"))
        })
    })?;
    let limit = limit.unwrap_or(DEFAULT_LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        let hint = format!("1 to {MAX_LISTED} are allowed; `after` leads to the others");
        return Err(ApiError::bad_request(format!("`limit` is {limit}"), hint));
    }
    let after = after.as_deref().map(|text| place(order, text)).transpose()?;
    let stored_by = route.as_deref().map(|name| fingerprints(routes, name)).transpose()?;
    let filter = ScanFilter {
        tag: tag.as_deref().map(Tag::new),
        routes: stored_by,
        // As it stands in a key.
        path: path.as_deref().map(|path| Glob::new(&request_target::escaped_path(path))),
    };
    Ok(ScanRequest { filter, order, limit, after })
}

fn place(order: ScanOrder, text: &str) -> Result<ScanPlace, ApiError> {
    let place = text.strip_prefix(order.as_str()).and_then(|rest| rest.strip_prefix('-'));
    place.and_then(|place| place.parse().ok()).ok_or_else(|| {
        let hint = "it is `next` of the list before, for the same `order`";
        ApiError::bad_request("`after` does not name a place in this order", hint)
    })
}

/// The fingerprints of the routes of this name.
fn fingerprints(routes: &Routes, name: &str) -> Result<Box<[[u8; 8]]>, ApiError> {
    let named = routes.iter().filter(|route| route.name() == name);
    let policies = named.flat_map(Route::policies);
    let found: Box<[[u8; 8]]> = policies.map(|route| route.fingerprint).collect();
    if found.is_empty() {
        let hint = "its `path` as in the file; `GET /routes` lists all of them";
        return Err(ApiError::bad_request("the rules in force have no such route", hint));
    }
    Ok(found)
}

fn show(listed: &ListedEntry, routes: &Routes, wall: Wall) -> ShownEntry {
    let ListedEntry { cached, state, ttl_ms, bytes } = listed;
    let entry = &cached.entry;
    let view = KeyView::of(&entry.key).unwrap_or_default();
    let of = |own| routes.iter().flat_map(Route::policies).find(|route| route.fingerprint == own);
    let route = route_of(&entry.key).and_then(of);
    let scope = route.map(|route| route.spec.scope.as_str());
    let (primary, whole) = (primary_hash(&entry.key), KeyHash::from_canonical(&entry.key));
    // What the sidecar adds is of no use to an operator, and names callers.
    let tags: Vec<&Tag> = cached.proof.tags().filter(|tag| !tag.is_auxiliary()).collect();
    #[allow(clippy::cast_precision_loss, reason = "seconds for people to read")]
    let ttl_s = *ttl_ms as f64 / 1e3;
    ShownEntry {
        key: primary.to_hex(),
        variant: (primary != whole).then(|| whole.to_hex()),
        method: text(if view.method.is_empty() { "GET" } else { view.method }),
        host: text(view.host),
        path: text(view.path),
        query: view.parameters.iter().map(|name| text(name)).collect(),
        url: url_of(&view, &tags),
        route: route.map(|route| route.name().to_owned()),
        scope: scope.or_else(|| view.is_private.then_some("private")),
        fields: names(&view.fields),
        headers: names(&view.headers),
        varies_by: names(&view.vary),
        credential: view.credential,
        tier: "memory",
        status: entry.status.as_u16(),
        state: state.as_str(),
        age_s: entry.times.age(wall).as_secs_f64(),
        ttl_s,
        bytes: *bytes,
        body_bytes: entry.body.len(),
        hits: cached.hits(),
        more_tags: tags.len().saturating_sub(MAX_NAMES),
        tags: tags.iter().take(MAX_NAMES).map(|tag| text(tag.shown())).collect(),
    }
}

/// SECURITY: hosts, paths and tags are what strangers sent.
fn text(shown: &str) -> String {
    printable(shown, MAX_SHOWN).into_owned()
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().take(MAX_NAMES).map(|name| text(name)).collect()
}

/// The URL by which this entry can be purged, if there is one that can be shown.
fn url_of(view: &KeyView<'_>, tags: &[&Tag]) -> Option<String> {
    let url = format!("http://{}{}", view.host, view.path.replace('*', "%2A"));
    let is_whole = url.len() <= MAX_SHOWN && text(&url) == url;
    let purges = || {
        tags_of_url(&url, &Apps::default())
            .is_ok_and(|own| own.iter().any(|tag| tags.contains(&tag)))
    };
    (is_whole && purges()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &MemoryQuery) -> ApiError {
        requested(query, &Routes::default()).expect_err("it is refused")
    }

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let some = |text: &str| Some(text.to_owned());
        let plain = requested(&MemoryQuery::default(), &Routes::default()).expect("no query");
        assert_eq!((plain.limit, plain.order), (DEFAULT_LISTED, ScanOrder::Hottest));
        for query in [
            MemoryQuery { order: some("Hottest"), ..MemoryQuery::default() },
            MemoryQuery { limit: Some(0), ..MemoryQuery::default() },
            MemoryQuery { limit: Some(MAX_LISTED + 1), ..MemoryQuery::default() },
            MemoryQuery { tag: some(""), ..MemoryQuery::default() },
            MemoryQuery { path: some(&"x".repeat(MAX_ASKED + 1)), ..MemoryQuery::default() },
            MemoryQuery { route: some("/nowhere"), ..MemoryQuery::default() },
            MemoryQuery { after: some("x"), ..MemoryQuery::default() },
            MemoryQuery {
                after: Some(format!("newest-1-{}", "0".repeat(32))),
                ..MemoryQuery::default()
            },
        ] {
            let _ = refused(&query);
        }
        let after = Some(format!("hottest-1-{}", "0".repeat(32)));
        let query = MemoryQuery { after, limit: Some(MAX_LISTED), ..MemoryQuery::default() };
        assert!(requested(&query, &Routes::default()).is_ok());
    }

    #[test]
    fn a_url_is_told_only_where_it_purges_the_entry() {
        let url = |host: &str, path: &str, of: (&str, &str)| {
            let tag = Tag::for_uri(of.0, of.1);
            let view = KeyView { host, path, ..KeyView::default() };
            url_of(&view, &[&tag])
        };
        let same = |host, path| url(host, path, (host, path));
        assert_eq!(same("app:81", "/a/%C3%BC").as_deref(), Some("http://app:81/a/%C3%BC"));
        assert_eq!(same("app", "/a/*").as_deref(), Some("http://app/a/%2A"));
        assert_eq!(url("app", "/a", ("app", "/b")), None);
        let long = format!("/{}", "x".repeat(MAX_SHOWN));
        for (host, path) in [("", "/a"), ("a b", "/a"), ("app\u{202e}", "/a"), ("app", &long)] {
            assert_eq!(same(host, path), None, "{host} {path}");
        }
    }
}
