//! What sources tell, beside what shadow mode sees.

use std::sync::Arc;

use crate::clock::Wall;
use crate::policy::tag::Tag;
use crate::shadow::Shadow;
use crate::shadow::observed::ObservedResponse;
use crate::shadow::source_purges::LateSource;
use crate::shadow::table::KeyState;

impl Shadow {
    /// Notes that a source has purged tags. Changes of these that were seen before, and that no
    /// write explains, are explained by it.
    pub fn note_source(&self, source: &str, tags: &[Tag], now: Wall) {
        let source: Arc<str> = source.into();
        self.source_purges.lock().add(self.steps.next(), &source, tags);
        for route in self.lock().values() {
            let late = LateSource { source: Arc::clone(&source), at: now };
            route.findings().explain_late(&late, tags);
        }
    }

    /// The source that has purged what would be stored, whose body has changed since.
    pub(super) fn told_by(
        &self,
        state: &KeyState,
        response: &ObservedResponse<'_>,
    ) -> Option<Arc<str>> {
        let (stored, entry) = (state.history.stored()?, state.entry.as_ref()?);
        if response.observation.hit || stored.digest? == response.observation.digest {
            return None;
        }
        self.source_purges.lock().first_since(stored.span.sent, &entry.tags)
    }
}
