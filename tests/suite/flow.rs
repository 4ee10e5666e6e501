//! What happens to a request: hits, fills, passes, writes, and what is counted of them.

mod callers;
mod coalescing;
mod drain;
mod expiry;
mod fill_bytes;
mod isolation;
mod languages;
mod learned_headers;
mod memory;
mod metrics;
mod mutations;
mod protocols;
mod regressions;
mod regressions_admission;
mod regressions_attack;
mod regressions_attack2;
mod regressions_connections;
mod regressions_cookies;
mod regressions_fill;
mod regressions_stale;
mod regressions_writes;
mod shadow;
mod soft_purge;
mod streaming;
mod ttl;
mod variants;
