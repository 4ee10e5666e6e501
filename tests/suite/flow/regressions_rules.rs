//! Numbered regressions of rules that did not fit what real clients and proxies send: each of these
//! requests was a `BYPASS`, or an entry of its own.

use crate::support::scene::assert_cache;
use crate::support::{Request, Response, Scene};

/// The scopes of a route.
const SCOPES: [&str; 3] = ["public", "shared", "private"];

/// A route of each scope, `/public`, `/shared` and `/private`.
fn scopes(more: &str) -> String {
    let route = |scope: &str| {
        format!(
            "[[routes]]\npath = \"/{scope}/{{*rest}}\"\nttl = \"1m\"\nscope = \"{scope}\"\n{more}\n"
        )
    };
    SCOPES.map(route).concat()
}

/// An origin that says which of its request's headers hold this text.
fn reflect(request: &Request) -> Response {
    let head = String::from_utf8_lossy(&request.bytes).into_owned();
    let found: Vec<&str> = head.lines().filter(|line| line.contains("zq7x")).collect();
    Response::ok(found.join("\n"))
}

/// The headers of this class on the reference page, by front; a name that stands for many has an
/// ending.
fn of_class(class: &str) -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../docs/src/reference/fronts.md");
    let mut fronts: Vec<(String, Vec<String>)> = Vec::new();
    let mut front = "";
    for line in page.lines() {
        front = line.strip_prefix("## ").unwrap_or(front);
        if let Some(cell) = line.strip_prefix(&format!("| {class} | "))
            && cell.starts_with('`')
        {
            let names = cell.split('`').skip(1).step_by(2);
            let names = names.map(|name| name.replace('*', "-zz").replace("--", "-")).collect();
            fronts.push((front.to_owned(), names));
        }
    }
    assert!(!fronts.is_empty(), "the page has the class {class}");
    fronts
}

/// 1040. Headers of tracing and of fetching ahead, which many clients send, made every request a
///       `BYPASS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1040_headers_of_tracing_keep_nothing_from_the_cache() {
    let scene = Scene::start(&scopes(""), reflect).await;
    for name in [
        "sentry-trace",
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-origin",
        "x-datadog-tags",
        "newrelic",
        "x-newrelic-id",
        "uber-trace-id",
        "elastic-apm-traceparent",
        "request-id",
        "request-context",
        "x-dynatrace",
        "sec-purpose",
        "purpose",
        "x-csrftoken",
        "x-csrf-token",
        "x-xsrf-token",
    ] {
        for scope in SCOPES {
            let path = format!("/{scope}/{name}");
            for (cache, value) in [("MISS", "zq7x-1"), ("HIT", "zq7x-2")] {
                let reply = scene.ask(&path, &[(name, value)]).await;
                assert_cache(&reply, cache, &path);
                assert_eq!(reply.text(), "", "{path}: the app does not get it");
            }
        }
    }
    // Nobody knows what another name of the same product does.
    let unknown = scene.ask("/public/odd", &[("x-datadog-user", "zq7x")]).await;
    assert_cache(&unknown, "BYPASS", "a name that nobody has described");
}

/// 1041. An app that wants its anti-forgery token on a GET as well refuses a fill, which lacks it:
///       the client's own request goes to it, and nothing is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1041_a_fill_that_is_refused_for_want_of_a_token_passes() {
    for status in [400, 403, 419, 422] {
        let picky = move |request: &Request| match request.header("x-csrftoken") {
            Some(token) => Response::ok(format!("page of {token}")),
            None => Response::status(status, "no token"),
        };
        let scene = Scene::start(&scopes(""), picky).await;
        for scope in SCOPES {
            let path = format!("/{scope}/form");
            for token in ["zq7x-1", "zq7x-2"] {
                let reply = scene.ask(&path, &[("x-csrftoken", token)]).await;
                assert_cache(&reply, "BYPASS", &path);
                assert_eq!(reply.text(), format!("page of {token}"), "{status} {path}");
            }
        }
    }
}

/// 1042. Behind a content delivery network or a load balancer, each request was a `BYPASS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1042_what_a_front_adds_keeps_nothing_from_the_cache() {
    for class in ["address", "location", "noise"] {
        for (front, names) in of_class(class) {
            let top = format!("fronts = [\"{front}\"]");
            let scene = Scene::start_with(&[("", &top)], &scopes(""), reflect).await;
            for name in &names {
                for scope in SCOPES {
                    let path = format!("/{scope}/{name}");
                    for (cache, value) in [("MISS", "zq7x-1"), ("HIT", "zq7x-2")] {
                        let reply = scene.ask(&path, &[(name, value)]).await;
                        assert_cache(&reply, cache, &path);
                        assert_eq!(reply.text(), "", "{path}: the app does not get it");
                    }
                }
            }
        }
    }
}

/// 1043. Who asks, as a front tells it, is never dropped nor passed: two callers with different
///       values never get one body, in any scope, whatever the rules say of unknown headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1043_identity_that_a_front_tells_is_never_shared() {
    for (front, names) in of_class("identity") {
        let top = format!("fronts = [\"{front}\"]");
        for unknown in ["bypass", "drop", "pass"] {
            let rules = scopes(&format!("unknown_headers = \"{unknown}\""));
            let scene = Scene::start_with(&[("", &top)], &rules, reflect).await;
            for name in &names {
                for scope in SCOPES {
                    let path = format!("/{scope}/{name}");
                    for value in ["zq7x-alice", "zq7x-bob", "zq7x-alice"] {
                        let reply = scene.ask(&path, &[(name, value)]).await;
                        assert_cache(&reply, "BYPASS", &path);
                        let text = reply.text();
                        assert!(text.contains(value), "{unknown} {path}: {text}");
                    }
                }
                // Nor does the app's own word put it into the key.
                let vary = name.clone();
                scene.answers(move |request| reflect(request).header("vary", &vary));
                for value in ["zq7x-alice", "zq7x-bob", "zq7x-alice"] {
                    let path = format!("/public/vary/{name}");
                    let reply = scene.ask(&path, &[(name, value)]).await;
                    assert_cache(&reply, "BYPASS", &path);
                    assert!(reply.text().contains(value), "{path}: {}", reply.text());
                }
                scene.answers(reflect);
            }
        }
        // As a credential it tells callers apart.
        let list = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let rules = format!("[credential]\nheaders = [{list}]\n{}", scopes(""));
        let scene = Scene::start_with(&[("", &top)], &rules, reflect).await;
        for name in &names {
            for scope in ["shared", "private"] {
                let path = format!("/{scope}/{name}");
                for value in ["zq7x-alice", "zq7x-bob", "zq7x-alice", "zq7x-bob"] {
                    let reply = scene.ask(&path, &[(name, value)]).await;
                    assert!(reply.text().contains(value), "{path}: {}", reply.text());
                }
            }
            let path = format!("/public/{name}");
            let reply = scene.ask(&path, &[(name, "zq7x-alice")]).await;
            assert_eq!(reply.text(), "", "{path}: withheld, as credentials are");
        }
    }
}

/// 1044. What a front says of the request as the client made it is in the key, if the front is
///       trusted. An app that redirects to https by `CF-Visitor` would redirect for ever if a fill
///       had none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1044_what_a_trusted_front_says_of_the_request_is_in_the_key() {
    for (front, names) in of_class("request") {
        let top = format!("fronts = [\"{front}\"]");
        let trusting = ("[listen]", "trusted_proxies = [\"127.0.0.1\"]");
        let trusted = Scene::start_with(&[("", &top), trusting], &scopes(""), reflect).await;
        let stranger = Scene::start_with(&[("", &top)], &scopes(""), reflect).await;
        for name in &names {
            let path = format!("/public/{name}");
            for cache in ["MISS", "HIT"] {
                for value in ["zq7x-1", "zq7x-2"] {
                    let reply = trusted.ask(&path, &[(name, value)]).await;
                    assert_cache(&reply, cache, &path);
                    assert!(reply.text().contains(value), "{path}: {}", reply.text());
                }
            }
            let reply = stranger.ask(&path, &[(name, "zq7x")]).await;
            assert_cache(&reply, "BYPASS", &path);
        }
    }
}

/// 1045. The client's place chooses the response where a field reads it, or the app says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1045_a_place_is_in_the_key_once_a_field_or_the_app_names_it() {
    let country = |request: &Request| {
        Response::ok(request.header("cf-ipcountry").unwrap_or_else(|| "nowhere".to_owned()))
    };
    let top = [("", "fronts = [\"cloudflare\"]")];
    let fields = "[fields]\ncountry = { header = \"cf-ipcountry\" }\n";
    let keyed = format!("{fields}{}", scopes("key = [\"country?\"]"));
    let scene = Scene::start_with(&top, &keyed, country).await;
    for cache in ["MISS", "HIT"] {
        for place in ["DE", "FR"] {
            let reply = scene.ask("/public/a", &[("cf-ipcountry", place)]).await;
            assert_eq!((reply.cache(), reply.text()), (cache, place));
        }
    }
    let vary = move |request: &Request| country(request).header("vary", "cf-ipcountry");
    let scene = Scene::start_with(&top, &scopes(""), vary).await;
    for place in ["DE", "FR", "DE", "FR"] {
        let reply = scene.ask("/public/a", &[("cf-ipcountry", place)]).await;
        assert_eq!(reply.text(), place, "{}", reply.cache_status());
    }
    let reply = scene.ask("/public/a", &[("cf-ipcountry", "FR")]).await;
    assert_cache(&reply, "HIT", "it has been learned");
}

/// A public route at `/list` with this rule for the query.
fn list(query: &str) -> String {
    format!("[[routes]]\npath = \"/list\"\nttl = \"1m\"\nscope = \"public\"\nquery = {query}\n")
}

/// 1046. Each visit from another campaign had an entry of its own, unless all the parameters that
///       count were listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1046_parameters_that_match_a_pattern_do_not_count() {
    let target = |request: &Request| Response::ok(request.target.clone());
    let rules = list("{ except = [\"utm_*\", \"gclid\", \"fbclid\"] }");
    let scene = Scene::start(&rules, target).await;
    for (cache, query) in [
        ("MISS", "?page=2&utm_source=a"),
        ("HIT", "?utm_medium=b&gclid=7&page=2"),
        ("HIT", "?page=2&%75tm_x=1"),
        ("HIT", "?page=2"),
        ("MISS", "?page=3&fbclid=x"),
        ("MISS", "?page=2&utm=1"),
        ("BYPASS", "?page=2;utm_source=a"),
        ("BYPASS", "?page=2&utm_%zz=1"),
    ] {
        assert_cache(&scene.get(&format!("/list{query}")).await, cache, query);
    }
    let seen: Vec<String> = scene.seen("/list").into_iter().map(|one| one.target).collect();
    assert_eq!(seen[..3], ["/list?page=2", "/list?page=3", "/list?page=2&utm=1"]);
}

/// 1047. `?a=1&b=2` and `?b=2&a=1` were two entries. With `order = "ignore"` they are one, the app
///       gets one order of them, and a purge of the URL in any order finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1047_the_order_of_parameters_is_ignored_where_the_route_says_so() {
    let target = |request: &Request| Response::ok(request.target.clone());
    let scene = Scene::start(&list("{ order = \"ignore\" }"), target).await;
    for (cache, query, sent) in [
        ("MISS", "?b=2&a=1", "?a=1&b=2"),
        ("HIT", "?a=1&b=2", "?a=1&b=2"),
        ("MISS", "?b=2&a=1&a=0", "?a=1&a=0&b=2"),
        ("MISS", "?a=0&b=2&a=1", "?a=0&a=1&b=2"),
        ("HIT", "?a=0&a=1&b=2", "?a=0&a=1&b=2"),
        ("BYPASS", "?b=2&a[=1", "?b=2&a[=1"),
        ("BYPASS", "?b=2;a=1", "?b=2;a=1"),
    ] {
        let reply = scene.get(&format!("/list{query}")).await;
        assert_cache(&reply, cache, query);
        assert_eq!(reply.text(), format!("/list{sent}"), "{query}");
    }
    for order in ["?b=2&a=1", "?a=1&b=2"] {
        let url = format!("http://app.test/list{order}");
        scene.sidecar.admin_ok("/purge", &serde_json::json!({ "urls": [url] })).await;
        let reply = scene.get("/list?a=1&b=2").await;
        assert_cache(&reply, "MISS", order);
    }
    let plain = Scene::start(&list("\"all\""), target).await;
    for query in ["?b=2&a=1", "?a=1&b=2"] {
        assert_cache(&plain.get(&format!("/list{query}")).await, "MISS", query);
    }
}

/// 1048. An app that redirects to its own order of the parameters would be asked for the sidecar's
///       order again and again. Its redirect is not stored, and the request passes as it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1048_a_redirect_to_the_apps_own_order_is_no_loop() {
    let ordered = |request: &Request| match request.target.as_str() {
        "/list?b=2&a=1" => Response::ok("in order"),
        _ => Response::status(301, "")
            .header("location", "/list?b=2&a=1")
            .header("cache-control", "max-age=60"),
    };
    for query in ["{ order = \"ignore\" }", "{ except = [\"utm_*\"], order = \"ignore\" }"] {
        let scene = Scene::start(&list(query), ordered).await;
        for _ in 0..2 {
            let reply = scene.get("/list?b=2&a=1").await;
            assert_cache(&reply, "BYPASS", "as it came");
            assert_eq!((reply.status, reply.text()), (200, "in order"));
            let reply = scene.get("/list?a=1&b=2").await;
            assert_cache(&reply, "BYPASS", "as it came");
            assert_eq!((reply.status, reply.header("location")), (301, "/list?b=2&a=1"));
        }
    }
    // Where the key tells them apart, the redirect is stored.
    let scene = Scene::start(&list("\"all\""), ordered).await;
    for cache in ["MISS", "HIT"] {
        assert_cache(&scene.get("/list?a=1&b=2").await, cache, "a redirect to another entry");
    }
}

/// 1049. Each header of a product had to be listed by its whole name to be dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1049_headers_are_dropped_by_pattern() {
    let rules = scopes("drop_headers = [\"X-Acme-*\", \"accept-lang*\", \"*-trail\"]");
    let scene = Scene::start(&rules, reflect).await;
    for name in ["x-acme-a", "x-acme-b-c", "accept-language", "my-trail", "x-acme-"] {
        for scope in SCOPES {
            let path = format!("/{scope}/{name}");
            for (cache, value) in [("MISS", "zq7x-1"), ("HIT", "zq7x-2")] {
                let reply = scene.ask(&path, &[(name, value)]).await;
                assert_cache(&reply, cache, &path);
                assert_eq!(reply.text(), "", "{path}: the app does not get it");
            }
        }
    }
    for name in ["x-acme", "my-trails"] {
        let reply = scene.ask("/public/other", &[(name, "zq7x")]).await;
        assert_cache(&reply, "BYPASS", name);
    }
    // A pattern says nothing of what else tells callers apart.
    let rules = format!(
        "[credential]\nheaders = [\"x-acme-key\"]\n{}",
        scopes("drop_headers = [\"x-acm*\"]").replace("scope = \"shared\"", "scope = \"private\"")
    );
    let scene = Scene::start(&rules, reflect).await;
    for value in ["zq7x-alice", "zq7x-bob", "zq7x-alice"] {
        let reply = scene.ask("/private/a", &[("x-acme-key", value)]).await;
        assert!(reply.text().contains(value), "{}", reply.text());
    }
}

/// 1050. What all routes have in common had to be written for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1050_routes_take_over_the_defaults() {
    let rules = "[defaults]\nttl = \"1m\"\nscope = \"public\"\ndrop_headers = [\"x-odd\"]\n\
        [[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\ndrop_headers = []\n\
        [[routes]]\npath = \"/c\"\nscope = \"private\"\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let odd = [("x-odd", "1"), ("authorization", "Bearer alice")];
    for (path, first, second) in [("/a", "MISS", "HIT"), ("/b", "BYPASS", "BYPASS")] {
        assert_cache(&scene.ask(path, &odd).await, first, path);
        assert_cache(&scene.ask(path, &[("x-odd", "2")]).await, second, path);
    }
    assert_cache(&scene.ask("/c", &odd).await, "MISS", "/c");
    assert_cache(&scene.ask("/c", &odd).await, "HIT", "/c");
    let other = [("authorization", "Bearer bob")];
    assert_cache(&scene.ask("/c", &other).await, "MISS", "a private route");
}
