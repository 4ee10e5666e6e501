//! Tests of the scanner: what it finds, however the bytes are split, and that hyper finds the ends
//! of messages at the same places.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// The number of the request with two lengths.
fn flawed(bytes: &[u8]) -> Option<u32> {
    let found = Scanner::new().feed(bytes).flawed?;
    assert_eq!(found.flaw, HeadFlaw::TwoLengths);
    Some(found.number)
}

/// Scans these bytes in one read, in two at every place, and byte by byte; all must find the same.
fn scan(bytes: &[u8]) -> (Option<FlawedHead>, u32, StreamPosition) {
    let read = |pieces: &[&[u8]]| {
        let mut scanner = Scanner::new();
        let found = pieces.iter().fold(None, |found, piece| scanner.feed(piece).flawed.or(found));
        (found, scanner.heads(), scanner.position())
    };
    let whole = read(&[bytes]);
    for at in 0..bytes.len() {
        assert_eq!(read(&[&bytes[..at], &bytes[at..]]), whole, "split at {at}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    whole
}

#[test]
fn both_headers_are_seen_in_either_order_case_and_line_end() {
    assert_eq!(
        flawed(b"POST / HTTP/1.1\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Some(0)
    );
    assert_eq!(
        flawed(b"POST / HTTP/1.1\nTRANSFER-ENCODING:chunked\nContent-Length:5\n\n"),
        Some(0)
    );
    assert_eq!(
        flawed(b"\r\nPOST / HTTP/1.1\r\ntransfer-encoding: x\r\nX: y\r\ncontent-length: \r\n\r\n"),
        Some(0)
    );
}

#[test]
fn one_of_them_or_a_name_that_only_looks_alike_is_fine() {
    assert_eq!(flawed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), None);
    assert_eq!(flawed(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"), None);
    assert_eq!(
        flawed(b"POST / HTTP/1.1\r\ncontent-lengthy: 5\r\ntransfer-encoding: chunked\r\n\r\n"),
        None
    );
    assert_eq!(
        flawed(b"POST / HTTP/1.1\r\nx: transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n"),
        None
    );
}

#[test]
fn every_split_of_the_bytes_finds_the_same() {
    let bytes = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: \
        12\r\n\r\n\r\n\r\nGET / HTPPOST /3 HTTP/1.1\r\nX-Long: \
        0123456789012345678901234567890123456789012345678901234567890123456789\r\n\
        Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            let mut scanner = Scanner::new();
            let found = [&bytes[..first], &bytes[first..second], &bytes[second..]]
                .into_iter()
                .fold(None, |found, piece| scanner.feed(piece).flawed.or(found));
            let expected = FlawedHead { number: 2, flaw: HeadFlaw::TwoLengths };
            assert_eq!(found, Some(expected), "split at {first} and {second}");
            assert_eq!(scanner.position(), StreamPosition::Body);
        }
    }
}

#[test]
fn a_body_that_looks_like_a_head_is_skipped() {
    let body = "x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let message = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut scanner = Scanner::new();
    assert_eq!(scanner.feed(message.as_bytes()).flawed, None);
    assert_eq!(scanner.position(), StreamPosition::Between);
}

#[test]
fn behind_a_chunked_body_the_next_head_is_seen_in_the_same_read() {
    let bad = "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "2;ext=1\r\n\r\n\r\n00\r\n\r\n",
        "A \t\r\n0123456789\r\n0\r\nX-End: 1\r\nY: 2\r\n\r\n",
    ] {
        let first = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (found, heads, _) = scan(format!("{first}{body}{bad}").as_bytes());
        assert_eq!(found, Some(FlawedHead { number: 1, flaw: HeadFlaw::TwoLengths }), "{body:?}");
        assert_eq!(heads, 2);
    }
}

#[test]
fn a_chunked_body_that_hyper_rejects_is_the_end() {
    for body in ["x\r\n", "\r\n", "1\n", "1;\n", "1\r\nab", "0\r\n\rX", "1 1\r\n"] {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let next = "GET /#x HTTP/1.1\r\n\r\n";
        let (found, heads, place) = scan(format!("{head}{body}{next}").as_bytes());
        assert_eq!((found, heads, place), (None, 1, StreamPosition::Body), "{body:?}");
    }
}

#[test]
fn a_fragment_is_seen_wherever_it_is_in_the_target() {
    let long = "x".repeat(200);
    for target in
        ["http://a.test#f", "/dav/x/#y", "/a#b", "/#", "*#", "#", &format!("/{long}#"), "/?a=1#b"]
    {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (found, heads, place) = scan(format!("GET / HTTP/1.1\r\n\r\n{head}").as_bytes());
        assert_eq!(found, Some(FlawedHead { number: 1, flaw: HeadFlaw::Fragment }), "{target}");
        assert_eq!((heads, place), (2, StreamPosition::Body));
    }
}

#[test]
fn the_character_of_a_fragment_is_harmless_elsewhere() {
    for head in [
        "G#T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%23 HTTP/1.1\r\nHost: a\r\nX: #\r\nReferer: /a#b\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\n#: #\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /#x \r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;#\r\n/#x\r\n0\r\n#: #\r\n\r\n",
    ] {
        let (found, heads, _) = scan(format!("{head}GET / HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!((found, heads), (None, 2), "{head:?}");
    }
}

#[test]
fn nothing_behind_the_first_flawed_head_is_a_request() {
    let bytes = b"GET /#1 HTTP/1.1\r\n\r\nGET /#2 HTTP/1.1\r\n\r\nGET /#3 HTTP/1.1\r\n\r\n";
    let (found, heads, _) = scan(bytes);
    assert_eq!(found, Some(FlawedHead { number: 0, flaw: HeadFlaw::Fragment }));
    assert_eq!(heads, 1);
}

#[test]
fn a_length_behind_much_white_space_is_unclear_however_it_arrives() {
    let spaces = " ".repeat(KEPT_BYTES);
    let bytes = format!("POST / HTTP/1.1\r\nContent-Length:{spaces}5\r\n\r\nabcdeGET / HTTP");
    assert_eq!(scan(bytes.as_bytes()), (None, 1, StreamPosition::Body));
}

#[test]
fn places_tell_idle_from_a_half_sent_head() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.position(), StreamPosition::Between);
    scanner.feed(b"P");
    assert_eq!(scanner.position(), StreamPosition::Head);
    scanner.feed(b"UT / HTTP/1.1\r\n");
    assert_eq!(scanner.position(), StreamPosition::Head);
    scanner.feed(b"\r\n");
    assert_eq!(scanner.position(), StreamPosition::Between);
    scanner.feed(b"\r\n");
    assert_eq!(
        scanner.position(),
        StreamPosition::Between,
        "an empty line between requests is not a request"
    );
}

#[test]
fn the_preface_of_http2_ends_the_watch() {
    let mut scanner = Scanner::new();
    scanner.feed(&PREFACE[..10]);
    scanner.feed(&PREFACE[10..]);
    assert_eq!(scanner.position(), StreamPosition::Opaque);
    let rest = b"GET /\xff\r\ncontent-length:1\r\ntransfer-encoding:x\r\n\r\n";
    assert_eq!(scanner.feed(rest), ReadScan::default());
}

/// The methods of the requests that hyper finds in these bytes.
fn methods_by_hyper(bytes: &[u8]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let bytes = bytes.to_vec();
    runtime.block_on(async move {
        let found = Mutex::new(Vec::new());
        let seen = &found;
        let service = service_fn(|request: Request<Incoming>| {
            seen.lock().push(request.method().to_string());
            async move {
                // A body that breaks off ends the connection.
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let serving =
            http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service);
        let client = async {
            near.write_all(&bytes).await.expect("there is room");
            near.shutdown().await.expect("a duplex can be closed");
            let mut answers = Vec::new();
            let _ = near.read_to_end(&mut answers).await;
        };
        let _ = tokio::join!(serving, client);
        found.into_inner()
    })
}

/// A message whose method is its number, or a part that does not fit.
fn pieces() -> impl Strategy<Value = Vec<String>> {
    let target = prop_oneof![
        4 => Just("/a"), 1 => Just("/a#b"), 1 => Just("http://a.test#"), 1 => Just("/?q#")
    ];
    let chunk = prop_oneof![
        Just("3\r\nabc\r\n"),
        Just("5;e=\"#\"\r\nGET /\r\n"),
        Just("0a \r\n0123456\r\n9\r\n"),
        Just("4\r\n0\r\n\r\r\n"),
        Just("2\r\n\r\n\r\n"),
        Just("1\t;x\r\n\n\r\n"),
        Just("1\n#\r\n"),
        Just("10000000000000000\r\n"),
        Just("-1\r\n"),
        Just("1;\n\r\n#\r\n"),
    ];
    let end = prop_oneof![
        4 => Just("0\r\n\r\n"), 1 => Just("000;x\r\nA: b\r\n\r\n"), 1 => Just("0\r\n\n\r\n\r\n"),
        1 => Just("0\r\nA: b\n\r\n\r\n"), 1 => Just("0\r\n\rX"), 1 => Just(""),
    ];
    let body = prop_oneof![
        3 => Just("\r\n".to_owned()),
        2 => (0..12usize).prop_map(|length| {
            format!("Content-Length: {length}\r\n\r\n{}", &"GET /#x HTTP/1.1"[..length])
        }),
        3 => (proptest::collection::vec(chunk, 0..3), end).prop_map(|(chunks, end)| {
            format!("Transfer-Encoding: chunked\r\n\r\n{}{end}", chunks.concat())
        }),
    ];
    proptest::collection::vec((target, body), 1..5).prop_map(|messages| {
        let number = |(number, (target, body)): (usize, (&str, String))| {
            format!(
                "M{number}{} {target} HTTP/1.1\r\nHost: a\r\n{body}",
                if target.contains('#') { "#" } else { "" }
            )
        };
        messages.into_iter().enumerate().map(number).collect()
    })
}

proptest! {
    /// The first request with a fragment that hyper serves is the one that the scanner finds, and
    /// every request up to it has been seen.
    #[test]
    fn hyper_serves_no_fragment_that_was_not_found(messages in pieces()) {
        let bytes = messages.concat();
        let served = methods_by_hyper(bytes.as_bytes());
        let (found, heads, _) = scan(bytes.as_bytes());
        let first = served.iter().position(|method| method.ends_with('#'));
        let found = found.map(|found| found.number as usize);
        // What hyper did not come to may be flawed as well.
        prop_assert_eq!(found.filter(|number| *number < served.len()), first, "{:?}", served);
        let until = first.map_or(served.len(), |first| first + 1);
        prop_assert!(heads as usize >= until, "{heads} heads, {served:?}");
    }
}

/// What heads, and what looks like them, are made of.
const WORDS: [&[u8]; 19] = [
    b"GET",
    b" ",
    b" /a",
    b"<",
    b"\xff",
    b"\"",
    b" HTTP/1.1",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Upgrade: x\r\n",
    b"\t",
    b"\r",
    b":",
    b"?",
    b"PRI * HTTP/2.0\r\n\r\n",
    b"\0",
];

/// What hyper is given for these reads.
fn carried(reads: &[&[u8]]) -> Vec<u8> {
    let (mut scanner, mut kept, mut out) = (Scanner::new(), Vec::new(), Vec::new());
    for read in reads {
        let bytes = [&kept[..], read].concat();
        let scan = scanner.feed(&bytes);
        let (whole, unfinished) = bytes.split_at(bytes.len() - scan.unfinished);
        out.extend(forward::escaped(whole, &scan.escapes));
        kept = unfinished.to_vec();
    }
    out
}

/// Messages whose targets have any bytes that a target can have, numbered by their methods.
fn raw_messages(target: impl Fn(&[u8]) -> Vec<u8>, parts: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let message = |(number, (rest, body)): (usize, &(Vec<u8>, Vec<u8>))| {
        let length = body.len();
        let head = format!(" HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        [format!("M{number} /").as_bytes(), &target(rest), head.as_bytes(), body].concat()
    };
    parts.iter().enumerate().flat_map(message).collect()
}

proptest! {
    /// Escaping makes hyper read the same messages as if the targets had been plain, whatever the
    /// targets and bodies hold, and it does not depend on how the bytes arrive.
    #[test]
    fn hyper_reads_the_same_messages_whatever_a_target_holds(
        parts in proptest::collection::vec((
            proptest::collection::vec(
                prop_oneof![
                    3 => 0x21..=0x7eu8, 3 => 0x80..=0xffu8, 1 => Just(b'?'), 1 => Just(0xc3)
                ].prop_filter("no fragment", |byte| *byte != b'#'),
                0..20,
            ),
            proptest::collection::vec(
                prop_oneof![Just(b' '), Just(b'<'), Just(b'\n'), Just(b'\r'), any::<u8>()], 0..20
            ),
        ), 1..4),
        splits in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
    ) {
        let raw = raw_messages(<[u8]>::to_vec, &parts);
        let mut places: Vec<usize> = splits.iter().map(|place| place.index(raw.len())).collect();
        places.sort_unstable();
        let ends = places.iter().copied().chain([raw.len()]);
        let starts = [0].into_iter().chain(places.iter().copied());
        let reads: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &raw[start..end]).collect();
        let whole = carried(&[&raw]);
        prop_assert_eq!(&carried(&reads), &whole);
        let plain = raw_messages(|_| b"a".to_vec(), &parts);
        prop_assert_eq!(methods_by_hyper(&whole), methods_by_hyper(&plain));
        let escaped = raw_messages(|rest| {
            let (mut places, mut in_query) = (Vec::new(), false);
            forward::find_refused(rest, &mut in_query, |at| places.push(at));
            forward::escaped(rest, &places)
        }, &parts);
        prop_assert_eq!(whole, escaped, "nothing but targets has changed");
    }

    /// Bytes that are no messages at all: what hyper serves with escapes, it serves without them,
    /// but for targets that it would refuse.
    #[test]
    fn escaping_makes_no_request_out_of_garbage(
        words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..24),
    ) {
        let raw = words.concat();
        let whole = carried(&[&raw]);
        for split in 0..raw.len() {
            let (head, tail) = raw.split_at(split);
            let pieces = carried(&[head, tail]);
            prop_assert!(whole.starts_with(&pieces), "split at {}", split);
        }
        let benign: Vec<u8> = raw
            .iter()
            .map(|byte| if matches!(byte, b'<' | b'"' | 0x80..) { b'x' } else { *byte })
            .collect();
        prop_assert_eq!(
            methods_by_hyper(&whole).len() <= methods_by_hyper(&benign).len(),
            true,
            "{:?}",
            String::from_utf8_lossy(&raw)
        );
    }
}
