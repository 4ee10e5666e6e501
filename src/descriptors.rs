//! How many files and sockets the process may have open, and which of them clients may not use.
//!
//! The system gives each new socket the lowest free number. So what is reserved is the highest
//! numbers below the limit: a client whose socket would get one of them is turned away, and the
//! admin listener, the journal, Redis and name lookups still get theirs.

use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The first number that clients may not use.
static CEILING: AtomicU64 = AtomicU64::new(u64::MAX);

/// Raises the soft limit to the hard limit. Returns the limit that holds now.
///
/// The soft limit is low (1024) by tradition, for programs that use `select`.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    // Some systems have no hard limit, and refuse that as a soft one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Keeps so many of the process's descriptors from clients.
pub fn reserve(limit: u64, count: u64) {
    CEILING.store(limit.saturating_sub(count), Ordering::Relaxed);
}

/// Whether a client's socket has a descriptor that clients may not use.
pub fn is_reserved(socket: &impl AsFd) -> bool {
    let number = u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or_default();
    number >= CEILING.load(Ordering::Relaxed)
}
