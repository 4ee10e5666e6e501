//! `Accept-Encoding`: which of the codings that origins use the client accepts, sorted. Weights and
//! order are left out, since a cache has one response for all who accept it.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, HeaderMap};

use super::list::{KeyedForm, weighted};
use crate::semantics::content_coding::Coding;

/// The codings that origins use, sorted. `*` stands for all of them.
const CODINGS: [&str; 4] = ["br", "deflate", "gzip", "zstd"];

/// The normal form: the accepted codings, joined by commas. `identity` is always acceptable.
pub(super) fn keyed_form(value: &[u8]) -> KeyedForm {
    // What browsers and common clients send.
    let known = match value {
        b"gzip, deflate, br, zstd" => "br,deflate,gzip,zstd",
        b"gzip, deflate, br" => "br,deflate,gzip",
        b"gzip, deflate" | b"deflate, gzip" | b"gzip,deflate" => "deflate,gzip",
        b"gzip" => "gzip",
        b"identity" | b"" => return KeyedForm::Default,
        _ => "",
    };
    if !known.is_empty() {
        return KeyedForm::Text(Cow::Borrowed(known));
    }
    let mut named = [None::<bool>; CODINGS.len()];
    let mut star = false;
    for member in weighted(value) {
        let accepted = member.weight > 0;
        // RFC 9110 8.4.1.3: an older name of the same coding.
        let is_named = |coding: &str| {
            member.name.eq_ignore_ascii_case(coding)
                || (coding == "gzip" && member.name.eq_ignore_ascii_case("x-gzip"))
        };
        if member.name == "*" {
            star = accepted;
        } else if let Some(at) = CODINGS.iter().position(|coding| is_named(coding)) {
            // A coding that is both accepted and refused is refused.
            named[at] = Some(accepted && named[at] != Some(false));
        }
    }
    let accepted = CODINGS.iter().zip(named).filter(|(_, named)| named.unwrap_or(star));
    KeyedForm::from_text(accepted.map(|(coding, _)| *coding).collect::<Vec<_>>().join(","))
}

/// The coding that the client likes best among those that are offered; of two that it likes the
/// same, the one that is offered first. None where it accepts none of them, or likes `identity`
/// better: a client that does not name that gets it only in place of nothing (RFC 9110 12.5.3).
#[must_use]
pub fn best_coding(accept_encoding: &[u8], offered: &[Coding]) -> Option<Coding> {
    let mut named = [None::<u16>; Coding::ALL.len()];
    let (mut star, mut identity) = (0, 0);
    for member in weighted(accept_encoding) {
        if member.name == "*" {
            star = member.weight;
        } else if member.name.eq_ignore_ascii_case("identity") {
            identity = member.weight;
        } else if let Some(coding) = Coding::named(member.name.as_bytes()) {
            let known = &mut named[coding as usize];
            // A coding that is both accepted and refused is refused.
            *known = Some(known.map_or(member.weight, |known| known.min(member.weight)));
        }
    }
    let weight = |coding: Coding| named[coding as usize].unwrap_or(star);
    let mut best = None;
    for &coding in offered {
        let weight = weight(coding);
        if weight > 0 && weight >= identity && best.is_none_or(|(_, least)| weight > least) {
            best = Some((coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// Whether a client that sent this `Accept-Encoding`, in any form, can read a response with these
/// headers.
#[must_use]
pub fn accepts_codings(accept_encoding: &[u8], response: &HeaderMap) -> bool {
    let accepted = match keyed_form(accept_encoding) {
        KeyedForm::Default => Cow::Borrowed(""),
        KeyedForm::Text(text) => text,
    };
    let codings = response
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(|coding| coding.trim_ascii().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != b"identity");
    codings.into_iter().all(|coding| {
        let coding = if coding == b"x-gzip" { b"gzip".to_vec() } else { coding };
        accepted.split(',').any(|name| name.as_bytes() == coding)
    })
}
