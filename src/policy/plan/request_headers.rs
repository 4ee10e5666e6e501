//! The request headers that make a request ambiguous, before any key is made.

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName};

/// A header of `read` that occurs more than once, or that `Connection` would remove on the way to
/// the origin (RFC 9110 7.6.1).
pub(super) fn ambiguous_header(read: &[HeaderName], headers: &HeaderMap) -> Option<HeaderName> {
    let is_repeated = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    // Most requests repeat none at all.
    let repeats = headers.len() > headers.keys_len();
    let repeated = if repeats { read.iter().find(is_repeated) } else { None };
    repeated.or_else(|| named_by_connection(read, headers)).cloned()
}

fn named_by_connection<'a>(read: &'a [HeaderName], headers: &HeaderMap) -> Option<&'a HeaderName> {
    let mut lines = headers
        .get_all(CONNECTION)
        .iter()
        .filter(|line| *line != "keep-alive" && *line != "close")
        .peekable();
    lines.peek()?;
    let options: Vec<&[u8]> = lines
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    read.iter().chain([const { &COOKIE }]).find(|name| {
        options.iter().any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// A header of the request that `Connection` removes before the origin (RFC 9110 7.6.1), other than
/// the headers that belong to the connection itself.
pub(super) fn removed_by_connection(headers: &HeaderMap) -> Option<&str> {
    const CONNECTION_HEADERS: [&str; 7] =
        ["close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection"];
    let options = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    let mut others = options
        .filter(|option| !CONNECTION_HEADERS.iter().any(|name| name.eq_ignore_ascii_case(option)));
    others.find(|option| headers.contains_key(*option))
}
