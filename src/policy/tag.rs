//! Tags: the names by which entries are purged, and the templates that make them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};

use crate::error::Malformed;
use crate::policy::field::{Field, FieldError, FieldView};
use crate::policy::fold::fold;
use crate::policy::request_target;

/// The longest tag that is stored under its own name, in bytes. A longer tag is replaced by its
/// digest, so that clients cannot create Redis keys of any size.
pub const MAX_LEN: usize = 256;

/// The name of something that responses depend on, by which they are purged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag with this name, in which case does not count. All tags are made here: those of
    /// entries, of writes and of purges by hand, and those that are read back from storage.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = fold(name);
        if name.len() <= MAX_LEN {
            return Self(name.into());
        }
        let digest = <sha2::Sha256 as sha2::Digest>::digest(name.as_bytes());
        Self(format!("sha256:{}", crate::units::hex(&digest)).into())
    }

    /// The implicit tag of a URI. It covers all variants and all queries, and the path with and
    /// without a final slash or an extension.
    #[must_use]
    pub fn for_uri(host: &str, path: &str) -> Self {
        // Entries and mutations use the same reading of the path, so that different escapes give
        // the same tag.
        let path = if path.contains('%') {
            Cow::Owned(request_target::permissive_path(path))
        } else {
            Cow::Borrowed(path)
        };
        let path = request_target::bare_path(&path);
        Self::new(&format!("uri:{host}{}", if path.is_empty() { "/" } else { path }))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Tag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Tag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer).map(|name| Self::new(&name))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text with fields in braces, such as `campaigns:{tenant}`.
#[derive(Clone, Debug)]
pub struct Template {
    text: Box<str>,
    parts: Box<[TemplatePart]>,
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

    /// The fields it reads.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Field(field) => Some(field),
            TemplatePart::Text(_) => None,
        })
    }

    /// Renders the tag for a request, or names the field that the request lacks.
    pub fn render(&self, view: &FieldView<'_>) -> Result<Tag, (Arc<str>, FieldError)> {
        let mut name = String::with_capacity(self.text.len() + 16);
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => name.push_str(text),
                TemplatePart::Field(field) => {
                    let value = field.value(view).map_err(|why| (Arc::clone(&field.name), why))?;
                    push_value(&mut name, &value);
                }
            }
        }
        Ok(Tag::new(&name))
    }
}

/// The most tags that one template renders for a mutation.
const MAX_RENDERED: usize = 64;

impl Template {
    /// Every tag that a mutation could mean by this template, or the name of the field that the
    /// mutation lacks.
    pub fn render_every(&self, view: &FieldView<'_>) -> Result<Vec<Tag>, Arc<str>> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                TemplatePart::Field(field) => {
                    let values = field.every_value(view);
                    if values.is_empty() {
                        return Err(Arc::clone(&field.name));
                    }
                    let longer = |name: &String| {
                        let name = name.clone();
                        values.iter().map(move |value| {
                            let mut name = name.clone();
                            push_value(&mut name, value);
                            name
                        })
                    };
                    names = names.iter().flat_map(longer).take(MAX_RENDERED).collect();
                }
            }
        }
        Ok(names.iter().map(|name| Tag::new(name.as_str())).collect())
    }
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

/// The response headers in which the origin names tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseTags {
    /// The names of the headers.
    pub headers: Box<[HeaderName]>,
    /// Whether these headers are delivered to the client.
    pub keep: bool,
}

impl Default for ResponseTags {
    fn default() -> Self {
        Self {
            headers: [
                HeaderName::from_static("surrogate-key"),
                HeaderName::from_static("cache-tag"),
            ]
            .into(),
            keep: false,
        }
    }
}

impl ResponseTags {
    /// The tags that a response names, separated by spaces or commas.
    pub fn named_by<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = Tag> + 'a {
        let separator = |b: &u8| matches!(b, b' ' | b',' | b'\t');
        self.headers
            .iter()
            .flat_map(|name| headers.get_all(name))
            .flat_map(move |line| line.as_bytes().split(separator))
            .filter(|tag| !tag.is_empty())
            .map(|tag| Tag::new(&String::from_utf8_lossy(tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::field::FieldSource;
    use crate::secret::Hasher;
    use http::HeaderValue;

    fn resolve(name: &str) -> Option<Arc<Field>> {
        (name == "tenant").then(|| {
            Arc::new(Field {
                name: "tenant".into(),
                source: FieldSource::Header(HeaderName::from_static("x-tenant-id")),
            })
        })
    }

    fn view<'a>(headers: &'a HeaderMap, hasher: &'a Hasher) -> FieldView<'a> {
        let client = Some([192, 0, 2, 7].into());
        FieldView { headers, host: "app", query: "", captures: &[], client, body: None, hasher }
    }

    #[test]
    fn a_template_is_filled_from_the_request() {
        let template = Template::parse("campaigns:{tenant}:all", &resolve).expect("a template");
        let (hasher, mut headers) = (Hasher::default(), HeaderMap::new());
        assert_eq!(
            template.render(&view(&headers, &hasher)),
            Err(("tenant".into(), FieldError::Missing))
        );
        headers.insert("x-tenant-id", HeaderValue::from_static("acme"));
        assert_eq!(
            template.render(&view(&headers, &hasher)).expect("a tag").as_str(),
            "campaigns:acme:all"
        );
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

    #[test]
    fn slash_extension_and_case_do_not_change_the_tag_of_a_uri() {
        for same in ["/x/", "/x.json", "/X", "/%58.JSON/", "/x.tar.gz"] {
            assert_eq!(Tag::for_uri("a", same), Tag::for_uri("a", "/x"), "{same}");
        }
        assert_ne!(Tag::for_uri("a", "/x"), Tag::for_uri("b", "/x"));
        assert_eq!(Tag::for_uri("a", "/").as_str(), "uri:a/");
    }

    #[test]
    fn case_does_not_count_in_tags() {
        assert_eq!(Tag::new("Items:Ü"), Tag::new("items:ü"));
        assert_eq!(Tag::new("Items:A").as_str(), "items:a");
        assert_eq!(Tag::new(&"A".repeat(300)), Tag::new(&"a".repeat(300)));
    }

    #[test]
    fn a_long_tag_is_replaced_by_its_digest() {
        let (one, two) = (Tag::new(&"a".repeat(300)), Tag::new(&"a".repeat(301)));
        assert!(one.as_str().len() < MAX_LEN);
        assert_ne!(one, two);
    }

    #[test]
    fn the_origin_names_tags_in_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append("surrogate-key", HeaderValue::from_static("a b"));
        headers.append("surrogate-key", HeaderValue::from_static("c"));
        headers.append("cache-tag", HeaderValue::from_static("d, e"));
        let rule = ResponseTags::default();
        let tags: Vec<String> = rule.named_by(&headers).map(|tag| tag.to_string()).collect();
        assert_eq!(tags, ["a", "b", "c", "d", "e"]);
    }
}
