//! The configuration: turns `proxy.toml` into valid settings, or into the diagnostics of the whole
//! file.
//!
//! There are three steps, and each continues after an error: `diagnostics::recover` and the TOML
//! parser report syntax errors and still yield a tree; `decode` turns the tree into the types of
//! `file`, value by value; `compile` turns these into the settings of the parts. Nothing is started
//! here.

use std::io;
use std::path::Path;
use std::sync::Arc;

mod compile;
mod context;
mod decode;
mod diagnostics;
pub mod diff;
mod edits;
mod env;
mod file;
pub mod include;
mod keywords;
mod lint;
mod model;
mod redis_url;
mod rule_name;
mod rules_digest;
mod schema;
pub mod sharing;
pub mod suggestions;
#[cfg(test)]
mod tests;

pub use self::compile::sources::{DEFAULT_CHANNEL, DEFAULT_TABLE};
pub use self::diagnostics::diagnostic::{Diagnostic, Diagnostics, Severity, SourceSpan};
use self::include::IncludeSource;
pub use self::model::{AppSettings, Config, ConfigLimits, JwtSettings, fill_constants};
pub use self::schema::{json_schema, key_order};
use crate::input_file::{self, MAX_CONFIG_BYTES};
use crate::units::show_size;

/// Exit code for a valid file.
const EXIT_OK: u8 = 0;
/// Exit code for an invalid file (`EX_USAGE` of sysexits.h).
const EXIT_BAD_CONFIG: u8 = 64;

impl Config {
    /// Reads a file, with the variables of the environment. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// All diagnostics of the file, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let bytes =
            input_file::read(path, MAX_CONFIG_BYTES).map_err(|error| unreadable(&name, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes()[..error.utf8_error().valid_up_to()].to_vec();
            let line = String::from_utf8_lossy(&valid).matches('\n').count() + 1;
            Diagnostics::unreadable(
                &name,
                format!("line {line} is not UTF-8"),
                "TOML files must be UTF-8; save the file in that encoding",
            )
        })?;
        let env = |variable: &str| std::env::var(variable).ok();
        let config = Self::parse_with(&text, &name, &env, IncludeSource::FolderOf(path))?;
        Ok(Self { file: Some(path.to_path_buf()), ..config })
    }

    /// Reads a text that includes no files. `name` is the file's name for diagnostics, `env` looks
    /// up variables.
    ///
    /// # Errors
    /// All diagnostics, in the order of the text.
    pub fn parse(
        text: &str,
        name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Diagnostics> {
        Self::parse_with(text, name, env, IncludeSource::Nowhere)
    }

    /// Reads a text, and the files that it includes from there.
    ///
    /// # Errors
    /// All diagnostics, in the order of the texts.
    pub fn parse_with(
        text: &str,
        name: &str,
        env: &dyn Fn(&str) -> Option<String>,
        from: IncludeSource<'_>,
    ) -> Result<Self, Diagnostics> {
        let given = match from {
            IncludeSource::Given(files) => files.iter().map(|file| file.text.len()).sum(),
            IncludeSource::FolderOf(_) | IncludeSource::Nowhere => 0,
        };
        if (text.len() + given) as u64 > MAX_CONFIG_BYTES {
            let why = format!("it is larger than {}", show_size(MAX_CONFIG_BYTES));
            return Err(unreadable(name, &io::Error::new(io::ErrorKind::FileTooLarge, why)));
        }
        compile::compile(text, name, env, from)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Diagnostics {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => return missing(name),
        io::ErrorKind::PermissionDenied => {
            "make it readable for the user who runs the sidecar, or name another file with \
             `--config FILE`"
        }
        io::ErrorKind::FileTooLarge => "remove what it does not need; routes can share a pattern",
        io::ErrorKind::InvalidInput => {
            "name a regular file, or a link to one, with `--config FILE`; pipes and devices are \
             not read"
        }
        _ => "name another file with `--config FILE`",
    };
    Diagnostics::unreadable(name, format!("the file cannot be read: {error}"), hint)
}

/// The least that a file needs: a whole file, which can be copied as it stands.
const FIRST_FILE: &[&str] = &[
    "upstream.url = \"http://127.0.0.1:8000\"   # your app; clients connect to 127.0.0.1:8080",
    "[[routes]]",
    "path = \"/api/{*rest}\"                    # what is cached, for as long as the app says",
];

fn missing(name: &str) -> Diagnostics {
    let folder = std::env::current_dir().ok().filter(|_| Path::new(name).is_relative());
    let place = folder.map_or_else(String::new, |folder| format!(" in {}", folder.display()));
    let hint = "name another file with `--config FILE`; or serve without one by `sidecache \
                --upstream URL`, or let `sidecache init` write one; or begin with these three \
                lines, and run `sidecache check`:";
    Diagnostics::unreadable(name, format!("the file cannot be read: there is none{place}"), hint)
        .with_example(FIRST_FILE)
}

/// Options of `sidecache check`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Treat warnings as errors.
    pub deny_warnings: bool,
    /// Do not connect to the Redis of the file, and do not look at its sockets.
    pub offline: bool,
}

/// `sidecache check`: prints the diagnostics of a file without starting. Returns the exit code: 0,
/// or 64 if the file is invalid or has warnings and `deny_warnings` is set. Queries the
/// configuration of the file's Redis, for at most half a second, and looks at its Unix sockets.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(path: &Path, how: CheckOptions, out: &mut dyn io::Write) -> io::Result<u8> {
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(diagnostics) => {
            writeln!(out, "{diagnostics}")?;
            return Ok(EXIT_BAD_CONFIG);
        }
    };
    if !how.offline {
        let (name, text) = (path.display().to_string(), Arc::clone(&config.text));
        let mut found = lint::sockets::inspect(&config, &name, &text);
        if let Some(redis) = &config.redis {
            found.extend(lint::redis::inspect(redis, &name, &text));
        }
        config.warnings.extend(found);
        config.warnings.sort_by_key(diagnostics::order);
    }
    for diagnostic in &config.warnings {
        writeln!(out, "{diagnostic}")?;
    }
    let counted = diagnostics::diagnostic::counted;
    let (routes, purges) = (config.routes.iter().count(), config.purges.len());
    let warnings = config
        .warnings
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning)
        .count();
    if how.deny_warnings && warnings > 0 {
        writeln!(
            out,
            "{} in {}; warnings count as errors",
            counted(warnings, "warning"),
            path.display()
        )?;
        return Ok(EXIT_BAD_CONFIG);
    }
    let with = match config.included.len() {
        0 => String::new(),
        files => format!(" and {}", counted(files, "included file")),
    };
    write!(
        out,
        "{}{with}: ok: {}, {}",
        path.display(),
        counted(routes, "route"),
        counted(purges, "purge rule")
    )?;
    // What most files have none of.
    for (count, what) in [
        (config.apps.len(), "app"),
        (config.sources.len(), "source"),
        (config.notify.len(), "notification"),
    ] {
        if count > 0 {
            write!(out, ", {}", counted(count, what))?;
        }
    }
    match warnings {
        0 => writeln!(out)?,
        _ => writeln!(out, ", {}", counted(warnings, "warning"))?,
    }
    Ok(EXIT_OK)
}
