//! What a write to a GraphQL endpoint changes, by its request.

use http::Method;
use http::header::HeaderMap;

use crate::policy::body_fields::BodyFields;
use crate::policy::graphql::PARAMETERS;
use crate::policy::graphql::document::Document;
use crate::policy::graphql::envelope::{
    GraphqlRequest, is_plain_json, names_document, read_get, url_names_document,
};
use crate::policy::graphql::fields::WrittenFields;
use crate::policy::graphql::known::hash_of;
use crate::units::hex;

/// The root fields of the mutation in a write. `body` is what was read of its body; `None` if it
/// was not read whole.
#[must_use]
pub fn written_by(
    method: &Method,
    headers: &HeaderMap,
    query: &str,
    has_body: bool,
    body: Option<&BodyFields>,
) -> WrittenFields {
    match *method {
        Method::GET | Method::HEAD => match read_get(query, has_body, None) {
            GraphqlRequest::Write(fields) => fields,
            _ => WrittenFields::Unknown,
        },
        Method::POST => body
            .filter(|_| is_plain_json(headers))
            .and_then(|body| posted(query, body))
            .unwrap_or(WrittenFields::Unknown),
        _ => WrittenFields::Unknown,
    }
}

/// The same of a JSON body that names one document in one way.
fn posted(query: &str, body: &BodyFields) -> Option<WrittenFields> {
    let mut names: Vec<&str> = body.member_names().collect();
    names.sort_unstable();
    let is_odd = names.windows(2).any(|pair| pair[0] == pair[1])
        || names.iter().any(|name| !PARAMETERS.contains(name))
        || body
            .names_below("extensions")
            .any(|name| name != "persistedQuery" && names_document(name))
        || url_names_document(query, None);
    let text = body.scalar("query").filter(|_| !is_odd)?;
    let persisted = body.read("/extensions/persistedQuery/sha256Hash");
    let own = hex(&hash_of(text));
    if persisted.is_unreadable || persisted.values.iter().any(|hash| *hash != own) {
        return None;
    }
    Document::parse(text)?.written().cloned()
}
