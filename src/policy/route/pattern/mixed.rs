//! A segment of a pattern with text beside its captures, such as `{name}-{id}.json`.
//!
//! A capture ends at the first occurrence of the text that follows it, and is not empty. So a
//! segment matches in one way or in none, and matching never goes back.

use std::sync::Arc;

use memchr::memmem;

use crate::error::Malformed;
use crate::policy::request_target;

/// Text and captures in turn; at least one of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MixedSegment {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Capture(Arc<str>),
}

/// How the text of a pattern is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextCase {
    /// Byte by byte.
    Exact,
    /// ASCII letters in any case.
    Ignore,
}

impl TextCase {
    pub(super) fn is_same(self, one: &str, other: &str) -> bool {
        match self {
            Self::Exact => one == other,
            Self::Ignore => one.eq_ignore_ascii_case(other),
        }
    }
}

impl MixedSegment {
    /// Reads a segment that has a brace and is not one capture alone. Checks neither the names nor
    /// the text.
    pub(super) fn parse(part: &str) -> Result<Self, Malformed> {
        let refused = |what: &str, hint: &str| {
            Err(Malformed::new(format!("the segment {part:?} {what}"), hint.to_owned()))
        };
        let mut pieces = Vec::new();
        let mut rest = part;
        while !rest.is_empty() {
            let at = rest.find(['{', '}']).unwrap_or(rest.len());
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
                rest = &rest[at..];
                continue;
            }
            let Some((name, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            else {
                return refused(
                    "has a brace without its other one",
                    "write a capture as {id}; a path has no braces of its own",
                );
            };
            if name.starts_with('*') {
                return refused(
                    "has text beside a capture of everything below",
                    "{*rest} stands alone, after the last slash",
                );
            }
            if matches!(pieces.last(), Some(Piece::Capture(_))) {
                return refused(
                    "has two captures without text between them",
                    "write the text that separates them, as in {name}-{id}, or one capture",
                );
            }
            pieces.push(Piece::Capture(name.into()));
            rest = after;
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// The names of its captures.
    pub(super) fn captures(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Capture(name) => Some(name),
            Piece::Text(_) => None,
        })
    }

    /// The segment with this text in place of each capture.
    pub(super) fn filled(&self, mut value: impl FnMut() -> &'static str) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Capture(_) => value(),
        });
        pieces.collect()
    }

    /// The segment with these texts in place of its first capture and of the others.
    pub(super) fn filled_between(&self, first: &str, others: &str) -> String {
        let mut value = Some(first);
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Capture(_) => value.take().unwrap_or(others),
        });
        pieces.collect()
    }

    /// The text that it begins with.
    pub(super) fn start(&self) -> &str {
        text_of(self.pieces.first())
    }

    /// The text that it ends with.
    pub(super) fn end(&self) -> &str {
        text_of(self.pieces.last())
    }

    /// Appends the segment with the next values in place of its captures.
    pub(super) fn write<'a>(&self, values: &mut impl Iterator<Item = &'a str>, whole: &mut String) {
        for piece in &self.pieces {
            whole.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Capture(_) => values.next().unwrap_or_default(),
            });
        }
    }

    /// Whether it matches a segment of a path.
    pub(super) fn matches(&self, segment: &str) -> bool {
        self.match_with(segment, TextCase::Exact, |_, _| {})
    }

    /// The same, whatever the case of its text.
    pub(super) fn matches_in_any_case(&self, segment: &str) -> bool {
        self.match_with(segment, TextCase::Ignore, |_, _| {})
    }

    /// The same; also hands out the captures, some of them even if the segment does not match.
    pub(super) fn match_with<'a>(
        &self,
        segment: &'a str,
        case: TextCase,
        mut captured: impl FnMut(&Arc<str>, &'a str),
    ) -> bool {
        let (mut rest, mut open) = (segment, None);
        for piece in &self.pieces {
            let text = match piece {
                Piece::Capture(name) => {
                    open = Some(name);
                    continue;
                }
                Piece::Text(text) => text,
            };
            let at = match (case, open) {
                (TextCase::Exact, Some(_)) => memmem::find(rest.as_bytes(), text.as_bytes()),
                (TextCase::Exact, None) => rest.starts_with(&**text).then_some(0),
                (TextCase::Ignore, Some(_)) => position_in_any_case(rest, text),
                (TextCase::Ignore, None) => rest
                    .get(..text.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(text))
                    .then_some(0),
            };
            let Some(at) = at else { return false };
            if let Some(name) = open.take() {
                if at == 0 {
                    return false;
                }
                captured(name, &rest[..at]);
            }
            rest = &rest[at + text.len()..];
        }
        match open {
            Some(name) if !rest.is_empty() => {
                captured(name, rest);
                true
            }
            Some(_) => false,
            None => rest.is_empty(),
        }
    }

    /// How much text it has: of two that match a segment, the one with more is more specific.
    pub(super) fn text_len(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.len(),
                Piece::Capture(_) => 0,
            })
            .sum()
    }

    /// Whether both match exactly the same segments. The names of captures do not matter.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Piece, &Piece)| match (one, other) {
            (Piece::Text(one), Piece::Text(other)) => one == other,
            (Piece::Capture(_), Piece::Capture(_)) => true,
            (Piece::Text(_), Piece::Capture(_)) | (Piece::Capture(_), Piece::Text(_)) => false,
        };
        self.pieces.len() == other.pieces.len() && self.pieces.iter().zip(&other.pieces).all(alike)
    }

    /// Whether some segment may match both: their beginnings fit each other, and their ends.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        let (start, other_start) = (self.start(), other.start());
        let (end, other_end) = (self.end(), other.end());
        (start.starts_with(other_start) || other_start.starts_with(start))
            && (end.ends_with(other_end) || other_end.ends_with(end))
    }

    /// The same with its text in another form.
    pub(super) fn map_text(&self, form: impl Fn(&str) -> String) -> Self {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => Piece::Text(form(text).into()),
            Piece::Capture(name) => Piece::Capture(Arc::clone(name)),
        });
        Self { pieces: pieces.collect() }
    }

    /// The same without an extension at its end; an error with the name, if one capture is left.
    pub(super) fn without_extension(&self) -> Result<Self, Arc<str>> {
        let mut pieces = self.pieces.to_vec();
        if let Some(Piece::Text(last)) = pieces.last_mut() {
            // A path does not begin with its extension.
            let whole = format!("x{last}");
            *last = request_target::bare_path(&whole)[1..].into();
            if last.is_empty() {
                pieces.pop();
            }
        }
        match &*pieces {
            [Piece::Capture(name)] => Err(Arc::clone(name)),
            _ => Ok(Self { pieces: pieces.into() }),
        }
    }

    /// Whether it ends with a capture.
    pub(super) fn ends_in_capture(&self) -> bool {
        matches!(self.pieces.last(), Some(Piece::Capture(_)))
    }
}

fn text_of(piece: Option<&Piece>) -> &str {
    match piece {
        Some(Piece::Text(text)) => text,
        Some(Piece::Capture(_)) | None => "",
    }
}

/// Where a text first occurs in another one, in any case. The text is the operator's, and short.
fn position_in_any_case(whole: &str, text: &str) -> Option<usize> {
    whole
        .as_bytes()
        .windows(text.len())
        .position(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}
