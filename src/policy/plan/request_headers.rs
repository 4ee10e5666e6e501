//! The request headers that make a request ambiguous, before any key is made.

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName};

use crate::outcome::{Outcome, Reason};
use crate::policy::plan::rules::RequestView;
use crate::policy::route::{Route, RouteMode};
use crate::semantics::request_fields::{RequestFields, is_repeated};

/// A header of `read` that occurs more than once, or that `Connection` would remove on the way to
/// the origin (RFC 9110 7.6.1).
pub(super) fn ambiguous_header(
    read: &[HeaderName],
    request: &RequestView<'_>,
) -> Option<HeaderName> {
    let headers = request.headers;
    let repeated = read.iter().find(|name| is_repeated(headers, name));
    let removed = || {
        let names_some = request.fields.has(RequestFields::CONNECTION);
        names_some.then(|| named_by_connection(read, headers)).flatten()
    };
    repeated.or_else(removed).cloned()
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
fn removed_by_connection<'a>(request: &RequestView<'a>) -> Option<&'a str> {
    const CONNECTION_HEADERS: [&str; 7] =
        ["close", "keep-alive", "upgrade", "te", "trailer", "http2-settings", "proxy-connection"];
    if !request.fields.has(RequestFields::CONNECTION) {
        return None;
    }
    let headers = request.headers;
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

/// Why a request bypasses the cache, whatever its key.
pub(super) fn refuse_unkeyable(
    route: &Route,
    request: &RequestView<'_>,
    keys_body: bool,
) -> Result<(), Outcome> {
    if route.mode() == RouteMode::Off {
        let by_file = route.spec.mode == RouteMode::Off;
        return Err(Outcome::bypass(if by_file { Reason::ModeOff } else { Reason::SwitchedOff }));
    }
    if request.has_body && !keys_body {
        // SECURITY: the response to a GET with a body ("fat GET") may depend on the body, which is
        // not in the key.
        return Err(Outcome::bypass(Reason::RequestBody));
    }
    if let Some(name) = removed_by_connection(request) {
        // SECURITY: the key, or `Vary`, would contain a header that never reaches the origin, and
        // the origin's response without that header would be stored under the key.
        return Err(Outcome::bypass_with(Reason::UnkeyedHeader, name));
    }
    if let Some(reason) = request.bypass {
        return Err(Outcome::bypass(reason));
    }
    Ok(())
}
