//! `[[apps]]`: several apps behind one sidecar. A request is for the app of its host, and no rule,
//! entry, caller or connection of one app is anything to another one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client;
use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, Point, RedisServer, Reply, Request, Response, Sidecar, eventually, metric,
};

const SHOP: &str = "shop.test";
const BLOG: &str = "blog.test";

const RULES: &str = r#"
[[routes]]
path  = "/page/{id}"
ttl   = "1h"
scope = "public"
tags  = ["pages"]

[[routes]]
path  = "/own/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"

[[routes]]
app   = "shop"
path  = "/page/{id}"
ttl   = "1h"
scope = "public"
tags  = ["pages", "shop"]

[[routes]]
app   = "shop"
path  = "/own/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"

[[routes]]
app   = "shop"
path  = "/only/{id}"
ttl   = "1h"
scope = "public"

[[purges]]
path = "/page/{id}"
tags = ["pages"]

[[purges]]
app  = "shop"
path = "/stock"
tags = ["shop"]
"#;

/// Routes of both apps that have in their keys what the app says of the caller.
const BY_TENANT: &str = r#"
[identity]
path  = "/me"
ttl   = "30s"
retry = "10m"
[fields]
tenant = { identity = "/tenant" }
[[routes]]
path  = "/all/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["tenant"]
[[routes]]
app   = "shop"
path  = "/all/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["tenant"]
"#;

/// What an app says of a caller.
fn told(tenant: &str) -> Response {
    Response::ok(json!({ "tenant": tenant }).to_string()).header("content-type", "application/json")
}

/// Two apps, the second of them with a host of its own.
struct Apps {
    blog: Origin,
    shop: Origin,
    sidecar: Sidecar,
}

fn table(name: &str, hosts: &str, origin: &Origin) -> String {
    let url = format!("http://{}", origin.address);
    format!("[[apps]]\nname = \"{name}\"\nhosts = [{hosts}]\nurl = \"{url}\"\n")
}

fn named(name: &'static str) -> Origin {
    Origin::start(move |request: &Request| {
        Response::ok(format!("{name} {}", request.header("host").unwrap_or_default()))
    })
}

impl Apps {
    async fn start(more: &str) -> Self {
        let (blog, shop) = (named("blog"), named("shop"));
        let hosts = format!("\"{SHOP}\", \"*.{SHOP}\"");
        let rules = format!("{RULES}{more}\n{}", table("shop", &hosts, &shop));
        let sidecar = Sidecar::start(blog.address, &rules).await;
        Self { blog, shop, sidecar }
    }

    async fn get(&self, host: &str, path: &str) -> Reply {
        self.ask(host, path, &[]).await
    }

    async fn ask(&self, host: &str, path: &str, more: &[(&str, &str)]) -> Reply {
        self.send("GET", host, path, more).await
    }

    async fn send(&self, method: &str, host: &str, path: &str, more: &[(&str, &str)]) -> Reply {
        Client::new(self.sidecar.address).at_host(host).send(method, path, more, "").await
    }

    /// A GET that is a hit by now, or fails the test.
    async fn hit(&self, host: &str, path: &str) -> Reply {
        let reply = self.get(host, path).await;
        assert_cache(&reply, "HIT", &format!("{host}{path}"));
        reply
    }
}

#[tokio::test]
async fn each_app_gets_the_requests_for_its_hosts() {
    let apps = Apps::start("").await;
    for (host, answered) in [
        (SHOP, "shop shop.test"),
        ("SHOP.Test:8080", "shop SHOP.Test:8080"),
        ("shop.test.", "shop shop.test."),
        ("eu.shop.test", "shop eu.shop.test"),
        (BLOG, "blog blog.test"),
        ("xshop.test", "blog xshop.test"),
        ("shop.test.evil", "blog shop.test.evil"),
    ] {
        for path in ["/page/1", "/elsewhere"] {
            let first = apps.get(host, path).await;
            // The key has the host in lower case, and so has a fill.
            let expected = answered.to_lowercase();
            assert_eq!(first.text().to_lowercase(), expected, "{host}{path}");
            let same = Client::http2(apps.sidecar.address).at_host(host).get(path, &[]).await;
            assert_eq!(same.text().to_lowercase(), expected, "{host}{path} over HTTP/2");
        }
    }
    // What a client says beside its host changes nothing.
    let forged = [("x-forwarded-host", SHOP), ("forwarded", "host=shop.test")];
    for header in forged {
        assert_eq!(apps.ask(BLOG, "/elsewhere", &[header]).await.text(), "blog blog.test");
    }
    // The target of a request counts before its `Host` (RFC 9112 3.2.2).
    let sent = format!("GET http://{SHOP}/elsewhere HTTP/1.1\r\nhost: {BLOG}\r\n\r\n");
    let reply = client::exchange(apps.sidecar.address, sent.as_bytes()).await;
    assert!(reply.ends_with(b"shop shop.test"), "{}", String::from_utf8_lossy(&reply));
}

#[tokio::test]
async fn a_rule_is_for_one_app() {
    let apps = Apps::start("").await;
    assert_cache(&apps.get(SHOP, "/only/1").await, "MISS", "a route of the shop");
    apps.hit(SHOP, "/only/1").await;
    let other = apps.get(BLOG, "/only/1").await;
    assert_eq!((other.cache(), other.text()), ("BYPASS", "blog blog.test"));
    assert!(other.header("cache-status").contains("no route"), "{}", other.header("cache-status"));

    for host in [SHOP, BLOG] {
        assert_cache(&apps.get(host, "/page/1").await, "MISS", host);
        apps.hit(host, "/page/1").await;
    }
    // A write that only the other app has a rule for.
    assert_eq!(apps.send("POST", BLOG, "/stock", &[]).await.status, 200);
    apps.hit(SHOP, "/page/1").await;
    assert_eq!(apps.send("POST", SHOP, "/stock", &[]).await.status, 200);
    assert_cache(&apps.get(SHOP, "/page/1").await, "MISS", "its own rule");
    apps.hit(BLOG, "/page/1").await;
    // A write to the URL itself, and the tags of its rule, which are those of all apps.
    apps.hit(SHOP, "/page/1").await;
    assert_eq!(apps.send("POST", BLOG, "/page/1", &[]).await.status, 200);
    assert_cache(&apps.get(SHOP, "/page/1").await, "MISS", "a tag of both");
    assert_cache(&apps.get(BLOG, "/page/1").await, "MISS", "its own tag");
    // The shop has no rule for writes to its pages: they purge their own URL alone.
    assert_cache(&apps.get(SHOP, "/page/2").await, "MISS", "another page");
    assert_eq!(apps.send("POST", SHOP, "/page/2", &[]).await.status, 200);
    assert_cache(&apps.get(SHOP, "/page/2").await, "MISS", "its own URL");
    apps.hit(BLOG, "/page/1").await;
}

#[tokio::test]
async fn who_may_read_one_app_may_not_read_another_one() {
    // One host stands for all of each, the same for both.
    let text = "host_key = \"one.test\"\n";
    let (blog, shop) = (named("blog"), named("shop"));
    let listed = format!("{}{text}", table("shop", &format!("\"{SHOP}\""), &shop));
    let rules = format!("{RULES}{listed}");
    let sidecar = Sidecar::start_with(
        sidecache::app::Clock::system(),
        blog.address,
        &[("[upstream]", text)],
        &rules,
    )
    .await;
    let apps = Apps { blog, shop, sidecar };
    let ann = [("authorization", "Bearer ann")];
    assert_cache(&apps.ask(SHOP, "/own/1", &ann).await, "MISS", "the first");
    assert_cache(&apps.ask(SHOP, "/own/1", &ann).await, "HIT", "the same caller");
    let other = apps.ask(BLOG, "/own/1", &ann).await;
    assert_eq!((other.cache(), other.text()), ("MISS", "blog one.test"), "never that of the shop");
    apps.blog.answers(|_| Response::status(403, "no"));
    apps.shop.answers(|_| Response::status(403, "no"));
    let bob = [("authorization", "Bearer bob")];
    assert_eq!(apps.ask(SHOP, "/own/1", &bob).await.status, 403);
    // The shop has answered Ann; that says nothing about the blog.
    assert_cache(&apps.ask(SHOP, "/own/1", &ann).await, "HIT", "she may read it still");
    let carl = [("authorization", "Bearer carl")];
    for host in [SHOP, BLOG] {
        assert_eq!(apps.ask(host, "/own/1", &carl).await.status, 403, "{host}");
    }
}

#[tokio::test]
async fn an_app_that_is_down_takes_none_with_it() {
    let apps = Apps::start("").await;
    for host in [SHOP, BLOG] {
        apps.get(host, "/page/1").await;
    }
    apps.shop.stop_listening();
    apps.shop.answers(|_| Response::hang_up());
    eventually("the shop fails", Duration::from_secs(10), || async {
        apps.get(SHOP, "/elsewhere").await.status == 502
    })
    .await;
    apps.hit(SHOP, "/page/1").await;
    assert_eq!(apps.get(BLOG, "/elsewhere").await.text(), "blog blog.test");
    let ready = apps.sidecar.admin_get("/ready").await;
    assert!(ready.text().contains(&apps.shop.address.to_string()), "{}", ready.text());
    assert!(!ready.text().contains(&apps.blog.address.to_string()), "{}", ready.text());
    let stats: Value =
        serde_json::from_str(apps.sidecar.admin_get("/stats").await.text()).expect("JSON");
    assert_eq!(stats["app"]["answers"], json!(true), "{stats}");
    assert_eq!(stats["apps"][0]["name"], json!("shop"), "{stats}");
    assert_eq!(stats["apps"][0]["answers"], json!(false), "{stats}");
    assert_eq!(metric(apps.sidecar.admin, "sidecache_upstream_up").await, 0);
    let names: Vec<&str> = stats["routes"]
        .as_array()
        .expect("routes")
        .iter()
        .filter_map(|route| route["path"].as_str())
        .collect();
    assert!(names.contains(&"/page/{id}") && names.contains(&"/page/{id} [app=shop]"), "{names:?}");
}

/// Changes the sidecar's file, and reloads it.
async fn replace(sidecar: &Sidecar, old: &str, new: &str) -> Value {
    let text = std::fs::read_to_string(&sidecar.file).expect("its file");
    assert!(text.contains(old), "{old} is not in {text}");
    std::fs::write(&sidecar.file, text.replacen(old, new, 1)).expect("the file can be written to");
    let report = sidecar.admin_ok("/reload", &json!({})).await;
    assert_eq!(report["ok"], json!(true), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_moves_takes_nothing_with_it() {
    for redis in [None, Some(RedisServer::start())] {
        let table = redis.as_ref().map_or_else(String::new, RedisServer::table);
        let apps = Apps::start(&table).await;
        let sidecar = &apps.sidecar;
        let hit = async |host: &str, text: &str| {
            let got = || async { apps.get(host, "/page/1").await.cache() == "HIT" };
            eventually("a hit", Duration::from_secs(10), got).await;
            assert_eq!(apps.get(host, "/page/1").await.text(), text);
        };
        hit(BLOG, "blog blog.test").await;
        hit(SHOP, "shop shop.test").await;
        // A fill that is under way meanwhile is that of its own app.
        let hold = apps.blog.hold("GET", "/page/slow", Point::Before);
        let address = sidecar.address;
        let slow =
            tokio::spawn(
                async move { Client::new(address).at_host(BLOG).get("/page/slow", &[]).await },
            );
        hold.arrived().await;
        let hosts = format!("[\"{SHOP}\", \"*.{SHOP}\"]");
        let more = format!("[\"{SHOP}\", \"*.{SHOP}\", \"{BLOG}\"]");
        replace(sidecar, &hosts, &more).await;
        hit(BLOG, "shop blog.test").await;
        hold.release();
        assert_eq!(slow.await.expect("no panic").text(), "blog blog.test");
        assert_eq!(apps.get(BLOG, "/page/slow").await.text(), "shop blog.test");
        hit(SHOP, "shop shop.test").await;
        // A write that the blog never sees. When its host is back, what it had is gone.
        assert_eq!(apps.send("POST", BLOG, "/page/1", &[]).await.text(), "shop blog.test");
        replace(sidecar, &more, &hosts).await;
        let back = || async {
            let reply = apps.get(BLOG, "/page/1").await;
            (reply.cache(), reply.text()) == ("MISS", "blog blog.test")
        };
        assert!(back().await, "what was stored before the write is served");
        // Another origin of one app.
        let mall = named("mall");
        let (from, to) = (apps.shop.address.to_string(), mall.address.to_string());
        let report = replace(sidecar, &from, &to).await;
        assert_eq!(report["changes"][0]["what"], json!("app shop"), "{report}");
        assert_eq!(report["changes"][0]["effect"], json!("entries are left behind"), "{report}");
        let reply = apps.get(SHOP, "/page/1").await;
        assert_eq!((reply.cache(), reply.text()), ("MISS", "mall shop.test"));
    }
}

#[tokio::test]
async fn the_caller_of_each_app_is_asked_of_that_app() {
    let apps = Apps::start(BY_TENANT).await;
    let answers = |name: &'static str| {
        move |request: &Request| match &*request.path {
            "/me" => told(name),
            _ => Response::ok(name),
        }
    };
    apps.blog.answers(answers("blog"));
    apps.shop.answers(answers("shop"));
    let ann = [("cookie", "sid=ann")];
    for (host, name) in [(SHOP, "shop"), (BLOG, "blog"), (SHOP, "shop")] {
        let reply = apps.ask(host, "/all/1", &ann).await;
        assert_eq!(reply.text(), name);
    }
    assert_cache(&apps.ask(SHOP, "/all/1", &ann).await, "HIT", "the shop");
    assert_cache(&apps.ask(BLOG, "/all/1", &ann).await, "HIT", "the blog");
    assert!(!apps.shop.seen("/me").is_empty() && !apps.blog.seen("/me").is_empty());
}

/// A rename and the way back, with a write in between that the first app never saw, was served from
/// what was stored before: only the hosts of the last file were looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1267_an_app_that_comes_back_has_nothing_of_before() {
    let apps = Apps::start("").await;
    let ask = async |path: &str| apps.get(SHOP, path).await;
    let mall = named("mall");
    // A page that only tags of its own app purge.
    assert_cache(&ask("/only/1").await, "MISS", "the first");
    apps.hit(SHOP, "/only/1").await;
    let (from, to) = (apps.shop.address.to_string(), mall.address.to_string());
    let text = std::fs::read_to_string(&apps.sidecar.file).expect("its file");
    let renamed = text.replace("\"shop\"", "\"store\"").replace(&from, &to);
    let reload = async |text: &str| {
        std::fs::write(&apps.sidecar.file, text).expect("the file can be written to");
        let report = apps.sidecar.admin_ok("/reload", &json!({})).await;
        assert_eq!(report["ok"], json!(true), "{report}");
    };
    reload(&renamed).await;
    assert_eq!(ask("/only/1").await.text(), "mall shop.test");
    reload(&text).await;
    let reply = ask("/only/1").await;
    assert_eq!((reply.cache(), reply.text()), ("MISS", "shop shop.test"), "by another name");
    apps.hit(SHOP, "/only/1").await;
    // Taken out, with all rules, and put back.
    let without = text[..text.find("[[routes]]").expect("routes")].to_owned();
    reload(&without).await;
    assert_eq!(ask("/only/1").await.text(), "blog shop.test");
    reload(&text).await;
    assert_cache(&ask("/only/1").await, "MISS", "it was gone meanwhile");
}

/// A host that an app gets for the first time purges nothing of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1268_a_new_host_purges_nothing() {
    let apps = Apps::start("").await;
    for host in [SHOP, BLOG] {
        assert_cache(&apps.get(host, "/page/1").await, "MISS", host);
    }
    let hosts = format!("[\"{SHOP}\", \"*.{SHOP}\"]");
    let more = format!("[\"{SHOP}\", \"*.{SHOP}\", \"new.test\"]");
    replace(&apps.sidecar, &hosts, &more).await;
    for host in [SHOP, BLOG] {
        apps.hit(host, "/page/1").await;
    }
    assert_eq!(apps.get("new.test", "/elsewhere").await.text(), "shop new.test");
}

/// One app whose answers about callers failed, or set a cookie, ended asking for all apps.
#[tokio::test]
async fn r1269_an_app_that_does_not_tell_takes_callers_from_none() {
    for sets_cookie in [false, true] {
        let apps = Apps::start(BY_TENANT).await;
        apps.shop.answers(move |request| match &*request.path {
            "/me" if sets_cookie => told("x").header("set-cookie", "sid=new"),
            "/me" => Response::status(500, "no"),
            _ => Response::ok("shop"),
        });
        apps.blog.answers(|request| match &*request.path {
            "/me" => told("blog"),
            _ => Response::ok("blog"),
        });
        for number in 0..8 {
            let cookie = format!("sid=caller{number}");
            let reply = apps.ask(SHOP, "/all/1", &[("cookie", &cookie)]).await;
            assert_eq!((reply.cache(), reply.text()), ("BYPASS", "shop"));
        }
        let ann = [("cookie", "sid=ann")];
        assert_cache(&apps.ask(BLOG, "/all/1", &ann).await, "MISS", "the blog is asked");
        assert_cache(&apps.ask(BLOG, "/all/1", &ann).await, "HIT", "the blog tells");
    }
}

/// A request without a host went to the app that has the host of `[upstream]`'s own URL.
#[tokio::test]
async fn r1270_a_request_without_a_host_is_for_the_first_app() {
    let (blog, shop) = (named("blog"), named("shop"));
    let rules = format!("{RULES}{}", table("shop", "\"127.0.0.1\"", &shop));
    let sidecar = Sidecar::start(blog.address, &rules).await;
    for method in ["GET", "POST"] {
        let sent = format!("{method} /page/1 HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
        let reply = client::exchange(sidecar.address, sent.as_bytes()).await;
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.contains("blog 127.0.0.1"), "{method}: {reply}");
    }
    assert_eq!(shop.total(), 0);
}

/// A snapshot named the origin of `[upstream]` alone, so that the body of one app was served once
/// another one had confirmed its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1271_a_snapshot_of_another_app_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let tagged = |name: &'static str| {
        Origin::start(move |request: &Request| {
            let is_known = request.header("if-none-match").is_some();
            let response = if is_known { Response::status(304, "") } else { Response::ok(name) };
            response.header("etag", "\"1\"")
        })
    };
    let (blog, shop, mall) = (tagged("blog"), tagged("shop"), tagged("mall"));
    let memory = format!("[memory]\nsnapshot = \"{}\"\n", folder.path().join("kept").display());
    let start = async |shop: &Origin| {
        let app = table("shop", &format!("\"{SHOP}\""), shop);
        Sidecar::start(blog.address, &format!("{memory}{RULES}{app}")).await
    };
    let ask = async |sidecar: &Sidecar| {
        let reply = Client::new(sidecar.address).at_host(SHOP).get("/page/1", &[]).await;
        format!("{} {}", reply.cache(), reply.text())
    };
    let mut first = start(&shop).await;
    assert_eq!(ask(&first).await, "MISS shop");
    first.stop().await;
    let mut same = start(&shop).await;
    assert_eq!(ask(&same).await, "REVALIDATED shop");
    same.stop().await;
    let other = start(&mall).await;
    assert_eq!(ask(&other).await, "MISS mall");
}
