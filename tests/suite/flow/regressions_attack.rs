//! Numbered regressions that an attacker found who had read the manual alone: what is in the key,
//! and who counts as one client.

use crate::support::scene::assert_cache;
use crate::support::{Request, Response, Scene};

fn route(scope: &str, more: &str) -> String {
    format!("[[routes]]\npath = \"/a/{{*rest}}\"\nttl = \"1m\"\nscope = \"{scope}\"\n{more}\n")
}

fn echo(name: &'static str) -> impl Fn(&Request) -> Response + Send + Sync {
    move |request| Response::ok(request.header(name).unwrap_or_default())
}

/// 420. `pass_headers = ["cookie"]` took the session out of the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r420_a_cookie_that_is_passed_still_tells_callers_apart() {
    for scope in ["private", "shared"] {
        for credential in ["", "[credential]\ncookies = [\"sessionid\"]\n"] {
            let rules = format!("{credential}{}", route(scope, "pass_headers = [\"cookie\"]"));
            let scene = Scene::start(&rules, echo("cookie")).await;
            for round in 0..2 {
                for cookie in ["sessionid=alice", "sessionid=bob", "other=1", "_ga=1"] {
                    let reply = scene.ask("/a/1", &[("cookie", cookie)]).await;
                    assert_eq!(reply.text(), cookie, "{scope} {round}: {}", reply.cache_status());
                }
                assert_eq!(scene.get("/a/1").await.text(), "", "{scope} {round}");
            }
        }
    }
}

/// 421. A cookie that many have alike counted as a credential, so that a stranger with the same one
///      could put a `User-Agent` or the answer to a POST into what the others were given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r421_a_cookie_that_many_have_identifies_nobody() {
    let consent = ("cookie", "cookieconsent_status=dismiss");
    for credential in ["", "[credential]\ncookies = [\"sessionid\"]\n"] {
        let rules = format!("{credential}{}", route("private", "strip_set_cookie = true"));
        let scene = Scene::start(&rules, echo("user-agent")).await;
        let evil = scene.ask("/a/agent", &[consent, ("user-agent", "evil")]).await;
        assert_ne!(evil.text(), "evil", "{}", evil.cache_status());

        scene.answers(|request| {
            let text = if request.method == "POST" { "evil" } else { "good" };
            Response::ok(text)
                .header("content-location", &request.target)
                .header("cache-control", "max-age=60")
        });
        scene.send("POST", "/a/post", &[consent], "evil").await;
        assert_eq!(scene.ask("/a/post", &[consent]).await.text(), "good", "{credential}");

        scene.answers(|_| Response::ok("own").header("cache-control", "private, max-age=60"));
        for _ in 0..2 {
            assert_cache(&scene.ask("/a/own", &[consent]).await, "MISS", credential);
        }
        scene.answers(|_| Response::ok("form").header("set-cookie", "csrf=1"));
        for _ in 0..2 {
            let form = scene.ask("/a/form", &[consent]).await;
            assert_eq!((form.cache(), form.header("set-cookie")), ("MISS", "csrf=1"));
        }
    }
}

/// 422. A client without a `User-Agent` left a response that a process which had not yet learned of
///      `Vary: User-Agent` gave to every browser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r422_what_was_learned_stays_in_the_variants() {
    for name in ["user-agent", "referer"] {
        let own = move |request: &Request| {
            let value = request.header(name).unwrap_or_else(|| "none".to_owned());
            Response::ok(value).header("vary", name)
        };
        let scene = Scene::start(&route("public", ""), own).await;
        assert_eq!(scene.ask("/a/1", &[(name, "one")]).await.text(), "one");
        let without = scene.get("/a/1").await;
        assert_ne!(without.text(), "one", "{name}: {}", without.cache_status());
        assert_cache(&scene.get("/a/1").await, "HIT", name);
        // A reload with another route: nothing is learned yet.
        let more = "[[routes]]\npath = \"/b\"\nttl = \"1m\"\n";
        scene.sidecar.rewrite(&format!("{}{more}", route("public", "")));
        scene.sidecar.admin_ok("/reload", &serde_json::json!({})).await;
        let other = scene.ask("/a/1", &[(name, "two")]).await;
        assert_eq!(other.text(), "two", "{name}: {}", other.cache_status());
    }
}

/// 423. `Forwarded` of a trusted proxy was replaced by one that said `http`, and lists in
///      `X-Forwarded-*` ran together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r423_what_a_trusted_proxy_states_in_forwarded_is_keyed() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    let rules = route("public", "");
    let scene = Scene::start_with(&trusted, &rules, echo("forwarded")).await;
    let stated = ("forwarded", "for=9.9.9.9;proto=https;host=public.example, for=10.0.0.1");
    let expected = "for=192.0.2.1;host=\"public.example\";proto=https";
    let plain = "for=192.0.2.1;host=\"app.test\";proto=http";
    for cache in ["MISS", "HIT"] {
        assert!(scene.ask("/a/1", &[stated]).await.is(cache, expected));
        let other = scene.get("/a/1").await;
        assert!(other.text().starts_with(plain), "{}", other.text());
        assert_cache(&other, cache, "another key");
    }
    let lists = [
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "a.test, b.test"),
        ("x-forwarded-port", "8443"),
    ];
    let reply = scene.ask("/a/2", &lists).await;
    assert_eq!(reply.text(), "for=192.0.2.1;host=\"a.test:8443\";proto=https");
}

/// 424. On a public route an origin that misses the session began a new one, whose cookie replaced
///      the caller's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r424_a_fill_never_ends_a_session() {
    let app = |request: &Request| match request.header("cookie") {
        Some(cookie) => Response::ok(cookie),
        None => Response::ok("new").header("set-cookie", "sess=new"),
    };
    let scene = Scene::start(&route("public", ""), app).await;
    for _ in 0..3 {
        let alice = scene.ask("/a/1", &[("cookie", "sess=alice")]).await;
        assert_eq!((alice.text(), alice.header("set-cookie")), ("sess=alice", ""));
    }
    assert_eq!(scene.get("/a/1").await.header("set-cookie"), "sess=new");
}

/// 425. A fill that had all of the client's own request is not repeated where it is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r425_a_refusal_is_final_where_nothing_was_withheld() {
    let whole = "pass_headers = [\"user-agent\", \"x-forwarded-for\"]";
    for (more, headers, requests) in [
        (whole, &[("user-agent", "one")][..], 1),
        (whole, &[("user-agent", "one"), ("referer", "/")], 2),
        (whole, &[("cookie", "sid=1")], 2),
        ("", &[], 2),
    ] {
        let scene = Scene::start(&route("public", more), |_| Response::status(403, "no")).await;
        assert_eq!(scene.ask("/a/1", headers).await.status, 403);
        assert_eq!(scene.count("/a/1"), requests, "{more} {headers:?}");
    }
}
