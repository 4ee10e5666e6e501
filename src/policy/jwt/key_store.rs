//! The keys in force: those of files, which never change, and those that were fetched, which are
//! replaced and end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::keys::VerifyKey;
use crate::clock::Wall;

/// The keys in force. Requests read them without a lock.
pub struct KeyStore {
    current: ArcSwap<KeySet>,
    /// Called when a token names a key that is unknown; none where no keys are fetched.
    want: Option<WantKeys>,
    fetches: Mutex<FetchState>,
}

/// Asks for a fetch of keys. It must neither block nor do more than once what it is asked twice.
pub type WantKeys = Box<dyn Fn() + Send + Sync>;

/// The keys at one time.
#[derive(Debug)]
pub(super) struct KeySet {
    /// Grows with each change of the keys.
    pub(super) generation: u64,
    /// Those of files.
    fixed: Arc<[VerifyKey]>,
    /// Those that were fetched.
    fetched: Arc<[VerifyKey]>,
    /// Until when those that were fetched hold. `None` where none are fetched.
    pub(super) until: Option<Wall>,
}

#[derive(Debug, Default)]
struct FetchState {
    /// When keys were last fetched.
    fetched: Option<Wall>,
    /// Why the last fetch failed, if it did.
    error: Option<Box<str>>,
}

/// The state of the keys, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// How many keys hold.
    pub keys: usize,
    /// How long ago keys were fetched, if they were.
    pub age: Option<Duration>,
    /// Why the last fetch failed, if it did.
    pub error: Option<Box<str>>,
    /// Whether keys should have been fetched and there are none that hold.
    pub lacks_fetched: bool,
}

impl KeyStatus {
    /// Why the cache takes no part in requests with a token, if it does not.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        self.lacks_fetched.then(|| {
            let why = self.error.as_deref().unwrap_or("they are being fetched");
            format!("the keys of tokens are not available: {why}")
        })
    }
}

impl KeySet {
    /// Whether those that were fetched hold.
    fn holds_fetched(&self, now: Wall) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether keys should have been fetched and there are none that hold.
    pub(super) fn lacks_fetched(&self, now: Wall) -> bool {
        self.until.is_some() && !self.holds_fetched(now)
    }

    /// All keys that hold.
    pub(super) fn keys(&self, now: Wall) -> impl Iterator<Item = &VerifyKey> {
        let fetched = if self.holds_fetched(now) { &*self.fetched } else { &[] };
        self.fixed.iter().chain(fetched)
    }

    /// Whether this key holds.
    pub(super) fn has(&self, print: &[u8; 16], now: Wall) -> bool {
        self.keys(now).any(|key| key.print == *print)
    }
}

impl KeyStore {
    /// With the keys of files, and what asks for others, if they are fetched.
    #[must_use]
    pub fn new(fixed: Vec<VerifyKey>, want: Option<WantKeys>) -> Self {
        let set = KeySet {
            generation: 0,
            fixed: fixed.into(),
            fetched: Arc::default(),
            until: want.is_some().then_some(Wall(0)),
        };
        Self { current: ArcSwap::from_pointee(set), want, fetches: Mutex::default() }
    }

    pub(super) fn load(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.current.load()
    }

    /// Asks for a fetch, because a token names an unknown key.
    pub(super) fn want(&self) {
        if let Some(want) = &self.want {
            want();
        }
    }

    /// Keys were fetched, and hold for `keep`. Only one task calls this.
    pub fn replace(&self, fetched: Vec<VerifyKey>, now: Wall, keep: Duration) {
        let before = self.current.load();
        let prints = |keys: &[VerifyKey]| keys.iter().map(|key| key.print).collect::<Vec<_>>();
        let is_same = prints(&before.fetched) == prints(&fetched);
        let set = KeySet {
            generation: before.generation + u64::from(!is_same),
            fixed: Arc::clone(&before.fixed),
            fetched: fetched.into(),
            until: Some(now.after(keep)),
        };
        self.current.store(Arc::new(set));
        *self.fetches.lock() = FetchState { fetched: Some(now), error: None };
    }

    /// A fetch failed. Returns whether the one before did not.
    pub fn record_failure(&self, why: &str) -> bool {
        self.fetches.lock().error.replace(why.into()).is_none()
    }

    /// The state of the keys.
    #[must_use]
    pub fn status(&self, now: Wall) -> KeyStatus {
        let (set, state) = (self.current.load(), self.fetches.lock());
        KeyStatus {
            keys: set.keys(now).count(),
            age: state.fetched.map(|at| now.since(at)),
            error: state.error.clone(),
            lacks_fetched: set.lacks_fetched(now),
        }
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").field("current", &self.current).finish_non_exhaustive()
    }
}
