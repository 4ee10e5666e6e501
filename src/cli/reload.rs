//! `reload`, and `check --against running`: what a reload changes, or would change, and why the
//! sidecar refuses a file.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use http::{Method, StatusCode};
use serde_json::json;

use super::api_types::{ApiChange, ApiDiagnostic, ApiReload};
use super::format::{clean, clean_lines, counted, table};
use super::remote::{CommandError, RemoteArgs, RemoteReply};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache reload
  sidecache check --against running && sidecache reload

The sidecar reads its own file, the one that it was started with. Exits with 64 when it refuses the file; the old rules stay.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  sidecache check
  sidecache check --deny-warnings deploy/proxy.toml        in CI
  sidecache check new.toml --against running               what a reload with this file would change

--against running sends the file's text to the sidecar that is found by --admin, or by `[admin] address` of --config.";

/// What a file is compared with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Against {
    /// The rules that the running sidecar has now.
    Running,
}

#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// The sidecar's own JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// What `check` asks the running sidecar.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// Compare the file with what runs: what a reload would change, and what that does to stored
    /// entries.
    #[arg(long, value_name = "WHAT")]
    pub(super) against: Option<Against>,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, asked: &ReloadArgs) -> Result<ExitCode, CommandError> {
    let reply = asked.remote.resolve(path)?.send(&Method::POST, "/reload", Some(&json!({})))?;
    let answer = read(&reply)?;
    let code = if answer.ok { ExitCode::SUCCESS } else { super::EXIT_USAGE.into() };
    if asked.json {
        super::print(reply.text.trim_end());
    } else if answer.ok {
        super::print(&changes(&answer, "reloaded", "reloaded: nothing has changed"));
    } else {
        super::print_failure(&format!(
            "the file is refused, and the old rules stay\n{}",
            problems(&answer)
        ));
    }
    Ok(code)
}

/// Compares a file, which has been checked already, with what the running sidecar has. `config` is
/// the file that tells where that is, unless it is missing.
pub(super) fn compare(
    file: &Path,
    config: &Path,
    compared: &CompareArgs,
) -> Result<ExitCode, CommandError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CommandError::Usage(format!("{}: {error}", file.display())))?;
    let remote = compared.remote.resolve(if config.exists() { config } else { file })?;
    let answer = read(&remote.send(&Method::POST, "/check", Some(&json!({ "text": text })))?)?;
    if !answer.ok {
        super::print(&format!("the running sidecar would refuse it:\n{}", problems(&answer)));
        return Ok(super::EXIT_USAGE.into());
    }
    Ok(super::print(&changes(&answer, "a reload would make", "a reload would change nothing")))
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
        text = format!("{text}\n\nneeds a restart: {}", needed.join(", "));
    }
    if !answer.problems.is_empty() {
        text = format!("{text}\n\n{}", problems(answer));
    }
    text
}

/// One row for each key; what it is about, and what becomes of the entries, stand in the first.
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

/// As `check` prints them, where the sidecar tells it so.
fn problems(answer: &ApiReload) -> String {
    if !answer.text.trim().is_empty() {
        return clean_lines(answer.text.trim_end());
    }
    let one = |ApiDiagnostic { severity, line, column, message, hint }: &ApiDiagnostic| {
        let hint =
            hint.as_ref().map(|hint| format!("\n  hint: {}", clean(hint))).unwrap_or_default();
        format!("line {line}, column {column}: {}: {}{hint}", clean(severity), clean(message))
    };
    answer.problems.iter().map(one).collect::<Vec<_>>().join("\n")
}
