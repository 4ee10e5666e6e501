//! The Redis tier on real servers: one, behind sentinels, in a cluster, and failing.

mod cluster;
mod compression;
mod faults;
mod host_key;
mod mixed_versions;
mod mode_switches;
mod peers;
mod regressions_clocks;
mod regressions_dark;
mod regressions_logs;
mod regressions_records;
mod regressions_snapshot;
mod sentinel;
mod tier;
