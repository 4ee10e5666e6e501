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

use super::callers::{
    SeenCallers, SeenClaim, SessionFacts, TokenFacts, TrailCallers, TrailSession,
};
use super::fold::PathPart;

/// The most requests that are remembered.
pub const MAX_EVENTS: usize = 16_384;
/// The most folded paths.
pub const MAX_PATHS: usize = 2048;
/// The most names of headers, and of one request.
pub const MAX_NAMES: usize = 256;
pub const MAX_HEADERS: usize = 12;
/// The most tags that the operator's purges name, and of one purge.
pub const MAX_TAGS: usize = 64;
/// The longest of them, in bytes.
const MAX_TAG: usize = 128;
/// The most cache groups of one response. One that is in more of them is remembered as if no write
/// named any.
pub const MAX_GROUPS: usize = 32;
/// What is older than this, in milliseconds, gives its place away first.
const MAX_AGE: u64 = 6 * 60 * 60 * 1000;

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestSender {
    /// From anywhere.
    #[default]
    Any,
    /// From a trusted proxy of the file.
    Trusted,
    /// From 127.0.0.1, with `X-Forwarded-For` and the protocol or host beside it.
    LocalProxy,
    /// From 127.0.0.1, without them.
    Local,
}

/// How many requests came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    pub trusted: u64,
    pub local_proxy: u64,
    pub local: u64,
}

impl SenderCounts {
    /// How many requests show that a proxy stands in front, on the same computer.
    const MIN_LOCAL_PROXY: u64 = 20;

    /// Whether a proxy on this computer, which the file does not trust yet, stands in front: all
    /// that came from here came from it. SECURITY: what other computers send shows nothing, and
    /// one request of this one that says nothing of a client shows that others can do so, too.
    #[must_use]
    pub const fn is_behind_local_proxy(&self) -> bool {
        self.local_proxy >= Self::MIN_LOCAL_PROXY && self.local == 0
    }

    /// Whether a trusted proxy has sent what says so.
    #[must_use]
    pub const fn is_behind_trusted(&self) -> bool {
        self.trusted > 0 && self.local_proxy == 0
    }

    /// Counts one.
    pub const fn add(&mut self, sender: RequestSender) {
        match sender {
            RequestSender::Any => {}
            RequestSender::Trusted => self.trusted += 1,
            RequestSender::LocalProxy => self.local_proxy += 1,
            RequestSender::Local => self.local += 1,
        }
    }
}

/// What the trail needs of a request and of its response, besides what is counted of each.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign of its own")]
pub struct TrailFacts {
    /// When the request came, and when its response was known, in steps of all requests.
    pub began: u64,
    pub ended: u64,
    /// A keyed hash of all of a read that is in a key in any case: host, path, query without marks
    /// ([`super::marks`]), and what it negotiates.
    pub page: u64,
    /// A keyed hash of the marks of its query; 0 without any.
    pub marks: u64,
    /// A keyed hash of the host.
    pub host: u64,
    /// Where it came from.
    pub sender: RequestSender,
    /// Keyed hashes of the cache groups (RFC 9875) of a read, or of those that a write invalidates.
    pub groups: Vec<u64>,
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
    /// It might be, if the app's `no-cache` and lifetimes did not count.
    pub may_overrule: bool,
    /// The digest of the response is exact.
    pub is_exact: bool,
    /// It is a GET.
    pub is_get: bool,
    /// The session that it carries, if its cookie looks signed with a time.
    pub session: Option<SessionFacts>,
    /// The claims of its token, with keyed hashes of their names and values; and what made it.
    pub claims: Vec<SeenClaim>,
    pub token: Option<TokenFacts>,
    /// Keyed hashes of the cookies with signed sessions that the response sets, with their values.
    pub signed: Vec<u64>,
}

/// A read.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one sign of its own")]
pub struct TrailRead {
    pub page: u64,
    /// 0 for a query without marks.
    pub marks: u64,
    pub caller: u64,
    /// Places in the list of names, with hashes of values.
    pub headers: Box<[(u16, u64)]>,
    pub has_more_headers: bool,
    /// 0 for a response that was not digested.
    pub digest: u64,
    pub status: u16,
    /// It may be stored as far as its head says.
    pub is_storable: bool,
    /// It might be, if the app's `no-cache` and lifetimes did not count.
    pub may_overrule: bool,
    pub sets_cookie: bool,
    pub says_private: bool,
    pub lifetime: Option<u64>,
    /// Who may share with its caller: keyed hashes of the claims of its token, by their names.
    pub claims: Box<[(u64, u64)]>,
    /// The group of its caller, where one is tried; 0 where all are one.
    pub group: u64,
    /// The session that it carries, in a cookie that the app has set.
    pub session: Option<TrailSession>,
}

/// What a request was.
#[derive(Clone, Debug)]
pub enum TrailKind {
    Read(TrailRead),
    /// A write that the app has carried out, or may have.
    Write,
    /// A purge of these tags by the operator, by their places in the list of tags. Its path says
    /// nothing.
    Purge(Box<[u16]>),
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
    /// Keyed hashes of the cache groups of a read, or of those that a write invalidates.
    pub groups: Box<[u64]>,
    pub kind: TrailKind,
}

/// What is remembered now.
#[derive(Clone, Debug)]
pub struct TrailSnapshot {
    /// In no order.
    pub events: Vec<Arc<TrailEvent>>,
    pub paths: Vec<Arc<[PathPart]>>,
    pub names: Vec<Arc<str>>,
    /// Tags that the operator has purged.
    pub tags: Vec<Arc<str>>,
    /// What is known of those who ask.
    pub callers: SeenCallers,
    /// Where requests came from, those that have lost their places too.
    pub senders: SenderCounts,
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
    tags: Vec<Arc<str>>,
    /// What those who ask carry.
    pub callers: TrailCallers,
    /// Where requests came from.
    pub senders: SenderCounts,
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
            tags: self.tags.clone(),
            callers: self.callers.known(),
            senders: self.senders,
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

    /// Remembers a purge by the operator. What has no place is a purge of nothing: the change
    /// behind it stays unexplained.
    pub fn purge(&mut self, tags: &[&str], step: u64, at: u64) {
        let mut places = Vec::new();
        let is_plain = |tag: &&&str| tag.len() <= MAX_TAG && !tag.contains(['{', '}', ' ']);
        for tag in tags.iter().filter(is_plain).take(MAX_TAGS) {
            let known = self.tags.iter().position(|known| **known == **tag);
            let place = known.or_else(|| {
                let is_free = self.tags.len() < MAX_TAGS;
                is_free.then(|| self.tags.push((*tag).into())).map(|()| self.tags.len() - 1)
            });
            places.extend(place.and_then(|place| u16::try_from(place).ok()));
        }
        let kind = TrailKind::Purge(places.into());
        let groups = Box::default();
        self.add(&[], TrailEvent { began: step, ended: step, at, path: 0, groups, kind });
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
            TrailKind::Write | TrailKind::Purge(_) => true,
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
impl TrailRead {
    /// A page that may be stored, with this digest.
    pub fn example(digest: u64) -> Self {
        Self {
            page: 1,
            digest,
            status: 200,
            is_storable: true,
            may_overrule: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
impl TrailEvent {
    /// What took one step, and came at the time of its number.
    pub fn example(step: u64, kind: TrailKind) -> Self {
        Self { began: step, ended: step + 1, at: step, path: 0, groups: Box::default(), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::fold;
    use super::*;

    fn read(page: u64, at: u64) -> TrailEvent {
        let read = TrailRead { page, ..TrailRead::example(1) };
        TrailEvent { ended: at, ..TrailEvent::example(at, TrailKind::Read(read)) }
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
    fn tags_that_the_operator_purges_are_bounded() {
        let mut trail = Trail::default();
        for at in 0..200 {
            trail.purge(&[&format!("tag{at}"), "sync", "a{b}", &"x".repeat(200)], at, at);
        }
        let snapshot = trail.snapshot();
        assert_eq!(snapshot.tags.len(), MAX_TAGS);
        assert!(snapshot.tags.iter().all(|tag| tag.len() < 8), "{:?}", snapshot.tags);
        let TrailKind::Purge(last) = &snapshot.events[199].kind else { panic!("a purge") };
        assert_eq!(**last, [1], "the tag that is known");
    }

    #[test]
    fn a_proxy_stands_in_front_only_if_all_of_this_computer_comes_from_it() {
        use RequestSender::{Any, Local, LocalProxy, Trusted};

        let counted = |senders: &[(RequestSender, u64)]| {
            let mut counts = SenderCounts::default();
            for (sender, times) in senders {
                (0..*times).for_each(|_| counts.add(*sender));
            }
            counts
        };
        assert!(counted(&[(LocalProxy, 20), (Any, 7)]).is_behind_local_proxy());
        assert!(!counted(&[(LocalProxy, 19)]).is_behind_local_proxy());
        assert!(!counted(&[(LocalProxy, 99), (Local, 1)]).is_behind_local_proxy());
        assert!(!counted(&[(Any, 99)]).is_behind_local_proxy());
        assert!(counted(&[(Trusted, 1)]).is_behind_trusted());
        assert!(!counted(&[(Trusted, 1), (LocalProxy, 1)]).is_behind_trusted());
    }

    #[test]
    fn a_flood_of_writes_is_bounded() {
        let mut trail = Trail::default();
        for at in 0..100_000 {
            trail.add(&fold("/a"), TrailEvent::example(at, TrailKind::Write));
        }
        assert!(trail.events.len() <= MAX_EVENTS);
    }
}
