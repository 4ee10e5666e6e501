//! Which part of a key differs each time, so that the same caller never hits: a query parameter
//! such as `_=1712`, a cookie that a script renews, a header with an id of the request.
//!
//! Observes misses whose response was stored; hits pay nothing. A part is told of when its values
//! hardly ever repeat and look made for one request, and when without such parts the request would
//! have found what an earlier one had stored.
//!
//! SECURITY: strangers choose names and values. Values are kept as hashes under a key that the
//! process makes up; names are cut, and how many of both are kept of a route is fixed.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::clock::Wall;
use crate::policy::plan::{KeyParts, MAX_NAME_BYTES, PartKind, VaryingPart};

/// How many routes are observed.
const MAX_ROUTES: usize = 256;
/// How many parts of the keys of a route are counted at once.
const MAX_NAMES: usize = 16;
/// How many values of a route are remembered, to know one that comes again.
const VALUES: usize = 512;
/// How many entries of a route are remembered by what else is in their keys.
const ENTRIES: usize = 256;
/// How often a part must have been seen before anything is said of it.
const MIN_SEEN: u64 = 4;
/// How often a part must have been in the way before it is told of.
const MIN_ALONE: u64 = 8;
/// The same for a part whose values do not look made for one request: so many pages may have been
/// asked for once.
const MIN_PLAIN: u64 = 256;
/// Of so many values one may come again.
const RARELY: u64 = 8;

/// Names of parameters that clients add so that caches do not answer.
const BUSTERS: [&str; 16] = [
    "_",
    "ts",
    "_ts",
    "timestamp",
    "_t",
    "cb",
    "_cb",
    "cachebuster",
    "cache_buster",
    "cachebust",
    "nocache",
    "_nocache",
    "rnd",
    "rand",
    "random",
    "_dc",
];

/// What is known of the keys of all routes, under one set of rules.
#[derive(Debug)]
pub struct VaryingKeys {
    hasher: RandomState,
    /// By the route's index.
    routes: Box<[OnceLock<Mutex<RouteKeys>>]>,
    /// How many routes are observed.
    observed: AtomicUsize,
}

/// What is known of the keys of one route. About 10 KiB.
#[derive(Debug)]
struct RouteKeys {
    names: Vec<PartCount>,
    /// Hashes of names with values, each at the place that it names.
    values: Box<[u64]>,
    /// Entries: the hash of what is in their key besides what differs each time, and until when
    /// they are fresh.
    entries: Box<[(u64, Wall)]>,
    /// How many hits the route had before.
    hits_before: u64,
}

/// The counts of one part.
#[derive(Debug)]
struct PartCount {
    kind: PartKind,
    name: Box<str>,
    /// Its claim to the place: others wear it down.
    weight: u64,
    seen: u64,
    /// Values that came again.
    repeated: u64,
    /// Values that look made for one request.
    made: u64,
    /// Requests that would have been hits without it, and without others like it.
    alone: u64,
}

/// A part of a key that differs each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaryingFinding {
    /// What it is.
    pub kind: PartKind,
    /// Its name, as it was sent, cut to 64 bytes.
    pub name: Box<str>,
    /// How many requests had it.
    pub seen: u64,
    /// How many of them would have been hits without it.
    pub alone: u64,
}

impl VaryingFinding {
    /// Whether clients add a parameter of this name so that caches do not answer.
    #[must_use]
    pub fn is_buster(&self) -> bool {
        is_buster(self.kind, &self.name)
    }
}

impl VaryingKeys {
    /// For so many routes.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        let routes = std::iter::repeat_with(OnceLock::new).take(routes).collect();
        Self { hasher: RandomState::new(), routes, observed: AtomicUsize::new(0) }
    }

    /// The key of the hashes of values.
    #[must_use]
    pub const fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Observes a miss whose response is stored until `fresh_until`. `rolls` says whether the
    /// origin replaces a cookie each time; `hits` how many hits the route has had, and is asked
    /// once.
    pub fn observe(
        &self,
        route: usize,
        parts: &KeyParts<'_>,
        (now, fresh_until): (Wall, Wall),
        rolls: &dyn Fn(&str) -> bool,
        hits: impl FnOnce() -> u64,
    ) {
        let Some(keys) = self.route(route, hits) else { return };
        keys.lock().observe(parts, now, fresh_until, rolls);
    }

    /// Observes the headers of a request that no key has seen, and that therefore was passed.
    pub fn observe_unkeyed(&self, route: usize, parts: &[VaryingPart<'_>]) {
        let Some(keys) = self.route(route, || 0) else { return };
        let mut keys = keys.lock();
        let mut may_wear = true;
        for part in parts {
            keys.count(part, &mut may_wear);
        }
    }

    /// The parts that are in the way of hits on this route, which has had so many, the most
    /// frequent first.
    #[must_use]
    pub fn findings(&self, route: usize, hits: u64) -> Vec<VaryingFinding> {
        let Some(keys) = self.routes.get(route).and_then(OnceLock::get) else { return Vec::new() };
        let keys = keys.lock();
        let hits = hits.saturating_sub(keys.hits_before);
        let is_told = |count: &&PartCount| {
            count.kind != PartKind::Unkeyed
                && count.alone >= MIN_ALONE.max(hits)
                && count.alone * 2 >= count.seen
                && count.never_repeats()
        };
        let mut found: Vec<VaryingFinding> = keys
            .names
            .iter()
            .filter(is_told)
            .map(|count| VaryingFinding {
                kind: count.kind,
                name: count.name.clone(),
                seen: count.seen,
                alone: count.alone,
            })
            .collect();
        found.sort_by(|one, two| (two.alone, &one.name).cmp(&(one.alone, &two.name)));
        found
    }

    /// The headers without a place in the key that differ with each request of this route: in the
    /// key they would help nobody.
    #[must_use]
    pub fn unkeyed(&self, route: usize) -> Vec<Box<str>> {
        let Some(keys) = self.routes.get(route).and_then(OnceLock::get) else { return Vec::new() };
        let keys = keys.lock();
        let is_told = |count: &&PartCount| {
            count.kind == PartKind::Unkeyed && count.seen >= MIN_ALONE && count.never_repeats()
        };
        keys.names.iter().filter(is_told).map(|count| count.name.clone()).collect()
    }

    /// The parameters that requests of this route had, besides those that differ each time; `None`
    /// if there were too many to know all of them.
    #[must_use]
    pub fn other_parameters(&self, route: usize) -> Option<Vec<Box<str>>> {
        let keys = self.routes.get(route).and_then(OnceLock::get)?.lock();
        let is_other =
            |count: &&PartCount| count.kind == PartKind::Parameter && !count.never_repeats();
        let names = keys.names.iter().filter(is_other).map(|count| count.name.clone());
        (keys.names.len() < MAX_NAMES).then(|| names.collect())
    }

    fn route(&self, route: usize, hits: impl FnOnce() -> u64) -> Option<&Mutex<RouteKeys>> {
        let keys = self.routes.get(route)?;
        if let Some(known) = keys.get() {
            return Some(known);
        }
        if self.observed.fetch_add(1, Ordering::Relaxed) >= MAX_ROUTES {
            self.observed.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(keys.get_or_init(|| Mutex::new(RouteKeys::new(hits()))))
    }
}

impl RouteKeys {
    fn new(hits_before: u64) -> Self {
        Self {
            names: Vec::new(),
            values: vec![0; VALUES].into(),
            entries: vec![(0, Wall(0)); ENTRIES].into(),
            hits_before,
        }
    }

    fn observe(
        &mut self,
        parts: &KeyParts<'_>,
        now: Wall,
        fresh_until: Wall,
        rolls: &dyn Fn(&str) -> bool,
    ) {
        // Whether each part differs each time, as far as is known.
        let mut may_wear = true;
        let counted = parts.parts.iter().map(|part| self.count(part, &mut may_wear));
        let mut varies: Vec<bool> = counted.collect();
        let steady = |varies: &[bool]| {
            let mut parts = parts.parts.iter().zip(varies);
            parts.any(|(part, varies)| part.identifies && !varies)
        };
        // Another value of all that tells who asks is another caller's, as a rule.
        if !parts.has_anchor && !steady(&varies) {
            for (part, varies) in parts.parts.iter().zip(&mut varies) {
                *varies &= !part.identifies
                    || (part.kind == PartKind::Cookie && rolls(&shortened(&part.name)));
            }
        }
        if !varies.contains(&true) {
            return;
        }
        let each = || parts.parts.iter().zip(&varies);
        let rest = each().filter(|(_, varies)| !**varies).map(|(part, _)| part.hash);
        let mut rest = rest.fold(parts.base, u64::wrapping_add);
        if each().any(|(part, varies)| *varies && part.identifies) {
            rest = rest.wrapping_add(parts.anchor);
        }
        let place = &mut self.entries[self.place_of(rest)];
        let would_hit = place.0 == rest && now < place.1;
        *place = (rest, fresh_until);
        if would_hit {
            for (part, _) in each().filter(|(_, varies)| **varies) {
                if let Some(at) = self.position(part) {
                    self.names[at].alone += 1;
                }
            }
        }
    }

    /// The place of an entry: of the two that it may have, the one where it is, else the one whose
    /// entry ends first. With one alone, two busy entries could take it from each other for good.
    fn place_of(&self, entry: u64) -> usize {
        let [one, two] = [entry, entry.rotate_left(32)].map(|hash| slot(hash, ENTRIES));
        let (first, second) = (&self.entries[one], &self.entries[two]);
        let is_second = second.0 == entry || (first.0 != entry && second.1 < first.1);
        if is_second { two } else { one }
    }

    /// Counts a part. Returns whether it differs each time, as far as is known. `may_wear` is
    /// whether this request may still wear down the claims of other names.
    fn count(&mut self, part: &VaryingPart<'_>, may_wear: &mut bool) -> bool {
        let place = &mut self.values[slot(part.hash, VALUES)];
        let is_known = *place == part.hash;
        *place = part.hash;
        let at = self.position(part).or_else(|| self.make_place(part, may_wear));
        let Some(at) = at else { return false };
        let count = &mut self.names[at];
        count.weight += 1;
        count.seen += 1;
        count.repeated += u64::from(is_known);
        count.made += u64::from(part.is_made);
        count.never_repeats()
    }

    fn position(&self, part: &VaryingPart<'_>) -> Option<usize> {
        let name = shortened(&part.name);
        self.names.iter().position(|count| count.kind == part.kind && *count.name == *name)
    }

    /// A place for one more part, if another one's claim is worn down (Misra and Gries, 1982). A
    /// request with many new names wears them down once.
    fn make_place(&mut self, part: &VaryingPart<'_>, may_wear: &mut bool) -> Option<usize> {
        if self.names.len() == MAX_NAMES {
            if !std::mem::take(may_wear) {
                return None;
            }
            self.names.iter_mut().for_each(|count| count.weight = count.weight.saturating_sub(1));
            let worn = self.names.iter().position(|count| count.weight == 0)?;
            self.names.swap_remove(worn);
        }
        self.names.push(PartCount {
            kind: part.kind,
            name: shortened(&part.name).into(),
            weight: 0,
            seen: 0,
            repeated: 0,
            made: 0,
            alone: 0,
        });
        Some(self.names.len() - 1)
    }
}

impl PartCount {
    /// Whether its values hardly ever come again, and are not just those of many pages.
    fn never_repeats(&self) -> bool {
        let is_made = self.made * 2 >= self.seen || is_buster(self.kind, &self.name);
        let enough = if is_made { MIN_SEEN } else { MIN_PLAIN };
        self.seen >= enough && self.repeated * RARELY <= self.seen
    }
}

fn is_buster(kind: PartKind, name: &str) -> bool {
    kind == PartKind::Parameter && BUSTERS.contains(&name.to_ascii_lowercase().as_str())
}

/// A name as it is kept.
pub(super) fn shortened(name: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]) {
        Cow::Borrowed(name) => Cow::Borrowed(name),
        Cow::Owned(mut name) => {
            name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
            Cow::Owned(name)
        }
    }
}

/// The place of a hash among so many.
#[must_use]
pub fn slot(hash: u64, places: usize) -> usize {
    usize::try_from(hash % places as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests;
