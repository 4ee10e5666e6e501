//! The journal: the purges that Redis does not have yet. Pure: it holds what was recorded, and what
//! of that is to be replayed. [`mod@file`] keeps its lines through a crash.
//!
//! Invariants:
//! 1. *No recorded line is lost.* A purge leaves the journal by [`Journal::replayed`] with a batch
//!    that contains it; an intended mutation leaves it by its withdrawal. A purge that is recorded
//!    while a batch is on its way stays, even if the batch has the same tag.
//! 2. *It is bounded.* Beyond [`MAX_TAGS`] tags it becomes a purge of everything, which takes no
//!    space.
//! 3. *An intended mutation ends by [`JournalLine::Withdraw`] only:* at once when the origin
//!    refused it, after its [`JournalLine::Purge`] when the origin committed it. One that never
//!    ended, because the sidecar died, counts as a purge.

use std::collections::HashMap;

use crate::policy::tag::Tag;

pub mod file;
#[cfg(test)]
mod tests;
pub(crate) mod text;

/// How many tags are kept by name.
pub const MAX_TAGS: usize = 100_000;

/// How many tags go into one line of the file.
const TAGS_PER_LINE: usize = 100;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalLine {
    /// A mutation is about to reach the origin.
    Intend {
        /// The mutation's id.
        id: Box<str>,
        /// The tags that it will purge.
        tags: Vec<Tag>,
    },
    /// The mutation needs no purge any more: the origin refused it, or its purge is in the journal
    /// or in Redis.
    Withdraw {
        /// The mutation's id.
        id: Box<str>,
    },
    /// These tags are purged.
    Purge {
        /// The tags.
        tags: Vec<Tag>,
    },
    /// Everything is purged.
    Everything,
}

/// What is to be replayed, and which mutations are in progress.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// How many lines were recorded.
    line_count: u64,
    /// The tags to be purged, each with the number of the last line that contains it.
    purges: HashMap<Tag, u64>,
    /// The number of the last line that purges everything.
    everything: Option<u64>,
    /// Mutations in progress.
    open: HashMap<Box<str>, Intended>,
    /// How many tags the mutations in progress have together.
    open_tags: usize,
}

/// What a mutation in progress will purge.
#[derive(Clone, Debug)]
enum Intended {
    Tags(Vec<Tag>),
    /// It has too many tags to keep.
    Everything,
}

impl Intended {
    fn tags(&self) -> Option<&[Tag]> {
        match self {
            Self::Tags(tags) => Some(tags),
            Self::Everything => None,
        }
    }
}

/// A part of the journal that is replayed in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalBatch {
    /// The tags to purge; empty when everything is purged.
    pub tags: Vec<Tag>,
    /// Whether everything is purged.
    pub everything: bool,
    /// The number of the last line that the batch contains.
    pub upto: u64,
}

impl Journal {
    /// The journal of a sidecar that died. How its mutations in progress ended is unknown, so all
    /// of them count as purges.
    #[must_use]
    pub fn recovered(lines: &[JournalLine]) -> Self {
        let mut journal = Self::from_lines(lines);
        let open: Vec<Box<str>> = journal.open.keys().cloned().collect();
        for id in &open {
            journal.promote(id);
        }
        journal
    }

    /// A journal with these lines.
    fn from_lines(lines: &[JournalLine]) -> Self {
        let mut journal = Self::default();
        for line in lines {
            journal.apply(line);
        }
        journal
    }

    /// Records a line.
    pub fn apply(&mut self, line: &JournalLine) {
        self.line_count += 1;
        match line {
            JournalLine::Intend { id, tags } => self.intend(id, tags),
            JournalLine::Withdraw { id } => drop(self.end(id)),
            JournalLine::Purge { tags } => self.purge(tags),
            JournalLine::Everything => self.purge_everything(),
        }
    }

    fn intend(&mut self, id: &str, tags: &[Tag]) {
        // The same id is a new mutation of a restarted sidecar: how the old one ended is unknown.
        self.promote(id);
        let intended = if self.open_tags + tags.len() <= MAX_TAGS {
            Intended::Tags(tags.to_vec())
        } else {
            Intended::Everything
        };
        self.open_tags += intended.tags().map_or(0, <[Tag]>::len);
        self.open.insert(id.into(), intended);
    }

    /// Turns an intended mutation into a purge.
    fn promote(&mut self, id: &str) {
        match self.end(id) {
            None => {}
            Some(Intended::Tags(tags)) => self.purge(&tags),
            Some(Intended::Everything) => self.purge_everything(),
        }
    }

    fn end(&mut self, id: &str) -> Option<Intended> {
        let ended = self.open.remove(id);
        self.open_tags -= ended.as_ref().and_then(Intended::tags).map_or(0, <[Tag]>::len);
        ended
    }

    fn purge(&mut self, tags: &[Tag]) {
        // Recorded even if everything is to be purged: a batch that says so may be on its way,
        // without this purge.
        for tag in tags {
            if self.purges.len() >= MAX_TAGS && !self.purges.contains_key(tag) {
                return self.purge_everything();
            }
            self.purges.insert(tag.clone(), self.line_count);
        }
    }

    fn purge_everything(&mut self) {
        self.everything = Some(self.line_count);
        self.purges = HashMap::new();
    }

    /// How many purges are to be replayed.
    #[cfg(test)]
    fn depth(&self) -> usize {
        self.purges.len() + usize::from(self.everything.is_some())
    }

    /// What is to be replayed now, without mutations in progress.
    #[must_use]
    pub fn batch(&self) -> JournalBatch {
        let everything = self.everything.is_some();
        let tags = if everything { Vec::new() } else { self.purges.keys().cloned().collect() };
        JournalBatch { tags, everything, upto: self.line_count }
    }

    /// Removes a batch that is in Redis now, and keeps what was recorded later.
    pub fn replayed(&mut self, batch: &JournalBatch) {
        self.purges.retain(|_, noted| *noted > batch.upto);
        self.everything = self.everything.filter(|noted| *noted > batch.upto);
    }

    /// Lines that recreate this journal, for its file.
    #[must_use]
    pub fn lines(&self) -> Vec<JournalLine> {
        let mut lines = Vec::new();
        let vague = self.open.values().any(|intended| intended.tags().is_none());
        if vague || self.everything.is_some() {
            lines.push(JournalLine::Everything);
        }
        let tags: Vec<&Tag> = self.purges.keys().collect();
        lines.extend(
            tags.chunks(TAGS_PER_LINE)
                .map(|tags| JournalLine::Purge { tags: tags.iter().copied().cloned().collect() }),
        );
        let open = self.open.iter().filter_map(|(id, intended)| Some((id, intended.tags()?)));
        lines.extend(
            open.map(|(id, tags)| JournalLine::Intend { id: id.clone(), tags: tags.to_vec() }),
        );
        lines
    }
}
