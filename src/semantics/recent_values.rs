//! Header values that a thread has written lately: the responses of one second, and the requests of
//! one client, mostly have the same ones, and a copy costs a fraction of writing one.
//!
//! A table of fixed size: what is written takes the place of what shares it.

use http::HeaderValue;

/// How many values a thread remembers.
const PLACES: usize = 64;

/// Values by what they were written from.
#[derive(Debug)]
pub(crate) struct RecentValues<K>([Option<(K, HeaderValue)>; PLACES]);

impl<K: PartialEq> RecentValues<K> {
    /// Nothing is written yet.
    pub(crate) const fn new() -> Self {
        Self([const { None }; PLACES])
    }

    /// The value for this key, as `write` writes it. `spread` is some number of the key.
    pub(crate) fn get(
        &mut self,
        spread: i64,
        key: K,
        write: impl FnOnce() -> HeaderValue,
    ) -> HeaderValue {
        // Never out of range: a remainder of as many as there are places.
        let place = usize::try_from(spread.unsigned_abs() % PLACES as u64).unwrap_or(0);
        match &self.0[place] {
            Some((known, value)) if *known == key => value.clone(),
            _ => {
                let value = write();
                self.0[place] = Some((key, value.clone()));
                value
            }
        }
    }
}
