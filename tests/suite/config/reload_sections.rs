//! Sections that a reload changes: the trusted proxies, the origin and the log.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, Point, RedisServer, Reply, Request, Response, Scene, Sidecar, eventually,
};

const ROUTE: &str = "[[routes]]\npath = \"/a/{*rest}\"\nscope = \"public\"\nttl = \"5m\"\n";
const SHARED: &str = "[[routes]]\npath = \"/s/{*rest}\"\nscope = \"shared\"\nadmit = \
                      \"route\"\nttl = \"5m\"\n";

/// Replaces a text of the sidecar's file, and reloads it.
async fn replace(sidecar: &Sidecar, old: &str, new: &str) -> Value {
    let text = std::fs::read_to_string(&sidecar.file).expect("its file");
    assert!(text.contains(old), "{old} is not in {text}");
    std::fs::write(&sidecar.file, text.replacen(old, new, 1)).expect("the file can be written to");
    sidecar.admin_ok("/reload", &json!({})).await
}

/// Changes the origin of a sidecar.
async fn move_to(sidecar: &Sidecar, from: &Origin, to: &Origin) -> Value {
    replace(sidecar, &format!("http://{}", from.address), &format!("http://{}", to.address)).await
}

fn named(name: &'static str) -> Origin {
    Origin::start(move |_| Response::ok(name))
}

async fn hit(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Reply {
    let ask = async || Client::new(sidecar.address).get(path, headers).await;
    eventually("a hit", Duration::from_secs(10), || async { ask().await.cache() == "HIT" }).await;
    ask().await
}

/// 770. A change of `[upstream]` needed a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_origin_answers_from_a_reload_on_and_nothing_of_the_former_is_served() {
    for redis in [None, Some(RedisServer::start())] {
        let table = redis.as_ref().map_or_else(String::new, RedisServer::table);
        let (one, two) = (named("one"), named("two"));
        let rules = format!("{table}{ROUTE}{SHARED}");
        let sidecar = Sidecar::start(one.address, &rules).await;
        let ann = [("authorization", "Bearer ann")];
        assert_eq!(hit(&sidecar, "/a/1", &[]).await.text(), "one");
        assert_eq!(hit(&sidecar, "/s/1", &ann).await.text(), "one");
        // A fill that is under way meanwhile ends with what its origin answers.
        let hold = one.hold("GET", "/a/slow", Point::Before);
        let address = sidecar.address;
        let slow = tokio::spawn(async move { Client::new(address).get("/a/slow", &[]).await });
        hold.arrived().await;

        let report = move_to(&sidecar, &one, &two).await;
        assert_eq!(report["restart_needed"], json!([]), "{report}");
        assert_eq!(report["changes"][0]["effect"], "entries are left behind", "{report}");
        let ask = async |path: &str| Client::new(address).get(path, &[]).await;
        let reply = ask("/a/1").await;
        assert_eq!((reply.cache(), reply.text()), ("MISS", "two"));
        assert_eq!(hit(&sidecar, "/a/1", &[]).await.text(), "two");
        // Who was authorized by the former origin is a stranger to this one.
        let bob = [("authorization", "Bearer bob")];
        assert_eq!(hit(&sidecar, "/s/1", &bob).await.text(), "two");
        let before = two.total();
        Client::new(address).get("/s/1", &ann).await;
        assert_eq!(two.total(), before + 1, "the new origin is asked about her");
        // Nobody joins the fill of the former origin, and it leaves nothing.
        let reply = ask("/a/slow").await;
        assert_eq!(reply.text(), "two");
        hold.release();
        assert_eq!(slow.await.expect("no panic").text(), "one");
        assert_eq!(hit(&sidecar, "/a/slow", &[]).await.text(), "two");
        // A sidecar that starts now knows nothing of another origin.
        let fresh = Sidecar::start(two.address, &rules).await;
        for path in ["/a/1", "/a/slow"] {
            let reply = Client::new(fresh.address).get(path, &[]).await;
            assert_eq!(reply.text(), "two", "{path}");
        }
        // And back again: what the first one answered is older than what may have been written.
        move_to(&sidecar, &two, &one).await;
        let reply = ask("/a/1").await;
        assert_eq!((reply.cache(), reply.text()), ("MISS", "one"));
    }
}

/// 771. The same for its limits and times: connections of before end with their requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_origin_change_without_a_restart() {
    let scene = Scene::start(ROUTE, |_| Response::ok("data")).await;
    scene.get("/passed").await;
    scene.fill("/a/1").await;
    let url = format!("url = \"http://{}\"\n", scene.origin.address);
    let with = |keys: &str| format!("{url}{keys}\n");
    let report = replace(&scene.sidecar, &url, &with("first_byte_timeout = \"200ms\"")).await;
    assert_eq!(report["restart_needed"], json!([]), "{report}");
    assert_eq!(report["changes"][0]["effect"], Value::Null, "{report}");
    assert_cache(&scene.get("/a/1").await, "HIT", "it is the same origin");
    let hold = scene.hold("GET", "/late", Point::Before);
    assert_eq!(scene.get("/late").await.status, 504, "it has a new limit");
    hold.release();
    let report = replace(&scene.sidecar, &url, &with("wait_timeout = \"7s\"")).await;
    assert_eq!(report["restart_needed"], json!(["upstream.wait_timeout"]), "{report}");
}

/// 776. Connections to the origin of before stay open for no longer than their requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_before_a_reload_end_with_their_requests() {
    let scene = Scene::start("", |_| Response::ok("data")).await;
    let address = scene.sidecar.address;
    let get = move |path: &'static str| {
        tokio::spawn(async move { Client::new(address).get(path, &[]).await.status })
    };
    let open = async || {
        let text = scene.sidecar.admin_get("/metrics").await.text().to_owned();
        let line = text.lines().find(|line| line.starts_with("sidecache_upstream_open "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("the gauge")
    };
    let is_open = async |wanted: f64| {
        eventually("the connections", Duration::from_secs(10), || async {
            (open().await - wanted).abs() < 0.5
        })
        .await;
    };
    let (long, short) =
        (scene.hold("GET", "/l", Point::Before), scene.hold("GET", "/s", Point::Before));
    let requests = [get("/l"), get("/s")];
    long.arrived().await;
    short.arrived().await;
    short.release();
    let [long_request, short_request] = requests;
    assert_eq!(short_request.await.expect("no panic"), 200);
    is_open(2.0).await;
    let url = format!("url = \"http://{}\"\n", scene.origin.address);
    replace(&scene.sidecar, &url, &format!("{url}keep_alive = \"50s\"\n")).await;
    is_open(1.0).await;
    long.release();
    assert_eq!(long_request.await.expect("no panic"), 200);
    is_open(0.0).await;
}

/// 772. A client that has logged in its connection kept the former origin's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_logged_in_moves_to_the_new_origin() {
    let (one, two) = (named("one"), named("two"));
    let sidecar = Sidecar::start(one.address, "").await;
    let mut client = Client::new(sidecar.address);
    let login = [("authorization", "NTLM abc")];
    assert_eq!(client.get("/", &login).await.text(), "one");
    move_to(&sidecar, &one, &two).await;
    assert_eq!(client.get("/", &login).await.text(), "two");
    assert_eq!(client.get("/", &[]).await.text(), "two");
}

/// 773. A change of `trusted_proxies` needed a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_proxies_change_for_connections_that_are_open() {
    let origin = Origin::start(|request: &Request| {
        Response::ok(request.header("x-forwarded-for").unwrap_or_default())
    });
    let sidecar = Sidecar::start(origin.address, "").await;
    let mut client = Client::new(sidecar.address);
    let claim = [("x-forwarded-for", "192.0.2.7")];
    assert_eq!(client.get("/", &claim).await.text(), "127.0.0.1", "nobody is trusted");
    let trusting = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let report = replace(&sidecar, "[listen]\n", trusting).await;
    assert_eq!(report["restart_needed"], json!([]), "{report}");
    let trusted = "192.0.2.7, 127.0.0.1";
    assert_eq!(client.get("/", &claim).await.text(), trusted, "on the same connection");
    let mut other = Client::new(sidecar.address);
    assert_eq!(other.get("/", &claim).await.text(), trusted, "and on a new one");
    replace(&sidecar, trusting, "[listen]\n").await;
    for client in [&mut client, &mut other] {
        assert_eq!(client.get("/", &claim).await.text(), "127.0.0.1", "no longer");
    }
}

/// 774. A change of `[log]` needed a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_changes_without_a_restart() {
    let origin = named("data");
    let sidecar = Sidecar::spawn_logged(origin.address, "[log]\nlevel = \"info\"\n").await;
    let ask = async |path: &str| Client::new(sidecar.address).get(path, &[]).await;
    ask("/silent").await;
    let report = replace(&sidecar, "level = \"info\"", "access = true\nformat = \"json\"").await;
    assert_eq!(report["restart_needed"], json!([]), "{report}");
    ask("/loud").await;
    let written = |path: &str| sidecar.said().lines().any(|line| line.contains(path));
    eventually("the line", Duration::from_secs(10), || async { written("/loud") }).await;
    let said = sidecar.said();
    let line = said.lines().find(|line| line.contains("/loud")).expect("it is there");
    let line: Value = serde_json::from_str(line).expect("it is JSON");
    assert_eq!(line["path"], "/loud");
    replace(&sidecar, "access = true\nformat = \"json\"", "level = \"error\"").await;
    ask("/quiet").await;
    replace(&sidecar, "level = \"error\"", "access = true").await;
    ask("/again").await;
    eventually("the line", Duration::from_secs(10), || async { written("path=/again") }).await;
    assert!(!written("/silent") && !written("/quiet"), "{}", sidecar.said());
}

/// 775. An origin that there can be no client for keeps the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_cannot_be_used_is_refused_as_a_whole() {
    let scene = Scene::start(ROUTE, |_| Response::ok("data")).await;
    scene.fill("/a/1").await;
    let ca = scene.sidecar.file.with_file_name("ca.pem");
    std::fs::write(&ca, "no certificate\n").expect("the directory can be written to");
    let url = format!("url = \"http://{}\"\n", scene.origin.address);
    let text = std::fs::read_to_string(&scene.sidecar.file).expect("its file");
    let secure = format!("url = \"https://{}\"\nca_file = \"ca.pem\"\n", scene.origin.address);
    std::fs::write(&scene.sidecar.file, text.replacen(&url, &secure, 1)).expect("written");
    let refused = scene.sidecar.admin_post("/reload", &json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("holds no certificate"), "{}", refused.text());
    assert_cache(&scene.get("/a/1").await, "HIT", "the old file is in force");
    assert_eq!(scene.get("/passed").await.status, 200);
}
