//! `explain`: what the rules make of a request, without sending it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};

use crate::config::Config;
use crate::field::BodyFields;
use crate::forward;
use crate::plan::{Asked, Lookup, Plan, Rules};
use crate::route::{Collapse, Route, RouteSpec};
use crate::scope::{Hasher, Scope};

/// A request to be explained.
#[derive(Args, Debug)]
pub struct Question {
    /// The method.
    method: String,
    /// The target: a path with its query.
    target: String,
    /// A request header, as `name: value`. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of a mutation, for purge rules that read it.
    #[arg(long, short)]
    data: Option<String>,
    /// As if it came from a trusted proxy.
    #[arg(long)]
    trusted: bool,
}

pub(super) fn run(path: &Path, question: &Question) -> ExitCode {
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return super::bad(&problems),
    };
    match explain(&rules_of(&mut config), question) {
        Ok(text) => super::print(text.trim_end()),
        Err(why) => {
            super::failed(&why);
            super::USAGE.into()
        }
    }
}

fn rules_of(config: &mut Config) -> Rules {
    Rules {
        routes: std::mem::take(&mut config.routes),
        purges: std::mem::take(&mut config.purges),
        credential: Arc::clone(&config.credential),
        hasher: config
            .redis
            .as_ref()
            .and_then(|redis| redis.secret.as_ref())
            .map_or_else(Hasher::default, |secret| Hasher::new(secret.expose().as_bytes())),
        max_key: usize::try_from(config.limits.key).unwrap_or(usize::MAX),
    }
}

fn explain(rules: &Rules, question: &Question) -> Result<String, String> {
    let method = Method::from_bytes(question.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| format!("{:?} is not a method; write it as in `explain GET /path`", question.method))?;
    let uri: Uri = question
        .target
        .parse()
        .ok()
        .filter(|uri: &Uri| uri.path().starts_with('/') && uri.authority().is_none())
        .ok_or_else(|| format!("{:?} is not a path; write it as in `explain GET '/path?query'`", question.target))?;
    let headers = read_headers(&question.headers)?;
    let mut text = format!("{method} {uri}\n");
    if let Err(bad) = forward::check_request(&method, &uri, Version::HTTP_11, &headers) {
        line(&mut text, "refused", &format!("{} {}", bad.status(), bad.as_str()));
        return Ok(text);
    }
    let has_body = question.data.as_ref().is_some_and(|data| !data.is_empty());
    let asked =
        Asked { method: &method, uri: &uri, version: Version::HTTP_11, headers: &headers, has_body, peer_is_trusted: question.trusted };
    match rules.plan(&asked) {
        Plan::Lookup(lookup) => explain_lookup(&mut text, &lookup),
        Plan::Pass(route, outcome) => {
            line(&mut text, "route", route.map_or("none", |route| route.name()));
            line(&mut text, "X-Cache", "BYPASS");
            line(&mut text, "reason", &outcome.detail().map(|detail| detail.to_string()).unwrap_or_default());
        }
        Plan::Refuse(route, header) => {
            line(&mut text, "route", route.map_or("none", |route| route.name()));
            line(&mut text, "refused", &format!("400: {header} must come once, and must not be named in Connection"));
        }
        Plan::Mutate(effective) => explain_mutation(&mut text, rules, &asked, &effective, question.data.as_deref()),
    }
    Ok(text)
}

fn read_headers(lines: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for given in lines {
        let parsed = given.split_once(':').and_then(|(name, value)| {
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or_else(|| format!("{given:?} is not a header; write it as in -H 'x-tenant-id: acme'"))?;
        headers.append(name, value);
    }
    if !headers.contains_key(HOST) {
        headers.insert(HOST, HeaderValue::from_static("localhost"));
    }
    Ok(headers)
}

fn explain_lookup(text: &mut String, lookup: &Lookup<'_>) {
    let route: &Route = lookup.route;
    line(text, "route", route.name());
    for (name, value) in &lookup.captures {
        line(text, &format!("capture {name}"), value);
    }
    line(text, "scope", scope_in_words(route, lookup));
    line(text, "host", &lookup.host);
    line(text, "path", &lookup.path);
    line(text, "query", lookup.query.as_deref().unwrap_or("(none)"));
    for (name, value) in lookup.shown_fields() {
        line(text, &format!("field {name}"), &value);
    }
    if let Some(credential) = lookup.credential {
        // SECURITY: eight digits of a keyed hash tell two callers apart and nothing else.
        line(text, "credential", &format!("(hash {})", crate::scope::short_hex(&credential.0)));
    }
    line(text, "key", &lookup.key.hash().to_hex());
    for tag in lookup.tags() {
        line(text, "tag", tag.as_str());
    }
    explain_times(text, &route.spec);
    match lookup.unknown.first() {
        Some(name) => {
            line(text, "X-Cache", "BYPASS, unless the response is known to vary by it");
            line(text, "reason", &format!("unkeyed header {name}"));
            line(text, "mend", &format!("key it by a field, or name it in drop_headers or pass_headers of {}", route.name()));
        }
        None => line(text, "X-Cache", "HIT when it is stored, else MISS"),
    }
}

/// How long an entry serves, and what of that is not as it is without a word in the file.
fn explain_times(text: &mut String, spec: &RouteSpec) {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs_f64());
    let freshness = match spec.ttl {
        Some(ttl) => {
            let less = if spec.jitter.is_zero() { String::new() } else { format!(", less up to {} by chance,", seconds(spec.jitter)) };
            format!("{}{less} where the app gives none (origin = {:?})", seconds(ttl), spec.origin).to_lowercase()
        }
        None => "as the app says".to_owned(),
    };
    line(text, "fresh for", &freshness);
    let windows = [(spec.stale_while_revalidate, "while it is fetched anew"), (spec.stale_if_error, "in place of an error of the app")];
    for (window, purpose) in windows {
        let told = match window {
            None => continue,
            Some(Duration::ZERO) => format!("never {purpose}, where the app gives no time for it"),
            Some(window) => format!("for {} {purpose}, where the app gives no time for it", seconds(window)),
        };
        line(text, "stale", &told);
    }
    if !spec.early_refresh {
        line(text, "refresh", "not before it has expired (early_refresh = false)");
    }
    if spec.collapse == Collapse::Cluster {
        line(text, "collapse", "cluster: one fill per key, of all sidecars that share the Redis");
    }
}

fn scope_in_words<'a>(route: &Route, lookup: &Lookup<'_>) -> &'a str {
    match (route.spec.scope, lookup.credential.is_some()) {
        (Scope::Private, true) => "private: for this credential alone",
        (Scope::Private, false) => "private: for callers without a credential",
        (Scope::Shared, _) => "shared: for every credential that the app has admitted for the same fields",
        (Scope::Public, _) => "public: for everyone; credentials are withheld from the app",
    }
}

fn explain_mutation(text: &mut String, rules: &Rules, asked: &Asked<'_>, effective: &Method, data: Option<&str>) {
    line(text, "X-Cache", "BYPASS");
    line(text, "reason", if *effective == *asked.method { "method" } else { "method override" });
    let kind = asked.headers.get(CONTENT_TYPE).map_or(&b"application/json"[..], HeaderValue::as_bytes);
    let body = data.and_then(|data| BodyFields::parse(kind, data.as_bytes()));
    match rules.mutation(asked, effective, body.as_ref()) {
        Err(header) => line(text, "refused", &format!("400: {header} must come once, and must not be named in Connection")),
        Ok(mutation) => {
            for tag in &mutation.tags {
                line(text, "purges", tag.as_str());
            }
            for field in &mutation.missing {
                line(text, "missing", &format!("field {field}: a template that needs it purges nothing"));
            }
            if !mutation.covered {
                line(text, "rule", "none: only its own URI is purged");
            }
        }
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {name:<12} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a GET of the one route, which has these keys; `before` stands above it.
    fn told(before: &str, keys: &str) -> String {
        let text = format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n{before}\n[[routes]]\npath = \"/a\"\n{keys}\n");
        let mut config = Config::parse(&text, "proxy.toml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let question = Question { method: "GET".into(), target: "/a".into(), headers: Vec::new(), data: None, trusted: false };
        explain(&rules_of(&mut config), &question).expect("an explanation")
    }

    fn lines<'a>(told: &'a str, name: &str) -> Vec<&'a str> {
        told.lines().filter_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(' ')).map(str::trim).collect()
    }

    #[test]
    fn the_times_of_a_route_are_told_where_it_has_them() {
        let keys = "ttl = \"5m\"\njitter = \"30s\"\nstale_while_revalidate = \"30s\"\nstale_if_error = \"0s\"\nearly_refresh = false";
        let told = told("", keys);
        assert_eq!(lines(&told, "fresh for"), ["300s, less up to 30s by chance, where the app gives none (origin = respect)"]);
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
            assert_eq!(lines(&told, name), [""; 0], "{told}");
        }
    }

    #[test]
    fn collapsing_across_sidecars_is_told_wherever_it_was_said() {
        let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
        let cluster = ["cluster: one fill per key, of all sidecars that share the Redis"];
        assert_eq!(lines(&told(&format!("{redis}collapse = \"cluster\""), ""), "collapse"), cluster);
        assert_eq!(lines(&told(redis, "collapse = \"cluster\""), "collapse"), cluster);
        assert_eq!(lines(&told(&format!("{redis}collapse = \"cluster\""), "collapse = \"process\""), "collapse"), [""; 0]);
    }
}
