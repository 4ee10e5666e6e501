//! Model check of coherence between sidecars: explores every order of events in small worlds, where
//! each sidecar runs the production core.
//!
//! Checked in every world: no hit under a lease, and no hit by Redis for a read that begins now, is
//! older than a mutation whose response has gone out; and no sidecar spins. One published limit is
//! excepted: what a sidecar releases while it cannot reach Redis
//! ([`Released::PublishFailed`](sidecache::internals::core::Released)) binds that sidecar alone
//! until its journal was replayed, and all others from one lease after that.
//!
//! Assumed: Redis runs one step at a time; a demoted server accepts no write, not even heartbeats;
//! all clocks run at the same rate; a client that lost its connection makes no new one before the
//! driver knows of the loss ([`Fault::MendedUnseen`] shows what happens otherwise). A sidecar that
//! does not lag acts before any other does; those that lag do so by any time and in any order.
//!
//! When one protection is switched off in the model, the same checker finds a stale read. To see
//! the counterexamples and the numbers: `SIDECACHE_MODEL_TRACE=1 cargo nextest run --test model
//! --no-capture`. For more ticks in each world, and no limit on the number of worlds:
//! `SIDECACHE_MODEL_DEPTH=1 cargo nextest run --test model --no-capture` (some gigabytes and
//! minutes for each tick).

#[path = "model/check.rs"]
mod check;
#[path = "model/redis.rs"]
mod redis;
#[path = "model/sidecar.rs"]
mod sidecar;
#[path = "model/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use sidecache::internals::core::LeaseSettings;

use check::{Found, check};
use redis::Redis;
use world::{Budget, DEGRADED_TTL, Fault, Lags, Note, Role, World, at};

/// How many worlds are visited, unless a depth is given.
const MAX_WORLDS: usize = 700_000;

/// A lease of two ticks, renewed every tick; peers wait three.
fn settings() -> LeaseSettings {
    LeaseSettings {
        lease: at(2),
        longest_lease: at(2),
        margin: at(1),
        heartbeat: at(1),
        retry: at(1),
        grace: at(2),
        stall: at(0),
        exposure: at(0),
        absence: at(0),
    }
}

const READER: Role = Role { lags: Lags::NONE, eager: true, reads: true, mutates: false };
const WRITER: Role = Role { lags: Lags::NONE, eager: true, reads: false, mutates: true };

/// What is explored: who takes part, what may happen, and for how many ticks.
#[derive(Clone, Debug)]
struct Scenario {
    name: &'static str,
    roles: Vec<Role>,
    budget: Budget,
    ticks: u64,
    /// Whether the replica starts as a copy of the primary, and not empty.
    copied: bool,
    settings: LeaseSettings,
}

impl Scenario {
    fn start(&self, fault: Fault) -> World {
        let mut world = World::new(&self.settings, &self.roles, fault, self.budget, 0);
        // Longer than a lease and its margin, so that all peers know each other.
        world.settle(5);
        world.budget.fills += 1;
        world.fill(0);
        if self.copied {
            let (fence, copy) = (world.servers[1].fence, Redis::clone(&world.servers[0]));
            world.servers[1] = Arc::new(Redis { fence, ..copy });
        }
        world.until = world.now + self.ticks;
        world
    }

    fn run(&self, fault: Fault) -> Found {
        let more: Option<u64> =
            std::env::var("SIDECACHE_MODEL_DEPTH").ok().and_then(|more| more.parse().ok());
        let deeper = Self { ticks: self.ticks + more.unwrap_or(0), ..self.clone() };
        let found =
            check(deeper.start(fault), if more.is_some() { usize::MAX } else { MAX_WORLDS });
        if more.is_some() || std::env::var_os("SIDECACHE_MODEL_TRACE").is_some() {
            let _ = std::io::stderr().write_all(deeper.report(fault, &found).as_bytes());
        }
        found
    }

    /// What was found, with the path to what is wrong.
    fn report(&self, fault: Fault, found: &Found) -> String {
        let mut text = format!(
            "{} ({fault:?}): {} worlds, {} steps deep\n  {:?}\n",
            self.name, found.worlds, found.depth, found.notes
        );
        if let Some((what, way)) = &found.wrong {
            let _ = writeln!(text, "  {what}, after {} steps:", way.len());
            let mut world = self.start(fault);
            for action in way {
                let _ = writeln!(text, "    {:>2} {action:?}", world.now);
                world = world.step(*action, &mut BTreeSet::new()).0;
            }
        }
        text
    }

    /// Asserts that nothing is wrong, that all worlds were visited, and that these notes occurred.
    #[track_caller]
    fn holds(&self, must: &[Note]) {
        let found = self.holds_near(must);
        assert!(!found.cut, "not all worlds were visited: {}", self.report(Fault::None, &found));
    }

    /// Asserts that nothing is wrong in the nearest [`MAX_WORLDS`] worlds, and that these notes
    /// occurred there. To visit all of them, a depth has to be given.
    #[track_caller]
    fn holds_near(&self, must: &[Note]) -> Found {
        let found = self.run(Fault::None);
        assert!(found.wrong.is_none(), "{}", self.report(Fault::None, &found));
        let missed: Vec<&Note> =
            must.iter().filter(|note| !found.notes.contains_key(note)).collect();
        assert!(
            missed.is_empty(),
            "these notes never occurred, so the test proves nothing: {missed:?}\n{}",
            self.report(Fault::None, &found)
        );
        found
    }

    /// Asserts that a read is stale with this fault.
    #[track_caller]
    fn fails(&self, fault: Fault) {
        let found = self.run(fault);
        let what = found.wrong.as_ref().map_or("nothing", |(what, _)| what);
        assert!(what.contains("serves version"), "{}", self.report(fault, &found));
    }
}

/// One mutation, and one fill.
const SOME: Budget = Budget {
    mutations: 1,
    fills: 1,
    crashes: 0,
    restarts: 0,
    breaks: 0,
    deaf: 0,
    replications: 0,
    failovers: 0,
    flushes: 0,
    names: 0,
    records: 0,
    own: 0,
};

const ONE_FAILOVER: Budget = Budget { failovers: 1, fills: 0, ..SOME };

const fn lagging(role: Role, bus: bool, calls: bool, driver: bool) -> Role {
    Role { lags: Lags { bus, calls, driver }, ..role }
}

fn scenario(name: &'static str, roles: &[Role], budget: Budget, ticks: u64) -> Scenario {
    Scenario { name, roles: roles.to_vec(), budget, ticks, copied: true, settings: settings() }
}

fn fill() -> Scenario {
    scenario(
        "a fill while a mutation goes on",
        &[READER, WRITER],
        Budget { mutations: 2, ..SOME },
        1,
    )
}

fn paused_reader() -> Scenario {
    scenario(
        "a reader that pauses",
        &[lagging(READER, true, false, true), WRITER],
        Budget { fills: 0, ..SOME },
        5,
    )
}

/// Where nothing may be stale, a peer that fell silent is remembered for longer than it serves by
/// itself.
fn cut_off(fault: Fault) -> Scenario {
    let absence = if fault == Fault::NoAbsence { at(0) } else { at(7) };
    let budget = Budget { mutations: 2, fills: 0, breaks: 1, deaf: 1, own: 2, ..SOME };
    let settings = LeaseSettings { absence, exposure: at(DEGRADED_TTL), ..settings() };
    Scenario { settings, ..scenario("a reader that is cut off", &[READER, WRITER], budget, 7) }
}

/// The same with a reader that loses its lease before.
fn cut_off_after_its_lease() -> Scenario {
    let calls_lag = Role { eager: false, ..lagging(READER, false, true, false) };
    let budget = Budget { mutations: 1, fills: 0, breaks: 1, deaf: 1, own: 1, ..SOME };
    Scenario { roles: vec![calls_lag, WRITER], budget, ..cut_off(Fault::None) }
}

/// Redis replies at once, and the reader reads that late.
fn starved_reader() -> Scenario {
    scenario(
        "a reader that is starved",
        &[lagging(READER, true, true, true), WRITER],
        Budget { fills: 0, own: 1, ..SOME },
        4,
    )
}

fn restart_at_failover() -> Scenario {
    scenario(
        "a restart at a failover",
        &[READER, WRITER],
        Budget { crashes: 1, restarts: 1, ..ONE_FAILOVER },
        1,
    )
}

fn unseen_failover() -> Scenario {
    scenario(
        "a failover that the reader sees late",
        &[lagging(READER, false, false, true), WRITER],
        ONE_FAILOVER,
        0,
    )
}

#[test]
fn no_read_is_stale_while_a_fill_and_a_mutation_cross() {
    fill().holds(&[Note::LeasedHit, Note::Refill, Note::PurgedFill, Note::Acknowledged]);
}

#[test]
fn no_read_is_stale_while_messages_come_late() {
    let late = scenario("late messages", &[lagging(READER, true, false, false), WRITER], SOME, 5);
    late.holds(&[
        Note::LeasedHit,
        Note::StrictHit,
        Note::ReleasedByTime,
        Note::Evicted,
        Note::PurgedFill,
    ]);
}

#[test]
fn no_read_is_stale_while_calls_come_late() {
    let late = scenario("late calls", &[lagging(READER, false, true, false), WRITER], SOME, 4);
    late.holds(&[
        Note::LeasedHit,
        Note::StrictHit,
        Note::ReleasedByTime,
        Note::ReleasedBySilence,
        Note::Refill,
    ]);
}

#[test]
fn no_read_is_stale_while_the_reader_pauses() {
    paused_reader().holds(&[Note::LeasedHit, Note::StrictHit, Note::ReleasedByTime, Note::Evicted]);
}

#[test]
fn no_read_is_stale_while_the_writer_pauses() {
    let paused = scenario(
        "a writer that pauses",
        &[READER, lagging(WRITER, true, false, true)],
        Budget { fills: 0, ..SOME },
        5,
    );
    paused.holds(&[Note::LeasedHit, Note::Acknowledged, Note::Evicted, Note::TakenOver]);
}

#[test]
fn no_read_is_stale_after_a_failover_that_loses_writes() {
    scenario("a failover", &[READER, WRITER], ONE_FAILOVER, 3).holds_near(&[
        Note::LeasedHit,
        Note::Rejoined,
        Note::PublishFailed,
        Note::Replayed,
    ]);
}

#[test]
fn no_fill_outlives_a_failover() {
    scenario("a fill at a failover", &[READER, WRITER], Budget { fills: 1, ..ONE_FAILOVER }, 1)
        .holds(&[Note::Refill, Note::Lost]);
}

#[test]
fn no_read_is_stale_while_a_failover_is_noticed_late() {
    unseen_failover().holds(&[Note::LeasedHit, Note::Lost, Note::Acknowledged]);
}

#[test]
fn no_read_is_stale_when_a_sidecar_starts_at_a_failover() {
    restart_at_failover().holds_near(&[Note::LeasedHit, Note::Lost, Note::Acknowledged]);
}

#[test]
fn no_read_is_stale_when_a_sidecar_starts_at_a_failover_to_an_empty_replica() {
    Scenario { copied: false, ..restart_at_failover() }.holds_near(&[
        Note::LeasedHit,
        Note::Lost,
        Note::Acknowledged,
    ]);
}

#[test]
fn no_read_is_stale_while_a_sidecar_crashes_and_starts_again() {
    let crash =
        scenario("a crash", &[READER, WRITER], Budget { crashes: 1, restarts: 1, ..SOME }, 7);
    crash.holds(&[
        Note::ReleasedByTime,
        Note::ReleasedBySilence,
        Note::Evicted,
        Note::TakenOver,
        Note::Forgotten,
    ]);
}

#[test]
fn no_read_is_stale_while_connections_break() {
    let breaks = scenario(
        "broken connections",
        &[READER, WRITER],
        Budget { breaks: 1, deaf: 1, fills: 0, ..SOME },
        4,
    );
    breaks.holds(&[
        Note::PublishFailed,
        Note::Replayed,
        Note::Rejoined,
        Note::Withdrawn,
        Note::LeasedHit,
    ]);
}

#[test]
fn no_read_is_stale_while_redis_loses_its_keys() {
    let lost = scenario("lost keys", &[READER, WRITER], Budget { flushes: 1, names: 1, ..SOME }, 4);
    lost.holds(&[Note::LeasedHit, Note::PurgedFill, Note::Acknowledged]);
}

#[test]
fn no_read_is_stale_among_three_with_two_mutations() {
    let three = scenario("three", &[READER, WRITER, WRITER], Budget { mutations: 2, ..SOME }, 3);
    three.holds(&[Note::LeasedHit, Note::Refill, Note::PurgedFill, Note::Acknowledged]);
}

#[test]
fn no_read_is_stale_while_a_reader_that_is_cut_off_serves_by_itself() {
    let must = [Note::OwnHit, Note::Lost, Note::ReleasedByTime, Note::Withdrawn];
    cut_off(Fault::None).holds_near(&must);
}

#[test]
fn no_read_is_stale_while_a_reader_without_a_lease_serves_by_itself() {
    cut_off_after_its_lease().holds_near(&[Note::OwnHit, Note::Lost, Note::Withdrawn]);
}

#[test]
fn no_loss_is_seen_while_the_reader_is_starved() {
    let found = starved_reader().holds_near(&[Note::LeasedHit, Note::StrictHit]);
    assert!(!found.notes.contains_key(&Note::Lost), "Redis replies all the time");
}

#[test]
fn the_checker_notices_that_a_late_reply_is_a_loss() {
    starved_reader().fails(Fault::LateIsLost);
}

#[test]
fn the_checker_notices_that_silent_peers_are_forgotten() {
    cut_off(Fault::NoAbsence).fails(Fault::NoAbsence);
}

#[test]
fn the_checker_notices_that_a_peer_without_a_lease_counts_as_ended() {
    cut_off_after_its_lease().fails(Fault::LeaveIsEnd);
}

#[test]
fn the_checker_notices_that_the_fill_check_is_off() {
    fill().fails(Fault::NoFillCheck);
}

#[test]
fn the_checker_notices_that_the_fence_is_off() {
    restart_at_failover().fails(Fault::NoFence);
}

#[test]
fn the_checker_notices_that_the_lease_is_off() {
    paused_reader().fails(Fault::NoLease);
}

#[test]
fn the_checker_notices_that_peers_are_not_waited_for() {
    paused_reader().fails(Fault::NoWait);
}

#[test]
fn the_checker_notices_that_a_connection_is_mended_unseen() {
    unseen_failover().fails(Fault::MendedUnseen);
}
