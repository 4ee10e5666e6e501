//! Days of history, simulated: the clock is a number.

use http::StatusCode;
use serde_json::Value;

use super::marks::MAX_MARK_TEXT;
use super::*;
use crate::outcome::Disposition;
use crate::telemetry::metrics::{Metrics, RequestRecord, RouteTable};

/// A time at the begin of a coarse slot.
const START: Wall = Wall(1_700_000_100_000);
const HOUR: u64 = 3_600_000;
const STEP: u64 = 5_000;

/// A process with counters, and its history.
struct Simulation {
    metrics: Metrics,
    table: std::sync::Arc<RouteTable>,
    history: TrafficHistory,
    now: Wall,
    reading: HistoryReading,
}

impl Simulation {
    fn start() -> Self {
        let metrics = Metrics::new();
        let table = metrics.table(["/a".to_owned()]);
        let (history, now) = (TrafficHistory::new(), START);
        let mut one = Self { metrics, table, history, now, reading: HistoryReading::default() };
        one.read();
        one
    }

    fn requests(&self, disposition: Disposition, times: u64, ms: u64) {
        for _ in 0..times {
            let duration = Duration::from_millis(ms);
            let (reason, status) = (None, StatusCode::OK);
            let record = RequestRecord { disposition, reason, status, duration, saved: None };
            self.table.request(Some(0), &record);
            if matches!(disposition, Disposition::Miss | Disposition::Bypass) {
                self.table.origin(Some(0), duration);
            }
        }
    }

    fn read(&mut self) {
        let reading = HistoryReading { traffic: self.metrics.totals(), ..self.reading.clone() };
        self.history.record(self.now, reading);
    }

    /// So much later there is a reading.
    fn step(&mut self, ms: u64) {
        self.now = Wall(self.now.0 + ms);
        self.read();
    }

    /// Four requests a second for so many steps, three of them hits.
    fn quiet(&mut self, steps: u64) {
        for _ in 0..steps {
            self.requests(Disposition::Hit, 15, 1);
            self.requests(Disposition::Miss, 5, 40);
            self.step(STEP);
        }
    }

    fn view(&self, range: HistoryRange) -> Value {
        serde_json::to_value(self.history.view(range, self.now)).unwrap()
    }
}

fn column<'a>(view: &'a Value, series: &str) -> &'a Vec<Value> {
    view.pointer(&format!("/series/{series}")).unwrap().as_array().unwrap()
}

/// The slots of a series with numbers, by their index from the first one on.
fn numbers(view: &Value, series: &str) -> Vec<(usize, f64)> {
    let known = |(at, value): (usize, &Value)| value.as_f64().map(|value| (at, value));
    column(view, series).iter().enumerate().filter_map(known).collect()
}

/// Whether all of them are this one.
fn are(numbers: &[(usize, f64)], expected: f64) -> bool {
    numbers.iter().all(|(_, number)| (number - expected).abs() < 1e-9)
}

fn kinds(view: &Value) -> Vec<String> {
    let events = view["events"].as_array().unwrap();
    events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_day_with_an_incident_is_there_the_day_after() {
    let mut one = Simulation::start();
    one.quiet(12 * 720);
    // Ten minutes in which the app is slow and fails.
    one.history.mark(one.now, MarkKind::AppDown, "refused");
    for _ in 0..120 {
        one.requests(Disposition::Miss, 40, 2_000);
        one.reading.app_failures += 3;
        one.reading.status = SlotStatus::Degraded;
        one.step(STEP);
    }
    one.reading.status = SlotStatus::Ready;
    one.history.mark(one.now, MarkKind::AppBack, "");
    one.quiet(12 * 720 - 120);

    let day = one.view(HistoryRange::Day);
    assert_eq!((&day["slots"], &day["step_ms"]), (&288.into(), &300_000.into()));
    assert_eq!(day["from_ms"], START.0, "the whole day");
    let at_noon = |series: &str| {
        let all = numbers(&day, series);
        assert_eq!(all.len(), 288, "{series} has no gap");
        (all[0].1, all[143].1, all[144].1, all[145].1, all[146].1, all[287].1)
    };
    assert_eq!(at_noon("requests/HIT"), (900.0, 900.0, 0.0, 0.0, 900.0, 900.0));
    assert_eq!(at_noon("requests/MISS"), (300.0, 300.0, 2400.0, 2400.0, 300.0, 300.0));
    assert_eq!(at_noon("hit_ratio/cacheable"), (0.75, 0.75, 0.0, 0.0, 0.75, 0.75));
    assert_eq!(at_noon("app_failures"), (0.0, 0.0, 180.0, 180.0, 0.0, 0.0));
    let (before, _, during, _, after, _) = at_noon("latency_ms/app/p95");
    assert!(before < 60.0 && during > 1_000.0 && after < 60.0, "{before} {during} {after}");
    assert_eq!(numbers(&day, "latency_ms/hit/p50").len(), 286, "none without a hit");
    let statuses = column(&day, "status");
    let degraded = |value: &&Value| **value == "degraded";
    assert_eq!(statuses.iter().filter(degraded).count(), 2);
    assert_eq!(kinds(&day), ["app_down", "app_back"]);
    let noon = START.0 + 12 * HOUR;
    assert_eq!(day["events"][0]["at_ms"], noon);
    // A hole in the middle of the week has no numbers; the last hour has them finer.
    let week = one.view(HistoryRange::Week);
    assert_eq!(numbers(&week, "requests/HIT").len(), 288);
    assert_eq!(numbers(&week, "requests/HIT")[0].0, 6 * 288, "and none before the start");
    let hour = one.view(HistoryRange::Hour);
    assert_eq!((numbers(&hour, "requests/HIT").len(), kinds(&hour).len()), (720, 0));
    assert_eq!(numbers(&hour, "requests/HIT")[719], (719, 15.0));
    assert_eq!(numbers(&hour, "covered_ms")[719], (719, 5000.0));
    assert_eq!(numbers(&one.view(HistoryRange::FiveMinutes), "requests/MISS").len(), 60);
    assert_eq!(numbers(&one.view(HistoryRange::SixHours), "requests/MISS").len(), 72);
}

#[test]
fn it_stays_below_its_limit_and_does_not_grow() {
    let mut history = TrafficHistory::new();
    let empty = history.bytes();
    let mut reading = HistoryReading::default();
    // Nine days, and more marks than there is room for, with texts that grow when escaped.
    for step in 0..9 * 24 * 720_u64 {
        reading.traffic.requests[0] += 1_000_000;
        reading.traffic.bytes_from_cache += 1 << 40;
        let now = Wall(START.0 + step * STEP);
        history.record(now, reading.clone());
        if step % 50 == 0 {
            history.mark(now, MarkKind::Reload, &format!("{step} {}", "\u{202e}".repeat(1000)));
        }
    }
    let full = history.bytes();
    let texts = MAX_MARKS * 5 * MAX_MARK_TEXT;
    assert!(empty < full && full <= empty + texts, "{empty} {full}");
    assert!(full < MAX_HISTORY_BYTES, "{full} bytes");
    // The finer histograms that latencies may get have room, too.
    assert!(full < MAX_HISTORY_BYTES / 2, "{full} bytes");
    assert_eq!(history.marks(), MAX_MARKS);
    let now = Wall(START.0 + 9 * 24 * HOUR);
    let view = serde_json::to_value(history.view(HistoryRange::Week, now)).unwrap();
    assert_eq!(numbers(&view, "requests/HIT").len(), 2016);
    let dropped = (9 * 24 * 720_u64).div_ceil(50) - MAX_MARKS as u64;
    assert_eq!((kinds(&view).len(), &view["events_dropped"]), (MAX_MARKS, &dropped.into()));
    let json = view.to_string();
    assert!(json.len() < 1 << 20, "a week is {} bytes of JSON", json.len());
    for event in view["events"].as_array().unwrap() {
        let text = event["text"].as_str().unwrap();
        assert!(!text.contains('\u{202e}') && text.len() <= 5 * MAX_MARK_TEXT, "{text}");
    }
}

#[test]
fn the_first_reading_is_no_traffic() {
    let mut one = Simulation::start();
    let mut history = TrafficHistory::new();
    one.requests(Disposition::Hit, 1000, 1);
    history.record(one.now, HistoryReading { traffic: one.metrics.totals(), ..Default::default() });
    let view = |history: &TrafficHistory, now| {
        serde_json::to_value(history.view(HistoryRange::FiveMinutes, now)).unwrap()
    };
    assert_eq!(numbers(&view(&history, one.now), "requests/HIT"), []);
    // Less than a second after the start a rate would be noise.
    one.now = Wall(one.now.0 + 400);
    one.requests(Disposition::Hit, 7, 1);
    history.record(one.now, HistoryReading { traffic: one.metrics.totals(), ..Default::default() });
    assert_eq!(numbers(&view(&history, one.now), "requests/HIT"), []);
    one.now = Wall(START.0 + STEP);
    history.record(one.now, HistoryReading { traffic: one.metrics.totals(), ..Default::default() });
    assert_eq!(numbers(&view(&history, one.now), "requests/HIT"), [(59, 7.0)]);
    assert_eq!(kinds(&view(&history, one.now)), [""; 0]);
}

#[test]
fn a_process_that_was_stopped_has_a_gap_and_no_spike() {
    let mut one = Simulation::start();
    one.quiet(60);
    // Stopped for two minutes; just before and just after, requests are served.
    one.requests(Disposition::Hit, 500, 1);
    one.step(120_000);
    one.quiet(24);
    let view = one.view(HistoryRange::FiveMinutes);
    let all = numbers(&view, "requests/HIT");
    assert!(are(&all, 15.0), "neither a spike nor a zero: {all:?}");
    let gap: Vec<usize> = (0..60).filter(|at| all.iter().all(|(known, _)| known != at)).collect();
    assert_eq!(gap, (12..36).collect::<Vec<_>>(), "two minutes without numbers");
    assert_eq!(kinds(&view), ["gap"]);
    let text = view["events"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("no numbers for 120 s: the process was stopped"), "{text}");
    assert_eq!(view["events"][0]["at_ms"], START.0 + 60 * STEP + 120_000);
    // Coarse steps count what was observed of them.
    let hours = one.view(HistoryRange::SixHours);
    assert_eq!(numbers(&hours, "covered_ms"), [(70, 300_000.0), (71, 120_000.0)]);
    assert_eq!(numbers(&hours, "requests/HIT"), [(70, 900.0), (71, 360.0)]);
}

#[test]
fn a_clock_that_jumps_leaves_a_gap() {
    let mut one = Simulation::start();
    one.quiet(720);
    one.requests(Disposition::Hit, 9_999, 1);
    one.step(3 * 24 * HOUR);
    one.quiet(720);
    let week = one.view(HistoryRange::Week);
    let all = numbers(&week, "requests/HIT");
    assert_eq!(all.len(), 24, "two hours of steps");
    assert!(are(&all, 900.0), "{all:?}");
    assert_eq!(all[12].0 - all[11].0, 3 * 288 + 1);
    // Back by two hours: that time is lived through again, and what was noted of it is gone.
    one.requests(Disposition::Hit, 9_999, 1);
    one.now = Wall(one.now.0 - 2 * HOUR);
    one.read();
    one.requests(Disposition::Hit, 45, 1);
    one.step(STEP);
    let hour = one.view(HistoryRange::Hour);
    assert_eq!(numbers(&hour, "requests/HIT"), [(719, 45.0)]);
    assert_eq!(kinds(&one.view(HistoryRange::Week)), ["gap", "gap"]);
    one.quiet(2 * 720);
    let hour = one.view(HistoryRange::Hour);
    assert!(are(&numbers(&hour, "requests/HIT"), 15.0));
}

#[test]
fn what_is_set_back_over_leaves_nothing_behind_in_a_later_gap() {
    let mut one = Simulation::start();
    one.quiet(120);
    one.now = Wall(START.0 + 10 * STEP);
    one.read();
    // Nothing is observed where the old numbers were.
    one.step(105 * STEP);
    one.quiet(5);
    let view = one.view(HistoryRange::Hour);
    let expected: Vec<usize> = (0..10).chain(115..120).map(|at| at + 600).collect();
    let known: Vec<usize> = numbers(&view, "requests/HIT").iter().map(|(at, _)| *at).collect();
    assert_eq!(known, expected);
}

#[test]
fn readings_that_come_late_leave_no_gap_and_their_rates_are_right() {
    let mut one = Simulation::start();
    // Each a little later than its slot's end, at a rate of 3 a second.
    let late = [1_900, 200, 2_000, 100, 1_500, 0];
    let mut before = 0;
    for (at, late) in (1..).zip(late) {
        let elapsed = STEP + late - before;
        before = late;
        one.requests(Disposition::Hit, elapsed * 3 / 1000, 1);
        one.step(elapsed);
        assert_eq!(one.now, Wall(START.0 + at * STEP + late));
    }
    let view = one.view(HistoryRange::FiveMinutes);
    let (hits, covered) = (numbers(&view, "requests/HIT"), numbers(&view, "covered_ms"));
    assert_eq!(hits.len(), late.len(), "{hits:?}");
    for ((_, hits), (_, covered)) in hits.iter().zip(covered) {
        let rate = hits * 1000.0 / covered;
        // Of the parts of an interval each is rounded to whole requests.
        assert!((2.0..=3.2).contains(&rate), "{rate}");
    }
}

/// A reading that came more than half a step late went to the next slot, and its own was a gap.
#[test]
fn r961_a_slot_whose_reading_comes_late_is_no_gap() {
    let mut one = Simulation::start();
    // At a rate of 2 a second; the readings of the first two slots are late, then on time again.
    for (elapsed, requests) in [(7_600, 15), (5_000, 10), (2_400, 5), (5_000, 10), (9_900, 20)] {
        one.requests(Disposition::Hit, requests, 1);
        one.step(elapsed);
    }
    let view = one.view(HistoryRange::FiveMinutes);
    let (hits, covered) = (numbers(&view, "requests/HIT"), numbers(&view, "covered_ms"));
    let slots: Vec<usize> = hits.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [54, 55, 56, 57, 58, 59], "no gap");
    assert!(are(&[(0, hits.iter().map(|(_, hits)| hits).sum())], 60.0), "{hits:?}");
    for ((_, hits), (_, covered)) in hits.iter().zip(&covered) {
        let rate = hits * 1000.0 / covered;
        assert!((1.6..=2.4).contains(&rate), "{hits:?} {covered:?}");
    }
    let medians = numbers(&view, "latency_ms/hit/p50");
    assert_eq!(medians.len(), 6, "{medians:?}");
    assert_eq!(kinds(&view), [""; 0]);
}

/// However late readings come: each slot between them has numbers, and all is counted once.
#[test]
fn r962_late_readings_leave_no_gap_and_lose_nothing() {
    let longest = millis(LONGEST_INTERVAL);
    let mut random = 7_u64;
    for shortest in [100, 2_000, 4_900, 7_000, longest - 1] {
        let mut one = Simulation::start();
        let mut asked = 0.0;
        while one.now.0 < START.0 + 20 * STEP {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let requests = u8::try_from((random >> 50) % 9).expect("a digit");
            one.requests(Disposition::Miss, requests.into(), 40);
            asked += f64::from(requests);
            one.step(shortest + (random >> 33) % (longest + 1 - shortest));
        }
        // So that the slot of the last one has enough time to be shown.
        one.step(2_500);
        let view = one.view(HistoryRange::FiveMinutes);
        let (misses, covered) = (numbers(&view, "requests/MISS"), numbers(&view, "covered_ms"));
        let sum = |all: &[(usize, f64)]| -> f64 { all.iter().map(|(_, number)| number).sum() };
        let passed = Duration::from_millis(one.now.0 - START.0).as_secs_f64() * 1000.0;
        let off = passed - sum(&covered);
        assert!((-30.0..1_000.0).contains(&off), "{shortest}: {off} {covered:?}");
        assert!((asked - sum(&misses)).abs() < 0.5, "{shortest}: {misses:?} of {asked}");
        let gaps = misses.windows(2).filter(|pair| pair[0].0 + 1 != pair[1].0).count();
        assert_eq!(gaps, 0, "{shortest}: {misses:?}");
        assert!(misses.len() >= 19, "{shortest}: {misses:?}");
    }
}

#[test]
fn the_slot_that_has_just_begun_is_no_gap_but_silence_is() {
    let mut one = Simulation::start();
    one.quiet(60);
    let newest = |after: u64| {
        let now = Wall(one.now.0 + after);
        let view = serde_json::to_value(one.history.view(HistoryRange::Hour, now)).unwrap();
        numbers(&view, "requests/HIT").last().unwrap().0
    };
    assert_eq!((newest(0), newest(4_999), newest(9_000)), (719, 719, 719));
    assert_eq!(newest(60_000), 719 - 13, "nobody takes readings any more");
}

#[test]
fn gauges_are_the_latest_and_round_trips_the_mean() {
    let mut one = Simulation::start();
    for (entries, trip) in [(5, Some(2)), (9, Some(4)), (7, None)] {
        one.reading.memory_entries = entries;
        one.reading.memory_bytes = entries * 1000;
        one.reading.evictions += 2;
        one.reading.redis_round_trip = trip.map(Duration::from_millis);
        one.step(STEP);
    }
    let fine = one.view(HistoryRange::FiveMinutes);
    assert_eq!(numbers(&fine, "redis_ms"), [(57, 2.0), (58, 4.0)], "null while it is lost");
    let coarse = one.view(HistoryRange::Day);
    assert_eq!(numbers(&coarse, "redis_ms"), [(287, 3.0)]);
    assert_eq!(numbers(&coarse, "memory/entries"), [(287, 7.0)]);
    assert_eq!(numbers(&coarse, "memory/bytes"), [(287, 7000.0)]);
    assert_eq!(numbers(&coarse, "memory/evictions"), [(287, 6.0)]);
}

#[test]
fn both_ratios_are_told() {
    let mut one = Simulation::start();
    for (disposition, times) in [
        (Disposition::Hit, 5),
        (Disposition::Stale, 2),
        (Disposition::Revalidated, 1),
        (Disposition::Miss, 2),
        (Disposition::Bypass, 6),
    ] {
        one.requests(disposition, times, 1);
    }
    one.step(STEP);
    one.requests(Disposition::Bypass, 1, 1);
    one.step(STEP);
    let view = one.view(HistoryRange::FiveMinutes);
    let near = |series: &str, expected: &[(usize, f64)]| {
        let all = numbers(&view, series);
        let is_near = |((at, one), (place, other)): (&(usize, f64), &(usize, f64))| {
            at == place && (one - other).abs() < 1e-4
        };
        assert!(all.len() == expected.len() && all.iter().zip(expected).all(is_near), "{all:?}");
    };
    near("hit_ratio/cacheable", &[(58, 0.8)]);
    near("hit_ratio/all", &[(58, 0.5), (59, 0.0)]);
}

#[test]
fn what_repeats_itself_is_one_mark() {
    let mut one = Simulation::start();
    let mark = |one: &mut Simulation, at: u64, kind, text| {
        one.history.mark(Wall(START.0 + at), kind, text);
    };
    for at in 0..1000 {
        mark(&mut one, at, MarkKind::ReloadFailed, "line 3");
    }
    mark(&mut one, 1000, MarkKind::ReloadFailed, "line 4");
    mark(&mut one, 1001, MarkKind::ReloadFailed, "line 3");
    let view = one.view(HistoryRange::Hour);
    let events = view["events"].as_array().unwrap();
    let of = |at: usize, field: &str| events[at][field].as_u64().unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!((of(0, "times"), of(1, "times"), of(2, "times")), (1000, 1, 1));
    assert_eq!((of(0, "at_ms"), of(0, "until_ms")), (START.0, START.0 + 999));
}

#[test]
fn a_range_has_one_word() {
    for range in HistoryRange::ALL {
        assert_eq!(HistoryRange::from_word(range.as_str()), Some(range));
        let step = if range.is_fine() { FINE_STEP } else { COARSE_STEP };
        assert_eq!(range.slots() as u64 * millis(step) % 300_000, 0, "{range}");
    }
    for word in ["", "5M", "1d", "1h ", "3600"] {
        assert_eq!(HistoryRange::from_word(word), None);
    }
}
