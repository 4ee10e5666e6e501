//! Lint of `encoded_slash`.

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::view::LintFile;
use crate::policy::route::{EncodedSlash, RouteMode};

/// Warns where the key has no effect.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    for route in &whole.routes {
        let given = route.file.encoded_slash.given();
        let given = given.filter(|_| route.spec.encoded_slash == EncodedSlash::Keep);
        let message = if route.spec.mode == RouteMode::Off {
            "encoded_slash = \"keep\" has no effect, because this route caches nothing"
        } else if route.spec.pattern.captures().next().is_none() {
            "encoded_slash = \"keep\" has no effect: only a capture can hold `%2f`, and the path \
             has none"
        } else {
            continue;
        };
        if let Some(given) = given {
            context
                .report
                .push(DiagnosticBuilder::warning(given.span.clone(), message).hint("remove it"));
        }
    }
}
