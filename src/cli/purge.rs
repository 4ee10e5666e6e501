//! `purge`: purges stored responses by tag, by URL, or all of them.

use std::io::{BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::json;

use super::api_types::ApiPurged;
use super::error::CommandError;
use super::format::{clean, counted, millis};
use super::output;
use super::remote::RemoteArgs;
use crate::policy::purge_url::not_one_path;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache purge --tag campaigns:acme --tag forms:acme
  sidecache purge --url http://app.example.com/api/v1/campaigns/7
  sidecache purge --under http://app.example.com/api/v1/reports/
  sidecache purge --tag campaigns:acme --soft      may be served stale while it is refreshed
  sidecache purge --everything --yes               for scripts: skips the confirmation";

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[group(
    id = "named",
    required = true,
    multiple = true,
    args = ["tags", "urls", "under", "everything"]
)]
pub(super) struct PurgeArgs {
    /// A tag to purge. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A URL to purge, with the host that clients use. May be repeated.
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// The URL of a folder, with the host that clients use: what is below it is purged. The entries
    /// must carry it: by `under` of a purge rule, or by `tags.folders = true`. May be repeated.
    #[arg(long = "under", value_name = "URL")]
    under: Vec<String>,
    /// Everything, in every sidecar that shares the Redis. Asks for confirmation.
    #[arg(long, conflicts_with_all = ["tags", "urls", "under"])]
    everything: bool,
    /// Soft purge: mark entries as stale instead of removing them. Routes may serve them while they
    /// are refreshed.
    #[arg(long)]
    soft: bool,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// Print the sidecar's JSON response instead of a sentence.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// What is said while the other sidecars cannot be told.
const PENDING: &str = "purged in this sidecar alone: Redis cannot be reached. The others purge it \
                       when this sidecar reaches Redis again; if they serve on, purge in each of \
                       them";

/// The operator's decision.
#[derive(Debug, PartialEq, Eq)]
enum Consent {
    Given,
    Refused,
    NobodyToAsk,
}

pub(super) fn run(path: &Path, args: &PurgeArgs) -> Result<ExitCode, CommandError> {
    for url in &args.urls {
        check_url("--url", url)?;
        if let Some(why) = not_one_path(url) {
            return Err(CommandError::Usage(format!("--url {url:?} {why}")));
        }
    }
    for url in &args.under {
        check_url("--under", url)?;
    }
    if let Some(empty) = args.tags.iter().find(|tag| tag.trim().is_empty()) {
        return Err(CommandError::Usage(format!(
            "--tag {empty:?} is empty; is a shell variable unset?"
        )));
    }
    let remote = args.remote.resolve(path)?;
    if args.everything {
        let question = format!(
            "Purge everything that the sidecar at {} has stored? Every request will go to the \
             origin until the cache is filled again.",
            remote.endpoint()
        );
        let terminal = std::io::stdin().is_terminal();
        match consent(
            args.yes,
            terminal,
            &question,
            &mut std::io::stdin().lock(),
            &mut std::io::stderr().lock(),
        ) {
            Consent::Given => {}
            Consent::Refused => return Err(CommandError::Failed("nothing was purged".to_owned())),
            Consent::NobodyToAsk => {
                return Err(CommandError::Usage(
                    "--everything asks for confirmation, but stdin is not a terminal; add --yes"
                        .to_owned(),
                ));
            }
        }
    }
    let mut body = if args.everything {
        json!({ "everything": true, "soft": args.soft })
    } else {
        json!({ "tags": args.tags, "urls": args.urls, "soft": args.soft })
    };
    // An older sidecar does not know the key.
    if !args.under.is_empty() {
        body["under"] = json!(args.under);
    }
    let reply = remote.send(&Method::POST, "/purge", Some(&body))?.error_for_status()?;
    if args.json {
        return Ok(output::print(reply.text.trim_end()));
    }
    let purged = reply.read()?;
    let code = output::print(&render(&purged));
    if purged.pending {
        output::note(PENDING);
    }
    for name in &purged.unused {
        output::note(&unused(name));
    }
    Ok(code)
}

fn check_url(flag: &str, given: &str) -> Result<(), CommandError> {
    let known = url::Url::parse(given)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    known.map(drop).ok_or_else(|| {
        CommandError::Usage(format!(
            "{flag} {given:?} is not a URL; include the host, as in http://app.example.com/path"
        ))
    })
}

fn consent(
    yes: bool,
    terminal: bool,
    question: &str,
    answers: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Consent {
    if yes {
        return Consent::Given;
    }
    if !terminal {
        return Consent::NobodyToAsk;
    }
    let mut answer = String::new();
    let read = write!(out, "{question} [y/N] ")
        .and_then(|()| out.flush())
        .and_then(|()| answers.read_line(&mut answer));
    let given = read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if given { Consent::Given } else { Consent::Refused }
}

fn render(purged: &ApiPurged) -> String {
    let how = if purged.soft { "soft purged" } else { "purged" };
    let took = millis(purged.took_ms);
    if purged.everything {
        return format!("{how} everything in {took}");
    }
    let mut text = format!(
        "{how} {} in {took}",
        counted(u64::try_from(purged.tags.len()).unwrap_or(u64::MAX), "tag")
    );
    for tag in &purged.tags {
        text.push_str("\n  ");
        text.push_str(&clean(tag));
    }
    text
}

/// What to say of a tag or a URL that nothing carries.
fn unused(name: &str) -> String {
    let advice = if name.contains("://") {
        "the host is that of clients, with its port; `sidecache explain GET /path -H 'host: HOST' \
         --live` shows what is stored"
    } else {
        "`sidecache explain GET /path` shows the tags of a path, `sidecache stats` the busiest ones"
    };
    format!("nothing that this sidecar knows carries {}: {advice}", clean(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(yes: bool, terminal: bool, answer: &str) -> (Consent, String) {
        let mut out = Vec::new();
        let consent = consent(yes, terminal, "All?", &mut answer.as_bytes(), &mut out);
        (consent, String::from_utf8(out).unwrap())
    }

    #[test]
    fn everything_is_purged_after_a_yes_alone() {
        for yes in ["y\n", "Y\n", "yes\n", " YES "] {
            assert_eq!(
                answered(false, true, yes),
                (Consent::Given, "All? [y/N] ".to_owned()),
                "{yes:?}"
            );
        }
        for no in ["\n", "", "n\n", "yess\n", "no\ny\n"] {
            assert_eq!(answered(false, true, no).0, Consent::Refused, "{no:?}");
        }
    }

    #[test]
    fn nobody_is_asked_without_a_terminal_or_with_yes() {
        assert_eq!(answered(false, false, "y\n"), (Consent::NobodyToAsk, String::new()));
        assert_eq!(answered(true, false, ""), (Consent::Given, String::new()));
        assert_eq!(answered(true, true, "n\n"), (Consent::Given, String::new()));
    }

    #[test]
    fn a_url_has_its_host() {
        assert!(check_url("--url", "https://app.example.com/a?b").is_ok());
        for bad in ["/a", "app.example.com/a", "ftp://h/a", "http://", ""] {
            assert!(check_url("--url", bad).is_err(), "{bad}");
        }
    }
}
