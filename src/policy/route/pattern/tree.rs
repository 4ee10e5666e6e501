//! The tree that finds the most specific pattern of a path.

use std::collections::HashMap;

use super::mixed::MixedSegment;
use super::{Pattern, Segment};

/// Up to how many literal segments are compared one by one, which costs less than a hash.
const FEW: usize = 8;

/// What is below each of some literal segments.
#[derive(Clone, Debug, Default)]
struct Literals<T> {
    few: Vec<(Box<str>, T)>,
    /// Those that came when there were [`FEW`] already.
    others: HashMap<Box<str>, T>,
}

impl<T: Default> Literals<T> {
    fn entry(&mut self, text: &str) -> &mut T {
        let at = self.few.iter().position(|(known, _)| **known == *text);
        match at {
            Some(at) => &mut self.few[at].1,
            None if self.few.len() < FEW => {
                self.few.push((text.into(), T::default()));
                let last = self.few.len() - 1;
                &mut self.few[last].1
            }
            None => self.others.entry(text.into()).or_default(),
        }
    }

    fn get(&self, text: &str) -> Option<&T> {
        let few = self.few.iter().find(|(known, _)| **known == *text).map(|(_, below)| below);
        few.or_else(|| if self.others.is_empty() { None } else { self.others.get(text) })
    }
}

/// Patterns, as a tree of segments. A search visits each node at most once, so it is bounded by the
/// number of nodes.
#[derive(Clone, Debug, Default)]
pub(in crate::policy::route) struct Tree {
    literals: Literals<Self>,
    /// Those with more text first.
    mixed: Vec<(MixedSegment, Self)>,
    capture: Option<Box<Self>>,
    here: Option<usize>,
    rest: Option<usize>,
}

impl Tree {
    /// Adds a pattern. If a pattern of the same shape exists, returns the id of that one instead.
    pub(in crate::policy::route) fn insert(
        &mut self,
        pattern: &Pattern,
        id: usize,
    ) -> Option<usize> {
        let mut node = self;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
                Segment::Mixed(mixed) => node.below_mixed(mixed),
            };
        }
        let slot = if pattern.rest.is_some() { &mut node.rest } else { &mut node.here };
        if slot.is_some() {
            return *slot;
        }
        *slot = Some(id);
        None
    }

    fn below_mixed(&mut self, mixed: &MixedSegment) -> &mut Self {
        let at = self.mixed.iter().position(|(known, _)| known.same_shape(mixed));
        let at = at.unwrap_or_else(|| {
            let at = self.mixed.partition_point(|(known, _)| known.text_len() >= mixed.text_len());
            self.mixed.insert(at, (mixed.clone(), Self::default()));
            at
        });
        &mut self.mixed[at].1
    }

    /// The id of the most specific pattern. Compared from the left: a literal is more specific than
    /// a capture with text, the one with more text more than the one with less, these more than a
    /// capture alone, and that more than a wildcard.
    pub(in crate::policy::route) fn find(&self, path: &str) -> Option<usize> {
        self.descend(Some(path.strip_prefix('/')?))
    }

    fn descend(&self, remaining: Option<&str>) -> Option<usize> {
        let Some(here) = remaining else { return self.here.or(self.rest) };
        let (part, after) =
            here.split_once('/').map_or((here, None), |(part, after)| (part, Some(after)));
        self.literals
            .get(part)
            .and_then(|node| node.descend(after))
            .or_else(|| {
                let mut matching = self.mixed.iter().filter(|(mixed, _)| mixed.matches(part));
                matching.find_map(|(_, node)| node.descend(after))
            })
            .or_else(|| {
                if part.is_empty() {
                    None
                } else {
                    self.capture.as_ref().and_then(|node| node.descend(after))
                }
            })
            .or(self.rest)
    }
}
