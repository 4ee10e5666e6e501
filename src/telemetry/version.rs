//! What was built: the version, the commit and the compiler. `build.rs` finds them out.

use serde::Serialize;

/// The version with the commit, for people: `0.1.0 (8658b63a1b2c)`.
pub const SHOWN: &str = env!("SIDECACHE_BUILD_VERSION");

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The version of the package.
    pub version: &'static str,
    /// The commit; `None` if it is not known, as in a build from an archive of the sources.
    pub commit: Option<&'static str>,
    /// Whether the sources differ from the commit; `None` if that is not known.
    pub dirty: Option<bool>,
    /// The compiler's own words, `rustc 1.91.0 (f8297e351 2025-10-28)` for example.
    pub rustc: &'static str,
    /// The target triple, `x86_64-unknown-linux-musl` for example.
    pub target: &'static str,
    /// The features of the package that are switched on.
    pub features: &'static [&'static str],
    /// Whether it was optimized: `release`, or `debug`.
    pub profile: &'static str,
}

/// This build.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: known(env!("SIDECACHE_BUILD_COMMIT")),
    dirty: match env!("SIDECACHE_BUILD_DIRTY").as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    },
    rustc: env!("SIDECACHE_BUILD_RUSTC"),
    target: env!("SIDECACHE_BUILD_TARGET"),
    features: match (cfg!(feature = "jemalloc"), cfg!(feature = "otel")) {
        (true, true) => &["jemalloc", "otel"],
        (true, false) => &["jemalloc"],
        (false, true) => &["otel"],
        (false, false) => &[],
    },
    profile: env!("SIDECACHE_BUILD_PROFILE"),
};

const fn known(commit: &str) -> Option<&str> {
    if commit.is_empty() { None } else { Some(commit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_begins_with_the_version_and_names_the_commit() {
        let rest = SHOWN.strip_prefix(BUILD.version).expect("the version");
        match BUILD.commit {
            Some(commit) => assert!(rest.contains(commit.get(..12).unwrap_or(commit)), "{SHOWN}"),
            None => assert_eq!(rest, " (commit unknown)"),
        }
        assert!(BUILD.rustc.starts_with("rustc "), "{}", BUILD.rustc);
        assert!(BUILD.target.contains(std::env::consts::ARCH), "{}", BUILD.target);
        assert!(["debug", "release"].contains(&BUILD.profile), "{}", BUILD.profile);
    }
}
