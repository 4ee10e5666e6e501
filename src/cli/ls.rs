//! `ls`: what the memory of a running sidecar holds, entry by entry.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use url::form_urlencoded;

use super::api_types::{ApiEntry, ApiListing};
use super::error::CommandError;
use super::format::{clean, seconds, size, table};
use super::output;
use super::remote::RemoteArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache ls                                 the entries with the most hits
  sidecache ls --tag campaigns:acme --order largest
  sidecache ls --route '/api/v1/campaigns/{id}' --path '/api/v1/campaigns/7*'
  sidecache ls --json | jq '.entries[] | select(.state == \"purged\") | .path'";

/// How many tags of an entry are shown in the table.
const MAX_TAGS: usize = 4;

#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// Only entries with this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Only entries of this route: its `path` as in the file.
    #[arg(long, value_name = "ROUTE", conflicts_with = "tag")]
    route: Option<String>,
    /// Only entries with this path. A `*` stands for any text.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Which entries come first.
    #[arg(long, value_enum, default_value_t = ListOrder::Hottest)]
    order: ListOrder,
    /// How many entries, at most.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    limit: u16,
    /// Go on behind the last entry of the list before, which has named this place.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Print the sidecar's JSON response instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ListOrder {
    /// The most hits.
    Hottest,
    /// The most memory.
    Largest,
    /// Stored last.
    Newest,
    /// Stored first.
    Oldest,
    /// Fresh for the shortest time from now.
    Expiring,
}

impl ListOrder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hottest => "hottest",
            Self::Largest => "largest",
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Expiring => "expiring",
        }
    }
}

pub(super) fn run(path: &Path, args: &LsArgs) -> Result<ExitCode, CommandError> {
    let LsArgs { tag, route, path: paths, .. } = args;
    for (name, given) in [("tag", tag), ("route", route), ("path", paths)] {
        if given.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(CommandError::Usage(format!(
                "--{name} is empty; is a shell variable unset?"
            )));
        }
    }
    let remote = args.remote.resolve(path)?;
    let reply = remote.get("/memory", &query(args))?.error_for_status()?;
    if args.json {
        return Ok(output::print(reply.text.trim_end()));
    }
    let listing: ApiListing = reply.read()?;
    let code = output::print(&text(&listing));
    if !listing.complete {
        let seen = entries(listing.looked_at);
        output::note(&format!("the sidecar ended the search after {seen}: there may be others"));
    }
    if let Some(next) = &listing.next {
        output::note(&format!("more: repeat this with --after {}", clean(next)));
    }
    Ok(code)
}

fn query(args: &LsArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("order", args.order.as_str()).append_pair("limit", &args.limit.to_string());
    let given =
        [("tag", &args.tag), ("route", &args.route), ("path", &args.path), ("after", &args.after)];
    for (name, value) in given {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn text(listing: &ApiListing) -> String {
    let matched = &listing.matched;
    let mut text = String::new();
    if !listing.entries.is_empty() {
        let head = ["ENTRY", "STATE", "AGE", "TTL", "SIZE", "HITS", "SCOPE", "TAGS"];
        let rows = listing.entries.iter().map(row);
        let _ = writeln!(text, "{}\n", table(head, &[2, 3, 4, 5], rows));
    }
    let shown = listing.entries.len();
    let _ = write!(text, "{shown} of {} shown, {}", entries(matched.entries), size(matched.bytes));
    let states: Vec<String> = matched
        .states
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{} {count}", clean(state)))
        .collect();
    if !states.is_empty() {
        let _ = write!(text, ": {}", states.join(", "));
    }
    text
}

fn entries(count: u64) -> String {
    format!("{count} {}", if count == 1 { "entry" } else { "entries" })
}

fn row(entry: &ApiEntry) -> [String; 8] {
    let names: Vec<String> = entry.query.iter().map(|name| parameter(name)).collect();
    let query = if names.is_empty() { String::new() } else { format!("?{}", names.join("&")) };
    let mut tags: Vec<&str> = entry.tags.iter().take(MAX_TAGS).map(String::as_str).collect();
    let more = entry.tags.len() as u64 + entry.more_tags - tags.len() as u64;
    let more = format!("and {more} more");
    if entry.tags.len() > MAX_TAGS || entry.more_tags > 0 {
        tags.push(&more);
    }
    let scope = [entry.scope.as_deref().unwrap_or("-"), entry.credential.as_deref().unwrap_or("")];
    [
        format!("{}{}{query}", entry.host, entry.path),
        entry.state.clone(),
        seconds(entry.age_s),
        ttl(entry.ttl_s),
        size(entry.bytes),
        entry.hits.to_string(),
        scope.join(" ").trim_end().to_owned(),
        tags.join(" "),
    ]
}

/// A parameter whose value is not shown.
fn parameter(name: &str) -> String {
    if name == "…" { name.to_owned() } else { format!("{name}=…") }
}

fn ttl(left: f64) -> String {
    if left < 0.0 { format!("-{}", seconds(-left)) } else { seconds(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_row() {
        let entry = ApiEntry {
            host: "app.test".to_owned(),
            path: "/a\u{202e}".to_owned(),
            query: vec!["page".to_owned(), "…".to_owned()],
            scope: Some("private".to_owned()),
            credential: Some("0a1b2c3d".to_owned()),
            state: "soft purged".to_owned(),
            age_s: 61.0,
            ttl_s: -3.0,
            bytes: 2048,
            hits: 7,
            tags: ["a", "b", "c", "d", "e"].map(str::to_owned).into(),
            more_tags: 2,
        };
        assert_eq!(
            row(&entry),
            [
                "app.test/a\u{202e}?page=…&…",
                "soft purged",
                "1m 1s",
                "-3.0 s",
                "2.0 KiB",
                "7",
                "private 0a1b2c3d",
                "a b c d and 3 more"
            ]
        );
        let listing = ApiListing { entries: vec![entry], ..ApiListing::default() };
        let shown = text(&listing);
        assert!(shown.contains("/a\\u{202e}") && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.ends_with("1 of 0 entries shown, 0 B"), "{shown}");
    }
}
