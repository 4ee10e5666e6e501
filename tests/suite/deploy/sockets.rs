//! Unix sockets on both sides: a real nginx in front, by what the README of `deploy/nginx` says,
//! and an app behind one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::app;
use crate::support::child::ChildSidecar;
use crate::support::demo::demo;
use crate::support::nginx::Nginx;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::process::free_port;
use crate::support::sidecar::check;
use crate::support::{Client, Origin, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The folder of the two sockets.
struct Sockets(TempDir);

impl Sockets {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory can be made"))
    }

    fn app(&self) -> PathBuf {
        self.0.path().join("app.sock")
    }

    fn sidecar(&self) -> PathBuf {
        self.0.path().join("sidecache.sock")
    }

    /// The first three tables, with these lines in the first.
    fn tables(&self, admin: SocketAddr, listen: &str) -> String {
        format!(
            "[listen]\naddress = \"unix:{}\"\n{listen}\n[upstream]\nurl = \"unix:{}\"\n[admin]\n\
             address = \"{admin}\"\n",
            self.sidecar().display(),
            self.app().display()
        )
    }
}

/// Lets what listens on TCP listen on a socket, too.
fn bridge(path: &Path, app: SocketAddr) -> JoinHandle<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("the folder is there");
    tokio::spawn(async move {
        let mut bridges = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            bridges.spawn(async move {
                if let Ok(mut far) = TcpStream::connect(app).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// nginx, the sidecar and the app, with sockets between them.
struct Chain {
    nginx: Nginx,
    sidecar: ChildSidecar,
    app: JoinHandle<()>,
    sockets: Sockets,
}

impl Chain {
    async fn start(app: SocketAddr, listen: &str, rules: &str) -> Self {
        let (sockets, admin) = (Sockets::new(), loopback(free_port()));
        let bridged = bridge(&sockets.app(), app);
        let text = format!("{}{rules}", sockets.tables(admin, listen));
        let sidecar = ChildSidecar::spawn_file(admin, &text).await;
        let socket = sockets.sidecar();
        eventually("the socket is there", LONG_ENOUGH, async || {
            UnixStream::connect(&socket).await.is_ok()
        })
        .await;
        let nginx = Nginx::start_before(&format!("unix:{}", socket.display()), app).await;
        Self { nginx, sidecar, app: bridged, sockets }
    }
}

const TRUST: &str = "trusted_proxies = [\"unix\"]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_hits_and_writes_pass_through_sockets() {
    let app = Origin::start(versioned());
    let mut chain = Chain::start(app.address, TRUST, VERSIONED_RULES).await;
    let mut client = Client::new(chain.nginx.address);
    for (expected, body) in [("MISS", "0"), ("HIT", "0")] {
        let reply = client.get("/v/a", &[]).await;
        assert_eq!((reply.cache(), reply.text()), (expected, body), "{}", reply.cache_status());
    }
    let written = client.send("POST", "/w/a", &[], "x").await;
    assert_eq!((written.status, written.text()), (200, "1"));
    let reply = client.get("/v/a", &[]).await;
    assert_eq!((reply.cache(), reply.text()), ("MISS", "1"));
    // A request that is passed names its client, as nginx saw it, and the host that it asked for.
    client.get("/who", &[("x-forwarded-for", "198.51.100.66")]).await;
    let passed = app.last("/who");
    assert_eq!(passed.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(passed.header("host").as_deref(), Some("app.test"));

    // The app restarts, and makes its socket anew.
    chain.app.abort();
    let reply = client.get("/who", &[]).await;
    assert!(reply.status == 200 || reply.status == 502, "{}", reply.status);
    chain.app = bridge(&chain.sockets.app(), app.address);
    assert_eq!(client.get("/who", &[]).await.status, 200);

    // A killed sidecar leaves its file behind, and nginx asks the app. The next start takes over.
    chain.sidecar.kill();
    assert!(chain.sockets.sidecar().exists());
    assert_eq!(client.get("/v/a", &[]).await.cache(), "");
    chain.sidecar.restart().await;
    let address = chain.nginx.address;
    eventually("the sidecar answers again", LONG_ENOUGH, async || {
        !Client::new(address).get("/v/a", &[]).await.cache().is_empty()
    })
    .await;
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
    chain.sidecar.signal("TERM");
    assert!(chain.sidecar.end(LONG_ENOUGH).await.success());
    assert!(!chain.sockets.sidecar().exists(), "it removes its own file at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_pass_through_sockets() {
    let (app, stats) = demo().await;
    let chain = Chain::start(app, TRUST, "").await;
    let stream = TcpStream::connect(chain.nginx.address).await.expect("nginx accepts connections");
    let (mut socket, response) = tokio_tungstenite::client_async("ws://app.test/ws", stream)
        .await
        .expect("the upgrade is granted");
    assert_eq!(response.status(), 101);
    for length in [0, 125, 1_000_000] {
        let sent = Message::binary(vec![7; length]);
        socket.send(sent.clone()).await.expect("the tunnel takes it");
        let received = timeout(LONG_ENOUGH, socket.next()).await.expect("the echo comes");
        let received = received.expect("the tunnel is open").expect("a whole message");
        assert_eq!(received, sent, "{length} bytes");
    }
    let stats: app::Stats = stats;
    let opened = stats.snapshot();
    assert_eq!(opened.get(&("GET".to_owned(), "/ws".to_owned())), Some(&1), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_socket_shows_nobodys_address() {
    let app = Origin::start(versioned());
    let chain = Chain::start(app.address, "", VERSIONED_RULES).await;
    let mut client = Client::new(chain.nginx.address);
    client.get("/who", &[]).await;
    assert_eq!(app.last("/who").header("x-forwarded-for").as_deref(), Some("192.0.2.1"));
    let reply = client.get("/v/a", &[]).await;
    assert_eq!(reply.cache(), "BYPASS", "what nginx says of the client is in no key");
}

#[tokio::test]
async fn check_tells_what_is_wrong_with_sockets() {
    let sockets = Sockets::new();
    let text = sockets.tables(loopback(1), TRUST);
    let said = || {
        let checked = check(&text);
        assert!(checked.status.success(), "{checked:?}");
        String::from_utf8(checked.stdout).expect("UTF-8")
    };
    assert!(said().contains("no such socket yet"), "{}", said());
    std::fs::write(sockets.app(), "").expect("the folder is there");
    assert!(said().contains("the file is not a socket"), "{}", said());
    std::fs::remove_file(sockets.app()).expect("it is there");
    let _listener = UnixListener::bind(sockets.app()).expect("the folder is there");
    assert!(said().contains(": ok: 0 routes"), "{}", said());
    assert!(!said().contains("socket"), "{}", said());
}
