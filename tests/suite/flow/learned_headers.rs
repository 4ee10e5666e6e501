//! Headers that a route has learned from `Vary`: they are shown, and their number is bounded.

use crate::support::{Request, Response, Scene};

/// More than a route learns.
const NAMES: [&str; 12] = [
    "user-agent",
    "referer",
    "dnt",
    "save-data",
    "priority",
    "sec-gpc",
    "sec-ch-ua",
    "sec-fetch-mode",
    "accept-charset",
    "sec-fetch-site",
    "x-shop",
    "upgrade-insecure-requests",
];

/// How many a route learns.
const MOST: usize = 8;

const RULES: &str = "[[routes]]\npath = \"/{*rest}\"\nttl = \"5m\"\nscope = \"public\"\n";

/// Answers by the header that the path names, and says so.
fn literal(request: &Request) -> Response {
    let name = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    Response::ok(request.header(name).unwrap_or_else(|| "none".to_owned())).header("vary", name)
}

async fn scene() -> Scene {
    Scene::start(RULES, literal).await
}

async fn limit_reached(scene: &Scene) -> u64 {
    let metrics = scene.sidecar.admin_get("/metrics").await.text().to_owned();
    let series = "sidecache_limit_reached_total{limit=\"route.learned\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series} is not in {metrics}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_route_has_learned_is_shown() {
    let scene = scene().await;
    let learned = async || {
        let routes = scene.sidecar.admin_get("/routes").await.json();
        let (of_rules, of_stats) = (
            routes["routes"][0]["learned_headers"].clone(),
            scene.sidecar.stats().await["routes"][0]["learned_headers"].clone(),
        );
        assert_eq!(of_rules, of_stats);
        of_rules
    };
    assert_eq!(learned().await, serde_json::json!([]));
    for name in ["user-agent", "dnt"] {
        scene.ask(&format!("/{name}"), &[(name, "1")]).await;
    }
    assert_eq!(learned().await, serde_json::json!(["user-agent", "dnt"]));
    assert_eq!(limit_reached(&scene).await, 0);
    let asked = serde_json::json!({ "method": "GET", "target": "/x", "headers": [] });
    let explained = scene.sidecar.admin_ok("/explain", &asked).await;
    let line = serde_json::json!({ "name": "learned from Vary", "value": "user-agent, dnt" });
    assert!(explained["lines"].as_array().expect("lines").contains(&line), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_requests_pass_and_nothing_is_stored_wrongly() {
    let scene = scene().await;
    for name in NAMES {
        scene.ask(&format!("/{name}/first"), &[(name, "1")]).await;
    }
    let routes = scene.sidecar.admin_get("/routes").await.json();
    let learned = routes["routes"][0]["learned_headers"].clone();
    assert_eq!(learned, serde_json::json!(NAMES[..MOST]), "no more, in whatever order they came");
    assert!(limit_reached(&scene).await >= (NAMES.len() - MOST) as u64);

    for (at, name) in NAMES.into_iter().enumerate() {
        let path = format!("/{name}/second");
        for round in 0..3 {
            for value in ["one", "two"] {
                let reply = scene.ask(&path, &[(name, value)]).await;
                let told = format!("{name} {value} {round}: {}", reply.cache_status());
                assert_eq!(reply.text(), value, "each client gets an answer to its own: {told}");
                let expected = match (at < MOST, round) {
                    (true, 0) => "MISS",
                    (true, _) => "HIT",
                    (false, _) => "BYPASS",
                };
                assert_eq!(reply.cache(), expected, "{told}");
            }
        }
        // Requests without the header share what is stored for them, and that alone. On a fill the
        // agent is a constant.
        let bare = scene.ask(&path, &[]).await;
        assert!(!["one", "two"].contains(&bare.text()), "{name}: {}", bare.text());
    }

    // However many names come, the route remembers no more.
    let before = limit_reached(&scene).await;
    for at in 0..200 {
        let name = format!("sec-ch-made-up-{at}");
        let reply = scene.ask(&format!("/{name}"), &[(&name, "1")]).await;
        assert_eq!((reply.text(), reply.cache()), ("1", "BYPASS"), "{name}");
    }
    assert_eq!(limit_reached(&scene).await, before + 200);
    let routes = scene.sidecar.admin_get("/routes").await.json();
    assert_eq!(routes["routes"][0]["learned_headers"], learned);
}
