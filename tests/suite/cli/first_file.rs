//! From nothing to a file: `sidecache --upstream`, and `sidecache init`.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::command::CommandLine;
use crate::support::process::free_port;
use crate::support::running::Running;
use crate::support::sidecar::check;
use crate::support::{Origin, Response, eventually};

const UPSTREAM: [&str; 3] = ["init", "--upstream", "http://127.0.0.1:5000"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_without_a_file_serves_at_once_and_caches_nothing() {
    let origin = Origin::start(|request| Response::ok(format!("of {}", request.path)));
    let (listen, admin) = (free_port(), free_port());
    let (listen, admin) = (format!("127.0.0.1:{listen}"), format!("127.0.0.1:{admin}"));
    let upstream = format!("http://{}", origin.address);
    let arguments = ["--upstream", &upstream, "--listen", &listen, "--admin", &admin];
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let running = Running::start_in(folder.path(), &arguments);
    let said = || running.out();
    eventually("it says where it is", Duration::from_secs(30), async || {
        said().contains("without --upstream")
    })
    .await;
    for part in [
        &format!("http://{listen}"),
        &format!("Dashboard: http://{admin}/"),
        &format!("sidecache advise --file --admin http://{admin}"),
        "sidecache init --upstream",
    ] {
        assert!(said().contains(part), "{part} is missing:\n{}", said());
    }
    let client = listen.parse().expect("an address");
    for _ in 0..2 {
        let reply = Client::new(client).get("/a", &[]).await;
        assert_eq!((reply.cache(), reply.text()), ("BYPASS", "of /a"));
    }
    let mut to_admin = Client::of_admin(admin.parse().expect("an address"));
    let page = to_admin.get("/", &[]).await;
    assert_eq!(page.status, 200);
    let json = [("content-type", "application/json")];
    let reload = to_admin.send("POST", "/reload", &json, "{}").await;
    assert_eq!(reload.status, 409, "{}", reload.text());
    assert!(reload.text().contains("there is no file"), "{}", reload.text());
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &admin);
    let reloaded = line.run(&["reload"]).await;
    assert_eq!(reloaded.code, 1);
    assert!(reloaded.err.contains("there is no file") && reloaded.err.contains("sidecache init"));
    let learned: Value = to_admin.get("/learned", &[]).await.json();
    assert!(learned["settings"].as_str().is_some_and(|text| text.contains(&upstream)), "{learned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_on_this_computer_is_trusted_if_all_comes_from_it() {
    let origin = Origin::start(|request| Response::ok(format!("of {}", request.path)));
    let (listen, admin) = (free_port(), free_port());
    let (listen, admin) = (format!("127.0.0.1:{listen}"), format!("127.0.0.1:{admin}"));
    let upstream = format!("http://{}", origin.address);
    let arguments = ["--upstream", &upstream, "--listen", &listen, "--admin", &admin];
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let running = Running::start_in(folder.path(), &arguments);
    eventually("it says where it is", Duration::from_secs(30), async || {
        running.out().contains("without --upstream")
    })
    .await;
    let client = listen.parse().expect("an address");
    let forwarded = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")];
    let read = async || -> Value {
        Client::of_admin(admin.parse().expect("an address")).get("/learned", &[]).await.json()
    };
    let learned = async |requests: u64| {
        eventually("all is counted", Duration::from_secs(30), async || {
            read().await["requests"].as_u64() >= Some(requests)
        })
        .await;
        read().await
    };
    // Something is the same after more than a second.
    let sent = 40;
    for _ in 0..sent {
        Client::new(client).get("/a", &forwarded).await;
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    assert_eq!(learned(sent).await["local_proxy"], true);
    let line = CommandLine::new();
    let advise = ["advise", "--file", "--admin", &admin];
    let said = line.run(&advise).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("trusted_proxies = [\"127.0.0.1\"]"), "{}", said.out);
    assert!(check(&said.out).status.success(), "{}", said.out);
    // One request that says nothing of a client: whoever is on this computer can send more.
    Client::new(client).get("/a", &[]).await;
    let after = learned(sent + 1).await;
    assert_eq!((&after["local_proxy"], &after["rules"]), (&false.into(), &serde_json::json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_line_that_says_two_things_is_refused() {
    let url = ["--upstream", "http://127.0.0.1:5000"];
    let with = |more: &[&'static str]| [&url[..], more].concat();
    let line = CommandLine::new().file("other.toml", "");
    for (arguments, parts) in [
        (with(&["--config", "other.toml"]), &["--config", "other.toml", "leave one"][..]),
        (with(&["stats"]), &["--upstream", "`serve` alone"]),
        (vec!["--listen", "127.0.0.1:1"], &["--upstream <URL>"]),
        (vec!["--upstream", "127.0.0.1:5000"], &["--upstream: ", "allowed: http://HOST", "hint: "]),
        (vec!["--upstream", "ftp://u:hunter2@h"], &["--upstream: ", "allowed: ", "hint: "]),
        (vec!["--upstream", "http://u:hunter2@h"], &["--upstream: ", "user or password"]),
        (vec!["--upstream", "http://h/path"], &["--upstream: ", "path"]),
        (vec!["--upstream", "a\nb"], &["--upstream: ", "control character"]),
        (with(&["--listen", "8080"]), &["--listen: ", "127.0.0.1:8080"]),
        (with(&["--admin", "0.0.0.0:9090"]), &["--admin: ", "token"]),
    ] {
        let said = line.run(&arguments).await;
        assert_ne!(said.code, 0, "{arguments:?}");
        for part in parts {
            assert!(said.err.contains(part), "{arguments:?}: {part} is missing: {}", said.err);
        }
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
    let line = CommandLine::new().file("proxy.toml", "");
    let said = line.run(&url).await;
    assert_eq!(said.code, 64);
    assert!(said.err.contains("there is a proxy.toml in this folder"), "{}", said.err);
    let line = CommandLine::new().variable("SIDECACHE_CONFIG", "x.toml");
    let said = line.run(&url).await;
    assert!(said.err.contains("$SIDECACHE_CONFIG"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_file_passes_check_and_is_never_overwritten() {
    let line = CommandLine::new();
    let said = line.run(&UPSTREAM).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("wrote proxy.toml: 1 route"), "{}", said.out);
    let checked = line.run(&["check", "--deny-warnings", "--offline"]).await;
    assert_eq!(checked.code, 0, "{}", checked.out);
    let before = line.read("proxy.toml");
    for part in
        ["[upstream]", "[listen]", "[admin]", "[[routes]]", "[[purges]]", "mode = \"shadow\""]
    {
        assert!(before.contains(part), "{part}:\n{before}");
    }
    let again = line.run(&UPSTREAM).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("is there already") && again.err.contains("--force"));
    assert_eq!(line.read("proxy.toml"), before);
    let other = [&UPSTREAM[..2], &["http://127.0.0.1:6000", "--force", "--json"]].concat();
    let forced = line.run(&other).await;
    assert_eq!(forced.code, 0, "{}", forced.err);
    let told: Value = serde_json::from_str(&forced.out).expect("JSON");
    assert_eq!(told["file"], "proxy.toml");
    assert!(line.read("proxy.toml").contains(":6000"));
    let bad = line.run(&["init", "--upstream", "5000", "--output", "x.toml"]).await;
    assert_eq!(bad.code, 64);
    assert!(bad.err.contains("--upstream: "), "{}", bad.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_makes_routes_in_shadow_mode() {
    let get = |path: &str| format!("1.2.3.4 - - [t] \"GET {path} HTTP/1.1\" 200 5 \"-\" \"x\"\n");
    let mut log = String::new();
    for at in 0..40 {
        log += &get(&format!("/api/items/{}?page=1&name=hunter2", at % 4));
        log += &get("/login");
        log += &get("/admin/panel");
    }
    log += &get("/api/items/1").replace("GET", "DELETE");
    log += "no request at all\n";
    let line = CommandLine::new().file("access.log", &log);
    let said = line.run(&[&UPSTREAM[..], &["--from", "access.log"]].concat()).await;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("1 unreadable line"), "{}", said.err);
    let text = line.read("proxy.toml");
    assert!(text.contains("path = \"/api/items/{id}\"\nmode = \"shadow\""), "{text}");
    assert!(text.contains("40 reads") && text.contains("1 write"), "{text}");
    assert!(text.contains("/login: a login") && text.contains("/admin/panel: "), "{text}");
    assert!(!text.contains("path = \"/login\"") && !text.contains("hunter2"), "{text}");
    let checked = line.run(&["check", "--deny-warnings", "--offline"]).await;
    assert_eq!(checked.code, 0, "{}", checked.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_makes_routes_in_shadow_mode() {
    let document = r#"{"openapi": "3.0.3", "security": [{"key": []}],
        "components": {"securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}},
        "paths": {
            "/api/items": {"get": {"parameters": [
                {"name": "page", "in": "query"}, {"name": "X-Tenant-Id", "in": "header"}]},
                "post": {}},
            "/api/items/{id}": {"get": {}, "put": {}, "delete": {}},
            "/auth/session": {"get": {}}}}"#;
    let line = CommandLine::new()
        .file("openapi.json", document)
        .file("openapi.yaml", "openapi: 3.0.0\n")
        .file("none.log", "nothing\n");
    let from = |name: &'static str| [&UPSTREAM[..], &["--from", name]].concat();
    let said = line.run(&from("openapi.json")).await;
    assert_eq!(said.code, 0, "{}", said.err);
    let text = line.read("proxy.toml");
    for part in [
        "path = \"/api/items\"\nmode = \"shadow\"",
        "path = \"/api/items/{id}\"\nmode = \"shadow\"",
        "query = [\"page\"]",
        "query = \"none\"",
        "headers = [\"x-api-key\"]",
        "x_tenant_id = { header = \"x-tenant-id\" }",
        "path = \"/api/items/{*rest}\"",
        "PUT, DELETE /api/items/{id}",
        "/auth/session: ",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let checked = line.run(&["check", "--deny-warnings", "--offline"]).await;
    assert_eq!(checked.code, 0, "{}", checked.out);
    for (name, part) in
        [("openapi.yaml", "YAML"), ("none.log", "none of its 1 line"), ("gone", "--from gone")]
    {
        let said = line.run(&[&from(name)[..], &["--output", "new.toml"]].concat()).await;
        assert_eq!(said.code, 64, "{name}");
        assert!(said.err.contains(part), "{name}: {}", said.err);
    }
    assert!(check(&text).status.success());
}
