//! Gives routes the values of `[defaults]`, before they are decoded: a value keeps its place in the
//! file, so that a message about it points there.
//!
//! Invariant: a key of a route replaces that of `[defaults]` as a whole. Lists are not joined, so
//! that nobody has to look in two places for what a list holds.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use crate::config::diagnostics::diagnostic::SourceSpan;

/// The keys of a route that have no default: what it is for. Purge rules take nothing over, so that
/// an app of all routes would not be that of the writes that change them.
pub const OWN_KEYS: [&str; 2] = ["path", "app"];

/// Which values of routes come from `[defaults]`.
#[derive(Clone, Debug, Default)]
pub struct DefaultValues {
    /// Where the values stand.
    pub spans: Vec<SourceSpan>,
    /// By where a route begins: the keys that it takes over, and where their values stand.
    inherited: HashMap<usize, Vec<(String, SourceSpan)>>,
}

impl DefaultValues {
    /// What the route that begins here takes over.
    #[must_use]
    pub fn inherited(&self, route: &SourceSpan) -> &[(String, SourceSpan)] {
        self.inherited.get(&route.start).map_or(&[], Vec::as_slice)
    }
}

/// Adds the keys of `[defaults]`, as far as they are among these, to the routes that lack them.
pub fn give_defaults(root: &mut DeTable<'_>, keys: &[&str]) -> DefaultValues {
    let mut values = DefaultValues::default();
    let Some(DeValue::Table(defaults)) = root.get("defaults").map(|one| one.get_ref().clone())
    else {
        return values;
    };
    let counts = |key: &str| !OWN_KEYS.contains(&key) && keys.contains(&key);
    values.spans = defaults.values().map(toml::Spanned::span).collect();
    let Some(DeValue::Array(routes)) = root.get_mut("routes").map(toml::Spanned::get_mut) else {
        return values;
    };
    for route in routes.iter_mut() {
        let start = route.span().start;
        let DeValue::Table(table) = route.get_mut() else { continue };
        let mut taken = Vec::new();
        for (key, value) in &defaults {
            if counts(key.get_ref()) && !table.contains_key(&**key.get_ref()) {
                taken.push((key.get_ref().clone().into_owned(), value.span()));
                table.insert(key.clone(), value.clone());
            }
        }
        values.inherited.insert(start, taken);
    }
    values
}
