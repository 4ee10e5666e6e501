//! Routes for what a log or a document tells of an app, without a sidecar: by the same judgement of
//! paths as for what a sidecar has seen.

use super::proposal::{base_length, kept_out, tag};
use super::verdict::{MIN_COMPARED, WhyNot, by_name};
use crate::policy::credential::CredentialRule;
use crate::policy::route::Pattern;
use crate::uncached::fold::{PathPart, pattern, shown};
use crate::uncached::tree::PathTemplate;

/// Words of what is not cached on the word of a log or a document alone.
#[rustfmt::skip]
const RISKY: &[&str] = &[
    "admin", "administration", "wp-admin", "internal", "debug", "actuator", "console", "export",
    "exports", "download", "downloads", "backup", "backups", "me", "account", "profile", "settings",
    "preferences", "notifications", "inbox", "billing", "payment", "payments",
];

/// Endings of files that lie on a disk.
#[rustfmt::skip]
const STATIC: &[&str] = &[
    "js", "mjs", "css", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "avif", "woff",
    "woff2", "ttf", "eot", "mp4", "webm", "mp3", "pdf", "zip", "gz", "txt",
];

/// A route that may be watched.
#[derive(Clone, Debug)]
pub struct RouteDraft {
    /// Its place in the list of templates.
    pub template: usize,
    pub path: String,
    pub tag: String,
    /// The paths at and below which writes purge it.
    pub purge: String,
    pub kept_out: Vec<String>,
}

/// A path without one, and why.
#[derive(Clone, Debug)]
pub struct LeftOut {
    pub path: String,
    pub why: String,
}

/// Which templates may have a route. With `counted`, what is known of them counts, too.
#[must_use]
pub fn drafts(templates: &[PathTemplate], counted: bool) -> (Vec<RouteDraft>, Vec<LeftOut>) {
    let credential = CredentialRule::default();
    let verdict = |one: &PathTemplate| -> Option<WhyNot> {
        let of_facts = || if counted { seldom(one) } else { None };
        by_name(one, &credential).or_else(|| risky(one)).or_else(of_facts)
    };
    let is_read = |one: &&PathTemplate| one.facts.requests > 0;
    let verdicts: Vec<Option<WhyNot>> = templates.iter().map(verdict).collect();
    let unsafe_ones: Vec<&PathTemplate> = templates
        .iter()
        .zip(&verdicts)
        .filter(|(one, why)| is_read(one) && why.as_ref().is_some_and(|why| why.is_unsafe))
        .map(|(one, _)| one)
        .collect();
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    for (at, (one, why)) in templates.iter().zip(&verdicts).enumerate() {
        if !is_read(&one) {
            continue;
        }
        let made = match why {
            Some(why) => Err(why.text.clone()),
            None => draft(at, one, templates, &unsafe_ones),
        };
        match made {
            Ok(draft) => all.push(draft),
            Err(why) => left_out.push(LeftOut { path: shown(&one.segments), why }),
        }
    }
    (all, left_out)
}

fn draft(
    at: usize,
    one: &PathTemplate,
    all: &[PathTemplate],
    unsafe_ones: &[&PathTemplate],
) -> Result<RouteDraft, String> {
    let path = pattern(&one.segments).ok_or("its paths are too deep for a route")?;
    let parsed = Pattern::parse(&path).map_err(|_| "no route can have such a path")?;
    let kept_out = kept_out(&path, &parsed, unsafe_ones)?;
    let base = pattern(&one.segments[..base_length(one, all)]).unwrap_or_default();
    let purge = format!("{}/{{*rest}}", base.trim_end_matches('/'));
    Ok(RouteDraft { template: at, path, tag: tag(&base), purge, kept_out })
}

/// Whether it is asked for too seldom, as far as a log tells.
fn seldom(template: &PathTemplate) -> Option<WhyNot> {
    let facts = &template.facts;
    let text = if facts.requests < MIN_COMPARED {
        format!("fewer than {MIN_COMPARED} reads")
    } else if 2 * facts.found <= facts.requests {
        "the app refuses most of these requests, or does not find what they ask for".to_owned()
    } else if 20 * facts.hits < facts.compared {
        "hardly any of its URLs is asked for twice".to_owned()
    } else {
        return None;
    };
    Some(WhyNot { text, is_unsafe: false })
}

fn risky(template: &PathTemplate) -> Option<WhyNot> {
    let literals = template.segments.iter().filter_map(|segment| match segment {
        PathPart::Literal(word) => Some(word.to_ascii_lowercase()),
        _ => None,
    });
    for word in literals {
        if RISKY.contains(&word.as_str()) {
            let text = format!("`{word}`: such paths are not cached without having been watched");
            return Some(WhyNot { text, is_unsafe: true });
        }
    }
    let ending = template.segments.last().and_then(|last| match last {
        PathPart::Literal(word) => word.rsplit_once('.').map(|(_, ending)| ending),
        PathPart::Value(_, ending) => ending.strip_prefix('.'),
        PathPart::Deeper => None,
    })?;
    STATIC.contains(&ending.to_ascii_lowercase().as_str()).then(|| WhyNot {
        text: "files on a disk: the web server before the app serves them as fast".to_owned(),
        is_unsafe: false,
    })
}
