//! What a further response of the origin means for a key: pure, without a clock.
//!
//! Time is counted in steps: every event in this process takes the next number, so the order of two
//! events that did not overlap is known. Nothing is concluded from events that overlapped.
//!
//! The conclusions:
//! - *Stale*: a caller would have got the stored response, and the origin's response to this same
//!   caller differs from an earlier one that was received since the response was stored. A
//!   different body for another caller proves no change.
//! - *Scope*: one caller got the same body before and after another caller got a different one.
//!   Changing data returns to an earlier state only by a second change, so with more than one write
//!   in between it takes several such observations.
//! - *Volatile*: one caller's body changed repeatedly without writes, in a considerable part of all
//!   observations. Then a change points neither to a write nor to a caller.

use smallvec::SmallVec;

pub use crate::semantics::digest::Digest;

/// How many callers of one key are kept.
pub const MAX_CALLERS: usize = 8;

/// How many changes without a write make a key volatile.
const CALM_CHANGES: u16 = 2;

/// How many agreeing observations are needed if a single one does not suffice.
const MIN_HINTS: u8 = 3;

/// The number of an event.
pub type StepNumber = u64;

/// From before the request to the origin until its response was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpan {
    /// Before the request to the origin.
    pub sent: StepNumber,
    /// After the response was complete.
    pub done: StepNumber,
    /// How often the local tag table had purged by the time of `sent`. This includes writes through
    /// other sidecars.
    pub purges: u64,
}

/// The caller of a request, by the parts that are not in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Identifies the credential; 0 without one.
    pub credential: u64,
    /// Identifies the part of the query that a fill would withhold; 0 without one.
    pub withheld_query: u64,
}

/// A complete response of the origin.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Who got it.
    pub caller: Caller,
    /// Its digest.
    pub digest: Digest,
    /// When it was fetched.
    pub span: StepSpan,
    /// Whether the stored response would have been served instead.
    pub hit: bool,
}

/// The response that would be stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Who got it.
    pub caller: Caller,
    /// Its digest; `None` if its body has not been seen.
    pub digest: Option<Digest>,
    /// When it was fetched.
    pub span: StepSpan,
    /// The digest it changed to, if a change was seen.
    moved_to: Option<Digest>,
}

/// Consecutive responses with the same body to one caller.
#[derive(Clone, Copy, Debug)]
struct Run {
    caller: Caller,
    digest: Digest,
    first: StepSpan,
    last: StepSpan,
    /// Whether the body has changed since the stored response was fetched.
    moved: bool,
}

/// The history of a key.
#[derive(Clone, Debug, Default)]
pub struct History {
    stored: Option<Stored>,
    runs: SmallVec<[Run; 1]>,
    /// Whether the part of the query that a fill would withhold was seen to be irrelevant.
    withheld_query_is_idle: bool,
    same: u16,
    calm_changes: u16,
    hints: u8,
    volatile: bool,
    scoped: bool,
}

/// How a response would have been stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleFinding {
    /// The body has changed since this observation, the last one of the old body.
    Changed {
        /// When that was.
        since: StepSpan,
    },
    /// The change was seen before, and the stored response is still older than it.
    Still,
}

/// What an observation means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryVerdict {
    /// The response that would have been served was stale.
    pub stale: Option<StaleFinding>,
    /// The response that would have been served was another caller's, or the key turns out only now
    /// to mix callers.
    pub scope: bool,
    /// The key has just turned out to be volatile: earlier conclusions about it do not hold.
    pub turned_volatile: bool,
    /// Another caller was evicted to make room for this one.
    pub forgot_caller: bool,
}

impl Stored {
    /// What would be stored after a response to this caller.
    #[must_use]
    pub const fn new(caller: Caller, digest: Option<Digest>, span: StepSpan) -> Self {
        Self { caller, digest, span, moved_to: None }
    }
}

impl Run {
    fn came_before(&self, span: &StepSpan) -> bool {
        self.last.done <= span.sent
    }
}

impl History {
    /// The response that would be stored.
    #[must_use]
    pub const fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// Whether the body changes without writes.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Whether the body was ever observed to be unchanged.
    #[must_use]
    pub const fn has_stayed(&self) -> bool {
        self.same > 0
    }

    /// Replaces the stored response.
    pub fn store(&mut self, stored: Option<Stored>) {
        self.stored = stored;
        self.runs.iter_mut().for_each(|run| run.moved = false);
    }

    /// Records an observation. `writes_since` returns how many writes overlap the time from the
    /// beginning of a span to the end of this observation.
    pub fn observe(
        &mut self,
        observation: &Observation,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> HistoryVerdict {
        let mut verdict = HistoryVerdict::default();
        let served = self.stored.filter(|_| observation.hit);
        let differs = served
            .is_some_and(|stored| stored.digest.is_some_and(|digest| digest != observation.digest));
        if let (true, Some(Stored { digest: digest @ None, .. })) =
            (observation.hit, &mut self.stored)
        {
            *digest = Some(observation.digest);
        }
        let before = self.run_of(observation.caller).map(|at| self.runs[at]);
        if let Some(before) = before.filter(|before| before.came_before(&observation.span)) {
            verdict.turned_volatile = self.weigh(&before, observation, writes_since);
        }
        let since = before
            .filter(|before| {
                before.came_before(&observation.span) && before.digest != observation.digest
            })
            .map(|before| before.last);
        let changed =
            since.filter(|since| served.is_some_and(|stored| since.done >= stored.span.done));
        self.remember(observation, changed.is_some(), &mut verdict);
        if let (true, Some(stored)) = (differs, served) {
            verdict.stale = self.stale(observation, &stored, changed);
        }
        if !self.scoped && self.is_sandwiched(observation, before.as_ref(), writes_since) {
            self.scoped = true;
            verdict.scope = true;
        } else if self.scoped && differs && verdict.stale.is_none() {
            verdict.scope = served
                .is_some_and(|stored| stored.caller.credential != observation.caller.credential);
        }
        if self.volatile {
            verdict.scope = false;
        }
        verdict
    }

    /// Whether a response that turned this caller away says that the stored one was another
    /// caller's: one who was never sent the stored body. A certain refusal says so of any other
    /// caller.
    #[must_use]
    pub fn is_refusal_of_another(&self, caller: Caller, is_certain: bool) -> bool {
        let Some(stored) = self.stored else { return false };
        let had_it = || {
            let own = self.runs.iter().filter(|run| run.caller.credential == caller.credential);
            own.clone().any(|run| Some(run.digest) == stored.digest)
        };
        stored.caller.credential != caller.credential && (is_certain || !had_it())
    }

    fn comparable(&self, one: Caller, two: Caller) -> bool {
        one.withheld_query == two.withheld_query || self.withheld_query_is_idle
    }

    /// The latest run of this caller.
    fn run_of(&self, caller: Caller) -> Option<usize> {
        let own = self.runs.iter().enumerate().filter(|(_, run)| {
            run.caller.credential == caller.credential && self.comparable(run.caller, caller)
        });
        own.max_by_key(|(_, run)| run.last.sent).map(|(at, _)| at)
    }

    /// Weighs whether the body is stable without writes. Returns whether the key has just turned
    /// out to be volatile.
    fn weigh(
        &mut self,
        before: &Run,
        observation: &Observation,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> bool {
        if before.digest == observation.digest {
            self.same = self.same.saturating_add(1);
        } else if writes_since(&before.last) == 0 {
            self.calm_changes = self.calm_changes.saturating_add(1);
        }
        let turns = !self.volatile
            && self.calm_changes >= CALM_CHANGES
            && self.calm_changes.saturating_mul(2) >= self.same;
        self.volatile |= turns;
        turns
    }

    fn stale(
        &mut self,
        observation: &Observation,
        stored: &Stored,
        changed: Option<StepSpan>,
    ) -> Option<StaleFinding> {
        // Other callers may have seen the same change before.
        if let Some(since) = changed.filter(|_| stored.moved_to != Some(observation.digest)) {
            if let Some(stored) = &mut self.stored {
                stored.moved_to = Some(observation.digest);
            }
            return Some(StaleFinding::Changed { since });
        }
        let own = self.run_of(observation.caller).is_some_and(|at| self.runs[at].moved);
        let its_own = stored.caller.credential == observation.caller.credential
            && self.comparable(stored.caller, observation.caller);
        (own || its_own || stored.moved_to == Some(observation.digest))
            .then_some(StaleFinding::Still)
    }

    /// Adds the observation to the runs.
    fn remember(&mut self, observation: &Observation, changed: bool, verdict: &mut HistoryVerdict) {
        let same_elsewhere = |run: &Run| {
            run.caller.credential == observation.caller.credential
                && run.caller.withheld_query != observation.caller.withheld_query
                && run.digest == observation.digest
        };
        self.withheld_query_is_idle |= self.runs.iter().any(same_elsewhere);
        let back = self.stored.is_some_and(|stored| stored.digest == Some(observation.digest));
        let new = Run {
            caller: observation.caller,
            digest: observation.digest,
            first: observation.span,
            last: observation.span,
            moved: changed && !back,
        };
        match self.run_of(observation.caller) {
            Some(at) => {
                let run = &mut self.runs[at];
                if run.digest == observation.digest {
                    if run.last.sent < observation.span.sent {
                        run.last = observation.span;
                    }
                    run.moved &= !back;
                } else if run.last.sent < observation.span.sent {
                    let moved = (new.moved || run.moved) && !back;
                    *run = Run { moved, ..new };
                }
            }
            None if self.runs.len() < MAX_CALLERS => self.runs.push(new),
            None => {
                verdict.forgot_caller = true;
                if let Some(oldest) = self.runs.iter_mut().min_by_key(|run| run.last.sent) {
                    *oldest = new;
                }
            }
        }
    }

    /// Whether this observation completes the proof that two callers get different bodies: this
    /// caller gets the same body as before, and in between another caller got a different one.
    fn is_sandwiched(
        &mut self,
        observation: &Observation,
        before: Option<&Run>,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> bool {
        let is_unstable = u32::from(self.calm_changes) * 4 > u32::from(self.same);
        let Some(before) = before.filter(|before| {
            before.digest == observation.digest
                && before.came_before(&observation.span)
                && !is_unstable
        }) else {
            return false;
        };
        let between =
            |span: &StepSpan| before.came_before(span) && span.done <= observation.span.sent;
        let another = self.runs.iter().any(|run| {
            run.caller.credential != observation.caller.credential
                && self.comparable(run.caller, observation.caller)
                && run.digest != observation.digest
                && (between(&run.first) || between(&run.last))
        });
        if !another {
            return false;
        }
        if writes_since(&before.last) <= 1 {
            return true;
        }
        self.hints = self.hints.saturating_add(1);
        self.hints >= MIN_HINTS
    }
}

#[cfg(test)]
mod tests;
