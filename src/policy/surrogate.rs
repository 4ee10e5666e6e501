//! The names by which a CDN in front knows the tags of the sidecar: in a header of responses
//! (`Cache-Tag`, `Surrogate-Key`), and in the purges that it is sent.
//!
//! Invariants:
//! 1. *A purge of a tag reaches every response that was sent with it.* Where a header has no room
//!    for all names, or not all are known when it is sent, it has [`MANY_TAGS`], which every purge
//!    names.
//! 2. *No header names a caller.* SECURITY: the values of the other tags may still be what a caller
//!    has sent, so that only responses of scope `public` get such a header, which are the same for
//!    everybody.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::tag::Tag;

/// The name that stands for all tags that a header does not name.
pub const MANY_TAGS: &str = "sidecache-many-tags";

/// A header in which responses name their tags for a CDN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurrogateHeader {
    /// Its name.
    pub name: HeaderName,
    /// What stands between two tags.
    pub separator: char,
    /// The longest value, in bytes.
    pub max_bytes: usize,
}

/// What a response is known to carry.
#[derive(Clone, Copy, Debug)]
pub struct CarriedTags<'a> {
    /// Its tags.
    pub tags: &'a [Tag],
    /// Whether these are all of them.
    pub is_complete: bool,
}

/// The name of a tag for a CDN, which has neither white space nor a comma. `None` for a tag that
/// stands for a caller.
#[must_use]
pub fn surrogate_name(tag: &Tag) -> Option<String> {
    if tag.is_caller() {
        return None;
    }
    let mut name = String::with_capacity(tag.as_str().len());
    for byte in tag.as_str().bytes() {
        if byte.is_ascii_graphic() && byte != b',' {
            name.push(char::from(byte));
        } else {
            // A `String` takes whatever is written to it.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    Some(name)
}

impl SurrogateHeader {
    /// Names the tags of a response, beside what the origin names there.
    pub fn add(&self, headers: &mut HeaderMap, carried: CarriedTags<'_>) {
        let mut value = String::new();
        let mut push = |name: &str| {
            if !value.is_empty() {
                value.push(self.separator);
            }
            value.push_str(name);
        };
        for line in headers.get_all(&self.name).iter().filter_map(|line| line.to_str().ok()) {
            push(line);
        }
        let own = carried.tags.iter().filter_map(surrogate_name).collect::<Vec<_>>();
        let length: usize = own.iter().map(|name| name.len() + 1).sum();
        if length <= self.max_bytes {
            for name in &own {
                push(name);
            }
        }
        if length > self.max_bytes || !carried.is_complete {
            push(MANY_TAGS);
        }
        if let (Ok(value), false) = (HeaderValue::try_from(&value), value.is_empty()) {
            headers.insert(self.name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(
        header: &SurrogateHeader,
        before: &[&'static str],
        carried: CarriedTags<'_>,
    ) -> String {
        let lines = before.iter().map(|line| (header.name.clone(), HeaderValue::from_static(line)));
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name, line);
        }
        header.add(&mut headers, carried);
        let lines: Vec<_> = headers.get_all(&header.name).iter().collect();
        lines.iter().map(|line| line.to_str().expect("text")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_header_names_all_tags_or_the_one_that_every_purge_names() {
        let mut header = SurrogateHeader {
            name: HeaderName::from_static("cache-tag"),
            separator: ',',
            max_bytes: 100,
        };
        let tags = [
            Tag::new("item:7"),
            Tag::for_family("item:{}"),
            Tag::for_caller("0123456789"),
            Tag::for_uri("app", "/a,b/ü"),
        ];
        let all = CarriedTags { tags: &tags, is_complete: true };
        let names = "item:7,family%20item:{},uri:app/a%2cb/%c3%bc";
        assert_eq!(value(&header, &[], all), names);
        assert_eq!(value(&header, &["own", "two"], all), format!("own,two,{names}"));
        let some = CarriedTags { is_complete: false, ..all };
        assert_eq!(value(&header, &[], some), format!("{names},{MANY_TAGS}"));
        header.max_bytes = names.len();
        assert_eq!(value(&header, &["own"], all), format!("own,{MANY_TAGS}"));
        let none = CarriedTags { tags: &[], is_complete: true };
        assert_eq!(value(&header, &[], none), "");
    }
}
