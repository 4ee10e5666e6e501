//! What a learned file says of tokens whose claims tell tenants apart; and what strangers who write
//! tokens cannot make it say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::command::CommandLine;
use crate::support::{Request, Response, Scene, eventually};

const SECRET: &str = "the-secret-that-signs-all-the-tokens";

/// A token, as an issuer makes it.
fn token(secret: &str, claims: &Value) -> String {
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encoded(&json!({ "alg": "HS256", "typ": "JWT" })), encoded(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The token of a user: of that user, of a tenant, and of a role that nothing depends on.
fn user_token(secret: &str, tenant: &str, user: &str) -> String {
    let exp = 4_102_444_800_u64;
    let claims =
        json!({ "sub": user, "tenant": tenant, "role": "editor", "exp": exp, "jti": user });
    format!("Bearer {}", token(secret, &claims))
}

/// An app that shows a tenant its projects, and refuses tokens that it has not signed.
async fn projects() -> Scene {
    let version = AtomicU64::new(1);
    Scene::start("", move |request: &Request| {
        let sent = request.header("authorization").unwrap_or_default();
        let claims: Option<Value> = sent.split('.').nth(1).and_then(|payload| {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
        });
        let Some(claims) = claims.filter(|it| sent == format!("Bearer {}", token(SECRET, it)))
        else {
            return Response::status(401, "who are you?");
        };
        if request.method == "POST" {
            version.fetch_add(1, Ordering::SeqCst);
        }
        let version = version.load(Ordering::SeqCst);
        Response::ok(format!("{} of {}: {version}", request.path, claims["tenant"]))
    })
    .await
}

const USERS: [(&str, &str); 8] = [
    ("acme", "ann"),
    ("acme", "ben"),
    ("acme", "eve"),
    ("acme", "fay"),
    ("globex", "cleo"),
    ("globex", "dan"),
    ("globex", "gus"),
    ("globex", "hal"),
];

async fn work(scene: &Scene) {
    for round in 0..12 {
        scene.clock.advance(Duration::from_secs(5));
        for (tenant, user) in USERS {
            let own = user_token(SECRET, tenant, user);
            scene.ask("/projects", &[("authorization", &own)]).await;
        }
        if round == 6 {
            let own = user_token(SECRET, "acme", "ann");
            scene.send("POST", "/projects", &[("authorization", &own)], "").await;
        }
    }
}

async fn learned_of(scene: &Scene, requests: u64) -> Value {
    eventually("all is counted", Duration::from_secs(30), async || {
        let learned: Value = scene.sidecar.admin_get("/learned").await.json();
        learned["requests"].as_u64() >= Some(requests)
    })
    .await;
    scene.sidecar.admin_get("/learned").await.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_tells_tenants_apart_is_learned_and_users_of_one_share() {
    let mut scene = projects().await;
    // Tokens of many names and tenants, that nobody has signed.
    for round in 0..40 {
        let claims = json!({ format!("c{round}"): 1, "tenant": format!("t{round}") });
        let forged = format!("Bearer {}", token("no-secret", &claims));
        scene.ask("/projects", &[("authorization", &forged)]).await;
        let forged = user_token("no-secret", "acme", "ann");
        scene.ask("/projects", &[("authorization", &forged)]).await;
    }
    work(&scene).await;
    work(&scene).await;
    work(&scene).await;
    let learned = learned_of(&scene, 80 + 3 * 97).await;
    let rule = &learned["rules"][0];
    assert_eq!(rule["path"], "/projects", "{learned:#}");
    assert_eq!(
        rule["claim"],
        json!({ "name": "tenant", "algorithms": ["HS256"], "issuers": [], "audiences": [] }),
        "{learned:#}"
    );
    assert_eq!((&rule["scope"], &rule["stale"]), (&json!("shared"), &json!(0)));

    let file = scene.sidecar.file.display().to_string();
    let said = CommandLine::new().run(&["advise", "--file", "--config", &file]).await;
    assert_eq!(said.code, 0, "{}", said.err);
    scene.sidecar.stop().await;
    let text = said.out.replace("${JWT_SECRET}", SECRET);
    std::fs::write(&scene.sidecar.file, &text).expect("the file can be written to");
    let clock = scene.clock.clone();
    scene.sidecar.start_again(&clock).await;

    let (ann, ben) = (user_token(SECRET, "acme", "ann"), user_token(SECRET, "acme", "ben"));
    let cleo = user_token(SECRET, "globex", "cleo");
    let ask = async |token: &str| scene.ask("/projects", &[("authorization", token)]).await;
    assert_eq!(ask(&ann).await.cache(), "MISS", "{text}");
    let first = ask(&ben).await;
    assert!(first.cache() != "HIT" && first.text().contains("acme"), "the app has to admit ben");
    assert_eq!(ask(&ben).await.cache(), "HIT");
    assert!(ask(&cleo).await.text().contains("globex"));
    for _ in 0..2 {
        let forged = ask(&user_token("no-secret", "acme", "ann")).await;
        assert_eq!((forged.status, forged.cache()), (401, "BYPASS"));
    }
}
