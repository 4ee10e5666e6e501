//! Numbered regressions of uploads: what somebody who sends a body, or a part of one, costs others.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use sidecache::app::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::{Client, RedisServer, Sidecar, Socket, eventually, http1, metric};

const SECOND: Duration = Duration::from_secs(1);

/// Writes to `/w/...` purge `/v/...`; those to `/g/...` do, too, and keep hits away meanwhile.
const RULES: &str = "
[[routes]]
path = \"/v/{*name}\"
ttl = \"5m\"
scope = \"public\"
tags = [\"all\"]
[[purges]]
path = \"/w/{*rest}\"
tags = [\"all\"]
[[purges]]
path = \"/g/{*rest}\"
tags = [\"all\"]
guard = \"bypass\"
";

/// An app that acts on what it has got of an upload, a while after the upload has ended or broken
/// off. A GET answers how often it has acted.
struct PartialApp {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    acted: AtomicU64,
    reads: AtomicUsize,
    /// The heads of writes, each with as much of its body as came.
    writes: Mutex<Vec<String>>,
}

impl Seen {
    fn begin(&self, head: &str) -> usize {
        let mut writes = self.writes.lock().expect("no panic");
        writes.push(head.to_owned());
        writes.len() - 1
    }

    fn note(&self, write: usize, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.writes.lock().expect("no panic")[write].push_str(&text);
    }
}

impl PartialApp {
    async fn start(acts_after: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                tokio::spawn(async move { drop(serve(stream, &seen, acts_after).await) });
            }
        });
        Self { address, seen, task }
    }

    fn acted(&self) -> u64 {
        self.seen.acted.load(Ordering::SeqCst)
    }

    fn reads(&self) -> usize {
        self.seen.reads.load(Ordering::SeqCst)
    }

    /// The writes that it has got, or has begun to get.
    fn writes(&self) -> Vec<String> {
        self.seen.writes.lock().expect("no panic").clone()
    }
}

impl Drop for PartialApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen, acts_after: Duration) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = http1::head_length(&buffer) {
                break length;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..length).collect();
        let (line, headers) = http1::head(&head);
        if line.starts_with("GET ") {
            seen.reads.fetch_add(1, Ordering::SeqCst);
        } else {
            let write = seen.begin(&String::from_utf8_lossy(&head));
            let is_whole = take_body(&mut stream, &mut buffer, &headers, (seen, write)).await;
            sleep(acts_after).await;
            seen.acted.fetch_add(1, Ordering::SeqCst);
            if !is_whole {
                return Ok(());
            }
        }
        let text = seen.acted.load(Ordering::SeqCst).to_string();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        stream.write_all(response.as_bytes()).await?;
    }
}

/// Reads a body, as much as comes of it. Says whether that is all.
async fn take_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    headers: &HeaderMap,
    (seen, write): (&Seen, usize),
) -> bool {
    let is_chunked = http1::names(headers, "transfer-encoding", "chunked");
    let length = headers.get("content-length").and_then(|value| value.to_str().ok());
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
    seen.note(write, buffer);
    loop {
        let used = if is_chunked {
            http1::dechunked(buffer).ok().map(|(_, used)| used)
        } else {
            Some(length).filter(|length| buffer.len() >= *length)
        };
        if let Some(used) = used {
            buffer.drain(..used);
            return true;
        }
        let before = buffer.len();
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return false;
        }
        seen.note(write, &buffer[before..]);
    }
}

async fn read(address: SocketAddr) -> (String, String) {
    let reply = Client::new(address).get("/v/a", &[]).await;
    (reply.cache().to_owned(), reply.text().to_owned())
}

fn hit(version: &str) -> (String, String) {
    ("HIT".to_owned(), version.to_owned())
}

/// Reads until it is stored.
async fn warm(address: SocketAddr) {
    eventually("it is stored", 5 * SECOND, async || read(address).await.0 == "HIT").await;
}

/// An upload on a connection of its own: this head, and as much of the body.
async fn upload(address: SocketAddr, path: &str, framing: &str, body: &str) -> Socket {
    let mut socket = Socket::connect(address).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: app.test\r\n{framing}\r\n\r\n{body}");
    socket.send(head).await;
    socket
}

/// 560. Somebody who broke off a short upload had it sent, and so purged, even without a
///      credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r560_a_short_upload_that_breaks_off_was_never_sent_and_purges_nothing() {
    let app = PartialApp::start(Duration::ZERO).await;
    let sidecar = Sidecar::start(app.address, RULES).await;
    warm(sidecar.address).await;
    let reads = app.reads();
    let framings = [("Content-Length: 77", "1234567"), ("Transfer-Encoding: chunked", "7\r\n123")];
    // With a rule of its own, and on a route alone.
    for path in ["/w/a", "/v/a"] {
        for (framing, body) in framings {
            for reset in [false, true] {
                let socket = upload(sidecar.address, path, framing, body).await;
                sleep(SECOND / 10).await;
                if reset { socket.reset() } else { drop(socket) }
            }
        }
    }
    eventually("all are noticed", 5 * SECOND, async || {
        metric(sidecar.admin, "sidecache_uploads_unsent_total").await == 8
    })
    .await;
    assert_eq!(read(sidecar.address).await, hit("0"));
    assert_eq!((app.writes(), app.reads()), (Vec::new(), reads));
    assert_eq!(metric(sidecar.admin, "sidecache_mutations_total").await, 0);
    assert_eq!(metric(sidecar.admin, "sidecache_upload_bytes").await, 0);
}

/// 561. POSTs that pause held places and connections, so that others got 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r561_uploads_that_pause_take_no_place_and_no_connection() {
    let app = PartialApp::start(Duration::ZERO).await;
    let keys = [("[upstream]", "max_connections = 2\nmax_waiting = 1\nwait_timeout = \"200ms\"")];
    let rules = format!("{RULES}[limits]\nmutations = 2\n");
    let sidecar = Sidecar::start_with(Clock::system(), app.address, &keys, &rules).await;
    let mut paused = Vec::new();
    for _ in 0..20 {
        paused.push(upload(sidecar.address, "/w/a", "Content-Length: 10", "123").await);
    }
    eventually("all have begun", 5 * SECOND, async || {
        metric(sidecar.admin, "sidecache_upload_bytes").await == 60
    })
    .await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.get("/v/a", &[]).await.status, 200);
    assert_eq!(client.send("POST", "/w/a", &[], "whole").await.status, 200);
    assert!(app.writes().len() == 1, "{:?}", app.writes());
    // They may go on, one after the other.
    for mut upload in paused {
        upload.send("4567890").await;
        assert!(upload.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(app.acted(), 21);
    assert_eq!(metric(sidecar.admin, "sidecache_upload_bytes").await, 0);
}

/// 562. What is read before it is sent goes out as it came: with its length, or in chunks with its
///      trailers. `Expect` is answered when the body is read, over HTTP/2 all is the same, and what
///      is longer, or has no rule, streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r562_what_is_read_before_goes_out_as_it_came() {
    let app = PartialApp::start(Duration::ZERO).await;
    let sidecar = Sidecar::start(app.address, RULES).await;
    let last = || app.writes().pop().unwrap_or_default().to_ascii_lowercase();
    let mut sized =
        upload(sidecar.address, "/w/a", "Content-Length: 5\r\nExpect: 100-continue", "").await;
    assert!(sized.until("\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    assert_eq!(app.writes().len(), 0);
    sized.send("12345").await;
    assert!(sized.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(last().contains("content-length: 5\r\n") && last().ends_with("\r\n\r\n12345"));

    let framing = "Transfer-Encoding: chunked\r\nTrailer: x-sum";
    let body = "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n";
    let mut chunked = upload(sidecar.address, "/w/a", framing, body).await;
    assert!(chunked.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(last().contains("transfer-encoding: chunked"), "{}", last());
    assert!(last().ends_with("5\r\nabcde\r\n0\r\nx-sum: 7\r\n\r\n"), "{}", last());
    let mut empty = upload(sidecar.address, "/w/a", framing, "0\r\n\r\n").await;
    assert!(empty.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(last().contains("transfer-encoding: chunked") && last().ends_with("\r\n\r\n0\r\n\r\n"));

    let mut two = Client::http2(sidecar.address);
    assert_eq!(two.send("POST", "/w/a", &[], "12345").await.status, 200);
    assert!(last().contains("content-length: 5\r\n") && last().ends_with("\r\n\r\n12345"));
    let pieces = futures_util::stream::iter(["ab", "c"].map(Bytes::from));
    assert_eq!(two.upload("POST", "/w/a", pieces).await.status, 200);
    assert!(last().contains("transfer-encoding: chunked"), "{}", last());

    let long = format!("Content-Length: {}", 64 * 1024 + 1);
    for (path, framing) in [("/w/a", &*long), ("/elsewhere", "Content-Length: 5")] {
        let before = app.writes().len();
        let _open = upload(sidecar.address, path, framing, "part").await;
        eventually("it streams", 5 * SECOND, async || app.writes().len() > before).await;
        eventually("its bytes, too", 5 * SECOND, async || last().ends_with("part")).await;
    }
}

/// 563. A body of unknown length is waited for, but not for long: the client may wait for the
///      answer to its beginning. Where a rule reads the body, all of it is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r563_a_body_of_unknown_length_streams_after_a_second() {
    let app = PartialApp::start(Duration::ZERO).await;
    let fields = "[fields]\nid = { body = \"/id\" }\n[[purges]]\npath = \"/b\"\n\
                  methods = [\"POST\"]\ntags = [\"all\", \"id:{id}\"]\n";
    let sidecar = Sidecar::start(app.address, &format!("{RULES}{fields}")).await;
    let began = Instant::now();
    let framing = "Transfer-Encoding: chunked";
    let mut open = upload(sidecar.address, "/w/a", framing, "4\r\npart\r\n").await;
    sleep(SECOND / 2).await;
    assert_eq!(app.writes().len(), 0, "{:?}", began.elapsed());
    eventually("it streams", 5 * SECOND, async || app.writes().len() == 1).await;
    assert!(began.elapsed() > SECOND * 9 / 10);
    open.send("4\r\nmore\r\n").await;
    eventually("and goes on", 5 * SECOND, async || app.writes()[0].contains("more")).await;
    open.send("0\r\n\r\n").await;
    assert!(open.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));

    let framing = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
    let mut slow = upload(sidecar.address, "/b", framing, "7\r\n{\"id\":1\r\n").await;
    sleep(SECOND * 3 / 2).await;
    slow.send("1\r\n}\r\n0\r\n\r\n").await;
    assert!(slow.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(metric(sidecar.admin, "sidecache_purge_missing_fields_total").await, 0);
}

/// 564. What is read before it is sent has one budget. One client cannot spend all of it; where
///      there is no room, a write is streamed and never refused, and a rule that reads a body
///      still does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r564_uploads_have_a_budget_and_are_streamed_beyond_it() {
    let app = PartialApp::start(Duration::ZERO).await;
    let rules = format!(
        "{RULES}[limits]\nuploads = \"100B\"\npurge_body = \"80B\"\n[fields]\nid = {{ body = \
         \"/id\" }}\n[[purges]]\npath = \"/b\"\ntags = [\"id:{{id}}\"]\n"
    );
    let sidecar = Sidecar::start(app.address, &rules).await;
    let length = "Content-Length: 60";
    let mut held = upload(sidecar.address, "/w/a", length, &"x".repeat(50)).await;
    eventually("half is taken", 5 * SECOND, async || {
        metric(sidecar.admin, "sidecache_upload_bytes").await == 50
    })
    .await;
    let mut client = Client::new(sidecar.address);
    assert_eq!(client.send("POST", "/w/a", &[], "0123456789").await.status, 200);
    let over = "sidecache_limit_reached_total{limit=\"limits.uploads\"}";
    assert_eq!(metric(sidecar.admin, over).await, 1);
    let json = &[("content-type", "application/json")];
    assert_eq!(client.send("POST", "/b", json, "{\"id\":12345}").await.status, 200);
    assert_eq!(metric(sidecar.admin, over).await, 2);
    assert_eq!(metric(sidecar.admin, "sidecache_purge_missing_fields_total").await, 0);
    held.send("x".repeat(10)).await;
    // Its last bytes found no room: it was streamed.
    assert!(held.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    assert_eq!(app.acted(), 3);
    eventually("all is given back", SECOND, async || {
        metric(sidecar.admin, "sidecache_upload_bytes").await == 0
    })
    .await;
}

/// 565. A client could send a byte of a body now and then for as long as it liked. Now it has
///      `limits.upload_time` for the whole, before it is sent or while it streams; where no rule or
///      route has the path, it still has all the time it wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r565_a_client_has_a_limited_time_for_the_whole_of_an_upload() {
    let app = PartialApp::start(Duration::ZERO).await;
    let rules = format!("{RULES}[limits]\nupload_time = \"1s\"\ngather = \"0s\"\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    let long = "Content-Length: 100000";
    let cases =
        [("/w/a", "Content-Length: 10", false), ("/w/a", long, false), ("/elsewhere", long, true)];
    for (path, framing, may_go_on) in cases {
        let mut open = upload(sidecar.address, path, framing, "").await;
        for _ in 0..9 {
            // The peer may have closed by then.
            let _ = tokio::time::timeout(SECOND, open.send("x")).await;
            sleep(SECOND / 5).await;
        }
        if may_go_on {
            open.send("x".repeat(99_991)).await;
        }
        let answer = open.until("\r\n\r\n").await;
        let status = if may_go_on { "HTTP/1.1 200" } else { "HTTP/1.1 400" };
        assert!(answer.starts_with(status), "{path} {framing}: {answer}");
    }
    let late = "sidecache_limit_reached_total{limit=\"limits.upload_time\"}";
    assert_eq!(metric(sidecar.admin, late).await, 2);
    assert_eq!(metric(sidecar.admin, "sidecache_uploads_unsent_total").await, 1);
}

/// Breaks off long uploads, of which the app gets a part: one every tenth of a second.
async fn break_off(address: SocketAddr, path: &str, times: usize) {
    for _ in 0..times {
        let open = upload(address, path, "Content-Length: 100000", &"x".repeat(1000)).await;
        sleep(SECOND / 10).await;
        drop(open);
    }
}

/// 566. Each long upload that was broken off purged by itself. They are purged together, after the
///      app can have acted on them, and none is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r566_uploads_that_break_off_are_purged_together_and_none_is_forgotten() {
    let redis = RedisServer::start();
    for shared in [false, true] {
        let app = PartialApp::start(SECOND / 5).await;
        let more = if shared { redis.table() } else { String::new() };
        let rules = format!("{RULES}[limits]\ngather = \"2s\"\n{more}\n");
        let sidecar = Sidecar::start(app.address, &rules).await;
        warm(sidecar.address).await;
        // It is the first, so that nothing is known of the app's latency.
        break_off(sidecar.address, "/w/a", 1).await;
        assert_eq!(read(sidecar.address).await, hit("0"), "nobody was answered yet");
        eventually("the app has acted, and it shows", 3 * SECOND, async || {
            read(sidecar.address).await.1 == "1"
        })
        .await;
        warm(sidecar.address).await;
        let (reads, purges) = (app.reads(), purges(&sidecar).await);
        break_off(sidecar.address, "/w/a", 10).await;
        // Paths of their own do not make purges of what is shared.
        for number in 0..5 {
            break_off(sidecar.address, &format!("/w/{number}"), 1).await;
        }
        eventually("all of them show", 6 * SECOND, async || read(sidecar.address).await.1 == "16")
            .await;
        assert!(app.reads() <= reads + 4, "{} reads", app.reads() - reads);
        // One or two of the tag, and one for each path.
        let made = self::purges(&sidecar).await - purges;
        assert!((1..=8).contains(&made), "{made} purges");
        assert!(metric(sidecar.admin, "sidecache_outcomes_gathered_total").await >= 5);
    }
}

async fn purges(sidecar: &Sidecar) -> u64 {
    metric(sidecar.admin, "sidecache_purges_total{by=\"write\",kind=\"hard\"}").await
}

/// 567. A client that broke off its own upload, and still listens, is answered only after the
///      purge: the answer is one to a write that may have been done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r567_who_broke_off_an_upload_is_answered_after_the_purge() {
    let app = PartialApp::start(Duration::ZERO).await;
    let rules = format!("{RULES}[limits]\ngather = \"2s\"\nupload_time = \"1s\"\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    for round in 0..2 {
        warm(sidecar.address).await;
        let before = read(sidecar.address).await;
        let mut open = upload(sidecar.address, "/w/a", "Content-Length: 100000", "part").await;
        let answered = tokio::spawn(async move { open.until("\r\n\r\n").await });
        while !answered.is_finished() {
            let seen = read(sidecar.address).await;
            assert!(seen == before || app.acted() == round + 1, "{seen:?}");
            sleep(SECOND / 50).await;
        }
        assert!(answered.await.expect("no panic").starts_with("HTTP/1.1 400"));
        assert_eq!(read(sidecar.address).await.1, (round + 1).to_string(), "after the answer");
    }
}

/// 568. One POST whose body did not go on kept hits away for as long as it liked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r568_hits_are_kept_away_from_the_end_of_an_upload_on() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let refusing = format!("{}\nwrites = \"refuse\"\n", servers[1].table());
    for more in [String::new(), servers[0].table(), refusing] {
        let app = PartialApp::start(SECOND * 3 / 2).await;
        let rules = format!("{RULES}{more}");
        let sidecar = Sidecar::start(app.address, &rules).await;
        // Without Redis a sidecar shares nothing, and keeps its own hits away by rule alone.
        let other = Sidecar::start(app.address, &rules).await;
        let (path, reader) = match &*more {
            "" => ("/g/a", sidecar.address),
            more if more.contains("refuse") => ("/w/a", other.address),
            _ => ("/g/a", other.address),
        };
        for (number, framing) in
            ["Content-Length: 100000", "Transfer-Encoding: chunked"].into_iter().enumerate()
        {
            let version = number.to_string();
            warm(reader).await;
            let (first, rest) = if framing.starts_with("Content") {
                ("x".repeat(50_000), "x".repeat(50_000))
            } else {
                ("5\r\nxxxxx\r\n".to_owned(), "5\r\nxxxxx\r\n0\r\n\r\n".to_owned())
            };
            let mut open = upload(sidecar.address, path, framing, &first).await;
            sleep(SECOND * 3 / 2).await;
            assert_eq!(app.writes().len(), number + 1, "it streams");
            assert_eq!(read(reader).await, hit(&version), "{more} {framing}");
            open.send(rest).await;
            sleep(SECOND / 4).await;
            assert_eq!(read(reader).await.0, "BYPASS", "{more} {framing}: the app has all of it");
            assert!(open.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
            assert_eq!(read(reader).await.1, (number + 1).to_string());
        }
    }
}

/// 569. Where writes are refused without Redis, an upload whose end comes after Redis was lost is
///      broken off before its end: the app never has all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r569_an_upload_is_refused_at_its_end_where_redis_was_lost_meanwhile() {
    let mut redis = RedisServer::start();
    let app = PartialApp::start(Duration::ZERO).await;
    let rules =
        format!("{RULES}{}\nwrites = \"refuse\"\n[limits]\ngather = \"0s\"\n", redis.table());
    let sidecar = Sidecar::start(app.address, &rules).await;
    let mut open =
        upload(sidecar.address, "/w/a", "Content-Length: 100000", &"x".repeat(50_000)).await;
    eventually("it streams", 5 * SECOND, async || app.writes().len() == 1).await;
    redis.kill();
    eventually("it is noticed", 10 * SECOND, async || {
        metric(sidecar.admin, "sidecache_redis_up").await == 0
    })
    .await;
    open.send("x".repeat(50_000)).await;
    eventually("the app lost the upload", 10 * SECOND, async || app.acted() == 1).await;
    assert!(!app.writes()[0].ends_with(&"x".repeat(100_000)), "it has all of it");
    redis.restart();
    let answer = open.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

/// 570. A whole write whose client has left is not purged for by itself either, where the app
///      fails: nobody has its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r570_failed_writes_whose_clients_have_left_are_purged_together() {
    let app = crate::support::Origin::slow(SECOND / 5, |request| {
        let status = if request.method == "POST" { 500 } else { 200 };
        crate::support::Response::status(status, "x")
    });
    let rules = format!("{RULES}[limits]\ngather = \"3s\"\n");
    let sidecar = Sidecar::start(app.address, &rules).await;
    warm(sidecar.address).await;
    let before = purges(&sidecar).await;
    // Over HTTP/2 a client says so when it gives a request up.
    let mut two = Client::http2(sidecar.address);
    for _ in 0..20 {
        let mut client = two.beside().await;
        let write = tokio::spawn(async move { client.send("POST", "/w/a", &[], "abc").await });
        sleep(SECOND / 20).await;
        write.abort();
    }
    eventually("the app has got them", 5 * SECOND, async || app.count("POST", "/w/a") == 20).await;
    eventually("they are purged", 5 * SECOND, async || purges(&sidecar).await > before).await;
    sleep(SECOND).await;
    let made = purges(&sidecar).await - before;
    assert!(made <= 3, "{made} purges");
}

/// 571. A sidecar that dies before the purge that it planned leaves its mark: the others purge. One
///      that is stopped makes the purge as soon as the app can have acted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r571_a_purge_that_was_planned_is_made_even_if_its_sidecar_ends() {
    for signal in ["-KILL", "-TERM"] {
        let redis = RedisServer::start();
        let app = PartialApp::start(SECOND / 5).await;
        let rules = format!("{RULES}[limits]\ngather = \"1m\"\n{}\n", redis.table());
        let (one, other) =
            (Sidecar::spawn(app.address, &rules).await, Sidecar::start(app.address, &rules).await);
        warm(other.address).await;
        break_off(one.address, "/w/a", 1).await;
        eventually("the first is purged soon", 5 * SECOND, async || {
            read(other.address).await.1 == "1"
        })
        .await;
        warm(other.address).await;
        break_off(one.address, "/w/a", 2).await;
        eventually("the app has acted", 5 * SECOND, async || app.acted() == 3).await;
        sleep(SECOND).await;
        assert_eq!(read(other.address).await, hit("1"), "the next one is due in a minute");
        let pid = one.pid().to_string();
        let killed = std::process::Command::new("kill").args([signal, &pid]).status();
        assert!(killed.expect("there is a kill").success());
        eventually("it is purged", 15 * SECOND, async || read(other.address).await.1 == "3").await;
    }
}

/// How a request over HTTP/2 ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Stream,
    Trailers,
    Reset(u8),
}

/// A client of HTTP/2 that writes its frames by itself.
struct FrameClient(TcpStream);

impl FrameClient {
    async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the sidecar accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("the sidecar reads");
        let mut client = Self(stream);
        client.frame(4, 0, 0, &[]).await;
        let mut settings = [0; 9];
        client.0.read_exact(&mut settings).await.expect("the sidecar has settings");
        assert_eq!(settings[3], 4);
        client.frame(4, 1, 0, &[]).await;
        client
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, stream]);
        bytes.extend(payload);
        self.0.write_all(&bytes).await.expect("the sidecar reads");
    }

    /// Sends the first request of the connection. What comes back is not read.
    async fn post(&mut self, path: &str, length: Option<&str>, body: &[u8], end: End) {
        let pseudo = [":method", ":scheme", ":authority", ":path"].into_iter();
        let mut fields: Vec<_> = pseudo.zip(["POST", "http", "app.test", path]).collect();
        fields.extend(length.map(|length| ("content-length", length)));
        self.frame(1, 4, 1, &field_block(&fields)).await;
        for piece in body.chunks(16 * 1024) {
            self.frame(0, 0, 1, piece).await;
            sleep(SECOND / 20).await;
        }
        match end {
            End::Stream => self.frame(0, 1, 1, &[]).await,
            End::Trailers => self.frame(1, 5, 1, &field_block(&[("x-sum", "7")])).await,
            End::Reset(reason) => self.frame(3, 0, 1, &[0, 0, 0, reason]).await,
        }
    }
}

/// Literals without indexing (RFC 7541 6.2.2).
fn field_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// 592. An upload over HTTP/2 that was reset with `NO_ERROR` instead of `END_STREAM` was given to
///      the app as a whole one, which committed what it had got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r592_an_upload_that_is_reset_without_an_error_is_not_whole() {
    let app = PartialApp::start(Duration::ZERO).await;
    let sidecar = Sidecar::start(app.address, RULES).await;
    let ends = [End::Stream, End::Trailers, End::Reset(0), End::Reset(8)];
    let mut unsent = 0;
    for (path, size, length) in [
        ("/w/a", 10, None),
        ("/w/a", 0, None),
        ("/w/a", 10, Some("12")),
        ("/w/a", 80_000, None),
        ("/v/a", 10, None),
        ("/elsewhere", 0, None),
        ("/elsewhere", 10, None),
        ("/elsewhere", 10, Some("12")),
        ("/elsewhere", 80_000, None),
    ] {
        for end in ends {
            let whole = !matches!(end, End::Reset(_));
            if whole && length.is_some() {
                continue;
            }
            let shown = format!("{path} {size} {length:?} {end:?}");
            let (before, acted) = (app.writes().len(), app.acted());
            let body = "x".repeat(size);
            let mut client = FrameClient::connect(sidecar.address).await;
            client.post(path, length, body.as_bytes(), end).await;
            if path != "/elsewhere" && size < 80_000 && !whole {
                unsent += 1;
                eventually(&shown, 5 * SECOND, async || {
                    metric(sidecar.admin, "sidecache_uploads_unsent_total").await == unsent
                })
                .await;
                assert_eq!(app.writes().len(), before, "{shown}");
                continue;
            }
            if size == 0 && !whole {
                // It may have been broken off before anything was sent.
                sleep(SECOND / 2).await;
            } else {
                eventually(&shown, 5 * SECOND, async || app.acted() == acted + 1).await;
            }
            let last = app.writes().split_off(before).pop().unwrap_or_default();
            let ended =
                last.ends_with("\r\n0\r\n\r\n") || last.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n");
            assert_eq!(ended, whole, "{shown}: {}", &last[..last.len().min(500)]);
            let got = last.split("\r\n\r\n").nth(1).unwrap_or_default();
            assert!(!whole || got.matches('x').count() >= size, "{shown}");
        }
    }
    assert_eq!(metric(sidecar.admin, "sidecache_uploads_unsent_total").await, unsent);
}
