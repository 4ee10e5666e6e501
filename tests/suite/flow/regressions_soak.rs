//! Numbered regressions of what a soak has found.

use std::time::Duration;

use http_body_util::BodyExt as _;

use crate::support::departures::{get, post};
use crate::support::frail_app::{FrailApp, Mood, check};
use crate::support::patient_app::{read, sent};
use crate::support::upgrades::{Lines, Service};
use crate::support::{Client, eventually, http1, metric};

const LONG_ENOUGH: Duration = Duration::from_secs(20);

const RULES: &str = r#"
[[routes]]
path  = "/v/{*name}"
ttl   = "5m"
scope = "public"
tags  = ["all"]

[[purges]]
path = "/v/{*name}"
tags = ["all"]
"#;

async fn service(app: &FrailApp) -> Service {
    let upstream = format!("url = \"{}\"", app.url());
    let lines = Lines { listen: String::new(), upstream, rules: RULES.to_owned() };
    Service::with_lines(&lines, false).await
}

/// 880. A client got nothing of a response, not even its head, when the app broke off in the body
///      before all that came was written: browsers send such a request again, also a POST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r880_what_came_before_a_response_breaks_off_is_sent() {
    let app = FrailApp::on_port().await;
    let service = service(&app).await;
    app.set(Mood::CutsBodies);
    // The app breaks off in every third response.
    let mut cuts = 0;
    for number in 0..30 {
        let path = format!("/p/{number}");
        let request = if number % 2 == 0 { post(&path) } else { get(&path) };
        let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let before = app.served().cut;
        let mut stream = sent(service.address, &request).await;
        let answer = read(&mut stream, LONG_ENOUGH).await;
        assert_eq!(http1::status(&answer), 200, "{request}: {}", String::from_utf8_lossy(&answer));
        let head = http1::head_length(&answer).expect("a head");
        if app.served().cut > before {
            cuts += 1;
            assert!(answer.len() > head, "{request}: no byte of the body");
        }
    }
    assert_eq!(cuts, 10);
    for number in 0..30 {
        let path = format!("/p/{number}");
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        let mut client = Client::http2(service.address);
        let response = client.open(method, &path, &[], "").await.expect("it has a head");
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await;
        // The app decides in the body whether it breaks off: after the head is here.
        let cut = app.served().cut;
        assert_eq!(body.is_err(), cut > cuts, "{path}");
        cuts = cut;
    }
    assert_eq!(cuts, 20);
}

/// 881. Whole responses of a stated length were counted as cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r881_whole_responses_are_not_counted_as_cut() {
    let app = FrailApp::on_port().await;
    let service = service(&app).await;
    for mut client in [Client::new(service.address), Client::http2(service.address)] {
        for number in 0..4 {
            for path in ["/p/drip", "/p/quick", "/v/drip", "/v/quick"] {
                let path = format!("{path}/{number}");
                for method in ["GET", "GET", "POST", "HEAD"] {
                    let reply = client.send(method, &path, &[], "").await;
                    let whole = method == "HEAD" || check(&path, &reply.body, true).is_ok();
                    assert!(reply.status == 200 && whole, "{method} {path}");
                }
            }
        }
    }
    eventually("nobody is there", LONG_ENOUGH, async || {
        metric(service.admin, "sidecache_connections_open").await == 0
    })
    .await;
    assert_eq!(metric(service.admin, "sidecache_responses_cut_total").await, 0);
}
