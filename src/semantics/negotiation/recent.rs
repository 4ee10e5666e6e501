//! Normal forms that a thread has made lately: there are many clients, and few browsers.
//!
//! Invariant: what is remembered is what would be made anew. A form is found by all that it was
//! made of: the header, the whole value, and the list of languages.
//!
//! A table of fixed size, of values of bounded length: what is made takes the place of what shares
//! it.

use std::cell::RefCell;
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::{KeyedForm, keyed_form};

/// How many forms a thread remembers.
const PLACES: usize = 64;

/// The longest value that is remembered, in bytes.
const LONGEST: usize = 256;

/// The languages that an origin has, if the operator has named them, and a number that no other
/// list of this process has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Languages<'a> {
    /// None: each language is one of its own.
    pub list: Option<&'a [Box<str>]>,
    /// Equal for equal lists alone.
    pub id: [u8; 8],
}

struct RecentForm {
    header: NegotiatedHeader,
    /// The number of the list of languages.
    list: Option<[u8; 8]>,
    value: Box<[u8]>,
    form: Option<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NegotiatedHeader {
    Accept,
    Encoding,
    Language,
}

impl NegotiatedHeader {
    fn of(name: &HeaderName) -> Self {
        match *name {
            ACCEPT => Self::Accept,
            ACCEPT_ENCODING => Self::Encoding,
            _ => Self::Language,
        }
    }
}

thread_local! {
    static FORMS: RefCell<[Option<RecentForm>; PLACES]> =
        const { RefCell::new([const { None }; PLACES]) };
}

/// The normal form of a header with this value, as [`keyed_form`] makes it; none for the default.
#[must_use]
pub fn recent_form(name: &HeaderName, value: &[u8], languages: Languages<'_>) -> Option<Arc<str>> {
    let make = || match keyed_form(name, value, languages.list) {
        KeyedForm::Default => None,
        KeyedForm::Text(text) => Some(Arc::<str>::from(text)),
    };
    if value.len() > LONGEST {
        return make();
    }
    let header = NegotiatedHeader::of(name);
    let is_of_list = header == NegotiatedHeader::Language && languages.list.is_some();
    let list = is_of_list.then_some(languages.id);
    FORMS.with_borrow_mut(|forms| {
        let place = &mut forms[place_of(value)];
        if let Some(known) = place
            && known.header == header
            && known.list == list
            && *known.value == *value
        {
            return known.form.clone();
        }
        let form = make();
        *place = Some(RecentForm { header, list, value: value.into(), form: form.clone() });
        form
    })
}

/// Where a value is remembered: by its length, its first and its last bytes, which tells the values
/// of browsers apart.
fn place_of(value: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (first, last) = (word(value.first_chunk()), word(value.last_chunk()));
    let mixed =
        (first ^ last.rotate_left(29) ^ value.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The highest six bits: never out of range.
    usize::try_from(mixed >> 58).unwrap_or(0) % PLACES
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_LANGUAGE;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const VALUES: [&str; 8] = [
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "gzip, deflate, br, zstd",
        "gzip",
        "en-US,en;q=0.5",
        "de,en;q=0.7",
        "de",
        "*",
        "",
    ];

    fn text(form: KeyedForm) -> Option<String> {
        match form {
            KeyedForm::Default => None,
            KeyedForm::Text(text) => Some(text.into_owned()),
        }
    }

    proptest! {
        /// In any order, and with values that share a place.
        #[test]
        fn what_is_remembered_is_what_is_made(
            asked in proptest::collection::vec(
                (select(&VALUES[..]), 0_usize..3, 0_usize..3, 0_usize..5),
                1..60,
            ),
        ) {
            let lists: [Box<[Box<str>]>; 2] = [
                ["de".into(), "en".into()].into(),
                ["fr".into()].into(),
            ];
            for (value, header, list, more) in asked {
                let name = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE][header].clone();
                // Some are longer than what is remembered, and some differ in the middle alone.
                let value = match more {
                    4 => format!("{value}, {}", "x".repeat(LONGEST)),
                    _ => format!("{value}, a;q=0.{more}, {value}"),
                };
                let languages = match list {
                    0 => Languages::default(),
                    at => Languages {
                        list: Some(&lists[at - 1]),
                        id: [u8::try_from(at).unwrap(); 8],
                    },
                };
                let made = text(keyed_form(&name, value.as_bytes(), languages.list));
                let found = recent_form(&name, value.as_bytes(), languages);
                prop_assert_eq!(found.as_deref(), made.as_deref());
            }
        }
    }
}
