//! `PURGE` and `BAN` as plugins send them, where `[purge_requests]` takes them.

use std::time::Duration;

use crate::support::{Client, Reply, Request, Response, Scene, eventually};

const ROUTE: &str = r#"
[[routes]]
path  = "/{*rest}"
ttl   = "1h"
scope = "public"
"#;

/// From this machine, which is where the tests are.
const LOCAL: &str = "[purge_requests]\nfrom = [\"127.0.0.1\"]\n";

fn app(request: &Request) -> Response {
    let tags = format!("node:{} all", request.path.rsplit('/').next().unwrap_or_default());
    Response::ok("x").header("surrogate-key", &tags)
}

async fn scene(section: &str) -> Scene {
    Scene::start(&format!("{section}\n{ROUTE}"), app).await
}

async fn fill(scene: &Scene, paths: &[&str]) {
    for path in paths {
        let is_hit = async || scene.get(path).await.cache() == "HIT";
        eventually(&format!("{path} is stored"), Duration::from_secs(30), is_hit).await;
    }
}

async fn is_stored(scene: &Scene, path: &str) -> bool {
    scene.get(path).await.cache() == "HIT"
}

async fn send(scene: &Scene, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    scene.send(method, path, headers, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_section_the_app_gets_them() {
    let scene = scene("").await;
    fill(&scene, &["/a/1", "/a/2"]).await;
    for method in ["PURGE", "BAN"] {
        assert_eq!(send(&scene, method, "/a/9", &[("xkey", "all")]).await.status, 200);
        assert_eq!(scene.last("/a/9").method, method);
    }
    assert!(is_stored(&scene, "/a/1").await && is_stored(&scene, "/a/2").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_purged_and_the_app_hears_nothing_of_it() {
    let scene = scene(LOCAL).await;
    for method in ["PURGE", "BAN"] {
        fill(&scene, &["/a/1?x=1", "/a/2"]).await;
        let purged = send(&scene, method, "/a/1", &[]).await;
        assert_eq!(purged.status, 200, "{method}: {}", purged.text());
        assert!(purged.cache_status().contains("purge request"), "{}", purged.cache_status());
        assert!(!is_stored(&scene, "/a/1?x=1").await && is_stored(&scene, "/a/2").await);
        // As Varnish says it, to which plugins are used.
        assert_eq!(send(&scene, method, "/nothing", &[]).await.status, 404);
    }
    let methods = scene.origin.requests().into_iter().map(|request| request.method.to_string());
    assert!(methods.into_iter().all(|method| method == "GET"));
    let metrics = scene.sidecar.admin_get("/metrics").await;
    let counted = "sidecache_purges_total{by=\"request\",kind=\"hard\"} 4";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_folders_are_purged_and_other_expressions_refused() {
    let scene = scene(LOCAL).await;
    let paths = ["/a/1", "/a/b/2", "/c/3"];
    for (method, path, headers, gone) in [
        ("BAN", "/", &[("cache-tags", "node:1 node:3")][..], &["/a/1", "/c/3"][..]),
        ("PURGE", "/", &[("xkey", "node:2")], &["/a/b/2"]),
        ("BAN", "/", &[("x-purge-regex", "^/a/.*")], &["/a/1", "/a/b/2"]),
        ("PURGE", "/a/b/.*", &[("x-purge-method", "regex")], &["/a/b/2"]),
        ("PURGE", "/.*", &[("x-purge-method", "regex")], &paths),
    ] {
        fill(&scene, &paths).await;
        let purged = send(&scene, method, path, headers).await;
        assert_eq!(purged.status, 200, "{headers:?}: {}", purged.text());
        for path in paths {
            assert_eq!(!is_stored(&scene, path).await, gone.contains(&path), "{headers:?} {path}");
        }
    }
    fill(&scene, &paths).await;
    let refused = send(&scene, "BAN", "/", &[("x-purge-regex", "^/(a|c)/.*")]).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("plain text"), "{}", refused.text());
    for path in paths {
        assert!(is_stored(&scene, path).await, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_counted() {
    let token = "token = \"0123456789abcdef\"\n";
    for (section, right) in [
        ("[purge_requests]\nfrom = [\"10.0.0.0/8\"]\n".to_owned(), None),
        (format!("[purge_requests]\n{token}"), Some(("x-purge-token", "0123456789abcdef"))),
        (format!("{LOCAL}{token}"), Some(("x-purge-token", "0123456789abcdef"))),
    ] {
        let scene = scene(&section).await;
        fill(&scene, &["/a/1"]).await;
        for headers in [&[][..], &[("x-purge-token", "wrong")], &[("x-forwarded-for", "10.0.0.1")]]
        {
            let refused = send(&scene, "PURGE", "/a/1", headers).await;
            assert_eq!(refused.status, 403, "{section}: {headers:?}");
            let status = refused.cache_status();
            assert!(status.contains("purge refused"), "{status}");
            assert!(is_stored(&scene, "/a/1").await, "{section}: {headers:?}");
        }
        let metrics = scene.sidecar.admin_get("/metrics").await;
        let counted = "sidecache_purge_requests_refused_total 3";
        assert!(metrics.text().contains(counted), "{section}");
        if let Some(right) = right {
            assert_eq!(send(&scene, "PURGE", "/a/1", &[right]).await.status, 200, "{section}");
            assert!(!is_stored(&scene, "/a/1").await, "{section}");
        }
        assert_eq!(scene.count("/a/1"), 1 + usize::from(right.is_some()), "no PURGE went through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_the_client_counts_and_not_the_proxy() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    let rules = format!("[purge_requests]\nfrom = [\"127.0.0.1\", \"10.0.0.0/8\"]\n{ROUTE}");
    let scene = Scene::start_with(&trusted, &rules, app).await;
    fill(&scene, &["/a/1"]).await;
    for (headers, status) in [
        (&[][..], 403),
        (&[("x-forwarded-for", "192.0.2.1")], 403),
        (&[("x-forwarded-for", "10.1.2.3")], 200),
    ] {
        assert_eq!(send(&scene, "PURGE", "/a/1", headers).await.status, status, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_clients_send_them_too() {
    let scene = scene(LOCAL).await;
    fill(&scene, &["/a/1"]).await;
    let mut client = Client::http2(scene.sidecar.address);
    assert_eq!(client.send("PURGE", "/a/1", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1062_a_request_that_any_proxy_has_carried_comes_from_nobody() {
    let scene = scene(LOCAL).await;
    fill(&scene, &["/a/1"]).await;
    for name in [
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "cf-ray",
        "cf-connecting-ip",
        "cdn-loop",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-amzn-trace-id",
        "x-envoy-external-address",
        "fastly-client-ip",
        "x-original-host",
    ] {
        let refused = send(&scene, "PURGE", "/a/1", &[(name, "127.0.0.1")]).await;
        assert_eq!(refused.status, 403, "{name}");
    }
    assert!(is_stored(&scene, "/a/1").await);
}
