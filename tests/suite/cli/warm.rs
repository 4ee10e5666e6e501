//! `warm` in front of a real sidecar: what is asked for is stored, each request once, and what must
//! not be sent is not.

use serde_json::Value;

use crate::support::command::Said;
use crate::support::{CommandLine, Point, Response, Scene};

const RULES: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }

[[routes]]
path = "/c/{id}"
ttl  = "5m"
scope = "public"

[[routes]]
path = "/t/{id}"
ttl  = "5m"
key  = ["tenant"]
"#;

async fn scene() -> Scene {
    Scene::start(RULES, |request| Response::ok(format!("this is {}", request.path))).await
}

/// The command with this list. Its proxy.toml has the scene's routes, and names the scene's
/// sidecar.
fn line(scene: &Scene, list: &str) -> CommandLine {
    let address = scene.sidecar.address;
    let config = format!(
        "[listen]\naddress = \"{address}\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n{RULES}"
    );
    CommandLine::new().file("proxy.toml", &config).file("list", list)
}

fn outcomes(said: &Said) -> Vec<(String, String, u64)> {
    let value: Value = serde_json::from_str(&said.out)
        .unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err));
    let text = |outcome: &Value, name: &str| outcome[name].as_str().expect("a text").to_owned();
    let list = value["outcomes"].as_array().expect("a list");
    list.iter()
        .map(|outcome| {
            (
                text(outcome, "disposition"),
                text(outcome, "why"),
                outcome["count"].as_u64().expect("a count"),
            )
        })
        .collect()
}

fn outcome(disposition: &str, why: &str, count: u64) -> (String, String, u64) {
    (disposition.to_owned(), why.to_owned(), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_url_is_asked_for_once_and_then_stored() {
    let scene = scene().await;
    let line = line(
        &scene,
        "/c/1\n/c/2?a=b\nhttp://app.test/c/3\n# /c/4\n/c/1\n/delete/7\nwhat is this\n",
    );
    let said = line.run(&["warm", "--from", "list", "--host", "app.test", "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(outcomes(&said), [outcome("MISS", "stored", 3)]);
    for path in ["/c/1", "/c/2", "/c/3"] {
        assert_eq!(scene.count(path), 1, "{path}");
        // Bodies are whole when `warm` has ended, and the test's own client asks as for the same
        // host.
        let asked = if path == "/c/2" { "/c/2?a=b" } else { path };
        assert_eq!(scene.get(asked).await.cache(), "HIT", "{asked}");
    }
    assert_eq!(
        (scene.count("/c/4"), scene.count("/delete/7")),
        (0, 0),
        "what no route takes is not sent"
    );
    for part in ["cannot read line 7: what is this", "not sent: 1: no route"] {
        assert!(said.err.contains(part), "{part:?} is missing:\n{}", said.err);
    }
    let said = line.run(&["warm", "--from", "list", "--host", "app.test", "--json"]).await;
    assert_eq!(outcomes(&said), [outcome("HIT", "memory", 3)]);
    let said = line.run(&["warm", "--from", "list", "--host", "app.test"]).await;
    for part in ["HIT", "memory", "statuses  200: 3", "3 responses"] {
        assert!(said.out.contains(part), "{part:?} is missing:\n{}", said.out);
    }
    let said = line.run(&["warm", "--from", "list", "--host", "app.test", "--unrouted"]).await;
    assert_eq!((said.code, scene.count("/delete/7")), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_nginx_and_of_sidecache_are_replayed_by_frequency() {
    let scene = scene().await;
    let nginx = |request: &str, status: u16| {
        format!(
            "10.0.0.1 - - [10/Oct/2025:13:55:36 +0000] \"{request}\" {status} 9 \"-\" \"curl/8\"\n"
        )
    };
    let mut log = nginx("GET /c/1 HTTP/1.1", 200)
        + &nginx("GET /c/2 HTTP/1.1", 304)
        + &nginx("GET /c/2 HTTP/1.1", 200);
    log += &(nginx("POST /c/3 HTTP/1.1", 200) + &nginx("GET /c/4 HTTP/1.1", 500));
    log += "2026-01-01T00:00:00.000Z  INFO sidecache::access: request method=GET path=/c/5 \
        host=app.test peer=127.0.0.1 status=200 cache=MISS\n";
    log += "2026-01-01T00:00:00.000Z  WARN sidecache::app: Redis does not answer\n";
    log += "{\"target\":\"sidecache::access\",\"method\":\"GET\",\
        \"path\":\"/c/6\",\"host\":\"app.test\",\"status\":200}\n";
    let line = line(&scene, "").input(&log);
    let said =
        line.run(&["warm", "--from", "-", "--host", "app.test", "--limit", "1", "--json"]).await;
    assert_eq!(outcomes(&said), [outcome("MISS", "stored", 1)], "{}", said.err);
    assert_eq!((scene.count("/c/2"), scene.count("/c/1")), (1, 0), "the most frequent comes first");
    let said = line
        .run(&[
            "warm",
            "--from",
            "-",
            "--host",
            "app.test",
            "--json",
            "--concurrency",
            "1",
            "--rate",
            "1000",
        ])
        .await;
    assert_eq!(outcomes(&said), [outcome("HIT", "memory", 1), outcome("MISS", "stored", 3)]);
    let counts = ["/c/1", "/c/2", "/c/3", "/c/4", "/c/5", "/c/6"].map(|path| scene.count(path));
    assert_eq!(counts, [1, 1, 0, 0, 1, 1]);
    for part in ["not a GET", "neither 2xx nor 304", "no access line"] {
        assert!(said.err.contains(part), "{part:?} is missing:\n{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_give_what_routes_are_keyed_by() {
    let scene = scene().await;
    let line = line(&scene, "/t/1\n");
    let said = line.run(&["warm", "--from", "list", "--json"]).await;
    assert_eq!(outcomes(&said), [outcome("BYPASS", "missing field tenant", 1)]);
    assert!(said.err.contains("set the host that clients use with --host"), "{}", said.err);
    let said = line
        .run(&[
            "warm",
            "--from",
            "list",
            "-H",
            "x-tenant-id: acme",
            "-H",
            "host: app.test",
            "--json",
        ])
        .await;
    assert_eq!(outcomes(&said), [outcome("MISS", "stored", 1)], "{}", said.err);
    assert_eq!(scene.last("/t/1").header("x-tenant-id").as_deref(), Some("acme"));
    assert_eq!(scene.ask("/t/1", &[("x-tenant-id", "acme")]).await.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_fails_when_every_request_failed() {
    let scene = scene().await;
    let nobody = format!("127.0.0.1:{}", crate::support::process::free_port());
    let line = line(&scene, "/c/1\n/c/2\n");
    let said = line.run(&["warm", "--from", "list", "--to", &nobody]).await;
    assert_eq!(said.code, 1);
    assert!(
        said.out.contains("cannot connect") && said.out.contains("0 responses"),
        "{}",
        said.out
    );
    scene.answers(|request| Response::status(if request.path == "/c/1" { 500 } else { 200 }, "x"));
    assert_eq!(
        line.run(&["warm", "--from", "list"]).await.code,
        0,
        "one of two is no failure of all"
    );
    let said = line.run(&["warm", "--from", "nowhere"]).await;
    assert_eq!(said.code, 64);
    assert!(said.err.contains("--from nowhere"), "{}", said.err);
    // Without a file that tells routes from the rest, all is sent only when that is asked for.
    let address = scene.sidecar.address.to_string();
    let bare = CommandLine::new().file("list", "/c/2\n");
    assert_eq!(bare.run(&["warm", "--from", "list", "--to", &address]).await.code, 64);
    assert_eq!(bare.run(&["warm", "--from", "list", "--to", &address, "--unrouted"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_too_long_is_given_up() {
    let scene = scene().await;
    let hold = scene.hold("GET", "/c/1", Point::Before);
    let said = line(&scene, "/c/1\n/c/2\n")
        .run(&["warm", "--from", "list", "--timeout", "300ms", "--concurrency", "1"])
        .await;
    assert_eq!(said.code, 0);
    assert!(
        said.out.contains("no response in time (first for /c/1)")
            && said.out.contains("1 response,"),
        "{}",
        said.out
    );
    hold.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_stops_it_and_the_summary_is_still_told() {
    use std::process::{Command, Stdio};
    let scene = scene().await;
    let hold = scene.hold("GET", "/c/2", Point::Before);
    let directory = tempfile::TempDir::new().expect("a temporary directory can be made");
    let list = directory.path().join("list");
    std::fs::write(&list, "/c/1\n/c/2\n/c/3\n").expect("the temporary directory can be written to");
    let child = Command::new(env!("CARGO_BIN_EXE_sidecache"))
        .args([
            "warm",
            "--unrouted",
            "--concurrency",
            "1",
            "--to",
            &scene.sidecar.address.to_string(),
            "--from",
        ])
        .arg(&list)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built with the tests");
    hold.arrived().await;
    crate::support::process::signal(child.id(), "INT");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .expect("it was waited for")
        .expect("a child ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("stopped after 1 of 3"), "{said}");
    assert_eq!((output.status.code(), scene.count("/c/3")), (Some(0), 0));
    hold.release();
}
