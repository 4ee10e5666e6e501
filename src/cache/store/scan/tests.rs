//! A tier without Redis, browsed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::cache::entry::packed::Seal;
use crate::cache::entry::{Entry, EntryMetadata};
use crate::cache::store::memory::MemorySettings;
use crate::clock::Clock;
use crate::coherence::{Coherence, Proof, PurgeKind};
use crate::policy::key::{Key, KeyPart, KeyWriter};
use crate::semantics::times::{Leeway, Times};

const ROUTE: [u8; 8] = [7; 8];
const OTHER_ROUTE: [u8; 8] = [8; 8];
const MINUTE: Duration = Duration::from_mins(1);

/// A tier with its clock.
struct Tier {
    clock: Clock,
    coherence: Arc<Coherence>,
    store: Store,
}

/// What is stored, besides its path.
#[derive(Clone, Copy)]
struct Filled<'a> {
    route: [u8; 8],
    tag: &'a str,
    body: usize,
    hits: u64,
    fresh_for: Duration,
}

const PLAIN: Filled<'_> =
    Filled { route: ROUTE, tag: "plain", body: 10, hits: 0, fresh_for: MINUTE };

impl Tier {
    fn new() -> Self {
        let clock = Clock::manual();
        let coherence = Arc::new(Coherence::new(None, clock.clone()));
        let memory = Memory::new(MemorySettings { size: 64 << 20, max_object: 1 << 20 });
        let store = Store::new(memory, Arc::clone(&coherence), Seal::default(), 1 << 20, 8);
        Self { clock, coherence, store }
    }

    fn fill(&self, path: &str, filled: Filled<'_>) {
        let key = key(filled.route, path);
        let times = Times {
            received: self.clock.wall(),
            initial_age: Duration::ZERO,
            lifetime: filled.fresh_for,
        };
        let metadata = EntryMetadata {
            times,
            leeway: Leeway { keep: 60 * MINUTE, ..Leeway::default() },
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let body = [Bytes::from(vec![b'x'; filled.body])];
        let entry =
            Entry::compact(key.canonical(), StatusCode::OK, &HeaderMap::new(), &body, metadata);
        let tags = [Tag::new(filled.tag), Tag::new("every")];
        let cached = CachedEntry::new(entry, Proof::Local(self.coherence.prove_from_now(&tags)));
        for _ in 0..filled.hits {
            cached.record_hit();
        }
        assert!(self.store.memory.insert(key.hash(), Arc::new(cached)));
    }

    fn scan(&self, request: ScanRequest) -> ScanResult {
        let mut scan = MemoryScan::new(&self.store, request);
        while scan.step(self.clock.wall(), self.clock.now()) {}
        scan.finish()
    }

    fn listed(&self, request: &ScanRequest, place: ScanPlace) -> ListedEntry {
        let (wall, now) = (self.clock.wall(), self.clock.now());
        self.store.listed(place, &request.filter, wall, now).expect("it is stored")
    }

    /// The paths that a scan lists, in their order.
    fn paths(&self, request: &ScanRequest) -> Vec<String> {
        let result = self.scan(request.clone());
        let path = |place: &ScanPlace| {
            let listed = self.listed(request, *place);
            String::from_utf8(path_of(&listed.cached.entry.key).to_vec()).expect("a path")
        };
        result.places.iter().map(path).collect()
    }

    /// The state of the only entry, and its freshness in whole minutes.
    fn only(&self) -> (EntryState, i64) {
        let request = ScanRequest { limit: 1, ..ScanRequest::default() };
        let result = self.scan(request.clone());
        let listed = self.listed(&request, result.places[0]);
        assert_eq!(result.totals.states[listed.state as usize], 1);
        (listed.state, listed.ttl_ms.div_euclid(60_000))
    }
}

fn key(route: [u8; 8], path: &str) -> Key {
    let mut writer = KeyWriter::default();
    writer.part(KeyPart::Route, &route);
    writer.part(KeyPart::Path, path.as_bytes());
    writer.finish()
}

#[test]
fn each_order_begins_with_what_it_is_named_for() {
    let tier = Tier::new();
    tier.fill("/first", Filled { hits: 1, fresh_for: 3 * MINUTE, ..PLAIN });
    tier.clock.advance(Duration::from_secs(1));
    tier.fill("/second", Filled { hits: 5, body: 10_000, fresh_for: Duration::ZERO, ..PLAIN });
    tier.clock.advance(Duration::from_secs(1));
    tier.fill("/third", Filled { hits: 3, body: 5_000, ..PLAIN });
    for (order, paths) in [
        (ScanOrder::Hottest, ["/second", "/third", "/first"]),
        (ScanOrder::Largest, ["/second", "/third", "/first"]),
        (ScanOrder::Newest, ["/third", "/second", "/first"]),
        (ScanOrder::Oldest, ["/first", "/second", "/third"]),
        (ScanOrder::Expiring, ["/third", "/first", "/second"]),
    ] {
        let request = ScanRequest { order, limit: 9, ..ScanRequest::default() };
        assert_eq!(tier.paths(&request), paths, "{order:?}");
    }
}

#[test]
fn lists_of_any_length_hold_every_entry_once() {
    let tier = Tier::new();
    for number in 0..300_u64 {
        // Most share their rank with others.
        tier.fill(&format!("/{number}"), Filled { hits: number % 3, ..PLAIN });
    }
    for order in ScanOrder::ALL {
        for limit in [7, 299, 300] {
            let mut request = ScanRequest { order, limit, ..ScanRequest::default() };
            let (mut seen, mut lists) = (Vec::new(), 0);
            loop {
                let result = tier.scan(request.clone());
                assert!(result.places.len() <= limit);
                assert_eq!((result.totals.entries, result.looked_at), (300, 300));
                seen.extend(result.places.iter().map(|place| place.index));
                lists += 1;
                match result.next {
                    // As it comes back from outside.
                    Some(next) => request.after = Some(next.to_string().parse().expect("a place")),
                    None => break,
                }
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!((seen.len(), lists), (300, 300_usize.div_ceil(limit)), "{order:?} {limit}");
        }
    }
}

#[test]
fn entries_are_chosen_by_tag_route_and_path() {
    let tier = Tier::new();
    tier.fill("/a/1", Filled { tag: "one", ..PLAIN });
    tier.fill("/a/2", Filled { tag: "two", ..PLAIN });
    tier.fill("/b/1", Filled { tag: "one", route: OTHER_ROUTE, ..PLAIN });
    let chosen = |tag: Option<&str>, routes: Option<&[[u8; 8]]>, path: Option<&str>| {
        let filter = ScanFilter {
            tag: tag.map(Tag::new),
            routes: routes.map(Into::into),
            path: path.map(Glob::new),
        };
        let request = ScanRequest { filter, limit: 9, ..ScanRequest::default() };
        let mut paths = tier.paths(&request);
        paths.sort_unstable();
        paths
    };
    assert_eq!(chosen(Some("ONE"), None, None), ["/a/1", "/b/1"], "case does not count in tags");
    assert_eq!(chosen(Some("every"), None, None).len(), 3);
    assert_eq!(chosen(Some("none"), None, None), [""; 0]);
    assert_eq!(chosen(None, Some(&[OTHER_ROUTE]), None), ["/b/1"]);
    assert_eq!(chosen(None, Some(&[]), None), [""; 0]);
    assert_eq!(chosen(None, None, Some("/a/*")), ["/a/1", "/a/2"]);
    assert_eq!(chosen(Some("one"), Some(&[ROUTE]), Some("*1")), ["/a/1"]);
}

#[tokio::test]
async fn an_entry_says_what_it_is_good_for_now() {
    let tier = Tier::new();
    let hour = Filled { fresh_for: 60 * MINUTE + MINUTE / 2, ..PLAIN };
    tier.fill("/a", hour);
    // The clock runs as well, for less than half a minute.
    assert_eq!(tier.only(), (EntryState::Fresh, 60));
    tier.clock.advance(50 * MINUTE);
    let tags = [Tag::new("plain")];
    tier.coherence.purge_with(&tags, PurgeKind::Soft).await;
    tier.clock.advance(5 * MINUTE + MINUTE / 2);
    assert_eq!(tier.only(), (EntryState::SoftPurged, -6), "not the freshness of before");
    tier.fill("/a", hour);
    tier.clock.advance(61 * MINUTE);
    assert_eq!(tier.only(), (EntryState::Stale, -1));
    tier.clock.advance(60 * MINUTE);
    assert_eq!(tier.only().0, EntryState::Expired);
    tier.fill("/a", hour);
    tier.coherence.purge(&tags).await;
    assert_eq!(tier.only().0, EntryState::Purged);
}

#[test]
fn a_scan_takes_no_more_than_its_limits() {
    let tier = Tier::new();
    for number in 0..1_100 {
        tier.fill(&format!("/{number}"), PLAIN);
    }
    let request = ScanRequest { limit: usize::MAX, ..ScanRequest::default() };
    let mut scan = MemoryScan::new(&tier.store, request);
    let (wall, now) = (tier.clock.wall(), tier.clock.now());
    assert!(scan.step(wall, now));
    assert_eq!(scan.looked_at, SLICE as u64, "others may go on after each slice");
    let before: Vec<_> = tier.store.memory.slots().map(|(_, slot)| count_of(&slot)).collect();
    assert_eq!(before.iter().max(), Some(&2), "no entry is held besides the one in this loop");
    while scan.step(wall, now) {}
    let result = scan.finish();
    assert_eq!((result.places.len(), result.totals.entries), (MAX_LISTED, 1_100));
    assert!(result.next.is_some());
    let counters = &tier.store.counters.scans;
    assert_eq!((counters.scans.get(), counters.entries.get()), (1, 1_100));
}

/// How many hold the entry of a slot.
fn count_of(slot: &MemorySlot) -> usize {
    match slot {
        MemorySlot::Entry(cached) => Arc::strong_count(cached),
        MemorySlot::Vary(_) => 0,
    }
}

#[test]
fn what_is_gone_when_it_is_to_be_shown_is_left_out() {
    let tier = Tier::new();
    tier.fill("/a", PLAIN);
    let request = ScanRequest { limit: 9, ..ScanRequest::default() };
    let place = tier.scan(request.clone()).places[0];
    tier.store.memory.remove(key(ROUTE, "/a").hash());
    let (wall, now) = (tier.clock.wall(), tier.clock.now());
    assert!(tier.store.listed(place, &request.filter, wall, now).is_none());
}

#[test]
fn a_tier_that_is_off_is_empty() {
    let clock = Clock::manual();
    let coherence = Arc::new(Coherence::new(None, clock.clone()));
    let memory = Memory::new(MemorySettings { size: 0, max_object: 1 });
    let store = Store::new(memory, coherence, Seal::default(), 1, 8);
    let mut scan = MemoryScan::new(&store, ScanRequest { limit: 9, ..ScanRequest::default() });
    assert!(!scan.step(clock.wall(), clock.now()));
    let result = scan.finish();
    assert!(result.places.is_empty() && result.next.is_none());
}

#[test]
fn a_text_that_is_no_place_is_refused() {
    let place = ScanPlace { rank: 255, index: SlotIndex(1) };
    assert_eq!(place.to_string().parse(), Ok(place));
    let index = "0".repeat(32);
    for text in [
        String::new(),
        "ff".to_owned(),
        format!("-{index}"),
        format!("+f-{index}"),
        "ff-1".to_owned(),
        format!("ff-{index}0"),
        format!("{}-{index}", "f".repeat(17)),
        format!("ff-{}é", "0".repeat(30)),
    ] {
        assert_eq!(text.parse::<ScanPlace>(), Err(NoPlace), "{text}");
    }
}
