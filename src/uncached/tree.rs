//! The templates that were seen, as a tree of their segments. Bounded, whatever strangers ask for.
//!
//! Invariants:
//! 1. *At most [`MAX_TEMPLATES`] templates* (space-saving counters, by time: Metwally, Agrawal, El
//!    Abbadi, 2005). The lightest ones give their places away, and those that come carry their
//!    weight as an error, so that what passes once never takes the place of what is busy.
//! 2. *A parent names at most [`MAX_VALUES`] children.* With one more, they are values: they become
//!    `{id}`, all but those that are names beyond doubt, see [`Node::is_name`].
//! 3. *Every leaf has facts*, so that the tree has no more nodes than its templates have segments.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::fold::{Kind, PathPart};
use crate::policy::names::{Meaning, meaning};

/// The most templates at once.
pub const MAX_TEMPLATES: usize = 256;
/// How many of them give their places away at once.
const EVICTED_AT_ONCE: usize = 32;
/// The most names below one segment.
pub const MAX_VALUES: usize = 64;
/// The same below a segment whose name says that values follow it: `users`, `docs`.
pub const MAX_VALUES_OF_MANY: usize = 8;
/// How many values of a parent that has too many are watched: they may turn out to be names.
const MAX_CANDIDATES: usize = 32;
/// How often a name must have been asked for, among too many values.
const MIN_REQUESTS: u64 = 16;
/// The same where the ids follow further down.
const MIN_REQUESTS_ABOVE: u64 = 64;

/// A template with its facts.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    /// Its segments.
    pub segments: Vec<PathPart>,
    /// What is known of it.
    pub facts: Facts,
}

/// The templates.
#[derive(Debug, Default)]
pub struct TemplateTree {
    root: Node,
    templates: usize,
    /// The weight of the heaviest template that has given its place away.
    floor: u64,
    /// How many have.
    evicted: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// Requests that went through it.
    count: u64,
    children: BTreeMap<PathPart, Node>,
    /// Values that may be names after all; none while all children have their names.
    candidates: Option<Vec<ValueCount>>,
    facts: Option<Box<Facts>>,
}

/// A value below a parent that has too many of them.
#[derive(Debug)]
struct ValueCount {
    text: Box<str>,
    count: u64,
    /// The count of those whose place it took.
    error: u64,
    /// Whether ids follow it.
    has_ids: bool,
}

impl Node {
    /// Whether this child of a parent with too many values is a name for certain: it is asked for
    /// again and again, and ids follow it, as in `/api/v1/items/{n}`; or, unless the parent's name
    /// says that values follow it, a name for certain does, as with `api`. Names of people seldom
    /// look like that.
    fn is_name(&self, of_many: bool) -> bool {
        let is_value = |segment: &PathPart| matches!(segment, PathPart::Value(..));
        self.count >= MIN_REQUESTS
            && (self.children.keys().any(is_value)
                || (!of_many && self.children.values().any(|child| child.is_name(false))))
    }

    fn literals(&self) -> usize {
        let is_literal = |segment: &&PathPart| matches!(segment, PathPart::Literal(_));
        self.children.keys().filter(is_literal).count()
    }

    /// The child under which the segment of this path counts. Without `may_add`, nothing is
    /// learned.
    fn resolve(&mut self, path: &[PathPart], at: usize, may_add: bool) -> PathPart {
        let segment = &path[at];
        let PathPart::Literal(text) = segment else { return segment.clone() };
        if text.is_empty() || self.children.contains_key(segment) {
            return segment.clone();
        }
        let of_many = at > 0 && names_many(&path[at - 1]);
        if self.candidates.is_none() {
            let most = if of_many { MAX_VALUES_OF_MANY } else { MAX_VALUES };
            if self.literals() < most || !may_add {
                return segment.clone();
            }
            self.fold_values(of_many);
        }
        let ids = path[at + 1..].iter().position(|next| matches!(next, PathPart::Value(..)));
        let ids = ids.filter(|at| *at == 0 || !of_many);
        if may_add && self.is_proven(text, ids) {
            return segment.clone();
        }
        PathPart::Value(Kind::Id, "".into())
    }

    /// Counts a value among too many others. Whether it is a name. `ids` is how many segments there
    /// are between it and an id, if one follows.
    fn is_proven(&mut self, text: &str, ids: Option<usize>) -> bool {
        let is_full = self.literals() >= MAX_VALUES;
        let Some(candidates) = &mut self.candidates else { return true };
        let at = candidates.iter().position(|known| *known.text == *text).or_else(|| {
            let new = |error| ValueCount { text: text.into(), count: error, error, has_ids: false };
            if candidates.len() < MAX_CANDIDATES {
                candidates.push(new(0));
                return Some(candidates.len() - 1);
            }
            let (at, least) = candidates.iter_mut().enumerate().min_by_key(|(_, one)| one.count)?;
            *least = new(least.count);
            Some(at)
        });
        let Some(at) = at else { return false };
        let one = &mut candidates[at];
        one.count += 1;
        one.has_ids |= ids == Some(0);
        let proven = one.count - one.error;
        let is_name = !is_full
            && ((one.has_ids && proven >= MIN_REQUESTS)
                || (ids.is_some() && proven >= MIN_REQUESTS_ABOVE));
        if is_name {
            candidates.swap_remove(at);
        }
        is_name
    }

    /// There are too many names below it: they are values.
    fn fold_values(&mut self, of_many: bool) {
        self.candidates = Some(Vec::new());
        let all = std::mem::take(&mut self.children);
        for (segment, child) in all {
            let is_value = match &segment {
                PathPart::Literal(text) => !text.is_empty() && !child.is_name(of_many),
                PathPart::Value(..) | PathPart::Deeper => false,
            };
            let segment = if is_value { PathPart::Value(Kind::Id, "".into()) } else { segment };
            self.children.entry(segment).or_default().merge(child);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        match (&mut self.facts, other.facts) {
            (Some(facts), Some(more)) => facts.merge(*more),
            (facts @ None, more) => *facts = more,
            (Some(_), None) => {}
        }
        for (segment, child) in other.children {
            self.children.entry(segment).or_default().merge(child);
        }
        // Whichever had too many values has them still.
        if self.candidates.is_none() {
            self.candidates = other.candidates;
            if self.candidates.is_some() || self.literals() > MAX_VALUES {
                self.fold_values(true);
            }
        }
    }

    fn visit<'a>(
        &'a self,
        path: &mut Vec<&'a PathPart>,
        see: &mut dyn FnMut(&[&'a PathPart], &'a Facts),
    ) {
        if let Some(facts) = &self.facts {
            see(path, facts);
        }
        for (segment, child) in &self.children {
            path.push(segment);
            child.visit(path, see);
            path.pop();
        }
    }

    /// Takes the facts of all templates for which `goes` says so, and the nodes that need not be
    /// there without them.
    fn prune(&mut self, goes: &mut dyn FnMut(&mut Facts) -> bool) {
        if self.facts.as_mut().is_some_and(|facts| goes(facts)) {
            self.facts = None;
        }
        self.children.retain(|_, child| {
            child.prune(goes);
            child.facts.is_some() || !child.children.is_empty()
        });
    }

    fn halve(&mut self) {
        self.count /= 2;
        for candidate in self.candidates.iter_mut().flatten() {
            candidate.count /= 2;
            candidate.error /= 2;
        }
        for child in self.children.values_mut() {
            child.halve();
        }
    }
}

/// Whether values follow a segment of this name.
fn names_many(segment: &PathPart) -> bool {
    let PathPart::Literal(name) = segment else { return false };
    let is_plural = name.ends_with('s') && !name.ends_with("ss") && name.len() > 3;
    is_plural || matches!(meaning(name), Some(Meaning::Caller | Meaning::Credential))
}

impl TemplateTree {
    /// The facts of the template of this path, which gets a place if `may_add`.
    pub fn facts(&mut self, path: &[PathPart], may_add: bool) -> Option<&mut Facts> {
        if may_add && self.templates >= MAX_TEMPLATES && self.find(path).is_none() {
            self.evict();
        }
        let mut node = &mut self.root;
        let mut has_folded = false;
        for at in 0..path.len() {
            let had = node.candidates.is_some();
            let segment = node.resolve(path, at, may_add);
            has_folded |= !had && node.candidates.is_some();
            node = if may_add {
                let child = node.children.entry(segment).or_default();
                child.count += 1;
                child
            } else {
                node.children.get_mut(&segment)?
            };
        }
        let is_new = node.facts.is_none();
        if is_new && !may_add {
            return None;
        }
        if is_new {
            node.facts = Some(Box::new(Facts { error: self.floor, ..Facts::default() }));
            self.templates += 1;
        }
        if has_folded {
            self.templates = self.templates().len();
        }
        // Once more: the borrow above ends before the count.
        self.find_mut(path)
    }

    /// The segments of the template of this path, if it has one.
    pub fn template_of(&mut self, path: &[PathPart]) -> Option<Vec<PathPart>> {
        let (mut node, mut segments) = (&mut self.root, Vec::with_capacity(path.len()));
        for at in 0..path.len() {
            let segment = node.resolve(path, at, false);
            node = node.children.get_mut(&segment)?;
            segments.push(segment);
        }
        node.facts.is_some().then_some(segments)
    }

    fn find(&mut self, path: &[PathPart]) -> Option<&Facts> {
        self.find_mut(path).map(|facts| &*facts)
    }

    fn find_mut(&mut self, path: &[PathPart]) -> Option<&mut Facts> {
        let mut node = &mut self.root;
        for at in 0..path.len() {
            let segment = node.resolve(path, at, false);
            node = node.children.get_mut(&segment)?;
        }
        node.facts.as_deref_mut()
    }

    fn evict(&mut self) {
        let mut weights = Vec::with_capacity(self.templates);
        self.root.visit(&mut Vec::new(), &mut |_, facts| weights.push(facts.weight()));
        let most = EVICTED_AT_ONCE.min(weights.len());
        if most == 0 {
            return;
        }
        weights.sort_unstable();
        let (mut left, heaviest) = (most, weights[most - 1]);
        self.root.prune(&mut |facts| {
            let goes = left > 0 && facts.weight() <= heaviest;
            left -= usize::from(goes);
            goes
        });
        self.floor = self.floor.max(heaviest);
        self.evicted += most as u64;
        self.templates -= most;
    }

    /// An hour has passed: what was counts half.
    pub fn halve(&mut self) {
        self.root.halve();
        self.root.prune(&mut |facts| {
            facts.halve();
            facts.requests + facts.mutations == 0
        });
        self.floor /= 2;
        self.templates = self.templates().len();
    }

    /// All templates.
    #[must_use]
    pub fn templates(&self) -> Vec<PathTemplate> {
        let mut all = Vec::with_capacity(self.templates);
        self.root.visit(&mut Vec::new(), &mut |path, facts| {
            let segments = path.iter().map(|segment| (*segment).clone()).collect();
            all.push(PathTemplate { segments, facts: facts.clone() });
        });
        all
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.templates
    }

    /// How many have given their places away.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}
