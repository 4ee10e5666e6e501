//! Entry point of the binary. `cli` decides the exit codes: 0 success, 1 failure, 64 invalid config
//! or usage.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the allocator reads before the first allocation, unless `_RJEM_MALLOC_CONF` says otherwise:
/// a C string.
///
/// - `thp:always`: entries lie all over the heap, so that a hit waits for the translation of
///   addresses more than for the data. Huge pages take that away.
/// - `tcache_gc_incr_bytes`: how much a thread allocates until it looks for what its cache could
///   give back. By default that is 64 KiB, which a few requests that pass need for their buffers.
#[cfg(feature = "jemalloc")]
// SAFETY: the allocator's symbol of this name is a pointer to constant characters that end with a
// zero, and this is one.
#[allow(unsafe_code, reason = "a symbol is the only way to it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: Option<&'static u8> =
    c"thp:always,tcache_gc_incr_bytes:1048576".to_bytes().first();

fn main() -> ExitCode {
    sidecache::cli::main()
}
