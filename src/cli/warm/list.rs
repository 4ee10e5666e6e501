//! Reads a list or a log of any length, with bounded memory, into distinct requests, the most
//! frequent first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read as _};

use super::super::format::clean;
use super::log_line;
use super::log_line::{LogLine, LoggedRequest, Skip};

/// The longest line that is read; the rest of a longer one is dropped.
const MAX_LINE: u64 = 16 * 1024;
/// How many lines that cannot be read are shown.
const MAX_EXAMPLES: usize = 5;
/// How many bytes of such a line are shown.
const MAX_EXCERPT: usize = 100;

/// Bounds on the memory that a list takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Distinct requests.
    pub(super) distinct: usize,
    /// Bytes of them all together.
    pub(super) bytes: usize,
}

impl Bounds {
    pub(super) const DEFAULT: Self = Self { distinct: 100_000, bytes: 64 * 1024 * 1024 };
}

/// The requests of a list, and the lines that gave none.
#[derive(Debug, Default)]
pub(super) struct WarmList {
    /// The most frequent first; equally frequent ones in the order of the list.
    pub(super) requests: Vec<(LoggedRequest, u64)>,
    pub(super) lines: u64,
    /// Lines that are skipped.
    pub(super) skipped: BTreeMap<Skip, u64>,
    /// Lines that cannot be read.
    pub(super) unreadable: u64,
    /// The first unreadable lines: line number and excerpt.
    pub(super) examples: Vec<(u64, String)>,
    /// Lines whose requests were ignored because the bounds were reached.
    pub(super) over_limit: u64,
}

/// Reads a whole list.
pub(super) fn read(reader: &mut dyn BufRead, bounds: Bounds) -> io::Result<WarmList> {
    let mut list = WarmList::default();
    let mut known: HashMap<LoggedRequest, (u64, u64)> = HashMap::new();
    let (mut line, mut bytes) = (Vec::new(), 0);
    while next_line(reader, &mut line)? {
        list.lines += 1;
        let text = std::str::from_utf8(&line).unwrap_or_default();
        let read = if text.is_empty() && !line.is_empty() || line.len() as u64 > MAX_LINE {
            LogLine::Unreadable
        } else {
            log_line::parse(text)
        };
        match read {
            LogLine::Blank => {}
            LogLine::Skipped(why) => *list.skipped.entry(why).or_default() += 1,
            LogLine::Unreadable => {
                list.unreadable += 1;
                if list.examples.len() < MAX_EXAMPLES {
                    list.examples.push((list.lines, excerpt(&line)));
                }
            }
            LogLine::Request(wanted) => {
                if let Some((count, _)) = known.get_mut(&wanted) {
                    *count += 1;
                    continue;
                }
                let size = wanted.target.len() + wanted.host.as_ref().map_or(0, String::len);
                if known.len() >= bounds.distinct || bytes + size > bounds.bytes {
                    list.over_limit += 1;
                    continue;
                }
                bytes += size;
                known.insert(wanted, (1, list.lines));
            }
        }
    }
    let mut counted: Vec<_> = known.into_iter().collect();
    counted.sort_unstable_by_key(|(_, (count, first))| (Reverse(*count), *first));
    list.requests = counted.into_iter().map(|(wanted, (count, _))| (wanted, count)).collect();
    Ok(list)
}

/// Reads a line, or only the start of one that is too long. False at the end.
fn next_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    (&mut *reader).take(MAX_LINE + 1).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(false);
    }
    while line.len() as u64 > MAX_LINE && line.last() != Some(&b'\n') {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            break;
        }
        let newline = part.iter().position(|&b| b == b'\n');
        let used = newline.map_or(part.len(), |at| at + 1);
        reader.consume(used);
        if newline.is_some() {
            break;
        }
    }
    Ok(true)
}

fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let cut = text.floor_char_boundary(MAX_EXCERPT);
    let more = if cut < text.len() { "…" } else { "" };
    // SECURITY: a URL may contain a token in its query, so the excerpt ends before the query.
    let shown = text[..cut].split('?').next().unwrap_or_default();
    format!("{}{more}", clean(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, bounds: Bounds) -> WarmList {
        read(&mut text.as_bytes(), bounds).unwrap()
    }

    fn targets(list: &WarmList) -> Vec<(&str, u64)> {
        list.requests.iter().map(|(wanted, count)| (wanted.target.as_str(), *count)).collect()
    }

    #[test]
    fn the_most_frequent_comes_first_and_each_once() {
        let list = listed("/a\n/b\n# c\n\n/c\n/b\n/c\n/b", Bounds::DEFAULT);
        assert_eq!(targets(&list), [("/b", 3), ("/c", 2), ("/a", 1)]);
        assert_eq!((list.lines, list.unreadable, list.over_limit), (8, 0, 0));
    }

    #[test]
    fn lines_that_cannot_be_read_are_counted_and_the_first_shown() {
        let list = listed("/a\nhello\x1b[2J\n/b?q c\nx\ny\nz\nlast\n", Bounds::DEFAULT);
        assert_eq!((list.unreadable, list.examples.len()), (6, MAX_EXAMPLES));
        assert_eq!(list.examples[0], (2, "hello\\u{1b}[2J".to_owned()));
        assert_eq!(list.examples[1], (3, "/b".to_owned()), "a query is not shown");
    }

    #[test]
    fn bounds_are_kept_and_what_is_over_them_is_counted() {
        let list = listed("/a\n/b\n/c\n/a\n/c\n", Bounds { distinct: 2, bytes: 100 });
        assert_eq!((targets(&list), list.over_limit), (vec![("/a", 2), ("/b", 1)], 2));
        let list = listed("/aaaa\n/b\n/c\n", Bounds { distinct: 9, bytes: 7 });
        assert_eq!((targets(&list), list.over_limit), (vec![("/aaaa", 1), ("/b", 1)], 1));
    }

    #[test]
    fn a_line_without_end_is_one_that_cannot_be_read() {
        let long = format!("/{}\n/a\n\u{e9}", "x".repeat(100_000));
        let list = listed(&long, Bounds::DEFAULT);
        assert_eq!((targets(&list), list.unreadable, list.lines), (vec![("/a", 1)], 2, 3));
        assert!(list.examples[0].1.len() < 200);
        let list = read(&mut &b"\xff\xfe\n/a\n"[..], Bounds::DEFAULT).unwrap();
        assert_eq!((targets(&list), list.unreadable), (vec![("/a", 1)], 1));
    }
}
