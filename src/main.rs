//! Entry point of the binary. `cli` decides the exit codes: 0 success, 1 failure, 64 invalid config
//! or usage.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sidecache::cli::main()
}
