//! Diagnostics of `proxy.toml`: position, message, allowed values, hint, and how they are printed.
//! Knows the text of the file, not its meaning.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How many characters of a message, of a line of the file, and of what was found there are shown.
pub(super) const MAX_SHOWN_CHARS: usize = 200;
/// How many characters of a hint, and of a list of what is allowed, are shown.
const MAX_ADVICE_CHARS: usize = 1000;

/// A range of bytes of the file; of an included one, in the text of all files one after the other.
pub type SourceSpan = Range<usize>;

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is invalid.
    Error,
    /// The file is valid, but probably does not do what was meant.
    Warning,
    /// Something could not be checked. Never a reason to reject the file.
    Note,
}

/// One message about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity.
    pub severity: Severity,
    /// The file's name.
    pub file: Arc<str>,
    /// The line, from 1. Zero if the diagnostic is about the whole file.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The bytes that it is about.
    pub span: SourceSpan,
    /// The text found there, without secrets and without values of variables.
    pub found: String,
    /// The message.
    pub message: String,
    /// The allowed values.
    pub allowed: Option<String>,
    /// How to fix it.
    pub hint: Option<String>,
    excerpt: Option<Excerpt>,
}

/// The source line, or a part of a long one, and which of its characters to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) indent: usize,
    pub(super) carets: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let message = printable(&self.message);
        let (file, line, column) = (printable(&self.file), self.line, self.column);
        match line {
            0 => writeln!(f, "{file}: {severity}: {message}")?,
            _ => writeln!(f, "{file}:{line}:{column}: {severity}: {message}")?,
        }
        if let Some(excerpt) = &self.excerpt {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{number} | {}", excerpt.line)?;
            writeln!(f, "{gutter} | {}{}", " ".repeat(excerpt.indent), "^".repeat(excerpt.carets))?;
        }
        if let Some(allowed) = &self.allowed {
            writeln!(f, "  allowed: {}", printable(allowed))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

/// The diagnostics of a file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: Arc<str>,
    list: Vec<Diagnostic>,
    /// The lines of a file to begin with.
    example: &'static [&'static str],
}

impl Diagnostics {
    /// The diagnostics of a file.
    #[must_use]
    pub const fn new(file: Arc<str>, list: Vec<Diagnostic>) -> Self {
        Self { file, list, example: &[] }
    }

    /// The diagnostic of a file that could not be read.
    #[must_use]
    pub fn unreadable(file: &str, message: String, hint: &str) -> Self {
        let file: Arc<str> = file.into();
        let diagnostic = DiagnosticBuilder::error(0..0, message).hint(hint).locate(
            &file,
            (0, 0),
            None,
            String::new(),
        );
        Self { file, list: vec![diagnostic], example: &[] }
    }

    /// With the lines of a file to begin with.
    #[must_use]
    pub fn with_example(self, example: &'static [&'static str]) -> Self {
        Self { example, ..self }
    }

    /// All diagnostics, including warnings, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}")?;
        }
        for line in self.example {
            writeln!(f, "    {line}")?;
        }
        if !self.example.is_empty() {
            writeln!(f)?;
        }
        let errors = self.errors().count();
        let is_warning = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Warning;
        match self.iter().filter(is_warning).count() {
            0 => {}
            warnings => write!(f, "{} and ", counted(warnings, "warning"))?,
        }
        write!(f, "{} in {}", counted(errors, "error"), printable(&self.file))?;
        let is_elsewhere = |diagnostic: &Diagnostic| diagnostic.file != self.file;
        if self.iter().any(is_elsewhere) { f.write_str(" and what it includes") } else { Ok(()) }
    }
}

impl std::error::Error for Diagnostics {}

/// `1 error`, `2 errors`.
#[must_use]
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first characters of a text, and an ellipsis if there are more.
fn clip(text: String, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text,
    }
}

/// SECURITY: escape sequences in the file's text must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A diagnostic without its line and excerpt.
#[derive(Debug)]
pub struct DiagnosticBuilder {
    pub(super) severity: Severity,
    pub(super) span: SourceSpan,
    pub(super) message: String,
    pub(super) allowed: Option<String>,
    pub(super) hint: Option<String>,
}

impl DiagnosticBuilder {
    /// An error.
    pub fn error(span: SourceSpan, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span, message: message.into(), allowed: None, hint: None }
    }

    /// A warning.
    pub fn warning(span: SourceSpan, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// A note.
    pub fn note(span: SourceSpan, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(span, message) }
    }

    /// The severity.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Where it is about.
    pub const fn span(&self) -> &SourceSpan {
        &self.span
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The allowed values.
    #[must_use]
    pub fn allowed(self, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into()), ..self }
    }

    /// How to fix it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Sets the hint, if there is one.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    pub(super) fn locate(
        self,
        file: &Arc<str>,
        (line, column): (usize, usize),
        excerpt: Option<Excerpt>,
        found: String,
    ) -> Diagnostic {
        let Self { severity, span, message, allowed, hint } = self;
        Diagnostic {
            severity,
            file: Arc::clone(file),
            line,
            column,
            span,
            found,
            message: clip(message, MAX_SHOWN_CHARS),
            allowed: allowed.map(|allowed| clip(allowed, MAX_ADVICE_CHARS)),
            hint: hint.map(|hint| clip(hint, MAX_ADVICE_CHARS)),
            excerpt,
        }
    }
}
