//! Shares the descriptors of the process out among clients, the origin and the rest, at the start.

use crate::config::Config;
use crate::{admin, descriptors, server};

/// Descriptors of files, listeners, Redis, name lookups and the runtime.
const OTHERS: u64 = 64;

/// What clients may not use: the admin listener's connections, rejections that are being sent, and
/// all others. Never more than a quarter of a small limit.
const RESERVED: u64 = admin::MAX_CONNECTIONS as u64 + server::MAX_REFUSALS as u64 + OTHERS;

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ConnectionLimits {
    clients: u64,
    origin: u64,
}

impl ConnectionLimits {
    /// How many descriptors all of them take, with clients that wait for the place of another one.
    fn descriptors(self) -> u64 {
        self.clients + self.clients.min(server::MAX_WAITING as u64) + self.origin
    }

    /// The limits that this many descriptors are enough for. The origin needs no more connections
    /// than there are clients.
    fn within(self, available: u64) -> Self {
        if self.descriptors() <= available {
            return self;
        }
        let origin = self.origin.min(available / 3).max(1);
        let rest = available.saturating_sub(origin);
        let clients = (rest / 2).max(rest.saturating_sub(server::MAX_WAITING as u64));
        Self { clients: self.clients.min(clients).max(1), origin }
    }
}

/// Raises the limit of the process, and lowers those of the config that are above it: beyond the
/// process's limit clients would find no place by their shares, and nobody an answer.
pub fn fit(config: &mut Config) {
    let limit = descriptors::raise_limit();
    let reserved = RESERVED.min(limit / 4);
    descriptors::reserve(limit, reserved);
    let (clients, origin) =
        (&mut config.server.max_connections, &mut config.upstream.max_connections);
    // Each app has as many.
    let apps = config.apps.len() as u64 + 1;
    let wanted = ConnectionLimits { clients: *clients as u64, origin: *origin as u64 * apps };
    let within = wanted.within(limit - reserved);
    if within == wanted {
        return;
    }
    tracing::warn!(
        allowed = limit,
        wanted = wanted.descriptors() + reserved,
        "the process may have {limit} files and sockets open, and the limits of the file add up to \
         {}: listen.max_connections {clients} (and clients that wait), upstream.max_connections \
         {origin} for each of {apps} apps, and {reserved} for the admin listener, Redis and the \
         rest. {} clients and {} connections to origins may be open at once. Raise the limit \
         (LimitNOFILE= of systemd, ulimits of Docker and Compose, ulimit -Hn), or lower these keys",
        wanted.descriptors() + reserved,
        within.clients,
        within.origin,
    );
    *clients = usize::try_from(within.clients).unwrap_or(usize::MAX);
    let each = (within.origin / apps).max(1);
    *origin = usize::try_from(each).unwrap_or(usize::MAX);
    for app in &mut config.apps {
        app.upstream.max_connections = *origin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_fit_stay() {
        let wanted = ConnectionLimits { clients: 10_000, origin: 512 };
        assert_eq!(wanted.within(10_768), wanted);
        assert_ne!(wanted.within(10_767), wanted);
    }

    #[test]
    fn limits_that_do_not_fit_leave_room_for_each_other() {
        for available in [1, 8, 48, 192, 832, 3904, 10_000] {
            for (clients, origin) in [(10_000, 512), (1_000_000, 1), (1, 100_000), (20_000, 20_000)]
            {
                let wanted = ConnectionLimits { clients, origin };
                let within = wanted.within(available);
                assert!(within.clients >= 1 && within.origin >= 1, "{available} {within:?}");
                assert!(
                    within.clients <= clients && within.origin <= origin,
                    "{available} {within:?}"
                );
                if available >= 8 {
                    assert!(within.descriptors() <= available, "{available} {within:?}");
                }
            }
        }
        let usual = ConnectionLimits { clients: 10_000, origin: 512 };
        assert_eq!(usual.within(832), ConnectionLimits { clients: 299, origin: 277 });
        assert_eq!(usual.within(3904), ConnectionLimits { clients: 3136, origin: 512 });
    }
}
