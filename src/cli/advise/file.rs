//! `advise --file`: a whole `proxy.toml` of what a sidecar without routes has seen.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::super::api_types::{ApiLearned, ApiLearnedRule, ApiSessionCookie};
use super::super::error::CommandError;
use super::super::first_file::{self, FileClaim, FileRule, FileSession, FirstFile};
use super::super::format::{clean, counted, percent};
use super::super::output::{note, print};
use super::super::remote::Remote;
use crate::config::Config;
use crate::config::include::IncludeSource;
use crate::input_file::{self, MAX_CONFIG_BYTES};
use crate::policy::session::SessionFormat;
use crate::units::show_duration;

/// How many paths without a rule are named in the file.
const MAX_LEFT_OUT: usize = 20;

/// Where the file goes.
#[derive(Args, Clone, Debug)]
pub(super) struct FileArgs {
    /// Print a whole proxy.toml of what a sidecar without routes has seen: only rules that would
    /// have answered nothing wrongly.
    #[arg(long)]
    pub(super) file: bool,
    /// With --file: write it to this file, unless there is one.
    #[arg(long, value_name = "FILE", requires = "file")]
    output: Option<PathBuf>,
    /// With --output: replace the file that is there.
    #[arg(long, requires = "output")]
    force: bool,
}

pub(super) fn run(
    path: &Path,
    args: &FileArgs,
    is_json: bool,
    remote: &Remote,
) -> Result<ExitCode, CommandError> {
    if let Some(output) = &args.output {
        first_file::require_none(output, args.force)?;
    }
    let reply = remote.send(&Method::GET, "/learned", None)?.error_for_status()?;
    let learned: ApiLearned = reply.read()?;
    if is_json {
        return Ok(print(reply.text.trim_end()));
    }
    if learned.routes > 0 {
        return Err(CommandError::Failed(format!(
            "the sidecar has {} already, and a file is made only of what one without routes has \
             seen: `sidecache advise` suggests changes of its file",
            counted(learned.routes, "route")
        )));
    }
    if learned.rules.is_empty() {
        return Err(CommandError::Failed(nothing(&learned)));
    }
    let file = FirstFile {
        heading: heading(&learned),
        settings: settings(path, &learned)?,
        rules: learned.rules.iter().map(rule).collect(),
        notes: notes(&learned),
    };
    let like = learned.settings.is_none().then_some(path);
    // Paths in a file are relative to its folder.
    let name = like.map_or_else(|| "the new file".to_owned(), |path| path.display().to_string());
    // The texts of a sidecar read no files.
    let from = like.map_or(IncludeSource::Nowhere, IncludeSource::FolderOf);
    let checked = file.check(&name, from).map_err(CommandError::Config)?;
    if checked.routes.is_empty() {
        return Err(CommandError::Failed(
            "no rule passes `check` beside the settings of the file".to_owned(),
        ));
    }
    let Some(output) = &args.output else { return Ok(print(checked.text.trim_end())) };
    first_file::write(output, &checked.text, args.force, like)?;
    let shown = output.display().to_string();
    note(&format!(
        "wrote {}: {}. Read it, then start `sidecache` with it.",
        clean(&shown),
        counted(checked.routes.len() as u64, "route")
    ));
    Ok(ExitCode::SUCCESS)
}

/// The tables of the file that are no rules: those of the command line that the sidecar was started
/// with, or those of its file.
fn settings(path: &Path, learned: &ApiLearned) -> Result<String, CommandError> {
    if let Some(text) = &learned.settings {
        return Ok(if learned.local_proxy { with_local_proxy(text) } else { text.clone() });
    }
    let text = input_file::read_text(path, MAX_CONFIG_BYTES).map_err(|error| {
        CommandError::Usage(format!(
            "the sidecar has a file, and {} is to be the same: {error}; name it with --config",
            clean(&path.display().to_string())
        ))
    })?;
    let config = Config::load(path).map_err(CommandError::Config)?;
    if config.routes.iter().next().is_some() {
        return Err(CommandError::Usage(format!(
            "{} has routes, and the sidecar has none: reload it first",
            clean(&path.display().to_string())
        )));
    }
    Ok(format!("{}\n\n", text.trim_end()))
}

/// These settings with a proxy on the same computer, which stands before the sidecar.
fn with_local_proxy(text: &str) -> String {
    const PROXY: &str = "127.0.0.1";
    let Ok(mut document) = text.parse::<toml_edit::DocumentMut>() else { return text.to_owned() };
    let listen = document.entry("listen").or_insert_with(toml_edit::table);
    let Some(listen) = listen.as_table_like_mut() else { return text.to_owned() };
    if listen.contains_key("trusted_proxies") {
        return text.to_owned();
    }
    let list: toml_edit::Array = [PROXY].into_iter().collect();
    listen.insert("trusted_proxies", toml_edit::value(list));
    document.to_string()
}

fn nothing(learned: &ApiLearned) -> String {
    let mut text = format!(
        "nothing can be proposed yet: {} were seen, and none of them is worth a rule that would \
         have answered nothing wrongly",
        counted(learned.requests, "request")
    );
    for one in learned.left_out.iter().take(MAX_LEFT_OUT) {
        let _ = write!(text, "\n  {}: {}", clean(&one.path), clean(&one.why));
    }
    text + "\n  let it see more traffic, writes too, and try again"
}

fn heading(learned: &ApiLearned) -> Vec<String> {
    let span = show_duration(Duration::from_secs(learned.span_s));
    let mut lines = vec![format!(
        "Made by `sidecache advise --file` of {} within {span}. Each rule was played on them: it \
         would have answered none of them wrongly. What was not seen is not known: read each rule, \
         and watch it at first with mode = \"shadow\" if you doubt it.",
        counted(learned.requests, "request")
    )];
    if learned.one_page_in > 1 {
        lines.push(format!(
            "There were too many requests: one page in {} was watched.",
            learned.one_page_in
        ));
    }
    if learned.local_proxy {
        lines.push(
            "All requests came from 127.0.0.1 with X-Forwarded-For: a proxy on this computer \
             stands in front, and its headers are trusted."
                .to_owned(),
        );
    }
    lines
}

fn notes(learned: &ApiLearned) -> Vec<String> {
    if learned.left_out.is_empty() {
        return Vec::new();
    }
    let mut notes = vec!["Without a rule:".to_owned()];
    for one in learned.left_out.iter().take(MAX_LEFT_OUT) {
        notes.push(format!("  {}, {}: {}", one.path, counted(one.requests, "request"), one.why));
    }
    notes
}

fn rule(learned: &ApiLearnedRule) -> FileRule {
    FileRule {
        reasons: reasons(learned),
        path: learned.path.clone(),
        mode: None,
        ttl: show_duration(Duration::from_secs(learned.ttl_s)),
        scope: (learned.scope != "private").then(|| learned.scope.clone()),
        credential_headers: learned.credential_headers.clone(),
        key_headers: learned.key_headers.clone(),
        session: learned.session.as_ref().and_then(session),
        claim: learned.claim.as_ref().map(|claim| FileClaim {
            name: claim.name.clone(),
            algorithms: claim.algorithms.clone(),
            issuers: claim.issuers.clone(),
            audiences: claim.audiences.clone(),
        }),
        drop_headers: learned.drop_headers.clone(),
        query: None,
        without_parameters: learned.without_parameters.clone(),
        overrules: learned.overrules,
        tag: learned.tag.clone(),
        more_tags: learned.purged_tags.clone(),
        purges: learned.purges.clone(),
        kept_out: learned.kept_out.clone(),
    }
}

/// The session cookie in its key. A signature counts for as long as browsers keep the cookie, in
/// whole minutes: whatever the app does with an older one, nobody has seen it.
fn session(learned: &ApiSessionCookie) -> Option<FileSession> {
    let format = SessionFormat::ALL.into_iter().find(|one| one.as_str() == learned.format)?;
    if format == SessionFormat::Express {
        return None;
    }
    let kept_for = learned.kept_for_s.filter(|seconds| *seconds > 0)?;
    let in_minutes = if kept_for < 60 { kept_for } else { kept_for / 60 * 60 };
    Some(FileSession {
        cookie: learned.cookie.clone(),
        format,
        max_age: show_duration(Duration::from_secs(in_minutes)),
        is_optional: learned.is_optional,
    })
}

/// What the rule is founded on.
fn reasons(learned: &ApiLearnedRule) -> Vec<String> {
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    let ratio = learned.hits as f64 / learned.requests.max(1) as f64;
    let mut text = format!(
        "{}: {} would have been hits ({}), {} of them stale",
        counted(learned.requests, "read"),
        learned.hits,
        percent(Some(ratio)),
        learned.stale
    );
    if learned.unchecked > 0 {
        let _ = write!(text, ", {} not compared", learned.unchecked);
    }
    let age = show_duration(Duration::from_secs(learned.oldest_s));
    let _ = write!(text, ". A response was the same after {age}");
    if learned.changes == 0 {
        text.push_str(", and none has changed.");
    } else {
        let _ = write!(text, "; {} each followed a write", counted(learned.changes, "change"));
        if learned.changes_by_group > 0 {
            let _ = write!(
                text,
                ", {} named by its Cache-Group-Invalidation",
                learned.changes_by_group
            );
        }
        text.push('.');
    }
    if learned.callers == 0 {
        text.push_str(" Nobody sent a credential.");
    } else {
        let _ = write!(
            text,
            " {} with a credential, {} without; {} a caller got what another one had got.",
            counted(learned.callers, "caller"),
            counted(learned.anonymous, "read"),
            counted(learned.same_for_others, "time")
        );
    }
    let mut all = vec![text];
    all.extend(caller_reasons(learned));
    if learned.overrules {
        all.push(
            "The app says `Cache-Control: no-cache` to what stays the same: the ttl counts instead."
                .to_owned(),
        );
    }
    if !learned.purged_tags.is_empty() {
        let tags = learned.purged_tags.join(", ");
        all.push(format!("Changes came with purges of these tags by the operator: {tags}."));
    }
    if !learned.without_parameters.is_empty() {
        let names = learned.without_parameters.join(", ");
        all.push(format!(
            "Parameters that follow a link, and changed nothing whatever their values: {names}."
        ));
    }
    if !learned.parameters.is_empty() {
        let names = learned.parameters.join(", ");
        all.push(format!("Parameters, all of them in the key: {names}."));
    }
    all
}

/// What tells its callers apart.
fn caller_reasons(learned: &ApiLearnedRule) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(claim) = &learned.claim {
        all.push(format!(
            "Callers with one value of the claim `{}` got the same, and none got another response.",
            clean(&claim.name)
        ));
    }
    if learned.jwt_callers && learned.scope == "private" {
        all.push(
            "Most callers have a JWT. If all of one tenant get the same, let them share, with the \
             keys of whoever signs the tokens, which nobody can learn:"
                .to_owned(),
        );
        all.push("    jwt = { jwks_url = \"https://...\", algorithms = [\"RS256\"] }".to_owned());
        all.push("    fields.tenant = { jwt = \"/tenant\" }".to_owned());
        all.push("and here scope = \"shared\", key = [\"tenant\"].".to_owned());
    }
    if let Some(session) = &learned.session {
        all.push(format!(
            "The app signs the session in the cookie `{}` anew with its responses, as {} does it: \
             what it carries tells who asks, and it is taken out of what is stored only where that \
             stays the same.",
            clean(&session.cookie),
            session.format
        ));
    }
    all
}
