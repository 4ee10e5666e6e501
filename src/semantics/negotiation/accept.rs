//! `Accept`: what origins choose by, not what each browser happens to list.
//!
//! - A page: `text/html` comes first, beside it only what browsers list, and anything is accepted.
//!   All browsers share one form.
//! - A picture: an image type comes first, and any image is accepted. What counts is which of the
//!   newer formats are listed, since origins convert pictures into these.
//! - Anything else: the media ranges in lower case, the preferred ones first. Weights are replaced
//!   by ranks.
//! - `*/*` alone means the same as no header.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::list::{KeyedForm, rank_weight, weighted};

/// How many media ranges count.
const MAX_RANGES: usize = 16;

/// What the origin receives for a page.
const PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// The picture formats that origins convert to, sorted.
const NEWER_IMAGES: [&str; 3] = ["image/avif", "image/jxl", "image/webp"];

struct MediaRange {
    /// Lower-case, with parameters.
    text: String,
    weight: u16,
}

/// The normal form, which the origin receives as it is.
pub(super) fn keyed_form(value: &[u8]) -> KeyedForm {
    match value {
        b"*/*" | b"" => return KeyedForm::Default,
        b"application/json" => return KeyedForm::Text(Cow::Borrowed("application/json")),
        b"text/html" => return KeyedForm::Text(Cow::Borrowed("text/html")),
        _ => {}
    }
    if value.contains(&b'"') {
        // A quoted parameter may hold commas. Nobody sends these but machines, each its own.
        let text = str::from_utf8(value).unwrap_or_default().trim_ascii();
        return KeyedForm::from_text(text.to_owned());
    }
    let mut ranges: SmallVec<[MediaRange; MAX_RANGES]> = SmallVec::new();
    for member in weighted(value) {
        let name = if member.name == "*" { "*/*" } else { member.name };
        if !is_media_range(name) {
            continue;
        }
        let parameters = member.parameters.chars().filter(|letter| *letter != ' ');
        let text = name.chars().chain(parameters).map(|letter| letter.to_ascii_lowercase());
        let range = MediaRange { text: text.collect(), weight: member.weight };
        if ranges.len() < MAX_RANGES && !ranges.iter().any(|earlier| earlier.text == range.text) {
            ranges.push(range);
        }
    }
    let refused: Vec<String> = ranges
        .iter()
        .filter(|range| range.weight == 0)
        .map(|range| format!("{};q=0", range.text))
        .collect();
    ranges.retain(|range| range.weight > 0);
    ranges.sort_by_key(|range| std::cmp::Reverse(range.weight));
    let accepts = |text: &str| ranges.iter().any(|range| range.text == text);
    if refused.is_empty() && is_page(&ranges) && accepts("*/*") {
        return KeyedForm::Text(Cow::Borrowed(PAGE));
    }
    let is_picture = ranges.first().is_some_and(|first| first.text.starts_with("image/"));
    if refused.is_empty() && is_picture && (accepts("*/*") || accepts("image/*")) {
        let newer = NEWER_IMAGES.into_iter().filter(|format| accepts(format));
        let others = if accepts("*/*") { "image/*,*/*;q=0.8" } else { "image/*" };
        let listed: Vec<&str> = newer.chain([others]).collect();
        return KeyedForm::from_text(listed.join(","));
    }
    let text = ranked(&ranges, &refused);
    if text == "*/*" { KeyedForm::Default } else { KeyedForm::from_text(text) }
}

/// Whether a browser asks for a page: HTML comes first, and everything else is what browsers list
/// beside it.
fn is_page(ranges: &[MediaRange]) -> bool {
    const BESIDE: [&str; 4] =
        ["application/xhtml+xml", "application/xml", "*/*", "application/signed-exchange;v=b3"];
    let mut ranges = ranges.iter().map(|range| range.text.as_str());
    ranges.next() == Some("text/html")
        && ranges.all(|text| text.starts_with("image/") || BESIDE.contains(&text))
}

fn ranked(ranges: &[MediaRange], refused: &[String]) -> String {
    let mut text = String::new();
    let (mut rank, mut weight) = (0, ranges.first().map_or(0, |first| first.weight));
    for range in ranges {
        if range.weight < weight {
            (rank, weight) = (rank + 1, range.weight);
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&range.text);
        text.push_str(rank_weight(rank));
    }
    // A type that is refused is not the same as one that is not listed, where `*/*` is.
    for range in refused {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(range);
    }
    text
}

fn is_media_range(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}
