//! What a request to a GraphQL endpoint names: a document or its hash, and an operation.
//!
//! SECURITY: servers differ in where they look for a document, and which of two wins. So a request
//! is read only if nothing else in it may name one: neither a further member or parameter, nor
//! another spelling of one, nor a hash that is not that of the document.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use crate::policy::canonical_json::CanonicalJson;
use crate::policy::graphql::PARAMETERS;
use crate::policy::graphql::document::{Document, DocumentUse, OperationName, use_of_queries};
use crate::policy::graphql::fields::WrittenFields;
use crate::policy::graphql::known::{DocumentHash, KnownDocument, KnownDocuments, hash_of};
use crate::policy::loose_parameters;
use crate::policy::request_target;

/// What a request to a GraphQL endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphqlRequest {
    /// A query, with the document to remember, if it has nothing but queries.
    Read(Option<KnownDocument>),
    /// It changes nothing, and its answer is not stored, for this cause.
    Pass(&'static str),
    /// It names a document by a hash that is not known.
    UnknownDocument,
    /// It changes data, or nobody can tell.
    Write(WrittenFields),
}

/// The members and parameters, besides [`PARAMETERS`], by which servers find a document, in lower
/// case and without what is neither a letter nor a digit.
const NAMING: [&str; 13] = [
    "id",
    "doc",
    "docid",
    "queryid",
    "queryhash",
    "operation",
    "operationid",
    "operationhash",
    "hash",
    "sha256",
    "sha256hash",
    "mutation",
    "query",
];

const DOUBT: GraphqlRequest = GraphqlRequest::Write(WrittenFields::Unknown);

/// Whether some server may find a document by a member or a parameter of this name.
pub(super) fn names_document(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    NAMING.contains(&&*plain) || plain.contains("persist") || plain.contains("document")
}

/// Whether the URL of a POST names anything that its body should. The same operation does not
/// count.
pub(super) fn url_names_document(query: &str, operation: Option<OperationName<'_>>) -> bool {
    let mut parameters = loose_parameters::parameters(query.as_bytes());
    parameters.any(|parameter| {
        let is_same = parameter.name == "operationName"
            && !parameter.is_garbled
            && operation == Some(OperationName::Named(&parameter.value));
        let is_ours = PARAMETERS.iter().any(|known| parameter.is_named(known));
        (is_ours && !is_same) || names_document(base(&parameter.name))
    })
}

/// A name without an index.
fn base(name: &str) -> &str {
    name.split(['[', '.']).next().unwrap_or_default()
}

/// Whether a body is JSON as it stands, by its one type, in UTF-8.
pub(super) fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let line = line.as_bytes().to_ascii_lowercase();
    let mut parts = line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let is_json = parts.next() == Some(b"application/json");
    let utf_8 = [&b"charset=utf-8"[..], b"charset=\"utf-8\"", b""];
    is_json && parts.all(|part| utf_8.contains(&part)) && !headers.contains_key(CONTENT_ENCODING)
}

/// Reads a POST, with the query of its URL.
#[must_use]
pub fn read_post(
    headers: &HeaderMap,
    query: &str,
    body: &[u8],
    known: Option<&KnownDocuments>,
) -> GraphqlRequest {
    if !is_plain_json(headers) {
        return DOUBT;
    }
    match CanonicalJson::parse(body) {
        Ok(CanonicalJson::Members(members)) => one(&members, query, known),
        Ok(CanonicalJson::List(elements)) => batch(&elements, query, known),
        _ => DOUBT,
    }
}

fn one(
    members: &[(Cow<'_, str>, CanonicalJson<'_>)],
    query: &str,
    known: Option<&KnownDocuments>,
) -> GraphqlRequest {
    match Envelope::of_members(members) {
        Some(envelope) if !url_names_document(query, Some(envelope.operation)) => {
            envelope.read(known)
        }
        _ => DOUBT,
    }
}

/// Several requests in one. Their answers come in one body, which is not stored.
fn batch(
    elements: &[CanonicalJson<'_>],
    query: &str,
    known: Option<&KnownDocuments>,
) -> GraphqlRequest {
    let mut written: Option<WrittenFields> = None;
    for element in elements {
        let CanonicalJson::Members(members) = element else { return DOUBT };
        match one(members, query, known) {
            GraphqlRequest::Read(_) | GraphqlRequest::Pass(_) => {}
            GraphqlRequest::UnknownDocument => return DOUBT,
            GraphqlRequest::Write(fields) => {
                written = Some(match written {
                    Some(others) => others.and(fields),
                    None => fields,
                });
            }
        }
    }
    match written {
        Some(fields) => GraphqlRequest::Write(fields),
        None if elements.is_empty() => DOUBT,
        None => GraphqlRequest::Pass("(batch)"),
    }
}

/// Reads a GET or HEAD.
#[must_use]
pub fn read_get(query: &str, has_body: bool, known: Option<&KnownDocuments>) -> GraphqlRequest {
    if has_body {
        return DOUBT;
    }
    let mut values: [Option<Cow<'_, str>>; 4] = Default::default();
    let mut has_other = false;
    for parameter in request_target::parameters(query) {
        let Some(parameter) = parameter else { return doubtful_url(query) };
        match PARAMETERS.iter().position(|name| *name == parameter.name) {
            Some(at) if values[at].is_some() => return doubtful_url(query),
            Some(at) => values[at] = Some(parameter.value),
            None => has_other |= url_names_document(parameter.raw, None),
        }
    }
    let [document, _, operation, extensions] = &values;
    let hash = match extensions.as_deref().map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match CanonicalJson::parse(text.as_bytes()) {
            Ok(extensions) => hash_in(&extensions),
            Err(_) => Err(OddExtensions),
        },
    };
    let document = document.as_deref().filter(|text| !text.trim().is_empty());
    match (document, hash) {
        (None, Ok(None)) if has_other => GraphqlRequest::UnknownDocument,
        (None, Ok(None)) => GraphqlRequest::Pass("(no document)"),
        (None, Err(OddExtensions)) => GraphqlRequest::UnknownDocument,
        (_, Err(OddExtensions)) => DOUBT,
        _ if has_other => DOUBT,
        (document, Ok(hash)) => {
            let operation = match operation.as_deref() {
                None => OperationName::Absent,
                Some("") => OperationName::Odd,
                Some(name) => OperationName::Named(name),
            };
            Envelope { document, operation, hash }.read(known)
        }
    }
}

/// A URL that can be read in several ways: a write, if it names a document by any of them.
fn doubtful_url(query: &str) -> GraphqlRequest {
    if url_names_document(query, None) { DOUBT } else { GraphqlRequest::Pass("(no document)") }
}

/// What a request names.
struct Envelope<'a> {
    document: Option<&'a str>,
    operation: OperationName<'a>,
    hash: Option<DocumentHash>,
}

impl<'a> Envelope<'a> {
    /// Of a JSON object; `None` if it may name more.
    fn of_members(members: &'a [(Cow<'_, str>, CanonicalJson<'_>)]) -> Option<Self> {
        let mut envelope = Self { document: None, operation: OperationName::Absent, hash: None };
        for (name, value) in members {
            match (&**name, value) {
                ("variables", _)
                | ("query" | "operationName" | "extensions", CanonicalJson::Plain("null")) => {}
                ("query", CanonicalJson::Text(text)) => envelope.document = Some(text),
                ("operationName", CanonicalJson::Text(name)) if name.is_empty() => {
                    envelope.operation = OperationName::Odd;
                }
                ("operationName", CanonicalJson::Text(name)) => {
                    envelope.operation = OperationName::Named(name);
                }
                ("operationName", _) => envelope.operation = OperationName::Odd,
                ("extensions", extensions) => envelope.hash = hash_in(extensions).ok()?,
                _ => return None,
            }
        }
        Some(envelope)
    }

    fn read(self, known: Option<&KnownDocuments>) -> GraphqlRequest {
        let known_as = |hash: &DocumentHash| known.and_then(|known| known.get(hash));
        let Some(text) = self.document.filter(|text| !text.is_empty()) else {
            let Some(hash) = self.hash else { return DOUBT };
            return match known_as(&hash) {
                Some(document) => self.of_queries(document),
                None => GraphqlRequest::UnknownDocument,
            };
        };
        let hash = hash_of(text);
        if let Some(stated) = self.hash.filter(|stated| *stated != hash) {
            // SECURITY: a server that checks no hash runs this document for it from now on.
            if let Some(known) = known {
                known.forget(&stated);
            }
            return DOUBT;
        }
        if let Some(document) = known_as(&hash) {
            return self.of_queries(document);
        }
        let Some(document) = Document::parse(text) else { return DOUBT };
        match document.used_as(self.operation) {
            DocumentUse::Read => {
                let is_single = document.only_reads();
                GraphqlRequest::Read(is_single.map(|is_single| KnownDocument { hash, is_single }))
            }
            DocumentUse::Pass(cause) => GraphqlRequest::Pass(cause),
            DocumentUse::Write(fields) => GraphqlRequest::Write(fields),
        }
    }

    fn of_queries(&self, document: KnownDocument) -> GraphqlRequest {
        match use_of_queries(document.is_single, self.operation) {
            DocumentUse::Pass(cause) => GraphqlRequest::Pass(cause),
            _ => GraphqlRequest::Read(Some(document)),
        }
    }
}

/// The `extensions` may name a document in another way.
struct OddExtensions;

/// The hash in `extensions`, if there is one.
fn hash_in(extensions: &CanonicalJson<'_>) -> Result<Option<DocumentHash>, OddExtensions> {
    let members = match extensions {
        CanonicalJson::Members(members) => &members[..],
        CanonicalJson::Plain("null") => &[],
        _ => return Err(OddExtensions),
    };
    let mut hash = None;
    for (name, value) in members {
        match (&**name, value) {
            ("persistedQuery", CanonicalJson::Members(persisted)) => {
                hash = Some(persisted_hash(persisted).ok_or(OddExtensions)?);
            }
            (name, _) if names_document(name) => return Err(OddExtensions),
            _ => {}
        }
    }
    Ok(hash)
}

fn persisted_hash(members: &[(Cow<'_, str>, CanonicalJson<'_>)]) -> Option<DocumentHash> {
    let mut found = None;
    for (name, value) in members {
        match (&**name, value) {
            ("version", CanonicalJson::Plain("1")) => {}
            ("sha256Hash", CanonicalJson::Text(text)) => found = Some(unhexed(text)?),
            _ => return None,
        }
    }
    found
}

/// 64 digits in lower case, as bytes.
fn unhexed(text: &str) -> Option<DocumentHash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = DocumentHash::default();
    let digits = text.as_bytes();
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}
