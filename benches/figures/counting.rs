//! How much time counting adds to a hit, which takes about ten microseconds.

use std::hint::black_box;
use std::time::Duration;

use sidecache::internals::metrics::{BodySource, Metrics, RequestRecord};
use sidecache::internals::{Disposition, Reason};

const TIMES: u32 = 1_000_000;

/// The processor time of this thread, so that a busy machine measures the same as an idle one.
fn on_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds come first"))
}

/// Counts a hit and a slow miss.
pub fn a_hit() {
    let metrics = Metrics::new();
    let table = metrics.table((0..20).map(|route| format!("/route/{route}")));
    let (quick, slow) = (Duration::from_micros(12), Duration::from_secs(7));
    let saved = Some(Duration::from_millis(80));
    let hit = RequestRecord {
        status: hyper::StatusCode::OK,
        disposition: Disposition::Hit,
        reason: None,
        duration: quick,
        saved,
    };
    let reason = Some(Reason::NotStored);
    let miss = RequestRecord {
        status: hyper::StatusCode::OK,
        disposition: Disposition::Miss,
        reason,
        duration: slow,
        saved: None,
    };
    for (name, seen) in [("a hit", hit), ("a slow miss", miss)] {
        let start = on_processor();
        for route in 0..TIMES {
            let route = Some(route as usize % 20);
            table.request(route, black_box(&seen));
            table.bytes(route, BodySource::Cache, 4096);
        }
        let each = on_processor().saturating_sub(start) / TIMES;
        println!("counting {name}: {each:?}");
    }
}
