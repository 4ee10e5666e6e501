//! Tries a rule on the trail: which requests a cache with this rule would have answered, and which
//! of these answers would have been wrong.
//!
//! Where a write overlaps a request, either answer is right, so that such a request counts for
//! nothing. What was not digested is no proof.

use std::collections::HashMap;

use super::trail::{TrailEvent, TrailRead};

/// A read of the template that the rule is for.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    pub event: &'a TrailEvent,
    pub read: &'a TrailRead,
}

/// When a write was under way, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteSpan {
    pub ended: u64,
    pub began: u64,
}

/// The writes that purge the responses of a rule.
#[derive(Clone, Debug, Default)]
pub struct PurgingWrites<'a> {
    /// Those of its purge rules, sorted.
    pub spans: Vec<WriteSpan>,
    /// Those that name the cache groups that they invalidate, sorted: they purge what is in one of
    /// them.
    pub by_group: Vec<(WriteSpan, &'a [u64])>,
}

impl PurgingWrites<'_> {
    /// What they have done to a response in these groups between its request, which began in this
    /// step, and another one.
    #[must_use]
    pub fn state(&self, groups: &[u64], since: u64, (began, ended): (u64, u64)) -> PurgeState {
        let by_rule = written(&self.spans, since, (began, ended));
        if groups.is_empty() || by_rule == PurgeState::Before {
            return by_rule;
        }
        let own = self.by_group.iter().filter(|(_, named)| intersect(named, groups));
        let own: Vec<WriteSpan> = own.map(|(span, _)| *span).collect();
        match written(&own, since, (began, ended)) {
            PurgeState::Not => by_rule,
            by_group => by_group,
        }
    }
}

/// Whether a group is in both.
#[must_use]
pub fn intersect(one: &[u64], other: &[u64]) -> bool {
    one.iter().any(|group| other.contains(group))
}

/// A rule.
#[derive(Clone, Debug, Default)]
pub struct RuleTrial {
    /// How long a response is fresh that says nothing of it, in milliseconds.
    pub ttl: u64,
    /// Callers of one group share an entry; each is admitted to it by the app.
    pub is_shared: bool,
    /// The headers in the key, and those that are withheld, by their places.
    pub keyed: Vec<u16>,
    pub dropped: Vec<u16>,
    /// The marks of a query are withheld.
    pub drops_marks: bool,
    /// What the app says of freshness does not count.
    pub overrules: bool,
}

/// What would have become of the reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// All of them.
    pub reads: u64,
    /// Those that the cache would have answered.
    pub hits: u64,
    /// Of these, those of which it is not known whether they were right.
    pub unchecked: u64,
    /// Those that would have been answered wrongly. None of them is a hit.
    pub stale: u64,
    /// Hits that are known to be right at an age of at least half of the `ttl`.
    pub old: u64,
    /// The greatest age of a hit that is known to be right, in milliseconds.
    pub oldest: u64,
}

/// How long an admission to a shared entry lasts, in milliseconds: the default of `admit_for`.
const ADMIT_FOR: u64 = 60_000;

/// A page with its marks, a caller, and the headers in the key.
type TrialKey = ((u64, u64), u64, Vec<(u16, u64)>);

/// What two responses are compared by: what is not a page has no digest.
type Shape = (u16, u64);

/// The status and the digest; a 304 is the page that it confirms. `None` for what says nothing of
/// the page: parts, failures, upgrades.
#[must_use]
pub fn shape(read: &TrailRead) -> Option<Shape> {
    match read.status {
        200 | 304 => Some((200, read.digest)),
        101 | 206 | 412 | 416 | 500.. => None,
        status => Some((status, 0)),
    }
}

/// Whether two responses are the same; `None` if it is not known.
#[must_use]
pub fn is_same(one: Shape, other: Shape) -> Option<bool> {
    match (one, other) {
        ((one, _), (other, _)) if one != other => Some(false),
        ((_, 0), _) | (_, (_, 0)) => None,
        (one, other) => Some(one == other),
    }
}

/// The headers of a read that are in the key; `None` if it has one that has no place.
fn key_headers(read: &TrailRead, rule: &RuleTrial) -> Option<Vec<(u16, u64)>> {
    if read.has_more_headers {
        return None;
    }
    let mut key = Vec::with_capacity(rule.keyed.len());
    for header in &read.headers {
        if rule.keyed.contains(&header.0) {
            key.push(*header);
        } else if !rule.dropped.contains(&header.0) {
            return None;
        }
    }
    Some(key)
}

#[derive(Clone, Copy)]
struct TrialEntry<'a> {
    shape: Shape,
    groups: &'a [u64],
    began: u64,
    at: u64,
    lifetime: u64,
}

/// What writes have done to a response between its request and another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeState {
    Not,
    /// At least one write has ended before the other request came.
    Before,
    /// Writes were under way.
    Meanwhile,
}

/// What these writes, sorted, have done between the request that began in this step, and another
/// one.
#[must_use]
pub fn written(writes: &[WriteSpan], since: u64, (began, ended): (u64, u64)) -> PurgeState {
    let first = writes.partition_point(|write| write.ended <= since);
    match writes[first..].iter().find(|write| write.ended < began || write.began < ended) {
        Some(write) if write.ended < began => PurgeState::Before,
        Some(_) => PurgeState::Meanwhile,
        None => PurgeState::Not,
    }
}

/// Plays the reads, in the order of their beginnings, with the writes that purge, sorted.
#[must_use]
pub fn rehearse(reads: &[Visit<'_>], writes: &PurgingWrites<'_>, rule: &RuleTrial) -> Rehearsed {
    let mut result = Rehearsed::default();
    let mut stored: HashMap<TrialKey, TrialEntry<'_>> = HashMap::new();
    let mut admitted: HashMap<TrialKey, (u64, Shape)> = HashMap::new();
    for Visit { event, read } in reads {
        result.reads += 1;
        let Some(headers) = key_headers(read, rule) else { continue };
        let page = (read.page, if rule.drops_marks { 0 } else { read.marks });
        let key = (page, if rule.is_shared { read.group } else { read.caller }, headers.clone());
        let client = (page, read.caller, headers);
        let new = shape(read);
        let old = stored.get(&key).copied();
        let age = |old: &TrialEntry<'_>| event.at.saturating_sub(old.at);
        let fresh = old.filter(|old| age(old) < old.lifetime);
        let span = (event.began, event.ended);
        let state = fresh.map(|old| (old, writes.state(old.groups, old.began, span)));
        if let Some((_, PurgeState::Meanwhile)) = state {
            continue;
        }
        let served = state.filter(|(_, state)| *state == PurgeState::Not).map(|(old, _)| old);
        if let Some(old) = served {
            let Some(new) = new else { continue };
            let is_admitted = !rule.is_shared
                || admitted.get(&client).is_some_and(|(at, shape)| {
                    *shape == old.shape && event.at.saturating_sub(*at) < ADMIT_FOR
                });
            let same = if read.sets_cookie { Some(false) } else { is_same(old.shape, new) };
            if is_admitted && same != Some(false) {
                result.hits += 1;
                result.unchecked += u64::from(same.is_none());
                if same == Some(true) {
                    let age = age(&old);
                    result.old += u64::from(2 * age >= old.lifetime);
                    result.oldest = result.oldest.max(age);
                }
                continue;
            }
            result.stale += u64::from(is_admitted);
            if !is_admitted && same == Some(true) {
                admitted.insert(client, (event.at, new));
                continue;
            }
        }
        let is_storable = read.is_storable || (rule.overrules && read.may_overrule);
        let Some(shape) = new.filter(|_| is_storable) else {
            stored.remove(&key);
            continue;
        };
        let stated = read.lifetime.filter(|_| !rule.overrules);
        let lifetime = stated.unwrap_or(rule.ttl);
        let (began, at, groups) = (event.began, event.at, &*event.groups);
        admitted.insert(client, (at, shape));
        stored.insert(key, TrialEntry { shape, groups, began, at, lifetime });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::trail::TrailKind;
    use super::*;

    fn visit(at: u64, caller: u64, digest: u64) -> TrailEvent {
        let read = TrailRead { caller, ..TrailRead::example(digest) };
        TrailEvent::example(at, TrailKind::Read(read))
    }

    fn play(events: &[TrailEvent], writes: &[(u64, u64)], rule: &RuleTrial) -> Rehearsed {
        let reads: Vec<Visit<'_>> = events
            .iter()
            .map(|event| match &event.kind {
                TrailKind::Read(read) => Visit { event, read },
                _ => panic!("a read"),
            })
            .collect();
        let mut writes: Vec<WriteSpan> =
            writes.iter().map(|&(began, ended)| WriteSpan { ended, began }).collect();
        writes.sort_unstable();
        let writes = PurgingWrites { spans: writes, ..PurgingWrites::default() };
        rehearse(&reads, &writes, rule)
    }

    #[test]
    fn a_change_without_a_write_is_stale_and_one_with_a_write_is_a_miss() {
        let rule = RuleTrial { ttl: 1000, ..RuleTrial::default() };
        let events = [visit(10, 0, 1), visit(20, 0, 1), visit(30, 0, 2), visit(40, 0, 2)];
        let played = play(&events, &[], &rule);
        assert_eq!((played.hits, played.stale, played.oldest), (2, 1, 10));
        let played = play(&events, &[(24, 26)], &rule);
        assert_eq!((played.hits, played.stale), (2, 0));
        let short = RuleTrial { ttl: 5, ..RuleTrial::default() };
        assert_eq!(play(&events, &[], &short).hits, 0, "nothing is fresh for so long");
    }

    #[test]
    fn what_overlaps_a_write_proves_nothing() {
        let rule = RuleTrial { ttl: 1000, ..RuleTrial::default() };
        let events = [visit(10, 0, 1), visit(20, 0, 2), visit(40, 0, 2), visit(50, 0, 2)];
        // The write is under way during the second read.
        let played = play(&events, &[(19, 30)], &rule);
        assert_eq!((played.hits, played.stale), (1, 0), "{played:?}");
        // A fill that a write overlaps is not stored.
        let played = play(&events, &[(10, 12)], &rule);
        assert_eq!((played.hits, played.stale), (2, 0), "{played:?}");
    }

    #[test]
    fn callers_share_only_what_the_app_has_given_both() {
        let private = RuleTrial { ttl: 1000, ..RuleTrial::default() };
        let shared = RuleTrial { is_shared: true, ..private.clone() };
        let same = [visit(10, 1, 7), visit(20, 2, 7), visit(30, 2, 7), visit(40, 1, 7)];
        assert_eq!(play(&same, &[], &private).hits, 2);
        assert_eq!(play(&same, &[], &shared).hits, 2, "each is admitted by the app");
        let other = [visit(10, 1, 7), visit(20, 2, 8), visit(30, 1, 7)];
        assert_eq!(play(&other, &[], &private).stale, 0);
        assert_eq!(play(&other, &[], &shared).stale, 0, "no caller gets what another one got");
    }

    #[test]
    fn a_read_with_a_header_that_has_no_place_passes() {
        let mut events = [visit(10, 0, 1), visit(20, 0, 1)];
        for event in &mut events {
            let TrailKind::Read(read) = &mut event.kind else { panic!("a read") };
            read.headers = [(3, event.at)].into();
        }
        let rule = RuleTrial { ttl: 1000, ..RuleTrial::default() };
        assert_eq!(play(&events, &[], &rule).hits, 0);
        let keyed = RuleTrial { keyed: vec![3], ..rule.clone() };
        assert_eq!(play(&events, &[], &keyed).hits, 0, "each value has an entry of its own");
        let dropped = RuleTrial { dropped: vec![3], ..rule };
        assert_eq!(play(&events, &[], &dropped).hits, 1);
    }

    #[test]
    fn a_response_with_a_cookie_is_never_a_hit() {
        let mut events = [visit(10, 0, 1), visit(20, 0, 1), visit(30, 0, 1)];
        let TrailKind::Read(read) = &mut events[1].kind else { panic!("a read") };
        (read.sets_cookie, read.is_storable) = (true, false);
        let played = play(&events, &[], &RuleTrial { ttl: 1000, ..RuleTrial::default() });
        assert_eq!((played.hits, played.stale), (0, 1));
    }
}
