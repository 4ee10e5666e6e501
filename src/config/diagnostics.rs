//! Collects the diagnostics of a file, and drops those that only follow from others.

use std::sync::Arc;

use super::diagnostics::diagnostic::{Diagnostic, DiagnosticBuilder, Severity, SourceSpan};
use super::diagnostics::source_text::SourceText;

pub mod diagnostic;
pub mod recover;
pub mod redact;
pub mod source_text;

/// The comment that accepts a warning on its line.
pub const SUPPRESSION: &str = "check: ok";

/// How many diagnostics of a file are reported. The others are counted.
pub const MAX_PROBLEMS: usize = 100;

/// Collects diagnostics, and drops those that only follow from a syntax error.
pub struct DiagnosticCollector {
    source: SourceText,
    diagnostics: Vec<Diagnostic>,
    broken_lines: Vec<usize>,
    broken_header: bool,
    /// How many of the diagnostics are errors.
    errors: usize,
    /// How many problems there were no places for.
    more: usize,
    /// Where the values of `[defaults]` stand. They are read with each route.
    defaults: Vec<SourceSpan>,
    /// What has been reported of them, so that nothing is reported for each route.
    reported: Vec<(SourceSpan, String)>,
    /// Whether the text has values of variables.
    has_variables: bool,
}

impl DiagnosticCollector {
    /// A collector without diagnostics.
    #[must_use]
    pub const fn new(source: SourceText) -> Self {
        Self {
            source,
            diagnostics: Vec::new(),
            broken_lines: Vec::new(),
            broken_header: false,
            errors: 0,
            more: 0,
            defaults: Vec::new(),
            reported: Vec::new(),
            has_variables: false,
        }
    }

    /// Notes that the text has the value of a variable.
    pub const fn note_variable(&mut self) {
        self.has_variables = true;
    }

    /// Whether the text has values of variables, which may be secret.
    #[must_use]
    pub const fn has_variables(&self) -> bool {
        self.has_variables
    }

    /// Says where the values of `[defaults]` stand: of what is reported of them several times,
    /// once for each route, only the first is kept.
    pub fn set_defaults(&mut self, values: Vec<SourceSpan>) {
        self.defaults = values;
    }

    /// Whether a place lies in a value of `[defaults]`.
    #[must_use]
    pub fn is_default(&self, span: &SourceSpan) -> bool {
        self.defaults.iter().any(|value| value.start <= span.start && span.end <= value.end)
    }

    /// Whether it was reported before, of a value that several routes have.
    fn is_repeated(&mut self, builder: &DiagnosticBuilder) -> bool {
        if !self.is_default(builder.span()) {
            return false;
        }
        let one = (builder.span().clone(), builder.message().to_owned());
        let is_repeated = self.reported.contains(&one);
        if !is_repeated && self.reported.len() < MAX_PROBLEMS {
            self.reported.push(one);
        }
        is_repeated
    }

    /// Adds a diagnostic, unless its line has a syntax error, or it is a warning that the file
    /// accepts.
    pub fn push(&mut self, builder: DiagnosticBuilder) {
        if self.is_repeated(&builder) || !self.has_place(builder.severity()) {
            return;
        }
        let diagnostic = self.source.locate(builder);
        let first = self.source.text_line(diagnostic.span.start);
        let last = self.source.text_line(diagnostic.span.end.max(diagnostic.span.start + 1) - 1);
        let broken = diagnostic.line > 0
            && self.broken_lines.iter().any(|line| (first..=last).contains(line));
        if !broken && !self.is_right(&diagnostic) {
            self.keep(diagnostic);
        }
    }

    /// Whether another one of this severity is kept. Counts it otherwise. Errors and the others
    /// have places of their own, so that many warnings do not hide an error.
    const fn has_place(&mut self, severity: Severity) -> bool {
        let taken = match severity {
            Severity::Error => self.errors,
            Severity::Warning | Severity::Note => self.diagnostics.len() - self.errors,
        };
        let has_place = taken < MAX_PROBLEMS;
        self.more += if has_place { 0 } else { 1 };
        has_place
    }

    fn keep(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        self.diagnostics.push(diagnostic);
    }

    /// Whether the line of a warning ends with [`SUPPRESSION`], which a reason may follow.
    fn is_right(&self, diagnostic: &Diagnostic) -> bool {
        diagnostic.severity != Severity::Error
            && diagnostic.line > 0
            && self.is_accepted(diagnostic.span.start)
    }

    /// Whether the line of this position ends with [`SUPPRESSION`].
    #[must_use]
    pub fn is_accepted(&self, at: usize) -> bool {
        let mut comments = self.line_of(at).split('#').skip(1);
        comments.any(|comment| comment.trim_start().starts_with(SUPPRESSION))
    }

    /// Adds a syntax error. Of several on one line only the first is kept, because the others
    /// follow from it.
    pub fn push_syntax(&mut self, builder: DiagnosticBuilder) {
        if !self.has_place(builder.severity()) {
            return;
        }
        let diagnostic = self.source.locate(builder);
        let line = match diagnostic.line {
            0 => 0,
            _ => self.source.text_line(diagnostic.span.start),
        };
        if !self.broken_lines.contains(&line) {
            self.broken_lines.push(line);
            self.broken_header |= self.line_of(diagnostic.span.start).trim_start().starts_with('[');
            self.keep(diagnostic);
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
        let first = self.source.text_line(table.start);
        if self.broken_lines.is_empty() {
            return false;
        }
        let following =
            self.source.lines_after(first).position(|line| line.trim_start().starts_with('['));
        let end = following.map_or(usize::MAX, |index| first + index + 1);
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
    pub const fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Adds the text of an included file, and returns where it begins.
    pub fn add_file(&mut self, name: &str, text: &str) -> usize {
        self.source.add(name, text)
    }

    /// The file's text.
    #[must_use]
    pub const fn source(&self) -> &SourceText {
        &self.source
    }

    /// The file's name, and the diagnostics in the order of the file. Errors come before others
    /// where not all have a place, and a note at the end counts the rest.
    #[must_use]
    pub fn finish(mut self) -> (Arc<str>, Vec<Diagnostic>) {
        if self.diagnostics.len() > MAX_PROBLEMS {
            self.diagnostics.sort_by_key(|diagnostic| diagnostic.severity != Severity::Error);
            self.more += self.diagnostics.len() - MAX_PROBLEMS;
            self.diagnostics.truncate(MAX_PROBLEMS);
        }
        self.diagnostics.sort_by_key(order);
        if self.more > 0 {
            let rest = DiagnosticBuilder::note(0..0, format!("and {} more", self.more))
                .hint("correct these first, and check again");
            self.diagnostics.push(self.source.locate(rest));
        }
        (Arc::clone(self.source.file()), self.diagnostics)
    }
}

/// The order of diagnostics: those about the whole file first, then by place.
#[must_use]
pub fn order(diagnostic: &Diagnostic) -> (bool, usize) {
    (diagnostic.line > 0, diagnostic.span.start)
}
