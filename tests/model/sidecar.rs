//! What happens to one sidecar: what `driver.rs`, `mutation.rs`, `coherence.rs` and `store.rs` do
//! around the core, in the same order.

use std::collections::BTreeSet;
use std::sync::Arc;

use sidecache::internals::core::{
    CoreCommand, CoreEvent, Phase, Released, ReplayBatch, Subscribers,
};
use sidecache::internals::message::{Message, OperationId, PeerId, Process};

use crate::redis::{Redis, Stored};
use crate::world::{
    Action, DEGRADED_TTL, Entry, Fault, Mutation, Note, Own, Read, Sidecar, Stage, Subscription,
    Watch, World, at, tag,
};

/// Why a call failed.
enum Failure {
    Connection,
    Refused,
}

type Notes = BTreeSet<Note>;

/// How many heartbeats of one sidecar may be on their way to Redis.
const BEATS: usize = 2;

/// Purges on behalf of others have ids from here on; no response waits for them.
const FOR_OTHERS: u64 = 100;

impl World {
    pub fn act_in(&mut self, action: Action, notes: &mut Notes) -> Option<String> {
        match action {
            Action::Tick(n) => return self.tick(n, notes),
            Action::Deliver(n) => {
                if let Some(message) = self.of(n).queue.pop_front() {
                    self.handle(n, CoreEvent::Message(message), notes);
                }
            }
            Action::Run(n, index) => {
                let command = self.of(n).commands.remove(index.into());
                self.run(n, command, notes);
                if !self.of(n).role.lags.calls && !self.of(n).answers.is_empty() {
                    self.answer(n, notes);
                }
            }
            Action::Answer(n) => self.answer(n, notes),
            Action::Read(n) => self.read(n),
            Action::AdvanceRead(n) => return self.advance_read(n, notes),
            Action::FillOwn(n) => self.fill_own(n),
            Action::Mutate(n) => self.mark(n, notes),
            Action::Advance(n) => self.advance(n, notes),
            Action::Gap(n) => {
                let sidecar = self.of(n);
                sidecar.queue.clear();
                sidecar.subscription = Subscription::Off;
                self.handle(n, CoreEvent::Lagged, notes);
            }
            Action::Listen(n) => {
                let primary = self.primary;
                self.of(n).subscription = Subscription::On(primary);
                self.handle(n, CoreEvent::Listening, notes);
            }
            Action::BreakSubscription(n) => {
                self.budget.deaf = self.budget.deaf.saturating_sub(1);
                self.of(n).subscription = Subscription::Broken;
            }
            Action::Crash(n) => self.crash(n),
            Action::Restart(n) => self.restart(n),
            action => self.act_on_connection(action, notes),
        }
        None
    }

    fn act_on_connection(&mut self, action: Action, notes: &mut Notes) {
        match action {
            Action::Break(n) => {
                let demoted = self.sidecars[usize::from(n)].connection != Some(self.primary);
                self.budget.breaks -= u8::from(!demoted);
                let all = self.own_table;
                let sidecar = self.of(n);
                (sidecar.connection, sidecar.broken) = (None, true);
                if all {
                    sidecar.subscription = Subscription::Broken;
                }
                for (_, _, answer) in &mut sidecar.answers {
                    *answer = None;
                }
            }
            Action::Notice(n) => {
                self.of(n).broken = false;
                self.lose(n, notes);
            }
            Action::Connect(n) => {
                let primary = self.primary;
                self.of(n).connection = Some(primary);
            }
            Action::Find(n) => {
                let fence = crate::redis::fence_name(self.servers[usize::from(self.primary)].fence);
                let promoted = self.primary != 0;
                let sidecar = self.of(n);
                sidecar.broken = false;
                let again = std::mem::replace(&mut sidecar.found, true);
                self.handle(n, CoreEvent::PrimaryFound { fence, again, promoted }, notes);
            }
            other => unreachable!("{other:?} is of no sidecar"),
        }
    }

    fn of(&mut self, n: u8) -> &mut Sidecar {
        Arc::make_mut(&mut self.sidecars[usize::from(n)])
    }

    fn crash(&mut self, n: u8) {
        self.budget.crashes -= 1;
        let sidecar = self.of(n);
        let process = sidecar.core.me().process;
        let role = sidecar.role;
        *sidecar = Sidecar::new(
            process,
            sidecache::internals::core::LeaseSettings::new(at(0), at(0)),
            role,
        );
        (sidecar.up, sidecar.connection) = (false, None);
    }

    fn restart(&mut self, n: u8) {
        self.budget.restarts -= 1;
        let settings = crate::settings();
        let primary = self.primary;
        let sidecar = self.of(n);
        let process = Process(sidecar.core.me().process.0 + 10);
        *sidecar = Sidecar::new(process, settings, sidecar.role);
        sidecar.connection = Some(primary);
    }

    /// `Coherence::handle_because`
    fn handle(&mut self, n: u8, event: CoreEvent, notes: &mut Notes) {
        let now = at(self.now);
        let sidecar = self.of(n);
        let phase = sidecar.core.phase();
        let commands = sidecar.core.handle(now, event);
        let then = sidecar.core.phase();
        if phase != Phase::Lost && then == Phase::Lost {
            notes.insert(Note::Lost);
        }
        if phase != Phase::Joined && then == Phase::Joined && sidecar.core.lease_state().epoch > 3 {
            notes.insert(Note::Rejoined);
        }
        let mut released = Vec::new();
        for command in commands {
            match command {
                CoreCommand::Invalidate(_) => sidecar.tag_state += 1,
                CoreCommand::Release(id, how) => released.push((id, how)),
                // No response waits for it.
                CoreCommand::Ack { id, .. } if id.0 >= FOR_OTHERS => {}
                command => sidecar.commands.push(command),
            }
        }
        let beats = sidecar
            .commands
            .iter()
            .filter(|command| matches!(command, CoreCommand::Heartbeat { .. }))
            .count();
        if beats > BEATS
            && let Some(oldest) = sidecar
                .commands
                .iter()
                .position(|command| matches!(command, CoreCommand::Heartbeat { .. }))
        {
            sidecar.commands.remove(oldest);
        }
        for (id, how) in released {
            self.release(n, id, how, notes);
        }
    }

    fn release(&mut self, n: u8, id: OperationId, how: Released, notes: &mut Notes) {
        let now = at(self.now);
        let sidecar = self.of(n);
        let Some(mutation) = sidecar.mutation.take_if(|mutation| mutation.id == id) else { return };
        match how {
            Released::PublishFailed => {
                notes.insert(Note::PublishFailed);
                sidecar.own_floor = sidecar.own_floor.max(mutation.version);
            }
            how => {
                let settings = crate::settings();
                let over = |since: u64| now >= at(since) + settings.lease + settings.margin;
                let note = match (how, &mutation.stage) {
                    (Released::Acknowledged, _) => Note::Acknowledged,
                    (_, Stage::Waiting(since)) if over(*since) => Note::ReleasedByTime,
                    _ => Note::ReleasedBySilence,
                };
                notes.insert(note);
                self.floor = self.floor.max(mutation.version);
            }
        }
    }

    fn tick(&mut self, n: u8, notes: &mut Notes) -> Option<String> {
        self.handle(n, CoreEvent::Tick, notes);
        let next = self.of(n).core.next_deadline();
        next.filter(|next| *next <= at(self.now))
            .map(|next| format!("sidecar {n} spins: at {} it wants to wake at {next:?}", self.now))
    }

    fn lose(&mut self, n: u8, notes: &mut Notes) {
        self.handle(n, CoreEvent::Lost, notes);
    }

    /// The server that accepts writes of this sidecar.
    fn writable(&mut self, n: u8) -> Result<&mut Redis, Failure> {
        match self.sidecars[usize::from(n)].connection {
            None => Err(Failure::Connection),
            Some(server) if server != self.primary => Err(Failure::Refused),
            Some(server) => Ok(Arc::make_mut(&mut self.servers[usize::from(server)])),
        }
    }

    /// `Coherence::record_result`: reacts to a failed call.
    fn record_result(&mut self, n: u8, failure: &Failure, notes: &mut Notes) {
        if matches!(failure, Failure::Connection) {
            self.lose(n, notes);
        }
    }

    fn publish(&mut self, message: &Message) {
        let primary = self.primary;
        for sidecar in &mut self.sidecars {
            if sidecar.subscription == Subscription::On(primary) {
                Arc::make_mut(sidecar).queue.push_back(message.clone());
            }
        }
    }

    fn listeners(&self) -> usize {
        self.sidecars
            .iter()
            .filter(|sidecar| sidecar.subscription == Subscription::On(self.primary))
            .count()
    }

    /// `Coherence::run_command`
    fn run(&mut self, n: u8, command: CoreCommand, notes: &mut Notes) {
        match command {
            CoreCommand::Heartbeat { number, peer, register } => {
                let answer = self.writable(n).ok().map(|redis| redis.heartbeat(peer, register));
                if answer.is_some() {
                    self.publish(&Message::heartbeat(peer.process, number, register));
                } else {
                    self.lose(n, notes);
                }
                let came = if self.fault == Fault::LateIsLost { self.now } else { 0 };
                self.of(n).answers.push((number, came, answer));
            }
            CoreCommand::Ack { to, id, .. } => {
                let of = self.of(n).core.me().process;
                match self.writable(n) {
                    Ok(_) => {
                        let primary = self.primary;
                        let hears = |sidecar: &&mut Arc<Sidecar>| {
                            sidecar.subscription == Subscription::On(primary)
                                && sidecar.core.me().process == to
                        };
                        if let Some(sidecar) = self.sidecars.iter_mut().find(hears) {
                            Arc::make_mut(sidecar).queue.push_back(Message::Ack { to, id, of });
                        }
                    }
                    Err(failure) => self.record_result(n, &failure, notes),
                }
            }
            CoreCommand::RequestAck(id) => {
                let by = self.of(n).core.me().process;
                match self.writable(n) {
                    Ok(_) => self.publish(&Message::invalidate(by, id, Some(Vec::new()))),
                    Err(failure) => self.record_result(n, &failure, notes),
                }
            }
            CoreCommand::Evict(peer, _) => {
                notes.insert(Note::Evicted);
                let _ = self.take_over(n, peer, notes);
            }
            CoreCommand::Forget(peer) => {
                if self.take_over(n, peer, notes).is_ok() {
                    notes.insert(Note::Forgotten);
                    if let Ok(redis) = self.writable(n) {
                        redis.forget(peer, false);
                    }
                }
            }
            CoreCommand::Withdraw(peer) => match self.writable(n) {
                Ok(redis) => {
                    notes.insert(Note::Withdrawn);
                    redis.forget(peer, true);
                    let gone = self.fault == Fault::LeaveIsEnd;
                    self.publish(&Message::Leave { of: peer.process, gone });
                }
                Err(failure) => self.record_result(n, &failure, notes),
            },
            CoreCommand::Replay(batch) => self.replay(n, batch, notes),
            CoreCommand::Invalidate(_) | CoreCommand::Release(..) => {}
        }
    }

    fn answer(&mut self, n: u8, notes: &mut Notes) {
        let (number, came, answer) = self.of(n).answers.remove(0);
        if self.fault == Fault::LateIsLost && came < self.now {
            return self.lose(n, notes);
        }
        self.handle(n, CoreEvent::HeartbeatReply(number, answer), notes);
    }

    fn take_over(&mut self, n: u8, peer: PeerId, notes: &mut Notes) -> Result<(), ()> {
        let marks = match self.writable(n) {
            Ok(redis) => redis.evict(peer),
            Err(failure) => {
                self.record_result(n, &failure, notes);
                return Err(());
            }
        };
        for id in marks {
            notes.insert(Note::TakenOver);
            self.purge_for(n, Some((id, peer)), notes)?;
        }
        Ok(())
    }

    fn purge_in_redis(
        &mut self,
        n: u8,
        id: OperationId,
        mark: Option<(OperationId, PeerId)>,
    ) -> Result<Subscribers, Failure> {
        let (fence, by, listeners) =
            (self.trusts(n), self.sidecars[usize::from(n)].core.me().process, self.listeners());
        let mut nonce = self.nonce;
        let subscribers = self.writable(n)?.purge(fence, mark, &mut nonce, listeners);
        self.nonce = nonce;
        self.publish(&Message::invalidate(by, id, Some(vec![tag()])));
        Ok(subscribers)
    }

    fn purge_for(
        &mut self,
        n: u8,
        mark: Option<(OperationId, PeerId)>,
        notes: &mut Notes,
    ) -> Result<(), ()> {
        self.ids += 1;
        let id = OperationId(self.ids);
        self.of(n).tag_state += 1;
        self.of(n).core.expect(id);
        match self.purge_in_redis(n, id, mark) {
            Ok(subscribers) => {
                self.handle(n, CoreEvent::Published(id, subscribers), notes);
                self.of(n).core.forget_wait(id);
                self.of(n).tag_state += 1;
                Ok(())
            }
            Err(failure) => {
                self.record_result(n, &failure, notes);
                self.of(n).core.forget_wait(id);
                Err(())
            }
        }
    }

    fn replay(&mut self, n: u8, batch: ReplayBatch, notes: &mut Notes) {
        let done = self.purge_for(n, None, notes).is_ok();
        if done {
            notes.insert(Note::Replayed);
            let (settings, version) = (crate::settings(), self.sidecars[usize::from(n)].own_floor);
            // From now on, all peers get it like any other purge.
            let until = self.now + (settings.lease + settings.margin).as_secs();
            self.owed = Some((version.max(self.owed.map_or(0, |(version, _)| version)), until));
        }
        self.handle(n, CoreEvent::Replayed(batch, done), notes);
    }

    /// `Coherence::mark`
    fn mark(&mut self, n: u8, notes: &mut Notes) {
        self.budget.mutations -= 1;
        let id = OperationId(10 + u64::from(self.budget.mutations));
        let (fence, peer) = (self.trusts(n), self.sidecars[usize::from(n)].core.me());
        let mut marked = None;
        if self.of(n).core.phase() != Phase::Lost {
            let mut nonce = self.nonce;
            match self.writable(n).map(|redis| redis.mark(fence, id, peer, &mut nonce)) {
                Ok(()) => marked = Some(peer),
                Err(Failure::Refused) => {}
                Err(Failure::Connection) => self.lose(n, notes),
            }
            self.nonce = nonce;
        }
        self.of(n).mutation = Some(Mutation { id, version: 0, stage: Stage::Marked(marked) });
    }

    fn advance(&mut self, n: u8, notes: &mut Notes) {
        let Some(mutation) = self.sidecars[usize::from(n)].mutation.clone() else { return };
        let id = mutation.id;
        match mutation.stage {
            Stage::Marked(mark) => {
                self.app += 1;
                let version = self.app;
                self.of(n).mutation = Some(Mutation { id, version, stage: Stage::Done(mark) });
            }
            Stage::Done(mark) => {
                self.of(n).tag_state += 1;
                self.of(n).core.expect(id);
                self.stage(n, Stage::Publishing(mark));
                if self.of(n).core.phase() == Phase::Lost {
                    self.publish_failed(n, id, notes);
                }
            }
            Stage::Publishing(mark) => {
                let server = self.primary;
                if let Ok(subscribers) = self.purge_in_redis(n, id, mark.map(|peer| (id, peer))) {
                    self.stage(n, Stage::Published(server, subscribers));
                } else {
                    self.lose(n, notes);
                    self.publish_failed(n, id, notes);
                }
            }
            Stage::Published(server, _) if self.of(n).connection != Some(server) => {
                self.lose(n, notes);
                self.publish_failed(n, id, notes);
            }
            Stage::Published(_, mut subscribers) => {
                let now = self.now;
                self.stage(n, Stage::Waiting(now));
                if self.fault == Fault::NoWait {
                    subscribers = Subscribers::default();
                    self.release(n, id, Released::Acknowledged, notes);
                }
                self.handle(n, CoreEvent::Published(id, subscribers), notes);
                self.of(n).tag_state += 1;
            }
            Stage::Waiting(_) => {}
        }
    }

    fn stage(&mut self, n: u8, stage: Stage) {
        if let Some(mutation) = &mut self.of(n).mutation {
            mutation.stage = stage;
        }
    }

    fn publish_failed(&mut self, n: u8, id: OperationId, notes: &mut Notes) {
        let now = self.now;
        self.stage(n, Stage::Waiting(now));
        self.of(n).core.forget_wait(id);
        self.of(n).core.expect(id);
        self.handle(
            n,
            CoreEvent::PublishFailed(
                id,
                ReplayBatch { tags: BTreeSet::from([tag()]), everything: false },
            ),
            notes,
        );
    }

    /// `Coherence::commit_local`
    fn fill_own(&mut self, n: u8) {
        self.budget.own -= 1;
        let (version, until) = (self.app, at(self.now + DEGRADED_TTL));
        let sidecar = self.of(n);
        sidecar.own = Some(Own {
            version,
            until: until.min(sidecar.core.own_table_until()),
            epoch: sidecar.core.lease_state().epoch,
            tag_state: sidecar.tag_state,
        });
    }

    /// `Coherence::watch_tags`
    fn watch_tag(&self, n: u8) -> Option<Watch> {
        let sidecar = &self.sidecars[usize::from(n)];
        let lease_state = sidecar.core.lease_state();
        (at(self.now) < lease_state.lease_until).then_some((lease_state.session, sidecar.tag_state))
    }

    fn read(&mut self, n: u8) {
        let (floor, watch) = (self.floor_of(n), self.watch_tag(n));
        let sidecar = self.of(n);
        sidecar.read_stage =
            Some(Read::Begun { epoch: sidecar.core.lease_state().epoch, floor, watch });
    }

    fn advance_read(&mut self, n: u8, notes: &mut Notes) -> Option<String> {
        match self.of(n).read_stage.take()? {
            Read::Begun { epoch, floor, watch } => {
                return self.lookup(n, (epoch, floor, watch), notes);
            }
            Read::Asking { epoch, reading } => {
                let version = self.app;
                self.of(n).read_stage = Some(Read::Brought { epoch, reading, version });
            }
            Read::Brought { epoch, reading, version } => {
                if self.of(n).core.lease_state().epoch == epoch {
                    let watch = self.watch_tag(n);
                    self.of(n).read_stage = Some(Read::Committing { reading, version, watch });
                }
            }
            Read::Committing { reading, version, watch } => {
                let mut nonce = self.nonce;
                let unchecked = self.fault == Fault::NoFillCheck;
                let answer = self.writable(n).map(|redis| {
                    let agreed = redis.commit(&reading, &mut nonce);
                    agreed.or(redis.record.filter(|_| unchecked).map(|record| record.nonce))
                });
                self.nonce = nonce;
                match answer {
                    Ok(Some(nonce)) => {
                        let entry =
                            Entry { version, generation: reading.generation, nonce, leased: watch };
                        self.of(n).read_stage = Some(Read::Agreed { entry });
                    }
                    Ok(None) => drop(notes.insert(Note::PurgedFill)),
                    Err(failure) => self.record_result(n, &failure, notes),
                }
            }
            Read::Agreed { entry } => {
                notes.insert(Note::Refill);
                let Entry { version, generation, nonce, .. } = entry;
                match self.writable(n) {
                    Ok(redis) => redis.entry = Some(Stored { version, generation, nonce }),
                    Err(failure) => self.record_result(n, &failure, notes),
                }
                self.of(n).entry = Some(entry);
            }
        }
        None
    }

    /// The lookup in memory, then the one in Redis.
    fn lookup(
        &mut self,
        n: u8,
        (epoch, floor, watch): (u64, u8, Option<Watch>),
        notes: &mut Notes,
    ) -> Option<String> {
        let Some(server) = self.sidecars[usize::from(n)].connection else {
            self.lose(n, notes);
            return None;
        };
        let redis = Arc::clone(&self.servers[usize::from(server)]);
        let mut reading = redis.read(self.trusts(n));
        let current = |generation: u16, nonce: u16| {
            generation == reading.generation && reading.nonce == Some(nonce)
        };
        let sidecar = self.of(n);
        if sidecar.core.lease_state().epoch != epoch {
            return None;
        }
        let in_memory =
            sidecar.entry.as_mut().filter(|entry| current(entry.generation, entry.nonce));
        let version = if let Some(entry) = in_memory {
            entry.leased = watch.or(entry.leased);
            entry.version
        } else if let Some(stored) =
            redis.entry.filter(|stored| current(stored.generation, stored.nonce))
        {
            let Stored { version, generation, nonce } = stored;
            sidecar.entry = Some(Entry { version, generation, nonce, leased: watch });
            version
        } else {
            if self.budget.fills == 0 {
                return None;
            }
            self.budget.fills -= 1;
            if reading.nonce.is_none() {
                let mut nonce = self.nonce;
                reading.nonce =
                    self.writable(n).ok().map(|redis| redis.seed(reading.fence, &mut nonce));
                self.nonce = nonce;
            }
            self.of(n).read_stage = Some(Read::Asking { epoch, reading });
            return None;
        };
        notes.insert(Note::StrictHit);
        (version < floor).then(|| {
            format!(
                "sidecar {n} serves version {version} by Redis to a read that began after {floor}"
            )
        })
    }
}
