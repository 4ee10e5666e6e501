//! The tail without a sidecar: its filters, its limits, and what a line holds.

use futures_util::FutureExt as _;

use super::*;
use crate::clock::Clock;

fn request<'a>(path: &'a str, outcome: &'a Outcome) -> FinishedRequest<'a> {
    let duration = Duration::from_micros(1500);
    let (method, route, status) = (&Method::GET, Some("/a/{id}"), 200);
    FinishedRequest { method, path, route, status, outcome, bytes: Some(7), duration }
}

/// What is in the queue, without waiting.
fn lines(listener: &mut TailListener) -> Vec<Arc<TailLine>> {
    std::iter::from_fn(|| listener.lines.try_recv().ok()).collect()
}

#[tokio::test]
async fn without_a_listener_nothing_is_made_and_nothing_is_counted() {
    let (tail, now) = (Arc::new(Tail::default()), Clock::system().now());
    let outcome = Outcome::bypass(Reason::NoRoute);
    assert!(!tail.is_heard());
    let listener = tail.listen(now, TailFilter::default(), 1).expect("the first");
    assert!(tail.is_heard());
    drop(listener);
    assert!(!tail.is_heard() && tail.listeners.load().is_empty());
    tail.tell(now, Wall(1), &request("/a", &outcome));
    assert_eq!((tail.counters.lines.get(), tail.counters.lost.get()), (0, 0));
}

#[tokio::test]
async fn a_line_has_no_query_and_is_short_and_harmless() {
    let (tail, now) = (Arc::new(Tail::default()), Clock::system().now());
    let mut listener = tail.listen(now, TailFilter::default(), 9).expect("the first");
    let subject = format!("x-\u{1b}[2J{}", "y".repeat(9999));
    let outcome = Outcome::bypass_with(Reason::MissingField, subject);
    for path in ["/a?token=hunter2", "/a#hunter2", "/a"] {
        tail.tell(now, Wall(5), &request(path, &outcome));
    }
    for line in lines(&mut listener) {
        let json = serde_json::to_value(&*line).expect("JSON");
        assert_eq!((&json["path"], &json["at_ms"]), (&"/a".into(), &5.into()));
        let (duration, bytes) = (&json["duration_ms"], &json["bytes"]);
        assert_eq!((duration, bytes), (&1.5.into(), &7.into()));
        assert_eq!((&json["tier"], &json["route"]), (&serde_json::Value::Null, &"/a/{id}".into()));
        let subject = json["subject"].as_str().expect("a subject");
        assert!(subject.len() < MAX_TAIL_TEXT + 20 && subject.starts_with("x-\\u{1b}[2J"));
    }
    assert_eq!(tail.counters.lines.get(), 3);
    let (long, method) = ("/p".repeat(9999), "M".repeat(999));
    let method = Method::from_bytes(method.as_bytes()).expect("a token");
    tail.tell(now, Wall(5), &FinishedRequest { method: &method, ..request(&long, &outcome) });
    let line = &lines(&mut listener)[0];
    assert!(line.path.len() <= MAX_TAIL_TEXT + 3 && line.method.len() <= MAX_METHOD + 3);
}

#[tokio::test]
async fn a_listener_gets_what_it_filters_for() {
    let (hit, miss) = (Outcome::new(Disposition::Hit), Outcome::miss(Reason::Expired));
    let one = request("/a/7?x=wanted", &hit);
    let other = FinishedRequest { route: None, status: 503, ..request("/b/8", &miss) };
    let filter = TailFilter::default;
    let cases = [
        (filter(), true, true),
        (TailFilter { route: Some("/a/{id}".into()), ..filter() }, true, false),
        (TailFilter { route: Some(NONE.into()), ..filter() }, false, true),
        (TailFilter { disposition: Some(Disposition::Miss), ..filter() }, false, true),
        (TailFilter { reason: Some(Reason::Expired), ..filter() }, false, true),
        (TailFilter { reason: Some(Reason::Purged), ..filter() }, false, false),
        (TailFilter { status: Some((500, 599)), ..filter() }, false, true),
        (TailFilter { status: Some((200, 200)), ..filter() }, true, false),
        (TailFilter { path: Some("/7".into()), ..filter() }, true, false),
        (TailFilter { path: Some("wanted".into()), ..filter() }, false, false),
    ];
    for (filter, of_one, of_other) in cases {
        assert_eq!(
            (filter.matches(&one), filter.matches(&other)),
            (of_one, of_other),
            "{filter:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_its_rate_a_listener_is_told_how_many_more_there_were() {
    let (tail, now) = (Arc::new(Tail::default()), Clock::system().now());
    let outcome = Outcome::new(Disposition::Hit);
    let mut slow = tail.listen(now, TailFilter::default(), 3).expect("the first");
    let mut fast = tail.listen(now, TailFilter::default(), MAX_TAIL_RATE).expect("the second");
    for second in 0..2 {
        for _ in 0..10 {
            tail.tell(now + Duration::from_secs(second), Wall(1), &request("/a", &outcome));
        }
        // A thread that read its clock a moment ago begins no second of its own.
        tail.tell(now, Wall(1), &request("/a", &outcome));
        assert_eq!((lines(&mut slow).len(), lines(&mut fast).len()), (3, 11), "{second}");
    }
    assert_eq!(slow.next().await, TailItem::Missed(MissedLines { more: 16, lost: 0 }));
    assert!(slow.next().now_or_never().is_none(), "it is told once");
    assert!(fast.next().now_or_never().is_none());
    assert_eq!(tail.counters.beyond_rate.get(), 16);
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_loses_lines_and_is_told_how_many() {
    let (tail, now) = (Arc::new(Tail::default()), Clock::system().now());
    let outcome = Outcome::new(Disposition::Hit);
    let mut listener = tail.listen(now, TailFilter::default(), MAX_TAIL_RATE).expect("the first");
    for _ in 0..TAIL_BACKLOG + 5 {
        tail.tell(now, Wall(1), &request("/a", &outcome));
    }
    assert_eq!(tail.counters.lost.get(), 5);
    let (mut got, mut missed) = (0, MissedLines::default());
    while got < TAIL_BACKLOG || missed.lost == 0 {
        match listener.next().await {
            TailItem::Request(_) => got += 1,
            TailItem::Missed(more) => missed = more,
        }
    }
    assert_eq!((got, missed), (TAIL_BACKLOG, MissedLines { more: 0, lost: 5 }));
}

#[tokio::test]
async fn there_are_only_so_many_listeners() {
    let (tail, now) = (Arc::new(Tail::default()), Clock::system().now());
    let listen = || tail.listen(now, TailFilter::default(), 1);
    let mut all: Vec<_> = (0..MAX_TAIL_LISTENERS).map(|_| listen().expect("one more")).collect();
    assert!(listen().is_none());
    assert_eq!((tail.listeners(), tail.counters.refused.get()), (MAX_TAIL_LISTENERS, 1));
    all.pop();
    assert!(listen().is_some(), "a place is free again");
}
