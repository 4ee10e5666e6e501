//! Tests of the 206 and the 416, rule by rule; then what must hold for any request.

use http::header::{CONTENT_LOCATION, DATE, IF_RANGE, RANGE, VARY};
use proptest::prelude::*;

use super::*;
use crate::semantics::range::request::{MAX_FREE_PARTS, complete_length, requested_range};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const MOST: usize = 8;

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, text)| (name.clone(), HeaderValue::from_bytes(text.as_bytes()).unwrap()))
        .collect()
}

fn several(ranges: &[Range<usize>]) -> RequestedRange {
    RequestedRange::Several(ranges.iter().cloned().collect())
}

const STORED: [(HeaderName, &str); 12] = [
    (DATE, LATER),
    (CACHE_CONTROL, "max-age=60"),
    (ETAG, "\"abc\""),
    (EXPIRES, LATER),
    (CONTENT_LOCATION, "/x"),
    (VARY, "accept"),
    (LAST_MODIFIED, MODIFIED),
    (CONTENT_TYPE, "text/plain"),
    (CONTENT_LENGTH, "10"),
    (HeaderName::from_static("access-control-allow-origin"), "*"),
    (HeaderName::from_static("repr-digest"), "sha-256=:AA==:"),
    (HeaderName::from_static("cdn-cache-control"), "max-age=70"),
];

#[test]
fn the_whole_is_sent_as_it_is_stored() {
    let mut head = headers(&STORED);
    let body = Bytes::from_static(b"0123456789");
    let (status, pieces) = respond(&RequestedRange::Whole, &mut head, &body);
    assert_eq!((status, head, pieces), (StatusCode::OK, headers(&STORED), vec![body]));
}

#[test]
fn a_206_says_what_the_200_says_and_its_own_range() {
    let stale = [
        (CONTENT_RANGE, "bytes 1-2/3"),
        (CONTENT_DIGESTS[0].clone(), "sha-256=:AA==:"),
        (CONTENT_DIGESTS[1].clone(), "AA=="),
    ];
    let mut head = headers(&[&STORED[..], &stale].concat());
    let body = Bytes::from_static(b"0123456789");
    let (status, pieces) = respond(&RequestedRange::One(2..5), &mut head, &body);
    assert_eq!(
        (status, &pieces[..]),
        (StatusCode::PARTIAL_CONTENT, &[Bytes::from_static(b"234")][..])
    );
    assert_eq!(pieces[0].as_ptr(), body[2..].as_ptr(), "nothing is copied");
    let mut expected = headers(&STORED);
    expected.insert(CONTENT_LENGTH, HeaderValue::from(3));
    expected.insert(CONTENT_RANGE, HeaderValue::from_static("bytes 2-4/10"));
    assert_eq!(head, expected);

    let mut head = headers(&STORED);
    let (status, pieces) = respond(&RequestedRange::One(0..10), &mut head, &body);
    assert_eq!(
        (status, pieces),
        (StatusCode::PARTIAL_CONTENT, vec![body]),
        "a range that is the whole is still a range"
    );
    assert_eq!(head[CONTENT_RANGE], "bytes 0-9/10");
}

#[test]
fn a_416_says_the_length_and_nothing_of_the_content() {
    let mut head = headers(&STORED);
    let (status, pieces) =
        respond(&RequestedRange::Unsatisfiable, &mut head, &Bytes::from_static(b"0123456789"));
    assert_eq!((status, pieces.len()), (StatusCode::RANGE_NOT_SATISFIABLE, 0));
    let expected = [
        (DATE, LATER),
        (VARY, "accept"),
        (HeaderName::from_static("access-control-allow-origin"), "*"),
        (CONTENT_RANGE, "bytes */10"),
        (CONTENT_LENGTH, "0"),
        (CACHE_CONTROL, "no-store"),
    ];
    assert_eq!(head, headers(&expected));
}

#[test]
fn several_parts_are_a_multipart_to_the_letter() {
    let mut head = headers(&[&STORED[..], &[(CONTENT_RANGE, "bytes 1-2/3")]].concat());
    let (status, pieces) =
        respond(&several(&[7..9, 0..2]), &mut head, &Bytes::from_static(b"0123456789"));
    let content = String::from_utf8(pieces.concat()).unwrap();
    let boundary = head[CONTENT_TYPE]
        .to_str()
        .unwrap()
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/10\r\n\r\n78\
         \r\n--{boundary}\r\nContent-Type: text/plain\r\n\
         Content-Range: bytes 0-1/10\r\n\r\n01\r\n--{boundary}--\r\n"
    );
    assert_eq!((status, content), (StatusCode::PARTIAL_CONTENT, expected.clone()));
    assert_eq!(
        (boundary.len(), head[CONTENT_LENGTH].to_str().unwrap()),
        (32, &*expected.len().to_string())
    );
    assert!(!head.contains_key(CONTENT_RANGE));
    let text = |name| head[name].to_str().unwrap();
    assert_eq!((text(ETAG), text(CACHE_CONTROL), text(VARY)), ("\"abc\"", "max-age=60", "accept"));

    head.remove(CONTENT_TYPE);
    let (_, pieces) =
        respond(&several(&[7..9, 0..2]), &mut head, &Bytes::from_static(b"0123456789"));
    assert!(
        !String::from_utf8(pieces.concat()).unwrap().contains("Content-Type"),
        "a part has no type where the whole has none"
    );
}

fn boundary_of(head: &HeaderMap) -> String {
    head[CONTENT_TYPE].to_str().unwrap().split_once("boundary=").unwrap().1.to_owned()
}

#[test]
fn a_boundary_that_the_parts_contain_is_replaced() {
    let (requested, mut head) = (several(&[0..60, 70..90]), headers(&STORED));
    let _ = respond(&requested, &mut head, &Bytes::from(vec![b'x'; 90]));
    let first = boundary_of(&head);

    let mut hostile = vec![b'x'; 90];
    hostile[10..14].copy_from_slice(b"\r\n--");
    hostile[14..46].copy_from_slice(first.as_bytes());
    let (hostile, mut head) = (Bytes::from(hostile), headers(&STORED));
    let (_, pieces) = respond(&requested, &mut head, &hostile);
    assert_ne!(boundary_of(&head), first);
    assert_eq!(
        read_multipart(&boundary_of(&head), &pieces.concat()),
        parts_of(&[0..60, 70..90], &hostile)
    );

    let (requested, mut head) = (several(&[0..9, 60..90]), headers(&STORED));
    let _ = respond(&requested, &mut head, &hostile);
    assert_ne!(boundary_of(&head), first, "other ranges, another boundary");
}

#[test]
fn ranges_that_are_not_the_bodys_are_cut() {
    let body = Bytes::from_static(b"0123");
    for requested in [RequestedRange::One(2..9), RequestedRange::One(8..9), several(&[0..1, 3..9])]
    {
        let mut head = HeaderMap::new();
        let (_, pieces) = respond(&requested, &mut head, &body);
        assert_eq!(
            head[CONTENT_LENGTH].to_str().unwrap(),
            pieces.concat().len().to_string(),
            "{requested:?}"
        );
    }
}

/// Each part's `Content-Range` and content.
type PartList = Vec<(String, Vec<u8>)>;

fn parts_of(ranges: &[Range<usize>], body: &Bytes) -> PartList {
    let field =
        |range: &Range<usize>| format!("bytes {}-{}/{}", range.start, range.end - 1, body.len());
    ranges.iter().map(|range| (field(range), body[range.clone()].to_vec())).collect()
}

/// Parses a multipart as RFC 2046 5.1.1 defines it: between delimiters, each part has a head, an
/// empty line and content.
fn read_multipart(boundary: &str, content: &[u8]) -> PartList {
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter may be at the very start.
    let content = [b"\r\n", content].concat();
    let at: Vec<usize> = memmem::find_iter(&content, &delimiter).collect();
    assert_eq!((at[0], &content[at[at.len() - 1] + delimiter.len()..]), (0, &b"--\r\n"[..]));
    at.windows(2)
        .map(|pair| {
            let part = &content[pair[0] + delimiter.len()..pair[1]];
            let end = memmem::find(part, b"\r\n\r\n").unwrap();
            let head = std::str::from_utf8(&part[..end]).unwrap();
            let range =
                head.split("\r\n").find_map(|line| line.strip_prefix("Content-Range: ")).unwrap();
            (range.to_owned(), part[end + 4..].to_vec())
        })
        .collect()
}

/// The ranges that are sent.
fn sent(requested: &RequestedRange) -> Vec<Range<usize>> {
    match requested {
        RequestedRange::Whole | RequestedRange::Unsatisfiable => Vec::new(),
        RequestedRange::One(range) => vec![range.clone()],
        RequestedRange::Several(ranges) => ranges.to_vec(),
    }
}

/// A range-spec and the bytes it selects from a body of this length: a simple second implementation
/// of the RFC.
fn spec(length: usize) -> impl Strategy<Value = (String, Vec<usize>)> {
    prop_oneof![
        (0..length + 9, 0..length + 9).prop_map(move |(a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            (
                format!("{first}-{last}"),
                (0..length).filter(|at| (first..=last).contains(at)).collect(),
            )
        }),
        (0..length + 9).prop_map(move |first| (format!("{first}-"), (first..length).collect())),
        (0..length + 9).prop_map(move |suffix| (
            format!("-{suffix}"),
            (0..length).filter(|at| at + suffix >= length).collect()
        )),
    ]
}

/// A body and some range-specs for it.
fn specs() -> impl Strategy<Value = (Vec<u8>, Vec<(String, Vec<usize>)>)> {
    prop::collection::vec(prop_oneof![Just(b'-'), Just(b'\r'), Just(b'\n'), any::<u8>()], 1..900)
        .prop_flat_map(|body| {
            let length = body.len();
            (Just(body), prop::collection::vec(spec(length), 1..12))
        })
}

/// Any header value, often one that looks like a range, an entity-tag or a date.
fn field() -> impl Strategy<Value = HeaderValue> {
    let texts = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(bytes|BYTES|items)?=?[0-9, \t-]{0,40}".prop_map(String::into_bytes),
        "(W/)?\"[a-c]{0,2}\"?".prop_map(String::into_bytes),
        Just(MODIFIED.as_bytes().to_vec()),
        "bytes [0-9*]{0,3}-?[0-9]{0,3}/[0-9*]{0,21}".prop_map(String::into_bytes),
    ];
    texts.prop_filter_map("a header value", |text| HeaderValue::from_bytes(&text).ok())
}

proptest! {
    #[test]
    fn no_field_makes_a_panic_or_a_part_outside_the_body(
        range in field(),
        if_range in prop::option::of(field()),
        etag in field(),
        body in prop::collection::vec(any::<u8>(), 0..600),
        most in 0_usize..6,
    ) {
        let (body, mut request, mut stored) =
            (Bytes::from(body), HeaderMap::new(), headers(&STORED));
        request.insert(RANGE, range.clone());
        request.extend(if_range.map(|condition| (IF_RANGE, condition)));
        stored.insert(ETAG, etag);
        let requested = requested_range(&request, &stored, body.len(), most);
        let ranges = sent(&requested);
        prop_assert!(ranges.len() <= most);
        prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= body.len()));
        prop_assert!(ranges.iter().map(Range::len).sum::<usize>() <= body.len());
        let (_, pieces) = respond(&requested, &mut stored, &body);
        prop_assert_eq!(
            stored[CONTENT_LENGTH].to_str().unwrap(),
            if requested == RequestedRange::Whole {
                "10".to_owned()
            } else {
                pieces.concat().len().to_string()
            }
        );

        let _ = complete_length(&HeaderMap::from_iter([(CONTENT_RANGE, range)]));
    }

    #[test]
    fn exactly_the_bytes_asked_for_are_sent_once_and_in_order((body, specs) in specs()) {
        let field = format!(
            "bytes={}",
            specs.iter().map(|(text, _)| &**text).collect::<Vec<_>>().join(" , ")
        );
        let (body, mut head) = (Bytes::from(body), headers(&STORED));
        let requested = requested_range(&headers(&[(RANGE, &field)]), &head, body.len(), MOST);
        let named: std::collections::BTreeSet<usize> =
            specs.iter().flat_map(|(_, named)| named).copied().collect();
        let ranges = sent(&requested);
        let (status, pieces) = respond(&requested, &mut head, &body);
        match &requested {
            RequestedRange::Whole => prop_assert!(specs.len() > MAX_FREE_PARTS && pieces == [body]),
            RequestedRange::Unsatisfiable => {
                prop_assert!(named.is_empty() && status == StatusCode::RANGE_NOT_SATISFIABLE);
            }
            RequestedRange::One(range) => prop_assert_eq!(pieces.concat(), &body[range.clone()]),
            RequestedRange::Several(_) => prop_assert_eq!(
                read_multipart(&boundary_of(&head), &pieces.concat()),
                parts_of(&ranges, &body)
            ),
        }
        if !ranges.is_empty() {
            prop_assert_eq!(status, StatusCode::PARTIAL_CONTENT);
            let bytes: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(bytes.len(), named.len(), "nothing twice");
            prop_assert_eq!(bytes.into_iter().collect::<std::collections::BTreeSet<_>>(), named);
            // Each part is at the position of the first spec that selects a byte of it.
            let places: Vec<_> = ranges
                .iter()
                .map(|range| {
                    specs.iter().position(|(_, named)| named.iter().any(|at| range.contains(at)))
                })
                .collect();
            prop_assert!(places.is_sorted());
        }
    }
}
