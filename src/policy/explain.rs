//! Explains a request by the rules, in lines of a name and a value: `route`, `scope`, `key`, `tag`,
//! `X-Cache`.
//!
//! The command, which reads a file, and the admin API, which uses the active rules, share this
//! code. It knows the rules alone: neither what is stored nor which clients are authorized.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use serde::{Deserialize, Serialize};

use crate::outcome::Reason;
use crate::policy::field::BodyFields;
use crate::policy::plan::{Lookup, Plan, PolicyRules, RequestView};
use crate::policy::request_directives::RequestDirectives;
use crate::policy::route::{Collapse, Route, RouteSpec};
use crate::policy::scope::Scope;
use crate::semantics::forward;

/// A request to explain, as the operator wrote it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The method, in any case.
    pub method: String,
    /// A path, with or without a query.
    pub target: String,
    /// The names and values of headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body of a mutation, for purge rules that read a field from it.
    #[serde(default)]
    pub data: Option<String>,
    /// Whether to treat it as a request from a trusted proxy.
    #[serde(default)]
    pub trusted: bool,
}

/// A parsed request.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    data: Option<String>,
    trusted: bool,
}

/// One line of an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainLine {
    /// The subject.
    pub name: String,
    /// The statement.
    pub value: String,
}

/// An explanation, with its lines in the order of the decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The method and the target.
    pub request: String,
    /// The lines.
    pub lines: Vec<ExplainLine>,
}

impl ExplainRequest {
    /// Parses the request. Without a `Host` header, the host is `localhost`.
    ///
    /// # Errors
    /// What is invalid, and how to write it.
    pub fn read(&self) -> Result<ParsedRequest, String> {
        let method =
            Method::from_bytes(self.method.to_ascii_uppercase().as_bytes()).map_err(|_| {
                format!("{:?} is not a method; write it as in `explain GET /path`", self.method)
            })?;
        let uri: Uri = self
            .target
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.path().starts_with('/') && uri.authority().is_none())
            .ok_or_else(|| {
                format!(
                    "{:?} is not a path; write it as in `explain GET '/path?query'`",
                    self.target
                )
            })?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = HeaderName::from_bytes(name.trim().as_bytes())
                .ok()
                .zip(HeaderValue::from_str(value.trim()).ok());
            // SECURITY: the message does not repeat the value, which may be a credential.
            let (name, value) = parsed.ok_or_else(|| {
                format!(
                    "{name:?} and its value are not a header; write it as in -H 'x-tenant-id: acme'"
                )
            })?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::from_static("localhost"));
        }
        Ok(ParsedRequest { method, uri, headers, data: self.data.clone(), trusted: self.trusted })
    }
}

impl ParsedRequest {
    /// The request in the form that the rules read.
    #[must_use]
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            uri: &self.uri,
            version: Version::HTTP_11,
            headers: &self.headers,
            has_body: self.data.as_ref().is_some_and(|data| !data.is_empty()),
            peer_is_trusted: self.trusted,
        }
    }
}

/// Explains a request by the rules.
#[must_use]
pub fn explain(rules: &PolicyRules, request: &ParsedRequest) -> Explanation {
    let view = request.view();
    let mut lines = ExplainLines::default();
    if let Err(bad) = forward::check_request(view.method, view.uri, Version::HTTP_11, view.headers)
    {
        lines.line("refused", format!("{} {}", bad.status(), bad.as_str()));
    } else {
        match rules.plan(&view) {
            Plan::Lookup(lookup) => explain_lookup(&mut lines, &lookup, view.headers),
            Plan::Pass(route, outcome) => {
                lines.line("route", route.map_or("none", |route| route.name()));
                lines.line("X-Cache", "BYPASS");
                if let (Some(reason), Some(detail)) = (outcome.reason, outcome.detail()) {
                    lines.reason(reason, detail.to_string());
                }
            }
            Plan::Refuse(route, header) => {
                lines.line("route", route.map_or("none", |route| route.name()));
                lines.line(
                    "refused",
                    format!("400: {header} must occur once, and must not be named in Connection"),
                );
            }
            Plan::Mutate(effective) => {
                explain_mutation(&mut lines, rules, &view, &effective, request.data.as_deref());
            }
        }
    }
    Explanation { request: format!("{} {}", request.method, request.uri), lines: lines.0 }
}

#[derive(Default)]
struct ExplainLines(Vec<ExplainLine>);

impl ExplainLines {
    fn line(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(ExplainLine { name: name.into(), value: value.into() });
    }

    /// A reason with its subject, its meaning and its remedy.
    fn reason(&mut self, reason: Reason, detail: impl Into<String>) {
        self.line("reason", detail);
        self.line("meaning", reason.meaning());
        if let Some(remedy) = reason.remedy() {
            self.line("remedy", remedy);
        }
    }
}

fn explain_lookup(lines: &mut ExplainLines, lookup: &Lookup<'_>, headers: &HeaderMap) {
    let route: &Route = lookup.route;
    lines.line("route", route.name());
    for (name, value) in &lookup.captures {
        lines.line(format!("capture {name}"), value.to_string());
    }
    lines.line("scope", scope_in_words(route, lookup));
    lines.line("host", lookup.host.as_ref());
    lines.line("path", lookup.path.as_ref());
    lines.line("query", lookup.query.as_deref().unwrap_or("(none)"));
    for (name, value) in lookup.shown_fields() {
        lines.line(format!("field {name}"), value);
    }
    if let Some(credential) = lookup.credential {
        // SECURITY: eight digits of a keyed hash distinguish two clients, and reveal nothing else.
        lines.line("credential", format!("(hash {})", crate::units::short_hex(&credential.0)));
    }
    lines.line("key", lookup.key.hash().to_hex());
    for tag in lookup.tags() {
        lines.line("tag", tag.as_str());
    }
    explain_times(lines, &route.spec);
    let directives = RequestDirectives::new(route, headers);
    match (directives.bypass, lookup.unknown.first()) {
        (Some(reason), _) => {
            lines.line("X-Cache", "BYPASS");
            lines.reason(reason, reason.as_str());
        }
        (None, Some(name)) => {
            lines.line("X-Cache", "BYPASS, unless the response is known to vary by it");
            let reason = Reason::UnkeyedHeader;
            lines.reason(reason, format!("{} {name}", reason.as_str()));
        }
        (None, None) => explain_directives(lines, &directives),
    }
}

/// The result of a lookup, as the client's directives restrict it.
fn explain_directives(lines: &mut ExplainLines, directives: &RequestDirectives) {
    let otherwise = if directives.only_if_cached { "504" } else { "MISS" };
    let found = if !directives.needs_revalidation() {
        let mut conditions = String::new();
        if let Some(most) = directives.max_age {
            let _ = write!(conditions, " and at most {} old", seconds(most));
        }
        if let Some(least) = directives.min_fresh {
            let _ = write!(conditions, " and fresh for {} more", seconds(least));
        }
        format!("HIT when it is stored{conditions}, else {otherwise}")
    } else if directives.only_if_cached {
        "504, whether or not it is stored".to_owned()
    } else {
        "REVALIDATED when the origin confirms what is stored, else MISS".to_owned()
    };
    lines.line("X-Cache", found);
    if !directives.allows_stale() {
        lines.reason(Reason::RequestNoCache, Reason::RequestNoCache.as_str());
    }
    if directives.only_if_cached {
        lines.reason(Reason::OnlyIfCached, Reason::OnlyIfCached.as_str());
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// How long an entry is served. Settings at their default are left out.
fn explain_times(lines: &mut ExplainLines, spec: &RouteSpec) {
    let freshness = match spec.ttl {
        Some(ttl) => {
            let less = if spec.jitter.is_zero() {
                String::new()
            } else {
                format!(", less a random time of up to {},", seconds(spec.jitter))
            };
            format!(
                "{}{less} where the origin gives none (origin = {:?})",
                seconds(ttl),
                spec.origin
            )
            .to_lowercase()
        }
        None => "as the origin says".to_owned(),
    };
    lines.line("fresh for", freshness);
    let windows = [
        (spec.stale_while_revalidate, "while it is refreshed"),
        (spec.stale_if_error, "in place of an error of the origin"),
    ];
    for (window, purpose) in windows {
        let words = match window {
            None => continue,
            Some(Duration::ZERO) => {
                format!("never {purpose}, where the origin gives no time for it")
            }
            Some(window) => {
                format!("for {} {purpose}, where the origin gives no time for it", seconds(window))
            }
        };
        lines.line("stale", words);
    }
    if !spec.early_refresh {
        lines.line("refresh", "only after it has expired (early_refresh = false)");
    }
    if spec.collapse == Collapse::Cluster {
        lines.line("collapse", "cluster: one fill per key among all sidecars that share the Redis");
    }
}

fn scope_in_words<'a>(route: &Route, lookup: &Lookup<'_>) -> &'a str {
    match (route.spec.scope, lookup.credential.is_some()) {
        (Scope::Private, true) => "private: for this credential only",
        (Scope::Private, false) => "private: for clients without a credential",
        (Scope::Shared, _) => {
            "shared: for every client that the origin has authorized for the same fields"
        }
        (Scope::Public, _) => "public: for everyone; fills are sent without credentials",
    }
}

fn explain_mutation(
    lines: &mut ExplainLines,
    rules: &PolicyRules,
    request: &RequestView<'_>,
    effective: &Method,
    data: Option<&str>,
) {
    lines.line("X-Cache", "BYPASS");
    let is_as_sent = *effective == *request.method;
    let reason = if is_as_sent { Reason::Method } else { Reason::MethodOverride };
    lines.reason(reason, reason.as_str());
    let kind =
        request.headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], HeaderValue::as_bytes);
    let body = data.and_then(|data| BodyFields::parse(kind, data.as_bytes()));
    match rules.mutation(request, effective, body.as_ref()) {
        Err(header) => lines.line(
            "refused",
            format!("400: {header} must occur once, and must not be named in Connection"),
        ),
        Ok(mutation) => {
            for tag in &mutation.tags {
                lines.line("purges", tag.as_str());
            }
            for field in &mutation.missing {
                lines.line(
                    "missing",
                    format!("field {field}: a template that needs it purges nothing"),
                );
            }
            if !mutation.covered {
                lines.line("rule", "none: only its own URI is purged");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::secret::Hasher;

    /// Explains a GET on a route with these keys. `before` is inserted above the route.
    fn explain_get(before: &str, keys: &str) -> Vec<ExplainLine> {
        explain_get_with(before, keys, Vec::new())
    }

    /// The same, with headers in the request.
    fn explain_get_with(
        before: &str,
        keys: &str,
        headers: Vec<(String, String)>,
    ) -> Vec<ExplainLine> {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:8000\"\n{before}\n[[routes]]\npath = \
            \"/a\"\n{keys}\n"
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let credential = Arc::clone(&config.credential);
        let rules = PolicyRules {
            routes: config.routes,
            purges: config.purges,
            credential,
            hasher: Hasher::default(),
            max_key: 4096,
            upgrades: Upgrades::default(),
        };
        let question = ExplainRequest {
            method: "get".into(),
            target: "/a".into(),
            headers,
            ..ExplainRequest::default()
        };
        let explained = explain(&rules, &question.read().expect("a request"));
        assert_eq!(explained.request, "GET /a");
        explained.lines
    }

    fn lines<'a>(shown: &'a [ExplainLine], name: &str) -> Vec<&'a str> {
        shown.iter().filter(|line| line.name == name).map(|line| line.value.as_str()).collect()
    }

    #[test]
    fn a_reason_has_its_meaning_and_its_remedy() {
        let shown = explain_get_with("", "ttl = \"5m\"", vec![("x-unheard-of".into(), "1".into())]);
        let reason = Reason::UnkeyedHeader;
        assert_eq!(lines(&shown, "reason"), ["unkeyed header x-unheard-of"]);
        assert_eq!(lines(&shown, "meaning"), [reason.meaning()]);
        assert_eq!(lines(&shown, "remedy"), [reason.remedy().expect("there is one")]);
    }

    #[test]
    fn the_directives_of_the_request_decide_what_is_served() {
        let explained = |keys: &str, name: &str, value: &str| {
            let shown = explain_get_with("", keys, vec![(name.into(), value.into())]);
            let [verdict] = lines(&shown, "X-Cache")[..] else { panic!("{shown:?}") };
            let reasons = lines(&shown, "reason").iter().map(ToString::to_string).collect();
            (verdict.to_owned(), reasons)
        };
        let hit = "HIT when it is stored, else MISS";
        let newer = "REVALIDATED when the origin confirms what is stored, else MISS";
        let rows: [(&str, &str, &str, &[&str]); 11] = [
            ("x-request-id", "1", hit, &[]),
            ("cache-control", "max-stale", hit, &[]),
            ("cache-control", "no-store", "BYPASS", &["request no-store"]),
            ("cache-control", "no-cache", newer, &["request no-cache"]),
            ("cache-control", "max-age=0", newer, &["request no-cache"]),
            ("pragma", "no-cache", newer, &["request no-cache"]),
            ("pragma", "other", hit, &[]),
            (
                "cache-control",
                "max-age=30, min-fresh=5",
                "HIT when it is stored and at most 30s old and fresh for 5s more, else MISS",
                &["request no-cache"],
            ),
            (
                "cache-control",
                "only-if-cached",
                "HIT when it is stored, else 504",
                &["only if cached"],
            ),
            (
                "cache-control",
                "only-if-cached, no-cache",
                "504, whether or not it is stored",
                &["request no-cache", "only if cached"],
            ),
            ("cache-control", "no-store, only-if-cached", "BYPASS", &["request no-store"]),
        ];
        for (name, value, verdict, reasons) in rows {
            let expected = (verdict.to_owned(), reasons.iter().map(ToString::to_string).collect());
            let found: (String, Vec<String>) = explained("ttl = \"5m\"", name, value);
            assert_eq!(found, expected, "{name}: {value}");
            let ignored = "ttl = \"5m\"\nclient_cache_control = \"ignore\"";
            assert_eq!(explained(ignored, name, value).0, hit, "{name}: {value}");
        }
    }

    #[test]
    fn the_times_of_a_route_are_shown_if_they_are_set() {
        let keys = "ttl = \"5m\"\njitter = \"30s\"\nstale_while_revalidate = \
            \"30s\"\nstale_if_error = \"0s\"\nearly_refresh = false";
        let shown = explain_get("", keys);
        assert_eq!(
            lines(&shown, "fresh for"),
            ["300s, less a random time of up to 30s, where the origin gives none (origin = \
                respect)"]
        );
        assert_eq!(
            lines(&shown, "stale"),
            [
                "for 30s while it is refreshed, where the origin gives no time for it",
                "never in place of an error of the origin, where the origin gives no time for it"
            ]
        );
        assert_eq!(lines(&shown, "refresh"), ["only after it has expired (early_refresh = false)"]);
        assert_eq!(lines(&shown, "collapse"), [""; 0]);
    }

    #[test]
    fn a_route_without_times_has_one_line() {
        let shown = explain_get("", "ttl = \"5m\"");
        assert_eq!(
            lines(&shown, "fresh for"),
            ["300s where the origin gives none (origin = respect)"]
        );
        for name in ["stale", "refresh", "collapse"] {
            assert_eq!(lines(&shown, name), [""; 0], "{shown:?}");
        }
    }

    #[test]
    fn collapsing_across_sidecars_is_shown_wherever_it_is_set() {
        let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
        let cluster = ["cluster: one fill per key among all sidecars that share the Redis"];
        assert_eq!(
            lines(&explain_get(&format!("{redis}collapse = \"cluster\""), ""), "collapse"),
            cluster
        );
        assert_eq!(lines(&explain_get(redis, "collapse = \"cluster\""), "collapse"), cluster);
        assert_eq!(
            lines(
                &explain_get(&format!("{redis}collapse = \"cluster\""), "collapse = \"process\""),
                "collapse"
            ),
            [""; 0]
        );
    }

    #[test]
    fn an_invalid_request_is_named_without_values_that_may_be_secret() {
        let question = |method: &str, target: &str, name: &str| ExplainRequest {
            method: method.into(),
            target: target.into(),
            headers: vec![(name.into(), "hunter2".into())],
            ..ExplainRequest::default()
        };
        assert!(question("G T", "/a", "x").read().unwrap_err().contains("not a method"));
        assert!(question("GET", "http://host/a", "x").read().unwrap_err().contains("not a path"));
        let error = question("GET", "/a", "a b").read().unwrap_err();
        assert!(error.contains("a b") && !error.contains("hunter2"), "{error}");
    }
}
