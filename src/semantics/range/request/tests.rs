//! Tests of requested ranges, rule by rule.

use super::*;

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const MOST: usize = 8;

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, text)| (name.clone(), HeaderValue::from_bytes(text.as_bytes()).unwrap()))
        .collect()
}

fn requested(field: &str, length: usize) -> RequestedRange {
    requested_range(&headers(&[(RANGE, field)]), &HeaderMap::new(), length, MOST)
}

fn several(ranges: &[Range<usize>]) -> RequestedRange {
    RequestedRange::Several(ranges.iter().cloned().collect())
}

/// The range of `bytes=0-0` under these conditions, with these stored fields.
fn conditional(conditions: &[&str], stored: &[(HeaderName, &str)]) -> RequestedRange {
    let mut request =
        headers(&conditions.iter().map(|condition| (IF_RANGE, *condition)).collect::<Vec<_>>());
    request.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
    requested_range(&request, &headers(stored), 10, MOST)
}

#[test]
fn one_range_is_clipped_to_the_body() {
    for (field, range) in [
        ("bytes=0-0", 0..1),
        ("bytes=2-5", 2..6),
        ("bytes=9-9", 9..10),
        ("bytes=2-", 2..10),
        ("bytes=0-", 0..10),
        ("bytes=2-99", 2..10),
        ("bytes=0-99999999999999999999999999", 0..10),
        ("bytes=-3", 7..10),
        ("bytes=-10", 0..10),
        ("bytes=-11", 0..10),
        ("bytes=-99999999999999999999999999", 0..10),
        ("bytes=0000000000000000000000000002-05", 2..6),
        ("BYTES=2-5", 2..6),
        ("bYtEs= 2-5", 2..6),
        ("bytes=,2-5 ,\t, ", 2..6),
    ] {
        assert_eq!(requested(field, 10), RequestedRange::One(range), "{field}");
    }
}

#[test]
fn what_cannot_be_read_is_ignored() {
    for field in [
        "",
        "bytes",
        "bytes=",
        "bytes= ,, ",
        "bytes=-",
        "bytes=5",
        "bytes=5-2",
        "bytes=0-1,5-2",
        "bytes=5-2,0-1",
        "bytes=--2",
        "bytes=-2-",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1-+2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes=1-2 3-4",
        "bytes=1-2;3-4",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=1.0-2",
        "bytes=\u{661}-",
        "bytes=0-1,x",
        "bytes =0-1",
        "bytes:0-1",
        "bytes 0-1",
        "=0-1",
        "0-1",
        "seconds=0-1",
        "byte=0-1",
        "bytess=0-1",
    ] {
        assert_eq!(requested(field, 10), RequestedRange::Whole, "{field:?}");
    }
    assert_eq!(
        requested_range(&HeaderMap::new(), &HeaderMap::new(), 10, MOST),
        RequestedRange::Whole,
        "no field at all"
    );
    let twice = headers(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=0-1")]);
    assert_eq!(
        requested_range(&twice, &HeaderMap::new(), 10, MOST),
        RequestedRange::Whole,
        "two lines"
    );
}

#[test]
fn what_the_body_does_not_have_is_unsatisfiable() {
    for field in [
        "bytes=10-",
        "bytes=10-20",
        "bytes=-0",
        "bytes=99999999999999999999999999-",
        "bytes=10-,-0,77-78",
    ] {
        assert_eq!(requested(field, 10), RequestedRange::Unsatisfiable, "{field}");
    }
    assert_eq!(
        requested("bytes=10-,3-4,-0", 10),
        RequestedRange::One(3..5),
        "one that is there is enough"
    );
    assert_eq!(
        requested("bytes=10-,x", 10),
        RequestedRange::Whole,
        "and an invalid one spoils all"
    );
}

#[test]
fn an_empty_body_has_no_range_to_give() {
    for field in ["bytes=0-", "bytes=0-0", "bytes=-0", "bytes=0-,5-"] {
        assert_eq!(requested(field, 0), RequestedRange::Unsatisfiable, "{field}");
    }
    for field in ["bytes=-1", "bytes=-5,-6", "bytes=0-,-5"] {
        assert_eq!(
            requested(field, 0),
            RequestedRange::Whole,
            "{field}: a suffix of nothing is all there is"
        );
    }
}

#[test]
fn several_ranges_keep_their_order_and_are_sent_once() {
    for (field, ranges) in [
        ("bytes=0-1,4-5", &[0..2, 4..6][..]),
        ("bytes=4-5,0-1", &[4..6, 0..2]),
        ("bytes=0-0,2-2,4-4,6-6", &[0..1, 2..3, 4..5, 6..7]),
        ("bytes=-2,0-1", &[8..10, 0..2]),
        ("bytes=8-,0-1,77-", &[8..10, 0..2]),
        ("bytes=6-7,0-1,7-8", &[6..9, 0..2]),
        ("bytes=6-7,0-1,4-5", &[4..8, 0..2]),
        ("bytes=0-1,0-1,5-5,0-1", &[0..2, 5..6]),
        ("bytes=4-4,0-0,8-8,1-3", &[0..5, 8..9]),
    ] {
        assert_eq!(requested(field, 10), several(ranges), "{field}");
    }
    for (field, range) in [
        ("bytes=0-1,2-3", 0..4),
        ("bytes=2-3,0-1", 0..4),
        ("bytes=0-5,3-8", 0..9),
        ("bytes=0-8,3-4", 0..9),
        ("bytes=0-,0-,0-,0-,0-,0-,0-,0-", 0..10),
        ("bytes=0-0,-1,1-8", 0..10),
    ] {
        assert_eq!(requested(field, 10), RequestedRange::One(range), "{field}");
    }
}

#[test]
fn more_ranges_than_the_limit_are_ignored() {
    let field = |count: usize| format!("bytes={}", vec!["3-4"; count].join(","));
    assert_eq!(requested(&field(MOST), 10), RequestedRange::One(3..5));
    assert_eq!(requested(&field(MOST + 1), 10), RequestedRange::Whole);
    assert_eq!(requested(&format!("{},x", field(MOST + 1)), 10), RequestedRange::Whole);
    assert_eq!(
        requested_range(&headers(&[(RANGE, "bytes=0-0")]), &HeaderMap::new(), 10, 0),
        RequestedRange::Whole
    );
}

#[test]
fn many_small_parts_are_sent_only_where_that_saves_something() {
    let field = "bytes=0-0,2-2,4-4,6-6,8-8";
    let enough = 5 + 5 * PART_OVERHEAD;
    assert_eq!(requested(field, 10), RequestedRange::Whole);
    assert_eq!(requested(field, enough), RequestedRange::Whole);
    assert_eq!(requested(field, enough + 1), several(&[0..1, 2..3, 4..5, 6..7, 8..9]));
}

#[test]
fn coded_content_is_not_sent_in_several_parts() {
    let stored = headers(&[(CONTENT_ENCODING, "gzip")]);
    let ask = |field| requested_range(&headers(&[(RANGE, field)]), &stored, 10, MOST);
    assert_eq!(ask("bytes=0-0,5-5"), RequestedRange::Whole);
    assert_eq!(ask("bytes=0-0,1-1"), RequestedRange::One(0..2));
}

#[test]
fn if_range_compares_entity_tags_strongly() {
    let stored = [(ETAG, "\"abc\""), (LAST_MODIFIED, MODIFIED), (DATE, LATER)];
    assert_eq!(conditional(&["\"abc\""], &stored), RequestedRange::One(0..1));
    for conditions in [
        &["\"abd\""][..],
        &["W/\"abc\""],
        &["w/\"abc\""],
        &["\"abc"],
        &["\"abc\"x"],
        &["\"abc\", \"abc\""],
        &["abc"],
        &["*"],
        &[""],
        &["\"abc\"", "\"abc\""],
    ] {
        assert_eq!(conditional(conditions, &stored), RequestedRange::Whole, "{conditions:?}");
    }
    for stored in [
        &[][..],
        &[(ETAG, "W/\"abc\"")],
        &[(ETAG, "abc")],
        &[(ETAG, "\"abc")],
        &[(ETAG, "\"abc\""), (ETAG, "\"abc\"")],
    ] {
        assert_eq!(conditional(&["\"abc\""], stored), RequestedRange::Whole, "{stored:?}");
        assert_eq!(conditional(&["W/\"abc\""], stored), RequestedRange::Whole, "weak, {stored:?}");
        assert_eq!(conditional(&["\"abc"], stored), RequestedRange::Whole, "malformed, {stored:?}");
    }
    assert_eq!(
        conditional(&["\"\""], &[(ETAG, "\"\"")]),
        RequestedRange::One(0..1),
        "an opaque part may be empty"
    );
}

#[test]
fn if_range_wants_the_very_date_and_a_strong_one() {
    let stored = [(LAST_MODIFIED, MODIFIED), (DATE, LATER)];
    for condition in [MODIFIED, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(conditional(&[condition], &stored), RequestedRange::One(0..1), "{condition}");
    }
    for conditions in [
        &[LATER][..],
        &["Sun, 06 Nov 1994 08:49:36 GMT"],
        &["yesterday"],
        &["0"],
        &[MODIFIED, MODIFIED],
    ] {
        assert_eq!(conditional(conditions, &stored), RequestedRange::Whole, "{conditions:?}");
    }
    for stored in [
        &[(DATE, LATER)][..],
        &[(LAST_MODIFIED, MODIFIED)],
        &[(LAST_MODIFIED, MODIFIED), (DATE, MODIFIED)],
        &[(LAST_MODIFIED, MODIFIED), (DATE, "Sun, 06 Nov 1994 08:49:36 GMT")],
        &[(LAST_MODIFIED, MODIFIED), (DATE, "junk")],
        &[(LAST_MODIFIED, MODIFIED), (LAST_MODIFIED, MODIFIED), (DATE, LATER)],
        &[(LAST_MODIFIED, MODIFIED), (DATE, LATER), (DATE, LATER)],
    ] {
        assert_eq!(conditional(&[MODIFIED], stored), RequestedRange::Whole, "{stored:?}");
    }
    assert_eq!(
        conditional(&["yesterday"], &[(LAST_MODIFIED, "yesterday"), (DATE, LATER)]),
        RequestedRange::Whole,
        "not dates, though equal"
    );
}

#[test]
fn a_false_if_range_comes_before_a_range_that_is_not_there() {
    let stored = headers(&[(ETAG, "\"abc\"")]);
    for (condition, expected) in
        [("\"abc\"", RequestedRange::Unsatisfiable), ("\"xyz\"", RequestedRange::Whole)]
    {
        assert_eq!(
            requested_range(
                &headers(&[(RANGE, "bytes=10-"), (IF_RANGE, condition)]),
                &stored,
                10,
                MOST
            ),
            expected
        );
    }
    assert_eq!(
        requested_range(&headers(&[(IF_RANGE, "\"abc\"")]), &stored, 10, MOST),
        RequestedRange::Whole,
        "without a Range there is nothing to judge"
    );
}

#[test]
fn only_a_valid_content_range_gives_the_complete_length() {
    for (field, length) in [
        ("bytes 0-1/9", Some(9)),
        ("BYTES 8-8/9", Some(9)),
        ("bytes 0-1/18446744073709551615", Some(u64::MAX)),
        ("bytes 0-1/18446744073709551616", None),
        ("bytes 0-1/*", None),
        ("bytes */9", None),
        ("bytes 0-9/9", None),
        ("bytes 2-1/9", None),
        ("bytes 0-1/+9", None),
        ("bytes +0-1/9", None),
        ("bytes 0-1/", None),
        ("bytes -1/9", None),
        ("bytes 0-/9", None),
        ("bytes  0-1/9", None),
        ("bytes=0-1/9", None),
        ("bytes 0-1/9, bytes 3-4/9", None),
        ("items 0-1/9", None),
        ("bytes \u{fc}", None),
        ("", None),
    ] {
        assert_eq!(complete_length(&headers(&[(CONTENT_RANGE, field)])), length, "{field:?}");
    }
    assert_eq!(complete_length(&HeaderMap::new()), None);
    assert_eq!(
        complete_length(&headers(&[
            (CONTENT_RANGE, "bytes 0-1/9"),
            (CONTENT_RANGE, "bytes 0-1/9")
        ])),
        None
    );
}
