//! Templates without a request: what a change that somebody else tells of purges, where the tags
//! are told by their names, or by a JSON object whose members are the fields.
//!
//! Invariant: a name that no template can render is none of its tags, so who tells of changes
//! purges nothing beyond the templates that the operator wrote.

use http::header::HeaderMap;

use crate::clock::Wall;
use crate::policy::body_fields::BodyFields;
use crate::policy::credential::CredentialRule;
use crate::policy::field::{AnsweredBody, FieldSource, FieldView};
use crate::policy::fold::fold;
use crate::policy::identity::RequestIdentity;
use crate::policy::jwt::RequestTokens;
use crate::policy::tag::Tag;
use crate::policy::template::{Template, TemplatePart, UnreadTemplate};
use crate::secret::Hasher;

/// What a JSON object makes of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldTags {
    /// The object lacks one of its fields: it is not about these tags.
    Absent,
    /// These tags.
    Tags(Vec<Tag>),
    /// A field is there and has no value that a tag is made of, or too many.
    Unread,
}

impl Template {
    /// The families of all entries that may have one of its tags; the tag itself where it has no
    /// fields.
    #[must_use]
    pub fn all_families<'a>(&self, routes: impl Iterator<Item = &'a Self>) -> Vec<Tag> {
        let first = self.parts.iter().enumerate().find_map(|(at, part)| match part {
            TemplatePart::Field(field) => Some((at, field)),
            TemplatePart::Text(_) => None,
        });
        let Some((at, field)) = first else { return vec![Tag::new(&self.text)] };
        let unread = UnreadTemplate {
            template: self,
            at,
            known: vec![self.lead().to_owned()],
            field: field.name.clone(),
            has_too_many: false,
            awaits_response: false,
            is_identity: false,
        };
        unread.families(routes)
    }

    /// Whether this name can be one of its tags, for some values of its fields.
    #[must_use]
    pub fn may_render(&self, name: &str) -> bool {
        let name = fold(name);
        // What of the name is left, and how many characters the fields before it take at least.
        let (mut rest, mut least, mut is_open) = (&*name, 0, false);
        for (at, part) in self.parts.iter().enumerate() {
            let text = match part {
                TemplatePart::Field(field) => {
                    (least, is_open) = (least + usize::from(!field.is_optional), true);
                    continue;
                }
                TemplatePart::Text(text) => fold(text),
            };
            let Some(skipped) =
                rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(least)
            else {
                return false;
            };
            let is_last = at + 1 == self.parts.len();
            let found = match (is_open, is_last) {
                (false, _) => rest.starts_with(&*text).then_some(0),
                // The last text is the end of the name, however often it stands before.
                (true, true) => rest[skipped..].ends_with(&*text).then(|| rest.len() - text.len()),
                (true, false) => rest[skipped..].find(&*text).map(|found| found + skipped),
            };
            let Some(found) = found else { return false };
            rest = &rest[found + text.len()..];
            (least, is_open) = (0, false);
        }
        if is_open { rest.chars().count() >= least } else { rest.is_empty() }
    }

    /// Its tags for the members of a JSON object, whose names are those of the fields.
    #[must_use]
    pub fn told_tags(&self, object: &BodyFields) -> ToldTags {
        let lacks = |field: &FieldSource, is_optional: bool| match field {
            FieldSource::Body(pointer) => !is_optional && !object.has(pointer),
            _ => true,
        };
        if self.fields().any(|field| lacks(&field.source, field.is_optional)) {
            return ToldTags::Absent;
        }
        let (headers, credential) = (HeaderMap::new(), CredentialRule::default());
        let view = FieldView {
            headers: &headers,
            host: "",
            query: "",
            captures: &[],
            client: None,
            body: Some(object),
            has_body: true,
            response: AnsweredBody::Unread,
            now: Wall::default(),
            sessions: &[],
            credential: &credential,
            hasher: &Hasher::default(),
            tokens: &RequestTokens::NONE,
            identity: &RequestIdentity::UNREAD,
        };
        self.purge_tags(&view).map_or(ToldTags::Unread, ToldTags::Tags)
    }
}

/// The pointer to a member of an object.
#[must_use]
pub fn pointer_to(member: &str) -> String {
    format!("/{}", member.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::field::Field;

    fn template(text: &str) -> Template {
        let resolve = |name: &str| {
            let (name, is_optional) = match name.strip_suffix('?') {
                Some(name) => (name, true),
                None => (name, false),
            };
            let source = FieldSource::Body(pointer_to(name).into());
            Some(Arc::new(Field { is_optional, ..Field::new(name, source) }))
        };
        Template::parse(text, &resolve).expect("a template")
    }

    #[test]
    fn a_name_is_a_tag_of_the_templates_that_can_render_it() {
        for (text, name) in [
            ("a", "a"),
            ("a", "A"),
            ("a:{x}", "a:7"),
            ("a:{x}", "A:ü"),
            ("a:{x}:b", "a:1:b:b"),
            ("a:{x}:b", "a::b:b"),
            ("a:{x?}", "a:"),
            ("{x}:{y}", "a:b"),
            ("{x}{y}", "ab"),
            ("a:{x}-{y}:c", "a:1-2:c"),
            ("campaign:{id}", "campaign:{id}"),
        ] {
            assert!(template(text).may_render(name), "{text} {name}");
        }
        for (text, name) in [
            ("a", "ab"),
            ("a", ""),
            ("a:{x}", "a:"),
            ("a:{x}", "b:7"),
            ("a:{x}:b", "a:b"),
            ("a:{x}:b", "a::b"),
            ("a:{x}:b", "a:1:c"),
            ("{x}{y}", "a"),
            ("{x}:{y}", ":b"),
            ("a:{x}-{y}:c", "a:1:c"),
            ("a:{x}", "campaigns:7"),
        ] {
            assert!(!template(text).may_render(name), "{text} {name}");
        }
    }

    #[test]
    fn the_members_of_an_object_are_the_fields() {
        let told = |text: &str, json: &str| {
            let object = BodyFields::parse(b"", json.as_bytes()).expect("JSON");
            template(text).told_tags(&object)
        };
        let tags = |names: &[&str]| ToldTags::Tags(names.iter().map(|n| Tag::new(n)).collect());
        assert_eq!(told("a:{t}", r#"{"t": "acme"}"#), tags(&["a:acme"]));
        assert_eq!(told("a:{t}", r#"{"T": 7, "x": 1}"#), tags(&["a:7"]));
        assert_eq!(told("a:{t}", r#"{"t": ["x", "y z"]}"#), tags(&["a:x", "a:y%20z"]));
        assert_eq!(told("a:{t}", r#"{"u": "acme"}"#), ToldTags::Absent);
        assert_eq!(told("a:{t}:{u}", r#"{"t": "acme"}"#), ToldTags::Absent);
        assert_eq!(told("a:{t}", r#"{"t": null}"#), ToldTags::Unread);
        assert_eq!(told("a:{t?}", "{}"), tags(&["a:"]));
        assert_eq!(told("a", "{}"), tags(&["a"]));
    }

    #[test]
    fn all_families_are_those_of_every_template_that_may_meet() {
        let routes = [template("a:{x}"), template("{y}"), template("b:{x}"), template("a")];
        let families = |text: &str| -> Vec<String> {
            let families = template(text).all_families(routes.iter());
            families.iter().map(Tag::to_string).collect()
        };
        let expected = ["family a:{}", "family {}", "origin family a:", "origin family sha256:"];
        assert_eq!(families("a:{x}"), expected);
        assert_eq!(families("a"), ["a"]);
    }
}
