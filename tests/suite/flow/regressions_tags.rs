//! Numbered regressions of what tags are made of: values, families, callers, optional fields; and
//! of the purge at the end of a reply. Continued from `regressions.rs`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::support::scene::assert_cache;
use crate::support::{
    Client, Origin, RedisServer, Reply, Request, Response, Scene, Sidecar, eventually,
};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Campaigns of tenants, and writes that name them in their body or their query.
const CAMPAIGNS: &str = r#"
[fields]
tenant = { header = "x-tenant" }
list   = { body = "/ids/*" }
each   = { body = "/*/id" }
plain  = { body = "/ids" }
picked = { query = "id" }

[[routes]]
path  = "/c/{id}"
scope = "public"
ttl   = "1h"
key   = ["tenant"]
tags  = ["campaign:{tenant}:{id}"]

[[purges]]
path = "/list"
tags = ["campaign:{tenant}:{list}"]

[[purges]]
path = "/each"
tags = ["campaign:{tenant}:{each}"]

[[purges]]
path = "/plain"
tags = ["campaign:{tenant}:{plain}"]

[[purges]]
path = "/picked"
tags = ["campaign:{tenant}:{picked}"]
"#;

/// What a metric without labels counts.
async fn count(sidecar: &Sidecar, name: &str) -> u64 {
    let metrics = sidecar.admin_get("/metrics").await;
    let prefix = format!("{name} ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&prefix));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

fn ok(_: &Request) -> Response {
    Response::ok("x")
}

/// What becomes of these pages of this tenant: which are still there?
async fn hits(scene: &Scene, tenant: &str, ids: &[&str]) -> Vec<bool> {
    let mut hits = Vec::new();
    for id in ids {
        let reply = scene.ask(&format!("/c/{id}"), &[("x-tenant", tenant)]).await;
        hits.push(reply.cache() == "HIT");
    }
    hits
}

async fn fill(scene: &Scene, tenant: &str, ids: &[&str]) {
    hits(scene, tenant, ids).await;
    assert!(hits(scene, tenant, ids).await.iter().all(|hit| *hit), "they are stored");
}

/// Writes as this tenant.
async fn write(scene: &Scene, path: &str, tenant: &str, body: impl Into<Vec<u8>>) -> Reply {
    let headers = [JSON, &[("x-tenant", tenant)]].concat();
    scene.send("POST", path, &headers, body.into()).await
}

/// 530. `{"ids":[1,2]}` and `[{"id":1},{"id":2}]` named nothing, so that nothing was purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r530_a_body_names_each_element_of_a_list() {
    let scene = Scene::start(CAMPAIGNS, ok).await;
    for (path, body) in [
        ("/list", r#"{"ids":[1,"2"]}"#),
        ("/each", r#"[{"id":1},{"id":2}]"#),
        ("/plain", r#"{"ids":[1,2]}"#),
        ("/plain", r#"{"ids":1,"ids":2}"#),
    ] {
        fill(&scene, "acme", &["1", "2", "3"]).await;
        write(&scene, path, "acme", body).await;
        let left = hits(&scene, "acme", &["1", "2", "3"]).await;
        assert_eq!(left, [false, false, true], "{path} {body}");
    }
}

/// 531. The 65th value of a query field, and of a list, was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r531_more_values_than_the_bound_purge_the_family() {
    let scene = Scene::start(CAMPAIGNS, ok).await;
    let ids: Vec<u32> = (100..180).collect();
    let query = ids.iter().map(|id| format!("id={id}")).collect::<Vec<_>>().join("&");
    let body = serde_json::json!({ "ids": ids }).to_string();
    for (path, body) in [(format!("/picked?{query}"), String::new()), ("/list".into(), body)] {
        fill(&scene, "acme", &["100", "179"]).await;
        fill(&scene, "other", &["179"]).await;
        write(&scene, &path, "acme", body).await;
        assert_eq!(hits(&scene, "acme", &["100", "179"]).await, [false, false], "{path}");
        assert_eq!(hits(&scene, "other", &["179"]).await, [true], "another tenant's: {path}");
    }
    assert_eq!(count(&scene.sidecar, "sidecache_purge_too_many_values_total").await, 2);
}

/// 532. A field that cannot be read was counted, and its template purged nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r532_a_field_that_cannot_be_read_purges_the_family() {
    let scene = Scene::start(CAMPAIGNS, ok).await;
    let long = format!(r#"{{"ids":[7],"x":"{}"}}"#, "x".repeat(70_000));
    let mut writes = 0;
    for body in ["{}", "{", "", r#"{"ids":[]}"#, r#"{"ids":[7,null]}"#, &long] {
        fill(&scene, "acme", &["7", "8"]).await;
        fill(&scene, "other", &["7"]).await;
        write(&scene, "/list", "acme", body).await;
        let case = &body[..body.len().min(20)];
        assert_eq!(hits(&scene, "acme", &["7", "8"]).await, [false, false], "{case}");
        assert_eq!(hits(&scene, "other", &["7"]).await, [true], "another tenant's: {case}");
        writes += 1;
        let counted = count(&scene.sidecar, "sidecache_purge_missing_fields_total").await;
        assert_eq!(counted, writes, "{case}");
    }
    // Without the tenant, nobody can tell whose it is.
    scene.send("POST", "/list", JSON, r#"{"ids":[9]}"#).await;
    assert_eq!(hits(&scene, "acme", &["7", "8"]).await, [false, false]);
    assert_eq!(hits(&scene, "other", &["7"]).await, [false]);
}

/// 533. The family is found by the shape of the template, whatever its fields are called, by
///      templates of other shapes, and by tags that the origin names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r533_a_family_is_found_whatever_its_fields_are_called() {
    let rules = |tag: &str, purged: &str| {
        format!(
            "[fields]\ncid = {{ body = \"/cid\" }}\n\n[[routes]]\npath = \"/c/{{id}}\"\nttl = \
             \"1h\"\nscope = \"public\"\n{tag}\n\n[[routes]]\npath = \"/o/{{id}}\"\nttl = \
             \"1h\"\nscope = \"public\"\ntags = [\"other:{{id}}\"]\n\n[[purges]]\npath = \
             \"/w\"\ntags = [\"{purged}\"]\n"
        )
    };
    for (tag, purged) in [
        ("tags = [\"campaign:{id}\"]", "campaign:{cid}"),
        ("tags = [\"campaign:{id}:full\"]", "campaign:{cid}"),
        ("tags = [\"campaign:{id}\"]", "campaign:{cid}:full"),
        ("tags = [\"campaign:all\"]", "campaign:{cid}"),
        ("", "campaign:{cid}"),
        ("", "{cid}:7"),
    ] {
        let scene = Scene::start(&rules(tag, purged), |request| {
            let answer = Response::ok("x");
            let is_campaign = request.path.starts_with("/c/");
            if is_campaign { answer.header("surrogate-key", "a campaign:7 z") } else { answer }
        })
        .await;
        for path in ["/c/7", "/o/7"] {
            scene.fill(path).await;
            assert_cache(&scene.get(path).await, "HIT", tag);
        }
        scene.send("POST", "/w", JSON, "{}").await;
        assert_cache(&scene.get("/c/7").await, "MISS", &format!("{purged} and {tag}"));
        if purged.starts_with("campaign") {
            assert_cache(&scene.get("/o/7").await, "HIT", "tags that it cannot mean");
        }
    }
}

/// 534. Nobody purges a family by a write that the origin refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r534_a_refused_write_purges_no_family() {
    let scene = Scene::start(CAMPAIGNS, |request| match request.method.as_str() {
        "POST" => Response::status(403, "no").header("set-cookie", "sessionid=; Max-Age=0"),
        _ => Response::ok("x"),
    })
    .await;
    fill(&scene, "acme", &["7"]).await;
    write(&scene, "/list", "acme", "{").await;
    assert_eq!(hits(&scene, "acme", &["7"]).await, [true]);
}

/// The tags of a category page of a shop: each product, and each variant of it. 1,400 tags fill the
/// 16 KiB that the usual proxies allow for them.
fn many_tags(count: usize) -> String {
    (0..count).map(|n| format!("cat_p_{n:05}")).collect::<Vec<_>>().join(",")
}

/// 535. Pages of Drupal and Magento have hundreds of tags, and were not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r535_a_page_with_the_tags_of_a_large_shop_is_stored() {
    let redis = RedisServer::start();
    for table in [String::new(), redis.table()] {
        let rules = format!(
            "{table}\n[[routes]]\npath = \"/{{*rest}}\"\nttl = \"1h\"\nscope = \"public\"\n\n\
             [[purges]]\npath = \"/p/{{id}}\"\ntags = [\"cat_p_{{id}}\"]\n"
        );
        let origin = Origin::start(|request| {
            let count = if request.path == "/more" { 2_100 } else { 1_400 };
            Response::ok("x").header("surrogate-key", &many_tags(count))
        });
        let sidecar = Sidecar::start(origin.address, &rules).await;
        let get = async |path: &str| Client::new(sidecar.address).get(path, &[]).await;
        let stored = async |case: &str| {
            let is_hit = async || get("/page").await.cache() == "HIT";
            eventually(case, Duration::from_secs(5), is_hit).await;
        };
        assert_cache(&get("/page").await, "MISS", "the first");
        stored("1,400 tags").await;
        Client::new(sidecar.address).send("PUT", "/p/01399", &[], "").await;
        assert_cache(&get("/page").await, "MISS", "the last tag was purged");
        stored("and it is stored again").await;
        let more = get("/more").await;
        assert!(more.cache_status().contains("too many tags"), "{}", more.cache_status());
        assert_cache(&get("/more").await, "MISS", "above the limit nothing is stored");
    }
}

const PRIVATE: &str = "[[routes]]\npath = \"/{*rest}\"\nttl = \"1h\"\nscope = \"private\"\n";

const ALICE: &[(&str, &str)] = &[("cookie", "sessionid=alice; lang=en")];
const BOB: &[(&str, &str)] = &[("cookie", "sessionid=bob; lang=en")];
const GUEST: &[(&str, &str)] = &[("cookie", "lang=en")];

async fn fill_as(scene: &Scene, path: &str, callers: &[&[(&str, &str)]]) {
    for caller in callers {
        scene.ask(path, caller).await;
        assert_cache(&scene.ask(path, caller).await, "HIT", &format!("{caller:?} has it"));
    }
}

/// 536. A login, a logout, a change of the profile or of the cart left what the caller had been
///      given before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r536_a_write_that_sets_a_cookie_purges_the_callers_entries() {
    let scene = Scene::start(PRIVATE, ok).await;
    let answers = |cookie: &'static str| {
        scene.answers(move |request| match (request.method.as_str(), cookie) {
            ("POST", "gone") => Response::hang_up(),
            ("POST", "") => Response::ok("done"),
            ("POST", cookie) => Response::status(302, "").header("set-cookie", cookie),
            _ => Response::ok("x"),
        });
    };
    for (cookie, is_purged) in [
        ("sessionid=; Max-Age=0", true),
        ("sessionid=alice; Path=/", true),
        ("flash=Saved", true),
        ("cart=2", true),
        ("_ga=1", false),
        ("", false),
        ("gone", true),
    ] {
        fill_as(&scene, "/me", &[ALICE, BOB, GUEST, &[]]).await;
        answers(cookie);
        // A flash cookie does not make another caller of her.
        let flash: &[(&str, &str)] = &[("cookie", "flash=x; sessionid=alice; lang=en")];
        scene.send("POST", "/profile", flash, "name=A").await;
        let expected = if is_purged { "MISS" } else { "HIT" };
        assert_cache(&scene.ask("/me", ALICE).await, expected, cookie);
        for other in [BOB, GUEST, &[]] {
            assert_cache(&scene.ask("/me", other).await, "HIT", &format!("{cookie}: {other:?}"));
        }
    }
    // Under the new cookie, too.
    let carol: &[(&str, &str)] = &[("cookie", "sessionid=carol")];
    fill_as(&scene, "/me", &[ALICE, GUEST, carol]).await;
    answers("sessionid=carol; HttpOnly");
    scene.send("POST", "/login", GUEST, "user=carol").await;
    assert_cache(&scene.ask("/me", carol).await, "MISS", "a login");
    assert_cache(&scene.ask("/me", ALICE).await, "HIT", "another caller");
    assert_cache(&scene.ask("/me", GUEST).await, "HIT", "guests are not one caller");
}

/// 537. `{caller}` in templates: a write purges what it changed for this caller alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r537_a_tag_may_be_of_the_caller() {
    let rules = "[[routes]]\npath = \"/cart\"\nttl = \"1h\"\nscope = \"private\"\ntags = \
                 [\"cart:{caller}\"]\n\n[[routes]]\npath = \"/me\"\nttl = \"1h\"\nscope = \
                 \"private\"\n\n[[purges]]\npath = \"/cart/{*rest}\"\ntags = [\"cart:{caller}\"]\n";
    let scene = Scene::start(rules, ok).await;
    for path in ["/cart", "/me"] {
        fill_as(&scene, path, &[ALICE, BOB, GUEST]).await;
    }
    scene.send("POST", "/cart/add", GUEST, "x").await;
    assert_cache(&scene.ask("/cart", ALICE).await, "HIT", "a guest purges nobody's");
    let flash: &[(&str, &str)] =
        &[("cookie", "lang=de; sessionid=alice; flash=1"), ("authorization", "Bearer a")];
    scene.send("POST", "/cart/add", flash, "x").await;
    assert_cache(&scene.ask("/cart", ALICE).await, "MISS", "alice's cart");
    for (path, caller) in [("/cart", BOB), ("/cart", GUEST), ("/me", ALICE), ("/me", BOB)] {
        assert_cache(&scene.ask(path, caller).await, "HIT", &format!("{path} of {caller:?}"));
    }
}

/// 538. A field that a request may lack: absent is a value of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r538_an_optional_field_may_be_absent() {
    let rules = "[fields]\nteam = { header = \"x-team\" }\n\n[[routes]]\npath = \"/a\"\nttl = \
                 \"1h\"\nscope = \"public\"\nkey = [\"team?\"]\ntags = [\"a:{team?}\"]\n\n\
                 [[purges]]\npath = \"/w\"\ntags = [\"a:{team?}\"]\n";
    let scene =
        Scene::start(rules, |request| Response::ok(format!("team {:?}", request.header("x-team"))))
            .await;
    let teams: [&[(&str, &str)]; 3] = [&[], &[("x-team", "")], &[("x-team", "red")]];
    let mut bodies = Vec::new();
    for team in teams {
        assert_cache(&scene.ask("/a", team).await, "MISS", &format!("{team:?}"));
        let again = scene.ask("/a", team).await;
        assert_cache(&again, "HIT", &format!("{team:?}"));
        bodies.push(again.text().to_owned());
    }
    assert_eq!(bodies, ["team None", "team Some(\"\")", "team Some(\"red\")"]);
    scene.send("POST", "/w", &[("x-team", "red")], "").await;
    assert_cache(&scene.ask("/a", teams[2]).await, "MISS", "red was written");
    assert_cache(&scene.ask("/a", teams[0]).await, "HIT", "no team was not");
    scene.send("POST", "/w", &[], "").await;
    assert_cache(&scene.ask("/a", teams[0]).await, "MISS", "no team was written");
    assert_cache(&scene.ask("/a", teams[2]).await, "HIT", "red was not");
    assert_eq!(count(&scene.sidecar, "sidecache_purge_missing_fields_total").await, 0);
}

/// How a reply to a write ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Complete,
    Sized,
    BrokenOff,
    ClientLeaves,
}

/// A write whose reply is under way, while another client reads what it changes; then the origin
/// commits, and the reply ends.
async fn commits_late(ending: Ending, table: &str) {
    let rules = format!(
        "{table}\n[[routes]]\npath = \"/a\"\nttl = \"1h\"\nscope = \"public\"\ntags = \
         [\"a\"]\n\n[[purges]]\npath = \"/w\"\ntags = [\"a\"]\n"
    );
    let (gate, committed) = (CancellationToken::new(), CancellationToken::new());
    let origin = Origin::start({
        let (gate, committed) = (gate.clone(), committed.clone());
        move |request| match (request.path.as_str(), ending) {
            ("/w", Ending::Sized) => {
                Response::new().sized("", 8).piece(b"work").until(&gate).piece(b"done")
            }
            ("/w", Ending::BrokenOff) => {
                Response::new().chunked("").piece(b"work").until(&gate).close()
            }
            ("/w", _) => {
                Response::new().chunked("").piece(b"work").until(&gate).piece(b"done").end()
            }
            _ => Response::ok(if committed.is_cancelled() { "new" } else { "old" }),
        }
    });
    let first = Sidecar::start(origin.address, &rules).await;
    let second =
        if table.is_empty() { None } else { Some(Sidecar::start(origin.address, &rules).await) };
    let reader = second.as_ref().map_or(first.address, |second| second.address);
    let get = async || Client::new(reader).get("/a", &[]).await;
    get().await;
    assert_eq!(get().await.cache(), "HIT");
    let mut writer = Client::new(first.address);
    let reply = writer.open("POST", "/w", &[], "x").await.expect("a head");
    let between = get().await;
    assert_eq!((between.cache(), between.text()), ("MISS", "old"), "purged for at the head");
    assert_eq!(get().await.cache(), "HIT");
    committed.cancel();
    if matches!(ending, Ending::ClientLeaves) {
        drop((reply, writer));
        gate.cancel();
    } else {
        gate.cancel();
        let whole = http_body_util::BodyExt::collect(reply.into_body()).await;
        assert_eq!(whole.is_ok(), !matches!(ending, Ending::BrokenOff));
        if !matches!(ending, Ending::BrokenOff) {
            assert_eq!(get().await.text(), "new", "{ending:?}: whoever has the whole reply");
        }
    }
    eventually(
        &format!("what was read in between is gone: {ending:?}"),
        Duration::from_secs(5),
        || {
            let get = &get;
            async move { get().await.text() == "new" }
        },
    )
    .await;
    assert_eq!(count(&first, "sidecache_purges_at_end_total").await, 1);
}

/// 539. An origin that streams its reply may commit at the end of it. What others had read in
///      between was served on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r539_what_was_filled_while_a_reply_streamed_does_not_survive() {
    for ending in [Ending::Complete, Ending::Sized, Ending::BrokenOff, Ending::ClientLeaves] {
        commits_late(ending, "").await;
    }
}

/// 540. The same, as another sidecar sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r540_the_other_sidecars_learn_of_the_end_of_a_reply() {
    let redis = RedisServer::start();
    for ending in [Ending::Complete, Ending::Sized, Ending::ClientLeaves] {
        redis.command("FLUSHALL");
        commits_late(ending, &redis.table()).await;
    }
}

/// 543. A client that left while the reply streamed ended the write for the cache: what was filled
///      between that and the commit was served until its `ttl` ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r543_a_client_that_leaves_a_reply_does_not_end_the_write() {
    let [left, gate, committed] = [(); 3].map(|()| CancellationToken::new());
    let rules = "[[routes]]\npath = \"/a\"\nttl = \"1h\"\nscope = \"public\"\ntags = [\"a\"]\n\n\
                 [[purges]]\npath = \"/w\"\ntags = [\"a\"]\n";
    let scene = Scene::start(rules, {
        let (left, gate, committed) = (left.clone(), gate.clone(), committed.clone());
        move |request| match request.path.as_str() {
            "/w" => {
                let begun = Response::new().chunked("").piece(b"work").until(&left);
                let pause = Duration::from_millis(100);
                let goes_on = (0..3).fold(begun, |reply, _| reply.piece(b"work").wait(pause));
                goes_on.until(&gate).piece(b"done").end()
            }
            _ => Response::ok(if committed.is_cancelled() { "new" } else { "old" }),
        }
    })
    .await;
    let mut writer = Client::new(scene.sidecar.address);
    let reply = writer.open("POST", "/w", &[], "x").await.expect("a head");
    drop((reply, writer));
    left.cancel();
    // Until the sidecar has noticed: it finds nobody to write to.
    tokio::time::sleep(Duration::from_millis(600)).await;
    scene.get("/a").await;
    let between = scene.get("/a").await;
    assert!(between.is("HIT", "old"), "not committed yet");
    committed.cancel();
    gate.cancel();
    eventually("what was read in between is gone", Duration::from_secs(5), || async {
        scene.get("/a").await.text() == "new"
    })
    .await;
}

/// 544. A logout that the origin answers like a refusal left the caller's pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r544_a_refusal_that_clears_the_session_purges_what_its_caller_was_given() {
    let rules = "[credential]\ncookies = [\"sid\"]\nlogin_paths = [\"/login\"]\n\n\
                 [[routes]]\npath = \"/me\"\nttl = \"1h\"\n";
    let scene = Scene::start(rules, |request| match request.path.as_str() {
        "/me" => Response::ok("page"),
        "/expired" => Response::status(401, "").header("set-cookie", "sid=; Max-Age=0"),
        _ => Response::status(403, ""),
    })
    .await;
    let of = |sid: &'static str| [("cookie", sid)];
    let warm = async |sid| {
        scene.send("GET", "/me", &of(sid), "").await;
        assert_eq!(scene.send("GET", "/me", &of(sid), "").await.cache(), "HIT", "{sid}");
    };
    warm("sid=a").await;
    warm("sid=b").await;
    scene.send("POST", "/refused", &of("sid=a"), "x").await;
    assert_eq!(
        scene.send("GET", "/me", &of("sid=a"), "").await.cache(),
        "HIT",
        "nothing was set or cleared"
    );
    scene.send("POST", "/expired", &of("sid=a"), "x").await;
    assert_eq!(scene.send("GET", "/me", &of("sid=a"), "").await.cache(), "MISS");
    assert_eq!(scene.send("GET", "/me", &of("sid=b"), "").await.cache(), "HIT", "somebody else's");
}

/// 541. A reply that is whole at once is purged for once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r541_a_reply_that_is_whole_is_purged_for_once() {
    let scene = Scene::start(CAMPAIGNS, |request| match request.path.as_str() {
        "/chunks" => Response::new().chunked("").piece(b"a").piece(b"b").end(),
        "/trailers" => {
            Response::new().chunked("Trailer: X-A\r\n").piece(b"ab").end_with("X-A: 1\r\n")
        }
        "/none" => Response::status(204, ""),
        _ => Response::ok("ab"),
    })
    .await;
    for path in ["/chunks", "/trailers", "/sized"] {
        let reply = scene.send("POST", path, &[("te", "trailers")], "x").await;
        assert_eq!(reply.text(), "ab", "{path}");
        assert_eq!(reply.trailers.is_some(), path == "/trailers", "{path}");
    }
    assert_eq!(scene.send("POST", "/none", &[], "x").await.status, 204);
    assert_eq!(count(&scene.sidecar, "sidecache_purges_at_end_total").await, 0);
}

/// 542. A credential that was revoked was served until its entries were stale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r542_a_revoked_credential_is_served_for_a_bounded_time() {
    for scope in ["private", "shared"] {
        let rules = format!(
            "[[routes]]\npath = \"/a\"\nttl = \"1h\"\nadmit_for = \"1h\"\nstale_if_error = \
             \"1h\"\nscope = \"{scope}\"\nrevalidate_after = \"30s\"\n"
        );
        let rules =
            if scope == "private" { rules.replace("admit_for = \"1h\"\n", "") } else { rules };
        let scene = Scene::start(&rules, |request| match request.header("if-none-match") {
            Some(_) => Response::status(304, "").header("etag", "\"1\""),
            None => Response::ok("x").header("etag", "\"1\""),
        })
        .await;
        let alice = [("authorization", "Bearer alice")];
        scene.ask("/a", &alice).await;
        let half = Duration::from_secs(20);
        scene.clock.advance(half);
        assert_cache(&scene.ask("/a", &alice).await, "HIT", "within the time");
        scene.clock.advance(half);
        let confirmed = scene.ask("/a", &alice).await;
        assert_cache(&confirmed, "REVALIDATED", "after it the origin is asked");
        if scope == "private" {
            let status = confirmed.cache_status().to_owned();
            assert!(status.contains("credential not confirmed"), "{status}");
        }
        scene.clock.advance(half);
        assert_cache(&scene.ask("/a", &alice).await, "HIT", "the origin has confirmed it");
        scene.clock.advance(half);
        scene.answers(|_| Response::status(503, "down"));
        assert_eq!(scene.ask("/a", &alice).await.status, 503, "nobody vouches for it");
        scene.answers(|_| Response::status(401, "revoked"));
        assert_eq!(scene.ask("/a", &alice).await.status, 401);
        if scope == "private" {
            // Whoever has no credential has none to lose.
            scene.answers(ok);
            scene.get("/a").await;
            scene.clock.advance(half * 2);
            assert_cache(&scene.get("/a").await, "HIT", "an anonymous caller");
        }
    }
}

/// 1490. A HEAD that reached the app gave its client the tags that a GET is not given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1490_a_head_tells_no_tags_whoever_answers_it() {
    for (keep, told) in [("", ""), ("[tags]\nkeep = true\n", "a campaign:7")] {
        let rules = format!(
            "{keep}[[routes]]\npath = \"/c/{{id}}\"\nscope = \"public\"\nttl = \"1h\"\ntags = [\"c\"]\n"
        );
        let scene = Scene::start(&rules, |_| {
            Response::ok("x").header("surrogate-key", "a campaign:7").header("etag", "\"1\"")
        })
        .await;
        for (method, cache) in [("HEAD", "MISS"), ("GET", "MISS"), ("HEAD", "HIT")] {
            let reply = scene.send(method, "/c/7", &[], "").await;
            assert_eq!((reply.cache(), reply.header("surrogate-key")), (cache, told), "{method}");
        }
        scene.clock.advance(Duration::from_hours(2));
        let reply = scene.send("HEAD", "/c/7", &[], "").await;
        assert_eq!((reply.cache(), reply.header("surrogate-key")), ("MISS", told), "stale");
    }
}
