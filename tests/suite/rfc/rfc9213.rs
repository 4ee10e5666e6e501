//! RFC 9213: targeted fields, `CDN-Cache-Control` in particular.

use crate::support::scene::{assert_cache, date};
use crate::support::{Response, Scene};

const ROUTE: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\n";

type Lines = Vec<(&'static str, String)>;

fn lines(lines: &[(&'static str, &str)]) -> Lines {
    lines.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// Requests a response with each of these lines twice: whether the second one came from the cache.
async fn assert_reused(rules: &str, expected: bool, cases: &[Lines]) {
    let answers = cases.to_vec();
    let scene = Scene::start(rules, move |request| {
        let index: usize = request.path[1..].parse().expect("the path is a number");
        answers[index]
            .iter()
            .fold(Response::ok("data"), |answer, (name, value)| answer.header(name, value))
    })
    .await;
    for (index, case) in cases.iter().enumerate() {
        let path = format!("/{index}");
        for reply in [scene.fill(&path).await, scene.get(&path).await] {
            for (name, value) in case {
                let kept: Vec<_> = reply
                    .headers
                    .get_all(*name)
                    .iter()
                    .map(|value| value.to_str().expect("text"))
                    .collect();
                assert!(kept.contains(&&**value), "s3.1: {name} stays in the response: {kept:?}");
            }
        }
        let reply = scene.get(&path).await;
        assert_eq!(reply.cache() == "HIT", expected, "{case:?}: {}", reply.cache_status());
        assert_eq!(reply.text(), "data");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_2_a_targeted_field_outranks_cache_control_and_expires() {
    let (later, earlier) = (date(1_000), date(-1_000));
    let reused = [
        vec![("cdn-cache-control", "max-age=60")],
        vec![("cdn-cache-control", "max-age=99999999999")],
        vec![("cdn-cache-control", "max-age=2147483648")],
        vec![("cdn-cache-control", "max-age=60, foobar")],
        vec![("cdn-cache-control", "foobar;a=1, max-age=60;b=2")],
        vec![("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=0")],
        vec![("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")],
        vec![("cdn-cache-control", "max-age=60"), ("cache-control", "private, no-cache")],
        vec![("cdn-cache-control", "max-age=60"), ("expires", &earlier)],
        vec![("cdn-cache-control", "max-age=60"), ("expires", "0")],
        vec![("cdn-cache-control", "max-age=60, foo"), ("cdn-cache-control", "bar")],
        // RFC 9651 3.2: the last value of a repeated key counts.
        vec![("cdn-cache-control", "max-age=0, max-age=60")],
    ];
    assert_reused(ROUTE, true, &reused.map(|case| lines(&case))).await;
    let not_reused = [
        vec![("cdn-cache-control", "max-age=0")],
        vec![("cdn-cache-control", "max-age=0"), ("cache-control", "max-age=60")],
        vec![("cdn-cache-control", "max-age=0"), ("expires", &*later)],
        vec![
            ("cdn-cache-control", "no-store"),
            ("cache-control", "max-age=60"),
            ("expires", &later),
        ],
        vec![("cdn-cache-control", "private"), ("cache-control", "max-age=60")],
        vec![
            ("cdn-cache-control", "no-cache"),
            ("cache-control", "max-age=60"),
            ("expires", &later),
        ],
        vec![("cdn-cache-control", "max-age=60, no-store")],
        vec![("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "no-store")],
        vec![("cdn-cache-control", "max-age=60"), ("age", "100")],
    ];
    assert_reused(ROUTE, false, &not_reused.map(|case| lines(&case))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_1_a_malformed_field_is_ignored_as_a_whole() {
    let malformed = [
        "max-age=0, &&&&&",
        "No-Store",
        "max-age =0",
        "max-age= 0",
        "no-store,",
        "no-store;",
        "\"no-store\"",
        "no-store max-age=0",
        "",
    ];
    let fresh = malformed
        .map(|value| lines(&[("cdn-cache-control", value), ("cache-control", "max-age=60")]));
    assert_reused(ROUTE, true, &fresh).await;
    let malformed = ["max-age=60, &&&&&", "MaX-aGe=60", "max-age =60", "max-age=60,", ""];
    let stale = malformed
        .map(|value| lines(&[("cdn-cache-control", value), ("cache-control", "no-store")]));
    assert_reused(ROUTE, false, &stale).await;
}

/// A value of the wrong type gives no freshness: the rest of the field gives none, or
/// `Cache-Control` forbids storing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_1_a_value_of_the_wrong_type_is_no_freshness() {
    let wrong = [
        "max-age=\"60\"",
        "max-age=60.0",
        "max-age=?1",
        "max-age",
        "max-age=(60)",
        "max-age=-60",
        "max-age=a",
    ];
    let cases =
        wrong.map(|value| lines(&[("cdn-cache-control", value), ("cache-control", "no-store")]));
    assert_reused(ROUTE, false, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_2_the_list_of_targets_is_the_operators() {
    let ours =
        format!("[freshness]\ntargeted = [\"ours-cache-control\", \"cdn-cache-control\"]\n{ROUTE}");
    let reused = [
        vec![("ours-cache-control", "max-age=60"), ("cdn-cache-control", "no-store")],
        vec![("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")],
        // The first valid one.
        vec![
            ("ours-cache-control", "&&&"),
            ("cdn-cache-control", "max-age=60"),
            ("cache-control", "no-store"),
        ],
    ];
    assert_reused(&ours, true, &reused.map(|case| lines(&case))).await;
    let not_reused = [vec![
        ("ours-cache-control", "no-store"),
        ("cdn-cache-control", "max-age=60"),
        ("cache-control", "max-age=60"),
    ]];
    assert_reused(&ours, false, &not_reused.map(|case| lines(&case))).await;

    let off = format!("[freshness]\ntargeted = []\n{ROUTE}");
    assert_reused(
        &off,
        true,
        &[lines(&[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")])],
    )
    .await;
    assert_reused(
        &off,
        false,
        &[lines(&[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")])],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_2_stale_and_confirming_go_by_the_targeted_field_too() {
    let scene = Scene::start(ROUTE, |request| {
        let answer =
            Response::ok("old").header("etag", "\"1\"").header("cache-control", "max-age=600");
        match request.path.as_str() {
            "/while" => answer.header("cdn-cache-control", "max-age=1, stale-while-revalidate=60"),
            "/error" => answer.header("cdn-cache-control", "max-age=1, stale-if-error=60"),
            "/must" => answer.header("cdn-cache-control", "max-age=1, must-revalidate"),
            _ => answer.header("cdn-cache-control", "no-cache"),
        }
    })
    .await;
    let paths = ["/while", "/error", "/must", "/confirm"];
    for path in paths {
        scene.fill(path).await;
    }
    scene.until_stale();
    scene.answers(|_| Response::status(503, "broken"));
    for (path, expected) in paths.into_iter().zip(["STALE", "STALE", "MISS", "MISS"]) {
        let reply = scene.get(path).await;
        assert_cache(&reply, expected, path);
        assert_eq!(reply.text(), if expected == "STALE" { "old" } else { "broken" }, "{path}");
    }
    scene.answers(|_| Response::status(304, "").header("etag", "\"1\""));
    assert_cache(&scene.get("/confirm").await, "REVALIDATED", "no-cache");
    assert_cache(&scene.get("/confirm").await, "REVALIDATED", "no-cache stays");
    // A 304 replaces the field like any other.
    scene.answers(|_| {
        Response::status(304, "").header("etag", "\"1\"").header("cdn-cache-control", "max-age=60")
    });
    assert_cache(&scene.get("/confirm").await, "REVALIDATED", "now fresh");
    assert_cache(&scene.get("/confirm").await, "HIT", "now fresh");
}
