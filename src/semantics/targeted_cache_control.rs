//! Targeted cache control (RFC 9213): `CDN-Cache-Control` and similar response fields that apply to
//! certain caches only.
//!
//! Owns their syntax, which differs from that of `Cache-Control`: a Dictionary of RFC 9651, in
//! which any mistake invalidates the whole field. Knows nothing of what the directives lead to, nor
//! which fields the operator has chosen.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::semantics::cache_control::{CacheControl, MAX_DELTA};
use crate::semantics::forward::joined;

/// The field for caches in front of an origin.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives of the first of these fields that is present and valid.
///
/// If `Some`, `Cache-Control` and `Expires` do not count (RFC 9213 2.2), even if the field has no
/// known directive. If `None`, they do.
#[must_use]
pub fn directives(response: &HeaderMap, targets: &[HeaderName]) -> Option<CacheControl> {
    targets.iter().find_map(|name| read(&joined(response, name, b", ")?))
}

/// Parses one field, all its lines as one (RFC 9651 4.2). `None` means that the field counts as
/// absent.
fn read(value: &[u8]) -> Option<CacheControl> {
    let members: Dictionary = Parser::new(value).parse().ok()?;
    // RFC 9213 2.1: a field that is empty or does not parse is ignored as a whole.
    if members.is_empty() {
        return None;
    }
    let mut read = CacheControl::default();
    for (name, member) in &members {
        apply(&mut read, name.as_str(), member)?;
    }
    Some(read)
}

/// Applies one directive. Its parameters are ignored (RFC 9213 2.1), and so are unknown directives
/// and request directives.
///
/// `None` if the value does not have the type that RFC 9111 defines. RFC 9213 2.1 says to ignore
/// such a value, and leaves open whether the others count; this cache ignores the whole field, as
/// it does if the field does not parse.
fn apply(read: &mut CacheControl, name: &str, member: &ListEntry) -> Option<()> {
    match name {
        "no-store" => read.no_store = flag(member)?,
        "no-cache" => read.no_cache = whole_or_qualified(member)?,
        "private" => read.private = whole_or_qualified(member)?,
        "public" => read.public = flag(member)?,
        "must-revalidate" => read.must_revalidate = flag(member)?,
        "proxy-revalidate" => read.proxy_revalidate = flag(member)?,
        "must-understand" => read.must_understand = flag(member)?,
        "no-transform" => read.no_transform = flag(member)?,
        // RFC 8246 2: an argument has no meaning, so it is no mistake either; but a permission
        // counts only without one.
        "immutable" => read.immutable = flag(member).unwrap_or_default(),
        "max-age" => read.max_age = Some(seconds(member)?),
        "s-maxage" => read.s_maxage = Some(seconds(member)?),
        "stale-while-revalidate" => read.stale_while_revalidate = Some(seconds(member)?),
        "stale-if-error" => read.stale_if_error = Some(seconds(member)?),
        _ => {}
    }
    Some(())
}

fn value(member: &ListEntry) -> Option<&BareItem> {
    match member {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

/// A directive without an argument: `no-store` means `no-store=?1`. With `?0` it counts as absent.
fn flag(member: &ListEntry) -> Option<bool> {
    match value(member)? {
        BareItem::Boolean(set) => Some(*set),
        _ => None,
    }
}

/// `no-cache` and `private`. The qualified form counts as the whole, as in `Cache-Control`, and may
/// be a token too (RFC 9111 5.2).
fn whole_or_qualified(member: &ListEntry) -> Option<bool> {
    match value(member)? {
        BareItem::Boolean(set) => Some(*set),
        BareItem::String(_) | BareItem::Token(_) => Some(true),
        _ => None,
    }
}

/// Delta-seconds: an Integer that is not negative. Values above 2^31 become [`MAX_DELTA`] (RFC 9111
/// 1.2.2).
fn seconds(member: &ListEntry) -> Option<Duration> {
    match value(member)? {
        BareItem::Integer(number) => u64::try_from(i64::from(*number))
            .ok()
            .map(|seconds| Duration::from_secs(seconds).min(MAX_DELTA)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CACHE_CONTROL;
    use proptest::prelude::*;

    use super::*;

    const CDN: HeaderName = CDN_CACHE_CONTROL;
    const OURS: HeaderName = HeaderName::from_static("sidecache-cache-control");

    fn response(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    fn parse(lines: &[&str]) -> Option<CacheControl> {
        let fields: Vec<_> = lines.iter().map(|line| (CDN, *line)).collect();
        directives(&response(&fields), &[CDN])
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rfc_9213_2_1_every_directive_is_read_in_its_own_type() {
        let none = CacheControl::default();
        let cases = [
            ("no-store", CacheControl { no_store: true, ..none }),
            ("no-store=?1", CacheControl { no_store: true, ..none }),
            ("no-store=?0", none),
            ("no-cache", CacheControl { no_cache: true, ..none }),
            ("no-cache=\"set-cookie, x-a\"", CacheControl { no_cache: true, ..none }),
            ("private", CacheControl { private: true, ..none }),
            ("private=\"set-cookie\"", CacheControl { private: true, ..none }),
            ("private=set-cookie", CacheControl { private: true, ..none }),
            ("private=?0", none),
            ("public", CacheControl { public: true, ..none }),
            ("must-revalidate", CacheControl { must_revalidate: true, ..none }),
            ("proxy-revalidate", CacheControl { proxy_revalidate: true, ..none }),
            ("must-understand", CacheControl { must_understand: true, ..none }),
            ("no-transform", CacheControl { no_transform: true, ..none }),
            ("immutable", CacheControl { immutable: true, ..none }),
            ("immutable=5", none),
            ("max-age=3600", CacheControl { max_age: Some(secs(3600)), ..none }),
            ("max-age=0", CacheControl { max_age: Some(secs(0)), ..none }),
            ("max-age=007", CacheControl { max_age: Some(secs(7)), ..none }),
            ("s-maxage=2", CacheControl { s_maxage: Some(secs(2)), ..none }),
            (
                "stale-while-revalidate=3",
                CacheControl { stale_while_revalidate: Some(secs(3)), ..none },
            ),
            ("stale-if-error=4", CacheControl { stale_if_error: Some(secs(4)), ..none }),
            ("max-age=2147483648", CacheControl { max_age: Some(MAX_DELTA), ..none }),
            ("max-age=99999999999", CacheControl { max_age: Some(MAX_DELTA), ..none }),
            ("max-age=999999999999999", CacheControl { max_age: Some(MAX_DELTA), ..none }),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(&[line]), Some(expected), "{line}");
        }
    }

    #[test]
    fn rfc_9213_2_1_what_is_empty_or_does_not_parse_is_ignored_as_a_whole() {
        for line in [
            "",
            "   ",
            "max-age=10000, &&&&&",
            "&&&&&, max-age=10000",
            "Max-Age=60",
            "max-age=60, No-Store",
            "max-age =100",
            "max-age= 100",
            "max-age=60,",
            ",max-age=60",
            "max-age=60,,private",
            "max-age=60; private; no-store, =",
            "max-age=60 private",
            "no-cache=\"unended",
            "max-age=1000000000000000",
            "max-age=",
            "x=\u{fc}, max-age=60",
        ] {
            assert_eq!(parse(&[line]), None, "{line}");
        }
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn rfc_9213_2_1_a_value_of_the_wrong_type_invalidates_the_field() {
        for line in [
            "max-age=\"10000\"",
            "max-age=1.5",
            "max-age=60.0",
            "max-age=-1",
            "max-age",
            "max-age=?1",
            "max-age=soon",
            "max-age=(60)",
            "max-age=@60",
            "no-store=5",
            "no-store=\"x\"",
            "no-store=true",
            "public=\"x\"",
            "private=1",
            "private=(\"set-cookie\")",
            "must-revalidate=0",
            "no-store, s-maxage=\"60\"",
            "max-age=60, stale-if-error=1.0",
        ] {
            assert_eq!(parse(&[line]), None, "{line}");
        }
    }

    #[test]
    fn rfc_9213_2_1_parameters_and_rfc_9213_2_2_unknown_directives_are_passed_over() {
        let none = CacheControl::default();
        let hour = CacheControl { max_age: Some(secs(3600)), ..none };
        for line in [
            "foobar, max-age=3600",
            "max-age=3600;a=b;c",
            "x=(1 2);y, max-age=3600, *=\"no-store\", z=:aGk=:",
            "max-stale=5, min-fresh=\"x\", only-if-cached=7, max-age=3600",
        ] {
            assert_eq!(parse(&[line]), Some(hour), "{line}");
        }
        assert_eq!(
            parse(&["none"]),
            Some(none),
            "RFC 9213 3.1: an unknown directive alone is a valid field"
        );
    }

    #[test]
    fn rfc_9651_4_2_all_lines_are_one_dictionary_and_the_last_of_a_name_counts() {
        let none = CacheControl::default();
        assert_eq!(
            parse(&["max-age=60", "private"]),
            Some(CacheControl { max_age: Some(secs(60)), private: true, ..none })
        );
        assert_eq!(parse(&["max-age=60", "&"]), None);
        assert_eq!(parse(&["max-age=60", ""]), None, "an empty line leaves a comma at the end");
        assert_eq!(
            parse(&["x=\"a", "b\", max-age=60"]),
            Some(CacheControl { max_age: Some(secs(60)), ..none }),
            "a string over two lines"
        );
        assert_eq!(
            parse(&["max-age=60, max-age=5"]),
            Some(CacheControl { max_age: Some(secs(5)), ..none })
        );
        assert_eq!(
            parse(&["max-age=5", "max-age=60"]),
            Some(CacheControl { max_age: Some(secs(60)), ..none })
        );
        assert_eq!(
            parse(&["max-age=\"x\", max-age=5"]),
            Some(CacheControl { max_age: Some(secs(5)), ..none })
        );
        assert_eq!(parse(&["no-store, no-store=?0"]), Some(none));
    }

    #[test]
    fn rfc_9213_2_2_the_first_valid_target_counts_whatever_the_order_in_the_response() {
        let targets = [OURS, CDN];
        let lifetime = |fields: &[(HeaderName, &str)]| {
            directives(&response(fields), &targets).map(|read| read.max_age)
        };
        assert_eq!(lifetime(&[(CDN, "max-age=2"), (OURS, "max-age=1")]), Some(Some(secs(1))));
        assert_eq!(lifetime(&[(CDN, "max-age=2"), (OURS, "max-age=1.5")]), Some(Some(secs(2))));
        assert_eq!(lifetime(&[(CDN, "max-age=2"), (OURS, "")]), Some(Some(secs(2))));
        assert_eq!(lifetime(&[(CDN, "max-age=2")]), Some(Some(secs(2))));
        assert_eq!(lifetime(&[(CDN, "max-age"), (OURS, "&")]), None);
        assert_eq!(lifetime(&[(CACHE_CONTROL, "max-age=2")]), None);
        assert_eq!(
            directives(&response(&[(CDN, "max-age=2")]), &[]),
            None,
            "an empty list turns it off"
        );
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        let pieces = prop::sample::select(vec![
            "max-age", "no-store", "private", "=", "?1", "?0", "\"", "\\", ", ", ";", " ", "60",
            "-", ".", "(", ")", "\t", "A",
        ]);
        let text =
            prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![text, prop::collection::vec(any::<u8>(), 0..48)]
            .prop_filter_map("bytes that no header can hold", |bytes| {
                HeaderValue::from_bytes(&bytes).ok()
            })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(one in any_value(), two in any_value()) {
            let response: HeaderMap = [(CDN, one), (CDN, two)].into_iter().collect();
            if let Some(read) = directives(&response, &[CDN]) {
                prop_assert!(read.max_age.unwrap_or_default() <= MAX_DELTA);
                prop_assert!(!read.only_if_cached && read.min_fresh.is_none() && read.max_stale.is_none());
            }
        }

        #[test]
        fn one_malformed_member_invalidates_any_field(one in any_value(), junk in "[&A-Z%@^]{1,4}") {
            let junk = HeaderValue::from_str(&junk).unwrap();
            for lines in [[one.clone(), junk.clone()], [junk, one]] {
                let response: HeaderMap = lines.into_iter().map(|line| (CDN, line)).collect();
                // A quote that the first line opens and the second does not close is malformed as
                // well.
                prop_assert_eq!(directives(&response, &[CDN]), None);
            }
        }

        #[test]
        fn integers_saturate_and_are_read_as_cache_control_reads_them(seconds in 0_u64..1_000_000_000_000_000) {
            let line = format!("max-age={seconds}");
            let value = HeaderValue::from_str(&line).unwrap();
            prop_assert_eq!(parse(&[&line]), Some(CacheControl::parse([&value].into_iter())));
        }
    }
}
