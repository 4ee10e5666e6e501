//! The text of `proxy.toml` and of the files that it includes: which file and line a position is
//! in, and what is shown of it.
//!
//! A position counts bytes in all texts, one after the other, so that a span alone says which file
//! it is in. Lines are those of the file.

use std::sync::{Arc, OnceLock};

use super::diagnostic::{Diagnostic, DiagnosticBuilder, Excerpt, MAX_SHOWN_CHARS, SourceSpan};
use super::redact;
use crate::policy::rule_place::RulePlace;

/// Shorter secrets are not looked for in messages, where they would be parts of words.
const MIN_SECRET_BYTES: usize = 4;

/// A file of a [`SourceText`].
#[derive(Debug)]
struct SourceFile {
    /// Where its text begins.
    start: usize,
    /// How many lines the files before it have.
    lines_before: usize,
    name: Arc<str>,
}

/// The text of the file and of those that it includes, and the ranges that must not be shown.
#[derive(Debug)]
pub struct SourceText {
    /// The files, in the order of their texts. The first is the main one.
    files: Vec<SourceFile>,
    /// Their texts, with an empty line between two of them.
    text: String,
    /// Where the lines end.
    newlines: Vec<usize>,
    /// In order, and apart from each other. Looked for where something is shown: most files have
    /// nothing that is.
    secrets: OnceLock<Vec<SourceSpan>>,
}

impl SourceText {
    /// The source of a file.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        let mut source = Self {
            files: Vec::new(),
            text: String::new(),
            newlines: Vec::new(),
            secrets: OnceLock::new(),
        };
        source.add(file, text);
        source
    }

    /// Adds an included file, and returns where its text begins.
    pub fn add(&mut self, file: &str, text: &str) -> usize {
        if !self.files.is_empty() {
            // The end of a text is a place of its own, so it does not touch the next one.
            self.newlines.push(self.text.len());
            self.text.push('\n');
        }
        let start = self.text.len();
        self.files.push(SourceFile { start, lines_before: self.newlines.len(), name: file.into() });
        self.text.push_str(text);
        let newlines = memchr::memchr_iter(b'\n', text.as_bytes());
        self.newlines.extend(newlines.map(|newline| start + newline));
        // SECURITY: what was found before is not all any more.
        self.secrets = OnceLock::new();
        start
    }

    /// The ranges that must not be shown.
    fn secrets(&self) -> &[SourceSpan] {
        self.secrets.get_or_init(|| {
            let ends = self.files.iter().skip(1).map(|next| next.start - 1);
            let ends = ends.chain([self.text.len()]);
            // Each text by itself: an open quote of one must not hide or show what another one has.
            let of_file = |(file, end): (&SourceFile, usize)| {
                let found = redact::secrets(&self.text[file.start..end]).into_iter();
                let start = file.start;
                found.map(move |secret| start + secret.start..start + secret.end)
            };
            self.files.iter().zip(ends).flat_map(of_file).collect()
        })
    }

    /// The main file's name.
    #[must_use]
    pub fn file(&self) -> &Arc<str> {
        &self.files[0].name
    }

    /// The file of a position.
    fn file_of(&self, at: usize) -> &SourceFile {
        let after = self.files.partition_point(|file| file.start <= at);
        &self.files[after.saturating_sub(1)]
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line of a position in its file, from 1.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        self.text_line(at) - self.file_of(self.floor(at)).lines_before
    }

    /// The line of a position among those of all files, from 1.
    #[must_use]
    pub fn text_line(&self, at: usize) -> usize {
        let at = self.floor(at);
        self.newlines.partition_point(|&newline| newline < at) + 1
    }

    /// Where a rule stands.
    #[must_use]
    pub fn rule_place(&self, at: usize) -> RulePlace {
        let file = self.file_of(at);
        let file = (file.start > 0).then(|| Arc::clone(&file.name));
        RulePlace { file, line: self.line(at) }
    }

    /// The line of a place, for a message that stands at another one: with its file if that is not
    /// the same.
    #[must_use]
    pub fn line_for(&self, place: &SourceSpan, reader: &SourceSpan) -> String {
        let (file, line) = (self.file_of(place.start), self.line(place.start));
        if file.start == self.file_of(reader.start).start {
            format!("line {line}")
        } else {
            format!("line {line} of {}", file.name)
        }
    }

    /// The lines that follow this one, which counts from 1 among those of all files.
    pub fn lines_after(&self, line: usize) -> std::str::Lines<'_> {
        let newline = line.checked_sub(1).and_then(|index| self.newlines.get(index));
        newline.map_or("", |newline| &self.text[newline + 1..]).lines()
    }

    /// The text of a span, with secrets hidden.
    #[must_use]
    pub fn shown(&self, span: &SourceSpan) -> String {
        let Some(slice) = self.text.get(span.clone()) else { return String::new() };
        let hidden = |at: usize| {
            let secrets = self.secrets();
            let next = secrets.partition_point(|secret| secret.end <= at);
            secrets.get(next).is_some_and(|secret| secret.contains(&at))
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
            return builder.locate(self.file(), (0, 0), None, String::new());
        }
        let file = self.file_of(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_start =
            if line_start == file.start && self.text[line_start..].starts_with('\u{feff}') {
                (line_start + '\u{feff}'.len_utf8()).min(start)
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
        builder.locate(&file.name, (self.line(start), column), Some(excerpt), found)
    }

    /// SECURITY: a message may repeat the value that it is about.
    fn without_secrets(&self, mut builder: DiagnosticBuilder) -> DiagnosticBuilder {
        let secrets = self.secrets();
        let first = secrets.partition_point(|secret| secret.end <= builder.span.start);
        let within = secrets[first..].iter().take_while(|one| one.start < builder.span.end);
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
