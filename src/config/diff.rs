//! What one file says otherwise than another, key by key: what a reload changes, what it does to
//! entries, and what has to wait for a restart.
//!
//! It compares the texts as they stand in the files, so that no value of the environment is ever
//! shown.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::Config;

/// The sections that are read at the start alone.
const AT_START: [&str; 6] = ["listen", "upstream", "admin", "memory", "redis", "log"];
/// The bounds that are read at the start alone: they are the sizes of what was made then.
const LIMITS_AT_START: [&str; 9] = [
    "object",
    "admissions",
    "fills",
    "waiters",
    "wait",
    "mutations",
    "variants",
    "refreshes",
    "shadow_keys",
];
/// Keys whose values are nobody's business.
const SECRET: [&str; 4] = ["token", "password", "secret", "username"];

/// Whether something is new, gone, or other than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is no longer there.
    Removed,
    /// It says something else.
    Changed,
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// What is stored is served on.
    #[serde(rename = "entries stay")]
    Stay,
    /// What is stored is not found any more.
    #[serde(rename = "entries are left behind")]
    LeftBehind,
    /// It counts from the next start on.
    #[serde(rename = "needs a restart")]
    Restart,
}

/// A key that says something else. Values are written as in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// What it said.
    pub from: Option<String>,
    /// What it says.
    pub to: Option<String>,
}

/// A part of the file that says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// A section, a route by its path, a purge rule by its path.
    pub what: String,
    /// Whether it is new, gone, or changed.
    pub change: ChangeKind,
    /// Its keys that differ.
    pub keys: Vec<KeyChange>,
    /// What that does.
    pub effect: Option<Effect>,
}

/// A file as it was read: its text, and the policies of its routes.
#[derive(Clone, Debug, Default)]
pub struct ConfigSnapshot {
    tree: Table,
    policies: BTreeMap<String, [u8; 8]>,
}

impl ConfigSnapshot {
    /// The reading of a file that can be used.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let policies = config
            .routes
            .iter()
            .map(|route| (route.name().to_owned(), route.fingerprint))
            .collect();
        // It was parsed before; whatever cannot be parsed again differs from everything.
        Self { tree: config.text.parse().unwrap_or_default(), policies }
    }
}

/// What `new` says otherwise than `old`, in the order of the file's sections.
#[must_use]
pub fn changes(old: &ConfigSnapshot, new: &ConfigSnapshot) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    let mut names: Vec<&String> = old.tree.keys().chain(new.tree.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (before, after) = (old.tree.get(name), new.tree.get(name));
        match name.as_str() {
            "routes" => changes.extend(routes(before, after, old, new)),
            "purges" => {
                changes.extend(listed("purge rule", before, after).map(|(_, change)| change))
            }
            _ => changes.extend(section(name, before, after)),
        }
    }
    changes
}

/// The keys of which `new` wants something else than what runs since the start, as `section.key`.
#[must_use]
pub fn waiting_for_restart(started: &ConfigSnapshot, new: &ConfigSnapshot) -> Vec<String> {
    let waits =
        changes(started, new).into_iter().filter(|change| change.effect == Some(Effect::Restart));
    waits
        .flat_map(|change| {
            let keys = change.keys.into_iter().filter(|key| at_start(&change.what, &key.key));
            keys.map(|key| format!("{}.{}", change.what, key.key)).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a key is read at the start alone, so that a change of it waits for a restart.
#[must_use]
pub fn at_start(section: &str, key: &str) -> bool {
    AT_START.contains(&section) || (section == "limits" && LIMITS_AT_START.contains(&key))
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
    let effect = keys.iter().any(|key| at_start(name, &key.key)).then_some(Effect::Restart);
    (!keys.is_empty()).then(|| ConfigChange {
        what: name.to_owned(),
        change: kind(before, after),
        keys,
        effect,
    })
}

fn routes(
    before: Option<&Value>,
    after: Option<&Value>,
    old: &ConfigSnapshot,
    new: &ConfigSnapshot,
) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    let mut seen = Vec::new();
    for (path, mut change) in listed("route", before, after) {
        change.effect = match (old.policies.get(&path), new.policies.get(&path)) {
            (Some(one), Some(two)) if one == two => Some(Effect::Stay),
            (Some(_), _) => Some(Effect::LeftBehind),
            (None, _) => None,
        };
        seen.push(path);
        changes.push(change);
    }
    // What a route says may be changed by what a field, the credential or the tags of answers say.
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

/// The tables of a list, each found again by its path; several of one path in their order.
fn listed(
    what: &'static str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> impl Iterator<Item = (String, ConfigChange)> {
    let (before, after) = (by_path(before), by_path(after));
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

fn by_path(list: Option<&Value>) -> BTreeMap<(String, usize), Table> {
    let mut found = BTreeMap::new();
    for table in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table) {
        let path = table.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
        let nth = found.keys().filter(|(known, _): &&(String, usize)| *known == path).count();
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

/// A value as it may be shown. SECURITY: neither secrets nor what a url says of a user.
fn shown(key: &str, value: Option<&Value>) -> Option<String> {
    let value = value?;
    let hidden = SECRET.contains(&key)
        || (key == "url" && value.as_str().is_some_and(|url| url.contains('@')));
    Some(if hidden { "(not shown)".to_owned() } else { value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
[upstream]
url = "http://127.0.0.1:1"
[memory]
size = "64MiB"
[redis]
url = "redis://user:hunter2@127.0.0.1:6379/0"
[fields]
tenant = { header = "x-tenant-id" }
[[routes]]
path = "/a"
ttl = "5m"
key = ["tenant"]
[[routes]]
path = "/b"
ttl = "5m"
[[routes]]
path = "/c"
[[purges]]
path = "/a"
tags = ["a"]
"#;

    fn reading(text: &str) -> ConfigSnapshot {
        ConfigSnapshot::from_config(
            &Config::parse(text, "proxy.toml", &|_| None)
                .unwrap_or_else(|problems| panic!("{problems}")),
        )
    }

    fn told(after: &str) -> Vec<(String, ChangeKind, Option<Effect>)> {
        changes(&reading(BEFORE), &reading(after))
            .into_iter()
            .map(|change| (change.what, change.change, change.effect))
            .collect()
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert_eq!(told(BEFORE), []);
        assert_eq!(told(&format!("# a comment\n{BEFORE}")), []);
    }

    #[test]
    fn a_route_tells_what_becomes_of_its_entries() {
        let after = BEFORE
            .replacen("ttl = \"5m\"", "ttl = \"1m\"", 1)
            .replace("path = \"/c\"", "path = \"/d\"\nmode = \"off\"");
        let route = |path: &str| format!("route {path}");
        let expected = [
            (route("/a"), ChangeKind::Changed, Some(Effect::LeftBehind)),
            (route("/c"), ChangeKind::Removed, Some(Effect::LeftBehind)),
            (route("/d"), ChangeKind::Added, None),
        ];
        assert_eq!(told(&after), expected);
        let off = BEFORE.replace("path = \"/b\"", "path = \"/b\"\nmode = \"off\"");
        assert_eq!(
            told(&off),
            [(route("/b"), ChangeKind::Changed, Some(Effect::Stay))],
            "it may be switched on again"
        );
    }

    #[test]
    fn a_field_changes_the_routes_that_read_it() {
        let after = BEFORE.replace("x-tenant-id", "x-tenant");
        let expected = [
            ("fields".to_owned(), ChangeKind::Changed, None),
            ("route /a".to_owned(), ChangeKind::Changed, Some(Effect::LeftBehind)),
        ];
        assert_eq!(told(&after), expected);
    }

    #[test]
    fn what_is_read_at_the_start_waits_for_the_next() {
        let after = BEFORE.replace("64MiB", "65MiB").replace("hunter2", "hunter3");
        let (old, new) = (reading(BEFORE), reading(&after));
        assert_eq!(waiting_for_restart(&old, &new), ["memory.size", "redis.url"]);
        let shown = serde_json::to_string(&changes(&old, &new)).expect("JSON");
        assert!(!shown.contains("hunter") && shown.contains("needs a restart"), "{shown}");
        let limits = format!("{BEFORE}[limits]\ntags = 3\nwaiters = 5\nshadow_keys = 7\n");
        assert_eq!(
            waiting_for_restart(&old, &reading(&limits)),
            ["limits.shadow_keys", "limits.waiters"]
        );
    }
}
