//! The journal: the purges that Redis has yet to be told. Pure: what was noted, and what of it is
//! to be replayed. Where its lines are kept through a crash is [`mod@file`]'s matter.
//!
//! Invariants:
//! 1. *Nothing noted is lost.* It leaves the journal by [`Journal::replayed`] of a batch that held
//!    it, or, an intention, by its withdrawal. What is noted while a batch is on its way outlives
//!    it, be it the same tag.
//! 2. *It is bounded.* Beyond [`MAX_TAGS`] it becomes "everything", which takes no room.
//! 3. *An intention ends by [`JournalLine::Withdraw`] alone:* at once when the app refused the
//!    mutation, behind its [`JournalLine::Purge`] when the app did it. One that never ended,
//!    because the sidecar died, counts as a purge.

use std::collections::HashMap;

use crate::policy::tag::Tag;

pub mod file;
#[cfg(test)]
mod tests;
mod text;

/// How many tags are kept by name.
pub const MAX_TAGS: usize = 100_000;

/// How many tags are written in one line at a time.
const TAGS_PER_LINE: usize = 100;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalLine {
    /// A mutation is about to reach the app.
    Intend {
        /// The mutation's id.
        id: Box<str>,
        /// What it will purge.
        tags: Vec<Tag>,
    },
    /// The mutation purges nothing any more: the app refused it, or its purge was noted or is in
    /// Redis.
    Withdraw {
        /// The mutation's id.
        id: Box<str>,
    },
    /// These tags are purged.
    Purge {
        /// What is purged.
        tags: Vec<Tag>,
    },
    /// The whole cache is emptied.
    Everything,
}

/// What is to be replayed.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// How many lines were noted.
    line_count: u64,
    /// What is to be purged, with the last line that said so.
    purges: HashMap<Tag, u64>,
    /// Whether everything is, and the last line that said so.
    everything: Option<u64>,
    /// The mutations under way.
    open: HashMap<Box<str>, Intended>,
    /// How many tags these have together.
    open_tags: usize,
}

/// What a mutation under way will purge.
#[derive(Clone, Debug)]
enum Intended {
    Tags(Vec<Tag>),
    /// Its tags were too many to be kept.
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

/// What is replayed at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalBatch {
    /// What is purged; nothing, when everything is.
    pub tags: Vec<Tag>,
    /// Whether the whole cache is emptied.
    pub everything: bool,
    /// The last line that it takes in.
    pub upto: u64,
}

impl Journal {
    /// The journal of a sidecar that died. Its mutations are under way no more, and nobody knows
    /// how they ended, so they all count.
    #[must_use]
    pub fn recovered(lines: &[JournalLine]) -> Self {
        let mut journal = Self::from_lines(lines);
        let open: Vec<Box<str>> = journal.open.keys().cloned().collect();
        for id in &open {
            journal.promote(id);
        }
        journal
    }

    /// The journal with these lines noted.
    fn from_lines(lines: &[JournalLine]) -> Self {
        let mut journal = Self::default();
        for line in lines {
            journal.apply(line);
        }
        journal
    }

    /// Takes in a line.
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
        // The same id again is another mutation, of a sidecar started anew: how the first one ended
        // is not known.
        self.promote(id);
        let intended = if self.open_tags + tags.len() <= MAX_TAGS {
            Intended::Tags(tags.to_vec())
        } else {
            Intended::Everything
        };
        self.open_tags += intended.tags().map_or(0, <[Tag]>::len);
        self.open.insert(id.into(), intended);
    }

    /// An intention becomes a purge.
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
        // Also when everything is to be purged: a batch that says so may be on its way, and this
        // purge is not in it.
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
    #[must_use]
    pub fn depth(&self) -> usize {
        self.purges.len() + usize::from(self.everything.is_some())
    }

    /// Whether nothing is to be replayed. Mutations may be under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.depth() == 0
    }

    /// What is to be replayed now. Mutations under way are not in it.
    #[must_use]
    pub fn batch(&self) -> JournalBatch {
        let everything = self.everything.is_some();
        let tags = if everything { Vec::new() } else { self.purges.keys().cloned().collect() };
        JournalBatch { tags, everything, upto: self.line_count }
    }

    /// The batch is in Redis: forgets it, and keeps what came later.
    pub fn replayed(&mut self, batch: &JournalBatch) {
        self.purges.retain(|_, noted| *noted > batch.upto);
        self.everything = self.everything.filter(|noted| *noted > batch.upto);
    }

    /// Lines that make this journal: what a file has to hold of it.
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
