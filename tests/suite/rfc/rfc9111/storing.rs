//! Sections 3, 3.1, 3.5: which responses may be stored, and which of their fields.

use super::{Lines, PUBLIC, lines, not_reused, public, reused};
use crate::support::scene::assert_cache;
use crate::support::{Response, Scene};

fn fresh() -> Lines {
    lines(&[("cache-control", "max-age=60")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_any_final_status_with_explicit_freshness_is_stored() {
    let statuses = [
        200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 414, 451, 499, 500,
        501, 502, 503, 504, 599,
    ];
    reused(PUBLIC, &statuses.map(|status| (status, fresh()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_nothing_is_reused_without_freshness_or_a_validator() {
    let statuses = [200, 203, 204, 301, 302, 404, 410, 500, 503];
    not_reused(PUBLIC, &statuses.map(|status| (status, Lines::new()))).await;
    not_reused(
        PUBLIC,
        &[
            (200, lines(&[("cache-control", "public")])),
            (404, lines(&[("cache-control", "public")])),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_partial_response_is_never_stored_as_the_whole() {
    let part = lines(&[("cache-control", "max-age=60"), ("content-range", "bytes 0-7/100")]);
    not_reused(PUBLIC, &[(206, part)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_5_2_2_3_must_understand_overrides_no_store_for_known_statuses_alone() {
    let both = lines(&[("cache-control", "no-store, must-understand, max-age=60")]);
    reused(PUBLIC, &[(200, both.clone()), (404, both.clone())]).await;
    not_reused(PUBLIC, &[(299, both.clone()), (599, both)]).await;
    // For an unknown status, a lifetime alone does not suffice.
    not_reused(PUBLIC, &[(299, lines(&[("cache-control", "must-understand, max-age=60")]))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_set_cookie_is_never_replayed() {
    let cookie = lines(&[("cache-control", "public, max-age=60"), ("set-cookie", "session=1")]);
    not_reused(PUBLIC, &[(200, cookie)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_1_fields_of_one_connection_are_not_stored() {
    let scene = Scene::start(PUBLIC, |_| {
        let fields = [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("x-end", "2"),
        ];
        fields.iter().fold(
            Response::ok("data").header("cache-control", "max-age=60"),
            |answer, (name, value)| answer.header(name, value),
        )
    })
    .await;
    scene.fill("/a").await;
    let hit = scene.get("/a").await;
    assert_cache(&hit, "HIT", "the second");
    assert_eq!(hit.header("x-end"), "2");
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert!(!hit.headers.contains_key(gone), "{gone}");
    }
}

/// On a route of scope `shared` the key does not contain the credential; without a `ttl` the route
/// is a plain shared cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_5_an_answer_to_authorization_is_shared_only_with_the_apps_word() {
    let rules = "[[routes]]\npath = \"/{*rest}\"\nscope = \"shared\"\n";
    let words = [
        "max-age=60",
        "max-age=60, proxy-revalidate",
        "max-age=60, public",
        "s-maxage=60",
        "max-age=60, must-revalidate",
    ];
    let scene = Scene::start(rules, move |request| {
        let index: usize = request.path[1..].parse().expect("the path is a number");
        Response::ok("data").header("cache-control", words[index])
    })
    .await;
    for (index, word) in words.iter().enumerate() {
        let path = format!("/{index}");
        let user = [("authorization", "Bearer alice")];
        assert_cache(&scene.ask(&path, &user).await, "MISS", word);
        let again = scene.ask(&path, &user).await;
        let permitted = index >= 2;
        assert_eq!(again.cache() == "HIT", permitted, "{word}: {}", again.header("cache-status"));
        // Other callers are served only after the origin itself has responded to them.
        let asked = scene.count(&path);
        // A client is authorized for a whole route, so each case needs a caller of its own.
        let bob = format!("Bearer bob {index}");
        let other = scene.ask(&path, &[("authorization", &bob)]).await;
        assert_ne!(other.cache(), "HIT", "{word}: {}", other.header("cache-status"));
        assert_eq!(scene.count(&path), asked + 1, "{word}");
    }
}

/// RFC 9110 9.3.3: a POST whose response declares itself to be that of a GET of the same target,
/// with a lifetime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_post_that_names_its_own_target_answers_later_gets() {
    let scene = Scene::start(PUBLIC, |request| {
        let answer =
            Response::ok(format!("to {}", request.method)).header("cache-control", "max-age=60");
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/own") => answer.header("content-location", "/own"),
            ("POST", "/other") => answer.header("content-location", "/elsewhere"),
            _ => answer,
        }
    })
    .await;
    for path in ["/own", "/other", "/none"] {
        assert_eq!(scene.send("POST", path, &[], "x").await.text(), "to POST");
    }
    for path in ["/other", "/none", "/elsewhere"] {
        assert_eq!(scene.get(path).await.text(), "to GET", "{path}");
    }
    let own = scene.get("/own").await;
    assert!(["to POST", "to GET"].contains(&own.text()));
    assert_eq!(own.text() == "to POST", own.cache() == "HIT", "{}", own.header("cache-status"));
    // A POST is never served from the cache.
    let posts = scene.count("/own");
    assert_ne!(scene.send("POST", "/own", &[], "x").await.cache(), "HIT");
    assert_eq!(scene.count("/own"), posts + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_a_private_route_stores_for_one_credential_alone() {
    let scene = Scene::start("[[routes]]\npath = \"/{*rest}\"\n", |request| {
        Response::ok(request.header("authorization").unwrap_or_default())
            .header("cache-control", "max-age=60")
    })
    .await;
    for who in ["Bearer alice", "Bearer bob"] {
        assert_cache(&scene.ask("/a", &[("authorization", who)]).await, "MISS", who);
        let again = scene.ask("/a", &[("authorization", who)]).await;
        assert_cache(&again, "HIT", who);
        assert_eq!(again.text(), who);
    }
    assert_cache(&scene.get("/a").await, "MISS", "nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_the_routes_ttl_counts_where_the_app_states_no_freshness() {
    let rules = public("ttl = \"5m\"");
    let states_none = [
        Lines::new(),
        lines(&[("cache-control", "public")]),
        lines(&[("cache-control", "must-revalidate")]),
    ];
    reused(&rules, &states_none.map(|lines| (200, lines))).await;
    let states_another = [
        lines(&[("cache-control", "max-age=0")]),
        lines(&[("expires", "0")]),
        lines(&[("cache-control", "no-store")]),
    ];
    not_reused(&rules, &states_another.map(|lines| (200, lines))).await;
}
