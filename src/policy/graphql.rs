//! GraphQL over HTTP: which requests of an endpoint only read, and what the others write.
//!
//! `envelope` reads what a request names (a document, an operation, a hash), `document` the
//! document, `known` remembers documents that were seen and that only read, and `written` tells the
//! root fields of a mutation (`fields`).
//!
//! Invariants:
//! - A request is a read only if every server reads it as one: it names one document, in one way,
//!   and the operation that runs is a query. A hash stands for a document only if this process has
//!   seen the document and has computed the hash itself.
//! - In doubt a POST is a write, and so is a GET that may name a mutation.
//! - Time and memory are linear in what was sent, and bounded by [`document::MAX_TOKENS`] and
//!   [`document::MAX_DEPTH`].

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

use http::header::HeaderName;

pub use envelope::{GraphqlRequest, read_get, read_post};
pub use fields::WrittenFields;
pub use known::{KnownDocument, KnownDocuments};
pub use written::written_by;

mod document;
mod envelope;
mod fields;
mod known;
#[cfg(test)]
mod tests;
mod written;

/// The parameters of a request, in a URL and in a JSON body.
pub(crate) const PARAMETERS: [&str; 4] = ["query", "variables", "operationName", "extensions"];

/// Headers that GraphQL clients send and servers check. They are in the key, and reach the origin.
pub(crate) const CLIENT_HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("apollo-require-preflight"),
    HeaderName::from_static("graphql-require-preflight"),
    HeaderName::from_static("x-apollo-operation-name"),
    HeaderName::from_static("x-apollo-operation-id"),
    HeaderName::from_static("apollographql-client-name"),
    HeaderName::from_static("apollographql-client-version"),
];

/// Whether a JSON text is the answer to a query that went well: an object with `data`, and no
/// `errors`. Servers answer 200 where a part has failed, or the caller was refused.
#[must_use]
pub fn is_whole_answer(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = AnswerReader.deserialize(&mut json).and_then(|is_whole| {
        json.end()?;
        Ok(is_whole)
    });
    read.unwrap_or(false)
}

/// Reads the top of an answer, and skips the rest.
struct AnswerReader;

impl<'de> DeserializeSeed<'de> for AnswerReader {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AnswerReader {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer to a query")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<bool, A::Error> {
        let (mut has_data, mut is_clean) = (false, true);
        while let Some(name) = access.next_key::<String>()? {
            match name.as_str() {
                "data" => has_data = access.next_value_seed(Presence)? == Some(true),
                "errors" => is_clean &= access.next_value_seed(Presence)? == Some(false),
                // More parts follow, or another member stands for `errors`.
                "hasNext" | "incremental" | "pending" => {
                    access.next_value::<IgnoredAny>()?;
                    is_clean = false;
                }
                _ => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(has_data && is_clean)
    }
}

/// Whether a value says anything: `Some(false)` for `null` and for an empty list.
struct Presence;

impl<'de> DeserializeSeed<'de> for Presence {
    type Value = Option<bool>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Presence {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut has_any = false;
        while access.next_element::<IgnoredAny>()?.is_some() {
            has_any = true;
        }
        Ok(Some(has_any))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(true))
    }
}
