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
mod list;
mod recent;

use std::borrow::Cow;

use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName};

use crate::semantics::content_coding::Coding;

pub use self::encoding::{accepts_codings, best_coding};
pub use self::list::KeyedForm;
pub use self::recent::{Languages, recent_form};

/// The longest value that is read, in bytes. A longer one counts as the default.
const MAX_VALUE: usize = 1024;

/// The normal form of `Accept-Encoding` where the cache codes bodies itself: the best one for the
/// client of the codings that it offers.
#[must_use]
pub fn keyed_coding(value: &[u8], offered: &[Coding]) -> KeyedForm {
    let best = (value.len() <= MAX_VALUE).then(|| best_coding(value, offered)).flatten();
    best.map_or(KeyedForm::Default, |coding| KeyedForm::Text(Cow::Borrowed(coding.as_str())))
}

/// Whether a header has a normal form of its own.
#[must_use]
pub fn is_negotiated(name: &HeaderName) -> bool {
    *name == ACCEPT || *name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE
}

/// The normal form of a header with this value. `languages` are those that the origin has, if the
/// operator has named them.
#[must_use]
pub fn keyed_form(name: &HeaderName, value: &[u8], languages: Option<&[Box<str>]>) -> KeyedForm {
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

#[cfg(test)]
mod tests;
