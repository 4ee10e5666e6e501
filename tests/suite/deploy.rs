//! What ships in `deploy/`, run or read by the tools that it is for.

mod build_script;
mod files;
mod grafana;
mod nginx;
mod packages;
mod sockets;
