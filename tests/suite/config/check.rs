//! A proxy.toml that is wrong says so: everything at once, each mistake at its place.

use std::path::{Path, PathBuf};

use crate::support::sidecar::{check, check_file};

/// Each mistake stands where `<<` and `>>` enclose it; these are removed before the file is
/// checked.
const SEVEN_MISTAKES: &str = r#"
[listen]
address = <<"localhost">>

[upstream]
url = "http://127.0.0.1:8000"

[memory]
size = <<"64 quux">>

[fields]
tenant = { header = "x-tenant-id" }

[[routes]]
path  = "/api/v1/campaigns"
<<ttll>> = "5m"
key   = ["tenant"]

[[routes]]
path  = "/api/v1/forms"
ttl   = <<"5">>
scope = <<"everyone">>
key   = ["<<tennant>>"]

[[routes]]
path = "/api/v1/forms/{id}"
ttl  = "5m"
tags = ["form:{<<idd>>}"]
"#;

/// The text without its marks, and the line and column (both from 1) of each.
fn unmarked(marked: &str) -> (String, Vec<(usize, usize, String)>) {
    let mut places = Vec::new();
    let mut text = String::new();
    for (line, content) in marked.lines().enumerate() {
        if let (Some(start), Some(end)) = (content.find("<<"), content.find(">>")) {
            places.push((
                line + 1,
                start + 1,
                content[start + 2..end].trim_matches('"').to_owned(),
            ));
        }
        text.push_str(&content.replace("<<", "").replace(">>", ""));
        text.push('\n');
    }
    (text, places)
}

#[test]
fn seven_mistakes_get_seven_located_messages_at_once() {
    let (text, places) = unmarked(SEVEN_MISTAKES);
    assert_eq!(places.len(), 7);
    let output = check(&text);
    assert_eq!(output.status.code(), Some(64));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for (line, column, value) in &places {
        assert!(
            said.contains(&format!(":{line}:{column}")),
            "nothing is said of line {line}, column {column}:\n{said}"
        );
        assert!(said.contains(value.as_str()), "{value} is not shown:\n{said}");
    }
    for hint in ["ttl", "tenant", "shared", "id"] {
        assert!(said.contains(hint), "{hint} is not offered:\n{said}");
    }
}

#[test]
fn unknown_key_gets_the_nearest_known_one() {
    let output = check("[upstream]\nurl = \"http://127.0.0.1:8000\"\n[memory]\nsizee = \"1MiB\"\n");
    assert_eq!(output.status.code(), Some(64));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(":4:1") && said.contains("sizee") && said.contains("size"), "{said}");
}

#[test]
fn text_that_is_no_toml_is_located() {
    let output = check("[upstream]\nurl = \"http://127.0.0.1:8000\n");
    assert_eq!(output.status.code(), Some(64));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(":2:"), "{said}");
}

#[test]
fn routes_that_could_tie_are_refused() {
    let route = |path: &str| format!("[[routes]]\npath = \"{path}\"\nttl = \"5m\"\n");
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n{}{}",
        route("/a/{x}"),
        route("/a/{y}")
    );
    let output = check(&text);
    assert_eq!(output.status.code(), Some(64));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("/a/{x}") && said.contains("/a/{y}"), "both are named:\n{said}");
}

#[test]
fn file_that_is_missing_is_named() {
    let output = check_file(Path::new("/no/such/proxy.toml"));
    assert_eq!(output.status.code(), Some(64));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("/no/such/proxy.toml"), "{said}");
}

#[test]
fn shipped_file_is_right() {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
    let output = check_file(&file);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{said}");
}
