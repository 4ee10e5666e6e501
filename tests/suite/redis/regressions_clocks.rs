//! Numbered regressions about clocks that are wrong, or are set while the sidecars run: nothing is
//! fresh for longer than its ttl.

use std::fmt::Write as _;
use std::time::Duration;

use sidecache::app::Clock;
use tokio::time::{Instant, sleep};

use crate::support::scene::{assert_cache, cache_status, date, ttl};
use crate::support::{Client, Origin, RedisServer, Reply, Response, Scene, Sidecar, eventually};

const NO_MEMORY: &str = "[memory]\nsize = \"0\"\n";

/// The ttl of the routes here.
const TTL: Duration = Duration::from_secs(2);

/// Without early refresh, by which a reader might itself have stored a newer response.
const ROUTE: &str = "[[routes]]\npath = \"/{name}\"\nttl = \"2s\"\nscope = \"public\"\n\
                     early_refresh = false\n";

const MINUTE: i64 = 60_000;

/// A machine whose wall clock is ahead by so much; negative where it is behind.
fn machine(ahead_ms: i64) -> Clock {
    let clock = Clock::manual();
    clock.step_wall(ahead_ms);
    clock
}

/// An origin without `Date`, which says for how long its responses are fresh.
fn undated() -> Origin {
    Origin::start(|_| Response::new().whole("Cache-Control: max-age=2\r\n", b"0"))
}

/// A sidecar with this clock that uses Redis: it has stored there, and read it again.
async fn join(clock: &Clock, origin: &Origin, tables: &str, probe: &str) -> Sidecar {
    let sidecar = Sidecar::start_at(clock.clone(), origin.address, tables).await;
    let mut times = 0;
    eventually("it uses Redis", Duration::from_secs(10), || {
        times += 1;
        let path = format!("/{probe}-{times}");
        let mut client = Client::new(sidecar.address);
        async move {
            client.get(&path, &[]).await;
            client.get(&path, &[]).await.cache() == "HIT"
        }
    })
    .await;
    sidecar
}

async fn get(sidecar: &Sidecar, path: &str) -> Reply {
    Client::new(sidecar.address).get(path, &[]).await
}

/// What one machine stores is a hit through another, for at most its ttl, whichever clock is ahead.
async fn assert_fresh_for_its_ttl(writer_ms: i64, reader_ms: i64, memory: &str) {
    let case = format!("writer {writer_ms}, reader {reader_ms}, {memory}");
    let (redis, origin) = (RedisServer::start(), undated());
    let tables = format!("{}{memory}{ROUTE}", redis.table());
    let writer = join(&machine(writer_ms), &origin, &tables, "writer").await;
    let reader = join(&machine(reader_ms), &origin, &tables, "reader").await;
    assert_cache(&get(&writer, "/a").await, "MISS", &case);
    // The response was received before now.
    let began = Instant::now();
    let mut hits = 0;
    loop {
        let asked = began.elapsed();
        let reply = get(&reader, "/a").await;
        if reply.cache() != "HIT" {
            assert!(began.elapsed() >= TTL / 2, "{case}: {asked:?}");
            break;
        }
        assert!(asked < TTL, "{case}: a hit after {asked:?}");
        assert!(ttl(&reply) <= 1, "{case}: {}", reply.cache_status());
        hits += 1;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(hits > 5, "{case}: {hits} hits");
}

/// 600. A sidecar whose clock is ahead stored entries that the others served past their ttl: 3 s
///      became 20 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r600_an_entry_of_a_machine_that_is_ahead_is_fresh_for_its_ttl() {
    for memory in [NO_MEMORY, ""] {
        assert_fresh_for_its_ttl(MINUTE, 0, memory).await;
    }
    assert_fresh_for_its_ttl(0, -MINUTE, "").await;
}

/// 601. Entries of a sidecar whose clock is behind were no hits for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r601_an_entry_of_a_machine_that_is_behind_is_shared() {
    assert_fresh_for_its_ttl(-MINUTE, 0, NO_MEMORY).await;
    assert_fresh_for_its_ttl(0, MINUTE, NO_MEMORY).await;
}

/// 602. A clock that was set back made entries in memory younger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r602_a_clock_that_is_set_back_makes_no_entry_younger() {
    let route = "[[routes]]\npath = \"/{name}\"\nttl = \"10s\"\nscope = \"public\"\n";
    let scene = Scene::start(route, |_| Response::ok("0")).await;
    scene.fill("/a").await;
    scene.clock.advance(Duration::from_secs(6));
    scene.clock.step_wall(-60 * MINUTE);
    let hit = scene.get("/a").await;
    assert_cache(&hit, "HIT", "it is fresh for 4 s more");
    assert!((2..=4).contains(&ttl(&hit)), "{}", hit.cache_status());
    scene.clock.advance(Duration::from_secs(5));
    assert_cache(&scene.get("/a").await, "MISS", "it was fresh for 10 s");
}

/// 603. A clock that was set forward, and right again, makes nothing younger; and what is stored
///      after it was set right is fresh for its ttl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r603_a_clock_that_is_wrong_for_a_while_prolongs_nothing() {
    let scene = Scene::start("[[routes]]\npath = \"/{name}\"\nscope = \"public\"\n", |_| {
        Response::ok("0").header("cache-control", "max-age=10")
    })
    .await;
    scene.fill("/before").await;
    scene.clock.step_wall(60 * MINUTE);
    assert_cache(&scene.get("/before").await, "MISS", "an hour seems to have passed");
    scene.fill("/while").await;
    scene.clock.step_wall(-60 * MINUTE);
    scene.clock.advance(Duration::from_secs(11));
    assert_cache(&scene.get("/while").await, "MISS", "11 s have passed");
    let after = scene.fill("/after").await;
    assert_eq!(cache_status(&after).last().map(String::as_str), Some("detail=\"not stored\""));
    assert_cache(&scene.get("/after").await, "HIT", "its date is that of the clock again");
}

/// A value in Redis.
fn value(redis: &RedisServer, key: &str) -> String {
    let answer = redis.command(&format!("GET {key}")).expect("redis answers");
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

/// 604. When Redis's clock is set back, entries that were dated by it would seem younger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r604_entries_end_when_the_clock_of_redis_goes_back() {
    let (redis, origin) = (RedisServer::start(), Origin::start(|_| Response::ok("0")));
    let route = ROUTE.replace("2s", "5m");
    let tables = format!("{}{NO_MEMORY}{route}", redis.table());
    let sidecar = join(&Clock::system(), &origin, &tables, "probe").await;
    get(&sidecar, "/a").await;
    assert_cache(&get(&sidecar, "/a").await, "HIT", "stored");
    let (generation, now) = (value(&redis, "{sidecache}:gen"), Clock::system().date().0);
    let set = |by: u64| {
        let answer = redis.command(&format!("SET {{sidecache}}:clock {}", now + by));
        assert!(answer.is_some_and(|answer| answer.starts_with("+OK")));
    };
    // The latest time that was seen: as if the clock had been set back by a minute since.
    set(60_000);
    eventually("a heartbeat notices it", Duration::from_secs(5), || async {
        value(&redis, "{sidecache}:gen") != generation
    })
    .await;
    assert_cache(&get(&sidecar, "/a").await, "MISS", "its age is unknown");
    assert_cache(&get(&sidecar, "/a").await, "HIT", "dated by the new time");
    let generation = value(&redis, "{sidecache}:gen");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(value(&redis, "{sidecache}:gen"), generation, "once");
}

/// 605. An origin whose `Date` is wrong: nothing is fresh for longer, and `detail` tells why it is
///      fresh for shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r605_an_origin_whose_date_lies_is_told() {
    let route = "[[routes]]\npath = \"/{name}\"\nscope = \"public\"\n";
    let scene = Scene::start(route, |_| Response::ok("")).await;
    for (dated, age, detail, cache) in [
        (Some(20), None, "not stored (origin date is 20s ahead)", "HIT"),
        (Some(86_400), None, "not stored (origin date is 86400s ahead)", "HIT"),
        (Some(-4), None, "not stored (origin date is 4s behind)", "HIT"),
        (Some(-3_600), None, "stale on arrival (origin date is 3600s behind)", "MISS"),
        (Some(-4), Some("4"), "not stored", "HIT"),
        (Some(0), None, "not stored", "HIT"),
        (None, None, "not stored", "HIT"),
    ] {
        scene.answers(move |_| {
            let mut fields = "Cache-Control: max-age=10\r\n".to_owned();
            if let Some(offset) = dated {
                let _ = write!(fields, "Date: {}\r\n", date(offset));
            }
            if let Some(age) = age {
                let _ = write!(fields, "Age: {age}\r\n");
            }
            Response::new().whole(&fields, b"0")
        });
        let path = format!("/{}-{}", dated.unwrap_or(7), age.unwrap_or_default());
        let case = format!("{dated:?} {age:?}");
        let first = scene.fill(&path).await;
        let told = cache_status(&first).last().cloned().unwrap_or_default();
        // A second may pass between the two.
        let earlier = detail.replace("20s", "19s").replace("400s", "399s").replace("4s b", "5s b");
        let earlier = earlier.replace("3600s", "3601s");
        assert!(
            told == format!("detail=\"{detail}\"") || told == format!("detail=\"{earlier}\""),
            "{case}: {told}"
        );
        assert_cache(&scene.get(&path).await, cache, &case);
        assert!(cache == "MISS" || ttl(&scene.get(&path).await) <= 10, "{case}");
    }
    let path = "/20-";
    scene.clock.advance(Duration::from_secs(11));
    assert_cache(&scene.get(path).await, "MISS", "a date in the future prolongs nothing");
}
