//! `advise`: prints the findings of shadow mode and audits, and routes for what has none, as lines
//! of proxy.toml to paste. Nothing is applied automatically.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api_types::{ApiAdvice, ApiShadowReport, ApiShadowRoute, ApiUncached};
use super::error::CommandError;
use super::format::{clean, clean_lines, counted, percent, rule_place, sample_note, seconds};
use super::output;
use super::remote::RemoteArgs;

mod file;

/// How many paths without a route are shown.
const MAX_PATHS: usize = 10;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache advise
  sidecache advise > advice.toml        findings are comments, so the output is valid TOML
  sidecache advise --file --output proxy.toml     a whole file, of what a sidecar that was
                                        started with --upstream has seen

Give a route `mode = \"shadow\"` to learn what caching would do before you enable it,
or `audit = 0.01` to have 1% of its hits checked against the origin.
Review each line before you paste it: the advice is based only on the traffic seen so far.";

#[derive(Args, Debug)]
pub(super) struct AdviseArgs {
    /// Print the sidecar's JSON responses, with every example, instead of TOML.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: file::FileArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &AdviseArgs) -> Result<ExitCode, CommandError> {
    let remote = args.remote.resolve(path)?;
    if args.file.file {
        return file::run(path, &args.file, args.json, &remote);
    }
    let reply = remote.send(&Method::GET, "/shadow", None)?.error_for_status()?;
    // A sidecar of an earlier version does not have it.
    let uncached = remote
        .send(&Method::GET, "/uncached", None)
        .and_then(super::remote::RemoteReply::error_for_status);
    if args.json {
        let mut all: Value = reply.read()?;
        if let (Some(all), Ok(uncached)) = (all.as_object_mut(), uncached) {
            all.insert("uncached".to_owned(), uncached.read()?);
        }
        return Ok(output::print(&all.to_string()));
    }
    let next = match uncached {
        Ok(reply) => what_next(&reply.read()?),
        Err(error) => format!("# what to cache next is not known: {}", clean(error.reason())),
    };
    let text = format!("{}\n\n{next}", render(&reply.read()?));
    Ok(output::print(text.trim_end()))
}

/// The paths without a route, and the routes that are suggested.
fn what_next(report: &ApiUncached) -> String {
    if report.paths.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "# What to cache next: {} without a route, {} in the app{}\n",
        counted(report.requests, "request"),
        seconds(report.app_s),
        sample_note(report.requests, report.observed)
    );
    for one in report.paths.iter().take(MAX_PATHS) {
        let (requests, time) = (counted(one.requests, "request"), seconds(one.app_s));
        let sample = sample_note(one.requests, one.observed);
        let _ = write!(text, "\n# {}: {requests}, {time} in the app{sample}", clean(&one.path));
        if one.hit_share.is_some() {
            let saved = seconds(one.saved_s.unwrap_or_default());
            let _ = write!(text, ", {} would be hits, which saves {saved}", percent(one.hit_share));
        }
        match (&one.suggestion, &one.why_not) {
            (Some(route), _) => {
                let (does, risks) = (clean(&route.does), clean(&route.risks));
                let _ = writeln!(text, "\n# {does}\n# {risks}\n{}", pasteable(&route.toml));
            }
            (None, Some(why)) => {
                let _ = writeln!(text, "\n# no route: {}", clean(why));
            }
            (None, None) => text.push('\n'),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The lines of a route. Tables that a file may have only once are comments, so that the whole
/// output is TOML.
fn pasteable(toml: &str) -> String {
    let (mut lines, mut is_comment) = (Vec::new(), false);
    for line in toml.trim_end().lines() {
        if line.starts_with('[') {
            is_comment = !line.starts_with("[[");
        }
        let line = clean(line);
        lines.push(if is_comment { format!("# {line}") } else { line.into_owned() });
    }
    lines.join("\n")
}

fn render(report: &ApiShadowReport) -> String {
    if report.routes.is_empty() && report.advice.is_empty() {
        return "# nothing to advise: no route has mode = \"shadow\" or audit, or none of them has \
                had requests yet".to_owned();
    }
    let mut text = String::new();
    for route in &report.routes {
        let _ = writeln!(text, "# {}", seen(route));
    }
    if report.advice.is_empty() {
        let _ = writeln!(
            text,
            "#\n# nothing to advise: no response would have been stale, and no shared response \
             differed between callers"
        );
    }
    for ApiAdvice { route, why, toml, line, file, diff: _ } in &report.advice {
        let place = rule_place(*line, file.as_deref());
        let place = place.map(|place| format!(", {place}")).unwrap_or_default();
        let _ = writeln!(text, "\n# {}{place}: {}", clean(route), clean(why));
        let _ = writeln!(text, "{}", clean_lines(toml.trim_end()));
    }
    text.truncate(text.trim_end().len());
    text
}

fn seen(route: &ApiShadowRoute) -> String {
    let mut text = format!(
        "{} ({}): {}",
        clean(&route.route),
        clean(&route.mode),
        counted(route.requests, "request")
    );
    if route.hit_rate.is_some() {
        let verb = if route.mode == "shadow" { "would be hits" } else { "hits" };
        let _ = write!(text, ", {} {verb}", percent(route.hit_rate));
    }
    if route.stale.count > 0 {
        let _ = write!(text, ", {} would have been stale", route.stale.count);
        if route.stale.unexplained > 0 {
            let _ = write!(text, " ({} without a preceding write)", route.stale.unexplained);
        }
    }
    for told in &route.sources {
        let changes = counted(told.in_time, "change");
        let _ = write!(text, ", {changes} told by the source {}", clean(&told.source));
        if told.late > 0 {
            let _ = write!(text, " and {} stale until it told", told.late);
        }
    }
    if route.scope.count > 0 {
        let _ = write!(text, ", {} of callers who should not share an entry", route.scope.count);
    }
    let languages = &route.languages;
    match languages.finding.as_deref() {
        Some("never") => {
            let (pages, names) = (counted(languages.pages, "page"), languages.languages.len());
            let _ = write!(text, ", {pages} the same in {}", counted(names as u64, "language"));
        }
        Some("differs") => {
            let pages = counted(languages.differing, "page");
            let _ = write!(text, ", {pages} different between languages");
        }
        _ => {}
    }
    if route.audit.asked > 0 {
        let _ = write!(
            text,
            ", {} of {} stale",
            route.audit.stale,
            counted(route.audit.asked, "audited hit")
        );
    }
    text
}
