//! Sidecache: a caching sidecar that stands in front of an HTTP app nobody can change, and makes it fast without making it wrong.
//!
//! The modules in the order in which a request meets them:
//!
//! - [`run`] puts the parts together and serves; [`cli`] holds the commands; [`config`] reads `proxy.toml`.
//! - [`server`] turns sockets into requests, within limits; [`admin`] is the operators' own listener.
//! - [`proxy`] is the flow, and [`purge`] the flow of what changes data.
//! - [`plan`] says what the rules make of a request, by [`route`], [`field`], [`key`], [`tag`], [`rule`], [`scope`] and [`target`];
//!   [`explain`] tells it in words.
//! - [`store`] is both tiers as one, [`coherence`] proves its entries current, [`coalesce`] fetches each key once.
//! - [`shadow`] finds out what the cache would do, and where that would be wrong.
//! - [`upstream`] is the client towards the app; [`forward`] says what headers lose and gain on the way.
//! - [`admit`] says what may be stored, by [`freshness`], [`cache_control`] and [`vary`]; [`entry`] is the stored response.
//! - [`respond`] writes heads, [`conditional`] answers conditions.
//! - [`events`] and [`insight`] are what operators see of it as it happens.
//! - [`outcome`], [`error`], [`clock`], [`metrics`], [`telemetry`], [`body`] and [`units`] are for everybody.

pub mod admin;
pub mod admit;
pub mod body;
pub mod cache_control;
pub mod cache_groups;
pub mod cli;
pub mod clock;
pub mod coalesce;
pub mod coherence;
pub mod conditional;
pub mod config;
pub mod entry;
pub mod error;
pub mod events;
pub mod explain;
pub mod field;
pub mod forward;
pub mod freshen;
pub mod freshness;
pub mod insight;
pub mod key;
pub mod metrics;
pub mod outcome;
pub mod plan;
pub mod proxy;
pub mod purge;
pub mod range;
pub mod respond;
pub mod route;
pub mod rule;
pub mod run;
pub mod scope;
pub mod server;
pub mod shadow;
pub mod stale;
pub mod store;
pub mod tag;
pub mod target;
pub mod targeted;
pub mod telemetry;
pub mod units;
pub mod upstream;
pub mod vary;

/// What the model, the benches and some tests of this package look at; nobody else is to rely on it.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::body::Body;
    pub use crate::coherence::{Coherence, Mode, PurgeKind, core, message};
    pub use crate::events::What;
    pub use crate::forward::Peer;
    pub use crate::metrics;
    pub use crate::outcome::{Disposition, Reason};
    pub use crate::proxy::Proxy;
    pub use crate::shadow::SETTLE;
    pub use crate::shadow::report::{RouteReport, ShadowReport};
    pub use crate::tag::Tag;
}
