//! Numbered regressions: faults that were fixed and must not return.

use std::collections::HashSet;
use std::time::Duration;

use sidecache::app::Clock;
use tokio::time::timeout;

use crate::support::{Client, Origin, Point, Reply, Request, Response, Sidecar, eventually};

fn route(path: &str, more: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\nttl = \"1m\"\n{more}\n")
}

/// Many clients request one path while the origin holds the first request.
async fn crowd(
    sidecar: &Sidecar,
    app: &Origin,
    path: &str,
    headers: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Reply> {
    let hold = app.hold("GET", path, Point::Before);
    let ask = |number: usize| {
        let (mut client, headers, path) =
            (Client::new(sidecar.address), headers(number), path.to_owned());
        tokio::spawn(async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.get(&path, &headers).await
        })
    };
    let clients: Vec<_> = (0..30).map(ask).collect();
    hold.arrived().await;
    // All of them are to be under way before the first is answered; what waits shows nowhere.
    tokio::time::sleep(Duration::from_millis(200)).await;
    hold.release();
    let mut replies = Vec::new();
    for client in clients {
        replies.push(client.await.expect("no panic"));
    }
    replies
}

/// 1. Followers of a fill got the leader's variant: another user's body if the origin says `Vary:
///    Authorization`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r001_followers_get_their_own_variant() {
    for (vary, scope) in
        [("authorization", "shared"), ("accept-language", "public"), ("accept-encoding", "public")]
    {
        let echo = move |request: &Request| {
            let answer =
                Response::ok(request.header(vary).unwrap_or_default()).header("vary", vary);
            if vary == "accept-encoding" && request.header(vary).as_deref() == Some("gzip") {
                answer.header("content-encoding", "gzip")
            } else {
                answer
            }
        };
        let app = Origin::start(echo);
        let sidecar =
            Sidecar::start(app.address, &route("/{*rest}", &format!("scope = \"{scope}\""))).await;
        let own = |number: usize| match vary {
            "authorization" => format!("Bearer user-{}", number % 5),
            "accept-language" => ["de", "fr", "en"][number % 3].to_owned(),
            _ => ["gzip", "identity"][number % 2].to_owned(),
        };
        if scope == "shared" {
            for number in 0..5 {
                // The app admits everybody for the route and its fields.
                Client::new(sidecar.address).get("/warm", &[("authorization", &own(number))]).await;
            }
        }
        let replies = crowd(&sidecar, &app, "/a", |number| vec![(vary, own(number))]).await;
        for (number, reply) in replies.iter().enumerate() {
            assert_eq!(reply.text(), own(number), "{vary}: {}", reply.cache_status());
        }
        let different: HashSet<String> = (0..30).map(own).collect();
        assert!(
            app.count("GET", "/a") <= different.len() + 5,
            "{vary}: {} requests",
            app.count("GET", "/a")
        );
    }
}

/// 2. An event stream on a cached route was a fill without an end, and its old events were replayed
///    to other clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r002_an_event_stream_is_nobodys_fill() {
    let app = Origin::start(|_| {
        Response::ok("data: 1\n\n").header("content-type", "text/event-stream; charset=utf-8")
    });
    let sidecar = Sidecar::start(app.address, &route("/{*rest}", "scope = \"public\"")).await;
    for _ in 0..2 {
        let reply = Client::new(sidecar.address).get("/events", &[]).await;
        assert_eq!(reply.cache(), "MISS");
        assert!(reply.cache_status().contains("event stream"), "{}", reply.cache_status());
    }
    assert_eq!(app.count("GET", "/events"), 2);
}

/// 4. A header on which an earlier response varied was forwarded, without being part of the key,
///    for a response that did not vary on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r004_a_header_covered_once_does_not_poison_later() {
    let app = Origin::start(|request| match request.header("x-foo") {
        None => Response::ok("plain").header("vary", "x-foo"),
        Some(value) => Response::ok(format!("reflect {value}")),
    });
    let sidecar = Sidecar::start(app.address, &route("/{*rest}", "scope = \"public\"")).await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.get("/v", &[]).await.text(), "plain");
    let evil = client.get("/v", &[("x-foo", "evil")]).await;
    assert_eq!(evil.text(), "reflect evil");
    assert!(!evil.header("cache-status").contains("stored"), "{}", evil.header("cache-status"));
    assert_eq!(client.get("/v", &[]).await.text(), "plain");
}

/// 5. The origin's response to a caller that it rejected was stored for those that it accepts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r005_a_refusal_is_not_shared() {
    for status in [301, 302, 404, 410, 501] {
        let app = Origin::start(move |request| match request.header("authorization").as_deref() {
            Some("Bearer good") => Response::ok("for the good"),
            _ => Response::status(status, "go away").header("cache-control", "max-age=60"),
        });
        let sidecar = Sidecar::start(app.address, &route("/{*rest}", "scope = \"shared\"")).await;
        let mut client = Client::new(sidecar.address);
        client.get("/a", &[("authorization", "Bearer good")]).await;
        client.get("/b", &[("authorization", "Bearer bad")]).await;
        assert_eq!(
            client.get("/b", &[("authorization", "Bearer good")]).await.text(),
            "for the good",
            "{status}"
        );
    }
}

const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// A method, a path, what it must purge, headers and a body.
type Write = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

/// 6. Writes by unusual means were forwarded and purged nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r006_a_write_is_seen_in_every_disguise() {
    let rules = "[fields]\nt = { query = \"t\" }\nid = { body = \"/campaign/id\" }\n\
        [[routes]]\npath = \"/{*rest}\"\nttl = \"1m\"\ntags = [\"all\"]\n\
        [[purges]]\npath = \"/c/{x}\"\ntags = [\"all\"]\n\
        [[purges]]\npath = \"/d\"\nmethods = [\"DELETE\"]\ntags = [\"all\"]\n\
        [[routes]]\npath = \"/q\"\nttl = \"1m\"\ntags = [\"q:7\"]\n[[purges]]\npath = \
            \"/wq\"\ntags = [\"q:{t}\"]\n[[purges]]\npath = \"/wb\"\ntags = [\"q:{id}\"]\n";
    let writes: [Write; 12] = [
        ("PUT", "/c/7%2Fx", "/read", &[], ""),
        ("PUT", "/c/%2e%2e", "/read", &[], ""),
        ("POST", "/d", "/read", FORM, "a=1&_method=delete"),
        ("POST", "/d", "/read", &[("x-http-method-override", "GET, DELETE")], ""),
        ("GET", "/d?_method=DELETE", "/read", &[], ""),
        ("POST", "/wq?t=7&note=50%", "/q", &[], ""),
        ("POST", "/wq?t=7&note=a;b", "/q", &[], ""),
        ("POST", "/wq?t=8&t[]=7", "/q", &[], ""),
        ("POST", "/wb", "/q", FORM, "campaign[id]=7"),
        ("POST", "/wb", "/q", JSON, "\u{feff}{\"campaign\":{\"id\":7}}"),
        ("POST", "/wb", "/q", &[], "{\"campaign\":{\"id\":7.0}}"),
        ("PUT", "/uri/x%20y", "/uri/x%20y", &[], ""),
    ];
    let app = Origin::start(|_| Response::ok("data"));
    // A GET that names another method is a write where the origin obeys it.
    let obeys = [("[upstream]", "method_override = true")];
    let sidecar = Sidecar::start_with(Clock::system(), app.address, &obeys, rules).await;
    let mut client = Client::new(sidecar.address);
    for (method, path, read, headers, body) in writes {
        client.get(read, &[]).await;
        assert_eq!(client.get(read, &[]).await.cache(), "HIT");
        assert_eq!(client.send(method, path, headers, body.to_owned()).await.cache(), "BYPASS");
        assert_eq!(client.get(read, &[]).await.cache(), "MISS", "{method} {path} {body}");
    }
}

/// 12. A caller that was not authorized, or wanted a newer response, saw `unverifiable`, and the
///     response was not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r012_a_reload_refreshes_the_entry() {
    let app = Origin::start(|_| Response::ok("data"));
    let sidecar = Sidecar::start(app.address, &route("/{*rest}", "scope = \"shared\"")).await;
    let mut client = Client::new(sidecar.address);
    client.get("/a", &[]).await;
    let reload = client.get("/a", &[("cache-control", "no-cache")]).await;
    assert!(
        reload.header("cache-status").contains("stored")
            && reload.header("cache-status").contains("request no-cache")
    );
    let stranger = client.get("/a", &[("authorization", "Bearer x")]).await;
    assert!(
        stranger.header("cache-status").contains("not admitted"),
        "{}",
        stranger.header("cache-status")
    );
}

/// 18. A caller stayed authorized after the origin had rejected its HEAD request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r018_a_refusal_of_head_ends_the_admission() {
    let app = Origin::start(|request| {
        if request.method == "HEAD" { Response::status(403, "") } else { Response::ok("data") }
    });
    let sidecar = Sidecar::start(app.address, &route("/{*rest}", "scope = \"shared\"")).await;
    let mut client = Client::new(sidecar.address);
    client.get("/a", &[]).await;
    assert_eq!(client.get("/a", &[]).await.cache(), "HIT");
    client.send("HEAD", "/a", &[("cache-control", "no-store")], "").await;
    assert!(client.get("/a", &[]).await.header("cache-status").contains("not admitted"));
}

/// A fill is still stored if no client waits for it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_outlives_its_only_client() {
    let app = Origin::start(|_| Response::ok("data"));
    let sidecar = Sidecar::start(app.address, &route("/{*rest}", "")).await;
    let hold = app.hold("GET", "/a", Point::Before);
    let mut client = Client::new(sidecar.address);
    let asked = timeout(Duration::from_millis(200), client.get("/a", &[])).await;
    assert!(asked.is_err(), "the app holds the answer");
    drop(client);
    hold.release();
    eventually("the response is stored", Duration::from_secs(5), || async {
        Client::new(sidecar.address).get("/a", &[]).await.cache() == "HIT"
    })
    .await;
    assert_eq!(app.count("GET", "/a"), 1);
}
