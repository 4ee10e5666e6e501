//! `explain`: shows how the rules treat a request, without sending it; with `--live`, also the
//! stored response that the running sidecar has for it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::json;

use super::api_types::{ApiExplanation, ApiStored};
use super::error::CommandError;
use super::format::{clean, seconds, size};
use super::output;
use super::remote::{RemoteArgs, read_header};
use super::rules::rules_from;
use crate::clock::Clock;
use crate::config::Config;
use crate::policy::explain::{ExplainLine, ExplainRequest, Explanation, explain};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache explain GET /api/v1/campaigns -H 'x-tenant-id: acme'
  sidecache explain PUT /api/v1/campaigns/7 -H 'x-tenant-id: acme'   # the tags that it purges
  sidecache explain GET /api/v1/campaigns -H 'host: app.example.com' -H 'x-tenant-id: acme' --live

The host is part of every key. Without -H 'host: ...' the host is localhost.";

/// The arguments of `explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// The method.
    method: String,
    /// The request target: a path with its query.
    target: String,
    /// A request header, as `name: value`. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of a write, for purge rules that read fields from it.
    #[arg(long, short)]
    data: Option<String>,
    /// Treat the request as if it came from a trusted proxy.
    #[arg(long)]
    trusted: bool,
    /// Ask the running sidecar, which uses its own rules and shows the stored response.
    #[arg(long)]
    live: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &ExplainArgs) -> Result<ExitCode, CommandError> {
    let question = args.question()?;
    let request = question.read().map_err(CommandError::Usage)?;
    if args.live {
        return live(&args.remote.resolve(path)?, &question, args.json);
    }
    let config = Config::load(path).map_err(CommandError::Config)?;
    let explained = explain(&rules_from(config), &request, Clock::system().wall());
    if args.json {
        let answer =
            json!({ "request": explained.request, "lines": explained.lines, "stored": null });
        return Ok(output::print(&format!("{answer:#}")));
    }
    Ok(output::print(text(&explained).trim_end()))
}

impl ExplainArgs {
    fn question(&self) -> Result<ExplainRequest, CommandError> {
        let headers =
            self.headers.iter().map(|given| read_header(given)).collect::<Result<_, _>>()?;
        let (method, target) = (self.method.clone(), self.target.clone());
        Ok(ExplainRequest {
            method,
            target,
            headers,
            data: self.data.clone(),
            trusted: self.trusted,
        })
    }
}

fn live(
    remote: &super::remote::Remote,
    question: &ExplainRequest,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let reply =
        remote.send(&Method::POST, "/explain", Some(&json!(question)))?.error_for_status()?;
    if as_json {
        return Ok(output::print(reply.text.trim_end()));
    }
    let ApiExplanation { request, lines, stored } = reply.read()?;
    // Only a GET or HEAD with a key can have a stored response.
    let keyed = lines.iter().any(|line| line.name == "key");
    let mut text = text(&Explanation { request, lines });
    match &stored {
        Some(stored) => text.push_str(&stored_lines(stored)),
        None if keyed => {
            add(&mut text, "stored", "nothing");
            if !question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
                add(
                    &mut text,
                    "note",
                    "the host defaulted to localhost, and entries are stored per host: set it \
                     with -H 'host: app.example.com'",
                );
            }
        }
        None => {}
    }
    Ok(output::print(text.trim_end()))
}

fn text(explained: &Explanation) -> String {
    let mut text = format!("{}\n", clean(&explained.request));
    for ExplainLine { name, value } in &explained.lines {
        add(&mut text, name, value);
    }
    text
}

fn stored_lines(stored: &ApiStored) -> String {
    let mut text = String::new();
    let place = match stored.tier.as_str() {
        "memory" => "in memory",
        "redis" => "in Redis",
        other => other,
    };
    let left = match stored.ttl_s {
        Some(ttl) if ttl >= 0.0 => format!("fresh for {} more", seconds(ttl)),
        Some(ttl) => format!("stale for {}", seconds(-ttl)),
        None => "of unknown freshness".to_owned(),
    };
    let age = stored
        .age_s
        .map_or_else(|| "of unknown age".to_owned(), |age| format!("{} old", seconds(age)));
    add(
        &mut text,
        "stored",
        &format!("{place}: {}, {}, {age}, {left}", stored.status, size(stored.bytes)),
    );
    for tag in &stored.tags {
        add(
            &mut text,
            "entry tag",
            &format!("{} ({})", tag.tag, if tag.current { "current" } else { "purged since" }),
        );
    }
    let client = match stored.authorization.as_deref() {
        Some("lapsed") => Some("lapsed: a 304 of the origin to this client authorizes it again"),
        other => other,
    };
    if let Some(client) = client {
        add(&mut text, "client", client);
    }
    let verdict = match (stored.verdict.as_str(), stored.reason.as_deref()) {
        ("HIT" | "STALE", Some(reason)) => format!("{}: {reason}", stored.verdict),
        (_, Some(reason)) => {
            format!("{}: the stored response would not be served: {reason}", stored.verdict)
        }
        (_, None) => stored.verdict.clone(),
    };
    add(&mut text, "result now", &verdict);
    text
}

fn add(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {:<12} {}", clean(name), clean(value));
}
