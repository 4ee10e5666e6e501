//! The families of tags of which changes are not heard of at present, because a source is deaf.
//! What carries one of them is stored for a short time alone.
//!
//! Invariant: an entry that is stored for longer than that was committed before its family was put
//! here, or after it was taken out. Whoever puts a family here purges it afterwards, which ends
//! what was stored before, and the fills in between. Whoever takes it out has just purged it.

use std::collections::HashMap;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::cache::entry::Entry;
use crate::policy::tag::Tag;
use crate::semantics::times::Leeway;

/// For each family that is not heard of, how long an entry that carries it may be served.
#[derive(Debug, Default)]
pub struct UnheardFamilies(ArcSwapOption<HashMap<Tag, Duration>>);

impl UnheardFamilies {
    /// Replaces them all.
    pub fn replace(&self, families: HashMap<Tag, Duration>) {
        self.0.store((!families.is_empty()).then(|| families.into()));
    }

    /// How long an entry with these tags may be served; `None` where its own times say it.
    #[must_use]
    pub fn limit(&self, tags: &[Tag]) -> Option<Duration> {
        let families = self.0.load();
        let families = families.as_ref()?;
        tags.iter().filter_map(|tag| families.get(tag).copied()).min()
    }
}

impl Entry {
    /// The same, fresh for at most this long after it was received, and never used stale but for
    /// its revalidation.
    #[must_use]
    pub fn limited_to(mut self, most: Duration) -> Self {
        let lifetime = self.times.initial_age.saturating_add(most);
        self.times.lifetime = self.times.lifetime.min(lifetime);
        self.leeway = Leeway { keep: self.leeway.keep, ..Leeway::default() };
        self
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::entry::EntryMetadata;
    use crate::clock::Wall;
    use crate::semantics::times::Times;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_limit_is_the_least_of_the_families_that_an_entry_carries() {
        let (unheard, tags) = (UnheardFamilies::default(), ["a", "b", "c"].map(Tag::new));
        assert_eq!(unheard.limit(&tags), None);
        unheard.replace(HashMap::from([
            (Tag::new("a"), 2 * MINUTE),
            (Tag::new("c"), MINUTE),
            (Tag::new("d"), Duration::ZERO),
        ]));
        assert_eq!(unheard.limit(&tags), Some(MINUTE));
        assert_eq!(unheard.limit(&tags[1..2]), None);
        unheard.replace(HashMap::new());
        assert_eq!(unheard.limit(&tags), None);
    }

    #[test]
    fn a_limited_entry_is_neither_fresh_for_longer_nor_served_stale() {
        let (second, keep) = (Duration::from_secs(1), 3 * MINUTE);
        let metadata = EntryMetadata {
            times: Times { received: Wall(1_000), initial_age: MINUTE, lifetime: 5 * MINUTE },
            leeway: Leeway {
                while_revalidate: MINUTE,
                if_error: MINUTE,
                unreachable: MINUTE,
                keep,
            },
            fetch_duration: Duration::ZERO,
            response_tags: Box::default(),
        };
        let body = [Bytes::new()];
        let entry = Entry::compact(b"k", StatusCode::OK, &HeaderMap::new(), &body, metadata);
        let limited = entry.clone().limited_to(second);
        assert!(limited.times.is_fresh(Wall(1_999)) && !limited.times.is_fresh(Wall(2_000)));
        assert_eq!(limited.leeway, Leeway { keep, ..Leeway::default() });
        let longer = entry.limited_to(9 * MINUTE);
        assert_eq!(longer.times.lifetime, 5 * MINUTE, "its own end is the earlier one");
    }
}
