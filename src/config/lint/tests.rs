//! Shows each warning in a file that has it, and that the corrected file has none.

use crate::config::include::IncludeSource;
use crate::config::{Config, Diagnostic, Severity};

mod body_reads;
mod callers;
mod headers;
mod matches;
mod memory;
mod purges;
mod scopes;
mod sections;
mod slashes;
#[cfg(feature = "postgres")]
mod sources;
mod switch;
mod times;

/// The start of every file. It has no warnings.
const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";

fn warnings(text: &str) -> Vec<Diagnostic> {
    let text = format!("{HEAD}{text}");
    let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    Config::parse(&text, "proxy.toml", &env)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
        .warnings
}

fn silent(text: &str) {
    let warnings = warnings(text);
    assert!(
        warnings.is_empty(),
        "{text}\n{}",
        warnings.iter().map(ToString::to_string).collect::<String>()
    );
}

/// Expects exactly one warning, at this text of the file, with these words in it and in its hint.
fn one(text: &str, at: &str, message: &str, hint: &str) {
    let warnings = warnings(text);
    let drawn: String = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{text}\n{drawn}");
    let found = &warnings[0];
    assert_eq!((found.severity, found.found.as_str()), (Severity::Warning, at), "{drawn}");
    assert!(found.line > 0 && found.column > 0, "{drawn}");
    assert!(found.message.contains(message), "{message}: {drawn}");
    assert!(found.hint.as_deref().is_some_and(|stated| stated.contains(hint)), "{hint}: {drawn}");
}

/// Replaces one text by another; both files differ in that alone.
fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in {text}");
    text.replacen(old, new, 1)
}

/// A tenant's list, purged as it should be.
const LIST: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }
[[routes]]
path  = "/api/items"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]
tags  = ["items:{tenant}"]
[[purges]]
path = "/api/items/{*rest}"
tags = ["items:{tenant}"]
"#;

#[test]
fn a_file_as_it_should_be_is_silent() {
    silent(LIST);
    silent(&with(LIST, "scope = \"shared\"\n", ""));
}

#[test]
fn the_shipped_file_is_silent() {
    let text = include_str!("../../../proxy.toml");
    let config = Config::parse(text, "proxy.toml", &|_| None)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

/// The TOML blocks of each document, with its page, without indents.
fn blocks_of_the_documents() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = ["README.md", "deploy/README.md", "deploy/nginx/README.md"]
        .map(|page| root.join(page))
        .to_vec();
    let mut folders = vec![root.join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the manual") {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path);
            }
        }
    }
    let mut blocks = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page of the manual");
        let mut block: Option<String> = None;
        for line in text.lines().map(str::trim_start) {
            match &mut block {
                Some(_) if line.starts_with("```") => {
                    blocks.extend(block.take().map(|block| (page.display().to_string(), block)));
                }
                Some(block) => block.extend([line, "\n"]),
                None if line == "```toml" => block = Some(String::new()),
                None => {}
            }
        }
        assert!(block.is_none(), "{}: a block of TOML without an end", page.display());
    }
    blocks
}

/// Whether a block is a file of its own, and not lines to add to one.
fn is_whole(block: &str) -> bool {
    block.contains("[upstream]") && block.contains("[[routes]]")
}

#[test]
fn the_files_of_the_documents_are_silent() {
    let blocks = blocks_of_the_documents();
    for page in ["README.md", "start/your-app.md"] {
        assert!(
            blocks.iter().any(|(at, block)| at.ends_with(page) && is_whole(block)),
            "{page} shows a whole file"
        );
    }
    for (page, text) in blocks.iter().filter(|(_, block)| is_whole(block)) {
        let config =
            Config::parse(text, "proxy.toml", &|_| Some("a-secret-of-the-app-that-is-long".into()))
                .unwrap_or_else(|diagnostics| panic!("{page}: {diagnostics}"));
        assert!(config.warnings.is_empty(), "{page}: {text}\n{:?}", config.warnings);
    }
}

#[test]
fn the_lines_that_the_documents_show_have_no_mistakes() {
    let blocks = blocks_of_the_documents();
    let parts: Vec<_> = blocks.iter().filter(|(_, block)| !is_whole(block)).collect();
    assert!(parts.len() > 10, "the manual shows lines to add: {}", parts.len());
    for (page, text) in parts {
        // Keys before the first section belong to the top of the file.
        let text = match text.contains("[upstream]") {
            true => text.clone(),
            false if text.trim_start().starts_with('[') => format!("{HEAD}{text}"),
            false => format!("{text}\n{HEAD}"),
        };
        // The variables without a default hold secrets.
        let is_secret = |name: &str| {
            ["_SECRET", "_SECRET_KEY", "_TOKEN", "_PASSWORD"].iter().any(|end| name.ends_with(end))
        };
        let env = |name: &str| is_secret(name).then(|| "sixteencharacter".to_owned());
        let from = IncludeSource::Given(&[]);
        let diagnostics = Config::parse_with(&text, "proxy.toml", &env, from).err();
        assert!(
            diagnostics.is_none(),
            "{page}: {text}\n{}",
            diagnostics.map(|diagnostics| diagnostics.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn a_warning_that_is_right_as_it_is_can_be_said_to_be() {
    let long = with(
        &with(LIST, "ttl   = \"5m\"", "ttl   = \"9d\""),
        "tags = [\"items:{tenant}\"]\n",
        "tags = [\"items:{tenant}\"]\nmethods = [\"POST\"]\n",
    );
    one(&long, "[\"POST\"]", "PUT, PATCH, DELETE", "`# check: ok`");
    for comment in ["# check: ok", "#check: ok, the app knows no others (see #12)"] {
        silent(&with(&long, "[\"POST\"]", &format!("[\"POST\"] {comment}")));
    }
    one(
        &with(&long, "[\"POST\"]", "[\"POST\"] # checked"),
        "[\"POST\"]",
        "PUT",
        "remove `methods`",
    );
    let bad = format!("{HEAD}[memory]\nsize = \"5\" # check: ok\n");
    assert!(Config::parse(&bad, "proxy.toml", &|_| None).is_err(), "an error stays one");
}
