//! Which fields a request has, of those that most requests lack and that decide what becomes of
//! it: one look at all names in place of a search for each.

use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, TRANSFER_ENCODING,
};

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFields(u8);

impl RequestFields {
    /// `Connection`.
    pub const CONNECTION: Self = Self(1);
    /// `Transfer-Encoding`.
    pub const TRANSFER_ENCODING: Self = Self(1 << 1);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 2);
    /// `Authorization`.
    pub const AUTHORIZATION: Self = Self(1 << 3);
    /// `If-None-Match` or `If-Modified-Since`.
    pub const CONDITION: Self = Self(1 << 4);
    /// A name that begins with `x` or with anything but a letter, as those do that name a method.
    pub const OF_EXTENSION: Self = Self(1 << 5);

    /// Those of a head.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| found.with(Self::of_name(name)))
    }

    fn of_name(name: &HeaderName) -> Self {
        let text = name.as_str();
        let field = match text.len() {
            6 if *name == EXPECT => Self::EXPECT,
            10 if *name == CONNECTION => Self::CONNECTION,
            13 if *name == AUTHORIZATION => Self::AUTHORIZATION,
            13 if *name == IF_NONE_MATCH => Self::CONDITION,
            17 if *name == IF_MODIFIED_SINCE => Self::CONDITION,
            17 if *name == TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
            _ => Self::default(),
        };
        match text.as_bytes().first() {
            Some(b'a'..=b'w' | b'y' | b'z') => field,
            _ => field.with(Self::OF_EXTENSION),
        }
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether one of these is among them.
    #[must_use]
    pub const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 != 0
    }
}

/// `Host`, which nearly every client sends first.
pub(crate) fn host_line(headers: &HeaderMap) -> Option<&HeaderValue> {
    match headers.iter().next() {
        Some((name, value)) if *name == HOST => Some(value),
        _ => headers.get(HOST),
    }
}

/// Whether a field has more than one line. Most heads repeat none at all.
pub(crate) fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.len() > headers.keys_len() && headers.get_all(name).iter().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NAMES: [&str; 14] = [
        "host",
        "connection",
        "transfer-encoding",
        "expect",
        "authorization",
        "if-none-match",
        "if-modified-since",
        "x-a",
        "_method",
        "accept",
        "cookie",
        "keep-alive",
        "accept-charset",
        "1a",
    ];

    proptest! {
        #[test]
        fn one_look_finds_what_searches_find(
            lines in proptest::collection::vec((select(&NAMES[..]), 0_u16..3), 0..12),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                headers.append(HeaderName::from_static(name), HeaderValue::from(*value));
            }
            let found = RequestFields::of(&headers);
            for (field, names) in [
                (RequestFields::CONNECTION, &["connection"][..]),
                (RequestFields::TRANSFER_ENCODING, &["transfer-encoding"]),
                (RequestFields::EXPECT, &["expect"]),
                (RequestFields::AUTHORIZATION, &["authorization"]),
                (RequestFields::CONDITION, &["if-none-match", "if-modified-since"]),
                (RequestFields::OF_EXTENSION, &["x-a", "_method", "1a"]),
            ] {
                let is_there = names.iter().any(|name| headers.contains_key(*name));
                prop_assert_eq!(found.has(field), is_there, "{:?}", names);
            }
            prop_assert_eq!(host_line(&headers), headers.get(HOST));
            for name in NAMES {
                let name = HeaderName::from_static(name);
                let count = headers.get_all(&name).iter().count();
                prop_assert_eq!(is_repeated(&headers, &name), count > 1);
            }
        }
    }
}
