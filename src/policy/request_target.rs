//! The request target: the normal form of a path, which is matched and keyed, and the parameters of
//! a query.
//!
//! A path that two programs could read differently (`;`, dot segments, NUL, `\`) has no normal
//! form, and is never cached. One with an escaped slash (`%2f`) has one for an origin that keeps
//! it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::policy::fold::fold;
use crate::policy::loose_parameters;
use crate::semantics::forward;

/// The longest extension of a path.
const MAX_EXTENSION: usize = 16;

/// An escaped slash in normal form.
const ESCAPED_SLASH: &str = "%2F";

/// A path in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// Whether it holds `%2F`, which some origins read as a slash.
    pub has_escaped_slash: bool,
}

/// The normal form of a path, or `None` when it has more than one reading.
#[must_use]
pub fn normal_path(raw: &str) -> Option<Cow<'_, str>> {
    kept_path(raw).filter(|normal| !normal.has_escaped_slash).map(|normal| normal.path)
}

/// The normal form of a path, or `None` when it has more than one reading even for an origin that
/// keeps an escaped slash as a part of its segment.
///
/// Escapes of unreserved characters are decoded, and all others are written in upper case (RFC 3986
/// 6.2.2). Characters that no path has (RFC 3986 3.3) and that clients send nevertheless are
/// escaped, as careful clients do. Nothing else changes.
#[must_use]
pub fn kept_path(raw: &str) -> Option<NormalPath<'_>> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return None;
    }
    let (mut escapes, mut has_dot) = (false, false);
    let mut previous = 0;
    for &byte in bytes {
        match byte {
            b'%' => escapes = true,
            // SECURITY: different frameworks read each of these in different ways (web cache
            // deception).
            b';' | b'\\' | b'#' | b'?' | 0..=0x20 | 0x7f => return None,
            _ if is_foreign_to_paths(byte) => escapes = true,
            b'/' if previous == b'/' => return None,
            b'.' if previous == b'/' => has_dot = true,
            _ => {}
        }
        previous = byte;
    }
    let path = if escapes { Cow::Owned(normal_escapes(raw)?) } else { Cow::Borrowed(raw) };
    if (has_dot || escapes) && path.split('/').any(is_dots) {
        return None;
    }
    let has_escaped_slash = escapes && path.contains(ESCAPED_SLASH);
    // SECURITY: `..%2f` leaves its segment where the origin decodes first, and `%2f%2f` or one at
    // an end is one slash or two.
    if has_escaped_slash && !path.split('/').all(has_plain_parts) {
        return None;
    }
    Some(NormalPath { path, has_escaped_slash })
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

/// Whether a segment means the same with and without its escaped slashes decoded, but for these.
fn has_plain_parts(segment: &str) -> bool {
    !segment.contains(ESCAPED_SLASH)
        || segment.split(ESCAPED_SLASH).all(|part| !part.is_empty() && !is_dots(part))
}

/// Whether a byte is no part of a path by RFC 3986 3.3, and means the same as its escape.
const fn is_foreign_to_paths(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

/// The same for queries (RFC 3986 3.4). Brackets stay as they are: too many names have them.
const fn is_foreign_to_queries(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

/// A query with the characters escaped that no query has and that clients send nevertheless, so
/// that both spellings have one key.
#[must_use]
pub fn normal_query(query: &str) -> Cow<'_, str> {
    // No early exit, so that it is compiled to vectors.
    if !query.bytes().fold(false, |found, byte| found | is_foreign_to_queries(byte)) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len() + 16);
    escape_foreign(&mut out, query, is_foreign_to_queries);
    Cow::Owned(out)
}

/// A path with the characters escaped that no path has, as it is logged: both spellings are one.
#[must_use]
pub fn escaped_path(path: &str) -> Cow<'_, str> {
    if !path.bytes().any(is_foreign_to_paths) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len() + 16);
    escape_foreign(&mut out, path, is_foreign_to_paths);
    Cow::Owned(out)
}

/// Appends a text with its foreign bytes escaped. All bytes of a character beyond ASCII are such.
fn escape_foreign(out: &mut String, text: &str, is_foreign: fn(u8) -> bool) {
    for byte in text.bytes() {
        if is_foreign(byte) {
            let mut escape = Vec::with_capacity(3);
            forward::push_escape(&mut escape, byte);
            out.extend(escape.into_iter().map(char::from));
        } else {
            out.push(char::from(byte));
        }
    }
}

fn normal_escapes(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('%') {
        escape_foreign(&mut out, &rest[..at], is_foreign_to_paths);
        let digits = rest.get(at + 1..at + 3)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match byte {
            // SECURITY: the origin may or may not decode an escaped delimiter, dot, percent sign,
            // control character or backslash. A slash is left to the caller.
            b'\\' | b'.' | b';' | b'#' | b'?' | b'%' | 0..=0x1f | 0x7f => return None,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    escape_foreign(&mut out, rest, is_foreign_to_paths);
    Some(out)
}

/// The most permissive reading of a path: every escape is decoded, path parameters are removed,
/// slashes and dots are resolved.
///
/// Purge rules are matched against this reading as well, so that a mutation cannot hide behind
/// escapes.
#[must_use]
pub fn permissive_path(raw: &str) -> String {
    // Decoded twice: an origin behind a proxy that decodes reads `%252f` as `/`.
    resolved(&decoded(&decoded(raw)))
}

/// The most permissive reading of an origin that keeps escaped slashes; `None` where there are
/// none.
fn permissive_kept_path(raw: &str) -> Option<String> {
    let mut parts = escaped_slash_parts(raw).peekable();
    let mut whole = decoded(&decoded(parts.next()?));
    parts.peek()?;
    for part in parts {
        whole.push_str(ESCAPED_SLASH);
        whole.push_str(&decoded(&decoded(part)));
    }
    Some(resolved(&whole))
}

/// The text between escaped slashes, which may be in either case.
fn escaped_slash_parts(raw: &str) -> impl Iterator<Item = &str> {
    raw.split(ESCAPED_SLASH).flat_map(|part| part.split("%2f"))
}

/// All readings of a path that an origin might use: as it is, in normal form, decoded once, and the
/// most permissive ones.
#[must_use]
pub fn readings(raw: &str) -> Vec<String> {
    // As most paths are.
    if has_one_reading(raw) { vec![raw.to_owned()] } else { all_readings(raw) }
}

/// Whether a path is segments of characters that need no escape and mean nothing else, with a slash
/// before each of them and none behind the last. Every origin reads it as it is.
fn has_one_reading(raw: &str) -> bool {
    let is_plain = |segment: &str| {
        !segment.is_empty()
            && !is_dots(segment)
            && segment.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
            })
    };
    raw.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain))
}

fn all_readings(raw: &str) -> Vec<String> {
    let mut all = vec![raw.to_owned(), resolved(&decoded(raw)), permissive_path(raw)];
    all.extend(kept_path(raw).map(|normal| normal.path.into_owned()));
    all.extend(permissive_kept_path(raw));
    all.sort();
    all.dedup();
    all
}

/// A path without its final slashes, and without the extensions of its last segment: `/items/7` for
/// `/items/7.json` and `/items/7/`. Many origins route all of them alike.
#[must_use]
pub fn bare_path(path: &str) -> &str {
    let mut bare = path.trim_end_matches('/');
    // Byte by byte: paths are short, and the search of a character in a text is made for long ones.
    let last = |wanted: u8, text: &str| text.bytes().rposition(|byte| byte == wanted);
    let start = last(b'/', bare).map_or(0, |slash| slash + 1);
    while let Some(dot) = last(b'.', &bare[start..]) {
        if dot == 0 || !is_extension(&bare[start + dot + 1..]) {
            break;
        }
        bare = &bare[..start + dot];
    }
    bare
}

/// `json`, but not the end of `10.0.0.1` or of `v1.2`.
fn is_extension(text: &str) -> bool {
    text.len() <= MAX_EXTENSION
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The readings of a path by which purge rules are matched: each reading in folded form, with and
/// without what [`bare_path`] takes away.
#[must_use]
pub fn write_readings(raw: &str) -> Vec<String> {
    let folded = |reading: &String| fold(reading).into_owned();
    let mut all: Vec<String> = readings(raw).iter().map(folded).collect();
    let bare: Vec<String> = all.iter().map(|path| bare_path(path).to_owned()).collect();
    all.extend(bare.into_iter().filter(|path| !path.is_empty()));
    all.sort();
    all.dedup();
    all
}

/// A literal segment of a pattern in the form that [`write_readings`] are matched in.
#[must_use]
pub fn write_segment(literal: &str) -> String {
    fold(&decoded(literal)).into_owned()
}

fn decoded(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

fn resolved(decoded: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        let segment = segment.split([';', '\0', '?', '#']).next().unwrap_or_default();
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// One parameter of a query, raw and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// `name=value`, as it is in the query.
    pub raw: &'a str,
    /// The name, decoded.
    pub name: Cow<'a, str>,
    /// The value, decoded.
    pub value: Cow<'a, str>,
}

/// The parameters of a query in their order. `None` for a parameter that can be read in more than
/// one way.
pub fn parameters(query: &str) -> impl Iterator<Item = Option<Parameter<'_>>> {
    query.split('&').filter(|raw| !raw.is_empty()).map(|raw| {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        Some(Parameter { raw, name: unescape(name)?, value: unescape(value)? })
    })
}

/// Decodes `%XX` and `+`. `None` for a bad escape, a NUL, a `;`, or text that is not UTF-8.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+' | b';')) {
        return Some(Cow::Borrowed(text));
    }
    // SECURITY: some origins split parameters at `;` as well (parameter cloaking).
    if text.contains(';') || !well_escaped(text) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?.into_owned();
    (!decoded.contains('\0')).then_some(Cow::Owned(decoded))
}

fn well_escaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, &b)| {
        b != b'%' || bytes.get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The query can be read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousQuery;

/// All values that a query could give a parameter, by any reading: split at `&` and at `;`, decoded
/// where possible, with the name in any spelling. `None` if nobody can tell all of them, because
/// one is not UTF-8.
///
/// Used for purges: a value too many costs a miss, a value too few a stale response.
#[must_use]
pub fn every_value(query: &str, wanted: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let all = loose_parameters::parameters(query.as_bytes());
    for parameter in all.filter(|parameter| parameter.is_named(wanted)) {
        if parameter.is_garbled {
            return None;
        }
        values.extend(parameter.values().filter(|value| !value.is_empty()).map(str::to_owned));
    }
    values.sort();
    values.dedup();
    Some(values)
}

/// The value of one query parameter. A parameter that occurs twice is ambiguous, also if it is
/// disguised (`a[]`, `%61`).
pub fn parameter<'a>(query: &'a str, wanted: &str) -> Result<Option<Cow<'a, str>>, AmbiguousQuery> {
    let mut found = None;
    for parameter in parameters(query) {
        let parameter = parameter.ok_or(AmbiguousQuery)?;
        if is_disguise(&parameter.name, wanted) || (parameter.name == wanted && found.is_some()) {
            return Err(AmbiguousQuery);
        }
        if parameter.name == wanted {
            found = Some(parameter.value);
        }
    }
    Ok(found)
}

/// The parameters in `wanted`, in that order, and as they were sent but for [`normal_query`]. They
/// go into the key, and to the origin on a fill.
pub fn pick(query: &str, wanted: &[Box<str>]) -> Result<String, AmbiguousQuery> {
    let mut found: Vec<Option<&str>> = vec![None; wanted.len()];
    for parameter in parameters(query) {
        let parameter = parameter.ok_or(AmbiguousQuery)?;
        for (slot, name) in found.iter_mut().zip(wanted) {
            if is_disguise(&parameter.name, name) {
                return Err(AmbiguousQuery);
            }
            if parameter.name == **name && slot.replace(parameter.raw).is_some() {
                return Err(AmbiguousQuery);
            }
        }
    }
    let picked = found.into_iter().flatten().collect::<Vec<_>>().join("&");
    Ok(match normal_query(&picked) {
        Cow::Borrowed(_) => picked,
        Cow::Owned(normal) => normal,
    })
}

/// PHP and Rails read `a[]` and `a[0]` as `a`.
fn is_disguise(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('['))
}

#[cfg(test)]
mod tests;
