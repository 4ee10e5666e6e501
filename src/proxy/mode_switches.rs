//! Sets, ends and shares switches: see `policy::mode_switch` for what a switch is.
//!
//! Invariants:
//! - A switch is in force on this sidecar before anybody else is told of it, whatever becomes of
//!   Redis. Where Redis cannot be reached, it is sent when Redis is back, with what is then left of
//!   its time.
//! - Nothing of it is on disk: a process that ends forgets its switches. One that starts takes over
//!   those that are in Redis, before it serves its first request if Redis answers at once.
//! - What Redis has lost (a flush, an eviction, a failover) is sent again by whoever knows it: a
//!   switch that was ended leaves a mark in Redis, so that the two are not mistaken for each other.
//! - Exchanges with Redis come one at a time, so that no reading is older than what was sent before
//!   it.
//! - The configuration in force and the switches change under one lock, so that rules never come
//!   into force without the switches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Wall;
use crate::coherence::CoherenceMode;
use crate::coherence::redis_records::{RecordStore, SharedSwitch, SwitchSent};
use crate::policy::mode_switch::{
    MAX_SWITCHES, ModeSwitch, SwitchId, SwitchMode, SwitchTable, SwitchTarget, SwitchedBy,
};
use crate::policy::route::{Route, Routes};
use crate::proxy::active_config::{ActiveConfig, LiveConfig};
use crate::proxy::resources::Resources;
use crate::redis::CallError;
use crate::spelling::nearest;
use crate::telemetry::events::{EventKind, ModeEvent};
use crate::telemetry::metrics::Counter;

/// How often the switches in Redis are read although no message said that they have changed.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// The least time between two exchanges that messages ask for: anybody who may publish can send
/// any number of them.
const EXCHANGE_GAP: Duration = Duration::from_millis(200);

/// How many switches that peers have set or ended are told one by one, of one exchange.
const MAX_TOLD: usize = 16;

/// How many ended switches are remembered until Redis knows of it.
const MAX_UNSENT_ENDS: usize = 2 * MAX_SWITCHES;

/// The switches of this sidecar.
#[derive(Debug)]
pub struct ModeSwitches {
    live: Arc<LiveConfig>,
    resources: Arc<Resources>,
    state: Mutex<SwitchState>,
    /// Held for the whole of an exchange with Redis.
    turn: tokio::sync::Mutex<()>,
    /// Tells that another switch may be the next one to end.
    changed: Notify,
    /// What was counted so far.
    pub counters: SwitchCounters,
}

/// Counts what becomes of switches.
#[derive(Clone, Debug, Default)]
pub struct SwitchCounters {
    /// Switches set, by the admin API of this sidecar and by peers.
    pub set: [Arc<Counter>; 2],
    /// Switches ended: by the admin API, by peers, by time, by a reload.
    pub ended: [Arc<Counter>; 4],
    /// Switches for which there was no room.
    pub refused: Arc<Counter>,
}

#[derive(Debug, Default)]
struct SwitchState {
    table: SwitchTable,
    /// Switches that were ended here and that Redis may still hold, and when they would end.
    /// SECURITY: an id alone names none of them: strangers may have written it more than once.
    unsent_ends: BTreeMap<(SwitchTarget, SwitchId), Wall>,
    /// Switches in Redis of routes that this sidecar does not have.
    foreign: Vec<SharedSwitch>,
}

/// A change that is told.
struct SwitchChange {
    switch: ModeSwitch,
    /// Who has ended it; `None` if it was set.
    ended_by: Option<SwitchedBy>,
}

/// Why a switch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchRefused {
    /// No route has this path. With the one that may be meant.
    UnknownRoute(Option<String>),
    /// There are as many switches as there may be.
    TooMany,
}

/// Whether the other sidecars can know of a change: `Err` says why they may not.
pub type PeersTold = Result<(), String>;

impl ModeSwitches {
    pub(super) fn new(live: Arc<LiveConfig>, resources: Arc<Resources>) -> Self {
        Self {
            live,
            resources,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            counters: SwitchCounters::default(),
        }
    }

    /// The switches in force.
    #[must_use]
    pub fn list(&self) -> Vec<ModeSwitch> {
        self.state.lock().table.iter().cloned().collect()
    }

    /// The number of them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().table.iter().count()
    }

    /// The switch that decides for a route, if there is one.
    #[must_use]
    pub fn deciding(&self, route: &Route) -> Option<ModeSwitch> {
        self.state.lock().table.deciding(route.name()).cloned()
    }
}

impl SwitchState {
    fn note_end(&mut self, switch: &ModeSwitch) {
        if self.unsent_ends.len() >= MAX_UNSENT_ENDS {
            self.unsent_ends.pop_first();
        }
        self.unsent_ends.insert((switch.target.clone(), switch.id), switch.until);
    }

    /// Takes over what was read in Redis.
    fn adopt(
        &mut self,
        routes: &Routes,
        read: Vec<SharedSwitch>,
        now: Wall,
        refused: &Counter,
    ) -> Vec<SwitchChange> {
        let mut changes = Vec::new();
        self.foreign.clear();
        let mut found = BTreeMap::new();
        for shared in read {
            if !shared.target.is_known(routes) {
                self.foreign.push(shared);
            } else if !self.unsent_ends.contains_key(&(shared.target.clone(), shared.id)) {
                found.insert(shared.target.clone(), shared);
            }
        }
        // What Redis says of a target counts, unless it knows nothing of it, or not yet.
        let is_over = |own: &ModeSwitch| {
            found.get(&own.target).is_some_and(|shared| own.shared && shared.mode.is_none())
        };
        for switch in self.table.take_if(is_over) {
            changes.push(SwitchChange { switch, ended_by: Some(SwitchedBy::Peer) });
        }
        for own in self.table.take_if(|own| own.shared && !found.contains_key(&own.target)) {
            // Redis has lost it.
            let _ = self.table.set(ModeSwitch { shared: false, ..own });
        }
        for (target, shared) in found {
            let Some(mode) = shared.mode else { continue };
            let own = self.table.get(&target);
            if own.is_some_and(|own| !own.shared || (own.id, own.mode) == (shared.id, mode)) {
                continue;
            }
            let until = now.after(shared.left);
            let (id, by) = (shared.id, SwitchedBy::Peer);
            let switch = ModeSwitch { id, target, mode, until, by, shared: true };
            if self.table.set(switch.clone()).is_ok() {
                changes.push(SwitchChange { switch, ended_by: None });
            } else {
                refused.inc();
            }
        }
        changes
    }
}

impl ModeSwitches {
    /// Puts another configuration in force, at once and as a whole, with the switches that hold.
    /// Requests in flight go on by the one that they began with.
    pub(super) fn activate(&self, config: ActiveConfig) {
        let gone = {
            let mut state = self.state.lock();
            let routes = &config.rules.routes;
            let gone = state.table.take_if(|switch| !switch.target.is_known(routes));
            state.table.apply(routes);
            self.live.replace(config);
            gone
        };
        let by = Some(SwitchedBy::Reload);
        self.tell(gone.into_iter().map(|switch| SwitchChange { switch, ended_by: by }).collect());
    }

    /// Switches routes off, or into shadow, for a time. Returns whether the peers can know of it.
    ///
    /// # Errors
    /// There is no such route, or there are too many switches.
    pub async fn set(
        &self,
        target: SwitchTarget,
        mode: SwitchMode,
        time: Duration,
    ) -> Result<(ModeSwitch, PeersTold), SwitchRefused> {
        let until = self.resources.clock.wall().after(time);
        let id = SwitchId(rand::random());
        let switch = ModeSwitch { id, target, mode, until, by: SwitchedBy::Admin, shared: false };
        {
            let mut state = self.state.lock();
            let config = self.live.load();
            let routes = &config.rules.routes;
            if !switch.target.is_known(routes) {
                return Err(SwitchRefused::UnknownRoute(near(&switch.target, routes)));
            }
            match state.table.set(switch.clone()) {
                Ok(Some(replaced)) => state.note_end(&replaced),
                Ok(None) => {}
                Err(_) => {
                    self.counters.refused.inc();
                    return Err(SwitchRefused::TooMany);
                }
            }
            self.apply(&state.table, routes);
        }
        self.tell(vec![SwitchChange { switch: switch.clone(), ended_by: None }]);
        self.changed.notify_one();
        let shared = self.share().await;
        Ok((switch, shared))
    }

    /// Ends the switch of this target, or, for all routes, every switch. Returns those that were
    /// in force, and whether the peers can know of it.
    ///
    /// # Errors
    /// There is no such route.
    pub async fn end(
        &self,
        target: &SwitchTarget,
    ) -> Result<(Vec<ModeSwitch>, PeersTold), SwitchRefused> {
        // What peers have set just now is to end, too. What fails here fails below, and is told.
        let _ = self.share().await;
        let is_meant = |other: &SwitchTarget| *target == SwitchTarget::All || other == target;
        let ended = {
            let mut state = self.state.lock();
            let config = self.live.load();
            let routes = &config.rules.routes;
            let now = self.resources.clock.wall();
            let foreign: Vec<ModeSwitch> = state
                .foreign
                .iter()
                .filter(|shared| is_meant(&shared.target))
                .filter_map(|shared| {
                    Some(ModeSwitch {
                        id: shared.id,
                        target: shared.target.clone(),
                        mode: shared.mode?,
                        until: now.after(shared.left),
                        by: SwitchedBy::Peer,
                        shared: true,
                    })
                })
                .collect();
            if foreign.is_empty() && !target.is_known(routes) {
                return Err(SwitchRefused::UnknownRoute(near(target, routes)));
            }
            let ended = state.table.take_if(|switch| is_meant(&switch.target));
            for switch in ended.iter().chain(&foreign) {
                state.note_end(switch);
            }
            self.apply(&state.table, routes);
            ended
        };
        let by = Some(SwitchedBy::Admin);
        let told = ended.iter().map(|switch| SwitchChange { switch: switch.clone(), ended_by: by });
        self.tell(told.collect());
        let shared = self.share().await;
        Ok((ended, shared))
    }

    /// Ends switches whose time is over, and exchanges switches with the other sidecars, until the
    /// sidecar stops.
    pub async fn drive(&self) {
        let stop = self.resources.stop.clone();
        let _ = stop.run_until_cancelled(self.run()).await;
    }

    async fn run(&self) {
        let coherence = &self.resources.coherence;
        let mut next_exchange = self.resources.clock.now();
        loop {
            self.end_by_time();
            let is_shared = coherence.mode() == CoherenceMode::Shared;
            if is_shared && next_exchange <= self.resources.clock.now() {
                let _ = self.share().await;
                next_exchange = self.resources.clock.now() + EXCHANGE_INTERVAL;
            }
            let joined = async {
                if coherence.mode() == CoherenceMode::Local || is_shared {
                    std::future::pending::<()>().await;
                } else {
                    coherence.wait_until_joined().await;
                }
            };
            tokio::select! {
                () = coherence.switch_news.notified() => {
                    tokio::time::sleep(EXCHANGE_GAP).await;
                    next_exchange = self.resources.clock.now();
                }
                () = joined => next_exchange = self.resources.clock.now(),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(self.until_next_end()) => {}
            }
        }
    }

    /// How long until the next switch ends, or the next exchange is due.
    fn until_next_end(&self) -> Duration {
        let next = self.state.lock().table.next_end();
        let now = self.resources.clock.wall();
        let wait = next.map_or(EXCHANGE_INTERVAL, |next| next.since(now));
        wait.clamp(Duration::from_millis(1), EXCHANGE_INTERVAL)
    }

    fn end_by_time(&self) {
        let now = self.resources.clock.wall();
        let ended = {
            let mut state = self.state.lock();
            // Redis has let go of them, too.
            state.unsent_ends.retain(|_, until| *until > now);
            let ended = state.table.take_ended(now);
            if ended.is_empty() {
                return;
            }
            self.apply(&state.table, &self.live.load().rules.routes);
            ended
        };
        let by = Some(SwitchedBy::Time);
        self.tell(ended.into_iter().map(|switch| SwitchChange { switch, ended_by: by }).collect());
    }

    /// Sends Redis what it does not know yet, and takes over what it knows.
    pub async fn share(&self) -> PeersTold {
        let Some(records) = self.resources.coherence.records() else {
            return Err("there is no [redis]: this sidecar alone knows of it".to_owned());
        };
        if self.resources.coherence.mode() != CoherenceMode::Shared {
            let why = self.resources.coherence.degraded_reason().unwrap_or_default();
            return Err(format!("{why}; the other sidecars are told when it is back"));
        }
        let _turn = self.turn.lock().await;
        match self.exchange(records).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("there is no room for it in Redis".to_owned()),
            Err(error) => Err(format!("{error}; the other sidecars are told when it is back")),
        }
    }

    /// Returns whether there was room for everything.
    async fn exchange(&self, records: &RecordStore) -> Result<bool, CallError> {
        let now = self.resources.clock.wall();
        let (ends, unsent) = {
            let state = self.state.lock();
            let ends: Vec<_> = state
                .unsent_ends
                .iter()
                .filter(|(_, until)| **until > now)
                .map(|((target, id), until)| (target.clone(), *id, until.since(now)))
                .collect();
            let unsent: Vec<ModeSwitch> =
                state.table.iter().filter(|switch| !switch.shared).cloned().collect();
            (ends, unsent)
        };
        let mut has_room = true;
        // First what takes the place of others, so that no peer sees the place empty.
        for switch in unsent.iter().filter(|switch| switch.until > now) {
            let named = (&switch.target, switch.id);
            let sent = records.keep_switch(named, switch.mode, switch.until.since(now)).await;
            // One that a peer has ended counts as sent: the reading below says so.
            let is_there = self.resources.coherence.record_result(sent)? != SwitchSent::Full;
            has_room &= is_there;
            let mut state = self.state.lock();
            let own = state.table.get_mut(&switch.target).filter(|own| own.id == switch.id);
            if let Some(own) = own {
                own.shared = is_there;
            }
        }
        if !ends.is_empty() {
            self.resources.coherence.record_result(records.end_switches(&ends).await)?;
            let mut state = self.state.lock();
            for (target, id, _) in ends {
                state.unsent_ends.remove(&(target, id));
            }
        }
        let read = self.resources.coherence.record_result(records.switches().await)?;
        let changes = {
            let mut state = self.state.lock();
            let config = self.live.load();
            let (routes, refused) = (&config.rules.routes, &self.counters.refused);
            let changes = state.adopt(routes, read, self.resources.clock.wall(), refused);
            self.apply(&state.table, routes);
            changes
        };
        if !changes.is_empty() {
            self.changed.notify_one();
        }
        self.tell(changes);
        Ok(has_room)
    }

    /// Makes the routes in force do what the switches say.
    fn apply(&self, table: &SwitchTable, routes: &Routes) {
        if table.relaxes(routes) {
            // SECURITY: while a route was off, nobody looked at what the origin refuses to whom:
            // who was authorized before asks the origin once more.
            self.resources.authorized_clients.clear();
        }
        table.apply(routes);
    }

    /// Logs, counts and publishes changes.
    fn tell(&self, changes: Vec<SwitchChange>) {
        let not_told = changes.len().saturating_sub(MAX_TOLD);
        for (at, SwitchChange { switch, ended_by }) in changes.into_iter().enumerate() {
            let counters = &self.counters;
            match ended_by {
                None => counters.set[usize::from(switch.by == SwitchedBy::Peer)].inc(),
                Some(by) => counters.ended[by as usize].inc(),
            }
            if at >= MAX_TOLD {
                continue;
            }
            let (route, mode) = (switch.target.route().unwrap_or("all"), switch.mode.as_str());
            let now = self.resources.clock.wall();
            let left = switch.until.since(now);
            match ended_by {
                None => tracing::info!(
                    route,
                    mode,
                    by = switch.by.as_str(),
                    ?left,
                    "a switch holds: routes cache less than the file says"
                ),
                Some(by) => {
                    tracing::info!(route, mode, by = by.as_str(), "a switch has ended");
                }
            }
            let event = ModeEvent {
                change: if ended_by.is_none() { "set" } else { "ended" },
                mode,
                route: switch.target.route().map(str::to_owned),
                by: ended_by.unwrap_or(switch.by).as_str(),
                left_s: left.as_secs(),
            };
            self.resources.events.publish(now, EventKind::Mode(event));
        }
        if not_told > 0 {
            tracing::info!(not_told, "more switches were set or ended by other sidecars");
        }
    }
}

/// The route that may be meant by a path that no route has.
fn near(target: &SwitchTarget, routes: &Routes) -> Option<String> {
    let known: Vec<&str> = routes.iter().map(|route| route.name()).collect();
    nearest(target.name(), &known).map(str::to_owned)
}
