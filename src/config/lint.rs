//! Lint: what a careful reviewer would ask about a file that can be used. Each finding is a warning at its place, with the reason and with
//! what to type instead. Looks at the rules against each other, once all of them have been read.
//!
//! A finding that is right as it is ends with `# check: ok` on its line of the file; `Report` sees to that.

use std::time::Duration;

use super::Limits;
use super::compile::rules;
use super::context::Context;
use super::decode::{List, Slot, Text};
use super::diagnostics::diagnostic::{Draft, Span};
use super::file::{self, File};
use crate::policy::credential::CredentialRule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::{Mode, RouteSpec};

mod headers;
mod names;
mod purges;
pub mod redis;
mod scopes;
mod sections;
mod template;
#[cfg(test)]
mod tests;
mod times;

/// Longer than this an entry lives only by intention.
const LONG: Duration = Duration::from_hours(24);

/// A route as it is written, and as it runs.
struct Route<'a> {
    spec: &'a RouteSpec,
    file: &'a file::Route,
    path: &'a Span,
}

/// A purge rule as it is written, and as it runs.
struct Purge<'a> {
    rule: &'a PurgeRule,
    file: &'a file::Purge,
    path: &'a Span,
}

/// The compiled parts of a file that has no errors.
pub struct Parts<'a> {
    /// The routes, in the order of the file.
    pub routes: &'a [rules::Route],
    /// The purge rules, in the order of the file.
    pub purges: &'a [rules::Purge],
    /// What identifies a caller.
    pub credential: &'a CredentialRule,
    /// The bounds.
    pub limits: Option<&'a Limits>,
    /// The shared tier.
    pub redis: Option<&'a crate::redis::Settings>,
}

/// Everything that is looked at.
struct Whole<'a> {
    file: &'a File,
    routes: Vec<Route<'a>>,
    purges: Vec<Purge<'a>>,
    credential: &'a CredentialRule,
    /// The operator says that the app itself sends tags: what no route carries may come from there.
    app_sends_tags: bool,
}

impl Whole<'_> {
    /// The routes that store something, or would.
    fn cached(&self) -> impl Iterator<Item = &Route<'_>> {
        self.routes.iter().filter(|route| route.spec.mode != Mode::Off)
    }
}

/// Looks at a file that has no errors.
pub fn warn(file: &File, parts: &Parts<'_>, context: &mut Context) {
    let whole = Whole {
        file,
        routes: routes(file, parts.routes),
        purges: purges(file, parts.purges),
        credential: parts.credential,
        app_sends_tags: file
            .tags
            .given()
            .is_some_and(|tags| tags.value.response_headers.given().is_some_and(|list| !list.value.0.is_empty())),
    };
    if whole.routes.is_empty() {
        let draft = Draft::warning(0..0, "there are no routes: everything passes through and nothing is cached");
        context.report.push(draft.hint("add [[routes]] with path = \"/api/…\" and ttl = \"5m\""));
    }
    scopes::look(&whole, context);
    headers::look(&whole, context);
    purges::look(&whole, context);
    times::look(&whole, context);
    sections::look(&whole, parts, context);
}

/// Without errors each route of the file has been compiled, so that both lists are of the same routes.
fn routes<'a>(file: &'a File, compiled: &'a [rules::Route]) -> Vec<Route<'a>> {
    let written = file.routes.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (&'a super::decode::Located<file::Route>, &'a rules::Route)| {
        let path = &located.value.path.given()?.span;
        Some(Route { spec: &compiled.spec, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The same for the purge rules.
fn purges<'a>(file: &'a File, compiled: &'a [rules::Purge]) -> Vec<Purge<'a>> {
    let written = file.purges.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (&'a super::decode::Located<file::Purge>, &'a rules::Purge)| {
        let path = &located.value.path.given()?.span;
        Some(Purge { rule: &compiled.rule, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The texts of a list.
fn texts(slot: &Slot<List<Text>>) -> &[super::decode::Located<Text>] {
    slot.get().map_or(&[][..], |list| &list.0)
}

/// A list as it is written in the file. SECURITY: values of the environment stand in it by their names.
fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
