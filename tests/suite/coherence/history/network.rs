//! The network fails: everybody or one sidecar is cut off from Redis, in ways that are told and in
//! ways that are not.

use std::time::Duration;

use tokio::time::sleep;

use super::stage::Stage;
use super::verdict::Round;
use super::{LONG, REJOIN, STRICT};
use crate::support::Fault;
use crate::support::history::{Kind, Operation};

/// The sidecar that is cut off.
const APART: usize = 0;

/// A sidecar that may not be able to tell the others of a write lets none through: of such a run no
/// read may be stale either, whoever is cut off from Redis while others are not. It takes Redis for
/// lost only when it is: what a busy machine holds up is not to be refused.
const REFUSE: &str = "deadline = \"500ms\"\non_redis_loss = \"bypass\"\nwrites = \"refuse\"";
/// It lets them through, and makes up for it when it rejoins.
const FORWARD: &str = "on_redis_loss = \"memory\"\ndegraded_ttl = \"500ms\"\nwrites = \"forward\"";
const DEGRADED_TTL: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_hangs_behind_live_connections() {
    let fault = async |stage: &mut Stage| {
        stage.proxies.iter().for_each(|proxy| proxy.set(Fault::Freeze));
        sleep(LONG).await;
        stage.proxies.iter().for_each(|proxy| proxy.set(Fault::None));
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_redis_is_heard_no_more_and_hears_everything() {
    let fault = async |stage: &mut Stage| {
        stage.proxies.iter().for_each(|proxy| proxy.set(Fault::FreezeAnswers));
        sleep(LONG).await;
        stage.proxies.iter().for_each(|proxy| proxy.set(Fault::None));
    };
    Stage::set(STRICT).await.run(fault).await.is_coherent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_connections_break_again_and_again() {
    let fault = async |stage: &mut Stage| {
        for turn in 0..12 {
            let proxy = &stage.proxies[turn % stage.proxies.len()];
            proxy.set(Fault::Cut);
            sleep(Duration::from_millis(100)).await;
            proxy.set(Fault::Delay(Duration::from_millis(20)));
            sleep(Duration::from_millis(150)).await;
            proxy.set(Fault::None);
            // Long enough for a write now and then: it waits for whoever was cut off.
            sleep(Duration::from_millis(250)).await;
        }
    };
    Stage::set(REFUSE).await.run(fault).await.is_coherent_but(|_, _| false, refused_meanwhile);
}

/// One sidecar cannot reach Redis for a time.
async fn apart(stage: &Stage, fault: Fault) {
    stage.proxies[APART].set(fault);
    sleep(LONG).await;
    stage.proxies[APART].set(Fault::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_that_refuses_writes_is_cut_off_in_silence() {
    refusing(Fault::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_that_refuses_writes_is_cut_off_by_resets() {
    refusing(Fault::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_stale_when_one_sidecar_that_refuses_writes_is_heard_by_redis_and_hears_nothing()
{
    refusing(Fault::FreezeAnswers).await;
}

async fn refusing(fault: Fault) {
    let run = Stage::set(REFUSE).await.run(async |stage| apart(stage, fault).await).await;
    run.is_coherent_but(
        |_, _| false,
        |one, round| one.through == APART && refused_meanwhile(one, round),
    );
    let refused = run.history.operations().iter().filter(|one| one.status == 503).count();
    assert!(refused > 0, "it never had to refuse anything");
}

/// What is refused is refused in so many words, and nothing but writes is, and nothing while all is
/// well.
fn refused_meanwhile(one: &Operation, round: &Round) -> bool {
    one.kind == Kind::Write
        && one.status == 503
        && round.broken <= one.done
        && one.sent < round.healed + REJOIN
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_writes_through_a_sidecar_that_is_cut_off_are_missed_and_only_until_it_rejoins() {
    let run = Stage::set(FORWARD).await.run(async |stage| apart(stage, Fault::Freeze).await).await;
    let forwarded = |one: &&Operation, round: &Round| {
        one.through == APART && round.broken <= one.sent && one.done < round.healed
    };
    let writes =
        run.history.operations().iter().filter(|one| one.kind == Kind::Write && one.succeeded());
    assert!(
        writes.filter(|one| run.rounds.iter().any(|round| forwarded(one, round))).count() > 0,
        "it was never written through"
    );
    run.is_coherent_but(
        |one, round| {
            let meanwhile = round.broken <= one.read.sent && one.read.sent < round.healed + REJOIN;
            let from_its_memory = one.read.through == APART && one.age() <= DEGRADED_TTL;
            meanwhile
                && (from_its_memory
                    || (one.read.through != APART && one.missed_only_writes_through(APART)))
        },
        |_, _| false,
    );
}
