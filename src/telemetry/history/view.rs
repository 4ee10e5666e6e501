//! What `GET /history` answers: one array for each series, with the gaps as `null`.

use serde::Serialize;

use super::marks::HistoryMark;
use super::range::HistoryRange;
use super::reading::SlotStatus;
use super::ring::HistoryRing;
use super::slot::HistorySlot;
use crate::outcome::Disposition;

/// The numbers of one range.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryView {
    /// The range that was asked for.
    pub range: HistoryRange,
    /// When the first slot begins, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// What a slot covers, in milliseconds.
    pub step_ms: u64,
    /// How many slots there are: the length of every array.
    pub slots: usize,
    /// When this was made.
    pub now_ms: u64,
    /// The numbers.
    pub series: HistorySeries,
    /// What happened in the range, oldest first.
    pub events: Vec<HistoryMark>,
    /// How many events of this process are no longer kept.
    pub events_dropped: u64,
}

/// One number for each slot; `None` is a gap.
type Column<T> = Vec<Option<T>>;

/// The series of one range.
#[derive(Clone, Debug, Serialize)]
pub struct HistorySeries {
    /// How much of the slot was observed, in milliseconds. Rates are counts over this.
    covered_ms: Column<u32>,
    requests: DispositionSeries,
    hit_ratio: RatioSeries,
    latency_ms: LatencySeries,
    /// Bytes of bodies.
    bytes: SourceSeries,
    memory: MemorySeries,
    /// The mean round trip to Redis; also `None` without Redis and while it was lost.
    redis_ms: Column<f32>,
    /// Requests that the origin gave no whole response to.
    app_failures: Column<u32>,
    /// Responses to clients with a status from 500 to 599.
    server_errors: Column<u32>,
    /// The worst.
    status: Column<SlotStatus>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
struct DispositionSeries {
    hit: Column<u32>,
    stale: Column<u32>,
    revalidated: Column<u32>,
    miss: Column<u32>,
    bypass: Column<u32>,
}

/// Of 0 to 1; `None` also where no request counts.
#[derive(Clone, Debug, Serialize)]
struct RatioSeries {
    cacheable: Column<f32>,
    all: Column<f32>,
}

#[derive(Clone, Debug, Serialize)]
struct LatencySeries {
    hit: PercentileSeries,
    app: PercentileSeries,
}

/// `None` also where no request counts.
#[derive(Clone, Debug, Serialize)]
struct PercentileSeries {
    p50: Column<f32>,
    p95: Column<f32>,
}

#[derive(Clone, Debug, Serialize)]
struct SourceSeries {
    cache: Column<u64>,
    app: Column<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct MemorySeries {
    bytes: Column<u64>,
    entries: Column<u64>,
    evictions: Column<u32>,
}

/// The series of so many slots from `first` on.
pub(super) fn series(ring: &HistoryRing, first: u64, slots: usize) -> HistorySeries {
    let slots: Vec<Option<&HistorySlot>> =
        (first..first + slots as u64).map(|index| ring.get(index)).collect();
    let requests = |disposition: Disposition| -> Column<u32> {
        column(&slots, |slot| slot.requests[disposition as usize])
    };
    HistorySeries {
        covered_ms: column(&slots, |slot| slot.covered_ms),
        requests: DispositionSeries {
            hit: requests(Disposition::Hit),
            stale: requests(Disposition::Stale),
            revalidated: requests(Disposition::Revalidated),
            miss: requests(Disposition::Miss),
            bypass: requests(Disposition::Bypass),
        },
        hit_ratio: RatioSeries {
            cacheable: sparse(&slots, |slot| ratio(slot.hits().0, slot.hits().1)),
            all: sparse(&slots, |slot| ratio(slot.hits().0, slot.hits().2)),
        },
        latency_ms: LatencySeries {
            hit: percentiles(&slots, HistorySlot::hit_ms),
            app: percentiles(&slots, HistorySlot::origin_ms),
        },
        bytes: SourceSeries {
            cache: column(&slots, |slot| slot.bytes_from_cache),
            app: column(&slots, |slot| slot.bytes_from_origin),
        },
        memory: MemorySeries {
            bytes: column(&slots, |slot| slot.memory_bytes),
            entries: column(&slots, |slot| slot.memory_entries),
            evictions: column(&slots, |slot| slot.evictions),
        },
        redis_ms: sparse(&slots, HistorySlot::redis_ms),
        app_failures: column(&slots, |slot| slot.app_failures),
        server_errors: column(&slots, |slot| slot.server_errors),
        status: column(&slots, |slot| slot.status),
    }
}

fn column<T>(slots: &[Option<&HistorySlot>], read: impl Fn(&HistorySlot) -> T) -> Column<T> {
    slots.iter().map(|slot| slot.map(&read)).collect()
}

fn sparse<T>(
    slots: &[Option<&HistorySlot>],
    read: impl Fn(&HistorySlot) -> Option<T>,
) -> Column<T> {
    slots.iter().map(|slot| slot.and_then(&read)).collect()
}

fn percentiles(
    slots: &[Option<&HistorySlot>],
    read: fn(&HistorySlot) -> [Option<f32>; 2],
) -> PercentileSeries {
    PercentileSeries {
        p50: sparse(slots, |slot| read(slot)[0]),
        p95: sparse(slots, |slot| read(slot)[1]),
    }
}

/// A share, to four digits.
fn ratio(part: u32, whole: u32) -> Option<f32> {
    #[allow(clippy::cast_possible_truncation, reason = "a ratio for people to read")]
    (whole > 0).then(|| ((f64::from(part) / f64::from(whole) * 1e4).round() / 1e4) as f32)
}
