//! Conditional GET and HEAD requests answered from a stored 200 (RFC 9110 13, RFC 9111 4.3.2).
//!
//! Owns the comparison of validators and the list of fields that a 304 carries. For a condition
//! that cannot be parsed, the full response is served, which is always correct. Knows nothing of
//! how the entry was found.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderMap,
    HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, TRAILER, VARY,
};

use crate::semantics::freshness::parse_date;

/// The fields of a stored 200 that its 304 carries (RFC 9110 15.4.5). `Last-Modified` joins them
/// when there is no `ETag`.
const NOT_MODIFIED_FIELDS: [HeaderName; 6] =
    [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];

/// Which response a request that may be conditional gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionOutcome {
    /// The stored response itself.
    Full,
    /// 304: the client's copy is the same as the stored response.
    NotModified,
}

/// Whether the request carries a condition that [`evaluate`] handles. Most do not.
#[must_use]
pub fn has_conditions(request: &HeaderMap) -> bool {
    request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE)
}

/// Evaluates the conditions of a GET or HEAD against a stored 200, in the order of RFC 9110 13.2.2.
///
/// `etag`, `last_modified` and `date` are the fields of the stored response.
#[must_use]
pub fn evaluate(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<&HeaderValue>,
    date: Option<&HeaderValue>,
) -> ConditionOutcome {
    let not_modified = if request.contains_key(IF_NONE_MATCH) {
        // RFC 9110 13.1.3: If-Modified-Since is ignored if there is an If-None-Match, even a
        // malformed one.
        none_match_names(request, etag)
    } else {
        unmodified_since(request, last_modified, date)
    };
    if not_modified { ConditionOutcome::NotModified } else { ConditionOutcome::Full }
}

/// Whether `If-None-Match` lists the entity-tag of the stored response (RFC 9110 13.1.2). A
/// malformed field lists none.
fn none_match_names(request: &HeaderMap, etag: Option<&HeaderValue>) -> bool {
    let mut lines = request.get_all(IF_NONE_MATCH).iter();
    if let (Some(only), None) = (lines.next(), lines.next())
        && (only.as_bytes().trim_ascii() == b"*" || is_unquoted_tag(only, etag))
    {
        return true;
    }
    let stored = etag.and_then(|etag| whole_entity_tag(etag.as_bytes()));
    let mut found = false;
    for line in request.get_all(IF_NONE_MATCH) {
        let mut rest = line.as_bytes();
        loop {
            rest = skip(rest, |byte| matches!(byte, b' ' | b'\t' | b','));
            if rest.is_empty() {
                break;
            }
            let Some((opaque, after)) = entity_tag(rest) else { return false };
            rest = skip(after, |byte| matches!(byte, b' ' | b'\t'));
            if !matches!(rest.first(), None | Some(b',')) {
                return false;
            }
            found |= stored == Some(opaque);
        }
    }
    found
}

/// Whether the field is the very `ETag` of the response, which is no entity-tag by the grammar:
/// Bottle and others send it without quotes, and compare it with the field as it is.
fn is_unquoted_tag(only: &HeaderValue, etag: Option<&HeaderValue>) -> bool {
    let unquoted = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x7e);
    etag.is_some_and(|etag| {
        only == etag && !etag.is_empty() && etag.as_bytes().iter().all(unquoted)
    })
}

/// Whether the response is unmodified since the date in `If-Modified-Since` (RFC 9110 13.1.3).
fn unmodified_since(
    request: &HeaderMap,
    last_modified: Option<&HeaderValue>,
    date: Option<&HeaderValue>,
) -> bool {
    let mut lines = request.get_all(IF_MODIFIED_SINCE).iter();
    let (Some(since), None) = (lines.next(), lines.next()) else { return false };
    let Some(since) = parse_date(since) else { return false };
    match last_modified {
        Some(last_modified) => parse_date(last_modified).is_some_and(|modified| modified <= since),
        // RFC 9111 4.3.2: Date replaces a missing Last-Modified. The comparison is strict: a copy
        // from the same second may predate a write in that second.
        None => date.and_then(parse_date).is_some_and(|generated| generated < since),
    }
}

/// The opaque part of a field that consists of one entity-tag. The weakness flag is dropped, since
/// the comparison is weak (8.8.3.2).
pub(crate) fn whole_entity_tag(value: &[u8]) -> Option<&[u8]> {
    match entity_tag(value.trim_ascii())? {
        (opaque, []) => Some(opaque),
        _ => None,
    }
}

/// The opaque part of a field that consists of one strong entity-tag: two of them are equal by the
/// strong comparison (8.8.3.2).
pub(crate) fn strong_entity_tag(value: &[u8]) -> Option<&[u8]> {
    if value.trim_ascii().starts_with(b"W/") { None } else { whole_entity_tag(value) }
}

/// Takes one entity-tag (RFC 9110 8.8.3) from the front: returns its opaque part without quotes,
/// and the rest.
fn entity_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = text.strip_prefix(b"W/").unwrap_or(text).strip_prefix(b"\"")?;
    let end = quoted.iter().position(|byte| !matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))?;
    match &quoted[end..] {
        [b'"', rest @ ..] => Some((&quoted[..end], rest)),
        _ => None,
    }
}

fn skip(text: &[u8], unwanted: impl Fn(u8) -> bool) -> &[u8] {
    let start = text.iter().position(|byte| !unwanted(*byte)).unwrap_or(text.len());
    &text[start..]
}

/// The fields of a stored 200 that its 304 carries (RFC 9110 15.4.5), repeated ones in order, and
/// those of `own`: `Age` and the sidecar's.
#[must_use]
pub fn not_modified_headers<const N: usize>(stored: &HeaderMap, own: [HeaderName; N]) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(NOT_MODIFIED_FIELDS.len() + 4);
    let last_modified = (!stored.contains_key(ETAG)).then_some(LAST_MODIFIED);
    for name in NOT_MODIFIED_FIELDS.into_iter().chain(last_modified).chain(own) {
        for value in stored.get_all(&name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// What a 304 in place of this 200 keeps if the origin has sent it to the same client: all but what
/// describes the content, which the client has (RFC 9110 15.4.5).
#[must_use]
pub fn without_content_headers(mut headers: HeaderMap) -> HeaderMap {
    let about_content = [
        CONTENT_TYPE,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_RANGE,
        CONTENT_DISPOSITION,
        ACCEPT_RANGES,
        TRAILER,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
    ];
    for name in about_content {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
    headers
}

#[cfg(test)]
mod tests {
    use http::header::AGE;
    use proptest::prelude::*;

    use http::header::{IF_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};

    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_bytes(text.as_bytes()).unwrap()
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    fn by_etag(lines: &[&str], etag: Option<&str>) -> ConditionOutcome {
        let request = headers(&lines.iter().map(|line| (IF_NONE_MATCH, *line)).collect::<Vec<_>>());
        evaluate(&request, etag.map(value).as_ref(), None, None)
    }

    fn by_date(
        lines: &[&str],
        last_modified: Option<&str>,
        date: Option<&str>,
    ) -> ConditionOutcome {
        let request =
            headers(&lines.iter().map(|line| (IF_MODIFIED_SINCE, *line)).collect::<Vec<_>>());
        evaluate(&request, None, last_modified.map(value).as_ref(), date.map(value).as_ref())
    }

    #[test]
    fn a_named_entity_tag_is_not_modified() {
        for lines in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["\"1\", \"abc\" , \"2\""],
            &["\"a,b\",\"abc\""],
            &[", ,\"abc\","],
            &["\"1\"", "\"abc\""],
            &["", "\"abc\""],
            &["*"],
            &[" * "],
        ] {
            assert_eq!(by_etag(lines, Some("\"abc\"")), ConditionOutcome::NotModified, "{lines:?}");
            assert_eq!(
                by_etag(lines, Some("W/\"abc\"")),
                ConditionOutcome::NotModified,
                "weak: {lines:?}"
            );
        }
        assert_eq!(
            by_etag(&["\"\""], Some("\"\"")),
            ConditionOutcome::NotModified,
            "an opaque part may be empty"
        );
        assert_eq!(
            by_etag(&["\"\u{fc}\""], Some("\"\u{fc}\"")),
            ConditionOutcome::NotModified,
            "obs-text"
        );
        assert_eq!(
            by_etag(&["*"], None),
            ConditionOutcome::NotModified,
            "a star matches any stored response"
        );
    }

    #[test]
    fn another_tag_or_a_malformed_list_gets_the_full_response() {
        for lines in [
            &["\"abcd\""][..],
            &["\"ABC\""],
            &["abc"],
            &["w/\"abc\""],
            &["W \"abc\""],
            &["\"abc"],
            &["\"abc\" \"x\""],
            &["\"abc\"x"],
            &["\"abc\", x"],
            &["x, \"abc\""],
            &["\"a bc\", \"abc\""],
            &["*, \"abc\""],
            &["\"abc\", *"],
            &["*", "*"],
            &["\"abc\"", "junk"],
            &[""],
            &[","],
        ] {
            assert_eq!(by_etag(lines, Some("\"abc\"")), ConditionOutcome::Full, "{lines:?}");
        }
        // Without quotes, only the field as it came counts.
        assert_eq!(by_etag(&["abc"], Some("abc")), ConditionOutcome::NotModified);
        for lines in [&["abc, abc"][..], &["abc", "abc"], &["W/abc"], &["ab"], &["\"abc\""], &[""]]
        {
            assert_eq!(by_etag(lines, Some("abc")), ConditionOutcome::Full, "{lines:?}");
        }
        for etag in ["", "a,b", "a b", "\"abc", "abc, abc"] {
            assert_eq!(by_etag(&[etag], Some(etag)), ConditionOutcome::Full, "{etag:?}");
        }
        for etag in [None, Some("abc"), Some("\"abc"), Some("\"abc\"x"), Some("\"abc\", \"abc\"")] {
            assert_eq!(by_etag(&["\"abc\""], etag), ConditionOutcome::Full, "{etag:?}");
        }
    }

    #[test]
    fn if_modified_since_compares_with_last_modified() {
        assert_eq!(by_date(&[MODIFIED], Some(MODIFIED), None), ConditionOutcome::NotModified);
        assert_eq!(by_date(&[NEW], Some(MODIFIED), None), ConditionOutcome::NotModified);
        assert_eq!(
            by_date(&["Sunday, 06-Nov-94 08:49:37 GMT"], Some(MODIFIED), None),
            ConditionOutcome::NotModified
        );
        assert_eq!(by_date(&[OLD], Some(MODIFIED), None), ConditionOutcome::Full);
        assert_eq!(by_date(&["yesterday"], Some(MODIFIED), None), ConditionOutcome::Full);
        assert_eq!(
            by_date(&[MODIFIED, MODIFIED], Some(MODIFIED), None),
            ConditionOutcome::Full,
            "more than one member"
        );
        assert_eq!(
            by_date(&[NEW], Some("yesterday"), Some(OLD)),
            ConditionOutcome::Full,
            "a malformed Last-Modified is not replaced by the Date"
        );
    }

    #[test]
    fn the_date_stands_in_for_a_last_modified_only_when_strictly_earlier() {
        assert_eq!(by_date(&[NEW], None, Some(MODIFIED)), ConditionOutcome::NotModified);
        assert_eq!(by_date(&[MODIFIED], None, Some(MODIFIED)), ConditionOutcome::Full);
        assert_eq!(by_date(&[NEW], None, None), ConditionOutcome::Full);
    }

    #[test]
    fn if_none_match_wins_over_if_modified_since() {
        let (etag, modified) = (value("\"abc\""), value(MODIFIED));
        let cases = [
            ("\"abc\"", OLD, ConditionOutcome::NotModified),
            ("\"xyz\"", NEW, ConditionOutcome::Full),
            ("junk", NEW, ConditionOutcome::Full),
            ("", NEW, ConditionOutcome::Full),
        ];
        for (tags, since, expected) in cases {
            let request = headers(&[(IF_NONE_MATCH, tags), (IF_MODIFIED_SINCE, since)]);
            assert_eq!(
                evaluate(&request, Some(&etag), Some(&modified), None),
                expected,
                "{tags} {since}"
            );
        }
    }

    #[test]
    fn a_request_without_conditions_gets_the_full_response() {
        let request = headers(&[(CONTENT_TYPE, "text/plain")]);
        assert!(!has_conditions(&request));
        assert_eq!(
            evaluate(&request, Some(&value("\"abc\"")), Some(&value(MODIFIED)), None),
            ConditionOutcome::Full
        );
    }

    #[test]
    fn conditions_are_classified() {
        assert!(
            has_conditions(&headers(&[(IF_NONE_MATCH, "*")]))
                && has_conditions(&headers(&[(IF_MODIFIED_SINCE, OLD)]))
        );
        for name in [IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE] {
            assert!(!has_conditions(&headers(&[(name.clone(), "*")])), "{name}");
        }
    }

    #[test]
    fn a_304_carries_what_guides_caches_and_nothing_else() {
        let common = [
            (CACHE_CONTROL, "max-age=5"),
            (CACHE_CONTROL, "public"),
            (CONTENT_LOCATION, "/x"),
            (DATE, NEW),
            (EXPIRES, NEW),
            (VARY, "accept"),
            (CONTENT_TYPE, "text/plain"),
            (CONTENT_LENGTH, "3"),
            (AGE, "7"),
            (LAST_MODIFIED, OLD),
        ];
        let mut stored = headers(&common);
        let mut expected = headers(&common[..6]);
        expected.append(LAST_MODIFIED, value(OLD));
        assert_eq!(not_modified_headers(&stored, []), expected);

        stored.insert(ETAG, value("\"abc\""));
        expected.remove(LAST_MODIFIED);
        expected.insert(ETAG, value("\"abc\""));
        assert_eq!(not_modified_headers(&stored, []), expected);
    }

    proptest! {
        #[test]
        fn any_condition_is_judged_without_a_panic(
            tags in prop::collection::vec("[W/\"*, a\\PC]{0,12}", 0..3),
            etag in "[W/\"a\\PC]{0,8}",
            since in "\\PC{0,30}",
        ) {
            let mut request = HeaderMap::new();
            for tag in &tags {
                request.append(IF_NONE_MATCH, value(tag));
            }
            request.append(IF_MODIFIED_SINCE, value(&since));
            let _ = evaluate(&request, Some(&value(&etag)), None, Some(&value(MODIFIED)));
        }

        #[test]
        fn a_tag_is_found_in_any_list_of_tags(
            tags in prop::collection::vec("[!#-~]{0,6}", 1..8),
            pick in any::<prop::sample::Index>(),
            weak: bool,
        ) {
            let list: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
            let etag = format!("{}{}", if weak { "W/" } else { "" }, pick.get(&list));
            prop_assert_eq!(
                by_etag(&[&list.join(",")], Some(&etag)),
                ConditionOutcome::NotModified
            );
            let other = format!("\"{}-\"", tags.concat());
            prop_assert_eq!(by_etag(&[&list.join(" , ")], Some(&other)), ConditionOutcome::Full);
        }
    }
}
