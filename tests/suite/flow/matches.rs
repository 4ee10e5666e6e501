//! Requests of one path that `match` gives to different routes and purge rules.

use crate::support::{Client, Origin, Response, Sidecar};

const RULES: &str = "[[routes]]\npath = \"/index.php\"\nttl = \"5m\"\nscope = \"public\"\nquery = [\"page\"]\n\
    match = { query.action = [\"list\", \"show\"] }\ntags = [\"posts\"]\n\
    [[routes]]\npath = \"/feed\"\nttl = \"5m\"\nscope = \"public\"\ntags = [\"posts\"]\n\
    [[purges]]\npath = \"/index.php\"\nmatch = { query.action = \"save\" }\ntags = [\"posts\"]\n";

fn app() -> Origin {
    Origin::start(|request| {
        // What PHP would show: the last of two.
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let action = query.split('&').rev().find_map(|pair| pair.strip_prefix("action="));
        Response::ok(format!("page of {}", action.unwrap_or("nothing")))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_path_has_several_routes_and_its_writes_purge_them() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut client = Client::new(sidecar.address);
    for action in ["list", "show"] {
        let target = format!("/index.php?x=1&action={action}");
        assert_eq!(client.get(&target, &[]).await.cache(), "MISS");
        let again = client.get(&target, &[]).await;
        assert_eq!(again.cache(), "HIT", "{}", again.cache_status());
        assert_eq!(again.text(), format!("page of {action}"), "no value has the page of another");
    }
    for (target, reason) in [
        ("/index.php", "match not met"),
        ("/index.php?action=save", "match not met"),
        ("/index.php?action=list&action=save", "ambiguous match query.action"),
        ("/index.php?action[]=list", "ambiguous match query.action"),
        ("/index.php?%61ction=list", "ambiguous match query.action"),
    ] {
        for _ in 0..2 {
            let reply = client.get(target, &[]).await;
            assert_eq!(reply.cache(), "BYPASS", "{target}");
            assert!(reply.cache_status().contains(reason), "{target}: {}", reply.cache_status());
        }
    }
    // Writes of another kind purge nothing else, and a disguised one does.
    assert_eq!(client.get("/feed", &[]).await.cache(), "MISS");
    client.send("POST", "/index.php?action=preview", &[], "").await;
    assert_eq!(client.get("/feed", &[]).await.cache(), "HIT");
    client.send("POST", "/index.php?action=preview&%61ction=save", &[], "").await;
    assert_eq!(client.get("/feed", &[]).await.cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_of_one_path_have_names_of_their_own() {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    let mut client = Client::new(sidecar.address);
    client.get("/index.php?action=list", &[]).await;
    let name = "/index.php [query.action=list|show]";
    let routes = sidecar.admin_get("/routes").await;
    assert!(routes.text().contains(name), "{}", routes.text());
    let explained = async |target: &str| {
        let asked = serde_json::json!({ "method": "GET", "target": target });
        sidecar.admin_ok("/explain", &asked).await.to_string()
    };
    let text = explained("/index.php?action=x").await;
    assert!(text.contains(&format!("match of {name}")) && text.contains("not met"), "{text}");
    let text = explained("/index.php?action=list&action=x").await;
    assert!(text.contains("ambiguous: query.action"), "{text}");
    let text = explained("/index.php?action=list").await;
    assert!(text.contains("query.action=list|show (met)"), "{text}");
}
