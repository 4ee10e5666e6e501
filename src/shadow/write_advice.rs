//! Advice on what the origin answers to writes.

use std::collections::BTreeMap;

use crate::policy::credential::CredentialRule;
use crate::policy::edit::{Edit, EditValue};
use crate::policy::glob::Glob;
use crate::policy::plan::PolicyRules;
use crate::shadow::report::Advice;
use crate::shadow::write_answers::WriteAnswers;

/// How often a stranger must have been sent to a login before it is advised.
const MIN_LOGINS: u64 = 3;

/// What to add to the file.
#[must_use]
pub fn write_advice(answers: &WriteAnswers, rules: &PolicyRules) -> Vec<Advice> {
    let mut advice: Vec<Advice> =
        login_advice(&answers.logins(), &rules.credential).into_iter().collect();
    for (place, late) in &answers.late() {
        let Some(rule) = rules.purges.iter().find(|rule| rule.place == *place) else { continue };
        let (line, file) = Advice::place(Some(place));
        advice.push(Advice {
            route: rule.pattern.as_str().to_owned(),
            why: format!(
                "{} {} was answered 202, which says that it is carried out later ({} so far): \
                     what is read meanwhile is stored, and stays old unless the rule purges again",
                late.method,
                late.path,
                times(late.count)
            ),
            toml: "repurge_after = [\"1s\", \"5s\"]\n".to_owned(),
            line,
            file,
            diff: None,
            // A path may have several rules, of which a change could not tell which one is meant.
            edits: Vec::new(),
        });
    }
    advice
}

fn login_advice(logins: &BTreeMap<Box<str>, u64>, rule: &CredentialRule) -> Option<Advice> {
    let unnamed = |path: &str| !rule.names_logins || !rule.is_login_path(path.as_bytes());
    let seen: Vec<(&str, u64)> = logins
        .iter()
        .map(|(path, count)| (&**path, *count))
        .filter(|(path, count)| *count >= MIN_LOGINS && unnamed(path))
        .collect();
    let (first, _) = seen.first()?;
    let named = rule.login_paths.iter().map(Glob::as_str).filter(|_| rule.names_logins);
    let paths: Vec<String> =
        named.chain(seen.iter().map(|(path, _)| *path)).map(str::to_owned).collect();
    let shown: Vec<String> =
        paths.iter().map(|path| serde_json::Value::from(path.as_str()).to_string()).collect();
    Some(Advice {
        route: "[credential]".to_owned(),
        why: format!(
            "writes of strangers are answered with a redirect to {first} ({} so far), and purge: \
             if that says that they were refused, name it. Where such a write is carried out all \
             the same, as a registration is, give its purge rule purge_on = \"any\"",
            times(seen.iter().map(|(_, count)| count).sum())
        ),
        toml: format!("[credential]\nlogin_paths = [{}]\n", shown.join(", ")),
        line: None,
        file: None,
        diff: None,
        edits: vec![Edit::Section {
            section: "credential",
            key: "login_paths",
            value: EditValue::List(paths),
        }],
    })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
