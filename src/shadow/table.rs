//! The table of shadow mode: what would be stored under each key, and the history of the key.
//!
//! Holds digests, times and tags, never a body. Bounded by `limits.shadow_keys`: a new key evicts
//! an old one.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::coherence::local_snapshot::SnapshotProof;
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::semantics::times::{Leeway, Times};
use crate::semantics::vary::VarySpec;
use crate::shadow::history::{Caller, Digest, History, StepSpan, Stored};
use crate::telemetry::metrics::Counter;

/// What would be stored under a key, besides the facts in its [`History`].
#[derive(Debug)]
pub struct ShadowEntry {
    /// Its times.
    pub times: Times,
    /// How it may be used once it is stale.
    pub leeway: Leeway,
    /// What must still hold for it to be current.
    pub proof: SnapshotProof,
    /// Its tags.
    pub tags: Box<[Tag]>,
}

/// A response that would be stored.
#[derive(Debug)]
pub struct ShadowSample {
    /// The key before `Vary` narrows it.
    pub primary: KeyHash,
    /// The headers that the response varies on.
    pub vary: VarySpec,
    /// The hash of its key.
    pub key: KeyHash,
    /// The caller that got it.
    pub caller: Caller,
    /// Its digest; `None` if its body has not been seen.
    pub digest: Option<Digest>,
    /// When it was fetched.
    pub span: StepSpan,
    /// The other facts.
    pub entry: ShadowEntry,
}

/// What would be stored under a key now.
#[derive(Clone, Debug)]
pub struct FoundSample {
    /// Its facts.
    pub entry: Arc<ShadowEntry>,
    /// Its digest; `None` if its body has not been seen.
    pub digest: Option<Digest>,
}

#[derive(Debug, Default)]
pub(super) struct KeyState {
    pub(super) history: History,
    pub(super) entry: Option<Arc<ShadowEntry>>,
    /// The change that made the stored response stale, and whether writes explain it.
    pub(super) blame: Option<(u64, bool)>,
    /// How many findings of this key were explained by writes, and how many were put down to its
    /// scope.
    pub(super) explained: u64,
    pub(super) scope: u64,
}

impl KeyState {
    fn found(&self) -> Option<FoundSample> {
        let digest = self.history.stored().and_then(|stored| stored.digest);
        self.entry.clone().map(|entry| FoundSample { entry, digest })
    }
}

/// The value under the hash of a key.
#[derive(Clone, Debug)]
enum ShadowSlot {
    /// The key has variants.
    Vary(Arc<VarySpec>),
    Key(Arc<Mutex<KeyState>>),
}

/// Counts the evictions of the table.
#[derive(Clone, Debug)]
struct Evictions(Arc<Counter>);

impl Lifecycle<u128, ShadowSlot> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: u128, _: ShadowSlot) {
        self.0.inc();
    }
}

/// What would be stored, by the hash of the key.
pub(super) struct ShadowTable(Cache<u128, ShadowSlot, UnitWeighter, DefaultHashBuilder, Evictions>);

impl ShadowTable {
    /// A table of at most `keys` keys, which counts those it evicts.
    pub(super) fn new(keys: usize, evicted: &Arc<Counter>) -> Self {
        Self(Cache::with(
            keys,
            keys as u64,
            UnitWeighter,
            DefaultHashBuilder::default(),
            Evictions(Arc::clone(evicted)),
        ))
    }

    /// Forgets all keys.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What would be stored for a request, and the hash of its key, as far as its `Vary` is known.
    pub(super) fn find(
        &self,
        primary: KeyHash,
        variant: impl Fn(&VarySpec) -> KeyHash,
    ) -> (KeyHash, Option<FoundSample>) {
        match self.0.get(&primary.half()) {
            Some(ShadowSlot::Vary(spec)) => {
                let key = variant(&spec);
                let entry = match self.0.get(&key.half()) {
                    Some(ShadowSlot::Key(state)) => lock(&state).found(),
                    _ => None,
                };
                (key, entry)
            }
            Some(ShadowSlot::Key(state)) => (primary, lock(&state).found()),
            None => (primary, None),
        }
    }

    /// Whether the response that would have been served differs from the origin's.
    pub(super) fn differs(&self, key: KeyHash, served: &Arc<ShadowEntry>, digest: Digest) -> bool {
        let Some(ShadowSlot::Key(state)) = self.0.get(&key.half()) else { return false };
        let state = lock(&state);
        let stored = state.history.stored().and_then(|stored| stored.digest);
        is_same(state.entry.as_ref(), Some(served)) && stored.is_some_and(|stored| stored != digest)
    }

    /// Replaces what would be stored under a key by a new response.
    pub(super) fn store(&self, sample: ShadowSample) {
        let ShadowSample { primary, vary, key, caller, digest, span, entry } = sample;
        let known = || self.0.get(&primary.half());
        if !vary.is_empty() && !matches!(known(), Some(ShadowSlot::Vary(known)) if *known == vary) {
            self.0.insert(primary.half(), ShadowSlot::Vary(Arc::new(vary)));
        }
        let state = self.state(key);
        let mut state = lock(&state);
        state.history.store(Some(Stored::new(caller, digest, span)));
        state.entry = Some(Arc::new(entry));
        state.blame = None;
    }

    /// Forgets what would be stored under a key: the origin's response has changed, and the new one
    /// may not be stored.
    pub(super) fn forget(&self, key: KeyHash) {
        if let Some(ShadowSlot::Key(state)) = self.0.get(&key.half()) {
            let mut state = lock(&state);
            state.history.store(None);
            (state.entry, state.blame) = (None, None);
        }
    }

    pub(super) fn state(&self, key: KeyHash) -> Arc<Mutex<KeyState>> {
        if let Some(ShadowSlot::Key(state)) = self.0.get(&key.half()) {
            return state;
        }
        // If two threads come here at once, the state of the second one stays. The only cost is a
        // lost observation.
        let state = Arc::<Mutex<KeyState>>::default();
        self.0.insert(key.half(), ShadowSlot::Key(Arc::clone(&state)));
        state
    }
}

pub(super) fn is_same(one: Option<&Arc<ShadowEntry>>, two: Option<&Arc<ShadowEntry>>) -> bool {
    one.zip(two).is_some_and(|(one, two)| Arc::ptr_eq(one, two))
}

pub(super) fn lock(state: &Mutex<KeyState>) -> MutexGuard<'_, KeyState> {
    // Later observations correct a state that a panic left incomplete, and nothing is served from
    // it.
    state.lock()
}
