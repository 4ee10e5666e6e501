//! Tries suggested changes on the file in force, and remembers the results until another file is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::suggestions::TrialFile;
use crate::policy::edit::{Edit, TriedEdits};

/// How many results are remembered.
const MAX_RESULTS: usize = 256;

/// The file in force, and what came of the changes that were tried on it.
#[derive(Debug)]
pub struct Trials(Mutex<TrialState>);

#[derive(Debug)]
struct TrialState {
    text: Arc<str>,
    results: HashMap<Vec<Edit>, Option<TriedEdits>>,
}

impl Trials {
    /// Without results, for this text in force.
    #[must_use]
    pub fn new(text: Arc<str>) -> Self {
        Self(Mutex::new(TrialState { text, results: HashMap::new() }))
    }

    /// Another text is in force.
    pub fn replace(&self, text: Arc<str>) {
        *self.0.lock() = TrialState { text, results: HashMap::new() };
    }

    /// The text in force.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0.lock().text)
    }

    /// The changes as they may be shown; `None` if they may not. `name` is that of the file.
    pub fn try_edits(&self, edits: &[Edit], name: &str) -> Option<TriedEdits> {
        let text = {
            let state = self.0.lock();
            if let Some(known) = state.results.get(edits) {
                return known.clone();
            }
            Arc::clone(&state.text)
        };
        // Without the lock: compiling a file takes milliseconds.
        let result = TrialFile::new(&text, name).and_then(|file| file.try_edits(edits));
        let mut state = self.0.lock();
        if Arc::ptr_eq(&state.text, &text) {
            if state.results.len() >= MAX_RESULTS {
                state.results.clear();
            }
            state.results.insert(edits.to_vec(), result.clone());
        }
        result
    }
}
