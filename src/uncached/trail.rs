//! The trail: what a sidecar without routes has seen lately, request by request, so that rules can
//! be tried on it ([`super::rehearsal`]) before anybody writes them into a file.
//!
//! Bounded by [`MAX_EVENTS`], [`MAX_PATHS`] and [`MAX_NAMES`]. Under load, pages are sampled by the
//! hash of their key, so that all requests for a page are in the trail, or none.
//!
//! SECURITY: of what strangers send, it holds folded paths, names of headers, and hashes with a key
//! of this process: no value, no body.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::fold::PathPart;

/// The most requests that are remembered.
pub const MAX_EVENTS: usize = 16_384;
/// The most folded paths.
pub const MAX_PATHS: usize = 2048;
/// The most names of headers, and of one request.
pub const MAX_NAMES: usize = 256;
pub const MAX_HEADERS: usize = 12;
/// What is older than this, in milliseconds, gives its place away first.
const MAX_AGE: u64 = 6 * 60 * 60 * 1000;

/// What the trail needs of a request and of its response, besides what is counted of each.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign of its own")]
pub struct TrailFacts {
    /// When the request came, and when its response was known, in steps of all requests.
    pub began: u64,
    pub ended: u64,
    /// A keyed hash of all of a read that is in a key in any case: host, path, query, and what it
    /// negotiates.
    pub page: u64,
    /// A keyed hash of who asks, without ignored cookies; 0 for nobody.
    pub caller: u64,
    /// The headers that a route has no place for, each with a keyed hash of its value.
    pub headers: Vec<(Box<str>, u64)>,
    /// It has more of them than are kept.
    pub has_more_headers: bool,
    /// A keyed hash of what a client sees of the response's head.
    pub head: u64,
    /// The lifetime that the response states, in milliseconds.
    pub lifetime: Option<u64>,
    /// It may be stored, as far as its head says.
    pub is_storable: bool,
    /// The digest of the response is exact.
    pub is_exact: bool,
    /// It is a GET.
    pub is_get: bool,
}

/// A read.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign of its own")]
pub struct TrailRead {
    pub page: u64,
    pub caller: u64,
    /// Places in the list of names, with hashes of values.
    pub headers: Box<[(u16, u64)]>,
    pub has_more_headers: bool,
    /// 0 for a response that was not digested.
    pub digest: u64,
    pub status: u16,
    /// It may be stored as far as its head says.
    pub is_storable: bool,
    pub sets_cookie: bool,
    pub says_private: bool,
    pub lifetime: Option<u64>,
}

/// What a request was.
#[derive(Clone, Debug)]
pub enum TrailKind {
    Read(TrailRead),
    /// A write that the app has carried out, or may have.
    Write,
}

/// A request of the trail.
#[derive(Clone, Debug)]
pub struct TrailEvent {
    pub began: u64,
    pub ended: u64,
    /// When its response began, in milliseconds.
    pub at: u64,
    /// The place of its folded path.
    pub path: u32,
    pub kind: TrailKind,
}

/// What is remembered now.
#[derive(Clone, Debug)]
pub struct TrailSnapshot {
    /// In no order.
    pub events: Vec<Arc<TrailEvent>>,
    pub paths: Vec<Arc<[PathPart]>>,
    pub names: Vec<Arc<str>>,
    /// One page in so many is in it.
    pub one_in: u64,
}

/// The trail.
#[derive(Debug, Default)]
pub struct Trail {
    events: VecDeque<Arc<TrailEvent>>,
    paths: HashMap<Arc<[PathPart]>, u32>,
    path_list: Vec<Arc<[PathPart]>>,
    names: HashMap<Arc<str>, u16>,
    name_list: Vec<Arc<str>>,
    /// One page in 2 to the power of this is remembered.
    shift: u32,
    forgotten: u64,
}

impl Trail {
    /// How many requests have no place, or have lost it.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What is remembered.
    #[must_use]
    pub fn snapshot(&self) -> TrailSnapshot {
        TrailSnapshot {
            events: self.events.iter().cloned().collect(),
            paths: self.path_list.clone(),
            names: self.name_list.clone(),
            one_in: 1 << self.shift,
        }
    }

    /// The places of headers; none if there are too many names.
    pub fn names(&mut self, headers: &[(Box<str>, u64)]) -> Option<Box<[(u16, u64)]>> {
        let mut all = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            let known = self.names.get(&**name).copied();
            let place = match known {
                Some(place) => place,
                None if self.name_list.len() < MAX_NAMES => {
                    let place = u16::try_from(self.name_list.len()).ok()?;
                    let name: Arc<str> = (&**name).into();
                    self.name_list.push(Arc::clone(&name));
                    self.names.insert(name, place);
                    place
                }
                None => return None,
            };
            all.push((place, *value));
        }
        all.sort_unstable();
        Some(all.into())
    }

    /// Remembers a request with this folded path.
    pub fn add(&mut self, path: &[PathPart], event: TrailEvent) {
        if !self.is_sampled(&event) {
            self.forgotten += 1;
            return;
        }
        let place = match self.paths.get(path) {
            Some(place) => *place,
            None if self.path_list.len() < MAX_PATHS => {
                let place = u32::try_from(self.path_list.len()).unwrap_or(u32::MAX);
                let path: Arc<[PathPart]> = path.into();
                self.path_list.push(Arc::clone(&path));
                self.paths.insert(path, place);
                place
            }
            None => {
                self.forgotten += 1;
                return;
            }
        };
        if self.events.len() >= MAX_EVENTS {
            self.make_room(event.at);
            // Its page may be among those that have just gone.
            if !self.is_sampled(&event) {
                self.forgotten += 1;
                return;
            }
        }
        self.events.push_back(Arc::new(TrailEvent { path: place, ..event }));
    }

    fn is_sampled(&self, event: &TrailEvent) -> bool {
        match &event.kind {
            TrailKind::Read(read) => read.page & ((1 << self.shift) - 1) == 0,
            TrailKind::Write => true,
        }
    }

    /// What is old goes first; then half of the pages; then whatever came first.
    fn make_room(&mut self, now: u64) {
        let before = self.events.len();
        while self.events.front().is_some_and(|first| now.saturating_sub(first.at) > MAX_AGE) {
            self.events.pop_front();
        }
        if self.events.len() >= MAX_EVENTS && self.shift < u64::BITS - 1 {
            self.shift += 1;
            let mut events = std::mem::take(&mut self.events);
            events.retain(|event| self.is_sampled(event));
            self.events = events;
        }
        if self.events.len() > MAX_EVENTS / 4 * 3 {
            self.events.drain(..MAX_EVENTS / 4);
        }
        self.forgotten += (before - self.events.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::fold;
    use super::*;

    fn read(page: u64, at: u64) -> TrailEvent {
        let read = TrailRead {
            page,
            caller: 0,
            headers: Box::default(),
            has_more_headers: false,
            digest: 1,
            status: 200,
            is_storable: true,
            sets_cookie: false,
            says_private: false,
            lifetime: None,
        };
        TrailEvent { began: at, ended: at, at, path: 0, kind: TrailKind::Read(read) }
    }

    #[test]
    fn the_trail_is_bounded_and_keeps_all_of_a_page_or_nothing() {
        let mut trail = Trail::default();
        let hash = |page: u64| page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for at in 0..200_000 {
            trail.add(&fold("/a"), read(hash(at % 1000), at));
            assert!(trail.events.len() <= MAX_EVENTS);
        }
        let snapshot = trail.snapshot();
        assert!(snapshot.one_in > 1 && trail.forgotten() > 0);
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for event in &snapshot.events {
            let TrailKind::Read(read) = &event.kind else { panic!("a read") };
            *counts.entry(read.page).or_default() += 1;
        }
        let (least, most) = (counts.values().min(), counts.values().max());
        assert!(most.copied() <= least.map(|least| least + 1), "{counts:?}");
    }

    #[test]
    fn strangers_paths_and_names_are_bounded() {
        let mut trail = Trail::default();
        for at in 0..10_000_usize {
            let letter = |digit: u32| char::from(b"abcdefghijklmnop"[(at >> (4 * digit)) & 15]);
            let word: String = (0..6).map(letter).collect();
            trail.add(&fold(&format!("/{word}")), read(0, at as u64));
            let _ = trail.names(&[(format!("x-{word}").into(), 1)]);
        }
        let snapshot = trail.snapshot();
        assert!(snapshot.paths.len() <= MAX_PATHS && snapshot.names.len() <= MAX_NAMES);
        assert!(trail.names(&[("x-new".into(), 1)]).is_none());
    }

    #[test]
    fn a_flood_of_writes_is_bounded() {
        let mut trail = Trail::default();
        for at in 0..100_000 {
            let kind = TrailKind::Write;
            trail.add(&fold("/a"), TrailEvent { began: at, ended: at, at, path: 0, kind });
        }
        assert!(trail.events.len() <= MAX_EVENTS);
    }
}
