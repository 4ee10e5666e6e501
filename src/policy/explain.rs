//! What the rules make of a request, told in lines of a name and a value: `route`, `scope`, `key`,
//! `tag`, `X-Cache`.
//!
//! One code for the command, which reads a file, and the admin API, which asks the rules that
//! serve. It knows the rules alone: not what is stored, and not who asks.

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

/// A request to be explained, as it was written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The method, in any case.
    pub method: String,
    /// A path with its query.
    pub target: String,
    /// Names and values.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body of a mutation, for purge rules that read it.
    #[serde(default)]
    pub data: Option<String>,
    /// Whether it is as if it came from a trusted proxy.
    #[serde(default)]
    pub trusted: bool,
}

/// A request that can be read.
#[derive(Clone, Debug)]
pub struct ParsedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    data: Option<String>,
    trusted: bool,
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainLine {
    /// What it is about.
    pub name: String,
    /// What there is to say.
    pub value: String,
}

/// All that is told, in the order in which it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The method and the target.
    pub request: String,
    /// What the rules make of them.
    pub lines: Vec<ExplainLine>,
}

impl ExplainRequest {
    /// Reads it. Without a `Host` it is one for `localhost`.
    ///
    /// # Errors
    /// What cannot be read, and how to write it.
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
            // SECURITY: a value may be a credential, and is not repeated.
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
    /// The request as the rules are asked about it.
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

/// What the rules make of a request.
#[must_use]
pub fn explain(rules: &PolicyRules, request: &ParsedRequest) -> Explanation {
    let asked = request.view();
    let mut told = ExplainLines::default();
    if let Err(bad) =
        forward::check_request(asked.method, asked.uri, Version::HTTP_11, asked.headers)
    {
        told.line("refused", format!("{} {}", bad.status(), bad.as_str()));
    } else {
        match rules.plan(&asked) {
            Plan::Lookup(lookup) => explain_lookup(&mut told, &lookup, asked.headers),
            Plan::Pass(route, outcome) => {
                told.line("route", route.map_or("none", |route| route.name()));
                told.line("X-Cache", "BYPASS");
                if let (Some(reason), Some(detail)) = (outcome.reason, outcome.detail()) {
                    told.reason(reason, detail.to_string());
                }
            }
            Plan::Refuse(route, header) => {
                told.line("route", route.map_or("none", |route| route.name()));
                told.line(
                    "refused",
                    format!("400: {header} must come once, and must not be named in Connection"),
                );
            }
            Plan::Mutate(effective) => {
                explain_mutation(&mut told, rules, &asked, &effective, request.data.as_deref())
            }
        }
    }
    Explanation { request: format!("{} {}", request.method, request.uri), lines: told.0 }
}

#[derive(Default)]
struct ExplainLines(Vec<ExplainLine>);

impl ExplainLines {
    fn line(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(ExplainLine { name: name.into(), value: value.into() });
    }

    /// A reason with its subject, what it means, and what can be done about it.
    fn reason(&mut self, reason: Reason, detail: impl Into<String>) {
        self.line("reason", detail);
        self.line("meaning", reason.meaning());
        if let Some(remedy) = reason.remedy() {
            self.line("remedy", remedy);
        }
    }
}

fn explain_lookup(told: &mut ExplainLines, lookup: &Lookup<'_>, headers: &HeaderMap) {
    let route: &Route = lookup.route;
    told.line("route", route.name());
    for (name, value) in &lookup.captures {
        told.line(format!("capture {name}"), value.to_string());
    }
    told.line("scope", scope_in_words(route, lookup));
    told.line("host", lookup.host.as_ref());
    told.line("path", lookup.path.as_ref());
    told.line("query", lookup.query.as_deref().unwrap_or("(none)"));
    for (name, value) in lookup.shown_fields() {
        told.line(format!("field {name}"), value);
    }
    if let Some(credential) = lookup.credential {
        // SECURITY: eight digits of a keyed hash tell two callers apart and nothing else.
        told.line("credential", format!("(hash {})", crate::units::short_hex(&credential.0)));
    }
    told.line("key", lookup.key.hash().to_hex());
    for tag in lookup.tags() {
        told.line("tag", tag.as_str());
    }
    explain_times(told, &route.spec);
    let directives = RequestDirectives::new(route, headers);
    match (directives.bypass, lookup.unknown.first()) {
        (Some(reason), _) => {
            told.line("X-Cache", "BYPASS");
            told.reason(reason, reason.as_str());
        }
        (None, Some(name)) => {
            told.line("X-Cache", "BYPASS, unless the response is known to vary by it");
            let reason = Reason::UnkeyedHeader;
            told.reason(reason, format!("{} {name}", reason.as_str()));
        }
        (None, None) => explain_directives(told, &directives),
    }
}

/// What a lookup leads to. The client's directives narrow it as they do when the request is served.
fn explain_directives(told: &mut ExplainLines, directives: &RequestDirectives) {
    let otherwise = if directives.only_if_cached { "504" } else { "MISS" };
    let found = if !directives.needs_revalidation() {
        let mut conditions = String::new();
        if let Some(most) = directives.max_age {
            conditions.push_str(&format!(" and at most {} old", seconds(most)));
        }
        if let Some(least) = directives.min_fresh {
            conditions.push_str(&format!(" and fresh for {} more", seconds(least)));
        }
        format!("HIT when it is stored{conditions}, else {otherwise}")
    } else if directives.only_if_cached {
        "504, whether it is stored or not".to_owned()
    } else {
        "REVALIDATED when the origin confirms what is stored, else MISS".to_owned()
    };
    told.line("X-Cache", found);
    if !directives.allows_stale() {
        told.reason(Reason::RequestNoCache, Reason::RequestNoCache.as_str());
    }
    if directives.only_if_cached {
        told.reason(Reason::OnlyIfCached, Reason::OnlyIfCached.as_str());
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// How long an entry serves, and what of that is not as it is without a word in the file.
fn explain_times(told: &mut ExplainLines, spec: &RouteSpec) {
    let freshness = match spec.ttl {
        Some(ttl) => {
            let less = if spec.jitter.is_zero() {
                String::new()
            } else {
                format!(", less up to {} by chance,", seconds(spec.jitter))
            };
            format!("{}{less} where the app gives none (origin = {:?})", seconds(ttl), spec.origin)
                .to_lowercase()
        }
        None => "as the app says".to_owned(),
    };
    told.line("fresh for", freshness);
    let windows = [
        (spec.stale_while_revalidate, "while it is fetched anew"),
        (spec.stale_if_error, "in place of an error of the app"),
    ];
    for (window, purpose) in windows {
        let words = match window {
            None => continue,
            Some(Duration::ZERO) => format!("never {purpose}, where the app gives no time for it"),
            Some(window) => {
                format!("for {} {purpose}, where the app gives no time for it", seconds(window))
            }
        };
        told.line("stale", words);
    }
    if !spec.early_refresh {
        told.line("refresh", "not before it has expired (early_refresh = false)");
    }
    if spec.collapse == Collapse::Cluster {
        told.line("collapse", "cluster: one fill per key, of all sidecars that share the Redis");
    }
}

fn scope_in_words<'a>(route: &Route, lookup: &Lookup<'_>) -> &'a str {
    match (route.spec.scope, lookup.credential.is_some()) {
        (Scope::Private, true) => "private: for this credential alone",
        (Scope::Private, false) => "private: for callers without a credential",
        (Scope::Shared, _) => {
            "shared: for every credential that the app has admitted for the same fields"
        }
        (Scope::Public, _) => "public: for everyone; credentials are withheld from the app",
    }
}

fn explain_mutation(
    told: &mut ExplainLines,
    rules: &PolicyRules,
    asked: &RequestView<'_>,
    effective: &Method,
    data: Option<&str>,
) {
    told.line("X-Cache", "BYPASS");
    let is_as_sent = *effective == *asked.method;
    let reason = if is_as_sent { Reason::Method } else { Reason::MethodOverride };
    told.reason(reason, reason.as_str());
    let kind =
        asked.headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], HeaderValue::as_bytes);
    let body = data.and_then(|data| BodyFields::parse(kind, data.as_bytes()));
    match rules.mutation(asked, effective, body.as_ref()) {
        Err(header) => told.line(
            "refused",
            format!("400: {header} must come once, and must not be named in Connection"),
        ),
        Ok(mutation) => {
            for tag in &mutation.tags {
                told.line("purges", tag.as_str());
            }
            for field in &mutation.missing {
                told.line(
                    "missing",
                    format!("field {field}: a template that needs it purges nothing"),
                );
            }
            if !mutation.covered {
                told.line("rule", "none: only its own URI is purged");
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

    /// What is told of a GET of the one route, which has these keys; `before` stands above it.
    fn told(before: &str, keys: &str) -> Vec<ExplainLine> {
        told_with(before, keys, Vec::new())
    }

    /// The same with headers in the request.
    fn told_with(before: &str, keys: &str, headers: Vec<(String, String)>) -> Vec<ExplainLine> {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:8000\"\n{before}\n[[routes]]\npath = \"/a\"\n{keys}\n"
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

    fn lines<'a>(told: &'a [ExplainLine], name: &str) -> Vec<&'a str> {
        told.iter().filter(|line| line.name == name).map(|line| line.value.as_str()).collect()
    }

    #[test]
    fn a_reason_is_told_with_its_meaning_and_its_remedy() {
        let told = told_with("", "ttl = \"5m\"", vec![("x-unheard-of".into(), "1".into())]);
        let reason = Reason::UnkeyedHeader;
        assert_eq!(lines(&told, "reason"), ["unkeyed header x-unheard-of"]);
        assert_eq!(lines(&told, "meaning"), [reason.meaning()]);
        assert_eq!(lines(&told, "remedy"), [reason.remedy().expect("there is one")]);
    }

    #[test]
    fn the_directives_of_the_request_decide_what_is_served() {
        let explained = |keys: &str, name: &str, value: &str| {
            let told = told_with("", keys, vec![(name.into(), value.into())]);
            let [verdict] = lines(&told, "X-Cache")[..] else { panic!("{told:?}") };
            let reasons = lines(&told, "reason").iter().map(ToString::to_string).collect();
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
                "504, whether it is stored or not",
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
    fn the_times_of_a_route_are_told_where_it_has_them() {
        let keys = "ttl = \"5m\"\njitter = \"30s\"\nstale_while_revalidate = \"30s\"\nstale_if_error = \"0s\"\nearly_refresh = false";
        let told = told("", keys);
        assert_eq!(
            lines(&told, "fresh for"),
            ["300s, less up to 30s by chance, where the app gives none (origin = respect)"]
        );
        assert_eq!(
            lines(&told, "stale"),
            [
                "for 30s while it is fetched anew, where the app gives no time for it",
                "never in place of an error of the app, where the app gives no time for it"
            ]
        );
        assert_eq!(lines(&told, "refresh"), ["not before it has expired (early_refresh = false)"]);
        assert_eq!(lines(&told, "collapse"), [""; 0]);
    }

    #[test]
    fn a_route_without_times_is_told_in_one_line() {
        let told = told("", "ttl = \"5m\"");
        assert_eq!(lines(&told, "fresh for"), ["300s where the app gives none (origin = respect)"]);
        for name in ["stale", "refresh", "collapse"] {
            assert_eq!(lines(&told, name), [""; 0], "{told:?}");
        }
    }

    #[test]
    fn collapsing_across_sidecars_is_told_wherever_it_was_said() {
        let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
        let cluster = ["cluster: one fill per key, of all sidecars that share the Redis"];
        assert_eq!(
            lines(&told(&format!("{redis}collapse = \"cluster\""), ""), "collapse"),
            cluster
        );
        assert_eq!(lines(&told(redis, "collapse = \"cluster\""), "collapse"), cluster);
        assert_eq!(
            lines(
                &told(&format!("{redis}collapse = \"cluster\""), "collapse = \"process\""),
                "collapse"
            ),
            [""; 0]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_without_values_that_may_be_secret() {
        let question = |method: &str, target: &str, name: &str| ExplainRequest {
            method: method.into(),
            target: target.into(),
            headers: vec![(name.into(), "hunter2".into())],
            ..ExplainRequest::default()
        };
        assert!(question("G T", "/a", "x").read().unwrap_err().contains("not a method"));
        assert!(question("GET", "http://host/a", "x").read().unwrap_err().contains("not a path"));
        let said = question("GET", "/a", "a b").read().unwrap_err();
        assert!(said.contains("a b") && !said.contains("hunter2"), "{said}");
    }
}
