//! Paths that two patterns both match: who is given what on them can be compared.

use super::{Pattern, Segment};

/// Stands for a value that no pattern names.
const ANY: &str = "zqxj";

impl Pattern {
    /// Paths that both match, if there are any: an ordinary one, and where both match everything
    /// below, one more segment. Where both have text, that of `self` counts, whose case may differ.
    /// May miss a path on which patterns with text in several places meet.
    #[must_use]
    pub fn meeting_paths(&self, other: &Self) -> Vec<String> {
        let (one, two) = (&self.segments, &other.segments);
        let lengths_meet = (one.len() >= two.len() || self.rest.is_some())
            && (two.len() >= one.len() || other.rest.is_some());
        // Most pairs of a file end here, without an allocation.
        let differ = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => !one.eq_ignore_ascii_case(two),
            _ => false,
        };
        if !lengths_meet || one.iter().zip(two).any(differ) {
            return Vec::new();
        }
        let mut path = String::new();
        for at in 0..one.len().max(two.len()) {
            let segment = match (one.get(at), two.get(at)) {
                (Some(one), Some(two)) => one.meeting(two),
                (one, two) => one.or(two).map(Segment::example),
            };
            let Some(segment) = segment else { return Vec::new() };
            path.push('/');
            path.push_str(&segment);
        }
        if self.rest.is_none() || other.rest.is_none() {
            return vec![path];
        }
        let below = format!("{path}/{ANY}");
        // `/{*rest}` has no path without a slash.
        if path.is_empty() { vec!["/".to_owned(), below] } else { vec![path, below] }
    }
}

impl Segment {
    fn example(&self) -> String {
        match self {
            Self::Literal(text) => text.to_string(),
            Self::Mixed(mixed) => mixed.filled(|| ANY),
            Self::Capture(_) => ANY.to_owned(),
        }
    }

    /// A segment that both match.
    fn meeting(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Literal(one), Self::Literal(two)) => {
                one.eq_ignore_ascii_case(two).then(|| one.to_string())
            }
            (Self::Capture(_), _) => Some(other.example()).filter(|text| !text.is_empty()),
            (_, Self::Capture(_)) => Some(self.example()).filter(|text| !text.is_empty()),
            (Self::Mixed(one), Self::Mixed(two)) => {
                // The text of one may stand in a capture of the other.
                let (inner, end) = (two.filled(|| ANY), format!("{ANY}{}", two.end()));
                let start = format!("{}{ANY}", two.start());
                let texts = [
                    one.filled(|| ANY),
                    inner.clone(),
                    one.filled_between(&start, &end),
                    one.filled_between(ANY, &end),
                    one.filled_between(&start, ANY),
                    one.filled_between(&inner, ANY),
                    one.filled_between(ANY, &inner),
                    two.filled_between(&one.filled(|| ANY), ANY),
                    two.filled_between(ANY, &one.filled(|| ANY)),
                ];
                texts.into_iter().find(|text| one.matches(text) && two.matches(text))
            }
            (Self::Literal(text), Self::Mixed(mixed))
            | (Self::Mixed(mixed), Self::Literal(text)) => {
                mixed.matches_in_any_case(text).then(|| text.to_string())
            }
        }
    }
}
