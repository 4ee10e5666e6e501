//! Redirects of an origin to its own spelling of a query that the key does not tell from the one of
//! the fill: to its own order of the parameters, or to one with a parameter that the key leaves
//! out. Stored, such a redirect would lead back to itself for ever.

use http::header::{HeaderValue, LOCATION};
use http::{Response, Uri};

use crate::policy::query_rule::QueryRule;
use crate::policy::request_target;

/// Whether a response redirects to another query of the same path and host, of which the rule makes
/// the query of the fill again.
pub(super) fn leads_back<B>(
    rule: &QueryRule,
    host: &str,
    target: &Uri,
    response: &Response<B>,
) -> bool {
    if *rule == QueryRule::All || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
    {
        return false;
    }
    let location = response.headers().get(LOCATION).map(HeaderValue::as_bytes);
    location
        .and_then(|location| std::str::from_utf8(location).ok())
        .is_some_and(|location| is_same_key(rule, host, target, location))
}

fn is_same_key(rule: &QueryRule, host: &str, target: &Uri, location: &str) -> bool {
    let location = location.split('#').next().unwrap_or_default().trim();
    let (authority, rest) = split_authority(location);
    if authority.is_some_and(|other| !is_host(other, host)) {
        return false;
    }
    let (path, query) =
        rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let own = target.path();
    let path = match path.as_bytes().first() {
        None if authority.is_none() => own.to_owned(),
        None => "/".to_owned(),
        Some(b'/') => path.to_owned(),
        // Relative to the folder of the path (RFC 3986 5.2.3).
        Some(_) => format!("{}/{path}", own.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let normal = request_target::kept_path(&path);
    query != target.query()
        && normal.is_some_and(|normal| normal.path.eq_ignore_ascii_case(own))
        && rule.keyed(query).is_ok_and(|keyed| keyed.as_deref() == target.query())
}

/// The authority of an absolute or scheme-relative location, and the rest.
fn split_authority(location: &str) -> (Option<&str>, &str) {
    let after_scheme = match location.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => Some(rest),
        _ => location.strip_prefix("//"),
    };
    let Some(rest) = after_scheme else { return (None, location) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    (Some(&rest[..end]), &rest[end..])
}

/// Whether both are one host. The port of a scheme may be written or not.
fn is_host(one: &str, other: &str) -> bool {
    let bare = |host: &str| {
        let host = host.strip_suffix(":80").or_else(|| host.strip_suffix(":443")).unwrap_or(host);
        host.to_ascii_lowercase()
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::query_rule::{MostParameters, QueryOrder};

    #[test]
    fn only_a_redirect_to_another_spelling_of_the_key_leads_back() {
        let rule = QueryRule::Most(MostParameters {
            except: ["utm_*".into()].into(),
            kept: Box::default(),
            order: QueryOrder::Ignore,
        });
        let target = Uri::from_static("/a/list?a=1&b=2");
        for (location, expected) in [
            ("/a/list?b=2&a=1", true),
            ("?b=2&a=1", true),
            ("list?b=2&a=1#top", true),
            ("http://app.test/a/list?b=2&a=1", true),
            ("//App.test:80/a/list?b=2&a=1", true),
            ("/a/list?a=1&b=2&utm_x=1", true),
            ("/%61/list?b=2&a=1", true),
            // The same URL: a loop of the origin's own, or another scheme.
            ("/a/list?a=1&b=2", false),
            ("https://app.test/a/list?a=1&b=2", false),
            ("http://other.test/a/list?b=2&a=1", false),
            ("/a/list?b=2&a=2", false),
            ("/a/other?b=2&a=1", false),
            ("/a/list", false),
            ("https://app.test", false),
            ("", false),
        ] {
            let response = Response::builder().status(302).header(LOCATION, location);
            let response = response.body(()).expect("a response");
            assert_eq!(leads_back(&rule, "app.test", &target, &response), expected, "{location}");
            assert!(!leads_back(&QueryRule::All, "app.test", &target, &response), "{location}");
        }
        let created = Response::builder().status(201).header(LOCATION, "?b=2&a=1");
        assert!(!leads_back(&rule, "app.test", &target, &created.body(()).expect("a response")));
    }
}
