//! What a source is told, in one of three forms: the names of tags with white space between them; a
//! JSON object whose members fill the templates of the source; or a line with some of these
//! templates and, in the lines below it, the objects that fill them, as triggers of MySQL write.
//!
//! Among the names, `*` and an empty payload stand for everything that the source can name, and a
//! template as it is written for all of its tags.
//!
//! Invariant: a payload names tags of the source's templates alone, all that it holds or none.

use std::fmt;

use super::due::TemplateSet;
use crate::policy::body_fields::BodyFields;
use crate::policy::tag::Tag;
use crate::policy::template::{Template, ToldTags};
use crate::telemetry::log::printable;

/// The longest payload that is read, in bytes. A longer one stands for all families.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;

/// How much of a payload is shown, in bytes.
const MAX_SHOWN: usize = 100;

/// Stands for everything that the source can name.
const EVERYTHING: &str = "*";

/// What a payload purges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldPurge {
    pub(super) tags: Vec<Tag>,
    pub(super) families: TemplateSet,
}

impl ToldPurge {
    fn everything() -> Self {
        Self { tags: Vec::new(), families: TemplateSet::ALL }
    }
}

/// Why a payload purges nothing. The text is bounded, and safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadPayload {
    /// No template of the source renders this name.
    UnknownTag(String),
    /// It begins like a JSON object, and is none.
    Malformed(String),
    /// The object lacks a field of every template.
    LacksFields(String),
}

impl fmt::Display for BadPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTag(name) => write!(f, "`{name}` is no tag of `tags` of the source"),
            Self::Malformed(text) => write!(f, "`{text}` is no JSON object"),
            Self::LacksFields(text) => {
                write!(f, "`{text}` has not all fields of any of `tags` of the source")
            }
        }
    }
}

fn shown(text: &str) -> String {
    printable(text, MAX_SHOWN).into_owned()
}

/// What a payload purges, by the templates of its source.
pub(super) fn read(payload: &str, templates: &[Template]) -> Result<ToldPurge, BadPayload> {
    if payload.len() > MAX_PAYLOAD {
        return Ok(ToldPurge::everything());
    }
    if let Some((head, objects)) = payload.split_once('\n')
        && objects.starts_with("{\"")
        && let Some(named) = named_templates(head, templates)
    {
        return Ok(filled(&named, objects, templates));
    }
    match names(payload, templates) {
        Err(_) if payload.trim_start().starts_with('{') => object(payload, templates),
        read => read,
    }
}

fn names(payload: &str, templates: &[Template]) -> Result<ToldPurge, BadPayload> {
    let mut told = ToldPurge::default();
    let mut names = payload.split_ascii_whitespace().peekable();
    if names.peek().is_none() {
        return Ok(ToldPurge::everything());
    }
    for name in names {
        if name == EVERYTHING {
            told.families = TemplateSet::ALL;
        } else if let Some(at) = templates.iter().position(|template| template.as_str() == name) {
            if templates[at].fields().next().is_some() {
                told.families.insert(at);
            } else {
                told.tags.push(Tag::new(name));
            }
        } else if templates.iter().any(|template| template.may_render(name)) {
            told.tags.push(Tag::new(name));
        } else {
            return Err(BadPayload::UnknownTag(shown(name)));
        }
    }
    Ok(told)
}

/// What the body of a request purges, by the templates of its source: a form, or JSON.
pub(super) fn read_body(
    kind: &[u8],
    body: &[u8],
    templates: &[Template],
) -> Result<ToldPurge, BadPayload> {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_form = essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    let kind = if is_form { essence } else { &b"application/json"[..] };
    if !templates.iter().any(|template| template.fields().next().is_some()) {
        return Ok(ToldPurge::everything());
    }
    let text = || String::from_utf8_lossy(&body[..body.len().min(2 * MAX_SHOWN)]);
    match BodyFields::parse(kind, body) {
        Some(object) => {
            fill(&object, templates).ok_or_else(|| BadPayload::LacksFields(shown(&text())))
        }
        None => Err(BadPayload::Malformed(shown(&text()))),
    }
}

fn object(payload: &str, templates: &[Template]) -> Result<ToldPurge, BadPayload> {
    let Some(object) = BodyFields::parse(b"application/json", payload.trim().as_bytes()) else {
        return Err(BadPayload::Malformed(shown(payload)));
    };
    fill(&object, templates).ok_or_else(|| BadPayload::LacksFields(shown(payload)))
}

/// What an object purges; `None` if it has not all fields of any template.
fn fill(object: &BodyFields, templates: &[Template]) -> Option<ToldPurge> {
    let (mut told, mut is_about_any) = (ToldPurge::default(), false);
    for (at, template) in templates.iter().enumerate() {
        match template.told_tags(object) {
            ToldTags::Absent => continue,
            ToldTags::Tags(tags) => told.tags.extend(tags),
            ToldTags::Unread => told.families.insert(at),
        }
        // A template without fields is purged beside another one, and not by any object.
        is_about_any |= template.fields().any(|field| !field.is_optional);
    }
    is_about_any.then_some(told)
}

/// The places of the templates that a line names; `None` if it names anything else.
fn named_templates(head: &str, templates: &[Template]) -> Option<Vec<usize>> {
    let place = |name| templates.iter().position(|template| template.as_str() == name);
    head.split_ascii_whitespace().map(place).collect()
}

/// What objects make of these templates, which the triggers of a table name. What cannot be read is
/// not lost: it may be any of their tags.
fn filled(named: &[usize], objects: &str, templates: &[Template]) -> ToldPurge {
    let mut told = ToldPurge::default();
    for line in objects.lines() {
        let object = BodyFields::parse(b"application/json", line.as_bytes());
        for at in named {
            match object.as_ref().map(|object| templates[*at].told_tags(object)) {
                Some(ToldTags::Tags(tags)) => told.tags.extend(tags),
                Some(ToldTags::Absent | ToldTags::Unread) | None => told.families.insert(*at),
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::field::{Field, FieldSource};
    use crate::policy::template::pointer_to;

    fn templates() -> Vec<Template> {
        let resolve = |name: &str| {
            Some(Arc::new(Field::new(name, FieldSource::Body(pointer_to(name).into()))))
        };
        let parse = |text| Template::parse(text, &resolve).expect("a template");
        ["campaigns:{tenant_id}", "campaign:{id}", "all"].map(parse).into()
    }

    fn told(payload: &str) -> Result<(Vec<String>, u64), BadPayload> {
        read(payload, &templates()).map(|told| {
            let families = (0..64).filter(|at| told.families.contains(*at));
            (
                told.tags.iter().map(Tag::to_string).collect(),
                families.fold(0, |set, at| set | 1 << at),
            )
        })
    }

    fn tags(names: &[&str]) -> (Vec<String>, u64) {
        (names.iter().map(ToString::to_string).collect(), 0)
    }

    #[test]
    fn names_are_those_of_the_templates() {
        assert_eq!(told("campaigns:acme"), Ok(tags(&["campaigns:acme"])));
        assert_eq!(
            told(" campaigns:Acme\n campaign:7 all"),
            Ok(tags(&["campaigns:acme", "campaign:7", "all"]))
        );
        assert_eq!(told("campaign:{id} all"), Ok((vec!["all".to_owned()], 0b10)));
        assert_eq!(told("*"), Ok((Vec::new(), u64::MAX)));
        assert_eq!(told(""), Ok((Vec::new(), u64::MAX)));
        assert_eq!(told(&"x".repeat(MAX_PAYLOAD + 1)), Ok((Vec::new(), u64::MAX)));
    }

    #[test]
    fn an_object_fills_the_templates_whose_fields_it_has() {
        assert_eq!(told(r#"{"tenant_id": "acme"}"#), Ok(tags(&["campaigns:acme", "all"])));
        assert_eq!(
            told(r#"{"tenant_id": "a", "id": [7, 8]}"#),
            Ok(tags(&["campaigns:a", "campaign:7", "campaign:8", "all"]))
        );
        assert_eq!(told(r#"{"id": null}"#), Ok((vec!["all".to_owned()], 0b10)));
    }

    #[test]
    fn objects_fill_the_templates_above_them_and_no_others() {
        let both = "campaigns:{tenant_id} campaign:{id}\n";
        let row = |tenant: &str| format!("{{\"tenant_id\": \"{tenant}\", \"id\": \"7\"}}");
        let old_and_new = format!("{both}{}\n{}", row("a b"), row("b"));
        assert_eq!(
            told(&old_and_new),
            Ok(tags(&["campaigns:a%20b", "campaign:7", "campaigns:b", "campaign:7"]))
        );
        let one = "campaign:{id}\n{\"id\": \"campaigns:x\", \"tenant_id\": \"acme\"}";
        assert_eq!(told(one), Ok(tags(&["campaign:campaigns:x"])));
        // What has no value, or cannot be read, may be any of them.
        let (a, b) = (vec!["campaign:7".to_owned()], 0b01);
        let null = format!("{both}{{\"tenant_id\": null, \"id\": \"7\"}}");
        assert_eq!(told(&null), Ok((a.clone(), b)));
        assert_eq!(told(&format!("{both}{{\"id\": \"7\"}}")), Ok((a, b)));
        assert_eq!(told(&format!("{both}{{\"id\": \"7")), Ok((Vec::new(), 0b11)));
        assert_eq!(told("all\n{\"id\": 1}"), Ok(tags(&["all"])));
        assert!(told("users:{id}\n{\"id\": \"7\"}").is_err());
    }

    #[test]
    fn the_body_of_a_request_is_json_or_a_form_and_may_lie_deep() {
        let resolve = |name: &str| {
            let pointer = if name == "id" { "/data/*/id" } else { "/tenant" };
            Some(Arc::new(Field::new(name, FieldSource::Body(pointer.into()))))
        };
        let parse = |text| Template::parse(text, &resolve).expect("a template");
        let templates = ["item:{id}", "tenant:{tenant}"].map(parse);
        let told = |kind: &str, body: &str| {
            read_body(kind.as_bytes(), body.as_bytes(), &templates).map(|told| {
                let tags: Vec<String> = told.tags.iter().map(Tag::to_string).collect();
                (tags.join(" "), told.families.contains(0), told.families.contains(1))
            })
        };
        let json = "application/json; charset=utf-8";
        for (kind, body, expected) in [
            (json, r#"{"data": [{"id": 1}, {"id": "b c"}]}"#, ("item:1 item:b%20c", false, false)),
            ("", r#"{"data": [{"id": 1}]}"#, ("item:1", false, false)),
            (json, r#"{"data": [{"id": null}], "tenant": "x"}"#, ("tenant:x", true, false)),
            (json, r#"{"data": [], "tenant": null}"#, ("", true, true)),
            ("application/x-www-form-urlencoded", "tenant=a+b&x=1", ("tenant:a%20b", false, false)),
        ] {
            let (tags, first, second) = expected;
            assert_eq!(told(kind, body), Ok((tags.to_owned(), first, second)), "{body}");
        }
        for body in ["{}", "[1]", "7", r#"{"data": {"x": {"ids": 1}}}"#] {
            assert!(matches!(told(json, body), Err(BadPayload::LacksFields(_))), "{body}");
        }
        for body in ["", "item:1", "*", "{"] {
            assert!(matches!(told(json, body), Err(BadPayload::Malformed(_))), "{body}");
        }
        let plain = [Template::parse("all", &resolve).expect("a template")];
        assert_eq!(read_body(b"", b"x", &plain), Ok(ToldPurge::everything()));
    }

    #[test]
    fn a_payload_that_names_anything_else_purges_nothing() {
        let refused = [
            ("users:7", "`users:7` is no tag"),
            ("campaigns:acme users:7", "`users:7` is no tag"),
            ("campaigns:", "`campaigns:` is no tag"),
            ("{\"tenant_id\": ", "is no JSON object"),
            ("{\"tenant\": 1}", "has not all fields"),
            ("{}", "has not all fields"),
            ("[1]", "`[1]` is no tag"),
            ("\u{1b}[2J", "is no tag"),
        ];
        for (payload, expected) in refused {
            let why = told(payload).expect_err(payload).to_string();
            assert!(why.contains(expected) && !why.contains('\u{1b}'), "{payload}: {why}");
        }
        let long = told(&"y".repeat(5_000)).expect_err("no tag").to_string();
        assert!(long.len() < 300, "{long}");
    }
}
