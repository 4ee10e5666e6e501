//! What two files differ in, and what a reload makes of it.

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
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}")),
    )
}

fn stated(after: &str) -> Vec<(String, ChangeKind, Option<Effect>)> {
    changes(&reading(BEFORE), &reading(after))
        .into_iter()
        .map(|change| (change.what, change.change, change.effect))
        .collect()
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(stated(BEFORE), []);
    assert_eq!(stated(&format!("# a comment\n{BEFORE}")), []);
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
    assert_eq!(stated(&after), expected);
    let off = BEFORE.replace("path = \"/b\"", "path = \"/b\"\nmode = \"off\"");
    assert_eq!(
        stated(&off),
        [(route("/b"), ChangeKind::Changed, Some(Effect::Stay))],
        "it may be switched on again"
    );
}

#[test]
fn routes_are_compared_with_what_they_take_over() {
    let after = BEFORE.replace("[fields]", "[defaults]\nttl = \"5m\"\n[fields]");
    let moved = after.replace("path = \"/b\"\nttl = \"5m\"", "path = \"/b\"");
    let added = ("defaults".to_owned(), ChangeKind::Added, None);
    let route =
        |path: &str| (format!("route {path}"), ChangeKind::Changed, Some(Effect::LeftBehind));
    assert_eq!(stated(&moved), [added, route("/c")], "/b has it as before");
    let longer = moved.replace("[defaults]\nttl = \"5m\"", "[defaults]\nttl = \"6m\"");
    let found: Vec<_> = changes(&reading(&moved), &reading(&longer))
        .into_iter()
        .map(|change| (change.what, change.keys.len()))
        .collect();
    let expected = [("defaults", 1), ("route /b", 1), ("route /c", 1)];
    assert_eq!(found, expected.map(|(what, keys)| (what.to_owned(), keys)));
}

#[test]
fn another_host_in_the_keys_leaves_all_entries_behind() {
    let after = BEFORE.replace("[memory]", "host_key = \"app\"\n[memory]");
    let expected = ("upstream".to_owned(), ChangeKind::Changed, Some(Effect::LeftBehind));
    assert_eq!(stated(&after), [expected]);
    assert!(waiting_for_restart(&reading(BEFORE), &reading(&after)).is_empty());
}

#[test]
fn a_field_changes_the_routes_that_read_it() {
    let after = BEFORE.replace("x-tenant-id", "x-tenant");
    let expected = [
        ("fields".to_owned(), ChangeKind::Changed, None),
        ("route /a".to_owned(), ChangeKind::Changed, Some(Effect::LeftBehind)),
    ];
    assert_eq!(stated(&after), expected);
}

#[test]
fn r1029_the_secret_of_a_session_field_is_not_shown() {
    let field = |secret: &str, age: &str| {
        let fields = format!(
            "{BEFORE}[fields.s]\ncookie = \"s\"\nformat = \"flask\"\nsecret = {secret}\n\
                 max_age = \"{age}\"\n"
        );
        reading(&fields)
    };
    let old = field("\"hunter2-hunter2-hunter2\"", "1h");
    for new in
        [field("[\"hunter3-hunter3-hunter3\", \"hunter2-hunter2-hunter2\"]", "2h"), reading(BEFORE)]
    {
        let shown = serde_json::to_string(&changes(&old, &new)).expect("JSON");
        assert!(!shown.contains("hunter") && shown.contains("(not shown)"), "{shown}");
    }
    let rotated = field("[\"hunter3-hunter3-hunter3\", \"hunter2-hunter2-hunter2\"]", "1h");
    assert_eq!(old.rules_digest(), rotated.rules_digest());
    assert_ne!(old.rules_digest(), reading(BEFORE).rules_digest());
    let routes = changes(&old, &rotated);
    assert!(routes.iter().all(|change| change.what == "fields"), "no entry is left behind");
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
