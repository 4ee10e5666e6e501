//! The normal forms of the headers by which origins choose a representation: `Accept`,
//! `Accept-Encoding` and `Accept-Language` (RFC 9110 12.5).
//!
//! Invariants:
//! - The normal form stands in the key, and [`on_the_wire`] makes what the origin receives from it
//!   alone. So the origin cannot tell two requests apart that share a key.
//! - Two values have the same form only if each client accepts the response to the other.
//! - [`KeyedForm::Default`] is the form of a request without the header.
//!
//! Knows nothing of routes, keys and responses, apart from the codings that a response uses.

mod accept;
mod encoding;
mod language;

use std::borrow::Cow;

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub use self::encoding::accepts_codings;

/// The longest value that is read, in bytes. A longer one counts as the default.
const MAX_VALUE: usize = 1024;

/// What the key holds of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyedForm {
    /// The same as a request without the header.
    Default,
    /// This text.
    Text(Cow<'static, str>),
}

impl KeyedForm {
    fn from_text(text: String) -> Self {
        if text.is_empty() { Self::Default } else { Self::Text(Cow::Owned(text)) }
    }
}

/// Whether a header has a normal form of its own.
#[must_use]
pub fn is_negotiated(name: &HeaderName) -> bool {
    *name == ACCEPT || *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE
}

/// The normal form of a header with these lines. `languages` are those that the origin has, if the
/// operator has named them.
#[must_use]
pub fn keyed_form(
    name: &HeaderName,
    lines: &[&HeaderValue],
    languages: Option<&[Box<str>]>,
) -> KeyedForm {
    let mut joined: SmallVec<[u8; 256]> = SmallVec::new();
    let value: &[u8] = match lines {
        [line] => line.as_bytes(),
        lines => {
            for line in lines {
                joined.extend_from_slice(line.as_bytes());
                joined.push(b',');
            }
            &joined
        }
    };
    if value.len() > MAX_VALUE {
        return KeyedForm::Default;
    }
    match *name {
        ACCEPT => accept::keyed_form(value),
        ACCEPT_ENCODING => encoding::keyed_form(value),
        _ => language::keyed_form(value, languages),
    }
}

/// What the origin receives for the default form.
#[must_use]
pub fn default_on_the_wire(name: &HeaderName) -> Option<&'static str> {
    match *name {
        ACCEPT => Some("*/*"),
        ACCEPT_ENCODING => Some("identity"),
        _ => None,
    }
}

/// What the origin receives for a keyed form.
#[must_use]
pub fn on_the_wire<'a>(name: &HeaderName, keyed: &'a str) -> Cow<'a, str> {
    match *name {
        ACCEPT => Cow::Borrowed(keyed),
        ACCEPT_ENCODING => Cow::Owned(keyed.replace(',', ", ")),
        _ => Cow::Owned(language::on_the_wire(keyed)),
    }
}

/// A member of a list with its weight in thousandths (RFC 9110 12.4.2).
struct Weighted<'a> {
    name: &'a str,
    /// Parameters other than the weight, with their leading `;`, as they were sent.
    parameters: &'a str,
    weight: u16,
}

/// The members of a list, without empty and malformed ones.
fn weighted(value: &[u8]) -> impl Iterator<Item = Weighted<'_>> {
    let members =
        value.split(|&byte| byte == b',').filter_map(|member| str::from_utf8(member).ok());
    members.map(str::trim_ascii).filter(|member| !member.is_empty()).filter_map(|member| {
        let (name, parameters) = match member.find(';') {
            Some(at) => (member[..at].trim_ascii_end(), &member[at..]),
            None => (member, ""),
        };
        let mut weight = 1000;
        let mut others = parameters;
        // The weight ends the parameters that belong to the name (RFC 9110 12.5.1).
        let mut at = 0;
        for parameter in parameters.split(';').skip(1) {
            let text = parameter.trim_ascii();
            if let Some(value) = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q=")) {
                weight = thousandths(value)?;
                others = parameters[..at].trim_ascii_end();
                break;
            }
            at += 1 + parameter.len();
        }
        Some(Weighted { name, parameters: others, weight })
    })
}

/// Parses `0.8` as thousandths; `.8` too, as some clients write it.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match (whole, fraction) {
        ("0" | "", _) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// The weight of a rank in a list that goes out, as text: the first rank has none.
fn rank_weight(rank: usize) -> &'static str {
    const WEIGHTS: [&str; 10] = [
        "", ";q=0.9", ";q=0.8", ";q=0.7", ";q=0.6", ";q=0.5", ";q=0.4", ";q=0.3", ";q=0.2",
        ";q=0.1",
    ];
    WEIGHTS[rank.min(WEIGHTS.len() - 1)]
}

#[cfg(test)]
mod tests;
