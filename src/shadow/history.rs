//! What one more answer of the app means for a key: pure, without a clock.
//!
//! Time is counted in steps: whatever happens in this process takes the next number, so that of two
//! things that did not overlap it is known which came first. Of those that did, nothing is
//! concluded.
//!
//! What is concluded, and from what:
//! - *Stale*: a caller would have been served what is stored, and the app has just answered this
//!   very caller otherwise than it did since that was stored. Another caller's body proves no
//!   change.
//! - *Scope*: one caller got the same body before and after another caller got another one. Data
//!   that changes comes back to what it was only by a second change: with more than one write in
//!   between it takes several of these to conclude anything.
//! - *Volatile*: one caller's body changed repeatedly while nobody wrote, for a good part of all
//!   looks. Then a change says nothing of a write, nor of a caller.

use smallvec::SmallVec;

/// How many callers of one key are remembered.
pub const MAX_CALLERS: usize = 8;

/// How many changes without a write make a key volatile.
const CALM_CHANGES: u16 = 2;

/// How many agreeing observations conclude what a single one does not.
const MIN_HINTS: u8 = 3;

/// The number of something that happened.
pub type Step = u64;

/// The first half of the SHA-256 of a status and a body.
pub type Digest = [u8; 16];

/// From before the app was asked until its answer was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpan {
    /// Before the app was asked.
    pub sent: Step,
    /// After its answer was whole.
    pub done: Step,
    /// How often the local table had purged by the time of `sent`: moves with the writes of other
    /// sidecars too.
    pub purges: u64,
}

/// Who asked, and with what that no key has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Names the credential; 0 for none.
    pub credential: u64,
    /// Names the part of the query that a fill would withhold; 0 where there is none.
    pub withheld_query: u64,
}

/// A whole answer of the app.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// To whom.
    pub caller: Caller,
    /// What it was.
    pub digest: Digest,
    /// When.
    pub span: StepSpan,
    /// Whether what is stored would have been served in its place.
    pub hit: bool,
}

/// What is stored, were it stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Whose answer it is.
    pub caller: Caller,
    /// What it is; unknown of an answer whose body has not come by.
    pub digest: Option<Digest>,
    /// When it was fetched.
    pub span: StepSpan,
    /// What it changed to, as far as somebody has seen it change.
    moved_to: Option<Digest>,
}

/// The same body to one caller, as often as it came in a row.
#[derive(Clone, Copy, Debug)]
struct Run {
    caller: Caller,
    digest: Digest,
    first: StepSpan,
    last: StepSpan,
    /// Whether it has changed since what is stored was fetched.
    moved: bool,
}

/// All that is remembered of a key.
#[derive(Clone, Debug, Default)]
pub struct History {
    stored: Option<Stored>,
    runs: SmallVec<[Run; 1]>,
    /// Whether what a fill would withhold was seen not to matter.
    withheld_query_is_idle: bool,
    same: u16,
    calm_changes: u16,
    hints: u8,
    volatile: bool,
    scoped: bool,
}

/// What an answer would have been wrong for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleFinding {
    /// The body has changed since this look, which was the last to see it as it was.
    Changed {
        /// When that was.
        since: StepSpan,
    },
    /// The change was seen before, and what is stored is still from before it.
    Still,
}

/// What a look means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryVerdict {
    /// What would have been served was out of date.
    pub stale: Option<StaleFinding>,
    /// What would have been served was another caller's, or the key is known for it only now.
    pub scope: bool,
    /// The key has just turned out to be volatile: what was concluded of it before does not hold.
    pub turned_volatile: bool,
    /// Another caller was forgotten for this one.
    pub forgot_caller: bool,
}

impl Stored {
    /// What this caller's answer would leave in the store.
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
    /// What is stored.
    #[must_use]
    pub const fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// Whether the body differs by itself.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Whether the body was ever seen to stay as it was.
    #[must_use]
    pub const fn has_stayed(&self) -> bool {
        self.same > 0
    }

    /// Puts an answer in the place of what is stored.
    pub fn store(&mut self, stored: Option<Stored>) {
        self.stored = stored;
        self.runs.iter_mut().for_each(|run| run.moved = false);
    }

    /// Takes note of an answer. `writes_since` tells how many writes overlap the time from the
    /// beginning of a span to the end of this look.
    pub fn observe(
        &mut self,
        look: &Observation,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> HistoryVerdict {
        let mut verdict = HistoryVerdict::default();
        let served = self.stored.filter(|_| look.hit);
        let differs =
            served.is_some_and(|stored| stored.digest.is_some_and(|digest| digest != look.digest));
        if let (true, Some(Stored { digest: digest @ None, .. })) = (look.hit, &mut self.stored) {
            *digest = Some(look.digest);
        }
        let before = self.run_of(look.caller).map(|at| self.runs[at]);
        if let Some(before) = before.filter(|before| before.came_before(&look.span)) {
            verdict.turned_volatile = self.weigh(&before, look, writes_since);
        }
        let since = before
            .filter(|before| before.came_before(&look.span) && before.digest != look.digest)
            .map(|before| before.last);
        let changed =
            since.filter(|since| served.is_some_and(|stored| since.done >= stored.span.done));
        self.remember(look, changed.is_some(), &mut verdict);
        if let (true, Some(stored)) = (differs, served) {
            verdict.stale = self.stale(look, &stored, changed);
        }
        if !self.scoped && self.is_sandwiched(look, before.as_ref(), writes_since) {
            self.scoped = true;
            verdict.scope = true;
        } else if self.scoped && differs && verdict.stale.is_none() {
            verdict.scope =
                served.is_some_and(|stored| stored.caller.credential != look.caller.credential);
        }
        if self.volatile {
            verdict.scope = false;
        }
        verdict
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

    /// Weighs whether the body stays by itself. Says whether the key has turned out to be volatile.
    fn weigh(
        &mut self,
        before: &Run,
        look: &Observation,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> bool {
        if before.digest == look.digest {
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
        look: &Observation,
        stored: &Stored,
        changed: Option<StepSpan>,
    ) -> Option<StaleFinding> {
        // Others may have seen the same change before.
        if let Some(since) = changed.filter(|_| stored.moved_to != Some(look.digest)) {
            if let Some(stored) = &mut self.stored {
                stored.moved_to = Some(look.digest);
            }
            return Some(StaleFinding::Changed { since });
        }
        let own = self.run_of(look.caller).is_some_and(|at| self.runs[at].moved);
        let its_own = stored.caller.credential == look.caller.credential
            && self.comparable(stored.caller, look.caller);
        (own || its_own || stored.moved_to == Some(look.digest)).then_some(StaleFinding::Still)
    }

    /// Remembers the look.
    fn remember(&mut self, look: &Observation, changed: bool, verdict: &mut HistoryVerdict) {
        let same_elsewhere = |run: &Run| {
            run.caller.credential == look.caller.credential
                && run.caller.withheld_query != look.caller.withheld_query
                && run.digest == look.digest
        };
        self.withheld_query_is_idle |= self.runs.iter().any(same_elsewhere);
        let back = self.stored.is_some_and(|stored| stored.digest == Some(look.digest));
        let fresh = Run {
            caller: look.caller,
            digest: look.digest,
            first: look.span,
            last: look.span,
            moved: changed && !back,
        };
        match self.run_of(look.caller) {
            Some(at) => {
                let run = &mut self.runs[at];
                if run.digest == look.digest {
                    if run.last.sent < look.span.sent {
                        run.last = look.span;
                    }
                    run.moved &= !back;
                } else if run.last.sent < look.span.sent {
                    let moved = (fresh.moved || run.moved) && !back;
                    *run = Run { moved, ..fresh };
                }
            }
            None if self.runs.len() < MAX_CALLERS => self.runs.push(fresh),
            None => {
                verdict.forgot_caller = true;
                if let Some(oldest) = self.runs.iter_mut().min_by_key(|run| run.last.sent) {
                    *oldest = fresh;
                }
            }
        }
    }

    /// Whether this look completes the proof that two callers get two bodies: what this one got
    /// before and gets again, with another's look in between that brought another body.
    fn is_sandwiched(
        &mut self,
        look: &Observation,
        before: Option<&Run>,
        writes_since: &dyn Fn(&StepSpan) -> usize,
    ) -> bool {
        let restless = u32::from(self.calm_changes) * 4 > u32::from(self.same);
        let Some(before) = before.filter(|before| {
            before.digest == look.digest && before.came_before(&look.span) && !restless
        }) else {
            return false;
        };
        let between = |span: &StepSpan| before.came_before(span) && span.done <= look.span.sent;
        let another = self.runs.iter().any(|run| {
            run.caller.credential != look.caller.credential
                && self.comparable(run.caller, look.caller)
                && run.digest != look.digest
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
