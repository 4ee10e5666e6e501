//! Sections 4.2.1 to 4.2.3: how long a response is fresh, and how old it is.

use std::time::Duration;

use super::{Lines, PUBLIC, lines, not_reused, reused};
use sidecache::app::Clock;

use crate::support::scene::{assert_cache, date, ttl};
use crate::support::{Client, Origin, Response, Scene, Sidecar};

fn all(status: u16, cases: Vec<Lines>) -> Vec<(u16, Lines)> {
    cases.into_iter().map(|lines| (status, lines)).collect()
}

fn controls(values: &[&str]) -> Vec<(u16, Lines)> {
    all(200, values.iter().map(|value| lines(&[("cache-control", value)])).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_1_a_lifetime_is_read_tolerantly() {
    let values = [
        "max-age=60",
        "MaX-aGe=60",
        "max-age=\"60\"",
        "max-age=060",
        "max-age=2147483648",
        "max-age=99999999999",
        "max-age=60, frobnicate",
        "frobnicate=\"a, no-store\", max-age=60",
        ",max-age=60,",
        "s-maxage=60, max-age=0",
        "public, max-age=60",
    ];
    reused(PUBLIC, &controls(&values)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_1_what_cannot_be_read_means_the_stricter_thing() {
    let values = [
        "max-age=0",
        "max-age=",
        "max-age",
        "max-age=-60",
        "max-age=60.5",
        "max-age=a60",
        "max-age=60a",
        "max-age=60, max-age=0",
        "max-age=0, max-age=60",
        "s-maxage=0, max-age=60",
        "s-maxage=x, max-age=60",
    ];
    not_reused(PUBLIC, &controls(&values)).await;
    let two_lines = lines(&[("cache-control", "max-age=60"), ("cache-control", "no-store")]);
    not_reused(PUBLIC, &all(200, vec![two_lines])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_1_expires_counts_where_cache_control_is_silent() {
    let (later, earlier) = (date(100), date(-100));
    let fresh = [
        vec![("expires", &*later)],
        vec![("expires", &*later), ("date", &*date(0))],
        vec![("cache-control", "max-age=60"), ("expires", &*earlier)],
        vec![("cache-control", "max-age=60"), ("expires", "0")],
    ]
    .map(|case| lines(&case));
    reused(PUBLIC, &all(200, fresh.into())).await;
    let stale = [
        vec![("expires", &*earlier)],
        vec![("expires", &*date(0))],
        vec![("cache-control", "max-age=0"), ("expires", &*later)],
        // Its lifetime is over by the origin's own clock.
        vec![("expires", &*later), ("date", &*date(200))],
    ]
    .map(|case| lines(&case));
    not_reused(PUBLIC, &all(200, stale.into())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_3_an_expires_that_is_no_date_is_in_the_past() {
    let later = date(1_000);
    let fresh = [later.to_lowercase(), later.to_uppercase()];
    reused(PUBLIC, &all(200, fresh.map(|value| vec![("expires", value)]).into())).await;
    let stale = [
        "0".to_owned(),
        String::new(),
        "-1".to_owned(),
        "tomorrow".to_owned(),
        later.replace("GMT", "UTC"),
        later.replace("GMT", "+0000"),
        later.replacen(' ', "  ", 1),
        later.replace(',', ""),
        later.replace(':', "."),
        format!("{later}, {later}"),
    ];
    not_reused(PUBLIC, &all(200, stale.map(|value| vec![("expires", value)]).into())).await;
    not_reused(PUBLIC, &all(200, vec![vec![("expires", later.clone()), ("expires", later)]])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_2_the_statuses_of_rfc_9110_15_1_are_fresh_by_their_last_modified() {
    let old = vec![("last-modified", date(-100 * 24 * 60 * 60))];
    let statuses = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
    reused(PUBLIC, &statuses.map(|status| (status, old.clone()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_2_a_guess_is_made_only_where_it_may_be() {
    let old = date(-100 * 24 * 60 * 60);
    let lines = vec![("last-modified", old.clone())];
    let mut cases: Vec<_> =
        [302, 303, 307, 400, 403, 500, 503].map(|status| (status, lines.clone())).into();
    // A response that was changed when it was made, however late it comes.
    cases.push((200, vec![("date", date(0)), ("last-modified", date(0))]));
    cases.push((200, vec![("last-modified", date(3_600))]));
    cases.push((200, vec![("last-modified", "long ago".to_owned())]));
    for explicit in ["max-age=0", "no-cache", "s-maxage=0"] {
        cases.push((
            200,
            vec![("last-modified", old.clone()), ("cache-control", explicit.to_owned())],
        ));
    }
    cases.push((200, vec![("last-modified", old), ("expires", "0".to_owned())]));
    for (reply, case) in super::ask_twice(PUBLIC, &cases).await.iter().zip(&cases) {
        assert_ne!(reply.cache(), "HIT", "{case:?}: {}", reply.cache_status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_3_age_counts_against_the_lifetime() {
    let aged = |age: &str| lines(&[("cache-control", "max-age=3600"), ("age", age)]);
    let two = |first: &str, second: &str| {
        lines(&[("cache-control", "max-age=3600"), ("age", first), ("age", second)])
    };
    // RFC 9111 5.1: the first of several values counts, and invalid ones are ignored.
    let fresh = vec![
        aged("0"),
        aged("1800"),
        aged("abc"),
        aged("-7200"),
        aged("7200.0"),
        aged("0, 7200"),
        two("0", "7200"),
        two("0", "0"),
    ];
    reused(PUBLIC, &all(200, fresh)).await;
    let stale = vec![
        aged("3600"),
        aged("7200"),
        aged("2147483648"),
        aged("99999999999"),
        aged("7200, 0"),
        two("7200", "0"),
    ];
    not_reused(PUBLIC, &all(200, stale)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_3_an_old_date_counts_against_the_lifetime() {
    let dated = |offset| vec![("cache-control", "max-age=60".to_owned()), ("date", date(offset))];
    reused(PUBLIC, &all(200, vec![dated(0), dated(-20), dated(1_000)])).await;
    not_reused(PUBLIC, &all(200, vec![dated(-70), dated(-100_000)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_2_3_the_time_that_the_app_took_is_age() {
    let clock = Clock::manual();
    let passing = clock.clone();
    let app = Origin::start(move |request| {
        passing.advance(Duration::from_millis(1_200));
        Response::ok("slow").header(
            "cache-control",
            if request.path == "/short" { "max-age=1" } else { "max-age=60" },
        )
    });
    app.follow(&clock);
    let sidecar = Sidecar::start_at(clock, app.address, PUBLIC).await;
    let mut client = Client::new(sidecar.address);
    for path in ["/short", "/long"] {
        client.get(path, &[]).await;
    }
    let long = client.get("/long", &[]).await;
    assert_cache(&long, "HIT", "/long");
    assert!(long.header("age").parse::<u64>().is_ok_and(|age| age >= 1), "{}", long.header("age"));
    assert_cache(&client.get("/short", &[]).await, "MISS", "/short");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_1_a_stored_response_tells_its_age() {
    let scene = Scene::start(PUBLIC, |_| {
        Response::ok("data")
            .header("cache-control", "max-age=3600")
            .header("age", "30")
            .header("date", &date(-40))
    })
    .await;
    scene.fill("/a").await;
    let hit = scene.get("/a").await;
    assert_cache(&hit, "HIT", "the second");
    let age: i64 = hit.header("age").parse().expect("a number");
    assert!(age >= 40, "the greater of Age and the apparent age, not {age}");
    assert_eq!(hit.headers.get_all("age").iter().count(), 1);
    assert!(age + ttl(&hit) <= 3_600, "age {age} and ttl {}", ttl(&hit));
    assert!(age + ttl(&hit) >= 3_598, "age {age} and ttl {}", ttl(&hit));
}
