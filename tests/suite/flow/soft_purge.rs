//! Soft purges: what they touch is never a hit again, but may be served stale, and be confirmed; and purges of everything, hard and soft.
//!
//! The sidecars here have no listeners: they are asked, and told to purge, as their own parts do it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use sidecache::clock::Clock;
use sidecache::coherence::{Mode, PurgeKind};
use sidecache::config::Config;
use sidecache::policy::tag::Tag;
use sidecache::proxy::Proxy;
use sidecache::semantics::body::Body;
use sidecache::semantics::forward::Peer;

use crate::support::origin::Asked;
use crate::support::scene::until_stale;
use crate::support::{Answer, Point, RedisServer, TestApp, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(20);

/// By the first part of the path: what may be served stale, and for how long.
const ROUTES: &str = r#"
[[routes]]
path = "/plain/{name}"
ttl = "5m"
scope = "public"
tags = ["v:{name}"]

[[routes]]
path = "/swr/{name}"
ttl = "5m"
scope = "public"
tags = ["v:{name}"]
stale_while_revalidate = "1m"

[[routes]]
path = "/error/{name}"
ttl = "5m"
scope = "public"
tags = ["v:{name}"]
stale_if_error = "1m"

[[routes]]
path = "/short/{name}"
ttl = "5m"
scope = "public"
tags = ["v:{name}"]
stale_if_error = "1s"
"#;

/// An app of one number, which it answers everywhere.
struct App {
    server: TestApp,
    number: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
    last: Arc<Mutex<Option<Asked>>>,
}

impl App {
    async fn start() -> Self {
        let (number, fails, last) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)), Arc::default());
        let (said, failing, seen): (_, _, Arc<Mutex<Option<Asked>>>) = (Arc::clone(&number), Arc::clone(&fails), Arc::clone(&last));
        let server = TestApp::start(move |asked| {
            *seen.lock().expect("no test panics with the lock held") = Some(asked.clone());
            if failing.load(SeqCst) {
                return Answer::status(503, "broken");
            }
            let number = said.load(SeqCst).to_string();
            let etag = format!("\"{number}\"");
            let known = asked.header("if-none-match").as_ref() == Some(&etag);
            let answer = if known { Answer::status(304, "") } else { Answer::ok(number) };
            answer.header("etag", &etag)
        })
        .await;
        Self { server, number, fails, last }
    }

    fn says(&self, number: u64) {
        self.number.store(number, SeqCst);
    }

    fn fails(&self, fails: bool) {
        self.fails.store(fails, SeqCst);
    }

    /// The condition of the last request that it saw.
    fn last_condition(&self) -> Option<String> {
        let last = self.last.lock().expect("no test panics with the lock held");
        last.as_ref().expect("the app was asked").header("if-none-match")
    }
}

/// A sidecar. Dropping it ends it.
struct Node(Arc<Proxy>);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// A GET through this sidecar.
async fn get(proxy: &Arc<Proxy>, path: &str) -> Reply {
    let request = Request::get(path).header("host", "app").body(Body::empty()).expect("a request of HTTP");
    let response = proxy.handle(request, Peer { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), trusted: false }).await;
    let (head, body) = response.into_parts();
    let header = |name| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let body = body.collect().await.expect("a whole body").to_bytes();
    Reply {
        cache: header("x-cache").unwrap_or_default(),
        text: String::from_utf8_lossy(&body).into_owned(),
        status: head.status.as_u16(),
        cache_status: header("cache-status").unwrap_or_default(),
    }
}

/// What a sidecar answers.
#[derive(Debug)]
struct Reply {
    cache: String,
    text: String,
    status: u16,
    cache_status: String,
}

impl Reply {
    fn is(&self, cache: &str, text: &str) -> bool {
        self.cache == cache && self.text == text
    }
}

impl Node {
    fn start(app: &App, tables: &str, clock: Clock) -> Self {
        let text = format!("[upstream]\nurl = \"http://{}\"\n\n{tables}\n{ROUTES}", app.server.address);
        let mut config = Config::parse(&text, "proxy.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let proxy = sidecache::app::Sidecar::new(&mut config, clock).unwrap_or_else(|error| panic!("{error}")).proxy;
        tokio::spawn(Arc::clone(&proxy.coherence).keep(proxy.stop.clone()));
        Self(proxy)
    }

    async fn get(&self, path: &str) -> Reply {
        get(&self.0, path).await
    }

    /// Returns when this is a hit.
    async fn warm(&self, path: &str) {
        eventually("there are hits", LONG_ENOUGH, || async { self.get(path).await.is("HIT", "1") }).await;
    }

    async fn purge(&self, what: What, kind: PurgeKind) {
        match what {
            What::Tag => self.0.coherence.purge_with(&[Tag::new("v:a")], kind).await,
            What::Everything => self.0.coherence.purge_everything(kind).await,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Tag,
    Everything,
}

/// Who vouches for what is stored.
#[derive(Clone, Copy, Debug)]
enum Tiers {
    /// The sidecar's own table.
    Memory,
    /// The records in Redis, at each hit.
    Redis,
    /// The table under a lease, of each of two sidecars.
    Leased,
}

const ALL_TIERS: [Tiers; 3] = [Tiers::Memory, Tiers::Redis, Tiers::Leased];

/// An app and its sidecars.
struct World {
    nodes: Vec<Node>,
    app: App,
    redis: Option<RedisServer>,
}

impl World {
    async fn of(tiers: Tiers) -> Self {
        let app = App::start().await;
        let redis = (!matches!(tiers, Tiers::Memory)).then(RedisServer::start);
        let table = redis.as_ref().map(RedisServer::table).unwrap_or_default();
        let (tables, many) = match tiers {
            Tiers::Memory => (table, 1),
            Tiers::Redis => (format!("{table}[memory]\nsize = \"0\"\n"), 1),
            Tiers::Leased => (table, 2),
        };
        let nodes: Vec<Node> = (0..many).map(|_| Node::start(&app, &tables, Clock::system())).collect();
        for Node(proxy) in &nodes {
            eventually("each knows the others", LONG_ENOUGH, || async {
                proxy.coherence.leased().await;
                proxy.coherence.standings().peers == many - 1
            })
            .await;
        }
        Self { nodes, app, redis }
    }

    fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// Where there are two, the other one.
    fn last(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }

    async fn warm(&self, path: &str) {
        for node in &self.nodes {
            node.warm(path).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_softly_is_served_stale_until_it_is_fetched_anew() {
    for (tiers, what) in ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)]) {
        let world = World::of(tiers).await;
        world.warm("/swr/a").await;
        world.warm("/plain/b").await;
        world.app.says(2);
        let before = world.app.server.count("GET", "/swr/a");
        let hold = world.app.server.hold("GET", "/swr/a", Point::Before);
        world.last().purge(what, PurgeKind::Soft).await;
        for node in world.nodes.iter().cycle().take(20) {
            let reply = node.get("/swr/a").await;
            assert!(reply.is("STALE", "1"), "{tiers:?} {what:?}: {reply:?}");
            assert!(reply.cache_status.contains("ttl=0") || reply.cache_status.contains("ttl=-"), "{tiers:?}: {reply:?}");
        }
        let bystander = world.first().get("/plain/b").await;
        assert_eq!(bystander.cache == "HIT", what == What::Tag, "{tiers:?} {what:?}: {bystander:?}");
        hold.arrived().await;
        hold.release();
        for node in &world.nodes {
            eventually("the new one is a hit", LONG_ENOUGH, || async { node.get("/swr/a").await.is("HIT", "2") }).await;
        }
        let fetched = world.app.server.count("GET", "/swr/a") - before;
        // Without memory nobody knows what a refresh has just brought: who looked right before it was stored may begin one more.
        let most = world.nodes.len() as u64 + u64::from(matches!(tiers, Tiers::Redis));
        assert!((1..=most).contains(&fetched), "{tiers:?}: one refresh for all who ask a sidecar, not {fetched}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_softly_is_confirmed_by_a_304_or_replaced() {
    for (tiers, what) in ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)]) {
        let world = World::of(tiers).await;
        world.warm("/plain/a").await;
        world.last().purge(what, PurgeKind::Soft).await;
        let reply = world.first().get("/plain/a").await;
        assert!(reply.is("REVALIDATED", "1"), "{tiers:?} {what:?}: {reply:?}");
        assert_eq!(world.app.last_condition().as_deref(), Some("\"1\""), "{tiers:?} {what:?}");
        world.warm("/plain/a").await;

        world.last().purge(what, PurgeKind::Soft).await;
        world.app.says(2);
        let reply = world.first().get("/plain/a").await;
        assert!(reply.is("MISS", "2"), "{tiers:?} {what:?}: {reply:?}");
        for node in &world.nodes {
            eventually("the new one is a hit", LONG_ENOUGH, || async {
                let reply = node.get("/plain/a").await;
                assert_eq!(reply.text, "2", "{tiers:?} {what:?}: {reply:?}");
                reply.cache == "HIT"
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_counted_from_the_soft_purge() {
    for tiers in ALL_TIERS {
        let world = World::of(tiers).await;
        for path in ["/error/a", "/short/a", "/plain/a"] {
            world.warm(path).await;
        }
        world.last().purge(What::Tag, PurgeKind::Soft).await;
        world.app.fails(true);
        let reply = world.first().get("/error/a").await;
        assert!(reply.is("STALE", "1"), "{tiers:?}: {reply:?}");
        // By their own times, all of them would be fresh for minutes.
        until_stale().await;
        for (path, expected) in [("/error/a", 200), ("/short/a", 503), ("/plain/a", 503)] {
            let reply = world.first().get(path).await;
            assert_eq!(reply.status, expected, "{tiers:?} {path}: {reply:?}");
        }
        world.app.fails(false);
        world.app.says(2);
        let reply = world.first().get("/error/a").await;
        assert!(reply.is("MISS", "2"), "{tiers:?}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_ends_to_the_second() {
    let (app, clock) = (App::start().await, Clock::manual());
    let node = Node::start(&app, "", clock.clone());
    node.warm("/error/a").await;
    node.purge(What::Tag, PurgeKind::Soft).await;
    app.fails(true);
    clock.advance(Duration::from_secs(50));
    assert!(node.get("/error/a").await.is("STALE", "1"));
    clock.advance(Duration::from_secs(10));
    assert_eq!(node.get("/error/a").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_a_soft_purge_overtakes_is_not_stored() {
    for (tiers, what) in ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)]) {
        let world = World::of(tiers).await;
        let hold = world.app.server.hold("GET", "/swr/a", Point::After);
        let filling = Arc::clone(&world.first().0);
        let fill = tokio::spawn(async move { get(&filling, "/swr/a").await });
        hold.arrived().await;
        world.last().purge(what, PurgeKind::Soft).await;
        world.app.says(2);
        hold.release();
        let reply = fill.await.expect("the client does not panic");
        assert!(reply.is("MISS", "1"), "{tiers:?} {what:?}: {reply:?}");
        for node in world.nodes.iter().cycle().take(6) {
            let reply = node.get("/swr/a").await;
            assert_eq!(reply.text, "2", "{tiers:?} {what:?}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_purge_voids_what_is_stale_whichever_came_first() {
    for (tiers, what) in ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)]) {
        for kinds in [[PurgeKind::Soft, PurgeKind::Hard], [PurgeKind::Hard, PurgeKind::Soft]] {
            let world = World::of(tiers).await;
            for path in ["/swr/a", "/error/a"] {
                world.warm(path).await;
            }
            for kind in kinds {
                world.last().purge(what, kind).await;
            }
            let reply = world.first().get("/swr/a").await;
            assert!(reply.is("MISS", "1"), "{tiers:?} {what:?} {kinds:?}: {reply:?}");
            assert_eq!(world.app.last_condition(), None, "{tiers:?} {what:?} {kinds:?}: nothing is left to be confirmed");
            world.app.fails(true);
            let reply = world.first().get("/error/a").await;
            assert_eq!(reply.status, 503, "{tiers:?} {what:?} {kinds:?}: {reply:?}");
        }
    }
}

/// The record of the tag `v:a`.
fn record(redis: &RedisServer) -> (String, String) {
    let keys = redis.command("KEYS *:t:v:a").expect("redis answers");
    let key = keys.lines().find(|line| line.contains(":t:")).expect("the tag has a record").to_owned();
    let value = redis.command(&format!("GET {key}")).expect("redis answers").lines().nth(1).unwrap_or_default().to_owned();
    (key, value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_is_hard_where_a_mutation_may_have_been_committed() {
    for orphaned in [false, true] {
        let world = World::of(Tiers::Redis).await;
        let redis = world.redis.as_ref().expect("there is a Redis");
        world.warm("/swr/a").await;
        let (key, value) = record(redis);
        // Its sidecar died, a long time ago or not at all: the mark says so by its deadline.
        let deadline = if orphaned { 1 } else { 99_999_999_999_999_u64 };
        let marked = format!("{} 00000000000000aa:{deadline}:m", value.strip_suffix(" -").expect("no mutation is under way"));
        redis.command(&format!("SET {key} \"{marked}\" PX 600000")).expect("redis answers");
        world.first().purge(What::Tag, PurgeKind::Soft).await;
        let (_, after) = record(redis);
        let nonce = |record: &str| record.split(' ').nth(1).expect("a nonce").to_owned();
        let ((hard, soft), (hard_then, soft_then)) = (halves(&nonce(&after)), halves(&nonce(&value)));
        assert_eq!((hard == hard_then, soft == soft_then), (!orphaned, false), "{after}");
        assert_eq!(after.ends_with(":m"), !orphaned, "{after}");
        world.app.says(2);
        let reply = world.first().get("/swr/a").await;
        assert_eq!(reply.cache, if orphaned { "MISS" } else { "STALE" }, "{reply:?}");
    }
}

fn halves(nonce: &str) -> (String, String) {
    let (hard, soft) = nonce.split_at(16);
    (hard.to_owned(), soft.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_could_not_be_told_is_purged_hard_at_the_rejoin() {
    for (what, kind) in [(What::Tag, PurgeKind::Soft), (What::Everything, PurgeKind::Soft), (What::Everything, PurgeKind::Hard)] {
        let world = World::of(Tiers::Leased).await;
        let redis = world.redis.as_ref().expect("there is a Redis");
        world.warm("/swr/a").await;
        world.app.says(2);
        redis.freeze();
        world.first().purge(what, kind).await;
        assert_eq!(world.first().0.coherence.standings().journal, 1, "{what:?} {kind:?}");
        redis.thaw();
        for Node(proxy) in &world.nodes {
            eventually("it has rejoined", LONG_ENOUGH, || async {
                proxy.coherence.mode() == Mode::Shared && proxy.coherence.standings().journal == 0
            })
            .await;
        }
        // What is in Redis has the same fence as before, so but for the journal it would be a hit.
        for node in world.nodes.iter().rev() {
            let reply = node.get("/swr/a").await;
            assert_eq!((reply.status, &reply.text[..]), (200, "2"), "{what:?} {kind:?}: {reply:?}");
        }
    }
}
