//! Regressions of what is suggested, and of reloads that let more callers share.

use serde_json::json;

use super::suggestions::suggested;
use crate::support::scene::assert_cache;
use crate::support::{Response, Scene};

/// What is said of the reasons of the only route.
async fn why(scene: &Scene) -> String {
    let stats = scene.sidecar.stats().await;
    let reasons = stats["routes"][0]["reasons"].as_array().expect("reasons").iter();
    reasons.filter_map(|reason| reason["why"].as_str()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r970_a_credential_is_not_suggested_where_none_chooses_an_entry() {
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"1m\"\nscope = \"shared\"\n\
        admit = \"route\" # check: ok\nquery = \"none\"\n";
    let scene = Scene::start(rules, |request| {
        Response::ok(request.header("x-api-key").unwrap_or_else(|| "nobody".to_owned()))
    })
    .await;
    for key in ["one", "two"] {
        scene.ask("/d", &[("x-api-key", key)]).await;
    }
    assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());
    // By hand it would have given `one` what the app said to `two`.
    scene.sidecar.rewrite(&format!("[credential]\nheaders = [\"x-api-key\"]\n{rules}"));
    let refused = scene.sidecar.admin_post("/reload", &json!({})).await.json();
    assert_eq!(refused["ok"], false, "{refused}");
    assert!(refused["text"].as_str().is_some_and(|text| text.contains("`x-api-key`")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r971_a_reload_widens_by_no_side_door() {
    let route = |rest: &str| format!("[[routes]]\npath = \"/d\"\nttl = \"1m\"\n{rest}\n");
    let keyed = "[credential]\nheaders = [\"x-api-key\"]\n";
    let pass = "unknown_headers = \"pass\"";
    let all = "scope = \"shared\"\nadmit = \"route\"\nquery = \"none\"";
    let cookies = |list: &str| format!("[credential]\ncookies = {list}\n");
    let own = "[[routes]]\npath = \"/{*rest}\"\nttl = \"1m\"\n";
    let public = "scope = \"public\"";
    let any_case = "scope = \"public\"\ncase = \"ignore\"";
    for (before, after) in [
        // What had a rule of its own is passed by `unknown_headers` without it.
        (keyed.to_owned() + &route(pass), route(pass)),
        (route(&format!("{pass}\ndrop_headers = [\"x-odd\"]")), route(pass)),
        // What was in the key chooses no entry as a part of the credential.
        (cookies("[\"sid\"]") + &route(all), cookies("[\"sid\", \"account\"]") + &route(all)),
        (cookies("[\"sid\"]") + &route(all), route(all)),
        (route(all), keyed.to_owned() + &route(all)),
        // Another spelling of a path has another route.
        (route(public) + own, route(any_case) + own),
        // The body of a response that sets a session is that session's.
        (route(""), route("strip_set_cookie = [\"*\"]")),
        (route(public), route("scope = \"public\"\nstrip_set_cookie = [\"connect.sid\"]")),
    ] {
        let scene = Scene::start(&before, |_| Response::ok("data")).await;
        scene.sidecar.rewrite(&after);
        let refused = scene.sidecar.admin_post("/reload", &json!({})).await.json();
        assert_eq!(refused["ok"], false, "{before}\nto\n{after}: {refused}");
        scene.sidecar.rewrite(&after.replace("[[routes]]", "[[routes]] # check: ok"));
        scene.sidecar.admin_ok("/reload", &json!({})).await;
        scene.sidecar.rewrite(&before);
        scene.sidecar.admin_ok("/reload", &json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r972_no_field_is_suggested_that_would_refuse_the_request() {
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"1m\"\n";
    for connection in ["keep-alive", "x-odd"] {
        let scene = Scene::start(rules, |_| Response::ok("data")).await;
        let twice = [("x-odd", "1"), ("x-odd", "2"), ("connection", connection)];
        let headers = if connection == "x-odd" { &twice[1..] } else { &twice[..] };
        let reply = scene.ask("/d", headers).await;
        assert_cache(&reply, "BYPASS", "an unknown header");
        assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new(), "{connection}");
        let why = why(&scene).await;
        assert!(why.contains("x-odd comes more than once"), "{connection}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r973_what_changes_nothing_is_not_suggested() {
    let rules = "[[routes]]\npath = \"/d\"\nttl = \"1m\"\n";
    // Each request has another header besides, which no line is safe for.
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let both = [("x-odd", "1"), ("x-forwarded-host", "a.test")];
    scene.ask("/d", &both).await;
    assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());
    let said = why(&scene).await;
    assert!(said.contains("All of these requests have x-forwarded-host"), "{said}");
    scene.ask("/d", &both[..1]).await;
    let diffs = suggested(&scene.sidecar).await;
    assert!(diffs.len() == 1 && diffs[0].contains("x-odd"), "one request is helped: {diffs:?}");

    // The rules have spoken of it since.
    scene.sidecar.rewrite(&format!("{rules}unknown_headers = \"drop\"\n"));
    scene.sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());

    // The field that reads the parameter is ambiguous whatever else counts.
    let fields = "[fields]\npage = { query = \"page\" }\n";
    let rules = format!("{fields}{rules}key = [\"page\"]\nquery = [\"page\"]\n");
    let scene = Scene::start(&rules, |_| Response::ok("data")).await;
    let reply = scene.get("/d?page=1&page=2").await;
    assert!(reply.cache_status().contains("ambiguous query"), "{}", reply.cache_status());
    assert_eq!(suggested(&scene.sidecar).await, Vec::<String>::new());
}
