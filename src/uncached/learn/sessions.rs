//! Rules for callers whose session is signed anew with each response: its payload tells who they
//! are, and the cookie that renews it is taken out of what is stored.
//!
//! Invariants:
//! 1. *The app has set the cookie*, to the payload that it had, often enough: a cookie that
//!    strangers make up is none.
//! 2. *A read without such a session, or with another cookie in its response, is what it was.*

use super::super::rehearsal::Visit;
use super::super::trail::TrailRead;

/// How often the app must have set the same payload again.
const MIN_RENEWED: usize = 4;

/// The reads of a template, with the callers that a field for a session cookie would tell apart.
#[derive(Clone, Debug)]
pub struct SessionReads {
    /// The place of the cookie.
    pub cookie: u8,
    /// Some reads have no such session.
    pub is_optional: bool,
    reads: Vec<TrailRead>,
}

impl SessionReads {
    /// The reads by the session cookie that most of them have. `None` if there is none that the app
    /// renews.
    #[must_use]
    pub fn new(visits: &[Visit<'_>]) -> Option<Self> {
        let sessions = || visits.iter().filter_map(|visit| visit.read.session);
        let count = |cookie: u8| sessions().filter(|session| session.cookie == cookie).count();
        let cookie =
            sessions().map(|session| session.cookie).max_by_key(|cookie| count(*cookie))?;
        let is_it = |read: &TrailRead| read.session.filter(|session| session.cookie == cookie);
        let renewed = sessions().filter(|it| it.cookie == cookie && it.is_renewed).count();
        if renewed < MIN_RENEWED || 2 * count(cookie) < visits.len() {
            return None;
        }
        let reads = visits.iter().map(|visit| match is_it(visit.read) {
            Some(session) => TrailRead {
                caller: session.caller,
                sets_cookie: visit.read.sets_cookie && !session.is_renewed,
                is_storable: session.is_storable,
                may_overrule: session.may_overrule,
                ..visit.read.clone()
            },
            None => visit.read.clone(),
        });
        Some(Self { cookie, is_optional: count(cookie) < visits.len(), reads: reads.collect() })
    }

    /// The reads, in the order of those that they are made of.
    #[must_use]
    pub fn visits<'a>(&'a self, visits: &[Visit<'a>]) -> Vec<Visit<'a>> {
        let pairs = visits.iter().zip(&self.reads);
        pairs.map(|(visit, read)| Visit { event: visit.event, read }).collect()
    }
}
