//! The demo: a sample legacy app, and Sidecache in front of it with the shipped `proxy.toml`.
//!
//! `cargo run --release --example demo` is `sidecache demo`, with the same options.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidecache::cli::demo()
}
