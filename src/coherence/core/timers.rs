//! What the passing of time brings about: heartbeats that are due, leases of others that have
//! expired, and operations that have waited long enough.

use super::state::{AckWait, Core, Heartbeat};
use super::types::{CoreCommand, MonotonicTime, PeerEnd, Phase, Released};
use crate::coherence::message::Process;

/// How many heartbeats may be in flight.
const MAX_IN_FLIGHT: usize = 8;

impl Core {
    /// When the core has to be woken, if no event comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        let waits = self.waits.values().filter_map(|wait| Some(wait.until?.0));
        // All peers may have acknowledged long before.
        let unregistered = (!self.waits.is_empty())
            .then_some(self.unregistered_until)
            .filter(|until| *until > MonotonicTime::ZERO);
        // When a peer's lease expires, which may also end a wait for it.
        let lease_expiries =
            self.peers.values().map(|peer| self.settings.lease_expiry(peer.last_heard));
        let evicted_at = self
            .registrations
            .values()
            .flatten()
            .map(|evicted_at| self.settings.forgotten_at(*evicted_at));
        let grace = match self.phase {
            // Without contact the next heartbeat comes first.
            Phase::Joining(until)
                if until < self.lease_state.contact_until
                    && !self.replaying
                    && !self.is_mixed() =>
            {
                Some(until)
            }
            _ => None,
        };
        let connected = self.phase != Phase::Lost;
        let heartbeat = connected.then_some(self.next_heartbeat);
        waits
            .chain(unregistered)
            .chain(lease_expiries.chain(evicted_at).filter(|_| connected))
            .chain(grace)
            .chain(self.mixed_until.filter(|_| connected))
            .chain(heartbeat)
            .min()
    }

    /// Does what is due by now.
    pub(super) fn on_tick(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        if now >= self.unregistered_until {
            self.unregistered_until = MonotonicTime::ZERO;
        }
        self.release_waits(now, commands);
        if self.phase == Phase::Lost {
            return;
        }
        self.end_mix(now);
        let empty = self.journal.tags.is_empty() && !self.journal.everything;
        if !empty && !self.replaying {
            self.replaying = true;
            commands.push(CoreCommand::Replay(std::mem::take(&mut self.journal)));
        }
        if let Phase::Joining(until) = self.phase
            && now >= until
            && empty
            && !self.replaying
            && !self.is_mixed()
            && now < self.lease_state.contact_until
        {
            self.phase = Phase::Joined;
            self.lease_state.epoch += 1;
        }
        self.expire_peers(now, commands);
        if now >= self.next_heartbeat {
            self.send_heartbeat(now, commands);
        }
    }

    fn send_heartbeat(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        let leased = now < self.lease_state.lease_until;
        self.next_heartbeat = now
            + if leased || self.listening_since.is_none() {
                self.settings.heartbeat
            } else {
                self.settings.retry
            };
        // After a lease its reply proves nothing any more.
        self.in_flight.retain(|heartbeat| now < heartbeat.sent + self.settings.lease);
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return;
        }
        self.heartbeats += 1;
        self.in_flight.push(Heartbeat {
            number: self.heartbeats,
            sent: now,
            registered: false,
            echoed: false,
        });
        commands.push(CoreCommand::Heartbeat {
            number: self.heartbeats,
            peer: self.me,
            register: self.listening_since.is_some(),
        });
    }

    fn release_waits(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        let mut released = Vec::new();
        for (id, wait) in &self.waits {
            if let Some(how) = self.outcome(wait, now) {
                released.push((*id, how));
            }
        }
        for (id, how) in released {
            self.waits.remove(&id);
            commands.push(CoreCommand::Release(id, how));
        }
    }

    fn outcome(&self, wait: &AckWait, now: MonotonicTime) -> Option<Released> {
        if let Some(missing) = &wait.missing_acks {
            let mut left = missing.difference(&wait.early_acks).peekable();
            let acks = wait.early_acks.len() + usize::from(wait.echoed);
            let enough = acks >= wait.min_acks && now >= wait.not_before;
            if enough && left.peek().is_none() {
                return Some(Released::Acknowledged);
            }
            // Each peer that held a lease when this was published sent a heartbeat within the lease
            // before, and that has arrived.
            let known = wait.echoed
                && self
                    .listening_since
                    .is_some_and(|since| self.settings.lease_expiry(since) <= now);
            let lease_expiries = |process: &Process| {
                self.peers
                    .get(process)
                    .is_none_or(|peer| now >= self.settings.lease_expiry(peer.last_heard))
            };
            // A peer that is cut off may serve what it filled by itself.
            let is_silence_enough = wait.leases_only || self.settings.absence.is_zero();
            if enough && known && is_silence_enough && left.all(lease_expiries) {
                return Some(Released::LeaseExpired);
            }
        }
        wait.until.filter(|(until, _)| now >= *until).map(|(_, how)| how)
    }

    /// Evicts peers that were `lease_expiries` for one lease, and forgets those evicted one lease
    /// ago.
    fn expire_peers(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        let settings = &self.settings;
        let mut silent = Vec::new();
        self.peers.retain(|process, peer| {
            let lives = now < settings.lease_expiry(peer.last_heard);
            silent.extend((!lives).then_some(*process));
            lives
        });
        for (peer, evicted_at) in &mut self.registrations {
            match evicted_at {
                None if !self.peers.contains_key(&peer.process) => {
                    *evicted_at = Some(now);
                    let end = if self.left.remove(&peer.process) {
                        PeerEnd::Left
                    } else {
                        PeerEnd::Silent
                    };
                    commands.push(CoreCommand::Evict(*peer, end));
                }
                Some(since) if now >= settings.forgotten_at(*since) => {
                    // If the list still has the id after another lease, it is forgotten once more.
                    *since = now;
                    commands.push(CoreCommand::Forget(*peer));
                }
                _ => {}
            }
        }
        for process in silent {
            self.remember_absent(now, process);
        }
    }
}
