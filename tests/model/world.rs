//! The world of the model: some sidecars, each with the production core, two Redis servers, an
//! origin with one value, and one clock.
//!
//! Every step that can lie between two others in production is an [`Action`] of its own: each
//! script in Redis, each reply, each message. A paused sidecar is one that is not scheduled while
//! time passes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sidecache::internals::Tag;
use sidecache::internals::core::{Core, CoreCommand, LeaseSettings, MonotonicTime, Truth};
use sidecache::internals::message::{Message, OperationId, Process};

use crate::redis::{Reading, Redis, fence_name};

/// A step that can happen next; to the sidecar of this number, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes.
    Pass,
    /// The driver wakes.
    Tick(u8),
    /// The next message on the bus arrives.
    Deliver(u8),
    /// One of its commands runs in Redis.
    Run(u8, u8),
    /// The oldest reply to a heartbeat arrives.
    Answer(u8),
    /// A read begins.
    Read(u8),
    /// The read goes on.
    AdvanceRead(u8),
    /// While Redis is lost: a fill that its own table vouches for.
    FillOwn(u8),
    /// A mutation begins, and is marked.
    Mutate(u8),
    /// The mutation goes on.
    Advance(u8),
    Crash(u8),
    Restart(u8),
    /// The connection for calls breaks; the calls in flight on it are lost.
    Break(u8),
    /// The driver learns of that.
    Notice(u8),
    /// The client connects again, by itself.
    Connect(u8),
    /// The driver finds a primary.
    Find(u8),
    /// The connection of the subscription breaks.
    BreakSubscription(u8),
    /// The subscriber reports it.
    Gap(u8),
    Listen(u8),
    /// The replica catches up with the primary.
    Replicate,
    /// The replica becomes the primary, and the primary a replica.
    Failover,
    /// All keys are lost.
    Flush,
    /// The list of peers is lost.
    LoseNames,
    /// The tag's record is lost.
    LoseRecord,
}

/// Something that a test wants to have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    LeasedHit,
    StrictHit,
    Refill,
    PurgedFill,
    Acknowledged,
    ReleasedByTime,
    ReleasedBySilence,
    PublishFailed,
    Evicted,
    TakenOver,
    Forgotten,
    Withdrawn,
    Rejoined,
    Replayed,
    Lost,
    OwnHit,
}

/// Which parts of a sidecar may lag by any time. The others act before time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lags {
    pub bus: bool,
    pub calls: bool,
    pub driver: bool,
}

impl Lags {
    pub const NONE: Self = Self { bus: false, calls: false, driver: false };
}

/// How a sidecar takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    pub lags: Lags,
    /// Whether its immediate steps come before any step of the others. If not, they may come in
    /// between.
    pub eager: bool,
    pub reads: bool,
    pub mutates: bool,
}

/// How often each event may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub mutations: u8,
    pub fills: u8,
    pub crashes: u8,
    pub restarts: u8,
    pub breaks: u8,
    pub deaf: u8,
    pub replications: u8,
    pub failovers: u8,
    pub flushes: u8,
    pub names: u8,
    pub records: u8,
    /// Fills while Redis is lost. With any, only a reader's connections break, all at once and for
    /// good.
    pub own: u8,
}

/// A protection that is switched off, to see that the checker finds a stale read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fault {
    #[default]
    None,
    /// A fill is stored without checking for purges in between.
    NoFillCheck,
    /// A failover keeps the fence.
    NoFence,
    /// A hit ignores the end of the lease.
    NoLease,
    /// The response to a mutation does not wait for peers.
    NoWait,
    /// A broken connection is reconnected before the driver learns that it broke.
    MendedUnseen,
    /// A reply that is read later than it came is a missed deadline, and that is a loss of Redis.
    LateIsLost,
    /// Peers that fell silent are forgotten.
    NoAbsence,
    /// A peer that gives up its lease counts as ended.
    LeaveIsEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub version: u8,
    pub generation: u16,
    pub nonce: u16,
    pub leased: Option<Watch>,
}

/// What was filled while Redis was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Own {
    pub version: u8,
    pub until: MonotonicTime,
    pub epoch: u64,
    pub tag_state: u16,
}

/// For how many ticks it is served.
pub const DEGRADED_TTL: u64 = 2;

/// The session, and the state of the tag.
pub type Watch = (u64, u16);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Contact was proven, and the watch has begun.
    Begun { epoch: u64, floor: u8, watch: Option<Watch> },
    /// A miss: the request is about to reach the origin.
    Asking { epoch: u64, reading: Reading },
    /// The origin has responded.
    Brought { epoch: u64, reading: Reading, version: u8 },
    /// The commit is on its way.
    Committing { reading: Reading, version: u8, watch: Option<Watch> },
    /// Redis has allowed the response to be stored.
    Agreed { entry: Entry },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mutation {
    pub id: OperationId,
    pub version: u8,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Marked under this id, or not marked.
    Marked(Option<sidecache::internals::message::PeerId>),
    /// The origin has committed it.
    Done(Option<sidecache::internals::message::PeerId>),
    /// The purge is about to be sent.
    Publishing(Option<sidecache::internals::message::PeerId>),
    /// This Redis has the purge; its reply is on its way.
    Published(u8, sidecache::internals::core::Subscribers),
    /// Waiting for peers since then.
    Waiting(u64),
}

/// The state of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subscription {
    Off,
    On(u8),
    /// Nothing arrives any more, and the subscriber does not know it yet.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sidecar {
    pub core: Core,
    pub role: Role,
    pub up: bool,
    /// Whether Redis was found before.
    pub found: bool,
    /// What the local table says of the tag: how often it was purged.
    pub tag_state: u16,
    pub commands: Vec<CoreCommand>,
    /// Replies to heartbeats: number, time at which it came, and the reply.
    pub answers: Vec<(u64, u64, Option<sidecache::internals::core::HeartbeatReply>)>,
    pub queue: VecDeque<Message>,
    pub subscription: Subscription,
    /// The server that calls go to.
    pub connection: Option<u8>,
    /// Whether the driver has yet to learn that it broke.
    pub broken: bool,
    pub entry: Option<Entry>,
    /// What it filled while Redis was lost.
    pub own: Option<Own>,
    pub read_stage: Option<Read>,
    pub mutation: Option<Mutation>,
    /// The version that it has released by itself, without reaching peers.
    pub own_floor: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u64,
    pub until: u64,
    pub fault: Fault,
    /// The version that the origin would respond with.
    pub app: u8,
    /// The latest version whose mutation got its response: older ones are stale for reads from now
    /// on.
    pub floor: u8,
    /// From that time on, this version also counts for peers that its response did not wait for.
    pub owed: Option<(u8, u64)>,
    pub nonce: u16,
    pub ids: u64,
    pub budget: Budget,
    /// Whether fills while Redis is lost are explored.
    pub own_table: bool,
    pub servers: [Arc<Redis>; 2],
    pub primary: u8,
    pub sidecars: Vec<Arc<Sidecar>>,
}

pub fn at(ticks: u64) -> MonotonicTime {
    Duration::from_secs(ticks)
}

pub fn tag() -> Tag {
    thread_local!(static TAG: Tag = Tag::new("t"));
    TAG.with(Tag::clone)
}

impl Sidecar {
    pub fn new(process: Process, settings: LeaseSettings, role: Role) -> Self {
        Self {
            core: Core::new(process, settings, 4),
            role,
            up: true,
            found: false,
            tag_state: 0,
            commands: Vec::new(),
            answers: Vec::new(),
            queue: VecDeque::new(),
            subscription: Subscription::Off,
            connection: Some(0),
            broken: false,
            entry: None,
            own: None,
            read_stage: None,
            mutation: None,
            own_floor: 0,
        }
    }

    /// Whether it has steps to take before time passes.
    fn is_behind(&self, now: MonotonicTime) -> bool {
        let Lags { bus, calls, driver } = self.role.lags;
        let due = self.core.next_deadline().is_some_and(|next| next <= now);
        self.up
            && (!bus && (!self.queue.is_empty() || self.subscription == Subscription::Broken)
                || !(calls || self.commands.is_empty() && self.answers.is_empty())
                || !driver && (due || self.broken))
    }

    /// The step that it takes before any other sidecar takes one.
    fn at_once(&self, n: u8, now: MonotonicTime, primary: u8) -> Option<Action> {
        if !self.role.eager || !self.up {
            return None;
        }
        let lost = self.core.phase() == sidecache::internals::core::Phase::Lost;
        let Lags { bus, calls, driver } = self.role.lags;
        let due = self.core.next_deadline().is_some_and(|next| next <= now);
        let steps = [
            (self.broken && !driver, Action::Notice(n)),
            (self.subscription == Subscription::Broken && !bus, Action::Gap(n)),
            (!self.queue.is_empty() && !bus, Action::Deliver(n)),
            (!self.answers.is_empty() && !calls, Action::Answer(n)),
            (!self.commands.is_empty() && !calls, Action::Run(n, 0)),
            (due && !driver, Action::Tick(n)),
            (lost && self.connection == Some(primary) && !driver, Action::Find(n)),
            (
                self.subscription == Subscription::Off && self.connection.is_some() && !bus,
                Action::Listen(n),
            ),
        ];
        steps.into_iter().find_map(|(is, action)| is.then_some(action))
    }

    /// What it serves by itself while Redis is lost.
    fn own_table(&self, now: MonotonicTime) -> Option<&Own> {
        let lease_state = self.core.lease_state();
        self.own.as_ref().filter(|own| {
            self.up
                && lease_state.truth() == Truth::OwnTable
                && lease_state.epoch == own.epoch
                && self.tag_state == own.tag_state
                && now < own.until
        })
    }

    /// The entry that memory serves without reading Redis.
    pub fn in_memory(&self, now: MonotonicTime, fault: Fault) -> Option<&Entry> {
        let lease_state = self.core.lease_state();
        let entry = self.entry.as_ref()?;
        let (session, tag_state) = entry.leased?;
        let leased = now < lease_state.lease_until || fault == Fault::NoLease;
        (self.up
            && lease_state.truth() == Truth::Records
            && leased
            && session == lease_state.session
            && tag_state == self.tag_state)
            .then_some(entry)
    }
}

impl World {
    pub fn new(
        settings: &LeaseSettings,
        roles: &[Role],
        fault: Fault,
        budget: Budget,
        until: u64,
    ) -> Self {
        let sidecar = |(n, role): (u64, &Role)| {
            Arc::new(Sidecar::new(Process(n + 1), settings.clone(), *role))
        };
        Self {
            now: 1,
            until,
            fault,
            app: 0,
            floor: 0,
            owed: None,
            nonce: 0,
            ids: 100,
            budget,
            own_table: budget.own > 0,
            servers: [Arc::new(Redis::new()), Arc::new(Redis { fence: 1, ..Redis::new() })],
            primary: 0,
            sidecars: (0..).zip(roles).map(sidecar).collect(),
        }
    }

    /// The steps that can happen now.
    pub fn actions(&self, out: &mut Vec<Action>) {
        let now = at(self.now);
        if let Some(action) =
            (0..).zip(&self.sidecars).find_map(|(n, sidecar)| sidecar.at_once(n, now, self.primary))
        {
            return out.push(action);
        }
        for (n, sidecar) in (0..).zip(&self.sidecars) {
            self.actions_of(n, sidecar, out);
        }
        let left = &self.budget;
        let mut if_left = |left: u8, action| out.extend((left > 0).then_some(action));
        if_left(left.flushes, Action::Flush);
        if_left(left.names, Action::LoseNames);
        if_left(left.records, Action::LoseRecord);
        if self.primary == 0 && left.failovers > 0 {
            out.push(Action::Failover);
            if left.replications > 0 {
                out.push(Action::Replicate);
            }
        }
        if self.now < self.until && !self.sidecars.iter().any(|sidecar| sidecar.is_behind(now)) {
            out.push(Action::Pass);
        }
    }

    fn actions_of(&self, n: u8, sidecar: &Sidecar, out: &mut Vec<Action>) {
        let (now, left) = (at(self.now), &self.budget);
        if !sidecar.up {
            out.extend((left.restarts > 0).then_some(Action::Restart(n)));
            return;
        }
        let mut when = |is: bool, action| out.extend(is.then_some(action));
        let core = &sidecar.core;
        let lease_state = core.lease_state();
        when(core.next_deadline().is_some_and(|next| next <= now), Action::Tick(n));
        when(!sidecar.queue.is_empty(), Action::Deliver(n));
        for (at, _) in (0..).zip(&sidecar.commands) {
            when(true, Action::Run(n, at));
        }
        when(!sidecar.answers.is_empty(), Action::Answer(n));
        let reads = sidecar.role.reads
            && sidecar.read_stage.is_none()
            && lease_state.truth() == Truth::Records
            && now < lease_state.contact_until;
        when(reads && sidecar.in_memory(now, self.fault).is_none(), Action::Read(n));
        when(sidecar.read_stage.is_some(), Action::AdvanceRead(n));
        match &sidecar.mutation {
            None => when(sidecar.role.mutates && left.mutations > 0, Action::Mutate(n)),
            Some(mutation) => {
                when(!matches!(mutation.stage, Stage::Waiting(_)), Action::Advance(n));
            }
        }
        when(left.crashes > 0, Action::Crash(n));
        let demoted = sidecar.connection.is_some_and(|server| server != self.primary);
        let breaks = left.breaks > 0 && (!self.own_table || sidecar.role.reads);
        when(sidecar.connection.is_some() && (breaks || demoted), Action::Break(n));
        when(left.own > 0 && lease_state.truth() == Truth::OwnTable, Action::FillOwn(n));
        when(sidecar.broken, Action::Notice(n));
        // Assumed: the driver learns of the loss at once, and the client waits before it retries.
        when(
            sidecar.connection.is_none()
                && !self.own_table
                && (!sidecar.broken || self.fault == Fault::MendedUnseen),
            Action::Connect(n),
        );
        let lost = core.phase() == sidecache::internals::core::Phase::Lost;
        when(lost && sidecar.connection == Some(self.primary), Action::Find(n));
        match sidecar.subscription {
            Subscription::Off => when(sidecar.connection.is_some(), Action::Listen(n)),
            Subscription::On(server) => {
                when(left.deaf > 0 || server != self.primary, Action::BreakSubscription(n));
            }
            Subscription::Broken => when(true, Action::Gap(n)),
        }
    }

    /// The world after that step, and what is wrong in it.
    pub fn step(&self, action: Action, notes: &mut BTreeSet<Note>) -> (Self, Option<String>) {
        let mut world = self.clone();
        let wrong = world.act(action, notes).or_else(|| world.stale_in_memory(notes));
        (world, wrong)
    }

    fn act(&mut self, action: Action, notes: &mut BTreeSet<Note>) -> Option<String> {
        match action {
            Action::Pass => {
                self.now += 1;
                if let Some((version, _)) = self.owed.filter(|(_, at)| self.now >= *at) {
                    self.floor = self.floor.max(version);
                    self.owed = None;
                }
            }
            Action::Replicate => {
                self.budget.replications -= 1;
                self.servers[1] =
                    Arc::new(Redis { fence: self.servers[1].fence, ..(*self.servers[0]).clone() });
            }
            Action::Failover => {
                self.budget.failovers -= 1;
                self.primary = 1;
                if self.fault == Fault::NoFence {
                    Arc::make_mut(&mut self.servers[1]).fence = 0;
                }
            }
            Action::Flush => {
                self.budget.flushes -= 1;
                let generation = self.server().generation + 1;
                let (fence, seq) = (self.server().fence, self.server().seq);
                *self.server() = Redis { fence, generation, seq, ..Redis::new() };
            }
            Action::LoseNames => {
                self.budget.names -= 1;
                self.server().registrations.clear();
            }
            Action::LoseRecord => {
                self.budget.records -= 1;
                self.server().record = None;
            }
            action => return self.act_in(action, notes),
        }
        None
    }

    fn server(&mut self) -> &mut Redis {
        Arc::make_mut(&mut self.servers[usize::from(self.primary)])
    }

    pub fn floor_of(&self, n: u8) -> u8 {
        self.floor.max(self.sidecars[usize::from(n)].own_floor)
    }

    fn stale_in_memory(&self, notes: &mut BTreeSet<Note>) -> Option<String> {
        for (n, sidecar) in (0..).zip(&self.sidecars) {
            if let Some(own) = sidecar.own_table(at(self.now)) {
                notes.insert(Note::OwnHit);
                if own.version < self.floor_of(n) {
                    return Some(format!(
                        "sidecar {n} serves version {} from its own table after {}",
                        own.version,
                        self.floor_of(n)
                    ));
                }
            }
            if let Some(entry) = sidecar.in_memory(at(self.now), self.fault) {
                notes.insert(Note::LeasedHit);
                if entry.version < self.floor_of(n) {
                    return Some(format!(
                        "sidecar {n} serves version {} under its lease after {}",
                        entry.version,
                        self.floor_of(n)
                    ));
                }
            }
        }
        None
    }

    /// Lets all sidecars catch up with Redis, on a shortest path.
    pub fn settle(&mut self, ticks: u64) {
        let mut notes = BTreeSet::new();
        let goal = self.now + ticks;
        let (until, budget) =
            (std::mem::replace(&mut self.until, goal), std::mem::take(&mut self.budget));
        let mut actions = Vec::new();
        loop {
            actions.clear();
            self.actions(&mut actions);
            actions.retain(|action| !matches!(action, Action::Read(_)));
            // Time comes last.
            let now = at(self.now);
            let behind = self.sidecars.iter().any(|sidecar| {
                Sidecar { role: Role { lags: Lags::NONE, ..sidecar.role }, ..(**sidecar).clone() }
                    .is_behind(now)
            });
            if behind || actions.len() > 1 {
                actions.retain(|action| *action != Action::Pass);
            }
            let Some(action) = actions.first() else { break };
            let (next, wrong) = self.step(*action, &mut notes);
            assert_eq!(wrong, None);
            *self = next;
        }
        (self.until, self.budget) = (until, budget);
    }

    /// Lets one sidecar read until its memory has an entry.
    pub fn fill(&mut self, n: u8) {
        let mut notes = BTreeSet::new();
        for action in
            std::iter::once(Action::Read(n)).chain(std::iter::repeat_n(Action::AdvanceRead(n), 5))
        {
            let (next, wrong) = self.step(action, &mut notes);
            assert_eq!(wrong, None);
            *self = next;
        }
        assert!(
            self.sidecars[usize::from(n)].in_memory(at(self.now), self.fault).is_some(),
            "sidecar {n} has filled under a lease"
        );
    }

    pub fn trusts(&self, n: u8) -> u8 {
        let fence = self.sidecars[usize::from(n)].core.fence();
        (0..2).find(|known| fence == Some(&*fence_name(*known))).unwrap_or(u8::MAX)
    }
}
