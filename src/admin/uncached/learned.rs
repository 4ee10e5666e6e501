//! `/learned`: rules for a sidecar that has no routes yet, each with what it is founded on, and
//! what it would have done with the requests that were seen. `sidecache advise --file` makes a file
//! of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use super::MAX_SHOWN;
use super::proposal::{base_length, kept_out, tag};
use super::verdict::{says_no_cache, unfit};
use crate::admin::state::AdminState;
use crate::policy::jwt::{Algorithm, AlgorithmFamily};
use crate::policy::known_headers::is_delivery;
use crate::policy::names::{Meaning, meaning};
use crate::policy::plan::PolicyRules;
use crate::policy::route::Pattern;
use crate::policy::route::headers::FROM_TRUSTED;
use crate::policy::session::SessionFormat;
use crate::uncached::causes::TracedWrite;
use crate::uncached::facts::Facts;
use crate::uncached::fold::{PathPart, pattern, shown};
use crate::uncached::learn::claims::ClaimReads;
use crate::uncached::learn::sessions::SessionReads;
use crate::uncached::learn::{HeaderUse, LearnedRule, LearnedSharing, LearningSubject, learn};
use crate::uncached::marks::is_mark;
use crate::uncached::rehearsal::Visit;
use crate::uncached::trail::{MAX_EVENTS, TrailKind, TrailSnapshot};
use crate::uncached::tree::PathTemplate;

/// The most names of parameters that are told of a rule.
const MAX_PARAMETERS: usize = 16;

/// The report.
pub fn report(state: &AdminState) -> Value {
    let proxy = &state.proxy;
    let config = proxy.active_config();
    let templates = proxy.uncached.snapshot().templates;
    let (trail, places) = proxy.uncached.trail();
    let settings = state.reloader.settings_without_file();
    // The settings of a file are the operator's.
    let local_proxy = settings.is_some() && trail.senders.is_behind_local_proxy();
    let is_vouched = local_proxy || trail.senders.is_behind_trusted();
    let learned = Learning::new(&config.rules, &templates, &trail, &places, is_vouched).all();
    let at = || trail.events.iter().map(|event| event.at);
    let span = at().max().zip(at().min()).map_or(0, |(last, first)| last - first);
    json!({
        "routes": config.rules.routes.iter().count(),
        "settings": settings,
        "requests": trail.events.len(),
        "max_requests": MAX_EVENTS,
        "one_page_in": trail.one_in,
        "local_proxy": local_proxy,
        "span_s": span / 1000,
        "rules": learned.0,
        "left_out": learned.1,
    })
}

struct Learning<'a> {
    rules: &'a PolicyRules,
    templates: &'a [PathTemplate],
    trail: &'a TrailSnapshot,
    /// A trusted proxy says how requests came to it.
    is_vouched: bool,
    /// The reads of each template, and all writes, in their order.
    reads: Vec<Vec<Visit<'a>>>,
    /// A purge by the operator counts as a write that has a template for each of its tags: those
    /// after all templates.
    writes: Vec<TracedWrite<'a>>,
}

/// The rule of a route, and what is in its key of who asks.
struct RouteLesson {
    learned: LearnedRule,
    field: Option<LearnedField>,
}

/// A field that tells callers apart.
#[derive(Clone, Copy)]
enum LearnedField {
    /// A signed session, by the place of its cookie. Some requests may have none.
    Session { cookie: u8, is_optional: bool },
    /// A claim of a token, by a keyed hash of its name.
    Claim(u64),
}

/// How many more hits, in percent, a rule must bring that needs a secret of the app, and one by
/// which callers share.
const SECRETIVE: u64 = 25;
const SHARING: u64 = 5;

/// One rule, unless the other one has more hits, by more than so many percent.
fn better(
    one: Result<RouteLesson, String>,
    other: Result<RouteLesson, String>,
    percent: u64,
) -> Result<RouteLesson, String> {
    let is_more = |new: &RouteLesson, own: &RouteLesson| {
        100 * new.learned.played.hits > (100 + percent) * own.learned.played.hits
    };
    match (&one, &other) {
        (Ok(own), Ok(new)) if !is_more(new, own) => one,
        (Ok(_), Err(_)) => one,
        _ => other,
    }
}

/// Whether one secret signs and verifies.
fn is_hmac(algorithm: Algorithm) -> bool {
    algorithm.family() == AlgorithmFamily::Hmac
}

impl<'a> Learning<'a> {
    fn new(
        rules: &'a PolicyRules,
        templates: &'a [PathTemplate],
        trail: &'a TrailSnapshot,
        places: &[Option<Vec<PathPart>>],
        is_vouched: bool,
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
                    groups: &event.groups,
                }),
                (TrailKind::Purge(tags), _) => {
                    let first = templates.len() + 1;
                    writes.extend(tags.iter().map(|tag| TracedWrite {
                        began: event.began,
                        ended: event.ended,
                        template: first + usize::from(*tag),
                        groups: &[],
                    }));
                }
            }
        }
        writes.sort_unstable();
        Self { rules, templates, trail, is_vouched, reads, writes }
    }

    /// The tag of the operator's purges that a cause stands for.
    fn purged_tag(&self, cause: usize) -> Option<&str> {
        let tag = self.trail.tags.get(cause.checked_sub(self.templates.len() + 1)?);
        tag.map(|tag| &**tag)
    }

    /// The rules, those with the most hits first, and the paths without one.
    fn all(&self) -> (Vec<Value>, Vec<Value>) {
        let mut left_out: Vec<(u64, Value)> = Vec::new();
        let mut leave_out = |paths: &[usize], why: &str| {
            for one in paths.iter().map(|at| &self.templates[*at]) {
                let (path, requests) = (shown(&one.segments), one.facts.requests);
                let told = json!({ "path": path, "requests": requests, "why": why });
                left_out.push((requests, told));
            }
        };
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, one) in self.templates.iter().enumerate() {
            match pattern(&one.segments) {
                _ if one.facts.requests == 0 => {}
                Some(path) => groups.entry(path).or_default().push(at),
                None => leave_out(&[at], "its paths are too deep for a route"),
            }
        }
        let mut rules: BTreeMap<&str, (&[usize], RouteLesson)> = BTreeMap::new();
        let mut without: Vec<&PathTemplate> = Vec::new();
        for (path, group) in &groups {
            match self.learn(path, group) {
                Ok(rule) => {
                    rules.insert(path, (group, rule));
                }
                Err(why) => {
                    leave_out(group, &why);
                    without.extend(group.iter().map(|at| &self.templates[*at]));
                }
            }
        }
        // What has no rule must not be matched by that of another path.
        loop {
            let refused = rules.iter().find_map(|(path, (group, _))| {
                let parsed = Pattern::parse(path).ok()?;
                Some((*path, *group, kept_out(path, &parsed, &without).err()?))
            });
            let Some((path, group, why)) = refused else { break };
            rules.remove(path);
            leave_out(group, &why);
            without.extend(group.iter().map(|at| &self.templates[*at]));
        }
        let told = rules.iter().filter_map(|(path, (group, rule))| {
            let parsed = Pattern::parse(path).ok()?;
            let kept_out = kept_out(path, &parsed, &without).ok()?;
            Some((rule.learned.played.hits, self.told(path, group, &kept_out, rule)?))
        });
        let told = told.collect();
        (first(told), first(left_out))
    }

    /// The rule for all templates that are the same for a route.
    fn learn(&self, path: &str, group: &[usize]) -> Result<RouteLesson, String> {
        Pattern::parse(path).map_err(|_| "no route can have such a path")?;
        let mut reads: Vec<Visit<'_>> =
            group.iter().flat_map(|at| self.reads[*at].iter().copied()).collect();
        reads.sort_unstable_by_key(|visit| visit.event.began);
        let plain = self.learn_of(group, reads.clone(), LearnedSharing::IfSame);
        let mut best = plain.map(|learned| RouteLesson { learned, field: None });
        if let Some(sessions) = SessionReads::new(&reads) {
            let learned = self.says_age(sessions.cookie).and_then(|()| {
                self.learn_of(group, sessions.visits(&reads), LearnedSharing::Never)
            });
            let (cookie, is_optional) = (sessions.cookie, sessions.is_optional);
            let field = Some(LearnedField::Session { cookie, is_optional });
            let by_session = learned.map(|learned| RouteLesson { learned, field });
            best = better(best, by_session, SECRETIVE);
        }
        for claims in self.claim_reads(&reads) {
            let learned = self.learn_of(group, claims.visits(&reads), LearnedSharing::InGroups);
            let field = Some(LearnedField::Claim(claims.claim));
            // Why a claim is none says nothing of the route.
            if let Ok(learned) = learned {
                best = better(best, Ok(RouteLesson { learned, field }), SHARING);
            }
        }
        best
    }

    /// Whether the app says for how long it accepts this session cookie, where the signature has a
    /// time; or why no rule can be founded on it.
    fn says_age(&self, cookie: u8) -> Result<(), String> {
        let seen = self.trail.callers.session_cookies.get(usize::from(cookie));
        let seen = seen.ok_or("its session cookie is not known")?;
        if seen.cookie.format == SessionFormat::Express || seen.kept_for > Some(0) {
            return Ok(());
        }
        Err(format!(
            "the app signs the session in the cookie {:?} anew, and does not say for how long it \
             counts: a field for it needs the max_age that the app has",
            seen.cookie.name
        ))
    }

    /// The reads by claims, if their tokens can be verified by keys of one kind.
    fn claim_reads(&self, reads: &[Visit<'_>]) -> Vec<ClaimReads> {
        let families: HashSet<bool> =
            self.trail.callers.tokens.algorithms.all().copied().map(is_hmac).collect();
        if families.len() == 1 { ClaimReads::all(reads) } else { Vec::new() }
    }

    /// The rule for these reads, whose callers share by this.
    fn learn_of(
        &self,
        group: &[usize],
        reads: Vec<Visit<'_>>,
        sharing: LearnedSharing,
    ) -> Result<LearnedRule, String> {
        let credential = &self.rules.credential;
        let renews = sharing == LearnedSharing::Never;
        let unfit = group.iter().find_map(|at| unfit(&self.templates[*at], credential, renews));
        if let Some(why) = unfit {
            return Err(why.text);
        }
        let facts = || group.iter().map(|at| &self.templates[*at].facts);
        // A rule that overrules `no-cache` would overrule `no-store`, too.
        let says_no_cache = facts().any(says_no_cache) && facts().all(|facts| facts.no_store == 0);
        let related = self.related(group);
        let subject = LearningSubject { reads, related, says_no_cache, sharing };
        let learned = learn(&subject, &self.writes, &|place| self.header_use(self.name(place)))?;
        let is_known = |cause: &usize| {
            self.purged_tag(*cause).is_some()
                || self.templates.get(*cause).is_some_and(|one| pattern(&one.segments).is_some())
        };
        if learned.causes.iter().all(is_known) {
            return Ok(learned);
        }
        Err("it changes after a write whose path is not known well enough for a purge rule".into())
    }

    /// The templates of writes that the purge rule of these paths covers.
    fn related(&self, group: &[usize]) -> BTreeSet<usize> {
        let base = self.base(group);
        let all = self.templates.iter().enumerate();
        all.filter(|(_, one)| one.segments.starts_with(base)).map(|(at, _)| at).collect()
    }

    fn base(&self, group: &[usize]) -> &[PathPart] {
        let first = group.first().map(|at| &self.templates[*at]);
        first.map_or(&[], |one| &one.segments[..base_length(one, self.templates)])
    }

    fn told(
        &self,
        path: &str,
        group: &[usize],
        kept_out: &[String],
        lesson: &RouteLesson,
    ) -> Option<Value> {
        let learned = &lesson.learned;
        let base = pattern(self.base(group))?;
        let mut purges = vec![format!("{}/{{*rest}}", base.trim_end_matches('/'))];
        let related = self.related(group);
        let causes = learned.causes.difference(&related);
        for cause in causes.filter(|cause| self.purged_tag(**cause).is_none()) {
            purges.push(pattern(&self.templates.get(*cause)?.segments)?);
        }
        let tags_by_hand: Vec<&str> =
            learned.causes.iter().filter_map(|cause| self.purged_tag(*cause)).collect();
        let marks: BTreeSet<&str> = parameters_of(group, self.templates)
            .filter(|name| learned.drops_marks && is_mark(name))
            .collect();
        let names = |places: &[u16]| -> Vec<&str> {
            places.iter().map(|place| self.name(*place)).collect()
        };
        let parameters: BTreeSet<&str> = parameters_of(group, self.templates)
            .filter(|name| !marks.contains(name))
            .take(MAX_PARAMETERS)
            .collect();
        let (played, callers) = (&learned.played, &learned.callers);
        Some(json!({
            "path": path,
            "ttl_s": learned.ttl,
            "scope": if learned.is_shared { "shared" } else { "private" },
            "credential_headers": names(&learned.credentials),
            "key_headers": names(&learned.keyed),
            "drop_headers": names(&learned.dropped),
            "jwt_callers": self.mostly(group, |facts| facts.jwts),
            "session": lesson.field.and_then(|field| self.session(field)),
            "claim": lesson.field.and_then(|field| self.claim(field)),
            "tag": tag(&base),
            "purged_tags": tags_by_hand,
            "purges": purges,
            "kept_out": kept_out,
            "parameters": parameters,
            "without_parameters": marks,
            "overrules": learned.overrules,
            "requests": played.reads,
            "hits": played.hits,
            "stale": played.stale,
            "unchecked": played.unchecked,
            "oldest_s": played.oldest / 1000,
            "changes": learned.changes,
            "changes_by_group": learned.by_group,
            "callers": callers.named,
            "anonymous": callers.anonymous,
            "same_for_others": callers.same,
            "other_for_others": callers.other,
        }))
    }

    /// The claim that tells groups of callers apart, and what signs the tokens.
    fn claim(&self, field: LearnedField) -> Option<Value> {
        let LearnedField::Claim(claim) = field else { return None };
        let (_, name) = self.trail.callers.claims.iter().find(|(key, _)| *key == claim)?;
        let tokens = &self.trail.callers.tokens;
        let algorithms: BTreeSet<String> =
            tokens.algorithms.all().map(|one| format!("{one:?}")).collect();
        Some(json!({
            "name": &**name,
            "algorithms": algorithms,
            "issuers": tokens.issuers.all().collect::<Vec<_>>(),
            "audiences": tokens.audiences.all().collect::<Vec<_>>(),
        }))
    }

    /// The cookie that tells who asks.
    fn session(&self, field: LearnedField) -> Option<Value> {
        let LearnedField::Session { cookie, is_optional } = field else { return None };
        let session = self.trail.callers.session_cookies.get(usize::from(cookie))?;
        Some(json!({
            "cookie": session.cookie.name,
            "format": session.cookie.format.as_str(),
            "kept_for_s": session.kept_for,
            "is_optional": is_optional,
        }))
    }

    /// Whether most reads of these templates are counted here.
    fn mostly(&self, group: &[usize], count: fn(&Facts) -> u64) -> bool {
        let facts = || group.iter().map(|at| &self.templates[*at].facts);
        let all: u64 = facts().map(|facts| facts.requests).sum();
        2 * facts().map(count).sum::<u64>() > all
    }

    fn name(&self, place: u16) -> &str {
        self.trail.names.get(usize::from(place)).map_or("", |name| name)
    }

    fn header_use(&self, name: &str) -> HeaderUse {
        let own = &self.rules.credential.headers;
        if is_delivery(name) {
            return HeaderUse::Noise;
        }
        if own.iter().any(|known| known.as_str() == name) {
            return HeaderUse::Credential;
        }
        match meaning(name) {
            // What is not a name in the file was cut, or escaped.
            _ if http::HeaderName::from_bytes(name.as_bytes()).is_err() => HeaderUse::Left,
            Some(Meaning::Credential) => HeaderUse::Credential,
            _ if FROM_TRUSTED.contains(&name) && self.is_vouched => HeaderUse::Forwarded,
            _ if FROM_TRUSTED.contains(&name) => HeaderUse::Left,
            Some(Meaning::Address | Meaning::Cache | Meaning::Negotiated) => HeaderUse::Left,
            Some(Meaning::Caller | Meaning::Choice) => HeaderUse::Meaningful,
            None => HeaderUse::Unknown,
        }
    }
}

/// The names of the parameters of these templates.
fn parameters_of<'a>(
    group: &'a [usize],
    templates: &'a [PathTemplate],
) -> impl Iterator<Item = &'a str> {
    let all = group.iter().flat_map(|at| templates[*at].facts.parameters.frequent(1));
    all.map(|(name, _)| name)
}

/// The heaviest ones, without their weights.
fn first(mut all: Vec<(u64, Value)>) -> Vec<Value> {
    all.sort_by_key(|(weight, _)| Reverse(*weight));
    all.into_iter().take(MAX_SHOWN).map(|(_, value)| value).collect()
}
