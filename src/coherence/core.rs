//! The core of coherence, without I/O: events in, commands out, time passed in. Production, the
//! model checker and the tests run this one.
//!
//! What it rests on: Redis runs one step at a time and says what is published to every listener in
//! that order; a connection keeps its order; clocks of different machines run at about the same
//! rate ([`LeaseSettings::margin`] is what they may differ by in one lease). Nothing rests on what
//! any clock says.
//!
//! Invariants:
//! 1. *Contact.* [`LeaseState::contact_until`] is at most a lease after the sending of a beat that
//!    Redis took as a primary under the trusted fence. Records are read on their authority alone
//!    before that time.
//! 2. *Lease.* [`LeaseState::lease_until`] is at most a lease after the sending of a beat that
//!    Redis took, with this sidecar registered in the same step, and that has come back over the
//!    bus. What was said before the beat had come before it, so the local table knows of it.
//!    [`LeaseState::session`] changes whenever something may have been missed; what the table said
//!    in another session proves nothing.
//! 3. *A purge waits for everybody.* Who is told of a purge ([`CoreEvent::Told`]) are those
//!    registered in the very step that made it, and those heard lately. It is released when each of
//!    them has acknowledged it, or when a lease has passed: then whoever has not acknowledged holds
//!    no lease from before the purge, and gets none after it without having heard of it. Under a
//!    primary that was found only now nobody is known to be told: there a lease passes in any case.
//! 4. *Who cannot tell the others waits until they have no trust left.* A purge that Redis did not
//!    take is kept for the rejoin, and released once a lease has passed since the loss, if there
//!    are others at all.
//! 5. *A name that is struck out never returns.* A sidecar that was silent for a lease is struck
//!    out, its mutations under way are taken as committed, and the name is forgotten only after
//!    another lease: whoever was granted one in between is waited for all that time.
//! 6. *Nothing kept is forgotten.* Records are trusted again only when the journal is empty and the
//!    grace has passed.

use std::collections::{BTreeMap, BTreeSet};

use crate::coherence::message::{Message, OperationId, Process};

pub use state::Core;
pub use types::{
    CoherenceStatus, CoreCommand, CoreEvent, HeartbeatReply, LeaseSettings, LeaseState,
    MonotonicTime, Phase, RegisteredPeer, Registration, Released, ReplayBatch, Subscribers,
};

use state::{AckWait, PeerState};

mod state;
#[cfg(test)]
mod tests;
mod timers;
mod types;

/// How many other sidecars are remembered. Beyond that everybody is waited for until the lease is
/// over.
const MAX_PEERS: usize = 1024;

impl Core {
    /// Takes an event, and tells what is to be done about it, in this order.
    pub fn handle(&mut self, now: MonotonicTime, event: CoreEvent) -> Vec<CoreCommand> {
        let mut commands = Vec::new();
        match event {
            CoreEvent::Tick => {}
            CoreEvent::PrimaryFound { fence, again, promoted } => {
                self.on_found(now, fence, again, promoted)
            }
            CoreEvent::Lost => self.on_lost(now),
            CoreEvent::Listening => {
                self.listening_since = Some(now);
                self.next_heartbeat = now;
                // What was acknowledged before was not heard.
                commands.extend(
                    self.waits
                        .iter()
                        .filter(|(_, wait)| wait.missing_acks.is_some())
                        .map(|(id, _)| CoreCommand::RequestAck(*id)),
                );
            }
            CoreEvent::Lagged => self.on_lagged(&mut commands),
            CoreEvent::HeartbeatReply(number, answer) => {
                self.on_heartbeat_reply(now, number, answer, &mut commands)
            }
            CoreEvent::Message(message) => self.on_message(now, message, &mut commands),
            CoreEvent::Published(id, audience) => self.on_published(now, id, &audience),
            CoreEvent::PublishFailed(id, batch) => self.on_publish_failed(now, id, batch),
            CoreEvent::Replayed(batch, done) => self.on_replayed(now, batch, done),
        }
        self.on_tick(now, &mut commands);
        commands
    }

    fn on_found(&mut self, now: MonotonicTime, fence: Box<str>, again: bool, promoted: bool) {
        let mut grace = if again { self.settings.grace } else { MonotonicTime::ZERO };
        if promoted && self.fence.as_ref() != Some(&fence) {
            self.unregistered_until = self.settings.lease_expiry(now);
            // The others learn of a promotion each in its time, and keep purges until they do.
            grace = if again { grace.max(self.settings.lease) } else { grace };
        }
        self.fence = Some(fence);
        self.phase = Phase::Joining(now + grace);
        self.next_heartbeat = now;
    }

    /// Ends all trust in what Redis said.
    fn on_lost(&mut self, now: MonotonicTime) {
        if self.lease_state.epoch.is_multiple_of(2) {
            self.lease_state.epoch += 1;
        }
        if self.phase != Phase::Lost {
            // Whoever else has a lease got it before now; who gets one later speaks to a Redis that
            // we do not.
            self.others_expired_at =
                if self.peers.is_empty() { now } else { self.settings.lease_expiry(now) };
        }
        self.phase = Phase::Lost;
        // The list that is found next may be another one.
        self.names.clear();
        self.lease_state.contact_until = MonotonicTime::ZERO;
        self.end_session();
        self.replaying = false;
    }

    fn end_session(&mut self) {
        self.lease_state.session += 1;
        self.lease_state.lease_until = MonotonicTime::ZERO;
        self.in_flight.clear();
        if self.registered {
            self.registered = false;
            self.me.incarnation += 1;
        }
    }

    fn on_lagged(&mut self, commands: &mut Vec<CoreCommand>) {
        self.listening_since = None;
        if self.registered && self.phase != Phase::Lost {
            commands.push(CoreCommand::Withdraw(self.me));
        }
        self.end_session();
    }

    fn on_heartbeat_reply(
        &mut self,
        now: MonotonicTime,
        number: u64,
        answer: Option<HeartbeatReply>,
        commands: &mut Vec<CoreCommand>,
    ) {
        let Some(at) = self.in_flight.iter().position(|beat| beat.number == number) else { return };
        let Some(answer) = answer else {
            self.in_flight.remove(at);
            return;
        };
        if self.fence.as_deref() != Some(&*answer.fence) {
            return self.on_lost(now);
        }
        let sent = self.in_flight[at].sent;
        self.lease_state.contact_until =
            self.lease_state.contact_until.max(sent + self.settings.lease);
        let alone = answer.names.iter().all(|name| name.node.process == self.me.process);
        self.update_peers(now, &answer.names);
        // What was trusted under an older name of ours was given up with it.
        let older = answer
            .names
            .iter()
            .map(|name| name.node)
            .filter(|node| node.process == self.me.process && *node != self.me);
        commands.extend(older.map(CoreCommand::Forget));
        match answer.registration {
            Registration::Absent => {}
            Registration::Evicted => {
                // Taken for dead: all that was trusted is over, and so is the name.
                self.registered = true;
                self.end_session();
                self.next_heartbeat = now;
            }
            Registration::New if self.registered => {
                // The list of names was lost, and with it those of others.
                self.unknown_peers_until = self.settings.lease_expiry(now);
                self.end_session();
                self.next_heartbeat = now;
            }
            standing => {
                if standing == Registration::New && alone {
                    self.unknown_peers_until = self.settings.lease_expiry(now);
                }
                self.registered = true;
                self.in_flight[at].registered = true;
                self.renew_lease();
            }
        }
    }

    /// Renews the lease by the beats that Redis took and that came back.
    fn renew_lease(&mut self) {
        if let Some(beat) = self
            .in_flight
            .iter()
            .filter(|beat| beat.registered && beat.echoed)
            .max_by_key(|beat| beat.number)
        {
            self.lease_state.lease_until =
                self.lease_state.lease_until.max(beat.sent + self.settings.lease);
            let number = beat.number;
            self.in_flight.retain(|beat| beat.number > number);
        }
    }

    fn on_message(
        &mut self,
        now: MonotonicTime,
        message: Message,
        commands: &mut Vec<CoreCommand>,
    ) {
        // Who may have missed something still does what it is told.
        if self.listening_since.is_none() && !matches!(message, Message::Invalidate { .. }) {
            return;
        }
        match message {
            Message::Heartbeat { of, number, .. } if of == self.me.process => {
                if let Some(beat) = self.in_flight.iter_mut().find(|beat| beat.number == number) {
                    beat.echoed = true;
                }
                self.renew_lease();
            }
            Message::Heartbeat { of, registered, .. } => {
                if let Some(peer) = self.peer(now, of) {
                    *peer = PeerState { last_heard: now, registered };
                }
            }
            Message::Invalidate { by, id, tags } => {
                if by != self.me.process {
                    commands.push(CoreCommand::Invalidate(tags));
                    commands.push(CoreCommand::Ack(by, id));
                } else if let Some(wait) = self.waits.get_mut(&id) {
                    wait.echoed = true;
                }
            }
            Message::Leave { of } => {
                if let Some(peer) = self.peers.get_mut(&of) {
                    peer.registered = false;
                }
                for wait in self.waits.values_mut() {
                    wait.early_acks.insert(of);
                }
            }
            Message::Ack { to, id, of } if to == self.me.process => {
                if let Some(wait) = self.waits.get_mut(&id) {
                    wait.early_acks.insert(of);
                }
            }
            Message::Ack { .. } => {}
        }
    }

    /// Takes note of the list of names.
    fn update_peers(&mut self, now: MonotonicTime, names: &[RegisteredPeer]) {
        let mut known = BTreeMap::new();
        let me = self.me.process;
        for RegisteredPeer { node, evicted: struck } in
            names.iter().filter(|name| name.node.process != me)
        {
            let since = self.names.get(node).copied().flatten();
            known.insert(*node, struck.then(|| since.unwrap_or(now)));
            let stranger = !self.peers.contains_key(&node.process);
            if stranger && !struck && self.peer(now, node.process).is_none() {
                known.remove(node);
            }
        }
        self.names = known;
    }

    fn peer(&mut self, now: MonotonicTime, process: Process) -> Option<&mut PeerState> {
        if !self.peers.contains_key(&process) && self.peers.len() >= MAX_PEERS {
            return None;
        }
        Some(self.peers.entry(process).or_insert(PeerState { last_heard: now, registered: true }))
    }

    /// Says that something is about to be told, whose acknowledgements may come before the answer
    /// of Redis.
    pub fn expect(&mut self, id: OperationId) {
        self.waits.insert(id, AckWait::default());
    }

    fn on_published(&mut self, now: MonotonicTime, id: OperationId, audience: &Subscribers) {
        self.update_peers(now, &audience.names);
        let others = audience
            .names
            .iter()
            .map(|name| name.node.process)
            .filter(|process| *process != self.me.process);
        let mut missing: BTreeSet<Process> = others.collect();
        let lately = self.peers.iter().filter(|(_, peer)| {
            peer.registered && now < self.settings.lease_expiry(peer.last_heard)
        });
        missing.extend(lately.map(|(process, _)| *process));
        if self.registered && !audience.names.iter().any(|name| name.node == self.me) {
            self.unknown_peers_until = self.settings.lease_expiry(now);
        }
        let lacking = now < self.unknown_peers_until;
        let at_least = match self.peers.len() {
            // More than can be remembered: only time helps.
            MAX_PEERS.. => usize::MAX,
            // Whoever listens may hold a lease, under a name that was lost.
            _ if lacking => {
                audience.listeners.saturating_sub(usize::from(self.listening_since.is_some()))
            }
            _ => 0,
        };
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.missing_acks = Some(missing);
            wait.min_acks = at_least;
            wait.not_before = self.unregistered_until;
            wait.until = Some((self.settings.lease_expiry(now), Released::LeaseExpired));
        }
    }

    fn on_publish_failed(&mut self, now: MonotonicTime, id: OperationId, batch: ReplayBatch) {
        self.add_to_journal(batch);
        if self.phase != Phase::Lost {
            self.on_lost(now);
        }
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.until = Some((self.others_expired_at, Released::PublishFailed));
        }
    }

    /// Keeps what is to be purged at the rejoin.
    pub fn add_to_journal(&mut self, batch: ReplayBatch) {
        self.journal.everything |= batch.everything;
        if !self.journal.everything {
            self.journal.tags.extend(batch.tags);
        }
        if self.journal.everything || self.journal.tags.len() > self.max_journal {
            self.journal = ReplayBatch { tags: BTreeSet::new(), everything: true };
        }
    }

    fn on_replayed(&mut self, now: MonotonicTime, batch: ReplayBatch, done: bool) {
        self.replaying = false;
        if !done {
            self.add_to_journal(batch);
            if self.phase != Phase::Lost {
                self.on_lost(now);
            }
        }
    }
}
