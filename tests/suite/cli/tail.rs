//! `sidecache tail`: what it shows of a real sidecar's requests, and how it ends.

use std::time::Duration;

use serde_json::Value;

use crate::support::process::free_port;
use crate::support::running::Running;
use crate::support::{CommandLine, Origin, Response, Scene, eventually, metric};

const RULES: &str = r#"
[[routes]]
path = "/a/{id}"
ttl = "5m"
scope = "public"
"#;

async fn scene() -> Scene {
    Scene::start(RULES, |request| Response::ok(request.path.clone())).await
}

/// A tail of this sidecar, which listens already.
async fn tail(scene: &Scene, arguments: &[&str]) -> Running {
    let admin = scene.sidecar.admin.to_string();
    let before = listeners(scene).await;
    let arguments = [&["tail", "--admin", &admin], arguments].concat();
    let running = Running::start(&arguments, &[]);
    eventually("it listens", Duration::from_secs(30), || async { listeners(scene).await > before })
        .await;
    running
}

async fn listeners(scene: &Scene) -> u64 {
    metric(scene.sidecar.admin, "sidecache_tail_subscribers").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_is_a_line_for_each_request_without_colors_in_a_pipe() {
    let scene = scene().await;
    let running = tail(&scene, &["--path", "/a/", "-n", "2"]).await;
    for path in ["/elsewhere", "/a/1?token=hunter2", "/a/2"] {
        scene.get(path).await;
    }
    let ended = running.ended().await;
    let (out, err) = (running.out(), running.err());
    assert_eq!((ended, err.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].contains(" MISS        200 GET "), "{out}");
    assert!(lines[0].ends_with(" /a/1 route=/a/{id} reason=\"not stored\""), "{out}");
    assert!(!out.contains(['\u{1b}', '?']), "{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_as_json_is_one_object_per_line_and_sigint_ends_it_well() {
    let scene = scene().await;
    for signal in ["INT", "TERM"] {
        let running = tail(&scene, &["--json", "--disposition", "bypass"]).await;
        scene.get("/elsewhere").await;
        eventually("a line", Duration::from_secs(30), || async { running.out().contains('\n') })
            .await;
        running.signal(signal);
        assert_eq!(running.ended().await, Some(0), "{signal}: {}", running.err());
        let line: Value = serde_json::from_str(running.out().trim()).expect("one object");
        assert_eq!((&line["path"], &line["reason"]), (&"/elsewhere".into(), &"no route".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pipe_ends_the_tail_quietly() {
    let scene = scene().await;
    let running = tail(&scene, &[]).await;
    running.close_output();
    // The second one finds the pipe closed at the latest.
    eventually("it ends", Duration::from_secs(30), || async {
        scene.get("/elsewhere").await;
        running.has_ended()
    })
    .await;
    assert_eq!((running.ended().await, running.err().as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_connects_again_after_a_restart() {
    let mut scene = scene().await;
    let running = tail(&scene, &["--path", "/after"]).await;
    scene.sidecar.stop().await;
    eventually("it says so", Duration::from_secs(30), || async {
        running.err().contains("the connection is lost")
    })
    .await;
    scene.sidecar.start_again(&scene.clock).await;
    eventually("it connects", Duration::from_secs(30), || async {
        running.err().contains("connected again")
    })
    .await;
    scene.get("/after").await;
    eventually("it goes on", Duration::from_secs(30), || async {
        running.out().contains("/after")
    })
    .await;
    running.signal("INT");
    assert_eq!(running.ended().await, Some(0), "{}", running.err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_cannot_begin_says_why() {
    let scene = scene().await;
    let admin = scene.sidecar.admin.to_string();
    for (arguments, code, part) in [
        (&["tail", "--route", "/nowhere"][..], 1, "is no route of proxy.toml"),
        (&["tail", "--status", "9xx"][..], 1, "hint: write 404, or 5xx"),
        (&["tail", "--rate", "0"][..], 1, "from 1 to 1000"),
        (&["tail", "--rate", "many"][..], 64, "--rate"),
        (&["tail", "--token-file", "/nowhere"][..], 64, "--token-file"),
    ] {
        let line = CommandLine::new().variable("SIDECACHE_ADMIN", &admin);
        let said = line.run(arguments).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(part), "{arguments:?}: {}", said.err);
    }
    let closed = free_port();
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &format!("127.0.0.1:{closed}"));
    let said = line.run(&["tail"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains("is it running?"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_text_in_the_tail_writes_nothing_to_the_terminal() {
    // An admin listener that escapes nothing.
    let hostile = "event: request\ndata: {\"path\":\"/\\u001b[2J\\u009b1m\\u202e\",\"disposition\":\
                   \"HIT\\u001b]0;x\\u0007\",\"reason\":\"\\u001b[1m\"}\n\n";
    let admin =
        Origin::start(move |_| Response::ok(hostile).header("content-type", "text/event-stream"));
    for json in [&["--json"][..], &[]] {
        let line = CommandLine::new().variable("SIDECACHE_ADMIN", &admin.address.to_string());
        let said = line.run(&[&["tail", "-n", "1"], json].concat()).await;
        assert_eq!((said.code, said.out.lines().count()), (0, 1), "{}", said.err);
        let is_harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.out.contains(is_harmful), "{:?}", said.out);
    }
}
