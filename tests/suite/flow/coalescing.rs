//! Requests for a response that is being fetched share the fill: the origin gets one request, no
//! client waits twice, and none gets a truncated response as a complete one.

use std::net::SocketAddr;
use std::time::Duration;

use sidecache::app::Clock;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::child::ChildSidecar;
use crate::support::client;
use crate::support::origin::VERSIONED_RULES;
use crate::support::{
    Client, Crowd, Origin, Point, Reply, Response, Sidecar, Socket, eventually, joined, waiting,
};

const ROUTE: &str = "[[routes]]\npath = \"/a/{*rest}\"\nttl = \"1m\"\nscope = \"public\"\n";
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// A crowd.
const THOUSAND: usize = 1_000;
/// The pieces of a slow stream, which takes two seconds. How soon its clients have the first of
/// them is measured by `benches/figures.rs`.
const PIECES: usize = 20;
const PACE: Duration = Duration::from_millis(100);

/// A sidecar of its own process that may ask the app a thousand times at once: it is not to queue
/// where the test looks for queues.
async fn roomy(app: &Origin, rules: &str) -> ChildSidecar {
    ChildSidecar::spawn(
        &format!("url = \"http://{}\"\nmax_connections = 4000\nmax_waiting = 0\n", app.address),
        rules,
    )
    .await
}

/// Where the metrics of a sidecar are.
fn admin(sidecar: &ChildSidecar) -> SocketAddr {
    sidecar.admin.expect("it was spawned with one")
}

/// Gives the sidecar time to read what was sent. That none of it goes on to the origin can be shown
/// only by waiting: there is no event to wait for.
async fn settle() {
    sleep(Duration::from_millis(500)).await;
}

fn piece(number: usize) -> Vec<u8> {
    format!("{number:>4}.").repeat(200).into_bytes()
}

fn all_pieces() -> Vec<u8> {
    (0..PIECES).flat_map(piece).collect()
}

/// The pieces, one after another, once the gate opens.
fn slow_stream(gate: &CancellationToken) -> Response {
    let begun = Response::new().until(gate).chunked("").piece(&piece(0));
    (1..PIECES).fold(begun, |script, number| script.wait(PACE).piece(&piece(number))).end()
}

/// An origin that sends the slow stream once the gate opens.
fn streaming_app(gate: &CancellationToken) -> Origin {
    let gate = gate.clone();
    Origin::start(move |_| slow_stream(&gate))
}

fn assert_whole(answers: &[Reply], body: &[u8]) {
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.cache_status());
        let got = answer
            .whole()
            .unwrap_or_else(|part| panic!("broken after {} of {} bytes", part.len(), body.len()));
        assert!(got == body, "{} bytes that are not the app's {}", got.len(), body.len());
    }
}

/// Each of these had its first byte while most of the body was still to come: a body that is
/// collected first comes as a whole.
fn assert_streamed(answers: &[Reply]) {
    for answer in answers {
        let first = answer.first_byte.expect("each got a response");
        let streamed = answer.end - first;
        assert!(streamed > PACE * 10, "the whole body came within {streamed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_thousand_clients_read_one_slow_stream_as_it_comes() {
    let gate = CancellationToken::new();
    let app = streaming_app(&gate);
    let sidecar = roomy(&app, ROUTE).await;
    let crowd = Crowd::ask(sidecar.address, "/a/1", THOUSAND).await;
    app.reached("/a/1", 1).await;
    waiting(admin(&sidecar), THOUSAND as u64 - 1).await;
    gate.cancel();
    let answers = crowd.answers().await;
    assert_eq!(app.count("GET", "/a/1"), 1, "the app is asked once");
    assert_whole(&answers, &all_pieces());
    assert_streamed(&answers);
    let collapsed =
        answers.iter().filter(|answer| answer.cache_status().contains("collapsed")).count();
    assert_eq!(collapsed, THOUSAND - 1, "all but one say that they joined");
    assert_eq!(client::get(sidecar.address, "/a/1").await.cache(), "HIT");
    assert_eq!(app.count("GET", "/a/1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_leader_that_hangs_up_at_once_takes_nobody_along() {
    let gate = CancellationToken::new();
    let app = streaming_app(&gate);
    let sidecar = roomy(&app, ROUTE).await;
    let mut leader = Socket::connect(sidecar.address).await;
    leader.ask("/a/1").await;
    app.reached("/a/1", 1).await;
    drop(leader);
    let crowd = Crowd::ask(sidecar.address, "/a/1", THOUSAND - 1).await;
    waiting(admin(&sidecar), THOUSAND as u64 - 1).await;
    gate.cancel();
    let answers = crowd.answers().await;
    assert_eq!(app.count("GET", "/a/1"), 1, "the app is asked once");
    assert_whole(&answers, &all_pieces());
    assert_streamed(&answers);
    assert_eq!(client::get(sidecar.address, "/a/1").await.cache(), "HIT");
    assert_eq!(app.count("GET", "/a/1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_an_app_that_dies_half_way_breaks_every_response() {
    for target in ["/a/chunked", "/a/sized"] {
        let gate = CancellationToken::new();
        let app = Origin::start({
            let gate = gate.clone();
            move |request| {
                if request.number > 0 {
                    return Response::new().whole("", b"whole at last");
                }
                let held = Response::new().until(&gate);
                let begun = if request.target == "/a/sized" {
                    held.sized("", all_pieces().len())
                } else {
                    held.chunked("")
                };
                let half = (0..PIECES / 2)
                    .fold(begun, |script, number| script.piece(&piece(number)).wait(PACE / 2));
                half.reset()
            }
        });
        let sidecar = roomy(&app, ROUTE).await;
        let crowd = Crowd::ask(sidecar.address, target, THOUSAND).await;
        app.reached(target, 1).await;
        waiting(admin(&sidecar), THOUSAND as u64 - 1).await;
        gate.cancel();
        let answers = crowd.answers().await;
        assert_eq!(app.count("GET", target), 1, "the app is asked once");
        let half: Vec<u8> = (0..PIECES / 2).flat_map(piece).collect();
        for answer in &answers {
            assert_eq!(answer.status, 200, "it had begun");
            let part = answer.whole().expect_err("half a body looks like a whole one");
            assert!(half.starts_with(&part), "bytes that are not the app's");
        }
        let next = client::get(sidecar.address, target).await;
        assert_eq!(
            (next.cache(), next.whole()),
            ("MISS", Ok(b"whole at last".to_vec())),
            "nothing was stored"
        );
        assert_eq!(app.count("GET", target), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_nobody_queues_for_what_may_not_be_stored() {
    let gate = CancellationToken::new();
    let app = Origin::start({
        let gate = gate.clone();
        move |request| {
            // The first is answered at once, so that all others know; they have to meet at the
            // origin.
            let begun =
                if request.number == 0 { Response::new() } else { Response::new().until(&gate) };
            begun.whole("Cache-Control: no-store\r\n", b"mine alone")
        }
    });
    let sidecar = roomy(&app, ROUTE).await;
    let crowd = Crowd::ask(sidecar.address, "/a/1", THOUSAND).await;
    // Were they to go one after another, the second would be held and no third would come.
    app.reached("/a/1", THOUSAND).await;
    assert_eq!(app.record("/a/1").most_at_once, THOUSAND - 1, "all others at once");
    gate.cancel();
    let (answers, _) = crowd.time().await;
    let stored = |answer: &Reply| answer.cache_status().contains("stored");
    assert!(answers.iter().all(|answer| answer.cache() == "MISS" && !stored(answer)));

    // It is known by now, so that nobody waits for a first one either.
    let known = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", THOUSAND).await;
    app.reached("/a/1", 2 * THOUSAND).await;
    known.release();
    crowd.time().await;
}

/// The same where the answer is a slow stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_nobody_queues_for_a_slow_stream_that_may_not_be_stored() {
    let gate = CancellationToken::new();
    let app = Origin::start({
        let gate = gate.clone();
        move |_| {
            let begun = Response::new().chunked("Cache-Control: no-store\r\n").piece(&piece(0));
            (1..PIECES)
                .fold(begun.until(&gate), |script, number| script.piece(&piece(number)))
                .end()
        }
    });
    let sidecar = roomy(&app, ROUTE).await;
    let crowd = Crowd::ask(sidecar.address, "/a/1", THOUSAND).await;
    // No stream ends before the last has begun.
    app.reached("/a/1", THOUSAND).await;
    assert_eq!(app.record("/a/1").most_at_once, THOUSAND, "all at once");
    gate.cancel();
    let answers = crowd.answers().await;
    assert_whole(&answers, &all_pieces());
    assert_eq!(app.count("GET", "/a/1"), THOUSAND, "each has an answer of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_stored_is_remembered_and_then_forgotten() {
    const FORGOTTEN: Duration = Duration::from_secs(10);
    let (app, clock) = (
        Origin::start(|_| Response::ok("mine alone").header("cache-control", "no-store")),
        Clock::manual(),
    );
    app.follow(&clock);
    let sidecar = Sidecar::start_at(clock.clone(), app.address, ROUTE).await;
    assert_eq!(client::get(sidecar.address, "/a/1").await.status, 200);
    // All reach the origin before it responds to the first: none waits for another.
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 20).await;
    eventually("all go alone", Duration::from_secs(5), || async { app.count("GET", "/a/1") == 21 })
        .await;
    hold.release();
    crowd.time().await;

    clock.advance(FORGOTTEN + Duration::from_secs(1));
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 20).await;
    hold.arrived().await;
    waiting(sidecar.admin, 19).await;
    assert_eq!(app.count("GET", "/a/1"), 22, "one asks, the others wait for what it gets");
    hold.release();
    crowd.time().await;
    assert_eq!(app.count("GET", "/a/1"), 41, "what it got was for it alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_go_alone_as_soon_as_the_head_forbids_to_store() {
    let (head, body) = (CancellationToken::new(), CancellationToken::new());
    let app = Origin::start({
        let (head, body) = (head.clone(), body.clone());
        move |request| match request.number {
            0 => Response::new()
                .until(&head)
                .chunked("Cache-Control: private\r\n")
                .piece(b"sl")
                .until(&body)
                .piece(b"ow")
                .end(),
            _ => Response::new().whole("Cache-Control: private\r\n", b"own"),
        }
    });
    let sidecar = Sidecar::start(app.address, ROUTE).await;
    let leader = Crowd::ask(sidecar.address, "/a/1", 1).await;
    app.reached("/a/1", 1).await;
    let followers = Crowd::ask(sidecar.address, "/a/1", 20).await;
    waiting(sidecar.admin, 20).await;
    assert_eq!(app.count("GET", "/a/1"), 1, "they wait for the head");
    head.cancel();
    assert_whole(&followers.answers().await, b"own");
    assert!(!leader.any_is_done(), "the first body has not ended");
    body.cancel();
    assert_whole(&leader.answers().await, b"slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_in_mid_body_gets_it_from_its_start_and_who_leaves_takes_nobody_along() {
    let (gate, middle) = (CancellationToken::new(), CancellationToken::new());
    let app = Origin::start({
        let (gate, middle) = (gate.clone(), middle.clone());
        move |_| {
            Response::new()
                .until(&gate)
                .chunked("")
                .piece(b"one ")
                .until(&middle)
                .piece(b"two")
                .end()
        }
    });
    let sidecar = Sidecar::start(app.address, ROUTE).await;
    let mut leader = Client::new(sidecar.address);
    let opening = tokio::spawn(async move {
        leader.open("GET", "/a/1", &[], "").await.map(|response| (leader, response))
    });
    app.reached("/a/1", 1).await;
    gate.cancel();
    let leader =
        opening.await.expect("no panic").expect("the head comes before the end of the body");
    let late = Crowd::ask(sidecar.address, "/a/1", 20).await;
    joined(sidecar.admin, 20).await;
    drop(leader);
    settle().await;
    middle.cancel();
    assert_whole(&late.answers().await, b"one two");
    assert_eq!(client::get(sidecar.address, "/a/1").await.cache(), "HIT");
    assert_eq!(app.count("GET", "/a/1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_leads_when_the_leader_fails() {
    let failed = std::sync::atomic::AtomicBool::new(false);
    let app = Origin::start(move |_| {
        if failed.swap(true, std::sync::atomic::Ordering::SeqCst) {
            Response::ok("second try")
        } else {
            Response::hang_up()
        }
    });
    let sidecar = Sidecar::start(app.address, ROUTE).await;
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 50).await;
    hold.arrived().await;
    waiting(sidecar.admin, 49).await;
    hold.release();
    let answers = timeout(Duration::from_secs(10), crowd.answers())
        .await
        .expect("nobody waits for a fill that has failed");
    let served =
        answers.iter().filter(|answer| answer.whole() == Ok(b"second try".to_vec())).count();
    let turned_away = answers.iter().filter(|answer| answer.status == 502).count();
    assert!(
        turned_away <= 1 && served + turned_away == 50,
        "{served} were served, {turned_away} turned away"
    );
    assert_eq!(app.count("GET", "/a/1"), 2, "one more request serves them all");
    assert_eq!(client::get(sidecar.address, "/a/1").await.cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_always_fails_is_not_asked_by_everybody() {
    let app = Origin::start(|_| Response::hang_up());
    let sidecar = Sidecar::start(app.address, ROUTE).await;
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 50).await;
    hold.arrived().await;
    waiting(sidecar.admin, 49).await;
    hold.release();
    let answers = timeout(Duration::from_secs(10), crowd.answers())
        .await
        .expect("nobody waits for a fill that has failed");
    assert!(answers.iter().all(|answer| answer.status == 502));
    assert!(app.count("GET", "/a/1") <= 3, "the app was asked {} times", app.count("GET", "/a/1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_in_mid_body_starts_a_new_fill_and_leaves_the_old_one_to_its_readers() {
    let gate = CancellationToken::new();
    let app = Origin::start({
        let gate = gate.clone();
        move |request| match (request.method.as_str(), request.number) {
            ("GET", 0) => {
                Response::new().chunked("").piece(b"old ").until(&gate).piece(b"body").end()
            }
            ("GET", _) => Response::new().whole("", b"new body"),
            _ => Response::new().whole("", b"written"),
        }
    });
    let sidecar = Sidecar::start(app.address, VERSIONED_RULES).await;
    let old = Crowd::ask(sidecar.address, "/v/a", 10).await;
    app.reached("/v/a", 1).await;
    joined(sidecar.admin, 9).await;
    assert_eq!(Client::new(sidecar.address).send("PUT", "/w/a", &[], "").await.text(), "written");

    let new = Crowd::ask(sidecar.address, "/v/a", 10).await;
    assert_whole(&new.answers().await, b"new body");
    assert!(!old.any_is_done(), "the old fill goes on");
    gate.cancel();
    assert_whole(&old.answers().await, b"old body");
    assert_eq!(app.count("GET", "/v/a"), 2, "two fills, and everybody else joined one of them");
    // The old fill ended last, and did not take the place of what is current.
    let kept = client::get(sidecar.address, "/v/a").await;
    assert_eq!((kept.cache(), kept.whole()), ("HIT", Ok(b"new body".to_vec())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_outgrows_the_limit_goes_on_to_those_attached() {
    let rules = format!("[limits]\nobject = \"64KiB\"\n{ROUTE}");
    let (attach, rest) = (CancellationToken::new(), CancellationToken::new());
    let large: Vec<u8> = (0..40).flat_map(|number: u8| vec![number; 16 * KIB]).collect();
    let app = Origin::start({
        let (attach, rest, large) = (attach.clone(), rest.clone(), large.clone());
        move |request| {
            let script = Response::new().chunked("");
            if request.number > 0 {
                return script.piece(&large).end();
            }
            let script =
                script.piece(&large[..32 * KIB]).until(&attach).piece(&large[32 * KIB..256 * KIB]);
            script.until(&rest).piece(&large[256 * KIB..]).end()
        }
    });
    let sidecar = Sidecar::start(app.address, &rules).await;
    let attached = Crowd::ask(sidecar.address, "/a/1", 10).await;
    app.reached("/a/1", 1).await;
    joined(sidecar.admin, 9).await;
    attach.cancel();
    settle().await;
    assert_eq!(app.count("GET", "/a/1"), 1);

    // The start of the body has been dropped by now.
    let late = Crowd::ask(sidecar.address, "/a/1", 5).await;
    let (late, _) =
        timeout(Duration::from_secs(10), late.time()).await.expect("they wait for nobody");
    assert_whole(&late, &large);
    assert_eq!(app.count("GET", "/a/1"), 6, "each went alone");
    assert!(!attached.any_is_done(), "the first body has not ended");
    rest.cancel();
    assert_whole(&attached.answers().await, &large);
    assert_eq!(client::get(sidecar.address, "/a/1").await.cache(), "MISS", "it was not stored");
    assert_eq!(app.count("GET", "/a/1"), 7);

    // No later request waits for it either.
    let after = Crowd::ask(sidecar.address, "/a/1", 5).await;
    assert_whole(&after.answers().await, &large);
    assert_eq!(app.count("GET", "/a/1"), 12);
}

/// An app whose one answer is this long, after the gate.
fn large_app(gate: &CancellationToken, body: &[u8]) -> Origin {
    let (gate, body) = (gate.clone(), body.to_vec());
    Origin::start(move |_| Response::new().until(&gate).sized("", body.len()).piece(&body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_what_is_stored_slows_nobody_and_gets_it_all() {
    let gate = CancellationToken::new();
    let body: Vec<u8> = (0..u8::MAX).cycle().take(12 * MIB).collect();
    let app = large_app(&gate, &body);
    let sidecar =
        Sidecar::start(app.address, &format!("[limits]\nobject = \"16MiB\"\n{ROUTE}")).await;
    let mut slow = Socket::connect_narrow(sidecar.address).await;
    slow.ask("/a/1").await;
    app.reached("/a/1", 1).await;
    let others = Crowd::ask(sidecar.address, "/a/1", 5).await;
    waiting(sidecar.admin, 5).await;
    gate.cancel();
    assert_whole(&others.answers().await, &body);
    assert_eq!(
        client::get(sidecar.address, "/a/1").await.cache(),
        "HIT",
        "it is stored, whoever still reads"
    );
    assert_whole(&[slow.read().await], &body);
    assert_eq!(app.count("GET", "/a/1"), 1);
}

/// A body passes, piece by piece, to five who read as fast as it comes, and to one who pauses
/// whenever it has read something.
async fn laggard_of_a_passing_body(length: usize, piece: usize, pause: Duration) {
    let (gate, all_joined) = (CancellationToken::new(), CancellationToken::new());
    let body: Vec<u8> = (0..u8::MAX).cycle().take(length).collect();
    // A length told beforehand would be refused before anybody joined.
    let app = Origin::start({
        let (gate, all_joined, body) = (gate.clone(), all_joined.clone(), body.clone());
        move |_| {
            let head = Response::new().until(&gate).chunked("").until(&all_joined);
            body.chunks(piece).fold(head, Response::piece).end()
        }
    });
    let sidecar =
        Sidecar::start(app.address, &format!("[limits]\nobject = \"1MiB\"\n{ROUTE}")).await;
    let mut slow = Socket::connect_narrow(sidecar.address).await;
    slow.ask("/a/1").await;
    app.reached("/a/1", 1).await;
    let others = Crowd::ask(sidecar.address, "/a/1", 5).await;
    waiting(sidecar.admin, 5).await;
    let hurry = CancellationToken::new();
    let laggard = tokio::spawn({
        let hurry = hurry.clone();
        async move { slow.read_slowly(pause, hurry).await }
    });
    gate.cancel();
    // One that gets no processor until the body has passed by would fetch it for itself.
    joined(sidecar.admin, 5).await;
    all_joined.cancel();
    // Only a reader that holds up the others makes them miss this: at its pace the body takes
    // minutes.
    let others = timeout(Duration::from_secs(20), others.answers())
        .await
        .expect("the others are not held back");
    assert_whole(&others, &body);
    hurry.cancel();
    let part =
        laggard.await.expect("no panic").whole().expect_err("it fell behind and was cut off");
    assert!(body.starts_with(&part), "what it got is the app's");
    assert_eq!(app.count("GET", "/a/1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_does_not_hold_up_what_passes() {
    laggard_of_a_passing_body(32 * MIB, 32 * KIB, Duration::from_mins(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_crawls_does_not_hold_up_what_passes() {
    // Small pieces: each that it takes makes room for one.
    laggard_of_a_passing_body(16 * MIB, 512, Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_to_wait_goes_alone() {
    let app = Origin::start(|_| Response::ok("data"));
    let sidecar = Sidecar::start(app.address, &format!("[limits]\nwaiters = 5\n{ROUTE}")).await;
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 30).await;
    eventually("those beyond the limit reach the app", Duration::from_secs(5), || async {
        app.count("GET", "/a/1") >= 25
    })
    .await;
    waiting(sidecar.admin, 5).await;
    assert_eq!(app.count("GET", "/a/1"), 25, "one leads, five wait, the others go alone");
    hold.release();
    assert_whole(&crowd.answers().await, b"data");
    assert_eq!(app.count("GET", "/a/1"), 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_long_enough_goes_alone() {
    let app = Origin::start(|_| Response::ok("data"));
    let sidecar = Sidecar::start(app.address, &format!("[limits]\nwait = \"1s\"\n{ROUTE}")).await;
    let hold = app.hold("GET", "/a/1", Point::Before);
    let crowd = Crowd::ask(sidecar.address, "/a/1", 10).await;
    hold.arrived().await;
    waiting(sidecar.admin, 9).await;
    assert_eq!(app.count("GET", "/a/1"), 1, "at first they wait");
    eventually("all have waited long enough", Duration::from_secs(5), || async {
        app.count("GET", "/a/1") == 10
    })
    .await;
    assert!(!crowd.any_is_done(), "the app holds them all");
    hold.release();
    assert_whole(&crowd.answers().await, b"data");
    assert_eq!(app.count("GET", "/a/1"), 10);
}
