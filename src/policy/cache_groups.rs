//! Cache groups (RFC 9875): `Cache-Groups` puts a stored response into groups,
//! `Cache-Group-Invalidation` purges groups.
//!
//! Owns the parsing of both fields and the tag of a group. The caller decides which responses
//! count: the second field only counts in the response to an unsafe method. Neither cascades (RFC
//! 9875 2.2.1): purging a group does not purge the other groups of its members.

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::policy::tag::Tag;
use crate::semantics::forward::joined;

/// The groups that a response belongs to.
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// The groups that the response to an unsafe method invalidates. It must be ignored in the response
/// to a safe method (RFC 9875 3).
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");

/// The most groups that one field may name. RFC 9875 2 requires support for at least 32 groups of
/// at least 32 characters. The length of a group is limited by the header size alone, because a
/// long tag is replaced by its digest.
pub const MAX_GROUPS: usize = 256;

/// A field names more than [`MAX_GROUPS`] groups.
///
/// Using only the first groups would be wrong: the entry would survive a purge of one of its other
/// groups. So the caller does not store such a response, and reports such an invalidation to the
/// operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_GROUPS} cache groups")]
pub struct TooManyGroups;

/// The groups that a field names, each once, in the field's order.
///
/// A field is a List of Strings (RFC 9875 2 and 3), all its lines as one (RFC 9651 4.2); parameters
/// are ignored. If the field does not parse, or a member is not a String, the whole field is
/// ignored and names no group. The empty String is a group like any other.
///
/// # Errors
/// If there are more than [`MAX_GROUPS`] of them.
pub fn groups(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, TooManyGroups> {
    let Some(value) = joined(headers, name, b", ") else { return Ok(Vec::new()) };
    let Some(named) = strings(&value) else { return Ok(Vec::new()) };
    let mut groups = Vec::with_capacity(named.len().min(MAX_GROUPS));
    for group in named {
        if groups.contains(&group) {
            continue;
        }
        if groups.len() == MAX_GROUPS {
            return Err(TooManyGroups);
        }
        groups.push(group);
    }
    Ok(groups)
}

fn strings(value: &[u8]) -> Option<Vec<String>> {
    let members: List = Parser::new(value).parse().ok()?;
    let string = |member| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(string) => Some(string.into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    members.into_iter().map(string).collect()
}

/// The tag of a group of this host's responses. Groups are compared byte by byte, case included,
/// and only within one origin (RFC 9875 2.1).
///
/// SECURITY: the space keeps this tag distinct from every other: templates and `Surrogate-Key`
/// cannot name a tag with a space, and the tag of a URI has another prefix. The host keeps origins
/// behind one sidecar from purging each other.
#[must_use]
pub fn tag(host: &str, group: &str) -> Tag {
    let mut name = format!("group:{host} ");
    for letter in group.chars() {
        // Case counts in groups, but not in tags. A group is ASCII (RFC 9651 3.3.3).
        if letter == '^' || letter.is_ascii_uppercase() {
            name.push('^');
        }
        name.push(letter);
    }
    Tag::new(&name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::tag::{MAX_LEN, ResponseTags};
    use crate::policy::template::Template;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (CACHE_GROUPS, HeaderValue::from_bytes(line.as_bytes()).unwrap()))
            .collect()
    }

    fn read(lines: &[&str]) -> Vec<String> {
        groups(&headers(lines), &CACHE_GROUPS).expect("few enough")
    }

    #[test]
    fn rfc_9875_2_a_list_of_strings_is_read() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["\"scripts\""], &["scripts"]),
            (&["\"a\", \"b\""], &["a", "b"]),
            (&["\"a\",\t\"b\""], &["a", "b"]),
            (&["\"ExampleJS\";revalidate;x=1, \"scripts\""], &["ExampleJS", "scripts"]),
            (&["\"news item\", \"a,b\", \"q\\\"\\\\\""], &["news item", "a,b", "q\"\\"]),
            (&["\"a\"", "\"b\", \"c\""], &["a", "b", "c"]),
            (&["\"a\", \"A\", \"a\"", "\"a\""], &["a", "A"]),
            (&["\"\""], &[""]),
        ];
        for (lines, expected) in cases {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
        let both = HeaderMap::from_iter([
            (CACHE_GROUPS, HeaderValue::from_static("\"a\"")),
            (CACHE_GROUP_INVALIDATION, HeaderValue::from_static("\"b\"")),
        ]);
        assert_eq!(groups(&both, &CACHE_GROUP_INVALIDATION).expect("one"), ["b"]);
    }

    #[test]
    fn rfc_9875_2_a_malformed_field_names_no_group() {
        for lines in [
            &[][..],
            &[""],
            &["a"],
            &["\"a\", b"],
            &["\"a\", 1"],
            &["\"a\", (\"b\")"],
            &["\"a\", ?1"],
            &["\"a\", :aGk=:"],
            &["\"a\", %\"b\""],
            &["\"a\","],
            &["\"a"],
            &["\"a\" \"b\""],
            &["\"a\";"],
            &["\"\u{fc}\""],
            &["\"a\"", "b"],
            &["\"a\"", ""],
        ] {
            assert!(read(lines).is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn rfc_9875_2_at_least_32_groups_of_32_characters_are_supported_and_too_many_are_not_cut_off() {
        let line = |count: usize| {
            (0..count).map(|at| format!("\"{at:032}\"")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(read(&[&line(32)]).len(), 32);
        assert_eq!(read(&[&line(MAX_GROUPS)]).len(), MAX_GROUPS);
        assert_eq!(
            read(&[&line(MAX_GROUPS), &line(MAX_GROUPS)]).len(),
            MAX_GROUPS,
            "repeated ones do not count"
        );
        assert_eq!(groups(&headers(&[&line(MAX_GROUPS + 1)]), &CACHE_GROUPS), Err(TooManyGroups));
        let long = "x".repeat(4000);
        assert_eq!(read(&[&format!("\"{long}\"")]), [long.as_str()]);
        assert!(tag("app", &long).as_str().len() <= MAX_LEN);
        assert_ne!(tag("app", &long), tag("app", &long[1..]));
    }

    #[test]
    fn rfc_9875_2_1_a_group_belongs_to_one_host_and_is_case_sensitive() {
        assert_eq!(tag("app:8080", "news item").as_str(), "group:app:8080 news item");
        assert_eq!(tag("app", "a"), tag("app", "a"));
        assert_ne!(tag("app", "a"), tag("app", "A"));
        assert_ne!(tag("app", "^a"), tag("app", "A"));
        assert_eq!(Tag::new(tag("app", "News").as_str()), tag("app", "News"), "read back");
        assert_ne!(tag("app", "a"), tag("other", "a"));
    }

    #[test]
    fn no_other_source_of_tags_can_name_a_group() {
        let named = tag("app", "a");
        assert!(Template::parse(named.as_str(), &|_| None).is_err());
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("surrogate-key"),
            HeaderValue::from_str(named.as_str()).unwrap(),
        )]);
        assert!(ResponseTags::default().named_by(&headers).all(|tag| tag != named));
        for path in ["/a", "/ a", "/%20a", "group:app a"] {
            assert_ne!(Tag::for_uri("app", path), named);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = groups(&HeaderMap::from_iter([(CACHE_GROUPS, value)]), &CACHE_GROUPS);
            }
        }

        #[test]
        fn any_strings_survive_their_quotes(
            strings in prop::collection::hash_set("[ -~]{0,40}", 1..20),
        ) {
            let quote = |string: &String| {
                format!("\"{}\"", string.replace('\\', "\\\\").replace('"', "\\\""))
            };
            let quoted: Vec<String> = strings.iter().map(quote).collect();
            let lines: Vec<&str> = quoted.iter().map(String::as_str).collect();
            let expected: Vec<String> = strings.into_iter().collect();
            prop_assert_eq!(read(&[&lines.join(", ")]), expected.clone());
            prop_assert_eq!(read(&lines), expected);
        }

        #[test]
        fn different_groups_have_different_tags(
            one in ("[a-z0-9.:-]{1,20}", "[ -~]{0,300}"),
            two in ("[a-z0-9.:-]{1,20}", "[ -~]{0,300}"),
        ) {
            prop_assert_eq!(tag(&one.0, &one.1) == tag(&two.0, &two.1), one == two);
        }
    }
}
