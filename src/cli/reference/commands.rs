//! `commands.md`: the command line, from clap.

use std::fmt::Write as _;

use clap::builder::PossibleValue;
use clap::{Arg, Command};

use super::markdown::{Page, code, codes};
use crate::admin::ReadyState;
use crate::cli::exit_codes::{EXIT_CODES, ready_exit_code};

/// How a serving sidecar reacts to each signal.
const SIGNALS: [(&[&str], &str); 2] = [
    (&["SIGHUP"], "Reload the file. If it has errors, the old rules stay in force."),
    (
        &["SIGTERM", "SIGINT"],
        "The sidecar drains: `/ready` says 503, it accepts no new connections, and requests in \
         progress may finish within `listen.drain`. A second signal stops it at once.",
    ),
];

pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = Page::new("Commands");
    page.paragraph(
        "`sidecache` without a command runs the sidecar. `--help` after any command prints its \
         help, and `sidecache --version` the version with its commit; `sidecache version` tells \
         more of the build.",
    );
    page.code("sh", &usage(&mut command));
    page.section("Options of every command");
    page.table(["Option", "Default", "Environment", "Meaning"], &rows(&command, true));
    for subcommand in command.get_subcommands_mut() {
        if !subcommand.is_hide_set() && subcommand.get_name() != "help" {
            add(&mut page, subcommand);
        }
    }
    page.section("Exit codes");
    let rows = EXIT_CODES.map(|(number, meaning)| [number.to_string(), meaning.to_owned()]);
    page.table(["Code", "Meaning"], &rows);
    page.section("Readiness");
    page.paragraph(
        "What `GET /ready` of the admin API says, its status, and the exit code of `sidecache \
         stats --ready`. Without a reply the exit code is 1.",
    );
    page.table(["State", "Status", "Exit code", "Meaning"], &ReadyState::ALL.map(ready_row));
    page.section("Signals");
    page.paragraph("A running sidecar reacts to these signals.");
    page.table(
        ["Signal", "Effect"],
        &SIGNALS.map(|(signals, effect)| [codes(signals.iter().copied()), effect.to_owned()]),
    );
    page.finish()
}

fn ready_row(state: ReadyState) -> [String; 4] {
    let status = state.http_status();
    let exit = ready_exit_code(status).to_string();
    [code(state.as_str()), status.as_str().to_owned(), exit, state.meaning().to_owned()]
}

fn add(page: &mut Page, command: &mut Command) {
    page.section(&code(&format!("sidecache {}", command.get_name())));
    if let Some(about) = command.get_about() {
        page.paragraph(&sentence(&about.to_string()));
    }
    page.code("sh", &usage(command));
    page.table(["Option", "Default", "Environment", "Meaning"], &rows(command, false));
    if let Some(more) = command.get_after_help() {
        page.code("text", &more.to_string());
    }
}

/// The usage line of a command.
fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

fn rows(command: &Command, global: bool) -> Vec<[String; 4]> {
    command
        .get_arguments()
        .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        .filter(|argument| !argument.is_hide_set() && argument.is_global_set() == global)
        .map(row)
        .collect()
}

fn row(argument: &Arg) -> [String; 4] {
    let defaults: Vec<_> =
        argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    let takes_value = argument.get_action().takes_values();
    let default = if takes_value { codes(defaults) } else { String::new() };
    let environment =
        argument.get_env().and_then(|name| name.to_str()).map(code).unwrap_or_default();
    let mut meaning =
        argument.get_help().map(|help| sentence(&help.to_string())).unwrap_or_default();
    let choices = argument.get_possible_values();
    if takes_value && !choices.is_empty() {
        let names = codes(
            choices.iter().filter(|choice| !choice.is_hide_set()).map(PossibleValue::get_name),
        );
        let _ = write!(meaning, " One of {names}.");
    }
    [name(argument), default, environment, meaning]
}

/// `-c`, `--config <FILE>`, or only `<FILE>` for a positional argument.
fn name(argument: &Arg) -> String {
    let values = if argument.get_action().takes_values() {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ")
    } else {
        String::new()
    };
    let Some(long) = argument.get_long() else { return code(&values) };
    let long = code(format!("--{long} {values}").trim());
    argument.get_short().map_or_else(|| long.clone(), |short| format!("`-{short}`, {long}"))
}

/// Clap removes the last full stop.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', ':', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_and_option_is_on_the_page_but_the_hidden_ones() {
        let page = page(Cli::command());
        let mut command = Cli::command();
        command.build();
        let mut commands = 0;
        for subcommand in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let heading = format!("\n## `sidecache {}`\n", subcommand.get_name());
            assert_eq!(page.contains(&heading), !subcommand.is_hide_set(), "{heading}");
            commands += 1;
            for argument in subcommand.get_arguments().filter(|_| !subcommand.is_hide_set()) {
                if let Some(long) = argument.get_long().filter(|long| *long != "help") {
                    assert!(page.contains(&format!("`--{long}")), "{heading}: {long}");
                }
            }
        }
        assert!(commands > 8, "{commands} commands");
        assert!(
            page.contains("`-c`, `--config <FILE>` | `proxy.toml` | `SIDECACHE_CONFIG` |"),
            "{page}"
        );
    }
}
