//! Which request headers select among the stored responses of one key (RFC 9111 4.1).
//!
//! Owns the list of names, [`VarySpec`], with its stored form. Knows nothing of keys and values.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, HeaderMap, HeaderName,
    VARY,
};

use crate::units::allocated;

/// A response that varies on more names than this is treated as `Vary: *`.
pub const MAX_NAMES: usize = 16;

/// A response that varies on a longer name is treated so too: the stored form has one byte for the
/// length.
const MAX_NAME_LEN: usize = u8::MAX as usize;

/// The request headers that a response varies on: sorted by name, without duplicates, at most
/// [`MAX_NAMES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VarySpec {
    names: Vec<HeaderName>,
}

/// The response says `Vary: *` or the equivalent: no other request may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response varies on more than request headers")]
pub struct VaryStar;

/// Whether a response says itself that it varies on `Accept-Language`.
#[must_use]
pub fn names_languages(response: &HeaderMap) -> bool {
    // Without `Accept-Language` in the request, `Content-Language` says nothing of it.
    VarySpec::from_response(&HeaderMap::new(), response)
        .is_ok_and(|vary| vary.covers(&ACCEPT_LANGUAGE))
}

impl VarySpec {
    /// The memory of what it points to.
    #[must_use]
    pub fn weight(&self) -> usize {
        let list = allocated(self.names.capacity() * size_of::<HeaderName>());
        // A name that is not of the standard has a text of its own, and a count of references.
        list + self.names.iter().map(|name| allocated(name.as_str().len()) + 32).sum::<usize>()
    }

    /// The headers that the response varies on: those of all its `Vary` lines, and those that
    /// origins that encode or translate often omit.
    ///
    /// # Errors
    /// [`VaryStar`] for `*`, for an invalid name, and for too many or too long names.
    pub fn from_response(request: &HeaderMap, response: &HeaderMap) -> Result<Self, VaryStar> {
        let mut spec = Self::default();
        for line in response.get_all(VARY) {
            for member in line
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|member| !member.is_empty())
            {
                // `*` is a token, so it would be accepted as a name (RFC 9110 12.5.5).
                if member == b"*" {
                    return Err(VaryStar);
                }
                spec.insert(HeaderName::from_bytes(member).map_err(|_| VaryStar)?)?;
            }
        }
        // An encoded body is only for clients that can decode it, whether the origin says so or
        // not.
        if response.contains_key(CONTENT_ENCODING) {
            spec.insert(ACCEPT_ENCODING)?;
        }
        if response.contains_key(CONTENT_LANGUAGE) && request.contains_key(ACCEPT_LANGUAGE) {
            spec.insert(ACCEPT_LANGUAGE)?;
        }
        Ok(spec)
    }

    fn insert(&mut self, name: HeaderName) -> Result<(), VaryStar> {
        match self.position(&name) {
            Ok(_) => Ok(()),
            Err(_) if self.names.len() == MAX_NAMES || name.as_str().len() > MAX_NAME_LEN => {
                Err(VaryStar)
            }
            Err(at) => {
                self.names.insert(at, name);
                Ok(())
            }
        }
    }

    fn position(&self, name: &HeaderName) -> Result<usize, usize> {
        self.names.binary_search_by(|known| known.as_str().cmp(name.as_str()))
    }

    /// The names that are wanted.
    #[must_use]
    pub fn retain(&self, wanted: impl Fn(&HeaderName) -> bool) -> Self {
        Self { names: self.names.iter().filter(|name| wanted(name)).cloned().collect() }
    }

    /// Whether the response varies on this header.
    #[must_use]
    pub fn covers(&self, name: &HeaderName) -> bool {
        self.position(name).is_ok()
    }

    /// Whether it varies on no header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, sorted and without duplicates.
    pub fn names(&self) -> std::slice::Iter<'_, HeaderName> {
        self.names.iter()
    }

    /// The stored form: the number of names, then each name after its length; every number is one
    /// byte.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            1 + self.names.iter().map(|name| 1 + name.as_str().len()).sum::<usize>(),
        );
        bytes.push(one_byte(self.names.len()));
        for name in &self.names {
            bytes.push(one_byte(name.as_str().len()));
            bytes.extend_from_slice(name.as_str().as_bytes());
        }
        bytes
    }

    /// Parses the stored form. Anything that [`Self::encode`] would not have written is `None`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (count, mut rest) = bytes.split_first()?;
        if usize::from(*count) > MAX_NAMES {
            return None;
        }
        let mut spec = Self { names: Vec::with_capacity(usize::from(*count)) };
        for _ in 0..*count {
            let (length, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(*length))?;
            rest = tail;
            let parsed = HeaderName::from_bytes(name).ok()?;
            let in_order = spec.names.last().is_none_or(|last| last.as_str() < parsed.as_str());
            if !in_order || parsed.as_str().as_bytes() != name || name == b"*" {
                return None;
            }
            spec.names.push(parsed);
        }
        rest.is_empty().then_some(spec)
    }
}

fn one_byte(length: usize) -> u8 {
    u8::try_from(length)
        .expect("insert admits at most MAX_NAMES names of at most MAX_NAME_LEN bytes")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn of(lines: &[&str]) -> Result<VarySpec, VaryStar> {
        let response = headers(&lines.iter().map(|line| (VARY, *line)).collect::<Vec<_>>());
        VarySpec::from_response(&HeaderMap::new(), &response)
    }

    fn names(spec: &VarySpec) -> Vec<&str> {
        spec.names().map(HeaderName::as_str).collect()
    }

    #[test]
    fn names_of_all_lines_are_sorted_lower_case_and_unique() {
        let spec = of(&["X-B , accept", "", "Accept,,a-a"]).unwrap();
        assert_eq!(names(&spec), ["a-a", "accept", "x-b"]);
        assert!(
            spec.covers(&HeaderName::from_static("x-b"))
                && !spec.covers(&HeaderName::from_static("x-c"))
        );
        assert!(
            of(&[]).unwrap().is_empty() && of(&[" , "]).unwrap().is_empty() && !spec.is_empty()
        );
    }

    #[test]
    fn a_star_anywhere_or_an_invalid_name_is_a_star() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo,  *"],
            &["foo bar"],
            &["a;q=1"],
            &["a: b"],
            &["\"a\""],
        ] {
            assert_eq!(of(lines), Err(VaryStar), "{lines:?}");
        }
    }

    #[test]
    fn too_many_or_too_long_names_are_a_star() {
        let many =
            |count: usize| (0..count).map(|at| format!("x-{at}")).collect::<Vec<_>>().join(", ");
        assert_eq!(of(&[&many(MAX_NAMES)]).unwrap().names().len(), MAX_NAMES);
        assert!(of(&[&many(MAX_NAMES), "X-0"]).is_ok(), "a repeated name is not one more");
        assert_eq!(of(&[&many(MAX_NAMES + 1)]), Err(VaryStar));
        assert!(of(&[&"n".repeat(MAX_NAME_LEN)]).is_ok());
        assert_eq!(of(&[&"n".repeat(MAX_NAME_LEN + 1)]), Err(VaryStar));
        let full = headers(&[(VARY, &many(MAX_NAMES)), (CONTENT_ENCODING, "gzip")]);
        assert_eq!(VarySpec::from_response(&HeaderMap::new(), &full), Err(VaryStar));
    }

    #[test]
    fn what_the_app_left_unsaid_is_added() {
        let (plain, german) = (HeaderMap::new(), headers(&[(ACCEPT_LANGUAGE, "de")]));
        let coded = headers(&[(CONTENT_ENCODING, "gzip")]);
        let translated = headers(&[(CONTENT_LANGUAGE, "de"), (VARY, "x-a")]);
        assert_eq!(names(&VarySpec::from_response(&plain, &coded).unwrap()), ["accept-encoding"]);
        assert_eq!(names(&VarySpec::from_response(&plain, &translated).unwrap()), ["x-a"]);
        assert_eq!(
            names(&VarySpec::from_response(&german, &translated).unwrap()),
            ["accept-language", "x-a"]
        );
        assert!(VarySpec::from_response(&german, &plain).unwrap().is_empty());
    }

    #[test]
    fn the_stored_form_stays_as_it_is() {
        assert_eq!(of(&["x-b, Accept"]).unwrap().encode(), b"\x02\x06accept\x03x-b");
        assert_eq!(VarySpec::default().encode(), b"\x00");
    }

    #[test]
    fn only_the_canonical_form_is_decoded() {
        let too_many: Vec<u8> =
            std::iter::once(17).chain((b'a'..=b'q').flat_map(|name| [1, name])).collect();
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x01\x00",
            b"\x01\x05acc",
            b"\x01\x03x-b!",
            b"\x02\x01b\x01a",
            b"\x02\x01a\x01a",
            b"\x01\x01A",
            b"\x01\x01*",
            b"\x01\x01 ",
            b"\x01\x01\xff",
            b"\x00\x00",
            &too_many,
        ] {
            assert_eq!(VarySpec::decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn encoding_round_trips(
            wanted in prop::collection::vec("[A-Za-z0-9-]{1,12}", 0..MAX_NAMES),
        ) {
            let spec = of(&[&wanted.join(",")]).unwrap();
            prop_assert_eq!(VarySpec::decode(&spec.encode()), Some(spec));
        }

        #[test]
        fn decoding_never_panics_and_is_the_inverse(
            bytes in prop::collection::vec(prop_oneof![0_u8..4, b'a'..b'd', any::<u8>()], 0..40),
        ) {
            if let Some(spec) = VarySpec::decode(&bytes) {
                prop_assert_eq!(spec.encode(), bytes);
            }
        }

        #[test]
        fn any_vary_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let spec = VarySpec::from_response(
                    &HeaderMap::new(),
                    &HeaderMap::from_iter([(VARY, value)]),
                );
                prop_assert!(
                    spec.is_ok_and(|spec| spec.names().len() <= MAX_NAMES)
                        || bytes.iter().any(|byte| *byte != b',')
                );
            }
        }
    }
}
