//! Purges of folders: by a purge rule, by the admin API and by the command line.

use std::time::Duration;

use serde_json::json;

use crate::support::{Origin, RedisServer, Request, Response, Scene, Sidecar, eventually};

/// Reports of which an import changes all.
const REPORTS: &str = r#"
[[routes]]
path  = "/api/{*rest}"
ttl   = "1h"
scope = "public"

[[routes]]
path  = "/other/{*rest}"
ttl   = "1h"
scope = "public"

[[purges]]
path  = "/api/import"
under = "/API/v1/reports"
"#;

fn app(_: &Request) -> Response {
    Response::ok("x")
}

async fn cache(scene: &Scene, path: &str) -> String {
    scene.get(path).await.cache().to_owned()
}

async fn fill(scene: &Scene, paths: &[&str]) {
    for path in paths {
        let is_hit = async || cache(scene, path).await == "HIT";
        eventually(&format!("{path} is stored"), Duration::from_secs(30), is_hit).await;
    }
}

/// Which of these are still stored.
async fn left<'a>(scene: &Scene, paths: &[&'a str]) -> Vec<&'a str> {
    let mut left = Vec::new();
    for path in paths {
        if cache(scene, path).await == "HIT" {
            left.push(*path);
        }
    }
    left
}

const INSIDE: [&str; 5] = [
    "/api/v1/reports",
    "/api/v1/reports/",
    "/api/v1/reports/7?x=1",
    "/api/v1/reports/2024/a/b/c.json",
    "/api/v1/%72eports/8",
];
const OUTSIDE: [&str; 4] =
    ["/api/v1/reports-2024", "/api/v1/users/reports/1", "/api/v1", "/other/api/v1/reports/1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_purges_all_that_is_in_a_folder_and_nothing_beside_it() {
    let redis = RedisServer::start();
    for table in [String::new(), redis.table()] {
        let scene = Scene::start(&format!("{table}\n{REPORTS}"), app).await;
        fill(&scene, &INSIDE).await;
        fill(&scene, &OUTSIDE).await;
        scene.send("POST", "/api/import", &[], "").await;
        assert_eq!(left(&scene, &INSIDE).await, [""; 0]);
        assert_eq!(left(&scene, &OUTSIDE).await, OUTSIDE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_purges_folders_that_entries_carry() {
    let scene = Scene::start(REPORTS, app).await;
    let host = "http://app.test";
    let named = json!({ "under": [format!("{host}/api/v1/reports/")] });
    fill(&scene, &INSIDE).await;
    fill(&scene, &OUTSIDE).await;
    scene.sidecar.admin_ok("/purge", &named).await;
    assert_eq!(left(&scene, &INSIDE).await, [""; 0]);
    assert_eq!(left(&scene, &OUTSIDE).await, OUTSIDE);
    // What no entry carries would purge nothing.
    for (url, why) in [
        (format!("{host}/api/v1/"), "no entry carries the folder"),
        (format!("{host}/"), "is every path"),
        (format!("{host}/1/2/3/4/5/"), "5 segments"),
        (format!("{host}/a/*"), "not plain text"),
        ("/api/v1/reports/".to_owned(), "not the URL of a folder"),
    ] {
        let refused = scene.sidecar.admin_post("/purge", &json!({ "under": [url] })).await;
        assert_eq!(refused.status, 400, "{url}");
        assert!(refused.text().contains(why), "{url}: {}", refused.text());
    }
    let both = json!({ "under": [host], "everything": true });
    assert_eq!(scene.sidecar.admin_post("/purge", &both).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_folders_any_of_the_first_four_may_be_purged() {
    let rules = format!("[tags]\nfolders = true\n{REPORTS}");
    let scene = Scene::start(&rules, app).await;
    let host = "http://app.test";
    for (folder, gone) in [("/api/v1/users/", &OUTSIDE[1..2]), ("/other/", &OUTSIDE[3..])] {
        fill(&scene, &OUTSIDE).await;
        let named = json!({ "under": [format!("{host}{folder}")] });
        scene.sidecar.admin_ok("/purge", &named).await;
        let left = left(&scene, &OUTSIDE).await;
        for path in OUTSIDE {
            assert_eq!(left.contains(&path), !gone.contains(&path), "{folder}: {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_from_before_a_folder_was_named_are_not_served() {
    let plain = REPORTS.replace("under = \"/API/v1/reports\"", "tags = [\"none\"]");
    let scene = Scene::start(&plain, app).await;
    fill(&scene, &["/api/v1/reports/7", "/other/x"]).await;
    scene.sidecar.rewrite(REPORTS);
    // The entry of the route that the rule does not reach stays.
    let is_gone = async || cache(&scene, "/api/v1/reports/7").await == "MISS";
    eventually("the entry lacks the folder", Duration::from_secs(30), is_gone).await;
    assert_eq!(cache(&scene, "/other/x").await, "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_a_folder_reaches_other_sidecars() {
    let redis = RedisServer::start();
    let origin = Origin::start(app);
    let rules = format!("{}\n{REPORTS}", redis.table());
    let hosts = [("[upstream]", "host_key = \"app.test\"")];
    let clock = sidecache::app::Clock::system;
    let one = Sidecar::start_with(clock(), origin.address, &hosts, &rules).await;
    let two = Sidecar::start_with(clock(), origin.address, &hosts, &rules).await;
    let get = async |sidecar: &Sidecar| {
        let mut client = crate::support::Client::new(sidecar.address);
        client.get("/api/v1/reports/7", &[]).await.cache().to_owned()
    };
    for sidecar in [&one, &two] {
        let is_hit = async || get(sidecar).await == "HIT";
        eventually("both have it", Duration::from_secs(30), is_hit).await;
    }
    let before = origin.count("GET", "/api/v1/reports/7");
    let under = json!({ "under": ["http://app.test/api/v1/reports/"] });
    two.admin_ok("/purge", &under).await;
    get(&one).await;
    assert!(origin.count("GET", "/api/v1/reports/7") > before, "it was fetched anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1059_the_page_of_a_folder_with_an_extension_is_in_it() {
    for (folder, inside) in [
        ("/index.php/", "/index.php"),
        ("/index.php", "/index.php/a/b"),
        ("/a/list.json/", "/a/list.json"),
        ("/a/list/", "/a/list.json"),
    ] {
        let rules = format!(
            "[[routes]]\npath = \"/{{*rest}}\"\nttl = \"1h\"\nscope = \"public\"\n\
             [[purges]]\npath = \"/import\"\nunder = \"{folder}\"\n"
        );
        let scene = Scene::start(&rules, app).await;
        fill(&scene, &[inside, "/other.php"]).await;
        assert_eq!(scene.send("POST", "/import", &[], "").await.status, 200);
        assert_ne!(cache(&scene, inside).await, "HIT", "{inside} in {folder}");
        assert_eq!(cache(&scene, "/other.php").await, "HIT", "{folder}");
    }
}
