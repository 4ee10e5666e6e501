//! Writes that go wrong: clients that leave, origins that fail after they have committed, and
//! rejections that must change nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Point, RedisServer, Response, Sidecar, Socket, eventually};

async fn memory_alone() -> (Origin, Sidecar) {
    let app = Origin::start(versioned());
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    (app, sidecar)
}

async fn with_redis() -> (RedisServer, Origin, Sidecar) {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let sidecar =
        Sidecar::start(app.address, &format!("{}\n{VERSIONED_RULES}", redis.table())).await;
    (redis, app, sidecar)
}

/// Requests until there is a hit, and returns the stored body.
async fn warm(address: SocketAddr, path: &str) -> String {
    let mut client = Client::new(address);
    eventually("the cache holds it", Duration::from_secs(5), async || {
        Client::new(address).get(path, &[]).await.cache() == "HIT"
    })
    .await;
    client.get(path, &[]).await.text().to_owned()
}

/// A client sends a whole POST and hangs up while the origin handles it, before or after it
/// commits.
async fn client_hangs_up(app: &Origin, sidecar: &Sidecar, point: Point) {
    assert_eq!(warm(sidecar.address, "/v/a").await, "0");
    let hold = app.hold("POST", "/w/a", point);
    let mut client = Socket::connect(sidecar.address).await;
    client.send(b"POST /w/a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\n{}").await;
    hold.arrived().await;
    drop(client);
    // Time for the sidecar to notice: a departure that ends the mutation would do so now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    hold.release();
    eventually(
        "a read is fresh though nobody waited for the write's answer",
        Duration::from_secs(2),
        async || Client::new(sidecar.address).get("/v/a", &[]).await.text() == "1",
    )
    .await;
    assert_eq!(warm(sidecar.address, "/v/a").await, "1", "and stays so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_hangs_up_before_the_commit_does_not_lose_the_purge() {
    let (app, sidecar) = memory_alone().await;
    client_hangs_up(&app, &sidecar, Point::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_hangs_up_after_the_commit_does_not_lose_the_purge() {
    let (app, sidecar) = memory_alone().await;
    client_hangs_up(&app, &sidecar, Point::After).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_hangs_up_does_not_lose_the_purge_in_redis() {
    let (_redis, app, sidecar) = with_redis().await;
    client_hangs_up(&app, &sidecar, Point::Before).await;
}

/// The origin commits, then fails as `how` says. The sidecar does not know the outcome, so it
/// purges.
async fn fails_after_commit(sidecar: &Sidecar, how: &str, expected: u16) {
    assert_eq!(warm(sidecar.address, "/v/a").await, "0");
    let mut client = Client::new(sidecar.address);
    let post = client.send("POST", "/w/a", &[("x-test", how)], "{}").await;
    assert_eq!(post.status, expected);
    let read = client.get("/v/a", &[]).await;
    assert_eq!(read.text(), "1", "{}", read.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_answers_500_after_the_commit_is_purged() {
    let (_app, sidecar) = memory_alone().await;
    fails_after_commit(&sidecar, "500", 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_resets_after_the_commit_is_purged_and_not_asked_twice() {
    let (app, sidecar) = memory_alone().await;
    fails_after_commit(&sidecar, "hangup", 502).await;
    assert_eq!(app.count("POST", "/w/a"), 1, "a POST is never sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_that_fails_after_the_commit_is_purged_in_redis() {
    let (_redis, _app, sidecar) = with_redis().await;
    fails_after_commit(&sidecar, "500", 500).await;
}

async fn refusals_purge_nothing(app: &Origin, sidecar: &Sidecar) {
    warm(sidecar.address, "/v/a").await;
    let asked = app.count("GET", "/v/a");
    let mut client = Client::new(sidecar.address);
    for post in 0..1_000 {
        let refused = client.send("POST", "/w/a", &[("x-test", "401")], "{}").await;
        assert_eq!(refused.status, 401);
        let read = client.get("/v/a", &[]).await;
        assert_eq!(
            (read.cache(), read.text()),
            ("HIT", "0"),
            "after refused POST {post}: {}",
            read.header("cache-status")
        );
    }
    assert_eq!(app.count("POST", "/w/a"), 1_000);
    assert_eq!(app.count("GET", "/v/a"), asked, "every read was a hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_posts_answered_401_purge_nothing() {
    let (app, sidecar) = memory_alone().await;
    refusals_purge_nothing(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_posts_answered_401_purge_nothing_in_redis() {
    let (_redis, app, sidecar) = with_redis().await;
    refusals_purge_nothing(&app, &sidecar).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_purges_its_own_url_without_a_rule() {
    let (_app, sidecar) = memory_alone().await;
    assert_eq!(warm(sidecar.address, "/v/a").await, "0");
    assert_eq!(warm(sidecar.address, "/v/b").await, "0");
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.send("PUT", "/v/a", &[], "").await.text(), "1");
    assert_eq!(client.get("/v/a", &[]).await.text(), "1");
    assert_eq!(client.get("/v/b", &[]).await.cache(), "HIT", "what was not written to stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_purges_what_its_location_names() {
    let versions = versioned();
    let app = Origin::start(move |request| match versions(request) {
        reply if request.method == "POST" => reply.header("location", "/v/a"),
        reply => reply,
    });
    // No purge rule: RFC 9111 section 4.4 alone.
    let sidecar = Sidecar::start(
        app.address,
        "[[routes]]\npath = \"/v/{name}\"\nttl = \"5m\"\nscope = \"public\"\n",
    )
    .await;
    assert_eq!(warm(sidecar.address, "/v/a").await, "0");
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.send("POST", "/w/a", &[], "").await.text(), "1");
    assert_eq!(client.get("/v/a", &[]).await.text(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tag_of_a_body_member_is_purged() {
    let versions = versioned();
    let app = Origin::start(move |request| {
        if request.path == "/batch" { Response::status(204, "") } else { versions(request) }
    });
    let rules = "
[fields]
named = { body = \"/resource/name\" }
[[routes]]
path = \"/v/{name}\"
ttl = \"5m\"
scope = \"public\"
tags = [\"v:{name}\"]
[[purges]]
path = \"/batch\"
tags = [\"v:{named}\"]
";
    let sidecar = Sidecar::start(app.address, rules).await;
    warm(sidecar.address, "/v/a").await;
    warm(sidecar.address, "/v/b").await;
    let mut client = Client::new(sidecar.address);
    let body = r#"{"resource":{"name":"a"}}"#;
    assert_eq!(
        client.send("POST", "/batch", &[("content-type", "application/json")], body).await.status,
        204
    );
    assert_eq!(client.get("/v/a", &[]).await.cache(), "MISS");
    assert_eq!(client.get("/v/b", &[]).await.cache(), "HIT");
}
