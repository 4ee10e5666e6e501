//! `expires_at`: what is stored ends at a time of day.

use std::time::Duration;

use sidecache::app::Clock;

use crate::support::{Client, Origin, Point, Response, Sidecar};

const MINUTE: Duration = Duration::from_mins(1);

/// A time of day nine to ten minutes from now, as an operator would write it.
fn soon(clock: &Clock) -> String {
    let minute = clock.date().after(10 * MINUTE).seconds() / 60 % (24 * 60);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// A sidecar whose only route ends at [`soon`], and has these keys.
async fn sidecar(origin: &Origin, keys: &str) -> (Sidecar, Client, Clock) {
    let clock = Clock::manual();
    origin.follow(&clock);
    let rules = format!(
        "[[routes]]\npath = \"/v/{{name}}\"\nscope = \"public\"\nexpires_at = \"{}\"\n{keys}\n",
        soon(&clock)
    );
    let sidecar = Sidecar::start_at(clock.clone(), origin.address, &rules).await;
    let client = Client::new(sidecar.address);
    (sidecar, client, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_ends_at_the_time_of_day_with_and_without_a_ttl() {
    for keys in
        ["", "ttl = \"3h\"", "ttl = \"3h\"\norigin = \"ignore\"\nstale_while_revalidate = \"1h\""]
    {
        let app = Origin::start(|_| Response::ok("here"));
        let (_sidecar, mut client, clock) = sidecar(&app, keys).await;
        assert_eq!(client.get("/v/a", &[]).await.cache(), "MISS", "{keys}");
        clock.advance(5 * MINUTE);
        let early = client.get("/v/a", &[]).await;
        assert_eq!(early.cache(), "HIT", "{keys}: {}", early.cache_status());
        clock.advance(5 * MINUTE);
        let late = client.get("/v/a", &[]).await;
        assert_eq!(late.cache(), "MISS", "{keys}: {}", late.cache_status());
        // From then on it is fresh for a day.
        clock.advance(Duration::from_hours(2));
        assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT", "{keys}");
        assert_eq!(app.count("GET", "/v/a"), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_no_more() {
    let app =
        Origin::start(|_| Response::ok("here").header("cache-control", "public, max-age=86400"));
    let (sidecar, mut client, clock) = sidecar(&app, "").await;
    let told = |line: &str| -> u64 {
        let seconds = line.strip_prefix("public, max-age=").expect("its own words");
        seconds.parse().expect("a number")
    };
    let first = client.get("/v/a", &[]).await;
    assert_eq!(first.cache(), "MISS");
    assert!((400..=600).contains(&told(first.header("cache-control"))), "{first:?}");
    clock.advance(5 * MINUTE);
    let second = client.get("/v/a", &[]).await;
    assert_eq!(second.cache(), "HIT");
    let age: u64 = second.header("age").parse().expect("an age");
    let left = told(second.header("cache-control")).saturating_sub(age);
    assert!((100..=300).contains(&left), "{second:?}");
    let asked = serde_json::json!({ "method": "GET", "target": "/v/a" });
    let explained = sidecar.admin_ok("/explain", &asked).await.to_string();
    assert!(explained.contains("fresh until") && explained.contains("(expires_at)"), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_served_past_it_unless_it_is_asked_for() {
    let failures: [fn() -> Response; 2] = [|| Response::status(503, ""), Response::hang_up];
    for (keys, served) in [("", false), ("stale_if_error = \"1h\"", true)] {
        for failure in failures {
            let app = Origin::start(move |request| match request.number {
                0 => Response::ok("yesterday")
                    .header("cache-control", "max-age=86400")
                    .header("etag", "\"1\""),
                _ => failure(),
            });
            let (_sidecar, mut client, clock) = sidecar(&app, keys).await;
            assert_eq!(client.get("/v/a", &[]).await.cache(), "MISS");
            clock.advance(11 * MINUTE);
            let reply = client.get("/v/a", &[]).await;
            assert_eq!((reply.status == 200, reply.cache() == "STALE"), (served, served));
            if served {
                let number = |text: &str| -> u64 { text.parse().expect("a number") };
                let told = reply.header("cache-control").strip_prefix("max-age=");
                let (told, age) = (told.expect("its own word"), reply.header("age"));
                assert!(number(told) <= number(age), "it is fresh to nobody: {told}, {age}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_was_asked_for_before_the_time_is_not_fresh_after_it() {
    let app = Origin::start(|request| Response::ok(format!("number {}", request.number)));
    let (sidecar, mut client, clock) = sidecar(&app, "ttl = \"3h\"").await;
    let hold = app.hold("GET", "/v/a", Point::After);
    let address = sidecar.address;
    let waiting = tokio::spawn(async move { Client::new(address).get("/v/a", &[]).await });
    hold.arrived().await;
    // Deadlines stay where they are.
    clock.step_wall(11 * 60_000);
    hold.release();
    assert_eq!(waiting.await.expect("an answer").text(), "number 0");
    let next = client.get("/v/a", &[]).await;
    assert_eq!((next.cache(), next.text()), ("MISS", "number 1"), "{}", next.cache_status());
    assert_eq!(client.get("/v/a", &[]).await.cache(), "HIT");
}
