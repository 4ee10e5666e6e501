//! Lint of times that a route sets: admissions that outlive what they admit to.
//!
//! What is not looked at because it cannot happen: an entry that outlives the records of its tags.
//! A record is made to live longer than the entry that is stored with it
//! (`tests/suite/config/lint.rs` shows it with the longest times that a file can set).

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::LintFile;
use crate::policy::scope::Scope;
use crate::units::show_duration;

/// Looks at each cached route.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in whole.cached().filter(|route| route.spec.scope == Scope::Shared) {
        if let (Some(given), Some(ttl)) = (route.file.admit_for.given(), route.spec.ttl)
            && route.spec.admit_for > ttl
        {
            let message = "`admit_for` is longer than `ttl`: a caller whom the app no longer lets in still gets what others have fetched since";
            let hint = format!("write admit_for = \"{}\", the `ttl`, or less", show_duration(ttl));
            context.report.push(DiagnosticBuilder::warning(given.span.clone(), message).hint(hint));
        }
    }
}
