//! The fields of a first file, and what verifies the callers that they are read from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use toml_edit::Value;

use super::rule::{FileClaim, FileRule, FileSession};
use super::text::{comment, list};

/// The names of fields, by what they read.
pub(super) struct FieldNames<'a> {
    headers: BTreeMap<&'a str, String>,
    cookies: BTreeMap<&'a str, String>,
    claims: BTreeMap<&'a str, String>,
}

impl<'a> FieldNames<'a> {
    /// A name for each, which no capture has.
    pub(super) fn new(rules: &'a [FileRule]) -> Self {
        let (headers, cookies) = (BTreeMap::new(), BTreeMap::new());
        let mut names = Self { headers, cookies, claims: BTreeMap::new() };
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
        let claims: BTreeSet<&str> =
            rules.iter().filter_map(|rule| Some(&*rule.claim.as_ref()?.name)).collect();
        for claim in claims {
            let name = names.free(claim, "claim_", rules);
            names.claims.insert(claim, name);
        }
        names
    }

    /// A name like this one. `prefix` stands before one that begins with no letter.
    fn free(&self, like: &str, prefix: &str, rules: &[FileRule]) -> String {
        let is_capture = |name: &str| {
            let capture = [format!("{{{name}}}"), format!("{{*{name}}}")];
            rules.iter().any(|rule| capture.iter().any(|text| rule.path.contains(text)))
        };
        let is_taken = |name: &str| {
            let taken = self.headers.values().chain(self.cookies.values());
            taken.chain(self.claims.values()).any(|one| one == name)
        };
        let plain = like.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let begins_well = plain.starts_with(|c: char| c.is_ascii_alphabetic());
        let mut name = if begins_well { plain } else { format!("{prefix}{plain}") };
        while name == "caller" || is_capture(&name) || is_taken(&name) {
            name.push('_');
        }
        name
    }

    /// Adds the table of all fields.
    pub(super) fn render(&self, text: &mut String, rules: &[FileRule]) {
        if self.headers.is_empty() && self.cookies.is_empty() && self.claims.is_empty() {
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
        for (claim, name) in &self.claims {
            let pointer = Value::from(format!("/{claim}"));
            let _ = writeln!(text, "{name} = {{ jwt = {pointer} }}");
        }
        text.push('\n');
    }

    /// The fields in the key of a rule.
    pub(super) fn key(&self, rule: &FileRule) -> Vec<String> {
        let headers = rule.key_headers.iter().filter_map(|header| self.headers.get(&**header));
        let session = rule.session.as_ref().and_then(|session| {
            let mark = if session.is_optional { "?" } else { "" };
            Some(format!("{}{mark}", self.cookies.get(&*session.cookie)?))
        });
        let claim = rule.claim.as_ref().and_then(|claim| self.claims.get(&*claim.name)).cloned();
        headers.map(|name| format!("{name}?")).chain(session).chain(claim).collect()
    }
}

/// Adds the table that verifies tokens.
pub(super) fn tokens(text: &mut String, claim: &FileClaim) {
    let (variable, key) = claim.variable();
    let what = match key {
        "secret" => "the secret that signs the tokens",
        _ => "the URL at which whoever signs the tokens publishes the keys",
    };
    let words = format!("The environment of the sidecar must have {variable}: {what}.");
    comment(text, &words);
    let names = |all: &[String]| list(all.iter().map(String::as_str));
    let is_bare = claim.issuers.is_empty() && claim.audiences.is_empty();
    if is_bare {
        comment(text, "The tokens name neither issuer nor audience: all that the key signs count.");
    }
    let accepted = if is_bare { "   # check: ok" } else { "" };
    let algorithms = names(&claim.algorithms);
    let _ =
        writeln!(text, "[jwt]{accepted}\n{key} = \"${{{variable}}}\"\nalgorithms = {algorithms}");
    for (key, all) in [("issuer", &claim.issuers), ("audience", &claim.audiences)] {
        if !all.is_empty() {
            let _ = writeln!(text, "{key} = {}", names(all));
        }
    }
    text.push('\n');
}
