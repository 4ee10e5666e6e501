//! `/learned`: rules for a sidecar that has no routes yet, each with what it is founded on, and what
//! it would have done with the requests that were seen. `sidecache advise --file` makes a file of
//! them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::MAX_SHOWN;
use super::proposal::{base_length, kept_out, tag};
use super::verdict::why_not;
use crate::admin::remedies::NOISE;
use crate::admin::state::AdminState;
use crate::policy::names::{Meaning, meaning};
use crate::policy::plan::PolicyRules;
use crate::policy::route::Pattern;
use crate::policy::route::headers::FROM_TRUSTED;
use crate::uncached::causes::TracedWrite;
use crate::uncached::fold::{PathPart, pattern, shown};
use crate::uncached::learn::{HeaderUse, LearnedRule, Subject, learn};
use crate::uncached::rehearsal::Visit;
use crate::uncached::trail::{MAX_EVENTS, TrailKind, TrailSnapshot};
use crate::uncached::tree::PathTemplate;

/// The most names of parameters that are told of a rule.
const MAX_PARAMETERS: usize = 16;

/// The report.
pub(in crate::admin) fn report(state: &AdminState) -> Value {
    let proxy = &state.proxy;
    let config = proxy.active_config();
    let templates = proxy.uncached.snapshot().templates;
    let (trail, places) = proxy.uncached.trail();
    let learned = Learning::new(&config.rules, &templates, &trail, &places).all();
    let at = || trail.events.iter().map(|event| event.at);
    let span = at().max().zip(at().min()).map_or(0, |(last, first)| last - first);
    json!({
        "routes": config.rules.routes.iter().count(),
        "settings": state.reloader.settings_without_file(),
        "requests": trail.events.len(),
        "max_requests": MAX_EVENTS,
        "one_page_in": trail.one_in,
        "span_s": span / 1000,
        "rules": learned.0,
        "left_out": learned.1,
    })
}

struct Learning<'a> {
    rules: &'a PolicyRules,
    templates: &'a [PathTemplate],
    trail: &'a TrailSnapshot,
    /// The reads of each template, and all writes, in their order.
    reads: Vec<Vec<Visit<'a>>>,
    writes: Vec<TracedWrite>,
}

impl<'a> Learning<'a> {
    fn new(
        rules: &'a PolicyRules,
        templates: &'a [PathTemplate],
        trail: &'a TrailSnapshot,
        places: &[Option<Vec<PathPart>>],
    ) -> Self {
        let of_segments: HashMap<&[PathPart], usize> =
            templates.iter().enumerate().map(|(at, one)| (&*one.segments, at)).collect();
        let of_path: Vec<Option<usize>> =
            places.iter().map(|place| of_segments.get(place.as_deref()?).copied()).collect();
        let (mut reads, mut writes) = (vec![Vec::new(); templates.len()], Vec::new());
        for event in &trail.events {
            let template = usize::try_from(event.path).ok().and_then(|at| *of_path.get(at)?);
            match (&event.kind, template) {
                (TrailKind::Read(read), Some(template)) => {
                    reads[template].push(Visit { event, read });
                }
                (TrailKind::Read(_), None) => {}
                // One without a template may have changed anything, and no rule can name it.
                (TrailKind::Write, template) => writes.push(TracedWrite {
                    began: event.began,
                    ended: event.ended,
                    template: template.unwrap_or(templates.len()),
                }),
            }
        }
        for reads in &mut reads {
            reads.sort_unstable_by_key(|visit| visit.event.began);
        }
        writes.sort_unstable();
        Self { rules, templates, trail, reads, writes }
    }

    /// The rules, those with the most hits first, and the paths without one.
    fn all(&self) -> (Vec<Value>, Vec<Value>) {
        let verdicts: Vec<_> =
            self.templates.iter().map(|one| why_not(one, &self.rules.credential)).collect();
        let is_unsafe = |at: usize| verdicts[at].as_ref().is_some_and(|why| why.is_unsafe);
        let unsafe_ones: Vec<&PathTemplate> = (0..self.templates.len())
            .filter(|at| self.templates[*at].facts.requests > 0 && is_unsafe(*at))
            .map(|at| &self.templates[at])
            .collect();
        let (mut rules, mut left_out) = (Vec::new(), Vec::new());
        for (at, one) in self.templates.iter().enumerate() {
            if one.facts.requests == 0 {
                continue;
            }
            let made = match &verdicts[at] {
                Some(why) => Err(why.text.clone()),
                None => self.rule(at, &unsafe_ones),
            };
            match made {
                Ok((hits, rule)) => rules.push((hits, rule)),
                Err(why) => {
                    let (path, requests) = (shown(&one.segments), one.facts.requests);
                    left_out.push((
                        requests,
                        json!({
                            "path": path, "requests": requests, "why": why,
                        }),
                    ));
                }
            }
        }
        (first(rules), first(left_out))
    }

    fn rule(&self, at: usize, unsafe_ones: &[&PathTemplate]) -> Result<(u64, Value), String> {
        let template = &self.templates[at];
        let path = pattern(&template.segments).ok_or("its paths are too deep for a route")?;
        let parsed = Pattern::parse(&path).map_err(|_| "no route can have such a path")?;
        let kept_out = kept_out(&path, &parsed, unsafe_ones)?;
        let base = &template.segments[..base_length(template, self.templates)];
        let is_related = |other: &PathTemplate| other.segments.starts_with(base);
        let all = self.templates.iter().enumerate();
        let related: BTreeSet<usize> =
            all.filter(|(_, other)| is_related(other)).map(|(at, _)| at).collect();
        let subject = Subject { reads: self.reads[at].clone(), related };
        let names = |place: u16| self.header_use(self.name(place));
        let learned = learn(&subject, &self.writes, &names)?;
        let mut purges = Vec::new();
        let base = pattern(base).unwrap_or_default();
        purges.push(format!("{}/{{*rest}}", base.trim_end_matches('/')));
        for cause in learned.causes.difference(&subject.related) {
            let other = self.templates.get(*cause).and_then(|one| pattern(&one.segments));
            let other = other.ok_or(
                "it changes after a write whose path is not known well enough for a purge rule",
            )?;
            purges.push(other);
        }
        Ok((learned.played.hits, self.told(template, &path, (&base, &purges, &kept_out), &learned)))
    }

    fn told(
        &self,
        template: &PathTemplate,
        path: &str,
        (base, purges, kept_out): (&str, &[String], &[String]),
        learned: &LearnedRule,
    ) -> Value {
        let names = |places: &[u16]| -> Vec<&str> {
            places.iter().map(|place| self.name(*place)).collect()
        };
        let parameters = template.facts.parameters.frequent(1);
        let parameters: Vec<&str> =
            parameters.into_iter().map(|(name, _)| name).take(MAX_PARAMETERS).collect();
        let (played, callers) = (&learned.played, &learned.callers);
        json!({
            "path": path,
            "ttl_s": learned.ttl,
            "scope": if learned.is_shared { "shared" } else { "private" },
            "credential_headers": names(&learned.credentials),
            "key_headers": names(&learned.keyed),
            "drop_headers": names(&learned.dropped),
            "tag": tag(base),
            "purges": purges,
            "kept_out": kept_out,
            "parameters": parameters,
            "requests": played.reads,
            "hits": played.hits,
            "stale": played.stale,
            "unchecked": played.unchecked,
            "oldest_s": played.oldest / 1000,
            "changes": learned.changes,
            "callers": callers.named,
            "anonymous": callers.anonymous,
            "same_for_others": callers.same,
            "other_for_others": callers.other,
        })
    }

    fn name(&self, place: u16) -> &str {
        self.trail.names.get(usize::from(place)).map_or("", |name| name)
    }

    fn header_use(&self, name: &str) -> HeaderUse {
        let own = &self.rules.credential.headers;
        if NOISE.contains(&name) {
            return HeaderUse::Noise;
        }
        if own.iter().any(|known| known.as_str() == name) {
            return HeaderUse::Credential;
        }
        match meaning(name) {
            // What is not a name in the file was cut, or escaped.
            _ if http::HeaderName::from_bytes(name.as_bytes()).is_err() => HeaderUse::Left,
            Some(Meaning::Credential) => HeaderUse::Credential,
            _ if FROM_TRUSTED.contains(&name) => HeaderUse::Left,
            Some(Meaning::Address | Meaning::Cache | Meaning::Negotiated) => HeaderUse::Left,
            Some(Meaning::Caller | Meaning::Choice) => HeaderUse::Meaningful,
            None => HeaderUse::Unknown,
        }
    }
}

/// The heaviest ones, without their weights.
fn first(mut all: Vec<(u64, Value)>) -> Vec<Value> {
    all.sort_by_key(|(weight, _)| Reverse(*weight));
    all.into_iter().take(MAX_SHOWN).map(|(_, value)| value).collect()
}
