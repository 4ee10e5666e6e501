//! A CDN in front: it stores what the sidecar answers, by the tags that the answers name, and is
//! purged by its API.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Origin, RedisServer, Request, Response, Sidecar, eventually};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub const TOKEN: &str = "0123456789abcdef-token";

/// What the CDN has stored: by path, the body and the tags.
type StoredPages = Arc<Mutex<HashMap<String, (String, HashSet<String>)>>>;

/// A CDN of this kind, in front of a sidecar.
struct Cdn {
    kind: &'static str,
    stored: StoredPages,
    api: Origin,
}

impl Cdn {
    fn start(kind: &'static str) -> Self {
        let stored = StoredPages::default();
        let own = Arc::clone(&stored);
        let api =
            Origin::start(move |request| purge(kind, &mut own.lock().expect("a lock"), request));
        Self { kind, stored, api }
    }

    fn rules(&self) -> String {
        receiver(self.kind, self.api.address, "gather = \"1ms\"")
    }

    /// What somebody gets from the CDN.
    async fn get(&self, sidecar: &Sidecar, path: &str) -> String {
        if let Some((body, _)) = self.stored.lock().expect("a lock").get(path) {
            return body.clone();
        }
        let reply = Client::new(sidecar.address).get(path, &[]).await;
        let (name, separator) =
            if self.kind == "fastly" { ("surrogate-key", ' ') } else { ("cache-tag", ',') };
        let tags = reply.header(name).split(separator).map(str::to_owned).collect();
        let body = reply.text().to_owned();
        self.stored.lock().expect("a lock").insert(path.to_owned(), (body.clone(), tags));
        body
    }

    /// Returns when the CDN says this.
    async fn says(&self, sidecar: &Sidecar, path: &str, text: &str) {
        eventually(path, PATIENCE, || async { self.get(sidecar, path).await == text }).await;
    }
}

pub fn receiver(kind: &str, api: SocketAddr, lines: &str) -> String {
    let who = match kind {
        "cloudflare" => "zone = \"z0ne\"",
        _ => "service = \"SERV1\"",
    };
    format!(
        "[[notify]]\nkind = \"{kind}\"\n{who}\ntoken = \"{TOKEN}\"\nurl = \"http://{api}/v4/\"\n\
         {lines}\n"
    )
}

/// The tags that a request to an API purges; `None` for everything.
pub fn purged(kind: &str, request: &Request) -> Option<Vec<String>> {
    let body = request.json();
    let list = if kind == "cloudflare" {
        assert_eq!(request.line(), "POST /v4/zones/z0ne/purge_cache");
        assert_eq!(request.header("authorization"), Some(format!("Bearer {TOKEN}")));
        if body["purge_everything"] == true {
            return None;
        }
        &body["tags"]
    } else {
        assert_eq!(request.header("fastly-key").as_deref(), Some(TOKEN));
        if request.line() == "POST /v4/service/SERV1/purge_all" {
            return None;
        }
        assert_eq!(request.line(), "POST /v4/service/SERV1/purge");
        &body["surrogate_keys"]
    };
    let tags = list.as_array().expect("a list").iter().map(Value::as_str);
    Some(tags.map(|tag| tag.expect("a text").to_owned()).collect())
}

fn purge(
    kind: &str,
    stored: &mut HashMap<String, (String, HashSet<String>)>,
    request: &Request,
) -> Response {
    match purged(kind, request) {
        None => stored.clear(),
        Some(purged) => {
            assert!(purged.len() <= if kind == "fastly" { 256 } else { 100 });
            stored.retain(|_, (_, tags)| !purged.iter().any(|tag| tags.contains(tag)));
        }
    }
    Response::ok("{\"success\": true}")
}

/// An app with one number, which every PUT raises.
fn app() -> (Origin, Arc<AtomicI64>) {
    let number = Arc::new(AtomicI64::new(1));
    let own = Arc::clone(&number);
    let origin = Origin::start(move |request| match request.method.as_str() {
        "PUT" => Response::status(204, "").header("x-now", &own.fetch_add(1, SeqCst).to_string()),
        _ => Response::ok(own.load(SeqCst).to_string()),
    });
    (origin, number)
}

const ROUTES: &str = r#"
[fields]
other = { header = "x-other" }

[[routes]]
path = "/items/{id}"
ttl = "1h"
scope = "public"
tags = ["item:{id}"]

[[routes]]
path = "/about"
ttl = "1h"
scope = "public"
tags = ["pages"]

[[routes]]
path = "/mine"
ttl = "1h"
tags = ["mine"]

[[purges]]
path = "/items/{id}"
tags = ["item:{id}"]

[[purges]]
path = "/others/{*rest}"
tags = ["item:{other}", "pages"]

[purge_requests]
from = ["127.0.0.1"]
"#;

/// Whatever purges here, and however, purges there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1475_a_purge_empties_the_cdn_in_front() {
    for kind in ["cloudflare", "fastly"] {
        let ((origin, number), cdn) = (app(), Cdn::start(kind));
        let sidecar = Sidecar::start(origin.address, &format!("{}{ROUTES}", cdn.rules())).await;
        let mut client = Client::new(sidecar.address);
        let url = |path: &str| format!("http://app.test{path}");
        let admin = [
            json!({ "tags": ["item:7"] }),
            json!({ "urls": [url("/items/7")] }),
            json!({ "under": [url("/items/")] }),
            json!({ "tags": ["Item:7"], "soft": true }),
            json!({ "everything": true }),
        ];
        let steps = admin.len() + 3;
        for step in 0..steps {
            let now = number.load(SeqCst).to_string();
            cdn.says(&sidecar, "/items/7", &now).await;
            cdn.says(&sidecar, "/about", &now).await;
            let next = (number.fetch_add(1, SeqCst) + 1).to_string();
            assert_eq!(cdn.get(&sidecar, "/items/7").await, now, "it is stored");
            match step.checked_sub(admin.len()) {
                None => drop(sidecar.admin_ok("/purge", &admin[step]).await),
                Some(0) => {
                    assert_eq!(client.send("PUT", "/items/7", &[], "").await.status, 204);
                }
                Some(1) => {
                    let purge = [("cache-tags", "item:7")];
                    assert_eq!(client.send("PURGE", "/x", &purge, "").await.status, 200);
                }
                Some(_) => {
                    // A write whose field is missing purges the family.
                    assert_eq!(client.send("PUT", "/others/x", &[], "").await.status, 204);
                }
            }
            let next = next.max(number.load(SeqCst).to_string());
            cdn.says(&sidecar, "/items/7", &next).await;
            // What is not purged here is not purged there.
            let kept = !matches!(step, 4 | 7);
            assert_eq!(cdn.get(&sidecar, "/about").await == now, kept, "{kind} {step}");
            sidecar.admin_ok("/purge", &json!({ "tags": ["pages"] })).await;
            // What is told late would purge what the next step looks at.
            eventually("all is told", PATIENCE, || async {
                sidecar.stats().await["notify"][0]["waiting"] == json!(0)
            })
            .await;
        }
        let stats = sidecar.stats().await["notify"][0].clone();
        assert_eq!((&stats["kind"], &stats["failures"]), (&json!(kind), &json!(0)), "{stats}");
        assert_eq!(stats["everything"], json!(1), "{stats}");
        assert!(stats["tags"].as_u64() > Some(8) && stats["why"].is_null(), "{stats}");
    }
}

/// Responses name their tags for the CDN as hits and as misses, and none that are not for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1476_only_what_is_for_everybody_names_its_tags() {
    let ((origin, _), cdn) = (app(), Cdn::start("cloudflare"));
    let sidecar = Sidecar::start(origin.address, &format!("{}{ROUTES}", cdn.rules())).await;
    let mut client = Client::new(sidecar.address);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let reply = client.get("/items/7", &[]).await;
        let mut tags: Vec<String> =
            reply.header("cache-tag").split(',').map(str::to_owned).collect();
        tags.sort();
        assert!(tags.contains(&"item:7".to_owned()), "{tags:?}");
        assert!(tags.contains(&"family%20item:{}".to_owned()), "{tags:?}");
        assert!(tags.contains(&"uri:app.test/items/7".to_owned()), "{tags:?}");
        assert!(tags.contains(&"under%20app.test/items/".to_owned()), "{tags:?}");
        seen.push((reply.cache().to_owned(), tags));
    }
    assert_eq!((seen[0].0.as_str(), seen[1].0.as_str()), ("MISS", "HIT"));
    assert_eq!(seen[0].1, seen[1].1);
    for headers in [&[][..], &[("authorization", "Bearer alice-1")]] {
        for _ in 0..2 {
            let reply = client.get("/mine", headers).await;
            assert_eq!(reply.header("cache-tag"), "", "{}", reply.cache());
        }
    }
    // With a reload, what is stored gets another header.
    let rules = cdn.rules().replace("gather", "header = \"X-Tags\"\ngather");
    sidecar.rewrite(&format!("{rules}{ROUTES}"));
    sidecar.admin_ok("/reload", &json!({})).await;
    let reply = client.get("/items/7", &[]).await;
    assert_eq!((reply.cache(), reply.header("cache-tag")), ("HIT", ""));
    assert!(reply.header("x-tags").contains("item:7"));
}

/// A purge of the families of what the origin names reaches what a CDN got of a hit, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1485_a_hit_names_all_that_its_miss_has_named() {
    let origin = Origin::start(|_| {
        Response::ok("7").header("surrogate-key", "item:7 campaign:9 offer:3 plain")
    });
    let cdn = Cdn::start("cloudflare");
    let rules = format!("{}[tags]\nresponse_headers = [\"surrogate-key\"]\n", cdn.rules());
    let sidecar = Sidecar::start(origin.address, &format!("{rules}{ROUTES}")).await;
    let mut client = Client::new(sidecar.address);
    let mut seen = Vec::new();
    for cache in ["MISS", "HIT"] {
        let reply = client.get("/items/7", &[]).await;
        assert_eq!(reply.cache(), cache);
        let names = reply.header("cache-tag").split(',').map(str::to_owned);
        seen.push(names.collect::<HashSet<_>>());
    }
    assert!(seen[0].iter().any(|name| name.contains("campaign:") && name != "campaign:9"));
    assert_eq!(seen[0], seen[1]);
}

/// A response with more tags than its header has room for is purged there by every purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1477_no_purge_misses_a_response_with_too_many_tags() {
    let number = Arc::new(AtomicI64::new(1));
    let own = Arc::clone(&number);
    let many: Vec<String> = (0..40).map(|tag| format!("tag-{tag:04}")).collect();
    let many = many.join(" ");
    let origin = Origin::start(move |_| {
        Response::ok(own.load(SeqCst).to_string()).header("surrogate-key", &many)
    });
    let cdn = Cdn::start("fastly");
    let rules = cdn.rules().replace("gather", "header_size = \"256B\"\ngather");
    let sidecar = Sidecar::start(
        origin.address,
        &format!("{rules}[tags]\nresponse_headers = [\"surrogate-key\"]\n{ROUTES}"),
    )
    .await;
    for next in 2..5 {
        cdn.says(&sidecar, "/items/7", &(next - 1).to_string()).await;
        let tags = cdn.stored.lock().expect("a lock")["/items/7"].1.clone();
        assert_eq!(tags, HashSet::from(["sidecache-many-tags".to_owned()]));
        number.store(next, SeqCst);
        sidecar.admin_ok("/purge", &json!({ "tags": ["tag-0039"] })).await;
        cdn.says(&sidecar, "/items/7", &next.to_string()).await;
    }
}

/// What a sidecar says of an item, read without the runtime.
fn read_item(address: SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).expect("the sidecar listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let get = b"GET /items/7 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    socket.write_all(get).expect("it reads");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("it answers");
    text.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// A CDN that asks again at the moment of its purge gets the new response, through any sidecar.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1478_a_purge_is_told_when_no_sidecar_serves_what_it_purged() {
    let ((origin, number), redis) = (app(), RedisServer::start());
    let rules = format!("{}{ROUTES}", redis.table());
    let other = Sidecar::start(origin.address, &rules).await;
    let (address, read) = (other.address, Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&read);
    let api = Origin::start(move |request| {
        assert!(purged("cloudflare", request).is_some());
        // Other tasks of this thread go on elsewhere.
        let body = tokio::task::block_in_place(|| read_item(address));
        seen.lock().expect("a lock").push(body);
        Response::ok("{}")
    });
    let notify = receiver("cloudflare", api.address, "gather = \"0s\"");
    let one = Sidecar::start(origin.address, &format!("{notify}{rules}")).await;
    let warm = |sidecar: &Sidecar| {
        let address = sidecar.address;
        async move {
            eventually("a hit", PATIENCE, || async {
                Client::new(address).get("/items/7", &[]).await.cache() == "HIT"
            })
            .await;
        }
    };
    for round in 1..20 {
        warm(&one).await;
        warm(&other).await;
        let reply = Client::new(one.address).send("PUT", "/items/7", &[], "").await;
        assert_eq!(reply.status, 204);
        let expected = number.load(SeqCst).to_string();
        eventually("it is told", PATIENCE, || async {
            read.lock().expect("a lock").len() >= round
        })
        .await;
        assert_eq!(read.lock().expect("a lock").last(), Some(&expected), "{round}");
        // Only the sidecar that has seen the write tells of it.
        assert_eq!(api.total(), round);
    }
}
