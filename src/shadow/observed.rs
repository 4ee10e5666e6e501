//! What shadow mode and audits observe of the origin.

use std::sync::Arc;

use crate::clock::Wall;
use crate::policy::key::KeyHash;
use crate::policy::tag::Tag;
use crate::shadow::findings::RouteShadow;
use crate::shadow::history::{Caller, Observation};
use crate::shadow::table::ShadowEntry;

/// A complete response of the origin to a request in shadow mode.
#[derive(Debug)]
pub struct ObservedResponse<'a> {
    /// The route that matched the request.
    pub route: &'a RouteShadow,
    /// The path of the request.
    pub path: &'a str,
    /// The key of the variant.
    pub key: KeyHash,
    /// The response.
    pub observation: Observation,
    /// The entry that would have been served instead.
    pub served: Option<&'a Arc<ShadowEntry>>,
    /// How often the local tag table has purged by now.
    pub purges: u64,
    /// The time.
    pub now: Wall,
}

/// A response by which the origin turns a caller away, in shadow mode.
#[derive(Debug)]
pub struct RefusedResponse<'a> {
    /// The route that matched the request.
    pub route: &'a RouteShadow,
    /// The path of the request.
    pub path: &'a str,
    /// The key of the variant.
    pub key: KeyHash,
    /// Who was turned away.
    pub caller: Caller,
    /// Whether it is the caller who is refused. A 404 may also mean that nothing is there.
    pub is_certain: bool,
    /// The entry that would have been served instead.
    pub served: &'a Arc<ShadowEntry>,
    /// The time.
    pub now: Wall,
}

/// The result of an audit.
#[derive(Clone, Copy, Debug)]
pub enum AuditOutcome<'a> {
    /// The origin's response is the same as the one served.
    Same,
    /// No conclusion: the origin failed, there was a purge meanwhile, or the body is volatile.
    Unclear,
    /// The origin turns away the caller who was served.
    Refused {
        /// The path.
        path: &'a str,
        /// The key of the response that was served.
        key: KeyHash,
    },
    /// The origin's response differs.
    Stale {
        /// The path.
        path: &'a str,
        /// The tags of the response that was served.
        tags: &'a [Tag],
        /// When that response was fetched.
        fetched: Wall,
    },
}
