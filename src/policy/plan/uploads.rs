//! Which uploads can cost others something: those below a path that is cached or purged.

use crate::policy::apps::AppId;
use crate::policy::plan::rules::PolicyRules;
use crate::policy::request_target;

impl PolicyRules {
    /// Whether a route or a purge rule of an app has this path, by any reading of it.
    #[must_use]
    pub fn has_path(&self, app: AppId, path: &str) -> bool {
        let rules = || self.purges.iter().filter(|rule| rule.app.id == app);
        request_target::readings(path).iter().any(|path| self.routes.have_path(app, path))
            || request_target::write_readings(path)
                .iter()
                .any(|path| rules().any(|rule| rule.captures_of(path).is_some()))
    }
}
