//! Proposes routes from an access log of any length, with bounded memory: templates of paths
//! ([`TemplateTree`]), and hashes of URLs to know which are asked for again.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead, Read as _};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::super::format::{counted, percent};
use super::proposals::Proposals;
use crate::admin::drafts;
use crate::cli::first_file::FileRule;
use crate::policy::request_target;
use crate::uncached::Seen;
use crate::uncached::fold::{self, parameter_name};
use crate::uncached::observation::{
    MAX_PARAMETER, MAX_PARAMETERS, MAX_PATH, ReadFacts, ResponseFacts,
};
use crate::uncached::tree::{PathTemplate, TemplateTree};

/// The longest line that is read; the rest of a longer one is dropped.
const MAX_LINE: u64 = 16 * 1024;
/// How many URLs are remembered, to know which come again.
const MAX_URLS: usize = 500_000;

/// A request of the log.
#[derive(Debug, PartialEq, Eq)]
struct LogEntry<'a> {
    method: &'a str,
    target: &'a str,
    status: Option<u16>,
}

/// What the lines have given.
#[derive(Debug, Default)]
struct LogTally {
    tree: TemplateTree,
    urls: HashSet<u64>,
    hasher: RandomState,
    lines: u64,
    unreadable: u64,
}

/// The routes that a log suggests. An error is one of reading, or a log without a request.
pub(super) fn proposals(mut log: impl BufRead) -> Result<Proposals, String> {
    let (mut tally, mut line) = (LogTally::default(), Vec::new());
    loop {
        line.clear();
        let read = (&mut log).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            break;
        }
        let is_cut = line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE;
        if is_cut {
            skip_line(&mut log).map_err(|error| error.to_string())?;
        }
        tally.add(&String::from_utf8_lossy(&line), is_cut);
    }
    if tally.lines == tally.unreadable {
        return Err(format!(
            "none of its {} is a request; allowed: the combined format of nginx and Apache, a JSON \
             object on each line, or the access log of Sidecache",
            counted(tally.lines, "line")
        ));
    }
    Ok(tally.proposals())
}

fn skip_line(log: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = log.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        log.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

impl LogTally {
    fn add(&mut self, line: &str, is_cut: bool) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        self.lines += 1;
        if is_cut || !self.count(line) {
            self.unreadable += 1;
        }
    }

    fn count(&mut self, line: &str) -> bool {
        if line.starts_with('{') {
            let Ok(object) = serde_json::from_str::<Value>(line) else { return false };
            return json(&object).is_some_and(|entry| self.request(&entry));
        }
        own(line).or_else(|| common(line)).is_some_and(|entry| self.request(&entry))
    }

    fn request(&mut self, entry: &LogEntry<'_>) -> bool {
        let Ok(method) = Method::from_bytes(entry.method.as_bytes()) else { return false };
        let target = entry.target.split('#').next().unwrap_or_default();
        let target = without_origin(target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.starts_with('/') || path.len() > MAX_PATH || path.contains(char::is_whitespace) {
            return false;
        }
        let Some(normal) = request_target::normal_path(path) else { return true };
        let (path, status) = (fold::fold(&normal), entry.status.unwrap_or(200));
        if method == Method::GET || method == Method::HEAD {
            let response = ResponseFacts { status, ..ResponseFacts::default() };
            let Some(facts) = self.tree.facts(&path, response.is_found()) else { return true };
            let url = self.hasher.hash_one(target);
            let is_known = self.urls.contains(&url);
            if !is_known && self.urls.len() < MAX_URLS {
                self.urls.insert(url);
            }
            let seen = if is_known { Seen::Same } else { Seen::Nothing };
            let read = ReadFacts { parameters: parameters(query), ..ReadFacts::default() };
            facts.read(&read, &response, Duration::ZERO, Some((seen, seen)));
        } else if matches!(status, 200..=399)
            && !is_safe(&method)
            && let Some(facts) = self.tree.facts(&path, true)
        {
            facts.write(&method);
        }
        true
    }

    fn proposals(self) -> Proposals {
        let mut templates = self.tree.templates();
        templates.sort_by_key(|one| std::cmp::Reverse(one.facts.requests));
        let all: u64 = templates.iter().map(|one| one.facts.requests).sum();
        let (routes, left_out) = drafts::drafts(&templates, true);
        let rules = routes
            .into_iter()
            .map(|draft| FileRule {
                reasons: reasons(&templates[draft.template], &templates, &draft.purge, all),
                path: draft.path,
                mode: Some("shadow"),
                ttl: "1m".to_owned(),
                tag: draft.tag,
                purges: vec![draft.purge],
                kept_out: draft.kept_out,
                ..FileRule::default()
            })
            .collect();
        Proposals {
            source: format!("a log of {}", counted(self.lines, "line")),
            rules,
            left_out: left_out.into_iter().map(|one| (one.path, one.why)).collect(),
            counts: vec![("line", self.lines), ("unreadable line", self.unreadable)],
        }
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::OPTIONS | Method::TRACE | Method::CONNECT)
        || matches!(method.as_str(), "PROPFIND" | "REPORT" | "SEARCH" | "QUERY")
}

fn parameters(query: &str) -> Vec<Box<str>> {
    query
        .split('&')
        .filter(|one| !one.is_empty())
        .map(|one| one.split_once('=').map_or(one, |(name, _)| name))
        .take(MAX_PARAMETERS)
        .map(|name| if name.len() <= MAX_PARAMETER { parameter_name(name) } else { "…" })
        .map(Box::from)
        .collect()
}

fn without_origin(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

/// What the route is founded on.
fn reasons(one: &PathTemplate, templates: &[PathTemplate], purge: &str, all: u64) -> Vec<String> {
    #[allow(clippy::cast_precision_loss, reason = "ratios for people to read")]
    let ratio = |part: u64, of: u64| percent(Some(part as f64 / of.max(1) as f64));
    let facts = &one.facts;
    let mut text = format!(
        "{}, {} of all; {} of them for a URL that had been asked for before.",
        counted(facts.requests, "read"),
        ratio(facts.requests, all),
        ratio(facts.hits, facts.compared),
    );
    let base = purge.trim_end_matches("/{*rest}");
    let writes: u64 = templates
        .iter()
        .filter(|other| fold::shown(&other.segments).starts_with(base))
        .map(|other| other.facts.mutations)
        .sum();
    if writes > 0 {
        let _ = write!(text, " {} at and below {base} purge it.", counted(writes, "write"));
    } else {
        text.push_str(" No write was seen that may change it: those beside it purge it.");
    }
    let mut reasons = vec![text];
    let parameters: Vec<&str> =
        facts.parameters.frequent(1).into_iter().map(|(name, _)| name).collect();
    if !parameters.is_empty() {
        reasons.push(format!("Parameters, all of them in the key: {}.", parameters.join(", ")));
    }
    reasons
}

/// A line of nginx, Caddy, Traefik, Envoy, Sidecache and others, as a JSON object.
fn json(object: &Value) -> Option<LogEntry<'_>> {
    let inner = object.get("request").filter(|inner| inner.is_object()).unwrap_or(object);
    let text = |names: &[&str]| {
        let mut values = names.iter().flat_map(|name| [object.get(*name), inner.get(*name)]);
        values.find_map(|value| value.and_then(Value::as_str))
    };
    let status = ["status", "status_code", "response_code", "DownstreamStatus", "OriginStatus"];
    let status = status.iter().find_map(|name| {
        let value = object.get(*name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    });
    let status = status.and_then(|status| u16::try_from(status).ok());
    if let Some(request) = object.get("request").and_then(Value::as_str) {
        return request_line(request, status);
    }
    let method = text(&["method", "request_method", "RequestMethod", "http_method", "verb"])?;
    let target =
        text(&["request_uri", "uri", "target_uri", "RequestPath", "path", "url", "original_path"])?;
    Some(LogEntry { method, target, status })
}

/// Sidecache's own access log as text.
fn own(line: &str) -> Option<LogEntry<'_>> {
    let (_, fields) = line.split_once(" sidecache::access: request ")?;
    let field = |name: &str| {
        fields
            .split_ascii_whitespace()
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    let status = field("status").and_then(|status| status.parse().ok());
    Some(LogEntry { method: field("method")?, target: field("path")?, status })
}

/// The common and the combined format: `… [time] "GET /target HTTP/1.1" 200 …`.
fn common(line: &str) -> Option<LogEntry<'_>> {
    let (before, rest) = line.split_once('"')?;
    if !before.contains('[') {
        return None;
    }
    let mut is_escaped = false;
    let end = rest.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    let status = rest[end + 1..].split_ascii_whitespace().next().and_then(|one| one.parse().ok());
    request_line(&rest[..end], status)
}

fn request_line(text: &str, status: Option<u16>) -> Option<LogEntry<'_>> {
    let mut parts = text.split_ascii_whitespace();
    let (method, target) = (parts.next()?, parts.next()?);
    let is_whole =
        parts.next().is_none_or(|version| version.starts_with("HTTP/")) && parts.next().is_none();
    is_whole.then_some(LogEntry { method, target, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: &str) -> Proposals {
        proposals(log.as_bytes()).expect("it has requests")
    }

    fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
        (0..count).map(|at| line(at) + "\n").collect()
    }

    #[test]
    fn what_is_read_often_gets_a_route_and_logins_admin_and_files_get_none() {
        let get = |path: &str| format!(r#"1.2.3.4 - - [t] "GET {path} HTTP/1.1" 200 5 "-" "x""#);
        let log = lines(40, |at| get(&format!("/api/items/{}?page=1", at % 4)))
            + &lines(40, |at| get(&format!("/api/items?page={}", at % 3)))
            + &lines(3, |_| get("/api/items/7").replace("GET", "PUT"))
            + &lines(40, |_| get("/login"))
            + &lines(40, |_| get("/admin/users"))
            + &lines(40, |_| get("/static/app.css"))
            + &lines(40, |at| get(&format!("/once/{at}")))
            + "no request\n";
        let found = of(&log);
        let paths: Vec<&str> = found.rules.iter().map(|rule| rule.path.as_str()).collect();
        assert_eq!(paths, ["/api/items", "/api/items/{id}"]);
        assert!(found.rules.iter().all(|rule| rule.mode == Some("shadow")));
        assert_eq!(found.rules[1].purges, ["/api/items/{*rest}"]);
        assert!(found.rules[0].reasons[0].contains("40 reads"), "{:?}", found.rules[0].reasons);
        assert!(found.rules[1].reasons[0].contains("3 writes"), "{:?}", found.rules[1].reasons);
        assert_eq!(found.counts, [("line", 244), ("unreadable line", 1)]);
        let left: Vec<&str> = found.left_out.iter().map(|(path, _)| path.as_str()).collect();
        for path in ["/login", "/admin/users", "/static/app.css", "/once/{n}"] {
            assert!(left.contains(&path), "{left:?}");
        }
    }

    #[test]
    fn json_lines_of_common_servers_are_read() {
        for line in [
            r#"{"request":"GET /a?b=1 HTTP/1.1","status":"200"}"#,
            r#"{"request_method":"GET","request_uri":"/a?b=1","status":200}"#,
            r#"{"request":{"method":"GET","uri":"/a?b=1"},"status":200}"#,
            r#"{"RequestMethod":"GET","RequestPath":"/a?b=1","DownstreamStatus":200}"#,
            r#"{"method":"GET","path":"/a?b=1","response_code":200}"#,
            r#"{"method":"GET","url":"http://app.test/a?b=1","status":200}"#,
        ] {
            let value: Value = serde_json::from_str(line).expect("JSON");
            let entry = json(&value).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((entry.method, without_origin(entry.target)), ("GET", "/a?b=1"), "{line}");
            assert_eq!(entry.status, Some(200), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_no_log_is_an_error() {
        for text in ["", "hello\nworld\n", "{\"a\":1}\n", "\u{0}\u{1}\n"] {
            assert!(proposals(text.as_bytes()).is_err(), "{text:?}");
        }
        let endless = "x".repeat(1 << 20);
        assert!(proposals(endless.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange(text in "\\PC{0,120}") {
            let _ = proposals(format!("{text}\n{{{text}\n").as_bytes());
        }
    }
}
