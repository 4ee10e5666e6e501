//! `build.rs` finds the commit where there is one, and builds without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::CommandLine;
use crate::support::{Origin, Response, Sidecar};

/// The build script, compiled, and a folder for the sources that it looks at.
struct Script {
    directory: TempDir,
    binary: PathBuf,
}

impl Script {
    fn compile() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let binary = directory.path().join("script");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
        rustc.args(["--edition", "2024", "--crate-name", "script", "-o"]).arg(&binary).arg(source);
        let output = rustc.output().expect("rustc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::create_dir_all(directory.path().join("package/src")).expect("it is empty");
        Self { directory, binary }
    }

    /// The folder of the package.
    fn package(&self) -> PathBuf {
        self.directory.path().join("package")
    }

    fn run(&self, profile: &str, variables: &[(&str, &str)]) -> Output {
        Command::new(&self.binary)
            .env_remove("SIDECACHE_COMMIT")
            // No repository is looked for above the temporary directory.
            .env("GIT_CEILING_DIRECTORIES", self.directory.path().parent().expect("a parent"))
            .env("CARGO_MANIFEST_DIR", self.package())
            .env("CARGO_PKG_VERSION", "1.2.3")
            .env("PROFILE", profile)
            .env("TARGET", "some-target")
            .env("RUSTC", "no-such-compiler")
            .envs(variables.iter().copied())
            .output()
            .expect("it runs")
    }

    /// Its lines, which cargo reads.
    fn lines(&self, profile: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let output = self.run(profile, variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    /// The commit, whether it is modified, and what people see.
    fn told(&self, profile: &str, variables: &[(&str, &str)]) -> [String; 3] {
        let lines = self.lines(profile, variables);
        ["COMMIT", "DIRTY", "VERSION"].map(|name| {
            let start = format!("cargo::rustc-env=SIDECACHE_BUILD_{name}=");
            let value = lines.iter().find_map(|line| line.strip_prefix(&start));
            value.unwrap_or_else(|| panic!("no {name}: {lines:?}")).to_owned()
        })
    }

    /// Runs git in a folder.
    fn git(folder: &Path, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"];
        let mut git = Command::new("git");
        let output = git.args(identity).args(arguments).current_dir(folder).output();
        let output = output.expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

#[test]
fn the_commit_comes_from_the_environment_the_archive_or_git() {
    let script = Script::compile();
    let unknown = ["", "", "1.2.3 (commit unknown)"];
    assert_eq!(script.told("release", &[]), unknown, "an archive of the sources");
    assert_eq!(script.told("release", &[("SIDECACHE_COMMIT", "")]), unknown);
    let given = [("SIDECACHE_COMMIT", "v1.2.3-4-gabcdef012345")];
    assert_eq!(
        script.told("debug", &given),
        ["v1.2.3-4-gabcdef012345", "", "1.2.3 (v1.2.3-4-gab)"]
    );
    let dirty = [("SIDECACHE_COMMIT", "abc-dirty")];
    assert_eq!(script.told("release", &dirty), ["abc", "true", "1.2.3 (abc, modified)"]);
    let long = "a".repeat(65);
    for bad in ["a b", "a\"b", "a\nb", "-dirty", "ü", &long] {
        let output = script.run("release", &[("SIDECACHE_COMMIT", bad)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("SIDECACHE_COMMIT is"), "{bad}: {said}");
    }

    let package = script.package();
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let info = package.join(".cargo_vcs_info.json");
    let text = format!("{{\n  \"git\": {{\n    \"sha1\": \"{sha}\"\n  }}\n}}");
    fs::write(&info, text).expect("the folder can be written to");
    assert_eq!(script.told("debug", &[]), [sha, "false", "1.2.3 (0123456789ab)"]);
    assert_eq!(script.told("debug", &given)[0], given[0].1, "the environment outranks it");
    fs::remove_file(info).expect("it is there");

    // A repository around the package says nothing of it.
    let outer = script.directory.path();
    Script::git(outer, &["init", "--quiet"]);
    Script::git(outer, &["commit", "--quiet", "--allow-empty", "-m", "another's"]);
    assert_eq!(script.told("release", &[]), unknown);

    Script::git(&package, &["init", "--quiet"]);
    assert_eq!(script.told("release", &[]), unknown, "there is no commit yet");
    fs::write(package.join("src/lib.rs"), "").expect("the folder can be written to");
    Script::git(&package, &["add", "."]);
    Script::git(&package, &["commit", "--quiet", "-m", "first"]);
    let commit = Script::git(&package, &["rev-parse", "HEAD"]);
    let shown = format!("1.2.3 ({})", &commit[..12]);
    assert_eq!(script.told("release", &[]), [&*commit, "false", &*shown]);
    fs::write(package.join("README.md"), "").expect("the folder can be written to");
    assert_eq!(script.told("release", &[])[1], "false", "it is not in the binary");
    fs::write(package.join("src/lib.rs"), "// more").expect("the folder can be written to");
    assert_eq!(script.told("release", &[])[1], "true");
}

#[test]
fn a_build_for_development_does_not_watch_the_repository() {
    let script = Script::compile();
    let package = script.package();
    Script::git(&package, &["init", "--quiet"]);
    Script::git(&package, &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    let watched = |profile: &str| -> Vec<String> {
        let lines = script.lines(profile, &[]).into_iter();
        let start = "cargo::rerun-if-changed=";
        lines.filter_map(|line| line.strip_prefix(start).map(str::to_owned)).collect()
    };
    assert_eq!(watched("debug"), ["build.rs"]);
    assert_eq!(script.told("debug", &[])[0], "", "it could be that of an earlier build");
    let release = watched("release");
    assert!(release.iter().any(|path| path.ends_with(".git/HEAD")), "{release:?}");
    assert!(release.iter().any(|path| path.contains(".git/refs/heads/")), "{release:?}");
    assert!(release.iter().any(|path| path == "src"), "{release:?}");
}

/// 915. Nothing said which commit a binary was built from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r915_the_commit_is_told_everywhere() {
    let command = CommandLine::new();
    let said = command.run(&["version", "--json"]).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let build: Value = serde_json::from_str(&said.out).expect("JSON");
    let names: Vec<&str> = build.as_object().expect("an object").keys().map(|key| &**key).collect();
    let mut expected =
        ["version", "commit", "dirty", "rustc", "target", "features", "profile"].to_vec();
    expected.sort_unstable();
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    let commit = build["commit"].as_str();
    let shown = format!("({}", commit.map_or("commit unknown", |commit| &commit[..12]));
    for arguments in [&["--version"][..], &["version"]] {
        let said = command.run(arguments).await;
        assert_eq!(said.code, 0);
        let line = said.out.lines().next().unwrap_or_default();
        assert!(line.starts_with("sidecache ") && line.contains(&shown), "{arguments:?}: {line}");
    }
    let app = Origin::start(|_| Response::ok("x"));
    let sidecar = Sidecar::spawn(app.address, "").await;
    let stats = sidecar.stats().await;
    assert_eq!((&stats["version"], &stats["commit"]), (&build["version"], &build["commit"]));
    let metrics = sidecar.admin_get("/metrics").await.text().to_owned();
    let label = format!("commit=\"{}\"", commit.unwrap_or("unknown"));
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("sidecache_build_info{") && line.contains(&label)),
        "{label}"
    );
}
