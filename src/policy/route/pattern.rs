//! Path patterns: literal segments, `{captures}` of a segment or of a part of one, and a trailing
//! `{*rest}`; and the tree that finds the most specific one.

use std::sync::Arc;

use crate::error::Malformed;
use crate::policy::request_target;

use self::foreign::HINT;
use self::mixed::{MixedSegment, TextCase};

pub use self::neighbours::Neighbours;
pub(super) use self::tree::Tree;

mod foreign;
mod meeting;
mod mixed;
mod neighbours;
#[cfg(test)]
mod tests;
mod tree;

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
    Mixed(MixedSegment),
}

impl Segment {
    /// How specific it is: a literal more than a capture with text, the more text the more, and
    /// that more than a capture alone.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Literal(_) => (3, 0),
            Self::Mixed(mixed) => (2, mixed.text_len()),
            Self::Capture(_) => (1, 0),
        }
    }

    fn same_shape(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(two)) => one == two,
            (Self::Mixed(one), Self::Mixed(two)) => one.same_shape(two),
            (Self::Capture(_), Self::Capture(_)) => true,
            _ => false,
        }
    }

    /// Whether it matches all segments that another one matches. In doubt, it does not.
    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Capture(_), Self::Literal(text)) => !text.is_empty(),
            (Self::Mixed(mixed), Self::Literal(text)) => mixed.matches(text),
            (Self::Capture(_), Self::Mixed(_)) => true,
            _ => self.same_shape(other),
        }
    }

    /// Whether some segment may match both.
    fn may_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(one), Self::Literal(two)) => one == two,
            (Self::Literal(text), Self::Capture(_)) | (Self::Capture(_), Self::Literal(text)) => {
                !text.is_empty()
            }
            (Self::Literal(text), Self::Mixed(mixed))
            | (Self::Mixed(mixed), Self::Literal(text)) => mixed.matches(text),
            (Self::Mixed(one), Self::Mixed(two)) => one.may_meet(two),
            (Self::Capture(_), Self::Capture(_) | Self::Mixed(_))
            | (Self::Mixed(_), Self::Capture(_)) => true,
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let is_own = |text: &str| Self::parse_own(text).is_ok();
        if let Some(foreign) = foreign::foreign(text, &is_own) {
            return Err(foreign);
        }
        Self::parse_own(text)
    }

    /// Reads a pattern that no other tool would read as one.
    fn parse_own(text: &str) -> Result<Self, Malformed> {
        if !text.starts_with('/') {
            return Err(Malformed::new(format!("the path {text:?} does not start with `/`"), HINT));
        }
        let (mut segments, mut rest) = (Vec::new(), None);
        let mut names: Vec<Arc<str>> = Vec::new();
        let parts: Vec<&str> = text[1..].split('/').collect();
        for (at, &part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let segment = segment(text, part, last)?;
            let captured: Vec<Arc<str>> = match &segment {
                Segment::Literal(_) => Vec::new(),
                Segment::Capture(name) => vec![name.strip_prefix('*').unwrap_or(name).into()],
                Segment::Mixed(mixed) => mixed.captures().cloned().collect(),
            };
            for name in captured {
                check_name(text, &name)?;
                if names.contains(&name) {
                    return Err(Malformed::new(
                        format!("the path {text:?} captures {name:?} twice"),
                        "give each capture a name of its own",
                    ));
                }
                names.push(name);
            }
            match segment {
                Segment::Capture(name) if name.starts_with('*') => rest = Some(name[1..].into()),
                segment => segments.push(segment),
            }
        }
        Ok(Self { text: text.into(), segments: segments.into(), rest })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it captures nothing: it matches one path.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        let is_literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        self.rest.is_none() && self.segments.iter().all(is_literal)
    }

    /// The names of its captures.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        let singles = self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name),
            Segment::Literal(_) | Segment::Mixed(_) => None,
        });
        let mixed = self.segments.iter().filter_map(|segment| match segment {
            Segment::Mixed(mixed) => Some(mixed.captures()),
            Segment::Literal(_) | Segment::Capture(_) => None,
        });
        singles.chain(mixed.flatten()).chain(&self.rest).map(|name| &**name)
    }

    /// The captures of this path, if the pattern matches it. A capture matches one segment that is
    /// not empty; `{*rest}` matches any number of segments, including none.
    #[must_use]
    pub fn captures_of(&self, path: &str) -> Option<Captures> {
        self.captures_by(path, TextCase::Exact)
    }

    /// The same, with literal segments in any case.
    #[must_use]
    pub fn captures_in_any_case(&self, path: &str) -> Option<Captures> {
        self.captures_by(path, TextCase::Ignore)
    }

    fn captures_by(&self, path: &str, case: TextCase) -> Option<Captures> {
        let mut captures = Captures::new();
        let mut remaining = Some(path.strip_prefix('/')?);
        for segment in &self.segments {
            let here = remaining?;
            let (part, after) =
                here.split_once('/').map_or((here, None), |(part, after)| (part, Some(after)));
            match segment {
                Segment::Literal(literal) if case.is_same(literal, part) => {}
                Segment::Capture(name) if !part.is_empty() => {
                    captures.push((Arc::clone(name), part.into()));
                }
                Segment::Mixed(mixed) => {
                    let matches = mixed.match_with(part, case, |name, value| {
                        captures.push((Arc::clone(name), value.into()));
                    });
                    if !matches {
                        return None;
                    }
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
            match segment {
                Segment::Literal(text) => whole.push_str(text),
                Segment::Capture(_) => whole.push_str(values.next().unwrap_or_default()),
                Segment::Mixed(mixed) => mixed.write(&mut values, &mut whole),
            }
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
            Segment::Mixed(mixed) => Segment::Mixed(mixed.map_text(str::to_ascii_lowercase)),
        };
        Self { segments: self.segments.iter().map(lower).collect(), ..self.clone() }
    }

    /// Whether it is more specific than another one that matches the same path. Compared from the
    /// left, by [`Segment::rank`]; a wildcard is the least specific.
    #[must_use]
    pub fn is_more_specific(&self, other: &Self) -> bool {
        let ranks =
            |pattern: &Self| -> Vec<_> { pattern.segments.iter().map(Segment::rank).collect() };
        // A wildcard has no segment here, and less is before more.
        ranks(self) > ranks(other)
            || (ranks(self) == ranks(other) && self.rest.is_none() && other.rest.is_some())
    }

    /// Whether some path matches both, and neither is more specific.
    #[must_use]
    pub fn ties(&self, other: &Self) -> bool {
        if self.same_shape(other) {
            return true;
        }
        let mut pairs = self.segments.iter().zip(&other.segments);
        // The search decides at the first segment in which they differ.
        let differing = pairs.find(|(one, two)| !one.same_shape(two));
        differing.is_some_and(|(one, two)| {
            one.rank() == two.rank() && matches!(one, Segment::Mixed(_)) && self.may_cover(other)
        })
    }

    /// The same where the case of one does not count, or, if `both`, of neither: of two that differ
    /// by case alone, the one whose case counts is more specific.
    #[must_use]
    pub fn ties_in_any_case(&self, other: &Self, both: bool) -> bool {
        let (one, two) = (self.in_lower_case(), other.in_lower_case());
        if !both && one.same_shape(&two) { self.same_shape(other) } else { one.ties(&two) }
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
                Segment::Mixed(mixed) => {
                    Segment::Mixed(mixed.map_text(request_target::write_segment))
                }
            })
            .collect();
        if self.rest.is_none() {
            if segments.len() > 1 && segments.last() == Some(&Segment::Literal("".into())) {
                segments.pop();
            }
            match segments.last_mut() {
                Some(Segment::Literal(last)) => *last = request_target::bare_path(last).into(),
                Some(last) => {
                    if let Segment::Mixed(mixed) = last {
                        *last =
                            mixed.without_extension().map_or_else(Segment::Capture, Segment::Mixed);
                    }
                }
                None => {}
            }
        }
        Self { text: self.text.clone(), segments: segments.into(), rest: self.rest.clone() }
    }

    /// The captures of this path without its final slash and extension, if they differ: the last
    /// capture, where it is the end of the pattern.
    #[must_use]
    pub fn bare_captures(&self, captures: &Captures) -> Option<Captures> {
        let ends_in_capture = self.rest.is_some()
            || match self.segments.last() {
                Some(Segment::Capture(_)) => true,
                Some(Segment::Mixed(mixed)) => mixed.ends_in_capture(),
                Some(Segment::Literal(_)) | None => false,
            };
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
        self.rest.is_some() == other.rest.is_some()
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(one, two)| one.same_shape(two))
    }

    /// Whether it matches all paths that another pattern matches.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let has_room = match (&self.rest, &other.rest) {
            (Some(_), _) => other.segments.len() >= self.segments.len(),
            (None, Some(_)) => false,
            (None, None) => other.segments.len() == self.segments.len(),
        };
        has_room && self.segments.iter().zip(&other.segments).all(|(one, two)| one.contains(two))
    }

    /// Whether some path, in some case, matches both.
    #[must_use]
    pub fn may_meet_in_any_case(&self, other: &Self) -> bool {
        // Most pairs of a file end here, without an allocation.
        let differ = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => !one.eq_ignore_ascii_case(two),
            _ => false,
        };
        !self.segments.iter().zip(&other.segments).any(differ)
            && self.in_lower_case().may_cover(&other.in_lower_case())
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
        lengths_meet && one.iter().zip(two).all(|(one, two)| one.may_meet(two))
    }
}

/// One segment. `{*rest}` is a capture whose name begins with `*`.
fn segment(text: &str, part: &str, last: bool) -> Result<Segment, Malformed> {
    let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
        return if part.contains(['{', '}']) {
            mixed(text, part, last)
        } else {
            literal(text, part, last).map(Segment::Literal)
        };
    };
    if inner.contains(['{', '}']) {
        return mixed(text, part, last);
    }
    if inner.starts_with('*') && !last {
        return Err(Malformed::new(
            format!("the path {text:?} has {part} before its end"),
            "{*rest} matches the whole remainder, so it must come last",
        ));
    }
    Ok(Segment::Capture(inner.into()))
}

fn mixed(text: &str, part: &str, last: bool) -> Result<Segment, Malformed> {
    let mixed = MixedSegment::parse(part).map_err(|Malformed { what, hint }| {
        Malformed::new(format!("in the path {text:?}, {what}"), hint)
    })?;
    // The text is in normal form beside any value.
    literal(text, &mixed.filled(|| "x"), last)?;
    Ok(Segment::Mixed(mixed))
}

fn literal(text: &str, part: &str, last: bool) -> Result<Box<str>, Malformed> {
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
