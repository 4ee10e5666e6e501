//! The paths that a write changes: its own, and the `Destination` of MOVE and COPY.
//!
//! SECURITY: a request that is a MOVE by its override alone has no destination. Any stranger can
//! claim that of a POST that is answered 200, and would purge what he likes.
//!
//! Limit: of a collection (a `Depth` other than 0) the two named paths are known, and not its
//! members.

use http::header::HeaderValue;

use crate::policy::plan::rules::RequestView;

/// A path that a write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WritePath {
    /// The hosts that its entries may be stored under.
    pub(super) hosts: Vec<String>,
    /// The path, as it was sent.
    pub(super) path: String,
}

/// The paths that a write changes, its own first. `host` is the one that its entries are stored
/// under.
pub(super) fn write_paths(request: &RequestView<'_>, host: &str) -> Vec<WritePath> {
    let own = WritePath { hosts: vec![host.to_owned()], path: request.uri.path().to_owned() };
    let mut paths = vec![own];
    let own = request.method.as_str();
    if ["MOVE", "COPY"].iter().any(|method| own.eq_ignore_ascii_case(method)) {
        let lines = request.headers.get_all("destination").iter();
        paths.extend(lines.filter_map(|line| destination(line, host, request.uri.path())));
    }
    paths
}

/// The target of MOVE or COPY (RFC 4918 10.3): a URL or a path. One of another host names a path of
/// that host; behind proxies that rewrite names, it may be one of the own host as well.
fn destination(line: &HeaderValue, host: &str, base: &str) -> Option<WritePath> {
    let text = String::from_utf8_lossy(line.as_bytes());
    let text = text.trim();
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let reference = &text[..end];
    let after_scheme = match reference.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => Some(rest),
        _ => reference.strip_prefix("//"),
    };
    let mut hosts = vec![host.to_owned()];
    let path = match after_scheme {
        Some(rest) => {
            let (named, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
            let named = named.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
            hosts.extend(without_port(&named).map(str::to_owned));
            hosts.push(named);
            path.to_owned()
        }
        None if reference.starts_with('/') => reference.to_owned(),
        None if reference.is_empty() => return None,
        None => {
            let folder = base.rfind('/').map_or("", |slash| &base[..slash]);
            format!("{folder}/{reference}")
        }
    };
    hosts.sort();
    hosts.dedup();
    Some(WritePath { hosts, path })
}

fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_url_or_a_path() {
        let of = |line: &str| {
            let line = HeaderValue::from_str(line).expect("a value");
            destination(&line, "app.test", "/files/a").map(|path| (path.hosts, path.path))
        };
        let own = |path: &str| Some((vec!["app.test".to_owned()], path.to_owned()));
        for (line, path) in [
            ("/files/b", "/files/b"),
            ("http://app.test/files/b", "/files/b"),
            ("HTTPS://APP.test/files/b?x#y", "/files/b"),
            ("//app.test/files/b", "/files/b"),
            ("http://user:pw@app.test/files/b", "/files/b"),
            ("http://app.test", "/"),
            ("/files/b?next=http://a/b", "/files/b"),
            (" /files/%62 ", "/files/%62"),
            ("b", "/files/b"),
        ] {
            assert_eq!(of(line), own(path), "{line}");
        }
        let (hosts, path) = of("http://other.test:8080/b").expect("a path");
        assert_eq!(hosts, ["app.test", "other.test", "other.test:8080"]);
        assert_eq!(path, "/b");
        assert_eq!(of(""), None);
    }
}
