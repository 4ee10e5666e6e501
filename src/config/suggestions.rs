//! Tries a suggested change of `proxy.toml` before anybody sees it.
//!
//! Invariants:
//! 1. *What is shown can be pasted.* A change is applied to the text in force and compiled; one
//!    that has no place in it, or makes the file invalid, is not shown.
//! 2. *No suggestion lets more callers share an entry*, as [`SharingRules`] compares them, alone or
//!    after others: each starts from the file with those before it.
//! 3. *No suggestion brings a warning.* What lint warns of is never proposed.
//! 4. *A diff shows no secret.*

use std::collections::BTreeMap;
use std::fmt::Write as _;

use similar::TextDiff;

use super::diagnostics::redact;
use super::edits;
use super::include::{FileTexts, IncludeSource};
use super::model::Config;
use super::sharing::SharingRules;
use crate::policy::edit::{Edit, TriedEdits};

/// How many lines of a diff stand around each change.
const DIFF_CONTEXT: usize = 2;

/// What stands in a diff in place of a secret.
const STARS: &str = "***";

/// `texts` with the modes of `others`, of the whole file and of each route that both have. `None`
/// if they are the same.
#[must_use]
pub fn with_modes(texts: &FileTexts, others: &FileTexts) -> Option<FileTexts> {
    let (own, other): (Vec<&str>, Vec<&str>) = (texts.all().collect(), others.all().collect());
    edits::with_modes(&own, &other).map(|after| texts.with(after))
}

/// The file in force, on which changes are tried.
#[derive(Debug)]
pub struct TrialFile {
    texts: FileTexts,
    name: String,
    sharing: SharingRules,
    warnings: BTreeMap<String, usize>,
}

impl TrialFile {
    /// A file; `None` if it is not valid (any more: a variable of its may be gone).
    #[must_use]
    pub fn new(texts: FileTexts, name: &str) -> Option<Self> {
        let config = parse(&texts, name)?;
        let (sharing, warnings) = (SharingRules::from_config(&config), warnings(&config));
        Some(Self { texts, name: name.to_owned(), sharing, warnings })
    }

    /// The change as it may be shown; `None` if it may not.
    #[must_use]
    pub fn try_edits(&self, edits: &[Edit]) -> Option<TriedEdits> {
        let texts: Vec<&str> = self.texts.all().collect();
        let (after, lines) = edits::apply(&texts, edits)?;
        let after = self.texts.with(after);
        if after == self.texts {
            return None;
        }
        let config = parse(&after, &self.name)?;
        if !SharingRules::from_config(&config).widened_from(&self.sharing).is_empty() {
            return None;
        }
        let is_new = |(message, count): (&String, &usize)| {
            self.warnings.get(message).is_none_or(|known| known < count)
        };
        if warnings(&config).iter().any(is_new) {
            return None;
        }
        Some(TriedEdits { lines, diff: self.diff(&after) })
    }

    /// The diff of each file that differs. An included one has its name above.
    fn diff(&self, after: &FileTexts) -> String {
        let mut text = String::new();
        if self.texts.main != after.main {
            text.push_str(&diff(&self.texts.main, &after.main));
        }
        for (before, after) in self.texts.included.iter().zip(&*after.included) {
            if before.text != after.text {
                let name = &before.name;
                let changes = diff(&before.text, &after.text);
                let _ = write!(text, "--- {name}\n+++ {name}\n{changes}");
            }
        }
        text
    }
}

fn parse(texts: &FileTexts, name: &str) -> Option<Config> {
    let env = |variable: &str| std::env::var(variable).ok();
    Config::parse_with(&texts.main, name, &env, IncludeSource::Given(&texts.included)).ok()
}

/// The warnings of a file, and how often it has each. Numbers do not count, because those of lines
/// change with the file.
fn warnings(config: &Config) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for warning in &config.warnings {
        let text = warning.message.chars().filter(|c| !c.is_ascii_digit()).collect();
        *counts.entry(text).or_default() += 1;
    }
    counts
}

fn diff(before: &str, after: &str) -> String {
    let (before, after) = (without_secrets(before), without_secrets(after));
    let diff = TextDiff::from_lines(&before, &after);
    diff.unified_diff().context_radius(DIFF_CONTEXT).to_string()
}

fn without_secrets(text: &str) -> String {
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for range in redact::secrets(text) {
        shown.push_str(&text[at..range.start]);
        shown.push_str(STARS);
        at = range.end;
    }
    shown.push_str(&text[at..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::edit::EditValue;

    const FILE: &str = "[upstream]\nurl = \"http://127.0.0.1:1\"\n\
        [admin]\naddress = \"127.0.0.1:0\"\ntoken = \"a-token-of-the-operator\"\n\
        [fields]\ntenant = { header = \"x-tenant\" }\n\
        [[routes]]\npath = \"/a\"\nttl = \"1m\"\nkey = [\"tenant\"]\nscope = \"public\"\n\
        [[routes]]\npath = \"/b\"\nttl = \"1m\"\n";

    fn tried(edits: &[Edit]) -> Option<TriedEdits> {
        TrialFile::new(FILE.into(), "proxy.toml").expect("the file is valid").try_edits(edits)
    }

    #[test]
    fn a_harmless_change_is_shown_as_a_diff_without_secrets() {
        let shown = tried(&[
            Edit::text("/a", "ttl", "5m"),
            Edit::Section { section: "admin", key: "hosts", value: EditValue::List(vec![]) },
        ])
        .expect("it is harmless");
        assert!(shown.diff.contains("-ttl = \"1m\"\n+ttl = \"5m\"\n"), "{}", shown.diff);
        assert!(shown.diff.contains(STARS) && !shown.diff.contains("operator"), "{}", shown.diff);
        assert!(shown.lines.starts_with("ttl = \"5m\"\n"), "{}", shown.lines);
    }

    #[test]
    fn what_must_not_be_pasted_is_not_shown() {
        let list = |name: &str| vec![name.to_owned()];
        for (edits, why) in [
            (Edit::list("/a", "key", vec![]), "a field leaves the key"),
            (Edit::list("/b", "pass_headers", list("x-tenant-id")), "a caller's header passes"),
            (Edit::list("/b", "pass_headers", list("x-forwarded-for")), "an address passes"),
            (Edit::text("/b", "scope", "public"), "everyone shares"),
            (Edit::text("/a", "origin", "ignore"), "lint warns of it"),
            (Edit::text("/a", "ttl", "soon"), "it is not valid"),
            (Edit::text("/a", "ttl", "1m"), "it changes nothing"),
            (Edit::text("/c", "ttl", "5m"), "there is no such route"),
        ] {
            assert_eq!(tried(std::slice::from_ref(&edits)), None, "{why}: {edits:?}");
        }
    }
}
