//! The answers that are remembered, and whether anything may be asked at all.
//!
//! Bounded: when it is full, the least useful answers are forgotten, which costs each of those
//! callers one more question.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use smallvec::SmallVec;

use super::{
    CallerSlots, IdentityAnswer, IdentityCounters, IdentityFault, IdentityKey, IdentitySettings,
    IdentityWrites, RequestIdentity,
};
use crate::clock::{Wall, millis};
use crate::policy::apps::{AppId, MAX_APPS};
use crate::telemetry::metrics::Counter;

/// After how many failures in a row the origin is given a pause of `retry`.
const MAX_FAILURES: u32 = 5;

/// The answers of one `[identity]`. A reload begins another table.
#[derive(Debug)]
pub struct IdentityTable {
    /// The settings.
    pub settings: IdentitySettings,
    /// The pointers that fields read.
    pub pointers: Box<[Arc<str>]>,
    /// The writes of callers, which outlive the table.
    pub writes: Arc<IdentityWrites>,
    /// What is counted.
    pub counters: IdentityCounters,
    known: Cache<IdentityKey, Remembered, UnitWeighter, DefaultHashBuilder, AnswerEvictions>,
    /// By the places of the apps: what one does takes nothing from the others.
    apps: Box<[AppState]>,
}

/// How asking one app goes.
#[derive(Debug, Default)]
struct AppState {
    is_off: AtomicBool,
    failures: AtomicU32,
    paused_until: AtomicU64,
}

/// When a question was begun, and what its caller had written by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStart {
    slots: CallerSlots,
    counts: SmallVec<[u64; 4]>,
    /// The time of the beginning.
    pub begun: Wall,
}

#[derive(Clone, Debug)]
struct Remembered {
    result: Result<Arc<IdentityAnswer>, IdentityFault>,
    start: Arc<ProbeStart>,
    until: Wall,
}

#[derive(Clone, Debug)]
struct AnswerEvictions(Arc<Counter>);

impl Lifecycle<IdentityKey, Remembered> for AnswerEvictions {
    type RequestState = ();

    fn before_evict(&self, (): &mut (), _: &IdentityKey, _: &mut Remembered) {
        self.0.inc();
    }

    fn on_evict(&self, (): &mut (), _: IdentityKey, _: Remembered) {}
}

impl IdentityTable {
    /// An empty table.
    #[must_use]
    pub fn new(
        settings: IdentitySettings,
        pointers: Box<[Arc<str>]>,
        writes: Arc<IdentityWrites>,
        counters: IdentityCounters,
    ) -> Self {
        let callers = settings.callers;
        let evictions = AnswerEvictions(Arc::clone(&counters.evicted));
        let hasher = DefaultHashBuilder::default();
        Self {
            known: Cache::with(callers, callers as u64, UnitWeighter, hasher, evictions),
            settings,
            pointers,
            writes,
            counters,
            apps: (0..=MAX_APPS).map(|_| AppState::default()).collect(),
        }
    }

    /// What is known of a caller; `None` if the origin has to be asked.
    #[must_use]
    pub fn get(&self, key: &IdentityKey, now: Wall) -> Option<RequestIdentity> {
        if self.is_off_for(key.app) {
            return Some(RequestIdentity::Fault(IdentityFault::Off));
        }
        let known = self.known.get(key)?;
        if now >= known.until || !self.is_current(&known.start) {
            return None;
        }
        Some(match known.result {
            Ok(answer) => RequestIdentity::Known(answer),
            Err(fault) => RequestIdentity::Fault(fault),
        })
    }

    /// The beginning of a question about a caller with these slots.
    #[must_use]
    pub fn begin(&self, slots: CallerSlots, now: Wall) -> ProbeStart {
        let counts = self.writes.counts(&slots);
        ProbeStart { slots, counts, begun: now }
    }

    /// Whether the caller of a question has written nothing since it was begun.
    #[must_use]
    pub fn is_current(&self, start: &ProbeStart) -> bool {
        self.writes.counts(&start.slots) == start.counts
    }

    /// Remembers what came of a question, unless its caller has written something meanwhile.
    ///
    /// # Errors
    /// Why nobody knows who the caller is.
    pub fn settle(
        &self,
        key: IdentityKey,
        start: ProbeStart,
        result: Result<Arc<IdentityAnswer>, IdentityFault>,
        now: Wall,
    ) -> Result<Arc<IdentityAnswer>, IdentityFault> {
        self.note(key.app, &result, now);
        if !self.is_current(&start) {
            return Err(IdentityFault::Overtaken);
        }
        let until = match &result {
            Ok(_) => start.begun.after(self.settings.ttl),
            Err(fault) if fault.is_answer() => now.after(self.settings.retry),
            Err(_) => return result,
        };
        // What was asked for later is newer, whichever came first.
        let newer = self.known.get(&key).filter(|known| known.start.begun > start.begun);
        if newer.is_some_and(|newer| self.is_current(&newer.start)) {
            return result;
        }
        let start = Arc::new(start);
        self.known.insert(key, Remembered { result: result.clone(), start, until });
        result
    }

    /// Gives the origin of an app a pause after some failures in a row.
    fn note(&self, app: AppId, result: &Result<Arc<IdentityAnswer>, IdentityFault>, now: Wall) {
        let Some(state) = self.state(app) else { return };
        match result {
            Err(fault) if fault.is_trouble() => {
                let failures = state.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failures >= MAX_FAILURES {
                    let until = now.0.saturating_add(millis(self.settings.retry));
                    state.paused_until.fetch_max(until, Ordering::Relaxed);
                }
            }
            // The sidecar itself did not ask.
            Err(fault) if !fault.is_answer() => {}
            _ => state.failures.store(0, Ordering::Relaxed),
        }
    }

    fn state(&self, app: AppId) -> Option<&AppState> {
        self.apps.get(app.index())
    }

    /// Whether an app may not be asked now, and why.
    #[must_use]
    pub fn barred(&self, app: AppId, now: Wall) -> Option<IdentityFault> {
        let is_paused = |state: &AppState| now.0 < state.paused_until.load(Ordering::Relaxed);
        if self.is_off_for(app) {
            Some(IdentityFault::Off)
        } else if self.state(app).is_some_and(is_paused) {
            Some(IdentityFault::Paused)
        } else {
            None
        }
    }

    /// Ends asking an app until the next reload. Returns whether this is the first time.
    pub fn switch_off(&self, app: AppId) -> bool {
        self.state(app).is_some_and(|state| !state.is_off.swap(true, Ordering::SeqCst))
    }

    /// Whether an answer of an app has set a cookie.
    fn is_off_for(&self, app: AppId) -> bool {
        self.state(app).is_none_or(|state| state.is_off.load(Ordering::SeqCst))
    }

    /// Whether an answer of some app has set a cookie.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.apps.iter().any(|state| state.is_off.load(Ordering::SeqCst))
    }

    /// Why nothing is asked for, for operators.
    #[must_use]
    pub fn degraded_reason(&self) -> Option<String> {
        self.is_off().then(|| {
            let path = &self.settings.path;
            format!(
                "nobody is asked for at {path} of [identity], because an answer set a cookie: \
                 routes with such fields pass until the next reload"
            )
        })
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{COOKIE, HeaderMap, HeaderValue};

    use super::*;
    use crate::policy::credential::{Credential, CredentialRule};

    const KEY: IdentityKey = IdentityKey { app: AppId::FIRST, digest: [7; 32] };
    const WHOLE: Credential = Credential([7; 32]);

    fn table() -> IdentityTable {
        let settings = IdentitySettings {
            path: "/me".into(),
            ttl: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            callers: 100,
            probes: 4,
        };
        let pointers = Box::new(["/tenant".into()]);
        IdentityTable::new(settings, pointers, Arc::default(), IdentityCounters::default())
    }

    fn headers() -> HeaderMap {
        [(COOKIE, HeaderValue::from_static("sessionid=0123456789abcdef"))].into_iter().collect()
    }

    fn start(table: &IdentityTable, now: Wall) -> ProbeStart {
        let slots = table.writes.slots_of(&CredentialRule::default(), &WHOLE, &headers());
        table.begin(slots.expect("few parts"), now)
    }

    fn write(table: &IdentityTable) {
        table.writes.record(&CredentialRule::default(), Some(&WHOLE), &headers());
    }

    fn answer() -> Arc<IdentityAnswer> {
        Arc::new(IdentityAnswer::from_texts([("/tenant", "acme")].into_iter()))
    }

    #[test]
    fn an_answer_holds_for_its_ttl_from_when_it_was_asked_for() {
        let table = table();
        let begun = Wall(1_000_000);
        let start = start(&table, begun);
        assert!(
            table.settle(KEY, start, Ok(answer()), begun.after(Duration::from_secs(1))).is_ok()
        );
        let at = |ms: u64| table.get(&KEY, Wall(begun.0 + ms));
        assert!(matches!(at(29_999), Some(RequestIdentity::Known(_))));
        assert_eq!(at(30_000), None);
        assert_eq!(
            table.get(&IdentityKey { app: AppId::FIRST, digest: [8; 32] }, begun),
            None,
            "nobody else's"
        );
    }

    #[test]
    fn an_answer_that_was_asked_for_earlier_does_not_replace_a_newer_one() {
        let (table, now) = (table(), Wall(1_000_000));
        let early = start(&table, now);
        let late = start(&table, now.after(Duration::from_secs(1)));
        let other = Ok(Arc::new(IdentityAnswer::from_texts([("/tenant", "globex")].into_iter())));
        assert!(table.settle(KEY, late, other.clone(), now).is_ok());
        assert_eq!(
            table.settle(KEY, early, Ok(answer()), now),
            Ok(answer()),
            "its own request goes by it"
        );
        let known = table.get(&KEY, now);
        assert_eq!(known, other.ok().map(RequestIdentity::Known));
    }

    #[test]
    fn a_write_ends_an_answer_and_what_is_on_its_way_is_not_kept() {
        let (table, now) = (table(), Wall(1_000_000));
        assert!(table.settle(KEY, start(&table, now), Ok(answer()), now).is_ok());
        assert!(table.get(&KEY, now).is_some());
        write(&table);
        assert_eq!(table.get(&KEY, now), None, "at its beginning, or at its end");
        for writes in 1..3 {
            let start = start(&table, now);
            (0..writes).for_each(|_| write(&table));
            let settled = table.settle(KEY, start, Ok(answer()), now);
            assert_eq!(settled, Err(IdentityFault::Overtaken));
            assert_eq!(table.get(&KEY, now), None);
        }
    }

    #[test]
    fn a_refusal_is_remembered_briefly_and_failures_make_a_pause() {
        let (table, now) = (table(), Wall(1_000_000));
        let fault = IdentityFault::Refused;
        let settled = table.settle(KEY, start(&table, now), Err(fault), now);
        assert_eq!(settled, Err(fault));
        assert_eq!(table.get(&KEY, Wall(now.0 + 4_999)), Some(RequestIdentity::Fault(fault)));
        assert_eq!(table.get(&KEY, Wall(now.0 + 5_000)), None);
        for failures in 1..=MAX_FAILURES {
            assert_eq!(table.barred(AppId::FIRST, now), None, "{failures}");
            let _ = table.settle(KEY, start(&table, now), Err(IdentityFault::Timeout), now);
        }
        assert_eq!(table.barred(AppId::FIRST, now), Some(IdentityFault::Paused));
        let later = Wall(now.0 + 5_000);
        assert_eq!(table.barred(AppId::FIRST, later), None);
        let _ = table.settle(KEY, start(&table, later), Err(IdentityFault::Timeout), later);
        assert_eq!(
            table.barred(AppId::FIRST, later),
            Some(IdentityFault::Paused),
            "one attempt for each pause"
        );
        let later = Wall(later.0 + 5_000);
        assert!(table.settle(KEY, start(&table, later), Ok(answer()), later).is_ok());
        let _ = table.settle(KEY, start(&table, later), Err(IdentityFault::Timeout), later);
        assert_eq!(table.barred(AppId::FIRST, later), None);
    }

    #[test]
    fn a_cookie_ends_all_asking() {
        let (table, now) = (table(), Wall(1_000_000));
        assert!(table.settle(KEY, start(&table, now), Ok(answer()), now).is_ok());
        assert!(table.switch_off(AppId::FIRST) && !table.switch_off(AppId::FIRST));
        assert_eq!(table.get(&KEY, now), Some(RequestIdentity::Fault(IdentityFault::Off)));
        assert_eq!(table.barred(AppId::FIRST, now), Some(IdentityFault::Off));
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let (table, now) = (table(), Wall(1_000_000));
        for at in 0_u32..100_000 {
            let mut key = IdentityKey { app: AppId::FIRST, digest: [0; 32] };
            key.digest[..4].copy_from_slice(&at.to_be_bytes());
            let _ = table.settle(key, start(&table, now), Err(IdentityFault::Refused), now);
        }
        assert!(table.remembered() <= 100, "{}", table.remembered());
        assert!(table.counters.evicted.get() >= 99_000);
    }
}
