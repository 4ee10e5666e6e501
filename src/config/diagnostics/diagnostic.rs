//! Diagnostics of `proxy.toml`: position, message, allowed values, hint, and how they are printed.
//! Knows the text of the file, not its meaning.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::redact;

/// How many characters of a message, of a line of the file, and of what was found there are shown.
const MAX_SHOWN_CHARS: usize = 200;
/// How many characters of a hint, and of a list of what is allowed, are shown.
const MAX_ADVICE_CHARS: usize = 1000;

/// Shorter secrets are not looked for in messages, where they would be parts of words.
const MIN_SECRET_BYTES: usize = 4;

/// A range of bytes of the file.
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
struct Excerpt {
    line: String,
    indent: usize,
    carets: usize,
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
        write!(f, "{} in {}", counted(errors, "error"), printable(&self.file))
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
    severity: Severity,
    span: SourceSpan,
    message: String,
    allowed: Option<String>,
    hint: Option<String>,
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

    fn locate(
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

/// The text of the file, and the ranges that must not be shown.
#[derive(Debug)]
pub struct SourceText {
    file: Arc<str>,
    text: String,
    /// Where the lines end.
    newlines: Vec<usize>,
    /// In order, and apart from each other.
    secrets: Vec<SourceSpan>,
}

impl SourceText {
    /// The source of a file.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.to_owned(),
            newlines: memchr::memchr_iter(b'\n', text.as_bytes()).collect(),
            secrets: redact::secrets(text),
        }
    }

    /// The file's name.
    #[must_use]
    pub const fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of a position, from 1.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        let at = self.floor(at);
        self.newlines.partition_point(|&newline| newline < at) + 1
    }

    /// The lines that follow this one, which counts from 1.
    pub fn lines_after(&self, line: usize) -> std::str::Lines<'_> {
        let newline = line.checked_sub(1).and_then(|index| self.newlines.get(index));
        newline.map_or("", |newline| &self.text[newline + 1..]).lines()
    }

    /// The text of a span, with secrets hidden.
    #[must_use]
    pub fn shown(&self, span: &SourceSpan) -> String {
        let Some(slice) = self.text.get(span.clone()) else { return String::new() };
        let hidden = |at: usize| {
            let next = self.secrets.partition_point(|secret| secret.end <= at);
            self.secrets.get(next).is_some_and(|secret| secret.contains(&at))
        };
        let show = |(offset, c): (usize, char)| match c {
            _ if hidden(span.start + offset) => '*',
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        };
        slice.char_indices().map(show).collect()
    }

    /// The span of a word within a span, or the whole span if it is not found.
    #[must_use]
    pub fn within(&self, span: &SourceSpan, word: &str) -> SourceSpan {
        let offset = self
            .text
            .get(span.clone())
            .and_then(|slice| slice.find(word))
            .filter(|_| !word.is_empty());
        offset.map_or_else(
            || span.clone(),
            |offset| span.start + offset..span.start + offset + word.len(),
        )
    }

    /// Whether a list is empty in the file, rather than because its elements were invalid.
    #[must_use]
    pub fn is_empty_list(&self, span: &SourceSpan) -> bool {
        let slice = self.text.get(span.clone()).unwrap_or_default();
        slice
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.trim().is_empty())
    }

    /// Completes a diagnostic with its position and excerpt.
    #[must_use]
    pub fn locate(&self, builder: DiagnosticBuilder) -> Diagnostic {
        let builder = self.without_secrets(builder);
        let start = self.floor(builder.span.start);
        if builder.span.is_empty() && start == 0 {
            return builder.locate(&self.file, (0, 0), None, String::new());
        }
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_start = if line_start == 0 && self.text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8().min(start)
        } else {
            line_start
        };
        let line_end =
            self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let column = self.text[line_start..start].chars().count() + 1;
        let (excerpt, found) = (
            self.excerpt(&(line_start..line_end), start, self.floor(builder.span.end)),
            self.shown(&(builder.span.start..self.end_of(builder.span.start, builder.span.end))),
        );
        builder.locate(&self.file, (self.line(start), column), Some(excerpt), found)
    }

    /// SECURITY: a message may repeat the value that it is about.
    fn without_secrets(&self, mut builder: DiagnosticBuilder) -> DiagnosticBuilder {
        let first = self.secrets.partition_point(|secret| secret.end <= builder.span.start);
        let within = self.secrets[first..].iter().take_while(|one| one.start < builder.span.end);
        for secret in within.filter_map(|secret| self.text.get(secret.clone())) {
            let texts =
                [Some(&mut builder.message), builder.allowed.as_mut(), builder.hint.as_mut()];
            for text in texts.into_iter().flatten() {
                if secret.len() >= MIN_SECRET_BYTES && text.contains(secret) {
                    *text = text.replace(secret, "***");
                }
            }
        }
        builder
    }

    /// The line with what is between these two places underlined; of a long line, the part around
    /// the first of them.
    fn excerpt(&self, line: &SourceSpan, from: usize, to: usize) -> Excerpt {
        let whole = self.end_of(line.start, line.end) == line.end;
        let before = self.text[line.start..from].char_indices();
        let start = match before.rev().nth(MAX_SHOWN_CHARS / 2 - 1) {
            Some((offset, _)) if !whole => line.start + offset,
            _ => line.start,
        };
        let end = self.end_of(start, line.end);
        let shown = self.shown(&(start..end));
        let to = to.clamp(from, end.max(from));
        let (prefix, suffix) = (
            if start > line.start { "\u{2026}" } else { "" },
            if end < line.end { "\u{2026}" } else { "" },
        );
        Excerpt {
            line: format!("{prefix}{}{suffix}", shown.trim_end_matches(['\u{fffd}', ' '])),
            indent: prefix.chars().count() + self.text[start..from].chars().count(),
            carets: self.text[from..to].trim_end().chars().count().max(1),
        }
    }

    /// The end of the part of a span that is shown.
    fn end_of(&self, start: usize, end: usize) -> usize {
        let shown =
            self.text.get(start..end).and_then(|text| text.char_indices().nth(MAX_SHOWN_CHARS));
        shown.map_or(end, |(offset, _)| start + offset)
    }

    /// The nearest character boundary at or before a position.
    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}
