//! `version`: which build of Sidecache this is.

use std::process::ExitCode;

use clap::Args;

use super::output::print;
use crate::telemetry::version::{BUILD, Build, SHOWN};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache version
  sidecache version --json | jq -r .commit";

#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    /// Print JSON: `version`, `commit`, `dirty`, `rustc`, `target`, `features`, `profile`. `commit`
    /// and `dirty` are null where they are not known.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VersionArgs) -> ExitCode {
    if args.json {
        // Serializing names and words cannot fail.
        return print(&serde_json::to_string_pretty(&BUILD).unwrap_or_default());
    }
    print(&text(&BUILD))
}

fn text(build: &Build) -> String {
    let commit = match (build.commit, build.dirty) {
        (None, _) => "unknown".to_owned(),
        (Some(commit), Some(true)) => format!("{commit}, and the sources were modified"),
        (Some(commit), _) => commit.to_owned(),
    };
    let features = if build.features.is_empty() { "none" } else { &build.features.join(", ") };
    let lines = [
        ("commit", commit.as_str()),
        ("rustc", build.rustc),
        ("target", build.target),
        ("features", features),
        ("profile", build.profile),
    ];
    let lines = lines.map(|(name, value)| format!("\n  {name:<10} {value}")).concat();
    format!("sidecache {SHOWN}{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_a_commit_says_so() {
        let unknown = Build { commit: None, dirty: None, features: &[], ..BUILD };
        let shown = text(&unknown);
        assert!(shown.contains("\n  commit     unknown\n"), "{shown}");
        assert!(shown.contains("\n  features   none\n"), "{shown}");
        let dirty = Build { commit: Some("abc"), dirty: Some(true), ..BUILD };
        assert!(text(&dirty).contains("abc, and the sources were modified"));
    }
}
