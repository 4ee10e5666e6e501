//! An app that a test directs as it goes, with a sidecar in front of it: each test says what the app answers now, what is asked, and looks
//! at what the app got to see.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sidecache::clock::Clock;

use super::client::{Client, Reply};
use super::origin::{Answer, Asked, Hold, Point, TestApp};
use super::sidecar::Sidecar;

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

struct Script {
    handler: Handler,
    seen: Vec<Asked>,
}

/// The app and the sidecar. Dropping it ends both.
pub struct Scene {
    /// The sidecar.
    pub sidecar: Sidecar,
    app: Mutex<Option<TestApp>>,
    script: Arc<Mutex<Script>>,
}

impl Scene {
    /// A sidecar with these tables, in front of an app that answers so until it is told otherwise.
    pub async fn start(rules: &str, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let script = Arc::new(Mutex::new(Script { handler: Arc::new(handler), seen: Vec::new() }));
        let played = Arc::clone(&script);
        let app = TestApp::start(move |asked| {
            let handler = {
                let mut script = lock(&played);
                script.seen.push(asked.clone());
                Arc::clone(&script.handler)
            };
            handler(asked)
        })
        .await;
        let sidecar = Sidecar::start(app.address, rules).await;
        Self { sidecar, app: Mutex::new(Some(app)), script }
    }

    /// From now on the app answers so.
    pub fn answers(&self, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        lock(&self.script).handler = Arc::new(handler);
    }

    /// From now on nobody listens where the app was, and connections that are open end at the next request.
    pub async fn app_goes_away(&self) {
        self.answers(|_| Answer::HangUp);
        let app = lock(&self.app).take().expect("the app was there");
        let address = app.address;
        drop(app);
        super::eventually("the app's port refuses connections", Duration::from_secs(5), || async {
            tokio::net::TcpStream::connect(address).await.is_err()
        })
        .await;
    }

    /// Holds requests of this method and path at this point.
    pub fn hold(&self, method: &str, path: &str, point: Point) -> Hold {
        lock(&self.app).as_ref().expect("the app is there").hold(method, path, point)
    }

    /// A GET without further headers, on a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(path, &[]).await
    }

    /// A GET with these headers, on a connection of its own.
    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        Client::new(self.sidecar.address).get(path, headers).await
    }

    /// Any request, on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        Client::new(self.sidecar.address).send(method, path, headers, body).await
    }

    /// A first GET, which must reach the app.
    pub async fn fill(&self, path: &str) -> Reply {
        let reply = self.get(path).await;
        assert_eq!(reply.cache(), "MISS", "{path}: {}", reply.header("cache-status"));
        reply
    }

    /// What the app was asked for this path, without the query, in order.
    pub fn seen(&self, path: &str) -> Vec<Asked> {
        lock(&self.script).seen.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// How often the app was asked for this path.
    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    /// The last request for this path that the app saw.
    pub fn last(&self, path: &str) -> Asked {
        self.seen(path).pop().unwrap_or_else(|| panic!("the app was never asked for {path}"))
    }
}

/// Asserts what `X-Cache` says, and shows `Cache-Status` when it does not.
#[track_caller]
pub fn assert_cache(reply: &Reply, expected: &str, case: &str) {
    assert_eq!(reply.cache(), expected, "{case}: {} {}", reply.status, reply.header("cache-status"));
}

/// The HTTP-date so many seconds from now; negative for the past.
pub fn date(offset: i64) -> String {
    let now = UNIX_EPOCH + Duration::from_millis(Clock::default().wall().0);
    let distance = Duration::from_secs(offset.unsigned_abs());
    httpdate::fmt_http_date(if offset < 0 { now - distance } else { now + distance })
}

/// The parameters of the sidecar's own member of `Cache-Status`, which is the last.
pub fn cache_status(reply: &Reply) -> Vec<String> {
    let member = reply.header("cache-status").rsplit(", ").next().unwrap_or_default().to_owned();
    let mut parameters = member.split("; ").map(str::to_owned);
    assert_eq!(parameters.next().as_deref(), Some("sidecache"), "{}", reply.header("cache-status"));
    parameters.collect()
}

/// The `ttl` that `Cache-Status` states.
pub fn ttl(reply: &Reply) -> i64 {
    let parameters = cache_status(reply);
    let ttl = parameters.iter().find_map(|parameter| parameter.strip_prefix("ttl="));
    ttl.and_then(|ttl| ttl.parse().ok()).unwrap_or_else(|| panic!("no ttl in {}", reply.header("cache-status")))
}

/// Waits until what was fresh for one second, when it was stored before this call, is stale. Waiting longer changes nothing.
pub async fn until_stale() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with the lock held")
}
