//! The configuration: `proxy.toml` in, settings that cannot be invalid out, or every problem of the
//! file at once.
//!
//! Three steps, each of which goes on where it can: `mend` and the TOML parser find syntax errors
//! and still give a tree; `read` takes the tree apart into the types of `file`, value by value;
//! `compile` turns these into what the parts run on. It starts nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admin;
use crate::cache::store;
use crate::policy::credential::CredentialRule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route;
use crate::redis;
use crate::server;
use crate::telemetry::log;
use crate::upstream;

mod compile;
mod context;
mod decode;
mod diagnostics;
pub mod diff;
mod env;
mod file;
mod lint;
mod redis_url;
mod schema;
#[cfg(test)]
mod tests;

pub use self::diagnostics::diagnostic::{Diagnostic, Diagnostics, Severity, SourceSpan};
pub use self::schema::{json_schema, key_order};

/// Exit code of a file that can be used.
const EXIT_OK: u8 = 0;
/// Exit code of a file that cannot (`EX_USAGE` of sysexits.h).
const EXIT_BAD_CONFIG: u8 = 64;

/// Everything that the sidecar runs on.
pub struct Config {
    /// Where clients connect.
    pub server: server::ServerSettings,
    /// The app.
    pub upstream: upstream::UpstreamSettings,
    /// The admin listener.
    pub admin: admin::AdminSettings,
    /// The memory tier.
    pub memory: store::memory::MemorySettings,
    /// The Redis tier, if there is one.
    pub redis: Option<redis::RedisSettings>,
    /// The log.
    pub log: log::LogSettings,
    /// Bounds on what can grow.
    pub limits: ConfigLimits,
    /// What is cached.
    pub routes: route::Routes,
    /// What is purged.
    pub purges: Vec<PurgeRule>,
    /// What identifies a caller.
    pub credential: Arc<CredentialRule>,
    /// How the app's answers are read.
    pub response_rules: Arc<route::ResponseRules>,
    /// Whether responses tell their key, tags and route.
    pub debug_headers: bool,
    /// The switch for all routes; each route's own mode has it in already.
    pub mode: route::RouteMode,
    /// How often the file is looked at for changes; none for never.
    pub watch: Option<Duration>,
    /// The file, where it was read from one.
    pub file: Option<PathBuf>,
    /// Its text.
    pub text: Arc<str>,
    /// What looks wrong without being so.
    pub warnings: Vec<Diagnostic>,
}

/// Bounds on what requests and responses can make grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLimits {
    /// The largest response that is stored, in bytes.
    pub object: u64,
    /// The most tags of an entry.
    pub tags: usize,
    /// The longest canonical key, in bytes.
    pub key: u64,
    /// The longest request body that purge rules read, in bytes.
    pub purge_body: u64,
    /// Admissions that are remembered.
    pub authorized_clients: usize,
    /// What the bodies of all fills under way may keep, in bytes.
    pub fills: u64,
    /// Followers of fills, all together.
    pub waiters: usize,
    /// How long a follower waits at most.
    pub wait: Duration,
    /// Mutations under way at once.
    pub mutations: usize,
    /// The most variants of one key.
    pub variants: usize,
    /// How long an entry past its freshness is kept.
    pub stale: Duration,
    /// The most ranges answered in one request.
    pub ranges: usize,
    /// The largest response that is fetched whole because a part of it was asked for, in bytes.
    pub range_fill: u64,
    /// Refreshes in the background at once.
    pub refreshes: usize,
    /// Keys that routes in shadow remember.
    pub shadow_keys: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SECURITY: settings hold secrets; the whole is never printed.
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .field("warnings", &self.warnings.len())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a file with the variables of the environment. Relative paths in it start from its
    /// folder.
    ///
    /// # Errors
    /// Every problem of the file; or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| unreadable(&name, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes()[..error.utf8_error().valid_up_to()].to_vec();
            let line = String::from_utf8_lossy(&valid).matches('\n').count() + 1;
            Diagnostics::unreadable(
                &name,
                format!("line {line} is not UTF-8 text"),
                "TOML files are UTF-8; save it in that encoding",
            )
        })?;
        let config = Self::parse(&text, &name, &|variable| std::env::var(variable).ok())?;
        Ok(Self { file: Some(path.to_path_buf()), ..config })
    }

    /// Reads a text, with the file's name and the variables that it may use.
    ///
    /// # Errors
    /// Every problem of the text, in its order.
    pub fn parse(
        text: &str,
        name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Diagnostics> {
        compile::compile(text, name, env)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Diagnostics {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "name another file with `--config FILE`; `sidecache check --config FILE` tells whether it is right"
        }
        io::ErrorKind::PermissionDenied => {
            "let the user who runs the sidecar read it, or name another file with `--config FILE`"
        }
        _ => "name another file with `--config FILE`",
    };
    Diagnostics::unreadable(name, format!("the file cannot be read: {error}"), hint)
}

/// How strict `sidecache check` is, and how far it looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Warnings make the file one that cannot be used.
    pub deny_warnings: bool,
    /// The Redis that the file names is not asked.
    pub offline: bool,
}

/// `sidecache check`: tells what is wrong with a file without starting. Returns the exit code: 0,
/// or 64 when the file cannot be used or `deny_warnings` is set and there are any. The Redis of the
/// file is asked how it is set up, for half a second at the most.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(path: &Path, how: CheckOptions, out: &mut dyn io::Write) -> io::Result<u8> {
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(out, "{problems}")?;
            return Ok(EXIT_BAD_CONFIG);
        }
    };
    if let Some(redis) = config.redis.as_ref().filter(|_| !how.offline) {
        // It has just been read.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        config.warnings.extend(lint::redis::inspect(redis, &path.display().to_string(), &text));
        config.warnings.sort_by_key(|problem| (problem.line, problem.column));
    }
    for problem in &config.warnings {
        writeln!(out, "{problem}")?;
    }
    let counted = diagnostics::diagnostic::counted;
    let (routes, purges) = (config.routes.iter().count(), config.purges.len());
    let warnings =
        config.warnings.iter().filter(|problem| problem.severity == Severity::Warning).count();
    if how.deny_warnings && warnings > 0 {
        writeln!(
            out,
            "{} in {}, and warnings are denied",
            counted(warnings, "warning"),
            path.display()
        )?;
        return Ok(EXIT_BAD_CONFIG);
    }
    write!(
        out,
        "{}: ok: {}, {}",
        path.display(),
        counted(routes, "route"),
        counted(purges, "purge rule")
    )?;
    match warnings {
        0 => writeln!(out)?,
        _ => writeln!(out, ", {}", counted(warnings, "warning"))?,
    }
    Ok(EXIT_OK)
}
