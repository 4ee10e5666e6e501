//! Included files while requests go on: they are read with the file, as a whole or not at all.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::scene::assert_cache;
use crate::support::{Response, Scene, eventually};

/// The top of a file that includes others, and is not watched, so that a test says when.
const INCLUDE: &str = "watch = \"0s\"\ninclude = [\"conf.d/*.toml\"]\n";

fn path(scene: &Scene, name: &str) -> PathBuf {
    scene.sidecar.file.parent().expect("it is in a folder").join(name)
}

fn write(scene: &Scene, name: &str, text: &str) {
    let path = path(scene, name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
    std::fs::write(path, text).expect("it can be written to");
}

fn write_main(scene: &Scene, top: &str, rules: &str) {
    std::fs::write(&scene.sidecar.file, format!("{top}{}", scene.sidecar.with_rules(rules)))
        .expect("it can be written to");
}

fn public(path: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nscope = \"public\"\nttl = \"5m\"\n")
}

async fn reload(scene: &Scene) -> Value {
    scene.sidecar.admin_ok("/reload", &json!({})).await
}

async fn scene() -> Scene {
    Scene::start("", |_| Response::ok("data")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1290_rules_of_included_files_are_in_force_and_a_faulty_one_keeps_the_old_rules() {
    let scene = scene().await;
    write_main(&scene, INCLUDE, "");
    reload(&scene).await;
    write(&scene, "conf.d/a.toml", &public("/a"));
    let report = reload(&scene).await;
    assert_eq!(report["changes"][0]["what"], "route /a", "{report}");
    scene.fill("/a").await;
    assert_cache(&scene.get("/a").await, "HIT", "a rule of an included file");

    // Another file with a fault: nothing of the new rules counts.
    write(&scene, "conf.d/a.toml", "");
    write(&scene, "conf.d/b.toml", "# of b\n[[routes]]\npath = \"/b\"\nttl = 5\n");
    let reply = scene.sidecar.admin_post("/reload", &json!({})).await;
    assert_eq!(reply.status, 422);
    let report = reply.json();
    let problem = &report["problems"][0];
    let file = problem["file"].as_str().expect("a file");
    assert!(file.ends_with("conf.d/b.toml") && problem["line"] == 4, "{report}");
    assert_cache(&scene.get("/a").await, "HIT", "the old rules");
    assert_cache(&scene.get("/b").await, "BYPASS", "no rule is in force in part");

    // Without the faulty file, what is gone is gone.
    std::fs::remove_file(path(&scene, "conf.d/b.toml")).expect("it was there");
    reload(&scene).await;
    assert_cache(&scene.get("/a").await, "BYPASS", "its rule is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1291_a_change_of_an_included_file_is_seen_by_the_watcher() {
    let scene = scene().await;
    write_main(&scene, &INCLUDE.replace("0s", "100ms"), "");
    reload(&scene).await;
    let loads = || async { scene.sidecar.stats().await["config"]["loads"].clone() };
    let cached = |expected: &'static str| {
        let scene = &scene;
        async move {
            eventually(expected, Duration::from_secs(20), || async {
                scene.get("/a").await.cache().starts_with(expected)
            })
            .await;
        }
    };
    // One comes, changes, is replaced through its link, and goes.
    write(&scene, "conf.d/a.toml", &public("/a"));
    cached("HIT").await;
    write(&scene, "conf.d/a.toml", &format!("{}mode = \"off\"\n", public("/a")));
    cached("BYPASS").await;
    write(&scene, "versions/2.toml", &public("/a"));
    std::fs::remove_file(path(&scene, "conf.d/a.toml")).expect("it was there");
    symlink("../versions/2.toml", path(&scene, "conf.d/a.toml")).expect("a link");
    cached("HIT").await;
    std::fs::remove_file(path(&scene, "conf.d/a.toml")).expect("it was there");
    cached("BYPASS").await;
    // A faulty one is rejected once, and not at each look.
    let before = loads().await;
    write(&scene, "conf.d/a.toml", "mode = \"off\"\n");
    eventually("the file is rejected", Duration::from_secs(20), || async {
        !scene.sidecar.stats().await["config"]["error"].is_null()
    })
    .await;
    let failed = scene.sidecar.stats().await["config"]["failed_ms"].clone();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stats = scene.sidecar.stats().await;
    assert_eq!((&stats["config"]["failed_ms"], loads().await), (&failed, before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1292_a_check_reads_no_files_for_a_text() {
    let scene = scene().await;
    write_main(&scene, INCLUDE, "");
    reload(&scene).await;
    write(&scene, "conf.d/a.toml", &public("/a"));
    let text = std::fs::read_to_string(&scene.sidecar.file).expect("it was written");
    for text in [text.clone(), text.replace("conf.d/*.toml", "/etc/passwd")] {
        let reply = scene.sidecar.admin_post("/check", &json!({ "text": text })).await;
        assert_eq!(reply.status, 422);
        let report = reply.json();
        let message = report["problems"][0]["message"].as_str().expect("a message");
        assert!(message.starts_with("this text comes alone"), "{report}");
        assert!(!report.to_string().contains("root:"), "{report}");
    }
    // With its files it is what a reload would do.
    let included = json!([{ "name": "conf.d/x.toml", "text": public("/x") }]);
    let sent = json!({ "text": text, "included": included });
    let report = scene.sidecar.admin_ok("/check", &sent).await;
    assert_eq!(report["changes"][0]["what"], "route /x", "{report}");
    // The command sends them.
    let out = Command::new(env!("CARGO_BIN_EXE_sidecache"))
        .args(["check", "--against", "running"])
        .arg(&scene.sidecar.file)
        .arg("--admin")
        .arg(format!("http://{}", scene.sidecar.admin))
        .output()
        .expect("the binary was built with the tests");
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && told.contains("route /a"), "{told}");
    assert!(told.contains("proxy.toml and 1 included file: ok"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1293_rules_at_one_line_of_two_files_are_told_apart() {
    let scene = scene().await;
    write_main(&scene, INCLUDE, "");
    let purges =
        |path: &str, tag: &str| format!("[[purges]]\npath = \"{path}\"\ntags = [\"{tag}\"]\n");
    let tagged = |path: &str| format!("{}tags = [\"{}\"]\n", public(path), &path[1..]);
    write(&scene, "conf.d/a.toml", &format!("{}{}", purges("/wa", "a"), tagged("/a")));
    write(&scene, "conf.d/b.toml", &format!("{}{}", purges("/wb", "b"), tagged("/b")));
    reload(&scene).await;
    for read in ["/a", "/b"] {
        scene.fill(read).await;
    }
    let explained = scene
        .sidecar
        .admin_ok("/explain", &json!({ "method": "POST", "target": "/wb" }))
        .await
        .to_string();
    assert!(
        explained.contains("at line 1 of ") && explained.contains("conf.d/b.toml"),
        "{explained}"
    );
    assert!(!explained.contains("conf.d/a.toml"), "{explained}");
    scene.send("POST", "/wb", &[], "").await;
    assert_cache(&scene.get("/a").await, "HIT", "another rule's tag");
    assert_cache(&scene.get("/b").await, "MISS", "its tag was purged");

    let rules = scene.sidecar.admin_get("/routes").await.json();
    let files: Vec<_> = rules["routes"].as_array().expect("routes").iter().collect();
    assert_eq!(files.len(), 2);
    for (route, name) in files.iter().zip(["conf.d/a.toml", "conf.d/b.toml"]) {
        let file = route["file"].as_str().expect("a file");
        assert!(file.ends_with(name) && route["line"] == 4, "{rules}");
    }
    assert!(rules["purges"][1]["file"].as_str().is_some_and(|file| file.ends_with("b.toml")));
    let stats = scene.sidecar.stats().await;
    assert!(stats["routes"][0]["file"].as_str().is_some_and(|file| file.ends_with("a.toml")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1294_a_route_is_turned_off_in_its_file_although_the_rest_is_refused() {
    let scene = scene().await;
    let head = "[fields]\ntenant = { header = \"x-tenant\" }\n";
    let a = |key: &str, mode: &str| format!("{}key = [{key}]\nmode = \"{mode}\"\n", public("/a"));
    write_main(&scene, INCLUDE, head);
    write(&scene, "conf.d/a.toml", &a("\"tenant\"", "on"));
    write(&scene, "conf.d/b.toml", &public("/b"));
    reload(&scene).await;
    let tenant = [("x-tenant", "t")];
    scene.ask("/a", &tenant).await;
    assert_cache(&scene.ask("/a", &tenant).await, "HIT", "its field is in the key");
    write(&scene, "conf.d/a.toml", &a("", "off"));
    let reply = scene.sidecar.admin_post("/reload", &json!({})).await;
    assert_eq!(reply.status, 422, "others would share the entry");
    assert_cache(&scene.ask("/a", &tenant).await, "BYPASS", "but it is off");
    scene.fill("/b").await;
    assert_cache(&scene.get("/b").await, "HIT", "the other file counts as before");
}
