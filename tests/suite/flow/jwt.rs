//! Fields from tokens (JWT): two tenants never share, what is not verified is not cached, and keys
//! that change, fail or never come.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::issuer::{Issuer, IssuerKey, full, now};
use crate::support::scene::assert_cache;
use crate::support::{
    Client, CommandLine, Point, Reply, Request, Response, Scene, eventually, metric,
};

const ROUTES: &str = r#"
[fields]
tenant = { jwt = "/tenant" }
site   = { jwt = "/tenant", cookie = "session" }

[[routes]]
path  = "/items/{id}"
ttl   = "1h"
scope = "shared"
key   = ["tenant"]
tags  = ["items:{tenant}"]

[[routes]]
path  = "/all/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["tenant"]

[[routes]]
path  = "/pages/{id}"
ttl   = "1h"
scope = "shared"
admit = "route"
key   = ["site"]

[[routes]]
path = "/open/{id}"
ttl  = "1h"
scope = "public"
key  = ["tenant"]

[[purges]]
path = "/items/{id}"
tags = ["items:{tenant}"]
"#;

fn jwt(url: &str, more: &str) -> String {
    format!(
        "[jwt]\njwks_url = \"{url}\"\nalgorithms = [\"RS256\"]\nissuer = [\"https://issuer.test\"]\n\
         audience = [\"api\"]\n{more}\n"
    )
}

/// The app answers with the tenant of the token, which it believes, and how often it was asked.
fn app(request: &Request) -> Response {
    let token = request.header("authorization").unwrap_or_default();
    let cookie = request.header("cookie").unwrap_or_default();
    let token = token.strip_prefix("Bearer ").or_else(|| cookie.strip_prefix("session="));
    Response::ok(format!("{} {}", tenant_of(token.unwrap_or_default()), request.number))
}

fn tenant_of(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = token.split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice::<Value>(&claims).unwrap_or_default()["tenant"].clone()
}

/// An issuer with one key, and a sidecar that has fetched it.
async fn start(more: &str) -> (Scene, Issuer, IssuerKey) {
    let key = IssuerKey::new(0, "one");
    let issuer = Issuer::start(&[key.jwk()]);
    let scene = Scene::start(&format!("{}{ROUTES}", jwt(&issuer.url(), more)), app).await;
    fetched(&scene).await;
    (scene, issuer, key)
}

async fn fetched(scene: &Scene) {
    eventually("the keys are there", Duration::from_secs(30), || async {
        scene.sidecar.stats().await["jwt"]["keys"] == 1
    })
    .await;
}

async fn get(scene: &Scene, path: &str, authorization: &str) -> Reply {
    scene.ask(path, &[("authorization", authorization)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_nothing_and_tokens_of_one_tenant_share() {
    let (scene, _issuer, key) = start("").await;
    let acme = key.bearer(&json!({ "tenant": "acme", "sub": "ann" }));
    let globex = key.bearer(&json!({ "tenant": "globex", "sub": "gus" }));
    for (token, cache, text) in [
        (&acme, "MISS", "\"acme\" 0"),
        (&acme, "HIT", "\"acme\" 0"),
        (&globex, "MISS", "\"globex\" 1"),
        (&globex, "HIT", "\"globex\" 1"),
        (&acme, "HIT", "\"acme\" 0"),
    ] {
        let reply = get(&scene, "/all/1", token).await;
        assert!(reply.is(cache, text), "{}: {}", reply.cache_status(), reply.text());
    }
    // A new token is another credential. The origin's first answer on the route admits it to all
    // that its tenant has there.
    let renewed = key.bearer(&json!({ "tenant": "acme", "sub": "ann", "jti": 2 }));
    get(&scene, "/all/2", &acme).await;
    get(&scene, "/all/other", &renewed).await;
    for path in ["/all/1", "/all/2"] {
        let reply = get(&scene, path, &renewed).await;
        assert_cache(&reply, "HIT", path);
        assert!(reply.text().starts_with("\"acme\""));
    }
    assert_cache(
        &get(&scene, "/all/1", &key.bearer(&json!({ "tenant": "evil" }))).await,
        "MISS",
        "",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_token_admits_nobody() {
    let (scene, _issuer, key) = start("").await;
    let [ann, bob] = ["ann", "bob"].map(|sub| key.bearer(&json!({ "tenant": "acme", "sub": sub })));
    get(&scene, "/items/1", &ann).await;
    assert_cache(&get(&scene, "/items/1", &ann).await, "HIT", "it was given to her");
    scene.answers(|_| Response::status(403, "not for you"));
    let refused = get(&scene, "/items/1", &bob).await;
    assert_eq!((refused.status, refused.text()), (403, "not for you"));
    assert_cache(&get(&scene, "/items/1", &ann).await, "HIT", "and still is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_verified_is_passed_with_the_cause() {
    let (scene, _issuer, key) = start("").await;
    let stranger = IssuerKey::new(1, "one");
    let claims = json!({ "tenant": "acme" });
    let good = key.sign(&claims);
    get(&scene, "/all/1", &format!("Bearer {good}")).await;
    assert_cache(&get(&scene, "/all/1", &format!("bearer  {good}")).await, "MISS", "admits it");
    assert_cache(&get(&scene, "/all/1", &format!("bearer  {good}")).await, "HIT", "any case");

    let unsigned = format!("{}.", good.rsplit_once('.').expect("a token").0);
    let other_kid = json!({ "alg": "RS256", "kid": "two" });
    let none = key.sign_with(&json!({ "alg": "none" }), &full(&claims));
    let injected =
        json!({ "alg": "RS256", "kid": "one", "jwk": stranger.jwk(), "jku": "http://x" });
    let with = |others: Value| {
        let mut all = claims.clone();
        all.as_object_mut().expect("an object").extend(others.as_object().expect("one").clone());
        key.sign(&all)
    };
    for (token, cause) in [
        (stranger.sign(&claims), "bad signature"),
        (stranger.sign_with(&injected, &full(&claims)), "bad signature"),
        (key.sign_with(&other_kid, &full(&claims)), "unknown key"),
        (key.confused(&claims), "other algorithm"),
        (none, "not a JWT"),
        (unsigned, "not a JWT"),
        ("opaque".to_owned(), "not a JWT"),
        (with(json!({ "exp": now() - 1 })), "expired"),
        (with(json!({ "nbf": now() + 300 })), "not yet valid"),
        (with(json!({ "iss": "https://other.test" })), "other issuer"),
        (with(json!({ "aud": "other" })), "other audience"),
        (with(json!({ "exp": "soon" })), "unreadable claims"),
        ("x".repeat(20_000), "too long"),
    ] {
        let reply = get(&scene, "/all/1", &format!("Bearer {token}")).await;
        let expected = format!("unverified token tenant: {cause}");
        assert!(reply.cache_status().contains(&expected), "{cause}: {}", reply.cache_status());
        assert_eq!(reply.cache(), "BYPASS", "{cause}");
        let label = cause.to_ascii_lowercase().replace(' ', "_");
        let name = format!("sidecache_jwt_verifications_total{{result=\"{label}\"}}");
        assert!(metric(scene.sidecar.admin, &name).await > 0, "{name}");
    }
    for authorization in ["Basic YTpi", "Bearer "] {
        let reply = get(&scene, "/all/1", authorization).await;
        assert!(reply.cache_status().contains("missing field tenant"), "{}", reply.cache_status());
    }
    for odd in [json!(["acme"]), json!({ "acme": 1 }), json!(null), json!(""), json!(1.5)] {
        let reply = get(&scene, "/all/1", &key.bearer(&json!({ "tenant": odd }))).await;
        assert!(reply.cache_status().contains("missing field tenant"), "{}", reply.cache_status());
    }
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert_eq!(scene.ask("/all/1", &twice).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_served_to_a_token_until_its_exp() {
    let (scene, _issuer, key) = start("").await;
    let short = key.bearer(&json!({ "tenant": "acme", "exp": now() + 120 }));
    let long = key.bearer(&json!({ "tenant": "acme", "exp": now() + 1800 }));
    for token in [&short, &long] {
        get(&scene, "/items/1", token).await;
        assert_cache(&get(&scene, "/items/1", token).await, "HIT", "both were given it");
    }
    scene.clock.advance(Duration::from_secs(150));
    let reply = get(&scene, "/items/1", &short).await;
    assert_eq!(reply.cache(), "BYPASS", "the entry is fresh, and the token is not");
    assert!(reply.cache_status().contains("expired"), "{}", reply.cache_status());
    // Its 60 seconds of admission are over, so that the origin is asked once more.
    get(&scene, "/items/1", &long).await;
    assert_cache(&get(&scene, "/items/1", &long).await, "HIT", "another caller's goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_not_the_string_of_its_digits() {
    let (scene, _issuer, key) = start("").await;
    let [number, string] =
        [json!(1), json!("1")].map(|tenant| key.bearer(&json!({ "tenant": tenant })));
    assert!(get(&scene, "/all/1", &number).await.is("MISS", "1 0"));
    assert!(get(&scene, "/all/1", &string).await.is("MISS", "\"1\" 1"));
    assert!(get(&scene, "/all/1", &number).await.is("HIT", "1 0"));
    assert!(get(&scene, "/all/1", &string).await.is("HIT", "\"1\" 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_a_cookie_is_read_if_it_is_the_only_one() {
    let (scene, _issuer, key) = start("").await;
    let session = |claims: Value| format!("session={}", key.sign(&claims));
    let acme = session(json!({ "tenant": "acme" }));
    let ask = async |cookie: &str| scene.ask("/pages/1", &[("cookie", cookie)]).await;
    assert_cache(&ask(&acme).await, "MISS", "");
    assert!(ask(&acme).await.is("HIT", "\"acme\" 0"));
    let globex = session(json!({ "tenant": "globex" }));
    assert!(ask(&globex).await.is("MISS", "\"globex\" 1"));
    let reply = ask(&format!("{acme}; {globex}")).await;
    assert!(reply.cache_status().contains("ambiguous cookie session"), "{}", reply.cache_status());
    for (cookie, cause) in [
        ("session=", "missing field site"),
        ("other=1", "missing field site"),
        ("session=opaque", "unverified token site: not a JWT"),
    ] {
        let reply = ask(cookie).await;
        assert!(reply.cache_status().contains(cause), "{cookie}: {}", reply.cache_status());
    }
    // What is in the header is another token.
    let reply = get(&scene, "/pages/1", &key.bearer(&json!({ "tenant": "acme" }))).await;
    assert!(reply.cache_status().contains("missing field site"), "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scope_public_withholds_the_token_and_keys_by_its_claim() {
    let (scene, _issuer, key) = start("").await;
    let first = key.bearer(&json!({ "tenant": "acme", "jti": 1 }));
    let second = key.bearer(&json!({ "tenant": "acme", "jti": 2 }));
    assert_cache(&get(&scene, "/open/1", &first).await, "MISS", "");
    assert_cache(&get(&scene, "/open/1", &second).await, "HIT", "a new token of the tenant");
    assert_eq!(scene.last("/open/1").header("authorization"), None);
    let other = key.bearer(&json!({ "tenant": "globex" }));
    assert_cache(&get(&scene, "/open/1", &other).await, "MISS", "another tenant");
    let reply = get(&scene, "/open/1", "Bearer opaque").await;
    assert_eq!(reply.cache(), "BYPASS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_purges_its_tenant_and_with_a_doubtful_token_all_of_them() {
    let (scene, _issuer, key) = start("").await;
    let [acme, globex] = ["acme", "globex"].map(|tenant| key.bearer(&json!({ "tenant": tenant })));
    let stored = async || {
        let mut found = Vec::new();
        for token in [&acme, &globex] {
            found.push(get(&scene, "/items/1", token).await.cache().to_owned());
        }
        found
    };
    let write = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        scene.send("PUT", "/items/7", &headers, "{}".to_owned()).await
    };
    stored().await;
    assert_eq!(stored().await, ["HIT", "HIT"]);
    write(&acme).await;
    assert_eq!(stored().await, ["MISS", "HIT"], "one tenant wrote");
    // The origin took these writes, and nobody can tell whose they were.
    let expired = key.bearer(&json!({ "tenant": "acme", "exp": now() - 5 }));
    let forged = format!("Bearer {}", IssuerKey::new(1, "one").sign(&json!({ "tenant": "acme" })));
    for authorization in [&expired, &forged, "Bearer opaque", "Basic YTpi"] {
        assert_eq!(stored().await, ["HIT", "HIT"]);
        write(authorization).await;
        assert_eq!(stored().await, ["MISS", "MISS"], "{authorization:.20}");
    }
    // What the origin refuses purges nothing.
    scene.answers(|request| match request.method.as_str() {
        "PUT" => Response::status(401, "no"),
        _ => app(request),
    });
    write("Bearer opaque").await;
    assert_eq!(stored().await, ["HIT", "HIT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_fetched_when_a_token_names_it() {
    let (scene, issuer, old) = start("refresh = \"1h\"").await;
    let new = IssuerKey::new(1, "two");
    let [by_old, by_new] = [&old, &new].map(|key| key.bearer(&json!({ "tenant": "acme" })));
    get(&scene, "/all/1", &by_old).await;
    assert_cache(&get(&scene, "/all/1", &by_old).await, "HIT", "");
    issuer.publish(&[new.jwk()]);
    let reply = get(&scene, "/all/1", &by_new).await;
    assert!(reply.cache_status().contains("unknown key"), "{}", reply.cache_status());
    eventually("the new key is fetched", Duration::from_secs(30), || async {
        get(&scene, "/all/1", &by_new).await.cache() == "HIT"
    })
    .await;
    let reply = get(&scene, "/all/1", &by_old).await;
    assert!(reply.cache_status().contains("unknown key"), "what left the set is forgotten");
    // However many tokens name keys that there are not, the issuer is not asked for each.
    let fetches = issuer.fetches();
    for number in 0..200 {
        let header = json!({ "alg": "RS256", "kid": format!("made up {number}") });
        let token = new.sign_with(&header, &full(&json!({ "tenant": "acme" })));
        get(&scene, "/all/1", &format!("Bearer {token}")).await;
    }
    assert!(issuer.fetches() <= fetches + 20, "{} after {fetches}", issuer.fetches());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_requests_pass_and_readiness_says_why() {
    let key = IssuerKey::new(0, "one");
    let issuer = Issuer::start(&[key.jwk()]);
    let token = key.bearer(&json!({ "tenant": "acme" }));
    let huge = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(400 * 1024));
    for (status, text, why) in [
        (500, "broken", "500"),
        (302, "elsewhere", "302"),
        (200, "<html>not found</html>", "not a JWKS"),
        (200, "{\"keys\":[]}", "none for the algorithms"),
        (200, &huge, "larger than 256 KiB"),
    ] {
        issuer.answer(status, text);
        let scene = Scene::start(&format!("{}{ROUTES}", jwt(&issuer.url(), "")), app).await;
        let ready = async || scene.sidecar.admin_get("/ready").await.text().to_owned();
        eventually("readiness says why", Duration::from_secs(30), || async {
            ready().await.contains(why)
        })
        .await;
        assert!(ready().await.contains("the keys of tokens are not available"), "{why}");
        for _ in 0..2 {
            let reply = get(&scene, "/all/1", &token).await;
            let said = reply.cache_status();
            assert_eq!((reply.cache(), reply.status), ("BYPASS", 200), "{why}");
            assert!(said.contains("token keys unavailable"), "{said}");
        }
        issuer.publish(&[key.jwk()]);
        eventually("it recovers", Duration::from_secs(30), || async {
            get(&scene, "/all/1", &token).await.cache() == "HIT"
        })
        .await;
        assert!(!ready().await.contains("keys of tokens"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_issuer_holds_up_no_request() {
    let key = IssuerKey::new(0, "one");
    let issuer = Issuer::start(&[key.jwk()]);
    let hold = issuer.server.hold("GET", "/keys", Point::Before);
    let scene = Scene::start(&format!("{}{ROUTES}", jwt(&issuer.url(), "")), app).await;
    hold.arrived().await;
    let token = key.bearer(&json!({ "tenant": "acme" }));
    let reply = get(&scene, "/all/1", &token).await;
    assert_eq!((reply.cache(), reply.status), ("BYPASS", 200));
    hold.release();
    eventually("the keys come at last", Duration::from_secs(30), || async {
        get(&scene, "/all/1", &token).await.cache() == "HIT"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_fetched_again_hold_for_keep_keys() {
    let (scene, issuer, key) = start("refresh = \"1s\"\nkeep_keys = \"10m\"").await;
    issuer.answer(503, "down");
    let token = key.bearer(&json!({ "tenant": "acme", "exp": now() + 7200 }));
    eventually("the issuer is down", Duration::from_secs(30), || async {
        scene.sidecar.stats().await["jwt"]["fetch_error"].is_string()
    })
    .await;
    get(&scene, "/all/1", &token).await;
    assert_cache(&get(&scene, "/all/1", &token).await, "HIT", "the keys hold");
    scene.clock.advance(Duration::from_secs(610));
    let reply = get(&scene, "/all/1", &token).await;
    assert!(reply.cache_status().contains("token keys unavailable"), "{}", reply.cache_status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_the_keys_unless_it_changes_where_they_come_from() {
    let (scene, issuer, key) = start("refresh = \"1h\"").await;
    let token = key.bearer(&json!({ "tenant": "acme" }));
    get(&scene, "/all/1", &token).await;
    assert_cache(&get(&scene, "/all/1", &token).await, "HIT", "");
    let reload = async |rules: &str| {
        scene.sidecar.rewrite(rules);
        let reply = scene.sidecar.admin_post("/reload", &json!({})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let (verified, url) = ("sidecache_jwt_verifications_total{result=\"verified\"}", issuer.url());
    let before = metric(scene.sidecar.admin, verified).await;
    let more = "[[routes]]\npath = \"/new\"\nttl = \"1m\"\n";
    reload(&format!("{}{ROUTES}{more}", jwt(&url, "refresh = \"1h\""))).await;
    assert_cache(&get(&scene, "/all/1", &token).await, "HIT", "nothing of [jwt] has changed");
    assert_eq!(metric(scene.sidecar.admin, verified).await, before, "it is remembered");
    reload(&format!("{}{ROUTES}", jwt(&url, "refresh = \"1h\"\nleeway = \"5s\""))).await;
    assert_cache(&get(&scene, "/all/1", &token).await, "HIT", "the keys are the same");
    assert_eq!(metric(scene.sidecar.admin, verified).await, before + 1, "it is looked at anew");
    assert_eq!(issuer.fetches(), 1);
    reload(&format!("{}{ROUTES}", jwt(&url, "refresh = \"2h\""))).await;
    eventually("they are fetched anew", Duration::from_secs(30), || async {
        issuer.fetches() == 2 && get(&scene, "/all/1", &token).await.cache() == "HIT"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_logs_nor_the_admin_api_show_a_token() {
    let key = IssuerKey::new(0, "one");
    let issuer = Issuer::start(&[key.jwk()]);
    let origin = crate::support::Origin::start(app);
    let rules = format!("{}{ROUTES}", jwt(&issuer.url(), ""));
    let sidecar = crate::support::Sidecar::spawn_logged(origin.address, &rules).await;
    let good = key.sign(&json!({ "tenant": "acme" }));
    let forged = IssuerKey::new(1, "one").sign(&json!({ "tenant": "acme" }));
    let mut client = Client::new(sidecar.address);
    for token in [&good, &forged] {
        client.get("/all/1", &[("authorization", &format!("Bearer {token}"))]).await;
    }
    let mut shown = sidecar.said();
    for path in ["/stats", "/metrics", "/ready"] {
        shown.push_str(sidecar.admin_get(path).await.text());
    }
    for token in [&good, &forged] {
        for part in token.split('.').skip(1) {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_verifies_by_the_keys_of_files_and_fetches_nothing() {
    let key = IssuerKey::new(0, "one");
    let explain = async |source: &str, token: &str| {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:1\"\n[jwt]\n{source}\nalgorithms = [\"RS256\"]\n\
             issuer = [\"https://issuer.test\"]\n{ROUTES}"
        );
        let header = format!("authorization: Bearer {token}");
        let command = CommandLine::new()
            .file("proxy.toml", &text)
            .file("issuer.pem", &key.pem())
            .file("keys.json", &json!({ "keys": [key.jwk()] }).to_string());
        let said = command.run(&["explain", "GET", "/all/1", "-H", &header]).await;
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(!said.out.contains(token), "{}", said.out);
        said.out
    };
    let good = key.sign(&json!({ "tenant": "acme" }));
    let forged = IssuerKey::new(1, "one").sign(&json!({ "tenant": "acme" }));
    for source in ["public_key_file = [\"issuer.pem\"]", "jwks_file = \"keys.json\""] {
        let shown = explain(source, &good).await;
        assert!(shown.contains("field tenant acme") && shown.contains("verified"), "{shown}");
        let shown = explain(source, &forged).await;
        assert!(shown.contains("unverified token tenant: bad signature"), "{shown}");
    }
    let shown = explain("jwks_url = \"https://issuer.invalid/keys\"", &good).await;
    assert!(shown.contains("token keys unavailable"), "{shown}");
}
