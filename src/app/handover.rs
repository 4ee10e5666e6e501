//! Restarts without a pause: a new process takes the listening sockets of the one that serves, and
//! serves while that one drains.
//!
//! The two meet in a folder that only their user may enter ([`folder`]). The one that serves, the
//! *giver*, listens there on a Unix socket; the one that starts with `--take-over`, the *taker*,
//! connects to it. One line each, over one connection:
//!
//! ```text
//! taker: take-over 1                  it has read its file, and opened nothing yet
//! giver: offer 1 PID ADMIN-ADDRESS    with three descriptors: clients, admin, and this very socket
//! taker: ready                        it is built, and could serve
//! giver: go                           from here on the giver passes, and stores nothing
//! taker: serving                      it accepts connections
//! ```
//!
//! Either side may say `refused WHY` in place of its line. Then both end their connection.
//!
//! Invariants:
//! 1. *At each moment at least one process accepts connections.* The giver accepts until it has
//!    read `serving`. The sockets themselves are never closed: what waits in their queues is
//!    accepted by the one or by the other.
//! 2. *A taker that fails changes nothing.* Until `go` the giver serves as ever. If the taker ends
//!    after `go`, before `serving`, the giver goes on as it was; the taker may have served a write,
//!    so that the giver purges everything before it caches again.
//! 3. *The taker accepts nothing before `go`,* or before the giver has died. The giver never ends
//!    the connection before that without saying `refused`, unless it dies; so an end without it
//!    means that the taker serves alone.
//! 4. *At most one of the two caches, and none while writes may end in both* (without Redis): see
//!    [`crate::proxy::Overlap`]. Who still answers writes is seen in the folder: each process holds
//!    the lock of a file of its own there ([`writers`]), from before it accepts a connection until
//!    no write can begin or end in it any more. The kernel frees the lock of a process that dies. A
//!    process that starts, with or without `--take-over`, waits for all of them before it caches.
//!    So a chain of restarts needs no other bookkeeping, and neither does a plain start while an
//!    old process still drains.
//! 5. *The socket in the folder belongs to whoever has the listening sockets.* It is handed over
//!    with them: a further taker connects to the same socket, and waits until it is accepted. A
//!    giver that was told to stop removes it, unless it was handed over.
//! 6. *An accidental second start fails*: it finds the port taken. Only `--take-over` asks.
//!
//! A giver that is told to stop while a taker prepares itself drains, and still says `go`. A taker
//! that is told to stop before `serving` ends.

mod channel;
pub(super) mod folder;
pub(super) mod giver;
pub(super) mod taker;
pub(super) mod upgrade;
pub(super) mod writers;
