//! Sidecache: a caching sidecar in front of an HTTP app that cannot be changed. It serves responses
//! from a cache, and never a stale one where the app would have sent a current one.
//!
//! The folders, from the top layer to the bottom one. A file uses its own layer and those below:
//!
//! - [`cli`] holds the commands, [`app`] assembles the parts and serves, [`config`] reads
//!   `proxy.toml`.
//! - [`admin`] is the operators' listener; [`server`] turns sockets into requests, within limits.
//! - [`proxy`] is the flow of a request; [`shadow`] measures what the cache would do, and where
//!   that would be wrong; [`uncached`] finds out what has no route and would be worth one;
//!   [`sources`] hears of changes that no request tells, and purges what they change; [`notify`]
//!   tells a CDN in front of what was purged.
//! - [`cache`] stores responses and fetches each key once; [`coherence`] proves that stored
//!   responses are current.
//! - [`redis`] is the client of Redis, [`upstream`] the client of the origin.
//! - [`policy`] applies the rules to a request: route, key, tags, and what a write purges.
//! - [`semantics`] implements RFC 9110 and RFC 9111, without I/O.
//! - [`shares`] divides what is scarce among the addresses of clients.
//! - [`telemetry`] is what operators see; [`outcome`], [`error`], [`clock`], [`descriptors`],
//!   [`input_file`], [`peer_address`], [`secret`], [`spelling`] and [`units`] are leaves that every
//!   layer may use.
#![forbid(unsafe_code)]

mod admin;
pub mod app;
mod cache;
pub mod cli;
mod clock;
mod coherence;
pub mod config;
mod descriptors;
mod error;
#[cfg(feature = "internals")]
mod fuzz;
mod input_file;
mod notify;
mod outcome;
mod peer_address;
mod policy;
mod proxy;
mod redis;
mod secret;
mod semantics;
mod server;
mod shadow;
mod shares;
mod sources;
mod spelling;
mod telemetry;
mod uncached;
mod units;
mod upstream;

/// What the model, the benches and some tests of this package look at; nobody else is to rely on
/// it.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::cache::encoder::EncodeJob;
    pub use crate::coherence::{Coherence, CoherenceMode, PurgeKind, core, message};
    pub use crate::fuzz::{FuzzTarget, TARGETS};
    pub use crate::outcome::{Disposition, Reason};
    pub use crate::peer_address::PeerAddress;
    pub use crate::policy::tag::Tag;
    pub use crate::proxy::{ClientConnection, Proxy};
    pub use crate::semantics::body::Body;
    pub use crate::semantics::content_coding::Coding;
    pub use crate::semantics::forward::ClientPeer;
    pub use crate::shadow::SETTLE_DELAY;
    pub use crate::shadow::report::{RouteReport, ShadowReport};
    pub use crate::telemetry::events::EventKind;
    pub use crate::telemetry::metrics;
}
