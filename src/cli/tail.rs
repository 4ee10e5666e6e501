//! `tail`: requests as a running sidecar answers them.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossterm::style::{Color, Stylize as _};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::api_types::{ApiTailLine, ApiTailMissed};
use super::error::CommandError;
use super::format::{clean, escape_json, millis, size, time_of_day};
use super::http::block_on;
use super::output::note;
use super::remote::stream::{EventStream, EventsEnd, StreamEvent};
use super::remote::{Remote, RemoteArgs, RemoteError};
use super::terminal::{has_colors, stop_signal, write_out};

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache tail
  sidecache tail --route '/api/v1/campaigns' --disposition miss
  sidecache tail --status 5xx --json | jq -r .path

It runs until Ctrl-C, and connects again when the sidecar restarts. Lines beyond --rate, and those
that a slow reader loses, are counted and told. Queries, headers and bodies are never shown.";

/// The waits between tries to connect again; the last one repeats.
const RETRY_AFTER: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

#[derive(Args, Debug)]
pub(super) struct TailArgs {
    /// Only requests of this route; `none` for those without one.
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only requests of this disposition: HIT, STALE, REVALIDATED, MISS or BYPASS, in any case.
    #[arg(long, value_name = "WORD")]
    disposition: Option<String>,
    /// Only requests whose path contains this text.
    #[arg(long, value_name = "TEXT")]
    path: Option<String>,
    /// Only requests of this reason, such as `missing field`.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only responses of this status, or of a class: 404, 5xx.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// How many lines a second to show at most; up to 1000. Further ones are counted.
    #[arg(long, value_name = "LINES", default_value_t = 200)]
    rate: u32,
    /// End after so many requests.
    #[arg(long, short = 'n', value_name = "COUNT")]
    lines: Option<u64>,
    /// Print one JSON object per line. What was missed is `{"missed":{"more":2,"lost":1}}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(path: &Path, args: &TailArgs) -> Result<ExitCode, CommandError> {
    let remote = args.remote.resolve(path)?;
    let failed = |error: io::Error| CommandError::Failed(error.to_string());
    let following = async {
        tokio::select! {
            done = follow(&remote, args) => done,
            stopped = stop_signal() => stopped.map_err(failed),
        }
    };
    block_on(following).map_err(failed)??;
    Ok(ExitCode::SUCCESS)
}

/// Shows requests until there were enough of them, or nobody reads what is shown.
async fn follow(remote: &Remote, args: &TailArgs) -> Result<(), CommandError> {
    let mut printer = Printer { as_json: args.json, colors: has_colors(), left: args.lines };
    let query = query(args);
    let mut tail = remote.open("/tail", &query).await.map_err(RemoteError::into_error)?;
    loop {
        let end = match printer.print_all(&mut tail).await {
            Ok(end) => end,
            // A closed pipe says that the reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(CommandError::Failed(error.to_string())),
        };
        let Some(end) = end else { return Ok(()) };
        tail = reconnect(remote, &query, &end).await?;
    }
}

/// Opens the stream again, whenever that is.
async fn reconnect(
    remote: &Remote,
    query: &str,
    end: &EventsEnd,
) -> Result<EventStream, CommandError> {
    let lost = |why: &str| note(&format!("the connection is lost ({}); trying again", clean(why)));
    let mut is_told = false;
    if let EventsEnd::Broken(why) = end {
        lost(why);
        is_told = true;
    }
    let mut waits = RETRY_AFTER.into_iter().chain(std::iter::repeat(RETRY_AFTER[3]));
    loop {
        match remote.open("/tail", query).await {
            Ok(tail) => {
                if is_told {
                    note("connected again");
                }
                return Ok(tail);
            }
            Err(RemoteError::Refused(error)) => return Err(error),
            Err(RemoteError::Unreachable(_)) => {
                if !std::mem::replace(&mut is_told, true) {
                    lost("the sidecar does not answer");
                }
            }
        }
        tokio::time::sleep(waits.next().unwrap_or_default()).await;
    }
}

fn query(args: &TailArgs) -> String {
    let mut query = Serializer::new("?".to_owned());
    let TailArgs { route, disposition, path, reason, status, rate, .. } = args;
    let filters = [
        ("route", route),
        ("disposition", disposition),
        ("path", path),
        ("reason", reason),
        ("status", status),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("rate", &rate.to_string()).finish()
}

struct Printer {
    as_json: bool,
    colors: bool,
    /// How many more requests are wanted.
    left: Option<u64>,
}

impl Printer {
    /// Prints what comes until the stream ends; `None` if that was all that is wanted.
    async fn print_all(&mut self, tail: &mut EventStream) -> io::Result<Option<EventsEnd>> {
        while self.left != Some(0) {
            let events = match tail.next().await {
                Ok(events) => events,
                Err(end) => return Ok(Some(end)),
            };
            let text: String = events.iter().filter_map(|event| self.line(event)).collect();
            if !text.is_empty() {
                write_out(text).await?;
            }
        }
        Ok(None)
    }

    /// The line of an event, with its end.
    fn line(&mut self, event: &StreamEvent) -> Option<String> {
        let is_request = event.name == "request";
        // Events that a later version may have are ignored, and so is what is no JSON.
        if !is_request && event.name != "missed" {
            return None;
        }
        if is_request && let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let mut line = match (self.as_json, is_request) {
            (true, is_request) => {
                let data: Value = serde_json::from_str(&event.data).ok()?;
                let data = if is_request { data } else { json!({ "missed": data }) };
                escape_json(&data.to_string())
            }
            (false, true) => self.request(&serde_json::from_str(&event.data).ok()?),
            (false, false) => missed(&serde_json::from_str(&event.data).ok()?),
        };
        line.push('\n');
        Some(line)
    }

    fn request(&self, line: &ApiTailLine) -> String {
        let disposition = format!("{:<11}", clean(&line.disposition));
        let status = format!("{:>3}", line.status);
        let (disposition, status) = if self.colors {
            let status = if line.status >= 500 { status.red().to_string() } else { status };
            (disposition.with(color(&line.disposition)).to_string(), status)
        } else {
            (disposition, status)
        };
        let mut text = format!(
            "{} {disposition} {status} {:<6} {:>8} {:>10} {} route={}",
            time_of_day(line.at_ms),
            clean(&line.method),
            millis(line.duration_ms),
            line.bytes.map_or_else(|| "-".to_owned(), size),
            clean(&line.path),
            clean(&line.route),
        );
        if let Some(tier) = &line.tier {
            let _ = write!(text, " tier={}", clean(tier));
        }
        if let Some(reason) = &line.reason {
            let words: Vec<_> = [Some(reason), line.subject.as_ref()]
                .into_iter()
                .flatten()
                .map(|it| clean(it))
                .collect();
            let _ = write!(text, " reason=\"{}\"", words.join(" "));
        }
        text
    }
}

fn missed(missed: &ApiTailMissed) -> String {
    let told = [(missed.more, "more than --rate shows"), (missed.lost, "lost: read too slowly")];
    let parts: Vec<_> = told
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("... {}", parts.join(", "))
}

/// Roughly as on the dashboard.
fn color(disposition: &str) -> Color {
    match disposition {
        "HIT" => Color::Green,
        "STALE" => Color::Yellow,
        "REVALIDATED" => Color::Blue,
        "MISS" => Color::Magenta,
        _ => Color::DarkGrey,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = r#"{"at_ms":86399123,"method":"GET","path":"/a\u001b[2J\u009b\u202e",
        "route":"none",
        "status":503,"disposition":"BYPASS","reason":"no route","subject":"x\u001b]0;t\u0007",
        "tier":null,"duration_ms":1.5,"bytes":2048}"#;

    fn printed(as_json: bool, colors: bool, name: &str, data: &str) -> String {
        let event = StreamEvent { name: name.to_owned(), data: data.to_owned() };
        let line = Printer { as_json, colors, left: None }.line(&event);
        line.expect("a line").trim_end().to_owned()
    }

    #[test]
    fn a_line_is_columns_of_text_that_no_terminal_obeys() {
        assert_eq!(
            printed(false, false, "request", HOSTILE),
            "23:59:59.123Z BYPASS      503 GET     1.50 ms    2.0 KiB \
             /a\\u{1b}[2J\\u{9b}\\u{202e} route=none reason=\"no route x\\u{1b}]0;t\\u{7}\""
        );
        let json = printed(true, true, "request", HOSTILE);
        assert!(!json.contains(|c: char| c.is_control() || c == '\u{202e}'), "{json}");
        let (value, same): (Value, Value) = (
            serde_json::from_str(&json).expect("JSON"),
            serde_json::from_str(HOSTILE).expect("JSON"),
        );
        assert_eq!(value, same, "it is only written in another way");
    }

    #[test]
    fn what_was_missed_is_told() {
        let data = r#"{"more":12,"lost":0}"#;
        assert_eq!(printed(false, false, "missed", data), "... 12 more than --rate shows");
        let json: Value =
            serde_json::from_str(&printed(true, false, "missed", data)).expect("JSON");
        assert_eq!(json, json!({ "missed": { "more": 12, "lost": 0 } }));
    }

    #[test]
    fn it_ends_after_as_many_requests_as_are_wanted() {
        let mut printer = Printer { as_json: false, colors: false, left: Some(1) };
        let event = StreamEvent { name: "request".to_owned(), data: HOSTILE.to_owned() };
        assert!(printer.line(&event).is_some());
        assert!(printer.line(&event).is_none() && printer.left == Some(0));
    }
}
