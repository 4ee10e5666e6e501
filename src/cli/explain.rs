//! `explain`: what the rules make of a request, without sending it; with `--live`, what the running
//! sidecar has stored for it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::Method;
use serde_json::json;

use super::api_types::{ApiExplanation, ApiStored};
use super::format::{clean, seconds, size};
use super::remote::{CommandError, RemoteArgs, read_header};
use crate::config::Config;
use crate::policy::explain::{ExplainLine, ExplainRequest, Explanation, explain};
use crate::policy::plan::PolicyRules;
use crate::secret::Hasher;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache explain GET /api/v1/campaigns -H 'x-tenant-id: acme'
  sidecache explain PUT /api/v1/campaigns/7 -H 'x-tenant-id: acme'      what this write would purge
  sidecache explain GET /api/v1/campaigns -H 'host: app.example.com' -H 'x-tenant-id: acme' --live

The host is part of every key: without -H 'host: ...' the request is one for localhost.";

/// A request to be explained.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// The method.
    method: String,
    /// The target: a path with its query.
    target: String,
    /// A request header, as `name: value`. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of a mutation, for purge rules that read it.
    #[arg(long, short)]
    data: Option<String>,
    /// As if it came from a trusted proxy.
    #[arg(long)]
    trusted: bool,
    /// Ask the running sidecar: by its rules, and with what it has stored.
    #[arg(long)]
    live: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, asked: &ExplainArgs) -> Result<ExitCode, CommandError> {
    let question = asked.question()?;
    let request = question.read().map_err(CommandError::Usage)?;
    if asked.live {
        return live(&asked.remote.resolve(path)?, &question, asked.json);
    }
    let config = Config::load(path).map_err(CommandError::Config)?;
    let explained = explain(&rules_from(config), &request);
    if asked.json {
        let answer =
            json!({ "request": explained.request, "lines": explained.lines, "stored": null });
        return Ok(super::print(&format!("{answer:#}")));
    }
    Ok(super::print(text(&explained).trim_end()))
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

/// The rules of a file, as far as they can be known without the parts that run.
pub(super) fn rules_from(config: Config) -> PolicyRules {
    let secret = config.redis.as_ref().and_then(|redis| redis.secret.as_ref());
    PolicyRules {
        hasher: secret
            .map_or_else(Hasher::default, |secret| Hasher::new(secret.expose().as_bytes())),
        routes: config.routes,
        purges: config.purges,
        credential: Arc::clone(&config.credential),
        max_key: usize::try_from(config.limits.key).unwrap_or(usize::MAX),
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
        return Ok(super::print(reply.text.trim_end()));
    }
    let ApiExplanation { request, lines, stored } = reply.read()?;
    // Only a GET or HEAD that has a key could have something stored.
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
                    "asked as for localhost; entries are kept per host: name it with -H 'host: app.example.com'",
                );
            }
        }
        None => {}
    }
    Ok(super::print(text.trim_end()))
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
    let verdict = match (stored.verdict.as_str(), stored.reason.as_deref()) {
        ("HIT" | "STALE", Some(reason)) => format!("{}: {reason}", stored.verdict),
        (_, Some(reason)) => format!("{}: it would not be served: {reason}", stored.verdict),
        (_, None) => stored.verdict.clone(),
    };
    add(&mut text, "answer now", &verdict);
    text
}

fn add(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {:<12} {}", clean(name), clean(value));
}
