//! Numbered regressions that real clients and apps have found, where a sidecar in between made
//! something worse than it is without one.

use std::time::Duration;

use http_body_util::BodyExt as _;

use crate::support::patient_app::{read, sent};
use crate::support::{
    Bodies, Client, RawOrigin, RawRequest, RawResponse, Sidecar, eventually, metric,
};

/// A route that stores, and `/pass`, which none has.
fn route(more: &str) -> String {
    format!("[[routes]]\npath = \"/a/{{*rest}}\"\nttl = \"1m\"\nscope = \"public\"\n{more}\n")
}

/// How much of a body a client of HTTP/2 gets before the stream ends; `None` without a head.
async fn got_over_http2(sidecar: &Sidecar, path: &str) -> Option<usize> {
    let mut client = Client::http2(sidecar.address);
    let mut response = client.open("GET", path, &[], "").await.ok()?;
    let mut length = 0;
    while let Some(Ok(frame)) = response.body_mut().frame().await {
        length += frame.data_ref().map_or(0, |bytes| bytes.len());
    }
    Some(length)
}

/// 820. An app that breaks off its response (it died, or sends no last chunk) had sent a part that
///      straight clients show. Where the end came together with it, the client got nothing, not
///      even a head: an empty reply, or a stream that was reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r820_what_came_before_a_response_broke_off_reaches_the_client() {
    let part = "x".repeat(1000);
    for (head, body) in [
        ("Content-Length: 5000", part.clone()),
        ("Transfer-Encoding: chunked", format!("3e8\r\n{part}\r\n")),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes();
        let origin = RawOrigin::start(Bodies::Read, move |(): &mut (), _: &RawRequest| {
            RawResponse { bytes: bytes.clone(), close: true, ..RawResponse::ok("") }
        })
        .await;
        let sidecar = Sidecar::start(origin.address, &route("")).await;
        for turn in 0..20 {
            for path in ["/a/page", "/pass/page"] {
                let path = format!("{path}{turn}");
                let get = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n");
                let mut client = sent(sidecar.address, &get).await;
                let got = read(&mut client, Duration::from_secs(20)).await;
                let got = String::from_utf8_lossy(&got);
                let Some((start, body)) = got.split_once("\r\n\r\n") else {
                    panic!("{path} {head}: {got:?}")
                };
                assert!(start.starts_with("HTTP/1.1 200 OK\r\n"), "{path} {head}: {got:?}");
                assert_eq!(body.matches('x').count(), 1000, "{path} {head}");
                // The end is still no end.
                assert!(!body.ends_with("0\r\n\r\n"), "{path} {head}: {got:?}");
                let got = got_over_http2(&sidecar, &format!("{path}-2")).await;
                assert_eq!(got, Some(1000), "{path} {head}");
            }
        }
        eventually("all is closed", Duration::from_secs(10), || async {
            metric(sidecar.admin, "sidecache_connections_open").await == 0
                && metric(sidecar.admin, "sidecache_upstream_open").await == 0
        })
        .await;
        // Each of them, once.
        assert_eq!(metric(sidecar.admin, "sidecache_responses_cut_total").await, 80, "{head}");
    }
}
