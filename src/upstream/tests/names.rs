//! How the origin is found: names that move, connections that grow old, Unix sockets.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;

const NAME: &str = "app.test";
const MAX_AGE: Duration = Duration::from_mins(5);

/// What the test says that the name's addresses are; nothing while names cannot be looked up.
#[derive(Clone, Default)]
struct TestLookup {
    addresses: Arc<Mutex<Option<Vec<SocketAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl TestLookup {
    fn says(&self, addresses: impl Into<Option<Vec<SocketAddr>>>) {
        *self.addresses.lock() = addresses.into();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl NameLookup for TestLookup {
    fn lookup<'a>(&'a self, name: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        assert_eq!(name, NAME);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.addresses.lock().clone();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no name server answers")) })
    }
}

/// A client of an origin that is known by its name.
struct Named {
    upstream: Upstream,
    counters: UpstreamCounters,
    clock: Clock,
    lookup: TestLookup,
}

impl Named {
    fn new(more: impl FnOnce(UpstreamSettings) -> UpstreamSettings) -> Self {
        let (clock, lookup) = (Clock::manual(), TestLookup::default());
        let settings = UpstreamSettings {
            target: Target {
                address: UpstreamAddress::Tcp { tls: false, host: NAME.into(), port: 80 },
                authority: NAME.into(),
            },
            max_age: MAX_AGE,
            ..settings("127.0.0.1:1".parse().unwrap())
        };
        let counters = UpstreamCounters::default();
        let upstream = Upstream::with_lookup(
            more(settings),
            LIMITS,
            clock.clone(),
            counters.clone(),
            Box::new(lookup.clone()),
        );
        Self { upstream: upstream.unwrap(), counters, clock, lookup }
    }

    async fn get(&self) -> Result<String, UpstreamError> {
        let response = self.upstream.send(&ConnectionChoice::Pooled, get()).await?;
        Ok(text(response).await)
    }
}

const OLD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold";
const NEW: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew";

/// An address at which nobody listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_busy_name_that_moves_is_found_at_the_age_of_its_connections() {
    let named = Named::new(|settings| settings);
    named.lookup.says(vec![steady(OLD).await]);
    assert_eq!(named.get().await.unwrap(), "old");
    named.lookup.says(vec![steady(NEW).await]);
    // The connection is never idle for as long as `keep_alive`.
    let step = Duration::from_secs(5);
    let mut passed = Duration::ZERO;
    while named.get().await.unwrap() == "old" {
        named.clock.advance(step);
        passed += step;
        assert!(passed <= MAX_AGE, "requests still go to the old address");
    }
    assert!(passed >= MAX_AGE * 3 / 4, "{passed:?}");
    assert_eq!((named.counters.expired.get(), named.lookup.asked()), (1, 2));
    assert_eq!(named.counters.open.load(Ordering::Relaxed), 1, "the old connection is closed");
}

#[tokio::test]
async fn a_response_outlives_the_age_of_its_connection() {
    let (go_on, wait) = tokio::sync::oneshot::channel();
    // The first request alone waits.
    let wait = Mutex::new(Some(wait));
    let address = app(move |mut conn, _| {
        let mut wait = wait.lock().take();
        async move {
            while conn.head().await.is_some() {
                conn.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await;
                if let Some(wait) = wait.take() {
                    wait.await.unwrap();
                }
                conn.say("two").await;
            }
        }
    })
    .await;
    let named = Named::new(|settings| settings);
    named.lookup.says(vec![address]);
    let response = named.upstream.send(&ConnectionChoice::Pooled, get()).await.unwrap();
    named.clock.advance(2 * MAX_AGE);
    go_on.send(()).unwrap();
    assert_eq!(text(response).await, "onetwo");
    assert_eq!(named.counters.idle.load(Ordering::Relaxed), 0, "it is too old to be kept");
    assert_eq!(named.get().await.unwrap(), "onetwo");
    assert_eq!((named.counters.connects.get(), named.counters.reused.get()), (2, 0));
}

#[tokio::test]
async fn unused_connections_are_closed_at_their_age() {
    let named = Named::new(|settings| UpstreamSettings {
        keep_alive: Duration::from_hours(24),
        ..settings
    });
    named.lookup.says(vec![steady(OLD).await]);
    named.get().await.unwrap();
    assert_eq!(named.counters.open.load(Ordering::Relaxed), 1);
    named.clock.advance(MAX_AGE);
    for _ in 0..100 {
        if named.counters.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn a_failed_connect_looks_the_name_up_and_tries_every_address() {
    let named = Named::new(|settings| settings);
    let old = closed().await;
    named.lookup.says(vec![old]);
    assert!(matches!(named.get().await, Err(UpstreamError::Connect(_))));
    let new = steady(NEW).await;
    named.lookup.says(vec![old, new]);
    assert_eq!(named.get().await.unwrap(), "new", "at once, and although the first refuses");
    assert_eq!(named.lookup.asked(), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_leads_to_the_new_address() {
    let address = app(|mut conn, _| async move {
        conn.head().await;
        conn.say(OLD).await;
        // The old machine goes away.
        conn.head().await;
    })
    .await;
    let named = Named::new(|settings| settings);
    named.lookup.says(vec![address]);
    assert_eq!(named.get().await.unwrap(), "old");
    named.lookup.says(vec![steady(NEW).await]);
    assert_eq!(named.get().await.unwrap(), "new");
}

#[tokio::test]
async fn the_last_addresses_serve_while_names_cannot_be_looked_up() {
    let named = Named::new(|settings| settings);
    assert!(named.get().await.is_err(), "nothing is known yet");
    named.lookup.says(vec![steady(OLD).await]);
    assert_eq!(named.get().await.unwrap(), "old");
    for gone in [None, Some(Vec::new())] {
        named.lookup.says(gone);
        named.clock.advance(MAX_AGE);
        assert_eq!(named.get().await.unwrap(), "old");
    }
    assert_eq!(named.counters.connects.get(), 3);
    named.clock.advance(Duration::from_hours(1));
    assert!(named.get().await.is_err(), "the address may be somebody else's by now");
}

/// An origin at a Unix socket that answers each request so.
fn socket_app(path: &std::path::Path, answer: &'static str) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let mut serving = tokio::task::JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            serving.spawn(async move {
                let mut buffer = Vec::new();
                while socket.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if buffer.ends_with(b"\r\n\r\n") {
                        buffer.clear();
                        drop(socket.write_all(answer.as_bytes()).await);
                    }
                }
            });
        }
    })
}

fn socket_settings(path: &std::path::Path) -> UpstreamSettings {
    let target =
        Target { address: UpstreamAddress::Unix(path.to_owned()), authority: "localhost".into() };
    UpstreamSettings { target, ..settings("127.0.0.1:1".parse().unwrap()) }
}

#[tokio::test]
async fn an_app_that_replaces_its_socket_is_found() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.sock");
    let (upstream, counters) = client(socket_settings(&path));
    let get = async || match upstream.send(&ConnectionChoice::Pooled, get()).await {
        Ok(response) => Ok(text(response).await),
        Err(error) => Err(error),
    };
    let missing = get().await.unwrap_err();
    assert!(
        matches!(&missing, UpstreamError::Connect(why) if why.kind() == io::ErrorKind::NotFound),
        "{missing}"
    );
    let old = socket_app(&path, OLD);
    assert_eq!((get().await.unwrap(), get().await.unwrap()), ("old".into(), "old".into()));
    assert_eq!((counters.connects.get(), counters.reused.get()), (1, 1));
    old.abort();
    assert!(old.await.is_err());
    let refused = get().await.unwrap_err();
    assert!(matches!(refused, UpstreamError::Connect(_)), "{refused}");
    std::fs::remove_file(&path).unwrap();
    let _new = socket_app(&path, NEW);
    assert_eq!(get().await.unwrap(), "new");
}

#[tokio::test]
async fn a_full_queue_of_a_socket_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    // The queue is full, and the app takes nothing from it yet.
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_secs(1), tokio::net::UnixStream::connect(&path))
            .await
            .unwrap()
    {
        waiting.push(connected);
    }
    let (upstream, _) = client(socket_settings(&path));
    let sent =
        tokio::spawn(
            async move { upstream.send(&ConnectionChoice::Pooled, get()).await.map(drop) },
        );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!sent.is_finished(), "{:?}", sent.await);
    socket.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()).unwrap();
    drop(waiting);
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = [0; 512];
        if socket.read(&mut head).await.unwrap() > 0 {
            socket.write_all(NEW.as_bytes()).await.unwrap();
            break;
        }
    }
    sent.await.unwrap().unwrap();
}
