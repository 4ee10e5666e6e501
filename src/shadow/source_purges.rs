//! What sources have purged lately: a change that one of them told of is explained, whether it was
//! told before the change was seen or after.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clock::Wall;
use crate::policy::tag::Tag;
use crate::shadow::history::StepNumber;

/// How many purges are kept.
const MAX_PURGES: usize = 256;

/// How many tags of them are kept, all together.
const MAX_TAGS: usize = 16_384;

/// How many sources have counts of their own on a route.
const MAX_SOURCES: usize = 64;

/// A purge by a source.
#[derive(Debug)]
struct PurgeRecord {
    step: StepNumber,
    source: Arc<str>,
    tags: Vec<Tag>,
}

/// The latest purges by sources.
#[derive(Debug, Default)]
pub(super) struct SourcePurges {
    records: VecDeque<PurgeRecord>,
    tags: usize,
}

impl SourcePurges {
    /// Keeps a purge.
    pub(super) fn add(&mut self, step: StepNumber, source: &Arc<str>, tags: &[Tag]) {
        let tags: Vec<Tag> = tags.iter().take(MAX_TAGS).cloned().collect();
        self.tags += tags.len();
        self.records.push_back(PurgeRecord { step, source: Arc::clone(source), tags });
        while self.records.len() > MAX_PURGES || self.tags > MAX_TAGS {
            let Some(old) = self.records.pop_front() else { return };
            self.tags -= old.tags.len();
        }
    }

    /// The source that was the first to purge one of these tags since a step.
    pub(super) fn first_since(&self, since: StepNumber, tags: &[Tag]) -> Option<Arc<str>> {
        let mut later = self.records.iter().filter(|record| record.step >= since);
        let found = later.find(|record| record.tags.iter().any(|tag| tags.contains(tag)))?;
        Some(Arc::clone(&found.source))
    }
}

/// What a source has told of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceTold {
    /// Changes that it told of before a response would have been stale.
    pub in_time: u64,
    /// Responses that would have been stale until it told.
    pub late: u64,
}

/// What each source has told of a route, by its name.
#[derive(Clone, Debug, Default)]
pub struct ToldBySources(BTreeMap<Arc<str>, SourceTold>);

impl ToldBySources {
    /// Counts what a source has told.
    pub(super) fn count(&mut self, source: &Arc<str>, count: impl FnOnce(&mut SourceTold)) {
        if self.0.len() < MAX_SOURCES || self.0.contains_key(source) {
            count(self.0.entry(Arc::clone(source)).or_default());
        }
    }

    /// Each source, with what it has told.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SourceTold)> {
        self.0.iter().map(|(source, told)| (&**source, *told))
    }
}

/// How a source explains a change that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateSource {
    /// Its name.
    pub source: Arc<str>,
    /// When it told.
    pub at: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| Tag::new(name)).collect()
    }

    #[test]
    fn the_first_source_since_a_step_explains() {
        let mut purges = SourcePurges::default();
        for (step, source, names) in [(1, "a", ["x"]), (5, "b", ["y"]), (7, "c", ["x"])] {
            purges.add(step, &source.into(), &tags(&names));
        }
        let first = |since, name| purges.first_since(since, &tags(&[name]));
        assert_eq!(first(0, "x").as_deref(), Some("a"));
        assert_eq!(first(2, "x").as_deref(), Some("c"));
        assert_eq!((first(6, "y"), first(8, "x"), first(0, "z")), (None, None, None));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut purges = SourcePurges::default();
        let many: Vec<Tag> = (0..200).map(|number| Tag::new(&number.to_string())).collect();
        for step in 0..1000 {
            purges.add(step, &"a".into(), &many);
        }
        assert!(purges.tags <= MAX_TAGS && purges.records.len() <= MAX_PURGES);
        let mut told = ToldBySources::default();
        for number in 0..1000 {
            told.count(&number.to_string().into(), |told| told.late += 1);
        }
        assert_eq!(told.iter().count(), MAX_SOURCES);
    }
}
