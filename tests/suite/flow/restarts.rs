//! Restarts and upgrades that nobody notices: no refused connection, no failed request, no stale
//! read, whichever process dies at which step.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::demo::demo;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::process::signal;
use crate::support::upgrades::{Load, Service, end};
use crate::support::{Client, Origin, Point, RedisServer, eventually, metric, origin};

const LONG_ENOUGH: Duration = Duration::from_secs(30);

/// Clients of a load, about 25 requests a second each, and listeners.
const CLIENTS: usize = 16;
const STREAMS: usize = 50;

/// An app that counts versions, and has streams of events that never end.
fn app() -> Origin {
    let (versions, never) = (versioned(), CancellationToken::new());
    Origin::start(move |request| {
        if request.path != "/events" {
            return versions(request);
        }
        let head = origin::Response::new().chunked("Content-Type: text/event-stream\r\n");
        head.piece(b"data: 1\n\n").until(&never)
    })
}

fn streams() -> u64 {
    STREAMS as u64
}

async fn upgrades(times: usize) {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let load = Load::start(service.address, CLIENTS, STREAMS);
    load.goes_on(streams()).await;
    for _ in 0..times {
        service.upgrade().await;
        load.goes_on(streams()).await;
    }
    load.finish().await;
}

async fn restarts(times: usize) {
    let app = app();
    let mut service = Service::activated(app.address, VERSIONED_RULES).await;
    let load = Load::start(service.address, CLIENTS, STREAMS);
    load.goes_on(streams()).await;
    for _ in 0..times {
        service.restart().await;
        load.goes_on(streams()).await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_by_take_over_lose_no_request() {
    upgrades(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes all processors for a while: `tests/run --all` runs it"]
async fn heavy_ten_upgrades_by_take_over_lose_no_request() {
    upgrades(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_with_a_socket_of_the_service_manager_lose_no_request() {
    restarts(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes all processors for a while: `tests/run --all` runs it"]
async fn heavy_ten_restarts_with_a_socket_of_the_service_manager_lose_no_request() {
    restarts(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_with_redis_lose_no_request_and_both_have_a_journal() {
    let (app, redis) = (app(), RedisServer::start());
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let journal = format!("journal = \"{}\"\n", folder.path().join("journal").display());
    let rules = format!("{}{journal}{VERSIONED_RULES}", redis.table());
    let mut service = Service::start(app.address, &rules).await;
    let load = Load::start(service.address, CLIENTS, STREAMS);
    load.goes_on(streams()).await;
    let second = folder.path().join("journal.2");
    for round in 0..2 {
        service.upgrade().await;
        load.goes_on(streams()).await;
        assert_eq!(second.exists(), round == 0, "each in turn has the first one");
    }
    load.finish().await;
}

/// The text and the word of `X-Cache` of a GET on a connection of its own.
async fn read(service: &Service, path: &str) -> (String, String, String) {
    let reply = Client::new(service.address).get(path, &[]).await;
    let words = (reply.cache().to_owned(), reply.cache_status().to_owned());
    (reply.text().to_owned(), words.0, words.1)
}

async fn is_hit(service: &Service, path: &str) -> bool {
    read(service, path).await.1 == "HIT"
}

/// A write is on its way in the old process while the new one serves. How the new one begins is up
/// to the caller.
async fn caches_after_the_last_write(service: &mut Service, app: &Origin, by_take_over: bool) {
    let held = app.hold("PUT", "/w/a", Point::Before);
    let mut writer = Client::new(service.address);
    let write = tokio::spawn(async move { writer.send("PUT", "/w/a", &[], "").await });
    held.arrived().await;
    let mut old = if by_take_over {
        service.take_over().await
    } else {
        signal(service.child.id(), "TERM");
        let admin = service.admin;
        eventually("the admin port is free at once", LONG_ENOUGH, async || {
            TcpListener::bind(admin).await.is_ok()
        })
        .await;
        let successor = service.spawn(&[]);
        let old = std::mem::replace(&mut service.child, successor);
        service.serving().await;
        old
    };
    for _ in 0..3 {
        let (text, word, status) = read(service, "/v/a").await;
        assert_eq!((&*text, &*word), ("0", "BYPASS"), "{status}");
        assert!(status.contains("hand-over"), "{status}");
    }
    assert_eq!(metric(service.admin, "sidecache_awaits_predecessor").await, 1);
    assert!(old.try_wait().expect("a child can be waited for").is_none());
    held.release();
    assert_eq!(write.await.expect("it does not panic").text(), "1");
    assert_eq!(read(service, "/v/a").await.0, "1", "the write was answered");
    eventually("it caches", LONG_ENOUGH, || is_hit(service, "/v/a")).await;
    assert_eq!(read(service, "/v/a").await.0, "1");
    assert_eq!(end(&mut old).await.code(), Some(0));
    assert_eq!(metric(service.admin, "sidecache_awaits_predecessor").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_caches_once_the_last_write_of_the_old_process_is_answered() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    caches_after_the_last_write(&mut service, &app, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_that_is_started_while_the_old_process_drains() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    caches_after_the_last_write(&mut service, &app, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_successor_caches_at_once_and_reads_no_old_version() {
    let (app, redis) = (app(), RedisServer::start());
    let rules = format!("{}{VERSIONED_RULES}", redis.table());
    let mut service = Service::start(app.address, &rules).await;
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
    let held = app.hold("PUT", "/w/a", Point::Before);
    let mut writer = Client::new(service.address);
    let write = tokio::spawn(async move { writer.send("PUT", "/w/a", &[], "").await });
    held.arrived().await;
    let mut old = service.take_over().await;
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
    assert_eq!(read(&service, "/v/a").await.0, "0");
    held.release();
    assert_eq!(write.await.expect("it does not panic").text(), "1");
    assert_eq!(read(&service, "/v/a").await.0, "1", "the write was answered");
    assert_eq!(end(&mut old).await.code(), Some(0));
}

/// Three processes: the first one still has a write when the third one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_upgrades_waits_for_the_first_process() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let held = app.hold("PUT", "/w/a", Point::Before);
    let mut writer = Client::new(service.address);
    let write = tokio::spawn(async move { writer.send("PUT", "/w/a", &[], "").await });
    held.arrived().await;
    let mut first = service.take_over().await;
    let mut second = service.take_over().await;
    assert_eq!(end(&mut second).await.code(), Some(0), "it has nothing to do");
    let (text, word, status) = read(&service, "/v/a").await;
    assert_eq!((&*text, &*word), ("0", "BYPASS"), "{status}");
    // The first process dies in the midst of its drain; whether it has written, nobody knows.
    signal(first.id(), "KILL");
    let _ = first.wait();
    held.release();
    let _ = write.await;
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_fails_and_a_bad_successor_changes_nothing() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
    let mut second = service.spawn(&[]);
    assert_eq!(end(&mut second).await.code(), Some(1));
    assert!(service.said(1).contains("sidecache --take-over"), "{}", service.said(1));

    let (file, good) = (service.file(), std::fs::read_to_string(service.file()).expect("a file"));
    std::fs::write(&file, "nonsense").expect("it can be written to");
    let mut bad = service.spawn(&["--take-over"]);
    assert_eq!(end(&mut bad).await.code(), Some(64));

    // It fails to build, after it has asked for the sockets: the admin port is another one, and taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound");
    let other = good.replace(&service.admin.to_string(), &port.to_string());
    std::fs::write(&file, other).expect("it can be written to");
    let mut bad = service.spawn(&["serve", "--take-over"]);
    assert_eq!(end(&mut bad).await.code(), Some(1), "{}", service.said(3));
    assert!(is_hit(&service, "/v/a").await, "what is stored is served as ever");

    std::fs::write(&file, good).expect("it can be written to");
    service.upgrade().await;
    assert!(service.said(0).contains("handed over; draining"), "{}", service.said(0));
    assert!(service.meeting_place().join("socket").exists(), "it was handed over, too");
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
    signal(service.child.id(), "TERM");
    assert_eq!(end(&mut service.child).await.code(), Some(0));
    assert!(!service.meeting_place().exists(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_there_a_take_over_is_a_start() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    signal(service.child.id(), "KILL");
    end(&mut service.child).await;
    service.child = service.spawn(&["--take-over"]);
    service.serving().await;
    assert!(service.said(1).contains("no process serves"), "{}", service.said(1));
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;
    signal(service.child.id(), "TERM");
    assert_eq!(end(&mut service.child).await.code(), Some(0));
    assert!(!service.meeting_place().exists(), "nothing is left behind");
}

/// A successor as the test plays it.
struct Taker(BufReader<UnixStream>);

impl Taker {
    async fn connect(service: &Service) -> Self {
        let stream = UnixStream::connect(service.meeting_place().join("socket")).await;
        let mut taker = Self(BufReader::new(stream.expect("the sidecar listens")));
        taker.say("take-over 1").await;
        let offer = taker.hear().await;
        assert!(offer.starts_with("offer 1 "), "{offer}");
        taker
    }

    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).await.expect("it is read");
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("it speaks");
        line.trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_may_die_at_each_step() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    eventually("it caches", LONG_ENOUGH, || is_hit(&service, "/v/a")).await;

    drop(Taker::connect(&service).await);
    assert!(is_hit(&service, "/v/a").await, "it has not even been ready");

    let mut taker = Taker::connect(&service).await;
    taker.say("ready").await;
    assert_eq!(taker.hear().await, "go");
    // From now on the successor may serve.
    let (_, word, status) = read(&service, "/v/a").await;
    assert_eq!(word, "BYPASS", "{status}");
    assert!(status.contains("hand-over"), "{status}");
    drop(taker);
    eventually("it caches again", LONG_ENOUGH, || is_hit(&service, "/v/b")).await;
    let (_, word, status) = read(&service, "/v/a").await;
    assert_eq!(word, "MISS", "the successor may have changed anything: {status}");
    assert_eq!(metric(service.admin, "sidecache_handovers_failed_total").await, 2);

    // What it says is checked, and it may say anything.
    let stream = UnixStream::connect(service.meeting_place().join("socket")).await;
    let mut taker = Taker(BufReader::new(stream.expect("the sidecar listens")));
    taker.say("take-over 2").await;
    assert!(taker.hear().await.starts_with("refused "));
    service.upgrade().await;
}

/// The old process dies while the new one prepares itself, at any moment of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_may_die_at_any_step() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    for after in [0, 20, 40, 60, 80, 120, 160, 200, 240] {
        let successor = service.spawn(&["--take-over"]);
        let mut old = std::mem::replace(&mut service.child, successor);
        tokio::time::sleep(Duration::from_millis(after)).await;
        signal(old.id(), "KILL");
        let _ = old.wait();
        service.serving().await;
        let served = Client::new(service.address).get("/v/a", &[]).await;
        assert_eq!(served.status, 200);
        assert_eq!(Client::of_admin(service.admin).get("/live", &[]).await.status, 200);
    }
}

/// The old process is told to stop while the new one prepares itself: no connection is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_may_be_told_to_stop_at_any_step() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let load = Load::start(service.address, CLIENTS, 0);
    load.goes_on(0).await;
    for after in [0, 50, 100, 200] {
        let successor = service.spawn(&["--take-over"]);
        let mut old = std::mem::replace(&mut service.child, successor);
        eventually("the successor has asked", LONG_ENOUGH, || async {
            service.last_said().contains("taking over from the running process")
        })
        .await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        signal(old.id(), "TERM");
        service.serving().await;
        assert_eq!(end(&mut old).await.code(), Some(0));
        load.goes_on(0).await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigusr2_starts_a_successor_and_the_service_manager_follows() {
    let app = app();
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(LONG_ENOUGH)).expect("an option");
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("the sidecar tells it");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut service = Service::notifying(app.address, VERSIONED_RULES, &path).await;
    assert!(told().starts_with("READY=1"));
    signal(service.child.id(), "USR2");
    let (mut ready, mut main) = (false, None);
    while !ready || main.is_none() {
        let line = told();
        ready |= line.starts_with("READY=1");
        main = main.or_else(|| line.strip_prefix("MAINPID=").map(str::to_owned));
    }
    let main: u32 = main.expect("it was told").parse().expect("a number");
    assert_ne!(main, service.child.id());
    assert_eq!(end(&mut service.child).await.code(), Some(0), "the old process has drained");
    eventually("the new process serves", LONG_ENOUGH, async || is_hit(&service, "/v/a").await)
        .await;
    signal(main, "TERM");
    assert!(told().starts_with("STOPPING=1"));
    eventually("it has stopped", LONG_ENOUGH, async || {
        tokio::net::TcpStream::connect(service.address).await.is_err()
    })
    .await;
}

/// 1053. A process in which no successor can meet it, for want of a folder, never told the service
///       manager that it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1053_the_service_manager_is_told_without_a_state_folder() {
    let folder = tempfile::TempDir::new().expect("a temporary directory can be made");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(LONG_ENOUGH)).expect("an option");
    let text = "[listen]\naddress = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://127.0.0.1:9\"\n\
                [admin]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("proxy.toml"), text).expect("it can be written to");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidecache"))
        .arg("--config")
        .arg(folder.path().join("proxy.toml"))
        .env("STATE_DIRECTORY", "/dev/null")
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built with the tests");
    let mut buffer = [0; 256];
    let told = manager.recv(&mut buffer);
    signal(child.id(), "TERM");
    assert_eq!(end(&mut child).await.code(), Some(0));
    assert!(buffer[..told.expect("it is told")].starts_with(b"READY=1"));
}

/// One open stream does not hold up a stop for longer than `stream_drain`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_early_in_a_drain() {
    let app = app();
    let mut service = Service::start(app.address, VERSIONED_RULES).await;
    let load = Load::start(service.address, 0, 1);
    eventually("the stream is open", LONG_ENOUGH, || async { load.streams() == 1 }).await;
    let since = tokio::time::Instant::now();
    signal(service.child.id(), "TERM");
    assert_eq!(end(&mut service.child).await.code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(10), "drain is 20 s, stream_drain 1 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_end_early_in_a_drain() {
    let (app, _stats) = demo().await;
    let mut service = Service::start(app, "").await;
    let stream = tokio::net::TcpStream::connect(service.address).await.expect("it accepts");
    let (mut socket, _) = tokio_tungstenite::client_async("ws://app.test/ws", stream)
        .await
        .expect("the upgrade is granted");
    socket.send(Message::text("hello")).await.expect("the tunnel takes it");
    let echo = socket.next().await.expect("the tunnel is open").expect("a whole message");
    assert_eq!(echo, Message::text("hello"));
    let since = tokio::time::Instant::now();
    signal(service.child.id(), "TERM");
    while let Some(Ok(_)) = socket.next().await {}
    assert_eq!(end(&mut service.child).await.code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(10), "drain is 20 s, stream_drain 1 s");
}
