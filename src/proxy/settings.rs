//! The limits and switches of the flow. A reload may change them; a request goes by those that it
//! began with.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;

use crate::policy::route::Route;
use crate::policy::scope::Scope;
use crate::policy::surrogate::{CarriedTags, SurrogateHeader};

/// Which headers that help to find out why responses have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugHeaders {
    /// Those with their key, tags and route.
    pub keys: bool,
    /// `Server-Timing`.
    pub server_timing: bool,
}

/// Limits and switches of the flow.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// The most tags of an entry.
    pub max_tags: usize,
    /// How long an entry is kept after its freshness has ended.
    pub keep_stale: Duration,
    /// The most ranges that one request may ask for.
    pub max_ranges: usize,
    /// The largest response, in bytes, that is fetched whole because a client asked for a part of
    /// it; 0 for none.
    pub range_fill: u64,
    /// How many bytes may be fetched for the sake of parts, for each byte of parts that a peer
    /// received.
    pub range_factor: u64,
    /// The longest request body that purge rules read, in bytes.
    pub purge_body: u64,
    /// The longest response body that tags are read from, in bytes.
    pub tag_body: u64,
    /// How long a client may take for the body of a mutation of a path that rules know.
    pub upload_time: Duration,
    /// The least time between two purges of a tag for mutations that their clients broke off.
    pub gather: Duration,
    /// How long a mutation may take before other sidecars count it as committed. The sidecar that
    /// forwards it renews this for as long as it takes.
    pub mark_for: Duration,
    /// How long a tunnel may be silent.
    pub tunnel_timeout: Duration,
    /// How long a fill that no request waits for goes on if others need its place.
    pub half_closed: Duration,
    /// Headers that help to find out why.
    pub debug: DebugHeaders,
    /// The headers in which responses name their tags for a CDN.
    pub surrogates: Arc<[SurrogateHeader]>,
    /// Whether each request gets a line in the log.
    pub access_log: bool,
}

impl ProxySettings {
    /// Names the tags of a response of this route for the CDNs in front.
    ///
    /// SECURITY: what is not for everybody is for no CDN, and its tags may name whom it is for.
    pub(super) fn name_tags(
        &self,
        route: &Route,
        headers: &mut HeaderMap,
        carried: CarriedTags<'_>,
    ) {
        if route.spec.scope == Scope::Public {
            for header in self.surrogates.iter() {
                header.add(headers, carried);
            }
        }
    }
}
