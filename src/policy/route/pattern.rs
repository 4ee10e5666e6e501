//! Path patterns: literal segments, `{captures}`, and a trailing `{*rest}`; and the tree that finds
//! the most specific one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Malformed;
use crate::policy::request_target;

/// The captures of a match: name and raw value, in the order of the path.
pub type Captures = Vec<(Arc<str>, Box<str>)>;

/// A path pattern such as `/api/{kind}/{*rest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    /// The name of the trailing wildcard, if there is one.
    rest: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Capture(Arc<str>),
}

const HINT: &str =
    "write it as \"/api/v1/campaigns/{id}\", with a trailing {*rest} for everything below";

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if !text.starts_with('/') {
            return Err(Malformed::new(format!("the path {text:?} does not start with `/`"), HINT));
        }
        let (mut segments, mut rest) = (Vec::new(), None);
        let mut names: Vec<Arc<str>> = Vec::new();
        let parts: Vec<&str> = text[1..].split('/').collect();
        for (at, &part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
                segments.push(Segment::Literal(literal(text, part, last)?));
                continue;
            };
            let name: Arc<str> = inner.strip_prefix('*').unwrap_or(inner).into();
            check_name(text, &name)?;
            if names.contains(&name) {
                return Err(Malformed::new(
                    format!("the path {text:?} captures {name:?} twice"),
                    "give each capture a name of its own",
                ));
            }
            names.push(Arc::clone(&name));
            if !inner.starts_with('*') {
                segments.push(Segment::Capture(name));
            } else if last {
                rest = Some(name);
            } else {
                return Err(Malformed::new(
                    format!("the path {text:?} has {part} before its end"),
                    "{*rest} matches the whole remainder, so it must come last",
                ));
            }
        }
        Ok(Self { text: text.into(), segments: segments.into(), rest })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its captures.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        let singles = self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(&**name),
            Segment::Literal(_) => None,
        });
        singles.chain(self.rest.as_deref())
    }

    /// The captures of this path, if the pattern matches it. A capture matches one segment that is
    /// not empty; `{*rest}` matches any number of segments, including none.
    #[must_use]
    pub fn captures_of(&self, path: &str) -> Option<Captures> {
        self.captures_by(path, |literal, part| literal == part)
    }

    /// The same, with literal segments in any case.
    #[must_use]
    pub fn captures_in_any_case(&self, path: &str) -> Option<Captures> {
        self.captures_by(path, str::eq_ignore_ascii_case)
    }

    fn captures_by(&self, path: &str, is_same: fn(&str, &str) -> bool) -> Option<Captures> {
        let mut captures = Captures::new();
        let mut remaining = Some(path.strip_prefix('/')?);
        for segment in &self.segments {
            let here = remaining?;
            let (part, after) =
                here.split_once('/').map_or((here, None), |(part, after)| (part, Some(after)));
            match segment {
                Segment::Literal(literal) if is_same(literal, part) => {}
                Segment::Capture(name) if !part.is_empty() => {
                    captures.push((Arc::clone(name), part.into()));
                }
                Segment::Literal(_) | Segment::Capture(_) => return None,
            }
            remaining = after;
        }
        match (&self.rest, remaining) {
            (Some(name), rest) => {
                captures.push((Arc::clone(name), rest.unwrap_or_default().into()));
            }
            (None, Some(_)) => return None,
            (None, None) => {}
        }
        Some(captures)
    }

    /// A path that the pattern matches in any case, with its literal segments as the pattern has
    /// them.
    #[must_use]
    pub fn path_with(&self, path: &str, captures: &Captures) -> String {
        let mut values = captures.iter().map(|(_, value)| &**value);
        let mut whole = String::with_capacity(path.len());
        for segment in &self.segments {
            whole.push('/');
            whole.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Capture(_) => values.next().unwrap_or_default(),
            });
        }
        // `{*rest}` matches with and without the slash before it.
        if self.rest.is_some() && path.len() > whole.len() {
            whole.push('/');
            whole.push_str(values.next().unwrap_or_default());
        }
        whole
    }

    /// The pattern with its literal segments in lower case.
    #[must_use]
    pub fn in_lower_case(&self) -> Self {
        let lower = |segment: &Segment| match segment {
            Segment::Literal(text) => Segment::Literal(text.to_ascii_lowercase().into()),
            Segment::Capture(name) => Segment::Capture(Arc::clone(name)),
        };
        Self { segments: self.segments.iter().map(lower).collect(), ..self.clone() }
    }

    /// Whether it is more specific than another one that matches the same path. Compared from the
    /// left: a literal is more specific than a capture, and a capture more than a wildcard.
    #[must_use]
    pub fn is_more_specific(&self, other: &Self) -> bool {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 2,
            Segment::Capture(_) => 1,
        };
        let ranks = |pattern: &Self| -> Vec<u8> { pattern.segments.iter().map(rank).collect() };
        // A wildcard has no segment here, and less is before more.
        ranks(self) > ranks(other)
            || (ranks(self) == ranks(other) && self.rest.is_none() && other.rest.is_some())
    }

    /// The pattern for [`request_target::write_readings`]: it matches a path in any case, with and
    /// without a final slash or an extension.
    #[must_use]
    pub fn for_writes(&self) -> Self {
        let mut segments: Vec<Segment> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => {
                    Segment::Literal(request_target::write_segment(text).into())
                }
                Segment::Capture(name) => Segment::Capture(Arc::clone(name)),
            })
            .collect();
        if self.rest.is_none() {
            if segments.len() > 1 && segments.last() == Some(&Segment::Literal("".into())) {
                segments.pop();
            }
            if let Some(Segment::Literal(last)) = segments.last_mut() {
                *last = request_target::bare_path(last).into();
            }
        }
        Self { text: self.text.clone(), segments: segments.into(), rest: self.rest.clone() }
    }

    /// The captures of this path without its final slash and extension, if they differ: the last
    /// capture, where it is the end of the pattern.
    #[must_use]
    pub fn bare_captures(&self, captures: &Captures) -> Option<Captures> {
        let ends_in_capture =
            self.rest.is_some() || matches!(self.segments.last(), Some(Segment::Capture(_)));
        let (_, last) = captures.last().filter(|_| ends_in_capture)?;
        let bare = request_target::bare_path(last);
        if bare.len() == last.len() {
            return None;
        }
        let bare: Box<str> = bare.into();
        let mut captures = captures.clone();
        captures.last_mut()?.1 = bare;
        Some(captures)
    }

    /// Whether both match exactly the same paths. The names of captures do not matter.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        let alike = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => one == two,
            (Segment::Capture(_), Segment::Capture(_)) => true,
            _ => false,
        };
        self.rest.is_some() == other.rest.is_some()
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// Whether it matches all paths that another pattern matches.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let has_room = match (&self.rest, &other.rest) {
            (Some(_), _) => other.segments.len() >= self.segments.len(),
            (None, Some(_)) => false,
            (None, None) => other.segments.len() == self.segments.len(),
        };
        has_room
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(two)) => one == two,
                (Segment::Capture(_), Segment::Literal(text)) => !text.is_empty(),
                (Segment::Capture(_), Segment::Capture(_)) => true,
                (Segment::Literal(_), Segment::Capture(_)) => false,
            })
    }

    /// Whether some path matches both.
    #[must_use]
    pub fn may_cover(&self, other: &Self) -> bool {
        let (one, two) = (&self.segments, &other.segments);
        let lengths_meet = match (self.rest.is_some(), other.rest.is_some()) {
            (true, true) => true,
            (true, false) => two.len() >= one.len(),
            (false, true) => one.len() >= two.len(),
            (false, false) => one.len() == two.len(),
        };
        lengths_meet
            && one.iter().zip(two).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(two)) => one == two,
                (Segment::Literal(text), Segment::Capture(_))
                | (Segment::Capture(_), Segment::Literal(text)) => !text.is_empty(),
                (Segment::Capture(_), Segment::Capture(_)) => true,
            })
    }
}

fn literal(text: &str, part: &str, last: bool) -> Result<Box<str>, Malformed> {
    if part.contains(['{', '}']) {
        let hint = "a capture is a whole segment, such as /{id}/; text before or after it in the \
            same segment is not supported";
        return Err(Malformed::new(
            format!("the path {text:?} has {part:?}, which is neither text nor one {{capture}}"),
            hint,
        ));
    }
    if part.is_empty() && !last {
        return Err(Malformed::new(format!("the path {text:?} has an empty segment (`//`)"), HINT));
    }
    let path = format!("/{part}");
    match request_target::normal_path(&path) {
        Some(normal) if normal == path => Ok(part.into()),
        Some(normal) => Err(Malformed::new(
            format!("the path {text:?} is not in normal form"),
            format!("write the segment {part:?} as {:?}", &normal[1..]),
        )),
        None => Err(Malformed::new(
            format!(
                "the path {text:?} has {part:?}, which different programs read in different ways"
            ),
            "leave out dot segments, escapes of delimiters, `;`, `\\`, `?` and `#`; a pattern \
            matches the path alone",
        )),
    }
}

fn check_name(text: &str, name: &str) -> Result<(), Malformed> {
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts_well && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Ok(());
    }
    Err(Malformed::new(
        format!("the path {text:?} has a capture named {name:?}"),
        "a name is letters, digits, `_` and `-`, as in {id} or {*rest}",
    ))
}

/// Patterns, as a tree of segments. A search visits each node at most once, so it is bounded by the
/// number of nodes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    literals: HashMap<Box<str>, Self>,
    capture: Option<Box<Self>>,
    here: Option<usize>,
    rest: Option<usize>,
}

impl Tree {
    /// Adds a pattern. If a pattern of the same shape exists, returns the id of that one instead.
    pub(super) fn insert(&mut self, pattern: &Pattern, id: usize) -> Option<usize> {
        let mut node = self;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
            };
        }
        let slot = if pattern.rest.is_some() { &mut node.rest } else { &mut node.here };
        if slot.is_some() {
            return *slot;
        }
        *slot = Some(id);
        None
    }

    /// The id of the most specific pattern. Compared from the left: a literal is more specific than
    /// a capture, and a capture more than a wildcard.
    pub(super) fn find(&self, path: &str) -> Option<usize> {
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
                if part.is_empty() {
                    None
                } else {
                    self.capture.as_ref().and_then(|node| node.descend(after))
                }
            })
            .or(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect(text)
    }

    fn captured(text: &str, path: &str) -> Option<Vec<String>> {
        pattern(text)
            .captures_of(path)
            .map(|captures| captures.iter().map(|(_, value)| value.to_string()).collect())
    }

    #[test]
    fn captures_take_one_segment_and_the_rest_takes_any_number() {
        assert_eq!(captured("/a/{id}", "/a/7"), Some(vec!["7".into()]));
        assert_eq!(captured("/a/{id}", "/a/"), None);
        assert_eq!(captured("/a/{id}", "/a/7/"), None);
        assert_eq!(captured("/a/{*rest}", "/a"), Some(vec![String::new()]));
        assert_eq!(captured("/a/{*rest}", "/a/"), Some(vec![String::new()]));
        assert_eq!(captured("/a/{*rest}", "/a/b/c"), Some(vec!["b/c".into()]));
        assert_eq!(captured("/a/{*rest}", "/ab"), None);
        assert_eq!(captured("/{*rest}", "/"), Some(vec![String::new()]));
        assert_eq!(captured("/", "/"), Some(vec![]));
        assert_eq!(captured("/a", "/a/"), None);
    }

    #[test]
    fn the_most_specific_pattern_wins_whatever_the_order() {
        let mut patterns =
            ["/{*rest}", "/a/{*rest}", "/a/{id}", "/a/b", "/a/{id}/c", "/{x}/b/c", "/a/"];
        for _ in 0..2 {
            let mut tree = Tree::default();
            for (id, text) in patterns.iter().enumerate() {
                assert_eq!(tree.insert(&pattern(text), id), None);
            }
            let find = |path: &str| tree.find(path).map(|id| patterns[id]);
            assert_eq!(find("/a/b"), Some("/a/b"));
            assert_eq!(find("/a/x"), Some("/a/{id}"));
            assert_eq!(find("/a/x/c"), Some("/a/{id}/c"));
            assert_eq!(find("/a/b/c"), Some("/a/{id}/c"));
            assert_eq!(find("/a/b/d"), Some("/a/{*rest}"));
            assert_eq!(find("/x/b/c"), Some("/{x}/b/c"));
            assert_eq!(find("/a"), Some("/a/{*rest}"));
            assert_eq!(find("/a/"), Some("/a/"));
            assert_eq!(find("/x"), Some("/{*rest}"));
            patterns.reverse();
        }
    }

    #[test]
    fn patterns_of_one_shape_tie() {
        let mut tree = Tree::default();
        assert_eq!(tree.insert(&pattern("/a/{id}"), 0), None);
        assert_eq!(tree.insert(&pattern("/a/{name}"), 1), Some(0));
        assert!(pattern("/a/{id}").same_shape(&pattern("/a/{name}")));
        assert!(!pattern("/a/{id}").same_shape(&pattern("/a/{*id}")));
    }

    #[test]
    fn cover_means_that_some_path_matches_both() {
        assert!(pattern("/a/{*rest}").may_cover(&pattern("/a")));
        assert!(pattern("/a/{*rest}").may_cover(&pattern("/a/{id}/x")));
        assert!(!pattern("/a/{*rest}").may_cover(&pattern("/b/{id}")));
        assert!(!pattern("/a/{id}").may_cover(&pattern("/a")));
    }

    #[test]
    fn a_bad_pattern_says_what_is_wrong() {
        for (text, what) in [
            ("a", "start with"),
            ("/a//b", "empty segment"),
            ("/{a}/{a}", "twice"),
            ("/{*r}/a", "before its end"),
            ("/{id}.json", "neither"),
            ("/{}", "named"),
            ("/a%2fb", "different ways"),
            ("/%61", "normal form"),
            ("/a?b", "different ways"),
            ("/../a", "different ways"),
        ] {
            let error = Pattern::parse(text).expect_err(text);
            assert!(error.what.contains(what), "{text}: {error}");
            assert!(!error.hint.is_empty());
        }
    }

    proptest! {
        #[test]
        fn the_tree_and_the_patterns_agree(
            texts in proptest::collection::vec(
                "(/(a|b|\\{x\\})){1,3}(/\\{\\*r\\})?",
                1..8,
            ),
            path in "(/[abc]?){1,4}",
        ) {
            let mut tree = Tree::default();
            let patterns: Vec<Option<Pattern>> =
                texts.iter().map(|text| Pattern::parse(text).ok()).collect();
            for (id, pattern) in patterns.iter().enumerate() {
                if let Some(pattern) = pattern {
                    tree.insert(pattern, id);
                }
            }
            let matches = |pattern: &Pattern| pattern.captures_of(&path).is_some();
            let matching = patterns.iter().flatten().any(matches);
            prop_assert_eq!(tree.find(&path).is_some(), matching);
            if let Some(id) = tree.find(&path) {
                prop_assert!(patterns[id].as_ref().is_some_and(matches));
            }
        }
    }
}
