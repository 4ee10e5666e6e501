//! The cookies of a request. HTTP/2 clients may spread them over several lines (RFC 9113 8.2.3).

use http::header::{COOKIE, HeaderMap};

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
