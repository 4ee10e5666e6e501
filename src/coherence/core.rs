//! The core of coherence, without I/O: events in, commands out, time passed in. Production, the model checker and the tests run this one.
//!
//! What it rests on: Redis runs one step at a time and says what is published to every listener in that order; a connection keeps its order;
//! clocks of different machines run at about the same rate ([`Settings::margin`] is what they may differ by in one lease). Nothing rests on
//! what any clock says.
//!
//! Invariants:
//! 1. *Contact.* [`Gate::contact_until`] is at most a lease after the sending of a beat that Redis took as a primary under the trusted fence.
//!    Records are read on their authority alone before that time.
//! 2. *Lease.* [`Gate::lease_until`] is at most a lease after the sending of a beat that Redis took, with this sidecar registered in the
//!    same step, and that has come back over the bus. What was said before the beat had come before it, so the local table knows of it.
//!    [`Gate::session`] changes whenever something may have been missed; what the table said in another session proves nothing.
//! 3. *A purge waits for everybody.* Who is told of a purge ([`Event::Told`]) are those registered in the very step that made it, and those
//!    heard lately. It is released when each of them has acknowledged it, or when a lease has passed: then whoever has not acknowledged
//!    holds no lease from before the purge, and gets none after it without having heard of it.
//!    Under a primary that was found only now nobody is known to be told: there a lease passes in any case.
//! 4. *Who cannot tell the others waits until they have no trust left.* A purge that Redis did not take is kept for the rejoin, and released
//!    once a lease has passed since the loss, if there are others at all.
//! 5. *A name that is struck out never returns.* A sidecar that was silent for a lease is struck out, its mutations under way are taken as
//!    committed, and the name is forgotten only after another lease: whoever was granted one in between is waited for all that time.
//! 6. *Nothing kept is forgotten.* Records are trusted again only when the journal is empty and the grace has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::coherence::message::{Id, Message, Node, Process};

pub use types::{At, Audience, Batch, Beaten, Command, Event, Gate, Name, Phase, Released, Settings, Standing, Standings};

use state::{Beat, Peer, Wait};

mod state;
#[cfg(test)]
mod tests;
mod types;

/// How many beats may be under way; older ones are given up.
const FLYING: usize = 8;

/// How many other sidecars are remembered. Beyond that everybody is waited for until the lease is over.
const MOST_PEERS: usize = 1024;

/// The core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    settings: Settings,
    me: Node,
    phase: Phase,
    gate: Gate,
    fence: Option<Box<str>>,
    /// Since when the bus is heard without a gap.
    listening: Option<At>,
    registered: bool,
    /// Until when the list of names in Redis may lack some that hold a lease.
    names_lack_until: At,
    /// Until when somebody may hold a lease from a primary before this one, and neither be named nor listen here.
    strangers_until: At,
    beats: u64,
    next_beat: At,
    flying: Vec<Beat>,
    peers: BTreeMap<Process, Peer>,
    /// The names of others, and when those that are struck out were first seen to be.
    names: BTreeMap<Node, Option<At>>,
    waits: BTreeMap<Id, Wait>,
    journal: Batch,
    replaying: bool,
    most_journal: usize,
    /// When the others' trust is over, since Redis was lost.
    quiet_from: At,
}

impl Core {
    /// A core that has not met Redis yet. Beyond so many tags the journal becomes "everything".
    #[must_use]
    pub const fn new(process: Process, settings: Settings, most_journal: usize) -> Self {
        let gate = Gate { epoch: 1, session: 0, contact_until: At::ZERO, lease_until: At::ZERO };
        Self {
            settings,
            me: Node { process, incarnation: 0 },
            phase: Phase::Lost,
            gate,
            fence: None,
            listening: None,
            registered: false,
            names_lack_until: At::ZERO,
            strangers_until: At::ZERO,
            beats: 0,
            next_beat: At::ZERO,
            flying: Vec::new(),
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            waits: BTreeMap::new(),
            journal: Batch { tags: BTreeSet::new(), everything: false },
            replaying: false,
            most_journal,
            quiet_from: At::ZERO,
        }
    }

    /// What hits look at.
    #[must_use]
    pub const fn gate(&self) -> Gate {
        self.gate
    }

    /// How it stands with Redis.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Its present name.
    #[must_use]
    pub const fn me(&self) -> Node {
        self.me
    }

    /// The fence that is trusted, or was last.
    #[must_use]
    pub fn fence(&self) -> Option<&str> {
        self.fence.as_deref()
    }

    /// How it stands otherwise.
    #[must_use]
    pub fn standings(&self) -> Standings {
        let journal = self.journal.tags.len() + usize::from(self.journal.everything);
        Standings { peers: self.peers.len(), waits: self.waits.len(), journal }
    }

    /// Whether a mark that was made then, in that epoch, still stands for sure: nobody can have taken its owner for dead.
    #[must_use]
    pub fn still_marked(&self, marked: At, epoch: u64, now: At) -> bool {
        epoch == self.gate.epoch && now < marked + self.settings.lease
    }

    /// Another sidecar's lease may be longer than ours: it is waited for. Says whether that is news.
    pub fn waits_for(&mut self, lease: Duration) -> bool {
        let news = lease > self.settings.longest;
        self.settings.longest = self.settings.longest.max(lease);
        news
    }

    /// What was to be waited for is given up.
    pub fn forget_wait(&mut self, id: Id) {
        self.waits.remove(&id);
    }

    /// When something is to be done next, if nothing happens before.
    #[must_use]
    pub fn next(&self) -> Option<At> {
        let waits = self.waits.values().filter_map(|wait| Some(wait.until?.0));
        // Acknowledged by all it may be long before.
        let strangers = (!self.waits.is_empty()).then_some(self.strangers_until).filter(|until| *until > At::ZERO);
        // When somebody falls silent, which also ends the wait for who does.
        let silent = self.peers.values().map(|peer| self.settings.outlived(peer.heard));
        let struck = self.names.values().flatten().map(|struck| self.settings.outlived(*struck));
        let grace = match self.phase {
            // Without contact it is the next beat that counts.
            Phase::Joining(until) if until < self.gate.contact_until && !self.replaying => Some(until),
            _ => None,
        };
        let connected = self.phase != Phase::Lost;
        let beat = connected.then_some(self.next_beat);
        waits.chain(strangers).chain(silent.chain(struck).filter(|_| connected)).chain(grace).chain(beat).min()
    }

    /// Takes an event, and tells what is to be done about it, in this order.
    pub fn handle(&mut self, now: At, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Tick => {}
            Event::Found { fence, again, promoted } => self.found(now, fence, again, promoted),
            Event::Lost => self.lose(now),
            Event::Listening => {
                self.listening = Some(now);
                self.next_beat = now;
                // What was acknowledged before was not heard.
                commands.extend(self.waits.iter().filter(|(_, wait)| wait.missing.is_some()).map(|(id, _)| Command::Ask(*id)));
            }
            Event::Gap => self.gap(&mut commands),
            Event::Beaten(number, answer) => self.beaten(now, number, answer, &mut commands),
            Event::Heard(message) => self.hear(now, message, &mut commands),
            Event::Told(id, audience) => self.told(now, id, &audience),
            Event::Untold(id, batch) => self.untold(now, id, batch),
            Event::Replayed(batch, done) => self.replayed(now, batch, done),
        }
        self.tick(now, &mut commands);
        commands
    }

    fn found(&mut self, now: At, fence: Box<str>, again: bool, promoted: bool) {
        let mut grace = if again { self.settings.grace } else { At::ZERO };
        if promoted && self.fence.as_ref() != Some(&fence) {
            self.strangers_until = self.settings.outlived(now);
            // The others learn of a promotion each in its time, and keep purges until they do.
            grace = if again { grace.max(self.settings.lease) } else { grace };
        }
        self.fence = Some(fence);
        self.phase = Phase::Joining(now + grace);
        self.next_beat = now;
    }

    /// Ends all trust in what Redis said.
    fn lose(&mut self, now: At) {
        if self.gate.epoch.is_multiple_of(2) {
            self.gate.epoch += 1;
        }
        if self.phase != Phase::Lost {
            // Whoever else has a lease got it before now; who gets one later speaks to a Redis that we do not.
            self.quiet_from = if self.peers.is_empty() { now } else { self.settings.outlived(now) };
        }
        self.phase = Phase::Lost;
        // The list that is found next may be another one.
        self.names.clear();
        self.gate.contact_until = At::ZERO;
        self.end_session();
        self.replaying = false;
    }

    fn end_session(&mut self) {
        self.gate.session += 1;
        self.gate.lease_until = At::ZERO;
        self.flying.clear();
        if self.registered {
            self.registered = false;
            self.me.incarnation += 1;
        }
    }

    fn gap(&mut self, commands: &mut Vec<Command>) {
        self.listening = None;
        if self.registered && self.phase != Phase::Lost {
            commands.push(Command::Withdraw(self.me));
        }
        self.end_session();
    }

    fn beaten(&mut self, now: At, number: u64, answer: Option<Beaten>, commands: &mut Vec<Command>) {
        let Some(at) = self.flying.iter().position(|beat| beat.number == number) else { return };
        let Some(answer) = answer else {
            self.flying.remove(at);
            return;
        };
        if self.fence.as_deref() != Some(&*answer.fence) {
            return self.lose(now);
        }
        let sent = self.flying[at].sent;
        self.gate.contact_until = self.gate.contact_until.max(sent + self.settings.lease);
        let alone = answer.names.iter().all(|name| name.node.process == self.me.process);
        self.meet(now, &answer.names);
        // What was trusted under an older name of ours was given up with it.
        let older = answer.names.iter().map(|name| name.node).filter(|node| node.process == self.me.process && *node != self.me);
        commands.extend(older.map(Command::Forget));
        match answer.standing {
            Standing::Absent => {}
            Standing::StruckOut => {
                // Taken for dead: all that was trusted is over, and so is the name.
                self.registered = true;
                self.end_session();
                self.next_beat = now;
            }
            Standing::New if self.registered => {
                // The list of names was lost, and with it those of others.
                self.names_lack_until = self.settings.outlived(now);
                self.end_session();
                self.next_beat = now;
            }
            standing => {
                if standing == Standing::New && alone {
                    self.names_lack_until = self.settings.outlived(now);
                }
                self.registered = true;
                self.flying[at].registered = true;
                self.grant();
            }
        }
    }

    /// Renews the lease by the beats that Redis took and that came back.
    fn grant(&mut self) {
        if let Some(beat) = self.flying.iter().filter(|beat| beat.registered && beat.heard).max_by_key(|beat| beat.number) {
            self.gate.lease_until = self.gate.lease_until.max(beat.sent + self.settings.lease);
            let number = beat.number;
            self.flying.retain(|beat| beat.number > number);
        }
    }

    fn hear(&mut self, now: At, message: Message, commands: &mut Vec<Command>) {
        // Who may have missed something still does what it is told.
        if self.listening.is_none() && !matches!(message, Message::Distrust { .. }) {
            return;
        }
        match message {
            Message::Beat { of, number, .. } if of == self.me.process => {
                if let Some(beat) = self.flying.iter_mut().find(|beat| beat.number == number) {
                    beat.heard = true;
                }
                self.grant();
            }
            Message::Beat { of, registered, .. } => {
                if let Some(peer) = self.peer(now, of) {
                    *peer = Peer { heard: now, registered };
                }
            }
            Message::Distrust { by, id, tags } => {
                if by != self.me.process {
                    commands.push(Command::Distrust(tags));
                    commands.push(Command::Ack(by, id));
                } else if let Some(wait) = self.waits.get_mut(&id) {
                    wait.came_back = true;
                }
            }
            Message::Quit { of } => {
                if let Some(peer) = self.peers.get_mut(&of) {
                    peer.registered = false;
                }
                for wait in self.waits.values_mut() {
                    wait.early.insert(of);
                }
            }
            Message::Ack { to, id, of } if to == self.me.process => {
                if let Some(wait) = self.waits.get_mut(&id) {
                    wait.early.insert(of);
                }
            }
            Message::Ack { .. } => {}
        }
    }

    /// Takes note of the list of names.
    fn meet(&mut self, now: At, names: &[Name]) {
        let mut known = BTreeMap::new();
        let me = self.me.process;
        for Name { node, struck } in names.iter().filter(|name| name.node.process != me) {
            let since = self.names.get(node).copied().flatten();
            known.insert(*node, struck.then(|| since.unwrap_or(now)));
            let stranger = !self.peers.contains_key(&node.process);
            if stranger && !struck && self.peer(now, node.process).is_none() {
                known.remove(node);
            }
        }
        self.names = known;
    }

    fn peer(&mut self, now: At, process: Process) -> Option<&mut Peer> {
        if !self.peers.contains_key(&process) && self.peers.len() >= MOST_PEERS {
            return None;
        }
        Some(self.peers.entry(process).or_insert(Peer { heard: now, registered: true }))
    }

    /// Says that something is about to be told, whose acknowledgements may come before the answer of Redis.
    pub fn expect(&mut self, id: Id) {
        self.waits.insert(id, Wait::default());
    }

    fn told(&mut self, now: At, id: Id, audience: &Audience) {
        self.meet(now, &audience.names);
        let others = audience.names.iter().map(|name| name.node.process).filter(|process| *process != self.me.process);
        let mut missing: BTreeSet<Process> = others.collect();
        let lately = self.peers.iter().filter(|(_, peer)| peer.registered && now < self.settings.outlived(peer.heard));
        missing.extend(lately.map(|(process, _)| *process));
        if self.registered && !audience.names.iter().any(|name| name.node == self.me) {
            self.names_lack_until = self.settings.outlived(now);
        }
        let lacking = now < self.names_lack_until;
        let at_least = match self.peers.len() {
            // More than can be remembered: only time helps.
            MOST_PEERS.. => usize::MAX,
            // Whoever listens may hold a lease, under a name that was lost.
            _ if lacking => audience.listeners.saturating_sub(usize::from(self.listening.is_some())),
            _ => 0,
        };
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.missing = Some(missing);
            wait.at_least = at_least;
            wait.not_before = self.strangers_until;
            wait.until = Some((self.settings.outlived(now), Released::Outlived));
        }
    }

    fn untold(&mut self, now: At, id: Id, batch: Batch) {
        self.keep(batch);
        if self.phase != Phase::Lost {
            self.lose(now);
        }
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.until = Some((self.quiet_from, Released::Untold));
        }
    }

    /// Keeps what is to be purged at the rejoin.
    pub fn keep(&mut self, batch: Batch) {
        self.journal.everything |= batch.everything;
        if !self.journal.everything {
            self.journal.tags.extend(batch.tags);
        }
        if self.journal.everything || self.journal.tags.len() > self.most_journal {
            self.journal = Batch { tags: BTreeSet::new(), everything: true };
        }
    }

    fn replayed(&mut self, now: At, batch: Batch, done: bool) {
        self.replaying = false;
        if !done {
            self.keep(batch);
            if self.phase != Phase::Lost {
                self.lose(now);
            }
        }
    }

    /// What time alone brings about.
    fn tick(&mut self, now: At, commands: &mut Vec<Command>) {
        if now >= self.strangers_until {
            self.strangers_until = At::ZERO;
        }
        self.release(now, commands);
        if self.phase == Phase::Lost {
            return;
        }
        let empty = self.journal.tags.is_empty() && !self.journal.everything;
        if !empty && !self.replaying {
            self.replaying = true;
            commands.push(Command::Replay(std::mem::take(&mut self.journal)));
        }
        if let Phase::Joining(until) = self.phase
            && now >= until
            && empty
            && !self.replaying
            && now < self.gate.contact_until
        {
            self.phase = Phase::Joined;
            self.gate.epoch += 1;
        }
        self.bury(now, commands);
        if now >= self.next_beat {
            self.beats += 1;
            let leased = now < self.gate.lease_until;
            self.next_beat = now + if leased || self.listening.is_none() { self.settings.beat } else { self.settings.retry };
            if self.flying.len() >= FLYING {
                self.flying.remove(0);
            }
            self.flying.push(Beat { number: self.beats, sent: now, registered: false, heard: false });
            commands.push(Command::Beat { number: self.beats, node: self.me, register: self.listening.is_some() });
        }
    }

    fn release(&mut self, now: At, commands: &mut Vec<Command>) {
        let mut released = Vec::new();
        for (id, wait) in &self.waits {
            if let Some(how) = self.outcome(wait, now) {
                released.push((*id, how));
            }
        }
        for (id, how) in released {
            self.waits.remove(&id);
            commands.push(Command::Release(id, how));
        }
    }

    fn outcome(&self, wait: &Wait, now: At) -> Option<Released> {
        if let Some(missing) = &wait.missing {
            let mut left = missing.difference(&wait.early).peekable();
            let enough = wait.early.len() >= wait.at_least && now >= wait.not_before;
            if enough && left.peek().is_none() {
                return Some(Released::Acknowledged);
            }
            // Whoever held a lease when this was said has been heard within the lease before.
            let known = wait.came_back && self.listening.is_some_and(|since| self.settings.outlived(since) <= now);
            let silent = |process: &Process| self.peers.get(process).is_none_or(|peer| now >= self.settings.outlived(peer.heard));
            if enough && known && left.all(silent) {
                return Some(Released::Outlived);
            }
        }
        wait.until.filter(|(until, _)| now >= *until).map(|(_, how)| how)
    }

    /// Strikes out who was silent for a lease, and forgets who was struck out for another.
    fn bury(&mut self, now: At, commands: &mut Vec<Command>) {
        let settings = &self.settings;
        self.peers.retain(|_, peer| now < settings.outlived(peer.heard));
        for (node, struck) in &mut self.names {
            match struck {
                None if !self.peers.contains_key(&node.process) => {
                    *struck = Some(now);
                    commands.push(Command::StrikeOut(*node));
                }
                Some(since) if now >= settings.outlived(*since) => {
                    // Tried again after another lease, if the list still has it then.
                    *since = now;
                    commands.push(Command::Forget(*node));
                }
                _ => {}
            }
        }
    }
}
