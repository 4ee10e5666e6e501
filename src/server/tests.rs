//! The edge over real sockets, with bytes written by hand.

mod drain;
mod framing;
mod limits;
mod protocol;
mod targets;
mod unix;
mod unread;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::semantics::body::Body;
use crate::semantics::forward::{BadRequest, ClientPeer, UnreadHead};
use crate::shares::Departure;

/// An app that does what the path says.
struct App {
    calls: AtomicUsize,
    /// `/slow` takes one.
    go: Semaphore,
    /// The heads that could not be read.
    rejected: Mutex<Vec<String>>,
    /// The targets of the others.
    targets: Mutex<Vec<String>>,
}

impl Service for App {
    type Client = ClientPeer;
    type Found = ();

    fn connect(&self, peer: ClientPeer, _: &Arc<Departure>) -> ClientPeer {
        peer
    }

    async fn call(
        self: &Arc<Self>,
        request: Request<Body>,
        peer: &ClientPeer,
        flaw: Option<BadRequest>,
        (): (),
    ) -> Response<Body> {
        if let Some(flaw) = flaw {
            return self.refuse(flaw.status(), flaw.as_str());
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.into_parts();
        self.targets.lock().push(head.uri.to_string());
        match head.uri.path() {
            "/slow" => {
                self.go.acquire().await.unwrap().forget();
                Response::new(Body::full("slow"))
            }
            "/panic" => panic!("as the path says"),
            "/big" => Response::new(Body::full(vec![b'x'; 32 << 20])),
            "/peer" => Response::new(Body::full(format!("{} {}", peer.addr, peer.trusted))),
            "/trailers" => {
                let trailers = http::HeaderMap::from_iter([(
                    "x-end".parse().unwrap(),
                    "yes".parse().unwrap(),
                )]);
                let frames = [
                    Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"data"))),
                    Ok(Frame::trailers(trailers)),
                ];
                Response::new(Body::stream(StreamBody::new(futures_util::stream::iter(frames))))
            }
            // One piece, and then nothing more; or pieces without end.
            "/events" | "/silent" | "/flowing" => {
                let pause = if head.uri.path() == "/flowing" { 50 } else { 3_600_000 };
                let pieces = futures_util::stream::unfold(0_u32, move |number| async move {
                    if number > 0 {
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    let piece = Frame::data(Bytes::from_static(b"data: 1\n\n"));
                    (number < 60).then_some((Ok::<_, io::Error>(piece), number + 1))
                });
                let body = Body::stream(StreamBody::new(Box::pin(pieces)));
                let mut response = Response::new(body);
                if head.uri.path() == "/events" {
                    let name = http::HeaderValue::from_static("text/event-stream");
                    response.headers_mut().insert(http::header::CONTENT_TYPE, name);
                }
                response
            }
            path => match body.collect().await {
                Ok(all) => Response::new(Body::full(format!("{path} {}", all.to_bytes().len()))),
                Err(error) => {
                    let late = error
                        .downcast_ref::<io::Error>()
                        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
                    self.refuse(
                        if late { StatusCode::REQUEST_TIMEOUT } else { StatusCode::BAD_REQUEST },
                        "body",
                    )
                }
            },
        }
    }

    fn reject(&self, head: &UnreadHead, _: &ClientPeer) -> Response<Body> {
        let (method, target) = (head.method.as_ref(), head.target.as_deref());
        self.rejected.lock().push(format!(
            "{} {} {}",
            method.map_or("-", Method::as_str),
            target.unwrap_or("-"),
            head.why.as_str()
        ));
        self.refuse(head.why.status(), head.why.as_str())
    }

    fn refuse(&self, status: StatusCode, why: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::full(why));
        *response.status_mut() = status;
        response
    }
}

struct Server {
    address: SocketAddr,
    app: Arc<App>,
    counters: ServerCounters,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    signals: DrainSignals,
    done: JoinHandle<Drained>,
}

fn settings() -> ServerSettings {
    let long = Duration::from_secs(20);
    ServerSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        trusted_proxies: TrustedProxies::default(),
        max_connections: 100,
        max_header_bytes: 64 * 1024,
        max_headers: 100,
        header_timeout: long,
        idle_timeout: long,
        body_timeout: long,
        write_timeout: long,
        half_closed: long,
        stall: Duration::from_millis(200),
        max_streams: 128,
        drain: long,
        stream_drain: long,
    }
}

fn start(settings: ServerSettings) -> Server {
    let listener = listen(&settings.address).unwrap();
    // One that is not TCP has no such address.
    let address = listener.shown().parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let app = Arc::new(App {
        calls: AtomicUsize::new(0),
        go: Semaphore::new(0),
        rejected: Mutex::default(),
        targets: Mutex::default(),
    });
    let (counters, signals) = (ServerCounters::default(), DrainSignals::default());
    let (shutdown, tasks) = (signals.shutdown.clone(), signals.tasks.clone());
    let running = run(
        listener,
        settings,
        Arc::clone(&app),
        counters.clone(),
        Clock::system(),
        signals.clone(),
    );
    Server { address, app, counters, shutdown, tasks, signals, done: tokio::spawn(running) }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends these bytes on a connection of their own and reads to its end.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    fn calls(&self) -> usize {
        self.app.calls.load(Ordering::SeqCst)
    }

    async fn until_called(&self, times: usize) {
        while self.calls() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Everything up to the end of the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    read.expect("the server did not close").expect("the server reset the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What comes, up to and with `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
        bytes.push(byte.expect("nothing came").expect("the connection ended early"));
    }
    String::from_utf8(bytes).unwrap()
}
