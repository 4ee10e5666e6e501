//! The admin listener over real sockets: probes, scrapers and strangers.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use std::net::SocketAddr;

use super::*;
use crate::app::Sidecar;
use crate::app::reload::AdminReload;
use crate::clock::Clock;
use crate::config::Config;
use crate::secret::Secret;

struct Switch(Mutex<Ready>);

impl Readiness for Switch {
    fn state(&self) -> Ready {
        self.0.lock().unwrap().clone()
    }
}

struct Running {
    address: SocketAddr,
    switch: Arc<Switch>,
    state: Arc<AdminState>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(token: Option<&str>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/a\"\n";
    let mut config = Config::parse(text, "proxy.toml", &|_| None)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let Sidecar { proxy, reloader, .. } = Sidecar::new(&mut config, Clock::system()).unwrap();
    let switch = Arc::new(Switch(Mutex::new(Ready { ready: true, degraded: vec![] })));
    let shutdown = CancellationToken::new();
    let settings =
        AdminSettings { address, token: token.map(Secret::new), hosts: [].into(), name: None };
    let readiness: Arc<dyn Readiness> = switch.clone();
    let state = Arc::new(AdminState::new(
        proxy,
        Arc::new(AdminReload(reloader)),
        readiness,
        shutdown.clone(),
    ));
    let task = tokio::spawn(run(listener, settings, Arc::clone(&state), shutdown.clone()));
    Running { address, switch, state, shutdown, task }
}

/// Sends a request line and headers, and reads until the connection closes.
async fn ask(running: &Running, request: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", running.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn it_lives_and_is_ready() {
    let running = start(None).await;
    let live = ask(&running, "GET /live", "").await;
    assert_eq!((status(&live), body(&live)), ("200", "live"));
    let ready = ask(&running, "GET /ready", "").await;
    assert_eq!((status(&ready), body(&ready)), ("200", "{\"reasons\":[],\"status\":\"ready\"}\n"));
    assert!(ready.contains("cache-control: no-store\r\n"), "{ready}");
}

#[tokio::test]
async fn degraded_is_ready_and_draining_is_not() {
    let running = start(None).await;
    *running.switch.0.lock().unwrap() =
        Ready { ready: true, degraded: vec!["redis is unreachable".to_owned()] };
    let ready = ask(&running, "GET /ready", "").await;
    assert_eq!(
        (status(&ready), body(&ready)),
        ("200", "{\"reasons\":[\"redis is unreachable\"],\"status\":\"degraded\"}\n")
    );
    *running.switch.0.lock().unwrap() =
        Ready { ready: false, degraded: vec!["draining".to_owned()] };
    let ready = ask(&running, "GET /ready", "").await;
    assert_eq!(
        (status(&ready), body(&ready)),
        ("503", "{\"reasons\":[\"draining\"],\"status\":\"unready\"}\n")
    );
}

#[tokio::test]
async fn two_scans_of_the_memory_run_at_once_and_no_more() {
    let running = start(None).await;
    let one = running.state.scans.try_acquire().unwrap();
    let two = running.state.scans.try_acquire().unwrap();
    let refused = ask(&running, "GET /memory", "Connection: close\r\n").await;
    assert_eq!(status(&refused), "503", "{refused}");
    assert!(body(&refused).contains("try again"), "{refused}");
    let counters = &running.state.proxy.store.counters.scans;
    assert_eq!((counters.refused.get(), counters.scans.get()), (1, 0));
    drop(one);
    let listed = ask(&running, "GET /memory", "Connection: close\r\n").await;
    assert_eq!(status(&listed), "200", "{listed}");
    drop(two);
    assert_eq!(running.state.scans.available_permits(), 2, "a scan gives its permit back");
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_asked_for() {
    let running = start(None).await;
    let answer = ask(&running, "GET /metrics?x=1", "").await;
    assert_eq!(status(&answer), "200");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(
        body(&answer).contains("# TYPE sidecache_connections_accepted_total counter\n"),
        "{answer}"
    );
    let answer =
        ask(&running, "GET /metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")
            .await;
    assert!(
        answer.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        ),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn head_is_the_head_of_get() {
    let running = start(None).await;
    let answer = ask(&running, "HEAD /live", "").await;
    assert_eq!((status(&answer), body(&answer)), ("200", ""));
    assert!(answer.contains("content-length: 4\r\n"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let running = start(None).await;
    let unknown = ask(&running, "GET /nowhere", "").await;
    assert_eq!(status(&unknown), "404");
    assert!(body(&unknown).contains("\"/live\",\"/ready\",\"/metrics\""), "{unknown}");
    let posted = ask(&running, "POST /metrics", "Content-Length: 0\r\n").await;
    assert_eq!(status(&posted), "405");
    assert!(posted.contains("allow: GET, HEAD\r\n"), "{posted}");
    let got = ask(&running, "GET /purge", "").await;
    assert_eq!(status(&got), "405");
    assert!(got.contains("allow: POST\r\n"), "{got}");
}

#[tokio::test]
async fn strangers_are_refused_before_anything_else() {
    let running = start(None).await;
    for headers in ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(status(&ask(&running, "GET /metrics", headers).await), "403");
    }
    assert_eq!(status(&ask(&running, "GET /live", "Host: localhost\r\n").await), "400");
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: evil.example:9090\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), "403");
    assert!(!answer.contains("sidecache_"), "{answer}");
}

#[tokio::test]
async fn a_token_guards_all_but_the_probes() {
    let running = start(Some("s3cret")).await;
    assert_eq!(status(&ask(&running, "GET /live", "").await), "200");
    assert_eq!(status(&ask(&running, "GET /ready", "").await), "200");
    let missing = ask(&running, "GET /metrics", "").await;
    assert_eq!(status(&missing), "401");
    assert!(missing.contains("www-authenticate: Bearer realm=\"sidecache\"\r\n"), "{missing}");
    let wrong = ask(&running, "GET /metrics", "Authorization: Bearer nope\r\n").await;
    assert_eq!((status(&wrong), body(&wrong)), ("401", body(&missing)));
    assert_eq!(status(&ask(&running, "GET /nowhere", "").await), "401");
    for headers in ["Authorization: Bearer s3cret\r\n", "X-Sidecache-Token: s3cret\r\n"] {
        assert_eq!(status(&ask(&running, "GET /metrics", headers).await), "200");
    }
}

#[tokio::test]
async fn strangers_learn_the_state_and_not_its_reasons() {
    let running = start(Some("s3cret")).await;
    let reason = "proxy.toml:3: redis://10.0.0.7:6379 is unreachable".to_owned();
    *running.switch.0.lock().unwrap() = Ready { ready: true, degraded: vec![reason] };
    let stranger = ask(&running, "GET /ready", "").await;
    assert_eq!(
        (status(&stranger), body(&stranger)),
        ("200", "{\"reasons\":[],\"status\":\"degraded\"}\n")
    );
    let operator = ask(&running, "GET /ready", "Authorization: Bearer s3cret\r\n").await;
    assert!(body(&operator).contains("10.0.0.7"), "{operator}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let running = start(None).await;
    let answer =
        ask(&running, "GET /live", &format!("X-Big: {}\r\n", "x".repeat(2 * MAX_HEADER_BYTES)))
            .await;
    assert_eq!(status(&answer), "431");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let running = start(None).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(HEADER_TIMEOUT * 2, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok());
}

/// A connection with a request whose body has not come yet.
async fn unfinished(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!(
        "POST /explain HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 16\r\n\r\n",
        running.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let running = start(None).await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(unfinished(&running).await);
    }
    // The backlog is in order: these are accepted before the next one, which is served once one of
    // them closes.
    let mut waiting = std::pin::pin!(ask(&running, "GET /live", ""));
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    open.pop();
    assert_eq!(status(&timeout(HEADER_TIMEOUT / 2, waiting).await.unwrap()), "200");
}

#[tokio::test]
async fn shutdown_closes_the_listener_and_ends_the_task() {
    let running = start(None).await;
    let _silent = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(status(&ask(&running, "GET /live", "").await), "200");
    running.shutdown.cancel();
    timeout(SHUTDOWN_GRACE * 2, running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn silent_connections_do_not_keep_probes_out() {
    let running = start(None).await;
    let mut silent = Vec::new();
    for number in 0..640 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET /live HTTP/1.1\r\nHost:").await.unwrap();
        }
        silent.push(stream);
    }
    for request in ["GET /live", "GET /ready"] {
        let answer = timeout(Duration::from_secs(1), ask(&running, request, ""));
        assert_eq!(status(&answer.await.expect("an answer within a second")), "200");
    }
}

#[tokio::test]
async fn a_connection_with_a_request_keeps_its_place() {
    let running = start(None).await;
    let mut asking = unfinished(&running).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert_eq!(status(&ask(&running, "GET /live", "").await), "200");
    asking.write_all(b"{\"target\":\"/a\"}\n").await.unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}
