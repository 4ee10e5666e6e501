//! What lint looks at: each rule as written beside the rule as compiled.

use std::time::Duration;

use crate::cache::snapshot::SnapshotSettings;
use crate::config::compile::purges::CompiledPurge;
use crate::config::compile::routes::CompiledRoute;
use crate::config::decode::{Located, Setting, TomlList, TomlString};
use crate::config::diagnostics::diagnostic::SourceSpan;
use crate::config::file::{self, ConfigFile};
use crate::config::model::ConfigLimits;
use crate::policy::credential::CredentialRule;
use crate::policy::purge_rule::PurgeRule;
use crate::policy::route::{RouteMode, RouteSpec};
use crate::sources::SourceSettings;

/// Entries that live longer than this are assumed to need purging.
pub(super) const LONG_TTL: Duration = Duration::from_hours(24);

/// A route as written and as compiled.
pub(super) struct LintRoute<'a> {
    pub(super) spec: &'a RouteSpec,
    pub(super) file: &'a file::RouteSection,
    pub(super) path: &'a SourceSpan,
}

/// A purge rule as written and as compiled.
pub(super) struct LintPurge<'a> {
    pub(super) rule: &'a PurgeRule,
    pub(super) file: &'a file::PurgeSection,
    pub(super) path: &'a SourceSpan,
}

impl LintPurge<'_> {
    /// Whether it is for some write to a path of this route.
    pub(super) fn may_cover(&self, route: &LintRoute<'_>) -> bool {
        self.rule.app.id == route.spec.app.id && self.rule.may_cover(&route.spec.pattern)
    }

    /// Whether it is for the writes to all paths of this route.
    pub(super) fn contains(&self, route: &LintRoute<'_>) -> bool {
        self.rule.app.id == route.spec.app.id
            && self.rule.for_writes.contains(&route.spec.pattern.for_writes())
    }

    /// Whether both are for some write.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.rule.app.id == other.rule.app.id && self.rule.may_cover(&other.rule.pattern)
    }
}

/// A source as written and as compiled.
pub(super) struct LintSource<'a> {
    pub(super) settings: &'a SourceSettings,
    pub(super) file: &'a file::SourceSection,
}

/// The compiled parts of a file that has no errors.
pub struct CompiledParts<'a> {
    /// The routes, in the order of the file.
    pub routes: &'a [CompiledRoute],
    /// The purge rules, in the order of the file.
    pub purges: &'a [CompiledPurge],
    /// The sources, in the order of the file.
    pub sources: &'a [SourceSettings],
    /// What identifies a caller.
    pub credential: &'a CredentialRule,
    /// The limits.
    pub limits: Option<&'a ConfigLimits>,
    /// The file in which the memory tier outlives the process.
    pub snapshot: Option<&'a SnapshotSettings>,
    /// The Redis tier.
    pub redis: Option<&'a crate::redis::RedisSettings>,
}

/// Everything that lint looks at.
pub(super) struct LintFile<'a> {
    pub(super) file: &'a ConfigFile,
    pub(super) routes: Vec<LintRoute<'a>>,
    pub(super) purges: Vec<LintPurge<'a>>,
    pub(super) sources: Vec<LintSource<'a>>,
    pub(super) credential: &'a CredentialRule,
    /// Whether the operator says that the origin sends tags. Then tags that no route has may come
    /// from the origin.
    pub(super) origin_sends_tags: bool,
}

impl LintFile<'_> {
    /// The routes that store responses, or would in mode "on".
    pub(super) fn cached(&self) -> impl Iterator<Item = &LintRoute<'_>> {
        self.routes.iter().filter(|route| route.spec.mode != RouteMode::Off)
    }
}

/// The texts of a list.
pub(super) fn texts(slot: &Setting<TomlList<TomlString>>) -> &[Located<TomlString>] {
    slot.get().map_or(&[][..], |list| &list.0)
}

/// A list as written in the file. SECURITY: variables appear by name, not by value.
pub(super) fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(", "))
}
