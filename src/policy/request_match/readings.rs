//! All values that an origin might read of one query parameter or one header.
//!
//! Invariant: a value that some framework, web server or proxy of an origin would read is here.
//! What is read in one way alone is [`Readings::is_surely`].

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::policy::loose_parameters;

/// The values that may be read.
#[derive(Debug, Default)]
pub(super) struct Readings<'a> {
    values: SmallVec<[Cow<'a, [u8]>; 2]>,
    /// Whether one may be read in ways that are not among them, because it is not UTF-8.
    is_garbled: bool,
    /// Whether every program finds the one value: its name is spelled as it is, once.
    is_plain: bool,
}

impl Readings<'_> {
    /// Whether every program reads one of these values.
    pub(super) fn is_surely(&self, wanted: &[Box<str>]) -> bool {
        self.is_plain && !self.is_garbled && self.values.iter().all(|value| is_among(value, wanted))
    }

    /// Whether some program may read one of these values.
    pub(super) fn is_perhaps(&self, wanted: &[Box<str>]) -> bool {
        self.is_garbled || self.values.iter().any(|value| is_among(value, wanted))
    }
}

fn is_among(value: &[u8], wanted: &[Box<str>]) -> bool {
    wanted.iter().any(|one| one.as_bytes() == value)
}

/// What may be read of a query parameter.
///
/// A name has many spellings ([`loose_parameters`]); a query may be split at `;`, too. Of a value,
/// programs disagree whether `+` is a space, whether an escape that need not be one is decoded, how
/// often, and what a NUL or white space at an end means. Of a parameter that comes twice they take
/// the first, the last, or both with a comma between them.
pub(super) fn of_parameter<'a>(query: &'a str, wanted: &str) -> Readings<'a> {
    let mut readings = Readings::default();
    let mut count = 0_usize;
    let mut read = |pair: &'a str, is_whole: bool| {
        let parameter = loose_parameters::parameter(pair.as_bytes());
        if pair.is_empty() || !parameter.is_named(wanted) {
            return;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_spelled = parameter.name == wanted && !name.contains('+') && !is_overescaped(name);
        readings.is_plain = is_whole && is_spelled && count == 0;
        count += 1;
        readings.is_garbled |= parameter.is_garbled;
        readings.add_value(value);
    };
    for pair in query.split('&') {
        read(pair, true);
        if pair.contains(';') {
            pair.split(';').for_each(|part| read(part, false));
        }
    }
    if count > 1 {
        let joined = readings.values.join(&b","[..]);
        readings.values.push(Cow::Owned(joined));
    }
    readings
}

impl<'a> Readings<'a> {
    fn add_value(&mut self, raw: &'a str) {
        if !raw.contains(['%', '+']) {
            self.values.push(Cow::Borrowed(raw.as_bytes()));
            return;
        }
        if is_overescaped(raw) {
            // Some do not decode at all.
            self.values.push(Cow::Borrowed(raw.as_bytes()));
        }
        let plus: Vec<u8> = percent_decode_str(raw).collect();
        let space: Vec<u8> = percent_decode_str(&raw.replace('+', " ")).collect();
        for decoded in [plus, space] {
            if decoded.contains(&b'%') {
                let twice = percent_encoding::percent_decode(&decoded).collect();
                self.add_text(twice);
            }
            self.add_text(decoded);
        }
    }

    /// Adds a decoded value, as it is, up to a NUL, and without white space around it.
    fn add_text(&mut self, text: Vec<u8>) {
        let cut = text.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        let trimmed = text.trim_ascii().to_vec();
        for one in [text, cut, trimmed] {
            if !self.values.iter().any(|known| **known == *one) {
                self.values.push(Cow::Owned(one));
            }
        }
    }
}

/// Whether it has an escape of a character that needs none (RFC 3986 2.3), or what is no escape.
fn is_overescaped(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let digits = rest
            .get(at + 1..at + 3)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let needs_none = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if byte.is_none_or(needs_none) {
            return true;
        }
        rest = &rest[at + 3..];
    }
    false
}

/// What may be read of a header: all of a line, or a member of it, of any line, under a name of
/// which CGI makes the same variable.
pub(super) fn of_header<'a>(headers: &'a HeaderMap, wanted: &HeaderName) -> Readings<'a> {
    let mut readings = Readings::default();
    let lines = headers.iter().filter(|(name, _)| is_same_header(name, wanted));
    for (at, (name, line)) in lines.enumerate() {
        let line = line.as_bytes();
        readings.is_plain = at == 0 && name == wanted;
        readings.values.push(Cow::Borrowed(line.trim_ascii()));
        if line.contains(&b',') {
            let members = line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            readings.values.extend(members.map(Cow::Borrowed));
        }
    }
    readings
}

/// Whether CGI makes the same variable of two names: `_` stands for all but letters and digits.
fn is_same_header(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let is_same = |(one, other): (&u8, &u8)| {
        one == other || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}

/// The hosts that an origin may take a request for besides the one it was sent to: what headers
/// name that frameworks put in its place.
pub(super) fn further_hosts(headers: &HeaderMap) -> impl Iterator<Item = String> {
    const NAMES: [&str; 3] = ["x-forwarded-host", "x-host", "x-original-host"];
    let lines = NAMES.into_iter().flat_map(|name| headers.get_all(name));
    let members = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let named = members.map(|host| String::from_utf8_lossy(host.trim_ascii()).to_ascii_lowercase());
    // Seldom there, and of several elements any may count.
    let forwarded = headers.get_all("forwarded").iter().flat_map(|line| {
        let line = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        let hosts: Vec<String> = line
            .split([';', ','])
            .filter_map(|pair| pair.trim().strip_prefix("host=").map(str::to_owned))
            .map(|host| host.trim().trim_matches('"').to_owned())
            .collect();
        hosts
    });
    named.chain(forwarded).filter(|host| !host.is_empty())
}
