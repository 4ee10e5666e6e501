//! What the passing of time brings about: heartbeats that are due, leases of others that have
//! expired, and operations that have waited long enough.

use super::state::{AckWait, Core, Heartbeat};
use super::types::{CoreCommand, MonotonicTime, Phase, Released};
use crate::coherence::message::Process;

/// How many beats may be under way; older ones are given up.
const MAX_IN_FLIGHT: usize = 8;

impl Core {
    /// When something is to be done next, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        let waits = self.waits.values().filter_map(|wait| Some(wait.until?.0));
        // Acknowledged by all it may be long before.
        let strangers = (!self.waits.is_empty())
            .then_some(self.unregistered_until)
            .filter(|until| *until > MonotonicTime::ZERO);
        // When somebody falls silent, which also ends the wait for who does.
        let silent = self.peers.values().map(|peer| self.settings.lease_expiry(peer.last_heard));
        let struck =
            self.names.values().flatten().map(|struck| self.settings.lease_expiry(*struck));
        let grace = match self.phase {
            // Without contact it is the next beat that counts.
            Phase::Joining(until) if until < self.lease_state.contact_until && !self.replaying => {
                Some(until)
            }
            _ => None,
        };
        let connected = self.phase != Phase::Lost;
        let beat = connected.then_some(self.next_heartbeat);
        waits
            .chain(strangers)
            .chain(silent.chain(struck).filter(|_| connected))
            .chain(grace)
            .chain(beat)
            .min()
    }

    /// What time alone brings about.
    pub(super) fn on_tick(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        if now >= self.unregistered_until {
            self.unregistered_until = MonotonicTime::ZERO;
        }
        self.release_waits(now, commands);
        if self.phase == Phase::Lost {
            return;
        }
        let empty = self.journal.tags.is_empty() && !self.journal.everything;
        if !empty && !self.replaying {
            self.replaying = true;
            commands.push(CoreCommand::Replay(std::mem::take(&mut self.journal)));
        }
        if let Phase::Joining(until) = self.phase
            && now >= until
            && empty
            && !self.replaying
            && now < self.lease_state.contact_until
        {
            self.phase = Phase::Joined;
            self.lease_state.epoch += 1;
        }
        self.expire_peers(now, commands);
        if now >= self.next_heartbeat {
            self.heartbeats += 1;
            let leased = now < self.lease_state.lease_until;
            self.next_heartbeat = now
                + if leased || self.listening_since.is_none() {
                    self.settings.heartbeat
                } else {
                    self.settings.retry
                };
            if self.in_flight.len() >= MAX_IN_FLIGHT {
                self.in_flight.remove(0);
            }
            self.in_flight.push(Heartbeat {
                number: self.heartbeats,
                sent: now,
                registered: false,
                echoed: false,
            });
            commands.push(CoreCommand::Heartbeat {
                number: self.heartbeats,
                node: self.me,
                register: self.listening_since.is_some(),
            });
        }
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
            let enough = wait.early_acks.len() >= wait.min_acks && now >= wait.not_before;
            if enough && left.peek().is_none() {
                return Some(Released::Acknowledged);
            }
            // Whoever held a lease when this was said has been heard within the lease before.
            let known = wait.echoed
                && self
                    .listening_since
                    .is_some_and(|since| self.settings.lease_expiry(since) <= now);
            let silent = |process: &Process| {
                self.peers
                    .get(process)
                    .is_none_or(|peer| now >= self.settings.lease_expiry(peer.last_heard))
            };
            if enough && known && left.all(silent) {
                return Some(Released::LeaseExpired);
            }
        }
        wait.until.filter(|(until, _)| now >= *until).map(|(_, how)| how)
    }

    /// Strikes out who was silent for a lease, and forgets who was struck out for another.
    fn expire_peers(&mut self, now: MonotonicTime, commands: &mut Vec<CoreCommand>) {
        let settings = &self.settings;
        self.peers.retain(|_, peer| now < settings.lease_expiry(peer.last_heard));
        for (node, struck) in &mut self.names {
            match struck {
                None if !self.peers.contains_key(&node.process) => {
                    *struck = Some(now);
                    commands.push(CoreCommand::Evict(*node));
                }
                Some(since) if now >= settings.lease_expiry(*since) => {
                    // Tried again after another lease, if the list still has it then.
                    *since = now;
                    commands.push(CoreCommand::Forget(*node));
                }
                _ => {}
            }
        }
    }
}
