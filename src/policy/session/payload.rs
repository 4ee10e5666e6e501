//! The payload of a session cookie: JSON, read so that two texts are equal only if they say the
//! same to every parser. The order of members and the escapes of strings do not count; numbers
//! count by their text, because a float does not tell all of them apart.
//!
//! Bounded: the length, the depth, and by the length all else.

use crate::policy::session::fault::SessionFault;

/// The longest payload that is read, in bytes.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;
/// How deep a payload may be nested.
const MAX_DEPTH: usize = 32;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PayloadValue {
    Null,
    Bool(bool),
    /// The text of a number.
    Number(Box<[u8]>),
    /// UTF-8, in which a surrogate without its other half takes three bytes.
    Text(Box<[u8]>),
    List(Vec<PayloadValue>),
    /// Sorted by name; each name once.
    Members(Vec<(Box<[u8]>, PayloadValue)>),
}

impl PayloadValue {
    /// Writes the value so that no other value is written with the same bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(b'z'),
            Self::Bool(value) => out.push(if *value { b't' } else { b'f' }),
            Self::Number(text) => write_bytes(b'n', text, out),
            Self::Text(text) => write_bytes(b's', text, out),
            Self::List(elements) => {
                write_count(b'l', elements.len(), out);
                for element in elements {
                    element.write(out);
                }
            }
            Self::Members(members) => {
                write_count(b'm', members.len(), out);
                for (name, value) in members {
                    write_bytes(b's', name, out);
                    value.write(out);
                }
            }
        }
    }
}

fn write_count(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(count as u64).to_be_bytes());
}

fn write_bytes(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    write_count(kind, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Reads a payload (RFC 8259).
pub(super) fn parse(text: &[u8]) -> Result<PayloadValue, SessionFault> {
    if text.len() > MAX_PAYLOAD {
        return Err(SessionFault::TooLarge);
    }
    if std::str::from_utf8(text).is_err() {
        return Err(SessionFault::NotJson);
    }
    let mut reader = JsonReader { text, at: 0 };
    let value = reader.value(MAX_DEPTH)?;
    reader.skip_space();
    if reader.at == text.len() { Ok(value) } else { Err(SessionFault::NotJson) }
}

struct JsonReader<'a> {
    text: &'a [u8],
    at: usize,
}

impl JsonReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, SessionFault> {
        let byte = self.peek().ok_or(SessionFault::NotJson)?;
        self.at += 1;
        Ok(byte)
    }

    /// Takes this byte, if it is the next one.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn word(&mut self, word: &[u8], value: PayloadValue) -> Result<PayloadValue, SessionFault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(SessionFault::NotJson);
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<PayloadValue, SessionFault> {
        self.skip_space();
        match self.peek().ok_or(SessionFault::NotJson)? {
            b'n' => self.word(b"null", PayloadValue::Null),
            b't' => self.word(b"true", PayloadValue::Bool(true)),
            b'f' => self.word(b"false", PayloadValue::Bool(false)),
            b'"' => self.string().map(PayloadValue::Text),
            b'[' | b'{' if depth == 0 => Err(SessionFault::TooDeep),
            b'[' => self.list(depth - 1),
            b'{' => self.members(depth - 1),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Result<PayloadValue, SessionFault> {
        self.at += 1;
        let mut elements = Vec::new();
        self.skip_space();
        if self.takes(b']') {
            return Ok(PayloadValue::List(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.skip_space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(PayloadValue::List(elements)),
                _ => return Err(SessionFault::NotJson),
            }
        }
    }

    fn members(&mut self, depth: usize) -> Result<PayloadValue, SessionFault> {
        self.at += 1;
        let mut members: Vec<(Box<[u8]>, PayloadValue)> = Vec::new();
        self.skip_space();
        if self.takes(b'}') {
            return Ok(PayloadValue::Members(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            if !self.takes(b':') {
                return Err(SessionFault::NotJson);
            }
            members.push((name, self.value(depth)?));
            self.skip_space();
            match self.next()? {
                b',' => {}
                b'}' => break,
                _ => return Err(SessionFault::NotJson),
            }
        }
        members.sort_by(|(one, _), (two, _)| one.cmp(two));
        // SECURITY: which of two counts is another one to each parser.
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(SessionFault::RepeatedMember);
        }
        Ok(PayloadValue::Members(members))
    }

    fn number(&mut self) -> Result<PayloadValue, SessionFault> {
        let start = self.at;
        self.takes(b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && whole.starts_with(b"0") {
            return Err(SessionFault::NotJson);
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        Ok(PayloadValue::Number(self.text[start..self.at].into()))
    }

    fn digits(&mut self) -> Result<&[u8], SessionFault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at { Err(SessionFault::NotJson) } else { Ok(&self.text[start..self.at]) }
    }

    fn string(&mut self) -> Result<Box<[u8]>, SessionFault> {
        if !self.takes(b'"') {
            return Err(SessionFault::NotJson);
        }
        let mut out = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Ok(out.into()),
                b'\\' => self.escape(&mut out)?,
                0..=0x1f => return Err(SessionFault::NotJson),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), SessionFault> {
        let byte = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let first = self.hex4()?;
                let unit = self.with_low_surrogate(first)?;
                push_code_point(unit, out);
                return Ok(());
            }
            _ => return Err(SessionFault::NotJson),
        };
        out.push(byte);
        Ok(())
    }

    /// The code point of a surrogate and the one after it, if they are a pair; else the first.
    fn with_low_surrogate(&mut self, first: u32) -> Result<u32, SessionFault> {
        let is_high = (0xd800..0xdc00).contains(&first);
        if !is_high || !self.text[self.at..].starts_with(b"\\u") {
            return Ok(first);
        }
        let before = self.at;
        self.at += 2;
        let second = self.hex4()?;
        if (0xdc00..0xe000).contains(&second) {
            return Ok(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        }
        self.at = before;
        Ok(first)
    }

    fn hex4(&mut self) -> Result<u32, SessionFault> {
        (0..4).try_fold(0, |sum, _| {
            let digit = char::from(self.next()?).to_digit(16).ok_or(SessionFault::NotJson)?;
            Ok(sum << 4 | digit)
        })
    }
}

/// Appends a code point in UTF-8, a lone surrogate by the same rule.
fn push_code_point(code: u32, out: &mut Vec<u8>) {
    let six = |shift: u32| 0x80 | low_byte(code >> shift & 0x3f);
    match code {
        0..0x80 => out.push(low_byte(code)),
        0x80..0x800 => out.extend([0xc0 | low_byte(code >> 6), six(0)]),
        0x800..0x1_0000 => out.extend([0xe0 | low_byte(code >> 12), six(6), six(0)]),
        _ => out.extend([0xf0 | low_byte(code >> 18), six(12), six(6), six(0)]),
    }
}

const fn low_byte(code: u32) -> u8 {
    code.to_le_bytes()[0]
}
