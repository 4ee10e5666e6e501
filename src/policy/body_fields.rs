//! The fields of a mutation's body: a JSON document or a form, read by JSON pointers in which `*`
//! stands for every element. Names count in any case, as for .NET and Go; those of forms in every
//! way that a framework might read them.
//!
//! Invariant: what is found is every value that the origin may read there. A name that a document
//! has twice gives both values, a number each way to write it. What is there and gives no value is
//! reported, so that nobody takes a part for the whole.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::policy::fold::fold;
use crate::policy::loose_parameters::{LooseParameter, LoosePlace, parameters};

/// From here on, a float does not tell one whole number from the next.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The fields of a mutation's body.
#[derive(Clone, Debug)]
pub struct BodyFields(BodyContent);

#[derive(Clone, Debug)]
enum BodyContent {
    Json(Json),
    /// The parameters of a form, by any reading.
    Form(Vec<LooseParameter<'static>>),
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
            // Some origins skip such a beginning, others take it for a part of the first name.
            let is_odd =
                body.starts_with(b"\xef\xbb\xbf") || body.first().is_some_and(u8::is_ascii_control);
            let form = || parameters(body).map(LooseParameter::into_owned).collect();
            return (!is_odd).then(|| Self(BodyContent::Form(form())));
        }
        None
    }

    /// Those of a body that was read and is empty.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(BodyContent::Form(Vec::new()))
    }

    /// Whether the body is known to hold nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(&self.0, BodyContent::Form(form) if form.is_empty())
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
        let path = pointer.split('/').skip(1);
        let path = path.map(|part| part.replace("~1", "/").replace("~0", "~"));
        match &self.0 {
            BodyContent::Json(document) => {
                let path: Vec<String> = path.map(|part| fold(&part).into_owned()).collect();
                document.collect(&path, &mut found);
            }
            BodyContent::Form(form) => {
                let path: Vec<String> = path.collect();
                for parameter in form {
                    found.add(parameter, &path);
                }
                found.is_missing |= found.values.is_empty();
            }
        }
        found
    }

    /// Whether there is something at a JSON pointer, be it `null` or an empty list.
    #[must_use]
    pub fn has(&self, pointer: &str) -> bool {
        let path = pointer.split('/').skip(1);
        let path: Vec<String> = path
            .map(|part| fold(&part.replace("~1", "/").replace("~0", "~")).into_owned())
            .collect();
        match &self.0 {
            BodyContent::Json(document) => document.has(&path),
            BodyContent::Form(_) => {
                let found = self.read(pointer);
                found.is_unreadable || !found.values.is_empty()
            }
        }
    }

    /// The names of the members of a JSON object; none of anything else.
    pub fn member_names(&self) -> impl Iterator<Item = &str> {
        let members = match &self.0 {
            BodyContent::Json(Json::Members(members)) => members.as_slice(),
            BodyContent::Json(_) | BodyContent::Form(_) => &[],
        };
        members.iter().map(|(name, _)| name.as_str())
    }

    /// The text, or the number as it is usually written, of this member of a JSON object, by its
    /// exact name.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<&str> {
        let BodyContent::Json(Json::Members(members)) = &self.0 else { return None };
        match members.iter().find(|(own, _)| own == name)? {
            (_, Json::Scalar(spellings)) => spellings.first().map(String::as_str),
            _ => None,
        }
    }

    /// The names of the members of this member of a JSON object, by its exact name.
    pub fn names_below(&self, name: &str) -> impl Iterator<Item = &str> {
        let members = match &self.0 {
            BodyContent::Json(Json::Members(members)) => members.as_slice(),
            BodyContent::Json(_) | BodyContent::Form(_) => &[],
        };
        let named = members.iter().filter(move |(own, _)| own == name);
        let below = named.flat_map(|(_, member)| match member {
            Json::Members(members) => members.as_slice(),
            _ => &[],
        });
        below.map(|(name, _)| name.as_str())
    }

    /// The parameters of a form; none of a JSON document.
    #[must_use]
    pub fn parameters(&self) -> &[LooseParameter<'static>] {
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

/// Each way to write a number, the usual one first; `None` if it is not known exactly.
pub(super) fn spellings(value: f64) -> Option<Vec<String>> {
    if value.abs() >= EXACT {
        return None;
    }
    // `-0` is written as `0` by others, in a URL above all.
    let value = if value == 0.0 { 0.0 } else { value };
    let text = serde_json::Number::from_f64(value)?.to_string();
    let whole = text.strip_suffix(".0").map(str::to_owned);
    Some([text].into_iter().chain(whole).collect())
}

impl BodyValues {
    fn add(&mut self, parameter: &LooseParameter<'_>, path: &[String]) {
        match parameter.place(path) {
            LoosePlace::Here if parameter.is_garbled => self.is_unreadable = true,
            LoosePlace::Here => self.values.extend(parameter.values().map(str::to_owned)),
            LoosePlace::Below => self.is_unreadable = true,
            LoosePlace::Above => self.is_missing = true,
            LoosePlace::Elsewhere => {}
        }
    }
}

impl Json {
    /// Whether there is something at a path, whose names are folded.
    fn has(&self, path: &[String]) -> bool {
        let Some((step, rest)) = path.split_first() else { return true };
        match self {
            Self::Members(members) => {
                let is_named = |name: &str| step == "*" || fold(name) == *step;
                members.iter().any(|(name, member)| is_named(name) && member.has(rest))
            }
            Self::List(elements) if step == "*" => {
                elements.is_empty() || elements.iter().any(|element| element.has(rest))
            }
            Self::List(elements) => {
                let element = step.parse().ok().and_then(|at: usize| elements.get(at));
                element.is_some_and(|element| element.has(rest))
            }
            Self::Null | Self::Scalar(_) | Self::Inexact => false,
        }
    }

    /// Adds what is at a path, whose names are folded.
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
                let is_named = |name: &str| step == "*" || fold(name) == *step;
                let mut named = members.iter().filter(|(name, _)| is_named(name)).peekable();
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
        Ok(spellings(value).map_or(Json::Inexact, Json::Scalar))
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

    fn owned(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn r1060_a_number_has_no_sign_where_it_is_zero() {
        for text in ["{\"a\":-0}", "{\"a\":-0.0}", "{\"a\":0}"] {
            assert!(json(text).every("/a").contains(&"0".to_owned()), "{text}");
            assert!(json(text).every("/a").iter().all(|value| !value.starts_with('-')), "{text}");
        }
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
        for (text, values, unreadable) in [
            ("ids[]=1&ids=2", &["1", "2"][..], false),
            ("ids=1&ids[]=2", &["1", "2"], false),
            ("ids[]=1;ids[]=2", &["1;ids[]=2", "1", "2"], false),
            ("ids[]=1&+ids[]=2", &["1", "2"], false),
            ("ids[]=1&IDS[]=2", &["1", "2"], false),
            ("ids[]=1&ids%00[]=2", &["1", "2"], false),
            ("ids[]=1&ids[0][x]=2", &["1"], true),
            ("ids[]=1&ids[]=%FF", &["1"], true),
            ("ids[]=1&ids[]=2%0D%0A", &["1", "2\r\n", "2"], false),
        ] {
            let found = form(text).read("/ids/*");
            assert_eq!(
                (&*found.values, found.is_unreadable),
                (&*owned(values), unreadable),
                "{text}"
            );
            assert!(!found.is_missing, "{text}");
        }
        let above = form("items[0][id]=1&items[1]=2").read("/items/*/id");
        assert!(above.is_missing && above.values == ["1"]);
        for odd in [&b"\xef\xbb\xbfid=1"[..], b"\r\nid=1"] {
            assert!(BodyFields::parse(FORM, odd).is_none());
        }
    }

    #[test]
    fn case_does_not_count_in_names() {
        assert_eq!(json(r#"{"ids":[1],"Ids":[2]}"#).every("/ids/*"), ["1", "2"]);
        assert_eq!(json(r#"{"A":{"ID":1}}"#).every("/a/Id"), ["1"]);
        assert_eq!(form("Campaign[ID]=1").every("/campaign/id"), ["1"]);
    }
}
