//! Lint: what a careful reviewer would ask about a file that can be used. Each finding is a warning
//! at its place, with the reason and with what to type instead. Looks at the rules against each
//! other, once all of them have been read.
//!
//! A finding that is right as it is ends with `# check: ok` on its line of the file; `Report` sees
//! to that.

use std::time::Duration;

use super::ConfigLimits;
use super::compile::rules;
use super::context::CompileContext;
use super::decode::{Setting, TomlList, TomlString};
use super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::file::{self, ConfigFile};
use crate::policy::credential::CredentialRule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::{RouteMode, RouteSpec};

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
const LONG_TTL: Duration = Duration::from_hours(24);

/// A route as it is written, and as it runs.
struct LintRoute<'a> {
    spec: &'a RouteSpec,
    file: &'a file::RouteSection,
    path: &'a SourceSpan,
}

/// A purge rule as it is written, and as it runs.
struct LintPurge<'a> {
    rule: &'a PurgeRule,
    file: &'a file::PurgeSection,
    path: &'a SourceSpan,
}

/// The compiled parts of a file that has no errors.
pub struct CompiledParts<'a> {
    /// The routes, in the order of the file.
    pub routes: &'a [rules::CompiledRoute],
    /// The purge rules, in the order of the file.
    pub purges: &'a [rules::CompiledPurge],
    /// What identifies a caller.
    pub credential: &'a CredentialRule,
    /// The bounds.
    pub limits: Option<&'a ConfigLimits>,
    /// The shared tier.
    pub redis: Option<&'a crate::redis::RedisSettings>,
}

/// Everything that is looked at.
struct LintFile<'a> {
    file: &'a ConfigFile,
    routes: Vec<LintRoute<'a>>,
    purges: Vec<LintPurge<'a>>,
    credential: &'a CredentialRule,
    /// The operator says that the app itself sends tags: what no route carries may come from there.
    origin_sends_tags: bool,
}

impl LintFile<'_> {
    /// The routes that store something, or would.
    fn cached(&self) -> impl Iterator<Item = &LintRoute<'_>> {
        self.routes.iter().filter(|route| route.spec.mode != RouteMode::Off)
    }
}

/// Looks at a file that has no errors.
pub fn warn(file: &ConfigFile, parts: &CompiledParts<'_>, context: &mut CompileContext) {
    let whole = LintFile {
        file,
        routes: routes(file, parts.routes),
        purges: purges(file, parts.purges),
        credential: parts.credential,
        origin_sends_tags: file.tags.given().is_some_and(|tags| {
            tags.value.response_headers.given().is_some_and(|list| !list.value.0.is_empty())
        }),
    };
    if whole.routes.is_empty() {
        let draft = DiagnosticBuilder::warning(
            0..0,
            "there are no routes: everything passes through and nothing is cached",
        );
        context.report.push(draft.hint("add [[routes]] with path = \"/api/…\" and ttl = \"5m\""));
    }
    scopes::check(&whole, context);
    headers::check(&whole, context);
    purges::check(&whole, context);
    times::check(&whole, context);
    sections::check(&whole, parts, context);
}

/// Without errors each route of the file has been compiled, so that both lists are of the same
/// routes.
fn routes<'a>(file: &'a ConfigFile, compiled: &'a [rules::CompiledRoute]) -> Vec<LintRoute<'a>> {
    let written = file.routes.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (
        &'a super::decode::Located<file::RouteSection>,
        &'a rules::CompiledRoute,
    )| {
        let path = &located.value.path.given()?.span;
        Some(LintRoute { spec: &compiled.spec, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The same for the purge rules.
fn purges<'a>(file: &'a ConfigFile, compiled: &'a [rules::CompiledPurge]) -> Vec<LintPurge<'a>> {
    let written = file.purges.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (
        &'a super::decode::Located<file::PurgeSection>,
        &'a rules::CompiledPurge,
    )| {
        let path = &located.value.path.given()?.span;
        Some(LintPurge { rule: &compiled.rule, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The texts of a list.
fn texts(slot: &Setting<TomlList<TomlString>>) -> &[super::decode::Located<TomlString>] {
    slot.get().map_or(&[][..], |list| &list.0)
}

/// A list as it is written in the file. SECURITY: values of the environment stand in it by their
/// names.
fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
