//! The bounds of what is counted, what strangers can do to it, and what the numbers say.

use http::{HeaderName, StatusCode};

use super::facts::{Facts, MAX_NAMES};
use super::fold::shown;
use super::observation::{ReadFacts, ResponseFacts};
use super::tree::{MAX_TEMPLATES, MAX_VALUES};
use super::*;
use crate::clock::Clock;

fn uncached() -> Arc<Uncached> {
    Arc::new(Uncached::new(Clock::manual().now()))
}

fn read(path: &str, took: u64, at: u64) -> UnroutedNote {
    let status = StatusCode::OK;
    UnroutedNote {
        path: path.into(),
        request: RequestFacts::Read(ReadFacts::default()),
        at,
        took: Duration::from_millis(took),
        response: ResponseFacts::new(status, &http::HeaderMap::new()),
        trail: None,
        digest: None,
    }
}

fn count(uncached: &Uncached, observations: impl IntoIterator<Item = UnroutedNote>) {
    uncached.count(observations.into_iter());
}

/// The templates, by time.
fn templates(uncached: &Uncached) -> Vec<(String, Facts)> {
    let all = uncached.snapshot().templates.into_iter();
    let mut all: Vec<(String, Facts)> = all.map(|one| (shown(&one.segments), one.facts)).collect();
    all.sort_by_key(|(path, facts)| (std::cmp::Reverse(facts.micros), path.clone()));
    all
}

fn names(uncached: &Uncached) -> Vec<String> {
    templates(uncached).into_iter().map(|(path, _)| path).collect()
}

/// A number that no other has, spread over all bits.
fn odd(at: u64) -> u64 {
    at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Letters that nobody takes for an id.
fn word(mut at: u64) -> String {
    let mut word = String::new();
    for _ in 0..6 {
        word.push(char::from(b"bdfglmnprst"[usize::try_from(at % 11).expect("small")]));
        word.push(char::from(b"aeiou"[usize::try_from(at / 11 % 5).expect("small")]));
        at /= 55;
    }
    word
}

#[test]
fn a_million_hostile_paths_take_a_bounded_place_and_push_out_nobody() {
    let uncached = uncached();
    let mut at = 0;
    for stranger in 0..1_000_000_u64 {
        at += 1;
        // Words, ids and depths that no program has, each once, and the app finds them all.
        let (one, other) = (word(odd(stranger) >> 20), word(odd(stranger) >> 3));
        let path = match stranger % 16 {
            0 => format!("/{one}/17/{other}/{:x}/{one}", odd(stranger)),
            1 => format!("/api/v1/{one}/{other}"),
            2 => format!("/{one}/{other}"),
            _ => format!("/{one}"),
        };
        count(&uncached, [read(&path, 1, at)]);
        if stranger.is_multiple_of(50) {
            count(&uncached, [read(&format!("/api/v1/items/{stranger}"), 40, at)]);
            count(&uncached, [read("/shop/list", 20, at)]);
        }
    }
    let snapshot = uncached.snapshot();
    assert!(snapshot.templates.len() <= MAX_TEMPLATES, "{}", snapshot.templates.len());
    let names = names(&uncached);
    let busy = &names[..8.min(names.len())];
    assert!(busy.iter().any(|path| path == "/api/v1/items/{n}"), "{busy:?}");
    assert!(busy.iter().any(|path| path == "/shop/list" || path == "/{id}/{id}"), "{busy:?}");
    let most = snapshot.templates.iter().map(|one| one.segments.len()).max();
    assert!(most <= Some(fold::MAX_SEGMENTS));
}

#[test]
fn names_that_are_too_many_are_values_and_their_siblings_stay() {
    let uncached = uncached();
    let mut paths = Vec::new();
    for at in 0..100 {
        paths.push(format!("/api/v1/users/{}", word(odd(at))));
        paths.push(format!("/api/v1/users/{}/posts", word(odd(at))));
    }
    for resource in ["items", "orders", "carts"] {
        paths.extend((0..100).map(|at| format!("/api/v1/{resource}/{at}")));
        paths.push(format!("/api/v1/{resource}"));
    }
    count(&uncached, paths.iter().map(|path| read(path, 1, 1)));
    let mut found = names(&uncached);
    found.sort();
    assert_eq!(
        found,
        [
            "/api/v1/carts",
            "/api/v1/carts/{n}",
            "/api/v1/items",
            "/api/v1/items/{n}",
            "/api/v1/orders",
            "/api/v1/orders/{n}",
            "/api/v1/users/{id}",
            "/api/v1/users/{id}/posts",
        ]
    );
    let sum: u64 = templates(&uncached).iter().map(|(_, facts)| facts.requests).sum();
    assert_eq!(sum, 503, "folding loses no request");
}

#[test]
fn a_name_that_comes_after_too_many_values_is_found_if_ids_follow_it() {
    let uncached = uncached();
    let strangers = (0..200).map(|at| format!("/{}", word(odd(at))));
    count(&uncached, strangers.map(|path| read(&path, 1, 1)));
    assert_eq!(names(&uncached), ["/{id}"]);
    count(&uncached, (0..100).map(|at| read(&format!("/orders/{at}"), 1, 1)));
    count(&uncached, (0..100).map(|_| read("/alice", 1, 1)));
    let found = names(&uncached);
    assert!(found.contains(&"/orders/{n}".to_owned()), "{found:?}");
    assert!(!found.iter().any(|path| path.contains("alice")), "{found:?}");
}

#[test]
fn many_names_below_one_segment_are_bounded() {
    let uncached = uncached();
    let few = (0..MAX_VALUES as u64).map(|at| read(&format!("/api/{}", word(odd(at))), 1, 1));
    count(&uncached, few);
    assert_eq!(names(&uncached).len(), MAX_VALUES);
    count(&uncached, [read("/api/another", 1, 1)]);
    assert_eq!(names(&uncached), ["/api/{id}"]);
}

#[test]
fn what_is_not_found_gets_no_place() {
    let uncached = uncached();
    let status = |path: &str, status: u16| {
        let mut one = read(path, 1, 1);
        one.response.status = status;
        one
    };
    count(&uncached, (0..1000).map(|at| status(&format!("/{}", word(odd(at))), 404)));
    assert_eq!(names(&uncached), [""; 0]);
    count(&uncached, [read("/a", 1, 1), status("/a", 500), status("/b", 500)]);
    let snapshot = uncached.snapshot();
    assert_eq!((snapshot.totals.requests, snapshot.totals.unplaced), (1003, 1001));
    assert_eq!(snapshot.templates[0].facts.requests, 2);
    // More than one reading, too long, none at all.
    count(&uncached, [read("/a/../b", 1, 1), read("", 1, 1), read("/a%2fb", 1, 1)]);
    assert_eq!(names(&uncached), ["/a"]);
}

#[test]
fn names_of_headers_and_parameters_are_bounded() {
    let mut facts = Facts::default();
    let response = ResponseFacts::new(StatusCode::OK, &http::HeaderMap::new());
    for at in 0..1000 {
        let name = |name: String| HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let one = ReadFacts {
            parameters: vec!["page".into(), format!("p{at}").into()],
            headers: vec![name("x-tenant".into()), name(format!("x-{at}")), http::header::HOST],
            ..ReadFacts::default()
        };
        facts.read(&one, &response, Duration::ZERO, None);
    }
    assert_eq!(facts.parameters.frequent(1).len(), MAX_NAMES);
    assert_eq!(facts.parameters.frequent(1)[0], ("page", 1000));
    assert_eq!(facts.headers.frequent(1)[0], ("x-tenant", 1000));
    assert!(!facts.headers.frequent(1).iter().any(|(name, _)| *name == "host"));
}

#[test]
fn an_hour_halves_what_was_and_forgets_what_has_gone() {
    let uncached = uncached();
    let hour = u64::try_from(HALF_LIFE.as_millis()).expect("short");
    count(&uncached, (0..8).map(|_| read("/a", 10, 1)));
    count(&uncached, [read("/once", 1, 1), read("/a", 10, hour + 1)]);
    let found = templates(&uncached);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1.requests, found[0].1.micros), (5, 50_000));
    count(&uncached, [read("/b", 1, 100 * hour)]);
    assert_eq!(names(&uncached), ["/b"]);
}

#[test]
fn a_response_is_compared_for_its_caller_and_for_all() {
    let uncached = uncached();
    let seen = |caller: u64, digest: u64, at: u64| {
        let mut one = read("/a", 1, at);
        one.request = RequestFacts::Read(ReadFacts { key: 7, caller, ..ReadFacts::default() });
        one.digest = Some(digest);
        one
    };
    // Two callers, each with a response of its own.
    let all = (0..10).flat_map(|at| [seen(1, 11, at + 1), seen(2, 22, at + 1)]);
    count(&uncached, all);
    let facts = templates(&uncached).remove(0).1;
    assert_eq!((facts.compared, facts.hits, facts.changed), (20, 18, 0));
    assert_eq!((facts.shared_hits, facts.by_caller), (0, 19));
    // One response for both.
    let other = self::uncached();
    let all = (0..10).flat_map(|at| [seen(1, 11, at + 1), seen(2, 11, at + 1)]);
    count(&other, all);
    let facts = templates(&other).remove(0).1;
    assert_eq!((facts.hits, facts.shared_hits, facts.by_caller), (18, 19, 0));
}

#[test]
fn what_waits_is_bounded_and_counted() {
    let uncached = uncached();
    for _ in 0..MAX_QUEUE + 5 {
        uncached.note(read("/a", 1, 1));
    }
    assert_eq!(uncached.counters.queue_full.get(), 5);
    assert_eq!(templates(&uncached)[0].1.requests, MAX_QUEUE as u64);
}

#[test]
fn the_bytes_that_are_digested_within_a_second_are_bounded() {
    let clock = Clock::manual();
    let uncached = Uncached::new(clock.now());
    let digested = |now| {
        (0..10_000).filter(|_| uncached.may_digest(MAX_DIGESTED, now)).count() as u64 * MAX_DIGESTED
    };
    assert_eq!(digested(clock.now()), MAX_DIGESTED_PER_SECOND);
    assert_eq!(digested(clock.now()), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(digested(clock.now()), MAX_DIGESTED_PER_SECOND);
}

#[tokio::test]
async fn what_was_noted_is_counted_without_a_reader() {
    let uncached = uncached();
    for round in 1..=3 {
        uncached.note(read("/a", 1, 1));
        for _ in 0..1000 {
            if uncached.counters.templates.load(Ordering::Relaxed) == 1
                && uncached.queue.lock().is_empty()
                && !uncached.is_draining.load(Ordering::Acquire)
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!uncached.is_draining.load(Ordering::Acquire), "round {round}: the task has ended");
        assert_eq!(uncached.state.lock().tree.templates()[0].facts.requests, round);
    }
}
