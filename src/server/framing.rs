//! Watches the bytes of HTTP/1 request heads for what hyper does not report.
//!
//! Owns three findings: where in a message the connection is (see [`StreamPosition`]), what is
//! wrong with a head although hyper serves it (see [`HeadFlaw`]), and which bytes of a request
//! target hyper refuses although servers read them (see [`ReadScan`]). Everything else is left to
//! hyper. This file changes no byte, and must not know sockets, timers or services.
//!
//! Invariants of the bytes that are escaped:
//! - Each stands in a request line, behind the space that ends the method. Its escape has no space,
//!   CR, LF or colon, so that hyper finds the same lines, words and message ends with it as
//!   without it: escaping makes no request out of two, and no version valid.
//! - No byte of a body is escaped, because this file and hyper find the ends of bodies at the same
//!   place; where they may differ, nothing more is a head (see [`ScanState::Last`]).
//! - No byte of a tunnel is escaped: hyper opens one only behind a head with `Upgrade`, or a
//!   `CONNECT`, and nothing behind such a head is escaped for the rest of the connection.
//! - What is escaped does not depend on how the bytes are split over reads.

mod chunks;
mod head_start;

use memchr::{memchr, memchr_iter};

use self::chunks::{ChunkProgress, Chunks};
use self::head_start::HeadStart;
use crate::semantics::forward::{self, BadRequest};

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

/// What the bytes of one read came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadScan {
    /// The flawed head that ends here, if any does.
    pub flawed: Option<FlawedHead>,
    /// Where these bytes have one that is to be escaped before hyper sees it.
    pub escapes: Vec<usize>,
    /// How many bytes at the end were not scanned, because they are the start of a character of a
    /// target. They are to be scanned again, together with what follows them.
    pub unfinished: usize,
}

/// The watcher of one connection. It follows pipelined requests, and skips their bodies.
#[derive(Debug)]
pub(super) struct Scanner {
    state: ScanState,
    /// How many heads have ended.
    heads: u32,
    request_line: RequestLine,
    fragment: bool,
    /// Whether the target's query has begun.
    in_query: bool,
    length: Length,
    transfer_encoded: bool,
    follows: Follows,
    escaping: Escaping,
    head_start: HeadStart,
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

/// What may stand behind a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Requests,
    /// The bytes of a tunnel: the head has `Upgrade`, or is a `CONNECT`.
    PerhapsTunnel,
    /// The head is that of HTTP/2's preface.
    Nothing,
}

/// Whether bytes of targets are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    On,
    /// From the first head on behind which there may be a tunnel.
    Off,
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
            in_query: false,
            length: Length::Absent,
            transfer_encoded: false,
            follows: Follows::Requests,
            escaping: Escaping::On,
            head_start: HeadStart::new(),
            line_start: [0; KEPT_BYTES],
            line: 0,
        }
    }

    /// Scans the bytes of one read.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> ReadScan {
        let (mut scan, mut rest) = (ReadScan::default(), bytes);
        while !rest.is_empty() {
            match self.state {
                ScanState::Opaque | ScanState::Last => break,
                ScanState::Head => rest = self.head(rest, bytes.len() - rest.len(), &mut scan),
                ScanState::Body(left) => {
                    let here =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    let left = left - here as u64;
                    self.state = if left == 0 { ScanState::Head } else { ScanState::Body(left) };
                    rest = &rest[here..];
                }
                ScanState::Chunked(ref mut chunks) => match chunks.feed(rest) {
                    ChunkProgress::More => break,
                    ChunkProgress::End(behind) => {
                        self.state = ScanState::Head;
                        rest = behind;
                    }
                    ChunkProgress::Malformed => self.state = ScanState::Last,
                },
                ScanState::Preface(matched) => rest = self.preface(rest, matched),
            }
        }
        scan
    }

    /// The first bytes of the head with this number, if they are known.
    pub(super) fn head_start(&self, number: u32) -> &[u8] {
        self.head_start.of(number)
    }

    /// How many bytes of the head with this number have arrived, if that is known.
    pub(super) fn head_length(&self, number: u32) -> Option<usize> {
        self.head_start.length(number)
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
            self.head(&PREFACE[..matched], 0, &mut ReadScan::default());
            return bytes;
        }
        &bytes[common..]
    }

    /// Goes through lines up to the end of the head. Returns the bytes behind it. `at` is the place
    /// of these bytes in the read.
    fn head<'a>(&mut self, bytes: &'a [u8], at: usize, scan: &mut ReadScan) -> &'a [u8] {
        self.head_start.add(self.heads, bytes);
        let mut start = 0;
        // RFC 9112 section 2.2 lets a bare LF end a line, and hyper takes it: so LF alone is looked
        // for.
        for end in memchr_iter(b'\n', bytes) {
            let piece = &bytes[start..end];
            self.target(piece, at + start, scan);
            start = end + 1;
            let ended = if self.line == 0 {
                self.line(&piece[..piece.len().min(KEPT_BYTES)], piece.len())
            } else {
                self.keep_line_start(piece);
                let (kept, line) = (self.line_start, self.line);
                self.line = 0;
                self.line(&kept[..line.min(KEPT_BYTES)], line)
            };
            if ended {
                self.finish(scan);
                return &bytes[start..];
            }
        }
        let rest = self.keep_target(&bytes[start..], at + start, scan);
        self.keep_line_start(rest);
        &[]
    }

    /// A piece of a line. In the request line it looks for characters behind the method that a
    /// target should not have.
    fn target(&mut self, piece: &[u8], at: usize, scan: &mut ReadScan) {
        // As a rule there is none. No early exit, so that it is compiled to vectors.
        if self.request_line != RequestLine::Over
            && piece.iter().fold(false, |found, &byte| found | is_special(byte))
        {
            self.special_target(piece, at, scan);
        }
    }

    /// Finds a fragment, and the bytes that hyper refuses. In the method `#` is an ordinary
    /// character (RFC 9110 section 5.6.2).
    #[cold]
    fn special_target(&mut self, piece: &[u8], at: usize, scan: &mut ReadScan) {
        let start = match self.request_line {
            RequestLine::Target => Some(0),
            RequestLine::Method => memchr(b' ', piece).map(|space| space + 1),
            RequestLine::Over => None,
        };
        let Some(start) = start else { return };
        let target = &piece[start..];
        self.fragment |= memchr(b'#', target).is_some();
        if self.escaping == Escaping::On {
            let before = scan.escapes.len();
            forward::find_refused(target, &mut self.in_query, |place| {
                scan.escapes.push(at + start + place);
            });
            self.head_start.grow(2 * (scan.escapes.len() - before));
        }
    }

    /// The last piece of a read, whose line goes on in the next one. Returns what of it was
    /// scanned.
    fn keep_target<'a>(&mut self, piece: &'a [u8], at: usize, scan: &mut ReadScan) -> &'a [u8] {
        let target = match self.request_line {
            RequestLine::Over => return piece,
            RequestLine::Target => piece,
            RequestLine::Method => match memchr(b' ', piece) {
                Some(space) => &piece[space + 1..],
                None => return piece,
            },
        };
        scan.unfinished = match self.escaping {
            Escaping::On => forward::unfinished(target),
            Escaping::Off => 0,
        };
        let scanned = &piece[..piece.len() - scan.unfinished];
        self.target(scanned, at, scan);
        self.in_query |= memchr(b'?', target).is_some();
        self.request_line = RequestLine::Target;
        self.head_start.shrink(scan.unfinished);
        scanned
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
            self.follows = if line.starts_with(b"CONNECT ") {
                Follows::PerhapsTunnel
            } else if line.starts_with(b"PRI * HTTP/2") {
                Follows::Nothing
            } else {
                Follows::Requests
            };
            return false;
        }
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = after_name(line, b"content-length:") {
                    self.length = if is_whole { parse_length(value) } else { Length::Unclear };
                }
            }
            b't' => self.transfer_encoded |= after_name(line, b"transfer-encoding:").is_some(),
            b'u' if self.follows == Follows::Requests
                && after_name(line, b"upgrade:").is_some() =>
            {
                self.follows = Follows::PerhapsTunnel;
            }
            _ => {}
        }
        false
    }

    fn finish(&mut self, scan: &mut ReadScan) {
        let flaw = if self.transfer_encoded && self.length != Length::Absent {
            Some(HeadFlaw::TwoLengths)
        } else if self.fragment {
            Some(HeadFlaw::Fragment)
        } else {
            None
        };
        if let Some(flaw) = flaw {
            scan.flawed = Some(FlawedHead { number: self.heads, flaw });
        }
        self.heads = self.heads.wrapping_add(1);
        self.state = match self.length {
            // The first flawed head is the last one: nothing behind it is a request.
            _ if flaw.is_some() => ScanState::Last,
            // hyper refuses the version.
            _ if self.follows == Follows::Nothing => ScanState::Last,
            _ if self.transfer_encoded => ScanState::Chunked(Chunks::new()),
            // hyper rejects a length that is none. One behind much white space is legal, and what
            // follows its message is not served.
            Length::Unclear => ScanState::Last,
            Length::Absent | Length::Bytes(0) => ScanState::Head,
            Length::Bytes(length) => ScanState::Body(length),
        };
        self.request_line = RequestLine::Method;
        if self.follows == Follows::PerhapsTunnel {
            self.escaping = Escaping::Off;
        }
        self.follows = Follows::Requests;
        self.fragment = false;
        self.in_query = false;
        self.length = Length::Absent;
        self.transfer_encoded = false;
    }
}

/// Whether a target should not have this character.
const fn is_special(byte: u8) -> bool {
    matches!(byte, b'#' | b'"' | b'<' | b'>' | b'`' | 0x80..)
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

/// Where these bytes are escaped if each read has so many of them: for the fuzzer.
#[cfg(feature = "internals")]
pub fn escapes_in_pieces(bytes: &[u8], size: usize) -> Vec<usize> {
    let (mut scanner, mut found, mut from, mut to) = (Scanner::new(), Vec::new(), 0, 0);
    while to < bytes.len() {
        to = (to + size).min(bytes.len());
        let scan = scanner.feed(&bytes[from..to]);
        found.extend(scan.escapes.iter().map(|at| from + at));
        from = to - scan.unfinished;
    }
    found
}

#[cfg(test)]
mod tests;
