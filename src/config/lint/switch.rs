//! Lint of the switch for all routes: `mode` appended to the end of the file, where it belongs to
//! the last section.

use super::super::context::CompileContext;
use super::super::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};
use super::view::LintFile;
use crate::policy::route::RouteMode;

/// Warns about a last line that switches off less than it seems to.
pub fn check(whole: &LintFile<'_>, context: &mut CompileContext) {
    let all_off = whole.file.mode.get().is_some_and(|mode| mode.0 == RouteMode::Off);
    if all_off || whole.cached().next().is_none() {
        return;
    }
    let text = context.report.source().text();
    let Some(at) = last_line(text).filter(|at| switches_off(&text[at.clone()])) else { return };
    let is_at_top = whole.file.mode.given().is_some_and(|mode| at.contains(&mode.span.start));
    if is_at_top {
        return;
    }
    let message = "this belongs to the last section of the file, so other routes still cache";
    let hint = "to switch off all routes, put mode = \"off\" at the top of the file, before the \
                first [section]; if this route alone is meant, put it beside its `path`";
    context.report.push(DiagnosticBuilder::warning(at, message).hint(hint));
}

/// The last line that is neither empty nor a comment, without white space around it.
fn last_line(text: &str) -> Option<SourceSpan> {
    let mut end = text.len();
    while end > 0 {
        let start = text[..end].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..end].trim();
        if !line.is_empty() && !line.starts_with('#') {
            let start = start + text[start..end].find(line)?;
            return Some(start..start + line.len());
        }
        end = start.saturating_sub(1);
    }
    None
}

fn switches_off(line: &str) -> bool {
    let value =
        line.strip_prefix("mode").map(str::trim_start).and_then(|rest| rest.strip_prefix('='));
    value.is_some_and(|value| value.trim_start().trim_start_matches(['"', '\'']).starts_with("off"))
}
