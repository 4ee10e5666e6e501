//! `top`: what a running sidecar does now, in a table that is kept up to date.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;
use tokio::time::sleep;

use self::frame::{Frame, TopSort};
use self::view::{View, Width};
use super::api_types::ApiStats;
use super::error::CommandError;
use super::format::{clean, escape_json};
use super::http::block_on;
use super::output::note;
use super::remote::{Remote, RemoteArgs, RemoteError};
use super::terminal::{Input, Screen, is_terminal, stop_signal, write_out};
use crate::units::parse_duration;

mod frame;
mod view;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache top
  sidecache top --sort misses --every 5s
  sidecache top --once                   one frame, for scripts: rates of the next two seconds
  sidecache top --json | jq '.routes[] | {path, requests_per_s}'

In the terminal: r, m, t and h sort by requests, misses, time saved and hit ratio; q or Ctrl-C ends.
Without a terminal, frames follow one another.";

/// The least and the greatest time between two frames.
const EVERY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_hours(1));

#[derive(Args, Debug)]
pub(super) struct TopArgs {
    /// The time between two frames, such as 500ms, 2s or 1m.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_every)]
    every: Duration,
    /// What comes first: the most requests a second, the most misses a second, the most time saved,
    /// or the lowest hit ratio.
    #[arg(long, value_name = "BY", value_enum, default_value_t = TopSort::Requests)]
    sort: TopSort,
    /// Print one frame and end. It takes the time of --every, because rates are those of that time.
    #[arg(long)]
    once: bool,
    /// Print each frame as one JSON object on a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text).map_err(|error| error.to_string())?;
    let (least, most) = EVERY;
    if (least..=most).contains(&every) {
        return Ok(every);
    }
    Err("it must be from 250ms to 1h".to_owned())
}

pub(super) fn run(path: &Path, args: &TopArgs) -> Result<ExitCode, CommandError> {
    let remote = args.remote.resolve(path)?;
    let showing = async {
        let stopped = async {
            // Without the handler the default one of the system ends the process.
            if stop_signal().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stopped => Ok(()),
            done = show(&remote, args) => done,
        }
    };
    block_on(showing).map_err(failed)??;
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn failed(error: io::Error) -> CommandError {
    CommandError::Failed(error.to_string())
}

async fn show(remote: &Remote, args: &TopArgs) -> Result<(), CommandError> {
    // Before the screen is taken, so that a wrong address is an ordinary message.
    let first = sample(remote).await.map_err(RemoteError::into_error)?;
    let shown = if is_terminal() && !args.json && !args.once {
        interactive(remote, args, first).await
    } else {
        plain(remote, args, first).await
    };
    match shown {
        // A closed pipe says that the reader has seen enough.
        Err(TopError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(TopError::Output(error)) => Err(failed(error)),
        Err(TopError::Command(error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Why no more frames are shown.
enum TopError {
    Output(io::Error),
    Command(CommandError),
}

impl From<io::Error> for TopError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

async fn sample(remote: &Remote) -> Result<ApiStats, RemoteError> {
    let reply = remote.ask(&Method::GET, "/stats", None).await?;
    let reply = reply.error_for_status().map_err(RemoteError::Refused)?;
    reply.read().map_err(RemoteError::Refused)
}

/// A sample, or none while the sidecar does not answer. An answer that will not change is an error.
async fn try_sample(remote: &Remote) -> Result<Option<ApiStats>, TopError> {
    match sample(remote).await {
        Ok(stats) => Ok(Some(stats)),
        Err(RemoteError::Unreachable(_)) => Ok(None),
        Err(RemoteError::Refused(error)) => Err(TopError::Command(error)),
    }
}

/// Frames one after another.
async fn plain(remote: &Remote, args: &TopArgs, first: ApiStats) -> Result<(), TopError> {
    let (mut before, mut is_lost, mut is_first) = (first, false, true);
    loop {
        sleep(args.every).await;
        let Some(now) = try_sample(remote).await? else {
            if args.once {
                let why = "the sidecar does not answer any more".to_owned();
                return Err(TopError::Command(CommandError::Failed(why)));
            }
            if !std::mem::replace(&mut is_lost, true) {
                note("the sidecar does not answer; trying again");
            }
            continue;
        };
        is_lost = false;
        let frame = Frame::new(&now, Some(&before), args.sort);
        let text = if args.json {
            format!("{}\n", escape_json(&frame.json().to_string()))
        } else {
            let gap = if is_first { "" } else { "\n" };
            let view = View { width: Width::Any, rows: usize::MAX, notice: None };
            format!("{gap}{}\n", view.lines(&frame).join("\n"))
        };
        write_out(text).await?;
        if args.once {
            return Ok(());
        }
        (before, is_first) = (now, false);
    }
}

/// Frames in place, until a key or a signal ends it.
async fn interactive(remote: &Remote, args: &TopArgs, first: ApiStats) -> Result<(), TopError> {
    let mut screen = Screen::open()?;
    let (mut sort, mut notice) = (args.sort, None);
    let (mut before, mut now) = (None, first);
    loop {
        let frame = Frame::new(&now, before.as_ref(), sort);
        let (columns, rows) = Screen::size();
        let notice_now = notice
            .clone()
            .unwrap_or_else(|| format!("sorted by {} (r m t h), q to quit", frame.sort.as_str()));
        let view = View { width: Width::Columns(columns), rows, notice: Some(notice_now) };
        Screen::draw(&view.lines(&frame))?;
        tokio::select! {
            input = screen.input() => match input {
                Input::Leave => return Ok(()),
                Input::Key(key) => sort = TopSort::from_key(key).unwrap_or(sort),
                Input::Resized => {}
            },
            sampled = next(remote, args.every) => {
                if let Some(newer) = sampled? {
                    before = Some(std::mem::replace(&mut now, newer));
                    notice = None;
                } else {
                    let address = remote.endpoint().to_string();
                    notice = Some(format!("NO ANSWER from {}; trying again", clean(&address)));
                }
            },
        }
    }
}

async fn next(remote: &Remote, every: Duration) -> Result<Option<ApiStats>, TopError> {
    sleep(every).await;
    try_sample(remote).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_frames_has_limits() {
        assert_eq!(parse_every("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_every("1h"), Ok(Duration::from_hours(1)));
        for wrong in ["0s", "249ms", "61m", "2", "often", "-1s"] {
            assert!(parse_every(wrong).is_err(), "{wrong}");
        }
    }
}
