//! Numbered regressions of what origins send and are sent: heads that say a thing twice or oddly,
//! and requests that made an origin slower, or fail, because a proxy stood in between.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::scene::assert_cache;
use crate::support::{
    Bodies, Client, RawOrigin, RawRequest, RawResponse, Reply, Request, Response, Scene, Sidecar,
    client, metric,
};

/// A route that stores, and `/pass`, which none has.
fn route(more: &str) -> String {
    format!("[[routes]]\npath = \"/a/{{*rest}}\"\nttl = \"1m\"\nscope = \"public\"\n{more}\n")
}

/// An origin that answers with these bytes, and may be asked again on the connection.
async fn answering(bytes: &'static [u8]) -> RawOrigin {
    RawOrigin::start(Bodies::Read, move |(): &mut (), _: &RawRequest| RawResponse {
        bytes: bytes.to_vec(),
        ..RawResponse::ok("")
    })
    .await
}

/// What clients of HTTP/1.1 and HTTP/2 get twice of a path.
async fn replies(sidecar: &Sidecar, method: &str, path: &str) -> Vec<Reply> {
    let mut replies = Vec::new();
    for turn in 0..2 {
        for is_http2 in [false, true] {
            let path = format!("{path}{}", u8::from(is_http2));
            let mut client = if is_http2 {
                Client::http2(sidecar.address)
            } else {
                Client::new(sidecar.address)
            };
            let reply = client.try_send(method, &path, &[], "").await;
            replies.push(reply.unwrap_or_else(|why| panic!("{turn} {is_http2} {path}: {why}")));
        }
    }
    replies
}

fn lengths(reply: &Reply) -> Vec<&str> {
    let lines = reply.headers.get_all("content-length").iter();
    lines.map(|line| line.to_str().expect("a number")).collect()
}

/// 660. `Content-Length` twice with one value broke HTTP/2 clients, and as a list the first client
///      of HTTP/1.1, whose connection was closed and logged as a 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r660_a_length_that_is_said_twice_goes_on_once() {
    for head in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 , 5\r\nX: y\r\ncontent-length:5\r\n\r\nhello",
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for path in ["/a/", "/pass/"] {
            for reply in replies(&sidecar, "GET", path).await {
                let seen = (reply.status, reply.text(), lengths(&reply));
                assert_eq!(seen, (200, "hello", vec!["5"]), "{path} {said}");
            }
            for reply in replies(&sidecar, "HEAD", &format!("{path}head")).await {
                assert_eq!((reply.status, lengths(&reply)), (200, vec!["5"]), "{path} {said}");
            }
        }
        assert_eq!(client::get(sidecar.address, "/a/0").await.cache(), "HIT", "{said}");
        let line = "sidecache_upstream_broken_total";
        assert_eq!(metric(sidecar.admin, line).await, 0, "{said}");
    }
}

/// 661. Lengths that differ are a 502 with a reason, whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r661_lengths_that_differ_are_a_502() {
    for head in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for path in ["/a/", "/pass/"] {
            for reply in replies(&sidecar, "GET", path).await {
                assert_eq!(reply.status, 502, "{path} {said}");
                let status = reply.cache_status();
                assert!(status.contains("upstream protocol error"), "{path} {said}: {status}");
            }
        }
    }
}

/// 662. What a head says of a body that there is not: HTTP/2 clients took it at its word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r662_a_response_without_a_body_ends_with_its_head() {
    let cases: [(&str, &[u8], u16, &[&str]); 6] = [
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, &[]),
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, &[]),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", 200, &["5"]),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 200, &[]),
        (
            "HEAD",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
            &[],
        ),
        (
            "GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            304,
            &[],
        ),
    ];
    for (method, head, status, expected) in cases {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for path in ["/a/", "/pass/"] {
            for reply in replies(&sidecar, method, path).await {
                let seen = (reply.status, reply.text(), lengths(&reply));
                assert_eq!(seen, (status, "", expected.to_vec()), "{method} {path} {said}");
            }
        }
    }
}

/// 663. `Transfer-Encoding: chunked` twice, as apps send it that copy the fields of another
///      response, was a 502. Its connection serves nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r663_chunked_that_is_said_twice_is_chunked() {
    for (head, is_reused) in [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".as_slice(), true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", true),
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for reply in replies(&sidecar, "GET", "/pass/").await {
            assert_eq!((reply.status, reply.text()), (200, "hello"), "{said}");
        }
        let mut connections: Vec<usize> =
            origin.arrivals().iter().map(|arrival| arrival.connection).collect();
        connections.dedup();
        assert_eq!(connections.len() == 1, is_reused, "{said}: {connections:?}");
    }
}

/// 664. White space before the colon and folded lines, as old apps send them, were a 502. Other
///      leniencies stay as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r664_heads_of_old_apps_are_read() {
    for head in [
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\nX-Odd\t: a b\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd: a\r\n b\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd:\r\n\ta \r\n\t  b\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\nX-Odd: a b\n\nhello",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\nX-Odd: a b\r\n\r\nhello",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd: a b\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nX-Odd: a b\r\n\r\nhello",
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for path in ["/a/", "/pass/"] {
            for reply in replies(&sidecar, "GET", path).await {
                let seen = (reply.status, reply.text(), reply.header("x-odd"));
                assert_eq!(seen, (200, "hello", "a b"), "{path} {said}");
            }
        }
        assert_eq!(client::get(sidecar.address, "/a/0").await.cache(), "HIT", "{said}");
    }
}

/// 665. What is read leniently still forbids storing, and nothing of a head becomes a head or a
///      body of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r665_leniency_stores_nothing_and_splits_nothing() {
    for head in [
        b"HTTP/1.1 200 OK\r\nCache-Control : no-store\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9,\r\n no-store\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nCache-Control:\r\n no-store\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nSet-Cookie : a=b\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for reply in replies(&sidecar, "GET", "/a/").await {
            assert_eq!((reply.status, reply.text(), reply.cache()), (200, "hello", "MISS"), "{said}");
        }
    }
    // A line that is no field may be the misspelt one that forbids storing.
    for head in [
        b"HTTP/1.1 200 OK\r\nCache Control: no-store\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nno-store\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX(y): z\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n X-First: folded\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let said = String::from_utf8_lossy(head);
        let origin = answering(head).await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for reply in replies(&sidecar, "GET", "/a/").await {
            assert_eq!(reply.status, 502, "{said}");
        }
    }
}

/// 666. Other fields that must come once, and come twice, reach the client as they are. For caching
///      the first counts, or the more careful of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r666_a_field_that_comes_twice_goes_on_twice() {
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let later = "Sun, 06 Nov 2094 08:49:37 GMT";
    for (name, values, is_stored) in [
        ("etag", ["\"a\"", "\"b\""], true),
        ("content-type", ["text/html", "text/plain"], true),
        ("location", ["/x", "/y"], true),
        ("last-modified", [old, old], true),
        ("age", ["0", "120"], true),
        ("age", ["120", "0"], false),
        ("expires", [later, later], false),
        ("date", [later, old], true),
        ("cache-control", ["max-age=60", "no-store"], false),
        ("cache-control", ["max-age=60", "max-age=0"], false),
    ] {
        let scene = Scene::start(&route(""), move |_| {
            let response = Response::ok("hello").header(name, values[0]).header(name, values[1]);
            if name == "age" { response.header("cache-control", "max-age=60") } else { response }
        })
        .await;
        for path in ["/a/", "/pass/"] {
            for reply in replies(&scene.sidecar, "GET", path).await {
                assert_eq!((reply.status, reply.text()), (200, "hello"), "{name} {path}");
                if !["age", "date"].contains(&name) {
                    let seen: Vec<_> = reply.headers.get_all(name).iter().collect();
                    assert_eq!(seen, values, "{name} {path}");
                }
            }
        }
        let expected = if is_stored { "HIT" } else { "MISS" };
        assert_cache(&scene.get("/a/0").await, expected, &format!("{name} {values:?}"));
    }
}

/// 667. `Via` on requests made a default nginx, and IIS, answer without compression.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r667_the_origin_is_not_told_of_a_proxy_unless_it_should_be() {
    let gzip = |request: &Request| {
        let via = request.header("via").unwrap_or_default();
        let coding = if via.is_empty() { "gzip" } else { "identity" };
        Response::ok(via).header("content-encoding", coding)
    };
    for (keys, own) in [(&[][..], ""), (&[("[upstream]", "via = true")], "1.1 sidecache")] {
        let scene = Scene::start_with(keys, &route(""), gzip).await;
        for path in ["/a/1", "/pass", "/a/1"] {
            let reply = scene.ask(path, &[("accept-encoding", "gzip")]).await;
            assert_eq!((reply.text(), reply.header("via")), (own, "1.1 sidecache"), "{path}");
        }
        let write = scene.send("POST", "/a/1", &[], "x").await;
        assert_eq!((write.text(), write.header("via")), (own, "1.1 sidecache"));
        // Another proxy's word about itself is not the sidecar's to remove.
        let passed = scene.ask("/pass", &[("via", "1.1 cdn")]).await;
        assert!(passed.text().starts_with("1.1 cdn"), "{}", passed.text());
    }
}

/// 668. Old firmware and SOAP apps tell the names of headers apart by case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r668_the_origin_may_get_names_in_title_case() {
    for is_title in [false, true] {
        let key = format!("title_case_headers = {is_title}");
        let keys = [("[upstream]", &*key)];
        let scene = Scene::start_with(&keys, &route(""), |_| Response::ok("hello")).await;
        scene.get("/a/1").await;
        scene.ask("/pass", &[("soapaction", "x"), ("x-api-key", "y")]).await;
        scene.send("POST", "/pass", &[("content-type", "text/xml")], "x").await;
        let heads: Vec<String> = scene
            .origin
            .requests()
            .iter()
            .map(|request| String::from_utf8_lossy(&request.bytes).into_owned())
            .collect();
        for name in ["Host", "User-Agent", "X-Api-Key", "Content-Type", "Content-Length"] {
            let line = format!("\r\n{name}: ");
            assert_eq!(heads.iter().any(|head| head.contains(&line)), is_title, "{name} {heads:?}");
            assert_eq!(
                heads.iter().any(|head| head.contains(&line.to_lowercase())),
                !is_title,
                "{name} {heads:?}"
            );
        }
    }
}

/// 669. An origin that writes head and body apart, with Nagle's algorithm on, kept each body back
///      for the 40 ms of a delayed acknowledgement.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r669_a_body_does_not_wait_for_a_delayed_acknowledgement() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while let Ok(1..) = stream.read_buf(&mut buffer).await {
                    if !buffer.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    buffer.clear();
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
                    for part in [&head[..], b"hello", b"world"] {
                        if stream.write_all(part).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    let sidecar = Sidecar::start(address, &route("")).await;
    for path in ["/pass", "/a/"] {
        let (mut client, mut fastest) = (Client::new(sidecar.address), Duration::MAX);
        // A new connection has no delays; they come with the exchange of data.
        for turn in 0..60 {
            let since = Instant::now();
            let target = if path == "/a/" { format!("/a/{turn}") } else { path.to_owned() };
            assert_eq!(client.get(&target, &[]).await.text(), "helloworld");
            if turn >= 30 {
                fastest = fastest.min(since.elapsed());
            }
        }
        assert!(fastest < Duration::from_millis(20), "{path}: {fastest:?}");
    }
    app.abort();
}

const NPM: &str = "[[routes]]\npath = \"/{package}\"\nttl = \"1m\"\nscope = \"public\"\n\
    encoded_slash = \"keep\"\ntags = [\"package:{package}\"]\n\
    [[routes]]\npath = \"/other/{id}\"\nttl = \"1m\"\nscope = \"public\"\n\
    [[routes]]\npath = \"/api/v4/projects/{id}/{*rest}\"\nttl = \"1m\"\nscope = \"public\"\n\
    encoded_slash = \"keep\"\ntags = [\"project:{id}\"]\n\
    [[routes]]\npath = \"/account/{*rest}\"\nmode = \"off\"\n\
    [[purges]]\npath = \"/{package}\"\ntags = [\"package:{package}\"]\n\
    [[purges]]\npath = \"/api/v4/projects/{id}/{*rest}\"\ntags = [\"project:{id}\"]\n";

/// 670. A path with `%2f` was never cached: all scoped packages of npm, all projects of GitLab.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r670_a_path_with_an_escaped_slash_is_cached_where_the_origin_keeps_it() {
    let echo = |request: &Request| Response::ok(request.line());
    let scene = Scene::start(NPM, echo).await;
    for (first, second) in [
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/%40scope%2Fname?write=true", "/%40scope%2fname?write=true"),
        (
            "/api/v4/projects/group%2fsub%2Fproject/issues",
            "/api/v4/projects/group%2Fsub%2fproject/issues",
        ),
    ] {
        let filled = scene.fill(first).await;
        let kept = first.replace("%2f", "%2F");
        assert_eq!(filled.text(), format!("GET {kept}"), "the origin gets it kept");
        for again in [first, second] {
            assert_cache(&scene.get(again).await, "HIT", again);
        }
    }
    // The same path without the escape is another one.
    assert_cache(&scene.get("/@scope/name").await, "BYPASS", "no route has it");
    // What leaves a doubt is never cached, and neither is a route that does not say so.
    for path in [
        "/@scope%252fname",
        "/..%2fname",
        "/@scope%2f..",
        "/%2e%2e%2fname",
        "/@scope%5cname",
        "/@scope%2f%2fname",
        "/@scope%2f",
        "/other/a%2fb",
        "/api/v4/projects/group%2fproject/..%2fissues",
        "/account%2fme",
    ] {
        for _ in 0..2 {
            let reply = scene.get(path).await;
            assert_cache(&reply, "BYPASS", path);
            assert_eq!(reply.text(), format!("GET {path}"), "it passes untouched");
        }
    }
}

/// 671. Writes purge such entries by any spelling of their paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r671_a_write_purges_what_is_stored_under_an_escaped_slash() {
    let scene = Scene::start(NPM, |_| Response::ok("data")).await;
    for (path, method, write) in [
        ("/@scope%2fname", "PUT", "/@scope%2fname"),
        ("/@scope%2fname", "PUT", "/@scope%2Fname/"),
        ("/@scope%2fname", "DELETE", "/%40Scope%2fname.json"),
        ("/@scope%2fname", "PUT", "/@scope/name"),
        ("/@scope%2fname", "POST", "/@scope%2fname;v=1"),
        (
            "/api/v4/projects/group%2fproject/issues",
            "POST",
            "/api/v4/projects/group%2Fproject/notes",
        ),
        (
            "/api/v4/projects/group%2fproject/issues",
            "POST",
            "/%61pi/v4/./projects/group%2Fproject/x;y",
        ),
        ("/api/v4/projects/group%2fproject/issues", "PUT", "/api/v4/projects/group/project/issues"),
    ] {
        scene.fill(path).await;
        assert_cache(&scene.get(path).await, "HIT", path);
        assert_eq!(scene.send(method, write, &[], "x").await.status, 200);
        assert_cache(&scene.get(path).await, "MISS", write);
        scene.send(method, write, &[], "x").await;
    }
    // By hand: by tag and by URL.
    for order in [
        serde_json::json!({ "tags": ["package:@scope/name"] }),
        serde_json::json!({ "urls": ["http://app.test/@scope%2fname"] }),
        serde_json::json!({ "urls": ["http://app.test/@scope%2Fname"] }),
    ] {
        scene.get("/@scope%2fname").await;
        assert_cache(&scene.get("/@scope%2fname").await, "HIT", "stored");
        scene.sidecar.admin_ok("/purge", &order).await;
        assert_cache(&scene.get("/@scope%2fname").await, "MISS", &order.to_string());
    }
}
