//! Lint of the times of a route: authorizations that outlive the entries, and a `ttl` that never
//! counts.
//!
//! An entry cannot outlive the records of its tags, so this is not checked. A record lives longer
//! than the entry that is stored with it (`tests/suite/config/lint.rs` shows it with the longest
//! times that a file can set).

use std::time::Duration;

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::LintFile;
use crate::policy::scope::Scope;
use crate::units::show_duration;

const DAY: Duration = Duration::from_hours(24);

/// Checks each cached route.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached().filter(|route| route.spec.expires_at.is_some()) {
        if let (Some(given), Some(ttl)) = (route.file.ttl.given(), route.spec.ttl.longest())
            && ttl > DAY
        {
            let message = format!(
                "a `ttl` of {} has no effect: `expires_at` ends everything within a day",
                show_duration(ttl)
            );
            let builder = DiagnosticBuilder::warning(given.span.clone(), message);
            context.report.push(builder.hint("remove it"));
        }
    }
    for route in whole.cached().filter(|route| route.spec.scope == Scope::Shared) {
        if let (Some(given), Some(ttl)) = (route.file.admit_for.given(), route.spec.ttl.longest())
            && route.spec.admit_for > ttl
        {
            let message = "`admit_for` is longer than `ttl`: a caller that the origin no longer \
                           authorizes still gets entries that others have filled since";
            let hint = format!("write admit_for = \"{}\", the `ttl`, or less", show_duration(ttl));
            context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
        }
    }
}
