//! `signed_in`: guests of a cookie app share one entry, those who are signed in keep their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use sidecache::app::Clock;

use super::sessions::{SECRET, now, signed};
use crate::support::{
    Client, Origin, Point, Reply, Request, Response, Sidecar, eventually, joined, metric, waiting,
};

const RULES: &str = r#"
[credential]
headers = ["x-api-key"]

[[routes]]
path = "/page/{*rest}"
ttl  = "5m"
signed_in = { cookie = ["logged_in_*", "remember"] }
strip_set_cookie = ["sid"]

[[routes]]
path = "/all/{*rest}"
ttl  = "5m"
origin = "ignore"
signed_in = { cookie = "logged_in_*" }
strip_set_cookie = ["*"]
"#;

fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    let pairs = cookies.split("; ").filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// An app with a session for each guest. What is in a page depends on the end of its path.
fn app() -> Origin {
    let count = Arc::new(AtomicU64::new(0));
    Origin::start(move |request| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let cookies = request.header("cookie").unwrap_or_default();
        let user = cookie(&cookies, "logged_in_1").filter(|value| !value.is_empty());
        let session = cookie(&cookies, "sid").map(ToOwned::to_owned);
        let name = user.unwrap_or("guest");
        let (own, is_new) =
            (session.clone().unwrap_or_else(|| format!("s{nth}")), session.is_none());
        let page = request.path.rsplit('/').next().unwrap_or_default();
        let response = match page {
            "form" => Response::ok(format!("{name}, token of {own}")),
            "csrf" => Response::ok(format!("hello {name}")).header("set-cookie", "csrftoken=1"),
            "vary" => Response::ok(format!("hello {name}")).header("vary", "Cookie"),
            "private" => Response::ok(format!("hello {name}")).header("cache-control", "private"),
            "nonce" => Response::ok(format!("nonce {nth}")).header("cache-control", "private"),
            "login" => Response::ok("hello bob").header("set-cookie", "logged_in_1=bob; Path=/"),
            "fails" if nth % 2 == 1 => Response::status(503, ""),
            _ => Response::ok(format!("hello {name}")),
        };
        let sets = is_new && user.is_none() && !["vary", "private", "nonce"].contains(&page);
        if sets { response.header("set-cookie", &format!("sid={own}; Path=/")) } else { response }
    })
}

async fn scene() -> (Origin, Sidecar) {
    let app = app();
    let sidecar = Sidecar::start(app.address, RULES).await;
    (app, sidecar)
}

async fn send(address: SocketAddr, path: &str, cookies: &str) -> Reply {
    let headers = [("cookie", cookies)];
    Client::new(address).get(path, if cookies.is_empty() { &[] } else { &headers }).await
}

/// Sends a GET, and waits until nothing is fetched or proven any more.
async fn get(sidecar: &Sidecar, path: &str, cookies: &str) -> Reply {
    let reply = send(sidecar.address, path, cookies).await;
    settled(sidecar).await;
    reply
}

async fn settled(sidecar: &Sidecar) {
    eventually("the fills have ended", Duration::from_secs(30), || async {
        metric(sidecar.admin, "sidecache_fills_in_flight").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1100_guests_share_one_entry_whatever_their_cookies_are() {
    let (app, sidecar) = scene().await;
    let first = get(&sidecar, "/page/a", "").await;
    assert_eq!((first.text(), first.cache()), ("hello guest", "MISS"));
    assert!(first.header("set-cookie").starts_with("sid="), "a new guest gets a session");
    for cookies in ["", "_ga=1", "sid=x1", "sid=x2; cart=7", "theme=logged_in_1"] {
        let reply = get(&sidecar, "/page/a", cookies).await;
        assert_eq!((reply.text(), reply.cache()), ("hello guest", "HIT"), "{cookies}");
        assert_eq!(reply.header("set-cookie"), "", "a hit begins no session");
    }
    // The fill, and the second request that proves it.
    let requests = app.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.header("cookie").is_none()));
    let proofs = "sidecache_guest_proofs_total{result=\"same\"}";
    assert_eq!(metric(sidecar.admin, proofs).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1101_a_login_and_a_logout_between_two_requests_mix_nothing() {
    let (_app, sidecar) = scene().await;
    for path in ["/page/a", "/page/vary", "/all/a"] {
        for (cookies, text, cache) in [
            // The first guest has cookies: where the answer sets some, its own request goes to the
            // app, while the fill goes on for the others.
            ("sid=1", "hello guest", if path == "/page/vary" { "MISS" } else { "BYPASS" }),
            ("sid=1", "hello guest", "HIT"),
            ("sid=1; logged_in_1=bob", "hello bob", "MISS"),
            ("sid=1; logged_in_1=bob", "hello bob", "HIT"),
            ("sid=1; logged_in_1=eve", "hello eve", "MISS"),
            ("sid=1", "hello guest", "HIT"),
            ("sid=2", "hello guest", "HIT"),
            ("sid=1; logged_in_1=bob", "hello bob", "HIT"),
        ] {
            let reply = get(&sidecar, path, cookies).await;
            assert!(reply.is(cache, text), "{path} {cookies}: {}", reply.cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1102_who_may_be_signed_in_is_no_guest() {
    let (_app, sidecar) = scene().await;
    get(&sidecar, "/page/a", "").await;
    assert_eq!(get(&sidecar, "/page/a", "").await.cache(), "HIT");
    let lines: [&[(&str, &str)]; 9] = [
        &[("cookie", "logged_in_1=")],
        &[("cookie", "logged_in_1=deleted")],
        &[("cookie", "logged_in_1")],
        &[("cookie", "logged_in_2=; logged_in_2=x")],
        &[("cookie", "sid=1"), ("cookie", "remember=1")],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer x"), ("cookie", "sid=1")],
        &[("x-api-key", "k")],
        &[("x-api-key", "")],
    ];
    for headers in lines {
        let mut is_known = false;
        for mut client in [Client::new(sidecar.address), Client::http2(sidecar.address)] {
            // What a guest would be given is there, and is not given.
            let reply = client.get("/page/a", headers).await;
            let state = reply.cache_status();
            assert!(!state.contains("hit") || is_known, "{headers:?}: {state}");
            is_known = state.contains("stored") || is_known;
            client.get("/page/new", headers).await;
        }
    }
    // Each of them has what no other has.
    let guest = get(&sidecar, "/page/new", "").await;
    assert_eq!(guest.cache(), "MISS", "{}", guest.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1103_a_page_with_a_token_is_stored_for_nobody() {
    let (app, sidecar) = scene().await;
    let first = get(&sidecar, "/page/form", "").await;
    let own = first.header("set-cookie").to_owned();
    let session =
        own.strip_prefix("sid=").and_then(|rest| rest.split(';').next()).expect("a cookie");
    assert_eq!(first.text(), format!("guest, token of {session}"), "page and cookie fit");
    let differs = "sidecache_store_aborted_total{reason=\"guests_differ\"}";
    assert_eq!(metric(sidecar.admin, differs).await, 1);
    for session in ["x1", "x2"] {
        let reply = get(&sidecar, "/page/form", &format!("sid={session}")).await;
        assert_eq!(reply.text(), format!("guest, token of {session}"));
        let state = reply.cache_status();
        assert!(reply.cache() == "BYPASS" && state.contains("guests differ"), "{state}");
    }
    let new = get(&sidecar, "/page/form", "").await;
    assert!(new.text().starts_with("guest, token of s") && new.text() != first.text());
    // One fill, one proof, and then one request each.
    assert_eq!(app.requests().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1104_the_cookie_of_a_forms_token_is_never_taken_out() {
    let (app, sidecar) = scene().await;
    for path in ["/all/csrf", "/page/csrf"] {
        for _ in 0..3 {
            let reply = get(&sidecar, path, "").await;
            assert_eq!((reply.text(), reply.cache()), ("hello guest", "MISS"), "{path}");
            assert!(reply.cache_status().contains("set-cookie"), "{}", reply.cache_status());
            assert!(reply.headers.get_all("set-cookie").iter().any(|line| line == "csrftoken=1"));
        }
    }
    assert_eq!(app.requests().len(), 6, "there is nothing to prove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1105_a_guest_with_a_session_never_gets_that_of_a_fill() {
    let (app, sidecar) = scene().await;
    for path in ["/page/a", "/page/form", "/page/csrf"] {
        let reply = get(&sidecar, path, "sid=mine").await;
        assert_eq!(
            reply.header("set-cookie"),
            if path == "/page/csrf" { "csrftoken=1" } else { "" }
        );
        let own = app.requests().into_iter().filter(|request| request.path == path);
        let own = own.filter(|request| request.header("cookie").as_deref() == Some("sid=mine"));
        assert_eq!(own.count(), 1, "{path}: its own request has reached the app");
        if path == "/page/form" {
            assert_eq!(reply.text(), "guest, token of mine");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1106_what_the_app_says_is_private_is_stored_for_no_guest() {
    let (_app, sidecar) = scene().await;
    for _ in 0..2 {
        let reply = get(&sidecar, "/page/private", "").await;
        let state = reply.cache_status();
        assert!(reply.cache() == "MISS" && state.contains("\"private\""), "{state}");
    }
    // For its own caller it is.
    get(&sidecar, "/page/private", "logged_in_1=bob").await;
    assert_eq!(get(&sidecar, "/page/private", "logged_in_1=bob").await.cache(), "HIT");
    // Where the route overrides it, the answers are compared all the same.
    get(&sidecar, "/all/private", "").await;
    assert_eq!(get(&sidecar, "/all/private", "sid=1").await.text(), "hello guest");
    assert_eq!(get(&sidecar, "/all/private", "").await.cache(), "HIT");
    let first = get(&sidecar, "/all/nonce", "").await;
    let second = get(&sidecar, "/all/nonce", "").await;
    assert_ne!(first.text(), second.text());
    assert_ne!(second.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1107_who_is_signed_in_by_an_answer_gets_its_cookie() {
    let (_app, sidecar) = scene().await;
    for cookies in ["", "sid=1"] {
        for path in ["/page/login", "/all/login"] {
            let reply = get(&sidecar, path, cookies).await;
            assert_eq!((reply.text(), reply.cache()), ("hello bob", "MISS"));
            let sets = reply.headers.get_all("set-cookie");
            assert!(sets.iter().any(|line| line == "logged_in_1=bob; Path=/"), "{cookies}");
            assert!(reply.cache_status().contains("set-cookie"), "{}", reply.cache_status());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1108_a_write_purges_the_page_of_guests_whoever_writes() {
    let (_app, sidecar) = scene().await;
    for writer in ["", "sid=1", "logged_in_1=bob"] {
        let first = get(&sidecar, "/page/a", "").await;
        assert_eq!(first.cache(), "MISS", "{writer}: {}", first.cache_status());
        assert_eq!(get(&sidecar, "/page/a", "sid=2").await.cache(), "HIT");
        let headers = [("cookie", writer)];
        let headers = if writer.is_empty() { &[][..] } else { &headers };
        Client::new(sidecar.address).send("POST", "/page/a", headers, "x").await;
    }
    assert_eq!(get(&sidecar, "/page/a", "").await.cache(), "MISS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1109_followers_wait_for_the_proof_and_get_nothing_without_it() {
    let (app, sidecar) = scene().await;
    for (path, is_same) in [("/page/a", true), ("/page/form", false)] {
        let gate = app.hold("GET", path, Point::After);
        let guest = |number: usize| {
            let address = sidecar.address;
            tokio::spawn(async move {
                let cookies = format!("sid=x{number}");
                send(address, path, if number == 0 { "" } else { &cookies }).await
            })
        };
        let leader = guest(0);
        gate.arrived().await;
        let before = metric(sidecar.admin, "sidecache_fill_waiters").await;
        assert_eq!(before, 0);
        let others: Vec<_> = (1..6).map(guest).collect();
        waiting(sidecar.admin, 5).await;
        gate.release();
        let first = leader.await.expect("a reply").text().to_owned();
        let mut texts: Vec<String> = Vec::new();
        for other in others {
            texts.push(other.await.expect("a reply").text().to_owned());
        }
        if is_same {
            assert!(texts.iter().all(|text| *text == first), "{texts:?}");
            let fills = app.requests().into_iter().filter(|request| request.path == path);
            assert_eq!(fills.count(), 2, "the fill and its proof");
            joined(sidecar.admin, 5).await;
        } else {
            texts.sort();
            let own: Vec<String> =
                (1..6).map(|number| format!("guest, token of x{number}")).collect();
            assert_eq!(texts, own, "each has its own");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1110_an_answer_without_a_second_one_is_not_stored() {
    let (app, sidecar) = scene().await;
    // The first is answered, the second fails.
    assert_eq!(get(&sidecar, "/page/fails", "").await.status, 200);
    let failed = "sidecache_guest_proofs_total{result=\"failed\"}";
    assert_eq!(metric(sidecar.admin, failed).await, 1);
    let uncompared = "sidecache_store_aborted_total{reason=\"guests_uncompared\"}";
    assert_eq!(metric(sidecar.admin, uncompared).await, 1);
    assert_ne!(get(&sidecar, "/page/fails", "").await.cache(), "HIT");
    assert!(app.requests().len() >= 3);
}

/// An app in the manner of Flask, with a token for forms in the session of each guest.
fn flask() -> Origin {
    let count = Arc::new(AtomicU64::new(0));
    let user = |request: &Request| -> Value {
        use base64::Engine as _;
        let cookies = request.header("cookie").unwrap_or_default();
        let encoded = cookie(&cookies, "session").and_then(|value| value.split('.').next());
        let decoded = encoded
            .and_then(|text| base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).ok())
            .unwrap_or_default();
        serde_json::from_slice::<Value>(&decoded).unwrap_or_default()["_user_id"].clone()
    };
    Origin::start(move |request| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let session = json!({ "csrf_token": format!("t{nth}") });
        let response = Response::ok(format!("hello {}", user(request)));
        if request.header("cookie").is_some() {
            return response;
        }
        let cookie = signed(SECRET, &session, now());
        response.header("set-cookie", &format!("session={cookie}; Path=/"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1111_a_signed_session_says_who_is_a_guest() {
    let app = flask();
    let rules = format!(
        "[fields]\nuser = {{ cookie = \"session\", format = \"flask\", secret = \"{SECRET}\", \
         max_age = \"1h\", pointer = \"/_user_id\", ignore = [\"csrf_token\"] }}\n[[routes]]\n\
         path = \"/page/{{id}}\"\nttl = \"5m\"\nkey = [\"user\"]\n\
         signed_in = {{ field = \"user\", cookie = \"remember_token\" }}\n\
         strip_set_cookie = [\"session\"]\n"
    );
    let sidecar = Sidecar::start(app.address, &rules).await;
    let session = |payload: Value| format!("session={}", signed(SECRET, &payload, now() - 60));
    get(&sidecar, "/page/1", "").await;
    for guest in [json!({}), json!({ "csrf_token": "a" }), json!({ "_flashes": [], "x": 1 })] {
        let reply = get(&sidecar, "/page/1", &session(guest.clone())).await;
        assert_eq!((reply.text(), reply.cache()), ("hello null", "HIT"), "{guest}");
    }
    for name in ["alice", "bob"] {
        let cookies = session(json!({ "_user_id": name, "csrf_token": "b" }));
        for cache in ["MISS", "HIT"] {
            let reply = get(&sidecar, "/page/1", &cookies).await;
            assert!(reply.is(cache, &format!("hello \"{name}\"")), "{}", reply.cache_status());
        }
    }
    // A session that is not verified may be anybody's, and the app knows who is remembered.
    let forged = session(json!({})).replacen("session=e", "session=f", 1);
    for cookies in [forged, "remember_token=1".to_owned()] {
        let reply = get(&sidecar, "/page/1", &cookies).await;
        assert_ne!(reply.cache(), "HIT", "{cookies}: {}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1112_the_rules_in_force_say_who_is_signed_in() {
    let (_app, sidecar) = scene().await;
    let rules = sidecar.admin_get("/routes").await.json();
    assert_eq!(rules["routes"][0]["signed_in"]["cookies"], json!(["logged_in_*", "remember"]));
    let ls = sidecar.admin_get("/memory?route=/page/%7B*rest%7D").await;
    assert_eq!(ls.status, 200, "{}", ls.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1113_a_hit_of_a_guest_does_not_say_that_the_app_knows_the_caller() {
    let app = Origin::start(|request| match request.method.as_str() {
        "GET" => Response::ok("hello guest"),
        _ => Response::status(302, "").header("location", "/login"),
    });
    let rules = RULES.replace("[credential]", "[credential]\nlogin_paths = [\"/login\"]");
    let clock = Clock::manual();
    let sidecar = Sidecar::start_at(clock.clone(), app.address, &rules).await;
    // At first nothing is known of those with a credential, so that they purge.
    let mut client = Client::new(sidecar.address);
    client.send("POST", "/page/b", &[("cookie", "sid=other")], "x").await;
    clock.advance(Duration::from_secs(61));
    for cache in ["MISS", "HIT"] {
        assert_eq!(get(&sidecar, "/page/a", "sid=1").await.cache(), cache);
    }
    // The app refuses the write of a stranger, so that it purges nothing.
    let refused = client.send("POST", "/page/a", &[("cookie", "sid=1")], "x").await;
    assert_eq!(refused.status, 302);
    assert_eq!(get(&sidecar, "/page/a", "sid=1").await.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1114_a_head_brings_a_guest_no_other_session() {
    let (app, sidecar) = scene().await;
    let cookies = [("cookie", "sid=mine")];
    let reply = Client::new(sidecar.address).send("HEAD", "/page/a", &cookies, "").await;
    assert_eq!((reply.status, reply.header("set-cookie")), (200, ""), "{}", reply.cache_status());
    assert_eq!(app.last("/page/a").header("cookie").as_deref(), Some("sid=mine"));
}

/// An app whose answers say by their number, and by that of their session, whose they are.
fn validated(header: &'static str, value: &'static str) -> Origin {
    let count = Arc::new(AtomicU64::new(0));
    Origin::start(move |request| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let is_known = request.header("if-none-match").is_some();
        let response = if is_known { Response::status(304, "") } else { Response::ok("same") };
        let response = response.header("etag", "\"1\"");
        let first = nth < 2 && request.method == "GET" && !is_known;
        match header {
            _ if first => response,
            "set-cookie" => response.header(header, &format!("{value}=s{nth}")),
            _ => response.header(header, value),
        }
    })
}

/// Answers are stored at their first request, and asked for again after a second.
const VALIDATED: &str = "[[routes]]\npath = \"/all/{*rest}\"\nttl = \"1s\"\nscope = \"public\"\n\
                         strip_set_cookie = [\"*\"]\n\
                         [[routes]]\npath = \"/guests/{*rest}\"\nttl = \"1s\"\n\
                         origin = \"ignore\"\nsigned_in = { cookie = \"in\" }\n\
                         strip_set_cookie = [\"*\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1057_the_cookie_of_a_head_or_a_304_is_given_to_nobody_else() {
    for path in ["/all/a", "/guests/a"] {
        for method in ["HEAD", "GET"] {
            let app = validated("set-cookie", "sid");
            let clock = Clock::manual();
            let sidecar = Sidecar::start_at(clock.clone(), app.address, VALIDATED).await;
            assert_eq!(get(&sidecar, path, "").await.text(), "same");
            clock.advance(Duration::from_secs(2));
            Client::new(sidecar.address).send(method, path, &[], "").await;
            settled(&sidecar).await;
            for _ in 0..3 {
                let next = get(&sidecar, path, "").await;
                let cookie = next.header("set-cookie").to_owned();
                let is_own = next.cache() != "HIT" && app.requests().len() > 2;
                assert!(cookie.is_empty() || is_own, "{method} {path}: {cookie}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1058_a_304_or_a_head_does_not_go_around_the_proof_of_guests() {
    for (header, value) in [("cache-control", "private"), ("set-cookie", "sid")] {
        for method in ["HEAD", "GET"] {
            let app = validated(header, value);
            let clock = Clock::manual();
            let sidecar = Sidecar::start_at(clock.clone(), app.address, VALIDATED).await;
            assert_eq!(get(&sidecar, "/guests/a", "").await.text(), "same");
            let proofs = async || {
                let text = sidecar.admin_get("/metrics").await;
                let all = text.text();
                let counts =
                    all.lines().filter(|it| it.starts_with("sidecache_guest_proofs_total"));
                counts.filter_map(|it| it.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
            };
            assert_eq!(proofs().await, 0, "nothing to prove at first");
            clock.advance(Duration::from_secs(2));
            Client::new(sidecar.address).send(method, "/guests/a", &[], "").await;
            settled(&sidecar).await;
            let next = get(&sidecar, "/guests/a", "").await;
            let was_proven = proofs().await > 0;
            assert!(next.cache() != "HIT" || was_proven, "{method} {header}");
        }
    }
}
