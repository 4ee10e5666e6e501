//! `headers.md`: the headers that the sidecar adds, changes, removes or reads.
//!
//! Names come from the constants of the code.

use http::HeaderName;
use http::header::{
    ACCEPT, AGE, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_RANGE, COOKIE, DATE, ETAG, EXPECT, EXPIRES, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, LOCATION, SET_COOKIE, TE, TRANSFER_ENCODING, VARY, VIA,
};

use super::markdown::{Page, code};
use crate::policy::cache_groups::{CACHE_GROUP_INVALIDATION, CACHE_GROUPS};
use crate::policy::route::headers as roles;
use crate::proxy::response::{
    CACHE_STATUS, X_CACHE, X_CACHE_KEY, X_CACHE_PURGED, X_CACHE_ROUTE, X_CACHE_TAGS,
};
use crate::semantics::forward::{self, FORWARDED, HOP_BY_HOP};
use crate::semantics::server_timing::SERVER_TIMING;
use crate::semantics::targeted_cache_control::CDN_CACHE_CONTROL;

/// The message, and what the sidecar does with the header.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    ToClient,
    FromOrigin,
    ReadFromOrigin,
    ToOrigin,
    FromClient,
    ReadFromClient,
}

const PARTS: [(Part, &str, &str); 6] = [
    (
        Part::ToClient,
        "Added to responses",
        "All other headers of the origin reach the client as they are.",
    ),
    (Part::FromOrigin, "Removed from responses", ""),
    (Part::ReadFromOrigin, "Read in responses", "They reach the client as well, except tags."),
    (
        Part::ToOrigin,
        "Added to requests",
        "A fill differs: see [the request of a fill](#the-request-of-a-fill).",
    ),
    (Part::FromClient, "Removed from requests", ""),
    (Part::ReadFromClient, "Read in requests", ""),
];

struct Header {
    name: HeaderName,
    part: Part,
    when: &'static str,
    meaning: &'static str,
}

fn header(name: HeaderName, part: Part, when: &'static str, meaning: &'static str) -> Header {
    Header { name, part, when, meaning }
}

fn to_client() -> Vec<Header> {
    let add = |name, when, meaning| header(name, Part::ToClient, when, meaning);
    let debug = "with `headers = true` in `[debug]`";
    vec![
        add(X_CACHE, "always", "How the response was made, in one word: see the page on reasons."),
        add(
            CACHE_STATUS,
            "always",
            "The same in full (RFC 9211): `hit` or `fwd`, `fwd-status`, `ttl`, `stored`, \
             `collapsed`, and the tier or the reason in `detail`. Lines of earlier caches stay in \
             front.",
        ),
        add(AGE, "on stored responses", "How old the response is, in seconds."),
        add(VIA, "on responses of the origin", "The version of HTTP, and `sidecache`."),
        add(DATE, "where the origin sent none", "When the response arrived."),
        add(CONTENT_RANGE, "on parts of stored responses", "Which part it is (RFC 9110)."),
        add(CACHE_CONTROL, "on the sidecar's own errors", "`no-store`."),
        add(CACHE_CONTROL, "on routes with `browser`", "What `browser` says."),
        add(
            SERVER_TIMING,
            "with `server_timing = true` in `[debug]`",
            "How the cache answered, how long it took, and how long the origin took.",
        ),
        add(ALLOW, "on 405", "The allowed methods."),
        add(
            CONNECTION,
            "on refused requests, and while draining",
            "`close`: this response is the last of its connection. HTTP/1 only.",
        ),
        add(X_CACHE_KEY, debug, "The hash of the key. `Cache-Status` has it too, as `key`."),
        add(X_CACHE_ROUTE, debug, "The `path` of the route."),
        add(X_CACHE_TAGS, debug, "The tags of the request."),
        add(
            X_CACHE_PURGED,
            "on writes, with `headers = true` in `[debug]`",
            "The tags that were purged.",
        ),
    ]
}

fn from_origin() -> Vec<Header> {
    let remove = |name, when, meaning| header(name, Part::FromOrigin, when, meaning);
    let mut headers = vec![
        remove(
            CONNECTION,
            "always",
            "With every header that it names, except those that frame a message or decide about \
             caching.",
        ),
        remove(
            SET_COOKIE,
            "on stored responses",
            "Never stored: a response that sets a cookie is stored without it, if \
             `strip_set_cookie` says so, or not at all. Clients that joined a fill never get it.",
        ),
    ];
    let tags = crate::policy::tag::ResponseTags::default().headers;
    headers.extend(
        tags.into_iter().map(|name| {
            remove(name, "on routes that cache", "Kept with `keep = true` in `[tags]`.")
        }),
    );
    headers.extend(
        HOP_BY_HOP.iter().map(|name| remove(name.clone(), "always", "Belongs to one connection.")),
    );
    headers
}

fn read_from_origin() -> Vec<Header> {
    let read = |name, meaning| header(name, Part::ReadFromOrigin, "on routes that cache", meaning);
    let written = |name, meaning| header(name, Part::ReadFromOrigin, "after writes", meaning);
    let mut headers = vec![
        read(CACHE_CONTROL, "How long, and whether, the response may be stored (RFC 9111)."),
        read(
            CDN_CACHE_CONTROL,
            "The same for caches like this one (RFC 9213). It replaces `Cache-Control` \
             and `Expires`. `targeted` in `[freshness]` names others.",
        ),
        read(EXPIRES, "When the response becomes stale."),
        read(AGE, "How old the response was when it arrived."),
        read(VARY, "Which request headers select a variant."),
        read(ETAG, "A validator, for revalidation and for conditions of clients."),
        read(LAST_MODIFIED, "A validator, for revalidation and for conditions of clients."),
        read(CACHE_GROUPS, "The groups of the response, which are tags (RFC 9875)."),
        written(CACHE_GROUP_INVALIDATION, "The groups that the write purges (RFC 9875)."),
        written(LOCATION, "A URL of the same host, which the write purges (RFC 9111)."),
        written(CONTENT_LOCATION, "A URL of the same host, which the write purges (RFC 9111)."),
    ];
    let tags = crate::policy::tag::ResponseTags::default().headers;
    headers.extend(tags.into_iter().map(|name| {
        read(name, "Tags of the response. `response_headers` in `[tags]` names others.")
    }));
    headers
}

fn to_origin() -> Vec<Header> {
    let add = |name, when, meaning| header(name, Part::ToOrigin, when, meaning);
    vec![
        add(VIA, "with `via = true` in `[upstream]`", "The version of HTTP, and `sidecache`."),
        add(
            forward::X_FORWARDED_FOR,
            "on requests that pass",
            "The client's address. What a trusted proxy sent stays in front.",
        ),
        add(forward::X_FORWARDED_PROTO, "unless a trusted proxy sent it", "`http`."),
        add(
            forward::X_FORWARDED_HOST,
            "unless a trusted proxy sent it",
            "The host that the client requested.",
        ),
        add(
            HOST,
            "on requests that pass",
            "The client's, or that of `url` with `host = \"upstream\"` in `[upstream]`.",
        ),
        add(IF_NONE_MATCH, "on revalidation", "The stored `ETag`."),
        add(IF_MODIFIED_SINCE, "on revalidation", "The stored `Last-Modified`."),
        add(COOKIE, "from HTTP/2", "Several lines become one."),
        add(CONTENT_LENGTH, "on POST, PUT and PATCH without a body", "`0`."),
        add(TRANSFER_ENCODING, "on bodies of unknown length", "`chunked`."),
    ]
}

fn from_client() -> Vec<Header> {
    let remove = |name, when, meaning| header(name, Part::FromClient, when, meaning);
    let mut headers = vec![
        remove(
            CONNECTION,
            "always",
            "With every header that it names, except those that frame a message or decide about \
             caching. Kept where the request becomes a tunnel.",
        ),
        remove(EXPECT, "always", "The sidecar itself answers `100-continue`."),
        remove(TE, "always", "Except `trailers`."),
        remove(FORWARDED, "unless the peer is a trusted proxy", "Anyone can claim it."),
        remove(forward::X_REAL_IP, "unless the peer is a trusted proxy", "Anyone can claim it."),
        remove(AUTHORIZATION, "on fills in scope `public`", "The response is for everyone."),
        remove(COOKIE, "on fills in scope `public`", "The response is for everyone."),
    ];
    headers.extend(
        HOP_BY_HOP.iter().map(|name| remove(name.clone(), "always", "Belongs to one connection.")),
    );
    let withheld = roles::WITHHELD.iter().map(|name| HeaderName::from_static(name));
    headers.extend(withheld.map(|name| remove(name, "on fills", "The sidecar evaluates it.")));
    headers
}

fn read_from_client() -> Vec<Header> {
    let read = |name, when, meaning| header(name, Part::ReadFromClient, when, meaning);
    vec![
        read(
            CACHE_CONTROL,
            "with `client_cache_control = \"respect\"`",
            "`no-cache`, `no-store`, `max-age`, `min-fresh`, `max-stale` and `only-if-cached` \
             count.",
        ),
        read(AUTHORIZATION, "always", "Identifies the caller."),
        read(COOKIE, "always", "Identifies the caller, whole or by `cookies` in `[credential]`."),
        read(ACCEPT, "on routes that cache", "Part of the key, as are the headers below."),
    ]
}

fn all() -> Vec<Header> {
    [to_client(), from_origin(), read_from_origin(), to_origin(), from_client(), read_from_client()]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn page() -> String {
    let mut page = Page::new("Headers");
    page.paragraph("What the sidecar does with the headers of requests and responses.");
    let headers = all();
    for (part, title, about) in PARTS {
        page.section(title);
        if !about.is_empty() {
            page.paragraph(about);
        }
        let rows: Vec<_> = headers
            .iter()
            .filter(|header| header.part == part)
            .map(|header| {
                [code(&shown(&header.name)), header.when.to_owned(), header.meaning.to_owned()]
            })
            .collect();
        page.table(["Header", "When", "Meaning"], &rows);
    }
    super::fill_headers::section(&mut page);
    page.finish()
}

/// A name as people write it: `X-Cache`.
fn shown(name: &HeaderName) -> String {
    let capital = |word: &str| match word {
        "te" | "etag" | "cdn" | "ip" | "http2" => word.to_uppercase().replace("ETAG", "ETag"),
        word => {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_ascii_uppercase().to_string() + letters.as_str()
            })
        }
    };
    name.as_str().split('-').map(capital).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Version};

    use super::*;
    use crate::outcome::{Disposition, Outcome};
    use crate::semantics::cache_status;

    fn names(part: Part) -> Vec<HeaderName> {
        all().into_iter().filter(|header| header.part == part).map(|header| header.name).collect()
    }

    #[test]
    fn what_is_added_on_the_way_is_on_the_page() {
        let peer = forward::ClientPeer { addr: [192, 0, 2, 1].into(), trusted: false };
        let host = HeaderValue::from_static("example.com");
        let (mut request, mut response) = (HeaderMap::new(), HeaderMap::new());
        forward::prepare_request(&mut request, Version::HTTP_11, &host, &peer, None, true);
        forward::prepare_response(&mut response, Version::HTTP_11);
        cache_status::set_cache_status(&mut response, &Outcome::new(Disposition::Miss));
        assert!(request.len() >= 5 && response.len() >= 3);
        for (part, headers) in [(Part::ToOrigin, request), (Part::ToClient, response)] {
            let listed = names(part);
            for name in headers.keys() {
                assert!(listed.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn what_is_removed_on_the_way_is_on_the_page() {
        let peer = forward::ClientPeer { addr: [192, 0, 2, 1].into(), trusted: false };
        let host = HeaderValue::from_static("example.com");
        for (part, is_request) in [(Part::FromClient, true), (Part::FromOrigin, false)] {
            for name in names(part) {
                let mut headers =
                    HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
                if is_request {
                    forward::prepare_request(
                        &mut headers,
                        Version::HTTP_11,
                        &host,
                        &peer,
                        None,
                        true,
                    );
                } else {
                    forward::prepare_response(&mut headers, Version::HTTP_11);
                }
                let always = all()
                    .iter()
                    .any(|one| one.name == name && one.part == part && one.when == "always");
                assert_eq!(!headers.contains_key(&name), always || is_claim(&name), "{name}");
            }
        }
    }

    /// Removed here as well, since the peer is not trusted.
    fn is_claim(name: &HeaderName) -> bool {
        [FORWARDED, forward::X_REAL_IP].contains(name)
    }

    #[test]
    fn each_header_is_on_the_page_by_its_usual_name() {
        let page = page();
        for header in all() {
            assert!(page.contains(&format!("| `{}` | {} |", shown(&header.name), header.when)));
        }
        assert_eq!(shown(&CDN_CACHE_CONTROL), "CDN-Cache-Control");
        assert_eq!((shown(&ETAG), shown(&X_CACHE)), ("ETag".to_owned(), "X-Cache".to_owned()));
    }
}
