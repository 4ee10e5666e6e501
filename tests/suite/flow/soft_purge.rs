//! Soft purges: an affected entry is never a hit again, but may be served stale and be revalidated;
//! and purges of everything, hard and soft.
//!
//! The sidecars here have no listeners: the tests call their parts directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use sidecache::internals::{CoherenceMode, PurgeKind, Tag};

use crate::support::flow::Flow;
use crate::support::{Origin, Point, RedisServer, Response, eventually};

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

/// An origin with one number, which is its response everywhere.
struct App {
    server: Origin,
    number: Arc<AtomicU64>,
    fails: Arc<AtomicBool>,
}

impl App {
    fn start() -> Self {
        let (number, fails) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let (said, failing) = (Arc::clone(&number), Arc::clone(&fails));
        let server = Origin::start(move |request| {
            if failing.load(SeqCst) {
                return Response::status(503, "broken");
            }
            let number = said.load(SeqCst).to_string();
            let etag = format!("\"{number}\"");
            let known = request.header("if-none-match").as_ref() == Some(&etag);
            let answer = if known { Response::status(304, "") } else { Response::ok(number) };
            answer.header("etag", &etag)
        });
        Self { server, number, fails }
    }

    fn says(&self, number: u64) {
        self.number.store(number, SeqCst);
    }

    fn fails(&self, fails: bool) {
        self.fails.store(fails, SeqCst);
    }

    /// The condition of the last request that it received.
    fn last_condition(&self) -> Option<String> {
        let last = self.server.requests().pop().expect("the origin was asked");
        last.header("if-none-match")
    }
}

/// A sidecar of these tables and the routes above.
async fn node(app: &App, tables: &str) -> Flow {
    Flow::start(app.server.address, &format!("{tables}\n{ROUTES}")).await
}

/// Returns when this is a hit.
async fn warm(node: &Flow, path: &str) {
    eventually("there are hits", LONG_ENOUGH, || async {
        node.get(path, &[]).await.is("HIT", "1")
    })
    .await;
}

async fn purge(node: &Flow, what: What, kind: PurgeKind) {
    let coherence = &node.proxy.coherence;
    let _ = match what {
        What::Tag => coherence.purge_with(&[Tag::new("v:a")], kind).await,
        What::Everything => coherence.purge_everything(kind).await,
    };
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Tag,
    Everything,
}

/// What proves stored responses current.
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
    nodes: Vec<Flow>,
    app: App,
    redis: Option<RedisServer>,
}

impl World {
    async fn of(tiers: Tiers) -> Self {
        let app = App::start();
        let redis = (!matches!(tiers, Tiers::Memory)).then(RedisServer::start);
        let table = redis.as_ref().map(RedisServer::table).unwrap_or_default();
        let (tables, many) = match tiers {
            Tiers::Memory => (table, 1),
            Tiers::Redis => (format!("{table}[memory]\nsize = \"0\"\n"), 1),
            Tiers::Leased => (table, 2),
        };
        let mut nodes = Vec::new();
        for _ in 0..many {
            nodes.push(node(&app, &tables).await);
        }
        for node in &nodes {
            eventually("each knows the others", LONG_ENOUGH, || async {
                node.proxy.coherence.wait_for_lease().await;
                node.proxy.coherence.status().peers == many - 1
            })
            .await;
        }
        Self { nodes, app, redis }
    }

    fn first(&self) -> &Flow {
        &self.nodes[0]
    }

    /// Where there are two, the other one.
    fn last(&self) -> &Flow {
        &self.nodes[self.nodes.len() - 1]
    }

    async fn warm(&self, path: &str) {
        for node in &self.nodes {
            warm(node, path).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_softly_is_served_stale_until_it_is_fetched_anew() {
    for (tiers, what) in
        ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)])
    {
        let world = World::of(tiers).await;
        world.warm("/swr/a").await;
        world.warm("/plain/b").await;
        world.app.says(2);
        let before = world.app.server.count("GET", "/swr/a");
        let hold = world.app.server.hold("GET", "/swr/a", Point::Before);
        purge(world.last(), what, PurgeKind::Soft).await;
        for node in world.nodes.iter().cycle().take(20) {
            let reply = node.get("/swr/a", &[]).await;
            assert!(reply.is("STALE", "1"), "{tiers:?} {what:?}: {reply:?}");
            assert!(
                reply.cache_status().contains("ttl=0") || reply.cache_status().contains("ttl=-"),
                "{tiers:?}: {reply:?}"
            );
        }
        let bystander = world.first().get("/plain/b", &[]).await;
        assert_eq!(
            bystander.cache() == "HIT",
            what == What::Tag,
            "{tiers:?} {what:?}: {bystander:?}"
        );
        hold.arrived().await;
        hold.release();
        for node in &world.nodes {
            eventually("the new one is a hit", LONG_ENOUGH, || async {
                node.get("/swr/a", &[]).await.is("HIT", "2")
            })
            .await;
        }
        let fetched = world.app.server.count("GET", "/swr/a") - before;
        // Without memory nobody knows what a refresh has just brought: who looked right before it
        // was stored may begin one more.
        let most = world.nodes.len() + usize::from(matches!(tiers, Tiers::Redis));
        assert!(
            (1..=most).contains(&fetched),
            "{tiers:?}: one refresh for all who ask a sidecar, not {fetched}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_softly_is_confirmed_by_a_304_or_replaced() {
    for (tiers, what) in
        ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)])
    {
        let world = World::of(tiers).await;
        world.warm("/plain/a").await;
        purge(world.last(), what, PurgeKind::Soft).await;
        let reply = world.first().get("/plain/a", &[]).await;
        assert!(reply.is("REVALIDATED", "1"), "{tiers:?} {what:?}: {reply:?}");
        assert_eq!(world.app.last_condition().as_deref(), Some("\"1\""), "{tiers:?} {what:?}");
        world.warm("/plain/a").await;

        purge(world.last(), what, PurgeKind::Soft).await;
        world.app.says(2);
        let reply = world.first().get("/plain/a", &[]).await;
        assert!(reply.is("MISS", "2"), "{tiers:?} {what:?}: {reply:?}");
        for node in &world.nodes {
            eventually("the new one is a hit", LONG_ENOUGH, || async {
                let reply = node.get("/plain/a", &[]).await;
                assert_eq!(reply.text(), "2", "{tiers:?} {what:?}: {reply:?}");
                reply.cache() == "HIT"
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
        purge(world.last(), What::Tag, PurgeKind::Soft).await;
        world.app.fails(true);
        let reply = world.first().get("/error/a", &[]).await;
        assert!(reply.is("STALE", "1"), "{tiers:?}: {reply:?}");
        // By their own times, all of them would be fresh for minutes.
        for node in &world.nodes {
            node.clock.advance(Duration::from_millis(1_200));
        }
        for (path, expected) in [("/error/a", 200), ("/short/a", 503), ("/plain/a", 503)] {
            let reply = world.first().get(path, &[]).await;
            assert_eq!(reply.status, expected, "{tiers:?} {path}: {reply:?}");
        }
        world.app.fails(false);
        world.app.says(2);
        let reply = world.first().get("/error/a", &[]).await;
        assert!(reply.is("MISS", "2"), "{tiers:?}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_ends_to_the_second() {
    let app = App::start();
    let node = node(&app, "").await;
    warm(&node, "/error/a").await;
    purge(&node, What::Tag, PurgeKind::Soft).await;
    app.fails(true);
    node.clock.advance(Duration::from_secs(50));
    assert!(node.get("/error/a", &[]).await.is("STALE", "1"));
    node.clock.advance(Duration::from_secs(10));
    assert_eq!(node.get("/error/a", &[]).await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_a_soft_purge_overtakes_is_not_stored() {
    for (tiers, what) in
        ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)])
    {
        let world = World::of(tiers).await;
        let hold = world.app.server.hold("GET", "/swr/a", Point::After);
        let changing = async {
            hold.arrived().await;
            purge(world.last(), what, PurgeKind::Soft).await;
            world.app.says(2);
            hold.release();
        };
        let (reply, ()) = tokio::join!(world.first().get("/swr/a", &[]), changing);
        assert!(reply.is("MISS", "1"), "{tiers:?} {what:?}: {reply:?}");
        for node in world.nodes.iter().cycle().take(6) {
            let reply = node.get("/swr/a", &[]).await;
            assert_eq!(reply.text(), "2", "{tiers:?} {what:?}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_purge_voids_what_is_stale_whichever_came_first() {
    for (tiers, what) in
        ALL_TIERS.into_iter().flat_map(|tiers| [(tiers, What::Tag), (tiers, What::Everything)])
    {
        for kinds in [[PurgeKind::Soft, PurgeKind::Hard], [PurgeKind::Hard, PurgeKind::Soft]] {
            let world = World::of(tiers).await;
            for path in ["/swr/a", "/error/a"] {
                world.warm(path).await;
            }
            for kind in kinds {
                purge(world.last(), what, kind).await;
            }
            let reply = world.first().get("/swr/a", &[]).await;
            assert!(reply.is("MISS", "1"), "{tiers:?} {what:?} {kinds:?}: {reply:?}");
            assert_eq!(
                world.app.last_condition(),
                None,
                "{tiers:?} {what:?} {kinds:?}: nothing is left to be confirmed"
            );
            world.app.fails(true);
            let reply = world.first().get("/error/a", &[]).await;
            assert_eq!(reply.status, 503, "{tiers:?} {what:?} {kinds:?}: {reply:?}");
        }
    }
}

/// The record of the tag `v:a`.
fn record(redis: &RedisServer) -> (String, String) {
    let keys = redis.command("KEYS *:t:v:a").expect("redis answers");
    let key =
        keys.lines().find(|line| line.contains(":t:")).expect("the tag has a record").to_owned();
    let value = redis
        .command(&format!("GET {key}"))
        .expect("redis answers")
        .lines()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
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
        let marked = format!(
            "{} 00000000000000aa:{deadline}:m",
            value.strip_suffix(" -").expect("no mutation is under way")
        );
        redis.command(&format!("SET {key} \"{marked}\" PX 600000")).expect("redis answers");
        purge(world.first(), What::Tag, PurgeKind::Soft).await;
        let (_, after) = record(redis);
        let nonce = |record: &str| record.split(' ').nth(1).expect("a nonce").to_owned();
        let ((hard, soft), (hard_then, soft_then)) =
            (halves(&nonce(&after)), halves(&nonce(&value)));
        assert_eq!((hard == hard_then, soft == soft_then), (!orphaned, false), "{after}");
        assert_eq!(after.ends_with(":m"), !orphaned, "{after}");
        world.app.says(2);
        let reply = world.first().get("/swr/a", &[]).await;
        assert_eq!(reply.cache(), if orphaned { "MISS" } else { "STALE" }, "{reply:?}");
    }
}

fn halves(nonce: &str) -> (String, String) {
    let (hard, soft) = nonce.split_at(16);
    (hard.to_owned(), soft.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_could_not_be_told_is_purged_hard_at_the_rejoin() {
    for (what, kind) in [
        (What::Tag, PurgeKind::Soft),
        (What::Everything, PurgeKind::Soft),
        (What::Everything, PurgeKind::Hard),
    ] {
        let world = World::of(Tiers::Leased).await;
        let redis = world.redis.as_ref().expect("there is a Redis");
        world.warm("/swr/a").await;
        world.app.says(2);
        redis.freeze();
        purge(world.first(), what, kind).await;
        assert_eq!(world.first().proxy.coherence.status().journal, 1, "{what:?} {kind:?}");
        redis.thaw();
        for node in &world.nodes {
            let coherence = &node.proxy.coherence;
            eventually("it has rejoined", LONG_ENOUGH, || async {
                coherence.mode() == CoherenceMode::Shared && coherence.status().journal == 0
            })
            .await;
        }
        // The entry in Redis has the same fence as before, so without the journal it would be a
        // hit.
        for node in world.nodes.iter().rev() {
            let reply = node.get("/swr/a", &[]).await;
            assert_eq!((reply.status, reply.text()), (200, "2"), "{what:?} {kind:?}: {reply:?}");
        }
    }
}
