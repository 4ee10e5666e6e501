//! Collects the diagnostics of a file, and drops those that only follow from others.

use std::sync::Arc;

use super::diagnostics::diagnostic::{
    Diagnostic, DiagnosticBuilder, Severity, SourceSpan, SourceText,
};

pub mod diagnostic;
pub mod recover;
pub mod redact;

/// The comment that accepts a warning on its line.
const SUPPRESSION: &str = "check: ok";

/// Collects diagnostics, and drops those that only follow from a syntax error.
pub struct DiagnosticCollector {
    source: SourceText,
    diagnostics: Vec<Diagnostic>,
    broken_lines: Vec<usize>,
    broken_header: bool,
}

impl DiagnosticCollector {
    /// A collector without diagnostics.
    #[must_use]
    pub const fn new(source: SourceText) -> Self {
        Self { source, diagnostics: Vec::new(), broken_lines: Vec::new(), broken_header: false }
    }

    /// Adds a diagnostic, unless its line has a syntax error, or it is a warning that the file
    /// accepts.
    pub fn push(&mut self, builder: DiagnosticBuilder) {
        let diagnostic = self.source.locate(builder);
        let last = self.source.line(diagnostic.span.end.max(diagnostic.span.start + 1) - 1);
        let broken = diagnostic.line > 0
            && self.broken_lines.iter().any(|line| (diagnostic.line..=last).contains(line));
        if !broken && !self.is_right(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Whether the line of a warning ends with [`SUPPRESSION`], which a reason may follow.
    fn is_right(&self, diagnostic: &Diagnostic) -> bool {
        let said = || {
            self.line_of(diagnostic.span.start)
                .split('#')
                .skip(1)
                .any(|comment| comment.trim_start().starts_with(SUPPRESSION))
        };
        diagnostic.severity != Severity::Error && diagnostic.line > 0 && said()
    }

    /// Adds a syntax error. Of several on one line only the first is kept, because the others
    /// follow from it.
    pub fn push_syntax(&mut self, builder: DiagnosticBuilder) {
        let diagnostic = self.source.locate(builder);
        if !self.broken_lines.contains(&diagnostic.line) {
            self.broken_lines.push(diagnostic.line);
            self.broken_header |= self.line_of(diagnostic.span.start).trim_start().starts_with('[');
            self.diagnostics.push(diagnostic);
        }
    }

    /// The line that contains this position.
    fn line_of(&self, at: usize) -> &str {
        let text = self.source.text();
        let at = at.min(text.len());
        let start = text.as_bytes()[..at]
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |newline| newline + 1);
        text[start..].lines().next().unwrap_or_default()
    }

    /// Whether keys of this table may be missing only because of a syntax error.
    #[must_use]
    pub fn may_have_lost_keys(&self, table: &SourceSpan) -> bool {
        let first = self.source.line(table.start);
        let following = self
            .source
            .text()
            .lines()
            .enumerate()
            .skip(first)
            .find(|(_, line)| line.trim_start().starts_with('['));
        let end = following.map_or(usize::MAX, |(index, _)| index + 1);
        self.broken_lines.iter().any(|&line| line >= first && line < end)
    }

    /// Whether a section header is broken, so that its keys belong to no section.
    #[must_use]
    pub const fn has_broken_header(&self) -> bool {
        self.broken_header
    }

    /// Whether the file has a syntax error.
    #[must_use]
    pub const fn has_broken_lines(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// Whether the file has errors.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// The file's text.
    #[must_use]
    pub const fn source(&self) -> &SourceText {
        &self.source
    }

    /// The file's name, and all diagnostics in the order of the file.
    #[must_use]
    pub fn finish(mut self) -> (Arc<str>, Vec<Diagnostic>) {
        self.diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        (Arc::clone(self.source.file()), self.diagnostics)
    }
}
