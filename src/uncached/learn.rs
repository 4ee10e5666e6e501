//! Makes a rule for a template of the trail, or says why there is none.
//!
//! Invariants:
//! 1. *A rule would have served no wrong answer*: it is played on the trail before it is given.
//! 2. *A response that has changed without a write gets no rule*, however seldom that was.
//! 3. *Nothing is fresh for longer than a response was seen to stay the same.*
//! 4. *Callers have entries of their own*, unless several of them got the same, none got another
//!    response, and sharing brings hits. `public` is never proposed: where nobody sent a
//!    credential, all callers share the entries of nobody anyway, and what they would get with one
//!    was not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::causes::{Causes, TracedWrite, causes};
use super::rehearsal::{
    PurgeState, PurgingWrites, Rehearsed, RuleTrial, Visit, WriteSpan, is_same, rehearse, shape,
};

/// The times that are tried, in seconds.
const TTLS: [u64; 13] = [3600, 1800, 900, 600, 300, 120, 60, 30, 10, 5, 3, 2, 1];
/// The least number of reads that tell anything.
const MIN_READS: usize = 10;
/// The least number of hits for which a rule is worth its lines.
const MIN_HITS: u64 = 5;
/// One in so many reads is the least share of hits.
const WORTHWHILE: u64 = 20;
/// How many hits must have been right at half of the time that is proposed, or later.
const MIN_OLD: u64 = 2;
/// One hit in so many may be unchecked.
const UNCHECKED: u64 = 5;
/// A header counts if one read in so many has it.
const USUAL: u64 = 20;
/// A header is withheld only if one read in so many has it.
const COMMON: usize = 2;
/// The most headers in a key.
const MAX_FIELDS: usize = 8;
/// How often a header must have told nothing apart before it is withheld, and its least number of
/// values. The same for the marks of a query.
const MIN_INDIFFERENT: u64 = 20;
const MIN_VALUES: usize = 5;
/// How many hits must have been right where the app asks to be asked each time, and of how many
/// callers.
const MIN_OVERRULING: u64 = 20;
const MIN_OVERRULING_CALLERS: usize = 2;
/// How many callers, and how often they must have got the same, before they share.
const MIN_CALLERS: usize = 3;
const MIN_SHARED: u64 = 5;

/// What a header is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderUse {
    /// Known to change nothing: withheld.
    Noise,
    /// A credential.
    Credential,
    /// Something that responses depend on, by its name: in the key.
    Meaningful,
    /// In the key, unless it tells nothing apart.
    Unknown,
    /// In the key without a field, because a trusted proxy sends it.
    Forwarded,
    /// There is no place for it: requests with it pass.
    Left,
}

/// A template whose rule is sought.
#[derive(Debug)]
pub struct LearningSubject<'a> {
    /// Its reads, in the order of their beginnings.
    pub reads: Vec<Visit<'a>>,
    /// The templates of writes that are taken to change it, by their paths.
    pub related: BTreeSet<usize>,
    /// The app asks to be asked each time, by `no-cache`.
    pub says_no_cache: bool,
    /// Whether its callers may share.
    pub sharing: LearnedSharing,
}

/// Who may be given what another caller got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnedSharing {
    /// All, if several of them got the same, and none another response.
    IfSame,
    /// Nobody.
    Never,
    /// Those of one group, by the same conditions. A rule by which nobody shares is none.
    InGroups,
}

impl LearnedSharing {
    /// Whether sharing brings enough hits, and no wrong one.
    fn pays(self, private: &Rehearsed, shared: &Rehearsed) -> bool {
        self != Self::Never && shared.stale == 0 && 20 * shared.hits > 21 * private.hits
    }
}

/// A rule, and what it is founded on.
#[derive(Clone, Debug)]
pub struct LearnedRule {
    /// In seconds.
    pub ttl: u64,
    pub is_shared: bool,
    /// Headers, by their places.
    pub credentials: Vec<u16>,
    pub keyed: Vec<u16>,
    pub dropped: Vec<u16>,
    /// The marks of a query are withheld.
    pub drops_marks: bool,
    /// What the app says of freshness does not count.
    pub overrules: bool,
    /// The templates of writes that must purge it, besides the related ones.
    pub causes: BTreeSet<usize>,
    /// What would have become of the reads.
    pub played: Rehearsed,
    /// How often the responses have changed after a write, and how often of these the write said
    /// so itself, by a cache group.
    pub changes: u64,
    pub by_group: u64,
    pub callers: CallerCounts,
}

/// Who has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerCounts {
    /// Different ones with a credential.
    pub named: usize,
    /// Requests without one.
    pub anonymous: u64,
    /// How often a caller got what another one had got, and how often something else.
    pub same: u64,
    pub other: u64,
}

/// The rule, or why there is none.
pub fn learn(
    subject: &LearningSubject<'_>,
    writes: &[TracedWrite<'_>],
    names: &dyn Fn(u16) -> HeaderUse,
) -> Result<LearnedRule, String> {
    let reads = &subject.reads;
    if reads.len() < MIN_READS {
        let few = reads.len();
        return Err(format!("too few requests so far: {few} of {MIN_READS} reads are remembered"));
    }
    let found = causes(reads, writes);
    if found.unexplained > 0 {
        return Err(unexplained(&found));
    }
    let purging = purging(subject, &found, writes);
    let overrules = subject.says_no_cache;
    let mut headers = HeaderUses::new(reads, names);
    let mut drops_marks = false;
    let play = |headers: &HeaderUses, drops_marks: bool, ttl: u64, is_shared: bool| {
        let keyed = headers.keyed.iter().chain(&headers.credentials).chain(&headers.forwarded);
        let rule = RuleTrial {
            ttl: ttl * 1000,
            is_shared,
            keyed: keyed.copied().collect(),
            dropped: headers.dropped.clone(),
            drops_marks,
            overrules,
        };
        rehearse(reads, &purging, &rule)
    };
    headers.drop_indifferent(reads, &purging, names, &|headers| {
        play(headers, false, TTLS[0], false).hits
    });
    if reads.iter().any(|visit| visit.read.marks != 0) {
        let hits = |drops| play(&headers, drops, TTLS[0], false).hits;
        drops_marks = hits(true) > hits(false) && are_marks_indifferent(reads, &purging);
    }
    let callers = CallerCounts::new(reads, &purging);
    let rule = |ttl, is_shared, played| LearnedRule {
        ttl,
        is_shared,
        credentials: headers.credentials.clone(),
        keyed: headers.keyed.clone(),
        dropped: headers.dropped.clone(),
        drops_marks,
        overrules,
        causes: found.writes.clone(),
        played,
        changes: found.changes,
        by_group: found.by_group,
        callers,
    };
    // The greatest age at which a response is known to have been the same.
    let oldest = play(&headers, drops_marks, TTLS[0], false).oldest;
    let mut refusal = None;
    for ttl in TTLS.into_iter().filter(|ttl| ttl * 1000 <= oldest) {
        let private = play(&headers, drops_marks, ttl, false);
        if private.stale > 0 {
            refusal = Some(format!("{} answers would have been stale", private.stale));
            continue;
        }
        if private.old < MIN_OLD {
            continue;
        }
        let shared = play(&headers, drops_marks, ttl, true);
        let is_shared = callers.may_share(reads) && subject.sharing.pays(&private, &shared);
        if subject.sharing == LearnedSharing::InGroups && !is_shared {
            break;
        }
        let played = Rehearsed { oldest, ..if is_shared { shared } else { private } };
        if !is_worth_a_rule(&played, &callers, overrules)? {
            break;
        }
        return Ok(rule(ttl, is_shared, played));
    }
    Err(refusal.unwrap_or_else(|| {
        "hardly any caller repeats a request while its response is known to stay the same"
            .to_owned()
    }))
}

/// The writes that purge what the rule stores.
fn purging<'a>(
    subject: &LearningSubject<'_>,
    found: &Causes,
    writes: &[TracedWrite<'a>],
) -> PurgingWrites<'a> {
    let span = |write: &TracedWrite<'_>| WriteSpan { ended: write.ended, began: write.began };
    let is_cause = |write: &&TracedWrite<'_>| {
        subject.related.contains(&write.template) || found.writes.contains(&write.template)
    };
    let grouped = writes.iter().filter(|write| !write.groups.is_empty());
    PurgingWrites {
        spans: writes.iter().filter(is_cause).map(span).collect(),
        by_group: grouped.map(|write| (span(write), write.groups)).collect(),
    }
}

/// Whether this is worth a rule; an error says what is missing.
fn is_worth_a_rule(
    played: &Rehearsed,
    callers: &CallerCounts,
    overrules: bool,
) -> Result<bool, String> {
    if UNCHECKED * played.unchecked > played.hits {
        return Err("most responses are too large to be compared, or came too fast".to_owned());
    }
    if played.hits < MIN_HITS || WORTHWHILE * played.hits < played.reads {
        return Ok(false);
    }
    if overrules && !may_overrule(played, callers) {
        let why = "the app says `Cache-Control: no-cache`, and too little was seen to overrule it";
        return Err(why.to_owned());
    }
    Ok(true)
}

/// Whether enough was seen to keep what the app asks to be asked for each time.
fn may_overrule(played: &Rehearsed, callers: &CallerCounts) -> bool {
    let all = callers.named + usize::from(callers.anonymous > 0);
    played.hits - played.unchecked >= MIN_OVERRULING && all >= MIN_OVERRULING_CALLERS
}

fn unexplained(found: &Causes) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a time for people to read")]
    let after = found.soonest as f64 / 1000.0;
    format!(
        "its responses change without a write through the sidecar: {} times, once after {after} s",
        found.unexplained
    )
}

#[derive(Clone, Debug, Default)]
struct HeaderUses {
    forwarded: Vec<u16>,
    credentials: Vec<u16>,
    keyed: Vec<u16>,
    dropped: Vec<u16>,
}

impl HeaderUses {
    fn new(reads: &[Visit<'_>], names: &dyn Fn(u16) -> HeaderUse) -> Self {
        let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
        for (name, _) in reads.iter().flat_map(|visit| &*visit.read.headers) {
            *counts.entry(*name).or_default() += 1;
        }
        let (mut headers, all) = (Self::default(), reads.len() as u64);
        for (name, _) in counts.into_iter().filter(|(_, count)| USUAL * count >= all) {
            match names(name) {
                HeaderUse::Noise => headers.dropped.push(name),
                HeaderUse::Credential => headers.credentials.push(name),
                HeaderUse::Forwarded => headers.forwarded.push(name),
                HeaderUse::Meaningful | HeaderUse::Unknown if headers.keyed.len() < MAX_FIELDS => {
                    headers.keyed.push(name);
                }
                HeaderUse::Meaningful | HeaderUse::Unknown | HeaderUse::Left => {}
            }
        }
        headers
    }

    /// Withholds the headers that cost hits, and have told nothing apart.
    fn drop_indifferent(
        &mut self,
        reads: &[Visit<'_>],
        writes: &PurgingWrites<'_>,
        names: &dyn Fn(u16) -> HeaderUse,
        hits: &dyn Fn(&Self) -> u64,
    ) {
        let has = |name: u16| {
            let having = reads.iter().filter(|it| it.read.headers.iter().any(|one| one.0 == name));
            having.count()
        };
        // SECURITY: what a few send may be there to show that it changes nothing, with values that
        // the app does not know.
        let is_unknown =
            |name: &u16| names(*name) == HeaderUse::Unknown && COMMON * has(*name) >= reads.len();
        let unknown: Vec<u16> = self.keyed.iter().copied().filter(is_unknown).collect();
        for name in unknown {
            let mut without = self.clone();
            without.keyed.retain(|known| *known != name);
            without.dropped.push(name);
            if 4 * hits(&without) > 5 * hits(self) && is_indifferent(reads, writes, name) {
                *self = without;
            }
        }
    }
}

/// Whether the responses were the same whatever the value of this header was.
fn is_indifferent(reads: &[Visit<'_>], writes: &PurgingWrites<'_>, name: u16) -> bool {
    let is_it = |header: &&(u16, u64)| header.0 == name;
    tells_nothing(reads, writes, &|visit| {
        let value = visit.read.headers.iter().find(is_it).map_or(0, |header| header.1);
        let others = visit.read.headers.iter().filter(|header| !is_it(header)).copied().collect();
        (value, (visit.read.marks, others))
    })
}

/// Whether the responses were the same whatever the marks of their queries were.
fn are_marks_indifferent(reads: &[Visit<'_>], writes: &PurgingWrites<'_>) -> bool {
    tells_nothing(reads, writes, &|visit| (visit.read.marks, (0, visit.read.headers.to_vec())))
}

/// All that tells two requests of one caller for a page apart, but for one value.
type OtherValues = (u64, Vec<(u16, u64)>);

/// Whether this value has told no two responses apart, often enough, with everything else alike.
fn tells_nothing(
    reads: &[Visit<'_>],
    writes: &PurgingWrites<'_>,
    split: &dyn Fn(&Visit<'_>) -> (u64, OtherValues),
) -> bool {
    let (mut last, mut values) = (HashMap::new(), BTreeSet::new());
    let mut same = 0;
    for visit in reads {
        let (value, others) = split(visit);
        values.insert(value);
        let before = last.insert((visit.read.page, visit.read.caller, others), (visit, value));
        let Some((before, old)) = before else { continue };
        if old == value || is_written(writes, before, visit) {
            continue;
        }
        match compared(before, visit) {
            Some(true) => same += 1,
            Some(false) => return false,
            None => {}
        }
    }
    same >= MIN_INDIFFERENT && values.len() >= MIN_VALUES
}

fn is_written(writes: &PurgingWrites<'_>, before: &Visit<'_>, after: &Visit<'_>) -> bool {
    let span = (after.event.began, after.event.ended);
    writes.state(&before.event.groups, before.event.began, span) != PurgeState::Not
}

fn compared(one: &Visit<'_>, other: &Visit<'_>) -> Option<bool> {
    is_same(shape(one.read)?, shape(other.read)?)
}

impl CallerCounts {
    fn new(reads: &[Visit<'_>], writes: &PurgingWrites<'_>) -> Self {
        let (mut last, mut named) = (HashMap::new(), BTreeSet::new());
        let mut callers = Self::default();
        for visit in reads {
            let (page, caller) = (visit.read.page, visit.read.caller);
            if caller == 0 {
                callers.anonymous += 1;
            } else {
                named.insert(caller);
            }
            let (marks, group) = (visit.read.marks, visit.read.group);
            let before = last.insert((page, marks, group, &*visit.read.headers), visit);
            let Some(before) = before else { continue };
            if before.read.caller == caller || is_written(writes, before, visit) {
                continue;
            }
            match compared(before, visit) {
                Some(true) => callers.same += 1,
                Some(false) => callers.other += 1,
                None => {}
            }
        }
        callers.named = named.len();
        callers
    }

    fn may_share(&self, reads: &[Visit<'_>]) -> bool {
        self.other == 0
            && self.same >= MIN_SHARED
            && self.named >= MIN_CALLERS
            && !reads.iter().any(|visit| visit.read.says_private)
    }
}

pub mod claims;
pub mod sessions;
#[cfg(test)]
mod tests;
