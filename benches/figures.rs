//! Measures how long hits, fills and purges take. The figures are for people; no machine has to
//! reach them.
//!
//! ```sh
//! cargo bench --bench figures             # all of them
//! cargo bench --bench figures -- expiry   # those whose names contain a word
//! ```
//!
//! Needs redis-server; `RUST_LOG=off` keeps the sidecars quiet. What the tests demand of the same
//! things holds on every machine.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are printed")]

#[path = "../src/cli/demo/app.rs"]
#[allow(dead_code, reason = "it is the demo's")]
mod app;
#[path = "../tests/suite"]
#[allow(dead_code, unused_imports, reason = "it is the tests'")]
mod suite {
    pub mod support;
}

#[path = "figures/codings.rs"]
mod codings;
#[path = "figures/counting.rs"]
mod counting;
#[path = "figures/expiry.rs"]
mod expiry;
#[path = "figures/fills.rs"]
mod fills;
#[path = "figures/purges.rs"]
mod purges;
#[path = "figures/redis_dead.rs"]
mod redis_dead;

use std::time::Duration;

use suite::support;

#[tokio::main]
async fn main() {
    // Arguments that cargo adds are not names.
    let names: Vec<String> =
        std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    if wanted("codings") {
        codings::of_files();
    }
    if wanted("counting") {
        counting::a_hit();
    }
    if wanted("expiry") {
        expiry::of_a_popular_key().await;
    }
    if wanted("fills") {
        fills::of_a_crowd().await;
    }
    if wanted("purges") {
        Box::pin(purges::of_tags_in_memory()).await;
        purges::acknowledged_by_three().await;
    }
    if wanted("redis_dead") {
        redis_dead::beside_the_origin().await;
    }
}

/// Prints the distribution of these.
fn print(name: &str, mut times: Vec<Duration>) {
    if times.is_empty() {
        return println!("{name}: nothing was measured");
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let (median, p99, most) = (at(50), at(99), times[times.len() - 1]);
    println!("{name}: median {median:?}, p99 {p99:?}, longest {most:?}, of {}", times.len());
}
