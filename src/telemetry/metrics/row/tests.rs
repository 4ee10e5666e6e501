//! Every combination has a count of its own, and a route stays small.

use super::*;

fn row(stripes: usize) -> Row {
    Row::with_stripes("/a".into(), stripes)
}

fn record(disposition: Disposition, reason: Option<Reason>) -> RequestRecord {
    let (status, duration) = (StatusCode::OK, Duration::from_micros(10));
    RequestRecord { disposition, reason, status, duration, saved: None }
}

#[test]
fn discriminants_are_positions_in_all() {
    // `request` uses the discriminant, `view` the position.
    assert!(
        Disposition::ALL.iter().enumerate().all(|(at, disposition)| *disposition as usize == at)
    );
    assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
}

#[test]
fn every_combination_has_a_column_of_its_own() {
    let row = row(2);
    let ending = || Reason::ALL.iter().copied().filter(|reason| reason.ends_requests());
    let reasons = || std::iter::once(None).chain(ending().map(Some));
    let all: Vec<_> = Disposition::ALL
        .into_iter()
        .flat_map(|disposition| reasons().map(move |reason| (disposition, reason)))
        .collect();
    for (times, (disposition, reason)) in all.iter().enumerate() {
        for _ in 0..=times {
            row.request(&record(*disposition, *reason));
        }
    }
    let expected: Vec<_> =
        (1..).zip(all).map(|(times, (disposition, reason))| (disposition, reason, times)).collect();
    let view = row.view();
    assert_eq!(view.requests, expected);
    assert_eq!(view.count(Disposition::Stale), row.count(Disposition::Stale));
    assert_eq!(
        (view.saved, view.bytes_from_cache, view.bytes_from_origin, view.origin.count()),
        (Duration::ZERO, 0, 0, 0)
    );
}

#[test]
fn a_reason_that_ends_no_request_is_counted_as_none() {
    let row = row(2);
    row.request(&record(Disposition::Miss, Some(Reason::Truncated)));
    assert_eq!(row.view().requests, [(Disposition::Miss, None, 1)]);
}

#[test]
fn every_response_has_a_class_with_a_reason_or_without() {
    let row = row(2);
    for (status, times) in [(101, 1), (204, 2), (304, 3), (404, 4), (599, 5), (999, 6)] {
        for reason in [None, Some(Reason::NoRoute)] {
            let status = StatusCode::from_u16(status).unwrap();
            for _ in 0..times {
                row.request(&RequestRecord { status, ..record(Disposition::Bypass, reason) });
            }
        }
    }
    let view = row.view();
    assert_eq!(view.classes, [2, 4, 6, 8, 22]);
    let by_reason = |reason| (Disposition::Bypass, reason, 21);
    assert_eq!(view.requests, [by_reason(None), by_reason(Some(Reason::NoRoute))]);
}

#[test]
fn durations_are_counted_by_disposition() {
    let row = row(1);
    for (ms, disposition) in (1..).zip(Disposition::ALL) {
        row.request(&RequestRecord {
            duration: Duration::from_millis(ms),
            ..record(disposition, None)
        });
    }
    row.origin(Duration::from_secs(20));
    let view = row.view();
    let summary = |latency: &Latency| (latency.count(), latency.sum());
    assert_eq!(summary(&view.hit), (2, Duration::from_millis(1 + 2)), "HIT and STALE");
    assert_eq!(summary(&view.miss), (2, Duration::from_millis(3 + 4)), "REVALIDATED and MISS");
    assert_eq!(summary(&view.bypass), (1, Duration::from_millis(5)));
    assert_eq!(summary(&view.origin), (1, Duration::from_secs(20)));
}

#[test]
fn bytes_and_savings_add_up() {
    let row = row(2);
    row.bytes(BodySource::Cache, 1000);
    row.bytes(BodySource::Origin, 30);
    row.bytes(BodySource::Cache, 1);
    row.bytes(BodySource::Sidecar, 7);
    row.request(&RequestRecord {
        saved: Some(Duration::from_millis(250)),
        ..record(Disposition::Hit, None)
    });
    row.request(&RequestRecord {
        saved: Some(Duration::from_millis(500)),
        ..record(Disposition::Hit, None)
    });
    let view = row.view();
    assert_eq!(
        (view.bytes_from_cache, view.bytes_from_origin, view.saved),
        (1001, 30, Duration::from_millis(750))
    );
    assert_eq!(view.bytes_from_sidecar, 7);
}

#[test]
fn the_lifetime_that_was_stored_last_is_told() {
    let row = row(1);
    assert_eq!(row.view().lifetime, None);
    for from in LifetimeSource::ALL {
        for secs in [0, 60, 31_536_000] {
            let lifetime = Duration::from_secs(secs);
            row.stored(lifetime, from);
            assert_eq!(row.view().lifetime, Some((lifetime, from)));
        }
    }
}

#[test]
fn a_body_is_the_origins_only_if_the_origin_has_answered() {
    for disposition in Disposition::ALL {
        let source = |fwd_status| {
            BodySource::from_outcome(&Outcome { fwd_status, ..Outcome::new(disposition) })
        };
        let expected = match disposition {
            Disposition::Hit | Disposition::Stale | Disposition::Revalidated => {
                (BodySource::Cache, BodySource::Cache)
            }
            Disposition::Miss | Disposition::Bypass => (BodySource::Sidecar, BodySource::Origin),
        };
        assert_eq!((source(None), source(Some(502))), expected, "{disposition:?}");
    }
}

#[test]
fn no_increment_of_many_threads_is_lost() {
    let row = Arc::new(row(2));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let row = Arc::clone(&row);
            thread::spawn(move || {
                (0..1000).for_each(|_| row.request(&record(Disposition::Hit, None)));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!((row.count(Disposition::Hit), row.view().hit.count()), (4000, 4000));
}

#[test]
fn a_route_costs_little_memory() {
    let per_stripe = STRIDE * size_of::<AtomicU64>() + size_of::<Histogram>();
    assert!(per_stripe <= 4096, "{per_stripe} bytes per route and stripe");
    let histograms =
        |row: &Row| -> usize { row.hits.iter().chain(&row.others).map(Histogram::bytes).sum() };
    let idle = row(8);
    assert!(histograms(&idle) <= 3 * 1024, "{} bytes without traffic", histograms(&idle));
    // Hits from 16 us to 4 ms in all stripes, misses and the origin from 1 ms to 8 s.
    let busy = row(8);
    for power in 0..8 {
        busy.hits.iter().for_each(|hits| hits.count(17_000 << power));
    }
    for power in 0..13 {
        let duration = Duration::from_micros(1_100 << power);
        busy.request(&RequestRecord { duration, ..record(Disposition::Miss, None) });
        busy.origin(duration);
    }
    let bytes = histograms(&busy);
    assert!(bytes <= 26 * 1024, "{bytes} bytes with traffic on 8 cores");
}
