//! Text for fingerprints that is the same for many routes.

use std::fmt;

/// What is shown again and again, as it was shown the first time.
#[derive(Clone)]
pub(super) struct ShownOnce(Box<str>);

impl ShownOnce {
    pub(super) fn new(shown: &impl fmt::Debug) -> Self {
        Self(format!("{shown:?}").into())
    }
}

impl fmt::Debug for ShownOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
