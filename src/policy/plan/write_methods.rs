//! Which methods the origin may see in a write: that of the request line, and those that headers,
//! the query or the body name in its place.
//!
//! Frameworks let a POST stand for another method: by a header, or by a parameter of the query or
//! of a form. Where the sidecar cannot read such a parameter although the origin may, the POST
//! stands for every method. In doubt it names too much: a purge too many costs a miss, one too few
//! a stale response.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, Method};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use crate::policy::body_fields::BodyFields;
use crate::policy::plan::rules::RequestView;
use crate::policy::purge_rule;
use crate::semantics::request_fields::RequestFields;

/// The methods that the origin may see in a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteMethods {
    /// One of these.
    These(SmallVec<[Method; 2]>),
    /// Nobody can tell: any.
    Any,
}

/// The names of parameters and headers that name another method, as [`names_method`] reads names.
const OVERRIDES: [&[u8]; 4] =
    [b"_method", b"x_http_method_override", b"x_method_override", b"x_http_method"];

/// Bodies of these media types hold no parameters.
const OPAQUE_KINDS: [&[u8]; 5] = [b"image/", b"audio/", b"video/", b"font/", b"model/"];

/// Further media types whose bodies hold no parameters.
const OPAQUE: [&[u8]; 17] = [
    b"application/octet-stream",
    b"application/pdf",
    b"application/zip",
    b"application/gzip",
    b"application/x-gzip",
    b"application/x-tar",
    b"application/xml",
    b"application/grpc",
    b"application/grpc+proto",
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/protobuf",
    b"application/x-protobuf",
    b"application/graphql",
    b"text/csv",
    b"text/xml",
];

/// Some frameworks look for these in the whole line, whatever the type is.
const SOUGHT: [&[u8]; 4] = [b"urlencoded", b"multipart", b"form-data", b"json"];

/// The character sets in which a body is read as it is. In another one, its bytes may spell a name
/// that only the origin can read.
const CHARSETS: [&[u8]; 6] =
    [b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1", b"iso-8859-15", b"windows-1252"];

/// Whether a body may name a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    /// It has no parameters.
    Opaque,
    /// It may, and can be read.
    Readable,
    /// It may, and cannot be read.
    Hidden,
}

impl WriteMethods {
    /// The methods of a write. `body` is what was read of its body; None if it was not read whole.
    pub(super) fn new(
        request: &RequestView<'_>,
        effective: &Method,
        body: Option<&BodyFields>,
        obeyed_on_reads: bool,
    ) -> Self {
        let mut methods = Self::of_head(request, effective, obeyed_on_reads);
        // One without a length may turn out to be empty.
        if may_hide_in_body(request) && !body.is_some_and(BodyFields::is_nothing) {
            match (body_kind(request.headers), body) {
                (BodyKind::Opaque, _) => {}
                (BodyKind::Readable, Some(body)) => methods.add_from_body(body),
                (BodyKind::Readable, None) | (BodyKind::Hidden, _) => methods = Self::Any,
            }
        }
        methods
    }

    /// The methods that the head of a write names.
    pub(super) fn of_head(
        request: &RequestView<'_>,
        effective: &Method,
        obeyed_on_reads: bool,
    ) -> Self {
        let mut methods = Self::These(SmallVec::new());
        methods.add(request.method.clone());
        methods.add(effective.clone());
        if *request.method == Method::HEAD {
            // What a rule says of GET holds for HEAD.
            methods.add(Method::GET);
        }
        // Some origins read the method in any case.
        methods.add_named(request.method.as_str().as_bytes());
        let is_read = matches!(*request.method, Method::GET | Method::HEAD);
        if !is_read || obeyed_on_reads {
            for value in overrides(request) {
                methods.add_named(&value);
            }
        }
        methods
    }

    /// Whether it is this method for certain.
    pub(super) fn is_only(&self, method: &Method) -> bool {
        matches!(self, Self::These(methods) if methods.iter().all(|named| named == method))
    }

    /// Whether reading the body may add methods.
    pub(super) fn may_add_from_body(&self, request: &RequestView<'_>) -> bool {
        *self != Self::Any
            && may_hide_in_body(request)
            && body_kind(request.headers) == BodyKind::Readable
    }

    /// Whether a rule for these methods applies; without a list it is for every unsafe method.
    #[must_use]
    pub fn are_named_by(&self, listed: Option<&[Method]>) -> bool {
        match (self, listed) {
            (Self::Any, _) => true,
            (Self::These(methods), Some(listed)) => {
                methods.iter().any(|method| listed.contains(method))
            }
            (Self::These(methods), None) => {
                methods.iter().any(|method| !purge_rule::is_safe(method))
            }
        }
    }

    fn add(&mut self, method: Method) {
        if let Self::These(methods) = self
            && !methods.contains(&method)
        {
            methods.push(method);
        }
    }

    /// Adds the method that a parameter names. An empty one names none; one that is no method may
    /// mean anything.
    fn add_named(&mut self, name: &[u8]) {
        let name = name.trim_ascii();
        if name.is_empty() {
            return;
        }
        match Method::from_bytes(&name.to_ascii_uppercase()) {
            Ok(method) => self.add(method),
            Err(_) => *self = Self::Any,
        }
    }

    fn add_from_body(&mut self, body: &BodyFields) {
        // What a member says is not looked at: an origin may take the first of two, or the last.
        if body.member_names().any(|name| names_method(name.as_bytes())) {
            *self = Self::Any;
        }
        for parameter in body.parameters() {
            if names_method(parameter.name.as_bytes()) {
                self.add_named(parameter.value.as_bytes());
            }
        }
    }
}

/// Frameworks look for a method in the body of a POST alone.
fn may_hide_in_body(request: &RequestView<'_>) -> bool {
    request.has_body && request.method.as_str().eq_ignore_ascii_case("POST")
}

/// Whether the body of a request with these headers may name a method.
fn body_kind(headers: &HeaderMap) -> BodyKind {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        // Without a type, and with two, origins guess.
        return BodyKind::Hidden;
    };
    let line = line.as_bytes().to_ascii_lowercase();
    let mut parameters = line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let kind = parameters.next().unwrap_or_default();
    if !is_media_type(kind) {
        return BodyKind::Hidden;
    }
    if OPAQUE_KINDS.iter().any(|prefix| kind.starts_with(prefix))
        || OPAQUE.contains(&kind)
        || kind.ends_with(b"+xml")
    {
        let is_sought = |word: &&[u8]| line.windows(word.len()).any(|part| part == *word);
        return if SOUGHT.iter().any(is_sought) { BodyKind::Hidden } else { BodyKind::Opaque };
    }
    let is_coded = headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity");
    let is_foreign = |parameter: &[u8]| {
        // `charset*` (RFC 8187) and the like are not read.
        parameter.strip_prefix(b"charset").is_some_and(|rest| {
            let name = rest.strip_prefix(b"=").unwrap_or(b"?");
            let name = name.strip_prefix(b"\"").unwrap_or(name);
            !CHARSETS.contains(&name.strip_suffix(b"\"").unwrap_or(name))
        })
    };
    if BodyFields::reads(kind) && !is_coded && !parameters.any(is_foreign) {
        BodyKind::Readable
    } else {
        BodyKind::Hidden
    }
}

/// Whether it is a type and a subtype, and nothing else (RFC 6838 4.2).
fn is_media_type(kind: &[u8]) -> bool {
    let mut names = kind.split(|&byte| byte == b'/');
    let is_name = |name: Option<&[u8]>| {
        name.is_some_and(|name| {
            !name.is_empty()
                && name
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(byte))
        })
    };
    is_name(names.next()) && is_name(names.next()) && names.next().is_none()
}

/// The values of all headers and query parameters that name a method in place of the request's own.
fn overrides<'a>(request: &RequestView<'a>) -> impl Iterator<Item = Vec<u8>> + 'a {
    let in_headers = override_lines(request)
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::to_vec);
    let in_query = override_parameters(request.uri.query().unwrap_or_default())
        .map(|value| percent_decode(value.as_bytes()).collect());
    in_headers.chain(in_query)
}

fn override_lines<'a>(request: &RequestView<'a>) -> impl Iterator<Item = &'a HeaderValue> + 'a {
    // Nearly all requests have no name that begins as these do.
    let may_have = request.fields.has(RequestFields::OF_EXTENSION);
    let headers = may_have.then_some(request.headers).into_iter().flatten();
    let is_named = |name: &HeaderName| names_method(name.as_str().as_bytes());
    headers.filter(move |(name, _)| is_named(name)).map(|(_, value)| value)
}

/// The raw values of the parameters that name a method, by any reading of the query: split at `&`
/// and at `;`.
fn override_parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split(['&', ';']).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        names_method(name.as_bytes()).then_some(value)
    })
}

/// What a read says of its method beside the request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadOverride {
    /// Nothing else.
    None,
    /// Another method that changes data.
    Unsafe(Method),
    /// Something else: a safe method, or no method at all.
    Other,
}

/// Which other method a GET or HEAD names. Takes no memory where it names none.
pub(super) fn read_override(request: &RequestView<'_>) -> ReadOverride {
    let query = request.uri.query();
    if override_lines(request).next().is_none()
        && query.is_none_or(|query| override_parameters(query).next().is_none())
    {
        return ReadOverride::None;
    }
    let mut found = ReadOverride::None;
    for value in overrides(request) {
        let value = value.trim_ascii();
        if value.is_empty() || value.eq_ignore_ascii_case(request.method.as_str().as_bytes()) {
            continue;
        }
        match Method::from_bytes(&value.to_ascii_uppercase()) {
            Ok(method) if !purge_rule::is_safe(&method) => return ReadOverride::Unsafe(method),
            _ => found = ReadOverride::Other,
        }
    }
    found
}

/// Whether a name, escaped or not, is that of a parameter or header which names a method, as any
/// framework might read it: in any case, with an index (`_method[]`), and by the rules of PHP,
/// which makes `_` of `.`, of space and of `[`, and of CGI, which makes `_` of `-`.
fn names_method(name: &[u8]) -> bool {
    // Nearly all names end here.
    if !matches!(name.first(), Some(b'_' | b'.' | b'-' | b'[' | b'%' | b'+' | b' ' | b'x' | b'X')) {
        return false;
    }
    let plain =
        percent_decode(name).skip_while(|byte| matches!(byte, b' ' | b'+')).map(
            |byte| match byte {
                b'.' | b' ' | b'+' | b'-' | b'[' => b'_',
                other => other.to_ascii_lowercase(),
            },
        );
    OVERRIDES.iter().any(|wanted| {
        let mut plain = plain.clone();
        wanted.iter().all(|byte| plain.next() == Some(*byte))
            && matches!(plain.next(), None | Some(b'_' | 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_in_many_ways() {
        for name in [
            "_method",
            "_METHOD",
            "_Method",
            "_m%65thod",
            "%5Fmethod",
            "%5f%6d%65thod",
            "_method[]",
            "_method%5B%5D",
            "_method[0]",
            ".method",
            "+_method",
            "%20_method",
            " .method",
            "[method",
            "-method",
            "_method%00x",
            "x-http-method-override",
            "X-HTTP-Method-Override",
            "x_http_method_override",
            "x-method-override",
            "X-HTTP-Method",
            "x-http_method",
        ] {
            assert!(names_method(name.as_bytes()), "{name}");
            // As a header it is not passed over by the one look at all names.
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                let headers =
                    HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("PUT"))]);
                let fields = RequestFields::of(&headers);
                assert!(fields.has(RequestFields::OF_EXTENSION), "{name}");
            }
        }
        for name in [
            "",
            "_",
            "method",
            "_methodology",
            "a_method",
            "_metho",
            "x-http-methods",
            "x-method",
            "%",
            "x-requested-with",
            "__method",
        ] {
            assert!(!names_method(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_type_of_a_body_says_what_it_may_hide() {
        let of = |lines: &[(&'static str, &'static str)]| {
            let line = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let mut headers = HeaderMap::new();
            for (name, value) in lines.iter().map(line) {
                headers.append(name, value);
            }
            body_kind(&headers)
        };
        for readable in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/vnd.api+json",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=\"utf-8\"",
        ] {
            assert_eq!(of(&[("content-type", readable)]), BodyKind::Readable, "{readable}");
            let coded = [("content-type", readable), ("content-encoding", "gzip")];
            assert_eq!(of(&coded), BodyKind::Hidden, "{readable}");
            let twice = [("content-type", readable), ("content-type", readable)];
            assert_eq!(of(&twice), BodyKind::Hidden, "{readable}");
        }
        for opaque in ["image/png", "application/octet-stream", "application/soap+xml", "text/csv"]
        {
            assert_eq!(of(&[("content-type", opaque)]), BodyKind::Opaque, "{opaque}");
        }
        for hidden in [
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded; charset=ibm037",
            "application/x-www-form-urlencoded; charset=utf-16",
            "application/json, application/x-www-form-urlencoded",
            "image/png, multipart/form-data",
            "application/x-unheard-of",
            "",
            "image/png/application/x-www-form-urlencoded",
            "image/png; application/x-www-form-urlencoded",
            "image/x-www-form-urlencoded",
            "image/multipart+xml",
            "image/",
            "image",
            "application/x-ndjson",
            "application/json; charset*=utf-8''ibm037",
            "application/json; charset =ibm037",
            "application/json; charset",
        ] {
            assert_eq!(of(&[("content-type", hidden)]), BodyKind::Hidden, "{hidden}");
        }
        assert_eq!(of(&[]), BodyKind::Hidden);
    }
}
