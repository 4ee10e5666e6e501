//! `reference`, a hidden command: prints the reference pages of the manual, writes them, or
//! compares them with what is committed.
//!
//! Each page is made from what the code itself uses (the schema, `Reason`, the registry of metrics,
//! clap, the `OpenAPI` document), so that the manual always matches the code. A page is always
//! rendered to the same text.

mod admin_api;
mod commands;
mod fill_headers;
mod fronts;
mod headers;
mod markdown;
mod metrics;
mod proxy_toml;
mod reasons;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Command};

use super::error::CommandError;
use super::output;

/// The command that brings the committed pages up to date.
const REMEDY: &str = "cargo run -- reference --write docs/src/reference";

/// Makes a page.
type Render = fn(&Command) -> Result<String, String>;

const PAGES: [(&str, Render); 7] = [
    ("proxy-toml", |_| Ok(proxy_toml::page())),
    ("reasons", |_| Ok(reasons::page())),
    ("metrics", |_| metrics::page()),
    ("headers", |_| Ok(headers::page())),
    ("fronts", |_| Ok(fronts::page())),
    ("commands", |command| Ok(commands::page(command.clone()))),
    ("admin-api", |_| Ok(admin_api::page())),
];

/// What to do with the pages.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Options {
    /// Print one page.
    #[arg(value_parser = PossibleValuesParser::new(PAGES.map(|(name, _)| name)))]
    page: Option<String>,
    /// Write all pages into this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Compare all pages with those in this folder. Exits with 1 if one differs.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
}

pub(super) fn run(options: &Options, command: &Command) -> Result<ExitCode, CommandError> {
    if let Some(folder) = &options.write {
        return write(folder, command);
    }
    if let Some(folder) = &options.check {
        return check(folder, command);
    }
    let wanted = options.page.as_deref().unwrap_or_default();
    for (name, text) in pages(command)? {
        if name == wanted {
            output::print(text.trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All pages, by their names without `.md`.
fn pages(command: &Command) -> Result<Vec<(&'static str, String)>, CommandError> {
    let render = |(name, render): (&'static str, Render)| {
        render(command)
            .map(|text| (name, text))
            .map_err(|why| CommandError::Failed(format!("{name}: {why}")))
    };
    PAGES.into_iter().map(render).collect()
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.md"))
}

fn write(folder: &Path, command: &Command) -> Result<ExitCode, CommandError> {
    let failed = |path: &Path, error: io::Error| {
        CommandError::Failed(format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for (name, text) in pages(command)? {
        let path = file(folder, name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(folder: &Path, command: &Command) -> Result<ExitCode, CommandError> {
    let mut report = String::new();
    for (name, text) in pages(command)? {
        let path = file(folder, name);
        let difference = match std::fs::read_to_string(&path) {
            Ok(committed) => difference(&committed, &text),
            Err(error) => Some(format!(": {error}")),
        };
        if let Some(difference) = difference {
            let _ = writeln!(report, "{}{difference}", path.display());
        }
    }
    if report.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CommandError::Failed(format!(
        "reference pages differ from the code\n{report}Run: {REMEDY}"
    )))
}

/// The first line in which a committed page differs from what the code says.
fn difference(committed: &str, generated: &str) -> Option<String> {
    if committed == generated {
        return None;
    }
    let (mut there, mut here) = (committed.lines(), generated.lines());
    for number in 1.. {
        let (committed, generated) = (there.next(), here.next());
        if committed != generated {
            let shown = |line: Option<&str>| line.unwrap_or("(end of the page)").to_owned();
            let lines = (shown(committed), shown(generated));
            return Some(format!(":{number}:\n  committed: {}\n  generated: {}", lines.0, lines.1));
        }
        if committed.is_none() {
            break;
        }
    }
    Some(": the line breaks differ".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use tempfile::TempDir;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn pages_are_the_same_each_time_and_say_that_they_are_generated() {
        let (once, again) =
            (pages(&Cli::command()).expect("pages"), pages(&Cli::command()).expect("pages"));
        assert_eq!(once.len(), PAGES.len());
        assert!(once == again, "two runs differ");
        for (name, text) in once {
            assert!(text.starts_with("<!-- Generated by `sidecache reference`;"), "{name}");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{name}");
            let is_prose = |line: &&str| !line.starts_with('|') && !line.starts_with("<!--");
            let mut in_code = false;
            for line in text.lines().filter(is_prose) {
                in_code ^= line.starts_with("```");
                assert!(in_code || line.chars().count() <= 100, "{name}: {line}");
            }
        }
    }

    #[test]
    fn what_is_written_is_right_and_what_is_changed_is_found() {
        let folder = TempDir::new().expect("a folder");
        assert!(check(folder.path(), &Cli::command()).is_err(), "nothing is there");
        write(folder.path(), &Cli::command()).expect("written");
        assert!(check(folder.path(), &Cli::command()).is_ok());
        let path = file(folder.path(), "reasons");
        let text = std::fs::read_to_string(&path).expect("a page");
        std::fs::write(&path, text.replacen("# Reasons", "# Raisins", 1)).expect("written");
        let Err(CommandError::Failed(said)) = check(folder.path(), &Cli::command()) else {
            panic!("it differs")
        };
        for part in ["reasons.md:3:\n", "committed: # Raisins", "generated: # Reasons", REMEDY] {
            assert!(said.contains(part), "{said}");
        }
        std::fs::write(&path, text.trim_end()).expect("written");
        assert!(check(folder.path(), &Cli::command()).is_err(), "the last line break counts");
    }
}
