//! A hit is answered before its request has a future, and by the flow where its target is in
//! absolute form. Both answers are one: whatever headers come together, on every kind of route.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use hyper::header::HeaderValue;
use serde_json::json;

use super::sessions::{SECRET, now, signed};
use crate::support::{Reply, Request, Response, Scene, WireClient};

const RULES: &str = r#"
[fields]
site = { host = true }
lang = { header = "x-lang" }
user = { cookie = "session", format = "flask", secret = "the-secret-key-of-the-app", max_age = "31d" }

[[routes]]
path  = "/public/{id}"
ttl   = "5m"
scope = "public"

[[routes]]
path = "/private/{id}"
ttl  = "5m"

[[routes]]
path  = "/shared/{id}"
ttl   = "5m"
scope = "shared"
key   = ["site", "lang?"]

[[routes]]
path = "/session/{id}"
ttl  = "5m"
key  = ["user"]
strip_set_cookie = ["session"]

[[routes]]
path = "/guests/{id}"
ttl  = "5m"
signed_in = { cookie = "member" }

[[routes]]
path = "/shadow/{id}"
ttl  = "5m"
mode = "shadow"
"#;

const PATHS: [&str; 8] = [
    "/public/1",
    "/public/vary",
    "/private/1",
    "/shared/1",
    "/session/1",
    "/guests/1",
    "/shadow/1",
    "/elsewhere",
];

/// Headers that decide what becomes of a request.
const HEADERS: [(&str, &str); 17] = [
    ("if-none-match", "\"v1\""),
    ("if-none-match", "\"other\""),
    ("if-modified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ("range", "bytes=0-3"),
    ("range", "bytes=900-"),
    ("if-range", "\"v1\""),
    ("cache-control", "no-cache"),
    ("cache-control", "only-if-cached"),
    ("cache-control", "max-age=60"),
    ("accept-encoding", "gzip"),
    ("save-data", "on"),
    ("x-lang", "de"),
    ("x-unknown", "1"),
    ("authorization", "Bearer one"),
    ("cookie", "member=1"),
    ("cookie", "_ga=1; theme=dark"),
    ("x-forwarded-for", "192.0.2.1"),
];

fn app(request: &Request) -> Response {
    let answered = Response::ok(format!("{} as it is", request.path))
        .header("etag", "\"v1\"")
        .header("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT");
    match request.path.as_str() {
        "/public/vary" => answered.header("vary", "save-data"),
        _ => answered,
    }
}

/// The headers, without what a moment changes.
fn timeless(reply: &Reply) -> Vec<(String, String)> {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut all: Vec<(String, String)> = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "age" | "date"))
        .map(|(name, value)| (name.to_string(), shown(value)))
        .collect();
    for (_, value) in &mut all {
        if let Some(at) = value.find("; ttl=") {
            let rest = value[at + 6..].find(';').map_or(value.len(), |end| at + 6 + end);
            value.replace_range(at..rest, "");
        }
    }
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_at_once_is_that_of_the_flow() {
    let scene = Scene::start(RULES, app).await;
    let address = scene.sidecar.address;
    let mut client = WireClient::new(address, Ipv4Addr::LOCALHOST);
    let session = format!("session={}", signed(SECRET, &json!({ "_user_id": "ann" }), now() - 60));
    let mut hits = 0;
    for path in PATHS {
        for method in ["GET", "HEAD"] {
            for one in 0..HEADERS.len() {
                for other in one..HEADERS.len() {
                    let mut lines = format!("Host: {address}\r\n");
                    let chosen = if one == other { vec![one] } else { vec![one, other] };
                    for at in chosen {
                        let _ = write!(lines, "{}: {}\r\n", HEADERS[at].0, HEADERS[at].1);
                    }
                    if path.starts_with("/session/") {
                        let _ = write!(lines, "Cookie: {session}\r\n");
                    }
                    let whole = format!("{method} http://{address}{path} HTTP/1.1\r\n{lines}\r\n");
                    let short = format!("{method} {path} HTTP/1.1\r\n{lines}\r\n");
                    // Twice, until what may be stored is stored, and whoever may be admitted is.
                    for _ in 0..2 {
                        client.one(whole.as_bytes()).await;
                    }
                    let by_flow = client.one(whole.as_bytes()).await;
                    let at_once = client.one(short.as_bytes()).await;
                    hits += u32::from(at_once.cache() == "HIT");
                    assert_eq!(at_once.status, by_flow.status, "{short}");
                    assert_eq!(timeless(&at_once), timeless(&by_flow), "{short}");
                    assert_eq!(at_once.body, by_flow.body, "{short}");
                }
            }
        }
    }
    assert!(hits > 500, "{hits} hits");
}
