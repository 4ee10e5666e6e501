//! What the packages and the image are made of is there: the files that the binary includes, and
//! the names that scripts and documents agree on.

use std::path::{Path, PathBuf};

const TOP: &str = env!("CARGO_MANIFEST_DIR");

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(TOP).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files outside of `src` that code which ships includes, by their paths in the repository.
fn included() -> Vec<String> {
    let mut folders = vec![Path::new(TOP).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the package") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("tests.rs")
            {
                found.extend(included_by(&path));
            }
        }
    }
    found
}

fn included_by(file: &Path) -> Vec<String> {
    let whole = std::fs::read_to_string(file).expect("a file of the package");
    let code = whole.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let names = ["include_str!(\"", "include_bytes!(\""]
        .iter()
        .flat_map(|start| code.split(start).skip(1))
        .filter_map(|rest| rest.split('"').next());
    let folder = file.parent().expect("a file is in a folder");
    let in_repository = |name: &str| {
        let path: PathBuf = folder.join(name).canonicalize().expect("what is included is there");
        path.strip_prefix(Path::new(TOP).canonicalize().expect("the repository is there"))
            .expect("what is included is in the repository")
            .to_str()
            .expect("a name in UTF-8")
            .to_owned()
    };
    names.map(in_repository).filter(|path| !path.starts_with("src/")).collect()
}

#[test]
fn r1360_the_image_and_the_crate_have_all_files_that_the_binary_includes() {
    let (dockerfile, manifest) = (text("deploy/Dockerfile"), text("Cargo.toml"));
    let copied: Vec<&str> = dockerfile
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
        .flat_map(str::split_whitespace)
        .collect();
    let (_, list) = manifest.split_once("\ninclude = [").expect("the crate names its files");
    let (list, _) = list.split_once(']').expect("the list ends");
    for bench in manifest.split("\n[[bench]]\nname = \"").skip(1) {
        let file = format!("benches/{}.rs", bench.split('"').next().unwrap_or_default());
        assert!(
            copied.contains(&&*file),
            "cargo refuses a Cargo.toml that names {file} without it"
        );
    }
    let included = included();
    assert!(included.contains(&"proxy.toml".to_owned()), "the demo has its rules: {included:?}");
    for file in included {
        assert!(copied.contains(&&*file), "deploy/Dockerfile does not copy {file}");
        assert!(list.contains(&format!("\"/{file}\"")), "`include` of Cargo.toml lacks {file}");
    }
}

#[test]
fn one_compiler_and_one_version_are_named_everywhere() {
    let dockerfile = text("deploy/Dockerfile");
    let compiler = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("ARG RUST="))
        .expect("it names a compiler");
    let workflow = text(".github/workflows/ci.yml");
    for version in [compiler, env!("CARGO_PKG_RUST_VERSION")] {
        assert!(workflow.contains(&format!("rust:{version}-bookworm")), "{version} is used");
    }
    let page = text("docs/src/start/install.md");
    let version = env!("CARGO_PKG_VERSION");
    for name in ["sidecache-VERSION.tgz", "sidecache_VERSION_amd64.deb", "sidecache-VERSION-x86"] {
        let name = name.replace("VERSION", version);
        assert!(page.contains(&name), "docs/src/start/install.md names {name}");
    }
}
