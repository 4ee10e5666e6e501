//! No client gets another's response, whatever it sends.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::support::origin::identity;
use crate::support::{Client, Origin, Reply, Sidecar};

/// A route of each kind.
const RULES: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }
token  = { auth = "prefix", length = 20 }

[[routes]]
path = "/private/{id}"
ttl  = "5m"
key  = ["tenant"]

[[routes]]
path  = "/shared/{id}"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]

[[routes]]
path         = "/public/{id}"
ttl          = "5m"
scope        = "public"
drop_headers = ["x-tenant-id"]

[[routes]]
path = "/prefix/{id}"
ttl  = "5m"
key  = ["tenant", "token"]
"#;

/// Two JWTs of one issuer: their first 154 characters are equal, and each is
/// `{"alg":"RS256","typ":"JWT"}` with an issuer and a subject.
const JWTS: [&str; 2] = [
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.\
     eyJpc3MiOiJodHRwczovL2FjY291bnRzLmV4YW1wbGUuY29tL3JlYWxtcy9wcm9kdWN0aW9u\
     L3Byb3RvY29sL29wZW5pZC1jb25uZWN0Iiwic\
     3ViIjoiYWxpY2UifQ.c2lnalice",
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.\
     eyJpc3MiOiJodHRwczovL2FjY291bnRzLmV4YW1wbGUuY29tL3JlYWxtcy9wcm9kdWN0aW9u\
     L3Byb3RvY29sL29wZW5pZC1jb25uZWN0Iiwic\
     3ViIjoiYm9iIn0.c2lnbob",
];

async fn start() -> (Origin, Sidecar) {
    let app = Origin::start(identity);
    let sidecar = Sidecar::start(app.address, RULES).await;
    (app, sidecar)
}

/// A request's identity, as headers.
fn headers<'a>(tenant: &'a str, authorization: &'a str) -> Vec<(&'a str, &'a str)> {
    [("x-tenant-id", tenant), ("authorization", authorization)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn said(reply: &Reply, member: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&reply.body)
        .unwrap_or_else(|error| panic!("{error}: {}", reply.text()));
    body[member].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_share_nothing() {
    let (_app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    for route in ["private", "shared", "prefix"] {
        let path = format!("/{route}/1");
        for (tenant, cache) in [
            ("acme", "MISS"),
            ("acme", "HIT"),
            ("globex", "MISS"),
            ("globex", "HIT"),
            ("acme", "HIT"),
        ] {
            let reply = client.get(&path, &headers(tenant, "Bearer alice")).await;
            assert_eq!(
                (reply.status, reply.cache()),
                (200, cache),
                "{path} {tenant}: {}",
                reply.cache_status()
            );
            assert_eq!(said(&reply, "tenant").as_deref(), Some(tenant), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_entries_are_each_callers_own() {
    let (_app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    for user in ["Bearer alice", "Bearer bob", "Bearer Alice", "Basic alice"] {
        client.get("/private/1", &headers("acme", user)).await;
        let again = client.get("/private/1", &headers("acme", user)).await;
        assert_eq!(said(&again, "authorization").as_deref(), Some(user));
    }
    // A cookie is a credential as well.
    let mut with_cookie = headers("acme", "Bearer alice");
    with_cookie.push(("cookie", "session=1"));
    let reply = client.get("/private/1", &with_cookie).await;
    assert_eq!((reply.cache(), said(&reply, "cookie").as_deref()), ("MISS", Some("session=1")));
    let reply = client.get("/private/1", &headers("acme", "Bearer alice")).await;
    assert_eq!((reply.cache(), said(&reply, "cookie")), ("HIT", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_entry_is_given_to_admitted_credentials_only() {
    let (app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    let sequence = [
        ("Bearer alice", 200, "MISS"),
        ("Bearer alice", 200, "HIT"),
        // A fill that is refused is repeated as a pass, and for a while not tried again.
        ("", 401, "BYPASS"),
        ("", 401, "BYPASS"),
        ("Bearer bad-token", 401, "BYPASS"),
        ("Bearer bad-token", 401, "BYPASS"),
        ("Bearer alice", 200, "HIT"),
        ("Bearer bob", 200, "MISS"),
        ("Bearer bob", 200, "HIT"),
        // The body names its caller, and bob's has ended her admission.
        ("Bearer alice", 200, "MISS"),
        ("Bearer alice", 200, "HIT"),
    ];
    for (step, (user, status, cache)) in sequence.into_iter().enumerate() {
        let reply = client.get("/shared/1", &headers("acme", user)).await;
        assert_eq!(
            (reply.status, reply.cache()),
            (status, cache),
            "step {step} {user:?}: {}",
            reply.cache_status()
        );
        assert_eq!(said(&reply, "tenant").as_deref(), Some("acme"));
    }
    // A refused fill goes once more as it came; a while later, it goes so at once.
    assert_eq!(
        app.count("GET", "/shared/1"),
        9,
        "three fills, and three requests of each stranger"
    );
    // A client that is authorized for one tenant's entry is not authorized for another's.
    let reply = client.get("/shared/1", &headers("globex", "Bearer bob")).await;
    assert_eq!((reply.cache(), said(&reply, "tenant").as_deref()), ("MISS", Some("globex")));
    let reply = client.get("/shared/1", &headers("globex", "Bearer alice")).await;
    assert_eq!(
        (reply.status, reply.cache()),
        (200, "MISS"),
        "the app has not yet seen alice there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_with_a_common_prefix_are_different_callers() {
    let (_app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    for length in [20, 36, 100] {
        let prefix = "p".repeat(length);
        for ending in ["-alice", "-bob", ""] {
            let user = format!("Bearer {prefix}{ending}");
            for cache in ["MISS", "HIT"] {
                let reply = client.get("/private/1", &headers("acme", &user)).await;
                assert_eq!(
                    (reply.cache(), said(&reply, "authorization")),
                    (cache, Some(user.clone())),
                    "prefix of {length}"
                );
            }
        }
    }
    // Tokens that look like JWTs all begin alike, so a prefix identifies nobody.
    for token in JWTS {
        let user = format!("Bearer {token}");
        for cache in ["MISS", "HIT"] {
            let reply = client.get("/prefix/1", &headers("acme", &user)).await;
            assert_eq!(
                (reply.cache(), said(&reply, "authorization")),
                (cache, Some(user.clone())),
                "a JWT"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_entries_are_made_without_credentials() {
    let (_app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    let mut asks = headers("acme", "Bearer alice");
    asks.push(("cookie", "session=1"));
    let reply = client.get("/public/1", &asks).await;
    assert_eq!((reply.status, reply.cache()), (200, "MISS"), "{}", reply.cache_status());
    for member in ["tenant", "authorization", "cookie"] {
        assert_eq!(said(&reply, member), None, "{member} was withheld");
    }
    let reply = client.get("/public/1", &[]).await;
    assert_eq!((reply.status, reply.cache()), (200, "HIT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_tenant_is_not_the_empty_tenant() {
    let (app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    for _ in 0..2 {
        let reply = client.get("/private/1", &[("authorization", "Bearer alice")]).await;
        assert_eq!((reply.status, reply.cache()), (200, "BYPASS"));
        assert!(reply.cache_status().contains("missing field tenant"), "{}", reply.cache_status());
    }
    let reply =
        client.get("/private/1", &[("authorization", "Bearer alice"), ("x-tenant-id", "")]).await;
    assert_ne!(reply.cache(), "HIT");
    assert_eq!(app.count("GET", "/private/1"), 3, "the app answered each of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_or_hop_by_hop_tenant_is_refused() {
    let (app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    let twice =
        [("x-tenant-id", "acme"), ("x-tenant-id", "globex"), ("authorization", "Bearer alice")];
    let equal =
        [("x-tenant-id", "acme"), ("x-tenant-id", "acme"), ("authorization", "Bearer alice")];
    let named =
        [("x-tenant-id", "acme"), ("connection", "x-tenant-id"), ("authorization", "Bearer alice")];
    let listed = [
        ("x-tenant-id", "acme"),
        ("connection", "keep-alive, X-Tenant-Id"),
        ("authorization", "Bearer alice"),
    ];
    for bad in [&twice, &equal, &named, &listed] {
        for route in ["private", "shared", "prefix"] {
            let reply = client.get(&format!("/{route}/1"), bad).await;
            assert_eq!(reply.status, 400, "/{route}/1 {bad:?}");
        }
    }
    assert_eq!(app.total(), 0, "the app saw none of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_that_no_key_has_seen_is_not_cached_under_the_key() {
    let (_app, sidecar) = start().await;
    let mut client = Client::new(sidecar.address);
    let mut asks = headers("acme", "Bearer alice");
    asks.push(("x-account-id", "7"));
    let reply = client.get("/private/1", &asks).await;
    assert_eq!((reply.cache(), said(&reply, "account").as_deref()), ("BYPASS", Some("7")));
    assert!(reply.cache_status().contains("x-account-id"), "{}", reply.cache_status());
    let reply = client.get("/private/1", &headers("acme", "Bearer alice")).await;
    assert_eq!((reply.cache(), said(&reply, "account")), ("MISS", None));
}

/// A random request, and what its response may contain.
struct Made {
    path: String,
    tenant: Option<&'static str>,
    user: Option<String>,
    cookie: Option<&'static str>,
    account: Option<&'static str>,
    // A tenant header that is repeated, or that `Connection` lists.
    broken: Option<(&'static str, &'static str)>,
}

fn users() -> Vec<String> {
    let mut users: Vec<_> =
        ["alice", "bob", "bad-token", "x", JWTS[0], JWTS[1]].map(str::to_owned).into();
    for length in [20, 36, 100] {
        let prefix = "p".repeat(length);
        users.extend([format!("{prefix}-1"), format!("{prefix}-2")]);
    }
    users
}

fn make(random: &mut StdRng, users: &[String]) -> Made {
    let route =
        ["private", "shared", "public", "prefix", "plain"].choose(random).expect("not empty");
    let query = ["", "", "?a=1", "?a=1&b=2"].choose(random).expect("not empty");
    let broken = match random.gen_range(0..50) {
        0 => Some(("x-tenant-id", "initech")),
        1 => Some(("connection", "x-tenant-id")),
        _ => None,
    };
    Made {
        path: format!("/{route}/{}{query}", random.gen_range(0..3)),
        tenant: [Some("acme"), Some("globex"), Some("acme2"), None]
            .choose(random)
            .copied()
            .flatten(),
        user: users
            .choose(random)
            .filter(|_| random.gen_ratio(9, 10))
            .map(|token| format!("Bearer {token}")),
        cookie: [None, None, None, Some("session=1"), Some("session=2")]
            .choose(random)
            .copied()
            .flatten(),
        account: random.gen_ratio(1, 20).then_some("7"),
        broken,
    }
}

/// Whether the second caller may get the response to the first, on a route keyed by the first 20
/// characters of a token.
fn same_by_prefix(mine: &str, theirs: &str) -> bool {
    let opaque = |token: &str| !token.starts_with("Bearer eyJ");
    let first =
        |token: &str| token.trim_start_matches("Bearer ").chars().take(20).collect::<String>();
    mine == theirs || (opaque(mine) && opaque(theirs) && first(mine) == first(theirs))
}

/// Fails if this caller must not see the response.
fn judge(made: &Made, reply: &Reply) {
    let context = || {
        format!(
            "{} {:?} {:?} {:?}: {} {} {}",
            made.path,
            made.tenant,
            made.user,
            made.cookie,
            reply.status,
            reply.cache_status(),
            reply.text()
        )
    };
    let public = made.path.starts_with("/public");
    let plain = made.path.starts_with("/plain");
    if made.broken.is_some() && made.tenant.is_some() && !public && !plain {
        assert_eq!(reply.status, 400, "{}", context());
        return;
    }
    if reply.status == 400 && made.broken.is_some() {
        return;
    }
    let accepted = made.user.as_ref().is_some_and(|user| !user.starts_with("Bearer bad"));
    assert_eq!(reply.status, if public || accepted { 200 } else { 401 }, "{}", context());
    let (path, query) = made
        .path
        .split_once('?')
        .map_or((made.path.as_str(), None), |(path, query)| (path, Some(query)));
    assert_eq!(said(reply, "path").as_deref(), Some(path), "{}", context());
    assert_eq!(said(reply, "query").as_deref(), query, "{}", context());
    assert_eq!(said(reply, "account").as_deref(), made.account, "{}", context());
    if public && reply.cache() != "BYPASS" {
        assert_eq!(
            (said(reply, "authorization"), said(reply, "cookie")),
            (None, None),
            "{}",
            context()
        );
        return;
    }
    if made.broken.is_none() {
        assert_eq!(said(reply, "tenant").as_deref(), made.tenant, "{}", context());
    }
    let theirs = said(reply, "authorization");
    if made.path.starts_with("/prefix") {
        let (mine, theirs) = (made.user.clone().unwrap_or_default(), theirs.unwrap_or_default());
        assert!(same_by_prefix(&mine, &theirs), "{}", context());
    } else if made.path.starts_with("/shared") {
        // Another user's fill may serve it if the origin has accepted this user too, which the
        // status shows.
        let shared = reply.cache() == "HIT" || reply.cache_status().contains("collapsed");
        assert!(theirs.is_none_or(|theirs| shared || Some(theirs) == made.user), "{}", context());
    } else {
        assert_eq!(theirs, made.user, "{}", context());
        assert_eq!(said(reply, "cookie").as_deref(), made.cookie, "{}", context());
    }
}

async fn random_requests(
    seed: u64,
    count: usize,
    address: std::net::SocketAddr,
    users: Arc<Vec<String>>,
) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = Client::new(address);
    let mut hits = 0;
    for _ in 0..count {
        let made = make(&mut random, &users);
        let mut asks =
            headers(made.tenant.unwrap_or_default(), made.user.as_deref().unwrap_or_default());
        asks.extend(made.cookie.map(|cookie| ("cookie", cookie)));
        asks.extend(made.account.map(|account| ("x-account-id", account)));
        asks.extend(made.broken);
        let reply = client.get(&made.path, &asks).await;
        judge(&made, &reply);
        hits += usize::from(reply.cache() == "HIT");
    }
    hits
}

async fn nobody_gets_anothers(clients: usize, requests_each: usize) {
    let (_app, sidecar) = start().await;
    let users = Arc::new(users());
    let tasks: Vec<_> = (0..clients)
        .map(|seed| {
            tokio::spawn(random_requests(
                seed as u64,
                requests_each,
                sidecar.address,
                Arc::clone(&users),
            ))
        })
        .collect();
    let mut hits = 0;
    for task in tasks {
        hits += task.await.expect("no client got what is another's");
    }
    assert!(hits * 10 > clients * requests_each, "only {hits} hits: this shows little");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_anothers_body_in_random_requests() {
    nobody_gets_anothers(4, 1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_nobody_gets_anothers_body_in_a_hundred_thousand_random_requests() {
    nobody_gets_anothers(8, 12_500).await;
}
