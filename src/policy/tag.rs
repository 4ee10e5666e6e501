//! Tags: the names by which entries are purged.
//!
//! A tag with a space is one that the sidecar itself gives: a template has no white space, and the
//! headers that name tags are split at it. A *family* stands for all the tags that a template can
//! render: entries carry it so that a mutation which cannot tell its tags purges them all.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};

use crate::policy::fold::fold;
use crate::policy::request_target;
use crate::units::allocated;

/// The longest tag that is stored under its own name, in bytes. A longer tag is replaced by its
/// digest, so that clients cannot create Redis keys of any size.
pub const MAX_LEN: usize = 256;

/// What the tags of callers begin with.
const CALLER: &str = "caller ";

/// What the families of templates begin with.
const FAMILY: &str = "family ";

/// What the families of the tags that the origin names begin with.
const ORIGIN_FAMILY: &str = "origin family ";

/// What the tags of folders begin with.
const FOLDER: &str = "under ";

/// What the implicit tags of URIs begin with.
const URI: &str = "uri:";

/// What the tags begin with that stand for a longer one.
pub(super) const DIGEST: &str = "sha256:";

/// The name of something that responses depend on, by which they are purged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// What a tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagNature<'a> {
    /// What the operator or the origin calls so.
    Named(&'a str),
    /// All tags of this shape.
    Family(&'a str),
    /// A URI, without its scheme and its query.
    Uri(&'a str),
    /// All that is below a folder of a host.
    Folder(&'a str),
    /// A caller.
    Caller,
}

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
        Self(format!("{DIGEST}{}", crate::units::hex(&digest)).into())
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
        Self::new(&[URI, host, if path.is_empty() { "/" } else { path }].concat())
    }

    /// The tag of all that is below a folder of a host. No template and no header of the origin can
    /// name it, because of its space.
    #[must_use]
    pub fn for_folder(host: &str, folder: &str) -> Self {
        Self::new(&format!("{FOLDER}{host}{folder}"))
    }

    /// The tag of all that a caller was given, by one of its names.
    #[must_use]
    pub fn for_caller(name: &str) -> Self {
        Self::new(&format!("{CALLER}{name}"))
    }

    /// The family of the tags of this shape: the text of a template, with `{}` for each field whose
    /// value is not told.
    #[must_use]
    pub fn for_family(shape: &str) -> Self {
        Self::new(&format!("{FAMILY}{shape}"))
    }

    /// The family of the tags that begin so, among those that the origin names; without a head, of
    /// all of these.
    #[must_use]
    pub fn for_origin_family(head: Option<&str>) -> Self {
        Self::new(&format!("{ORIGIN_FAMILY}{}", head.unwrap_or_default()))
    }

    /// Whether the sidecar gives it beside the tag that an operator would name.
    #[must_use]
    pub fn is_auxiliary(&self) -> bool {
        [CALLER, FAMILY, ORIGIN_FAMILY, FOLDER].iter().any(|prefix| self.0.starts_with(prefix))
    }

    /// Whether it stands for a caller.
    #[must_use]
    pub fn is_caller(&self) -> bool {
        self.0.starts_with(CALLER)
    }

    /// What it stands for.
    #[must_use]
    pub fn nature(&self) -> TagNature<'_> {
        let name = &*self.0;
        if let Some(shape) = name.strip_prefix(FAMILY).or_else(|| name.strip_prefix(ORIGIN_FAMILY))
        {
            TagNature::Family(shape)
        } else if let Some(folder) = name.strip_prefix(FOLDER) {
            TagNature::Folder(folder)
        } else if let Some(uri) = name.strip_prefix(URI) {
            TagNature::Uri(uri)
        } else if self.is_caller() {
            TagNature::Caller
        } else {
            TagNature::Named(name)
        }
    }

    /// Its name, for people to read. SECURITY: eight digits of a keyed hash tell two callers apart,
    /// and reveal nothing else.
    #[must_use]
    pub fn shown(&self) -> &str {
        let end = CALLER.len() + 8;
        self.0.get(..end).filter(|_| self.0.starts_with(CALLER)).unwrap_or(&self.0)
    }

    /// The memory that its name takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        allocated(2 * size_of::<usize>() + self.0.len())
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

    /// Removes what is for the sidecar alone from a head for clients.
    pub fn withhold(&self, headers: &mut HeaderMap) {
        for name in self.headers.iter().filter(|_| !self.keep) {
            headers.remove(name);
        }
    }
}

/// The beginning of a tag, up to its first separator: its family among the tags that the origin
/// names. `None` for one without a separator.
#[must_use]
pub fn head(name: &str) -> Option<&str> {
    let end = name.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric())?;
    name.get(..=end)
}

/// The families of the tags that the origin names.
#[must_use]
pub fn origin_families(named: &[Tag]) -> Vec<Tag> {
    // No template renders the tag of a group, which has a space.
    let mut named = named.iter().map(Tag::as_str).filter(|name| !name.contains(' ')).peekable();
    if named.peek().is_none() {
        return Vec::new();
    }
    let mut heads: Vec<&str> = named.filter_map(head).collect();
    heads.sort_unstable();
    heads.dedup();
    let mut families = vec![Tag::for_origin_family(None)];
    families.extend(heads.into_iter().map(|head| Tag::for_origin_family(Some(head))));
    families
}

/// All tags of an entry: those of its request, those that its response has told, and the families
/// of these.
#[must_use]
pub fn of_entry(requested: &[Tag], told: &[Tag]) -> Vec<Tag> {
    let families = origin_families(told);
    requested.iter().chain(told).chain(&families).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

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

    #[test]
    fn tags_of_the_origin_have_their_first_part_as_family() {
        assert_eq!(head("node:7"), Some("node:"));
        assert_eq!(head("cat_p_12"), Some("cat_"));
        assert_eq!(head("rendered"), None);
        let named: Vec<Tag> = ["node:7", "node:8", "rendered", "a_b"].map(Tag::new).into();
        let families: Vec<String> = origin_families(&named).iter().map(Tag::to_string).collect();
        assert_eq!(families, ["origin family ", "origin family a_", "origin family node:"]);
        assert!(origin_families(&[]).is_empty());
    }
}
