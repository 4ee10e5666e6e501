//! `/uncached`: what has no route and would be worth one, with the route.
//!
//! A route is shown only after it has been tried on the file ([`ReloadHandle::try_edits`]).

pub mod drafts;
pub(super) mod learned;
mod proposal;
mod verdict;

use std::cmp::Reverse;

use serde_json::{Value, json};

use self::proposal::propose;
use self::verdict::{WhyNot, why_not};
use super::reload::{ReloadHandle, first_that_passes};
use super::state::AdminState;
use crate::policy::apps::AppId;
use crate::policy::edit::EditTrial;
use crate::policy::plan::PolicyRules;
use crate::uncached::fold::{example, shown};
use crate::uncached::tree::{MAX_TEMPLATES, PathTemplate};
use crate::uncached::{HALF_LIFE, TTL, UncachedSnapshot};

/// How many templates are told.
const MAX_SHOWN: usize = 50;
/// How many names of parameters and headers are told of each.
const MAX_NAMES: usize = 8;

/// The report.
pub(super) fn report(state: &AdminState) -> Value {
    let proxy = &state.proxy;
    let rules = &proxy.active_config().rules;
    let mut report = uncached(proxy.uncached.snapshot(), rules, &*state.reloader);
    report["sampling"] = proxy.uncached.is_sampling(proxy.clock.wall().0).into();
    report
}

/// What `/stats` says of it.
pub(super) fn summary(state: &AdminState) -> Value {
    let (templates, totals) = state.proxy.uncached.summary();
    json!({
        "templates": templates,
        "requests": totals.requests,
        "observed": totals.observed,
        "app_s": seconds(totals.micros),
    })
}

#[allow(clippy::cast_precision_loss, reason = "a time for people to read")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn uncached(snapshot: UncachedSnapshot, rules: &PolicyRules, file: &dyn ReloadHandle) -> Value {
    let UncachedSnapshot { mut templates, totals } = snapshot;
    let held = templates.len();
    // What has got a route since is none of this any more.
    templates.retain(|one| !rules.routes.have_path(AppId::FIRST, &example(&one.segments)));
    templates.sort_by_key(|one| {
        let facts = &one.facts;
        Reverse((facts.micros, facts.requests, Reverse(shown(&one.segments))))
    });
    let verdicts: Vec<Option<WhyNot>> =
        templates.iter().map(|one| why_not(one, &rules.credential)).collect();
    let is_unsafe = |why: &Option<WhyNot>| why.as_ref().is_some_and(|why| why.is_unsafe);
    let unsafe_ones: Vec<&PathTemplate> = templates
        .iter()
        .zip(&verdicts)
        .filter(|(one, why)| one.facts.requests > 0 && is_unsafe(why))
        .map(|(one, _)| one)
        .collect();
    let paths: Vec<Value> = templates
        .iter()
        .zip(&verdicts)
        .filter(|(one, _)| one.facts.requests > 0)
        .take(MAX_SHOWN)
        .map(|(one, why)| {
            let made = match why {
                Some(why) => Err(why.text.clone()),
                None => suggestion(one, &templates, &unsafe_ones, rules, file),
            };
            path(one, &templates, made)
        })
        .collect();
    json!({
        "templates": held,
        "max_templates": MAX_TEMPLATES,
        "requests": totals.requests,
        "observed": totals.observed,
        "app_s": seconds(totals.micros),
        "unplaced": totals.unplaced,
        "ttl_s": TTL.as_secs(),
        "half_life_s": HALF_LIFE.as_secs(),
        "paths": paths,
    })
}

/// The route for a template, or why there is none.
fn suggestion(
    one: &PathTemplate,
    all: &[PathTemplate],
    unsafe_ones: &[&PathTemplate],
    rules: &PolicyRules,
    file: &dyn ReloadHandle,
) -> Result<Value, String> {
    let proposal = propose(one, all, unsafe_ones, rules)?;
    let tried = match first_that_passes(proposal.variants.iter().map(Vec::as_slice), file).1 {
        EditTrial::Passed(tried) => tried,
        EditTrial::Failed => {
            return Err("no route for it passes the checks of the file in force".to_owned());
        }
        EditTrial::Pending => return Err("a route for it is still being tried".to_owned()),
    };
    Ok(json!({
        "toml": tried.lines,
        "diff": tried.diff,
        "does": proposal.does,
        "risks": proposal.risks,
    }))
}

fn path(one: &PathTemplate, all: &[PathTemplate], made: Result<Value, String>) -> Value {
    let facts = &one.facts;
    let (requests, app) = (facts.requests, facts.time().as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "ratios for people to read")]
    let ratio = |count: u64, of: u64| (of > 0).then(|| count as f64 / of as f64);
    let share = ratio(facts.hits, facts.compared);
    let writes: Vec<Value> = all
        .iter()
        .filter(|other| other.facts.mutations > 0 && other.segments.starts_with(&one.segments))
        .take(MAX_NAMES)
        .map(|other| {
            let methods = other.facts.writes.frequent(1);
            let methods: Vec<&str> = methods.into_iter().map(|(name, _)| name).collect();
            json!({
                "path": shown(&other.segments),
                "methods": methods,
                "count": other.facts.mutations,
            })
        })
        .collect();
    let names = |list: Vec<(&str, u64)>| -> Vec<String> {
        list.into_iter().take(MAX_NAMES).map(|(name, _)| name.to_owned()).collect()
    };
    let (why, made) = match made {
        Ok(made) => (None, Some(made)),
        Err(why) => (Some(why), None),
    };
    json!({
        "path": shown(&one.segments),
        "requests": requests,
        "observed": facts.observed,
        "app_s": app,
        "mean_ms": ratio(facts.micros / 1000, requests),
        "error_s": seconds(facts.error),
        "compared": facts.compared,
        "hit_share": share,
        "shared_hit_share": ratio(facts.shared_hits, facts.compared),
        "saved_s": share.map(|share| share * app),
        "credential_share": ratio(facts.credentials, requests),
        "cookie_share": ratio(facts.cookies, requests),
        "parameters": names(facts.parameters.frequent(1)),
        "headers": names(facts.headers.frequent(1)),
        "writes": writes,
        "why_not": why,
        "suggestion": made,
    })
}
