//! Section 4.1: which requests a stored response may serve.

use super::PUBLIC;
use crate::support::scene::assert_cache;
use crate::support::{Response, Scene};

/// A route that forwards the header on which the tests vary.
const RULES: &str =
    "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\npass_headers = [\"x-v\", \"x-w\"]\n";

/// An origin whose response depends on the header.
async fn scene(rules: &str, vary: &'static [&'static str]) -> Scene {
    Scene::start(rules, move |request| {
        let said = request.header("x-v").unwrap_or_else(|| "(none)".to_owned());
        vary.iter()
            .fold(Response::ok(said).header("cache-control", "max-age=60"), |answer, line| {
                answer.header("vary", line)
            })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_each_variant_has_an_entry_of_its_own() {
    let scene = scene(RULES, &["x-v"]).await;
    let variants: [&[(&str, &str)]; 4] = [&[("x-v", "1")], &[("x-v", "2")], &[], &[("x-v", "")]];
    for expected in ["MISS", "HIT"] {
        for headers in variants {
            let reply = scene.ask("/a", headers).await;
            assert_cache(&reply, expected, &format!("{headers:?}"));
            let said = headers.first().map_or("(none)", |(_, value)| value);
            assert_eq!(reply.text(), said);
        }
    }
    assert_cache(
        &scene.ask("/a", &[("x-v", "1"), ("x-w", "any")]).await,
        "HIT",
        "what is not named does not matter",
    );
    assert_cache(
        &scene.ask("/a", &[("x-v", "1"), ("x-v", "2")]).await,
        "MISS",
        "two lines are another value",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_several_lines_of_vary_count_together() {
    let scene = scene(RULES, &["x-w", "X-V"]).await;
    for expected in ["MISS", "HIT"] {
        for (v, w) in [("1", "1"), ("1", "2"), ("2", "1")] {
            assert_cache(
                &scene.ask("/a", &[("x-v", v), ("x-w", w)]).await,
                expected,
                &format!("{v} {w}"),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_a_star_is_never_reused() {
    for vary in [&["*"][..], &["x-v, *"], &["*, x-v"], &["", "*"], &[", *"], &["x-v", "*"]] {
        let scene = scene(RULES, vary).await;
        scene.fill("/a").await;
        assert_cache(&scene.get("/a").await, "MISS", &format!("{vary:?}"));
        assert_eq!(scene.count("/a"), 2, "{vary:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_values_that_mean_the_same_share_a_variant() {
    let same = [
        ("accept-encoding", "gzip, br", "br,gzip"),
        ("accept-encoding", "gzip", "GZIP;q=1.0"),
        ("accept-language", "en-GB, de;q=0.5", "EN-gb,de;q=0.50"),
        ("accept-language", "de;q=0.5, en", "en, de;q=0.5"),
    ];
    for (name, first, second) in same {
        let scene = Scene::start(PUBLIC, move |_| {
            Response::ok("data").header("cache-control", "max-age=60").header("vary", name)
        })
        .await;
        assert_cache(&scene.ask("/a", &[(name, first)]).await, "MISS", first);
        assert_cache(&scene.ask("/a", &[(name, second)]).await, "HIT", second);
        assert_cache(&scene.get("/a").await, "MISS", "none at all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_the_number_of_variants_is_bounded() {
    let mut hits = Vec::new();
    for limit in [2, 64] {
        let scene = scene(&format!("[limits]\nvariants = {limit}\n{RULES}"), &["x-v"]).await;
        let mut found = 0;
        for round in 0..2 {
            for value in ["a", "b", "c", "d", "e", "f"] {
                let reply = scene.ask("/a", &[("x-v", value)]).await;
                assert_eq!((reply.status, reply.text()), (200, value), "each gets its own");
                found += usize::from(round == 1 && reply.cache() == "HIT");
            }
        }
        hits.push(found);
    }
    assert!(hits[0] <= 2, "{} of at most 2 variants", hits[0]);
    assert_eq!(hits[1], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_a_purge_reaches_every_variant() {
    let scene = scene(RULES, &["x-v"]).await;
    for value in ["1", "2", "3"] {
        scene.ask("/a", &[("x-v", value)]).await;
        assert_cache(&scene.ask("/a", &[("x-v", value)]).await, "HIT", value);
    }
    assert_eq!(scene.send("PUT", "/a", &[], "x").await.status, 200);
    for value in ["1", "2", "3"] {
        assert_cache(&scene.ask("/a", &[("x-v", value)]).await, "MISS", value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_1_each_variant_is_confirmed_by_its_own_validator() {
    let scene = Scene::start(RULES, |request| {
        let tag = format!("\"{}\"", request.header("x-v").unwrap_or_default());
        let status =
            if request.header("if-none-match").as_deref() == Some(&*tag) { 304 } else { 200 };
        let body = if status == 200 { tag.clone() } else { String::new() };
        Response::status(status, body)
            .header("etag", &tag)
            .header("vary", "x-v")
            .header("cache-control", "max-age=0")
    })
    .await;
    for value in ["1", "2"] {
        assert_cache(&scene.ask("/a", &[("x-v", value)]).await, "MISS", value);
    }
    for value in ["1", "2"] {
        let reply = scene.ask("/a", &[("x-v", value)]).await;
        assert_cache(&reply, "REVALIDATED", value);
        assert_eq!(reply.text(), format!("\"{value}\""));
    }
}
