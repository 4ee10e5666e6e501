//! What the origin says of a caller: the values that fields read, and nothing else of it.

use std::sync::Arc;

use crate::policy::jwt::{ClaimTree, ClaimValue};

/// The longest answer that is read, in bytes.
pub const MAX_IDENTITY_BYTES: usize = 64 * 1024;

/// The values of an answer by their pointers, in order. None where the answer has no single value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityAnswer(Box<[(Arc<str>, Option<ClaimValue>)]>);

impl IdentityAnswer {
    /// Reads the body of an answer. `None` if it is no JSON, or if a member of it occurs twice.
    #[must_use]
    pub fn parse(body: &[u8], pointers: &[Arc<str>]) -> Option<Self> {
        let tree = ClaimTree::parse(body)?;
        let value =
            |pointer: &Arc<str>| (Arc::clone(pointer), tree.at(pointer).and_then(ClaimTree::claim));
        Some(Self(pointers.iter().map(value).collect()))
    }

    /// An answer with these strings.
    #[must_use]
    pub fn from_texts<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let value = |text: &str| Some(ClaimValue { text: text.into(), is_string: true });
        Self(texts.map(|(pointer, text)| (pointer.into(), value(text))).collect())
    }

    /// The value that a pointer leads to, if it is a string, a whole number or a boolean.
    #[must_use]
    pub fn value(&self, pointer: &str) -> Option<&ClaimValue> {
        let found = self.0.iter().find(|(own, _)| **own == *pointer);
        found.and_then(|(_, value)| value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(body: &str, pointer: &str) -> Option<(String, bool)> {
        let answer = IdentityAnswer::parse(body.as_bytes(), &[pointer.into()])?;
        answer.value(pointer).map(|value| (value.text.to_string(), value.is_string))
    }

    #[test]
    fn a_value_is_a_single_one_that_has_one_reading() {
        for (body, found) in [
            (r#"{"tenant":{"id":"acme"}}"#, Some(("acme", true))),
            (r#"{"tenant":{"id":7}}"#, Some(("7", false))),
            (r#"{"tenant":{"id":true}}"#, Some(("true", false))),
            (r#"{"tenant":{"id":""}}"#, Some(("", true))),
            (r#"{"tenant":{"id":null}}"#, None),
            (r#"{"tenant":{"id":7.5}}"#, None),
            (r#"{"tenant":{"id":["acme"]}}"#, None),
            (r#"{"tenant":{"id":{"a":1}}}"#, None),
            (r#"{"tenant":"acme"}"#, None),
            ("{}", None),
            ("[]", None),
        ] {
            let found = found.map(|(text, is_string)| (text.to_owned(), is_string));
            assert_eq!(value(body, "/tenant/id"), found, "{body}");
        }
    }

    #[test]
    fn what_is_no_json_or_can_be_read_twice_is_no_answer() {
        for body in [
            "",
            "<html>",
            r#"{"tenant":{"id":"a"}"#,
            r#"{"tenant":{"id":"a"}} x"#,
            r#"{"tenant":{"id":"a"},"tenant":{"id":"b"}}"#,
            r#"{"tenant":{"id":"a","id":"b"}}"#,
            r#"{"x":{"a":1,"a":1},"tenant":{"id":"a"}}"#,
        ] {
            assert!(IdentityAnswer::parse(body.as_bytes(), &["/tenant/id".into()]).is_none());
        }
    }
}
