//! Parses one line of a list of URLs or of an access log into the GET that it describes.
//!
//! Knows the formats of lines, not what is done with the requests. A log may contain anything: a
//! line that cannot be parsed is reported, and a target is used exactly as written or not at all.

use std::borrow::Cow;

use http::Uri;
use serde_json::Value;

use crate::telemetry::log::ACCESS_TARGET;

/// A GET that can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LoggedRequest {
    /// The host, if the line has one.
    pub(super) host: Option<String>,
    /// The path with its query.
    pub(super) target: String,
}

/// The result of parsing a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogLine {
    Request(LoggedRequest),
    /// An empty line or a comment.
    Blank,
    /// A request that is not repeated, or a line without a request.
    Skipped(Skip),
    /// A line in no known format.
    Unreadable,
}

/// Why a line is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skip {
    Method,
    Status,
    NoRequest,
}

impl Skip {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "not a GET",
            Self::Status => "neither 2xx nor 304",
            Self::NoRequest => "no access line",
        }
    }
}

/// Parses a line.
pub(super) fn parse(line: &str) -> LogLine {
    let line = line.trim();
    match line.as_bytes().first() {
        None | Some(b'#') => LogLine::Blank,
        Some(b'{') => json(line),
        Some(b'/') => plain(None, line),
        _ if has_scheme(line) => absolute(line),
        _ if line.contains(" sidecache") => text(line),
        _ => common(line),
    }
}

/// `http://` or `https://`, in any case.
fn has_scheme(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

/// A path with its query, without the fragment, which browsers never send.
fn plain(host: Option<String>, target: &str) -> LogLine {
    let target = target.split('#').next().unwrap_or_default();
    let sendable = target.starts_with('/')
        && target.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"'));
    if sendable && target.parse::<Uri>().is_ok() {
        LogLine::Request(LoggedRequest { host, target: target.to_owned() })
    } else {
        LogLine::Unreadable
    }
}

fn absolute(url: &str) -> LogLine {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some(host) = host(authority) else { return LogLine::Unreadable };
    let target = if target.starts_with('/') {
        Cow::Borrowed(target)
    } else {
        Cow::Owned(format!("/{target}"))
    };
    plain(Some(host), &target)
}

/// A host as clients send it: without the scheme's default port. None if it is not a host, or has a
/// user.
fn host(authority: &str) -> Option<String> {
    let host = authority
        .strip_suffix(":80")
        .or_else(|| authority.strip_suffix(":443"))
        .unwrap_or(authority);
    let plausible =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (!host.is_empty() && host.bytes().all(plausible)).then(|| host.to_ascii_lowercase())
}

/// A request from a log.
fn request(method: &str, host_of_line: Option<&str>, target: &str, status: Option<u16>) -> LogLine {
    if method != "GET" {
        return LogLine::Skipped(Skip::Method);
    }
    if status.is_some_and(|status| !matches!(status, 200..=299 | 304)) {
        return LogLine::Skipped(Skip::Status);
    }
    if has_scheme(target) { absolute(target) } else { plain(host_of_line.and_then(host), target) }
}

/// Sidecache's access log with `[log] format = "json"`. It has no queries.
fn json(line: &str) -> LogLine {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return LogLine::Unreadable };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if text("target").is_some_and(|target| target != ACCESS_TARGET) {
        return LogLine::Skipped(Skip::NoRequest);
    }
    let (Some(method), Some(path)) = (text("method"), text("path")) else {
        return LogLine::Unreadable;
    };
    let status =
        fields.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    request(method, text("host"), path, status)
}

/// Sidecache's access log as text:
/// `<time> INFO sidecache::access: request method=GET path=/a host=app.test … status=200 …`.
fn text(line: &str) -> LogLine {
    let Some((_, fields)) = line.split_once(" sidecache::access: request ") else {
        // `<time> <level> <module>: …` is another event of the same log.
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        let known = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
        return if known { LogLine::Skipped(Skip::NoRequest) } else { common(line) };
    };
    let (mut method, mut path, mut host, mut status) = (None, None, None, None);
    for (name, value) in LogFields(fields) {
        match name {
            "method" => method = Some(value),
            "path" => path = Some(value),
            "host" => host = Some(value),
            "status" => status = value.parse().ok(),
            _ => {}
        }
    }
    match (method, path) {
        (Some(method), Some(path)) => request(method, host, path, status),
        _ => LogLine::Unreadable,
    }
}

/// `name=value name="a value with spaces"`. Quoted values keep their escapes; requests with escapes
/// are not sent.
struct LogFields<'a>(&'a str);

impl<'a> Iterator for LogFields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.trim_start().split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = end_of_quoted(quoted)?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// Where a quoted text ends. A backslash escapes the next character.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })
}

/// The common and the combined log format of nginx and Apache, with or without a virtual host in
/// front: `[vhost:port ]host ident user [time] "GET /target HTTP/1.1" 200 1234 …`.
fn common(line: &str) -> LogLine {
    let Some((before, rest)) = line.split_once('"') else { return LogLine::Unreadable };
    // In this format a time in brackets precedes the request.
    let Some((names, time)) = before.split_once('[') else { return LogLine::Unreadable };
    let Some(end) = end_of_quoted(rest).filter(|_| time.trim_end().ends_with(']')) else {
        return LogLine::Unreadable;
    };
    let mut parts = rest[..end].split_ascii_whitespace();
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return LogLine::Unreadable;
    };
    if parts.next().is_some_and(|version| !version.starts_with("HTTP/")) || parts.next().is_some() {
        return LogLine::Unreadable;
    }
    let status =
        rest[end + 1..].split_ascii_whitespace().next().and_then(|status| status.parse().ok());
    // An IPv6 client looks like `host:port` too, so the first word is a virtual host only if there
    // are four words.
    let names: Vec<_> = names.split_ascii_whitespace().collect();
    let vhost = if let [vhost, _, _, _] = names[..] { Some(vhost) } else { None };
    request(method, vhost, target, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: Option<&str>, target: &str) -> LogLine {
        LogLine::Request(LoggedRequest { host: host.map(str::to_owned), target: target.to_owned() })
    }

    #[test]
    fn lists_hold_paths_urls_and_comments() {
        for (line, expected) in [
            ("/a?b=c#top", wanted(None, "/a?b=c")),
            ("  /a\r\n", wanted(None, "/a")),
            ("http://App.example.com/a?b", wanted(Some("app.example.com"), "/a?b")),
            ("HTTPS://app.example.com:443", wanted(Some("app.example.com"), "/")),
            ("http://app.example.com:8080?x", wanted(Some("app.example.com:8080"), "/?x")),
            ("http://[::1]:8080/a", wanted(Some("[::1]:8080"), "/a")),
            ("", LogLine::Blank),
            ("# http://app/a", LogLine::Blank),
            ("/a b", LogLine::Unreadable),
            ("/grüße", LogLine::Unreadable),
            ("a/b", LogLine::Unreadable),
            ("http://user:password@host/a", LogLine::Unreadable),
            ("http:///a", LogLine::Unreadable),
            ("ftp://host/a", LogLine::Unreadable),
        ] {
            assert_eq!(parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn access_logs_of_nginx_and_apache_are_read() {
        let common = |request: &str, status: &str| {
            format!(r#"10.0.0.1 - ann [10/Oct/2025:13:55:36 +0000] "{request}" {status} 2326"#)
        };
        for (line, expected) in [
            (common("GET /a?b=1 HTTP/1.1", "200"), wanted(None, "/a?b=1")),
            (
                common("GET /a HTTP/2.0", "304") + r#" "http://r/ \"x\"" "Mozilla/5.0 (X)""#,
                wanted(None, "/a"),
            ),
            (common("GET http://app.test/a HTTP/1.1", "206"), wanted(Some("app.test"), "/a")),
            (
                format!("shop.test:443 {}", common("GET /a HTTP/1.1", "200")),
                wanted(Some("shop.test"), "/a"),
            ),
            (
                common("GET /a HTTP/1.1", "200").replace("10.0.0.1", "2001:db8::1"),
                wanted(None, "/a"),
            ),
            (common("GET /a HTTP/1.1", "-"), wanted(None, "/a")),
            (common("GET /a", "200"), wanted(None, "/a")),
            (common("POST /a HTTP/1.1", "200"), LogLine::Skipped(Skip::Method)),
            (common("GET /a HTTP/1.1", "404"), LogLine::Skipped(Skip::Status)),
            (common("GET /a HTTP/1.1", "302"), LogLine::Skipped(Skip::Status)),
            (common(r"GET /\xE3 HTTP/1.1", "200"), LogLine::Unreadable),
            (common(r"\x16\x03\x01", "400"), LogLine::Unreadable),
            (common("GET /a b HTTP/1.1", "200"), LogLine::Unreadable),
            (common("-", "400"), LogLine::Unreadable),
            (r#"10.0.0.1 - - [time "GET /a HTTP/1.1" 200"#.into(), LogLine::Unreadable),
            (r#"say "GET /a HTTP/1.1""#.into(), LogLine::Unreadable),
            (r#"1 - - [t] "GET /a"#.into(), LogLine::Unreadable),
        ] {
            assert_eq!(parse(&line), expected, "{line}");
        }
    }

    #[test]
    fn sidecaches_own_lines_are_read_in_both_forms() {
        let text = |fields: &str| {
            format!(
                "2026-01-01T00:00:00.000Z  INFO sidecache::access: request {fields} status=200 \
                 cache=HIT"
            )
        };
        for (line, expected) in [
            (
                text("method=GET path=/c/7 host=app.test:8080 peer=127.0.0.1 route=/c/{id}"),
                wanted(Some("app.test:8080"), "/c/7"),
            ),
            (text(r#"method=GET path="/c=7" peer=127.0.0.1"#), wanted(None, "/c=7")),
            (text(r#"method=GET path="/a\nb" host=app.test"#), LogLine::Unreadable),
            (text(r#"method=GET path="/a method=x" host=app.test"#), LogLine::Unreadable),
            (text("method=PUT path=/c/7 host=app.test"), LogLine::Skipped(Skip::Method)),
            (text("method=GET path=/c/7").replace("200", "500"), LogLine::Skipped(Skip::Status)),
            (
                "2026-01-01T00:00:00.000Z  WARN sidecache::run: Redis is lost".into(),
                LogLine::Skipped(Skip::NoRequest),
            ),
            (
                r#"{"target":"sidecache::access","method":"GET","path":"/c/7","host":"app.test",
                    "status":200}"#
                    .into(),
                wanted(Some("app.test"), "/c/7"),
            ),
            (
                r#"{"target":"sidecache::access","method":"GET","path":"/c/7","status":404}"#
                    .into(),
                LogLine::Skipped(Skip::Status),
            ),
            (
                r#"{"target":"sidecache::run","message":"listening"}"#.into(),
                LogLine::Skipped(Skip::NoRequest),
            ),
            (r#"{"path":"/c/7"}"#.into(), LogLine::Unreadable),
            (r#"{"path":"#.into(), LogLine::Unreadable),
        ] {
            assert_eq!(parse(&line), expected, "{line}");
        }
    }

    #[test]
    fn a_path_that_the_log_cut_is_not_asked_for() {
        // The log cuts long paths and marks the cut: half a path is not asked for.
        assert_eq!(
            parse("2026 INFO sidecache::access: request method=GET path=/xx… status=200"),
            LogLine::Unreadable
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange(line in ".{0,80}") {
            if let LogLine::Request(LoggedRequest { target, .. }) = parse(&line) {
                proptest::prop_assert!(target.starts_with('/') && target.parse::<Uri>().is_ok());
            }
        }
    }
}
