//! Tests of validation and updating, section by section of RFC 9111.

use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, LINK, SET_COOKIE, VARY, WARNING,
};
use proptest::prelude::*;

use super::*;
use crate::cache::entry::prepare;
use crate::semantics::cache_status::CACHE_STATUS;

const OLD: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const MODIFIED_850: &str = "Sunday, 06-Nov-94 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
/// The moment of [`LATER`] and half a second.
const NOW: Wall = Wall(784_111_778_500);

type HeaderFields<'a> = &'a [(HeaderName, &'a str)];

fn headers(fields: HeaderFields<'_>) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .collect()
}

/// The validators that a revalidation of this head sends: `If-None-Match`, `If-Modified-Since`.
fn sent(stored: HeaderFields<'_>) -> (Option<String>, Option<String>) {
    let mut request = HeaderMap::new();
    let any = add_conditions(&headers(stored), &mut request);
    let field = |name| {
        request
            .get(name)
            .map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let sent = (field(IF_NONE_MATCH), field(IF_MODIFIED_SINCE));
    assert_eq!(any, sent.0.is_some() || sent.1.is_some(), "{stored:?}");
    sent
}

#[test]
fn rfc_9111_4_3_1_a_well_formed_entity_tag_is_sent_as_stored() {
    for etag in ["\"abc\"", "W/\"abc\"", "\"\"", "\"a,b\"", "\"\u{fc}\""] {
        assert_eq!(sent(&[(ETAG, etag)]), (Some(etag.to_owned()), None));
    }
    for etag in ["abc", "\"abc", "w/\"abc\"", "W\"abc\"", "*", "", "\"a\", \"b\"", "\"a b\""] {
        assert_eq!(sent(&[(ETAG, etag)]), (None, None), "{etag}");
    }
    assert_eq!(sent(&[(ETAG, "\"a\""), (ETAG, "\"b\"")]), (None, None), "which of them?");
    assert_eq!(sent(&[]), (None, None));
}

#[test]
fn rfc_9110_8_8_2_2_last_modified_is_sent_only_when_a_second_earlier_than_date() {
    let with = |modified, date| sent(&[(LAST_MODIFIED, modified), (DATE, date)]).1;
    assert_eq!(with(OLD, MODIFIED).as_deref(), Some(OLD));
    assert_eq!(with(MODIFIED_850, LATER).as_deref(), Some(MODIFIED_850), "as stored");
    assert_eq!(with(MODIFIED, MODIFIED), None, "a write within the same second would go unseen");
    assert_eq!(with(LATER, MODIFIED), None);
    assert_eq!(with("yesterday", MODIFIED), None);
    assert_eq!(with(OLD, "today"), None);
    assert_eq!(sent(&[(LAST_MODIFIED, OLD)]), (None, None), "nothing to be earlier than");
    assert_eq!(sent(&[(LAST_MODIFIED, OLD), (LAST_MODIFIED, OLD), (DATE, LATER)]), (None, None));
    let both = sent(&[(ETAG, "\"a\""), (LAST_MODIFIED, OLD), (DATE, LATER)]);
    assert_eq!(both, (Some("\"a\"".to_owned()), Some(OLD.to_owned())));
}

#[test]
fn rfc_9111_4_3_1_the_clients_own_conditions_do_not_reach_the_origin() {
    let mut fields: Vec<(HeaderName, &str)> =
        CONDITIONS.into_iter().map(|name| (name, "\"client\"")).collect();
    fields.push((IF_NONE_MATCH, "\"another\""));
    fields.push((CACHE_CONTROL, "no-cache"));
    let mut request = headers(&fields);
    assert!(add_conditions(&headers(&[(ETAG, "\"stored\"")]), &mut request));
    assert_eq!(request, headers(&[(CACHE_CONTROL, "no-cache"), (IF_NONE_MATCH, "\"stored\"")]));
    assert!(!add_conditions(&HeaderMap::new(), &mut request));
    assert_eq!(request, headers(&[(CACHE_CONTROL, "no-cache")]));
}

#[test]
fn rfc_9111_4_3_4_an_entity_tag_decides_where_both_have_one() {
    let cases = [
        ("\"a\"", "\"a\"", true),
        ("\"a\"", "\"b\"", false),
        ("\"a\"", "\"A\"", false),
        ("\"a\"", "W/\"a\"", true),
        ("\"a\"", "W/\"b\"", false),
        ("W/\"a\"", "W/\"a\"", true),
        ("W/\"a\"", "W/\"b\"", false),
        ("W/\"a\"", "\"a\"", false),
        (" \"a\" ", "\"a\"", true),
    ];
    for (stored, update, expected) in cases {
        let bare = (headers(&[(ETAG, stored)]), headers(&[(ETAG, update)]));
        assert_eq!(validates(&bare.0, &bare.1), expected, "{stored} {update}");
        let dated = (
            headers(&[(ETAG, stored), (LAST_MODIFIED, OLD), (DATE, LATER)]),
            headers(&[(ETAG, update), (LAST_MODIFIED, MODIFIED), (DATE, LATER)]),
        );
        assert_eq!(
            validates(&dated.0, &dated.1),
            expected,
            "whatever Last-Modified says: {stored} {update}"
        );
    }
}

#[test]
fn rfc_9111_4_3_4_an_entity_tag_that_is_new_needs_the_same_strong_last_modified() {
    let cases: [(HeaderFields<'_>, HeaderFields<'_>, bool); 7] = [
        (&[], &[(ETAG, "\"a\"")], false),
        (&[], &[(ETAG, "W/\"a\"")], false),
        (&[(LAST_MODIFIED, OLD), (DATE, LATER)], &[(ETAG, "\"a\"")], false),
        (&[(LAST_MODIFIED, OLD), (DATE, LATER)], &[(ETAG, "\"a\""), (LAST_MODIFIED, OLD)], true),
        (
            &[(LAST_MODIFIED, OLD), (DATE, LATER)],
            &[(ETAG, "\"a\""), (LAST_MODIFIED, MODIFIED)],
            false,
        ),
        (&[(LAST_MODIFIED, OLD), (DATE, OLD)], &[(ETAG, "\"a\""), (LAST_MODIFIED, OLD)], false),
        (
            &[(ETAG, "a"), (LAST_MODIFIED, OLD), (DATE, LATER)],
            &[(ETAG, "\"a\""), (LAST_MODIFIED, OLD)],
            true,
        ),
    ];
    for (stored, update, expected) in cases {
        assert_eq!(
            validates(&headers(stored), &headers(update)),
            expected,
            "{stored:?} {update:?}"
        );
    }
}

#[test]
fn rfc_9111_4_3_4_without_an_entity_tag_last_modified_must_be_the_stored_one() {
    let stored: HeaderFields<'_> = &[(LAST_MODIFIED, MODIFIED), (DATE, LATER)];
    let tagged: HeaderFields<'_> = &[(LAST_MODIFIED, MODIFIED), (DATE, LATER), (ETAG, "\"a\"")];
    let cases: [(HeaderFields<'_>, bool); 6] = [
        (&[(LAST_MODIFIED, MODIFIED)], true),
        (&[(LAST_MODIFIED, MODIFIED_850)], true),
        (&[(LAST_MODIFIED, OLD)], false),
        (&[(LAST_MODIFIED, LATER)], false),
        (&[(LAST_MODIFIED, "yesterday")], false),
        (&[(LAST_MODIFIED, MODIFIED), (LAST_MODIFIED, MODIFIED)], false),
    ];
    for (update, expected) in cases {
        assert_eq!(validates(&headers(stored), &headers(update)), expected, "{update:?}");
        assert_eq!(validates(&headers(tagged), &headers(update)), expected, "{update:?}");
    }
    assert!(
        !validates(&headers(&[(ETAG, "\"a\"")]), &headers(&[(LAST_MODIFIED, OLD)])),
        "one that was not there before"
    );
}

#[test]
fn rfc_9110_15_4_5_a_304_without_validators_applies_to_the_named_response() {
    let bare = headers(&[(DATE, LATER), (CACHE_CONTROL, "max-age=5")]);
    for stored in
        [&[(ETAG, "\"a\"")][..], &[(ETAG, "W/\"a\"")], &[(LAST_MODIFIED, OLD), (DATE, LATER)], &[]]
    {
        assert!(validates(&headers(stored), &bare), "{stored:?}");
    }
}

#[test]
fn a_malformed_entity_tag_validates_only_itself() {
    assert!(validates(
        &headers(&[(ETAG, "abc"), (LAST_MODIFIED, OLD)]),
        &headers(&[(ETAG, "abc"), (LAST_MODIFIED, OLD)])
    ));
    assert!(!validates(
        &headers(&[(ETAG, "abc"), (LAST_MODIFIED, OLD)]),
        &headers(&[(ETAG, "abd"), (LAST_MODIFIED, OLD)])
    ));
    assert!(!validates(&headers(&[(ETAG, "\"abc\"")]), &headers(&[(ETAG, "abc")])));
    assert!(!validates(
        &headers(&[(ETAG, "\"a\"")]),
        &headers(&[(ETAG, "\"a\""), (ETAG, "\"a\"")])
    ));
    assert!(!validates(&headers(&[]), &headers(&[(ETAG, "abc")])));
}

#[test]
fn rfc_9111_3_2_fields_of_the_update_replace_all_stored_lines_of_their_name() {
    let stored = headers(&[
        (LINK, "<a>"),
        (LINK, "<b>"),
        (LINK, "<c>"),
        (CACHE_CONTROL, "max-age=1"),
        (CONTENT_TYPE, "text/plain"),
        (VARY, "accept"),
        (ETAG, "\"a\""),
        (DATE, OLD),
    ]);
    let update = headers(&[
        (LINK, "<d>"),
        (LINK, "<e>"),
        (CACHE_CONTROL, "max-age=5"),
        (EXPIRES, LATER),
        (CONTENT_TYPE, "text/html"),
        (ETAG, "W/\"a\""),
        (DATE, LATER),
    ]);
    let merged = merge(&stored, &update, NOW);
    let mut expected = update.clone();
    expected.insert(VARY, HeaderValue::from_static("accept"));
    assert_eq!(merged, expected);
    assert!(merged.get_all(LINK).iter().eq(["<d>", "<e>"]), "in their order");
}

#[test]
fn rfc_9111_3_2_what_describes_the_stored_bytes_is_never_updated() {
    let mut stored = headers(&[(CONTENT_LENGTH, "4"), (CONTENT_ENCODING, "br"), (DATE, LATER)]);
    let update = headers(&[
        (CONTENT_LENGTH, "0"),
        (CONTENT_ENCODING, "gzip"),
        (CONTENT_RANGE, "bytes 0-1/4"),
        (TRANSFER_ENCODING, "chunked"),
        (TRAILER, "x-sum"),
        (TE, "trailers"),
        (X_CACHE, "MISS"),
        (HeaderName::from_static("proxy-authentication-info"), "x"),
        (DATE, LATER),
    ]);
    assert_eq!(merge(&stored, &update, NOW), stored);
    stored.remove(CONTENT_ENCODING);
    assert_eq!(merge(&stored, &update, NOW), stored, "nor added");
}

#[test]
fn rfc_9111_3_1_what_belongs_to_a_connection_is_not_taken_over() {
    let x = |name| HeaderName::from_static(name);
    let stored = headers(&[(x("x-a"), "1"), (CACHE_CONTROL, "max-age=1"), (DATE, LATER)]);
    let update = headers(&[
        (CONNECTION, "close, x-a, x-b, set-cookie, cache-control"),
        (x("x-a"), "2"),
        (x("x-b"), "2"),
        (SET_COOKIE, "a=1"),
        (CACHE_CONTROL, "no-store"),
        (x("keep-alive"), "timeout=5"),
        (x("proxy-connection"), "keep-alive"),
        (x("proxy-authenticate"), "Basic"),
        (x("upgrade"), "h2c"),
        (DATE, LATER),
    ]);
    let expected = headers(&[(x("x-a"), "1"), (CACHE_CONTROL, "no-store"), (DATE, LATER)]);
    assert_eq!(
        merge(&stored, &update, NOW),
        expected,
        "a Connection that names Cache-Control must not hide a no-store"
    );
}

#[test]
fn rfc_9110_6_6_1_an_update_without_a_valid_date_is_dated_now() {
    let stored = headers(&[(DATE, OLD), (DATE, OLD)]);
    for update in [&[][..], &[(DATE, "today")], &[(DATE, "")]] {
        assert_eq!(merge(&stored, &headers(update), NOW), headers(&[(DATE, LATER)]), "{update:?}");
    }
    assert_eq!(merge(&stored, &headers(&[(DATE, MODIFIED)]), NOW), headers(&[(DATE, MODIFIED)]));
    let two = headers(&[(DATE, MODIFIED), (DATE, LATER)]);
    assert_eq!(merge(&stored, &two, NOW), two, "the age arithmetic takes the stricter of two");
    assert_eq!(
        merge(&stored, &HeaderMap::new(), Wall(u64::MAX))[DATE],
        "Fri, 31 Dec 9999 23:59:59 GMT"
    );
}

#[test]
fn rfc_9110_6_6_1_a_dated_response_can_be_revalidated_by_its_last_modified() {
    let mut response = headers(&[(LAST_MODIFIED, OLD)]);
    assert!(!add_conditions(&response, &mut HeaderMap::new()));
    ensure_date(&mut response, NOW);
    assert_eq!(response, headers(&[(LAST_MODIFIED, OLD), (DATE, LATER)]));
    assert!(add_conditions(&response, &mut HeaderMap::new()));
    ensure_date(&mut response, NOW.after(Duration::from_hours(1)));
    assert_eq!(response[DATE], LATER, "a valid one stays");
}

#[test]
fn the_places_of_a_ready_head_are_not_taken_for_the_apps_fields() {
    let own = headers(&[(ETAG, "\"a\""), (DATE, LATER)]);
    let mut ready = own.clone();
    prepare(&mut ready);
    let update = headers(&[(DATE, LATER)]);
    assert_eq!(merge(&ready, &update, NOW), own);
    let aged = headers(&[(DATE, LATER), (AGE, "7")]);
    assert_eq!(merge(&ready, &aged, NOW)[AGE], "7", "the update's age is its own");
    let mut upstream = headers(&[(CACHE_STATUS, "origin; hit"), (DATE, LATER)]);
    prepare(&mut upstream);
    assert_eq!(merge(&upstream, &update, NOW)[CACHE_STATUS], "origin; hit");
}

#[test]
fn what_an_update_forbids_stands_in_the_result_for_admit_to_see() {
    let stored = headers(&[(CACHE_CONTROL, "max-age=5"), (DATE, OLD)]);
    let update =
        headers(&[(CACHE_CONTROL, "no-store"), (SET_COOKIE, "a=1"), (VARY, "*"), (DATE, LATER)]);
    assert_eq!(merge(&stored, &update, NOW), update);
}

#[test]
fn rfc_9111_4_3_5_a_head_agrees_when_all_it_says_is_as_stored() {
    let stored = headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, MODIFIED), (CONTENT_LENGTH, "4")]);
    let cases: [(HeaderFields<'_>, HeadVerdict); 14] = [
        (&[(ETAG, "\"a\"")], HeadVerdict::Same),
        (&[(ETAG, "\"a\""), (LAST_MODIFIED, MODIFIED), (CONTENT_LENGTH, "4")], HeadVerdict::Same),
        (&[(LAST_MODIFIED, MODIFIED_850)], HeadVerdict::Same),
        (&[(ETAG, "\"b\"")], HeadVerdict::Other),
        (&[(ETAG, "W/\"a\"")], HeadVerdict::Other),
        (&[(ETAG, "\"a\""), (ETAG, "\"b\"")], HeadVerdict::Other),
        (&[(ETAG, "\"a\""), (LAST_MODIFIED, LATER)], HeadVerdict::Other),
        (&[(LAST_MODIFIED, "yesterday")], HeadVerdict::Other),
        (&[(ETAG, "\"a\""), (CONTENT_LENGTH, "5")], HeadVerdict::Other),
        (&[(ETAG, "\"a\""), (CONTENT_LENGTH, "many")], HeadVerdict::Other),
        (&[(ETAG, "\"a\""), (CONTENT_LENGTH, "4"), (CONTENT_LENGTH, "4")], HeadVerdict::Other),
        (&[(CONTENT_LENGTH, "5")], HeadVerdict::Other),
        (&[(CONTENT_LENGTH, "4")], HeadVerdict::Unknown),
        (&[(CACHE_CONTROL, "max-age=1000")], HeadVerdict::Unknown),
    ];
    for (head, expected) in cases {
        assert_eq!(head_agrees(&stored, &headers(head)), expected, "{head:?}");
    }
    let plain = headers(&[(CONTENT_LENGTH, "4")]);
    assert_eq!(
        head_agrees(&plain, &headers(&[(ETAG, "\"a\"")])),
        HeadVerdict::Other,
        "a validator that was not there before"
    );
    assert_eq!(head_agrees(&plain, &headers(&[(LAST_MODIFIED, OLD)])), HeadVerdict::Other);
    assert_eq!(
        head_agrees(&HeaderMap::new(), &headers(&[(CONTENT_LENGTH, "4")])),
        HeadVerdict::Other
    );
}

const NAMES: [HeaderName; 18] = [
    AGE,
    CACHE_CONTROL,
    CACHE_STATUS,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    LINK,
    SET_COOKIE,
    TRANSFER_ENCODING,
    VARY,
    WARNING,
    X_CACHE,
];

fn head() -> impl Strategy<Value = HeaderMap> {
    let known = prop::sample::select(vec![
        "",
        "0",
        "4",
        "\"a\"",
        "W/\"a\"",
        "\"b\"",
        "abc",
        OLD,
        MODIFIED,
        MODIFIED_850,
        LATER,
        "link",
        "link, x, etag",
        "chunked",
    ]);
    let bytes = prop::collection::vec(any::<u8>(), 0..12);
    let value = prop_oneof![
        4 => known.prop_map(HeaderValue::from_static),
        1 => bytes.prop_filter_map("bytes that no header can hold", |bytes| {
            HeaderValue::from_bytes(&bytes).ok()
        }),
    ];
    prop::collection::vec((prop::sample::select(NAMES.to_vec()), value), 0..12)
        .prop_map(|fields| fields.into_iter().collect())
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a HeaderValue> {
    headers.get_all(name).iter().collect()
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(stored in head(), update in head(), now in any::<u64>()) {
        let once = merge(&stored, &update, Wall(now));
        prop_assert_eq!(merge(&once, &update, Wall(now)), once);
    }

    #[test]
    fn merging_never_changes_how_the_body_is_framed(stored in head(), update in head()) {
        let merged = merge(&stored, &update, NOW);
        for name in [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING, TRAILER] {
            prop_assert_eq!(lines(&merged, &name), lines(&stored, &name));
        }
    }

    #[test]
    fn merging_keeps_what_the_update_does_not_name_and_takes_what_it_names(
        stored in head(),
        update in head(),
    ) {
        let merged = merge(&stored, &update, NOW);
        let named: Vec<String> = lines(&update, &CONNECTION)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
            .collect();
        let is_updated = |name: &&HeaderName| {
            // `Vary` keeps what it named before.
            !NEVER_UPDATED.contains(name) && ![DATE, CONNECTION, VARY].contains(name)
        };
        for name in NAMES.iter().filter(is_updated) {
            let own: Vec<_> =
                lines(&stored, name).into_iter().filter(|value| is_own(name, value)).collect();
            if !update.contains_key(name) {
                prop_assert_eq!(lines(&merged, name), own);
            } else if !named.iter().any(|line| line.to_ascii_lowercase().contains(name.as_str())) {
                prop_assert_eq!(lines(&merged, name), lines(&update, name));
            }
        }
        prop_assert!(
            merged.get_all(DATE).iter().any(|date| parse_date(date).is_some()),
            "a stored response has a date"
        );
    }

    #[test]
    fn a_response_validates_itself_and_agrees_with_itself(mut stored in head()) {
        // A repeated field is ambiguous, so only one line of each is compared.
        for name in [ETAG, LAST_MODIFIED, CONTENT_LENGTH] {
            if let Some(value) = stored.remove(&name) {
                stored.insert(name, value);
            }
        }
        prop_assert!(validates(&stored, &stored));
        if length(&stored).is_some() || !stored.contains_key(CONTENT_LENGTH) {
            prop_assert_ne!(head_agrees(&stored, &stored), HeadVerdict::Other);
        }
    }

    #[test]
    fn a_304_with_another_strong_entity_tag_validates_nothing(
        stored in head(),
        update in head(),
        tag in "[c-z]{1,8}",
    ) {
        let mut update = update;
        update.insert(ETAG, HeaderValue::from_str(&format!("\"{tag}\"")).unwrap());
        let named = add_conditions(&stored, &mut HeaderMap::new());
        if !named || EntityTag::from_headers(&stored).is_some() {
            prop_assert!(!validates(&stored, &update));
        }
    }

    #[test]
    fn what_is_sent_is_what_is_stored(stored in head(), request in head()) {
        let mut request = request;
        request.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
        let any = add_conditions(&stored, &mut request);
        prop_assert!(!request.contains_key(RANGE));
        prop_assert_eq!(
            any,
            request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE)
        );
        for (sent, from) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
            if request.contains_key(&sent) {
                prop_assert_eq!(lines(&request, &sent), lines(&stored, &from));
            }
        }
    }
}

#[test]
fn an_update_never_makes_a_response_vary_on_less() {
    let stored = headers(&[(VARY, "accept-encoding, cookie")]);
    let vary = |update: HeaderFields<'_>| {
        let merged = merge(&stored, &headers(update), NOW);
        lines(&merged, &VARY)
            .iter()
            .map(|line| line.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(vary(&[]), ["accept-encoding, cookie"]);
    assert_eq!(vary(&[(VARY, "cookie")]), ["accept-encoding, cookie", "cookie"]);
    assert_eq!(vary(&[(VARY, "accept-encoding, cookie")]), ["accept-encoding, cookie"]);
}
