//! `advise`: prints the findings of shadow mode and audits as lines of proxy.toml to paste. Nothing
//! is applied automatically.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::api_types::{ApiAdvice, ApiShadowReport, ApiShadowRoute};
use super::error::CommandError;
use super::format::{clean, clean_lines, counted, percent};
use super::output;
use super::remote::RemoteArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache advise
  sidecache advise > advice.toml        findings are comments, so the output is valid TOML

Give a route `mode = \"shadow\"` to learn what caching would do before you enable it,
or `audit = 0.01` to have 1% of its hits checked against the origin.
Review each line before you paste it: the advice is based only on the traffic seen so far.";

#[derive(Args, Debug)]
pub(super) struct AdviseArgs {
    /// Print the sidecar's JSON response, with every example, instead of TOML.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &AdviseArgs) -> Result<ExitCode, CommandError> {
    let reply =
        args.remote.resolve(path)?.send(&Method::GET, "/shadow", None)?.error_for_status()?;
    Ok(output::print(&if args.json {
        reply.text.trim_end().to_owned()
    } else {
        render(&reply.read()?)
    }))
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
    for ApiAdvice { route, why, toml, line, diff: _ } in &report.advice {
        let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
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
