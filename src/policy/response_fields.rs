//! The fields of a response's JSON body, by which tags name what it shows: JSON pointers in which
//! `*` stands for every element of a list, and for every member of an object.
//!
//! Reads the text once for each pointer and keeps nothing but the values there: an app's response
//! may be long. Names and values count as in the bodies of writes ([`BodyFields`]), so that the tag
//! of an entry is that of the write which changes it.
//!
//! Invariant: what is found is every value at the pointer. What is there and gives no value is
//! reported, so that nobody takes a part for the whole.
//!
//! [`BodyFields`]: crate::policy::body_fields::BodyFields

use std::fmt;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::policy::body_fields::spellings;
use crate::policy::fold::fold;

/// What a response holds at a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is found on its own")]
pub struct ResponseValues {
    /// The values. A number with two spellings gives both.
    pub values: Vec<String>,
    /// Whether there is nothing, `null` or an empty text at one of the places that the pointer
    /// names.
    pub is_missing: bool,
    /// Whether a list on the way is empty, which is a place without values.
    pub has_empty_list: bool,
    /// Whether there is something at one of the places that is no value.
    pub is_unreadable: bool,
    /// Whether there are more values than were asked for.
    pub has_too_many: bool,
}

/// Whether the body of a response with this head is JSON text as it stands.
#[must_use]
pub fn is_plain_json(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let is_coded = codings
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .any(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(media_type), None, false) = (types.next(), types.next(), is_coded) else {
        return false;
    };
    let essence = media_type.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    [&b"application/json"[..], b"text/json"].contains(&&*essence) || essence.ends_with(b"+json")
}

/// The values at a JSON pointer, at most so many; `None` if the body is no JSON.
#[must_use]
pub fn read(body: &[u8], pointer: &str, most: usize) -> Option<ResponseValues> {
    let path = pointer.split('/').skip(1);
    let path: Vec<String> =
        path.map(|part| fold(&part.replace("~1", "/").replace("~0", "~")).into_owned()).collect();
    let mut found = ResponseValues::default();
    // RFC 8259 8.1: a byte order mark may be ignored.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let place = PointerReader { path: &path, in_list: false, most, found: &mut found };
    let read = place.deserialize(&mut json).and_then(|()| json.end());
    (read.is_ok() || found.has_too_many).then_some(found)
}

/// A place in a document, with the way from it to what is looked for.
struct PointerReader<'a> {
    /// The names on the way, folded.
    path: &'a [String],
    /// Whether it is an element of the list that the pointer ends at.
    in_list: bool,
    most: usize,
    found: &'a mut ResponseValues,
}

impl PointerReader<'_> {
    /// The place further down.
    fn below<'a>(&'a mut self, path: &'a [String], in_list: bool) -> PointerReader<'a> {
        PointerReader { path, in_list, most: self.most, found: self.found }
    }

    fn add<E: Error>(self, values: impl IntoIterator<Item = String>) -> Result<(), E> {
        if !self.path.is_empty() {
            self.found.is_missing = true;
            return Ok(());
        }
        for value in values {
            if self.found.values.len() >= self.most {
                self.found.has_too_many = true;
                return Err(E::custom("too many values"));
            }
            self.found.is_missing |= value.is_empty();
            self.found.values.push(value);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for PointerReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PointerReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.found.is_missing = true;
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.add([value.to_string()])
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.add([value.to_string()])
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.add([value.to_string()])
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match spellings(value) {
            Some(spellings) => self.add(spellings),
            None if self.path.is_empty() => {
                self.found.is_unreadable = true;
                Ok(())
            }
            None => self.visit_unit(),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.add([value.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        let path = self.path;
        let is_whole = path.first().is_none_or(|step| step == "*");
        // The element of a list of lists is no value.
        self.found.is_unreadable |= path.is_empty() && self.in_list;
        if is_whole && !(path.is_empty() && self.in_list) {
            let below = path.get(1..).unwrap_or_default();
            let mut count = 0;
            while access.next_element_seed(self.below(below, path.is_empty()))?.is_some() {
                count += 1;
            }
            self.found.has_empty_list |= count == 0;
            return Ok(());
        }
        let wanted = path.first().and_then(|step| step.parse::<usize>().ok());
        let (mut at, mut is_there) = (0, path.is_empty());
        loop {
            let more = if wanted == Some(at) {
                is_there = true;
                access.next_element_seed(self.below(&path[1..], false))?.is_some()
            } else {
                access.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                self.found.is_missing |= !is_there || wanted.is_some_and(|wanted| wanted >= at);
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        let path = self.path;
        self.found.is_unreadable |= path.is_empty();
        let mut is_there = path.is_empty();
        while let Some(is_named) = access.next_key_seed(MemberName(path.first()))? {
            if is_named {
                is_there = true;
                access.next_value_seed(self.below(&path[1..], false))?;
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        self.found.is_missing |= !is_there;
        Ok(())
    }
}

/// Whether the name of a member is this one, in any case, or every one.
struct MemberName<'a>(Option<&'a String>);

impl<'de> DeserializeSeed<'de> for MemberName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(self.0.is_some_and(|step| step == "*" || fold(name) == **step))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::body_fields::BodyFields;

    const MOST: usize = 100;

    fn found(text: &str, pointer: &str) -> ResponseValues {
        read(text.as_bytes(), pointer, MOST).expect("JSON")
    }

    #[test]
    fn values_are_found_below_lists_and_members() {
        for (text, pointer, values) in [
            (r#"{"items":[{"id":1},{"id":"b"}]}"#, "/items/*/id", &["1", "b"][..]),
            (r#"{"ids":[1,2]}"#, "/ids", &["1", "2"]),
            (r#"{"ids":[1,2]}"#, "/ids/*", &["1", "2"]),
            (r#"[{"id":1},{"id":2}]"#, "/*/id", &["1", "2"]),
            (r#"{"a":{"id":1},"b":{"id":2}}"#, "/*/id", &["1", "2"]),
            (r#"{"a":[5,6]}"#, "/a/1", &["6"]),
            (r#"{"A":{"ID":true}}"#, "/a/Id", &["true"]),
            (r#"{"id":9.0}"#, "/id", &["9.0", "9"]),
            (r#"{"a/b":{"~":1}}"#, "/a~1b/~0", &["1"]),
            (r#"{"id":1,"id":2}"#, "/id", &["1", "2"]),
            ("\u{feff}{\"id\":1}", "/id", &["1"]),
        ] {
            let whole = ResponseValues {
                values: values.iter().map(ToString::to_string).collect(),
                ..ResponseValues::default()
            };
            assert_eq!(found(text, pointer), whole, "{text} {pointer}");
        }
    }

    #[test]
    fn a_part_is_never_taken_for_the_whole() {
        for (text, pointer, missing, unreadable, empty) in [
            (r#"[{"id":1},{"name":"x"}]"#, "/*/id", true, false, false),
            (r#"[{"id":1},{"id":null}]"#, "/*/id", true, false, false),
            (r#"[{"id":1},{"id":""}]"#, "/*/id", true, false, false),
            (r#"[{"id":1},{"id":{"n":2}}]"#, "/*/id", false, true, false),
            (r#"[{"id":1},2]"#, "/*/id", true, false, false),
            (r#"{"ids":[1,[2]]}"#, "/ids", false, true, false),
            (r#"{"ids":[1,{"id":2}]}"#, "/ids", false, true, false),
            (r#"{"ids":[]}"#, "/ids", false, false, true),
            (r#"{"ids":[]}"#, "/ids/*/id", false, false, true),
            (r#"{"ids":[1]}"#, "/ids/1", true, false, false),
            (r#"{"ids":[1]}"#, "/ids/x", true, false, false),
            (r#"{"id":123456789012345678901234567890}"#, "/id", false, true, false),
            (r#"{"id":123456789012345678901234567890}"#, "/id/x", true, false, false),
            ("{}", "/id", true, false, false),
            ("7", "/id", true, false, false),
        ] {
            let found = found(text, pointer);
            let flags = (found.is_missing, found.is_unreadable, found.has_empty_list);
            assert_eq!(flags, (missing, unreadable, empty), "{text} {pointer}");
        }
    }

    #[test]
    fn what_is_no_json_gives_nothing_and_too_many_values_end_the_reading() {
        for text in ["", "{", "{\"id\":1} x", "<html>", "{\"id\":1}{\"id\":2}"] {
            assert_eq!(read(text.as_bytes(), "/id", MOST), None, "{text}");
        }
        assert_eq!(read(b"{\"id\":\"\xff\"}", "/id", MOST), None);
        let most = read(b"[1,2,3]", "/*", 2).expect("JSON");
        assert!(most.has_too_many && most.values.len() == 2);
        assert!(!read(b"[1,2]", "/*", 2).expect("JSON").has_too_many);
        let deep = "[".repeat(100_000);
        assert_eq!(read(deep.as_bytes(), "/*", MOST), None);
    }

    #[test]
    fn only_plain_json_is_read() {
        let plain = |kind: &'static str, coding: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(coding) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            is_plain_json(&headers)
        };
        for kind in ["application/json", "Application/HAL+JSON; charset=utf-8", "text/json"] {
            assert!(plain(kind, None) && plain(kind, Some("identity")), "{kind}");
            assert!(!plain(kind, Some("gzip")) && !plain(kind, Some("identity, br")), "{kind}");
        }
        assert!(!plain("text/html", None) && !plain("text/plain", None));
        assert!(!is_plain_json(&HeaderMap::new()));
        let twice = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut twice = HeaderMap::from_iter(twice);
        twice.append(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        assert!(!is_plain_json(&twice));
    }

    proptest! {
        /// The tag of an entry and that of a write are made of the same values.
        #[test]
        fn responses_are_read_like_the_bodies_of_writes(
            text in concat!(
                r#"(\{("(a|B|id)":)?)?(\[|\{"id":)?"#,
                r#"(1|"x"|null|2\.0|\[1,2\]|\{"id":3\})(,4)?(\]|\})?\}?"#,
            ),
            pointer in "(/(a|b|id|\\*|0)){1,3}",
        ) {
            let write = BodyFields::parse(b"application/json", text.as_bytes());
            let entry = read(text.as_bytes(), &pointer, MOST);
            prop_assert_eq!(write.is_some(), entry.is_some(), "{}", text);
            if let (Some(write), Some(entry)) = (write, entry) {
                let write = write.read(&pointer);
                prop_assert_eq!(&write.values, &entry.values);
                prop_assert_eq!(write.is_unreadable, entry.is_unreadable);
                let is_missing = entry.is_missing || entry.has_empty_list;
                prop_assert_eq!(write.is_missing, is_missing);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            pointer in "(/[a-z0-9*]{0,3}){1,4}",
        ) {
            let _ = read(&bytes, &pointer, MOST);
        }
    }
}
