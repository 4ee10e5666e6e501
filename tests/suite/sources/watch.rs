//! Streams of Redis, URLs and files that tell of changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use super::shop::{PATIENCE, in_state, listening, read, source, warmed};
use crate::support::{Client, CommandLine, Origin, RedisServer, Response, Sidecar, eventually};

/// An app with one number, which is its answer everywhere.
pub struct Numbered {
    pub origin: Origin,
    number: Arc<AtomicI64>,
}

impl Numbered {
    pub fn start() -> Self {
        let number = Arc::new(AtomicI64::new(1));
        let said = Arc::clone(&number);
        let origin = Origin::start(move |_| Response::ok(said.load(SeqCst).to_string()));
        Self { origin, number }
    }

    pub fn says(&self, number: i64) {
        self.number.store(number, SeqCst);
    }

    async fn sidecar(&self, source: &str) -> Sidecar {
        let sidecar = Sidecar::start(self.origin.address, &format!("{ROUTES}\n{source}")).await;
        listening(&sidecar).await;
        sidecar
    }
}

pub const ROUTES: &str = r#"
[[routes]]
path = "/items/{id}"
ttl = "1h"
scope = "public"
tags = ["item:{id}"]

[[routes]]
path = "/about"
ttl = "1h"
scope = "public"
tags = ["pages"]
"#;

/// Returns when this says so, and how long that took.
async fn says(sidecar: &Sidecar, path: &str, number: i64) -> Duration {
    let (mut client, began) = (Client::new(sidecar.address), Instant::now());
    while read(&mut client, path).await.0 != number {
        assert!(began.elapsed() < PATIENCE, "{path} never says {number}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

fn add(redis: &RedisServer, fields: &str) {
    let added = redis.command(&format!("XADD sidecache:purges * {fields}")).unwrap_or_default();
    assert!(added.starts_with('$'), "{added}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_script_adds_to_a_stream_is_purged() {
    let (app, redis) = (Numbered::start(), RedisServer::start());
    add(&redis, "tag item:0");
    let lines = format!("url = \"redis://127.0.0.1:{}/0\"", redis.port);
    let tags = "tags = [\"item:{id}\"]\n";
    let sidecar =
        app.sidecar(&format!("[[sources]]\nkind = \"redis-stream\"\n{lines}\n{tags}")).await;
    let mut took = Vec::new();
    for number in 2..60 {
        warmed(&sidecar, "/items/1").await;
        app.says(number);
        add(&redis, ["tag item:1", "tags '{\"id\":[1,2]}'"][usize::from(number % 2 == 0)]);
        took.push(says(&sidecar, "/items/1", number).await);
    }
    took.sort();
    println!("seen after {:?}, at worst {:?}", took[took.len() / 2], took.last());
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
    assert_eq!(source(&sidecar).await["gaps"], json!(0));
    warmed(&sidecar, "/items/1").await;
    add(&redis, "tag users:7");
    add(&redis, "name value");
    eventually("both are counted", PATIENCE, || async {
        source(&sidecar).await["bad_payloads"] == json!(2)
    })
    .await;
    assert!(read(&mut Client::new(sidecar.address), "/items/1").await.1);
}

/// What was removed from the stream before it was read must not stay in the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1430_what_was_removed_from_a_stream_before_it_was_read_is_a_gap() {
    let (app, mut redis) = (Numbered::start(), RedisServer::start());
    let lines = format!(
        "url = \"redis://127.0.0.1:{}/0\"\ndegraded_ttl = \"1h\"\ntags = [\"item:{{id}}\"]",
        redis.port
    );
    let sidecar = app.sidecar(&format!("[[sources]]\nkind = \"redis-stream\"\n{lines}\n")).await;
    add(&redis, "tag item:0");
    warmed(&sidecar, "/about").await;
    let add_two = "EVAL \"redis.call('XADD', KEYS[1], '*', 'tag', 'item:1') redis.call('XADD', \
                   KEYS[1], 'MAXLEN', '1', '*', 'tag', 'item:2')\" 1 sidecache:purges";
    for (number, command, gaps) in [
        (2, add_two, 1),
        (
            3,
            "EVAL \"redis.call('XADD', KEYS[1], '*', 'tag', 'item:1') redis.call('DEL', KEYS[1])\" \
             1 sidecache:purges",
            2,
        ),
    ] {
        eventually("the source has read what was added", PATIENCE, || async {
            source(&sidecar).await["events"].as_i64() >= Some(1)
        })
        .await;
        warmed(&sidecar, "/items/1").await;
        app.says(number);
        redis.command(command);
        says(&sidecar, "/items/1", number).await;
        assert_eq!(source(&sidecar).await["gaps"], json!(gaps));
    }
    // What is added while it is deaf is read by nobody.
    warmed(&sidecar, "/items/1").await;
    redis.kill();
    in_state(&sidecar, "deaf").await;
    warmed(&sidecar, "/items/1").await;
    app.says(4);
    redis.restart();
    add(&redis, "tag item:1");
    listening(&sidecar).await;
    says(&sidecar, "/items/1", 4).await;
    app.says(5);
    add(&redis, "tag item:1");
    says(&sidecar, "/items/1", 5).await;
    assert!(read(&mut Client::new(sidecar.address), "/about").await.1, "no source tells of it");
}

/// Of a stream that was not there before, nobody knew what was removed before it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r1431_what_was_removed_from_a_new_stream_is_a_gap() {
    let (app, redis) = (Numbered::start(), RedisServer::start());
    let lines = format!("url = \"redis://127.0.0.1:{}/0\"\ntags = [\"item:{{id}}\"]", redis.port);
    let sidecar = app.sidecar(&format!("[[sources]]\nkind = \"redis-stream\"\n{lines}\n")).await;
    warmed(&sidecar, "/items/1").await;
    app.says(2);
    redis.command(
        "EVAL \"redis.call('XADD', KEYS[1], '*', 'tag', 'item:1') redis.call('XADD', KEYS[1], \
         'MAXLEN', '1', '*', 'tag', 'item:2')\" 1 sidecache:purges",
    );
    says(&sidecar, "/items/1", 2).await;
    assert_eq!(source(&sidecar).await["gaps"], json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_what_a_url_says_purges() {
    let app = Numbered::start();
    let (run, status) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicU16::new(200)));
    let (last, answers) = (Arc::clone(&run), Arc::clone(&status));
    let sync = Origin::start(move |request| {
        let (run, noise) = (last.load(SeqCst), request.number);
        let body = json!({ "sync": { "last_run": run }, "now": noise }).to_string();
        Response::status(answers.load(SeqCst), body)
    });
    let sidecar = app
        .sidecar(&format!(
            "[[sources]]\nkind = \"poll\"\nurl = \"http://{}/sync?x=1\"\nevery = \"100ms\"\n\
             pointer = \"/sync/last_run\"\ntags = [\"item:{{id}}\"]\ndegraded_ttl = \"200ms\"",
            sync.address
        ))
        .await;
    warmed(&sidecar, "/about").await;
    for number in 2..6 {
        warmed(&sidecar, "/items/1").await;
        app.says(number);
        run.store(number, SeqCst);
        assert!(says(&sidecar, "/items/1", number).await < Duration::from_secs(1));
    }
    assert_eq!(source(&sidecar).await["events"], json!(4), "what is beside the pointer is noise");
    // While it fails, nothing is told, and little is stored.
    status.store(503, SeqCst);
    in_state(&sidecar, "deaf").await;
    assert!(source(&sidecar).await["why"].as_str().is_some_and(|why| why.contains("503")));
    warmed(&sidecar, "/items/1").await;
    app.says(9);
    assert!(says(&sidecar, "/items/1", 9).await < Duration::from_secs(1));
    status.store(200, SeqCst);
    listening(&sidecar).await;
    assert!(read(&mut Client::new(sidecar.address), "/about").await.1, "no source tells of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_a_file_purges() {
    let (app, folder) = (Numbered::start(), TempDir::new().expect("a temporary directory"));
    let file = folder.path().join("last-run");
    let sidecar = app
        .sidecar(&format!(
            "[[sources]]\nkind = \"file\"\npath = \"{}\"\nevery = \"100ms\"\n\
             tags = [\"item:{{id}}\"]",
            file.display()
        ))
        .await;
    let write = |text: &str| std::fs::write(&file, text).expect("the folder can be written to");
    let steps: [(&str, &dyn Fn()); 4] = [
        ("it comes", &|| write("1")),
        ("it grows", &|| write("12")),
        ("it is replaced", &|| {
            let new = folder.path().join("new");
            std::fs::write(&new, "12").expect("the folder can be written to");
            std::fs::rename(&new, &file).expect("a file can be renamed");
        }),
        ("it goes", &|| std::fs::remove_file(&file).expect("it is there")),
    ];
    for (number, (what, change)) in (2..).zip(steps) {
        warmed(&sidecar, "/items/1").await;
        app.says(number);
        change();
        println!("{what}: seen after {:?}", says(&sidecar, "/items/1", number).await);
    }
    assert_eq!(source(&sidecar).await["events"], json!(4));
}

#[tokio::test]
async fn check_says_which_keys_a_kind_of_source_has() {
    let head = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[sources]]\ntags = [\"a\"]\n";
    for (lines, expected) in [
        ("kind = \"redis-stream\"", "there is no [redis]"),
        ("kind = \"redis-stream\"\nurl = \"http://h\"", "not the scheme of a Redis URL"),
        ("kind = \"redis-stream\"\nurl = \"redis://h\"\nstream = \"\"", "not the key of a stream"),
        ("kind = \"redis-stream\"\nurl = \"redis://h\"\nevery = \"1s\"", "`every` says nothing"),
        ("kind = \"poll\"", "`url` is missing"),
        ("kind = \"poll\"\nurl = \"ftp://h\"", "neither http nor https"),
        ("kind = \"poll\"\nurl = \"http://h\"\npointer = \"x\"", "not a JSON pointer"),
        ("kind = \"poll\"\nurl = \"http://h\"\nevery = \"1ms\"", "too small"),
        ("kind = \"poll\"\nurl = \"http://u:hunter@h\"", "has a user or password"),
        ("kind = \"file\"", "`path` is missing"),
        (
            "kind = \"file\"\npath = \"p\"\nchannel = \"c\"",
            "it is for sources of kind \"postgres\"",
        ),
    ] {
        let file = CommandLine::new().file("proxy.toml", &format!("{head}{lines}\n"));
        let said = file.run(&["check", "--offline"]).await;
        assert_eq!(said.code, 64, "{lines}: {}", said.err);
        let text = format!("{}{}", said.out, said.err);
        assert!(text.contains(expected) && !text.contains("hunter"), "{lines}: {text}");
    }
}
