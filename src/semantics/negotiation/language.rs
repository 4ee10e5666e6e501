//! `Accept-Language`: the accepted language ranges in lower case, the preferred one first, without
//! weights (RFC 9110 12.5.4, RFC 4647).

use std::fmt::Write as _;

use smallvec::SmallVec;

use super::list::{KeyedForm, rank_weight, weighted};

/// How many ranges count. Browsers send up to about six.
const MAX_RANGES: usize = 8;

/// The longest range that counts (RFC 5646 4.4.1 asks for room for 35 characters).
const MAX_RANGE_LEN: usize = 35;

/// The normal form: all ranges with a weight above zero, joined by commas. With `languages`, the
/// one of these that fits best. A lone `*` means the same as no header.
pub(super) fn keyed_form(value: &[u8], languages: Option<&[Box<str>]>) -> KeyedForm {
    let mut ranges: SmallVec<[(&str, u16); MAX_RANGES]> = SmallVec::new();
    for member in weighted(value).filter(|member| member.weight > 0 && is_range(member.name)) {
        // The sort is stable: equal weights keep their order.
        let at = ranges.iter().take_while(|(_, weight)| *weight >= member.weight).count();
        ranges.insert(at, (member.name, member.weight));
    }
    if let Some(languages) = languages {
        let chosen = ranges.iter().find_map(|(range, _)| best_match(range, languages));
        return chosen.map_or(KeyedForm::Default, |chosen| {
            KeyedForm::from_text(chosen.to_ascii_lowercase())
        });
    }
    let mut text = String::new();
    let mut count = 0;
    for (at, (range, _)) in ranges.iter().enumerate() {
        let is_repeated =
            ranges[..at].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(range));
        if is_repeated || count == MAX_RANGES {
            continue;
        }
        count += 1;
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(range.chars().map(|letter| letter.to_ascii_lowercase()));
    }
    if text == "*" { KeyedForm::Default } else { KeyedForm::from_text(text) }
}

/// What the origin receives: the case that RFC 5646 2.1.1 recommends, and weights that keep the
/// order.
pub(super) fn on_the_wire(keyed: &str) -> String {
    let mut text = String::with_capacity(keyed.len() * 2);
    for (rank, range) in keyed.split(',').enumerate() {
        if rank > 0 {
            text.push_str(", ");
        }
        for (at, subtag) in range.split('-').enumerate() {
            if at > 0 {
                text.push('-');
            }
            match subtag.len() {
                2 if at > 0 => text.push_str(&subtag.to_ascii_uppercase()),
                4 if at > 0 && subtag.is_char_boundary(1) => {
                    let (first, rest) = subtag.split_at(1);
                    let _ = write!(text, "{}{rest}", first.to_ascii_uppercase());
                }
                _ => text.push_str(subtag),
            }
        }
        text.push_str(rank_weight(rank));
    }
    text
}

fn is_range(range: &str) -> bool {
    range.len() <= MAX_RANGE_LEN
        && (range == "*" || range.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

/// The language that fits a range: the same one, else a more special one, else a more general one
/// (RFC 4647 3.4).
fn best_match<'a>(range: &str, languages: &'a [Box<str>]) -> Option<&'a str> {
    if range == "*" {
        return languages.first().map(|first| &**first);
    }
    let mut wanted = range;
    loop {
        let same = languages.iter().find(|language| language.eq_ignore_ascii_case(wanted));
        let special = || languages.iter().find(|language| begins_with(language, wanted));
        if let Some(found) = same.or_else(special) {
            return Some(found);
        }
        if let Some(script) = script_of(wanted)
            && let Some(found) = languages.iter().find(|one| one.eq_ignore_ascii_case(script))
        {
            return Some(found);
        }
        let (general, _) = wanted.rsplit_once('-')?;
        // A single letter introduces an extension, and goes with it.
        wanted = match general.rsplit_once('-') {
            Some((before, letter)) if letter.len() == 1 => before,
            _ => general,
        };
    }
}

/// Browsers name Chinese by the region, and sites by the script.
fn script_of(range: &str) -> Option<&'static str> {
    let is_one_of = |ranges: &[&str]| ranges.iter().any(|one| one.eq_ignore_ascii_case(range));
    if is_one_of(&["zh-tw", "zh-hk", "zh-mo"]) {
        Some("zh-hant")
    } else if is_one_of(&["zh-cn", "zh-sg", "zh-my"]) {
        Some("zh-hans")
    } else {
        None
    }
}

/// Whether a language is the range with more subtags.
fn begins_with(language: &str, range: &str) -> bool {
    language
        .split_at_checked(range.len())
        .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(range) && rest.starts_with('-'))
}
