//! Redis fails: it dies, comes back empty or with an old dump, hangs, forgets, and refuses.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::{KEYS, Stage};
use super::{LONG, REJOIN, STRICT};
use crate::support::RedisServer;

/// What entries may outlive the last contact by in the runs that serve from memory while Redis is
/// lost.
const DEGRADED_TTL: Duration = Duration::from_millis(500);
const FROM_MEMORY: &str = "on_redis_loss = \"memory\"\ndegraded_ttl = \"500ms\"";

/// A number from `INFO`.
fn info(redis: &RedisServer, section: &str, name: &str) -> u64 {
    let text = redis.command(&format!("INFO {section}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO {section} tells {name}: {text}"))
}

fn configure(redis: &RedisServer, setting: &str) {
    let answer = redis.command(&format!("CONFIG SET {setting}")).unwrap_or_default();
    assert!(answer.starts_with("+OK"), "CONFIG SET {setting}: {answer}");
}

/// Runs a script, and returns the number it returns.
fn eval(redis: &RedisServer, script: &str) -> u64 {
    let answer = redis.command(&format!("EVAL \"{script}\" 0")).unwrap_or_default();
    answer
        .trim()
        .strip_prefix(':')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{script}: {answer}"))
}

/// How many tags have a record.
const RECORDS: &str = "return #redis.call('KEYS', '{*}:t:*')";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_is_killed_and_comes_back_empty() {
    let fault = async |stage: &mut Stage| {
        stage.redis.kill();
        sleep(Duration::from_secs(2)).await;
        stage.redis.restart();
        sleep(Duration::from_millis(500)).await;
        // And so fast that some may not even notice.
        stage.redis.restart();
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_comes_back_with_an_old_dump() {
    let fault = async |stage: &mut Stage| {
        let dump = stage.redis.dump();
        // All keys are written meanwhile: what the dump holds is outdated.
        stage.writes_each_key().await;
        stage.redis.restart_with(&dump);
        assert!(eval(&stage.redis, RECORDS) > 0, "the dump held records");
        sleep(Duration::from_secs(1)).await;
        stage.redis.kill();
        sleep(Duration::from_secs(1)).await;
        stage.redis.restart_with(&dump);
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_is_stopped_for_longer_than_the_lease() {
    let fault = async |stage: &mut Stage| {
        stage.redis.freeze();
        sleep(LONG).await;
        stage.redis.thaw();
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_everything_is_flushed() {
    let fault = async |stage: &mut Stage| {
        for _ in 0..5 {
            assert!(eval(&stage.redis, RECORDS) > 0, "there is something to flush");
            assert_eq!(stage.redis.command("FLUSHALL").as_deref(), Some("+OK\r\n"));
            sleep(Duration::from_millis(400)).await;
        }
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_records_are_evicted() {
    let fault = async |stage: &mut Stage| {
        let (redis, mut lost) = (&stage.redis, 0);
        let evicted = info(redis, "stats", "evicted_keys");
        configure(redis, "maxmemory-policy allkeys-random");
        for round in 0..10 {
            configure(
                redis,
                &format!("maxmemory {}", info(redis, "memory", "used_memory") + 300_000),
            );
            for part in 0..10 {
                let name = format!("'foreign:{round}:{part}:' .. i");
                // Redis evicts before it runs a script, and nobody can seed a record anew between that
                // and the count.
                let fill = format!(
                    "for i = 1, 100 do redis.call('SET', {name}, string.rep('x', 1000)) end"
                );
                lost += usize::from(eval(redis, &format!("{fill} {RECORDS}")) < KEYS as u64);
            }
            sleep(Duration::from_millis(200)).await;
        }
        assert!(
            info(redis, "stats", "evicted_keys") > evicted && lost > 0,
            "no record was ever evicted"
        );
        configure(redis, "maxmemory 0");
        // A soak does this again and again, and among ever more keys no record would be picked.
        let foreign = "for _, key in ipairs(redis.call('KEYS', 'foreign:*')) do \
                       redis.call('DEL', key) end return 1";
        eval(redis, foreign);
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_records_are_deleted_by_hand() {
    let fault = async |stage: &mut Stage| {
        for _ in 0..10 {
            let script = "local n = 0 for _, key in ipairs(redis.call('KEYS', '{*}:t:*')) do n = \
                n + redis.call('DEL', key) end return n";
            assert!(eval(&stage.redis, script) > 0, "there are records to delete");
            sleep(Duration::from_millis(200)).await;
        }
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_has_no_memory_left() {
    let fault = async |stage: &mut Stage| {
        configure(&stage.redis, "maxmemory-policy noeviction");
        configure(&stage.redis, "maxmemory 1");
        let refused = stage.redis.command("SET foreign x").unwrap_or_default();
        assert!(refused.starts_with("-OOM"), "{refused}");
        sleep(Duration::from_secs(2)).await;
        configure(&stage.redis, "maxmemory 0");
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_served_from_memory_while_redis_is_dead_is_outdated_for_no_longer_than_degraded_ttl()
 {
    let fault = async |stage: &mut Stage| {
        stage.redis.kill();
        // Longer than a lease, for which writes wait: those that come after it are answered while
        // Redis is dead, and have to be seen.
        sleep(Duration::from_secs(3)).await;
        stage.redis.restart();
    };
    let run = Stage::set(FROM_MEMORY).await.run(fault).await;
    run.is_coherent_but(
        |one, round| {
            one.age() <= DEGRADED_TTL
                && round.broken <= one.read.sent
                && one.read.sent < round.healed + REJOIN
        },
        |_, _| false,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_served_from_memory_while_redis_is_stopped_is_outdated_for_no_longer_than_degraded_ttl()
 {
    let fault = async |stage: &mut Stage| {
        stage.redis.freeze();
        sleep(LONG).await;
        stage.redis.thaw();
    };
    let run = Stage::set(FROM_MEMORY).await.run(fault).await;
    run.is_coherent_but(
        |one, round| {
            one.age() <= DEGRADED_TTL
                && round.broken <= one.read.sent
                && one.read.sent < round.healed + REJOIN
        },
        |_, _| false,
    );
}
