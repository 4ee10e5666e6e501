//! Numbered regressions of cookies, and of what only a credential makes one's own.

use crate::support::scene::assert_cache;
use crate::support::{Client, Origin, Request, Response, Scene, Sidecar};

/// A route of each scope, `/public`, `/shared` and `/private`, after these tables.
fn scopes(tables: &str, more: &str) -> String {
    let route = |scope: &str| {
        format!(
            "[[routes]]\npath = \"/{scope}/{{*rest}}\"\nttl = \"1m\"\nscope = \"{scope}\"\n{more}\n"
        )
    };
    format!("{tables}\n{}", ["public", "shared", "private"].map(route).concat())
}

/// Says which cookies it got.
fn cookies(request: &Request) -> Response {
    Response::ok(request.header("cookie").unwrap_or_default())
}

/// 380. Where cookies were listed that identify the caller, the origin never saw any other: the
///      messages of a framework vanished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r380_other_cookies_reach_the_origin() {
    let tables = "[credential]\ncookies = [\"sessionid\"]";
    let both = ("cookie", "sessionid=1; messages=hello");
    // What is not stored, as by a framework that says so, and what is.
    for control in ["no-store", "max-age=60"] {
        let answer = move |request: &Request| cookies(request).header("cache-control", control);
        let scene = Scene::start(&scopes(tables, ""), answer).await;
        for path in ["/shared/1", "/private/1"] {
            let reply = scene.ask(path, &[both]).await;
            assert_eq!(reply.text(), both.1, "{control} {path}: {}", reply.cache_status());
            let read = scene.ask(path, &[("cookie", "sessionid=1")]).await;
            assert_eq!(read.text(), "sessionid=1", "{control} {path}: {}", read.cache_status());
        }
    }
}

/// 381. Nothing is withheld from a request that is passed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r381_nothing_is_withheld_on_a_pass() {
    let tables = "[credential]\ncookies = [\"sessionid\"]";
    let scene = Scene::start(&scopes(tables, ""), cookies).await;
    let all = "sessionid=1; messages=hello; _ga=1";
    for scope in ["public", "shared", "private"] {
        for (number, why) in [("x-odd", "1"), ("cache-control", "no-store"), ("if-match", "\"1\"")]
            .into_iter()
            .enumerate()
        {
            let path = format!("/{scope}/{number}");
            let reply = scene.ask(&path, &[("cookie", all), why]).await;
            assert_eq!((reply.cache(), reply.text()), ("BYPASS", all), "{scope} {why:?}");
        }
        let reply = scene.send("POST", &format!("/{scope}/9"), &[("cookie", all)], "").await;
        assert_eq!(reply.text(), all, "{scope} POST");
    }
}

/// 382. A glob was taken for a name: administrators got the guests' page, and the guests theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r382_a_listed_cookie_may_be_a_glob() {
    let tables = "[credential]\ncookies = [\"wordpress_logged_in_*\"]";
    let wordpress = |request: &Request| {
        let cookie = request.header("cookie").unwrap_or_default();
        Response::ok(if cookie.contains("wordpress_logged_in_") { "admin" } else { "guest" })
    };
    let admin = [("cookie", "wordpress_logged_in_d41d8c=root")];
    for scope in ["shared", "private"] {
        for first_is_admin in [false, true] {
            let scene = Scene::start(&scopes(tables, ""), wordpress).await;
            let path = format!("/{scope}/1");
            for round in 0..3 {
                for is_admin in [first_is_admin, !first_is_admin] {
                    // A shared page is the same for all whom the origin lets in; here it is not,
                    // and the operator has to see it.
                    if scope == "shared" && is_admin != first_is_admin {
                        continue;
                    }
                    let headers = if is_admin { &admin[..] } else { &[] };
                    let reply = scene.ask(&path, headers).await;
                    let expected = if is_admin { "admin" } else { "guest" };
                    assert_eq!(reply.text(), expected, "{scope} {round}: {}", reply.cache_status());
                }
            }
            // Whoever has never been answered is not served.
            if scope == "shared" {
                let headers = if first_is_admin { &[] } else { &admin[..] };
                let expected = if first_is_admin { "guest" } else { "admin" };
                let reply = scene.ask(&path, headers).await;
                assert_eq!(reply.text(), expected, "{scope}: {}", reply.cache_status());
            }
        }
    }
}

/// 383. The cookies of analytics made every visitor somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r383_cookies_of_analytics_count_for_nothing() {
    let scene = Scene::start(&scopes("", ""), cookies).await;
    for scope in ["public", "shared", "private"] {
        for (name, own) in [("anonymous", ""), ("owned", "sessionid=1")] {
            let path = format!("/{scope}/{name}");
            let with = |more: &str| {
                let all = [own, more].into_iter().filter(|part| !part.is_empty());
                all.collect::<Vec<_>>().join("; ")
            };
            let expected = if scope == "public" { "" } else { own };
            for (number, more) in [
                "_ga=1",
                "_ga=2; _gid=3",
                "_ga_AB=1",
                "_gcl_au=1",
                "_fbp=1",
                "_hjSession_1=1",
                "_pk_id.1=1",
                "",
            ]
            .into_iter()
            .enumerate()
            {
                let cookie = with(more);
                let headers = [("cookie", cookie.as_str())];
                let headers = if cookie.is_empty() { &[][..] } else { &headers };
                let reply = scene.ask(&path, headers).await;
                let cache = if number == 0 { "MISS" } else { "HIT" };
                assert_eq!((reply.cache(), reply.text()), (cache, expected), "{path} {cookie}");
            }
        }
    }
}

/// 384. The operator says which further cookies count for nothing, and which of them do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r384_cookies_can_be_ignored_by_name() {
    let tables = "[credential]\nignore_cookies = [\"pref_*\", \"@consent\", \"!_pk_*\"]";
    let scene = Scene::start(&scopes(tables, ""), cookies).await;
    let ask = async |cookie: &str| scene.ask("/private/1", &[("cookie", cookie)]).await;
    for (cookie, cache, sent) in [
        ("sid=1; pref_theme=dark", "MISS", "sid=1"),
        ("sid=1; pref_font=big; _ga=1", "HIT", "sid=1"),
        ("sid=1", "HIT", "sid=1"),
        ("sid=1; _pk_id=1", "MISS", "sid=1; _pk_id=1"),
        ("sid=1; _pk_id=2", "MISS", "sid=1; _pk_id=2"),
        ("sid=1; prefer=1", "MISS", "sid=1; prefer=1"),
    ] {
        let reply = ask(cookie).await;
        assert_eq!((reply.cache(), reply.text()), (cache, sent), "{cookie}");
    }
}

/// 385. In scope `shared`, a cookie that is on neither list is in the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r385_a_cookie_on_neither_list_is_keyed_in_scope_shared() {
    let tables = "[credential]\ncookies = [\"sessionid\"]";
    let scene = Scene::start(&scopes(tables, ""), cookies).await;
    let ask = async |cookie: &str| scene.ask("/shared/1", &[("cookie", cookie)]).await;
    for theme in ["dark", "light"] {
        let cookie = format!("sessionid=1; theme={theme}");
        assert!(ask(&cookie).await.is("MISS", &cookie), "{cookie}");
    }
    for theme in ["dark", "light"] {
        let cookie = format!("sessionid=1; theme={theme}");
        assert!(ask(&cookie).await.is("HIT", &cookie), "{cookie}");
    }
}

/// 386. A POST whose answer is what a GET would bring filled the GET for everybody, though its body
///      is in no key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r386_a_post_fills_for_its_own_caller_alone() {
    let reflect = |request: &Request| {
        let body = if request.method == "POST" { request.body.clone() } else { "good".into() };
        let path = request.path.clone();
        Response::ok(body).header("content-location", &path).header("cache-control", "max-age=60")
    };
    let alice = ("authorization", "Bearer alice");
    for (scope, caller, fills) in [
        ("public", None, false),
        ("public", Some(alice), false),
        ("shared", None, false),
        ("shared", Some(alice), false),
        ("private", None, false),
        ("private", Some(alice), true),
    ] {
        let scene = Scene::start(&scopes("", ""), reflect).await;
        let (path, case) = (format!("/{scope}/1"), format!("{scope} {caller:?}"));
        let headers: Vec<(&str, &str)> = caller.into_iter().collect();
        // In scope `shared`, both have been answered before.
        scene.ask(&format!("/{scope}/0"), &headers).await;
        assert_eq!(scene.send("POST", &path, &headers, "EVIL").await.text(), "EVIL", "{case}");
        let reply = scene.ask(&path, &headers).await;
        let expected = if fills { ("HIT", "EVIL") } else { ("MISS", "good") };
        assert_eq!((reply.cache(), reply.text()), expected, "{case}");
        if fills {
            assert_eq!(scene.get(&path).await.text(), "good", "{case}: of somebody else");
        }
    }
}

/// 387. `Cache-Control: private` allows a private route to store the response for its owner, where
///      the key holds the whole credential, and for nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r387_a_private_response_is_stored_for_its_owner() {
    let who = |request: &Request| {
        let who = request.header("authorization").unwrap_or_else(|| "nobody".to_owned());
        Response::ok(who).header("cache-control", "private, max-age=60")
    };
    let tables = "[fields]\ntoken = { auth = \"prefix\", length = 8 }\n[[routes]]\npath = \
        \"/token/{*rest}\"\nttl = \"1m\"\nkey = [\"token\"]";
    let scene = Scene::start(&scopes(tables, ""), who).await;
    for round in 0..2 {
        for user in ["Bearer alice-alice", "Bearer bobby-bobby"] {
            let own = [("authorization", user)];
            let cache = if round == 0 { "MISS" } else { "HIT" };
            let reply = scene.ask("/private/1", &own).await;
            assert_eq!((reply.cache(), reply.text()), (cache, user), "{}", reply.cache_status());
            for path in ["/public/1", "/shared/1", "/token/1"] {
                let reply = scene.ask(path, &own).await;
                assert_cache(&reply, "MISS", &format!("{path} {round}"));
            }
        }
        let nobody = scene.get("/private/1").await;
        assert!(nobody.is("MISS", "nobody"), "{}", nobody.cache_status());
        let visitor = scene.ask("/private/1", &[("cookie", "_ga=1")]).await;
        assert!(visitor.is("MISS", "nobody"), "{}", visitor.cache_status());
    }
}

/// 388. With `max-age=0` and a validator it is confirmed at each use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r388_a_private_response_without_freshness_is_confirmed() {
    let rails = |request: &Request| {
        let who = request.header("authorization").unwrap_or_else(|| "nobody".to_owned());
        let etag = format!("W/\"{who}\"");
        let response = if request.header("if-none-match").as_deref() == Some(&etag) {
            Response::status(304, "")
        } else {
            Response::ok(who)
        };
        response
            .header("cache-control", "max-age=0, private, must-revalidate")
            .header("etag", &etag)
    };
    let scene = Scene::start(&scopes("", ""), rails).await;
    for cache in ["MISS", "REVALIDATED", "REVALIDATED"] {
        for user in ["alice", "bob"] {
            let reply = scene.ask("/private/1", &[("authorization", user)]).await;
            assert_eq!((reply.cache(), reply.text()), (cache, user), "{}", reply.cache_status());
        }
        assert!(scene.get("/private/1").await.is("MISS", "nobody"));
    }
}

/// 389. Where cookies of responses were stripped, those without a session shared a form's token
///      whose cookie nobody had. It strips for callers who have a credential, or by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r389_a_forms_token_comes_with_its_cookie() {
    let form = |request: &Request| {
        let token = format!("token-{}", request.number);
        let cookie = format!("csrftoken={token}");
        Response::ok(token).header("set-cookie", "_ga=1").header("set-cookie", &cookie)
    };
    for (rule, anonymous, owned) in [
        ("true", "MISS", "HIT"),
        ("[\"_ga\"]", "MISS", "MISS"),
        ("[\"_ga\", \"csrf*\"]", "HIT", "HIT"),
    ] {
        let scene = Scene::start(&scopes("", &format!("strip_set_cookie = {rule}")), form).await;
        for (number, (headers, expected)) in
            [(&[][..], anonymous), (&[("cookie", "sessionid=1")], owned)].into_iter().enumerate()
        {
            let (path, case) = (format!("/private/{number}"), format!("{rule} {headers:?}"));
            scene.ask(&path, headers).await;
            let second = scene.ask(&path, headers).await;
            assert_cache(&second, expected, &case);
            let cookies: Vec<&str> = second
                .headers
                .get_all("set-cookie")
                .iter()
                .filter_map(|line| line.to_str().ok())
                .collect();
            let own = format!("csrftoken={}", second.text());
            assert_eq!(cookies.contains(&own.as_str()), expected == "MISS", "{case}: {cookies:?}");
        }
    }
}

/// 1215. The sidecar made a 304 of its own of what the origin had sent, and dropped the cookie of a
///       rolling session, for ever: each visit of a browser is conditional.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1215_a_304_in_place_of_what_came_keeps_its_cookies() {
    let app = Origin::start(|request| {
        let cookie = format!("sid=roll{}; Path=/", request.number);
        Response::ok("page")
            .header("etag", "\"v1\"")
            .header("x-new-token", "t")
            .header("set-cookie", &cookie)
    });
    for keys in ["", "scope = \"public\"", "scope = \"public\"\nstrip_set_cookie = [\"other\"]"] {
        let rules = format!("[[routes]]\npath = \"/p/{{x}}\"\nttl = \"5m\"\n{keys}\n");
        let sidecar = Sidecar::start(app.address, &rules).await;
        for _ in 0..2 {
            let headers = [("if-none-match", "\"v1\"")];
            let reply = Client::new(sidecar.address).get("/p/1", &headers).await;
            assert_eq!((reply.status, reply.text()), (304, ""), "{keys}");
            assert!(reply.header("set-cookie").starts_with("sid=roll"), "{keys}");
            assert_eq!((reply.header("x-new-token"), reply.header("content-type")), ("t", ""));
        }
    }
}

/// 1216. In scope `public` with a list of cookies to take out, whoever had a session got that which
///       the app had begun for the fill, which had none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1216_nobody_gets_the_session_that_a_fill_began() {
    let app = Origin::start(|request| {
        let cookies = request.header("cookie").unwrap_or_default();
        let own = cookies.strip_prefix("session=").map(ToOwned::to_owned);
        let session = own.unwrap_or_else(|| format!("new{}", request.number));
        Response::ok("page").header("set-cookie", &format!("session={session}"))
    });
    let rules = "[[routes]]\npath = \"/p/{x}\"\nttl = \"5m\"\nscope = \"public\"\n\
                 strip_set_cookie = [\"session\"]\n";
    let sidecar = Sidecar::start(app.address, rules).await;
    for (method, path) in [("GET", "/p/1"), ("HEAD", "/p/2"), ("GET", "/p/3")] {
        let cookies = [("cookie", "session=mine")];
        let reply = Client::new(sidecar.address).send(method, path, &cookies, "").await;
        assert_eq!(reply.header("set-cookie"), "session=mine", "{method} {path}");
    }
    let stranger = Client::new(sidecar.address).get("/p/4", &[]).await;
    assert!(stranger.header("set-cookie").starts_with("session=new"), "it gets the app's own");
}

/// 1218. What cannot be stored was fetched twice for each request of a client with cookies, for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1218_what_is_not_stored_is_not_fetched_twice_each_time() {
    for control in ["no-store", "private", "no-cache", "max-age=0"] {
        let app = Origin::start(move |_| {
            let response = Response::ok("page").header("set-cookie", "_ga=1");
            response.header("cache-control", control).header("etag", "\"1\"")
        });
        let rules = "[[routes]]\npath = \"/p/{x}\"\nttl = \"5m\"\nscope = \"public\"\n\
                     strip_set_cookie = [\"_ga\"]\n";
        let sidecar = Sidecar::start(app.address, rules).await;
        for _ in 0..8 {
            Client::new(sidecar.address).get("/p/1", &[("cookie", "sessionid=1")]).await;
        }
        let asked = app.requests().len();
        assert!(asked <= 10, "{control}: {asked} requests for 8");
    }
}
