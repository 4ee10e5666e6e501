//! Compares two files key by key: what a reload changes, how it affects entries, and what needs a
//! restart.
//!
//! It compares the texts as written in the files, so that no value of a variable is ever shown.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::Config;
use super::rule_name;
use super::rules_digest::rules_digest;
use super::sharing::SharingRules;

/// The sections that are read at startup only.
const AT_START: [&str; 5] = ["listen", "admin", "memory", "redis", "trace"];
/// The keys of `[upstream]` that are read at startup only: writes wait by them as well, in a queue
/// that is made then.
const UPSTREAM_AT_START: [&str; 2] = ["max_waiting", "wait_timeout"];
/// The keys of `[upstream]` that decide which app answers, and as whom it takes the sidecar.
const UPSTREAM_IDENTITY: [&str; 3] = ["url", "host", "user_agent"];
/// The limits that are read at startup only, because they are the sizes of parts that are built
/// then.
const LIMITS_AT_START: [&str; 12] = [
    "object",
    "uploads",
    "admissions",
    "fills",
    "waiters",
    "wait",
    "mutations",
    "stall",
    "variants",
    "refreshes",
    "shadow_keys",
    "pinned",
];
/// Keys whose values are never shown.
const SECRET: [&str; 4] = ["token", "password", "secret", "username"];
/// What stands in their place.
const HIDDEN: &str = "(not shown)";

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Added.
    Added,
    /// Removed.
    Removed,
    /// Changed.
    Changed,
}

/// The effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// Stored entries are still served.
    #[serde(rename = "entries stay")]
    Stay,
    /// Stored entries are no longer found.
    #[serde(rename = "entries are left behind")]
    LeftBehind,
    /// The change takes effect at the next start.
    #[serde(rename = "needs a restart")]
    Restart,
}

/// A changed key. Values are shown as written in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// The old value.
    pub from: Option<String>,
    /// The new value.
    pub to: Option<String>,
}

/// A changed part of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// A section, or a route or a purge rule with its path.
    pub what: String,
    /// The kind of the change.
    pub change: ChangeKind,
    /// The changed keys.
    pub keys: Vec<KeyChange>,
    /// The effect.
    pub effect: Option<Effect>,
}

/// A snapshot of a file: its text, and the policies of its routes.
#[derive(Clone, Debug, Default)]
pub struct ConfigSnapshot {
    tree: Table,
    policies: BTreeMap<String, [u8; 8]>,
    /// Who shares the entries of its routes.
    pub sharing: SharingRules,
}

impl ConfigSnapshot {
    /// The snapshot of a valid file.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let policies = config
            .routes
            .iter()
            .map(|route| (route.name().to_owned(), route.fingerprint))
            .collect();
        // The text has been parsed before, so this cannot fail; an empty tree would differ from
        // every other.
        Self { tree: config.texts().joined(), policies, sharing: SharingRules::from_config(config) }
    }

    /// A digest of the rules in the file: equal digests, equal rules.
    #[must_use]
    pub fn rules_digest(&self) -> String {
        rules_digest(&self.tree)
    }
}

/// The differences between `old` and `new`, in the order of the file's sections.
#[must_use]
pub fn changes(old: &ConfigSnapshot, new: &ConfigSnapshot) -> Vec<ConfigChange> {
    changes_of(old, new, |_| true)
}

/// Those of the sections that are wanted.
fn changes_of(
    old: &ConfigSnapshot,
    new: &ConfigSnapshot,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    let mut names: Vec<&String> = old.tree.keys().chain(new.tree.keys()).collect();
    names.retain(|name| is_wanted(name));
    names.sort();
    names.dedup();
    for name in names {
        let (before, after) = (old.tree.get(name), new.tree.get(name));
        match name.as_str() {
            "routes" => {
                let (before, after) = (effective_routes(&old.tree), effective_routes(&new.tree));
                changes.extend(routes(before.as_ref(), after.as_ref(), old, new));
            }
            "purges" => {
                let rules = listed("purge rule", rule_name::in_file, before, after);
                changes.extend(rules.map(|(_, change)| change));
            }
            "sources" | "notify" => {
                let what = if name == "sources" { "source" } else { "notification" };
                changes.extend(listed(what, source_name, before, after).map(|(_, change)| change));
            }
            "apps" => changes.extend(apps(before, after)),
            // SECURITY: their requests may hold credentials.
            "expect" if before != after => changes.push(ConfigChange {
                what: name.clone(),
                change: kind(before, after),
                keys: Vec::new(),
                effect: None,
            }),
            "expect" => {}
            _ => changes.extend(section(name, before, after)),
        }
    }
    changes
}

/// The keys of `new` that differ from those at startup and need a restart, as `section.key`.
#[must_use]
pub fn waiting_for_restart(started: &ConfigSnapshot, new: &ConfigSnapshot) -> Vec<String> {
    // No rule waits: those of a large file are not compared once more.
    let changes = changes_of(started, new, |name| !matches!(name, "routes" | "purges" | "expect"));
    let waits = changes.into_iter().filter(|change| change.effect == Some(Effect::Restart));
    waits
        .flat_map(|change| {
            let keys = change.keys.into_iter().filter(|key| at_start(&change.what, &key.key));
            keys.map(|key| format!("{}.{}", change.what, key.key)).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a key is read at startup only, so that changing it needs a restart.
#[must_use]
pub fn at_start(section: &str, key: &str) -> bool {
    match section {
        "limits" => LIMITS_AT_START.contains(&key),
        "upstream" => UPSTREAM_AT_START.contains(&key),
        // Connections are judged anew.
        "listen" => key != "trusted_proxies",
        _ => AT_START.contains(&section),
    }
}

fn section(name: &str, before: Option<&Value>, after: Option<&Value>) -> Option<ConfigChange> {
    let (Some(Value::Table(_)) | None, Some(Value::Table(_)) | None) = (before, after) else {
        let keys = vec![KeyChange {
            key: name.to_owned(),
            from: shown(name, before),
            to: shown(name, after),
        }];
        return (before != after).then(|| ConfigChange {
            what: name.to_owned(),
            change: kind(before, after),
            keys,
            effect: None,
        });
    };
    let keys = keys(before.and_then(Value::as_table), after.and_then(Value::as_table));
    let has = |is: &dyn Fn(&str) -> bool| keys.iter().any(|key| is(&key.key));
    let effect = if has(&|key| at_start(name, key)) {
        Some(Effect::Restart)
    } else if name == "upstream"
        && has(&|key| key == "host_key" || UPSTREAM_IDENTITY.contains(&key))
    {
        Some(Effect::LeftBehind)
    } else {
        None
    };
    (!keys.is_empty()).then(|| ConfigChange {
        what: name.to_owned(),
        change: kind(before, after),
        keys,
        effect,
    })
}

/// Apps, paired by their names. No entry of a host is found once another app has that host, nor any
/// entry of an app with another address.
fn apps(before: Option<&Value>, after: Option<&Value>) -> impl Iterator<Item = ConfigChange> {
    let name = |app: &Table| app.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    listed("app", name, before, after).map(|(_, change)| {
        // Of a host that another app had, too.
        ConfigChange { effect: Some(Effect::LeftBehind), ..change }
    })
}

/// The routes of a file with what they take over from `[defaults]`.
fn effective_routes(tree: &Table) -> Option<Value> {
    let mut routes = tree.get("routes")?.clone();
    let defaults = tree.get("defaults").and_then(Value::as_table);
    for route in routes.as_array_mut().into_iter().flatten().filter_map(Value::as_table_mut) {
        for (key, value) in defaults.into_iter().flatten() {
            if !route.contains_key(key) {
                route.insert(key.clone(), value.clone());
            }
        }
    }
    Some(routes)
}

fn routes(
    before: Option<&Value>,
    after: Option<&Value>,
    old: &ConfigSnapshot,
    new: &ConfigSnapshot,
) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    let mut seen = Vec::new();
    for (path, mut change) in listed("route", rule_name::in_file, before, after) {
        change.effect = match (old.policies.get(&path), new.policies.get(&path)) {
            (Some(one), Some(two)) if one == two => Some(Effect::Stay),
            (Some(_), _) => Some(Effect::LeftBehind),
            (None, _) => None,
        };
        seen.push(path);
        changes.push(change);
    }
    // The policy of a route may also change through a field, the credential or the response tags.
    let others = old.policies.iter().filter(|(path, policy)| {
        !seen.contains(path) && new.policies.get(*path).is_some_and(|now| now != *policy)
    });
    changes.extend(others.map(|(path, _)| ConfigChange {
        what: format!("route {path}"),
        change: ChangeKind::Changed,
        keys: Vec::new(),
        effect: Some(Effect::LeftBehind),
    }));
    changes
}

/// Pairs the tables of two lists by name; several of one name in their order.
fn listed(
    what: &'static str,
    name: fn(&Table) -> String,
    before: Option<&Value>,
    after: Option<&Value>,
) -> impl Iterator<Item = (String, ConfigChange)> {
    let (before, after) = (by_name(name, before), by_name(name, after));
    let mut paths: Vec<(String, usize)> = before.keys().chain(after.keys()).cloned().collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().filter_map(move |at| {
        let (old, new) = (before.get(&at), after.get(&at));
        let keys = keys(old, new);
        let change = match (old, new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        let path = at.0;
        (!keys.is_empty()).then(|| {
            (
                path.clone(),
                ConfigChange { what: format!("{what} {path}"), change, keys, effect: None },
            )
        })
    })
}

/// What a source is called in the file.
fn source_name(source: &Table) -> String {
    let text = |key| source.get(key).and_then(Value::as_str);
    text("name").or_else(|| text("kind")).unwrap_or_default().to_owned()
}

fn by_name(name: fn(&Table) -> String, list: Option<&Value>) -> BTreeMap<(String, usize), Table> {
    let mut found = BTreeMap::new();
    for table in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table) {
        let path = name(table);
        let nth = found.range((path.clone(), 0)..=(path.clone(), usize::MAX)).count();
        found.insert((path, nth), table.clone());
    }
    found
}

fn keys(before: Option<&Table>, after: Option<&Table>) -> Vec<KeyChange> {
    let empty = Table::new();
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ
        .map(|name| KeyChange {
            key: name.clone(),
            from: shown(name, before.get(name)),
            to: shown(name, after.get(name)),
        })
        .collect()
}

const fn kind(before: Option<&Value>, after: Option<&Value>) -> ChangeKind {
    match (before, after) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    }
}

/// A value for display. SECURITY: secrets and the user part of URLs are hidden.
fn shown(key: &str, value: Option<&Value>) -> Option<String> {
    let value = value?;
    // A field may be called `token`, and its table holds no value of a request.
    let hidden = (SECRET.contains(&key) && !value.is_table())
        || (key == "url" && value.as_str().is_some_and(|url| url.contains('@')));
    Some(if hidden { HIDDEN.to_owned() } else { without_secrets(value).to_string() })
}

/// A value in which the secrets of fields are hidden.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Table(table) => {
            let hide = |(key, value): (&String, &Value)| {
                let is_secret = SECRET.contains(&key.as_str()) && !value.is_table();
                let shown = if is_secret { Value::from(HIDDEN) } else { without_secrets(value) };
                (key.clone(), shown)
            };
            Value::Table(table.iter().map(hide).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
