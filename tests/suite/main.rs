//! The integration tests, one binary: a folder per subject, and in it a module per theme, named for
//! what is promised.
//!
//! Tests named `heavy_…` take minutes; the others seconds. Each Redis is a real `redis-server` of
//! its own.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a test measured is worth seeing"
)]

mod support;

#[path = "../../src/cli/demo/app.rs"]
mod app;
#[path = "../../src/cli/demo/guide.rs"]
mod guide;

mod cli;
mod coherence;
mod config;
mod deploy;
mod flow;
mod notify;
mod redis;
mod rfc;
#[cfg(all(feature = "mysql", feature = "postgres"))]
mod sources;
