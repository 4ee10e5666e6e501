//! Explains a request by the rules, in lines of a name and a value: `route`, `scope`, `key`, `tag`,
//! `X-Cache`.
//!
//! The command, which reads a file, and the admin API, which uses the active rules, share this
//! code. It knows the rules alone: neither what is stored nor which clients are authorized.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::outcome::{LifetimeSource, Reason};
use crate::policy::explain::fill::fill_lines;
pub use crate::policy::explain::lines::ExplainLine;
use crate::policy::explain::lines::{ExplainLines, FRESH_FOR};
use crate::policy::explain::mutation::explain_mutation;
use crate::policy::explain::purge_request::purged_names;
use crate::policy::explain::times::{explain_times, seconds};
use crate::policy::fronts::{self, FrontClass, FrontHeader};
use crate::policy::identity::{IdentityField, RequestIdentity};
use crate::policy::keyed_body::SeenBody;
use crate::policy::plan::{Lookup, Plan, PolicyRules, RequestView};
use crate::policy::purge_request::PurgeRequestRule;
use crate::policy::request_directives::RequestDirectives;
use crate::policy::request_match::MatchVerdict;
use crate::policy::route::{AdmitRule, Route};
use crate::policy::scope::Scope;
use crate::policy::signed_in::SignedIn;
use crate::semantics::content_coding::Coding;
use crate::semantics::forward::{self, ClientPeer};
use crate::semantics::request_fields::RequestFields;

mod fill;
mod lines;
mod mutation;
mod purge_request;
mod times;

/// The end of the year 9999, after which there are no HTTP-dates.
const LAST_DATE_MS: u64 = 253_402_300_799_000;

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
    /// The body, for purge rules that read a field from it, and routes with it in their keys.
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
    /// The same, for routes that have it in their keys.
    body: SeenBody,
    trusted: bool,
    /// What the origin says of the caller, if somebody says it here.
    identity: Option<RequestIdentity>,
}

/// An explanation, with its lines in the order of the decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The method and the target.
    pub request: String,
    /// The lines.
    pub lines: Vec<ExplainLine>,
}

impl Explanation {
    /// Adds how long the last response of the route was stored for, and by whose word, after what
    /// the rules say of it.
    pub fn add_lifetime(&mut self, last: Option<(Duration, LifetimeSource)>) {
        let Some((lifetime, from)) = last else { return };
        let by = match from {
            LifetimeSource::Origin => "by the origin's own word",
            LifetimeSource::Route => "by `ttl`",
            LifetimeSource::Heuristic => "estimated from its Last-Modified",
        };
        let value = format!("{} {by}, for the response that was stored last", seconds(lifetime));
        let at = self.lines.iter().position(|line| line.name == FRESH_FOR);
        let line = ExplainLine { name: "last stored".to_owned(), value };
        self.lines.insert(at.map_or(self.lines.len(), |at| at + 1), line);
    }
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
        let uri: Uri = forward::carried_target(&self.target)
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
        let data = self.data.clone();
        let body = SeenBody::Whole(data.clone().unwrap_or_default().into());
        let (trusted, identity) = (self.trusted, None);
        Ok(ParsedRequest { method, uri, headers, data, body, trusted, identity })
    }
}

impl ParsedRequest {
    /// The same, of which it is known who the caller is.
    #[must_use]
    pub fn with_identity(self, identity: RequestIdentity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// The method, as it is sent.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The request in the form that the rules read.
    #[must_use]
    pub fn view(&self, rules: &PolicyRules, now: Wall) -> RequestView<'_> {
        let peer = ClientPeer { addr: [127, 0, 0, 1].into(), trusted: self.trusted };
        let version = Version::HTTP_11;
        let has_body = self.data.as_ref().is_some_and(|data| !data.is_empty());
        let upgrade = forward::offered_upgrade(&self.headers, version, &rules.upgrades);
        let bypass = if forward::logs_in_connection(&self.headers) {
            Some(Reason::ConnectionLogin)
        } else {
            upgrade.filter(|_| !has_body).map(|_| Reason::Upgrade)
        };
        RequestView {
            app: rules.apps.of(&self.uri, &self.headers),
            bypass,
            client: rules.client_address.address(&self.headers, &peer),
            method: &self.method,
            uri: &self.uri,
            version,
            headers: &self.headers,
            fields: RequestFields::of(&self.headers),
            has_body,
            seen_body: Some(&self.body),
            identity: self.identity.as_ref(),
            peer_is_trusted: self.trusted,
            now,
            is_again: false,
        }
    }
}

/// Explains a request by the rules.
#[must_use]
pub fn explain(rules: &PolicyRules, request: &ParsedRequest, now: Wall) -> Explanation {
    let view = request.view(rules, now);
    let mut lines = ExplainLines::default();
    if rules.apps.are_several() {
        let name = rules.apps.get(view.app).name.as_deref();
        lines.line("app", name.unwrap_or("that of [upstream]"));
    }
    if let Err(bad) =
        forward::check_request(view.method, view.uri, Version::HTTP_11, (view.headers, view.fields))
    {
        lines.line("refused", format!("{} {}", bad.status(), bad.as_str()));
    } else if let Some(source) = rules.webhooks.source_of(view.method, view.uri.path()) {
        lines.line("X-Cache", "BYPASS");
        lines.reason(Reason::Webhook, Reason::Webhook.as_str());
        lines.line("sidecar answers", format!("if it is signed for the source {source}"));
    } else {
        match rules.plan(&view) {
            Plan::Lookup(lookup) => explain_lookup(&mut lines, &lookup, view.headers, now),
            Plan::Pass(route, outcome) => {
                lines.line("route", route.map_or("none", |route| route.name()));
                if matches!(outcome.reason, Some(Reason::UnmetMatch | Reason::AmbiguousMatch)) {
                    explain_tried(&mut lines, rules, &view);
                }
                let share = route.and_then(|route| route.spec.share);
                if let (Some(share), Some(Reason::NotInShare)) = (share, outcome.reason) {
                    lines.line("share", format!("{share} of the callers, and this one is not"));
                }
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
            Plan::Mutate(_)
                if rules.purge_requests.is_some() && PurgeRequestRule::is_for(view.method) =>
            {
                lines.line("X-Cache", "BYPASS");
                lines.reason(Reason::PurgeRequest, Reason::PurgeRequest.as_str());
                match purged_names(rules, &view) {
                    Ok(names) => {
                        let who = "if [purge_requests] takes it from its sender";
                        lines.line("sidecar answers", who);
                        for name in names {
                            lines.line("purges", name);
                        }
                    }
                    Err(why) => lines.line("refused", why),
                }
            }
            Plan::Identify(route) => explain_identity(&mut lines, route),
            // The body is given.
            Plan::ReadBody(route) => lines.line("route", route.name()),
            Plan::Mutate(effective) => {
                if let Some(why) = rules.write_in_place_of_read(&view) {
                    lines.line("write", why);
                }
                explain_mutation(&mut lines, rules, &view, &effective, request.data.as_deref());
            }
        }
    }
    Explanation { request: format!("{} {}", request.method, request.uri), lines: lines.0 }
}

/// A request whose key needs what the origin says of the caller, which is not known here.
fn explain_identity(lines: &mut ExplainLines, route: &Route) {
    lines.line("route", route.name());
    lines.line("scope", route.spec.scope.as_str());
    for field in &route.fields {
        if let Some(identity) = field.identity() {
            let IdentityField { pointer, path } = identity;
            let value = format!("what the app says at {pointer}, when it is asked at {path}");
            lines.line(format!("field {}", field.name), value);
        }
    }
    lines.line("X-Cache", "depends on what the app says of this caller");
}

/// The routes that have the path of a request that none of them takes.
fn explain_tried(lines: &mut ExplainLines, rules: &PolicyRules, view: &RequestView<'_>) {
    for (route, verdict) in rules.tried(view) {
        let verdict = match verdict {
            MatchVerdict::Met => "met".to_owned(),
            MatchVerdict::Unmet => "not met".to_owned(),
            MatchVerdict::Doubtful(condition) => format!("ambiguous: {condition}"),
        };
        lines.line(format!("match of {}", route.name()), verdict);
    }
}

fn explain_lookup(lines: &mut ExplainLines, lookup: &Lookup<'_>, headers: &HeaderMap, now: Wall) {
    let route: &Route = lookup.route;
    lines.line("route", route.name());
    if !route.spec.conditions.is_empty() {
        lines.line("match", format!("{} (met)", route.spec.conditions.label));
    }
    for (name, value) in &lookup.captures {
        lines.line(format!("capture {name}"), value.to_string());
    }
    if !route.spec.defaults.is_empty() {
        let keys = route.spec.defaults.iter().map(|(key, line)| format!("{key} (line {line})"));
        lines.line("from [defaults]", keys.collect::<Vec<_>>().join(", "));
    }
    if let Some(share) = route.spec.share {
        lines.line("share", format!("{share} of the callers, this one among them"));
    }
    lines.line("scope", scope_in_words(route, lookup));
    if let Some(caller) = caller_in_words(route) {
        lines.line("caller", caller);
    }
    explain_host(lines, lookup, headers);
    lines.line("path", lookup.path());
    lines.line("query", lookup.query().unwrap_or("(none)"));
    for (name, value) in lookup.shown_fields() {
        lines.line(format!("field {name}"), value);
    }
    for token in lookup.tokens.verified() {
        let key = token.key_id.as_deref().map_or_else(String::new, |id| format!(" by key {id}"));
        let until = Duration::from_millis(token.until.0.min(LAST_DATE_MS));
        let until = httpdate::fmt_http_date(UNIX_EPOCH + until);
        lines.line("token", format!("verified{key}; it counts until {until}"));
    }
    if let Some(body) = &lookup.body {
        let length = body.canonical.len();
        lines.line("body", format!("{length} bytes reach the origin on a fill, in one form"));
    }
    if let Some(credential) = lookup.credential {
        // SECURITY: eight digits of a keyed hash distinguish two clients, and reveal nothing else.
        lines.line("credential", format!("(hash {})", crate::units::short_hex(&credential.0)));
    }
    let learned = route.headers.learned();
    if !learned.is_empty() {
        let names: Vec<&str> = learned.iter().map(HeaderName::as_str).collect();
        lines.line("learned from Vary", names.join(", "));
    }
    if let Some((_, coding)) = lookup.offered_coding() {
        let coding = coding.map_or("none: this client gets the plain form", Coding::as_str);
        lines.line("coding", coding);
    }
    lines.line("key", lookup.key.hash().to_hex());
    for tag in lookup.tags() {
        lines.line(if tag.is_auxiliary() { "auxiliary tag" } else { "tag" }, tag.shown());
    }
    for template in route.spec.tags.iter().filter(|template| template.reads_response()) {
        lines.line("tag of the response", template.as_str());
    }
    explain_times(lines, &route.spec, now);
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
            explain_front(lines, name, lookup);
        }
        (None, None) => explain_directives(lines, &directives),
    }
    for line in fill_lines(lookup) {
        lines.line("the app would get", line);
    }
}

/// What is known of an unknown header that a front adds.
fn explain_front(lines: &mut ExplainLines, name: &HeaderName, lookup: &Lookup<'_>) {
    let named = lookup.route.headers.fronts();
    let covers = |header: &FrontHeader| fronts::covers(header.name, name.as_str());
    let table = fronts::TABLES.iter().find(|table| table.headers.iter().any(covers));
    let Some(table) = table else { return };
    let Some(header) = table.headers.iter().find(|header| covers(header)) else { return };
    let front = table.front.as_str();
    let what = match header.class {
        FrontClass::Identity => {
            "it says who asks: name it in [credential], or make it a field of `key`".to_owned()
        }
        FrontClass::Request if named.has(table.front) => {
            "only a proxy in trusted_proxies of [listen] is believed".to_owned()
        }
        _ => format!("write fronts = [\"{front}\"] at the top of the file"),
    };
    let class = header.class.as_str();
    lines.line("known", format!("{name} is {class} of the front {front}: {what}"));
}

/// Under which host an entry is stored, and who shares it.
fn explain_host(lines: &mut ExplainLines, lookup: &Lookup<'_>, headers: &HeaderMap) {
    let host = lookup.host();
    let requested = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    lines.line("host", host);
    if lookup.has_host_key() {
        let section = if lookup.app().name.is_some() { "its app" } else { "[upstream]" };
        let note =
            format!("by host_key of {section}, for all its hosts; the request has {requested}");
        lines.line("host", note);
    } else if host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) {
        let note = "with its port: sidecars that clients reach on other ports share nothing, \
                    unless `host_key` names one host for all";
        lines.line("host", note);
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

fn scope_in_words<'a>(route: &Route, lookup: &Lookup<'_>) -> &'a str {
    match (route.spec.scope, lookup.credential.is_some()) {
        (Scope::Private, true) => "private: for this credential only",
        (Scope::Private, false) => "private: for clients without a credential",
        (Scope::Shared, _) if route.spec.admit == AdmitRule::Route => {
            "shared: for every client that the origin has authorized for the same fields"
        }
        (Scope::Shared, _) => "shared: for every client that the origin has given this entry",
        (Scope::Public, _) if route.is_for_guests() => {
            "public, for guests: one entry for all of them; fills are sent without cookies"
        }
        (Scope::Public, _) => "public: for everyone; fills are sent without credentials",
    }
}

/// Whether the caller is a guest, on a route that has guests.
fn caller_in_words(route: &Route) -> Option<String> {
    let shown = |rule: &SignedIn| {
        let cookies = rule.cookies.iter().map(|glob| format!("the cookie {}", glob.as_str()));
        let field = rule.field.iter().map(|field| format!("a value for the field {}", field.name));
        cookies.chain(field).collect::<Vec<_>>().join(" or ")
    };
    match (&route.guest_of, &route.guests) {
        (Some(rule), _) => Some(format!("a guest: without {}", shown(rule))),
        (None, Some(guests)) => Some(format!(
            "no guest: with {}, `Authorization` or a header of [credential]",
            shown(&guests.signed_in)
        )),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
