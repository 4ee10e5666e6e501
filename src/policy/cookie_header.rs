//! The cookies of a request. HTTP/2 clients may spread them over several lines (RFC 9113 8.2.3).

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, HeaderMap};

use crate::clock::Wall;

/// All cookies of a request: name and value.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| cookie_pieces(line.as_bytes()))
        .filter(|(name, piece)| name.len() < piece.len())
        .map(|(name, piece)| {
            let equals = piece.iter().position(|&b| b == b'=').unwrap_or(name.len());
            (name, piece[equals + 1..].trim_ascii())
        })
}

/// The pieces of a `Cookie` header, each with the name before its `=`. A piece without `=` is a
/// name alone.
pub fn cookie_pieces(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&b| b == b';').map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty()).map(
        |piece| {
            let equals = piece.iter().position(|&b| b == b'=').unwrap_or(piece.len());
            (piece[..equals].trim_ascii(), piece)
        },
    )
}

/// The cookie that a `Set-Cookie` sets or clears: name and value (RFC 6265 5.2). `None` for one
/// without a name.
#[must_use]
pub fn set_cookie(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = line.split(|&b| b == b';').next()?;
    let equals = pair.iter().position(|&b| b == b'=')?;
    let name = pair[..equals].trim_ascii();
    (!name.is_empty()).then(|| (name, pair[equals + 1..].trim_ascii()))
}

/// Whether a line of `Set-Cookie` ends a cookie's life: `Max-Age` counts before `Expires` (RFC
/// 6265 5.3).
#[must_use]
pub fn is_cleared(line: &[u8], now: Wall) -> bool {
    if let Some(seconds) = attribute(line, "max-age") {
        return seconds.parse::<i64>().map_or(true, |seconds| seconds <= 0);
    }
    attribute(line, "expires").is_some_and(|date| {
        // A date that cannot be read may be one in the past.
        let date = httpdate::parse_http_date(date).ok();
        date.is_none_or(|date| seconds_of(date) <= now.seconds())
    })
}

/// For how many seconds browsers keep the cookie of a line; none if until they end.
#[must_use]
pub fn seconds_left(line: &[u8], now: Wall) -> Option<u64> {
    if let Some(seconds) = attribute(line, "max-age") {
        return seconds.parse().ok();
    }
    let date = httpdate::parse_http_date(attribute(line, "expires")?).ok()?;
    Some(seconds_of(date).saturating_sub(now.seconds()))
}

/// The value of an attribute, by its last occurrence.
fn attribute<'a>(line: &'a [u8], name: &str) -> Option<&'a str> {
    let attributes = line.split(|&byte| byte == b';').skip(1).filter_map(|attribute| {
        let text = std::str::from_utf8(attribute).ok()?;
        let (own, value) = text.split_once('=')?;
        own.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    });
    attributes.last()
}

fn seconds_of(date: SystemTime) -> u64 {
    date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
