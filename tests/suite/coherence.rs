//! No read is older than a write that was answered before it, whatever breaks.

mod cluster_collapse;
mod history;
mod journal;
mod leases;
mod read_your_writes;
