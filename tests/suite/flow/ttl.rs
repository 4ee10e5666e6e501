//! A stored response is served for its ttl and no longer, from either tier.

use std::time::Duration;

use sidecache::app::Clock;

use crate::support::{Client, Origin, RedisServer, Reply, Response, Sidecar};

const TTL: Duration = Duration::from_mins(1);
const ROUTE: &str = "[[routes]]\npath = \"/v/{name}\"\nttl = \"1m\"\nscope = \"public\"\n";

/// A sidecar in front of this origin, both by one clock.
async fn sidecar(origin: &Origin, rules: &str) -> (Sidecar, Clock) {
    let clock = Clock::manual();
    origin.follow(&clock);
    (Sidecar::start_at(clock.clone(), origin.address, rules).await, clock)
}

/// Requests at once, again, shortly before the end of the ttl, and after it.
async fn expires_after_its_ttl(origin: &Origin, (sidecar, clock): &(Sidecar, Clock)) {
    let mut client = Client::new(sidecar.address);
    let first = client.get("/v/a", &[]).await;
    assert_eq!(first.cache(), "MISS");
    for _ in 0..2 {
        let again = client.get("/v/a", &[]).await;
        assert_eq!(again.cache(), "HIT", "{}", again.cache_status());
        clock.advance(TTL / 3);
    }
    clock.advance(TTL / 3 + Duration::from_secs(1));
    let late = client.get("/v/a", &[]).await;
    assert_eq!(late.cache(), "MISS", "{}", late.cache_status());
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT", "stored anew");
    assert_eq!(origin.count("GET", "/v/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_memory() {
    let app = Origin::start(|_| Response::ok("here"));
    let sidecar = sidecar(&app, ROUTE).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_in_redis() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("here"));
    let rules = format!("[memory]\nsize = \"0\"\n{}\n{ROUTE}", redis.table());
    let sidecar = sidecar(&app, &rules).await;
    expires_after_its_ttl(&app, &sidecar).await;
    // Redis itself drops the entry soon after `limits.stale` (10 minutes): nothing is stored
    // without an expiry.
    let keys = redis.command("KEYS sidecache:e:*").expect("Redis answers");
    for key in keys.lines().filter(|line| line.starts_with("sidecache:e:")) {
        let answer = redis.command(&format!("PTTL {key}")).expect("Redis answers");
        let left: i64 =
            answer.trim().trim_start_matches(':').parse().expect("PTTL answers a number");
        assert!(left == -2 || (0..=660_000).contains(&left), "{key} lives for another {left} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_ends_with_both_tiers() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("here"));
    let sidecar = sidecar(&app, &format!("{}\n{ROUTE}", redis.table())).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_age_of_the_app_wins_over_the_routes_ttl() {
    let app = Origin::start(|_| Response::ok("here").header("cache-control", "max-age=60"));
    let sidecar = sidecar(&app, &ROUTE.replace("1m", "5m")).await;
    expires_after_its_ttl(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ttl_of_the_route_wins_where_the_origin_is_ignored() {
    let app = Origin::start(|_| Response::ok("here").header("cache-control", "no-cache, private"));
    let respected = Sidecar::start(app.address, ROUTE).await;
    let mut client = Client::new(respected.address);
    for _ in 0..2 {
        assert_ne!(client.get("/v/b", &[]).await.cache(), "HIT", "the app's word counts");
    }
    let ignored = sidecar(&app, &ROUTE.replace("ttl", "origin = \"ignore\"\nttl")).await;
    expires_after_its_ttl(&app, &ignored).await;
}

/// An app that answers by the last segment of a path: with this status, and these headers.
fn statuses(extra: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::start(move |request| {
        let status = request.path.rsplit('/').next().and_then(|last| last.parse().ok());
        let answer = Response::status(status.unwrap_or(200), "here");
        extra.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_status_has_its_own_ttl() {
    let app = statuses(&[]);
    let rules = "[[routes]]\npath = \"/v/{name}\"\nscope = \"public\"\nttl = { 200 = \"5m\", 302 = \
                 \"1h\", 404 = \"10s\" }\n";
    let (sidecar, clock) = sidecar(&app, rules).await;
    let mut client = Client::new(sidecar.address);
    for (path, ttl) in [("/v/200", 300), ("/v/302", 3600), ("/v/404", 10)] {
        assert_eq!(client.get(path, &[]).await.cache(), "MISS", "{path}");
        clock.advance(Duration::from_secs(ttl - 1));
        assert_eq!(client.get(path, &[]).await.cache(), "HIT", "{path}");
        clock.advance(Duration::from_secs(2));
        assert_eq!(client.get(path, &[]).await.cache(), "MISS", "{path}: its ttl is over");
    }
    // Statuses that the route does not name, and failures, are not stored.
    for path in ["/v/410", "/v/403", "/v/500", "/v/503"] {
        for _ in 0..2 {
            let answer = client.get(path, &[]).await;
            assert_ne!(answer.cache(), "HIT", "{path}: {}", answer.cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ttl_of_a_status_holds_where_the_origin_is_ignored() {
    let app = statuses(&[("cache-control", "no-store")]);
    let rules = "[[routes]]\npath = \"/v/{name}\"\nscope = \"public\"\norigin = \"ignore\"\nttl = { \
                 404 = \"10s\" }\n";
    let sidecar = Sidecar::start(app.address, rules).await;
    let mut client = Client::new(sidecar.address);
    client.get("/v/404", &[]).await;
    assert_eq!(client.get("/v/404", &[]).await.cache(), "HIT");
    for path in ["/v/200", "/v/301"] {
        client.get(path, &[]).await;
        let again = client.get(path, &[]).await;
        assert_ne!(again.cache(), "HIT", "{path}: {}", again.cache_status());
    }
}

/// What a client is told of the freshness of a response.
fn told(answer: &Reply) -> (&str, &str) {
    (answer.header("cache-control"), answer.header("expires"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_what_the_route_says() {
    let app = statuses(&[
        ("cache-control", "max-age=600"),
        ("expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
        ("etag", "\"1\""),
    ]);
    let rules = "[[routes]]\npath = \"/v/{name}\"\nscope = \"public\"\nbrowser = \"30s\"\n\
                 [[routes]]\npath = \"/p/{name}\"\nbrowser = \"30s\"\n\
                 [[routes]]\npath = \"/n/{name}\"\nscope = \"public\"\nbrowser = \"no-store\"\n\
                 [[routes]]\npath = \"/w/{name}\"\nmode = \"shadow\"\nbrowser = \"no-store\"\n";
    let (sidecar, clock) = sidecar(&app, rules).await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(told(&client.get("/v/a", &[]).await), ("max-age=30", ""));
    clock.advance(Duration::from_secs(12));
    let hit = client.get("/v/a", &[]).await;
    assert_eq!((hit.cache(), hit.header("age"), told(&hit)), ("HIT", "12", ("max-age=42", "")));
    let not_modified = client.get("/v/a", &[("if-none-match", "\"1\"")]).await;
    assert_eq!((not_modified.status, told(&not_modified)), (304, ("max-age=42", "")));
    let private = client.get("/p/a", &[("authorization", "Bearer a")]).await;
    assert_eq!(told(&private), ("private, max-age=30", ""));
    for _ in 0..2 {
        assert_eq!(told(&client.get("/n/a", &[]).await), ("no-store", ""));
    }
    // What is not stored goes on with the origin's own words, but for `no-store`.
    let own = ("max-age=600", "Thu, 01 Dec 2033 16:00:00 GMT");
    let passed = client.get("/v/b", &[("x-unknown", "1")]).await;
    assert_eq!((passed.cache(), told(&passed)), ("BYPASS", own));
    let passed = client.get("/n/b", &[("x-unknown", "1")]).await;
    assert_eq!((passed.cache(), told(&passed)), ("BYPASS", ("no-store", "")));
    assert_eq!(told(&client.get("/w/a", &[]).await), own, "a route that only watches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_timing_tells_the_cache_from_the_app() {
    let app = statuses(&[("server-timing", "db;dur=7")]);
    let quiet = Sidecar::start(app.address, ROUTE).await;
    let answer = Client::new(quiet.address).get("/v/a", &[]).await;
    assert_eq!(answer.header("server-timing"), "db;dur=7");
    let rules = format!("[debug]\nserver_timing = true\n{ROUTE}");
    let sidecar = Sidecar::start(app.address, &rules).await;
    let mut client = Client::new(sidecar.address);
    for (path, start, asks) in
        [("/v/a", "cache;desc=MISS;dur=", true), ("/v/a", "cache;desc=HIT;dur=", false)]
    {
        let answer = client.get(path, &[]).await;
        let lines = answer.headers.get_all("server-timing").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().expect("text")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], "db;dur=7");
        assert!(lines[1].starts_with(start), "{lines:?}");
        assert_eq!(lines[1].contains("app;dur="), asks, "{lines:?}");
    }
}
