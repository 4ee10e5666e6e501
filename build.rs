//! What `sidecache version` and `sidecache_build_info` say of a build: the commit and the compiler.
//!
//! Nothing here depends on the time, the machine or the folder, so that builds stay reproducible.
//! The commit is, by the first of these that is there:
//!
//! 1. `SIDECACHE_COMMIT` of the environment, for packagers who build without a repository. Its
//!    `-dirty` at the end says that the sources differ from that commit.
//! 2. `.cargo_vcs_info.json`, which `cargo package` puts into the archive.
//! 3. `git`, in release builds alone. Only these watch the repository: a developer's build would
//!    otherwise compile the whole crate again after each commit.
//! 4. Otherwise it is unknown.

#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files that make the binary: whether they differ from the commit.
const SOURCES: [&str; 4] = ["build.rs", "Cargo.lock", "Cargo.toml", "src"];
/// The most characters of a commit's name.
const LONGEST: usize = 64;

/// A commit, and whether the sources differ from it, as far as that is known.
struct Commit {
    name: String,
    dirty: Option<bool>,
}

fn main() {
    println!("cargo::rerun-if-env-changed=SIDECACHE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let commit = from_environment().or_else(|| from_package(&folder)).or_else(|| {
        let is_release = variable("PROFILE") == "release";
        if is_release { from_git(&folder) } else { None }
    });
    let version = variable("CARGO_PKG_VERSION");
    let shown = match &commit {
        Some(Commit { name, dirty }) => {
            let short = name.get(..12).unwrap_or(name);
            let dirty = if *dirty == Some(true) { ", modified" } else { "" };
            format!("{version} ({short}{dirty})")
        }
        None => format!("{version} (commit unknown)"),
    };
    let (name, dirty) = commit.map_or_else(Default::default, |commit| (commit.name, commit.dirty));
    set("COMMIT", &name);
    set("DIRTY", dirty.map_or("", |dirty| if dirty { "true" } else { "false" }));
    set("VERSION", &shown);
    set("TARGET", &variable("TARGET"));
    set("PROFILE", &variable("PROFILE"));
    set("RUSTC", &output(&variable("RUSTC"), &["--version"], &folder).unwrap_or_default());
}

/// SECURITY: the text ends up in a header of the metrics and on terminals, so that it must be a
/// name and nothing else.
fn from_environment() -> Option<Commit> {
    let given = env::var("SIDECACHE_COMMIT").ok().filter(|given| !given.is_empty())?;
    let (name, dirty) = match given.strip_suffix("-dirty") {
        Some(name) => (name, Some(true)),
        None => (given.as_str(), None),
    };
    assert!(
        is_name(name),
        "SIDECACHE_COMMIT is {given:?}: write the name of a commit, at most {LONGEST} letters, \
        digits, dots and hyphens"
    );
    Some(Commit { name: name.to_owned(), dirty })
}

fn from_package(folder: &Path) -> Option<Commit> {
    let path = folder.join(".cargo_vcs_info.json");
    // A path that is not there counts as changed each time.
    if !path.exists() {
        return None;
    }
    println!("cargo::rerun-if-changed={}", path.display());
    let text: String = fs::read_to_string(path).ok()?.split_whitespace().collect();
    let (_, rest) = text.split_once("\"sha1\":\"")?;
    let (name, _) = rest.split_once('"')?;
    let dirty = text.contains("\"dirty\":true");
    is_name(name).then(|| Commit { name: name.to_owned(), dirty: Some(dirty) })
}

fn from_git(folder: &Path) -> Option<Commit> {
    let git = |arguments: &[&str]| output("git", arguments, folder);
    // A repository that is around this folder, such as a packager's, is not this one's.
    if !git(&["rev-parse", "--show-cdup"])?.is_empty() {
        return None;
    }
    let name = git(&["rev-parse", "--verify", "HEAD"]).filter(|name| is_name(name))?;
    let changed = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat());
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref());
    for file in files {
        let path = git(&["rev-parse", "--git-path", file]).map(|path| folder.join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    Some(Commit { name, dirty: changed.map(|changed| !changed.is_empty()) })
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    (1..=LONGEST).contains(&text.len()) && text.chars().all(is_part)
}

/// What a command prints, without the line's end. `None` if it fails or is not there.
fn output(command: &str, arguments: &[&str], folder: &Path) -> Option<String> {
    let output = Command::new(command)
        .args(arguments)
        .current_dir(folder)
        // `git status` would write to the index otherwise.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn set(name: &str, value: &str) {
    println!("cargo::rustc-env=SIDECACHE_BUILD_{name}={value}");
}
