//! `sidecache top`: one frame, frames in a pipe, and the table in a terminal that is as before
//! afterwards.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::free_port;
use crate::support::running::Running;
use crate::support::{CommandLine, Origin, Response, Scene, eventually};

const RULES: &str = r#"
[[routes]]
path = "/a/{id}"
ttl = "5m"
scope = "public"
tags = ["tag-of-{id}"]
"#;

/// What a terminal is told when another screen begins, and when it ends.
const OTHER_SCREEN: &str = "\u{1b}[?1049h";
const OWN_SCREEN: &str = "\u{1b}[?1049l";
const SHOWN_CURSOR: &str = "\u{1b}[?25h";

async fn scene() -> Scene {
    Scene::start(RULES, |request| Response::ok(request.path.clone())).await
}

async fn is_shown(running: &Running, text: &str) {
    eventually(&format!("{text:?} is shown"), Duration::from_secs(30), || async {
        running.out().contains(text)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frame_has_routes_tags_and_what_the_parts_say() {
    let scene = scene().await;
    for _ in 0..3 {
        scene.get("/a/1").await;
        scene.get("/elsewhere").await;
    }
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &scene.sidecar.admin.to_string());
    let said = line.run(&["top", "--once", "--every", "250ms"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    for part in [
        "mode on, ready",
        "/s, 6 in all;",
        "REQ/S",
        "TOP REASON",
        "/a/{id}",
        "no route",
        "TAG ",
        "tag-of-1",
        "memory    1 entry",
        "redis     none",
        "app       ",
    ] {
        assert!(said.out.contains(part), "{part:?} is missing:\n{}", said.out);
    }
    assert!(!said.out.contains('\u{1b}'), "{:?}", said.out);
    let said = line.run(&["top", "--once", "--json", "--every", "250ms", "--sort", "misses"]).await;
    let frame: Value = serde_json::from_str(said.out.trim()).expect("one object");
    assert_eq!((&frame["requests"], &frame["redis"]), (&json!(6), &Value::Null), "{frame}");
    assert_eq!(frame["requests_per_s"], json!(0.0), "nothing was asked between the two samples");
    assert!(
        frame["interval_s"].is_number() && frame["routes"][0]["hit_ratio"].is_number(),
        "{frame}"
    );
    for wrong in [&["--every", "1ms"][..], &["--every", "soon"], &["--sort", "name"]] {
        let said = line.run(&[&["top"], wrong].concat()).await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{wrong:?}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_frames_follow_one_another_until_the_pipe_is_closed() {
    let scene = scene().await;
    let admin = scene.sidecar.admin.to_string();
    let running = Running::start(&["top", "--admin", &admin, "--every", "250ms", "--json"], &[]);
    eventually("three frames", Duration::from_secs(30), || async {
        running.out().lines().count() >= 3
    })
    .await;
    let frames: Vec<Value> = running
        .out()
        .lines()
        .take(2)
        .map(|line| serde_json::from_str(line).expect("one object per line"))
        .collect();
    assert!(frames[0]["at_ms"].as_u64() < frames[1]["at_ms"].as_u64(), "{frames:?}");
    running.close_output();
    assert_eq!((running.ended().await, running.err().as_str()), (Some(0), ""));
    let running = Running::start(&["top", "--admin", &admin, "--every", "250ms"], &[]);
    is_shown(&running, "no failures\n\n").await;
    assert!(!running.out().contains('\u{1b}'), "{:?}", running.out());
    running.signal("INT");
    assert_eq!(running.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_as_before_however_the_table_ends() {
    let scene = scene().await;
    scene.get("/a/1").await;
    let admin = scene.sidecar.admin.to_string();
    for end in ["q", "\u{1b}", "\u{3}", "INT", "TERM"] {
        let arguments = ["top", "--admin", &admin, "--every", "250ms"];
        let running = Running::in_terminal(&arguments, &[], (100, 30));
        is_shown(&running, "q to quit").await;
        is_shown(&running, "/a/{id}").await;
        assert!(running.out().contains(OTHER_SCREEN) && !running.is_as_usual(), "{end:?}");
        if end.len() == 1 {
            running.types(end);
        } else {
            running.signal(end);
        }
        assert_eq!(running.ended().await, Some(0), "{end:?}: {:?}", running.out());
        let out = running.out();
        for told in [OWN_SCREEN, SHOWN_CURSOR] {
            let at = out.rfind(told).unwrap_or_else(|| panic!("{end:?} without {told:?}: {out:?}"));
            assert!(at > out.rfind("/a/{id}").expect("it was shown"), "{end:?}: {out:?}");
        }
        assert!(running.is_as_usual(), "{end:?}: what is typed is shown again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_fits_the_terminal_and_keys_sort_it() {
    let scene = scene().await;
    scene.get("/a/1").await;
    let admin = scene.sidecar.admin.to_string();
    let arguments = ["top", "--admin", &admin, "--every", "250ms"];
    let running = Running::in_terminal(&arguments, &[], (50, 30));
    is_shown(&running, "REQ/S").await;
    assert!(!running.out().contains("ORIGIN P95"), "that column does not fit");
    running.types("m");
    is_shown(&running, "sorted by misses").await;
    running.types("h");
    is_shown(&running, "sorted by lowest hit ratio").await;
    running.resize((200, 30));
    is_shown(&running, "ORIGIN P95").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_goes_away_is_told_and_comes_back() {
    let mut scene = scene().await;
    let admin = scene.sidecar.admin.to_string();
    let arguments = ["top", "--admin", &admin, "--every", "250ms"];
    let running = Running::in_terminal(&arguments, &[], (120, 30));
    let piped = Running::start(&arguments, &[]);
    is_shown(&running, "q to quit").await;
    is_shown(&piped, "no failures").await;
    scene.sidecar.stop().await;
    is_shown(&running, "NO ANSWER from").await;
    eventually("it says so once", Duration::from_secs(30), || async {
        piped.err().matches("does not answer").count() == 1
    })
    .await;
    scene.sidecar.start_again(&scene.clock).await;
    let (was, frames) = (running.out().len(), piped.out().len());
    eventually("both go on", Duration::from_secs(30), || async {
        running.out()[was..].contains("q to quit") && piped.out().len() > frames
    })
    .await;
    let closed = free_port();
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &format!("127.0.0.1:{closed}"));
    let said = line.run(&["top", "--once"]).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("is it running?"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_text_in_the_table_writes_nothing_to_the_terminal() {
    let evil = "\u{1b}[2J\u{9b}1m\u{202e}";
    let reason = json!({ "disposition": "MISS", "reason": evil, "subject": evil, "count": 3 });
    let stats = json!({
        "version": evil, "mode": evil, "started_ms": 1, "now_ms": 2,
        "routes": [{ "path": evil, "mode": "on", "requests": { "MISS": 3 }, "reasons": [reason] }],
        "tags": [{ "tag": evil, "stored": 1 }],
        "redis": { "state": evil, "why": evil }, "app": { "why": evil, "advice": evil },
        "ready": { "status": evil, "reasons": [evil] },
    });
    let admin = Origin::scripted(&[("GET /stats", 200, &stats.to_string())]);
    let address = admin.address.to_string();
    for more in [&["--once"][..], &["--once", "--json"]] {
        let line = CommandLine::new().variable("SIDECACHE_ADMIN", &address);
        let said = line.run(&[&["top", "--every", "250ms"], more].concat()).await;
        let is_harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert_eq!((said.code, said.out.contains(is_harmful)), (0, false), "{:?}", said.out);
    }
    let running = Running::in_terminal(&["top", "--admin", &address], &[], (160, 40));
    is_shown(&running, "TOP REASON").await;
    is_shown(&running, "q to quit").await;
    let out = running.out();
    assert!(!out.contains("\u{1b}[2J") && !out.contains(['\u{9b}', '\u{202e}']), "{out:?}");
}
