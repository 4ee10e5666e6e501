//! Lint: checks a valid file for probable mistakes. Each finding is a warning with the reason and a
//! replacement. It compares the rules with each other, after all of them have been compiled.
//!
//! `# check: ok` at the end of a line accepts its warning; `DiagnosticCollector` implements that.

use self::view::{LintFile, LintPurge, LintRoute, LintSource};
use super::compile::purges::CompiledPurge;
use super::compile::routes::CompiledRoute;
use super::context::CompileContext;
use super::diagnostics::diagnostic::DiagnosticBuilder;
use super::file::{self, ConfigFile};
use crate::sources::SourceSettings;

mod body_reads;
mod callers;
mod headers;
mod identity;
mod matches;
mod memory;
mod purges;
pub mod redis;
mod scopes;
mod sections;
mod slashes;
pub mod sockets;
mod sources;
mod switch;
mod template;
#[cfg(test)]
mod tests;
mod times;
mod tokens;
mod view;

pub use self::view::CompiledParts;

/// Checks a file without errors.
pub fn warn(file: &ConfigFile, parts: &CompiledParts<'_>, context: &mut CompileContext) {
    let whole = LintFile {
        file,
        routes: routes(file, parts.routes),
        purges: purges(file, parts.purges),
        sources: sources(file, parts.sources),
        credential: parts.credential,
        origin_sends_tags: file.tags.given().is_some_and(|tags| {
            tags.value.response_headers.given().is_some_and(|list| !list.value.0.is_empty())
        }),
    };
    if whole.routes.is_empty() {
        let builder = DiagnosticBuilder::warning(0..0, "there are no routes, so nothing is cached");
        context.report.push(builder.hint("add [[routes]] with path = \"/api/…\" and ttl = \"5m\""));
    }
    tokens::check(&whole, context);
    identity::check(&whole, context);
    scopes::check(&whole, context);
    callers::check(&whole, context);
    headers::check(&whole, context);
    purges::check(&whole, context);
    sources::check(&whole, context);
    times::check(&whole, context);
    slashes::check(&whole, context);
    body_reads::check(&whole, context);
    body_reads::check_mutations(&whole, context);
    sections::check(&whole, parts, context);
    switch::check(&whole, context);
    memory::check(&whole, parts, context);
    matches::check(&whole, context);
}

/// In a file without errors every route has been compiled, so both lists have the same routes.
fn routes<'a>(file: &'a ConfigFile, compiled: &'a [CompiledRoute]) -> Vec<LintRoute<'a>> {
    let written = file.routes.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (
        &'a super::decode::Located<file::RouteSection>,
        &'a CompiledRoute,
    )| {
        let path = &located.value.path.given()?.span;
        Some(LintRoute { spec: &compiled.spec, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The same for the purge rules.
fn purges<'a>(file: &'a ConfigFile, compiled: &'a [CompiledPurge]) -> Vec<LintPurge<'a>> {
    let written = file.purges.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, compiled): (
        &'a super::decode::Located<file::PurgeSection>,
        &'a CompiledPurge,
    )| {
        let path = &located.value.path.given()?.span;
        Some(LintPurge { rule: &compiled.rule, file: &located.value, path })
    };
    written.iter().zip(compiled).filter_map(pair).collect()
}

/// The same for the sources.
fn sources<'a>(file: &'a ConfigFile, compiled: &'a [SourceSettings]) -> Vec<LintSource<'a>> {
    let written = file.sources.get().map_or(&[][..], |list| &list.0);
    let pair = |(located, settings): (&'a super::decode::Located<file::SourceSection>, _)| {
        LintSource { settings, file: &located.value }
    };
    written.iter().zip(compiled).map(pair).collect()
}
