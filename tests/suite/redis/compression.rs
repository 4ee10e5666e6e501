//! `compress` of `[redis]` on a real Redis: clients get what the app sent, whichever sidecar stored
//! it and whichever reads it.
//!
//! Memory is off where a hit is to come from Redis.

use std::time::Duration;

use crate::support::{Client, Origin, RedisServer, Reply, Request, Response, Sidecar};
use crate::support::{eventually, metric};

const NO_MEMORY: &str = "[memory]\nsize = \"0\"\n";
const ZSTD: &str = "compress = \"zstd\"\n";
const ROUTE: &str = "[[routes]]\npath = \"/{name}\"\nttl = \"10m\"\nscope = \"public\"\ntags = \
    [\"t:{name}\"]\n";

/// A list of JSON of so many members, each of about 50 bytes.
fn list(members: usize) -> String {
    let members: Vec<String> = (0..members)
        .map(|id| format!("{{\"id\":{id},\"name\":\"member {id}\",\"tags\":[\"a\",\"b\"]}}"))
        .collect();
    format!("[{}]", members.join(","))
}

/// `/short` is a page, `/long` and `/tiny` are lists, `/picture` is no text.
fn app() -> Origin {
    Origin::start(|request: &Request| {
        let name = request.path.trim_start_matches('/');
        let (kind, body) = match name {
            "short" => ("text/html; charset=utf-8", "<p>a page</p>".repeat(300)),
            "picture" => ("image/png", "not a picture".repeat(300)),
            "tiny" => ("application/json", list(3)),
            _ => ("application/json", list(5_000)),
        };
        Response::ok(body).header("content-type", kind).header("etag", "\"1\"")
    })
}

/// A sidecar that uses this Redis.
async fn sidecar(app: &Origin, redis: &RedisServer, compress: &str, memory: &str) -> Sidecar {
    let rules = format!("{}{compress}{memory}{ROUTE}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("Redis is in use", Duration::from_secs(10), || async {
        metric(sidecar.admin, "sidecache_redis_up").await == 1
    })
    .await;
    sidecar
}

/// Fills one path through a sidecar, and returns once it is a hit there.
async fn fill(sidecar: &Sidecar, path: &str) -> Reply {
    let reply = Client::new(sidecar.address).get(path, &[]).await;
    eventually("it is stored", Duration::from_secs(10), || async {
        Client::new(sidecar.address).get(path, &[]).await.cache() == "HIT"
    })
    .await;
    reply
}

async fn hit(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Reply {
    let reply = Client::new(sidecar.address).get(path, headers).await;
    assert_eq!(reply.cache(), "HIT", "{path}: {}", reply.cache_status());
    reply
}

/// How many bytes the entries in Redis have.
fn entries(redis: &RedisServer) -> u64 {
    let keys = redis.command("KEYS *:e:*").expect("Redis answers");
    let length = |key: &str| {
        let answer = redis.command(&format!("STRLEN {key}")).expect("Redis answers");
        answer.trim_start_matches(':').trim().parse::<u64>().expect("a number")
    };
    keys.lines().filter(|line| line.contains(":e:")).map(length).sum()
}

async fn bodies(sidecar: &Sidecar, form: &str) -> u64 {
    let series = format!("sidecache_redis_bodies_stored_total{{form=\"{form}\"}}");
    metric(sidecar.admin, &series).await
}

/// What is compressed in Redis is served as the app sent it: whole, in parts, to HEAD and to
/// conditions, through the sidecar that stored it and another that has just started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1352_clients_get_what_the_app_sent() {
    let (app, redis) = (app(), RedisServer::start());
    let first = sidecar(&app, &redis, ZSTD, NO_MEMORY).await;
    let mut sent = Vec::new();
    for path in ["/short", "/long", "/picture", "/tiny"] {
        let reply = fill(&first, path).await;
        sent.push((path, reply, app.seen(path).len()));
    }
    for (form, least) in [("compressed", 2), ("small", 1), ("type", 1)] {
        assert!(bodies(&first, form).await >= least, "{form}");
    }
    assert_eq!(bodies(&first, "off").await, 0);
    let second = sidecar(&app, &redis, ZSTD, "").await;
    for (path, sent, asked) in &sent {
        for sidecar in [&first, &second] {
            let whole = hit(sidecar, path, &[]).await;
            assert_eq!((whole.status, &whole.body), (200, &sent.body), "{path}");
            for name in ["content-type", "content-length", "etag"] {
                assert_eq!(whole.header(name), sent.header(name), "{path} {name}");
            }
            let part = hit(sidecar, path, &[("range", "bytes=10-19")]).await;
            assert_eq!((part.status, &part.body[..]), (206, &sent.body[10..20]), "{path}");
            let unchanged = hit(sidecar, path, &[("if-none-match", "\"1\"")]).await;
            assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{path}");
            let head = Client::new(sidecar.address).send("HEAD", path, &[], "").await;
            assert_eq!((head.cache(), head.body.len()), ("HIT", 0), "{path}");
            assert_eq!(head.header("content-length"), sent.header("content-length"), "{path}");
        }
        assert_eq!(app.seen(path).len(), *asked, "{path}: the app is not asked again");
    }
    assert!(metric(second.admin, "sidecache_redis_bodies_decompressed_total").await >= 2);
    assert_eq!(metric(second.admin, "sidecache_redis_decode_errors_total").await, 0);
}

/// Sidecars with and without `compress` share their entries, and neither needs a purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1353_sidecars_with_and_without_compression_share_entries() {
    let (app, redis) = (app(), RedisServer::start());
    let with = sidecar(&app, &redis, "compress = { level = 1 }\n", NO_MEMORY).await;
    let without = sidecar(&app, &redis, "", NO_MEMORY).await;
    let compressed = fill(&with, "/long").await;
    let plain = fill(&without, "/short").await;
    assert!(bodies(&with, "compressed").await > 0 && bodies(&with, "off").await == 0);
    assert!(bodies(&without, "off").await > 0 && bodies(&without, "compressed").await == 0);
    for sidecar in [&with, &without] {
        assert_eq!(hit(sidecar, "/long", &[]).await.body, compressed.body);
        assert_eq!(hit(sidecar, "/short", &[]).await.body, plain.body);
        assert_eq!(metric(sidecar.admin, "sidecache_redis_decode_errors_total").await, 0);
    }
    without.admin_ok("/purge", &serde_json::json!({ "tags": ["t:long"] })).await;
    assert_eq!(Client::new(with.address).get("/long", &[]).await.cache(), "MISS");
}

/// Redis holds fewer bytes, and as many as the metrics say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1354_redis_holds_fewer_bytes() {
    let app = app();
    let mut held = Vec::new();
    for compress in ["", ZSTD] {
        let redis = RedisServer::start();
        let sidecar = sidecar(&app, &redis, compress, NO_MEMORY).await;
        let original = fill(&sidecar, "/long").await.body.len() as u64;
        let of = async |name: &str| metric(sidecar.admin, name).await;
        // Whoever asks before it is stored has it stored once more.
        let times = of("sidecache_redis_bodies_original_bytes_total").await / original;
        let stored = of("sidecache_redis_bodies_stored_bytes_total").await / times;
        let meta = entries(&redis) - stored;
        assert!(meta < 1024, "{meta} bytes beside the body");
        held.push(stored);
    }
    assert!(held[1] < held[0] / 4, "{held:?}");
}

/// What somebody else has put in place of an entry is a miss: a frame that is broken, and one
/// that would become longer than `limits.object`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1355_broken_and_planted_frames_are_misses() {
    let (app, redis) = (app(), RedisServer::start());
    let writer = sidecar(&app, &redis, ZSTD, NO_MEMORY).await;
    let limits = format!("{NO_MEMORY}[limits]\nobject = \"100KiB\"\n");
    let reader = sidecar(&app, &redis, ZSTD, &limits).await;
    let sent = fill(&writer, "/long").await;
    let reply = Client::new(reader.address).get("/long", &[]).await;
    assert_eq!((reply.cache(), &reply.body), ("MISS", &sent.body), "too long for this one");
    assert_eq!(metric(reader.admin, "sidecache_redis_decompress_errors_total").await, 1);

    let keys = redis.command("KEYS *:e:*").expect("Redis answers");
    let key = keys.lines().find(|line| line.contains(":e:")).expect("an entry");
    redis.command(&format!("SETRANGE {key} 2000 broken")).expect("Redis answers");
    let reply = Client::new(writer.address).get("/long", &[]).await;
    assert_eq!((reply.cache(), &reply.body), ("MISS", &sent.body), "broken");
    assert_eq!(metric(writer.admin, "sidecache_redis_decode_errors_total").await, 1);
    assert_eq!(hit_again(&writer, "/long").await.body, sent.body);
}

async fn hit_again(sidecar: &Sidecar, path: &str) -> Reply {
    eventually("it is stored again", Duration::from_secs(10), || async {
        Client::new(sidecar.address).get(path, &[]).await.cache() == "HIT"
    })
    .await;
    hit(sidecar, path, &[]).await
}
