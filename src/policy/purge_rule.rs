//! Purge rules: which tags a mutation invalidates.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::policy::field::{Field, FieldSource, FieldView};
use crate::policy::route::Pattern;
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

/// Methods, a path pattern, and the tags that a matching mutation purges.
#[derive(Clone, Debug)]
pub struct PurgeRule {
    /// Its number in the file, from 1.
    pub line: usize,
    /// The paths it applies to.
    pub pattern: Pattern,
    /// The methods; `None` for every unsafe method.
    pub methods: Option<Box<[Method]>>,
    /// The tags to purge.
    pub tags: Box<[Template]>,
    /// What happens to hits while a matching mutation is in flight.
    pub guard: MutationGuard,
    /// When to purge again, counted from the end of the mutation, for origins that commit late.
    pub repurge_after: Box<[Duration]>,
}

impl PurgeRule {
    /// The captures, if this rule applies to a mutation of this path with one of these methods.
    #[must_use]
    pub fn matches(&self, methods: &[Method], path: &str) -> Option<Vec<(Arc<str>, Box<str>)>> {
        let named = self
            .methods
            .as_ref()
            .is_none_or(|named| named.iter().any(|method| methods.contains(method)));
        if named { self.pattern.captures_of(path) } else { None }
    }

    /// Whether a tag needs a field from the mutation's body.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.fields().any(|field| matches!(field.source, FieldSource::Body(_)))
    }

    /// The fields that its tags are made of.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<Field>> {
        self.tags.iter().flat_map(Template::fields)
    }

    /// The tags for this mutation, and the templates of which not every tag can be told.
    #[must_use]
    pub fn render(&self, view: &FieldView<'_>) -> (Vec<Tag>, Vec<UnreadTemplate<'_>>) {
        let (mut tags, mut unread) = (Vec::with_capacity(self.tags.len()), Vec::new());
        for template in &self.tags {
            match template.purge_tags(view) {
                Ok(rendered) => tags.extend(rendered),
                Err(template) => unread.push(template),
            }
        }
        (tags, unread)
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
