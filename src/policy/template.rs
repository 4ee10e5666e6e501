//! Templates of tags: text with fields in braces, such as `campaigns:{tenant}`. They render the
//! tags of an entry, and those that a mutation purges.
//!
//! Invariant: an entry carries, for each field of its templates, the family in which this field and
//! those after it are not told. So a mutation that can tell the values up to some field, and not
//! that field's, purges one family, and nothing is left out.

use std::sync::Arc;

use crate::error::Malformed;
use crate::policy::caller;
use crate::policy::field::{Field, FieldSource, FieldView};
use crate::policy::fold::fold;
use crate::policy::tag;
use crate::policy::tag::Tag;

pub use crate::policy::template::filled::FilledTemplate;
pub use crate::policy::template::told::{ToldTags, pointer_to};

mod filled;
mod told;

/// Text with fields in braces, such as `campaigns:{tenant}`.
#[derive(Clone, Debug)]
pub struct Template {
    text: Arc<str>,
    parts: Arc<[TemplatePart]>,
}

#[derive(Clone, Debug)]
enum TemplatePart {
    Text(Box<str>),
    Field(Arc<Field>),
}

impl Template {
    /// Reads a template, looking its fields up by name.
    pub fn parse(
        text: &str,
        resolve: &dyn Fn(&str) -> Option<Arc<Field>>,
    ) -> Result<Self, Malformed> {
        let hint = "write a tag as text with fields in braces, such as \"campaigns:{tenant}\"";
        if text.is_empty() {
            return Err(Malformed::new("a tag is empty", hint));
        }
        if text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
            return Err(Malformed::new(
                format!("the tag {text:?} contains white space"),
                "tags are separated by spaces in Surrogate-Key, so use another character",
            ));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if rest.as_bytes()[at] == b'}' {
                return Err(Malformed::new(
                    format!("the tag {text:?} has a `}}` without its `{{`"),
                    hint,
                ));
            }
            if at > 0 {
                parts.push(TemplatePart::Text(rest[..at].into()));
            }
            let Some(end) = rest[at..].find('}') else {
                return Err(Malformed::new(
                    format!("the tag {text:?} has a `{{` without its `}}`"),
                    hint,
                ));
            };
            let name = &rest[at + 1..at + end];
            let field = resolve(name).ok_or_else(|| {
                Malformed::new(
                    format!("the tag {text:?} names the field {name:?}, which nothing defines"),
                    format!(
                        "define it in [fields], as in `{name} = {{ header = \"x-{name}\" }}`, \
                        or capture it in the path as {{{name}}}"
                    ),
                )
            })?;
            parts.push(TemplatePart::Field(field));
            rest = &rest[at + end + 1..];
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.into()));
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The template in the form in which tags are compared, with this text for each field.
    #[must_use]
    pub fn shape(&self, field: &str) -> String {
        let parts = self.parts.iter().map(|part| match part {
            TemplatePart::Text(text) => fold(text),
            TemplatePart::Field(_) => field.into(),
        });
        parts.collect()
    }

    /// The fields it reads.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Field(field) => Some(field),
            TemplatePart::Text(_) => None,
        })
    }

    /// The tags that this gives an entry, and their families. A field that the request lacks ends
    /// the template: such a request has no entry. One that the response has ends it, too: its
    /// family is told, and [`Template::filled`] tells the rest.
    pub fn entry_tags(&self, view: &FieldView<'_>, tags: &mut Vec<Tag>) {
        let mut names = vec![String::with_capacity(self.text.len() + 16)];
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                TemplatePart::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                TemplatePart::Field(field) => {
                    tags.extend(names.iter().map(|known| self.family(known, at)));
                    if field.source == FieldSource::Caller {
                        names = longer(&names, &view.caller_names());
                    } else if matches!(field.source, FieldSource::Response(_)) {
                        return;
                    } else if let FieldSource::Body(_) = field.source {
                        // Each way to write a number; that there are few was seen before.
                        names = longer(&names, &field.every_value(view).unwrap_or_default());
                    } else if let Ok(value) = field.value(view) {
                        names = longer(&names, &[value.unwrap_or_default()]);
                    } else {
                        return;
                    }
                }
            }
        }
        tags.extend(names.iter().map(|name| Tag::new(name)));
    }

    /// Every tag that a mutation could mean by this template; or how far it can be told.
    pub fn purge_tags(&self, view: &FieldView<'_>) -> Result<Vec<Tag>, UnreadTemplate<'_>> {
        let (mut names, mut most) = (vec![String::new()], MAX_RENDERED);
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                TemplatePart::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                TemplatePart::Field(field) => {
                    let values = field.every_value(view);
                    let unread = |has_too_many, known| UnreadTemplate {
                        template: self,
                        at,
                        known,
                        field: Arc::clone(&field.name),
                        has_too_many,
                        awaits_response: field.awaits_response(view),
                        is_identity: field.identity().is_some(),
                    };
                    let Some(values) = values else { return Err(unread(false, names)) };
                    if field.source == FieldSource::Caller {
                        // SECURITY: a caller with many cookies purges what is its own.
                        most *= caller::MAX_NAMES;
                    } else if names.len() * values.len() > most {
                        return Err(unread(true, names));
                    }
                    names = longer(&names, &values);
                }
            }
        }
        Ok(names.iter().map(|name| Tag::new(name)).collect())
    }

    /// The family of the tags that begin so, where this part and those after it are not told.
    fn family(&self, known: &str, at: usize) -> Tag {
        // No value can imitate a field that is not told.
        let mut shape = known.replace('{', "%7b");
        for part in &self.parts[at..] {
            shape.push_str(match part {
                TemplatePart::Text(text) => text,
                TemplatePart::Field(_) => "{}",
            });
        }
        Tag::for_family(&shape)
    }

    /// The family of all its tags; the tag itself where it has no fields.
    fn whole_family(&self) -> Tag {
        match &*self.parts {
            [TemplatePart::Text(text), TemplatePart::Field(_), ..] => self.family(text, 1),
            [TemplatePart::Field(_), ..] => self.family("", 0),
            _ => Tag::new(&self.text),
        }
    }

    /// The text before the first field.
    fn lead(&self) -> &str {
        match self.parts.first() {
            Some(TemplatePart::Text(text)) => text,
            _ => "",
        }
    }

    /// The text after the last field.
    fn tail(&self) -> &str {
        match self.parts.last() {
            Some(TemplatePart::Text(text)) => text,
            _ => "",
        }
    }

    fn has_fields(&self) -> bool {
        self.fields().next().is_some()
    }

    fn has_same_shape(&self, other: &Self) -> bool {
        self.family("", 0) == other.family("", 0)
    }
}

/// A template of a mutation of which not every tag can be told: a field has no value that can be
/// read, or more values than are purged one by one.
#[derive(Clone, Debug)]
pub struct UnreadTemplate<'a> {
    template: &'a Template,
    /// The part that is not told.
    at: usize,
    /// The tags up to that part.
    known: Vec<String>,
    /// The field.
    pub field: Arc<str>,
    /// Whether it has too many values, rather than none.
    pub has_too_many: bool,
    /// Whether it is in the response, which is not there yet.
    pub awaits_response: bool,
    /// Whether it is what the origin says of the caller, which is never told for a write.
    pub is_identity: bool,
}

impl UnreadTemplate<'_> {
    /// The families of all entries that could have one of its tags, by the templates of their
    /// routes or by what the origin names.
    #[must_use]
    pub fn families<'a>(&self, routes: impl Iterator<Item = &'a Template>) -> Vec<Tag> {
        let own = self.known.iter().map(|known| self.template.family(known, self.at));
        let mut families: Vec<Tag> = own.collect();
        let others = routes.filter(|other| !self.template.has_same_shape(other));
        families.extend(others.filter(|other| self.may_meet(other)).map(Template::whole_family));
        families.extend(self.known.iter().map(|known| Tag::for_origin_family(tag::head(known))));
        // A name that is too long is known by its digest alone.
        families.push(Tag::for_origin_family(Some(tag::DIGEST)));
        families.sort();
        families.dedup();
        families
    }

    /// Whether a template of another shape may render a tag that this one may.
    fn may_meet(&self, other: &Template) -> bool {
        // Tags are compared without regard to case.
        let (lead, tail) = (fold(other.lead()), fold(other.tail()));
        let own_tail = fold(self.template.tail());
        let leads_meet = |known: &String| {
            let known = fold(known);
            lead.starts_with(&*known) || (other.has_fields() && known.starts_with(&*lead))
        };
        self.known.iter().any(leads_meet)
            && (tail.ends_with(&*own_tail) || (other.has_fields() && own_tail.ends_with(&*tail)))
    }
}

/// The most tags that one template renders for a mutation.
const MAX_RENDERED: usize = 64;

/// Each name with each value after it.
fn longer<V: AsRef<[u8]>>(names: &[String], values: &[V]) -> Vec<String> {
    let mut longer = Vec::with_capacity(names.len() * values.len());
    for name in names {
        for value in values {
            let mut name = name.clone();
            push_value(&mut name, value.as_ref());
            longer.push(name);
        }
    }
    longer
}

/// Appends a field's value to a tag's name. Only bytes that a name cannot contain are escaped.
fn push_value(name: &mut String, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) if !text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) => {
            name.push_str(text);
        }
        _ => {
            for &byte in value {
                if byte.is_ascii_graphic() {
                    name.push(char::from(byte));
                } else {
                    name.push('%');
                    name.push_str(&crate::units::hex(&[byte]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::policy::credential::CredentialRule;
    use crate::policy::field::AnsweredBody;
    use crate::secret::Hasher;

    fn resolve(name: &str) -> Option<Arc<Field>> {
        let (name, is_optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let source = match name {
            "tenant" => FieldSource::Header(HeaderName::from_static("x-tenant-id")),
            "id" | "other" => FieldSource::Query(name.into()),
            "caller" => FieldSource::Caller,
            _ => return None,
        };
        Some(Arc::new(Field { is_optional, ..Field::new(name, source) }))
    }

    fn template(text: &str) -> Template {
        Template::parse(text, &resolve).expect("a template")
    }

    fn with_view<T>(
        headers: &[(&'static str, &'static str)],
        query: &str,
        see: impl FnOnce(&FieldView<'_>) -> T,
    ) -> T {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = headers.iter().map(line).collect();
        let (hasher, credential) = (Hasher::default(), CredentialRule::default());
        see(&FieldView {
            headers: &headers,
            host: "app",
            query,
            captures: &[],
            client: None,
            body: None,
            has_body: false,
            response: AnsweredBody::Awaited,
            now: crate::clock::Wall::default(),
            sessions: &[],
            credential: &credential,
            hasher: &hasher,
            tokens: &crate::policy::jwt::RequestTokens::NONE,
            identity: &crate::policy::identity::RequestIdentity::UNREAD,
        })
    }

    const ACME: &[(&str, &str)] = &[("x-tenant-id", "acme")];

    fn of_entry(text: &str, headers: &[(&'static str, &'static str)], query: &str) -> Vec<String> {
        let mut tags = Vec::new();
        with_view(headers, query, |view| template(text).entry_tags(view, &mut tags));
        tags.iter().map(Tag::to_string).collect()
    }

    /// What a mutation purges: its tags, or their families.
    fn of_purge(
        text: &str,
        headers: &[(&'static str, &'static str)],
        query: &str,
        routes: &[&str],
    ) -> Vec<String> {
        let routes: Vec<Template> = routes.iter().map(|text| template(text)).collect();
        let template = template(text);
        let tags = with_view(headers, query, |view| {
            template.purge_tags(view).unwrap_or_else(|unread| unread.families(routes.iter()))
        });
        let tags = tags.iter().map(Tag::to_string);
        tags.filter(|tag| !tag.starts_with("origin")).collect()
    }

    #[test]
    fn an_entry_carries_the_families_of_its_tags() {
        assert_eq!(of_entry("plain", ACME, ""), ["plain"]);
        assert_eq!(of_entry("a:{tenant}:b", ACME, ""), ["family a:{}:b", "a:acme:b"]);
        assert_eq!(
            of_entry("{tenant}:c:{id}", ACME, "id=7"),
            ["family {}:c:{}", "family acme:c:{}", "acme:c:7"]
        );
    }

    #[test]
    fn a_mutation_purges_the_narrowest_family_that_it_can_tell() {
        let routes = ["{tenant}:c:{id}", "campaign:{id}", "other"];
        assert_eq!(of_purge("{tenant}:c:{other}", ACME, "other=7", &routes), ["acme:c:7"]);
        assert_eq!(of_purge("{tenant}:c:{other}", ACME, "", &routes), ["family acme:c:{}"]);
        // Whoever has the tags of another shape may have those of this one.
        assert_eq!(
            of_purge("{tenant}:c:{other}", &[], "other=7", &routes),
            ["family campaign:{}", "family {}:c:{}", "other"],
        );
        assert_eq!(
            of_purge("campaign:{other}", ACME, "", &routes),
            ["family campaign:{}", "family {}:c:{}"],
            "a tenant may be called `campaign`"
        );
        let narrow = ["campaign:{tenant}:7", "campaigns:{id}", "campaign:new"];
        assert_eq!(
            of_purge("campaign:{other}", ACME, "", &narrow),
            ["campaign:new", "family campaign:{}", "family campaign:{}:7"]
        );
    }

    #[test]
    fn more_values_than_the_bound_purge_the_family() {
        let query =
            |count: usize| (0..count).map(|n| format!("id={n}")).collect::<Vec<_>>().join("&");
        assert_eq!(of_purge("c:{id}", ACME, &query(64), &[]).len(), 64);
        assert_eq!(of_purge("c:{id}", ACME, &query(65), &[]), ["family c:{}"]);
        assert_eq!(of_purge("c:{id}:{other}", ACME, &query(65), &[]), ["family c:{}:{}"]);
        let nine = format!("{}&other=1&other=2", query(33));
        assert_eq!(of_purge("c:{id}:{other}", ACME, &nine, &[]).len(), 33, "each with its family");
    }

    #[test]
    fn no_value_can_imitate_a_family() {
        let known = of_entry("{tenant}:{id}", &[("x-tenant-id", "{}")], "id=7");
        assert_eq!(known, ["family {}:{}", "family %7b}:{}", "{}:7"]);
    }

    #[test]
    fn a_caller_with_several_names_has_several_tags() {
        let alice = &[("authorization", "Bearer a"), ("cookie", "sid=a")];
        let tags = of_entry("cart:{caller}", alice, "");
        assert_eq!(tags.len(), 3, "{tags:?}");
        assert!(tags[0] == "family cart:{}" && tags[1..].iter().all(|tag| tag.len() == 5 + 32));
        let purged = of_purge("cart:{caller}", &alice[1..], "", &[]);
        assert!(purged.len() == 1 && tags.contains(&purged[0]), "{purged:?} is none of {tags:?}");
        assert!(of_purge("cart:{caller}", ACME, "", &[]).is_empty(), "nobody in particular");
    }

    #[test]
    fn an_optional_field_may_be_absent() {
        assert_eq!(of_entry("c:{id?}", &[], ""), ["family c:{}", "c:"]);
        assert_eq!(of_entry("c:{id?}", &[], "id=7"), ["family c:{}", "c:7"]);
        assert_eq!(of_purge("c:{id?}", &[], "", &[]), ["c:"]);
    }

    #[test]
    fn a_bad_template_says_what_is_wrong() {
        for (text, what) in [
            ("", "empty"),
            ("a{b", "without its"),
            ("a}b", "without its"),
            ("{nobody}", "nobody"),
            ("a b", "white space"),
        ] {
            assert!(Template::parse(text, &resolve).expect_err(text).what.contains(what), "{text}");
        }
    }
}
