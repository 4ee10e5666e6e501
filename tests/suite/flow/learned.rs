//! A file that is learned: a day of an app is watched without any rule, `sidecache advise --file`
//! makes a file of it, and the same day goes through that file, unchanged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Reply;
use crate::support::command::{CommandLine, Said};
use crate::support::{Client, Request, Response, Scene, eventually, metric};

/// The app: what it answers depends on what was written, on who asks, and on the time.
#[derive(Default)]
struct App {
    items: BTreeMap<u32, u32>,
    profiles: BTreeMap<String, u32>,
    reports: BTreeMap<String, u32>,
    /// Counts the requests of the endpoint that never answers the same.
    random: u32,
    /// What changes by itself, every so many seconds.
    minutes: u64,
}

impl App {
    fn new() -> Self {
        Self { items: (1..=4).map(|id| (id, 0)).collect(), ..Self::default() }
    }

    /// The answer to a GET of this caller.
    fn page(&self, path: &str, header: impl Fn(&str) -> Option<String>) -> Option<String> {
        let session = header("cookie").unwrap_or_default();
        let tenant = header("x-tenant-id").unwrap_or_default();
        Some(match path {
            "/api/items" => format!("items {:?}", self.items),
            "/api/stats" => {
                format!("sum {} of {}", self.items.values().sum::<u32>(), self.items.len())
            }
            "/profile" => format!("{session}: {:?}", self.profiles.get(&session)),
            "/reports" => format!("{tenant}: {:?}", self.reports.get(&tenant)),
            "/news" => format!("of minute {}", self.minutes),
            "/random" => format!("number {}", self.random),
            "/login" => "the form".to_owned(),
            _ => {
                let id: u32 = path.strip_prefix("/api/items/")?.parse().ok()?;
                format!("item {id}: {:?}", self.items.get(&id)?)
            }
        })
    }

    fn answer(&mut self, request: &Request) -> Response {
        let header = |name: &str| request.header(name);
        if request.method == "GET" {
            if request.path == "/random" {
                self.random += 1;
            }
            let page = self.page(&request.path, header);
            let Some(page) = page else { return Response::status(404, "nothing") };
            let ok = Response::ok(page);
            return if request.path == "/login" { ok.header("set-cookie", "csrf=1") } else { ok };
        }
        match request.path.as_str() {
            "/api/items" => {
                let next = self.items.keys().last().unwrap_or(&0) + 1;
                self.items.insert(next, 0);
            }
            "/profile" => {
                *self.profiles.entry(header("cookie").unwrap_or_default()).or_default() += 1;
            }
            "/reports" => {
                *self.reports.entry(header("x-tenant-id").unwrap_or_default()).or_default() += 1;
            }
            "/login" => return Response::ok("hello").header("set-cookie", "session=new"),
            path => {
                let id = path.strip_prefix("/api/items/").and_then(|id| id.parse().ok());
                let Some(item) = id.and_then(|id: u32| self.items.get_mut(&id)) else {
                    return Response::status(404, "nothing");
                };
                *item += 1;
            }
        }
        Response::ok("done")
    }
}

struct Stage {
    scene: Scene,
    app: Arc<Mutex<App>>,
}

/// What became of a day.
#[derive(Debug, Default)]
struct Day {
    reads: u64,
    hits: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Day {
    fn all_hits(&self) -> u64 {
        self.hits.values().sum()
    }
}

impl Stage {
    async fn start(rules: &str) -> Self {
        let app = Arc::new(Mutex::new(App::new()));
        let own = Arc::clone(&app);
        let handler = move |request: &Request| own.lock().expect("the app").answer(request);
        Self { scene: Scene::start(rules, handler).await, app }
    }

    /// A read, which is compared with what the app would have answered itself.
    async fn read(&self, day: &mut Day, path: &str, headers: &[(&str, &str)]) {
        let header = |name: &str| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let plain = path.split('?').next().unwrap_or(path);
        let expected = {
            let mut app = self.app.lock().expect("the app");
            let page = app.page(plain, header);
            if plain == "/random" {
                // It is never the same twice.
                app.random += 1;
                app.page(plain, header).map(|_| format!("number {}", app.random + 1))
            } else {
                page
            }
        };
        let reply: Reply = Client::new(self.scene.sidecar.address).get(path, headers).await;
        day.reads += 1;
        if expected.as_deref() != Some(reply.text()) {
            day.wrong.push(format!("{path}: {} in place of {expected:?}", reply.text()));
        }
        if reply.cache() == "HIT" {
            *day.hits.entry(plain.to_owned()).or_default() += 1;
        }
    }

    /// A day: readers without a session, two with one, two tenants, writes now and then.
    async fn day(&self) -> Day {
        *self.app.lock().expect("the app") = App::new();
        let mut day = Day::default();
        let (alice, bob) = ([("cookie", "session=alice")], [("cookie", "session=bob")]);
        let tenants = [[("x-tenant-id", "acme")], [("x-tenant-id", "umbrella")]];
        for round in 0..48_u32 {
            self.scene.clock.advance(Duration::from_secs(7));
            self.app.lock().expect("the app").minutes = u64::from(round / 9);
            for path in ["/api/items?page=1", "/api/items?page=2", "/api/stats", "/news"] {
                self.read(&mut day, path, &[]).await;
            }
            for id in 1..=3 {
                self.read(&mut day, &format!("/api/items/{id}"), &[]).await;
            }
            self.read(&mut day, "/profile", &alice).await;
            self.read(&mut day, "/profile", &bob).await;
            for tenant in &tenants {
                self.read(&mut day, "/reports", tenant).await;
            }
            self.read(&mut day, "/random", &[]).await;
            self.read(&mut day, "/login", &[]).await;
            let write = match round % 16 {
                3 => Some(("POST", "/api/items", &[][..])),
                6 => Some(("PUT", "/api/items/2", &[][..])),
                9 => Some(("POST", "/profile", &alice[..])),
                12 => Some(("POST", "/reports", &tenants[0][..])),
                1 | 5 | 11 | 14 => Some(("POST", "/login", &[][..])),
                _ => None,
            };
            if let Some((method, path, headers)) = write {
                self.scene.send(method, path, headers, "x").await;
            }
        }
        day
    }

    async fn advise(&self) -> Said {
        let file = self.scene.sidecar.file.display().to_string();
        CommandLine::new().run(&["advise", "--file", "--config", &file]).await
    }

    async fn learned(&self) -> Value {
        self.scene.sidecar.admin_get("/learned").await.json()
    }

    async fn learned_of(&self, requests: u64) -> Value {
        eventually("all is counted", Duration::from_secs(30), async || {
            self.learned().await["requests"].as_u64() >= Some(requests)
        })
        .await;
        self.learned().await
    }
}

/// The file that somebody would write who knows the app.
const BY_HAND: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }
[[routes]]
path = "/api/items"
ttl = "2m"
tags = ["items"]
[[routes]]
path = "/api/items/{id}"
ttl = "2m"
tags = ["items"]
[[routes]]
path = "/api/stats"
ttl = "2m"
tags = ["items"]
[[routes]]
path = "/profile"
ttl = "2m"
tags = ["profiles"]
[[routes]]
path = "/reports"
ttl = "2m"
key = ["tenant"]
tags = ["reports"]
[[purges]]
path = "/api/items/{*rest}"
tags = ["items"]
[[purges]]
path = "/profile"
tags = ["profiles"]
[[purges]]
path = "/reports"
tags = ["reports"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_was_watched_makes_a_file_that_serves_it_without_a_wrong_byte() {
    let by_hand = Stage::start(BY_HAND).await.day().await;
    assert!(by_hand.wrong.is_empty(), "{:#?}", by_hand.wrong);

    let mut stage = Stage::start("").await;
    let watched = stage.day().await;
    assert_eq!(watched.all_hits(), 0);
    assert!(watched.wrong.is_empty(), "{:#?}", watched.wrong);
    let learned = stage.learned_of(watched.reads).await;
    let said = stage.advise().await;
    assert_eq!(said.code, 0, "{}\n{learned:#}", said.err);

    // The file, unchanged.
    stage.scene.sidecar.stop().await;
    std::fs::write(&stage.scene.sidecar.file, &said.out).expect("the file can be written to");
    let check = crate::support::sidecar::check_file(&stage.scene.sidecar.file);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains(": ok: ") && !check.contains("warning"), "{check}\n{}", said.out);
    let clock = stage.scene.clock.clone();
    stage.scene.sidecar.start_again(&clock).await;
    let served = stage.day().await;
    assert!(served.wrong.is_empty(), "{:#?}\n{}", served.wrong, said.out);
    let (ours, theirs) = (served.all_hits(), by_hand.all_hits());
    assert!(10 * ours >= 8 * theirs, "{ours} of {theirs} hits: {served:?}\n{}", said.out);
    for path in ["/random", "/login", "/news"] {
        assert!(!served.hits.contains_key(path), "{path}: {served:?}");
        assert!(!said.out.contains(&format!("\"{path}\"")), "{path} has no rule:\n{}", said.out);
    }
    // What tells answers apart, and what changes them.
    assert!(said.out.contains("key = [\"x_tenant_id?\"]"), "{}", said.out);
    assert!(said.out.contains("0 of them stale"), "{}", said.out);
    assert!(said.out.contains("page"), "{}", said.out);
    assert!(!said.out.contains("alice") && !said.out.contains("umbrella"), "{}", said.out);
    // With routes, a sidecar remembers no requests.
    let again = stage.advise().await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("routes already"), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_without_a_write_or_was_seen_too_little_gets_no_rule() {
    let stage = Stage::start("").await;
    let mut day = Day::default();
    for round in 0..30 {
        stage.scene.clock.advance(Duration::from_secs(3));
        stage.app.lock().expect("the app").minutes = round / 20;
        stage.read(&mut day, "/news", &[]).await;
        if round < 5 {
            stage.read(&mut day, "/api/stats", &[]).await;
        }
    }
    let learned = stage.learned_of(day.reads).await;
    assert_eq!(learned["rules"], json!([]), "{learned:#}");
    let why = |path: &str| {
        let mut all = learned["left_out"].as_array().expect("a list").iter();
        let one = all.find(|one| one["path"] == path).unwrap_or_else(|| panic!("{learned:#}"));
        one["why"].as_str().expect("a reason").to_owned()
    };
    assert!(why("/news").contains("without a write"), "{learned:#}");
    assert!(why("/api/stats").contains("too few"), "{learned:#}");
    let said = stage.advise().await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains("nothing can be proposed yet"), "{}", said.err);
    assert!(said.err.contains("/news: "), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_nothing_where_one_got_another_answer() {
    let scene = Scene::start("", |request| {
        let caller = request.header("authorization").unwrap_or_default();
        Response::ok(format!("{} for {}", request.path, caller.len() % 2))
    })
    .await;
    let tokens: Vec<String> =
        (0..6).map(|length| format!("Bearer {}", "x".repeat(length))).collect();
    for _ in 0..12 {
        scene.clock.advance(Duration::from_secs(4));
        for token in &tokens {
            scene.ask("/board", &[("authorization", token)]).await;
        }
    }
    eventually("all is counted", Duration::from_secs(30), async || {
        let learned: Value = scene.sidecar.admin_get("/learned").await.json();
        learned["requests"].as_u64() >= Some(72)
    })
    .await;
    let learned: Value = scene.sidecar.admin_get("/learned").await.json();
    let rule = &learned["rules"][0];
    assert_eq!((&rule["path"], &rule["scope"]), (&json!("/board"), &json!("private")));
    assert!(rule["other_for_others"].as_u64() > Some(0), "{learned:#}");
    assert_eq!(rule["stale"], 0);
    assert_eq!(
        metric(scene.sidecar.admin, "sidecache_limit_reached_total{limit=\"uncached.trail\"}")
            .await,
        0
    );
}
