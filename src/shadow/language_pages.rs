//! The pages whose bodies are compared between languages.
//!
//! Bounded by `limits.shadow_keys`, as the table of keys is: a new page evicts an old one. What
//! spoke against a finding stays counted with the route.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use crate::policy::key::KeyHash;
use crate::semantics::times::Times;
use crate::shadow::findings::RouteShadow;
use crate::shadow::history::StepSpan;
use crate::shadow::languages::{LanguageFinding, LanguageSample, PageHistory};
use crate::telemetry::metrics::Counter;

/// The history of a page; none once it is evicted.
type PageSlot = Arc<Mutex<Option<PageHistory>>>;

/// A page, and the route that counts it.
#[derive(Clone, Debug)]
struct LanguagePage {
    route: Arc<RouteShadow>,
    history: PageSlot,
}

/// Takes evicted pages out of the counts of their routes.
#[derive(Clone, Debug)]
struct PageEvictions(Arc<Counter>);

impl Lifecycle<u128, LanguagePage> for PageEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: u128, page: LanguagePage) {
        self.0.inc();
        if let Some(history) = page.history.lock().take() {
            page.route.findings().languages.forget(history.standing());
        }
    }
}

/// How a response has changed what is to be said of its route.
pub(super) type FindingChange = (Option<LanguageFinding>, Option<LanguageFinding>);

/// The pages, by the hash of the key without its languages.
pub(super) struct LanguagePages(
    Cache<u128, LanguagePage, UnitWeighter, DefaultHashBuilder, PageEvictions>,
);

impl LanguagePages {
    /// A table of at most `pages` pages, which counts those it evicts.
    pub(super) fn new(pages: usize, evicted: &Arc<Counter>) -> Self {
        Self(Cache::with(
            pages,
            pages as u64,
            UnitWeighter,
            DefaultHashBuilder::default(),
            PageEvictions(Arc::clone(evicted)),
        ))
    }

    /// Forgets all pages.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// Compares a response with those of its page in other languages. Returns what was to be said
    /// of the route before, and what is now.
    pub(super) fn record(
        &self,
        route: &Arc<RouteShadow>,
        page: KeyHash,
        sample: &LanguageSample<'_>,
        holds: &dyn Fn(&StepSpan, &Times) -> bool,
        unnamed: &Counter,
    ) -> FindingChange {
        // No lock is held here: an eviction takes those of another page and its route.
        let history = self.history(route, page);
        let mut history = history.lock();
        let verdict = history.as_mut().map(|page| page.observe(sample, holds)).unwrap_or_default();
        match verdict.same {
            Some(true) => route.counters.languages_same.inc(),
            Some(false) => route.counters.languages_different.inc(),
            None => {}
        }
        let mut findings = route.findings();
        let before = findings.languages.finding();
        let is_full =
            findings.languages.record(&verdict) | findings.languages.see(sample.languages);
        if is_full {
            unnamed.inc();
        }
        (before, findings.languages.finding())
    }

    fn history(&self, route: &Arc<RouteShadow>, page: KeyHash) -> PageSlot {
        if let Some(known) = self.0.get(&page.half()) {
            return known.history;
        }
        // If two threads come here at once, the page of the second one stays. The only cost is a
        // lost observation.
        let history: PageSlot = Arc::new(Mutex::new(Some(PageHistory::default())));
        let new = LanguagePage { route: Arc::clone(route), history: Arc::clone(&history) };
        self.0.insert(page.half(), new);
        history
    }
}
