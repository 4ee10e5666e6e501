//! What of a request reaches the origin on a fill, and may choose the response, without a place in
//! the key.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::Arc;

use http::HeaderName;

use crate::policy::credential::CredentialRule;
use crate::policy::field::FieldSource;
use crate::policy::glob::Glob;
use crate::policy::route::headers::may_choose;
use crate::policy::route::{AdmitRule, HeaderRole, Route, UnknownHeaders};
use crate::policy::scope::Scope;

/// What fills of a route carry besides what its key holds.
#[derive(Clone, Debug)]
pub(super) struct SentBesideKey {
    route: Arc<Route>,
    /// The headers of `pass_headers`.
    passed: BTreeSet<String>,
    /// Whether all other headers are sent as well.
    pub(super) passes_unknown: bool,
    /// The headers that tell callers apart: those of fields, and those of the credential.
    telling: BTreeSet<String>,
    /// The headers of `drop_headers`.
    dropped: BTreeSet<String>,
    /// The credential, where it is neither in the key nor compared entry by entry
    /// (`admit = "route"`).
    credential: Option<OpenCredential>,
}

/// A credential that chooses no entry.
#[derive(Clone, Debug)]
struct OpenCredential {
    rule: Arc<CredentialRule>,
    /// The headers and cookies that are in the key by a field.
    keyed_headers: BTreeSet<String>,
    keyed_cookies: BTreeSet<String>,
}

impl SentBesideKey {
    pub(super) fn new(route: &Arc<Route>, credential: &Arc<CredentialRule>) -> Self {
        let spec = &route.spec;
        let names = |list: &[HeaderName]| list.iter().map(ToString::to_string).collect();
        let read = route.fields.iter().filter_map(|field| field.header());
        let keyed_headers: BTreeSet<String> = read.map(ToString::to_string).collect();
        let mut telling: BTreeSet<String> = names(&credential.headers);
        telling.extend(keyed_headers.iter().cloned());
        let keyed_cookies = route.fields.iter().filter_map(|field| match &field.source {
            FieldSource::Cookie(name) => Some(name.to_string()),
            _ => None,
        });
        let is_open = spec.scope == Scope::Shared
            && spec.admit == AdmitRule::Route
            && !route.key_holds_credential();
        Self {
            route: Arc::clone(route),
            passed: names(&spec.pass_headers),
            passes_unknown: spec.unknown_headers == UnknownHeaders::Pass,
            telling,
            dropped: spec.drop_headers.iter().map(|glob| glob.as_str().to_owned()).collect(),
            credential: is_open.then(|| OpenCredential {
                rule: Arc::clone(credential),
                keyed_headers,
                keyed_cookies: keyed_cookies.collect(),
            }),
        }
    }

    /// The keys by which more is sent than by `old`, and what they do. What has no key of the route
    /// stands on the route's own line.
    pub(super) fn grown_from(&self, old: &Self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for name in self.passed.difference(&old.passed) {
            if may_choose(name) || old.telling.contains(name) {
                let what = format!(
                    "passes `{name}`, which may choose the response, without a place in the key"
                );
                found.push(("pass_headers", what));
            }
        }
        if self.passes_unknown && !old.passes_unknown {
            let what = "passes every header without a place in the key".to_owned();
            found.push(("unknown_headers", what));
        }
        if self.passes_unknown && old.passes_unknown {
            // What had a rule of its own is a header like any other now.
            let roles = self.route.headers.context(false);
            let is_gone = |name: &&String| {
                !self.passed.contains(*name)
                    && HeaderName::from_str(name).is_ok_and(|name| {
                        self.route.headers.role(&name, &roles) == HeaderRole::Passed
                    })
            };
            for name in old.telling.union(&old.dropped).filter(is_gone) {
                let key = if old.dropped.contains(name) { "drop_headers" } else { "headers" };
                let what =
                    format!("passes `{name}`, by `unknown_headers`, without a place in the key");
                found.push((key, what));
            }
        }
        if let (Some(now), Some(before)) = (&self.credential, &old.credential) {
            let was_sent = |name: &str| old.passed.contains(name) || old.passes_unknown;
            now.grown_from(before, &was_sent, &mut found);
        }
        found
    }
}

impl OpenCredential {
    /// Adds what identifies callers now and did not before: it was in the key, or was not sent.
    fn grown_from(
        &self,
        old: &Self,
        was_sent: &dyn Fn(&str) -> bool,
        found: &mut Vec<(&'static str, String)>,
    ) {
        let mut report = |key: &'static str, name: &str| {
            let what = format!(
                "makes {name} a part of the credential, which `admit = \"route\"` keeps out of the \
                 key"
            );
            found.push((key, what));
        };
        for name in self.rule.headers.iter().filter(|name| !old.rule.headers.contains(name)) {
            let name = name.as_str();
            if !was_sent(name) && !self.keyed_headers.contains(name) {
                report("headers", &format!("`{name}`"));
            }
        }
        match (&self.rule.cookies, &old.rule.cookies) {
            (Some(now), Some(before)) => {
                let is_known = |name: &Glob| {
                    before.iter().any(|glob| glob.matches(name.as_str().as_bytes()))
                        || self.keyed_cookies.contains(name.as_str())
                };
                for name in now.iter().filter(|name| !is_known(name)) {
                    report("cookies", &format!("`{}`", name.as_str()));
                }
            }
            (None, Some(_)) => report("cookies", "every cookie"),
            (None, None) => {
                if !self.rule.ignored_cookies.covers(&old.rule.ignored_cookies) {
                    report("cookies", "a cookie that was ignored");
                }
            }
            (Some(_), None) => {}
        }
    }
}
