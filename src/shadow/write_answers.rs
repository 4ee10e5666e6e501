//! What the origin answered to writes, as far as the rules could say more about it: strangers who
//! were sent to a login, and writes that the origin carries out later.

use std::collections::BTreeMap;

use http::header::{HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::policy::credential::CredentialRule;
use crate::policy::plan::Mutation;
use crate::policy::rule_place::RulePlace;
use crate::shadow::path;

/// How many logins, and how many rules, are remembered.
const MAX_REMEMBERED: usize = 32;

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
    /// By the place of its rule: a write that is carried out later.
    late: BTreeMap<RulePlace, LateWrite>,
}

/// A write that was answered 202, and how many there were.
#[derive(Clone, Debug)]
pub struct LateWrite {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: Box<str>,
    /// How many writes by the same rule were.
    pub count: u64,
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
            for place in &write.mutation.rules {
                if answers.late.len() < MAX_REMEMBERED || answers.late.contains_key(place) {
                    let late = answers.late.entry(place.clone()).or_insert_with(|| LateWrite {
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

    /// The paths of logins that strangers were sent to, and how often.
    #[must_use]
    pub fn logins(&self) -> BTreeMap<Box<str>, u64> {
        self.0.lock().logins.clone()
    }

    /// Writes that are carried out later, by the place of the rule that does not purge again.
    #[must_use]
    pub fn late(&self) -> BTreeMap<RulePlace, LateWrite> {
        self.0.lock().late.clone()
    }
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
