//! Numbered regressions about a Redis that cannot be used: the log and `check` say where, why, and
//! what to do.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::command::CommandLine;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::redis_kinds::RedisKind;
use crate::support::tls::Certificates;
use crate::support::{Client, Origin, RedisServer, Sidecar, eventually, metric};

const WITHIN: Duration = Duration::from_secs(30);
const TOLD: &str = "Redis cannot be used";

/// A Redis that cannot be used: its `[redis]`, its address, and words about it.
struct Case {
    table: String,
    address: String,
    cause: &'static str,
    remedy: &'static str,
}

/// The servers of the cases.
struct Servers {
    plain: RedisServer,
    locked: RedisKind,
    cluster: RedisKind,
    tls: RedisKind,
    web: SocketAddr,
    certificates: [Certificates; 2],
}

impl Servers {
    async fn start() -> Self {
        let certificates = [Certificates::new(), Certificates::new()];
        let (certificate, key) = certificates[0].server();
        let text = |path: &Path| path.display().to_string();
        let files = [text(&certificate), text(&key), text(&certificates[0].ca())];
        let tls = [
            "--tls-cert-file",
            &files[0],
            "--tls-key-file",
            &files[1],
            "--tls-ca-cert-file",
            &files[2],
            "--tls-auth-clients",
            "no",
        ];
        let user =
            "--requirepass open-sesame --user poor on >s3cret ~* &* +ping +select +client +info";
        let user: Vec<&str> = user.split(' ').collect();
        Self {
            plain: RedisServer::start(),
            locked: RedisKind::start("--port", &user),
            cluster: RedisKind::start("--port", &["--cluster-enabled", "yes"]),
            tls: RedisKind::start("--tls-port", &tls),
            web: http_server().await,
            certificates,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let (plain, locked) = (local(self.plain.port), local(self.locked.port));
        let secure = format!("localhost:{}", self.tls.port);
        let web = self.web.to_string();
        let nobody = local(RedisServer::absent().port);
        let rows = [
            (&*nobody, "redis://ADDR/0", "refuses the connection", "start Redis"),
            ("redis.invalid:6379", "redis://ADDR/0", "its name has no address", "the DNS"),
            (&locked, "redis://:wr0ng@ADDR/0", "WRONGPASS", "correct the user"),
            (&locked, "redis://ADDR/0", "it wants a password", "write `password`"),
            (&secure, "redis://ADDR/0", "without TLS", "rediss://"),
            (&secure, "rediss://ADDR/0", "certificate is not trusted", "`ca_file`"),
            (&plain, "rediss://ADDR/0", "does not speak TLS", "redis://"),
            (&web, "redis://ADDR/0", "an HTTP server answers", "correct host and port"),
            (&plain, "redis://ADDR/99", "no such database", "correct the number"),
            (&plain, "redis-cluster://ADDR", "no node of a cluster", "redis://"),
        ];
        let strangers = self.certificates[1].ca();
        let case = |(address, url, cause, remedy): (&str, &'static str, _, _)| {
            let mut table = format!("[redis]\nurl = \"{}\"\n", url.replace("ADDR", address));
            if url.starts_with("rediss") {
                table = format!("{table}ca_file = \"{}\"\n", strangers.display());
            }
            Case { table, address: address.to_owned(), cause, remedy }
        };
        rows.into_iter().map(case).collect()
    }
}

/// A server that answers what is no HTTP as most of them do.
async fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") && stream.read_buf(&mut seen).await? > 0 {}
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await
            });
        }
    });
    address
}

/// 750. Whatever was wrong with Redis, the log had one line: that it is unreachable. Now it has the
///      address, the cause and the remedy, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r750_the_log_says_why_redis_cannot_be_used() {
    let (servers, app) = (Servers::start().await, Origin::start(versioned()));
    let mut cases = servers.cases();
    let live = [
        (servers.locked.port, "redis://poor:s3cret@ADDR/0", "its ACL refuses", "give the user"),
        (servers.cluster.port, "redis://ADDR/0", "a node of a cluster", "redis-cluster://"),
    ];
    cases.extend(live.map(|(port, url, cause, remedy)| {
        let address = format!("127.0.0.1:{port}");
        let table = format!("[redis]\nurl = \"{}\"\n", url.replace("ADDR", &address));
        Case { table, address, cause, remedy }
    }));
    for some in cases.chunks(4) {
        join_all(some.iter().map(|case| async {
            let rules = format!("{}loss_after = \"300ms\"\n{VERSIONED_RULES}", case.table);
            let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
            eventually(&format!("{}: it is told", case.table), WITHIN, || async {
                sidecar.said().contains(TOLD)
            })
            .await;
            sleep(Duration::from_secs(3)).await;
            let said = sidecar.said();
            let told: Vec<&str> = said.lines().filter(|line| line.contains(TOLD)).collect();
            assert_eq!(told.len(), 1, "{}: {said}", case.table);
            for words in ["WARN", &case.address, case.cause, case.remedy] {
                assert!(told[0].contains(words), "{words}: {}", told[0]);
            }
            for words in ["fred", ".rs", "wr0ng", "s3cret", "Os {", "kind:"] {
                assert!(!said.contains(words), "{words}: {said}");
            }
            let ready = sidecar.admin_get("/ready").await.text().to_owned();
            assert!(ready.contains(case.cause) && ready.contains(&case.address), "{ready}");
        }))
        .await;
    }
}

/// 1052. A call that timed out at a Redis that answers, as on a machine that is short of CPU, was told
///       as a Redis that does not answer, and the true cause came second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1052_a_redis_that_answers_is_not_told_to_be_silent() {
    let user = "--user poor on >s3cret ~* &* +ping +select +client +info";
    let user: Vec<&str> = user.split(' ').collect();
    let (redis, app) = (RedisKind::start("--port", &user), Origin::start(versioned()));
    let address = deaf_until_probed(redis.port).await;
    let rules = format!(
        "[redis]\nurl = \"redis://poor:s3cret@{address}/0\"\nloss_after = \"300ms\"\n{VERSIONED_RULES}"
    );
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    let told = || sidecar.said().lines().filter(|line| line.contains(TOLD)).count();
    eventually("it is told", WITHIN, || async { told() > 0 }).await;
    let said = sidecar.said();
    assert!(said.contains("its ACL refuses") && !said.contains("it does not answer"), "{said}");
    assert_eq!(told(), 1, "{said}");
}

/// A way to a Redis that swallows what a client says until somebody has asked by hand, which shows
/// by the empty line after the first command.
async fn deaf_until_probed(port: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let is_probed = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let is_probed = Arc::clone(&is_probed);
            tokio::spawn(async move {
                let mut begun = Vec::new();
                while !is_probed.load(Ordering::SeqCst) {
                    if stream.read_buf(&mut begun).await? == 0 {
                        return Ok(());
                    }
                    if begun.ends_with(b"\r\n\r\n") {
                        is_probed.store(true, Ordering::SeqCst);
                    }
                }
                let mut redis = TcpStream::connect(("127.0.0.1", port)).await?;
                redis.write_all(&begun).await?;
                copy_bidirectional(&mut stream, &mut redis).await.map(drop)
            });
        }
    });
    address
}

/// 751. So says `check`. It printed Rust's own form of some errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r751_check_says_why_redis_cannot_be_used() {
    let servers = Servers::start().await;
    for case in servers.cases() {
        let rules = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";
        let text = format!("{rules}{}", case.table);
        let said = CommandLine::new().file("proxy.toml", &text).run(&["check"]).await;
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, 0, "{all}");
        // Another machine may have the Redis of the file.
        let is_absence = ["refuses the connection", "its name has no address"];
        let word = if is_absence.contains(&case.cause) { ": note: " } else { ": warning: " };
        let line = all.lines().find(|line| line.contains(word) && line.contains(case.cause));
        assert!(line.is_some_and(|line| line.contains(&case.address)), "{}: {all}", case.table);
        assert!(all.contains(case.remedy), "{}: {all}", case.remedy);
        for words in ["Os {", "kind:", "Error {", "wr0ng"] {
            assert!(!all.contains(words), "{words}: {all}");
        }
    }
}

/// 752. A Redis that becomes a replica, or whose password changes, was lost without a cause. Each
///      change is told once, and so is the recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r752_changes_of_a_redis_in_use_are_told_once_each() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let rules = format!(
        "{}loss_after = \"300ms\"\nlease = \"400ms\"\nrejoin_grace = \"0s\"\n{VERSIONED_RULES}",
        redis.table()
    );
    let sidecar = Sidecar::spawn_logged(app.address, &rules).await;
    let told = |words: &str| {
        sidecar.said().lines().filter(|line| line.contains(TOLD) && line.contains(words)).count()
    };
    let in_use = || async { metric(sidecar.admin, "sidecache_redis_up").await == 1 };
    eventually("Redis is in use", WITHIN, in_use).await;
    assert_eq!(told(""), 0);
    for (break_it, words, mend) in [
        ("REPLICAOF 127.0.0.1 1", "it is a replica", "REPLICAOF NO ONE"),
        (
            "CONFIG SET min-replicas-to-write 1",
            "too few of its replicas",
            "CONFIG SET min-replicas-to-write 0",
        ),
    ] {
        redis.command(break_it).expect("redis answers");
        eventually(words, WITHIN, || async { told(words) == 1 }).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(told(words), 1, "{}", sidecar.said());
        redis.command(mend).expect("redis answers");
        eventually("Redis is in use", WITHIN, in_use).await;
    }
    assert_eq!(told(""), 2, "{}", sidecar.said());
    assert_eq!(sidecar.said().matches("Redis is in use").count(), 3, "{}", sidecar.said());
    let ready: serde_json::Value = sidecar.admin_get("/ready").await.json();
    assert!(!ready.to_string().contains("replica"), "{ready}");
}

/// 866. A Redis that ran out of memory stored nothing new, and nobody was told; one that was out of
///      memory at the start "does not answer", with advice about firewalls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r866_a_redis_out_of_memory_says_what_to_do() {
    let (redis, app) = (RedisServer::start(), Origin::start(versioned()));
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let set = |command: &str| {
        let answer = redis.command(command).expect("redis answers");
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    };
    let running = Sidecar::spawn_logged(app.address, &rules).await;
    eventually("it is ready", WITHIN, || async {
        running.admin_get("/ready").await.text().contains("\"ready\"")
    })
    .await;
    set("CONFIG SET maxmemory-policy noeviction");
    set("CONFIG SET maxmemory 1");
    let starting = Sidecar::spawn_logged(app.address, &rules).await;
    for sidecar in [&running, &starting] {
        eventually("the remedy is shown", WITHIN, || async {
            Client::new(sidecar.address).get("/v/a", &[]).await;
            let ready = sidecar.admin_get("/ready").await;
            ready.text().contains("maxmemory-policy volatile-lru")
        })
        .await;
    }
    let said = running.said();
    let told = said.lines().filter(|line| line.contains("Redis stores nothing new")).count();
    assert_eq!(told, 1, "{said}");
    assert!(!starting.said().contains("firewall"), "{}", starting.said());
}
