//! Which file uses what another file defines, and the circles among them.
//!
//! A name counts as used from the file that defines it, so a name that a parent re-exports leads to
//! the child. Declaring a module uses nothing. Reads blanked code without tests, like every check.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{is_ident, words};

/// The path of a module or of a name below the crate's root.
type Path = Vec<String>;

/// The names that one file takes from others.
struct File {
    /// What `pub use` shows under another name: the last part, and where it comes from.
    exports: BTreeMap<String, Path>,
    uses: Vec<Path>,
}

/// The circles of files, each with its files in order; `files` holds a path below `src` and the
/// code of each.
pub fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let known: BTreeSet<Path> = files.iter().map(|(path, _)| module(path)).collect();
    let parsed: BTreeMap<Path, File> = files
        .iter()
        .map(|(path, code)| (module(path), parse(&module(path), code, &known)))
        .collect();
    let mut graph: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (from, file) in &parsed {
        let targets = file.uses.iter().filter_map(|used| defining(used, &parsed, 0));
        graph.entry(from).or_default().extend(targets.filter(|to| *to != from));
    }
    let reach: BTreeMap<&Path, BTreeSet<&Path>> =
        graph.keys().map(|from| (*from, reachable(from, &graph))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (from, reached) in &reach {
        let circle =
            reached.iter().filter(|to| reach.get(**to).is_some_and(|back| back.contains(from)));
        let circle: BTreeSet<&&Path> = circle.collect();
        if circle.contains(&from) {
            found.insert(circle.iter().map(|path| path.join("/") + ".rs").collect());
        }
    }
    found.into_iter().collect()
}

/// The module of a file: `a/b.rs` is `a::b`.
fn module(path: &str) -> Path {
    path.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
}

fn reachable<'a>(
    from: &'a Path,
    graph: &BTreeMap<&'a Path, BTreeSet<&'a Path>>,
) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Path> = graph[from].iter().copied().collect();
    while let Some(path) = next.pop() {
        if reached.insert(path) {
            next.extend(graph.get(path).into_iter().flatten());
        }
    }
    reached
}

/// The file that defines a name, through re-exports.
fn defining<'a>(used: &Path, files: &'a BTreeMap<Path, File>, depth: usize) -> Option<&'a Path> {
    let length = (1..=used.len()).rev().find(|length| files.contains_key(&used[..*length]))?;
    let (path, file) = files.get_key_value(&used[..length])?;
    let shown = used.get(length).and_then(|name| file.exports.get(name));
    // The bound ends re-exports that show each other.
    shown.filter(|_| depth < 5).and_then(|to| defining(to, files, depth + 1)).or(Some(path))
}

fn parse(own: &Path, code: &str, known: &BTreeSet<Path>) -> File {
    let mut file = File { exports: BTreeMap::new(), uses: Vec::new() };
    let mut rest = code.as_bytes().to_vec();
    // What paths in the code may begin with: modules that are imported or declared here.
    let mut local: BTreeMap<String, Path> = BTreeMap::new();
    for at in words(code, "use") {
        let Some(length) = code[at..].find(';') else { continue };
        let public = code[..at].trim_end().ends_with("pub") || code[..at].trim_end().ends_with(')');
        for leaf in leaves(&code[at + 3..at + length]) {
            let Some(path) = absolute(own, &leaf) else { continue };
            let name = path.last().cloned().unwrap_or_default();
            if public {
                file.exports.insert(name, path);
            } else if known.contains(&path) {
                local.insert(name, path);
            } else {
                file.uses.push(path);
            }
        }
        rest[at..at + length]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
    }
    let rest = String::from_utf8_lossy(&rest).into_owned();
    for at in words(&rest, "mod") {
        let name: String =
            rest[at + 3..].trim_start().chars().take_while(|c| is_ident(*c)).collect();
        let child: Path = own.iter().cloned().chain([name.clone()]).collect();
        if known.contains(&child) {
            local.entry(name).or_insert(child);
        }
    }
    for path in paths(&rest) {
        let head = path[0].as_str();
        if let Some(module) = local.get(head) {
            file.uses.push(module.iter().cloned().chain(path[1..].iter().cloned()).collect());
        } else if let Some(path) = absolute(own, &path) {
            file.uses.push(path);
        }
    }
    file
}

/// The path below the crate's root; none for what is not of this crate.
fn absolute(own: &Path, path: &Path) -> Option<Path> {
    let rest = |from: usize| path[from..].iter().cloned();
    match path.first()?.as_str() {
        "crate" => Some(rest(1).collect()),
        "self" => Some(own.iter().cloned().chain(rest(1)).collect()),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            Some(own[..own.len().checked_sub(up)?].iter().cloned().chain(rest(up)).collect())
        }
        _ => None,
    }
}

/// Each path of two parts or more in code.
fn paths(code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = code[at..].find("::").map(|next| at + next) {
        let start = code[..next].rfind(|c| !is_ident(c)).map_or(0, |before| before + 1);
        let mut parts = vec![code[start..next].to_owned()];
        at = next;
        while let Some(tail) = code[at..].strip_prefix("::") {
            let name: String = tail.chars().take_while(|c| is_ident(*c)).collect();
            at += 2 + name.len();
            if name.is_empty() {
                break;
            }
            parts.push(name);
        }
        let inner = code[..start].ends_with("::");
        if !parts[0].is_empty() && !inner {
            found.push(parts);
        }
    }
    found
}

/// The paths that a `use` names: `a::{b, c::D as E}` is `a::b` and `a::c::D`.
fn leaves(tree: &str) -> Vec<Path> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let prefix: Path = tree[..open]
        .split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let inside = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let mut items = vec![String::new()];
    let mut depth = 0;
    for c in inside.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(c);
        }
    }
    let items = items.iter().filter(|item| !item.trim().is_empty());
    let join = |leaf: Path| -> Path {
        let leaf = if leaf == ["self"] { Vec::new() } else { leaf };
        prefix.iter().cloned().chain(leaf).collect()
    };
    items.flat_map(|item| leaves(item)).map(join).collect()
}
