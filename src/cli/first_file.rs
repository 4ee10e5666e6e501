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

use super::error::CommandError;
use super::format::{clean, clean_lines};
use crate::config::include::IncludeSource;
use crate::config::{Config, Diagnostics, Severity};
use crate::policy::session::SessionFormat;

/// The longest comment, in characters. It is broken into lines.
const MAX_COMMENT: usize = 1000;
/// What stands for a secret that is not known here, while a file is checked.
const SOME_SECRET: &str = "a-secret-that-only-the-sidecar-is-given";
/// The width of comments.
const WIDTH: usize = 96;

/// A route with its purge rules.
#[derive(Clone, Debug, Default)]
pub(super) struct FileRule {
    /// Why it is there.
    pub(super) reasons: Vec<String>,
    pub(super) path: String,
    /// `shadow`, or none for a route that serves.
    pub(super) mode: Option<&'static str>,
    pub(super) ttl: String,
    /// None for `private`.
    pub(super) scope: Option<String>,
    pub(super) credential_headers: Vec<String>,
    pub(super) key_headers: Vec<String>,
    /// The cookie with a signed session that tells who asks.
    pub(super) session: Option<FileSession>,
    pub(super) drop_headers: Vec<String>,
    /// The parameters that count; none for all.
    pub(super) query: Option<Vec<String>>,
    /// The parameters that do not count; then all others do.
    pub(super) without_parameters: Vec<String>,
    /// The `ttl` counts, whatever the app says.
    pub(super) overrules: bool,
    pub(super) tag: String,
    /// Tags that the operator purges by hand.
    pub(super) more_tags: Vec<String>,
    /// The paths at which writes purge its tag.
    pub(super) purges: Vec<String>,
    /// Paths that it matches and must not.
    pub(super) kept_out: Vec<String>,
}

/// A cookie with a session that the app signs anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileSession {
    pub(super) cookie: String,
    pub(super) format: SessionFormat,
    /// How old a signature may be.
    pub(super) max_age: String,
    /// Some requests have none.
    pub(super) is_optional: bool,
}

impl FileSession {
    /// The variable of the environment with the secret of the app.
    pub(super) const fn variable(&self) -> &'static str {
        match self.format {
            SessionFormat::Flask => "FLASK_SECRET",
            SessionFormat::Django => "DJANGO_SECRET",
            SessionFormat::Express => "COOKIE_SESSION_SECRET",
        }
    }
}

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

/// The names of fields, by what they read.
struct FieldNames<'a> {
    headers: BTreeMap<&'a str, String>,
    cookies: BTreeMap<&'a str, String>,
}

impl<'a> FieldNames<'a> {
    /// A name for each, which no capture has.
    fn new(rules: &'a [FileRule]) -> Self {
        let mut names = Self { headers: BTreeMap::new(), cookies: BTreeMap::new() };
        let headers: BTreeSet<&str> =
            rules.iter().flat_map(|rule| &rule.key_headers).map(String::as_str).collect();
        for header in headers {
            let name = names.free(header, "header_", rules);
            names.headers.insert(header, name);
        }
        let cookies: BTreeSet<&str> =
            rules.iter().filter_map(|rule| Some(&*rule.session.as_ref()?.cookie)).collect();
        for cookie in cookies {
            let name = names.free(cookie, "cookie_", rules);
            names.cookies.insert(cookie, name);
        }
        names
    }

    /// A name like this one. `prefix` stands before one that begins with no letter.
    fn free(&self, like: &str, prefix: &str, rules: &[FileRule]) -> String {
        let is_capture = |name: &str| {
            let capture = [format!("{{{name}}}"), format!("{{*{name}}}")];
            rules.iter().any(|rule| capture.iter().any(|text| rule.path.contains(text)))
        };
        let is_taken =
            |name: &str| self.headers.values().chain(self.cookies.values()).any(|one| one == name);
        let plain = like.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let begins_well = plain.starts_with(|c: char| c.is_ascii_alphabetic());
        let mut name = if begins_well { plain } else { format!("{prefix}{plain}") };
        while name == "caller" || is_capture(&name) || is_taken(&name) {
            name.push('_');
        }
        name
    }

    /// Adds the table of all fields.
    fn render(&self, text: &mut String, rules: &[FileRule]) {
        if self.headers.is_empty() && self.cookies.is_empty() {
            return;
        }
        let sessions = || rules.iter().filter_map(|rule| rule.session.as_ref());
        for variable in sessions().map(FileSession::variable).collect::<BTreeSet<_>>() {
            let words = format!(
                "The environment of the sidecar must have {variable}: the secret with which the \
                 app signs its sessions."
            );
            comment(text, &words);
        }
        text.push_str("[fields]\n");
        for (header, name) in &self.headers {
            let _ = writeln!(text, "{name} = {{ header = {} }}", Value::from(*header));
        }
        for (cookie, name) in &self.cookies {
            let Some(session) = sessions().find(|session| session.cookie == *cookie) else {
                continue;
            };
            let _ = writeln!(
                text,
                "{name} = {{ cookie = {}, format = \"{}\", secret = \"${{{}}}\", max_age = {} }}",
                Value::from(*cookie),
                session.format.as_str(),
                session.variable(),
                Value::from(&*session.max_age),
            );
        }
        text.push('\n');
    }

    /// The fields in the key of a rule.
    fn key(&self, rule: &FileRule) -> Vec<String> {
        let headers = rule.key_headers.iter().filter_map(|header| self.headers.get(&**header));
        let session = rule.session.as_ref().and_then(|session| {
            let mark = if session.is_optional { "?" } else { "" };
            Some(format!("{}{mark}", self.cookies.get(&*session.cookie)?))
        });
        headers.map(|name| format!("{name}?")).chain(session).collect()
    }
}

fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(texts.into_iter().collect())
}

/// Adds a comment, in lines that fit.
fn comment(text: &mut String, words: &str) {
    let short: String = words.chars().take(MAX_COMMENT).collect();
    for line in clean_lines(&short).lines() {
        let mut width = 0;
        text.push('#');
        for word in line.split(' ') {
            let more = word.chars().count() + 1;
            if width + more > WIDTH && width > 0 {
                text.push_str("\n#");
                width = 0;
            }
            let _ = write!(text, " {word}");
            width += more;
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

/// A variable of the environment: the settings may be those of a file that has some.
fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the file passes `check` where the variables of its rules are set: who asks for a file
/// need not know the secrets of the app.
fn is_clean(text: &str, rules: &[FileRule], name: &str, from: IncludeSource<'_>) -> bool {
    let is_of_rules = |name: &str| {
        let mut sessions = rules.iter().filter_map(|rule| rule.session.as_ref());
        sessions.any(|session| session.variable() == name)
    };
    let variable = |name: &str| {
        let known = environment_variable(name).filter(|value| !value.is_empty());
        known.or_else(|| is_of_rules(name).then(|| SOME_SECRET.to_owned()))
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
mod tests {
    use super::*;

    fn rule(path: &str) -> FileRule {
        FileRule {
            reasons: vec!["seen often".to_owned()],
            path: path.to_owned(),
            ttl: "1m".to_owned(),
            tag: "items".to_owned(),
            purges: vec!["/items/{*rest}".to_owned()],
            ..FileRule::default()
        }
    }

    fn file(rules: Vec<FileRule>) -> FirstFile {
        let settings = "[upstream]\nurl = \"http://127.0.0.1:1\"\n\n".to_owned();
        FirstFile { settings, rules, ..FirstFile::default() }
    }

    #[test]
    fn a_rule_that_would_make_the_file_invalid_is_left_out() {
        let rules = vec![rule("/items"), rule("/items"), rule("/items/{id}"), rule("/items/{x}")];
        let checked = file(rules)
            .check("proxy.toml", IncludeSource::Nowhere)
            .expect("the settings are valid");
        assert_eq!(checked.routes, ["/items", "/items/{id}"]);
        assert_eq!(checked.left_out, ["/items", "/items/{x}"]);
        let is_clean = is_clean(&checked.text, &[], "proxy.toml", IncludeSource::Nowhere);
        assert!(is_clean, "{}", checked.text);
        assert_eq!(checked.text.matches("[[purges]]").count(), 1, "{}", checked.text);
    }

    #[test]
    fn all_that_was_learned_of_a_route_is_in_it() {
        let mut one = rule("/items");
        one.overrules = true;
        one.without_parameters = vec!["gclid".to_owned(), "utm_source".to_owned()];
        one.more_tags = vec!["sync".to_owned(), "items".to_owned()];
        let checked = file(vec![one]).check("proxy.toml", IncludeSource::Nowhere);
        let checked = checked.expect("the settings are valid");
        for line in [
            "origin = \"ignore\"",
            "query = { except = [\"gclid\", \"utm_source\"] }",
            "tags = [\"items\", \"sync\"]",
        ] {
            assert!(checked.text.contains(line), "{line}:\n{}", checked.text);
        }
        assert_eq!(checked.left_out.len(), 0, "{}", checked.text);
    }

    #[test]
    fn a_signed_session_is_in_the_key_and_its_secret_is_a_variable() {
        let session = |is_optional| FileSession {
            cookie: "my-session".to_owned(),
            format: SessionFormat::Flask,
            max_age: "31d".to_owned(),
            is_optional,
        };
        let own = FileRule { session: Some(session(false)), ..rule("/desk") };
        let other = FileRule { session: Some(session(true)), ..rule("/desk/{my_session}") };
        let checked = file(vec![own, other]).check("proxy.toml", IncludeSource::Nowhere);
        let checked = checked.expect("the settings are valid");
        assert_eq!(checked.routes, ["/desk", "/desk/{my_session}"], "{}", checked.text);
        for line in [
            "# The environment of the sidecar must have FLASK_SECRET: the secret with which",
            "my_session_ = { cookie = \"my-session\", format = \"flask\", \
             secret = \"${FLASK_SECRET}\", max_age = \"31d\" }",
            "key = [\"my_session_\"]",
            "key = [\"my_session_?\"]",
            "strip_set_cookie = [\"my-session\"]",
        ] {
            assert!(checked.text.contains(line), "{line}:\n{}", checked.text);
        }
    }

    #[test]
    fn what_strangers_have_named_stays_in_comments_and_strings() {
        let mut evil = rule("/items");
        evil.reasons = vec!["a\n[redis]\u{1b}[2J\u{202e}".to_owned(), "x ".repeat(2000)];
        evil.key_headers = vec!["x-a\"b".to_owned(), "1-x".to_owned(), "caller".to_owned()];
        let text = file(vec![evil.clone()]).render(&[evil]);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert!(text.parse::<toml_edit::DocumentMut>().is_ok(), "{text}");
        assert!(!text.contains("\n[redis]"), "{text}");
    }
}
