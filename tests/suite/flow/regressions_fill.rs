//! Numbered regressions of the request that a fill sends to the origin: what the key had seen in a
//! normal form, and what it had not seen at all, reached the origin as it came, and decided what
//! was stored for others.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::timeout;

use crate::support::scene::{assert_cache, cache_status};
use crate::support::{Client, Reply, Request, Response, Scene, WireClient, eventually};

/// The client's address on every fill.
const NOBODY: &str = "192.0.2.1";

/// Headers that change nothing, by the book, with a value that a stranger may send.
const HARMLESS: [(&str, &str); 26] = [
    ("user-agent", "evil"),
    ("referer", "https://evil.test/"),
    ("accept-charset", "evil"),
    ("dnt", "evil"),
    ("sec-gpc", "evil"),
    ("sec-fetch-mode", "evil"),
    ("sec-fetch-dest", "evil"),
    ("sec-ch-ua", "evil"),
    ("sec-ch-ua-mobile", "evil"),
    ("save-data", "evil"),
    ("priority", "evil"),
    ("upgrade-insecure-requests", "evil"),
    ("max-forwards", "7"),
    ("x-request-id", "evil"),
    ("x-correlation-id", "evil"),
    ("traceparent", "evil"),
    ("tracestate", "evil"),
    ("baggage", "evil"),
    ("b3", "evil"),
    ("x-b3-traceid", "evil"),
    ("x-amzn-trace-id", "evil"),
    ("x-cloud-trace-context", "evil"),
    ("via", "1.1 evil"),
    ("forwarded", "for=evil"),
    ("x-real-ip", "198.51.100.7"),
    ("te", "trailers"),
];

/// A route of each scope, `/public`, `/shared` and `/private`.
fn scopes(more: &str) -> String {
    let route = |scope: &str| {
        format!(
            "[[routes]]\npath = \"/{scope}/{{*rest}}\"\nttl = \"1m\"\nscope = \"{scope}\"\n{more}\n"
        )
    };
    ["public", "shared", "private"].map(route).concat()
}

fn public(more: &str) -> String {
    format!("[[routes]]\npath = \"/a/{{*rest}}\"\nttl = \"1m\"\nscope = \"public\"\n{more}\n")
}

/// An origin that says what it got in one header.
fn echo(name: &'static str) -> impl Fn(&Request) -> Response + Send + Sync {
    move |request| Response::ok(request.header(name).unwrap_or_default())
}

fn host(request: &Request) -> Response {
    Response::ok(format!("http://{}/", request.header("host").unwrap_or_default()))
}

fn is_stored(reply: &Reply) -> bool {
    cache_status(reply).iter().any(|parameter| parameter == "stored")
}

/// What the origin got in a header with the last request for this path.
fn got(scene: &Scene, path: &str, name: &str) -> String {
    scene.last(path).header(name).unwrap_or_else(|| "(nothing)".to_owned())
}

// The target and the host.

/// 340. An HTTP/2 fill reached the origin with an empty `Host`, and links without a host were
///      stored for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r340_a_fill_over_http_2_has_the_host() {
    let scene = Scene::start(&scopes(""), host).await;
    for scope in ["public", "shared", "private"] {
        let path = format!("/{scope}/a");
        let reply = scene.ask_http2(&path, &[]).await;
        assert_eq!((reply.status, reply.text()), (200, "http://app.test/"), "{scope}");
        assert_eq!(got(&scene, &path, "x-forwarded-host"), "app.test", "{scope}");
        assert!(scene.get(&path).await.is("HIT", "http://app.test/"), "{scope}");
    }
}

/// 341. So did a refresh in the background that a request over HTTP/2 began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r341_a_refresh_over_http_2_has_the_host() {
    let rules = public("stale_while_revalidate = \"1h\"").replace("1m", "1s");
    let scene = Scene::start(&rules, host).await;
    scene.fill("/a/1").await;
    scene.until_stale();
    assert_cache(&scene.ask_http2("/a/1", &[]).await, "STALE", "over HTTP/2");
    scene.origin.reached("/a/1", 2).await;
    assert_eq!(got(&scene, "/a/1", "host"), "app.test");
}

/// 342. A path was keyed in normal form, and sent with the client's escapes: the catch-all page of
///      an origin that does not decode them replaced the resource.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r342_escapes_reach_the_origin_in_normal_form() {
    let literal = |request: &Request| Response::ok(request.target.clone());
    let scene = Scene::start(&public(""), literal).await;
    for (sent, normal) in [
        ("/%61/1", "/a/1"),
        ("/a/%7Eb", "/a/~b"),
        ("/a/caf%c3%a9", "/a/caf%C3%A9"),
        ("/%61/2?q=%61", "/a/2?q=%61"),
    ] {
        assert_eq!(scene.get(sent).await.text(), normal, "{sent}");
        assert!(scene.get(normal).await.is("HIT", normal), "{sent}");
        let reload = [("cache-control", "no-cache")];
        assert_eq!(scene.ask(sent, &reload).await.text(), normal, "{sent}");
        assert_eq!(scene.ask_http2(sent, &reload).await.text(), normal, "{sent}");
    }
}

/// 343. `Host` was keyed in lower case, and sent as it came: the page of the default site.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r343_the_host_reaches_the_origin_in_lower_case() {
    let scene = Scene::start(&public(""), host).await;
    let mut client = WireClient::new(scene.sidecar.address, Ipv4Addr::LOCALHOST);
    for (number, head) in [
        "GET /a/0 HTTP/1.1\r\nHost: APP.test\r\n\r\n",
        "GET http://App.Test/a/1 HTTP/1.1\r\nHost: App.Test\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let reply = client.one(head.as_bytes()).await;
        assert_eq!(reply.text(), "http://app.test/", "{head}");
        let path = format!("/a/{number}");
        assert_eq!(got(&scene, &path, "x-forwarded-host"), "app.test", "{head}");
        assert!(scene.get(&path).await.is("HIT", "http://app.test/"), "{head}");
    }
}

// Codings.

/// 344. `Accept-Encoding` was sent as it came: an origin that looks for a name in it found what the
///      client refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r344_codings_that_are_refused_do_not_reach_the_origin() {
    let careless = |request: &Request| {
        let accepted = request.header("accept-encoding").unwrap_or_default();
        match ["br", "gzip"].into_iter().find(|coding| accepted.contains(coding)) {
            Some(coding) => Response::ok(coding).header("content-encoding", coding),
            None => Response::ok("plain"),
        }
    };
    let scene = Scene::start(&public(""), careless).await;
    for (number, (accepted, expected)) in [
        ("gzip, deflate, br;q=0", "gzip"),
        ("br;q=0.0, gzip;q=0.5", "gzip"),
        ("gzip;q=0", "plain"),
        ("identity, gzip;q=0, br;q=0", "plain"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/a/{number}");
        for cache in ["MISS", "HIT"] {
            let reply = scene.ask(&path, &[("accept-encoding", accepted)]).await;
            assert_eq!((reply.cache(), reply.text()), (cache, expected), "{accepted}");
        }
    }
}

/// 345. A coding that the request does not accept was stored for all requests like it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r345_a_coding_that_is_not_accepted_is_not_stored() {
    let always = |_: &Request| Response::ok("(squeezed)").header("content-encoding", "gzip");
    let scene = Scene::start(&public(""), always).await;
    for headers in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "br")]] {
        for _ in 0..2 {
            let reply = scene.ask("/a/1", headers).await;
            assert_eq!((reply.cache(), reply.text()), ("MISS", "(squeezed)"), "{headers:?}");
            assert!(!is_stored(&reply), "{}", reply.cache_status());
        }
    }
    let gzip = [("accept-encoding", "gzip")];
    assert_eq!(scene.ask("/a/1", &gzip).await.cache(), "MISS");
    assert_eq!(scene.ask("/a/1", &gzip).await.cache(), "HIT");
    assert_eq!(scene.get("/a/1").await.cache(), "MISS", "and not for those who cannot read it");
}

// The client's address.

/// 346. The client's address reached the origin on fills: a page for the office alone was stored
///      for everybody. It is neither absent nor the sidecar's own, which opens other pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r346_a_fill_comes_from_no_address_that_means_anything() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.2\"]")];
    let scene = Scene::start_with(&trusted, &scopes(""), |_| Response::ok("data")).await;
    let hops = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    let claims = [
        "",
        "X-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 198.51.100.7\r\nForwarded: for=198.51.100.7\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    ];
    let callers = ["", "Authorization: Bearer alice\r\n"];
    let mut number = 0;
    for (hop, scope) in
        hops.iter().flat_map(|hop| ["public", "shared", "private"].map(|scope| (*hop, scope)))
    {
        let mut client = WireClient::new(scene.sidecar.address, hop);
        for (claim, caller) in claims.iter().flat_map(|claim| callers.map(|one| (claim, one))) {
            number += 1;
            let path = format!("/{scope}/{number}");
            let head = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{claim}{caller}\r\n");
            let reply = client.one(head.as_bytes()).await;
            assert_cache(&reply, "MISS", &head);
            assert_eq!(got(&scene, &path, "x-forwarded-for"), NOBODY, "{hop} {head}");
            assert_eq!(got(&scene, &path, "x-real-ip"), NOBODY, "{hop} {head}");
            let forwarded = got(&scene, &path, "forwarded");
            assert!(forwarded.contains(NOBODY), "{hop} {head}: {forwarded}");
            let head = String::from_utf8_lossy(&scene.last(&path).bytes).into_owned();
            assert!(!head.contains("127.0.0.") && !head.contains("198.51.100"), "{head}");
        }
    }
}

/// 347. What a trusted proxy says of host, protocol and port is in the key, and reaches the origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r347_a_trusted_proxys_host_protocol_and_port_are_keyed() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    for name in ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"] {
        let scene = Scene::start_with(&trusted, &scopes(""), echo(name)).await;
        for scope in ["public", "shared", "private"] {
            let path = format!("/{scope}/a");
            for cache in ["MISS", "HIT"] {
                for value in ["one", "two"] {
                    let reply = scene.ask(&path, &[(name, value)]).await;
                    assert_eq!((reply.cache(), reply.text()), (cache, value), "{name} {scope}");
                }
            }
        }
    }
}

// Headers that change nothing.

/// 348. Headers that change nothing reached the origin on fills, and changed what it stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r348_headers_that_change_nothing_are_withheld() {
    let scene = Scene::start(&scopes(""), |_| Response::ok("data")).await;
    for (name, value) in HARMLESS {
        for scope in ["public", "shared", "private"] {
            let path = format!("/{scope}/{name}");
            let mut headers = vec![(name, value)];
            if scope != "private" {
                headers.push(("authorization", "Bearer alice"));
            }
            assert_cache(&scene.ask(&path, &headers).await, "MISS", &path);
            let own =
                ["via", "user-agent", "x-request-id", "traceparent", "forwarded", "x-real-ip"];
            let found = scene.last(&path).header(name);
            let kept = found.as_ref().is_some_and(|found| found.contains(value));
            assert!(!kept && (found.is_none() || own.contains(&name)), "{path}: {found:?}");
        }
    }
}

/// 349. None of them poisons what is stored: neither a miss nor a reload of what is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r349_a_stranger_replaces_no_good_entry() {
    let reflect = |request: &Request| {
        let head = String::from_utf8_lossy(&request.bytes).into_owned();
        let found = head.lines().find(|line| line.contains("evil") || line.contains("198.51"));
        Response::ok(found.unwrap_or("good").to_owned())
    };
    let rules = scopes("");
    let scene = Scene::start(&rules, reflect).await;
    let mut harmless = HARMLESS.to_vec();
    harmless.extend([
        ("x-odd", "evil"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-for", "198.51.100.9"),
    ]);
    for scope in ["public", "shared", "private"] {
        for (name, value) in &harmless {
            let path = format!("/{scope}/{name}");
            // A miss of a stranger, then one that reloads.
            scene.ask(&path, &[(name, value)]).await;
            assert_eq!(scene.get(&path).await.text(), "good", "{path}: after a miss");
            for reload in [
                ("cache-control", "no-cache"),
                ("cache-control", "max-age=0"),
                ("pragma", "no-cache"),
            ] {
                scene.ask(&path, &[reload, (name, value)]).await;
                scene.ask_http2(&path, &[reload, (name, value)]).await;
                let later = scene.get(&path).await;
                assert!(
                    later.is("HIT", "good"),
                    "{path}: {} {}",
                    later.cache_status(),
                    later.text()
                );
            }
        }
    }
}

/// 350. A stranger whom the origin refuses for a header that changes nothing made a good entry be
///      forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r350_a_refused_stranger_ends_no_good_entry() {
    for status in [400, 401, 403, 404, 406, 410, 429] {
        let picky = move |request: &Request| {
            let head = String::from_utf8_lossy(&request.bytes).into_owned();
            if head.contains("evil") {
                Response::status(status, "no")
            } else {
                Response::ok("good")
            }
        };
        let scene = Scene::start(&scopes(""), picky).await;
        for scope in ["public", "shared", "private"] {
            for (name, value) in HARMLESS.iter().filter(|(_, value)| value.contains("evil")) {
                let path = format!("/{scope}/{name}");
                scene.fill(&path).await;
                let reload = [("cache-control", "no-cache"), (*name, *value)];
                scene.ask(&path, &reload).await;
                let later = scene.get(&path).await;
                assert!(later.is("HIT", "good"), "{status} {path}: {}", later.cache_status());
            }
        }
    }
}

/// 351. Each browser's `User-Agent` reached the origin on fills. It is a constant that gets the
///      ordinary page; a private request with a credential has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r351_the_agent_of_a_fill_is_a_constant() {
    let scene = Scene::start(&scopes(""), echo("user-agent")).await;
    let mine = ("user-agent", "Mine/1");
    let alice = ("authorization", "Bearer alice");
    for scope in ["public", "shared", "private"] {
        let constant = scene.ask(&format!("/{scope}/1"), &[mine]).await;
        assert!(constant.text().starts_with("Mozilla/5.0 "), "{scope}: {}", constant.text());
        let absent = scene.get(&format!("/{scope}/2")).await;
        assert_eq!(absent.text(), constant.text(), "{scope}");
        let owned = scene.ask(&format!("/{scope}/3"), &[mine, alice]).await;
        let expected = if scope == "private" { "Mine/1" } else { constant.text() };
        assert_eq!(owned.text(), expected, "{scope}");
        let ignored = [mine, ("cookie", "_ga=1")];
        let nobody = scene.ask(&format!("/{scope}/4"), &ignored).await;
        assert_eq!(nobody.text(), constant.text(), "{scope}: no credential");
    }
}

/// 352. The operator chooses the constant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r352_the_agent_of_a_fill_can_be_chosen() {
    let agent = [("[upstream]", "user_agent = \"Chosen/1\"")];
    let scene = Scene::start_with(&agent, &scopes(""), echo("user-agent")).await;
    for scope in ["public", "shared", "private"] {
        let path = format!("/{scope}/1");
        assert_eq!(
            scene.ask(&path, &[("user-agent", "Mine/1")]).await.text(),
            "Chosen/1",
            "{scope}"
        );
    }
    let passed = scene.ask("/elsewhere", &[("user-agent", "Mine/1")]).await;
    assert_eq!(passed.text(), "Mine/1", "around the cache nothing is changed");
}

/// 353. The client's request id and trace reached the origin, and error pages that show them were
///      stored. A fill has ids of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r353_a_fill_has_ids_of_its_own() {
    let scene = Scene::start(&scopes(""), |_| Response::ok("data")).await;
    let mut ids = Vec::new();
    for scope in ["public", "shared", "private"] {
        for (number, headers) in
            [&[][..], &[("x-request-id", "mine"), ("traceparent", "mine")]].into_iter().enumerate()
        {
            let path = format!("/{scope}/{number}");
            assert_cache(&scene.ask(&path, headers).await, "MISS", &path);
            ids.push(got(&scene, &path, "x-request-id"));
            assert!(!got(&scene, &path, "traceparent").contains("mine"), "{path}");
        }
    }
    let (count, first) = (ids.len(), ids.clone());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "each fill has an id of its own: {first:?}");
    assert!(ids.iter().all(|id| id.len() > 8 && id != "mine" && id != "(nothing)"), "{ids:?}");
}

// Withholding does no harm.

/// 354. An origin that refuses a fill for what was withheld from it refused the client too. The
///      client gets the answer to its own request, and the key is left alone for ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r354_a_refusal_of_a_fill_is_asked_again_as_a_pass() {
    for (status, location) in [
        (401, ""),
        (403, ""),
        (406, ""),
        (429, ""),
        (302, "/login"),
        (303, "/login?next=%2F"),
        (302, "http://app.test/accounts/login/"),
    ] {
        let picky = move |request: &Request| match request.header("user-agent").as_deref() {
            Some("Mine/1") => Response::ok("for mine"),
            _ => Response::status(status, "go away").header("location", location),
        };
        let scene = Scene::start(&scopes(""), picky).await;
        let mine = [("user-agent", "Mine/1")];
        for scope in ["public", "shared", "private"] {
            let (path, case) = (format!("/{scope}/1"), format!("{scope} {status}"));
            let reply = scene.ask(&path, &mine).await;
            assert_eq!((reply.status, reply.text()), (200, "for mine"), "{case}");
            assert_eq!(scene.count(&path), 2, "{case}: a fill, then a pass");
            assert!(!is_stored(&reply), "{case}: {}", reply.cache_status());
            scene.clock.advance(Duration::from_secs(9));
            let reply = scene.ask(&path, &mine).await;
            assert_eq!((reply.status, reply.text()), (200, "for mine"), "{case}");
            assert_eq!(scene.count(&path), 3, "{case}: a pass at once");
            scene.clock.advance(Duration::from_secs(2));
            let reply = scene.ask(&path, &mine).await;
            assert_eq!((reply.status, reply.text()), (200, "for mine"), "{case}");
            assert_eq!(scene.count(&path), 5, "{case}: a fill again, then a pass");
            // The page of those that are refused is theirs.
            let reply = scene.get(&path).await;
            assert_eq!(reply.status, status, "{case}");
        }
    }
}

/// 355. A redirect to another place than a login, and any other refusal, is the fill's own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r355_other_answers_of_a_fill_are_delivered() {
    for (status, location) in [(302, "/elsewhere"), (404, ""), (410, ""), (500, "")] {
        let answer = move |_: &Request| Response::status(status, "no").header("location", location);
        let scene = Scene::start(&public(""), answer).await;
        let reply = scene.ask("/a/1", &[("user-agent", "Mine/1")]).await;
        assert_eq!((reply.status, scene.count("/a/1")), (status, 1), "{status} {location}");
    }
}

/// 356. On a public route a session is withheld: a redirect to the login sent those to it who were
///      logged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r356_a_login_page_is_not_for_those_who_are_logged_in() {
    let picky = |request: &Request| match request.header("cookie") {
        Some(cookie) if cookie.contains("sessionid=1") => Response::ok("inside"),
        _ => Response::status(302, "").header("location", "/accounts/login/?next=/a/1"),
    };
    let scene = Scene::start(&public(""), picky).await;
    for _ in 0..3 {
        let reply = scene.ask("/a/1", &[("cookie", "sessionid=1")]).await;
        assert_eq!((reply.status, reply.text()), (200, "inside"), "{}", reply.cache_status());
        let stranger = scene.get("/a/1").await;
        assert_eq!((stranger.status, stranger.text()), (302, ""), "{}", stranger.cache_status());
    }
}

/// 357. A response that varies by a header that was withheld was stored for all its values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r357_vary_on_a_withheld_header_brings_the_clients_own() {
    let rules = scopes("");
    for name in ["user-agent", "referer", "save-data", "sec-ch-ua-mobile", "dnt"] {
        let own = move |request: &Request| echo(name)(request).header("vary", name);
        let scene = Scene::start(&rules, own).await;
        for scope in ["public", "shared", "private"] {
            let path = format!("/{scope}/1");
            for round in 0..3 {
                for value in ["one", "two"] {
                    let reply = scene.ask(&path, &[(name, value)]).await;
                    assert_eq!(reply.text(), value, "{name} {scope}: {}", reply.cache_status());
                    // The first may be passed, as the route learns the name; the second is stored.
                    let is_hit = reply.cache() == "HIT";
                    let expected = if round == 1 { is_hit } else { round == 2 };
                    assert_eq!(is_hit, expected, "{name} {scope} {value} {round}");
                }
            }
            // The route remembers: nothing is fetched in vain.
            let (path, value) = (format!("/{scope}/2"), "three");
            assert_eq!(scene.ask(&path, &[(name, value)]).await.text(), value, "{name} {scope}");
            assert_eq!(scene.count(&path), 1, "{name} {scope}: the header went with the fill");
            assert!(scene.ask(&path, &[(name, value)]).await.is("HIT", value), "{name} {scope}");
        }
    }
}

/// 358. A response that varies by what is no client's on a fill was stored for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r358_vary_on_what_a_fill_makes_up_is_vary_star() {
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "via", "x-request-id", "traceparent"]
    {
        let own = move |request: &Request| echo(name)(request).header("vary", name);
        let scene = Scene::start(&scopes(""), own).await;
        for scope in ["public", "shared", "private"] {
            let path = format!("/{scope}/1");
            for _ in 0..3 {
                let reply = scene.get(&path).await;
                assert_ne!(reply.cache(), "HIT", "{name} {scope}");
                assert!(!is_stored(&reply), "{}", reply.cache_status());
                assert!(
                    reply.cache_status().contains("vary *") || reply.cache() == "BYPASS",
                    "{name} {scope}: {}",
                    reply.cache_status()
                );
            }
        }
    }
}

/// 359. A client whose page varies by its address gets its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r359_a_page_that_varies_by_the_address_is_the_clients_own() {
    let own =
        |request: &Request| echo("x-forwarded-for")(request).header("vary", "X-Forwarded-For");
    let scene = Scene::start(&public(""), own).await;
    for _ in 0..3 {
        assert_eq!(scene.get("/a/1").await.text(), "127.0.0.1");
    }
}

// Languages.

/// An origin that speaks the first language that it reads, and does not say so.
fn babel(request: &Request) -> Response {
    let wanted = request.header("accept-language").unwrap_or_default();
    Response::ok(wanted.split([',', '-', ';']).next().unwrap_or_default().to_owned())
}

/// 360. Without `Vary`, the first reader's language was everybody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r360_each_reader_gets_a_language_of_theirs() {
    let scene = Scene::start(&scopes(""), babel).await;
    for scope in ["public", "shared", "private"] {
        let path = format!("/{scope}/1");
        for cache in ["MISS", "HIT"] {
            for (language, expected) in
                [("de-DE,de;q=0.9,en;q=0.8", "de"), ("en-US,en;q=0.5", "en"), ("fr", "fr")]
            {
                let reply = scene.ask(&path, &[("accept-language", language)]).await;
                assert_eq!((reply.cache(), reply.text()), (cache, expected), "{scope} {language}");
            }
            let reply = scene.get(&path).await;
            assert_eq!((reply.cache(), reply.text()), (cache, ""), "{scope}");
        }
        // The same by another browser.
        let reply = scene.ask(&path, &[("accept-language", "EN;q=0.7, DE;q=0.8,de-de")]).await;
        assert!(reply.is("HIT", "de"), "{scope}: {}", reply.cache_status());
    }
}

/// 361. A route that speaks some languages has a variant for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r361_a_route_can_name_its_languages() {
    let scene = Scene::start(&public("languages = [\"en\", \"de\"]"), |request| {
        Response::ok(request.header("accept-language").unwrap_or_default())
    })
    .await;
    let ask = async |language: &str| scene.ask("/a/1", &[("accept-language", language)]).await;
    for (language, cache, expected) in [
        ("de-AT,de;q=0.9,en;q=0.8", "MISS", "de"),
        ("de", "HIT", "de"),
        ("fr,de-CH;q=0.5,en;q=0.1", "HIT", "de"),
        ("en-GB,en;q=0.9", "MISS", "en"),
        ("en-US", "HIT", "en"),
        ("de;q=0.5,en-US;q=0.6", "HIT", "en"),
    ] {
        let reply = ask(language).await;
        assert_eq!((reply.cache(), reply.text()), (cache, expected), "{language}");
    }
    // Those who speak none of them share one.
    let (fr, es) = (ask("fr").await, ask("es-MX,pt;q=0.3").await);
    assert_eq!(fr.text(), es.text());
    assert_eq!(es.cache(), "HIT", "{}", es.cache_status());
}

/// 362. A route that withholds the header has one variant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r362_a_route_can_drop_the_language() {
    let scene = Scene::start(&public("drop_headers = [\"accept-language\"]"), babel).await;
    for (language, cache) in [("de", "MISS"), ("en", "HIT")] {
        let reply = scene.ask("/a/1", &[("accept-language", language)]).await;
        assert_eq!((reply.cache(), reply.text()), (cache, ""), "{language}");
    }
}

// HEAD, and what `Vary` says of cookies.

/// 363. A HEAD for which nothing is stored stays a HEAD and stores nothing. One that brings a newer
///      head of what is stored is made from the key, as a fill is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r363_a_head_miss_stays_a_head() {
    let agent = |request: &Request| {
        let agent = request.header("user-agent").unwrap_or_default();
        Response::ok("data").header("etag", "\"1\"").header("x-agent", &agent)
    };
    let rules = scopes("").replace("1m", "1s");
    let scene = Scene::start(&rules, agent).await;
    let evil = [("user-agent", "evil"), ("referer", "evil")];
    for scope in ["public", "shared", "private"] {
        let path = format!("/{scope}/1");
        for _ in 0..2 {
            let head = scene.send("HEAD", &path, &evil, "").await;
            assert_cache(&head, "MISS", scope);
            assert_eq!(scene.last(&path).method, "HEAD", "{scope}");
        }
        assert_cache(&scene.get(&path).await, "MISS", scope);
        assert_eq!(scene.origin.count("HEAD", &path), 2, "{scope}");
        scene.until_stale();
        assert_eq!(scene.send("HEAD", &path, &evil, "").await.status, 200, "{scope}");
        assert_ne!(scene.last(&path).header("user-agent").as_deref(), Some("evil"), "{scope}");
        assert_ne!(scene.get(&path).await.header("x-agent"), "evil", "{scope}");
    }
}

/// 364. A framework that says `Vary: Cookie` on every page kept a public route from storing
///      anything, or had a session's page stored for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r364_vary_cookie_on_a_public_route() {
    for (vary, header, value) in
        [("Cookie", "cookie", "sessionid=alice"), ("Authorization", "authorization", "alice")]
    {
        let django = move |request: &Request| {
            let who = request.header(header).unwrap_or_else(|| "anonymous".to_owned());
            Response::ok(who).header("vary", vary)
        };
        // Whoever comes first.
        for first in [None, Some((header, value))] {
            let scene = Scene::start(&public(""), django).await;
            let first: Vec<(&str, &str)> = first.into_iter().collect();
            let reply = scene.ask("/a/1", &first).await;
            let own = if first.is_empty() { "anonymous" } else { value };
            assert_eq!(reply.text(), own, "{vary}: {}", reply.cache_status());
            scene.get("/a/1").await;
            assert!(scene.get("/a/1").await.is("HIT", "anonymous"), "{vary}");
            for _ in 0..2 {
                let reply = scene.ask("/a/1", &[(header, value)]).await;
                assert_eq!((reply.cache(), reply.text()), ("BYPASS", value), "{vary}");
            }
            let visitor = scene.ask("/a/1", &[("cookie", "_ga=1; _gid=2")]).await;
            assert!(visitor.is("HIT", "anonymous"), "{vary}: {}", visitor.cache_status());
            assert!(scene.get("/a/1").await.is("HIT", "anonymous"), "{vary}");
        }
    }
}

/// 365. The operator may say that the cookie changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r365_vary_cookie_can_be_ignored() {
    let django = |request: &Request| echo("cookie")(request).header("vary", "Cookie");
    let scene = Scene::start(&public("vary_cookie = \"ignore\""), django).await;
    for (cookie, cache) in [("sessionid=1", "MISS"), ("sessionid=2", "HIT")] {
        let reply = scene.ask("/a/1", &[("cookie", cookie)]).await;
        assert_eq!((reply.cache(), reply.text()), (cache, ""), "{}", reply.cache_status());
    }
}

// The representation that goes out.

/// 366. A download that was resumed mixed one coding's bytes with another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r366_a_range_is_one_of_the_plain_bytes() {
    const PLAIN: &str = "0123456789";
    let nginx = |request: &Request| {
        let accepted = request.header("accept-encoding").unwrap_or_default();
        let response = match request.header("range").as_deref() {
            // What it encodes as it goes has no ranges.
            _ if accepted.contains("br") => {
                Response::ok("(squeezed)").header("content-encoding", "br")
            }
            Some("bytes=2-4") => {
                Response::status(206, &PLAIN[2..=4]).header("content-range", "bytes 2-4/10")
            }
            _ => Response::ok(PLAIN),
        };
        response.header("vary", "Accept-Encoding").header("etag", "\"1\"")
    };
    let browser = ("accept-encoding", "gzip, deflate, br");
    for warm in [false, true] {
        let scene = Scene::start(&public(""), nginx).await;
        if warm {
            assert_eq!(scene.ask("/a/1", &[browser]).await.text(), "(squeezed)");
        }
        let range = [browser, ("range", "bytes=2-4")];
        let first = scene.ask("/a/1", &range).await;
        assert_eq!(first.header("content-encoding"), "", "{warm}: {}", first.cache_status());
        let whole = if first.status == 206 { &PLAIN[2..=4] } else { PLAIN };
        assert_eq!(first.text(), whole, "{warm}: {}", first.cache_status());
        eventually("a range is a hit", Duration::from_secs(5), || async {
            let reply = scene.ask("/a/1", &range).await;
            assert_eq!(reply.header("content-encoding"), "", "{}", reply.cache_status());
            (reply.status, reply.cache(), reply.text()) == (206, "HIT", &PLAIN[2..=4])
        })
        .await;
        for request in scene.seen("/a/1").iter().skip(usize::from(warm)) {
            let accepted = request.header("accept-encoding").unwrap_or_default();
            assert!(!accepted.contains("br"), "{warm}: {accepted}");
        }
        assert_eq!(scene.ask("/a/1", &[browser]).await.text(), "(squeezed)");
    }
}

/// 367. A 304 that names fewer headers in `Vary` made the variant of one value everybody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r367_a_304_keeps_what_the_response_varies_by() {
    let forgetful = |request: &Request| {
        if request.header("if-none-match").is_some() {
            return Response::status(304, "").header("vary", "Accept").header("etag", "\"1\"");
        }
        let value = request.header("x-kind").unwrap_or_else(|| "none".to_owned());
        Response::ok(value).header("vary", "X-Kind, Accept").header("etag", "\"1\"")
    };
    let scene = Scene::start(&public("").replace("1m", "1s"), forgetful).await;
    let ask = async |kind: &str| scene.ask("/a/1", &[("x-kind", kind)]).await;
    // The first answer shows that the origin varies on the header, the second is stored.
    assert_eq!(ask("one").await.text(), "one");
    assert_eq!(ask("one").await.text(), "one");
    assert!(ask("one").await.is("HIT", "one"));
    scene.until_stale();
    assert_eq!(ask("one").await.text(), "one");
    assert_eq!(scene.get("/a/1").await.text(), "none");
    assert_eq!(ask("two").await.text(), "two");
    assert!(ask("one").await.is("HIT", "one"), "it was confirmed");
}

/// 368. A validator that confirms nothing was sent at each expiry, and the whole response fetched
///      after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r368_a_validator_that_does_not_confirm_is_not_sent_again() {
    let nginx = |request: &Request| {
        if request.header("if-none-match").is_some() {
            return Response::status(304, "").header("etag", "\"x\"");
        }
        Response::ok("data").header("etag", "W/\"x\"")
    };
    let scene = Scene::start(&public("").replace("1m", "1s"), nginx).await;
    scene.fill("/a/1").await;
    scene.until_stale();
    assert_eq!(scene.get("/a/1").await.text(), "data");
    assert_eq!(scene.count("/a/1"), 3, "it is tried once, and then the whole is fetched");
    for expiry in 1..4 {
        scene.until_stale();
        assert_eq!(scene.get("/a/1").await.text(), "data");
        assert_eq!(scene.count("/a/1"), 3 + expiry, "the whole alone");
        assert_eq!(scene.last("/a/1").header("if-none-match"), None);
    }
}

/// 369. A stored response whose `Content-Length` does not fit its body left clients waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r369_a_length_that_does_not_fit_leaves_nobody_waiting() {
    let heads: [&'static [u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    for head in heads {
        let scene = Scene::start(&public(""), move |_| Response::raw(head)).await;
        for number in 0..3 {
            let mut client = Client::new(scene.sidecar.address);
            let reply =
                timeout(Duration::from_secs(5), client.try_send("GET", "/a/1", &[], "")).await;
            let reply: Reply = reply.expect("nobody waits").expect("there is a response");
            assert!(
                (reply.status, reply.text()) == (200, "abc") || reply.status == 502,
                "{number}: {} {} {}",
                reply.status,
                reply.text(),
                reply.cache_status()
            );
        }
    }
}

/// 370. An audit asks as a fill does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r370_an_audit_sends_what_a_fill_sends() {
    let scene = Scene::start(&public("audit = 1.0"), |_| Response::ok("data")).await;
    scene.fill("/a/1").await;
    let evil = [("user-agent", "evil"), ("x-forwarded-for", "198.51.100.7"), ("referer", "evil")];
    assert_cache(&scene.ask_http2("/%61/1", &evil).await, "HIT", "audited");
    eventually("the audit asks", Duration::from_secs(5), || async { scene.origin.total() == 2 })
        .await;
    let bytes: Vec<String> = scene
        .origin
        .requests()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.bytes).into_owned())
        .map(|head| head.lines().filter(|line| !line.starts_with("x-request-id")).collect())
        .collect();
    assert_eq!(bytes[0], bytes[1]);
}

/// 371. The address of the client can be keyed; then the origin gets what was keyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r371_the_clients_address_can_be_keyed() {
    let trusted = [("[listen]", "trusted_proxies = [\"127.0.0.1\"]")];
    let rules = format!(
        "[fields]\noffice = {{ client = \"address\", prefix = \"/24\" }}\n{}",
        public("key = [\"office\"]")
    );
    let scene = Scene::start_with(&trusted, &rules, echo("x-forwarded-for")).await;
    for (address, cache, network) in [
        ("198.51.100.7", "MISS", "198.51.100."),
        ("198.51.100.9", "HIT", "198.51.100."),
        ("203.0.113.9", "MISS", "203.0.113."),
        ("203.0.113.10, 198.51.100.8", "HIT", "198.51.100."),
    ] {
        let reply = scene.ask("/a/1", &[("x-forwarded-for", address)]).await;
        assert_cache(&reply, cache, address);
        assert!(reply.text().starts_with(network), "{address}: {}", reply.text());
        assert!(!reply.text().contains(','), "{address}: {}", reply.text());
    }
}
