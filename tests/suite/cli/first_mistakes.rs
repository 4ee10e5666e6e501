//! Numbered regressions of first mistakes that the commands let pass, or answered with advice that
//! did not fit.

use std::net::TcpListener;

use serde_json::json;

use crate::support::scene::{assert_cache, cache_status};
use crate::support::{CommandLine, RedisServer, Response, Scene};

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

const ROUTES: &str = "[fields]\ntenant = { header = \"x-tenant\" }\n[[routes]]\npath = \
                      \"/{name}-{id}.json\"\nttl = \"5m\"\nscope = \"public\"\nkey = \
                      [\"tenant\"]\ntags = [\"item:{id}\", \"of:{tenant}\"]\n[[purges]]\npath = \
                      \"/{name}-{id}\"\ntags = [\"item:{id}\"]\n";

/// 760. `-H nocolon` was answered with `"a header" is not a valid header`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_760_a_header_without_a_colon_says_what_was_typed() {
    let said = CommandLine::new().run(&["explain", "GET", "/a", "-H", "nocolon"]).await;
    assert_eq!(said.code, 64);
    contains_all(&said.err, &["\"nocolon\" has no `:` and no value", "-H 'x-tenant-id: acme'"]);
}

/// 761. Without a file, the hint named another file alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_761_without_a_file_there_are_three_lines_to_begin_with() {
    let empty = CommandLine::new();
    for command in [&[][..], &["serve"], &["explain", "GET", "/a"]] {
        let said = empty.run(command).await;
        assert_eq!(said.code, 64, "{command:?}");
        contains_all(&said.err, &["proxy.toml: error", "there is none in /", "three lines"]);
    }
    let said = empty.run(&["check"]).await;
    let lines: Vec<&str> = said.out.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let said = empty.file("proxy.toml", &lines.join("\n")).run(&["check"]).await;
    assert_eq!((said.code, said.out.trim_end()), (0, "proxy.toml: ok: 1 route, 0 purge rules"));
}

/// 762. The hint for a port in use named `proxy.toml`, whatever the file was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_762_a_port_in_use_names_the_file_and_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    for (section, other) in [("listen", "admin"), ("admin", "listen")] {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[{section}]\naddress = \"{address}\"\n[{other}]\n\
             address = \"127.0.0.1:0\"\n"
        );
        let line = CommandLine::new().file("other.toml", &text);
        let said = line.run(&["--config", "other.toml"]).await;
        assert_eq!(said.code, 1);
        let key = format!("`address` of [{section}] in other.toml");
        contains_all(&said.err, &[&format!("listening on {address}"), &key, "ss -ltnp"]);
    }
}

/// 763. A purge of a tag that nothing carries looked like one that worked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_763_a_purge_of_nothing_says_so() {
    for redis in [None, Some(RedisServer::start())] {
        let table = redis.as_ref().map_or_else(String::new, RedisServer::table);
        let scene = Scene::start(&format!("{table}{ROUTES}"), |_| {
            Response::ok("data").header("surrogate-key", "from-the-app")
        })
        .await;
        let reply = scene.ask("/a-7.json", &[("x-tenant", "acme")]).await;
        assert_cache(&reply, "MISS", "it is stored");
        crate::support::eventually("a hit", std::time::Duration::from_secs(10), || async {
            scene.ask("/a-7.json", &[("x-tenant", "acme")]).await.cache() == "HIT"
        })
        .await;
        let line = CommandLine::new()
            .variable("SIDECACHE_ADMIN", &scene.sidecar.admin.to_string())
            .variable("RUST_BACKTRACE", "0");
        let said = line.run(&["purge", "--tag", "nope", "--tag", "item:7"]).await;
        assert_eq!(said.code, 0, "it is done all the same: {}", said.err);
        contains_all(&said.out, &["purged 2 tags in"]);
        contains_all(&said.err, &["carries nope: ", "sidecache explain"]);
        assert!(!said.err.contains("item:7"), "{}", said.err);
        let said = line.run(&["purge", "--tag", "from-the-app", "--tag", "of:ACME"]).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "case does not count");

        let said = line.run(&["purge", "--url", "http://app.test/a-7.json"]).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""));
        let answer =
            scene.sidecar.admin_ok("/purge", &json!({ "urls": ["http://nobody.test/a"] })).await;
        let unused = answer["unused"].as_array().expect("a list").len();
        assert_eq!(unused, usize::from(redis.is_none()), "others may have stored it: {answer}");
    }
}

/// 764. `http://h/blog/*` purged the one path `/blog/*`, and said that it had purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_764_a_pattern_is_no_url_to_purge() {
    let scene = Scene::start(ROUTES, |_| Response::ok("data")).await;
    let url = "http://app.test/blog/*";
    let line = CommandLine::new().variable("SIDECACHE_ADMIN", &scene.sidecar.admin.to_string());
    let said = line.run(&["purge", "--url", url]).await;
    assert_eq!(said.code, 64);
    contains_all(&said.err, &["--url", url, "names one path", "the tag that all of them carry"]);
    let refused = scene.sidecar.admin_post("/purge", &json!({ "urls": [url] })).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    contains_all(refused.text(), &["names one path"]);
}

/// 765. `check --against running` printed each warning twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_765_each_warning_is_printed_once() {
    let scene = Scene::start(ROUTES, |_| Response::ok("data")).await;
    let warned = format!("{ROUTES}[[routes]]\npath = \"/untagged\"\nttl = \"5m\"\n");
    let text = scene.sidecar.with_rules(&warned);
    let line = CommandLine::new().file("proxy.toml", &text);
    let said = line.run(&["check", "--against", "running"]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    contains_all(&said.out, &["a reload would make: 1 change", "route /untagged"]);
    assert_eq!(said.out.matches("this route has no tags").count(), 1, "{}", said.out);
}

/// 766. Of `sid=a; sid=b` the reason was an ambiguous query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_766_a_cookie_that_comes_twice_is_called_one() {
    let rules = "[fields]\nsession = { cookie = \"sid\" }\n[[routes]]\npath = \"/a\"\nttl = \
                 \"5m\"\nkey = [\"session\"]\n";
    let scene = Scene::start(rules, |_| Response::ok("data")).await;
    let reply = scene.ask("/a", &[("cookie", "sid=a; sid=b")]).await;
    let status = cache_status(&reply).join(" ");
    assert!(status.contains("ambiguous cookie sid"), "{status}");
    let file = std::fs::read_to_string(&scene.sidecar.file).expect("its file");
    let line = CommandLine::new().file("proxy.toml", &file);
    let said = line.run(&["explain", "GET", "/a", "-H", "cookie: sid=a; sid=b"]).await;
    contains_all(&said.out, &["ambiguous cookie sid", "comes twice"]);
}

/// 767. `{id}.json` was refused; `{name}-{id}` as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_767_captures_are_parts_of_segments() {
    let scene = Scene::start(ROUTES, |_| Response::ok("data")).await;
    let tenant = [("x-tenant", "acme")];
    let fill = async |path: &str| {
        crate::support::eventually("a hit", std::time::Duration::from_secs(10), || async {
            scene.ask(path, &tenant).await.cache() == "HIT"
        })
        .await;
    };
    fill("/blue-7.json").await;
    fill("/blue-8.json").await;
    assert_cache(&scene.ask("/blue.json", &tenant).await, "BYPASS", "it has no id");
    // A write to another spelling of a path with the same id, in another case and extension.
    for write in ["/RED-7", "/red-7.xml", "/red-7/"] {
        fill("/blue-7.json").await;
        let reply = scene.send("PUT", write, &[], "x").await;
        assert_eq!(reply.status, 200, "{write}");
        assert_cache(&scene.ask("/blue-7.json", &tenant).await, "MISS", write);
        assert_cache(&scene.ask("/blue-8.json", &tenant).await, "HIT", "of another id");
    }
}
