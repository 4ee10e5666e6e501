//! Who shares an entry, by the rules of a file, and where another file lets more callers share one.
//!
//! A reload that widens sharing, and a suggestion that would, are judged by the same comparison. A
//! suggestion is not shown; a reload is refused, unless `# check: ok` stands where it widens.
//!
//! Invariants:
//! 1. *Every way to share is named here.* Two requests share an entry of a route only if its scope,
//!    its key fields and `admit` let them, and they can get each other's data only if what the
//!    origin answers by is sent on a fill without being in the key (`pass_headers`,
//!    `unknown_headers = "pass"`), or if the origin's own word against sharing is overridden
//!    (`origin = "ignore"`, `vary_cookie = "ignore"`).
//! 2. *Withholding is not sharing.* What a fill does not carry (`drop_headers`, `ignore_cookies`,
//!    parameters out of `query`) cannot put one caller's data into an entry.
//! 3. *A mode shares nothing wider*: `mode` is not compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml_edit::{Document, Item, Table};

use super::diagnostics::DiagnosticCollector;
use super::diagnostics::diagnostic::{DiagnosticBuilder, Diagnostics, SourceText};
use super::model::Config;
use crate::policy::field::{Auth, ClientPrefix, FieldSource};
use crate::policy::names::{Meaning, meaning};
use crate::policy::route::{AdmitRule, Route, UnknownHeaders, VaryCookie};
use crate::policy::scope::Scope;
use crate::semantics::storability::OriginRule;

/// Who shares the entries of each route of a file.
#[derive(Clone, Debug, Default)]
pub struct SharingRules {
    routes: BTreeMap<String, RouteSharing>,
}

/// Who shares the entries of one route.
#[derive(Clone, Debug)]
struct RouteSharing {
    scope: Scope,
    /// What tells entries apart, with the names of the fields.
    keyed: Vec<(String, FieldSource)>,
    /// The headers that reach the origin without being in the key and may tell callers apart.
    passed: BTreeSet<String>,
    passes_unknown: bool,
    admit: AdmitRule,
    overrides_origin: bool,
    overrides_vary: bool,
}

/// A key of a route by which more callers share an entry than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widening {
    /// The route's path.
    pub route: String,
    /// The key.
    pub key: &'static str,
    /// What it does now, to follow "this".
    pub what: String,
}

impl SharingRules {
    /// Who shares by the rules of this file.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let one = |route: &Arc<Route>| (route.name().to_owned(), RouteSharing::of(route));
        Self { routes: config.routes.iter().map(one).collect() }
    }

    /// Where more callers share an entry by these rules than by `before`. Routes that only one of
    /// the files has share nothing with each other.
    #[must_use]
    pub fn widened_from(&self, before: &Self) -> Vec<Widening> {
        let pairs = self.routes.iter().filter_map(|(path, now)| {
            let old = before.routes.get(path)?;
            Some((path, old, now))
        });
        pairs.flat_map(|(path, old, now)| now.widened_from(old, path)).collect()
    }
}

impl RouteSharing {
    fn of(route: &Route) -> Self {
        let spec = &route.spec;
        let tells_callers = |name: &str| {
            matches!(meaning(name), Some(Meaning::Credential | Meaning::Caller | Meaning::Address))
        };
        let passed = spec.pass_headers.iter().map(ToString::to_string);
        Self {
            scope: spec.scope,
            keyed: route
                .fields
                .iter()
                .map(|field| (field.name.to_string(), field.source.clone()))
                .collect(),
            passed: passed.filter(|name| tells_callers(name)).collect(),
            passes_unknown: spec.unknown_headers == UnknownHeaders::Pass,
            admit: spec.admit,
            overrides_origin: spec.origin == OriginRule::Ignore && spec.ttl.is_some(),
            overrides_vary: spec.vary_cookie == VaryCookie::Ignore,
        }
    }

    fn widened_from(&self, old: &Self, path: &str) -> Vec<Widening> {
        let widening =
            |key: &'static str, what: String| Widening { route: path.to_owned(), key, what };
        let mut found = Vec::new();
        if width(self.scope) > width(old.scope) {
            let (from, to) = (old.scope.as_str(), self.scope.as_str());
            found.push(widening("scope", format!("makes a {from} route {to}")));
        }
        for (name, source) in &old.keyed {
            if !self.tells_apart(source) {
                let what = format!("takes `{name}` out of the key");
                found.push(widening("key", what));
            }
        }
        for name in self.passed.difference(&old.passed) {
            let what = format!(
                "passes `{name}`, which tells callers apart, without a place in \
                the key"
            );
            found.push(widening("pass_headers", what));
        }
        if self.passes_unknown && !old.passes_unknown {
            let what = "passes every header without a place in the key".to_owned();
            found.push(widening("unknown_headers", what));
        }
        let is_shared = self.scope == Scope::Shared;
        if is_shared && self.admit == AdmitRule::Route && old.admit == AdmitRule::Entry {
            let what = "lets who may read one page read all".to_owned();
            found.push(widening("admit", what));
        }
        if self.scope != Scope::Private && self.overrides_origin && !old.overrides_origin {
            let what = "overrides the origin's `Cache-Control: private`".to_owned();
            found.push(widening("origin", what));
        }
        if self.scope == Scope::Public && self.overrides_vary && !old.overrides_vary {
            let what = "overrides the origin's `Vary: Cookie`".to_owned();
            found.push(widening("vary_cookie", what));
        }
        found
    }

    /// Whether two requests that this source told apart have different keys still.
    fn tells_apart(&self, source: &FieldSource) -> bool {
        // In scope `private` the whole credential is in the key where no field stands for it.
        let stands_for_all = matches!(source, FieldSource::Auth(_))
            && self.scope == Scope::Private
            && !self.keyed.iter().any(|(_, own)| matches!(own, FieldSource::Auth(_)));
        stands_for_all || self.keyed.iter().any(|(_, own)| is_as_narrow(own, source))
    }
}

/// How many callers a scope lets share.
const fn width(scope: Scope) -> u8 {
    match scope {
        Scope::Private => 0,
        Scope::Shared => 1,
        Scope::Public => 2,
    }
}

/// Whether `own` tells apart all that `other` does.
fn is_as_narrow(own: &FieldSource, other: &FieldSource) -> bool {
    match (own, other) {
        (FieldSource::Auth(Auth::Token), FieldSource::Auth(_)) => true,
        (FieldSource::Auth(Auth::Prefix(own)), FieldSource::Auth(Auth::Prefix(other))) => {
            own >= other
        }
        (FieldSource::Client(own), FieldSource::Client(other)) => {
            let ClientPrefix { v4, v6 } = *other;
            own.v4 >= v4 && own.v6 >= v6
        }
        _ => own == other,
    }
}

/// What a reload with this file is refused for: each widening that the file does not accept by
/// `# check: ok`, on the line of the key or on that of its route.
#[must_use]
pub fn refusals(config: &Config, name: &str, before: &SharingRules) -> Option<Diagnostics> {
    let widened = SharingRules::from_config(config).widened_from(before);
    if widened.is_empty() {
        return None;
    }
    let places = Document::parse(&*config.text).ok();
    let mut report = DiagnosticCollector::new(SourceText::new(name, &config.text));
    for widening in widened {
        let place = places.as_ref().and_then(|document| {
            let routes = document.get("routes")?.as_array_of_tables()?;
            let is_its =
                |route: &&Table| route.get("path").and_then(Item::as_str) == Some(&*widening.route);
            let route = routes.iter().find(is_its)?;
            Some((route.get(widening.key).and_then(Item::span), route.span()?))
        });
        let (key, route) = place.unwrap_or((None, 0..0));
        if [&key, &Some(route.clone())].into_iter().flatten().any(|at| report.is_accepted(at.start))
        {
            continue;
        }
        let message = format!(
            "this {} on {}, so that callers share entries who did not before: the reload is \
             refused",
            widening.what, widening.route
        );
        let hint = "if no response of the route depends on who asks, end the line (or that of its \
                    [[routes]], where something was taken away) with `# check: ok`; a restart \
                    loads the file as it is";
        report.push(DiagnosticBuilder::error(key.unwrap_or(route), message).hint(hint));
    }
    let (file, diagnostics) = report.finish();
    (!diagnostics.is_empty()).then(|| Diagnostics::new(file, diagnostics))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[fields]\n\
        tenant = { header = \"x-tenant\" }\nother = { header = \"x-other\" }\n\
        token = { auth = \"token\" }\nstart = { auth = \"prefix\", length = 20 }\n\
        wide = { client = \"address\", prefix = \"/24\" }\nnarrow = { client = \"address\" }\n";

    fn rules(route: &str) -> SharingRules {
        let text = format!("{HEAD}[[routes]]\npath = \"/a\"\nttl = \"1m\"\n{route}\n");
        let config = Config::parse(&text, "proxy.toml", &|_| None);
        SharingRules::from_config(&config.unwrap_or_else(|problems| panic!("{problems}")))
    }

    fn keys(before: &str, after: &str) -> Vec<&'static str> {
        let found = rules(after).widened_from(&rules(before));
        found.into_iter().map(|widening| widening.key).collect()
    }

    #[test]
    fn what_lets_more_callers_share_is_found() {
        let public = "scope = \"public\"";
        let shared = "scope = \"shared\"";
        for (before, after, key) in [
            ("", public, "scope"),
            ("", shared, "scope"),
            (shared, public, "scope"),
            ("key = [\"tenant\"]", "", "key"),
            ("key = [\"tenant\", \"other\"]", "key = [\"other\"]", "key"),
            ("tags = [\"a:{tenant}\"]", "tags = [\"a\"]", "key"),
            ("key = [\"token\"]", "key = [\"start\"]", "key"),
            ("key = [\"narrow\"]", "key = [\"wide\"]", "key"),
            ("", "pass_headers = [\"x-tenant-id\"]", "pass_headers"),
            ("", "pass_headers = [\"x-api-key\"]", "pass_headers"),
            ("", "unknown_headers = \"pass\"", "unknown_headers"),
            (shared, "scope = \"shared\"\nadmit = \"route\"", "admit"),
            (public, "scope = \"public\"\norigin = \"ignore\"", "origin"),
            (public, "scope = \"public\"\nvary_cookie = \"ignore\"", "vary_cookie"),
        ] {
            assert_eq!(keys(before, after), [key], "{before:?} to {after:?}");
            assert!(keys(after, before).is_empty(), "{after:?} to {before:?} is narrower");
        }
    }

    #[test]
    fn what_lets_no_more_callers_share_is_not() {
        for (before, after) in [
            ("", "key = [\"tenant\"]"),
            ("key = [\"tenant\"]", "key = [\"tenant?\", \"other\"]"),
            ("key = [\"token\"]", ""),
            ("", "pass_headers = [\"x-theme\"]"),
            ("", "drop_headers = [\"x-tenant-id\"]"),
            ("", "origin = \"ignore\""),
            ("mode = \"off\"", "mode = \"on\""),
            ("", "query = \"none\""),
        ] {
            assert!(keys(before, after).is_empty(), "{before:?} to {after:?}");
        }
    }

    #[test]
    fn a_reload_is_refused_unless_the_file_accepts_it() {
        let text = |route: &str, comment: &str| {
            format!("{HEAD}[[routes]]{comment}\npath = \"/a\"\nttl = \"1m\"\n{route}\n")
        };
        let refused = |after: &str| {
            let config = Config::parse(after, "proxy.toml", &|_| None);
            let config = config.unwrap_or_else(|problems| panic!("{problems}"));
            refusals(&config, "proxy.toml", &rules("key = [\"tenant\", \"other\"]"))
        };
        let found = refused(&text("key = [\"other\"]", "")).expect("a field is gone");
        let one = found.errors().next().expect("an error");
        assert_eq!((one.line, found.errors().count()), (13, 1), "{found}");
        assert!(one.message.contains("takes `tenant` out of the key on /a"), "{found}");
        let found = refused(&text("", "")).expect("all fields are gone");
        assert_eq!(found.errors().map(|one| one.line).collect::<Vec<_>>(), [10, 10], "{found}");
        for (route, comment) in [
            ("key = [\"other\"] # check: ok, one tenant", ""),
            ("key = [\"other\"]", " # check: ok"),
            ("", " # check: ok"),
            ("key = [\"tenant\", \"other\"]", ""),
        ] {
            let text = text(route, comment);
            assert_eq!(refused(&text), None, "{text}");
        }
    }

    #[test]
    fn another_route_is_another_entry() {
        let two =
            "scope = \"private\"\n[[routes]]\npath = \"/b\"\nttl = \"1m\"\nscope = \"public\"";
        assert!(keys("", two).is_empty());
    }
}
