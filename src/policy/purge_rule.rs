//! Purge rules: which tags a mutation invalidates.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::policy::apps::RuleApp;
use crate::policy::field::{Field, FieldSource, FieldView};
use crate::policy::folder::Folder;
use crate::policy::glob::Glob;
use crate::policy::request_match::RequestMatch;
use crate::policy::request_target;
use crate::policy::route::{Captures, Pattern};
use crate::policy::rule_place::RulePlace;
use crate::policy::tag::Tag;
use crate::policy::template::{Template, UnreadTemplate};

/// What happens to hits on a tag while a mutation that purges it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutationGuard {
    /// They are served. The tag is only marked.
    Mark,
    /// They go to the origin until the mutation has ended.
    Bypass,
}

impl MutationGuard {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Bypass => "bypass",
        }
    }
}

/// Which answers of the origin purge the tags of a rule. An unknown outcome (a 5xx, a timeout, a
/// broken connection) always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeOn {
    /// A 2xx alone.
    Ok,
    /// A 2xx or 3xx, but not the redirect of a stranger to a login page.
    #[default]
    Success,
    /// Every answer.
    Any,
}

/// What the origin's answer says of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutationAnswer {
    /// 2xx.
    Ok,
    /// 3xx.
    Redirect,
    /// 4xx, or a redirect of a stranger to a login page.
    Refusal,
    /// Anything else: nobody knows what has happened.
    Unknown,
}

impl PurgeOn {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "2xx",
            Self::Success => "success",
            Self::Any => "any",
        }
    }

    /// Whether this answer purges.
    #[must_use]
    pub const fn is_met_by(self, answer: MutationAnswer) -> bool {
        match answer {
            MutationAnswer::Ok | MutationAnswer::Unknown => true,
            MutationAnswer::Redirect => !matches!(self, Self::Ok),
            MutationAnswer::Refusal => matches!(self, Self::Any),
        }
    }
}

/// Methods, a path pattern, conditions, and the tags that a matching mutation purges.
#[derive(Clone, Debug)]
pub struct PurgeRule {
    /// Where it stands.
    pub place: RulePlace,
    /// The app whose mutations it is for.
    pub app: RuleApp,
    /// The paths it applies to, as written.
    pub pattern: Pattern,
    /// The paths it does not apply to.
    pub except: Box<[Pattern]>,
    /// The methods; `None` for every unsafe method. GET goes for HEAD as well.
    pub methods: Option<Box<[Method]>>,
    /// What a mutation must have besides.
    pub conditions: RequestMatch,
    /// The root fields of GraphQL mutations that it is for; `None` for every write.
    pub mutations: Option<Box<[Glob]>>,
    /// The tags to purge.
    pub tags: Box<[Template]>,
    /// The folder to purge.
    pub under: Option<Folder>,
    /// What happens to hits while a matching mutation is in flight.
    pub guard: MutationGuard,
    /// Which answers purge.
    pub purge_on: PurgeOn,
    /// When to purge again, counted from the end of the mutation, for origins that commit late.
    pub repurge_after: Box<[Duration]>,
    /// The paths it applies to, in the form that the readings of a path are matched in.
    pub for_writes: Pattern,
}

impl PurgeRule {
    /// The captures, if the path of this rule matches one of [`request_target::write_readings`].
    ///
    /// [`request_target::write_readings`]: crate::policy::request_target::write_readings
    #[must_use]
    pub fn captures_of(&self, reading: &str) -> Option<Captures> {
        self.for_writes.captures_of(reading)
    }

    /// Whether the rule does not apply to this path although its own path matches.
    ///
    /// A purge too few would be a stale response, so a path is excluded only in the one reading
    /// that it has, and in the case that the operator wrote.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        !self.except.is_empty()
            && request_target::normal_path(path).is_some_and(|path| {
                self.except.iter().any(|pattern| pattern.captures_of(&path).is_some())
            })
    }

    /// Whether it makes a GET or HEAD a mutation.
    #[must_use]
    pub fn is_for_reads(&self) -> bool {
        self.methods.as_ref().is_some_and(|methods| methods.contains(&Method::GET))
    }

    /// Whether some path matches both this rule and a pattern, in any case.
    #[must_use]
    pub fn may_cover(&self, pattern: &Pattern) -> bool {
        self.for_writes.may_cover(&pattern.for_writes())
    }

    /// Whether the mutation's body is needed: for a field of a tag, or for what it is for.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.mutations.is_some()
            || self.fields().any(|field| matches!(field.source, FieldSource::Body(_)))
    }

    /// The fields that its tags are made of.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.tags.iter().flat_map(Template::fields)
    }

    /// The tags for this mutation, and the templates of which not every tag can be told.
    #[must_use]
    pub fn render(&self, view: &FieldView<'_>) -> (Vec<Tag>, Vec<UnreadTemplate<'_>>) {
        let (mut tags, mut unread) = (Vec::with_capacity(self.tags.len() + 1), Vec::new());
        tags.extend(self.under.iter().map(|folder| folder.tag(view.host)));
        for template in &self.tags {
            match template.purge_tags(view) {
                Ok(rendered) => tags.extend(rendered),
                Err(template) => unread.push(template),
            }
        }
        (tags, unread)
    }
}

/// The purge rules of one file, and what the origin makes of reads that name another method.
#[derive(Debug, Default)]
pub struct PurgeRules {
    rules: Vec<PurgeRule>,
    /// Whether a rule makes a GET or HEAD a mutation.
    is_for_reads: bool,
    /// Whether the origin obeys a GET that names another method.
    pub method_override: bool,
}

impl PurgeRules {
    /// These rules, in the order of the file.
    #[must_use]
    pub fn new(rules: Vec<PurgeRule>, method_override: bool) -> Self {
        let is_for_reads = rules.iter().any(PurgeRule::is_for_reads);
        Self { rules, is_for_reads, method_override }
    }

    /// The rules that make a GET or HEAD a mutation. Costs nothing where there are none.
    pub fn for_reads(&self) -> impl Iterator<Item = &PurgeRule> {
        let rules = if self.is_for_reads { &self.rules[..] } else { &[] };
        rules.iter().filter(|rule| rule.is_for_reads())
    }
}

impl Deref for PurgeRules {
    type Target = [PurgeRule];

    fn deref(&self) -> &[PurgeRule] {
        &self.rules
    }
}

/// Whether a method is safe: RFC 9110 9.2.1, and the reading methods of `WebDAV`.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY"
    )
}
