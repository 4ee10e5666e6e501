//! The integration tests, one binary: a module per theme, named for what is promised.
//!
//! Tests named `heavy_…` take minutes; the others seconds. Each Redis is a real `redis-server` of its own.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a test measured is worth seeing")]

mod support;

#[path = "../../examples/demo/app.rs"]
mod app;
#[path = "../../examples/demo/guide.rs"]
mod guide;

mod admin_api;
mod cluster_collapse;
mod coalescing;
mod commands;
mod config;
mod demo;
mod deploy_files;
mod deploy_grafana;
mod deploy_nginx;
mod drain;
mod expiry;
mod history;
mod http_gaps;
mod isolation;
mod journal;
mod leases;
mod lint;
mod memory;
mod metrics;
mod mutations;
mod protocols;
mod read_your_writes;
mod redis_cluster;
mod redis_faults;
mod redis_sentinel;
mod redis_tier;
mod regressions;
mod regressions_stale;
mod reload;
mod rfc5861;
mod rfc9110_ranges;
mod rfc9111;
mod rfc9211;
mod rfc9213;
mod rfc9875;
mod shadow;
mod soft_purge;
mod streaming;
mod ttl;
mod warm;
