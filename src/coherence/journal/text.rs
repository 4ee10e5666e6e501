//! A journal line as text: a checksum, a word, and percent-encoded names, separated by single
//! spaces.
//!
//! A name never contains a space or a line break, and an empty name still has its space, so that
//! parsing a line returns what was written.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::JournalLine;
use crate::policy::tag::Tag;

/// The first line of every journal: the file type, and the version of the lines.
pub const HEADER: &str = "sidecache-journal 1\n";

/// The start of the first line in every version.
pub const HEADER_PREFIX: &str = "sidecache-journal ";

/// The longest line, including its line break. No sidecar writes a longer one.
pub const MAX_LINE_BYTES: usize = 16 << 20;

const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The most bytes that checksum, space, word and line break take.
const FRAME_BYTES: usize = 32;

/// Whether the line is certainly no longer than [`MAX_LINE_BYTES`].
pub fn fits(line: &JournalLine) -> bool {
    let (id, tags): (&str, &[Tag]) = match line {
        JournalLine::Intend { id, tags } => (id, tags),
        JournalLine::Withdraw { id } => (id, &[]),
        JournalLine::Purge { tags } => ("", tags),
        JournalLine::Everything => ("", &[]),
    };
    // An escaped byte takes three bytes.
    let names = tags.iter().map(|tag| tag.as_str().len()).chain([id.len()]);
    names.map(|len| len * 3 + 1).sum::<usize>() + FRAME_BYTES <= MAX_LINE_BYTES
}

/// Appends a line to `out`.
pub fn encode(line: &JournalLine, out: &mut Vec<u8>) {
    let mut text = String::new();
    let (word, id, tags): (_, _, &[Tag]) = match line {
        JournalLine::Intend { id, tags } => ("intend", Some(id), tags),
        JournalLine::Withdraw { id } => ("withdraw", Some(id), &[]),
        JournalLine::Purge { tags } => ("purge", None, tags),
        JournalLine::Everything => ("everything", None, &[]),
    };
    text.push_str(word);
    for name in id.map(|id| &**id).into_iter().chain(tags.iter().map(Tag::as_str)) {
        text.push(' ');
        text.extend(utf8_percent_encode(name, ESCAPED));
    }
    out.extend_from_slice(format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes())).as_bytes());
}

/// Parses a line without its line break. `None` if it is damaged.
pub fn decode(bytes: &[u8]) -> Option<JournalLine> {
    let (checksum, text) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    if checksum != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
        return None;
    }
    let mut parts = text.split(' ');
    let word = parts.next()?;
    let mut names = parts.map(|name| percent_decode_str(name).decode_utf8().ok());
    let line = match word {
        "intend" => JournalLine::Intend { id: names.next()??.into(), tags: tags(&mut names)? },
        "withdraw" => JournalLine::Withdraw { id: names.next()??.into() },
        "purge" => JournalLine::Purge { tags: tags(&mut names)? },
        "everything" => JournalLine::Everything,
        _ => return None,
    };
    names.next().is_none().then_some(line)
}

fn tags<'a>(
    names: &mut impl Iterator<Item = Option<std::borrow::Cow<'a, str>>>,
) -> Option<Vec<Tag>> {
    names.map(|name| name.map(|name| Tag::new(&name))).collect()
}
