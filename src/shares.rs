//! Fair shares of what is scarce: client connections, connections to the origin, writes in
//! progress.
//!
//! A share is a peer's (see [`ShareOwner`]). It binds only while another peer waits: a single peer
//! may hold everything. While one waits, a permit that becomes free goes to the waiting peer that
//! holds least, and the peer that holds most loses permits whose clients make no progress, until
//! the two hold the same. Nothing that makes progress is ever cut.
//!
//! Apart from shares, a place whose client has left goes to whoever waits (see [`Departure`]).
//!
//! Knows permits and peers, not what a permit is for.

mod departure;
mod pause;
mod peer;
mod semaphore;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Counter;

pub use self::departure::Departure;
pub use self::pause::PauseWatch;
pub use self::peer::ShareOwner;
pub use self::semaphore::{Crowded, FairPermit, FairSemaphore, Requester};

/// What holds a permit, as far as its share can be taken back.
pub trait PermitHolder: Send + Sync {
    /// For how long it has waited for its client; none while it does not. Called under a lock, so
    /// it must neither block nor touch permits.
    fn paused_for(&self, now: Instant) -> Option<Duration>;

    /// Ends it, so that its permit is released soon.
    fn cut(&self);
}

/// The size of a semaphore, and how long its waits are.
#[derive(Clone, Copy, Debug)]
pub struct ShareSettings {
    /// How many permits there are.
    pub permits: usize,
    /// How many requests for a permit may wait.
    pub max_waiting: usize,
    /// How long each of them may wait.
    pub wait: Duration,
    /// How long a holder may wait for its client while another peer waits for a permit.
    pub stall: Duration,
    /// Whether a request waits even if no other peer holds more than its own.
    pub queues: Queues,
}

/// Whether a request for a permit waits even if no other peer holds more than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// It waits until a permit is released.
    Always,
    /// It waits only if another peer may have to give one up.
    BehindLargerPeers,
}

/// What a semaphore counts. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct ShareCounters {
    /// Requests for a permit that had to wait.
    pub waits: Arc<Counter>,
    /// Holders that were cut, because their clients paused while another peer waited.
    pub cuts: Arc<Counter>,
    /// Requests for a permit that got none.
    pub refused: Arc<Counter>,
    /// Requests that were given up, because their clients had left and others waited.
    pub departed: Arc<Counter>,
}
