//! Style as a test: what a file may import, how wide and long it and its functions may be, the
//! words it must not use, and that a name means one type.
//!
//! In the manner of `TigerBeetle`'s `tidy.zig`. Reads the text under `src`; plain `std`, no parser:
//! the code is rustfmt's, which makes it regular enough. Every check is shown to fail on a sample.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/dialect.rs"]
mod dialect;
#[path = "tidy/platform.rs"]
mod platform;
#[path = "tidy/samples.rs"]
mod samples;
#[path = "tidy/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use text::{code_of, end_of_item, is_ident, line_of, without_tests, words};

/// From the top down: a file imports from its own layer and from those below it, and folders of
/// one layer do not import each other. `foo/bar.rs` belongs where `foo` does.
#[rustfmt::skip]
const LAYERS: [(&str, &[&str]); 14] = [
    ("commands", &["main", "cli"]),
    ("app", &["app"]),
    ("config", &["config"]),
    ("listeners", &["admin", "server"]),
    ("flow", &["proxy"]),
    ("shadow", &["notify", "shadow", "sources", "uncached"]),
    ("cache", &["cache"]),
    ("coherence", &["coherence"]),
    ("clients", &["redis", "upstream"]),
    ("policy", &["policy"]),
    ("semantics", &["semantics"]),
    ("shares", &["shares"]),
    ("telemetry", &["telemetry"]),
    ("leaves", &["outcome", "error", "clock", "descriptors", "input_file", "peer_address", "secret", "spelling", "units"]),
];

/// The layers without I/O: values in, values out.
const PURE: [&str; 2] = ["policy", "semantics"];

/// The files that see every layer: the map of the crate, the one that starts it, and what the fuzzer
/// runs.
const EXEMPT_FROM_LAYERS: [&str; 3] = ["lib.rs", "main.rs", "fuzz.rs"];

const MAX_WIDTH: usize = 100;
const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 80;

/// A word, and what to write in its place.
struct Ban {
    word: &'static str,
    instead: &'static str,
    applies: Applies,
    /// Whether the file, by its path under `src`, may use the word.
    allowed: fn(&str) -> bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Applies {
    /// To code that ships: not to tests, comments and strings.
    Production,
    /// To all code, tests too.
    Code,
    /// To every character of the file.
    Text,
}

#[rustfmt::skip]
const BANS: &[Ban] = &[
    Ban { word: "Instant::now(", instead: "take the time as an argument, or clock.now()",
        applies: Applies::Code, allowed: is_clock },
    Ban { word: "SystemTime::now(", instead: "take the time as an argument, or clock.wall()",
        applies: Applies::Code, allowed: is_clock },
    Ban { word: "fred::", instead: "what redis.rs offers: this folder alone knows how its client \
        fails", applies: Applies::Code, allowed: is_redis },
    Ban { word: "tokio::", instead: "values in, values out: policy and semantics are pure, the \
        flow does the waiting", applies: Applies::Production, allowed: is_not_pure },
    Ban { word: ".unwrap()", instead: "`?`, a default, or `expect` with the invariant that makes \
        it true", applies: Applies::Production, allowed: nowhere },
    Ban { word: "RwLock", instead: "a Mutex around a few lines, or arc-swap for what is mostly \
        read", applies: Applies::Code, allowed: nowhere },
    Ban { word: "PoisonError", instead: "parking_lot::Mutex, around what is whole between any two \
        statements that could panic", applies: Applies::Code, allowed: nowhere },
    Ban { word: "unsafe", instead: "safe code", applies: Applies::Code, allowed: is_entry_point },
    Ban { word: "todo!(", instead: "the code", applies: Applies::Code, allowed: nowhere },
    Ban { word: "unimplemented!(", instead: "the code", applies: Applies::Code, allowed: nowhere },
    Ban { word: "dbg!(", instead: "tracing", applies: Applies::Code, allowed: nowhere },
    Ban { word: "println!(", instead: "tracing; only commands print",
        applies: Applies::Code, allowed: prints },
    Ban { word: "eprintln!(", instead: "tracing; only commands print",
        applies: Applies::Code, allowed: prints },
    Ban { word: "print!(", instead: "tracing; only commands print",
        applies: Applies::Code, allowed: prints },
    Ban { word: "eprint!(", instead: "tracing; only commands print",
        applies: Applies::Code, allowed: prints },
    Ban { word: "TODO", instead: "the code, or an issue",
        applies: Applies::Text, allowed: nowhere },
    Ban { word: "FIXME", instead: "the code, or an issue",
        applies: Applies::Text, allowed: nowhere },
];

fn nowhere(_: &str) -> bool {
    false
}

fn is_entry_point(path: &str) -> bool {
    path == "main.rs"
}

fn is_clock(path: &str) -> bool {
    module_of(path) == "clock"
}

fn is_redis(path: &str) -> bool {
    module_of(path) == "redis"
}

fn is_not_pure(path: &str) -> bool {
    !PURE.contains(&module_of(path))
}

fn prints(path: &str) -> bool {
    ["main", "cli", "config"].contains(&module_of(path))
}

#[test]
fn the_sources_are_tidy() {
    let mut report = String::new();
    for (path, source) in sources() {
        for (line, problem) in check(&path, &source) {
            writeln!(report, "src/{path}:{line}: {problem}").unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = sources();
    let code: Vec<(&str, String)> =
        sources.iter().map(|(path, source)| (path.as_str(), production(path, source))).collect();
    let files: Vec<(&str, &str)> = code.iter().map(|(path, code)| (*path, code.as_str())).collect();
    let files: Vec<(&str, &str)> =
        files.into_iter().filter(|(path, _)| !EXEMPT_FROM_LAYERS.contains(path)).collect();
    let circles = circles::circles(&files);
    let report: Vec<String> = circles.iter().map(|files| files.join(" ")).collect();
    assert!(
        circles.is_empty(),
        "files use each other in a circle; give what they share a file of its own:\n{}",
        report.join("\n")
    );
}

#[test]
fn files_that_are_named_as_of_unix_are_that() {
    let of_unix: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(path, source)| platform::is_of_unix(&production(path, source)))
        .map(|(path, _)| path)
        .collect();
    let gone: Vec<_> =
        platform::UNIX_FILES.iter().filter(|path| !of_unix.contains(**path)).collect();
    assert!(gone.is_empty(), "take these out of UNIX_FILES in tests/tidy/platform.rs: {gone:?}");
}

#[test]
fn a_name_means_one_type() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, source) in sources() {
        for name in types(&production(&path, &source)) {
            files.entry(name).or_default().insert(path.clone());
        }
    }
    files.retain(|_, files| files.len() > 1);
    assert!(files.is_empty(), "types of one name; put a noun before it: {files:#?}");
}

/// The types that code defines at the top of a file.
fn types(code: &str) -> Vec<String> {
    let after = |line: &str, keyword: &str| {
        let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let rest = line.trim_start_matches("pub ").strip_prefix(keyword)?.strip_prefix(' ')?;
        Some(rest.chars().take_while(|c| is_ident(*c)).collect::<String>())
    };
    let keywords = ["struct", "enum", "trait", "type", "union"];
    code.lines()
        .filter_map(|line| keywords.iter().find_map(|keyword| after(line, keyword)))
        .collect()
}

/// The files under `src`, by their paths there, with their text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 5, "there must be sources under {}", root.display());
    files.sort();
    let named = |file: &PathBuf| {
        let path = file
            .strip_prefix(&root)
            .expect("a file of src")
            .to_str()
            .expect("a name in UTF-8")
            .replace('\\', "/");
        (path, fs::read_to_string(file).expect("a file that can be read"))
    };
    files.iter().map(named).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the package") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A line, and what is wrong there.
type Finding = (usize, String);

fn check(path: &str, source: &str) -> Vec<Finding> {
    let code = code_of(source);
    let production = production(path, source);
    let mut findings = Vec::new();
    findings.extend(check_opening(source));
    findings.extend(check_width(source));
    findings.extend(check_file_length(source));
    findings.extend(check_function_lengths(&code));
    findings.extend(check_layers(path, &production));
    findings.extend(check_bans(path, source, &code, &production));
    findings.extend(platform::check(path, source, &production));
    findings.sort();
    findings
}

/// The code of a file that ships: without comments, literals and tests.
fn production(path: &str, source: &str) -> String {
    if is_test_file(path) { String::new() } else { without_tests(&code_of(source)) }
}

fn check_opening(source: &str) -> Option<Finding> {
    (!source.starts_with("//!")).then(|| {
        (
            1,
            "opens without a `//!` paragraph: what it owns, what it must not know, why it exists"
                .to_owned(),
        )
    })
}

fn check_width(source: &str) -> Vec<Finding> {
    let wide = |line: &str| line.chars().count() > MAX_WIDTH;
    let problem = || format!("wider than {MAX_WIDTH} characters");
    let lines = source.lines().enumerate();
    lines.filter(|(_, line)| wide(line)).map(|(at, _)| (at + 1, problem())).collect()
}

fn check_file_length(source: &str) -> Option<Finding> {
    let lines = source.lines().count();
    let problem = || {
        format!(
            "{lines} lines, and {MAX_FILE_LINES} are the limit: find the two ideas, or move the \
            tests to a `tests.rs` beside it"
        )
    };
    (lines > MAX_FILE_LINES).then(|| (MAX_FILE_LINES, problem()))
}

fn check_function_lengths(code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in words(code, "fn") {
        let name: String =
            code[at + 2..].trim_start().chars().take_while(|c| is_ident(*c)).collect();
        let Some(end) = end_of_item(code, at) else { continue };
        let lines = code[at..end].lines().count();
        // Without a name it is a type: `fn(u8) -> u8`.
        if !name.is_empty() && lines > MAX_FUNCTION_LINES {
            findings.push((
                line_of(code, at),
                format!("`{name}` has {lines} lines, and {MAX_FUNCTION_LINES} are the limit"),
            ));
        }
    }
    findings
}

fn check_layers(path: &str, production: &str) -> Vec<Finding> {
    if EXEMPT_FROM_LAYERS.contains(&path) {
        return Vec::new();
    }
    let own = module_of(path);
    let Some(layer) = layer_of(own) else {
        return vec![(
            1,
            format!("`{own}` is in no layer: give it a place in LAYERS of tests/tidy.rs"),
        )];
    };
    let mut findings = Vec::new();
    for (at, module) in imports(path, production) {
        let problem = match layer_of(&module) {
            Some(other) if other > layer || module == own || is_leaf(other) => continue,
            Some(other) if other == layer => {
                format!("`{own}` imports `{module}`, which stands beside it in one layer")
            }
            Some(other) => format!(
                "`{own}` ({}) imports `{module}` ({}), which is above it",
                LAYERS[layer].0, LAYERS[other].0
            ),
            // A name of the crate's root: a constant, a type, a macro.
            None if !module.starts_with(|c: char| c.is_ascii_lowercase()) => continue,
            None => {
                format!("`{module}` is in no layer: give it a place in LAYERS of tests/tidy.rs")
            }
        };
        findings.push((line_of(production, at), problem));
    }
    findings
}

fn is_leaf(layer: usize) -> bool {
    layer == LAYERS.len() - 1
}

fn check_bans(path: &str, source: &str, code: &str, production: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ban in BANS.iter().filter(|ban| !(ban.allowed)(path)) {
        let text = match ban.applies {
            Applies::Production => production,
            Applies::Code => code,
            Applies::Text => source,
        };
        for at in words(text, ban.word) {
            findings.push((line_of(text, at), format!("`{}`: write {}", ban.word, ban.instead)));
        }
    }
    for (word, instead) in dialect::DIALECT {
        for at in words(code, word) {
            findings.push((line_of(code, at), format!("`{word}`: write {instead}")));
        }
    }
    findings
}

/// The module under the crate's root that a file belongs to.
fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The modules of this crate that code names, in `use` or in a path, with the places.
fn imports(path: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // In a file of the crate's root, `super` is the root.
    let roots: &[&str] = if path.contains('/') { &["crate::"] } else { &["crate::", "super::"] };
    for root in roots {
        for at in words(code, root) {
            let rest = &code[at + root.len()..];
            let names = rest.strip_prefix('{').map_or_else(|| vec![first_ident(rest)], group_heads);
            found.extend(
                names
                    .into_iter()
                    .filter(|name| !name.is_empty() && *name != "self")
                    .map(|name| (at, name.to_owned())),
            );
        }
    }
    found
}

fn first_ident(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c| !is_ident(c)).unwrap_or(text.len())]
}

/// The first names of `a::{b, c}, d::e}`: `a` and `d`.
fn group_heads(group: &str) -> Vec<&str> {
    let mut heads = vec![first_ident(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(first_ident(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}
