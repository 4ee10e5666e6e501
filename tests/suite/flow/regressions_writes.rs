//! Numbered regressions of what a write means: methods that cannot be read, reads that change data,
//! paths in another form, logins that look like success, and answers that purge or do not.

use std::time::Duration;

use crate::support::client::Reply;
use crate::support::scene::assert_cache;
use crate::support::{Client, Point, Request, Response, Scene};

/// Routes whose entries a write purges by these lines of a purge rule.
fn rules(purge: &str) -> String {
    format!(
        "[[routes]]\npath = \"/items/{{id}}\"\nttl = \"5m\"\nscope = \"public\"\ntags = \
         [\"item:{{id}}\"]\n[[purges]]\npath = \"/change/{{id}}\"\n{purge}\ntags = \
         [\"item:{{id}}\"]\n"
    )
}

const PUT_ONLY: &str = "methods = [\"PUT\"]";

async fn scene(rules: &str) -> Scene {
    Scene::start(rules, |_| Response::ok("data")).await
}

/// Stores `/items/7`, sends the write, and says what becomes of the next read.
async fn after(
    scene: &Scene,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    scene.get("/items/7").await;
    assert_cache(&scene.get("/items/7").await, "HIT", "it is stored");
    scene.send(method, path, headers, body.to_owned()).await;
    scene.get("/items/7").await.cache().to_owned()
}

const POST: (&str, &str) = ("POST", "/change/7");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// 500. `_method=PUT` in a multipart form purged nothing under `methods = ["PUT"]`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r500_a_method_in_a_multipart_form_purges() {
    let scene = scene(&rules(PUT_ONLY)).await;
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    let body = "--x\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nPUT\r\n--x--\r\n";
    assert_eq!(after(&scene, POST, &kind, body).await, "MISS");
    assert_eq!(scene.last("/change/7").body, body.as_bytes());
}

/// 501. Nor did a parameter whose name is escaped, or written in another way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r501_a_method_in_an_escaped_parameter_purges() {
    let scene = scene(&rules(PUT_ONLY)).await;
    for query in ["_m%65thod=PUT", "%5Fmethod=put", "_METHOD=PUT", "_method[]=PUT", ".method=PUT"] {
        let path = format!("/change/7?{query}");
        assert_eq!(after(&scene, ("POST", &path), &[], "").await, "MISS", "{query}");
        assert_eq!(after(&scene, POST, &[FORM], query).await, "MISS", "{query} in a form");
    }
    assert_eq!(after(&scene, POST, &[FORM], "method=PUT&a=_method").await, "HIT");
    let underscores = [("x_http_method_override", "PUT")];
    assert_eq!(after(&scene, POST, &underscores, "").await, "MISS");
}

/// 502. Nor did a form that cannot be read whole: too long, encoded, or of an unknown type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r502_a_form_that_cannot_be_read_purges() {
    let scene = scene(&rules(PUT_ONLY)).await;
    let long = format!("a={}&_method=PUT", "x".repeat(70_000));
    assert_eq!(after(&scene, POST, &[FORM], &long).await, "MISS");
    let coded = [FORM, ("content-encoding", "gzip")];
    assert_eq!(after(&scene, POST, &coded, "\u{1f}x").await, "MISS");
    assert_eq!(after(&scene, POST, &[], "_method=PUT").await, "MISS", "without a type");
    let odd = [("content-type", "application/x-www-form-urlencoded; charset=utf-16")];
    assert_eq!(after(&scene, POST, &odd, "%00_").await, "MISS");
    let json = [("content-type", "application/json")];
    assert_eq!(after(&scene, POST, &json, r#"{"_method":"PUT"}"#).await, "MISS");
    // Where nothing can hide, the rule stays exact.
    assert_eq!(after(&scene, POST, &json, r#"{"a":1}"#).await, "HIT");
    assert_eq!(after(&scene, POST, &[("content-type", "image/png")], "PNG").await, "HIT");
    assert_eq!(after(&scene, POST, &[FORM], "a=1").await, "HIT");
    assert_eq!(after(&scene, POST, &[], "").await, "HIT");
}

/// 503. GETs of a stranger that name another method purged: three a second took the hit ratio from
///      100 to 40 %.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r503_a_get_that_names_another_method_purges_nothing() {
    let scene = scene(&rules("")).await;
    for (path, headers) in [
        ("/items/7?_method=PUT", &[][..]),
        ("/items/7?_m%65thod=DELETE", &[]),
        ("/change/7?_method=PUT", &[]),
        ("/items/7", &[("x-http-method-override", "PUT")]),
    ] {
        for method in ["GET", "HEAD"] {
            assert_eq!(after(&scene, (method, path), headers, "").await, "HIT", "{path}");
            for _ in 0..2 {
                let reply = scene.send(method, path, headers, "").await;
                assert_cache(&reply, "BYPASS", path);
            }
        }
    }
    let obeying = [("[upstream]", "method_override = true")];
    let scene = Scene::start_with(&obeying, &rules(""), |_| Response::ok("data")).await;
    assert_eq!(after(&scene, ("GET", "/change/7?_method=PUT"), &[], "").await, "MISS");
}

/// A page that lists things, and a GET that changes them.
fn counting(request: &Request) -> Response {
    Response::ok(format!("{} {}", request.path, request.number))
}

const TRASH: &str = "
[[routes]]
path = \"/{*rest}\"
ttl = \"5m\"
scope = \"public\"
tags = [\"posts\"]
[[purges]]
path = \"/wp-admin/post.php\"
methods = [\"GET\"]
match = { query.action = \"trash\" }
tags = [\"posts\"]
";

/// 504. A GET that changes data could not be declared: `methods = ["GET"]` was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r504_a_declared_get_is_a_write() {
    let scene = Scene::start(TRASH, counting).await;
    for (method, path) in [
        ("GET", "/wp-admin/post.php?post=7&action=trash"),
        ("HEAD", "/wp-admin/post.php?action=trash"),
        ("GET", "/wp-admin/post.php?action=edit&%61ction=trash"),
        ("GET", "/WP-ADMIN//post.php?action=trash"),
    ] {
        assert_eq!(scene.get("/list").await.cache(), "MISS", "before {path}");
        assert_cache(&scene.get("/list").await, "HIT", path);
        let sent = scene.origin.count(method, path);
        for more in 1..=2 {
            let reply = scene.send(method, path, &[], "").await;
            assert_cache(&reply, "BYPASS", path);
            assert!(reply.header("cache-status").contains("declared write"), "{path}");
            assert_eq!(scene.origin.count(method, path), sent + more, "{path} reaches the origin");
        }
    }
    // What the rule does not match is an ordinary read.
    for _ in 0..2 {
        scene.get("/wp-admin/post.php?action=edit").await;
    }
    assert_cache(&scene.get("/wp-admin/post.php?action=edit").await, "HIT", "edit");
}

/// 505. A GET that changes data was sent again when its connection broke.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r505_a_declared_get_is_sent_once() {
    let scene = Scene::start(TRASH, |request| match &*request.path {
        "/wp-admin/post.php" => Response::hang_up(),
        _ => Response::ok("data"),
    })
    .await;
    let path = "/wp-admin/post.php?action=trash";
    scene.fill("/a").await;
    assert_eq!(scene.get(path).await.status, 502);
    assert_eq!(scene.origin.count("GET", path), 1);
    assert_eq!(scene.get("/a").await.cache(), "MISS", "nobody knows whether it was carried out");
    let read = "/wp-admin/post.php?action=edit";
    scene.get(read).await;
    assert_eq!(scene.origin.count("GET", read), 2, "a read on the same connection is");
}

/// 506. Two such GETs at once were one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r506_declared_gets_are_not_coalesced() {
    let scene = Scene::start(TRASH, counting).await;
    let path = "/wp-admin/post.php?action=trash";
    let hold = scene.hold("GET", "/wp-admin/post.php", Point::Before);
    let address = scene.sidecar.address;
    let both: Vec<_> = (0..2)
        .map(|_| tokio::spawn(async move { Client::new(address).get(path, &[]).await }))
        .collect();
    for _ in 0..2 {
        hold.arrived().await;
    }
    hold.release();
    for reply in both {
        assert_cache(&reply.await.expect("a reply"), "BYPASS", "each");
    }
    assert_eq!(scene.origin.count("GET", path), 2);
}

/// 507. Origins that route in any case changed what the rules, tags and URI tags did not purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r507_case_does_not_keep_a_write_from_purging() {
    let scene =
        Scene::start(&rules(""), |_| Response::ok("data").header("surrogate-key", "Shelf:Ä")).await;
    for path in ["/Change/7", "/CHANGE/7", "/ITEMS/7", "/Items/7"] {
        assert_eq!(after(&scene, ("PUT", path), &[], "").await, "MISS", "{path}");
    }
    assert_eq!(after(&scene, ("PUT", "/change/8"), &[], "").await, "HIT");
    for order in [
        r#"{"tags":["ITEM:7"]}"#,
        r#"{"tags":["shelf:ä"]}"#,
        r#"{"urls":["http://APP.test/Items/7"]}"#,
    ] {
        scene.get("/items/7").await;
        assert_cache(&scene.get("/items/7").await, "HIT", order);
        let json = [("content-type", "application/json")];
        let mut admin = Client::of_admin(scene.sidecar.admin);
        let purged = admin.send("POST", "/purge", &json, order).await;
        assert_eq!(purged.status, 200, "{order}: {}", purged.text());
        assert_cache(&scene.get("/items/7").await, "MISS", order);
    }
}

/// 508. `PUT /items/7.json` and `/items/7/` did not purge `/items/7`, nor the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r508_slash_and_extension_do_not_keep_a_write_from_purging() {
    let scene = scene(&rules("")).await;
    for path in ["/items/7.json", "/items/7/", "/items/7.JSON/", "/change/7.json", "/change/7/"] {
        assert_eq!(after(&scene, ("PUT", path), &[], "").await, "MISS", "{path}");
    }
    for path in ["/items/7", "/items/7/", "/items/7.xml", "/change/7"] {
        scene.get("/items/7.json").await;
        assert_cache(&scene.get("/items/7.json").await, "HIT", path);
        scene.send("PUT", path, &[], "").await;
        assert_cache(&scene.get("/items/7.json").await, "MISS", path);
    }
}

/// A route for callers with a session, and a write that the origin answers by the way to its login.
fn with_logins(more: &str) -> String {
    format!(
        "{}\n[[routes]]\npath = \"/me\"\nttl = \"5m\"\nscope = \"private\"\n[credential]\n{more}\n",
        rules("")
    )
}

fn to_login(request: &Request) -> Response {
    match &*request.path {
        "/change/7" => Response::status(302, "").header("location", "/Login?next=/"),
        _ => Response::ok("data"),
    }
}

const LOGINS: &str = "login_paths = [\"/login\"]";
const ALICE: [(&str, &str); 1] = [("cookie", "sid=alice; flash=1")];

/// 509. Four POSTs a second of strangers, whom the origin sends to its login, kept the hit ratio at
///      4 %.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r509_a_stranger_who_is_sent_to_the_login_purges_nothing() {
    let scene = Scene::start(&with_logins(LOGINS), to_login).await;
    for _ in 0..10 {
        assert_eq!(after(&scene, POST, &[], "").await, "HIT");
    }
    // At first nothing is known of those with a credential, so that they purge.
    assert_eq!(after(&scene, POST, &ALICE, "").await, "MISS");
    scene.clock.advance(Duration::from_secs(61));
    assert_eq!(after(&scene, POST, &ALICE, "").await, "HIT", "a session that has ended");
    // The end of a logout, or of a change of the password.
    scene.ask("/me", &ALICE).await;
    assert_eq!(after(&scene, POST, &[("cookie", "flash=2; sid=alice")], "").await, "MISS");
    scene.clock.advance(Duration::from_secs(59));
    let hit = scene.ask("/me", &ALICE).await;
    assert_cache(&hit, "HIT", "it is an answer, too");
    scene.clock.advance(Duration::from_secs(59));
    assert_eq!(after(&scene, POST, &ALICE, "").await, "MISS");
    scene.clock.advance(Duration::from_secs(61));
    assert_eq!(after(&scene, POST, &ALICE, "").await, "HIT");
    assert_eq!(after(&scene, POST, &[("cookie", "sid=mallory")], "").await, "HIT");
    // A public page, or the login itself, says nothing of a credential.
    for path in ["/items/8", "/login"] {
        scene.ask(path, &[("cookie", "sid=mallory")]).await;
        assert_eq!(after(&scene, POST, &[("cookie", "sid=mallory")], "").await, "HIT", "{path}");
    }
}

/// 510. By default a redirect is success: many an origin carries out a stranger's write and sends
///      them to the login, as after a registration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r510_a_redirect_to_a_login_is_a_write_unless_the_operator_names_it() {
    for named in ["", "login_paths = [\"/elsewhere\"]"] {
        let scene = Scene::start(&with_logins(named), to_login).await;
        assert_eq!(after(&scene, POST, &[], "").await, "MISS", "{named}");
    }
}

/// 511. Which answers purge could not be chosen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r511_a_rule_says_which_answers_purge() {
    let all = [(200, "MISS"), (302, "MISS"), (404, "MISS"), (500, "MISS")];
    let ok = [(200, "MISS"), (302, "HIT"), (404, "HIT"), (500, "MISS")];
    let any = "tags = [\"item:{id}\"]\npurge_on = \"any\"\n\n";
    let success = [(200, "MISS"), (302, "MISS"), (404, "HIT"), (500, "MISS")];
    for (word, expected) in [("any", all), ("2xx", ok), ("success", success)] {
        let scene = scene(&rules(&format!("purge_on = \"{word}\""))).await;
        for (status, cache) in expected {
            scene.answers(move |request| match request.method.as_str() {
                "GET" => Response::ok("data"),
                _ => Response::status(status, "").header("location", "/"),
            });
            assert_eq!(after(&scene, POST, &[], "").await, cache, "{word} {status}");
        }
    }
    let scene =
        Scene::start(&with_logins(LOGINS).replacen("tags = [\"item:{id}\"]\n\n", any, 1), to_login)
            .await;
    assert_eq!(after(&scene, POST, &[], "").await, "MISS", "a login is an answer");
}

/// 512. MOVE and COPY purged their source alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r512_move_and_copy_purge_their_destination() {
    let scene = scene(&rules("")).await;
    for (destination, cache) in [
        ("/items/7", "MISS"),
        ("http://app.test/items/7", "MISS"),
        ("https://proxy.test:444/Items/7", "MISS"),
        ("/change/7", "MISS"),
        ("/items/8", "HIT"),
    ] {
        for method in ["MOVE", "COPY"] {
            let headers = [("destination", destination)];
            let seen = after(&scene, (method, "/items/9"), &headers, "").await;
            assert_eq!(seen, cache, "{method} {destination}");
        }
    }
}

/// 513. A rule could not exclude a path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r513_a_rule_excludes_paths() {
    let scene = scene(&rules("except = [\"/change/7\"]")).await;
    assert_eq!(after(&scene, POST, &[], "").await, "HIT");
    for other in ["/change//7", "/x/../change/7", "/change/7/", "/Change/7"] {
        assert_eq!(after(&scene, ("POST", other), &[], "").await, "MISS", "{other}");
    }
}

/// 514. Paths in another case were other entries, for origins that do not tell them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r514_a_route_may_ignore_case() {
    let text = rules("").replacen("ttl", "case = \"ignore\"\nttl", 1);
    let scene = Scene::start(&text, counting).await;
    let first = scene.get("/ITEMS/a").await;
    assert_eq!((first.cache(), first.text()), ("MISS", "/items/a 0"));
    assert_cache(&scene.get("/items/a").await, "HIT", "the same entry");
    assert_cache(&scene.get("/items/A").await, "MISS", "a capture is exact");
    scene.send("PUT", "/Items/A", &[], "").await;
    assert_cache(&scene.get("/items/a").await, "MISS", "but not in purges");
}

/// 515. On a route in shadow a declared GET was watched as a read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r515_a_declared_get_is_no_read_of_a_route_in_shadow() {
    let scene = Scene::start(&TRASH.replacen("ttl", "mode = \"shadow\"\nttl", 1), counting).await;
    let reply = scene.get("/wp-admin/post.php?action=trash").await;
    assert!(reply.header("cache-status").contains("declared write"));
    scene.get("/a").await;
    let report = shadow_report(&scene).await;
    assert_eq!(report["routes"][0]["requests"], 1, "{report}");
}

async fn shadow_report(scene: &Scene) -> serde_json::Value {
    let reply: Reply = Client::of_admin(scene.sidecar.admin).get("/shadow", &[]).await;
    serde_json::from_str(reply.text()).expect("JSON")
}

/// 516. Nothing proposed the logins of an origin, nor a second purge for writes that it carries out
///      later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r516_what_writes_are_answered_is_advised() {
    let scene = Scene::start(&with_logins(""), |request| match request.method.as_str() {
        "POST" => to_login(request),
        "PUT" => Response::status(202, ""),
        _ => Response::ok("data"),
    })
    .await;
    for _ in 0..5 {
        scene.send("POST", "/change/7", &[], "").await;
        scene.send("PUT", "/change/7", &[], "").await;
    }
    let advice = shadow_report(&scene).await["advice"].clone();
    assert_eq!(advice[0]["toml"], "[credential]\nlogin_paths = [\"/login\"]\n", "{advice}");
    assert_eq!(advice[1]["toml"], "repurge_after = [\"1s\", \"5s\"]\n", "{advice}");
    assert!(advice[1]["why"].as_str().is_some_and(|why| why.contains("PUT /change/7")), "{advice}");
}

/// 517. A POST that claimed to be a MOVE purged any path and any rule: 2xx of a page that ignores
///      the claim was enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r517_a_post_has_no_destination() {
    let scene = scene(&rules("")).await;
    let multipart = ("content-type", "multipart/form-data; boundary=x");
    for destination in ["/items/7", "/change/7"] {
        let to = ("destination", destination);
        for (path, headers, body) in [
            ("/elsewhere", &[to, ("x-http-method-override", "MOVE")][..], ""),
            ("/elsewhere?_method=COPY", &[to], ""),
            ("/elsewhere", &[to, multipart], "--x--\r\n"),
            ("/elsewhere", &[to, FORM], "_method=MOVE"),
        ] {
            let seen = after(&scene, ("POST", path), headers, body).await;
            assert_eq!(seen, "HIT", "{path} {headers:?}");
        }
        assert_eq!(after(&scene, ("MOVE", "/elsewhere"), &[to], "").await, "MISS");
    }
}

/// A rule that purges by a field.
fn by_field(field: &str) -> String {
    let text = rules("").replacen("/change/{id}", "/change", 1);
    let (routes, purges) = text.split_once("[[purges]]").expect("a purge rule");
    let purges = purges.replacen("item:{id}", "item:{who}", 1);
    format!("[fields]\nwho = {{ {field} }}\n{routes}[[purges]]{purges}")
}

const CHANGE: (&str, &str) = ("POST", "/change");

/// 518. Values of forms were dropped in silence, where a name is written in two ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r518_a_form_has_many_spellings() {
    let scene = scene(&by_field("body = \"/ids/*\"")).await;
    for form in [
        "ids[]=1&ids=7",
        "ids=7&ids[]=1",
        "ids[]=1;ids[]=7",
        "ids[]=1&+ids[]=7",
        "ids[]=1&ids[0][x]=7",
        "ids[]=1&IDS[]=7",
        "ids[]=1&ids%00[]=7",
        "ids[]=1&ids[]=%FF",
    ] {
        assert_eq!(after(&scene, CHANGE, &[FORM], form).await, "MISS", "{form}");
    }
    let json = [("content-type", "application/json")];
    assert_eq!(after(&scene, CHANGE, &json, r#"{"ids":[1],"Ids":[7]}"#).await, "MISS");
    for form in ["ids[]=1&id[]=7", "ids[]=1&ids_old=7", "ids[]=1&a[ids]=7"] {
        assert_eq!(after(&scene, CHANGE, &[FORM], form).await, "HIT", "{form}");
    }
}

/// 519. So were values of queries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r519_a_query_has_many_spellings() {
    let scene = scene(&by_field("query = \"id\"")).await;
    for query in ["id=1&+id=7", "id=1&ID=7", "id=1&id%00=7", "id=1&%20id[]=7", "id=%FF"] {
        let path = format!("/change?{query}");
        assert_eq!(after(&scene, ("POST", &path), &[], "").await, "MISS", "{query}");
    }
    assert_eq!(after(&scene, ("POST", "/change?id=1&ids=7"), &[], "").await, "HIT");
}

/// 520. A declared GET was cached where its parameter was written in a way that PHP reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r520_conditions_are_read_in_every_way() {
    let scene = Scene::start(TRASH, counting).await;
    for query in ["+action=trash", "%20action=trash", "action%00=trash", "action%00x=trash"] {
        let path = format!("/wp-admin/post.php?{query}");
        for _ in 0..2 {
            let reply = scene.get(&path).await;
            assert!(reply.header("cache-status").contains("declared write"), "{query}");
        }
    }
}

/// 521. A body that may hide a method was taken for one that has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r521_a_type_that_is_no_type_hides_everything() {
    let scene = scene(&rules(PUT_ONLY)).await;
    for kind in [
        "image/png/application/x-www-form-urlencoded",
        "image/png; application/x-www-form-urlencoded",
        "application/x-ndjson",
        "application/x-www-form-urlencoded; charset*=utf-8''ibm037",
        "application/x-www-form-urlencoded; charset =ibm037",
    ] {
        let kind_line = [("content-type", kind)];
        assert_eq!(after(&scene, POST, &kind_line, "a=1").await, "MISS", "{kind}");
    }
    for form in ["\u{feff}_method=PUT", "\r\n_method=PUT"] {
        assert_eq!(after(&scene, POST, &[FORM], form).await, "MISS", "{form:?}");
    }
}

/// 522. A POST of unknown length that had no body in the end stood for every method.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r522_a_body_that_turns_out_empty_hides_nothing() {
    let scene = scene(&rules(PUT_ONLY)).await;
    scene.get("/items/7").await;
    let mut client = Client::new(scene.sidecar.address);
    client.upload("POST", "/change/7", futures_util::stream::empty()).await;
    assert_cache(&scene.get("/items/7").await, "HIT", "no rule is for POST");
    client.upload("POST", "/change/7", futures_util::stream::iter(["x".into()])).await;
    assert_cache(&scene.get("/items/7").await, "MISS", "this may hide a method");
}
