//! Patterns of names and paths in which `*` stands for any text, even none.
//!
//! A name comes from a stranger, so matching takes time that is linear in it, whatever the pattern.

use std::fmt;

use memchr::memmem;

/// A pattern. Without a `*` it matches its own text alone; case counts.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: Box<str>,
    // The text between the stars; one part if there is none.
    parts: Box<[Box<[u8]>]>,
}

impl Glob {
    /// A pattern. Every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            parts: text.split('*').map(|part| part.as_bytes().into()).collect(),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no `*`, so that it matches one text alone.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.parts.len() == 1
    }

    /// The byte that every match begins with, unless there is none.
    pub(super) fn first_byte(&self) -> Option<u8> {
        self.parts.first().and_then(|part| part.first().copied())
    }

    /// Whether the pattern matches the whole of this text.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let [first, middle @ .., last] = &*self.parts else {
            return self.parts.first().is_some_and(|only| **only == *text);
        };
        // The prefix and the suffix must not overlap, so the prefix is taken away first.
        let rest = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
        let Some(mut rest) = rest else { return false };
        // The leftmost occurrence of each part leaves the most for the parts after it, so there is
        // nothing to try again.
        for part in middle {
            let Some(at) = memmem::find(rest, part) else { return false };
            rest = &rest[at + part.len()..];
        }
        true
    }
}

/// The pattern as it was written: this text is part of the fingerprint of routes.
impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl From<&str> for Glob {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Whether any of the patterns matches.
#[must_use]
pub fn any_matches(globs: &[Glob], text: &[u8]) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).matches(text.as_bytes())
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_is_special() {
        for (pattern, text) in [
            ("sid", "sid"),
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("**", "anything"),
            ("_ga*", "_ga"),
            ("_ga*", "_ga_X1"),
            ("wordpress_logged_in_*", "wordpress_logged_in_0a1b"),
            ("mp_*_mixpanel", "mp_0a1b_mixpanel"),
            ("*/login", "/login"),
            ("*/login", "/en/login"),
            ("a*b*c", "abc"),
            ("a*b*c", "a1b2bc"),
            ("a*bc*c", "abcc"),
            ("a.c", "a.c"),
            ("[a]?", "[a]?"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("sid", "SID"),
            ("sid", "sid2"),
            ("sid", "asid"),
            ("", "a"),
            ("_ga*", "x_ga"),
            ("mp_*_mixpanel", "mp_mixpanel"),
            ("ab*ba", "aba"),
            ("a*b*c", "acb"),
            ("*a*b*", "ba"),
            ("a.c", "abc"),
            ("a?c", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    /// The definition, which takes exponential time.
    fn defined(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => {
                (0..=text.len()).any(|skipped| defined(rest, &text[skipped..]))
            }
            ([one, rest @ ..], [first, others @ ..]) => one == first && defined(rest, others),
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_by_its_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(
                matches(&pattern, &text),
                defined(pattern.as_bytes(), text.as_bytes())
            );
        }
    }

    #[test]
    fn many_stars_take_linear_time() {
        // The definition would take longer than the universe has existed.
        let (pattern, text) = ("*a".repeat(64) + "b", "a".repeat(64 * 1024));
        assert!(!matches(&pattern, &text));
    }
}
