//! A whole `proxy.toml`, made of rules: rendered with their reasons as comments, compiled and
//! linted in memory, and written where there is no file yet.
//!
//! Invariant: the file passes `check` without a warning. A rule with which it would not is left
//! out, and the file says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml_edit::Value;

pub(super) use self::rule::{FileClaim, FileRule, FileSession};

use self::fields::{FieldNames, tokens};
use self::text::{comment, list};
use super::error::CommandError;
use super::format::clean;
use crate::config::include::IncludeSource;
use crate::config::{Config, Diagnostics, Severity};

mod fields;
mod rule;
mod text;

/// What stands for a secret that is not known here, while a file is checked.
const SOME_SECRET: &str = "a-secret-that-only-the-sidecar-is-given";
const SOME_URL: &str = "https://idp.example/jwks.json";

/// A file that is being made.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstFile {
    /// The comment that it begins with.
    pub(super) heading: Vec<String>,
    /// Its tables without rules.
    pub(super) settings: String,
    /// The rules, the best first.
    pub(super) rules: Vec<FileRule>,
    /// What it ends with, as a comment.
    pub(super) notes: Vec<String>,
}

/// A file that passes `check`.
#[derive(Clone, Debug)]
pub(super) struct CheckedFile {
    pub(super) text: String,
    /// The paths of its routes.
    pub(super) routes: Vec<String>,
    /// The paths of rules that were left out.
    pub(super) left_out: Vec<String>,
}

impl FirstFile {
    /// The file with all rules that pass `check` beside those before them. An error is one of the
    /// settings; without any rule, the file has none. What the settings include is read from there.
    pub(super) fn check(
        mut self,
        name: &str,
        from: IncludeSource<'_>,
    ) -> Result<CheckedFile, Diagnostics> {
        let (mut routes, mut left_out) = (Vec::new(), Vec::new());
        let mut taken: Vec<FileRule> = Vec::new();
        Config::parse_with(&self.render(&[]), name, &environment_variable, from)?;
        for rule in std::mem::take(&mut self.rules) {
            taken.push(rule);
            if is_clean(&self.render(&taken), &taken, name, from) {
                continue;
            }
            if let Some(rule) = taken.pop() {
                self.notes.push(format!("{}: left out, because `check` would warn", rule.path));
                left_out.push(rule.path);
            }
        }
        routes.extend(taken.iter().map(|rule| rule.path.clone()));
        Ok(CheckedFile { text: self.render(&taken), routes, left_out })
    }

    /// Whether its settings say how tokens are verified.
    fn verifies_tokens(&self) -> bool {
        let settings = self.settings.parse::<toml_edit::DocumentMut>();
        settings.is_ok_and(|settings| settings.contains_key("jwt"))
    }

    fn render(&self, rules: &[FileRule]) -> String {
        let mut text = String::new();
        for line in &self.heading {
            comment(&mut text, line);
        }
        let _ = write!(text, "\n{}", self.settings);
        let credentials: BTreeSet<&str> =
            rules.iter().flat_map(|rule| &rule.credential_headers).map(String::as_str).collect();
        if !credentials.is_empty() {
            comment(&mut text, "Headers that say who asks, by their names.");
            let _ = writeln!(text, "[credential]\nheaders = {}\n", list(credentials));
        }
        let fields = FieldNames::new(rules);
        if let Some(claim) = rules.iter().find_map(|rule| rule.claim.as_ref())
            && !self.verifies_tokens()
        {
            tokens(&mut text, claim);
        }
        fields.render(&mut text, rules);
        let mut purges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut kept_out: BTreeSet<&str> = BTreeSet::new();
        for rule in rules {
            route(&mut text, rule, &fields);
            for path in &rule.purges {
                purges.entry(path).or_default().insert(&rule.tag);
            }
            kept_out.extend(rule.kept_out.iter().map(String::as_str));
        }
        for path in kept_out {
            let path = Value::from(path);
            comment(&mut text, "Not cached, though a route above would match it.");
            let _ = writeln!(text, "[[routes]]\npath = {path}\nmode = \"off\"\n");
        }
        for (path, tags) in purges {
            let path = Value::from(path);
            let _ = writeln!(text, "[[purges]]\npath = {path}\ntags = {}\n", list(tags));
        }
        for note in &self.notes {
            comment(&mut text, note);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}

fn route(text: &mut String, rule: &FileRule, fields: &FieldNames<'_>) {
    for reason in &rule.reasons {
        comment(text, reason);
    }
    let mut line = |key: &str, value: Value| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("[[routes]]\npath", rule.path.as_str().into());
    if let Some(mode) = rule.mode {
        line("mode", mode.into());
    }
    line("ttl", rule.ttl.as_str().into());
    if rule.overrules {
        line("origin", "ignore".into());
    }
    if let Some(scope) = &rule.scope {
        line("scope", scope.as_str().into());
    }
    let key = fields.key(rule);
    if !key.is_empty() {
        line("key", list(key.iter().map(String::as_str)));
    }
    if let Some(session) = &rule.session {
        line("strip_set_cookie", list([session.cookie.as_str()]));
    }
    if let Some(query) = &rule.query {
        let none = || Value::from("none");
        let some = || Value::Array(query.iter().map(String::as_str).collect());
        line("query", if query.is_empty() { none() } else { some() });
    }
    if !rule.without_parameters.is_empty() && rule.query.is_none() {
        let names = list(rule.without_parameters.iter().map(String::as_str));
        let table: toml_edit::InlineTable = [("except", names)].into_iter().collect();
        line("query", Value::InlineTable(table));
    }
    if !rule.drop_headers.is_empty() {
        line("drop_headers", Value::Array(rule.drop_headers.iter().map(String::as_str).collect()));
    }
    let tags: BTreeSet<&str> = rule.more_tags.iter().map(String::as_str).collect();
    let tags = tags.into_iter().filter(|tag| *tag != rule.tag);
    line("tags", list([rule.tag.as_str()].into_iter().chain(tags)));
    text.push('\n');
}

/// A variable of the environment: the settings may be those of a file that has some.
fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the file passes `check` where the variables of its rules are set: who asks for a file
/// need not know the secrets of the app.
fn is_clean(text: &str, rules: &[FileRule], name: &str, from: IncludeSource<'_>) -> bool {
    let is_of_rules = |name: &str| {
        let sessions = rules.iter().filter_map(|rule| rule.session.as_ref());
        let claims = rules.iter().filter_map(|rule| rule.claim.as_ref());
        let all = sessions.map(FileSession::variable);
        all.chain(claims.map(|claim| claim.variable().0)).any(|variable| variable == name)
    };
    let variable = |name: &str| {
        let known = environment_variable(name).filter(|value| !value.is_empty());
        let placeholder = if name == "JWKS_URL" { SOME_URL } else { SOME_SECRET };
        known.or_else(|| is_of_rules(name).then(|| placeholder.to_owned()))
    };
    Config::parse_with(text, name, &variable, from).is_ok_and(|config| {
        !config.warnings.iter().any(|warning| warning.severity == Severity::Warning)
    })
}

/// Refuses to go on where the file is there already.
pub(super) fn require_none(path: &Path, may_replace: bool) -> Result<(), CommandError> {
    if may_replace || path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "{} is there already, and is not overwritten: name another file with --output, or add \
         --force",
        clean(&path.display().to_string())
    )))
}

/// Writes the file in one step. Without `may_replace`, one that has come meanwhile stays. SECURITY:
/// `like` is the file whose settings it has, which may be secret: it gets no wider mode.
pub(super) fn write(
    path: &Path,
    text: &str,
    may_replace: bool,
    like: Option<&Path>,
) -> Result<(), CommandError> {
    let failed = |error: &std::io::Error| {
        let path = path.display().to_string();
        CommandError::Failed(format!("{} cannot be written: {error}", clean(&path)))
    };
    let written = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if let Some(metadata) = like.and_then(|like| like.metadata().ok()) {
        options.mode(metadata.permissions().mode() & 0o666);
    }
    if !may_replace {
        return match options.open(path) {
            Ok(file) => written(file).map_err(|error| failed(&error)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => require_none(path, false),
            Err(error) => Err(failed(&error)),
        };
    }
    let mut new: PathBuf = path.to_path_buf();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    new.set_file_name(format!(".{name}.{:08x}", rand::random::<u32>()));
    let replaced = options.open(&new).and_then(written).and_then(|()| std::fs::rename(&new, path));
    replaced.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        failed(&error)
    })
}

#[cfg(test)]
mod tests;
