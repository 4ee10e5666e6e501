//! Watches the bytes of HTTP/1 request heads for what hyper does not report.
//!
//! Owns two findings: where in a message the connection is (see [`StreamPosition`]), and whether a
//! head carried both `Content-Length` and `Transfer-Encoding`. hyper drops the length of such a
//! message and serves it; the server rejects it (RFC 9112 section 6.1). This file parses nothing
//! else and changes nothing: hyper stays the parser. It must not know sockets, timers or services.

use memchr::memchr_iter;

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of a line is kept when a read ends inside it: enough for the longest name, and a length
/// with much white space.
const KEPT_BYTES: usize = 64;

/// Where in the stream of messages the last byte read was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamPosition {
    /// Between two messages.
    Between = 0,
    /// Inside a head.
    Head = 1,
    /// Inside a body, or after one whose end is not tracked.
    Body = 2,
    /// In a stream that is not HTTP/1: HTTP/2, or a tunnel.
    Opaque = 3,
}

/// What the server has done with the connection's requests when bytes arrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestProgress {
    /// Requests handed to the service so far.
    pub served: u32,
    /// Whether one of them is still being read or answered.
    pub busy: bool,
}

/// The watcher of one connection.
///
/// It follows pipelined requests, and skips bodies whose length is known. After a chunked body it
/// waits until the request has been answered and takes the next byte as the start of a head. A head
/// of which a part came in the same read as the end of a chunked body is therefore seen only in
/// part, and may carry both headers unnoticed. That is harmless: hyper obeys `Transfer-Encoding`,
/// closes the connection after the answer, so that no byte behind the message is taken for a
/// request, and the message gets new framing on its way to the origin.
#[derive(Debug)]
pub(super) struct Scanner {
    state: ScanState,
    /// The number of the head that is being watched, counted as the service's calls are.
    head: u32,
    /// Whether the request line has been seen: empty lines before it mean nothing (RFC 9112 section
    /// 2.2).
    started: bool,
    length: Length,
    transfer_encoded: bool,
    /// The start of the line that the last read ended in, and how long that line is so far.
    line_start: [u8; KEPT_BYTES],
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    Preface(usize),
    Head,
    Body(u64),
    Blind,
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Absent,
    Bytes(u64),
    Unclear,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self {
            state: ScanState::Preface(0),
            head: 0,
            started: false,
            length: Length::Absent,
            transfer_encoded: false,
            line_start: [0; KEPT_BYTES],
            line: 0,
        }
    }

    /// Scans the bytes of one read. Returns the number of the request that carries both headers,
    /// when its head ends here.
    pub(super) fn feed(&mut self, mut bytes: &[u8], progress: RequestProgress) -> Option<u32> {
        if self.state == ScanState::Blind && progress.served > self.head && !progress.busy {
            self.head = progress.served;
            self.state = ScanState::Head;
        }
        let mut flawed = None;
        while !bytes.is_empty() {
            match self.state {
                ScanState::Opaque | ScanState::Blind => break,
                ScanState::Head => bytes = self.head(bytes, &mut flawed),
                ScanState::Body(left) => {
                    let here =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let left = left - here as u64;
                    self.state = if left == 0 { ScanState::Head } else { ScanState::Body(left) };
                    bytes = &bytes[here..];
                }
                ScanState::Preface(matched) => bytes = self.preface(bytes, matched),
            }
        }
        flawed
    }

    /// Where the last byte was.
    pub(super) const fn position(&self) -> StreamPosition {
        match self.state {
            ScanState::Preface(0) => StreamPosition::Between,
            ScanState::Preface(_) => StreamPosition::Head,
            ScanState::Head if self.started || self.line > 0 => StreamPosition::Head,
            ScanState::Head => StreamPosition::Between,
            ScanState::Body(_) | ScanState::Blind => StreamPosition::Body,
            ScanState::Opaque => StreamPosition::Opaque,
        }
    }

    /// The first bytes of the connection, compared byte by byte as hyper-util does, so that both
    /// choose the same protocol.
    fn preface<'a>(&mut self, bytes: &'a [u8], matched: usize) -> &'a [u8] {
        let rest = &PREFACE[matched..];
        let common = bytes.iter().zip(rest).take_while(|(a, b)| a == b).count();
        if common == rest.len() {
            self.state = ScanState::Opaque;
        } else if common == bytes.len() {
            self.state = ScanState::Preface(matched + common);
        } else {
            self.state = ScanState::Head;
            // The bytes that matched were the start of a head.
            let mut flawed = None;
            self.head(&PREFACE[..matched], &mut flawed);
            return bytes;
        }
        &bytes[common..]
    }

    /// Goes through lines up to the end of the head. Returns the bytes behind it.
    fn head<'a>(&mut self, bytes: &'a [u8], flawed: &mut Option<u32>) -> &'a [u8] {
        let mut start = 0;
        // RFC 9112 section 2.2 lets a bare LF end a line, and hyper takes it: so LF alone is looked
        // for.
        for end in memchr_iter(b'\n', bytes) {
            let piece = &bytes[start..end];
            start = end + 1;
            let ended = if self.line == 0 {
                self.line(piece)
            } else {
                self.keep_line_start(piece);
                let (kept, line) = (self.line_start, self.line);
                self.line = 0;
                if line > KEPT_BYTES { self.cut_line(&kept) } else { self.line(&kept[..line]) }
            };
            if ended {
                self.finish(flawed);
                return &bytes[start..];
            }
        }
        self.keep_line_start(&bytes[start..]);
        &[]
    }

    fn keep_line_start(&mut self, piece: &[u8]) {
        if self.line < KEPT_BYTES {
            let room = piece.len().min(KEPT_BYTES - self.line);
            self.line_start[self.line..self.line + room].copy_from_slice(&piece[..room]);
        }
        self.line = self.line.saturating_add(piece.len());
    }

    /// A line whose end was not kept: its name is there, its value may not be.
    fn cut_line(&mut self, start: &[u8]) -> bool {
        let before = self.length;
        self.line(start);
        if self.length != before {
            self.length = Length::Unclear;
        }
        false
    }

    /// One whole line without its LF. True when it ends the head.
    fn line(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return self.started;
        }
        if !self.started {
            self.started = true;
            return false;
        }
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = after_name(line, b"content-length:") {
                    self.length = parse_length(value);
                }
            }
            b't' => self.transfer_encoded |= after_name(line, b"transfer-encoding:").is_some(),
            _ => {}
        }
        false
    }

    fn finish(&mut self, flawed: &mut Option<u32>) {
        if self.transfer_encoded && self.length != Length::Absent {
            *flawed = Some(self.head);
        }
        self.state = match self.length {
            _ if self.transfer_encoded => ScanState::Blind,
            Length::Unclear => ScanState::Blind,
            Length::Absent | Length::Bytes(0) => ScanState::Head,
            Length::Bytes(length) => ScanState::Body(length),
        };
        if self.state != ScanState::Blind {
            self.head = self.head.wrapping_add(1);
        }
        self.started = false;
        self.length = Length::Absent;
        self.transfer_encoded = false;
    }
}

fn after_name<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn parse_length(value: &[u8]) -> Length {
    let value = value.trim_ascii();
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    // hyper rejects anything but plain digits with 400 and closes.
    match std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok()) {
        Some(length) => Length::Bytes(length),
        None => Length::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: RequestProgress = RequestProgress { served: 0, busy: false };

    fn flawed(bytes: &[u8]) -> Option<u32> {
        Scanner::new().feed(bytes, FRESH)
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
            flawed(
                b"\r\nPOST / HTTP/1.1\r\ntransfer-encoding: x\r\nX: y\r\ncontent-length: \r\n\r\n"
            ),
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
            flawed(
                b"POST / HTTP/1.1\r\nx: transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n"
            ),
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
                    .fold(None, |found, piece| scanner.feed(piece, FRESH).or(found));
                assert_eq!(found, Some(2), "split at {first} and {second}");
                assert_eq!(scanner.position(), StreamPosition::Body);
            }
        }
    }

    #[test]
    fn a_body_that_looks_like_a_head_is_skipped() {
        let body = "x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let message = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut scanner = Scanner::new();
        assert_eq!(scanner.feed(message.as_bytes(), FRESH), None);
        assert_eq!(scanner.position(), StreamPosition::Between);
    }

    #[test]
    fn after_a_chunked_body_it_waits_for_the_answer() {
        let mut scanner = Scanner::new();
        let bad = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            scanner.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", FRESH),
            None
        );
        assert_eq!(
            scanner.feed(bad, RequestProgress { served: 1, busy: true }),
            None,
            "these are bytes of the body"
        );
        assert_eq!(scanner.feed(bad, RequestProgress { served: 1, busy: false }), Some(1));
    }

    #[test]
    fn places_tell_idle_from_a_half_sent_head() {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.position(), StreamPosition::Between);
        scanner.feed(b"P", FRESH);
        assert_eq!(scanner.position(), StreamPosition::Head);
        scanner.feed(b"UT / HTTP/1.1\r\n", FRESH);
        assert_eq!(scanner.position(), StreamPosition::Head);
        scanner.feed(b"\r\n", FRESH);
        assert_eq!(scanner.position(), StreamPosition::Between);
        scanner.feed(b"\r\n", FRESH);
        assert_eq!(
            scanner.position(),
            StreamPosition::Between,
            "an empty line between requests is not a request"
        );
    }

    #[test]
    fn the_preface_of_http2_ends_the_watch() {
        let mut scanner = Scanner::new();
        scanner.feed(&PREFACE[..10], FRESH);
        scanner.feed(&PREFACE[10..], FRESH);
        assert_eq!(scanner.position(), StreamPosition::Opaque);
        assert_eq!(
            scanner.feed(b"x\r\ncontent-length:1\r\ntransfer-encoding:x\r\n\r\n", FRESH),
            None
        );
    }
}
