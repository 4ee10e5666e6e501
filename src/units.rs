//! Units: durations and sizes as people write them. A leaf: it knows no file and no setting.

use std::time::Duration;

use thiserror::Error;

/// A text that is not a duration or not a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}; allowed: {allowed}")]
pub struct UnitError {
    what: String,
    allowed: &'static str,
    hint: String,
}

impl UnitError {
    /// What was found, and what is wrong with it.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What is allowed.
    #[must_use]
    pub const fn allowed(&self) -> &'static str {
        self.allowed
    }

    /// How to fix it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

/// What a duration looks like.
pub const DURATION_FORM: &str =
    "whole numbers with a unit (ms, s, m, h, d), such as \"250ms\", \"5m\", \"1h30m\"";

/// What a size looks like.
pub const SIZE_FORM: &str = "a whole number with a unit (B, kB, MB, GB, KiB, MiB, GiB, TiB), such \
    as \"64MiB\", \"10kB\", or \"0\"";

/// The units of durations from the longest to the shortest, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration: one or more whole numbers, each with its unit, from the longest unit to the
/// shortest (`"1h30m"`).
///
/// # Errors
/// What is wrong with the text, what is allowed, and how to fix it.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let fail = |what: String, hint: String| UnitError { what, allowed: DURATION_FORM, hint };
    check_characters(text, "a duration").map_err(|(what, hint)| fail(what, hint))?;
    let (mut rest, mut total, mut next_unit) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let (digits, unit, after) = number_and_unit(rest);
        if digits.is_empty() {
            return Err(fail(
                format!("`{text}` is not a duration: a number is missing before `{unit}`"),
                "write \"5m\"".into(),
            ));
        }
        if unit.is_empty() {
            return Err(fail(
                format!("`{text}` has no unit"),
                format!("write \"{text}s\" for seconds, \"{text}ms\" for milliseconds"),
            ));
        }
        let Some(at) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(fail(
                format!("`{text}` is not a duration: there is no unit `{unit}`"),
                time_hint(digits, unit),
            ));
        };
        if at < next_unit {
            return Err(fail(
                format!("`{text}` repeats a unit or has them out of order"),
                "write the longest unit first, each once: \"1h30m\"".into(),
            ));
        }
        let millis = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(DURATION_UNITS[at].1))
            .and_then(|part| part.checked_add(total));
        total = millis.ok_or_else(|| {
            fail(format!("`{text}` is too long"), "durations end at 2^64 milliseconds".into())
        })?;
        next_unit = at + 1;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size in bytes. A lone `"0"` needs no unit.
///
/// # Errors
/// What is wrong with the text, what is allowed, and how to fix it.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let fail = |what: String, hint: String| UnitError { what, allowed: SIZE_FORM, hint };
    check_characters(text, "a size").map_err(|(what, hint)| fail(what, hint))?;
    if text == "0" {
        return Ok(0);
    }
    let (digits, unit, after) = number_and_unit(text);
    if digits.is_empty() || !after.is_empty() {
        return Err(fail(
            format!("`{text}` is not a size"),
            "write one number and one unit: \"64MiB\"".into(),
        ));
    }
    if unit.is_empty() {
        return Err(fail(
            format!("`{text}` has no unit"),
            format!("write \"{text}B\" for bytes, \"{text}MiB\" for mebibytes"),
        ));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(fail(
            format!("`{text}` is not a size: there is no unit `{unit}`"),
            size_hint(digits, unit),
        ));
    };
    let total = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*bytes));
    total.ok_or_else(|| fail(format!("`{text}` is too large"), "sizes end at 2^64 bytes".into()))
}

/// A duration as it would be written: `90000` milliseconds are `1m30s`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let (mut millis, mut text) =
        (u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), String::new());
    for (unit, length) in DURATION_UNITS {
        if millis >= length {
            text.push_str(&(millis / length).to_string());
            text.push_str(unit);
            millis %= length;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// A size as it would be written, in the largest unit that divides it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let whole = |&&(_, unit): &&(&str, u64)| bytes >= unit && bytes.is_multiple_of(unit);
    match SIZE_UNITS.iter().rev().filter(whole).max_by_key(|(_, unit)| *unit) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// What an allocation of so many bytes takes of memory: the allocator has four sizes between two
/// powers of two, and puts a page beside what is large (jemalloc, on pages of 4 KiB).
#[must_use]
pub const fn allocated(bytes: usize) -> usize {
    const PAGE: usize = 4096;
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => match bytes.checked_next_multiple_of(1 << ((bytes - 1).ilog2() - 2)) {
            Some(rounded) if rounded < 4 * PAGE => rounded,
            Some(rounded) => rounded.saturating_add(PAGE),
            None => usize::MAX,
        },
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// The first eight digits: enough to tell two values apart, useless for anything else.
#[must_use]
pub fn short_hex(bytes: &[u8]) -> String {
    hex(&bytes[..bytes.len().min(4)])
}

/// What no unit text may hold.
fn check_characters(text: &str, kind: &str) -> Result<(), (String, String)> {
    if text.is_empty() {
        return Err((format!("an empty text is not {kind}"), "write a number and its unit".into()));
    }
    if text.chars().any(char::is_whitespace) {
        let tight: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (digits, unit, rest) = number_and_unit(&tight);
        let corrected =
            if kind.contains("size") { size_hint(digits, unit) } else { time_hint(digits, unit) };
        let hint = if rest.is_empty() { corrected } else { format!("write \"{tight}\"") };
        return Err((format!("`{text}` is not {kind}: it contains a space"), hint));
    }
    if text.contains('.') {
        return Err((
            format!("`{text}` is not {kind}: numbers are whole"),
            "use a smaller unit in place of a fraction".into(),
        ));
    }
    if text.starts_with(['-', '+']) {
        return Err((
            format!("`{text}` is not {kind}: it has a sign"),
            "leave the sign out".into(),
        ));
    }
    Ok(())
}

/// The digits at the start, the letters that follow, and what is left.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(unit_at);
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(end);
    (digits, unit, after)
}

fn time_hint(digits: &str, unit: &str) -> String {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millis" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "w" | "week" | "weeks" => return "weeks are written in days: \"7d\"".into(),
        "y" | "year" | "years" => return "years are written in days: \"365d\"".into(),
        "us" | "\u{b5}s" | "ns" => return "the shortest unit is the millisecond: \"1ms\"".into(),
        _ => return "units are ms, s, m, h, d".into(),
    };
    format!("write \"{digits}{meant}\"")
}

fn size_hint(digits: &str, unit: &str) -> String {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => "B",
        "k" | "ki" | "kib" => "KiB",
        "kb" => "kB",
        "m" | "mi" | "mib" => "MiB",
        "mb" => "MB",
        "g" | "gi" | "gib" => "GiB",
        "gb" => "GB",
        "t" | "ti" | "tib" => "TiB",
        "tb" => "TB",
        _ => {
            return "units are B, kB, MB, GB, TB (thousands) and KiB, MiB, GiB, TiB (1024s)".into();
        }
    };
    format!("write \"{digits}{meant}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1367_an_allocation_takes_the_next_size_of_the_allocator() {
        let sizes = [
            (0, 0),
            (1, 8),
            (9, 16),
            (113, 128),
            (129, 160),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (14_337, 16_384 + 4096),
            (100_200, 114_688 + 4096),
            (usize::MAX, usize::MAX),
        ];
        for (asked, taken) in sizes {
            assert_eq!(allocated(asked), taken, "{asked}");
        }
    }
    use proptest::prelude::*;

    #[test]
    fn durations_carry_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1m30s5ms", 90_005),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_carry_units() {
        for (text, bytes) in [
            ("0", 0),
            ("64MiB", 64 << 20),
            ("10kB", 10_000),
            ("1B", 1),
            ("2GiB", 2 << 30),
            ("3TB", 3_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, hint) in [
            ("", "number and its unit"),
            ("5", "\"5s\""),
            ("5 m", "\"5m\""),
            ("1.5s", "smaller unit"),
            ("-5s", "sign"),
            ("5x", "ms, s, m, h, d"),
            ("5min", "\"5m\""),
            ("1w", "\"7d\""),
            ("30m1h", "longest unit first"),
            ("1s1s", "each once"),
            ("99999999999999999999s", "2^64"),
            ("m", "\"5m\""),
            ("1h5", "\"1h5s\""),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.hint().contains(hint), "{text}: {}", error.hint());
            assert!(error.to_string().contains("allowed: whole numbers"), "{error}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        for (text, hint) in [
            ("", "number"),
            ("64", "\"64B\""),
            ("64 MiB", "\"64MiB\""),
            ("64mb", "\"64MB\""),
            ("1M", "\"1MiB\""),
            ("1KiB1B", "one unit"),
            ("9XB", "1024s"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.hint().contains(hint), "{text}: {}", error.hint());
        }
        assert!(parse_size("99999999999TiB").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[0-9]{0,22}[a-zA-Z]{0,4}[0-9]{0,3}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn what_is_shown_reads_the_same(number in 0_u64..1 << 40) {
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
            prop_assert_eq!(parse_size(&show_size(number)).unwrap(), number);
        }

        #[test]
        fn whole_milliseconds_come_back(millis in 0_u64..1 << 40) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format!("{millis}ms")).unwrap(), duration);
        }
    }
}
