//! Tries suggested changes on the file in force, and remembers the results until another file is.
//!
//! SECURITY: strangers choose the names of headers and paths that suggestions are made of, and a
//! trial of a long file takes a tenth of a second. So trials take a fixed share of the time; the
//! rest is tried when somebody asks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::include::FileTexts;
use crate::config::suggestions::TrialFile;
use crate::policy::edit::{Edit, EditTrial};

/// How many results are remembered.
const MAX_RESULTS: usize = 1024;
/// How long changes may be tried within [`TRIAL_PERIOD`]. The trial that reaches it is finished,
/// and the pause after it is longer by as much.
const TRIAL_TIME: Duration = Duration::from_millis(250);
const TRIAL_PERIOD: Duration = Duration::from_secs(1);
/// One part in so many of the time may be spent on trials.
const TRIAL_SHARE: u32 = 4;

/// The file in force, and what came of the changes that were tried on it.
#[derive(Debug)]
pub struct Trials {
    clock: Clock,
    state: Mutex<TrialState>,
    /// One change is tried at a time.
    turn: Mutex<TrialBudget>,
}

#[derive(Debug)]
struct TrialState {
    texts: Arc<FileTexts>,
    /// The texts, compiled; none before the first trial, or if it is not valid any more.
    file: Option<Arc<TrialFile>>,
    results: HashMap<Vec<Edit>, EditTrial>,
}

#[derive(Debug, Default)]
struct TrialBudget {
    /// When the period began.
    since: Option<Instant>,
    spent: Duration,
}

impl Trials {
    /// Without results, for these texts in force.
    #[must_use]
    pub fn new(texts: FileTexts, clock: Clock) -> Self {
        Self { clock, state: Mutex::new(TrialState::new(texts)), turn: Mutex::default() }
    }

    /// Other texts are in force.
    pub fn replace(&self, texts: FileTexts) {
        *self.state.lock() = TrialState::new(texts);
    }

    /// The texts in force.
    #[must_use]
    pub fn texts(&self) -> Arc<FileTexts> {
        Arc::clone(&self.state.lock().texts)
    }

    /// Tries changes, or says what came of them before. `name` is that of the file. Blocks for up
    /// to the time of two trials.
    pub fn try_edits(&self, edits: &[Edit], name: &str) -> EditTrial {
        if let Some(known) = self.state.lock().results.get(edits) {
            return known.clone();
        }
        let mut budget = self.turn.lock();
        let (texts, file) = {
            let state = self.state.lock();
            if let Some(known) = state.results.get(edits) {
                return known.clone();
            }
            (Arc::clone(&state.texts), state.file.clone())
        };
        let began = self.clock.now();
        if !budget.may_begin(began) {
            return EditTrial::Pending;
        }
        // Without the lock of the state: compiling a file takes milliseconds.
        let file = file.or_else(|| TrialFile::new((*texts).clone(), name).map(Arc::new));
        let result = file
            .as_ref()
            .and_then(|file| file.try_edits(edits))
            .map_or(EditTrial::Failed, EditTrial::Passed);
        budget.spent += self.clock.now().saturating_duration_since(began);
        let mut state = self.state.lock();
        if Arc::ptr_eq(&state.texts, &texts) {
            state.file = file;
            if state.results.len() >= MAX_RESULTS {
                state.results.clear();
            }
            state.results.insert(edits.to_vec(), result.clone());
        }
        result
    }
}

impl TrialState {
    fn new(texts: FileTexts) -> Self {
        Self { texts: Arc::new(texts), file: None, results: HashMap::new() }
    }
}

impl TrialBudget {
    /// Whether another trial may begin now.
    fn may_begin(&mut self, now: Instant) -> bool {
        let period = TRIAL_PERIOD.max(self.spent.saturating_mul(TRIAL_SHARE));
        let is_over = self.since.is_none_or(|since| now.saturating_duration_since(since) >= period);
        if is_over {
            *self = Self { since: Some(now), spent: Duration::ZERO };
        }
        self.spent < TRIAL_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "[upstream]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/a\"\nttl = \"9m\"\n";

    #[test]
    fn r974_what_may_be_tried_within_a_second_is_bounded() {
        let clock = Clock::manual();
        let trials = Trials::new(FILE.into(), clock.clone());
        let edits = |ttl: &str| [Edit::text("/a", "ttl", ttl)];
        assert!(matches!(trials.try_edits(&edits("1m"), "proxy.toml"), EditTrial::Passed(_)));
        trials.turn.lock().spent = TRIAL_TIME;
        assert_eq!(trials.try_edits(&edits("2m"), "proxy.toml"), EditTrial::Pending);
        let known = trials.try_edits(&edits("1m"), "proxy.toml");
        assert!(matches!(known, EditTrial::Passed(_)), "what is known costs nothing");
        clock.advance(TRIAL_PERIOD);
        assert!(matches!(trials.try_edits(&edits("2m"), "proxy.toml"), EditTrial::Passed(_)));
        assert_eq!(trials.try_edits(&edits("soon"), "proxy.toml"), EditTrial::Failed);
        // After a trial that took a second.
        trials.turn.lock().spent = TRIAL_PERIOD;
        clock.advance(TRIAL_PERIOD * (TRIAL_SHARE - 1));
        assert_eq!(trials.try_edits(&edits("3m"), "proxy.toml"), EditTrial::Pending);
        clock.advance(TRIAL_PERIOD);
        assert!(matches!(trials.try_edits(&edits("3m"), "proxy.toml"), EditTrial::Passed(_)));
    }

    #[test]
    fn results_are_those_of_the_text_in_force() {
        let trials = Trials::new(FILE.into(), Clock::manual());
        let edits = [Edit::text("/a", "ttl", "1m")];
        assert!(matches!(trials.try_edits(&edits, "proxy.toml"), EditTrial::Passed(_)));
        trials.replace(FILE.replace("/a", "/b").as_str().into());
        assert_eq!(trials.try_edits(&edits, "proxy.toml"), EditTrial::Failed);
    }
}
