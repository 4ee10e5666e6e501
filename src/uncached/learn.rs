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
    PurgeState, Rehearsed, RuleTrial, Visit, WriteSpan, is_same, rehearse, shape, written,
};

/// The times that are tried, in seconds.
const TTLS: [u64; 11] = [3600, 1800, 900, 600, 300, 120, 60, 30, 10, 5, 1];
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
/// The most headers in a key.
const MAX_FIELDS: usize = 8;
/// How often a header must have told nothing apart before it is withheld, and its least number of
/// values.
const MIN_INDIFFERENT: u64 = 20;
const MIN_VALUES: usize = 5;
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
    /// The templates of writes that must purge it, besides the related ones.
    pub causes: BTreeSet<usize>,
    /// What would have become of the reads.
    pub played: Rehearsed,
    /// How often the responses have changed after a write.
    pub changes: u64,
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
    writes: &[TracedWrite],
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
    let spans: Vec<WriteSpan> = writes
        .iter()
        .filter(|write| {
            subject.related.contains(&write.template) || found.writes.contains(&write.template)
        })
        .map(|write| WriteSpan { ended: write.ended, began: write.began })
        .collect();
    let mut headers = HeaderUses::new(reads, names);
    let play = |headers: &HeaderUses, ttl: u64, is_shared: bool| {
        let rule = RuleTrial {
            ttl: ttl * 1000,
            is_shared,
            keyed: headers.keyed.iter().chain(&headers.credentials).copied().collect(),
            dropped: headers.dropped.clone(),
        };
        rehearse(reads, &spans, &rule)
    };
    headers.drop_indifferent(reads, &spans, names, &|headers| play(headers, TTLS[0], false).hits);
    let callers = CallerCounts::new(reads, &spans);
    // The greatest age at which a response is known to have been the same.
    let oldest = play(&headers, TTLS[0], false).oldest;
    let mut refusal = None;
    for ttl in TTLS.into_iter().filter(|ttl| ttl * 1000 <= oldest) {
        let private = play(&headers, ttl, false);
        if private.stale > 0 {
            refusal = Some(format!("{} answers would have been stale", private.stale));
            continue;
        }
        if private.old < MIN_OLD {
            continue;
        }
        let shared = play(&headers, ttl, true);
        let is_shared =
            callers.may_share(reads) && shared.stale == 0 && 20 * shared.hits > 21 * private.hits;
        let played = Rehearsed { oldest, ..if is_shared { shared } else { private } };
        if UNCHECKED * played.unchecked > played.hits {
            return Err("most responses are too large to be compared, or came too fast".to_owned());
        }
        if played.hits < MIN_HITS || WORTHWHILE * played.hits < played.reads {
            break;
        }
        return Ok(LearnedRule {
            ttl,
            is_shared,
            credentials: headers.credentials,
            keyed: headers.keyed,
            dropped: headers.dropped,
            causes: found.writes,
            played,
            changes: found.changes,
            callers,
        });
    }
    Err(refusal.unwrap_or_else(|| {
        "hardly any caller repeats a request while its response is known to stay the same"
            .to_owned()
    }))
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
        writes: &[WriteSpan],
        names: &dyn Fn(u16) -> HeaderUse,
        hits: &dyn Fn(&Self) -> u64,
    ) {
        let unknown: Vec<u16> = self.keyed.clone();
        for name in unknown.into_iter().filter(|name| names(*name) == HeaderUse::Unknown) {
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
fn is_indifferent(reads: &[Visit<'_>], writes: &[WriteSpan], name: u16) -> bool {
    let (mut last, mut values) = (HashMap::new(), BTreeSet::new());
    let mut same = 0;
    for visit in reads {
        let is_it = |header: &&(u16, u64)| header.0 == name;
        let value = visit.read.headers.iter().find(is_it).map_or(0, |header| header.1);
        let others: Vec<(u16, u64)> =
            visit.read.headers.iter().filter(|header| !is_it(header)).copied().collect();
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

fn is_written(writes: &[WriteSpan], before: &Visit<'_>, after: &Visit<'_>) -> bool {
    let span = (after.event.began, after.event.ended);
    written(writes, before.event.began, span) != PurgeState::Not
}

fn compared(one: &Visit<'_>, other: &Visit<'_>) -> Option<bool> {
    is_same(shape(one.read)?, shape(other.read)?)
}

impl CallerCounts {
    fn new(reads: &[Visit<'_>], writes: &[WriteSpan]) -> Self {
        let (mut last, mut named) = (HashMap::new(), BTreeSet::new());
        let mut callers = Self::default();
        for visit in reads {
            let (page, caller) = (visit.read.page, visit.read.caller);
            if caller == 0 {
                callers.anonymous += 1;
            } else {
                named.insert(caller);
            }
            let before = last.insert((page, &*visit.read.headers), visit);
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

#[cfg(test)]
mod tests {
    use super::super::trail::{TrailEvent, TrailKind, TrailRead};
    use super::*;

    /// A read every ten seconds, of these digests, with a header of these values.
    fn events(reads: impl IntoIterator<Item = (u64, u64)>) -> Vec<TrailEvent> {
        let event = |(number, (digest, value)): (u64, (u64, u64))| {
            let read = TrailRead {
                page: 1,
                caller: 0,
                headers: [(0, value)].into(),
                has_more_headers: false,
                digest,
                status: 200,
                is_storable: true,
                sets_cookie: false,
                says_private: false,
                lifetime: None,
            };
            let (began, at) = (10 * number + 1, 10_000 * number);
            TrailEvent { began, ended: began + 1, at, path: 0, kind: TrailKind::Read(read) }
        };
        (0..).zip(reads).map(event).collect()
    }

    fn visit(event: &TrailEvent) -> Visit<'_> {
        let TrailKind::Read(read) = &event.kind else { panic!("a read") };
        Visit { event, read }
    }

    fn learned(events: &[TrailEvent], writes: &[TracedWrite]) -> Result<LearnedRule, String> {
        let reads = events.iter().map(visit).collect();
        let subject = LearningSubject { reads, related: BTreeSet::new() };
        learn(&subject, writes, &|_| HeaderUse::Unknown)
    }

    #[test]
    fn a_header_that_tells_nothing_apart_is_withheld() {
        let rule = learned(&events((0..60).map(|value| (7, value))), &[]).expect("a rule");
        assert_eq!((rule.dropped, rule.keyed), (vec![0], vec![]));
        assert_eq!((rule.ttl, rule.played.hits, rule.played.stale), (300, 58, 0));
        let few = learned(&events((0..60).map(|number| (7, number % 3))), &[]).expect("a rule");
        assert_eq!((few.dropped, few.keyed), (vec![], vec![0]), "in the key it costs nothing");
    }

    #[test]
    fn a_header_on_which_one_response_depended_stays_in_the_key() {
        let reads = (0..60).map(|value| (if value == 50 { 8 } else { 7 }, value));
        learned(&events(reads), &[]).expect_err("no value comes again");
    }

    #[test]
    fn a_change_needs_a_write_that_explains_it() {
        let reads =
            || events((0..40).map(|number| (u64::from(number > 20), 0)).map(|(d, v)| (d + 1, v)));
        let why = learned(&reads(), &[]).expect_err("nobody explains it");
        assert!(why.contains("without a write") && why.contains("10 s"), "{why}");
        let write = TracedWrite { began: 205, ended: 206, template: 3 };
        let rule = learned(&reads(), &[write]).expect("a rule");
        assert_eq!((rule.causes, rule.changes, rule.played.hits), ([3].into(), 1, 36));
    }

    #[test]
    fn no_response_is_fresh_for_longer_than_one_was_seen_to_stay_the_same() {
        let rule = learned(&events((0..12).map(|_| (7, 0))), &[]).expect("a rule");
        assert_eq!((rule.played.oldest, rule.ttl), (110_000, 60));
    }
}
