//! Numbered regressions about what somebody can do who may write to Redis and lacks the secret, and
//! about records that are lost or go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Point, RedisServer, Response, Sidecar, eventually, metric};

const NO_MEMORY: &str = "[memory]\nsize = \"0\"\n";

const SECRET: &str = "secret = \"a-secret-of-thirty-two-characters\"\n";

const RECORD: &str = "{sidecache}:t:v:a";

/// An app and two sidecars on one Redis.
struct Pair {
    redis: RedisServer,
    app: Origin,
    sidecars: [Sidecar; 2],
}

impl Pair {
    /// Both with these lines in `[redis]`, and these tables.
    async fn start(lines: &str, tables: &str) -> Self {
        let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
        let rules = format!("{}{lines}{tables}{VERSIONED_RULES}", redis.table());
        let first = Sidecar::start(app.address, &rules).await;
        let second = Sidecar::start(app.address, &rules).await;
        let pair = Self { redis, app, sidecars: [first, second] };
        pair.share("start").await;
        pair
    }

    /// Returns when what one sidecar stores is a hit through the other, both ways.
    async fn share(&self, case: &str) {
        let [first, second] = &self.sidecars;
        for (number, (one, other)) in [(first, second), (second, first)].into_iter().enumerate() {
            let mut probe = 0;
            eventually("they share what they store", Duration::from_secs(10), || {
                probe += 1;
                let path = format!("/v/{case}-{number}-{probe}");
                let (mut one, mut other) = (Client::new(one.address), Client::new(other.address));
                async move {
                    one.get(&path, &[]).await;
                    other.get(&path, &[]).await.cache() == "HIT"
                }
            })
            .await;
        }
    }

    fn clients(&self) -> [Client; 2] {
        self.sidecars.each_ref().map(|sidecar| Client::new(sidecar.address))
    }

    /// A write through the first sidecar.
    async fn write(&self, name: &str) {
        let [mut one, _] = self.clients();
        assert_eq!(one.send("PUT", &format!("/w/{name}"), &[], "").await.status, 200);
    }

    /// Both answer this.
    async fn assert_reads(&self, name: &str, text: &str, case: &str) {
        for mut client in self.clients() {
            let read = client.get(&format!("/v/{name}"), &[]).await;
            assert_eq!((read.status, read.text()), (200, text), "{case}: {}", read.cache_status());
        }
    }

    /// Both answer this from the cache, sooner or later, and never anything else.
    async fn hit_again(&self, name: &str, text: &str, case: &str) {
        for sidecar in &self.sidecars {
            eventually(case, Duration::from_secs(10), || async {
                let reply = Client::new(sidecar.address).get(&format!("/v/{name}"), &[]).await;
                assert_eq!(reply.text(), text, "{case}: {}", reply.cache_status());
                reply.cache() == "HIT"
            })
            .await;
        }
    }

    async fn sum(&self, name: &str) -> u64 {
        let [first, second] = &self.sidecars;
        metric(first.admin, name).await + metric(second.admin, name).await
    }

    fn command(&self, command: &str) -> String {
        let answer = self.redis.command(command).expect("redis answers");
        assert!(!answer.starts_with('-'), "{command}: {answer}");
        answer
    }

    fn keys(&self, pattern: &str) -> Vec<String> {
        let answer = self.command(&format!("KEYS {pattern}"));
        answer.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
    }

    fn value(&self, key: &str) -> String {
        self.command(&format!("GET \"{key}\"")).lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Keeps a copy of what Redis holds of `/v/a`: its record, and all entries.
    fn keep(&self) -> Vec<String> {
        let mut kept = self.keys("sidecache:e:*");
        kept.push(RECORD.to_owned());
        for key in &kept {
            assert!(
                self.command(&format!("COPY \"{key}\" \"{{sidecache}}:kept:{key}\" REPLACE"))
                    .contains('1')
            );
        }
        kept
    }

    /// Puts the copies back.
    fn put_back(&self, kept: &[String]) {
        for key in kept {
            assert!(
                self.command(&format!("COPY \"{{sidecache}}:kept:{key}\" \"{key}\" REPLACE"))
                    .contains('1')
            );
        }
    }
}

/// The version 0 of `/v/a` is stored, kept aside, and purged; the version 1 is the present one.
async fn purged(pair: &Pair) -> Vec<String> {
    pair.assert_reads("a", "0", "first").await;
    pair.hit_again("a", "0", "first").await;
    let kept = pair.keep();
    pair.write("a").await;
    kept
}

/// 606. With a secret, everything works as it does without: hits of both, purges, soft purges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r606_sealed_records_serve_like_others() {
    for memory in [NO_MEMORY, ""] {
        let swr = "[[routes]]\npath = \"/soft/{name}\"\nttl = \"5m\"\nscope = \"public\"\n\
            tags = [\"s:{name}\"]\nstale_while_revalidate = \"1m\"\n";
        let pair = Pair::start(SECRET, &format!("{memory}{swr}")).await;
        for round in 0..5 {
            pair.assert_reads("a", &round.to_string(), "round").await;
            pair.hit_again("a", &round.to_string(), "round").await;
            pair.write("a").await;
        }
        let [mut one, mut other] = pair.clients();
        one.get("/soft/a", &[]).await;
        assert_eq!(other.get("/soft/a", &[]).await.cache(), "HIT");
        let order = serde_json::json!({ "tags": ["s:a"], "soft": true });
        pair.sidecars[0].admin_ok("/purge", &order).await;
        let soft = pair.value("{sidecache}:t:s:a");
        assert!(soft.contains('~'), "{soft}");
        assert_eq!(other.get("/soft/a", &[]).await.cache(), "STALE", "not a miss");
        pair.hit_soft_again().await;
        let order = serde_json::json!({ "everything": true, "soft": true });
        pair.sidecars[0].admin_ok("/purge", &order).await;
        assert_eq!(other.get("/soft/a", &[]).await.cache(), "STALE", "not a miss");
        pair.hit_soft_again().await;
        assert_eq!(pair.sum("sidecache_records_refused_total").await, 0, "{memory}");
        let order = serde_json::json!({ "everything": true });
        pair.sidecars[0].admin_ok("/purge", &order).await;
        assert_eq!(other.get("/v/a", &[]).await.cache(), "MISS");
        pair.share("end").await;
    }
}

impl Pair {
    async fn hit_soft_again(&self) {
        for sidecar in &self.sidecars {
            eventually("it is fetched anew", Duration::from_secs(10), || async {
                Client::new(sidecar.address).get("/soft/a", &[]).await.cache() == "HIT"
            })
            .await;
        }
    }
}

/// 607. Who may write to Redis could revive what was purged: the nonces stand in the entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r607_a_forged_record_revives_nothing() {
    let pair = Pair::start(SECRET, NO_MEMORY).await;
    let kept = purged(&pair).await;
    let sealed = pair.value(&format!("{{sidecache}}:kept:{RECORD}"));
    pair.assert_reads("a", "1", "purged").await;
    let present = pair.value(RECORD);
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (words(&sealed), words(&present));
    let nonce = old[1].split('.').next().unwrap_or_default();
    let behind = |token: &str| token.split_once('.').map(|(_, rest)| rest.to_owned());
    let forged = [
        nonce.to_owned(),
        // With the seal of the present one.
        format!("{nonce}.{}", behind(&new[1]).unwrap_or_default()),
        // With the step of the present one, and its own MAC.
        format!(
            "{nonce}.{}.{}",
            new[1].split('.').nth(1).unwrap_or_default(),
            old[1].split('.').nth(2).unwrap_or_default()
        ),
    ];
    for nonce in forged {
        pair.put_back(&kept);
        pair.command(&format!("SET {RECORD} \"1 {nonce} {} {} -\" PX 3600000", new[2], new[3]));
        pair.assert_reads("a", "1", &nonce).await;
        pair.hit_again("a", "1", &nonce).await;
    }
    assert!(pair.sum("sidecache_records_refused_total").await > 0);
}

/// 608. A sealed record of before a purge, put back, revives nothing through those that have heard
///      of the purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r608_an_old_record_is_refused_by_those_that_have_heard_of_the_purge() {
    let pair = Pair::start(SECRET, NO_MEMORY).await;
    let kept = purged(&pair).await;
    // Nobody has read the new record yet.
    pair.put_back(&kept);
    pair.assert_reads("a", "1", "put back").await;
    pair.hit_again("a", "1", "sealed anew").await;
    assert!(pair.sum("sidecache_records_refused_total").await > 0);
    // The same after a purge of everything, with the generation.
    pair.command("COPY {sidecache}:gen {sidecache}:kept:gen");
    let kept = pair.keep();
    pair.sidecars[0].admin_ok("/purge", &serde_json::json!({ "everything": true })).await;
    pair.app.answers(|_| Response::ok("2"));
    pair.put_back(&kept);
    pair.command("COPY {sidecache}:kept:gen {sidecache}:gen REPLACE");
    pair.assert_reads("a", "2", "the generation put back").await;
    pair.hit_again("a", "2", "sealed anew").await;
}

/// 609. A sealed record that is older than one that was read proves that Redis has gone back:
///      everything is purged, and Redis is joined anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r609_a_record_older_than_one_that_was_read_is_a_loss_of_redis() {
    let pair = Pair::start(SECRET, NO_MEMORY).await;
    let kept = purged(&pair).await;
    pair.assert_reads("a", "1", "purged").await;
    pair.hit_again("a", "1", "purged").await;
    let (losses, generation) =
        (pair.sum("sidecache_redis_losses_total").await, pair.value("{sidecache}:gen"));
    pair.put_back(&kept);
    pair.assert_reads("a", "1", "put back").await;
    pair.hit_again("a", "1", "joined anew").await;
    assert!(pair.sum("sidecache_redis_losses_total").await > losses);
    assert_ne!(pair.value("{sidecache}:gen"), generation, "everything was purged");
    pair.share("end").await;
}

/// 610. A step that goes back, with a secret or without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r610_a_step_older_than_one_that_was_read_is_a_loss_of_redis() {
    for lines in ["", SECRET] {
        let pair = Pair::start(lines, NO_MEMORY).await;
        pair.assert_reads("a", "0", "first").await;
        let step: u64 = pair.value("{sidecache}:seq").parse().expect("a step");
        let kept = pair.keep();
        pair.write("a").await;
        pair.assert_reads("a", "1", "purged").await;
        pair.hit_again("a", "1", "purged").await;
        let losses = pair.sum("sidecache_redis_losses_total").await;
        // As it was before the purge: the whole state.
        pair.put_back(&kept);
        pair.command(&format!("SET {{sidecache}}:seq {step}"));
        pair.assert_reads("a", "1", "back").await;
        pair.hit_again("a", "1", "joined anew").await;
        assert!(pair.sum("sidecache_redis_losses_total").await > losses, "{lines}");
        pair.share("end").await;
    }
}

/// 611. A nonce is sealed for a step; where a purge of something else comes during every fill, what
///      the response names is sealed all the same, for the next fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r611_what_a_response_names_is_sealed_while_the_step_moves() {
    let redis = Arc::new(RedisServer::start());
    let app = Origin::start({
        let redis = Arc::clone(&redis);
        move |_| {
            redis.command("INCR {sidecache}:seq").expect("redis answers");
            Response::ok("0").header("surrogate-key", "named")
        }
    });
    let sidecar = sealing(&redis, &app).await;
    let mut client = Client::new(sidecar.address);
    client.get("/v/a", &[]).await;
    client.get("/v/a", &[]).await;
    for _ in 0..3 {
        let reply = client.get("/v/a", &[]).await;
        assert_eq!(reply.cache(), "HIT", "{}", reply.cache_status());
    }
    assert_eq!(metric(sidecar.admin, "sidecache_records_refused_total").await, 0);
}

/// 612. The list of sidecars lived for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r612_every_key_has_a_time_to_live() {
    for lines in ["", SECRET] {
        let pair = Pair::start(lines, NO_MEMORY).await;
        pair.assert_reads("a", "0", "first").await;
        pair.sidecars[0].admin_ok("/purge", &serde_json::json!({ "everything": true })).await;
        pair.share("purged").await;
        let hold = pair.app.hold("PUT", "/w/a", Point::Before);
        let mut writer = Client::new(pair.sidecars[0].address);
        let write = tokio::spawn(async move { writer.send("PUT", "/w/a", &[], "").await });
        hold.arrived().await;
        // Longer than it takes to the next heartbeat.
        sleep(Duration::from_millis(1_200)).await;
        let keys = pair.keys("*");
        for part in [":nodes", ":seq", ":gen", ":clock", ":t:v:a", ":m:", ":e:"] {
            assert!(keys.iter().any(|key| key.contains(part)), "{part}: {keys:?}");
        }
        for key in keys {
            // The tag of a family has a space in it.
            let left = pair.command(&format!("PTTL \"{key}\""));
            let left: i64 = left.trim().trim_start_matches(':').parse().expect("a number");
            assert!(left > 0, "{key}: {left}");
            if key.ends_with(":nodes") {
                // Longer than the longest lease there is.
                assert!(left > 3_600_000, "{left}");
            }
        }
        hold.release();
        assert_eq!(write.await.expect("no panic").status, 200);
    }
}

/// 613. A list of sidecars that is lost ends the lease of everybody, also now that it expires.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r613_a_list_of_sidecars_that_is_lost_ends_all_leases() {
    let pair = Pair::start(SECRET, "").await;
    for sidecar in &pair.sidecars {
        eventually("it holds a lease", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_lease_held").await == 1
                && metric(sidecar.admin, "sidecache_peers").await == 1
        })
        .await;
    }
    pair.command("PEXPIRE {sidecache}:nodes 1");
    for sidecar in &pair.sidecars {
        eventually("it has lost its lease", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_leases_lost_total").await >= 1
        })
        .await;
        eventually("it has another", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_lease_held").await == 1
        })
        .await;
    }
    pair.write("a").await;
    pair.assert_reads("a", "1", "end").await;
}

/// A sidecar with the secret, which uses this Redis and has no memory tier.
async fn sealing(redis: &RedisServer, app: &Origin) -> Sidecar {
    let rules = format!("{}{SECRET}{NO_MEMORY}{VERSIONED_RULES}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("it uses Redis", Duration::from_secs(10), || async {
        metric(sidecar.admin, "sidecache_redis_up").await == 1
    })
    .await;
    sidecar
}

/// An app whose responses say how many there were before, and name the tag `named`.
fn counting() -> Origin {
    let count = AtomicU64::new(0);
    Origin::start(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Response::ok(number.to_string()).header("surrogate-key", "named")
    })
}

/// 1491. Records that were sealed before a purge of everything are worth nothing after it. Those of
///       tags that only responses name were never replaced: nothing with such a tag was stored any
///       more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1491_what_responses_name_is_stored_again_after_a_purge_of_everything() {
    let (redis, app) = (RedisServer::start(), counting());
    let sidecar = sealing(&redis, &app).await;
    let mut client = Client::new(sidecar.address);
    for round in 0..3 {
        // The second one was never asked for before.
        for path in ["/v/a".to_owned(), format!("/v/new-{round}")] {
            let case = format!("round {round}, {path}");
            assert_eq!(client.get(&path, &[]).await.cache(), "MISS", "{case}");
            let reply = client.get(&path, &[]).await;
            assert_eq!(reply.cache(), "HIT", "{case}: {}", reply.cache_status());
        }
        sidecar.admin_ok("/purge", &serde_json::json!({ "everything": true })).await;
    }
}

/// 1492. Scripts count in doubles: above 2^53 two steps that follow each other were equal, so that a
///       purge during a fill was not seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1492_a_step_that_somebody_raises_hides_no_purge() {
    let (redis, app) = (RedisServer::start(), counting());
    let sidecar = sealing(&redis, &app).await;
    for (number, step) in ["9007199254740992", "9999999999999990"].into_iter().enumerate() {
        let path = format!("/v/{number}");
        redis.command("DEL {sidecache}:t:named").expect("redis answers");
        redis.command(&format!("SET {{sidecache}}:seq {step}")).expect("redis answers");
        let hold = app.hold("GET", &path, Point::After);
        let (mut reader, asked) = (Client::new(sidecar.address), path.clone());
        let fill = tokio::spawn(async move { reader.get(&asked, &[]).await });
        hold.arrived().await;
        sidecar.admin_ok("/purge", &serde_json::json!({ "tags": ["named"] })).await;
        hold.release();
        let before = fill.await.expect("no panic");
        let after = Client::new(sidecar.address).get(&path, &[]).await;
        assert_ne!(after.text(), before.text(), "{step}: {}", after.cache_status());
    }
}
