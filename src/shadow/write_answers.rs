//! What the origin answered to writes, as far as the rules could say more about it: strangers who
//! were sent to a login, and writes that the origin carries out later.

use std::collections::BTreeMap;

use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::policy::credential::CredentialRule;
use crate::policy::plan::{Mutation, PolicyRules};
use crate::shadow::path;
use crate::shadow::report::Advice;

/// How many logins, and how many rules, are remembered.
const MAX_REMEMBERED: usize = 32;

/// How often a stranger must have been sent to a login before it is advised.
const MIN_LOGINS: u64 = 3;

/// What a login adds to its own address: the way back.
const WAY_BACK: [&str; 8] =
    ["next", "return", "return_to", "returnurl", "redirect", "redirect_uri", "redirect_to", "from"];

/// The answers to writes that say something about the rules.
#[derive(Debug, Default)]
pub struct WriteAnswers(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    /// The paths of logins that strangers were sent to, and how often.
    logins: BTreeMap<Box<str>, u64>,
    /// By the line of its rule: a write that is carried out later.
    late: BTreeMap<usize, LateWrite>,
}

#[derive(Debug)]
struct LateWrite {
    method: Method,
    path: Box<str>,
    count: u64,
}

/// A write, and the head of its answer.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredWrite<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What it purges.
    pub mutation: &'a Mutation,
    /// The status of the answer.
    pub status: StatusCode,
    /// The headers of the answer.
    pub answer: &'a HeaderMap,
}

impl WriteAnswers {
    /// Forgets everything.
    pub fn clear(&self) {
        *self.0.lock() = Answers::default();
    }

    /// Notes an answer.
    pub fn record(&self, write: &AnsweredWrite<'_>, rule: &CredentialRule) {
        if write.status == StatusCode::ACCEPTED && write.mutation.repurge_after.is_empty() {
            let mut answers = self.0.lock();
            for line in &write.mutation.rules {
                if answers.late.len() < MAX_REMEMBERED || answers.late.contains_key(line) {
                    let late = answers.late.entry(*line).or_insert_with(|| LateWrite {
                        method: write.method.clone(),
                        path: path::remembered(write.path),
                        count: 0,
                    });
                    late.count += 1;
                }
            }
        } else if write.status.is_redirection()
            && let Some(login) = write.answer.get(LOCATION).and_then(|to| login_path(to, rule))
            && !rule.identifies(write.headers)
        {
            let mut answers = self.0.lock();
            if answers.logins.len() < MAX_REMEMBERED || answers.logins.contains_key(&*login) {
                *answers.logins.entry(login).or_default() += 1;
            }
        }
    }

    /// What to add to the file.
    #[must_use]
    pub fn advice(&self, rules: &PolicyRules) -> Vec<Advice> {
        let answers = self.0.lock();
        let mut advice: Vec<Advice> =
            login_advice(&answers.logins, &rules.credential).into_iter().collect();
        for (line, late) in &answers.late {
            let Some(rule) = rules.purges.iter().find(|rule| rule.line == *line) else { continue };
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
                line: Some(*line),
            });
        }
        advice
    }
}

fn login_advice(logins: &BTreeMap<Box<str>, u64>, rule: &CredentialRule) -> Option<Advice> {
    let unnamed = |path: &str| !rule.names_logins || !rule.is_login_path(path.as_bytes());
    let seen: Vec<(&str, u64)> = logins
        .iter()
        .map(|(path, count)| (&**path, *count))
        .filter(|(path, count)| *count >= MIN_LOGINS && unnamed(path))
        .collect();
    let (first, _) = seen.first()?;
    let named = rule.login_paths.iter().map(|glob| glob.as_str()).filter(|_| rule.names_logins);
    let paths: Vec<String> = named
        .chain(seen.iter().map(|(path, _)| *path))
        .map(|path| serde_json::Value::from(path).to_string())
        .collect();
    Some(Advice {
        route: "[credential]".to_owned(),
        why: format!(
            "writes of strangers are answered with a redirect to {first} ({} so far), and purge: \
             if that says that they were refused, name it. Where such a write is carried out all \
             the same, as a registration is, give its purge rule purge_on = \"any\"",
            times(seen.iter().map(|(_, count)| count).sum())
        ),
        toml: format!("[credential]\nlogin_paths = [{}]\n", paths.join(", ")),
        line: None,
    })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The path of a redirect that looks like one to a login: by its path, or by a way back in its
/// query.
fn login_path(location: &HeaderValue, rule: &CredentialRule) -> Option<Box<str>> {
    let text = location.to_str().ok()?;
    let base = url::Url::parse("http://sidecache.invalid/").ok()?;
    let url = base.join(text).ok()?;
    let usual = CredentialRule::default();
    let has_way_back = url
        .query_pairs()
        .any(|(name, _)| WAY_BACK.contains(&&*name.to_ascii_lowercase().replace('-', "_")));
    let is_login = usual.is_login_path(url.path().as_bytes())
        || rule.is_login_path(url.path().as_bytes())
        || has_way_back;
    is_login.then(|| path::remembered(&url.path().to_ascii_lowercase()))
}
