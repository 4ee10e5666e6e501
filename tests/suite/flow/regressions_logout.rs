//! A logout by GET on a route: it is done once, and its client gets what ends the session.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Request, Response, Scene};

const RULES: &str = r#"
[[routes]]
path = "/{*rest}"
ttl  = "5m"
"#;

/// An app with one session, in the manner of `WordPress`: a logout ends the cookie and leads to the
/// login; without a session, everything does.
async fn site(ends: &'static str) -> Scene {
    let is_open = AtomicBool::new(true);
    Scene::start(RULES, move |request: &Request| {
        let has_session = request.header("cookie").is_some_and(|it| it.contains("session=s1"));
        if !has_session || !is_open.load(Ordering::SeqCst) {
            return Response::status(302, "").header("location", "/login?again=1");
        }
        if request.path == "/logout" {
            is_open.store(false, Ordering::SeqCst);
            return Response::status(302, "")
                .header("location", "/login?loggedout=1")
                .header("set-cookie", ends);
        }
        Response::ok("a page of s1")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1335_a_logout_by_get_is_done_once_and_ends_the_session_of_its_client() {
    for ends in [
        "session=; Max-Age=0; Path=/",
        "session=%20; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/",
    ] {
        let scene = site(ends).await;
        let own = [("cookie", "session=s1"), ("user-agent", "a browser")];
        assert_eq!(scene.ask("/page", &own).await.status, 200);
        let done = scene.ask("/logout", &own).await;
        assert_eq!((done.status, done.header("location")), (302, "/login?loggedout=1"));
        assert_eq!(done.header("set-cookie"), ends);
        assert_eq!(scene.count("/logout"), 1, "it reaches the app once");
        assert_eq!(done.cache(), "MISS", "and is not stored");
        let again = scene.ask("/logout", &own).await;
        assert_eq!(again.header("location"), "/login?again=1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_ends_no_cookie_of_the_client_is_asked_again() {
    let scene = Scene::start(RULES, |request: &Request| {
        // It knows its clients by a header that a fill does not have.
        let is_known = request.header("sentry-trace").is_some();
        if is_known {
            return Response::ok("a page");
        }
        Response::status(302, "")
            .header("location", "/login")
            .header("set-cookie", "other=; Max-Age=0")
    })
    .await;
    let own = [("cookie", "session=s1"), ("sentry-trace", "1-1-1")];
    let page = scene.ask("/page", &own).await;
    assert_eq!((page.status, page.text()), (200, "a page"));
    assert_eq!(scene.count("/page"), 2);
}
