//! `sidecache init`: writes a first `proxy.toml`, from nothing, from an access log, or from an
//! `OpenAPI` document. No sidecar is needed. Whatever routes it proposes are in shadow mode.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use self::proposals::Proposals;
use super::error::CommandError;
use super::first_file::{self, FileRule, FirstFile};
use super::format::{clean, counted};
use super::output::{note, print};
use super::without_file::{refused, settings};
use crate::config::Config;
use crate::config::include::IncludeSource;
use crate::input_file;
use crate::units::show_size;

mod access_log;
mod openapi;
mod proposals;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache init --upstream http://127.0.0.1:5000
  sidecache init --upstream http://127.0.0.1:5000 --from /var/log/nginx/access.log
  sidecache init --upstream http://127.0.0.1:5000 --from openapi.json --output new.toml

Routes of a log or a document have mode = \"shadow\": they cache nothing, and
`sidecache advise` tells what they would have done.";

/// The largest `OpenAPI` document.
const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;
/// How much of a file is looked at to tell a document from a log.
const MAX_START: u64 = 4096;
/// The most routes that are proposed.
const MAX_ROUTES: usize = 40;
/// How many paths without a route are named in the file.
const MAX_LEFT_OUT: usize = 20;

#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The app: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`.
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// Propose routes from an access log (the combined format of nginx and Apache, or a JSON object
    /// on each line), or from an `OpenAPI` or Swagger document in JSON.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The file to write, instead of --config.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file that is there.
    #[arg(long)]
    force: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Path, args: &InitArgs) -> Result<ExitCode, CommandError> {
    let output = args.output.as_deref().unwrap_or(config);
    first_file::require_none(output, args.force)?;
    let given = settings(Some(&args.upstream), None, None)?;
    if let Err(problems) = Config::parse(&given, "the command line", &|_| None) {
        return Err(refused(&problems, &["--upstream"]));
    }
    let mut proposals = match &args.from {
        Some(from) => read(from)?,
        None => Proposals::default(),
    };
    proposals.rules.truncate(MAX_ROUTES);
    let file = whole(&given, &proposals, args.from.is_some());
    let checked =
        file.check("the new file", IncludeSource::Nowhere).map_err(CommandError::Config)?;
    let warned = |path: &String| (path.clone(), "`check` would warn".to_owned());
    proposals.left_out.extend(checked.left_out.iter().map(warned));
    first_file::write(output, &checked.text, args.force, None)?;
    let shown = output.display().to_string();
    if args.json {
        let counts: Value = proposals
            .counts
            .iter()
            .map(|(name, count)| (format!("{}s", name.replace(' ', "_")), json!(count)))
            .collect::<serde_json::Map<String, Value>>()
            .into();
        let left_out: Vec<Value> = proposals
            .left_out
            .iter()
            .map(|(path, why)| json!({ "path": path, "why": why }))
            .collect();
        let told = json!({
            "file": shown,
            "routes": checked.routes,
            "left_out": left_out,
            "read": counts,
        });
        return Ok(print(&super::format::escape_json(&told.to_string())));
    }
    for (name, count) in proposals.counts.iter().filter(|(_, count)| *count > 0) {
        note(&counted(*count, name));
    }
    print(&format!(
        "wrote {}: {}, in shadow mode\n\
         Next: read it, run `sidecache check`, then `sidecache`; it is at 127.0.0.1:8080.\n\
         `sidecache advise` tells what the cache would have done; mode = \"on\" lets it.",
        clean(&shown),
        counted(checked.routes.len() as u64, "route")
    ));
    Ok(ExitCode::SUCCESS)
}

/// The file of these proposals; without a source, one with an example.
fn whole(given: &str, proposals: &Proposals, has_source: bool) -> FirstFile {
    let mut heading = vec![
        "The rules of Sidecache. `sidecache check` reports every mistake; `sidecache explain GET \
         /path` shows what the rules make of a request. All keys: `sidecache schema`."
            .to_owned(),
    ];
    if has_source && proposals.rules.is_empty() {
        heading.push(format!(
            "Made by `sidecache init` from {}, which gives no route: the one below is an example. \
             The end of this file says why.",
            proposals.source
        ));
    } else if has_source {
        heading.push(format!(
            "Made by `sidecache init` from {}. The routes are in shadow mode: they cache nothing, \
             and `sidecache advise` tells what they would have done. Set mode = \"on\" for each \
             that it finds no fault with.",
            proposals.source
        ));
    }
    let settings = format!(
        "{given}\
         # Where clients connect.\n[listen]\naddress = \"127.0.0.1:8080\"\n\n\
         # Dashboard, purges and metrics. An address beyond loopback needs a token.\n\
         [admin]\naddress = \"127.0.0.1:9090\"\n\n"
    );
    let mut notes = Vec::new();
    if !proposals.left_out.is_empty() {
        notes.push("Without a route:".to_owned());
        for (path, why) in proposals.left_out.iter().take(MAX_LEFT_OUT) {
            notes.push(format!("  {path}: {why}"));
        }
    }
    let rules = if has_source && !proposals.rules.is_empty() {
        proposals.rules.clone()
    } else {
        vec![example()]
    };
    FirstFile { heading, settings, rules, notes }
}

/// A route to begin with.
fn example() -> FileRule {
    FileRule {
        reasons: vec![
            "A first route, which watches and caches nothing: GETs below /api go to the app as \
             before, and `sidecache advise` tells what a cache would have done. With mode = \"on\" \
             they are answered from memory for a minute, unless the app says otherwise."
                .to_owned(),
            "Each caller has entries of its own (scope = \"private\"). With scope = \"shared\" all \
             callers share those to which the app has admitted them; with \"public\" everybody \
             does. All parameters of the query count; query = [\"page\", \"limit\"] names those \
             that do. Writes below /api purge what carries the tag: see [[purges]]."
                .to_owned(),
        ],
        path: "/api/{*rest}".to_owned(),
        mode: Some("shadow"),
        ttl: "1m".to_owned(),
        tag: "api".to_owned(),
        purges: vec!["/api/{*rest}".to_owned()],
        ..FileRule::default()
    }
}

/// Reads a log or a document.
fn read(from: &Path) -> Result<Proposals, CommandError> {
    let shown = clean(&from.display().to_string()).into_owned();
    let failed =
        |error: &dyn std::fmt::Display| CommandError::Usage(format!("--from {shown}: {error}"));
    let file = File::open(from).map_err(|error| failed(&error))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(failed(&"it is not a regular file"));
    }
    let mut start = Vec::new();
    (&file).take(MAX_START).read_to_end(&mut start).map_err(|error| failed(&error))?;
    let start = String::from_utf8_lossy(&start);
    let is_yaml = from.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
        || ["openapi:", "swagger:"].iter().any(|key| start.trim_start().starts_with(key));
    if is_yaml {
        return Err(failed(
            &"YAML is not read; allowed: an access log, or an OpenAPI document in JSON\n  hint: \
              convert it, as with `yq -o=json . openapi.yaml > openapi.json`",
        ));
    }
    if openapi::looks_like_one(&start) {
        let text = input_file::read_text(from, MAX_DOCUMENT).map_err(|error| {
            failed(&format!("{error}; a document has at most {}", show_size(MAX_DOCUMENT)))
        })?;
        return openapi::proposals(&text).map_err(|why| failed(&why));
    }
    let file = File::open(from).map_err(|error| failed(&error))?;
    access_log::proposals(BufReader::new(file)).map_err(|why| failed(&why))
}
