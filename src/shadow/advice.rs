//! Turns findings into lines for `proxy.toml`, for the operator to review and paste.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;

use crate::policy::edit::Edit;
use crate::policy::field::FieldSource;
use crate::policy::request_target;
use crate::policy::route::{AdmitRule, Pattern, Route};
use crate::policy::rule_place::RulePlace;
use crate::policy::scope::Scope;
use crate::policy::template::Template;
use crate::shadow::findings::{Findings, ScopeEvidence, StaleChange};
use crate::shadow::languages::LanguageFinding;
use crate::shadow::report::Advice;

/// How many writes are suspected for one route.
const MAX_CULPRITS: usize = 4;

/// With this many different segments at one position of a path, they are ids, whatever they look
/// like.
const MIN_VARIED_SEGMENTS: usize = 3;

/// The suggested `ttl` if changes come from elsewhere.
const SHORT_TTL: Duration = Duration::from_secs(10);

/// A route, its findings, and its place in the file.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The route.
    pub route: &'a Route,
    /// Its findings.
    pub findings: Findings,
    /// Where it stands, if that is known.
    pub place: Option<RulePlace>,
}

/// A write that explains changes of a route.
struct Culprit {
    /// The pattern for a purge rule.
    pattern: String,
    method: Method,
    path: Box<str>,
    responses: u64,
}

/// Suggestions for all findings.
#[must_use]
pub fn advise(subjects: &[Subject<'_>]) -> Vec<Advice> {
    let mut advice = purges(subjects);
    for subject in subjects {
        advice.extend(scope(subject));
        advice.extend(volatile(subject));
        advice.extend(elsewhere(subject));
        advice.extend(languages(subject));
    }
    advice
}

impl Subject<'_> {
    fn advice(&self, why: String, toml: String, edits: Vec<Edit>) -> Advice {
        let route = self.route.name().to_owned();
        let (line, file) = Advice::place(self.place.as_ref());
        Advice { route, why, toml, line, file, diff: None, edits }
    }

    /// Advice to set one key of the route to a text.
    fn set(&self, why: String, key: &'static str, text: &str) -> Advice {
        let edit = Edit::text(self.route.name(), key, text);
        self.advice(why, format!("{key} = {}\n", quoted(text)), vec![edit])
    }

    /// Advice to set one key of the route to a list.
    fn set_list(&self, why: String, key: &'static str, texts: Vec<String>) -> Advice {
        let toml = format!("{key} = {}\n", list(&texts));
        self.advice(why, toml, vec![Edit::list(self.route.name(), key, texts)])
    }
}

/// A purge rule for each kind of write that changed a route without purging it.
fn purges(subjects: &[Subject<'_>]) -> Vec<Advice> {
    let varied = varied_segments(subjects);
    let mut by_pattern: BTreeMap<String, Vec<(&Subject<'_>, Culprit)>> = BTreeMap::new();
    for subject in subjects {
        for culprit in culprits(subject, &varied) {
            by_pattern.entry(culprit.pattern.clone()).or_default().push((subject, culprit));
        }
    }
    let mut advice: Vec<Advice> = Vec::new();
    for (pattern, mut needs) in by_pattern {
        needs.sort_by_key(|(_, culprit)| std::cmp::Reverse(culprit.responses));
        let Some((first, culprit)) = needs.first() else { continue };
        let options: Vec<Vec<String>> =
            needs.iter().map(|(subject, _)| options(subject.route, &pattern)).collect();
        let tags = fewest(&options, last_literal(&pattern));
        let toml = format!("[[purges]]\npath = {}\ntags = {}\n", quoted(&pattern), list(&tags));
        // The rule and the tags that it needs are tried together: either alone does nothing.
        let without_tags: Vec<&Subject<'_>> = needs
            .iter()
            .map(|(subject, _)| *subject)
            .filter(|subject| renderable(subject.route, &pattern).next().is_none())
            .collect();
        let mut edits = vec![Edit::Purge { path: pattern.clone(), tags }];
        edits.extend(
            without_tags
                .iter()
                .map(|subject| Edit::list(subject.route.name(), "tags", tags_with(subject.route))),
        );
        let responses: u64 = needs.iter().map(|(_, culprit)| culprit.responses).sum();
        let each = needs
            .iter()
            .map(|(subject, culprit)| format!("{} of {}", culprit.responses, subject.route.name()))
            .collect::<Vec<_>>();
        let by_route =
            if needs.len() > 1 { format!(": {}", each.join(", ")) } else { String::new() };
        let why = format!(
            "{} stale after {} {}{by_route}",
            would_have_been(responses),
            culprit.method,
            culprit.path
        );
        let rule = first.advice(why, toml, edits.clone());
        for subject in without_tags {
            let why = format!(
                "{} carries no tag that a write to {pattern} could purge",
                subject.route.name()
            );
            let toml = format!("tags = {}\n", list(&tags_with(subject.route)));
            let added = subject.advice(why, toml, edits.clone());
            if !advice.iter().any(|known| known.why == added.why && known.toml == added.toml) {
                advice.push(added);
            }
        }
        advice.push(rule);
    }
    advice
}

/// The fewest writes that explain all changes of a route, the one that explains most first.
fn culprits(subject: &Subject<'_>, varied: &BTreeSet<(String, usize)>) -> Vec<Culprit> {
    let mut left: Vec<&StaleChange> =
        subject.findings.changes.iter().filter(|change| !change.after.is_empty()).collect();
    let mut found = Vec::new();
    while !left.is_empty() && found.len() < MAX_CULPRITS {
        // By pattern: how many changes it explains, and how close it is to the route.
        let mut explains: BTreeMap<String, usize> = BTreeMap::new();
        for change in &left {
            let patterns: BTreeSet<String> = change
                .after
                .iter()
                .map(|write| generalised(&write.path, subject.route, varied))
                .collect();
            for pattern in patterns {
                *explains.entry(pattern).or_default() += 1;
            }
        }
        let nearness = |pattern: &str| {
            let own =
                base(subject.route).is_some_and(|base| pattern == format!("{base}/{{*rest}}"));
            let named = options(subject.route, pattern)
                .iter()
                .any(|tag| resembles(tag, last_literal(pattern)));
            (own, named)
        };
        let Some(pattern) = explains
            .into_iter()
            .max_by_key(|(pattern, changes)| (*changes, nearness(pattern)))
            .map(|(pattern, _)| pattern)
        else {
            break;
        };
        let position_of = |change: &StaleChange| {
            change
                .after
                .iter()
                .position(|write| generalised(&write.path, subject.route, varied) == pattern)
        };
        let explained: Vec<&StaleChange> =
            left.iter().copied().filter(|change| position_of(change).is_some()).collect();
        let responses = explained.iter().map(|change| change.responses).sum();
        if let Some((change, at)) =
            explained.last().and_then(|change| Some((change, position_of(change)?)))
        {
            let write = &change.after[at];
            found.push(Culprit {
                pattern: pattern.clone(),
                method: write.method.clone(),
                path: write.path.clone(),
                responses,
            });
        }
        left.retain(|change| position_of(change).is_none());
    }
    found
}

/// The pattern of a purge rule for a write to this path, on which responses of the route depend.
fn generalised(path: &str, route: &Route, varied: &BTreeSet<(String, usize)>) -> String {
    let path = request_target::kept_path(path)
        .map_or_else(|| request_target::permissive_path(path), |normal| normal.path.into_owned());
    if let Some(own) = base(route).map(|base| format!("{base}/{{*rest}}"))
        && Pattern::parse(&own).is_ok_and(|pattern| pattern.captures_of(&path).is_some())
    {
        return own;
    }
    let mut prefix = String::new();
    for (at, segment) in segments(&path).enumerate() {
        if is_id(segment) || varied.contains(&(prefix.clone(), at)) {
            break;
        }
        prefix.push('/');
        prefix.push_str(segment);
    }
    format!("{prefix}/{{*rest}}")
}

/// A route's pattern up to its last literal segment.
fn base(route: &Route) -> Option<String> {
    let all: Vec<&str> = segments(route.spec.pattern.as_str()).collect();
    let last = all.iter().rposition(|segment| !segment.starts_with('{'))?;
    Some(format!("/{}", all[..=last].join("/")))
}

fn last_literal(pattern: &str) -> &str {
    segments(pattern).filter(|segment| !segment.starts_with('{')).last().unwrap_or("root")
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The positions, as prefix and depth, at which writes had so many different segments that these
/// must be ids.
fn varied_segments(subjects: &[Subject<'_>]) -> BTreeSet<(String, usize)> {
    let changes = subjects.iter().flat_map(|subject| &subject.findings.changes);
    let mut seen: BTreeMap<(String, usize), BTreeSet<&str>> = BTreeMap::new();
    for write in changes.flat_map(|change| &change.after) {
        let mut prefix = String::new();
        for (at, segment) in segments(&write.path).enumerate() {
            seen.entry((prefix.clone(), at)).or_default().insert(segment);
            prefix.push('/');
            prefix.push_str(segment);
        }
    }
    let is_literal = |at: usize, segment: &str| {
        subjects
            .iter()
            .any(|subject| segments(subject.route.spec.pattern.as_str()).nth(at) == Some(segment))
    };
    let many = |((_, at), values): &((String, usize), BTreeSet<&str>)| {
        *at > 0
            && values.len() >= MIN_VARIED_SEGMENTS
            && !values.iter().any(|value| is_literal(*at, value))
    };
    seen.into_iter().filter(many).map(|(place, _)| place).collect()
}

/// Whether a segment looks like an id: a number, a UUID, or a long text with digits.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let number = segment
        .split(['-', '_', '.'])
        .next()
        .is_some_and(|first| !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit()));
    number
        || (hex && digits > 0 && segment.len() >= 8)
        || (digits > 1 && segment.len() >= 16)
        || segment.contains(['%', '{', '}', '@'])
}

/// The tags of a route that a purge rule with this pattern can render.
fn renderable<'a>(route: &'a Route, pattern: &str) -> impl Iterator<Item = &'a Template> {
    let captures: Vec<String> = Pattern::parse(pattern)
        .map(|pattern| pattern.captures().map(str::to_owned).collect())
        .unwrap_or_default();
    route.spec.tags.iter().filter(move |template| {
        template.fields().all(|field| match &field.source {
            FieldSource::Path(name) => captures.iter().any(|capture| **capture == **name),
            FieldSource::Body(_) | FieldSource::Response(_) | FieldSource::Identity(_) => false,
            FieldSource::Header(_)
            | FieldSource::Cookie(_)
            | FieldSource::Session(_)
            | FieldSource::Query(_)
            | FieldSource::Host
            | FieldSource::Client(_)
            | FieldSource::Auth(_)
            | FieldSource::Caller
            | FieldSource::Jwt(_) => true,
        })
    })
}

/// Tags of which any one is enough to purge the route's entries; a new tag for the route if it has
/// none.
fn options(route: &Route, pattern: &str) -> Vec<String> {
    let mut templates: Vec<&Template> = renderable(route, pattern).collect();
    // The tag of one caller purges only that caller's entries.
    templates.sort_by_key(|template| template.fields().any(|field| field.is_secret()));
    let own: Vec<String> = templates.iter().map(|template| template.as_str().to_owned()).collect();
    if own.is_empty() { vec![new_tag(route)] } else { own }
}

fn new_tag(route: &Route) -> String {
    let shared = |source: &FieldSource| {
        matches!(source, FieldSource::Header(_) | FieldSource::Host | FieldSource::Query(_))
    };
    let fields = route.spec.key.iter().filter(|field| shared(&field.source));
    fields.fold(last_literal(route.spec.pattern.as_str()).to_owned(), |tag, field| {
        format!("{tag}:{{{}}}", field.name)
    })
}

fn tags_with(route: &Route) -> Vec<String> {
    route
        .spec
        .tags
        .iter()
        .map(|template| template.as_str().to_owned())
        .chain([new_tag(route)])
        .collect()
}

/// The fewest tags that include one of each route; tags named like the path come first.
fn fewest(options: &[Vec<String>], name: &str) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    let mut left: Vec<&Vec<String>> = options.iter().collect();
    while let Some(first) = left.first() {
        let rank = |tag: &&String| {
            (left.iter().filter(|tags| tags.contains(tag)).count(), resembles(tag, name))
        };
        // The first of equally good tags, in the order of the file.
        let Some(best) = first.iter().rev().max_by_key(rank).cloned() else { break };
        left.retain(|tags| !tags.contains(&best));
        chosen.push(best);
    }
    chosen
}

/// Whether a tag is named like a path segment: `form:{id}` and `forms`.
fn resembles(tag: &str, name: &str) -> bool {
    let tag = tag.split([':', '{']).next().unwrap_or_default();
    let plain = |word: &str| word.trim_end_matches('s').to_ascii_lowercase();
    !tag.is_empty() && plain(tag) == plain(name)
}

fn scope(subject: &Subject<'_>) -> Option<Advice> {
    let (route, findings) = (subject.route, &subject.findings);
    let sighting = findings.sightings.back().filter(|_| findings.scope > 0)?;
    let (count, path) = (would_have_been(findings.scope), &sighting.path);
    let finding = match sighting.evidence {
        ScopeEvidence::Bodies => {
            format!("{count} another caller's: the body of {path} differs between credentials")
        }
        ScopeEvidence::Refusal => {
            format!("{count} another caller's: the origin refuses {path} to some callers")
        }
    };
    let is_refused = sighting.evidence == ScopeEvidence::Refusal;
    Some(match route.spec.scope {
        Scope::Shared if is_refused && route.spec.admit == AdmitRule::Route => {
            let why = format!("{finding}, and by admit = \"route\" who may read one may read all");
            subject.set(why, "admit", "entry")
        }
        Scope::Shared | Scope::Public => {
            let why = format!(
                "{finding}, and scope {:?} has one entry for them",
                route.spec.scope.as_str()
            );
            subject.set(why, "scope", "private")
        }
        Scope::Private => {
            let fields = route.spec.key.iter();
            let identity = fields.filter(|field| matches!(field.source, FieldSource::Auth(_)));
            let names: Vec<&str> = identity.map(|field| &*field.name).collect();
            let why = format!(
                "{finding}, and the identity field in its key ({}) does not distinguish them; \
                 without it, the whole credential would",
                names.join(", ")
            );
            subject.advice(why, String::new(), Vec::new())
        }
    })
}

fn volatile(subject: &Subject<'_>) -> Option<Advice> {
    let keys = subject.findings.volatile;
    let finding = match keys {
        0 => return None,
        1 => "the body of one key differs".to_owned(),
        _ => format!("the bodies of {keys} keys differ"),
    };
    let why = format!(
        "{finding} from one request to the next without any write in between: caching this route \
         changes what clients see"
    );
    Some(subject.set(why, "mode", "off"))
}

/// Advice for changes that no write explains.
fn elsewhere(subject: &Subject<'_>) -> Option<Advice> {
    let findings = &subject.findings;
    if findings.unexplained == 0
        || findings.is_volatile()
        || subject.route.spec.ttl.plain().is_none_or(|ttl| ttl <= SHORT_TTL)
    {
        return None;
    }
    let why = format!(
        "{} stale although no write through this sidecar explains it, and no source: whatever else \
         changes the data must be heard of by [[sources]] or purge through the admin API, or the \
         ttl limits how long the old data is served",
        would_have_been(findings.unexplained)
    );
    Some(subject.set(why, "ttl", &format!("{}s", SHORT_TTL.as_secs())))
}

/// Advice where responses in several languages were compared.
fn languages(subject: &Subject<'_>) -> Option<Advice> {
    let (spec, findings) = (&subject.route.spec, &subject.findings.languages);
    let names =
        |names: &BTreeSet<Box<str>>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    match findings.finding()? {
        LanguageFinding::Never => {
            let compared = names(&findings.compared);
            let pages = if findings.pages == 1 { "page" } else { "pages" };
            let why = format!(
                "the body never depended on Accept-Language: {} {pages} in {} languages ({}); \
                 without it in the key, all of them share entries",
                findings.pages,
                compared.len(),
                compared.join(", ")
            );
            let dropped = spec.drop_headers.iter().map(|name| name.as_str().to_owned());
            let dropped: Vec<String> = dropped.chain(["accept-language".to_owned()]).collect();
            Some(subject.set_list(why, "drop_headers", dropped))
        }
        LanguageFinding::Differs if spec.languages.is_none() && !findings.distinct.is_empty() => {
            let why = format!(
                "the body depends on Accept-Language ({} of these pages): name the languages that \
                 the origin has, of which these were seen, and all others share its default",
                findings.differing
            );
            Some(subject.set_list(why, "languages", names(&findings.distinct)))
        }
        LanguageFinding::Differs => None,
    }
}

fn would_have_been(count: u64) -> String {
    if count == 1 {
        "1 response would have been".to_owned()
    } else {
        format!("{count} responses would have been")
    }
}

/// A TOML string. JSON escapes are valid in TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
