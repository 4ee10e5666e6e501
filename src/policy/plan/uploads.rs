//! Which uploads can cost others something: those below a path that is cached or purged.

use crate::policy::plan::rules::PolicyRules;
use crate::policy::request_target;

impl PolicyRules {
    /// Whether a route or a purge rule has this path, by any reading of it.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        request_target::readings(path).iter().any(|path| self.routes.have_path(path))
            || request_target::write_readings(path)
                .iter()
                .any(|path| self.purges.iter().any(|rule| rule.captures_of(path).is_some()))
    }
}
