//! The list of all sidecars that share a Redis: who is on it, what becomes of one that dies, and
//! what strangers may put in its place.

use std::time::Duration;

use serde_json::Value;

use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_kinds::RedisKind;
use crate::support::{Client, CommandLine, Origin, RedisServer, Sidecar, eventually, metric};

const WAIT: Duration = Duration::from_secs(30);

/// How many sidecars can be listed.
const SLOTS: usize = 256;

async fn peers(sidecar: &Sidecar) -> Value {
    let reply = sidecar.admin_get("/peers").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn rows(listed: &Value) -> &[Value] {
    listed["sidecars"].as_array().expect("a list")
}

fn names(listed: &Value) -> Vec<&str> {
    rows(listed).iter().filter_map(|row| row["name"].as_str()).collect()
}

fn row<'a>(listed: &'a Value, name: &str) -> Option<&'a Value> {
    rows(listed).iter().find(|row| row["name"] == name)
}

async fn named(app: &Origin, table: &str, name: &str, rules: &str) -> Sidecar {
    let name = format!("name = \"{name}\"");
    Sidecar::spawn_with(app.address, &[("[admin]", &name)], &format!("{table}{rules}")).await
}

/// Returns when a sidecar lists so many that are not silent.
async fn lists(sidecar: &Sidecar, count: usize) -> Value {
    eventually(&format!("{count} sidecars are listed"), WAIT, || async {
        let listed = peers(sidecar).await;
        rows(&listed).iter().filter(|row| row["silent"] == false).count() == count
    })
    .await;
    peers(sidecar).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_sidecars_list_each_other_and_one_that_was_killed_is_silent() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let other_rules = format!("{VERSIONED_RULES}\n[[routes]]\npath = \"/only/here\"\n");
    let table = redis.table();
    let first = named(&app, &table, "web-1", VERSIONED_RULES).await;
    let second = named(&app, &table, "web-2", VERSIONED_RULES).await;
    let mut third = named(&app, &table, "web-3", &other_rules).await;
    let mut client = Client::new(second.address);
    for _ in 0..5 {
        client.get("/v/a", &[]).await;
    }
    let listed = lists(&first, 3).await;
    assert_eq!(names(&listed), ["web-1", "web-2", "web-3"]);
    assert_eq!(rows(&listed)[0]["name"], "web-1");
    assert_eq!(rows(&listed)[0]["this"], true);
    eventually("the requests of another are told", WAIT, || async {
        let listed = peers(&first).await;
        let row = row(&listed, "web-2").expect("it is listed");
        let requests = row["requests"].as_object().expect("counts");
        let total: u64 = requests.values().filter_map(Value::as_u64).sum();
        total == 5 && row["hit_ratio"].is_f64() && row["latency"]["app"]["p50_ms"].is_f64()
    })
    .await;
    assert_eq!(row(&listed, "web-2").expect("it is listed")["differs"], serde_json::json!([]));
    let differs = &row(&listed, "web-3").expect("it is listed")["differs"];
    assert_eq!(*differs, serde_json::json!(["rules"]));
    assert_eq!(listed["notes"], serde_json::json!([]), "it is no minute yet");
    let value = slot_values(&redis).into_iter().find(|value| value.contains("web-2"));
    let value = value.expect("its summary");
    assert!(value.len() < 2048 && !value.contains("/v/"), "{}: {value}", value.len());
    println!("a summary has {} bytes", value.len());

    third.crash();
    eventually("the killed one is silent", Duration::from_secs(40), || async {
        let listed = peers(&first).await;
        row(&listed, "web-3").is_some_and(|row| row["silent"] == true)
    })
    .await;
    let listed = peers(&second).await;
    let silent = row(&listed, "web-3").expect("a sidecar that never heard it knows it, too");
    assert!(silent["age_s"].as_f64().is_some_and(|age| age > 15.0), "{silent}");

    let mut second = second;
    second.stop().await;
    eventually("one that ends in order is gone", WAIT, || async {
        row(&peers(&first).await, "web-2").is_none()
    })
    .await;
    assert!(metric(first.admin, "sidecache_summaries_published_total").await > 2);
    assert_eq!(metric(first.admin, "sidecache_summaries_failed_total").await, 0);
    assert_eq!(metric(first.admin, "sidecache_redis_losses_total").await, 0);
}

fn slot_values(redis: &RedisServer) -> Vec<String> {
    let answer = redis.command("KEYS {sidecache}:s:*").expect("redis answers");
    let keys = answer.lines().filter(|line| line.starts_with('{'));
    keys.filter_map(|key| redis.command(&format!("GET {key}")))
        .filter_map(|answer| answer.split_once("\r\n").map(|(_, value)| value.trim().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_sidecar_lists_itself_and_afterwards_all_again() {
    let app = Origin::start(versioned());
    let alone = Sidecar::start(app.address, VERSIONED_RULES).await;
    let listed = peers(&alone).await;
    assert_eq!((rows(&listed).len(), &listed["shared"]), (1, &Value::Bool(false)));
    assert!(listed["why"].as_str().is_some_and(|why| why.contains("no [redis]")), "{listed}");
    let name = names(&listed)[0];
    assert!(name.ends_with(&format!(" {}", alone.address)), "host and address: {name}");

    let mut redis = RedisServer::start();
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let pair =
        [Sidecar::start(app.address, &rules).await, Sidecar::start(app.address, &rules).await];
    lists(&pair[0], 2).await;
    redis.kill();
    eventually("it lists itself alone", WAIT, || async {
        let listed = peers(&pair[0]).await;
        rows(&listed).len() == 1
            && listed["shared"] == false
            && listed["why"].as_str().is_some_and(|why| why.contains("redis is lost"))
    })
    .await;
    redis.restart();
    lists(&pair[1], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_put_in_place_of_summaries_is_bounded_and_counted() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let first = Sidecar::start(app.address, &rules).await;
    let second = Sidecar::start(app.address, &rules).await;
    lists(&first, 2).await;
    let own = || redis.command("KEYS {sidecache}:s:*").unwrap_or_default();
    // A sidecar lists itself before it has published anything.
    eventually("both have slots", WAIT, async || own().matches("{sidecache}:s:").count() == 2)
        .await;
    let taken = own();
    let must = |command: &str| {
        // On a slow machine the answer to a large value may be late. The counts below tell.
        let answer = redis.command(command).unwrap_or_default();
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    };
    let hostile = |slot: usize, value: &str| {
        let key = format!("{{sidecache}}:s:{slot}");
        if !taken.lines().any(|line| line == key) {
            must(&format!("EVAL \"{value}\" 1 {key}"));
        }
    };
    let set = |value: &str| format!("redis.call('SET', KEYS[1], {value}, 'PX', '600000') return 1");
    let id = "'00000000000000'";
    for slot in 0..SLOTS {
        hostile(
            slot,
            &match slot % 6 {
                // 16 MiB, which nobody reads.
                0 if slot < 12 => set("string.rep('x', 16777216)"),
                0 => set(&format!("{id} .. '00 {{}}'")),
                1 => set(&format!("{id} .. '01 ' .. string.rep('[', 2000)")),
                2 => {
                    "for n = 1, 10000 do redis.call('HSET', KEYS[1], n, n) end return 1".to_owned()
                }
                3 => set("string.char(0, 255, 10, 13) .. string.rep(string.char(200), 90)"),
                4 => "redis.call('SET', KEYS[1], 'for ever') return 1".to_owned(),
                _ => set("'<script>alert(1)</script>'"),
            },
        );
    }
    eventually("they are counted", WAIT, || async {
        peers(&first).await["unreadable"].as_u64().is_some_and(|count| count >= 250)
    })
    .await;
    let reply = first.admin_get("/peers").await;
    assert!(reply.text().len() < 8_192, "{}", reply.text().len());
    assert_eq!(rows(&reply.json()).len(), 2, "{}", reply.text());
    assert!(metric(first.admin, "sidecache_summaries_unreadable_total").await >= 250);
    assert_eq!(metric(first.admin, "sidecache_redis_losses_total").await, 0);
    assert_eq!(metric(first.admin, "sidecache_redis_errors_total").await, 0);

    // All slots are somebody's: the one that never expires is taken first.
    let third = Sidecar::start(app.address, &rules).await;
    let listed = lists(&third, 3).await;
    assert_eq!(rows(&listed).len(), 3);
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_finds_every_slot_in_use_is_not_published() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    for slot in 0..SLOTS {
        let set = format!("SET {{sidecache}}:s:{slot} {slot:016x} PX 600000");
        assert_eq!(redis.command(&set).as_deref(), Some("+OK\r\n"));
    }
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("it finds no place", WAIT, || async {
        metric(sidecar.admin, "sidecache_summaries_failed_total").await > 0
    })
    .await;
    assert_eq!(metric(sidecar.admin, "sidecache_summaries_published_total").await, 0);
    assert_eq!(rows(&peers(&sidecar).await).len(), 1, "it still lists itself");
    // As soon as one has been silent for long enough, its slot is free.
    let set = "PEXPIRE {sidecache}:s:77 584000";
    assert_eq!(redis.command(set).as_deref(), Some(":1\r\n"));
    eventually("it takes the place of a silent one", WAIT, || async {
        metric(sidecar.admin, "sidecache_summaries_published_total").await > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_of_an_earlier_version_costs_the_list_and_nothing_else() {
    let acl = "~sidecache:* ~{sidecache}:* resetchannels &{sidecache}:* -@all +select +ping \
        +client|id +info +time +mget +get +set +incr +del +unlink +type +pttl +pexpire +hget \
        +hset +hdel +hexists +hgetall +publish +subscribe +eval +evalsha";
    let mut arguments = vec!["--user", "sidecar", "on", ">secret"];
    arguments.extend(acl.split_whitespace());
    let redis = RedisKind::start("--port", &arguments);
    let app = Origin::start(versioned());
    let rules = format!(
        "[redis]\nurl = \"redis://sidecar:secret@127.0.0.1:{}/0\"\n{VERSIONED_RULES}",
        redis.port
    );
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("it says what is missing", WAIT, || async {
        let listed = peers(&sidecar).await;
        rows(&listed).len() == 1
            && listed["why"].as_str().is_some_and(|why| why.contains("+getrange"))
    })
    .await;
    eventually("it has tried to publish", WAIT, || async {
        metric(sidecar.admin, "sidecache_summaries_failed_total").await > 0
    })
    .await;
    assert_eq!(metric(sidecar.admin, "sidecache_redis_losses_total").await, 0);
    assert_eq!(metric(sidecar.admin, "sidecache_redis_errors_total").await, 0);
    assert_eq!(sidecar.stats().await["redis"]["state"], "shared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_of_a_cluster_list_each_other_through_the_slot_of_the_metadata() {
    let redis = RedisCluster::start();
    let app = Origin::start(versioned());
    let rules = format!("{}deadline = \"1s\"\n{VERSIONED_RULES}", redis.table());
    let pair = [0; 2].map(|_| Sidecar::spawn(app.address, &rules));
    let pair = futures_util::future::join_all(pair).await;
    lists(&pair[0], 2).await;
    lists(&pair[1], 2).await;
    let keys = redis.masters[redis.home].ask(&["KEYS", "{sidecache}:s:*"]);
    assert_eq!(keys.lines().count(), 2, "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_cost_redis_one_reading_a_second() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let began = tokio::time::Instant::now();
    let sidecar = Sidecar::start(app.address, &rules).await;
    eventually("Redis is in use", WAIT, || async { peers(&sidecar).await["shared"] == true }).await;
    for _ in 0..20 {
        futures_util::future::join_all((0..10).map(|_| peers(&sidecar))).await;
    }
    let reads = metric(sidecar.admin, "sidecache_peer_reads_total").await;
    let most = began.elapsed().as_secs() + 2;
    assert!((1..=most).contains(&reads), "{reads} readings for 200 who asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_all_sidecars() {
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let table = redis.table();
    let first = named(&app, &table, "web-1", VERSIONED_RULES).await;
    let other_rules = format!("{VERSIONED_RULES}\n[[routes]]\npath = \"/only/here\"\n");
    let second = named(&app, &table, "web-2", &other_rules).await;
    lists(&first, 2).await;
    let admin = first.admin.to_string();
    let said =
        CommandLine::new().variable("SIDECACHE_ADMIN", &admin).run(&["stats", "--all"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let line = |name: &str| said.out.lines().find(|line| line.contains(name)).unwrap_or_default();
    assert!(line("web-1").contains("(this)") && line("web-1").contains("same"), "{}", said.out);
    assert!(line("web-2").contains("ready") && line("web-2").contains("different"), "{}", said.out);
    let json = CommandLine::new()
        .variable("SIDECACHE_ADMIN", &admin)
        .run(&["stats", "--all", "--json"])
        .await;
    let listed: Value = serde_json::from_str(&json.out).expect("JSON");
    assert!(names(&listed).contains(&"web-2"));
    drop(second);
}
