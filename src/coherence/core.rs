//! The coherence protocol as a state machine without I/O: it takes events and the time, and returns
//! commands. Production, the model checker and the tests all run this code.
//!
//! The state is in `state`, events and commands are in `types`, and what happens as time passes is
//! in `timers`.
//!
//! Assumptions: Redis runs one script at a time, and delivers published messages to every
//! subscriber in that order; a connection keeps its order; the clocks of different machines run at
//! about the same rate ([`LeaseSettings::margin`] is how far they may drift apart during one
//! lease). The protocol never compares the time of one clock with that of another.
//!
//! Invariants:
//! 1. *Contact.* [`LeaseState::contact_until`] is at most one lease after this sidecar sent a
//!    heartbeat that Redis accepted, as a primary under the trusted fence. Until then records may
//!    be read on the strength of the connection alone.
//! 2. *Lease.* [`LeaseState::lease_until`] is at most one lease after this sidecar sent a heartbeat
//!    that Redis accepted, registering the sidecar in the same step, and that came back over the
//!    bus. Messages published before that heartbeat arrived before it, so the local table knows of
//!    them. [`LeaseState::session`] changes whenever a message may have been missed; what the table
//!    said in another session proves nothing.
//! 3. *A purge waits for every peer.* [`CoreEvent::Published`] lists the peers that were registered
//!    in the very step of the purge; peers that were heard recently, before the purge itself came
//!    back over the bus, are added. (Who is first heard later has registered later.) A peer that
//!    may have subscribed too late gets the purge again. The purge is released when all of
//!    them have acknowledged it, or when one lease has passed: a peer that has
//!    not acknowledged by then no longer holds a lease from before the purge, and cannot get a new
//!    one without receiving the purge first. A primary that was just promoted may not know all
//!    peers: acknowledgements do not suffice until one lease after it was found.
//! 4. *A purge that cannot be published waits until no peer trusts anything.* It goes into the
//!    journal, to be replayed at the rejoin, and is released one lease after the loss; at once if
//!    there are no peers.
//! 5. *An evicted peer id never returns.* A peer that was silent for one lease is evicted, and its
//!    pending mutations count as committed. Its id is forgotten only after another lease, and until
//!    then purges still wait for a lease that it may have been granted in between.
//! 6. *The journal is never dropped.* Records are trusted again only when the journal is empty and
//!    the grace period has passed.
//! 7. *Only Redis's silence is a loss.* The core learns of a loss from a connection that broke or a
//!    reply that says so, never from a deadline of this process. A heartbeat's reply counts for as
//!    long as it can prove anything: one lease from its sending.
//! 8. *Silence is measured while this process listens.* When it wakes later than it meant to, what
//!    it has heard of its peers counts as heard that much later: their messages may lie unread.
//! 9. *Degraded mode ends when Redis is back.* From then on nothing of this process's own table is
//!    served, and nothing of Redis until it is trusted.
//! 10. *A peer that fell silent is not forgotten* where [`LeaseSettings::absence`] says so. A purge
//!     also waits for its acknowledgement, or for as long as it may serve what it filled by itself.
//!     Nothing else that is heard of it ends that: a heartbeat or a departure may have been on its
//!     way since before it was cut off. Only the end of its process does.
//! 11. *Other protocols.* While a sidecar that speaks another one may be there, Redis is not
//!     trusted ([`Core::is_mixed`]), which is so before any message of it is acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::coherence::message::{Message, OperationId, Process};

pub use state::Core;
pub use types::{
    CoherenceStatus, CoreCommand, CoreEvent, HeartbeatReply, LeaseSettings, LeaseState,
    MonotonicTime, PeerEnd, Phase, RegisteredPeer, Registration, Released, ReplayBatch,
    Subscribers, Truth,
};

use state::{AckWait, PeerState};

mod mixed;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod types;

/// How many peers are remembered. With more, every purge waits until the lease has expired.
const MAX_PEERS: usize = 1024;

impl Core {
    /// Handles an event, and returns the commands to be carried out, in this order.
    pub fn handle(&mut self, now: MonotonicTime, event: CoreEvent) -> Vec<CoreCommand> {
        let mut commands = Vec::new();
        self.void_stall(now);
        match event {
            CoreEvent::Tick => {}
            CoreEvent::PrimaryFound { fence, again, promoted } => {
                self.on_found(now, fence, again, promoted);
            }
            CoreEvent::Lost => self.on_lost(now),
            CoreEvent::Listening => {
                self.listening_since = Some(now);
                self.next_heartbeat = now;
                // An acknowledgement sent before the subscription may have been missed.
                for (id, wait) in &mut self.waits {
                    if wait.missing_acks.is_some() {
                        commands.push(CoreCommand::RequestAck(*id));
                    } else {
                        wait.must_ask_again = true;
                    }
                }
            }
            CoreEvent::Lagged => self.on_lagged(&mut commands),
            CoreEvent::HeartbeatReply(number, reply) => {
                self.on_heartbeat_reply(now, number, reply, &mut commands);
            }
            CoreEvent::Message(message) => self.on_message(now, message, &mut commands),
            CoreEvent::Published(id, subscribers) => {
                self.on_published(now, id, &subscribers, &mut commands);
            }
            CoreEvent::PublishFailed(id, batch) => self.on_publish_failed(now, id, batch),
            CoreEvent::Replayed(batch, done) => self.on_replayed(now, batch, done),
        }
        self.on_tick(now, &mut commands);
        self.planned = self.next_deadline().map(|next| next.max(now));
        commands
    }

    fn on_found(&mut self, now: MonotonicTime, fence: Box<str>, again: bool, promoted: bool) {
        let mut grace = if again { self.settings.grace } else { MonotonicTime::ZERO };
        if promoted && self.fence.as_ref() != Some(&fence) {
            self.unregistered_until = self.settings.lease_expiry(now);
            // Peers notice a promotion at different times, and journal their purges until they do.
            grace = if again { grace.max(self.settings.lease) } else { grace };
        }
        self.fence = Some(fence);
        if self.lease_state.truth() == Truth::OwnTable {
            self.lease_state.epoch += 1;
        }
        self.phase = Phase::Joining(now + grace);
        self.next_heartbeat = now;
    }

    /// Ends all trust in Redis.
    fn on_lost(&mut self, now: MonotonicTime) {
        self.lease_state.epoch += match self.lease_state.truth() {
            Truth::Records => 1,
            Truth::OwnTable => 0,
            Truth::Nothing => 2,
        };
        if self.phase != Phase::Lost {
            // They may be as cut off as this sidecar is.
            let silent: Vec<Process> = self.peers.keys().copied().collect();
            for process in silent {
                self.remember_absent(now, process);
            }
            // The peers got their leases before now. A lease granted from now on comes from a Redis
            // that this sidecar does not talk to.
            self.others_expired_at =
                if self.peers.is_empty() { now } else { self.settings.lease_expiry(now) };
        }
        self.phase = Phase::Lost;
        // The Redis that is found next may have another list of peers.
        self.registrations.clear();
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
        reply: Option<HeartbeatReply>,
        commands: &mut Vec<CoreCommand>,
    ) {
        let Some(at) = self.in_flight.iter().position(|heartbeat| heartbeat.number == number)
        else {
            return;
        };
        let Some(reply) = reply else {
            self.in_flight.remove(at);
            return;
        };
        if self.fence.as_deref() != Some(&*reply.fence) {
            return self.on_lost(now);
        }
        let sent = self.in_flight[at].sent;
        self.last_contact = self.last_contact.max(Some(sent));
        self.lease_state.contact_until =
            self.lease_state.contact_until.max(sent + self.settings.lease);
        let alone = reply.peers.iter().all(|entry| entry.peer.process == self.me.process);
        self.update_peers(now, &reply.peers);
        if reply.is_mixed {
            self.on_other_protocol(now);
        }
        // This sidecar gave up all trust under an older id when it gave up that id.
        let older = reply
            .peers
            .iter()
            .map(|entry| entry.peer)
            .filter(|peer| peer.process == self.me.process && *peer != self.me);
        commands.extend(older.map(CoreCommand::Forget));
        match reply.registration {
            Registration::Absent => {}
            Registration::Evicted => {
                // The peers took this sidecar for dead: its trust is over, and so is this id.
                self.registered = true;
                self.end_session();
                self.next_heartbeat = now;
            }
            Registration::New if self.registered => {
                // Redis has lost its list of peers, so other registrations may be missing too.
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

    /// Extends the lease by the latest heartbeat that Redis accepted and that came back.
    fn renew_lease(&mut self) {
        if let Some(heartbeat) = self
            .in_flight
            .iter()
            .filter(|heartbeat| heartbeat.registered && heartbeat.echoed)
            .max_by_key(|heartbeat| heartbeat.number)
        {
            self.lease_state.lease_until =
                self.lease_state.lease_until.max(heartbeat.sent + self.settings.lease);
            let number = heartbeat.number;
            self.in_flight.retain(|heartbeat| heartbeat.number > number);
        }
    }

    fn on_message(
        &mut self,
        now: MonotonicTime,
        message: Message,
        commands: &mut Vec<CoreCommand>,
    ) {
        if message.is_of_other_protocol() {
            self.on_other_protocol(now);
        }
        // A sidecar that may have missed messages still obeys invalidations.
        if self.listening_since.is_none() && !matches!(message, Message::Invalidate { .. }) {
            return;
        }
        match message {
            Message::Heartbeat { of, number, .. } if of == self.me.process => {
                if let Some(heartbeat) =
                    self.in_flight.iter_mut().find(|heartbeat| heartbeat.number == number)
                {
                    heartbeat.echoed = true;
                }
                self.renew_lease();
            }
            Message::Heartbeat { of, registered, .. } => {
                let was_registered = self.peers.get(&of).is_some_and(|peer| peer.registered);
                if let Some(peer) = self.peer(now, of) {
                    *peer = PeerState { last_heard: now, registered };
                }
                if registered && !was_registered {
                    self.resend_to(of, commands);
                }
            }
            Message::Invalidate { by, id, tags, inbox, .. } => {
                if by != self.me.process {
                    commands.push(CoreCommand::Invalidate(tags));
                    commands.push(CoreCommand::Ack { to: by, id, inbox });
                } else if let Some(wait) = self.waits.get(&id).filter(|wait| !wait.echoed) {
                    let heard = wait
                        .missing_acks
                        .is_none()
                        .then(|| self.exposed_peers(now, wait.leases_only));
                    self.waits.entry(id).and_modify(|wait| {
                        wait.echoed = true;
                        wait.heard_before = heard;
                    });
                }
            }
            Message::Leave { of, gone } => self.on_leave(of, gone),
            Message::Ack { to, id, of } if to == self.me.process => {
                if let Some(wait) = self.waits.get_mut(&id) {
                    wait.early_acks.insert(of);
                }
            }
            Message::Ack { .. } | Message::SwitchesChanged => {}
        }
    }

    /// Sends operations again to a peer that has registered since.
    fn resend_to(&mut self, peer: Process, commands: &mut Vec<CoreCommand>) {
        for (id, wait) in &mut self.waits {
            if wait.unlisted.remove(&peer) {
                commands.push(CoreCommand::RequestAck(*id));
            }
        }
    }

    fn on_leave(&mut self, of: Process, gone: bool) {
        if gone {
            self.absent.remove(&of);
            self.peers.remove(&of);
            if self
                .registrations
                .iter()
                .any(|(peer, evicted)| peer.process == of && evicted.is_none())
            {
                self.left.insert(of);
            }
        } else if let Some(peer) = self.peers.get_mut(&of) {
            peer.registered = false;
        }
        let is_harmless = gone || self.settings.absence.is_zero();
        for wait in self.waits.values_mut().filter(|wait| is_harmless || wait.leases_only) {
            wait.early_acks.insert(of);
        }
    }

    /// Takes over the list of registered peers.
    fn update_peers(&mut self, now: MonotonicTime, registered: &[RegisteredPeer]) {
        let mut known = BTreeMap::new();
        let me = self.me.process;
        for RegisteredPeer { peer, evicted } in
            registered.iter().filter(|entry| entry.peer.process != me)
        {
            let since = self.registrations.get(peer).copied().flatten();
            known.insert(*peer, evicted.then(|| since.unwrap_or(now)));
            if *evicted && since.is_none() {
                self.remember_absent(now, peer.process);
            }
            let unknown = !self.peers.contains_key(&peer.process);
            if unknown && !evicted && self.peer(now, peer.process).is_none() {
                known.remove(peer);
            }
        }
        self.registrations = known;
    }

    fn peer(&mut self, now: MonotonicTime, process: Process) -> Option<&mut PeerState> {
        if !self.peers.contains_key(&process) && self.peers.len() >= MAX_PEERS {
            return None;
        }
        Some(self.peers.entry(process).or_insert(PeerState { last_heard: now, registered: true }))
    }

    /// Begins to collect acknowledgements of an operation that is about to be published: they may
    /// arrive before the reply from Redis.
    pub fn expect(&mut self, id: OperationId) {
        self.waits.insert(id, AckWait::default());
    }

    /// The same for an operation that concerns hits under a lease alone, such as a mark.
    pub fn expect_leases(&mut self, id: OperationId) {
        self.waits.insert(id, AckWait { leases_only: true, ..AckWait::default() });
    }

    /// The peers that may serve what an operation of now invalidates, as far as the bus tells:
    /// those that may hold a lease, and where silent peers are not forgotten, all that are known.
    fn exposed_peers(&self, now: MonotonicTime, leases_only: bool) -> BTreeSet<Process> {
        if leases_only || self.settings.absence.is_zero() {
            let may_hold_lease = |peer: &PeerState| {
                peer.registered && now < self.settings.lease_expiry(peer.last_heard)
            };
            let peers = self.peers.iter().filter(|(_, peer)| may_hold_lease(peer));
            return peers.map(|(process, _)| *process).collect();
        }
        // Also those that gave up their leases: they may have been cut off since.
        let absent = self.absent.iter().filter(|(_, until)| now < **until);
        self.peers.keys().chain(absent.map(|(process, _)| process)).copied().collect()
    }

    fn on_published(
        &mut self,
        now: MonotonicTime,
        id: OperationId,
        subscribers: &Subscribers,
        commands: &mut Vec<CoreCommand>,
    ) {
        self.update_peers(now, &subscribers.peers);
        if subscribers.is_mixed {
            self.on_other_protocol(now);
        }
        if self.registered && !subscribers.peers.iter().any(|entry| entry.peer == self.me) {
            self.unknown_peers_until = self.settings.lease_expiry(now);
        }
        let incomplete = now < self.unknown_peers_until;
        let min_acks = match self.peers.len() {
            // There are more peers than can be remembered: only time helps.
            MAX_PEERS.. => usize::MAX,
            // Any subscriber may hold a lease under a registration that was lost.
            _ if incomplete => subscribers.listeners,
            _ => 0,
        };
        self.absent.retain(|_, until| now < *until);
        let Some(mut wait) = self.waits.remove(&id) else { return };
        // Who is first heard after the message came back has registered after it.
        let heard = wait.heard_before.take();
        let mut missing_acks = heard.unwrap_or_else(|| self.exposed_peers(now, wait.leases_only));
        let others = subscribers.peers.iter().map(|entry| entry.peer.process);
        let listed: BTreeSet<Process> =
            others.filter(|process| *process != self.me.process).collect();
        // What is listed was subscribed. The others may not have got the message, and get it again
        // as soon as they are.
        let mut unlisted: BTreeSet<Process> = missing_acks.difference(&listed).copied().collect();
        unlisted.retain(|process| !wait.early_acks.contains(process));
        let before = unlisted.len();
        unlisted.retain(|process| self.peers.get(process).is_none_or(|peer| !peer.registered));
        wait.must_ask_again |= unlisted.len() < before;
        wait.unlisted = unlisted;
        missing_acks.extend(listed);
        let until = if wait.leases_only || self.settings.absence.is_zero() {
            self.settings.lease_expiry(now)
        } else {
            self.settings.exposure_expiry(now)
        };
        if std::mem::take(&mut wait.must_ask_again) && !missing_acks.is_subset(&wait.early_acks) {
            commands.push(CoreCommand::RequestAck(id));
        }
        wait.missing_acks = Some(missing_acks);
        wait.min_acks = min_acks;
        wait.not_before = self.unregistered_until;
        wait.until = Some((until, Released::LeaseExpired));
        self.waits.insert(id, wait);
    }

    fn on_publish_failed(&mut self, now: MonotonicTime, id: OperationId, batch: ReplayBatch) {
        self.add_to_journal(batch);
        if self.phase != Phase::Lost {
            self.on_lost(now);
        }
        if let Some(wait) = self.waits.get_mut(&id) {
            // A peer that is cut off, too, may have filled something by itself until now.
            let until = if self.absent.is_empty() {
                self.others_expired_at
            } else {
                self.settings.exposure_expiry(now)
            };
            wait.until = Some((until, Released::PublishFailed));
        }
    }

    /// Adds purges that are to be replayed at the rejoin.
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
