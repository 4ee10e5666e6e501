//! The route that is suggested for a template, as changes of the file.
//!
//! Invariants:
//! 1. *The scope is private*: each caller has entries of its own, and what tells callers apart is
//!    in the key or in the credential. Who may share is the operator's decision.
//! 2. *The mode is `shadow`*: nothing is served until the operator says so.
//! 3. *No path that must not be cached is matched*: those that were seen get a route with
//!    `mode = "off"`.

use std::fmt::Write as _;

use super::verdict::USUAL;
use crate::admin::remedies::is_of_proxy;
use crate::policy::apps::AppId;
use crate::policy::edit::{Edit, EditValue};
use crate::policy::known_headers::is_delivery;
use crate::policy::names::{Meaning, meaning};
use crate::policy::plan::PolicyRules;
use crate::policy::route::Pattern;
use crate::policy::template::Template as TagTemplate;
use crate::uncached::fold::{PathPart, example, pattern};
use crate::uncached::tree::PathTemplate;

/// The `ttl` that is suggested: that of the estimate.
const TTL: &str = "1m";
/// The most headers that get a place in the key.
const MAX_FIELDS: usize = 8;
/// The most paths that are kept out of a route.
const MAX_KEPT_OUT: usize = 4;

/// A suggested route.
#[derive(Clone, Debug)]
pub(super) struct RouteProposal {
    /// The changes, the best first: the first that passes the checks is shown.
    pub(super) variants: Vec<Vec<Edit>>,
    pub(super) does: String,
    pub(super) risks: String,
}

/// The headers of a template for which a route has no place yet.
#[derive(Debug, Default)]
struct Headers {
    credentials: Vec<String>,
    fields: Vec<String>,
    noise: Vec<String>,
    left: Vec<String>,
}

impl Headers {
    fn new(template: &PathTemplate, rules: &PolicyRules) -> Self {
        let mut headers = Self::default();
        let least = (template.facts.requests / USUAL).max(1);
        for (name, _) in template.facts.headers.frequent(least) {
            let own = &rules.credential.headers;
            if own.iter().any(|known| known.as_str() == name) {
                continue;
            }
            let list = match meaning(name) {
                _ if is_delivery(name) => &mut headers.noise,
                Some(Meaning::Credential) => &mut headers.credentials,
                _ if is_of_proxy(name) => &mut headers.left,
                Some(Meaning::Address | Meaning::Cache | Meaning::Negotiated) => &mut headers.left,
                _ if headers.fields.len() == MAX_FIELDS => &mut headers.left,
                Some(Meaning::Caller | Meaning::Choice) | None => &mut headers.fields,
            };
            list.push(name.to_owned());
        }
        headers
    }
}

/// The route for a template. `unsafe_ones` are the templates that no route may match. An error says
/// why there is none.
pub(super) fn propose(
    template: &PathTemplate,
    all: &[PathTemplate],
    unsafe_ones: &[&PathTemplate],
    rules: &PolicyRules,
) -> Result<RouteProposal, String> {
    let path = pattern(&template.segments).ok_or("its paths are too deep for a route")?;
    let parsed = Pattern::parse(&path).map_err(|_| "no route can have such a path")?;
    let kept_out = kept_out(&path, &parsed, unsafe_ones)?;
    let base = purge_base(template, all);
    let purge = format!("{}/{{*rest}}", base.trim_end_matches('/'));
    let headers = Headers::new(template, rules);
    let mut first = Vec::new();
    if !headers.credentials.is_empty() {
        let value = EditValue::More(headers.credentials.clone());
        first.push(Edit::Section { section: "credential", key: "headers", value });
    }
    let mut key: Vec<String> = Vec::new();
    for header in &headers.fields {
        let mut name = header.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        while key.contains(&format!("{name}?")) {
            name.push('_');
        }
        key.push(format!("{name}?"));
        first.push(Edit::HeaderField { name, header: header.clone() });
    }
    let route = |tags: Vec<String>| {
        let mut keys = vec![
            ("mode", EditValue::Text("shadow".to_owned())),
            ("ttl", EditValue::Text(TTL.to_owned())),
        ];
        if !key.is_empty() {
            keys.push(("key", EditValue::More(key.clone())));
        }
        if !headers.noise.is_empty() {
            keys.push(("drop_headers", EditValue::List(headers.noise.clone())));
        }
        keys.push(("tags", EditValue::List(tags)));
        let off = kept_out.iter().map(|path| Edit::NewRoute {
            path: path.clone(),
            keys: vec![("mode", EditValue::Text("off".to_owned()))],
        });
        let mut edits = first.clone();
        edits.push(Edit::NewRoute { path: path.clone(), keys });
        edits.extend(off);
        edits
    };
    let mut variants = Vec::new();
    if let Some(tags) = known_tags(template, rules) {
        variants.push(route(tags));
    }
    let tags = vec![tag(&base)];
    let mut new = route(tags.clone());
    new.push(Edit::Purge { path: purge.clone(), tags });
    variants.push(new);
    let does = does(&path, &purge, &headers, &kept_out);
    Ok(RouteProposal { variants, does, risks: risks(template, &headers) })
}

/// The paths that the route would match and must not.
pub(super) fn kept_out(
    path: &str,
    parsed: &Pattern,
    unsafe_ones: &[&PathTemplate],
) -> Result<Vec<String>, String> {
    let mut paths: Vec<String> = Vec::new();
    for other in unsafe_ones {
        if parsed.captures_of(&example(&other.segments)).is_none() {
            continue;
        }
        match pattern(&other.segments) {
            Some(own) if own != path => {
                if !paths.contains(&own) {
                    paths.push(own);
                }
            }
            _ => {
                return Err(format!(
                    "a route for it would match {}, too, for which there must be none",
                    crate::uncached::fold::shown(&other.segments)
                ));
            }
        }
    }
    if paths.len() > MAX_KEPT_OUT {
        return Err("a route for it would match too many paths that must not be cached".to_owned());
    }
    Ok(paths)
}

/// The tags of a purge rule that covers the paths already, as far as each request has what they
/// need.
fn known_tags(template: &PathTemplate, rules: &PolicyRules) -> Option<Vec<String>> {
    let path = example(&template.segments);
    let covers = rules
        .purges
        .iter()
        .find(|rule| rule.app.id == AppId::FIRST && rule.captures_of(&path).is_some())?;
    let plain = covers.tags.iter().filter(|tag| tag.fields().next().is_none());
    let tags: Vec<String> = plain.map(TagTemplate::as_str).map(str::to_owned).collect();
    (!tags.is_empty()).then_some(tags)
}

/// The path at and below which writes purge the route: that of the collection, if there is one.
fn purge_base(template: &PathTemplate, all: &[PathTemplate]) -> String {
    pattern(&template.segments[..base_length(template, all)]).unwrap_or_default()
}

/// How many segments that path has.
pub(super) fn base_length(template: &PathTemplate, all: &[PathTemplate]) -> usize {
    let own = &template.segments;
    let is_value =
        |segment: &PathPart| !matches!(segment, PathPart::Literal(text) if !text.is_empty());
    let literals = own.iter().position(is_value).unwrap_or(own.len());
    if literals < own.len() || own.len() < 2 {
        return literals;
    }
    // `/items/search`: writes to `/items` and to `/items/17` may change it.
    let parent = &own[..own.len() - 1];
    let is_write_of_parent = |other: &PathTemplate| {
        other.facts.mutations > 0
            && other.segments.starts_with(parent)
            && other
                .segments
                .get(parent.len())
                .is_none_or(|next| matches!(next, PathPart::Value(..)))
    };
    if all.iter().any(is_write_of_parent) { parent.len() } else { own.len() }
}

/// A tag with the name of the last segment.
pub(super) fn tag(base: &str) -> String {
    let named = base.rsplit('/').find(|segment| !segment.is_empty() && !segment.starts_with('{'));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = named.unwrap_or("pages").chars().filter(|c| is_plain(*c)).collect();
    if name.is_empty() { "pages".to_owned() } else { name }
}

fn does(path: &str, purge: &str, headers: &Headers, kept_out: &[String]) -> String {
    let mut text = format!(
        "Watches {path} in shadow mode: everything goes to the app as before, and `sidecache \
         advise` tells what a cache would have done. With mode = \"on\", responses are fresh for a \
         minute unless the app says otherwise, each caller has entries of its own, and writes at \
         and below {} purge them.",
        purge.trim_end_matches("/{*rest}")
    );
    for (names, what) in [
        (&headers.credentials, "counted as credentials"),
        (&headers.fields, "part of the key"),
        (&headers.noise, "withheld from the app on fills"),
    ] {
        if !names.is_empty() {
            let _ = write!(text, " Of the headers, {} are {what}.", names.join(", "));
        }
    }
    if !kept_out.is_empty() {
        let _ = write!(text, " {} stay out of the cache.", kept_out.join(", "));
    }
    text
}

fn risks(template: &PathTemplate, headers: &Headers) -> String {
    let facts = &template.facts;
    let mut text = "Writes elsewhere that change these responses do not purge them, nor does what \
                    changes the data without the sidecar: shadow mode finds both before you set \
                    mode = \"on\"."
        .to_owned();
    if facts.changed > 0 {
        let (changed, all) = (facts.changed, facts.compared);
        let _ = write!(text, " {changed} of {all} responses had changed within a minute.");
    }
    if !headers.credentials.is_empty() {
        text.push_str(
            " The credential is that of all routes: those of scope `public` withhold it from the \
             app.",
        );
    }
    if !headers.left.is_empty() {
        let names = headers.left.join(", ");
        let _ = write!(text, " Requests with {names} still bypass the cache.");
    }
    let gain = facts.shared_hits.saturating_sub(facts.hits);
    if 10 * gain > facts.compared {
        let times = facts.by_caller;
        let _ = if times == 0 {
            write!(
                text,
                " Callers who share would have {gain} hits more, and none of them got another \
                 response so far: if the app gives everybody the same, see scope = \"shared\"."
            )
        } else {
            write!(text, " Do not share it: {times} times another caller got another response.")
        };
    }
    text
}
