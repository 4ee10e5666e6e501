//! JSON in one form for each value, so that two texts of one value are one key, and the origin gets
//! the form that the key was made of.
//!
//! Members are sorted by name, strings are compared by what they mean, and numbers by their text:
//! `1.0` and `1` are two, because apps tell them apart. White space does not count.
//!
//! Invariants:
//! - The form of a form is itself, and two values have one form only if every parser reads them
//!   alike. So a document is refused in which a name comes twice, in any case: parsers differ in
//!   which of the two counts, and it may depend on the order, which the form does not keep.
//! - Memory and time are linear in the text, but for sorting, and the stack is bounded by
//!   [`MAX_DEPTH`].

use std::borrow::Cow;

use crate::policy::fold::fold;

/// How deep lists and objects may be nested. Apps seldom accept more than 100.
pub const MAX_DEPTH: usize = 64;

/// A JSON document that has one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanonicalJson<'a> {
    /// A number, `true`, `false` or `null`, as it is written.
    Plain(&'a str),
    /// A string, without escapes.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object, sorted by name.
    Members(Vec<(Cow<'a, str>, Self)>),
}

/// Why a text is no document that has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// It is not JSON, or not in UTF-8.
    Malformed,
    /// A name comes twice in one object, in any case.
    RepeatedMember,
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl JsonFault {
    /// The cause, as it follows a reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "(malformed JSON)",
            Self::RepeatedMember => "(a member comes twice)",
            Self::TooDeep => "(nested too deep)",
        }
    }
}

impl<'a> CanonicalJson<'a> {
    /// Reads a document. A byte order mark is malformed: some parsers take it, some do not.
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonFault> {
        let text = str::from_utf8(text).map_err(|_| JsonFault::Malformed)?;
        let mut parser = Parser { text, at: 0 };
        let document = parser.value(0)?;
        parser.skip_space();
        if parser.at == text.len() { Ok(document) } else { Err(JsonFault::Malformed) }
    }

    /// What is at this path of names. Elements of lists have none.
    #[must_use]
    pub fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |value, step| match value {
            Self::Members(members) => {
                members.iter().find(|(name, _)| *name == **step).map(|(_, member)| member)
            }
            _ => None,
        })
    }

    /// The document without what no path leads to; `None` if that leaves nothing.
    #[must_use]
    pub fn picked(&self, paths: &[&[String]]) -> Option<Self> {
        if paths.iter().any(|path| path.is_empty()) {
            return Some(self.clone());
        }
        let Self::Members(members) = self else { return None };
        let pick = |(name, member): &(Cow<'a, str>, Self)| {
            let below: Vec<&[String]> = paths
                .iter()
                .filter_map(|path| path.split_first())
                .filter(|(step, _)| **step == **name)
                .map(|(_, rest)| rest)
                .collect();
            let picked = if below.is_empty() { None } else { member.picked(&below) };
            picked.map(|member| (name.clone(), member))
        };
        let picked: Vec<_> = members.iter().filter_map(pick).collect();
        (!picked.is_empty()).then_some(Self::Members(picked))
    }

    /// The one text of this document.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut Vec<u8>) {
        match self {
            Self::Plain(plain) => text.extend_from_slice(plain.as_bytes()),
            Self::Text(string) => write_string(string, text),
            Self::List(elements) => {
                text.push(b'[');
                for (at, element) in elements.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    element.write(text);
                }
                text.push(b']');
            }
            Self::Members(members) => {
                text.push(b'{');
                for (at, (name, member)) in members.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    write_string(name, text);
                    text.push(b':');
                    member.write(text);
                }
                text.push(b'}');
            }
        }
    }
}

/// Escapes what must be escaped (RFC 8259 7), and nothing else.
fn write_string(string: &str, text: &mut Vec<u8>) {
    text.push(b'"');
    for byte in string.bytes() {
        match byte {
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
            0..0x20 => text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => text.push(byte),
        }
    }
    text.push(b'"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes this byte, after white space.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.take(byte) { Ok(()) } else { Err(JsonFault::Malformed) }
    }

    /// A value. `depth` is how many lists and objects it is in.
    fn value(&mut self, depth: usize) -> Result<CanonicalJson<'a>, JsonFault> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(JsonFault::TooDeep),
            Some(b'{') => self.members(depth + 1),
            Some(b'[') => self.list(depth + 1),
            Some(b'"') => self.string().map(CanonicalJson::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|it| rest.starts_with(it));
                let word = word.ok_or(JsonFault::Malformed)?;
                self.at += word.len();
                Ok(CanonicalJson::Plain(word))
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<CanonicalJson<'a>, JsonFault> {
        self.expect(b'[')?;
        let mut elements = Vec::new();
        if self.take(b']') {
            return Ok(CanonicalJson::List(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            if self.take(b']') {
                return Ok(CanonicalJson::List(elements));
            }
            self.expect(b',')?;
        }
    }

    fn members(&mut self, depth: usize) -> Result<CanonicalJson<'a>, JsonFault> {
        self.expect(b'{')?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(CanonicalJson::Members(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.expect(b':')?;
            members.push((name, self.value(depth)?));
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        members.sort_by(|(one, _), (two, _)| one.cmp(two));
        let mut names: Vec<Cow<'_, str>> = members.iter().map(|(name, _)| fold(name)).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(JsonFault::RepeatedMember);
        }
        Ok(CanonicalJson::Members(members))
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(JsonFault::Malformed) }
    }

    fn number(&mut self) -> Result<CanonicalJson<'a>, JsonFault> {
        let from = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(CanonicalJson::Plain(&self.text[from..self.at]))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        if self.peek() != Some(b'"') {
            return Err(JsonFault::Malformed);
        }
        self.at += 1;
        let mut string = Cow::Borrowed("");
        loop {
            let from = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            let plain = &self.text[from..self.at];
            if string.is_empty() {
                string = Cow::Borrowed(plain);
            } else {
                string.to_mut().push_str(plain);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let letter = self.escaped()?;
                    string.to_mut().push(letter);
                }
                _ => return Err(JsonFault::Malformed),
            }
        }
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<char, JsonFault> {
        let byte = self.peek().ok_or(JsonFault::Malformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                if !(0xd800..0xdc00).contains(&first) {
                    // Half of a pair alone is no letter; apps differ in what they make of it.
                    return char::from_u32(first).ok_or(JsonFault::Malformed);
                }
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(JsonFault::Malformed);
                }
                self.at += 2;
                let second = self.unit()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(JsonFault::Malformed);
                }
                let letter = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                char::from_u32(letter).ok_or(JsonFault::Malformed)?
            }
            _ => return Err(JsonFault::Malformed),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, JsonFault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(JsonFault::Malformed)?;
        let mut unit = 0;
        for digit in digits {
            let value = char::from(*digit).to_digit(16).ok_or(JsonFault::Malformed)?;
            unit = unit << 4 | value;
        }
        self.at += 4;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests;
