//! The fields of a mutation's body: a JSON document or a form, read by JSON pointers in which `*`
//! stands for every element.
//!
//! Invariant: what is found is every value that the origin may read there. A name that a document
//! has twice gives both values, a number each way to write it. What is there and gives no value is
//! reported, so that nobody takes a part for the whole.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// From here on, a float does not tell one whole number from the next.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The fields of a mutation's body.
#[derive(Clone, Debug)]
pub struct BodyFields(BodyContent);

#[derive(Clone, Debug)]
enum BodyContent {
    Json(Json),
    /// The parameters of a form.
    Form(Vec<(String, String)>),
}

/// A JSON document in which no member is lost.
#[derive(Clone, Debug)]
enum Json {
    Null,
    /// Each way to write it; the usual one first.
    Scalar(Vec<String>),
    /// A number that is not known exactly.
    Inexact,
    List(Vec<Json>),
    Members(Vec<(String, Json)>),
}

/// What a body holds at a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyValues {
    /// The values.
    pub values: Vec<String>,
    /// Whether there is nothing, or `null`, at one of the places that the pointer names.
    pub is_missing: bool,
    /// Whether there is something at one of them that is no value.
    pub is_unreadable: bool,
}

impl BodyFields {
    /// Reads a body by its media type. A body without a type, or of plain text, is tried as JSON.
    /// `None` if the body is neither JSON nor a form, or is malformed.
    #[must_use]
    pub fn parse(content_type: &[u8], body: &[u8]) -> Option<Self> {
        let essence = content_type.split(|&b| b == b';').next()?.trim_ascii().to_ascii_lowercase();
        let json =
            [&b"application/json"[..], b"text/json", b"text/plain", b""].contains(&&essence[..]);
        if json || essence.ends_with(b"+json") {
            // Some clients send a byte order mark first, which RFC 8259 allows parsers to ignore.
            let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
            return serde_json::from_slice(body).ok().map(|json| Self(BodyContent::Json(json)));
        }
        if essence == b"application/x-www-form-urlencoded" {
            let form = url::form_urlencoded::parse(body)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            return Some(Self(BodyContent::Form(form)));
        }
        None
    }

    /// Whether bodies of this media type, in lower case and without parameters, are read.
    #[must_use]
    pub fn reads(kind: &[u8]) -> bool {
        [&b"application/json"[..], b"text/json", b"text/plain"].contains(&kind)
            || kind.ends_with(b"+json")
            || kind == b"application/x-www-form-urlencoded"
    }

    /// What is at a JSON pointer, whose `*` stands for every element. A pointer that ends at a list
    /// stands for the elements of it. In a form: all parameters that frameworks map to that
    /// pointer.
    #[must_use]
    pub fn read(&self, pointer: &str) -> BodyValues {
        let mut found = BodyValues::default();
        match &self.0 {
            BodyContent::Json(document) => {
                let path: Vec<String> = pointer
                    .split('/')
                    .skip(1)
                    .map(|part| part.replace("~1", "/").replace("~0", "~"))
                    .collect();
                document.collect(&path, &mut found);
            }
            BodyContent::Form(form) => {
                let named = form.iter().filter(|(name, _)| is_form_name(name, pointer));
                found.values = named.map(|(_, value)| value.clone()).collect();
                found.is_missing = found.values.is_empty();
            }
        }
        found
    }

    /// The names of the members of a JSON object; none of anything else.
    pub fn member_names(&self) -> impl Iterator<Item = &str> {
        let members = match &self.0 {
            BodyContent::Json(Json::Members(members)) => members.as_slice(),
            BodyContent::Json(_) | BodyContent::Form(_) => &[],
        };
        members.iter().map(|(name, _)| name.as_str())
    }

    /// The parameters of a form; none of a JSON document.
    #[must_use]
    pub fn parameters(&self) -> &[(String, String)] {
        match &self.0 {
            BodyContent::Form(form) => form,
            BodyContent::Json(_) => &[],
        }
    }

    /// Every value at a JSON pointer.
    #[must_use]
    pub fn every(&self, pointer: &str) -> Vec<String> {
        self.read(pointer).values
    }
}

impl Json {
    fn collect(&self, path: &[String], found: &mut BodyValues) {
        match (path.split_first(), self) {
            (None, Self::Scalar(spellings)) => found.values.extend_from_slice(spellings),
            (None, Self::List(elements)) if !elements.is_empty() => {
                for element in elements {
                    match element {
                        Self::List(_) => found.is_unreadable = true,
                        element => element.collect(path, found),
                    }
                }
            }
            (None, Self::Inexact | Self::Members(_)) => found.is_unreadable = true,
            (Some((step, rest)), Self::Members(members)) => {
                let mut named =
                    members.iter().filter(|(name, _)| step == "*" || name == step).peekable();
                found.is_missing |= named.peek().is_none();
                for (_, member) in named {
                    member.collect(rest, found);
                }
            }
            (Some((step, rest)), Self::List(elements)) if step == "*" => {
                found.is_missing |= elements.is_empty();
                for element in elements {
                    element.collect(rest, found);
                }
            }
            (Some((step, rest)), Self::List(elements)) => {
                match step.parse().ok().and_then(|at: usize| elements.get(at)) {
                    Some(element) => element.collect(rest, found),
                    None => found.is_missing = true,
                }
            }
            // Nothing, an empty list, or no way further down.
            (None, Self::Null | Self::List(_))
            | (Some(_), Self::Null | Self::Scalar(_) | Self::Inexact) => found.is_missing = true,
        }
    }
}

/// Whether frameworks map a parameter of this name to this pointer. PHP and Rails write `/a/b` as
/// `a[b]`, others as `a.b`; an element of a list has an empty name, or its number, at the end.
fn is_form_name(name: &str, pointer: &str) -> bool {
    let plain = pointer.trim_start_matches('/');
    if name == plain {
        return true;
    }
    let bracketed = name.contains('[');
    let parts: Vec<&str> = if bracketed {
        name.split('[').map(|part| part.strip_suffix(']').unwrap_or(part)).collect()
    } else {
        name.split(['.', '/']).collect()
    };
    let path: Vec<&str> = plain.split('/').collect();
    let is_element = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    parts.len() >= path.len()
        && path.iter().zip(&parts).all(|(step, part)| step == part || *step == "*")
        && parts[path.len()..].iter().all(is_element)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(vec![value.to_string()]))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(vec![value.to_string()]))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(vec![value.to_string()]))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        if value.abs() >= EXACT {
            return Ok(Json::Inexact);
        }
        let text = serde_json::Number::from_f64(value).map(|number| number.to_string());
        let Some(text) = text else { return Ok(Json::Inexact) };
        let whole = text.strip_suffix(".0").map(str::to_owned);
        Ok(Json::Scalar([text].into_iter().chain(whole).collect()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"application/x-www-form-urlencoded";

    fn json(text: &str) -> BodyFields {
        BodyFields::parse(b"application/json", text.as_bytes()).expect("json")
    }

    fn form(text: &str) -> BodyFields {
        BodyFields::parse(FORM, text.as_bytes()).expect("a form")
    }

    #[test]
    fn bodies_are_read_by_their_type() {
        let typed = b"application/json; charset=utf-8";
        let body = BodyFields::parse(typed, br#"{"campaign":{"id":7,"n":null}}"#).expect("json");
        assert_eq!(body.every("/campaign/id"), ["7"]);
        assert!(body.read("/campaign/n").is_missing && body.read("/n").is_missing);
        assert_eq!(form("id=a+b&x=1").every("/id"), ["a b"]);
        assert!(BodyFields::parse(b"text/plain", b"id=1").is_none());
        assert_eq!(
            BodyFields::parse(b"", b"\xef\xbb\xbf{\"id\":9.0}").expect("json").every("/id"),
            ["9.0", "9"]
        );
        assert_eq!(form("campaign[id]=9&campaign[id]=10").every("/campaign/id"), ["9", "10"]);
        assert!(BodyFields::parse(b"application/json", b"{").is_none());
    }

    #[test]
    fn a_star_stands_for_every_element() {
        let whole = |values: &[&str]| BodyValues {
            values: values.iter().map(ToString::to_string).collect(),
            ..BodyValues::default()
        };
        assert_eq!(json(r#"{"ids":[1,2,"x"]}"#).read("/ids/*"), whole(&["1", "2", "x"]));
        assert_eq!(json(r#"{"ids":[1,2]}"#).read("/ids"), whole(&["1", "2"]), "a list's elements");
        assert_eq!(json("[1,2]").read("/*"), whole(&["1", "2"]));
        assert_eq!(json(r#"[{"id":1},{"id":2}]"#).read("/*/id"), whole(&["1", "2"]));
        assert_eq!(json(r#"{"a":{"id":1},"b":{"id":2}}"#).read("/*/id"), whole(&["1", "2"]));
        assert_eq!(json(r#"{"a":[[1],[2]]}"#).read("/a/*/*"), whole(&["1", "2"]));
        assert_eq!(json(r#"{"a":[5,6]}"#).read("/a/1"), whole(&["6"]));
    }

    #[test]
    fn a_part_is_never_taken_for_the_whole() {
        for (text, pointer, missing, unreadable) in [
            (r#"[{"id":1},{"name":"x"}]"#, "/*/id", true, false),
            (r#"[{"id":1},{"id":null}]"#, "/*/id", true, false),
            (r#"[{"id":1},{"id":{"n":2}}]"#, "/*/id", false, true),
            (r#"{"ids":[1,[2]]}"#, "/ids", false, true),
            (r#"{"ids":[1,{"id":2}]}"#, "/ids", false, true),
            (r#"[{"id":1},2]"#, "/*/id", true, false),
            (r#"{"ids":[]}"#, "/ids", true, false),
            (r#"{"ids":[]}"#, "/ids/*", true, false),
            (r#"{"id":123456789012345678901234567890}"#, "/id", false, true),
        ] {
            let found = json(text).read(pointer);
            assert_eq!((found.is_missing, found.is_unreadable), (missing, unreadable), "{text}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_gives_both_values() {
        assert_eq!(json(r#"{"id":1,"id":2}"#).every("/id"), ["1", "2"]);
        assert_eq!(json(r#"{"a":{"id":1},"a":{"id":2}}"#).every("/a/id"), ["1", "2"]);
    }

    #[test]
    fn forms_name_the_elements_of_lists() {
        assert_eq!(form("ids[]=1&ids[]=2").every("/ids"), ["1", "2"]);
        assert_eq!(form("ids[0]=1&ids[1]=2").every("/ids"), ["1", "2"]);
        assert_eq!(form("ids[]=1&ids[x]=2").every("/ids/*"), ["1", "2"]);
        assert_eq!(form("items[0][id]=1&items[1][id]=2&id=3").every("/items/*/id"), ["1", "2"]);
        assert_eq!(form("items.0.id=1&a/b=2").every("/items/*/id"), ["1"]);
        assert_eq!(form("a/b=2&a.b=3&a[b]=4&a[c]=5").every("/a/b"), ["2", "3", "4"]);
        assert_eq!(form("identity=1").every("/id"), Vec::<String>::new());
    }
}
