//! A tier without Redis, written and restored.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tempfile::TempDir;

use super::*;
use crate::cache::entry::packed::Seal;
use crate::cache::entry::{Entry, EntryMetadata};
use crate::cache::store::Store;
use crate::cache::store::memory::{CachedEntry, Memory, MemorySettings, MemorySlot};
use crate::clock::Clock;
use crate::coherence::{Coherence, Proof};
use crate::policy::key::{Key, KeyPart, KeyWriter};
use crate::policy::tag::Tag;
use crate::secret::Hasher;
use crate::semantics::times::{Leeway, Times};

const ROUTE: [u8; 8] = [7; 8];
const HOUR: Duration = Duration::from_hours(1);

/// A process: its tier, and what its snapshots are made of.
struct Process {
    clock: Clock,
    coherence: Arc<Coherence>,
    store: Store,
    settings: SnapshotSettings,
    key: SnapshotKey,
    routes: SnapshotRoutes,
}

impl Process {
    fn start(folder: &TempDir, memory: u64) -> Self {
        let clock = Clock::manual();
        let coherence = Arc::new(Coherence::new(None, clock.clone()));
        let memory = Memory::new(MemorySettings { size: memory, max_object: 1 << 16 });
        let store = Store::new(memory, Arc::clone(&coherence), Seal::default(), 1 << 16, 8);
        let path = folder.path().join("snapshot");
        Self {
            clock,
            coherence,
            store,
            settings: SnapshotSettings { path, size: 1 << 20, time: Duration::from_secs(3) },
            key: SnapshotKey::new(&Hasher::default(), "app"),
            routes: SnapshotRoutes::new([(ROUTE, false)].into_iter()),
        }
    }

    /// Stores an entry that is fresh for an hour and may be stale for another.
    fn fill(&self, name: &str) {
        let headers = HeaderMap::from_iter([("etag", "\"1\"")].map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        }));
        let times =
            Times { received: self.clock.wall(), initial_age: Duration::ZERO, lifetime: HOUR };
        let leeway =
            Leeway { while_revalidate: HOUR, if_error: HOUR, unreachable: HOUR, keep: HOUR };
        let metadata = EntryMetadata {
            times,
            leeway,
            fetch_duration: Duration::ZERO,
            response_tags: [Tag::new("named")].into(),
        };
        let key = key(name);
        let body = [Bytes::from_static(b"body")];
        let entry = Entry::compact(key.canonical(), StatusCode::OK, &headers, &body, metadata);
        let tags = [Tag::new("derived"), Tag::new("named")];
        let proof = Proof::Local(self.coherence.prove_from_now(&tags));
        assert!(self.store.memory.insert(key.hash(), Arc::new(CachedEntry::new(entry, proof))));
    }

    fn save(&self, until: Instant) -> save::SavedSnapshot {
        let (settings, key, routes) = (&self.settings, &self.key, &self.routes);
        let (store, coherence) = (&self.store, &*self.coherence);
        save(&SnapshotTarget { settings, key, routes, store, coherence, until }).expect("saved")
    }

    fn read(&self, until: Instant) -> Result<Option<ReadSnapshot>, SnapshotRefusal> {
        let (settings, key, clock) = (&self.settings, &self.key, &self.clock);
        let room = self.store.memory.limit();
        let source = SnapshotSource { settings, key, room, clock, until };
        read(&source).map_err(|error| error.refusal)
    }

    fn restore(&self) -> (u64, Omissions) {
        let read = self.read(self.later()).expect("it is whole").expect("there is one");
        insert(read, &self.routes, &self.store, &self.coherence).expect("there is no Redis")
    }

    fn later(&self) -> Instant {
        self.clock.now() + HOUR
    }

    fn find(&self, name: &str) -> Option<Arc<CachedEntry>> {
        match self.store.memory.get(&key(name))? {
            MemorySlot::Entry(cached) => Some(cached),
            MemorySlot::Vary(_) => None,
        }
    }
}

fn key(name: &str) -> Key {
    let mut writer = KeyWriter::default();
    writer.part(KeyPart::Route, &ROUTE);
    writer.part(KeyPart::Path, name.as_bytes());
    writer.finish()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn what_the_origin_has_to_confirm_is_never_fresh_whatever_the_clock_says() {
    for stepped in [-7_200_000, -1, 0, 60_000] {
        let folder = folder();
        let old = Process::start(&folder, 1 << 20);
        old.fill("/a");
        old.clock.advance(Duration::from_mins(10));
        assert_eq!(old.save(old.later()).entries, 1);
        let new = Process::start(&folder, 1 << 20);
        new.clock.step_wall(stepped);
        assert_eq!(new.restore(), (1, Omissions::default()), "{stepped}");
        let cached = new.find("/a").expect("it is restored");
        let (entry, now) = (&cached.entry, new.clock.wall());
        let Leeway { while_revalidate, if_error, unreachable, keep: _ } = entry.leeway;
        assert_eq!([while_revalidate, if_error, unreachable], [Duration::ZERO; 3], "{stepped}");
        assert!(!entry.times.is_fresh(now), "{stepped}");
        let kept = entry.retained_for(now);
        assert!(kept > HOUR && kept <= 2 * HOUR, "{stepped}: {kept:?}");
        assert_eq!(entry.response_tags[..], [Tag::new("named")]);
        let Proof::Local(proof) = &cached.proof else { panic!("there is no Redis") };
        assert_eq!(new.coherence.validate_local(proof), Ok(()));
        new.coherence.purge(&[Tag::new("derived")]).await;
        assert!(new.coherence.validate_local(proof).is_err());
    }
}

#[tokio::test]
async fn what_was_purged_is_stale_or_of_no_route_is_left_out() {
    let folder = folder();
    let old = Process::start(&folder, 1 << 20);
    old.fill("/stale");
    old.clock.advance(HOUR);
    old.fill("/purged");
    old.coherence.purge(&[Tag::new("named")]).await;
    old.fill("/a");
    let saved = old.save(old.later());
    let counts = [LeftOut::Stale, LeftOut::Purged].map(|why| saved.omissions.count(why));
    assert_eq!((saved.entries, counts), (1, [1, 1]));
    assert_eq!(saved.omissions.to_string(), "stale 1, purged 1");

    let mut new = Process::start(&folder, 1 << 20);
    new.routes = SnapshotRoutes::new([([8; 8], false)].into_iter());
    let (restored, omissions) = new.restore();
    assert_eq!((restored, omissions.count(LeftOut::Route)), (0, 1));
    assert!(new.store.memory.is_empty());
}

#[tokio::test]
async fn what_was_kept_long_enough_is_not_restored() {
    let folder = folder();
    let old = Process::start(&folder, 1 << 20);
    old.fill("/a");
    old.save(old.later());
    let new = Process::start(&folder, 1 << 20);
    new.clock.advance(2 * HOUR);
    let (restored, omissions) = new.restore();
    assert_eq!((restored, omissions.count(LeftOut::Stale)), (0, 1));
}

#[tokio::test]
async fn what_is_stored_already_is_newer() {
    let folder = folder();
    let old = Process::start(&folder, 1 << 20);
    old.fill("/a");
    old.save(old.later());
    let new = Process::start(&folder, 1 << 20);
    new.fill("/a");
    let (restored, omissions) = new.restore();
    assert_eq!((restored, omissions.count(LeftOut::Size)), (0, 1));
    assert!(new.find("/a").is_some_and(|cached| cached.entry.times.is_fresh(new.clock.wall())));
}

#[tokio::test]
async fn time_and_room_are_bounded() {
    let folder = folder();
    let old = Process::start(&folder, 1 << 20);
    for number in 0..20 {
        old.fill(&format!("/{number}"));
    }
    let saved = old.save(old.clock.now());
    assert_eq!((saved.entries, saved.omissions.count(LeftOut::Time)), (0, 20));
    assert_eq!(old.save(old.later()).entries, 20);
    let new = Process::start(&folder, 1 << 20);
    assert_eq!(new.read(new.clock.now()).err(), Some(SnapshotRefusal::Time));
    assert!(new.read(new.later()).expect("nothing is wrong").is_none(), "it was used");

    old.save(old.later());
    let small = Process::start(&folder, 1 << 10);
    let (restored, omissions) = small.restore();
    assert!(restored < 20 && restored + omissions.count(LeftOut::Size) == 20, "{omissions}");
    let mut counters = SnapshotCounters::default();
    counters.add(&omissions);
    counters.refuse(SnapshotRefusal::Time);
    counters.refuse(SnapshotRefusal::TooLarge);
    let counted = counters.left_out.remove(LeftOut::Size as usize).get();
    assert_eq!(counted, omissions.count(LeftOut::Size));
    assert_eq!((counters.time_reached.get(), counters.size_reached.get()), (1, 1));
}
