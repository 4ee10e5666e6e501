//! Reads a file and those that it includes into one tree, and decodes it. Syntax errors are
//! reported by the file that has them, and hide nothing else.

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error as TomlError};

use super::super::decode::{
    DefaultValues, FromToml as _, Setting, TomlReader, give_defaults, join,
};
use super::super::diagnostics::DiagnosticCollector;
use super::super::diagnostics::diagnostic::DiagnosticBuilder;
use super::super::diagnostics::recover::{self, RecoveredText};
use super::super::file::{ConfigFile, RouteSection};
use super::super::include::{self, IncludeFault, IncludeSource, IncludedFile};

/// A file and those that it includes, decoded.
pub struct ReadFile {
    /// The rules of all, unless the tree has no form at all.
    pub file: Option<ConfigFile>,
    /// The files that it includes.
    pub included: Vec<IncludedFile>,
    /// Whether `[redis]` is left out.
    pub redis_left_out: bool,
    /// Which values of routes come from `[defaults]`.
    pub defaults: DefaultValues,
}

/// Decodes the file and those that it includes, after reporting all syntax errors.
pub fn read(text: &str, from: IncludeSource<'_>, reader: &mut TomlReader<'_>) -> ReadFile {
    let main = recovered(text, 0, reader.report);
    let mut others: Vec<RecoveredText> = Vec::new();
    let mut table = tree(&main, reader.report);
    let included = include(&table, text, from, reader);
    let add = |file: &IncludedFile| {
        let start = reader.report.add_file(&file.name, &file.text);
        recovered(&file.text, start, reader.report)
    };
    others.extend(included.iter().map(add));
    for other in &others {
        let own = tree(other, reader.report);
        join(&mut table, own, ConfigFile::KEYS, reader);
    }
    let defaults = give_defaults(&mut table, RouteSection::KEYS);
    reader.report.set_defaults(defaults.spans.clone());
    let root = Spanned::new(0..0, DeValue::Table(table));
    let mut file = ConfigFile::read(&root, reader);
    let redis_left_out = leave_redis_out(&root, reader);
    if let (Some(file), true) = (&mut file, redis_left_out) {
        file.redis = Setting::Absent;
    }
    ReadFile { file, included, redis_left_out, defaults }
}

/// The text for the parser, of a file that begins here among all.
fn recovered(text: &str, start: usize, report: &mut DiagnosticCollector) -> RecoveredText {
    let mut recovered = recover::recover(text, start);
    for builder in std::mem::take(&mut recovered.diagnostics) {
        report.push_syntax(builder);
    }
    for builder in std::mem::take(&mut recovered.completed) {
        report.push(builder);
    }
    recovered
}

/// The tree of a text.
fn tree<'i>(recovered: &'i RecoveredText, report: &mut DiagnosticCollector) -> DeTable<'i> {
    let (table, mut errors) = DeTable::parse_recoverable(&recovered.text);
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in &errors {
        report.push_syntax(syntax(error, recovered));
    }
    recovered.relocate(table.into_inner())
}

/// The files that `include` names.
fn include(
    table: &DeTable<'_>,
    text: &str,
    from: IncludeSource<'_>,
    reader: &mut TomlReader<'_>,
) -> Vec<IncludedFile> {
    let patterns = include::patterns(table, reader.env);
    let at = table.get("include").map_or(0..0, Spanned::span);
    match from {
        _ if patterns.is_empty() => Vec::new(),
        IncludeSource::Given(files) if files.len() > include::MAX_FILES => {
            let message = format!("there are more than {} files to include", include::MAX_FILES);
            reader.report.push(DiagnosticBuilder::error(at, message));
            Vec::new()
        }
        IncludeSource::Given(files) => files.to_vec(),
        IncludeSource::Nowhere => {
            let message = "this text comes alone, so no other files are read for it";
            let hint = "send them with it, as `sidecache check --against running` does, or remove \
                        `include`";
            reader.report.push(DiagnosticBuilder::error(at, message).hint(hint));
            Vec::new()
        }
        IncludeSource::FolderOf(main) => {
            let found = include::read(main, &patterns, text.len() as u64);
            for IncludeFault { at, what, hint } in found.faults {
                reader.report.push(DiagnosticBuilder::error(at, what).hint(hint));
            }
            for at in found.unmatched {
                let message = "there is no such file, so nothing is included here";
                let hint = "that is right if there will be one later; `*` stands for any text";
                reader.report.push(DiagnosticBuilder::note(at, message).hint(hint));
            }
            found.files
        }
    }
}

/// Whether the address of Redis is `"${NAME:-}"` and the variable is unset or empty. Then the file
/// is one without `[redis]`, which is noted.
fn leave_redis_out(root: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> bool {
    let url = root.get_ref().get("redis").and_then(|redis| redis.get_ref().get("url"));
    let Some(url) = url.filter(|url| reader.is_left_out(url)) else { return false };
    let message = "this variable is unset or empty, so [redis] is left out: the cache lives in \
                   this process's memory alone";
    let hint = "set the variable to the URL of Redis to share the cache";
    reader.report.push(DiagnosticBuilder::note(url.span(), message).hint(hint));
    true
}

/// Reports a syntax error, with a hint on its usual cause.
fn syntax(error: &TomlError, recovered: &RecoveredText) -> DiagnosticBuilder {
    let (text, span) = (recovered.text.as_str(), error.span().unwrap_or(0..0));
    let found = text.get(span.clone()).unwrap_or_default().trim();
    let message = error.message();
    let (message, allowed) = message
        .split_once(", expected ")
        .map_or((message, None), |(what, expected)| (what, Some(expected)));
    let starts_with_digit = found.starts_with(|c: char| c.is_ascii_digit());
    let hint = if message.contains("must be quoted") && starts_with_digit {
        Some(format!("write durations, sizes and addresses as strings: \"{found}\""))
    } else if message.contains("must be quoted") && found.is_empty() {
        Some("give the key a value, or remove it".into())
    } else if message.contains("must be quoted") {
        Some("put the text in quotes".into())
    } else if message.contains("duplicate key") {
        Some(
            "write each key and each section once; lists of tables have double brackets, as in \
              [[routes]]"
                .into(),
        )
    } else if message.contains("basic string") {
        Some("close the string with the quote that opens it".into())
    } else {
        None
    };
    let place = if found.is_empty() && span.start > 0 && span.start >= text.trim_end().len() {
        text.trim_end().len()
    } else {
        span.start
    };
    let mut builder = DiagnosticBuilder::error(
        recovered.original_span(&(place..span.end.max(place))),
        format!("syntax error: {message}"),
    )
    .maybe_hint(hint);
    if let Some(allowed) = allowed.filter(|allowed| !allowed.contains("literal string")) {
        builder = builder.allowed(allowed);
    }
    builder
}
