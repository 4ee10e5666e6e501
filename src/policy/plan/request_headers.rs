//! The request headers that a plan depends on before any key is made: which make a request
//! ambiguous, and which name another method.

use http::header::{CONNECTION, COOKIE, HeaderMap, HeaderName};
use http::{HeaderValue, Method};
use smallvec::SmallVec;

use crate::policy::plan::rules::RequestView;
use crate::policy::purge_rule;
use crate::policy::request_target;

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

/// The unsafe methods that headers or the query name in place of the request's own method. An
/// origin that supports such an override acts as if it had received that method.
pub(super) fn overridden_methods(request: &RequestView<'_>) -> SmallVec<[Method; 1]> {
    static OVERRIDES: [HeaderName; 3] = [
        HeaderName::from_static("x-http-method-override"),
        HeaderName::from_static("x-method-override"),
        HeaderName::from_static("x-http-method"),
    ];
    let unsafe_method = |name: &[u8]| {
        Method::from_bytes(&name.trim_ascii().to_ascii_uppercase())
            .ok()
            .filter(|method| !purge_rule::is_safe(method))
    };
    let lines = OVERRIDES.iter().flat_map(|name| request.headers.get_all(name));
    let mut methods: SmallVec<[Method; 1]> = lines
        .map(HeaderValue::as_bytes)
        .flat_map(|line| line.split(|&b| b == b','))
        .filter_map(unsafe_method)
        .collect();
    if let Some(query) = request.uri.query().filter(|query| query.contains("method")) {
        methods.extend(
            request_target::every_value(query, "_method")
                .iter()
                .filter_map(|value| unsafe_method(value.as_bytes())),
        );
    }
    methods
}
