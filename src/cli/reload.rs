//! `reload` and `check --against running`: show what a reload changes, or would change, or why the
//! sidecar rejects the file.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http::{Method, StatusCode};
use serde_json::json;

use super::api_types::{ApiChange, ApiDiagnostic, ApiReload};
use super::error::CommandError;
use super::exit_codes::EXIT_USAGE;
use super::format::{clean, clean_lines, counted, table};
use super::output;
use super::remote::{RemoteArgs, RemoteReply};
use crate::config::{Config, Diagnostic};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache reload
  sidecache check --against running && sidecache reload

The sidecar reads the file that it was started with. Exits with 64 if it rejects
the file; the old rules stay in force.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  sidecache check
  sidecache check --deny-warnings deploy/proxy.toml        in CI
  sidecache check new.toml --against running               show what a reload would change

--against running sends the file, and those that it includes, to the sidecar at --admin, or at
`[admin] address` of --config.";

/// The rules that a file is compared with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Against {
    /// The rules in force in the running sidecar.
    Running,
}

#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// Print the sidecar's JSON response instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// The options of `check` that involve the running sidecar.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// Compare the file with the running sidecar: show what a reload would change and how that
    /// affects stored entries.
    #[arg(long, value_name = "WHAT")]
    pub(super) against: Option<Against>,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &ReloadArgs) -> Result<ExitCode, CommandError> {
    let reply = args.remote.resolve(path)?.send(&Method::POST, "/reload", Some(&json!({})))?;
    let answer = read(&reply)?;
    let code = if answer.ok { ExitCode::SUCCESS } else { EXIT_USAGE.into() };
    if args.json {
        output::print(reply.text.trim_end());
    } else if answer.ok {
        output::print(&changes(&answer, "reloaded", "reloaded: no changes"));
    } else {
        output::print_failure(&format!(
            "the file is rejected, the old rules stay in force\n{}",
            problems(&answer)
        ));
    }
    Ok(code)
}

/// Compares a file that has passed `check` with the rules of the running sidecar. The address of
/// the sidecar comes from `config`, or from `file` if `config` does not exist.
pub(super) fn compare(
    file: &Path,
    config: &Path,
    compared: &CompareArgs,
) -> Result<ExitCode, CommandError> {
    let loaded = Config::load(file).map_err(CommandError::Config)?;
    // The sidecar reads no files for a text that is sent to it.
    let included: Vec<_> = loaded
        .included
        .iter()
        .map(|file| json!({ "name": *file.name, "text": *file.text }))
        .collect();
    let mut sent = json!({ "text": *loaded.text });
    if !included.is_empty() {
        // Left out for a sidecar of an earlier version otherwise.
        sent["included"] = json!(included);
    }
    let remote = compared.remote.resolve(if config.exists() { config } else { file })?;
    let answer = read(&remote.send(&Method::POST, "/check", Some(&sent))?)?;
    if !answer.ok {
        output::print(&format!(
            "the running sidecar would reject the file:\n{}",
            problems(&answer)
        ));
        return Ok(EXIT_USAGE.into());
    }
    let answer = without_printed(answer, &loaded);
    Ok(output::print(&changes(&answer, "a reload would make", "a reload would change nothing")))
}

/// Without the problems that `check` has just printed: another version of the sidecar, or one with
/// other variables, may find more.
fn without_printed(mut answer: ApiReload, printed: &Config) -> ApiReload {
    answer.problems.retain(|problem| {
        let is_same = |own: &Diagnostic| {
            (own.line as u64, own.message.as_str()) == (problem.line, problem.message.as_str())
        };
        !printed.warnings.iter().any(is_same)
    });
    // The text has all of them.
    answer.text.clear();
    answer
}

fn read(reply: &RemoteReply) -> Result<ApiReload, CommandError> {
    if reply.status.is_success() || reply.status == StatusCode::UNPROCESSABLE_ENTITY {
        reply.read()
    } else {
        Err(reply.failure())
    }
}

fn changes(answer: &ApiReload, what: &str, nothing: &str) -> String {
    let mut text = if answer.changes.is_empty() {
        nothing.to_owned()
    } else {
        let number = counted(u64::try_from(answer.changes.len()).unwrap_or(u64::MAX), "change");
        let rows = answer.changes.iter().flat_map(rows_of);
        format!(
            "{what}: {number}\n\n{}",
            table(["WHAT", "CHANGE", "KEY", "FROM", "TO", "EFFECT"], &[], rows)
        )
    };
    if !answer.restart_needed.is_empty() {
        let needed: Vec<_> = answer.restart_needed.iter().map(|key| clean(key)).collect();
        text = format!("{text}\n\nrestart needed for: {}", needed.join(", "));
    }
    if !answer.problems.is_empty() {
        text = format!("{text}\n\n{}", problems(answer));
    }
    text
}

/// One row per key. Only the first row names the section and the effect on entries.
fn rows_of(change: &ApiChange) -> Vec<[String; 6]> {
    let (what, kind, effect) =
        (change.what.clone(), change.change.clone(), change.effect.clone().unwrap_or_default());
    let mut rows: Vec<_> = change
        .keys
        .iter()
        .map(|key| {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            [
                String::new(),
                String::new(),
                key.key.clone(),
                value(&key.from),
                value(&key.to),
                String::new(),
            ]
        })
        .collect();
    if rows.is_empty() {
        rows.push(Default::default());
    }
    (rows[0][0], rows[0][1], rows[0][5]) = (what, kind, effect);
    rows
}

/// The text that `check` prints, if the sidecar sent it.
fn problems(answer: &ApiReload) -> String {
    if !answer.text.trim().is_empty() {
        return clean_lines(answer.text.trim_end());
    }
    let one = |ApiDiagnostic { severity, file, line, column, message, hint }: &ApiDiagnostic| {
        let hint =
            hint.as_ref().map(|hint| format!("\n  hint: {}", clean(hint))).unwrap_or_default();
        let of = file.as_ref().map(|file| format!("{}: ", clean(file))).unwrap_or_default();
        let (severity, message) = (clean(severity), clean(message));
        format!("{of}line {line}, column {column}: {severity}: {message}{hint}")
    };
    answer.problems.iter().map(one).collect::<Vec<_>>().join("\n")
}
