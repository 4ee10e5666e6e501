//! What all requests share: the tiers, permits and counts. The
//! configuration is not among it: each request brings its own.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::encoder::Encoder;
use crate::cache::fills::Fills;
use crate::cache::fills::cluster::ClusterFills;
use crate::cache::store::Store;
use crate::cache::store::memory::CachedEntry;
use crate::clock::{Clock, Wall};
use crate::coherence::Coherence;
use crate::notify::Notifiers;
use crate::policy::authorized_clients::AuthorizedClients;
use crate::proxy::counters::ProxyCounters;
use crate::proxy::guest_proofs::GuestProofs;
use crate::proxy::late_keys::LateKeys;
use crate::proxy::late_purges::LatePurges;
use crate::proxy::overlap::Overlap;
use crate::proxy::range_budget::RangeBudget;
use crate::proxy::uncovered_writes::UncoveredWrites;
use crate::proxy::unknown_outcomes::UnknownOutcomes;
use crate::proxy::upload_budget::UploadBudget;
use crate::shadow::Shadow;
use crate::shares::FairSemaphore;
use crate::sources::Sources;
use crate::telemetry::events::Events;
use crate::telemetry::history::TrafficHistory;
use crate::telemetry::hot_tags::HotTags;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tail::Tail;
use crate::telemetry::trace::Tracer;
use crate::uncached::Uncached;

/// What all requests share.
///
/// The fields that are `pub` are read by this package's integration tests, through the feature
/// `internals`.
#[derive(Debug)]
pub struct Resources {
    /// The tiers.
    pub store: Arc<Store>,
    /// Proves entries current.
    pub coherence: Arc<Coherence>,
    /// What tells of changes that no request tells.
    pub(crate) sources: Sources,
    /// Who is told of purges.
    pub(crate) notifiers: Arc<Notifiers>,
    /// Fills in flight.
    pub fills: Arc<Fills>,
    /// Fills shared with the other sidecars. Set once a route asks for them.
    pub(crate) cluster_fills: OnceLock<Arc<ClusterFills>>,
    /// Credentials that the origin has lately answered 2xx.
    pub authorized_clients: Arc<AuthorizedClients>,
    /// What routes in shadow would have done, and what audits found.
    pub shadow: Arc<Shadow>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The busiest tags, and the subjects of reasons.
    pub(crate) hot_tags: HotTags,
    /// Spans of requests, where there is a collector for them.
    pub(crate) tracer: Option<Tracer>,
    /// Events for operators.
    pub events: Arc<Events>,
    /// The numbers of the last hour and the last seven days, and what happened.
    pub history: Arc<Mutex<TrafficHistory>>,
    /// Finished requests, for whoever listens.
    pub(crate) tail: Arc<Tail>,
    /// Time.
    pub(crate) clock: Clock,
    /// Fills, mutations and tunnels. A drain waits for them.
    pub(crate) tasks: TaskTracker,
    /// A drain has begun: what is put off for nobody is done as soon as it may be.
    pub(crate) leaving: CancellationToken,
    /// The sidecar has stopped serving.
    pub(crate) stop: CancellationToken,
    /// Ends tunnels.
    pub(crate) streams: CancellationToken,
    /// Which part the cache takes while another process of this sidecar serves, too.
    pub overlap: Overlap,
    /// One permit for each mutation in flight.
    pub(crate) mutation_permits: FairSemaphore,
    /// What fetching whole responses for the sake of parts may cost.
    pub(crate) range_budget: Arc<RangeBudget>,
    /// Bytes of uploads that are read before they are forwarded.
    pub(crate) upload_budget: UploadBudget,
    /// Purges for mutations that their clients broke off.
    pub(crate) unknown_outcomes: UnknownOutcomes,
    /// Requests that no route matches.
    pub(crate) uncached: Arc<Uncached>,
    /// Mutations that no purge rule covers, as far as they were told of.
    pub(crate) uncovered_writes: UncoveredWrites,
    /// One permit for each refresh in the background.
    pub(crate) refresh_permits: Arc<Semaphore>,
    /// Keys whose records are read for longer than a request waits.
    pub(crate) late_keys: LateKeys,
    /// What codes bodies for clients.
    pub encoder: Encoder,
    /// Proofs that answers are the same for all guests.
    pub(crate) guest_proofs: GuestProofs,
    /// Purges after the responses of mutations have begun.
    pub(crate) late_purges: Arc<LatePurges>,
    /// Counts of what the flow does.
    pub(crate) counters: ProxyCounters,
}

impl Resources {
    /// The rest of a stored response's freshness in milliseconds; negative after its end. While
    /// Redis is lost, trust in it ends before its own times do.
    pub(super) fn ttl_ms(&self, cached: &CachedEntry, now: Wall) -> i64 {
        self.coherence.limit_ttl_ms(&cached.proof, cached.entry.times.ttl_ms(now))
    }
}
