//! Lint: checks a valid file for probable mistakes. Each finding is a warning with the reason and a
//! replacement. It compares the rules with each other, after all of them have been compiled.
//!
//! `# check: ok` at the end of a line accepts its warning; `DiagnosticCollector` implements that.

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

/// Entries that live longer than this are assumed to need purging.
const LONG_TTL: Duration = Duration::from_hours(24);

/// A route as written and as compiled.
struct LintRoute<'a> {
    spec: &'a RouteSpec,
    file: &'a file::RouteSection,
    path: &'a SourceSpan,
}

/// A purge rule as written and as compiled.
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
    /// The limits.
    pub limits: Option<&'a ConfigLimits>,
    /// The Redis tier.
    pub redis: Option<&'a crate::redis::RedisSettings>,
}

/// Everything that lint looks at.
struct LintFile<'a> {
    file: &'a ConfigFile,
    routes: Vec<LintRoute<'a>>,
    purges: Vec<LintPurge<'a>>,
    credential: &'a CredentialRule,
    /// Whether the operator says that the origin sends tags. Then tags that no route has may come
    /// from the origin.
    origin_sends_tags: bool,
}

impl LintFile<'_> {
    /// The routes that store responses, or would in mode "on".
    fn cached(&self) -> impl Iterator<Item = &LintRoute<'_>> {
        self.routes.iter().filter(|route| route.spec.mode != RouteMode::Off)
    }
}

/// Checks a file without errors.
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
        let draft = DiagnosticBuilder::warning(0..0, "there are no routes, so nothing is cached");
        context.report.push(draft.hint("add [[routes]] with path = \"/api/…\" and ttl = \"5m\""));
    }
    scopes::check(&whole, context);
    headers::check(&whole, context);
    purges::check(&whole, context);
    times::check(&whole, context);
    sections::check(&whole, parts, context);
}

/// In a file without errors every route has been compiled, so both lists have the same routes.
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

/// A list as written in the file. SECURITY: variables appear by name, not by value.
fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
