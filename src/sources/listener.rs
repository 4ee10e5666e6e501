//! What a connection of a source tells: that it hears, and what it has heard. Nothing here waits.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::due::TemplateSet;
use super::payload;
use super::queue::PurgeQueue;

/// One connection's way to the purges of its source.
pub(super) struct SourceListener {
    queue: Arc<PurgeQueue>,
    session: u64,
    is_proven: AtomicBool,
}

impl SourceListener {
    pub(super) const fn new(queue: Arc<PurgeQueue>, session: u64) -> Self {
        Self { queue, session, is_proven: AtomicBool::new(false) }
    }

    /// Its hearing is proven: whatever is told from now on is heard, until the connection ends.
    /// What may have been missed before is purged.
    pub(super) fn heard(&self) {
        self.queue.status.note_heard(self.queue.context.clock.wall());
        if !self.is_proven.swap(true, Ordering::Relaxed) {
            self.queue.prove(self.session, true);
        }
    }

    /// It gets what is sent to it from now on, which nothing proves. What it may not have got
    /// before is purged.
    pub(super) fn receives(&self) {
        self.queue.prove(self.session, true);
    }

    /// Something was told.
    pub(super) fn told(&self, text: &str) {
        let counters = &self.queue.status.counters;
        counters.events.inc();
        if !self.queue.has_room() {
            return;
        }
        match payload::read(text, &self.queue.settings.tags) {
            Ok(told) => self.queue.add(told.tags, told.families),
            Err(why) => self.refuse(&why),
        }
    }

    /// What was told names no tags.
    pub(super) fn refuse(&self, why: &dyn Display) {
        self.queue.refuse(why);
    }

    /// Everything that the source can name may have changed.
    pub(super) fn told_of_all(&self) {
        self.queue.status.counters.events.inc();
        self.queue.add(Vec::new(), TemplateSet::ALL);
    }

    /// The name of the source.
    #[cfg(feature = "mysql")]
    pub(super) fn source(&self) -> &str {
        &self.queue.settings.name
    }

    /// Changes may be missed for a while, because more is to be remembered than may be: whoever
    /// tells this purges all, again and again.
    #[cfg(feature = "mysql")]
    pub(super) fn forgot(&self, why: &str) {
        self.queue.context.forgotten.inc();
        self.missed(why);
    }

    /// More is told at once than is read: whoever tells this tells of all in its place.
    #[cfg(feature = "mysql")]
    pub(super) fn note_burst(&self) {
        self.queue.note_burst();
    }

    /// Purges everything that the source can name.
    #[cfg(feature = "mysql")]
    pub(super) fn purge_all(&self) {
        self.queue.add(Vec::new(), TemplateSet::ALL);
    }

    /// Changes may have been missed, although the connection is good.
    pub(super) fn missed(&self, why: &str) {
        self.queue.status.counters.gaps.inc();
        tracing::warn!(
            source = &*self.queue.settings.name,
            why,
            "a source may have missed changes: what it could purge is purged"
        );
        self.queue.add(Vec::new(), TemplateSet::ALL);
    }
}
