//! Formats numbers, tables and untrusted text for the terminal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

/// Escapes the control and direction characters of untrusted text, such as a path.
///
/// SECURITY: an escape sequence in a request's path must not reach the operator's terminal.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Escapes the same characters of a JSON text, which stays JSON of the same value: they can only
/// stand in its strings.
pub(super) fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// `line 5`, or `line 5 of conf.d/a.toml` for a rule of an included file.
pub(super) fn rule_place(line: Option<u64>, file: Option<&str>) -> Option<String> {
    let line = line?;
    Some(match file {
        Some(file) => format!("line {line} of {}", clean(file)),
        None => format!("line {line}"),
    })
}

/// Like [`clean`], but keeps line breaks.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table without rules, so that `grep` and `awk` can process it. The columns in `numbers` are
/// aligned to the right.
pub(super) fn table<const N: usize>(
    head: [&str; N],
    numbers: &[usize],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell).into_owned()));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// How many there are of all kinds.
pub(super) fn sum(requests: &BTreeMap<String, u64>) -> u64 {
    requests.values().fold(0, |sum, count| sum.saturating_add(*count))
}

/// A number of bytes with a unit.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A ratio as a percentage, or a dash if there is none.
pub(super) fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1}%", ratio * 100.0))
}

/// Milliseconds, with two or three significant digits.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 0.0995 => format!("{ms:.3} ms"),
        ms if ms < 9.95 => format!("{ms:.2} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => seconds(ms / 1000.0),
    }
}

/// The time of day of milliseconds since the Unix epoch, in UTC.
pub(super) fn time_of_day(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000)
}

/// Seconds: with one decimal below a minute, else in larger units.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // Values out of range are shown as the maximum.
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// `1 tag`, `2 tags`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What follows a number of requests of which only a sample was looked at; nothing if all were.
pub(super) fn sample_note(requests: u64, observed: Option<u64>) -> String {
    match observed {
        Some(observed) if observed < requests => {
            format!(" (estimated from a sample of {observed})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            [size(0), size(1023), size(1024), size(1 << 20), size(u64::MAX)],
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16384.0 PiB"]
        );
        assert_eq!(
            [percent(None), percent(Some(0.8312)), percent(Some(1.0))],
            ["-", "83.1%", "100.0%"]
        );
        assert_eq!(
            [millis(0.0421), millis(1.234), millis(41.2), millis(2500.0)],
            ["0.042 ms", "1.23 ms", "41 ms", "2.5 s"]
        );
        assert_eq!(
            [seconds(1.26), seconds(61.0), seconds(7_380.0), seconds(90_000.0)],
            ["1.3 s", "1m 1s", "2h 3m", "1d 1h"]
        );
        assert_eq!([counted(1, "tag"), counted(0, "tag")], ["1 tag", "0 tags"]);
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(clean("/a\x1b[2J\n\u{9b}1m\u{202e}"), "/a\\u{1b}[2J\\n\\u{9b}1m\\u{202e}");
        assert_eq!(clean("grüße"), "grüße");
        assert_eq!(clean_lines("a\x07\nb"), "a\\u{7}\nb");
    }

    #[test]
    fn tables_are_columns_of_text() {
        let shown = table(
            ["ROUTE", "COUNT"],
            &[1],
            [["/a/long/path".into(), "7".into()], ["/b".into(), "1234".into()]],
        );
        assert_eq!(shown, "ROUTE         COUNT\n/a/long/path      7\n/b             1234");
    }
}
