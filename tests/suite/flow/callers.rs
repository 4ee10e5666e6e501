//! What tells callers apart: cookies that a pattern names, the address behind a trusted proxy; and
//! which cookies are removed from stored responses.

use crate::support::{Client, Origin, Response, Sidecar};

/// A route of these settings, after these tables.
fn rules(tables: &str, settings: &str) -> String {
    format!("{tables}\n[[routes]]\npath = \"/a/{{id}}\"\nttl = \"5m\"\n{settings}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_told_apart_by_a_cookie_that_a_pattern_names() {
    let app = Origin::start(|request| {
        let cookies = request.header("cookie").unwrap_or_default();
        let user =
            cookies.split("; ").find_map(|pair| pair.strip_prefix("wordpress_logged_in_0a="));
        Response::ok(match user {
            Some("admin") => "admin",
            Some("editor") => "editor",
            _ => "guest",
        })
    });
    let tables = "[credential]\ncookies = [\"wordpress_logged_in_*\"]\n";
    let sidecar = Sidecar::start(app.address, &rules(tables, "scope = \"private\"")).await;
    let mut client = Client::new(sidecar.address);
    for (cookie, expected) in [
        ("x=1", ("MISS", "guest")),
        ("wordpress_logged_in_0a=admin", ("MISS", "admin")),
        ("wordpress_logged_in_0a=editor", ("MISS", "editor")),
        ("wordpress_logged_in_0a=admin", ("HIT", "admin")),
    ] {
        let reply = client.get("/a/1", &[("cookie", cookie)]).await;
        assert_eq!((reply.cache(), reply.text()), expected, "{cookie}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_stored_only_if_a_list_names_every_cookie_that_it_sets() {
    let app = Origin::start(|request| {
        let response = Response::ok("hello").header("set-cookie", "pref_lang=de; Path=/");
        match request.target.as_str() {
            "/a/token" => response.header("set-cookie", "csrftoken=1"),
            _ => response,
        }
    });
    let settings = "scope = \"public\"\nstrip_set_cookie = [\"_ga\", \"pref_*\"]";
    let sidecar = Sidecar::start(app.address, &rules("", settings)).await;
    let mut client = Client::new(sidecar.address);
    let filled = client.get("/a/plain", &[]).await;
    assert_eq!((filled.cache(), filled.header("set-cookie")), ("MISS", "pref_lang=de; Path=/"));
    let stored = client.get("/a/plain", &[]).await;
    assert_eq!((stored.cache(), stored.header("set-cookie")), ("HIT", ""));
    for _ in 0..2 {
        let reply = client.get("/a/token", &[]).await;
        assert!(reply.cache() != "HIT" && reply.header("set-cookie").contains("pref_lang"));
    }
    assert_eq!(app.count("GET", "/a/token"), 2, "its token belongs to one caller");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_cookies_are_stripped_only_for_callers_with_a_credential() {
    let app = Origin::start(|_| Response::ok("form").header("set-cookie", "csrftoken=1"));
    let settings = "scope = \"private\"\nstrip_set_cookie = true";
    let sidecar = Sidecar::start(app.address, &rules("", settings)).await;
    let mut client = Client::new(sidecar.address);
    for _ in 0..2 {
        let stranger = client.get("/a/1", &[]).await;
        assert_eq!(stranger.header("set-cookie"), "csrftoken=1", "or the form cannot be sent");
    }
    assert_eq!(app.count("GET", "/a/1"), 2);
    let token = [("authorization", "Bearer a")];
    assert_eq!(client.get("/a/1", &token).await.cache(), "MISS");
    let stored = client.get("/a/1", &token).await;
    assert_eq!((stored.cache(), stored.header("set-cookie")), ("HIT", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_network_is_in_the_key_where_a_field_says_so() {
    let app = Origin::start(|_| Response::ok("hello"));
    let tables = "[fields]\noffice = { client = \"address\", prefix = \"/24\" }\n";
    let settings = "scope = \"public\"\nkey = [\"office\"]";
    let mut cases = vec![
        ("192.0.2.7", "MISS"),
        ("192.0.2.9", "HIT"),
        ("198.51.100.1", "MISS"),
        // What stands before the last address comes from the client itself.
        ("192.0.2.7, 203.0.113.1", "MISS"),
        ("203.0.113.2:4711", "HIT"),
        ("2001:db8:0:1::1", "MISS"),
        ("2001:db8:0:ff::2", "HIT"),
        ("2001:db8:0:100::2", "MISS"),
    ];
    let trusting = Sidecar::start_trusting(app.address, &rules(tables, settings)).await;
    let mut client = Client::new(trusting.address);
    for (chain, expected) in cases.drain(..) {
        let reply = client.get("/a/1", &[("x-forwarded-for", chain)]).await;
        assert_eq!(reply.cache(), expected, "{chain}");
    }
    // A stranger's word about its address does not count.
    let sidecar = Sidecar::start(app.address, &rules(tables, settings)).await;
    let mut client = Client::new(sidecar.address);
    for (chain, expected) in [("192.0.2.7", "MISS"), ("198.51.100.1", "HIT")] {
        let reply = client.get("/a/1", &[("x-forwarded-for", chain)]).await;
        assert_eq!(reply.cache(), expected, "{chain}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_that_no_request_carries_is_told() {
    let app = Origin::start(|_| Response::ok("hello"));
    let tables = "[credential]\ncookies = [\"sid\", \"sessoin\"]\n";
    let sidecar = Sidecar::start(app.address, &rules(tables, "")).await;
    let mut client = Client::new(sidecar.address);
    for id in 0..100 {
        assert_eq!(sidecar.stats().await["cookies"]["unseen"].as_array().map(Vec::len), Some(0));
        let method = if id % 2 == 0 { "GET" } else { "POST" };
        client.send(method, &format!("/a/{id}"), &[("cookie", "sid=x")], "").await;
    }
    let told = serde_json::json!({ "requests": 100, "unseen": ["sessoin"] });
    assert_eq!(sidecar.stats().await["cookies"], told);
    let metrics = sidecar.admin_get("/metrics").await;
    assert!(metrics.text().contains("\nsidecache_credential_cookies_unseen 1"));
    client.get("/a/0", &[("cookie", "sessoin=x; sid=x")]).await;
    assert_eq!(sidecar.stats().await["cookies"]["unseen"].as_array().map(Vec::len), Some(0));
}
