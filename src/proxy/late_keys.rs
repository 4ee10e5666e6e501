//! Which keys are read late: one at a time each.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::fills::FillKey;

/// The keys whose records are read for longer than a request waits, and filled then. As many as
/// there are permits for.
#[derive(Debug, Default)]
pub(crate) struct LateKeys(Arc<Mutex<HashSet<FillKey>>>);

/// A key that is read late, until this is dropped.
#[derive(Debug)]
pub(super) struct LateKey {
    keys: Arc<Mutex<HashSet<FillKey>>>,
    key: FillKey,
}

impl LateKeys {
    /// Takes a key; none if it is taken already.
    pub(super) fn take(&self, key: FillKey) -> Option<LateKey> {
        let is_new = self.0.lock().insert(key);
        is_new.then(|| LateKey { keys: Arc::clone(&self.0), key })
    }
}

impl Drop for LateKey {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}
