//! Sidecars in one process do not share their settings.

use std::io;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use parking_lot::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sidecar with these lines in `[log]`, and perhaps further tables.
fn sidecar(log: &str) -> Sidecar {
    let text = format!("[upstream]\nurl = \"http://127.0.0.1:1\"\n[log]\n{log}\n");
    let mut config = Config::parse(&text, "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    Sidecar::new(&mut config, Clock::manual()).expect("a sidecar")
}

#[tokio::test]
async fn each_sidecar_of_a_process_logs_requests_by_its_own_settings() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let (logging, silent, unset) =
        (sidecar("access = true"), sidecar("access = false"), sidecar(""));
    for (sidecar, path) in [(&logging, "/logged"), (&silent, "/silent"), (&unset, "/unset")] {
        let request = Request::builder().method(Method::GET).uri(path).header("host", "a");
        let request = request.body(Body::empty()).expect("a request");
        let peer = ClientPeer { addr: [127, 0, 0, 1].into(), trusted: false };
        let response = sidecar.proxy.handle(request, &ClientConnection::new(peer), None).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    }
    let log = String::from_utf8(captured.0.lock().clone()).expect("UTF-8");
    assert!(log.contains("sidecache::access"), "{log}");
    assert!(
        log.contains("/logged") && !log.contains("/silent") && !log.contains("/unset"),
        "{log}"
    );
}

#[tokio::test]
async fn a_request_that_the_server_finds_flawed_is_refused_logged_and_counted() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let sidecar = sidecar("access = true");
    let peer = ClientPeer { addr: [127, 0, 0, 1].into(), trusted: false };
    for (flaw, text) in [
        (BadRequest::Fragment, "fragment in the request target"),
        (BadRequest::TwoLengths, "both Content-Length and Transfer-Encoding"),
    ] {
        let request = Request::builder().method(Method::DELETE).uri("/dav/").header("host", "a");
        let request = request.body(Body::empty()).expect("a request");
        let client = ClientConnection::new(peer);
        let response = sidecar.proxy.handle(request, &client, Some(flaw)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let log = String::from_utf8(std::mem::take(&mut *captured.0.lock())).expect("UTF-8");
        assert!(log.contains("sidecache::access") && log.contains("/dav/"), "{log}");
        assert!(log.contains(text), "{log}");
    }
    assert_eq!(sidecar.proxy.counters.refused.get(), 2);
}

#[tokio::test]
async fn cookies_that_no_request_carries_are_logged_once_an_hour() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let sidecar = sidecar("[credential]\ncookies = [\"sid\", \"sessoin\"]");
    for _ in 0..100 {
        let request = Request::builder().uri("/").header("host", "a").header("cookie", "sid=x");
        let request = request.body(Body::empty()).expect("a request");
        let peer = ClientPeer { addr: [127, 0, 0, 1].into(), trusted: false };
        sidecar.proxy.handle(request, &ClientConnection::new(peer), None).await;
    }
    let lines = || {
        let log = String::from_utf8(captured.0.lock().clone()).expect("UTF-8");
        log.lines().filter(|line| line.contains("\"sessoin\"")).count()
    };
    tokio::time::pause();
    for (minutes, expected) in [(59, 0), (121, 2)] {
        let warning = unseen_cookies::warn(Arc::clone(&sidecar.proxy));
        let _ = tokio::time::timeout(Duration::from_mins(minutes), warning).await;
        assert_eq!(lines(), expected, "after {minutes} minutes");
    }
}

#[tokio::test]
async fn a_sidecar_whose_successor_serves_leaves_no_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    let table = format!("[memory]\nsnapshot = \"{}\"", path.display());
    let leaving = sidecar(&table);
    leaving.snapshot.forgo("another process serves already");
    leaving.snapshot.save().await;
    assert!(!path.exists());
    sidecar(&table).snapshot.save().await;
    assert!(path.exists());
}
