//! `sidecache check` warns of what a reviewer would ask about, in the file and in the Redis that it
//! names; `--deny-warnings` makes it 64.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::redis_kinds::RedisKind;
use crate::support::{Client, Origin, RedisServer, Response, Sidecar, eventually};

const RULES: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
    [fields]\ntenant = { header = \"x-tenant-id\" }\n\
    [[routes]]\npath = \"/items\"\nttl = \"5m\"\nkey = [\"tenant\"]\ntags = [\"items:{tenant}\"]\n\
    [[purges]]\npath = \"/items/{*rest}\"\ntags = [\"items:{tenant}\"]\n";

/// What a check says, and its exit code.
fn check(text: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, text).expect("the temporary directory can be written to");
    check_file(&file, arguments)
}

fn check_file(file: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecache"));
    let output = command
        .arg("check")
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built with the tests");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().expect("it ends by itself"), said)
}

/// Checks strictly, and expects exactly this many warnings, at this line, with these words.
fn denied(text: &str, line: usize, words: &[&str]) {
    let (code, said) = check(text, &["--deny-warnings"]);
    assert_eq!(code, 64, "{said}");
    let warnings: Vec<&str> = said.lines().filter(|told| told.contains(": warning: ")).collect();
    assert_eq!(warnings.len(), words.len(), "{said}");
    for (warning, word) in warnings.iter().zip(words) {
        assert!(
            warning.contains(&format!("proxy.toml:{line}:")) && warning.contains(word),
            "{word} in line {line}: {said}"
        );
    }
    assert_eq!(said.matches("  hint: ").count(), words.len(), "each has its mend: {said}");
    assert_eq!(check(text, &[]).0, 0, "without the flag the file can be used");
}

/// Checks strictly, and expects no warning at all. Returns what is said.
fn accepted(text: &str) -> String {
    let (code, said) = check(text, &["--deny-warnings"]);
    assert!(code == 0 && !said.contains("warning"), "{said}");
    said
}

#[test]
fn warnings_are_located_and_denied_on_demand() {
    assert!(accepted(RULES).ends_with(": ok: 1 route, 1 purge rule\n"));
    denied(
        &RULES.replace("ttl = \"5m\"", "ttl = \"5m\"\npass_headers = [\"x-user-id\"]"),
        8,
        &["`x-user-id` identifies the user"],
    );
    denied(
        &RULES.replace(
            "path = \"/items/{*rest}\"\ntags = [\"items:",
            "path = \"/items/{*rest}\"\ntags = [\"item:",
        ),
        12,
        &["this purges nothing"],
    );
    accepted(
        &RULES.replace("ttl = \"5m\"", "ttl = \"5m\"\npass_headers = [\"x-user-id\"] # check: ok"),
    );
}

#[test]
fn the_shipped_file_has_no_warning() {
    let (code, said) =
        check_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml"), &["--deny-warnings"]);
    assert!(code == 0 && !said.contains("warning"), "{said}");
}

/// A file that uses this Redis; the url stands in line 14.
fn using(redis: &RedisServer) -> String {
    format!("{RULES}{}{SECRET}", redis.table())
}

const URL: usize = 14;
const SECRET: &str = "secret = \"0123456789abcdef\"\n";

fn set(redis: &RedisServer, what: &str) {
    let answer = redis.command(&format!("CONFIG SET {what}")).unwrap_or_default();
    assert!(answer.starts_with("+OK"), "{what}: {answer}");
}

#[test]
fn redis_is_asked_how_it_evicts_and_what_it_keeps() {
    let redis = RedisServer::start();
    let text = using(&redis);
    denied(&text, URL, &["this Redis has no `maxmemory`"]);
    set(&redis, "maxmemory 100mb");
    denied(&text, URL, &["`noeviction`: once its 100MiB are full"]);
    for policy in ["allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu", "volatile-ttl"] {
        set(&redis, &format!("maxmemory-policy {policy}"));
        accepted(&text);
    }
    set(&redis, "maxmemory-policy allkeys-random");
    denied(&text, URL, &["the generation of the whole cache"]);
    set(&redis, "maxmemory-policy volatile-random");
    denied(&text, URL, &["the record of a busy tag"]);
    set(&redis, "maxmemory-policy volatile-lru");
    set(&redis, "save \"3600 1\"");
    denied(&text, URL, &["saves to disk (`save 3600 1`)"]);
    accepted(&text.replace("/0\"\n", "/0\" # check: ok, others keep their data in it\n"));
    set(&redis, "appendonly yes");
    denied(&text, URL, &["logs all writes", "saves to disk"]);
    let (code, said) = check(&text, &["--deny-warnings", "--offline"]);
    assert!(code == 0 && !said.contains("warning"), "nobody is asked: {said}");
}

#[test]
fn redis_that_is_a_replica_is_told() {
    let redis = RedisServer::start();
    set(&redis, "maxmemory 100mb");
    set(&redis, "maxmemory-policy volatile-lru");
    assert!(redis.command("REPLICAOF 127.0.0.1 1").unwrap_or_default().starts_with("+OK"));
    denied(&using(&redis), URL, &["is a replica"]);
}

#[test]
fn redis_that_cannot_be_asked_is_a_note() {
    let note = |text: &str, why: &str| {
        let said = accepted(text);
        assert!(
            said.contains(&format!("proxy.toml:{URL}:7: note: ")) && said.contains(why),
            "{said}"
        );
    };
    note(&using(&RedisServer::absent()), "the configuration of Redis was not checked");
    let redis = RedisServer::start();
    redis.freeze();
    let began = Instant::now();
    note(&using(&redis), "it does not answer");
    assert!(began.elapsed() < Duration::from_secs(5), "it is not waited for");
    redis.thaw();
    let suitable = [
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "volatile-lru",
        "--requirepass",
        "open-sesame",
        "--user",
    ];
    let acl = [
        "sidecar",
        "on",
        ">secret",
        "~sidecache:*",
        "resetchannels",
        "-@all",
        "+select",
        "+ping",
        "+client|id",
        "+info",
    ];
    let arguments: Vec<&str> = suitable.into_iter().chain(acl).collect();
    let guarded = RedisKind::start("--port", &arguments);
    let table = |login: &str| {
        let port = guarded.port;
        format!("{RULES}[redis]\nurl = \"redis://{login}@127.0.0.1:{port}/0\"\n{SECRET}")
    };
    note(&table("sidecar:secret"), "whether this Redis saves to disk could not be checked");
    denied(&table("sidecar:wrong-secret"), URL, &["refuses the user name or the password"]);
    let (_, said) = check(&table("sidecar:wrong-secret"), &[]);
    assert!(said.contains("WRONGPASS"), "{said}");
    assert!(!said.contains("wrong-secret"), "SECURITY: {said}");
    accepted(&table(":open-sesame"));
}

/// Milliseconds that a key of this pattern has left, the least of all.
fn left(redis: &RedisServer, pattern: &str) -> Option<i64> {
    let keys = redis.command(&format!("KEYS {pattern}"))?;
    let names = keys.lines().filter(|line| !line.starts_with(['*', '$']) && !line.is_empty());
    names
        .filter_map(|key| {
            redis.command(&format!("PTTL \"{key}\""))?.trim().trim_start_matches(':').parse().ok()
        })
        .min()
}

/// Why no lint speaks of entries that outlive their tags: with the longest times that a file can
/// set they do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_entry_outlives_the_records_of_its_tags() {
    let redis = RedisServer::start();
    let app = Origin::start(|_| Response::ok("here").header("etag", "\"1\""));
    for (number, times) in [
        "ttl = \"1s\"",
        "ttl = \"8760h\"",
        "ttl = \"8760h\"\nstale_while_revalidate = \"8760h\"\nstale_if_error = \"8760h\"",
    ]
    .into_iter()
    .enumerate()
    {
        let namespace = format!("n{number}");
        let rules = format!(
            "{}namespace = \"{namespace}\"\n[limits]\nstale = \"30d\"\n[[routes]]\npath = \
            \"/{{id}}\"\nscope = \"public\"\ntags = [\"a\", \"b:{{id}}\"]\n{times}\n",
            redis.table()
        );
        let sidecar = Sidecar::start(app.address, &rules).await;
        let stored = || left(&redis, &format!("{namespace}:e:*"));
        eventually("an entry is stored in Redis", Duration::from_secs(10), || async {
            Client::new(sidecar.address).get("/a", &[]).await;
            stored().is_some()
        })
        .await;
        let (entry, records) = (
            stored().expect("an entry"),
            left(&redis, &format!("{{{namespace}}}:t:*")).expect("records"),
        );
        assert!(
            entry > 0 && records > entry,
            "{times}: the entry has {entry} ms left, a record {records}"
        );
    }
}
