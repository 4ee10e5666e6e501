//! What the three headers have in common: lists of names with weights, and the form in the key.

use std::borrow::Cow;

/// What the key holds of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyedForm {
    /// The same as a request without the header.
    Default,
    /// This text.
    Text(Cow<'static, str>),
}

impl KeyedForm {
    pub(super) fn from_text(text: String) -> Self {
        if text.is_empty() { Self::Default } else { Self::Text(Cow::Owned(text)) }
    }
}

/// A member of a list with its weight in thousandths (RFC 9110 12.4.2).
pub(super) struct Weighted<'a> {
    pub(super) name: &'a str,
    /// Parameters other than the weight, with their leading `;`, as they were sent.
    pub(super) parameters: &'a str,
    pub(super) weight: u16,
}

/// The members of a list, without empty and malformed ones.
pub(super) fn weighted(value: &[u8]) -> impl Iterator<Item = Weighted<'_>> {
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
pub(super) fn rank_weight(rank: usize) -> &'static str {
    const WEIGHTS: [&str; 10] = [
        "", ";q=0.9", ";q=0.8", ";q=0.7", ";q=0.6", ";q=0.5", ";q=0.4", ";q=0.3", ";q=0.2",
        ";q=0.1",
    ];
    WEIGHTS[rank.min(WEIGHTS.len() - 1)]
}
