//! RFC 9110 14, 13.1.5, 15.3.7 and 15.5.17: parts of stored responses, and partial responses of the
//! origin.

use std::time::Duration;

use crate::support::scene::{assert_cache, date};
use crate::support::{Reply, Request, Response, Scene, eventually};

const ROUTE: &str = "[[routes]]\npath = \"/{*rest}\"\nscope = \"public\"\n";
const BODY: &str = "0123456789";
const MODIFIED: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

/// The whole response, as it is stored.
fn whole() -> Response {
    let fields = [
        ("etag", "\"1\""),
        ("last-modified", MODIFIED),
        ("cache-control", "max-age=60"),
        ("content-type", "text/plain"),
        ("vary", "accept-language"),
        ("x-more", "1"),
    ];
    fields.iter().fold(Response::ok(BODY), |answer, (name, value)| answer.header(name, value))
}

/// A sidecar that has stored the whole response at `/a`.
async fn warm(rules: &str) -> Scene {
    let scene = Scene::start(rules, |_| whole()).await;
    scene.fill("/a").await;
    assert_cache(&scene.get("/a").await, "HIT", "the whole");
    scene
}

/// Requests a range of the stored response, which must not reach the origin.
async fn range(scene: &Scene, range: &str, more: &[(&str, &str)]) -> Reply {
    let asked = scene.count("/a");
    let mut headers = vec![("range", range)];
    headers.extend_from_slice(more);
    let reply = scene.ask("/a", &headers).await;
    assert_cache(&reply, "HIT", range);
    assert_eq!(scene.count("/a"), asked, "{range}");
    reply
}

/// The parts of a multipart body: the head of each in lower case, and its content.
fn parts(reply: &Reply) -> Vec<(String, String)> {
    let kind = reply.header("content-type");
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_else(|| panic!("{kind}"))
        .trim_matches('"');
    let text = reply.text();
    let (inner, _) = text.split_once(&format!("--{boundary}--")).expect("the closing boundary");
    let opening = format!("--{boundary}\r\n");
    inner
        .split(&opening)
        .skip(1)
        .map(|part| {
            let (head, content) = part.split_once("\r\n\r\n").expect("an empty line");
            (
                head.to_lowercase(),
                content.strip_suffix("\r\n").expect("a line end before the boundary").to_owned(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_2_one_range_is_cut_from_the_whole() {
    let scene = warm(ROUTE).await;
    let cases = [
        ("bytes=0-1", "01", "bytes 0-1/10"),
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-999", BODY, "bytes 0-9/10"),
        ("bytes=0-", BODY, "bytes 0-9/10"),
        ("bytes=5-999", "56789", "bytes 5-9/10"),
        ("bytes=5-99999999999999999999999", "56789", "bytes 5-9/10"),
        ("bytes= 0-1", "01", "bytes 0-1/10"),
        ("bytes=,0-1,", "01", "bytes 0-1/10"),
    ];
    for (asked, content, content_range) in cases {
        let reply = range(&scene, asked, &[]).await;
        if asked.contains([' ', ',']) && reply.status == 200 {
            // Unusual forms of a list may be ignored.
            assert_eq!(reply.text(), BODY);
            continue;
        }
        assert_eq!((reply.status, reply.text()), (206, content), "{asked}");
        assert_eq!(reply.header("content-range"), content_range, "{asked}");
        assert_eq!(reply.header("content-length"), content.len().to_string(), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_3_7_a_206_carries_what_the_200_would() {
    let scene = warm(ROUTE).await;
    let reply = range(&scene, "bytes=0-1", &[]).await;
    assert_eq!(reply.status, 206);
    for (name, value) in [
        ("etag", "\"1\""),
        ("last-modified", MODIFIED),
        ("cache-control", "max-age=60"),
        ("content-type", "text/plain"),
        ("vary", "accept-language"),
        ("x-more", "1"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    for name in ["date", "age", "via"] {
        assert!(reply.headers.contains_key(name), "{name}");
    }
    // With If-Range the client has the other fields already (15.3.7): the required ones are sent in
    // any case.
    let validated = range(&scene, "bytes=0-1", &[("if-range", "\"1\"")]).await;
    assert_eq!((validated.status, validated.header("etag")), (206, "\"1\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_2_a_range_that_cannot_be_read_is_ignored() {
    let scene = warm(ROUTE).await;
    for asked in [
        "bytes=",
        "bytes",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes=1",
        "chars=0-1",
        "0-1",
        "bytes=0-1;",
        "bytes=0x0-1",
    ] {
        let reply = range(&scene, asked, &[]).await;
        assert_eq!((reply.status, reply.text()), (200, BODY), "{asked}");
        assert!(!reply.headers.contains_key("content-range"), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_5_17_a_range_beyond_the_end_is_a_416() {
    let scene = warm(ROUTE).await;
    for asked in [
        "bytes=10-",
        "bytes=10-20",
        "bytes=99-",
        "bytes=-0",
        "bytes=10-,99-100",
        "bytes=99999999999999999999999-",
    ] {
        let reply = range(&scene, asked, &[]).await;
        assert_eq!((reply.status, reply.header("content-range")), (416, "bytes */10"), "{asked}");
        assert_ne!(reply.text(), BODY, "{asked}");
    }
    assert_eq!(range(&scene, "bytes=0-0", &[]).await.text(), "0", "the entry is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_6_several_ranges_are_parts_of_one_message() {
    let scene = warm(ROUTE).await;
    let reply = range(&scene, "bytes=0-1, 4-5,-1", &[]).await;
    assert_eq!(reply.status, 206, "{}", reply.text());
    assert!(!reply.headers.contains_key("content-range"), "15.3.7.2: only the parts have it");
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    let parts = parts(&reply);
    let contents: Vec<_> = parts.iter().map(|(_, content)| content.as_str()).collect();
    assert_eq!(contents, ["01", "45", "9"]);
    for ((head, _), content_range) in
        parts.iter().zip(["bytes 0-1/10", "bytes 4-5/10", "bytes 9-9/10"])
    {
        assert!(head.contains(&format!("content-range: {content_range}")), "{head}");
        assert!(head.contains("content-type: text/plain"), "{head}");
    }
    // A range beyond the end is left out.
    let one = range(&scene, "bytes=0-1,99-100", &[]).await;
    assert_eq!(one.status, 206);
    let content = if one.headers.contains_key("content-range") {
        one.text().to_owned()
    } else {
        self::parts(&one)[0].1.clone()
    };
    assert_eq!(content, "01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_2_too_many_ranges_are_not_answered_in_parts() {
    let scene = warm(&format!("[limits]\nranges = 2\n{ROUTE}")).await;
    assert_eq!(parts(&range(&scene, "bytes=0-0,2-2", &[]).await).len(), 2);
    let many = range(&scene, "bytes=0-0,2-2,4-4", &[]).await;
    assert!(matches!(many.status, 200 | 416), "{}", many.status);
    assert!(!many.header("content-type").starts_with("multipart"));
    // A megabyte in parts of one byte would be an attack; so would the whole body many times over.
    let scene = warm(ROUTE).await;
    for asked in [
        format!("bytes={}", vec!["0-0"; 1_000].join(",")),
        format!("bytes={}", vec!["0-"; 1_000].join(",")),
    ] {
        let reply = range(&scene, &asked, &[]).await;
        assert!(matches!(reply.status, 200 | 206 | 416), "{}", reply.status);
        assert!(reply.body.len() <= 2 * BODY.len() * 16 + 4_096, "{} bytes", reply.body.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_1_5_if_range_is_compared_strictly() {
    let scene = warm(ROUTE).await;
    let cases = [
        ("\"1\"", 206),
        (MODIFIED, 206),
        ("\"2\"", 200),
        ("W/\"1\"", 200),
        ("1", 200),
        ("", 200),
        ("\"1\", \"2\"", 200),
        ("Tue, 31 Dec 2019 23:59:59 GMT", 200),
        ("Wed, 01 Jan 2020 00:00:01 GMT", 200),
        ("yesterday", 200),
    ];
    for (validator, status) in cases {
        let reply = range(&scene, "bytes=0-1", &[("if-range", validator)]).await;
        assert_eq!(
            (reply.status, reply.text()),
            (status, if status == 206 { "01" } else { BODY }),
            "{validator}"
        );
    }
    // A range beyond the end is not evaluated if the client gets the whole response.
    assert_eq!(range(&scene, "bytes=99-", &[("if-range", "\"2\"")]).await.status, 200);
    assert_eq!(range(&scene, "bytes=99-", &[("if-range", "\"1\"")]).await.status, 416);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_1_5_a_weak_tag_joins_no_parts() {
    let scene = Scene::start(ROUTE, |_| {
        Response::ok(BODY).header("etag", "W/\"1\"").header("cache-control", "max-age=60")
    })
    .await;
    scene.fill("/a").await;
    for validator in ["W/\"1\"", "\"1\""] {
        let reply = range(&scene, "bytes=0-1", &[("if-range", validator)]).await;
        assert_eq!((reply.status, reply.text()), (200, BODY), "{validator}");
    }
}

/// 8.8.2.2: a date is strong only if it is well before that of the response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_1_5_a_recent_date_joins_no_parts() {
    let now = date(0);
    let modified = now.clone();
    let scene = Scene::start(ROUTE, move |_| {
        Response::ok(BODY)
            .header("last-modified", &modified)
            .header("date", &modified)
            .header("cache-control", "max-age=60")
    })
    .await;
    scene.fill("/a").await;
    let reply = range(&scene, "bytes=0-1", &[("if-range", &now)]).await;
    assert_eq!((reply.status, reply.text()), (200, BODY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_2_2_other_conditions_come_first() {
    let scene = warm(ROUTE).await;
    for (name, value) in [("if-none-match", "\"1\""), ("if-modified-since", MODIFIED)] {
        let reply = range(&scene, "bytes=0-1", &[(name, value)]).await;
        assert_eq!((reply.status, reply.text()), (304, ""), "{name}");
    }
    let reply = range(&scene, "bytes=0-1", &[("if-none-match", "\"2\"")]).await;
    assert_eq!((reply.status, reply.text()), (206, "01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_2_a_range_is_for_get_and_200_alone() {
    let scene = warm(ROUTE).await;
    let head = scene.send("HEAD", "/a", &[("range", "bytes=0-1")], "").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, "10"),
        "{}",
        head.header("cache-status")
    );
    assert!(!head.headers.contains_key("content-range"));
    for status in [404, 301, 410] {
        scene
            .answers(move |_| Response::status(status, BODY).header("cache-control", "max-age=60"));
        let path = format!("/{status}");
        scene.fill(&path).await;
        let reply = scene.ask(&path, &[("range", "bytes=0-1")]).await;
        assert_eq!((reply.status, reply.text()), (status, BODY), "{}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_2_an_empty_body_has_no_ranges() {
    let scene =
        Scene::start(ROUTE, |_| Response::ok("").header("cache-control", "max-age=60")).await;
    scene.fill("/a").await;
    for asked in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let reply = range(&scene, asked, &[]).await;
        assert!(matches!(reply.status, 200 | 416), "{asked}: {}", reply.status);
        assert_eq!(
            reply.header("content-range"),
            if reply.status == 416 { "bytes */0" } else { "" },
            "{asked}"
        );
    }
}

/// After a write, a range request gets the same state as any other request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_what_was_purged_comes_from_the_app() {
    let scene = warm(ROUTE).await;
    scene.send("PUT", "/a", &[], "x").await;
    scene.answers(|_| {
        Response::ok("abcdefghij").header("etag", "\"2\"").header("cache-control", "max-age=60")
    });
    let reply = scene.ask("/a", &[("range", "bytes=0-1"), ("if-range", "\"1\"")]).await;
    assert_ne!(reply.cache(), "HIT");
    assert_eq!((reply.status, reply.text()), (200, "abcdefghij"));
}

/// An origin that responds to ranges itself.
fn cutting(length: usize) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    move |request| {
        let body = "x".repeat(length);
        match request.header("range") {
            Some(_) => {
                Response::status(206, "xx").header("content-range", &format!("bytes 0-1/{length}"))
            }
            None => Response::ok(body),
        }
        .header("etag", "\"1\"")
        .header("cache-control", "max-age=60")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_what_is_not_stored_passes_and_the_whole_is_fetched_behind() {
    let scene = Scene::start(ROUTE, cutting(1_000)).await;
    let first = scene.ask("/a", &[("range", "bytes=0-1")]).await;
    assert_cache(&first, "BYPASS", "nothing is stored");
    assert!(
        first.header("cache-status").contains("detail=\"range\""),
        "{}",
        first.header("cache-status")
    );
    assert_eq!(
        (first.status, first.text(), first.header("content-range")),
        (206, "xx", "bytes 0-1/1000")
    );
    assert_eq!(
        scene.seen("/a")[0].header("range").as_deref(),
        Some("bytes=0-1"),
        "the app gets the range as it is"
    );
    eventually("the whole is there", Duration::from_secs(10), || async {
        scene.ask("/a", &[("range", "bytes=2-4"), ("cache-control", "only-if-cached")]).await.status
            == 206
    })
    .await;
    let later = scene.ask("/a", &[("range", "bytes=2-4")]).await;
    assert_cache(&later, "HIT", "later");
    assert_eq!(
        (later.status, later.text(), later.header("content-range")),
        (206, "xxx", "bytes 2-4/1000")
    );
    let whole = scene.get("/a").await;
    assert_cache(&whole, "HIT", "the whole");
    assert_eq!((whole.status, whole.body.len()), (200, 1_000));
    let seen = scene.seen("/a");
    assert_eq!(seen.len(), 2);
    assert!(seen[1].header("range").is_none() && seen[1].header("if-range").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_of_something_large_is_not_fetched_behind() {
    let unknown_length = |request: &Request| match request.header("range") {
        Some(_) => Response::status(206, "xx")
            .header("content-range", "bytes 0-1/*")
            .header("cache-control", "max-age=60"),
        None => Response::ok("whole").header("cache-control", "max-age=60"),
    };
    let large =
        Scene::start(&format!("[limits]\nrange_fill = \"1KiB\"\n{ROUTE}"), cutting(2_000)).await;
    let off = Scene::start(&format!("[limits]\nrange_fill = \"0\"\n{ROUTE}"), cutting(2_000)).await;
    let unknown = Scene::start(ROUTE, unknown_length).await;
    for scene in [&large, &off, &unknown] {
        for _ in 0..2 {
            let reply = scene.ask("/a", &[("range", "bytes=0-1")]).await;
            assert_eq!((reply.cache(), reply.status), ("BYPASS", 206), "{}", reply.cache_status());
        }
    }
    // A background fetch would have begun by now; only waiting can show that there is none.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for scene in [&large, &off, &unknown] {
        assert!(scene.seen("/a").iter().all(|request| request.header("range").is_some()));
        // A part was never mistaken for the whole.
        let whole = scene.get("/a").await;
        assert_cache(&whole, "MISS", "the whole");
        assert_eq!(whole.status, 200);
        assert_ne!(whole.text(), "xx");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_ignores_ranges_answers_as_it_does() {
    let scene = Scene::start(ROUTE, |_| whole()).await;
    let reply = scene.ask("/a", &[("range", "bytes=0-1")]).await;
    assert!(
        matches!((reply.status, reply.text()), (200, BODY) | (206, "01")),
        "{} {}",
        reply.status,
        reply.text()
    );
    let refused =
        Scene::start(ROUTE, |_| Response::status(416, "").header("content-range", "bytes */10"))
            .await;
    for _ in 0..2 {
        let reply = refused.ask("/a", &[("range", "bytes=99-")]).await;
        assert_eq!((reply.status, reply.header("content-range")), (416, "bytes */10"));
    }
    refused.answers(|_| whole());
    assert_eq!(refused.get("/a").await.text(), BODY, "a 416 is nobody else's answer");
}
