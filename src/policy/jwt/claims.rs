//! The claims of a token: JSON in which no member occurs twice, and the text of a value.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::MAX_CLAIM_BYTES;

/// A JSON value. A member that occurs twice, anywhere, makes the whole text unreadable: two readers
/// would take two values.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::policy) enum ClaimTree {
    Null,
    Bool(bool),
    /// A whole number that 64 bits hold.
    Integer(i128),
    /// Any other number. Its digits are lost, so that it is no value of a field.
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

/// The value of a claim, as keys and tags use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimValue {
    /// A string as it is; a number or a boolean as JSON writes it.
    pub text: Box<str>,
    /// Whether it is a string. `"1"` and `1` are two values in keys, and one in tags, where a value
    /// too many costs a miss.
    pub is_string: bool,
}

impl ClaimTree {
    /// Reads a text. Arrays and objects may be nested 127 deep.
    pub(in crate::policy) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number of seconds (RFC 7519 2, `NumericDate`).
    #[allow(clippy::cast_precision_loss, reason = "whole seconds far below 2^53")]
    pub(super) const fn as_seconds(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// What a JSON pointer (RFC 6901) leads to.
    pub(in crate::policy) fn at(&self, pointer: &str) -> Option<&Self> {
        let mut value = self;
        for part in pointer.strip_prefix('/')?.split('/') {
            value = match value {
                Self::Object(members) => {
                    members.get(&*part.replace("~1", "/").replace("~0", "~"))?
                }
                Self::List(list) => {
                    let index = part.parse::<usize>().ok();
                    list.get(index.filter(|index| index.to_string() == part)?)?
                }
                _ => return None,
            };
        }
        Some(value)
    }

    /// The value as a field has it. `None` for what is none: null, arrays, objects, numbers that
    /// are not whole or too large, and long strings.
    pub(in crate::policy) fn claim(&self) -> Option<ClaimValue> {
        let (text, is_string) = match self {
            Self::Text(text) if text.len() <= MAX_CLAIM_BYTES => (text.as_str().into(), true),
            Self::Integer(number) => (number.to_string().into(), false),
            Self::Bool(bool) => (bool.to_string().into(), false),
            _ => return None,
        };
        Some(ClaimValue { text, is_string })
    }
}

impl<'de> Deserialize<'de> for ClaimTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimTreeVisitor)
    }
}

struct ClaimTreeVisitor;

impl<'de> Visitor<'de> for ClaimTreeVisitor {
    type Value = ClaimTree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E>(self) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<ClaimTree, E> {
        Ok(ClaimTree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ClaimTree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(ClaimTree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ClaimTree, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = members.next_entry::<String, ClaimTree>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(ClaimTree::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(text: &str, pointer: &str) -> Option<(String, bool)> {
        let value = ClaimTree::parse(text.as_bytes()).expect("JSON").at(pointer)?.claim()?;
        Some((value.text.into(), value.is_string))
    }

    #[test]
    fn a_pointer_leads_to_one_plain_value_or_to_none() {
        let text = r#"{"a":"x","b":{"c/d":7,"e~f":true,"":"empty"},"l":["p",{"q":-3}],"n":null,
            "f":1.5,"big":18446744073709551616,"most":18446744073709551615,"z":""}"#;
        for (pointer, expected) in [
            ("/a", Some(("x", true))),
            ("/b/c~1d", Some(("7", false))),
            ("/b/e~0f", Some(("true", false))),
            ("/b/", Some(("empty", true))),
            ("/l/0", Some(("p", true))),
            ("/l/1/q", Some(("-3", false))),
            ("/most", Some(("18446744073709551615", false))),
            ("/z", Some(("", true))),
            ("/l/00", None),
            ("/l/+1", None),
            ("/l/-", None),
            ("/l/9", None),
            ("/l", None),
            ("/b", None),
            ("/n", None),
            ("/f", None),
            ("/big", None),
            ("/a/b", None),
            ("/missing", None),
            ("a", None),
            ("", None),
        ] {
            let expected = expected.map(|(text, is_string)| (text.to_owned(), is_string));
            assert_eq!(claim(text, pointer), expected, "{pointer}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_CLAIM_BYTES + 1));
        assert_eq!(claim(&long, "/a"), None, "a value has a limit");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":{"a":1,"a":1}}"#,
            r#"{"x":[{"a":1,"a":1}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1} {"b":2}"#,
            "{'a':1}",
            "",
        ] {
            assert_eq!(ClaimTree::parse(text.as_bytes()), None, "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(ClaimTree::parse(deep.as_bytes()), None, "the stack has a limit");
    }
}
