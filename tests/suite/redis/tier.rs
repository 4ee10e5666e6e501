//! The Redis tier on a real Redis: every way to reach it, what strangers may have put into it, and
//! what it costs.
//!
//! Memory is off where it would hide what Redis says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::origin::{VERSIONED_RULES, identity, versioned};
use crate::support::redis_kinds::RedisKind;
use crate::support::tls::Certificates;
use crate::support::{Client, Origin, Point, RedisServer, Reply, Sidecar, eventually, metric};

const NO_MEMORY: &str = "[memory]\nsize = \"0\"\n";

/// An app and two sidecars on one Redis.
struct Pair {
    _app: Origin,
    first: Sidecar,
    second: Sidecar,
}

impl Pair {
    /// Both with these tables, `[redis]` among them.
    async fn start(tables: &str) -> Self {
        let app = Origin::start(versioned());
        let rules = format!("{tables}\n{VERSIONED_RULES}");
        let first = Sidecar::start(app.address, &rules).await;
        let second = Sidecar::start(app.address, &rules).await;
        Self { _app: app, first, second }
    }

    fn clients(&self) -> [Client; 2] {
        [Client::new(self.first.address), Client::new(self.second.address)]
    }

    /// Returns when what one sidecar stores is a hit from Redis through the other.
    async fn share(&self) {
        let mut probe = 0;
        eventually(
            "what one sidecar stores is a hit through the other",
            Duration::from_secs(30),
            || {
                probe += 1;
                let path = format!("/v/probe-{probe}");
                let [mut one, mut other] = self.clients();
                async move {
                    one.get(&path, &[]).await;
                    let reply = other.get(&path, &[]).await;
                    reply.cache() == "HIT" && reply.cache_status().ends_with("detail=redis")
                }
            },
        )
        .await;
    }

    /// Returns when each serves what it stored itself, which none does before a connection to Redis
    /// has failed.
    async fn serve_by_themselves(&self) {
        for address in [self.first.address, self.second.address] {
            eventually("what it stored itself is a hit", Duration::from_secs(30), || async {
                let mut client = Client::new(address);
                client.get("/v/own", &[]).await;
                client.get("/v/own", &[]).await.cache() == "HIT"
            })
            .await;
        }
    }

    /// A write through one sidecar, and a read through each: both are fresh. Returns the version.
    async fn write_and_read(&self, name: &str) -> String {
        let [mut one, mut other] = self.clients();
        let put = one.send("PUT", &format!("/w/{name}"), &[], "").await;
        assert_eq!(put.status, 200, "{}", put.text());
        for client in [&mut one, &mut other] {
            let read = client.get(&format!("/v/{name}"), &[]).await;
            assert_eq!(
                (read.status, read.text()),
                (200, put.text()),
                "{}",
                read.header("cache-status")
            );
        }
        put.text().to_owned()
    }

    /// Both answer from the cache again, and what they answer is this.
    async fn hit_again(&self, name: &str, text: &str) {
        for address in [self.first.address, self.second.address] {
            eventually("there are hits again", Duration::from_secs(30), || async {
                let reply = Client::new(address).get(&format!("/v/{name}"), &[]).await;
                assert_eq!((reply.status, reply.text()), (200, text), "{}", reply.cache_status());
                reply.cache() == "HIT"
            })
            .await;
        }
    }
}

/// The keys of this pattern. A test may ask so; the sidecar never does.
fn keys(redis: &RedisServer, pattern: &str) -> Vec<String> {
    let answer = redis.command(&format!("KEYS {pattern}")).expect("redis answers");
    answer.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
}

/// A string value, or nothing.
fn value(redis: &RedisServer, key: &str) -> String {
    let answer = redis.command(&format!("GET \"{key}\"")).expect("redis answers");
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

fn must(redis: &RedisServer, command: &str) {
    let answer = redis.command(command).expect("redis answers");
    assert!(!answer.starts_with('-'), "{command}: {answer}");
}

/// How often each command was called, the commands that scripts call included.
fn stats(redis: &RedisServer) -> BTreeMap<String, u64> {
    let answer = redis.command("INFO commandstats").expect("redis answers");
    let line = |line: &str| {
        let (name, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), numbers.split(',').next()?.parse().ok()?))
    };
    let stats: BTreeMap<_, _> = answer.lines().filter_map(line).collect();
    assert!(!stats.is_empty(), "{answer}");
    stats
}

// Ways to reach it.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behind_a_unix_socket_is_used() {
    let redis = RedisKind::start("--port", &[]);
    let pair =
        Pair::start(&format!("[redis]\nurl = \"unix://{}?db=0\"\n", redis.socket.display())).await;
    pair.share().await;
    pair.write_and_read("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_behind_a_unix_socket_and_a_password_is_used() {
    let redis = RedisKind::start("--port", &["--requirepass", "open sesame"]);
    let url = format!("unix://{}?db=3", redis.socket.display());
    let pair =
        Pair::start(&format!("[redis]\nurl = \"{url}\"\npassword = \"open sesame\"\n")).await;
    pair.share().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_a_password_is_used_and_a_wrong_one_costs_nothing() {
    let redis = RedisKind::start("--port", &["--requirepass", "p@ss/word"]);
    let pair = Pair::start(&format!(
        "[redis]\nurl = \"redis://:p%40ss%2Fword@127.0.0.1:{}/0\"\n",
        redis.port
    ))
    .await;
    pair.share().await;
    let wrong =
        Pair::start(&format!("[redis]\nurl = \"redis://:wrong@127.0.0.1:{}/0\"\n", redis.port))
            .await;
    wrong.write_and_read("a").await;
}

/// What an ACL user of the sidecar needs, and no more (docs/src/how-to/several-sidecars.md).
const ACL: &str = "~sidecache:* ~{sidecache}:* resetchannels &{sidecache}:* -@all +select +ping \
    +client|id +info +time +mget +get +getrange +set +incr +del +unlink \
    +type +pttl +pexpire +hget +hset +hdel +hexists +hgetall +publish +subscribe +eval +evalsha";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acl_user_needs_the_namespace_and_a_few_commands_only() {
    let mut arguments = vec!["--user", "sidecar", "on", ">secret"];
    arguments.extend(ACL.split_whitespace());
    let redis = RedisKind::start("--port", &arguments);
    let long = "[[routes]]\npath = \"/long/{name}\"\nttl = \"3h\"\nscope = \"public\"\ntags = \
        [\"v:{name}\"]\n";
    let table = format!(
        "[redis]\nurl = \"redis://sidecar:secret@127.0.0.1:{}/0\"\n{NO_MEMORY}{long}",
        redis.port
    );
    let pair = Pair::start(&table).await;
    pair.share().await;
    let text = pair.write_and_read("a").await;
    pair.hit_again("a", &text).await;
    let [mut one, mut other] = pair.clients();
    assert_eq!(one.send("PUT", "/w/a", &[("x-test", "401")], "").await.status, 401);
    pair.hit_again("a", &text).await;
    // The record outlives the entry with the longest life.
    one.get("/long/a", &[]).await;
    assert!(other.get("/long/a", &[]).await.header("cache-status").ends_with("detail=redis"));
    // Redis would be lost if any of this had been refused.
    pair.share().await;
    eventually("each lists the other", Duration::from_secs(30), || async {
        let listed = pair.first.admin_get("/peers").await.json();
        listed["why"].is_null() && listed["sidecars"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    // Of another namespace it sees nothing, and goes on without.
    let other = format!(
        "[redis]\nurl = \"redis://sidecar:secret@127.0.0.1:{}/0\"\nnamespace = \"other\"\n",
        redis.port
    );
    Pair::start(&other).await.write_and_read("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_over_tls_is_used_when_its_authority_is_trusted() {
    let certificates = Certificates::new();
    let (certificate, key) = certificates.server();
    let (ca, certificate, key) = (
        certificates.ca().display().to_string(),
        certificate.display().to_string(),
        key.display().to_string(),
    );
    let tls = [
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = RedisKind::start("--tls-port", &tls);
    let table = |ca: &str| {
        format!("[redis]\nurl = \"rediss://localhost:{}/0\"\nca_file = \"{ca}\"\n", redis.port)
    };
    let pair = Pair::start(&table(&ca)).await;
    pair.share().await;
    pair.write_and_read("a").await;

    let strangers = Certificates::new();
    let pair = Pair::start(&table(&strangers.ca().display().to_string())).await;
    pair.write_and_read("a").await;
    pair.serve_by_themselves().await;
    let [mut one, mut other] = pair.clients();
    one.get("/v/b", &[]).await;
    assert_eq!(
        other.get("/v/b", &[]).await.cache(),
        "MISS",
        "nothing is shared through a Redis that nobody vouches for"
    );
}

// What strangers may have put into it.

/// Puts something else in place of what `key` holds, by `command` on it; answers stay right, and
/// the cache recovers.
async fn spoiled(redis: &RedisServer, pair: &Pair, key: &str, command: &str) {
    let text = pair.write_and_read("a").await;
    pair.hit_again("a", &text).await;
    let found = keys(redis, key);
    assert_eq!(found.len(), 1, "{key}: {found:?}");
    must(redis, &format!("DEL {}", found[0]));
    must(redis, &command.replace("KEY", &found[0]));
    for _ in 0..3 {
        for mut client in pair.clients() {
            let read = client.get("/v/a", &[]).await;
            assert_eq!(
                (read.status, read.text()),
                (200, &*text),
                "{command}: {}",
                read.header("cache-status")
            );
        }
    }
    must(redis, &format!("DEL {}", found[0]));
    must(redis, &command.replace("KEY", &found[0]));
    let text = pair.write_and_read("a").await;
    pair.hit_again("a", &text).await;
    pair.share().await;
    for entry in keys(redis, "sidecache:e:*") {
        must(redis, &format!("DEL {entry}"));
    }
}

const WRONG: [&str; 7] = [
    "LPUSH KEY x",
    "HSET KEY a b",
    "SET KEY garbage",
    "SET KEY \"\"",
    "SET KEY \"\\x00\\xff\\r\\n\"",
    "SET KEY -5",
    "SET KEY 1e5",
];

async fn all_wrong(key: &str) {
    let redis = RedisServer::start();
    let pair = Pair::start(&format!("{}{NO_MEMORY}", redis.table())).await;
    for command in WRONG {
        println!("{command}");
        spoiled(&redis, &pair, key, command).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_place_of_an_entry_is_a_miss() {
    all_wrong("sidecache:e:*").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_place_of_a_record_is_a_miss() {
    all_wrong("{sidecache}:t:v:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_place_of_the_generation_is_replaced() {
    all_wrong("{sidecache}:gen").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_place_of_the_step_is_replaced() {
    all_wrong("{sidecache}:seq").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_changed_by_a_bit_or_cut_short_are_misses() {
    let redis = RedisServer::start();
    let pair = Pair::start(&format!("{}{NO_MEMORY}", redis.table())).await;
    let mut client = Client::new(pair.first.address);
    client.get("/v/a", &[]).await;
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
    let found = keys(&redis, "sidecache:e:*");
    // The body is the last byte: "0" becomes "1".
    for command in
        ["SETRANGE KEY -1 1", "APPEND KEY 1", "SETRANGE KEY 3 \\x02", "SETRANGE KEY 30 zzzz"]
    {
        let length = redis.command(&format!("STRLEN {}", found[0])).expect("redis answers");
        let last = length.trim_start_matches(':').trim().parse::<usize>().expect("a number") - 1;
        must(&redis, &command.replace("KEY", &found[0]).replace("-1", &last.to_string()));
        let read = client.get("/v/a", &[]).await;
        assert_eq!((read.cache(), read.text()), ("MISS", "0"), "{command}");
        assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT", "{command}");
    }
}

fn tenant_of(reply: &Reply) -> String {
    let body: serde_json::Value =
        serde_json::from_slice(&reply.body).expect("the app answers JSON");
    body["tenant"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_two_tenants_swapped_by_hand_are_misses_and_never_leak() {
    let redis = RedisServer::start();
    let app = Origin::start(identity);
    let rules = "[fields]\ntenant = { header = \"x-tenant-id\" }\n[[routes]]\npath = \
        \"/public/x\"\nttl = \"5m\"\nscope = \"public\"\nkey = [\"tenant\"]\n";
    let sidecar =
        Sidecar::start(app.address, &format!("{}{NO_MEMORY}{rules}", redis.table())).await;
    let mut client = Client::new(sidecar.address);
    for round in 0..3 {
        for tenant in ["acme", "other"] {
            let ask = [("x-tenant-id", tenant)];
            let first = client.get("/public/x", &ask).await;
            assert_eq!(
                (first.cache(), &*tenant_of(&first)),
                ("MISS", tenant),
                "round {round}: {}",
                first.header("cache-status")
            );
            let second = client.get("/public/x", &ask).await;
            assert_eq!((second.cache(), &*tenant_of(&second)), ("HIT", tenant), "round {round}");
        }
        let found = keys(&redis, "sidecache:e:*");
        assert_eq!(found.len(), 2, "{found:?}");
        for (from, to) in [
            (&*found[0], "sidecache:aside"),
            (&*found[1], &*found[0]),
            ("sidecache:aside", &*found[1]),
        ] {
            must(&redis, &format!("RENAME {from} {to}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_sealed_without_the_secret_is_a_miss() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let secret = "secret = \"a-secret-of-thirty-two-characters\"";
    let mut sidecars = Vec::new();
    for line in ["", "", secret, secret, "secret = \"another-of-thirty-two-characters..\""] {
        sidecars.push(
            Sidecar::start(
                app.address,
                &format!("{}{line}\n{NO_MEMORY}{VERSIONED_RULES}", redis.table()),
            )
            .await,
        );
    }
    for sidecar in &sidecars {
        eventually("it uses Redis", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_redis_up").await == 1
        })
        .await;
    }
    let clients: Vec<Client> =
        sidecars.iter().map(|sidecar| Client::new(sidecar.address)).collect();
    let Ok([mut open, mut open_too, mut sealed, mut sealed_too, mut other]) =
        <[Client; 5]>::try_from(clients)
    else {
        panic!("five")
    };
    open.get("/v/a", &[]).await;
    assert_eq!(open_too.get("/v/a", &[]).await.cache(), "HIT", "the two that agree share it");
    assert_eq!(sealed.get("/v/a", &[]).await.cache(), "MISS", "it could be anybody's");
    assert_eq!(sealed_too.get("/v/a", &[]).await.cache(), "HIT", "now it is the one with the seal");
    assert_eq!(other.get("/v/a", &[]).await.cache(), "MISS", "another secret");
    sealed.get("/v/b", &[]).await;
    assert_eq!(open.get("/v/b", &[]).await.cache(), "MISS");
}

// Coherence that only Redis can hold up.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_again_and_again_it_is_never_stale() {
    let redis = Arc::new(RedisServer::start());
    let pair = Pair::start(&redis.table()).await;
    pair.share().await;
    let stop = Arc::new(AtomicBool::new(false));
    let flushing = std::thread::spawn({
        let (redis, stop) = (Arc::clone(&redis), Arc::clone(&stop));
        move || {
            let mut times = 0;
            while !stop.load(Ordering::Relaxed) {
                redis.command("FLUSHALL");
                times += 1;
                // The pace: out of step with the requests.
                std::thread::sleep(Duration::from_millis(7));
            }
            times
        }
    });
    let mut text = String::new();
    for _ in 0..300 {
        text = pair.write_and_read("a").await;
        for mut client in pair.clients() {
            assert_eq!(client.get("/v/a", &[]).await.text(), text);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let times: u32 = flushing.join().expect("the thread does not panic");
    assert!(times > 20, "only {times} times");
    pair.hit_again("a", &text).await;
    pair.share().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_it_is_never_stale() {
    let redis = RedisServer::start();
    let pair = Pair::start(&redis.table()).await;
    pair.share().await;
    let text = pair.write_and_read("a").await;
    pair.hit_again("a", &text).await;
    must(&redis, "CONFIG SET maxmemory-policy noeviction");
    must(&redis, "CONFIG SET maxmemory 1");
    let mut text = String::new();
    for round in 0..20 {
        text = pair.write_and_read("a").await;
        pair.write_and_read(&format!("new-{round}")).await;
    }
    must(&redis, "CONFIG SET maxmemory 0");
    pair.hit_again("a", &text).await;
    pair.share().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_of_a_mutation_is_seen_by_the_other_sidecar() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    for guard in ["mark", "bypass"] {
        let rules = format!("{}{VERSIONED_RULES}guard = \"{guard}\"\n", redis.table());
        let (first, second) =
            (Sidecar::start(app.address, &rules).await, Sidecar::start(app.address, &rules).await);
        let mut reader = Client::new(second.address);
        reader.get("/v/a", &[]).await;
        let before = reader.get("/v/a", &[]).await;
        assert_eq!(before.cache(), "HIT");
        let hold = app.hold("PUT", "/w/a", Point::Before);
        let write = tokio::spawn({
            let mut writer = Client::new(first.address);
            async move { writer.send("PUT", "/w/a", &[], "").await }
        });
        hold.arrived().await;
        let meanwhile = reader.get("/v/a", &[]).await;
        if guard == "mark" {
            assert_eq!(meanwhile.cache(), "HIT");
        } else {
            assert_eq!(meanwhile.cache(), "BYPASS");
            assert!(
                meanwhile.header("cache-status").contains("mutation pending"),
                "{}",
                meanwhile.header("cache-status")
            );
        }
        assert_eq!(meanwhile.text(), before.text());
        hold.release();
        let answer = write.await.expect("the write is answered");
        assert_eq!(reader.get("/v/a", &[]).await.text(), answer.text());
        assert_eq!(reader.get("/v/a", &[]).await.cache(), "HIT", "the guard is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mark_of_a_sidecar_that_died_makes_the_entry_a_miss() {
    // Without a memory tier each hit looks at the records, so that it sees what the test puts
    // there.
    let redis = RedisServer::start();
    let pair = Pair::start(&format!("{}{NO_MEMORY}", redis.table())).await;
    pair.share().await;
    let record = "{sidecache}:t:v:a";
    for (pending, expected) in [
        ("dead:1:m", "MISS"),
        ("dead:1:b", "MISS"),
        ("alive:99999999999999:m", "HIT"),
        ("alive:99999999999999:m,dead:1:m", "MISS"),
    ] {
        let text = pair.write_and_read("a").await;
        pair.hit_again("a", &text).await;
        let before = value(&redis, record);
        let words: Vec<&str> = before.split(' ').collect();
        assert_eq!(words.len(), 5, "{before}");
        must(&redis, &format!("SET {record} \"{} {pending}\" KEEPTTL", words[..4].join(" ")));
        let [mut one, _] = pair.clients();
        assert_eq!(one.get("/v/a", &[]).await.cache(), expected, "{pending}");
        if expected == "MISS" {
            let after = value(&redis, record);
            assert_ne!(
                after.split(' ').nth(1),
                Some(words[1]),
                "a mutation that may have been committed purges: {after}"
            );
            assert!(!after.contains("dead"), "{after}");
        }
        eventually("there are hits again", Duration::from_secs(5), async || {
            pair.clients()[1].get("/v/a", &[]).await.cache() == "HIT"
        })
        .await;
    }
}

// What it costs.

const MANY_RULES: &str = "
[[routes]]
path = \"/many/{tag}/{n}\"
ttl = \"5m\"
scope = \"public\"
tags = [\"many:{tag}\"]
[[purges]]
path = \"/purge/{tag}\"
tags = [\"many:{tag}\"]
";

/// What a purge of this tag makes Redis do, but for the looks that go on by themselves.
async fn cost(redis: &RedisServer, client: &mut Client, tag: &str) -> BTreeMap<String, u64> {
    must(redis, "CONFIG RESETSTAT");
    assert_eq!(client.send("POST", &format!("/purge/{tag}"), &[], "").await.status, 200);
    let mut stats = stats(redis);
    // A summary may have been published meanwhile, by a script that looks at a slot and sets it.
    let published = stats.remove("getrange").unwrap_or_default();
    if let Some(sets) = stats.get_mut("set") {
        *sets -= published;
    }
    stats.retain(|name, calls| name != "set" || *calls > 0);
    let scripts = stats.get("evalsha").copied().unwrap_or_default()
        + stats.get("eval").copied().unwrap_or_default()
        - published;
    assert!((2..=4).contains(&scripts), "a mark and a purge: {stats:?}");
    stats.retain(|name, _| {
        !["evalsha", "eval", "info", "time", "config|resetstat", "ping"].contains(&name.as_str())
    });
    stats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_costs_the_same_for_one_entry_and_for_five_thousand() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    // Warnings of purge rules aside, the deadline is long: this is about numbers, not time.
    let sidecar =
        Sidecar::start(app.address, &format!("{}deadline = \"1s\"\n{MANY_RULES}", redis.table()))
            .await;
    let mut client = Client::new(sidecar.address);
    eventually("Redis is in use", Duration::from_secs(5), async || {
        Client::new(sidecar.address).get("/many/probe/1", &[]).await.cache() == "HIT"
    })
    .await;
    client.get("/many/few/1", &[]).await;
    let fill = |share: u32| {
        let mut client = Client::new(sidecar.address);
        async move {
            for n in (share..5_000).step_by(8) {
                client.get(&format!("/many/crowd/{n}"), &[]).await;
            }
        }
    };
    futures_util::future::join_all((0..8).map(fill)).await;
    let stored = keys(&redis, "sidecache:e:*").len();
    assert!(stored >= 5_000, "only {stored} entries");
    // Both scripts are known to Redis from here on.
    client.send("POST", "/purge/nothing", &[], "").await;
    let few = cost(&redis, &mut client, "few").await;
    let crowd = cost(&redis, &mut client, "crowd").await;
    assert_eq!(few, crowd);
    println!("a purge costs {crowd:?}");
    for path in ["/many/few/1", "/many/crowd/1", "/many/crowd/2500", "/many/crowd/4999"] {
        assert_eq!(client.get(path, &[]).await.cache(), "MISS", "{path} is purged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_never_searched_or_emptied_and_every_key_is_in_the_namespace() {
    let redis = RedisServer::start();
    must(&redis, "SET bystander 1");
    let pair = Pair::start(&format!("{}namespace = \"own.space\"\n", redis.table())).await;
    pair.share().await;
    must(&redis, "CONFIG RESETSTAT");
    for name in ["a", "b", "c"] {
        let text = pair.write_and_read(name).await;
        pair.hit_again(name, &text).await;
    }
    must(&redis, "DEL {own.space}:gen {own.space}:seq");
    let text = pair.write_and_read("a").await;
    pair.hit_again("a", &text).await;
    let stats = stats(&redis);
    assert!(stats["mget"] > 5, "{stats:?}");
    for name in [
        "keys",
        "scan",
        "hscan",
        "sscan",
        "zscan",
        "flushall",
        "flushdb",
        "smembers",
        "randomkey",
        "swapdb",
        "debug",
    ] {
        assert!(!stats.contains_key(name), "{name} was called: {stats:?}");
    }
    let all = keys(&redis, "*");
    let own = |key: &&String| key.starts_with("own.space:") || key.starts_with("{own.space}:");
    assert!(all.iter().filter(own).count() > 5, "{all:?}");
    assert_eq!(all.iter().filter(|key| !own(key)).collect::<Vec<_>>(), ["bystander"]);
}
