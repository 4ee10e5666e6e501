//! Which of many patterns may have a path in common with one.
//!
//! Invariant: two patterns that some path matches, in whatever case, are neighbours. Two that are
//! neighbours need not have such a path.

use std::collections::HashMap;

use super::{Pattern, Segment};

/// Patterns by the text of their first segments, so that a file of `n` routes is not compared `n`
/// times `n` times.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// The places of those that begin with a text, by it in lower case.
    by_text: HashMap<Box<str>, Vec<usize>>,
    /// The places of all others.
    others: Vec<usize>,
    count: usize,
}

impl Neighbours {
    /// Adds a pattern, in the next place.
    pub fn push(&mut self, pattern: &Pattern) {
        match first_text(pattern) {
            Some(text) => self.by_text.entry(text).or_default().push(self.count),
            None => self.others.push(self.count),
        }
        self.count += 1;
    }

    /// The places of the neighbours of a pattern, in order.
    #[must_use]
    pub fn of(&self, pattern: &Pattern) -> Vec<usize> {
        let Some(text) = first_text(pattern) else { return (0..self.count).collect() };
        let own = self.by_text.get(&text).map_or(&[][..], |places| places);
        let mut all: Vec<usize> = own.iter().chain(&self.others).copied().collect();
        all.sort_unstable();
        all
    }
}

impl<'a> FromIterator<&'a Pattern> for Neighbours {
    fn from_iter<I: IntoIterator<Item = &'a Pattern>>(patterns: I) -> Self {
        let mut all = Self::default();
        patterns.into_iter().for_each(|pattern| all.push(pattern));
        all
    }
}

fn first_text(pattern: &Pattern) -> Option<Box<str>> {
    match pattern.segments.first()? {
        Segment::Literal(text) => Some(text.to_ascii_lowercase().into()),
        Segment::Capture(_) | Segment::Mixed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
        let segment = prop::sample::select(vec!["a", "A", "b", "ab", "{x}", "a{x}", "{x}.b", ""]);
        let pattern = (prop::collection::vec(segment, 0..3), any::<bool>()).prop_filter_map(
            "only what is a pattern",
            |(segments, has_rest)| {
                let mut text: String = segments.iter().flat_map(|one| ["/", *one]).collect();
                // Each name once.
                for name in ["y", "z"] {
                    if let Some(at) = text.rfind("{x}").filter(|at| text.find("{x}") != Some(*at)) {
                        text.replace_range(at + 1..at + 2, name);
                    }
                }
                text.push_str(if has_rest { "/{*rest}" } else { "" });
                Pattern::parse(&text).ok()
            },
        );
        prop::collection::vec(pattern, 2..12)
    }

    proptest! {
        #[test]
        fn patterns_with_a_path_in_common_are_neighbours(patterns in patterns()) {
            let all: Neighbours = patterns.iter().collect();
            for one in &patterns {
                let near = all.of(one);
                prop_assert!(near.is_sorted());
                for (place, two) in patterns.iter().enumerate() {
                    let meet = !one.meeting_paths(two).is_empty()
                        || !two.meeting_paths(one).is_empty()
                        || one.may_meet_in_any_case(two)
                        || one.ties(two)
                        || one.ties_in_any_case(two, true);
                    prop_assert!(!meet || near.contains(&place), "{one:?} {two:?}");
                }
            }
        }
    }

    #[test]
    fn patterns_that_begin_with_other_texts_are_no_neighbours() {
        let parsed = ["/a/{x}", "/b/{x}", "/{x}/a", "/A", "/{*rest}"]
            .map(|text| Pattern::parse(text).expect("a pattern"));
        let all: Neighbours = parsed.iter().collect();
        assert_eq!(all.of(&parsed[0]), [0, 2, 3, 4]);
        assert_eq!(all.of(&parsed[1]), [1, 2, 4]);
        assert_eq!(all.of(&parsed[2]), [0, 1, 2, 3, 4]);
    }
}
