//! Sidecache: a caching sidecar that stands in front of an HTTP app nobody can change, and makes it
//! fast without making it wrong.
//!
//! The folders, from the top layer to the bottom one; a file uses its own layer and those below it:
//!
//! - [`cli`] holds the commands, [`app`] puts the parts together and serves, [`config`] reads
//!   `proxy.toml`.
//! - [`admin`] is the operators' listener; [`server`] turns sockets into requests, within limits.
//! - [`proxy`] is the flow of a request; [`shadow`] finds out what the cache would do, and where
//!   that would be wrong.
//! - [`cache`] stores responses and fetches each key once; [`coherence`] proves stored responses
//!   current.
//! - [`redis`] is the client of Redis, [`upstream`] the client of the origin.
//! - [`policy`] says what the rules make of a request.
//! - [`semantics`] is RFC 9110 and RFC 9111.
//! - [`telemetry`] is what operators see; [`outcome`], [`error`], [`clock`], [`secret`] and
//!   [`units`] are leaves that every layer may use.

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod coherence;
pub mod config;
pub mod error;
pub mod outcome;
pub mod policy;
pub mod proxy;
pub mod redis;
pub mod secret;
pub mod semantics;
pub mod server;
pub mod shadow;
pub mod telemetry;
pub mod units;
pub mod upstream;

/// What the model, the benches and some tests of this package look at; nobody else is to rely on
/// it.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::coherence::{Coherence, CoherenceMode, PurgeKind, core, message};
    pub use crate::outcome::{Disposition, Reason};
    pub use crate::policy::tag::Tag;
    pub use crate::proxy::Proxy;
    pub use crate::semantics::body::Body;
    pub use crate::semantics::forward::ClientPeer;
    pub use crate::shadow::SETTLE_DELAY;
    pub use crate::shadow::report::{RouteReport, ShadowReport};
    pub use crate::telemetry::events::EventKind;
    pub use crate::telemetry::metrics;
}
