//! Boots the sidecar, and decides the exit codes: 0 done, 1 failed start, 64 bad config or usage.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sidecache::cli::main()
}
