//! Sections 4.3 and 3.2: which entries are revalidated, and how a revalidation changes them.

use super::{PUBLIC, public};
use crate::support::scene::{assert_cache, cache_status, date};
use crate::support::{Point, Response, Scene};

const MODIFIED: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
const LATER: &str = "Thu, 02 Jan 2020 00:00:00 GMT";

/// Stale at once, and revalidated while the origin says so.
fn stale(etag: &str) -> Response {
    Response::ok("old").header("etag", etag).header("cache-control", "max-age=0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_1_the_stored_validators_are_sent_and_no_others() {
    let scene = Scene::start(PUBLIC, |request| {
        let answer = Response::ok("old").header("cache-control", "max-age=0");
        match request.path.as_str() {
            "/etag" => answer.header("etag", "\"1\""),
            "/weak" => answer.header("etag", "W/\"1\""),
            "/date" => answer.header("last-modified", MODIFIED),
            "/both" => answer.header("etag", "\"1\"").header("last-modified", MODIFIED),
            _ => answer,
        }
    })
    .await;
    let cases = [
        ("/etag", Some("\"1\""), None),
        ("/weak", Some("W/\"1\""), None),
        ("/date", None, Some(MODIFIED)),
        ("/both", Some("\"1\""), Some(MODIFIED)),
        ("/none", None, None),
    ];
    for (path, etag, modified) in cases {
        scene.fill(path).await;
        // The client's own validators do not matter: the origin is asked about the stored response.
        let own = [("if-none-match", "\"client\""), ("if-modified-since", LATER)];
        for headers in [&[][..], &own] {
            let reply = scene.ask(path, headers).await;
            assert_eq!((reply.status, reply.text()), (200, "old"), "{path} {headers:?}");
            let asked = scene.last(path);
            assert_eq!(asked.header("if-none-match").as_deref(), etag, "{path}");
            // Along with an entity-tag, the date is optional (13.1.3).
            if etag.is_none() || asked.header("if-modified-since").is_some() {
                assert_eq!(asked.header("if-modified-since").as_deref(), modified, "{path}");
            }
        }
        assert_eq!(scene.count(path), 3, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_3_a_304_confirms_what_is_stored() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    scene.fill("/a").await;
    scene.answers(|_| Response::status(304, "").header("etag", "\"1\""));
    for _ in 0..2 {
        let reply = scene.get("/a").await;
        assert_cache(&reply, "REVALIDATED", "max-age=0 is asked about at each use");
        assert_eq!((reply.status, reply.text(), reply.header("etag")), (200, "old", "\"1\""));
        let status = cache_status(&reply);
        for expected in ["fwd=stale", "fwd-status=304", "stored"] {
            assert!(
                status.iter().any(|parameter| parameter == expected),
                "{expected} in {status:?}"
            );
        }
    }
    assert_eq!(scene.count("/a"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_3_a_304_by_date_confirms_what_is_stored() {
    let scene =
        Scene::start(PUBLIC, |request| match request.header("if-modified-since").as_deref() {
            Some(MODIFIED) => Response::status(304, "").header("cache-control", "max-age=60"),
            _ => Response::ok("old")
                .header("last-modified", MODIFIED)
                .header("cache-control", "max-age=0"),
        })
        .await;
    scene.fill("/a").await;
    let reply = scene.get("/a").await;
    assert_cache(&reply, "REVALIDATED", "by date");
    assert_eq!(reply.text(), "old");
    assert_cache(&scene.get("/a").await, "HIT", "the 304 made it fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_3_a_whole_answer_takes_the_place_of_what_is_stored() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    for (path, status) in [("/200", 200), ("/404", 404), ("/301", 301)] {
        scene.answers(|_| stale("\"1\""));
        scene.fill(path).await;
        scene.answers(move |_| {
            Response::status(status, "new").header("cache-control", "max-age=60")
        });
        let replaced = scene.get(path).await;
        assert_cache(&replaced, "MISS", path);
        assert_eq!((replaced.status, replaced.text()), (status, "new"));
        assert!(
            replaced.header("cache-status").contains("fwd=stale"),
            "{}",
            replaced.header("cache-status")
        );
        assert!(!replaced.headers.contains_key("etag"), "nothing of the old one is left");
        let hit = scene.get(path).await;
        assert_cache(&hit, "HIT", path);
        assert_eq!((hit.status, hit.text()), (status, "new"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_3_an_error_is_passed_on_and_the_entry_stays() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    for (path, status) in [("/500", 500), ("/503", 503)] {
        scene.answers(|_| stale("\"1\""));
        scene.fill(path).await;
        scene.answers(move |_| Response::status(status, "broken"));
        let reply = scene.get(path).await;
        assert_eq!((reply.status, reply.text()), (status, "broken"), "{}", reply.cache_status());
        scene.answers(|_| Response::status(304, "").header("etag", "\"1\""));
        let reply = scene.get(path).await;
        assert_cache(&reply, "REVALIDATED", path);
        assert_eq!(reply.text(), "old");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_2_a_304_updates_the_stored_fields() {
    let scene = Scene::start(PUBLIC, |_| {
        let fields = [
            ("x-kept", "kept"),
            ("x-changed", "old"),
            ("x-changed", "old 2"),
            ("content-type", "text/plain"),
            ("age", "1"),
        ];
        fields.iter().fold(stale("\"1\""), |answer, (name, value)| answer.header(name, value))
    })
    .await;
    scene.fill("/a").await;
    scene.answers(|_| {
        let fields = [
            ("etag", "\"1\""),
            ("cache-control", "max-age=60"),
            ("x-changed", "new"),
            ("x-added", "added"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "999"),
        ];
        fields
            .iter()
            .fold(Response::status(304, ""), |answer, (name, value)| answer.header(name, value))
    });
    let confirmed = scene.get("/a").await;
    assert_cache(&confirmed, "REVALIDATED", "confirmed");
    let hit = scene.get("/a").await;
    assert_cache(&hit, "HIT", "the 304's freshness counts");
    for reply in [&confirmed, &hit] {
        let changed: Vec<_> = reply.headers.get_all("x-changed").iter().collect();
        assert_eq!(changed, ["new"], "all lines of a field are replaced");
        for (name, value) in [
            ("x-kept", "kept"),
            ("x-added", "added"),
            ("cache-control", "max-age=60"),
            ("content-type", "text/plain"),
            ("etag", "\"1\""),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
        assert!(!reply.headers.contains_key("x-hop"), "what is of one connection ends with it");
        assert_eq!(
            (reply.text(), reply.header("content-length")),
            ("old", "3"),
            "the framing is that of the stored body"
        );
        assert_eq!(reply.headers.get_all("date").iter().count(), 1);
    }
    assert_eq!(scene.count("/a"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_2_a_304s_cookie_is_nobody_elses() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    scene.fill("/a").await;
    let confirm =
        || Response::status(304, "").header("etag", "\"1\"").header("cache-control", "max-age=60");
    scene.answers(move |_| confirm().header("set-cookie", "session=1"));
    assert_eq!(scene.get("/a").await.text(), "old");
    scene.answers(move |_| confirm());
    for _ in 0..2 {
        let reply = scene.get("/a").await;
        assert_eq!((reply.status, reply.text()), (200, "old"), "{}", reply.cache_status());
        assert!(!reply.headers.contains_key("set-cookie"), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_2_a_304_that_forbids_storing_is_obeyed() {
    for forbidden in ["no-store", "private"] {
        let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
        scene.fill("/a").await;
        scene.answers(move |_| match forbidden {
            "no-store" => Response::status(304, "")
                .header("etag", "\"1\"")
                .header("cache-control", "no-store, max-age=60"),
            _ => Response::status(304, "")
                .header("etag", "\"1\"")
                .header("cache-control", "private, max-age=60"),
        });
        let reply = scene.get("/a").await;
        assert_eq!(
            (reply.status, reply.text()),
            (200, "old"),
            "{forbidden}: this caller's answer is confirmed"
        );
        scene.answers(|_| Response::ok("new"));
        let reply = scene.get("/a").await;
        assert_eq!(
            (reply.text(), scene.count("/a")),
            ("new", 3),
            "{forbidden}: {}",
            reply.cache_status()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_4_a_304_for_another_strong_tag_updates_nothing() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    scene.fill("/a").await;
    scene.answers(|request| match request.header("if-none-match") {
        Some(_) => {
            Response::status(304, "").header("etag", "\"2\"").header("cache-control", "max-age=60")
        }
        None => Response::ok("new").header("etag", "\"2\"").header("cache-control", "max-age=60"),
    });
    for _ in 0..2 {
        let reply = scene.get("/a").await;
        // Fetched again without a condition, or failed; but never the old body under the new tag,
        // or as fresh.
        assert!(
            reply.text() == "new" || reply.status >= 500,
            "{} {}: {}",
            reply.status,
            reply.text(),
            reply.cache_status()
        );
    }
    // The final response is the origin's own.
    let last = scene.get("/a").await;
    assert_eq!((last.status, last.text()), (200, "new"), "{}", last.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_4_a_304_with_a_weak_tag_or_none_updates_what_was_asked_about() {
    for (stored, sent) in [("W/\"1\"", Some("W/\"1\"")), ("\"1\"", None), ("\"1\"", Some("\"1\""))]
    {
        let scene = Scene::start(PUBLIC, move |_| stale(stored)).await;
        scene.fill("/a").await;
        scene.answers(move |_| {
            let answer = Response::status(304, "").header("cache-control", "max-age=60");
            sent.map_or_else(
                || Response::status(304, "").header("cache-control", "max-age=60"),
                |tag| answer.header("etag", tag),
            )
        });
        assert_cache(&scene.get("/a").await, "REVALIDATED", stored);
        assert_cache(&scene.get("/a").await, "HIT", stored);
    }
}

/// A 304 to a request without a condition has no meaning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_4_a_304_that_nobody_asked_for_is_not_stored() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::status(304, "").header("cache-control", "max-age=60").header("etag", "\"1\"")
    })
    .await;
    scene.get("/a").await;
    scene.answers(|_| Response::ok("new").header("cache-control", "max-age=60"));
    let reply = scene.get("/a").await;
    assert_eq!((reply.status, reply.text()), (200, "new"), "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_4_a_304_does_not_revive_what_was_purged_meanwhile() {
    for point in [Point::Before, Point::After] {
        let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
        scene.fill("/a").await;
        scene.answers(|request| match (request.method.as_str(), request.header("if-none-match")) {
            ("GET", Some(_)) => Response::status(304, "")
                .header("etag", "\"1\"")
                .header("cache-control", "max-age=60"),
            ("GET", None) => Response::ok("new").header("cache-control", "max-age=60"),
            _ => Response::ok("written"),
        });
        let hold = scene.hold("GET", "/a", point);
        let ((), early) = tokio::join!(
            async {
                hold.arrived().await;
                assert_eq!(scene.send("PUT", "/a", &[], "x").await.text(), "written");
                // At the later point the 304 is ready and predates the write; at the earlier one
                // the origin evaluates the condition only now.
                if point == Point::Before {
                    scene.answers(|_| Response::ok("new").header("cache-control", "max-age=60"));
                }
                hold.release();
            },
            scene.get("/a")
        );
        assert!(["old", "new"].contains(&early.text()), "{point:?}: it was asked before the write");
        let late = scene.get("/a").await;
        assert_eq!(
            (late.status, late.text()),
            (200, "new"),
            "{point:?}: {}",
            late.header("cache-status")
        );
        let conditional = scene
            .seen("/a")
            .iter()
            .filter(|request| request.header("if-none-match").is_some())
            .count();
        assert_eq!(conditional, 1, "{point:?}: what was purged is not asked about");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_2_a_clients_condition_is_answered_from_the_cache() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("data")
            .header("etag", "\"1\"")
            .header("last-modified", MODIFIED)
            .header("cache-control", "max-age=60")
    })
    .await;
    scene.fill("/a").await;
    let cases: [(&[(&str, &str)], u16); 9] = [
        (&[("if-none-match", "\"1\"")], 304),
        (&[("if-none-match", "W/\"1\"")], 304),
        (&[("if-none-match", "\"0\", \"1\"")], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"2\"")], 200),
        (&[("if-modified-since", MODIFIED)], 304),
        (&[("if-modified-since", LATER)], 304),
        (&[("if-modified-since", "Tue, 31 Dec 2019 00:00:00 GMT")], 200),
        (&[("if-none-match", "\"2\""), ("if-modified-since", LATER)], 200),
    ];
    for (headers, status) in cases {
        let reply = scene.ask("/a", headers).await;
        assert_cache(&reply, "HIT", &format!("{headers:?}"));
        assert_eq!(
            (reply.status, reply.text()),
            (status, if status == 200 { "data" } else { "" }),
            "{headers:?}"
        );
        assert_eq!(reply.header("etag"), "\"1\"");
    }
    assert_eq!(scene.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_2_a_clients_condition_is_judged_after_the_entry_is_confirmed() {
    let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
    scene.fill("/a").await;
    scene.answers(|_| Response::status(304, "").header("etag", "\"1\""));
    for (tag, status, body) in [("\"1\"", 304, ""), ("\"0\"", 200, "old")] {
        let reply = scene.ask("/a", &[("if-none-match", tag)]).await;
        assert_eq!((reply.status, reply.text()), (status, body), "{tag}: {}", reply.cache_status());
        assert_cache(&reply, "REVALIDATED", tag);
    }
    scene.answers(|_| {
        Response::ok("new").header("etag", "\"2\"").header("cache-control", "max-age=60")
    });
    let reply = scene.ask("/a", &[("if-none-match", "\"1\"")]).await;
    assert_eq!((reply.status, reply.text()), (200, "new"));
    assert_cache(&scene.ask("/a", &[("if-none-match", "\"2\"")]).await, "HIT", "the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_2_a_condition_on_what_is_not_stored_fetches_the_whole() {
    let scene = Scene::start(PUBLIC, |request| match request.header("if-none-match") {
        Some(_) => Response::status(304, "").header("etag", "\"1\""),
        None => Response::ok("data").header("etag", "\"1\"").header("cache-control", "max-age=60"),
    })
    .await;
    let reply = scene.ask("/a", &[("if-none-match", "\"1\"")]).await;
    assert_eq!((reply.status, reply.text()), (304, ""), "{}", reply.cache_status());
    let whole = scene.get("/a").await;
    assert_eq!((whole.status, whole.text()), (200, "data"), "a 304 is not stored in its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_5_a_head_is_answered_from_a_gets_entry() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("data").header("etag", "\"1\"").header("cache-control", "max-age=60")
    })
    .await;
    assert_ne!(scene.send("HEAD", "/a", &[], "").await.cache(), "HIT");
    assert_ne!(scene.get("/a").await.cache(), "HIT", "the answer to a HEAD is not that to a GET");
    let asked = scene.count("/a");
    let head = scene.send("HEAD", "/a", &[], "").await;
    assert_cache(&head, "HIT", "HEAD");
    assert_eq!(
        (head.text(), head.header("content-length"), head.header("etag")),
        ("", "4", "\"1\"")
    );
    assert_eq!(scene.send("HEAD", "/a", &[("if-none-match", "\"1\"")], "").await.status, 304);
    assert_eq!(scene.count("/a"), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_5_a_head_refreshes_or_voids_what_is_stale() {
    for (tag, expected) in [("\"1\"", "old"), ("\"2\"", "new")] {
        let scene = Scene::start(PUBLIC, |_| stale("\"1\"")).await;
        scene.fill("/a").await;
        scene.answers(move |request| {
            let changed = tag == "\"2\"";
            let confirmed = request.header("if-none-match").is_some_and(|sent| sent.contains(tag));
            let answer = match (request.method.as_str(), confirmed, changed) {
                (_, true, _) => Response::status(304, ""),
                ("HEAD", _, false) => Response::status(200, "").header("content-length", "3"),
                ("HEAD", _, true) => Response::status(200, "").header("content-length", "7"),
                (_, _, false) => Response::ok("old"),
                (_, _, true) => Response::ok("new"),
            };
            answer.header("etag", tag).header("cache-control", "max-age=60")
        });
        let head = scene.send("HEAD", "/a", &[], "").await;
        assert_eq!((head.status, head.header("etag")), (200, tag));
        let get = scene.get("/a").await;
        assert_eq!(
            (get.status, get.text(), get.header("etag")),
            (200, expected, tag),
            "{}",
            get.header("cache-status")
        );
        assert_cache(&scene.get("/a").await, "HIT", tag);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_3_what_the_route_makes_fresh_is_confirmed_when_it_expires() {
    let scene =
        Scene::start(&public("ttl = \"1s\""), |request| match request.header("if-none-match") {
            Some(_) => Response::status(304, "").header("etag", "\"1\""),
            None => Response::ok("data").header("etag", "\"1\"").header("date", &date(0)),
        })
        .await;
    scene.fill("/a").await;
    scene.until_stale();
    let reply = scene.get("/a").await;
    assert_cache(&reply, "REVALIDATED", "after the ttl");
    assert_eq!(reply.text(), "data");
    assert_eq!(scene.last("/a").header("if-none-match").as_deref(), Some("\"1\""));
}
