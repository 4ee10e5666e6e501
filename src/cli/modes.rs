//! `off`, `shadow` and `on`: switch routes for a time, and end switches.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::json;

use super::api_types::{ApiModes, ApiSwitch};
use super::error::CommandError;
use super::format::{clean, counted, seconds, table};
use super::output;
use super::remote::RemoteArgs;
use crate::policy::mode_switch::{DEFAULT_SWITCH_TIME, MAX_SWITCH_TIME, SwitchMode};
use crate::units::{parse_duration, show_duration};

pub(super) const OFF_EXAMPLES: &str = "\
Examples:
  sidecache off                                    all routes, for an hour
  sidecache off --route '/api/v1/forms/{id}' --for 15m
  sidecache on                                     ends every switch
  sidecache stats                                  shows the switches and what is left of them

A switch holds in all sidecars that share the Redis, ends by itself, and leaves proxy.toml as it is.
Writes go on purging meanwhile.";

pub(super) const SHADOW_EXAMPLES: &str = "\
Examples:
  sidecache shadow --route /api/v1/forms --for 2h
  sidecache advise                                 what the cache would have done
  sidecache on --route /api/v1/forms";

pub(super) const ON_EXAMPLES: &str = "\
Examples:
  sidecache on                                     ends every switch
  sidecache on --route /api/v1/forms

It ends switches and nothing else: a route that proxy.toml has off stays off.";

#[derive(Args, Debug)]
pub(super) struct SwitchArgs {
    /// The path of the route as it is in proxy.toml. Default: all routes.
    #[arg(long, value_name = "PATH")]
    route: Option<String>,
    /// For how long, as in proxy.toml (`90s`, `1h30m`): a day at most. Default: 1h.
    #[arg(long = "for", value_name = "TIME")]
    time: Option<String>,
    /// Print the sidecar's JSON response instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Args, Debug)]
pub(super) struct OnArgs {
    /// The route whose switch ends, as its path is in proxy.toml. Default: every switch ends.
    #[arg(long, value_name = "PATH")]
    route: Option<String>,
    /// Print the sidecar's JSON response instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Sets a switch.
pub(super) fn set(
    path: &Path,
    args: &SwitchArgs,
    mode: SwitchMode,
) -> Result<ExitCode, CommandError> {
    let time = match &args.time {
        None => DEFAULT_SWITCH_TIME,
        Some(text) => parse_duration(text)
            .map_err(|error| CommandError::Usage(format!("--for: {error}; {}", error.hint())))?,
    };
    if time.is_zero() || time > MAX_SWITCH_TIME {
        let longest = show_duration(MAX_SWITCH_TIME);
        return Err(CommandError::Usage(format!(
            "--for must be longer than zero and at most {longest}; for longer, set `mode` in \
             proxy.toml"
        )));
    }
    let body = json!({ "mode": mode.as_str(), "route": args.route, "for": show_duration(time) });
    let what = format!("{} for {}", mode.as_str(), show_duration(time));
    order(path, (&args.remote, args.route.as_deref(), args.json), &body, &|_| what.clone())
}

/// Ends switches.
pub(super) fn end(path: &Path, args: &OnArgs) -> Result<ExitCode, CommandError> {
    let body = json!({ "mode": "on", "route": args.route });
    let what = |modes: &ApiModes| match modes.ended {
        0 => "no switch was set".to_owned(),
        ended => format!("{} ended", counted(ended, "switch").replace("switchs", "switches")),
    };
    order(path, (&args.remote, args.route.as_deref(), args.json), &body, &what)
}

fn order(
    path: &Path,
    (remote, route, json): (&RemoteArgs, Option<&str>, bool),
    body: &serde_json::Value,
    what: &dyn Fn(&ApiModes) -> String,
) -> Result<ExitCode, CommandError> {
    let remote = remote.resolve(path)?;
    let reply = remote.send(&Method::POST, "/mode", Some(body))?.error_for_status()?;
    if json {
        return Ok(output::print(reply.text.trim_end()));
    }
    let modes: ApiModes = reply.read()?;
    let code = output::print(&render(route, &what(&modes), &modes));
    let why = modes.why.as_deref().unwrap_or("it did not say why");
    // Without Redis there are no others.
    if !modes.shared && !why.contains("no [redis]") {
        output::note(&format!("other sidecars may not know of it: {}", clean(why)));
    }
    Ok(code)
}

fn render(route: Option<&str>, what: &str, modes: &ApiModes) -> String {
    let mut text = format!("{}: {what}", clean(route.unwrap_or("all routes")));
    if !modes.switches.is_empty() {
        text.push_str("\n\n");
        text.push_str(&switches(&modes.switches));
    }
    text
}

/// The switches as a table.
pub(super) fn switches(list: &[ApiSwitch]) -> String {
    let row = |switch: &ApiSwitch| {
        [
            switch.route.clone().unwrap_or_else(|| "all".to_owned()),
            switch.mode.clone(),
            seconds(switch.left_s),
            switch.by.clone(),
        ]
    };
    table(["SWITCHED", "MODE", "LEFT", "BY"], &[], list.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_is_told_with_the_time_that_is_left() {
        let modes: ApiModes = serde_json::from_str(
            r#"{"ended":0,"shared":true,"switches":[
                {"route":null,"mode":"shadow","by":"peer","left_s":59.9},
                {"route":"/a\u001b[2J","mode":"off","by":"admin","left_s":3599.4}
            ]}"#,
        )
        .expect("a reply");
        assert_eq!(
            render(Some("/a\u{1b}[2J"), "off for 1h", &modes),
            "/a\\u{1b}[2J: off for 1h\n\n\
             SWITCHED     MODE    LEFT     BY\n\
             all          shadow  59.9 s   peer\n\
             /a\\u{1b}[2J  off     59m 59s  admin"
        );
        assert_eq!(render(None, "no switch was set", &ApiModes::default()), {
            "all routes: no switch was set"
        });
    }
}
