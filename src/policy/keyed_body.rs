//! The body of a request as a part of its key, in the one form that the origin gets on a fill.
//!
//! Invariants:
//! - The form is a function of the route, the type and the bytes of the body, and the key has its
//!   digest: two requests with one key send the origin one body.
//! - Where the key names members of a JSON document, the form has no others.
//! - A body of which a tag cannot tell every value has no form: its entry would not be purged.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::outcome::{Outcome, Reason};
use crate::policy::body_fields::BodyFields;
use crate::policy::canonical_json::CanonicalJson;
use crate::policy::field::{Field, FieldSource};
use crate::policy::route::Route;
use crate::policy::template::Template;
use crate::units::short_hex;

/// How many values a field of a body may have in a tag: the spellings of one number, or the
/// elements of a short list.
const MAX_TAG_VALUES: usize = 8;

/// How many characters of a member `explain` shows.
const MAX_SHOWN: usize = 80;

/// A body, as far as it was read.
#[derive(Clone, Debug)]
pub enum SeenBody {
    /// All of it.
    Whole(Bytes),
    /// It is longer than `limits.read_body`, or there was no room for it.
    TooLarge,
    /// Trailers follow it.
    WithTrailers,
}

/// A body that is in the key.
#[derive(Clone, Debug)]
pub struct KeyedBody {
    /// As it came.
    pub sent: Bytes,
    /// As the origin gets it on a fill.
    pub canonical: Bytes,
    /// The digest of that, in the key.
    pub digest: [u8; 32],
}

/// What is read of a body in order to find a method or a field in it.
#[must_use]
pub fn fields_of(headers: &HeaderMap, bytes: &[u8]) -> Option<BodyFields> {
    if bytes.is_empty() {
        return Some(BodyFields::nothing());
    }
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    BodyFields::parse(kind, bytes)
}

/// The names that a JSON pointer leads along.
fn steps(pointer: &str) -> Vec<String> {
    let path = pointer.split('/').skip(1);
    path.map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

impl KeyedBody {
    /// What the key has of the body at this pointer, for `explain`.
    #[must_use]
    pub fn shown(&self, pointer: &str) -> String {
        if pointer.is_empty() {
            return format!("({} bytes, hash {})", self.canonical.len(), short_hex(&self.digest));
        }
        let document = CanonicalJson::parse(&self.canonical).ok();
        let found = document.as_ref().and_then(|document| document.at(&steps(pointer)));
        let Some(value) = found else { return String::from("(absent)") };
        String::from_utf8_lossy(&value.to_bytes()).chars().take(MAX_SHOWN).collect()
    }

    /// The body in the form that the key of this route holds.
    pub fn new(route: &Route, headers: &HeaderMap, sent: &Bytes) -> Result<Self, Outcome> {
        let is_whole = route.body_pointers().any(|(_, pointer)| pointer.is_empty());
        let canonical = if !sent.is_empty() && is_json(headers) {
            picked_json(route, sent)?
        } else if is_whole {
            sent.clone()
        } else if sent.is_empty() {
            match route.body_pointers().find(|(field, _)| !field.is_optional) {
                Some((field, _)) => return Err(missing(field)),
                None => Bytes::new(),
            }
        } else {
            return Err(Outcome::bypass_with(Reason::AmbiguousBody, "(no JSON)"));
        };
        let digest = Sha256::digest(&canonical).into();
        let body = Self { sent: sent.clone(), digest, canonical };
        body.check_tags(route, headers)?;
        Ok(body)
    }

    /// What the tags of its route read of it, if they read any of it. Made when it is needed: it
    /// takes many times the memory of the text.
    #[must_use]
    pub fn tag_fields(&self, route: &Route, headers: &HeaderMap) -> Option<BodyFields> {
        tag_pointers(route).next()?;
        fields_of(headers, &self.canonical)
    }

    /// An entry without a tag would not be purged, so a body of which not every value can be told
    /// has no entry.
    fn check_tags(&self, route: &Route, headers: &HeaderMap) -> Result<(), Outcome> {
        let fields = self.tag_fields(route, headers);
        for (field, pointer) in tag_pointers(route) {
            let found = fields.as_ref().map(|fields| fields.read(pointer));
            let is_told = found.is_some_and(|found| {
                let is_empty = found.is_missing || found.values.iter().any(String::is_empty);
                !found.is_unreadable
                    && found.values.len() <= MAX_TAG_VALUES
                    && (field.is_optional || !is_empty)
            });
            if !is_told {
                return Err(missing(field));
            }
        }
        Ok(())
    }
}

/// The fields of tags that read the body, with their pointers.
fn tag_pointers(route: &Route) -> impl Iterator<Item = (&Field, &str)> {
    let fields = route.spec.tags.iter().flat_map(Template::fields);
    fields.filter_map(|field| match &field.source {
        FieldSource::Body(pointer) => Some((&**field, &**pointer)),
        _ => None,
    })
}

fn missing(field: &Field) -> Outcome {
    Outcome::bypass_with(Reason::MissingField, Arc::clone(&field.name))
}

/// A JSON body in its one form, without what the key does not have.
fn picked_json(route: &Route, sent: &[u8]) -> Result<Bytes, Outcome> {
    let document = CanonicalJson::parse(sent)
        .map_err(|fault| Outcome::bypass_with(Reason::AmbiguousBody, fault.as_str()))?;
    let mut paths: Vec<Vec<String>> = Vec::new();
    for (field, pointer) in route.body_pointers() {
        let path = steps(pointer);
        if document.at(&path).is_some() {
            paths.push(path);
        } else if !field.is_optional {
            return Err(missing(field));
        }
    }
    let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    let text = match document.picked(&paths) {
        Some(picked) => picked.to_bytes(),
        None => b"{}".to_vec(),
    };
    Ok(text.into())
}

/// Whether a body is JSON in UTF-8 by its type. In another character set its text would reach the
/// origin as another one.
fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let line = line.as_bytes().to_ascii_lowercase();
    let mut parts = line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default();
    let is_json = [&b"application/json"[..], b"text/json"].contains(&kind)
        || kind.starts_with(b"application/") && kind.ends_with(b"+json");
    let is_utf8 = |parameter: &[u8]| {
        !parameter.starts_with(b"charset")
            || [&b"charset=utf-8"[..], b"charset=\"utf-8\"", b"charset=utf8"].contains(&parameter)
    };
    is_json && parts.all(is_utf8)
}
