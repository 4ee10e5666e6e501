//! Watches the bytes of HTTP/1 request heads for what hyper does not report.
//!
//! Owns two findings: where in a message the connection is (see [`StreamPosition`]), and what is
//! wrong with a head although hyper serves it (see [`HeadFlaw`]). Everything else is left to hyper.
//! This file changes no byte, and must not know sockets, timers or services.

mod chunks;

use memchr::{memchr, memchr_iter, memrchr};

use self::chunks::{ChunkProgress, Chunks};
use crate::semantics::forward::BadRequest;

/// What an HTTP/2 connection with prior knowledge begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of a header line is read: enough for the longest name, and a length with much white
/// space.
const KEPT_BYTES: usize = 64;

/// Where in the stream of messages the last byte read was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamPosition {
    /// Between two messages.
    Between = 0,
    /// Inside a head.
    Head = 1,
    /// Inside a body, or behind a message after which hyper closes the connection.
    Body = 2,
    /// In a stream that is not HTTP/1: HTTP/2, or a tunnel.
    Opaque = 3,
}

/// What is wrong with a head that hyper accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFlaw {
    /// It has both `Content-Length` and `Transfer-Encoding`. hyper drops the length.
    TwoLengths = 0,
    /// Its target has a fragment. hyper cuts it off, so that `DELETE /dav/x/#y` would delete
    /// `/dav/x/`.
    Fragment = 1,
    /// It stands behind a message whose end this file and hyper see in different places. That is
    /// impossible unless one of them has changed; such a head is not trusted.
    Unseen = 2,
}

impl HeadFlaw {
    /// Why the request is rejected.
    pub(super) const fn bad_request(self) -> BadRequest {
        match self {
            Self::TwoLengths => BadRequest::TwoLengths,
            Self::Fragment => BadRequest::Fragment,
            Self::Unseen => BadRequest::Framing,
        }
    }

    /// Whether the bounds of the message are in doubt.
    pub(super) const fn is_of_framing(self) -> bool {
        matches!(self, Self::TwoLengths | Self::Unseen)
    }
}

/// The first flawed head of a connection. The response to it is the connection's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlawedHead {
    /// Its number, counted as the service's calls are.
    pub number: u32,
    pub flaw: HeadFlaw,
}

/// The watcher of one connection. It follows pipelined requests, and skips their bodies.
#[derive(Debug)]
pub(super) struct Scanner {
    state: ScanState,
    /// How many heads have ended.
    heads: u32,
    request_line: RequestLine,
    fragment: bool,
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
    Chunked(Chunks),
    /// hyper closes the connection after this message.
    Last,
    Opaque,
}

/// How far the request line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestLine {
    /// To the space behind the method at most. Empty lines before it mean nothing (RFC 9112 section
    /// 2.2).
    Method,
    /// Behind that space.
    Target,
    /// To its end.
    Over,
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
            heads: 0,
            request_line: RequestLine::Method,
            fragment: false,
            length: Length::Absent,
            transfer_encoded: false,
            line_start: [0; KEPT_BYTES],
            line: 0,
        }
    }

    /// Scans the bytes of one read. Returns the flawed head that ends here, if any does.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<FlawedHead> {
        let mut flawed = None;
        while !bytes.is_empty() {
            match self.state {
                ScanState::Opaque | ScanState::Last => break,
                ScanState::Head => bytes = self.head(bytes, &mut flawed),
                ScanState::Body(left) => {
                    let here =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let left = left - here as u64;
                    self.state = if left == 0 { ScanState::Head } else { ScanState::Body(left) };
                    bytes = &bytes[here..];
                }
                ScanState::Chunked(ref mut chunks) => match chunks.feed(bytes) {
                    ChunkProgress::More => break,
                    ChunkProgress::End(rest) => {
                        self.state = ScanState::Head;
                        bytes = rest;
                    }
                    ChunkProgress::Malformed => self.state = ScanState::Last,
                },
                ScanState::Preface(matched) => bytes = self.preface(bytes, matched),
            }
        }
        flawed
    }

    /// How many heads have ended.
    pub(super) const fn heads(&self) -> u32 {
        self.heads
    }

    /// Where the last byte was.
    pub(super) const fn position(&self) -> StreamPosition {
        match self.state {
            ScanState::Preface(0) => StreamPosition::Between,
            ScanState::Preface(_) => StreamPosition::Head,
            ScanState::Head if self.line > 0 || matches!(self.request_line, RequestLine::Over) => {
                StreamPosition::Head
            }
            ScanState::Head => StreamPosition::Between,
            ScanState::Body(_) | ScanState::Chunked(_) | ScanState::Last => StreamPosition::Body,
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
    fn head<'a>(&mut self, bytes: &'a [u8], flawed: &mut Option<FlawedHead>) -> &'a [u8] {
        let mut start = 0;
        // RFC 9112 section 2.2 lets a bare LF end a line, and hyper takes it: so LF alone is looked
        // for.
        for end in memchr_iter(b'\n', bytes) {
            let piece = &bytes[start..end];
            start = end + 1;
            self.target(piece);
            let ended = if self.line == 0 {
                self.line(&piece[..piece.len().min(KEPT_BYTES)], piece.len())
            } else {
                self.keep_line_start(piece);
                let (kept, line) = (self.line_start, self.line);
                self.line = 0;
                self.line(&kept[..line.min(KEPT_BYTES)], line)
            };
            if ended {
                self.finish(flawed);
                return &bytes[start..];
            }
        }
        let rest = &bytes[start..];
        self.keep_target(rest);
        self.keep_line_start(rest);
        &[]
    }

    /// A piece of a line. In the request line it looks for a fragment behind the method, in which
    /// `#` is an ordinary character (RFC 9110 section 5.6.2).
    fn target(&mut self, piece: &[u8]) {
        match self.request_line {
            RequestLine::Over => {}
            RequestLine::Target => self.fragment |= memchr(b'#', piece).is_some(),
            // As a rule there is no such character, and the line is whole.
            RequestLine::Method => {
                let behind = memrchr(b'#', piece).map(|last| &piece[..last]);
                self.fragment |= behind.is_some_and(|start| memchr(b' ', start).is_some());
            }
        }
    }

    /// The last piece of a read, whose line goes on in the next one.
    fn keep_target(&mut self, piece: &[u8]) {
        self.target(piece);
        if self.request_line == RequestLine::Method && memchr(b' ', piece).is_some() {
            self.request_line = RequestLine::Target;
        }
    }

    fn keep_line_start(&mut self, piece: &[u8]) {
        if self.line < KEPT_BYTES {
            let room = piece.len().min(KEPT_BYTES - self.line);
            self.line_start[self.line..self.line + room].copy_from_slice(&piece[..room]);
        }
        self.line = self.line.saturating_add(piece.len());
    }

    /// One line without its LF: its start, and the length of the whole. True when it ends the head.
    fn line(&mut self, start: &[u8], length: usize) -> bool {
        let is_whole = length == start.len();
        let line = if is_whole { start.strip_suffix(b"\r").unwrap_or(start) } else { start };
        if line.is_empty() {
            return self.request_line == RequestLine::Over;
        }
        if self.request_line != RequestLine::Over {
            self.request_line = RequestLine::Over;
            return false;
        }
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = after_name(line, b"content-length:") {
                    self.length = if is_whole { parse_length(value) } else { Length::Unclear };
                }
            }
            b't' => self.transfer_encoded |= after_name(line, b"transfer-encoding:").is_some(),
            _ => {}
        }
        false
    }

    fn finish(&mut self, flawed: &mut Option<FlawedHead>) {
        let flaw = if self.transfer_encoded && self.length != Length::Absent {
            Some(HeadFlaw::TwoLengths)
        } else if self.fragment {
            Some(HeadFlaw::Fragment)
        } else {
            None
        };
        if let Some(flaw) = flaw {
            *flawed = Some(FlawedHead { number: self.heads, flaw });
        }
        self.heads = self.heads.wrapping_add(1);
        self.state = match self.length {
            // The first flawed head is the last one: nothing behind it is a request.
            _ if flaw.is_some() => ScanState::Last,
            _ if self.transfer_encoded => ScanState::Chunked(Chunks::new()),
            // hyper rejects a length that is none. One behind much white space is legal, and what
            // follows its message is not served.
            Length::Unclear => ScanState::Last,
            Length::Absent | Length::Bytes(0) => ScanState::Head,
            Length::Bytes(length) => ScanState::Body(length),
        };
        self.request_line = RequestLine::Method;
        self.fragment = false;
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
mod tests;
