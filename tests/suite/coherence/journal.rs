//! The journal in a file: what was answered to a client is purged in Redis after the next start,
//! however the sidecar ended.

use std::time::Duration;

use tempfile::TempDir;

use crate::support::child::ChildSidecar;
use crate::support::origin::{VERSIONED_RULES, versioned};
use crate::support::{Client, Origin, Point, RedisServer, Sidecar, eventually};

const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// Where in a write the sidecar is killed.
#[derive(Clone, Copy, PartialEq)]
enum Killed {
    /// The client has its answer.
    AfterTheAnswer,
    /// The app has committed, and the sidecar does not know.
    BeforeTheAnswer,
}

/// Redis is frozen, so that it keeps what it holds and takes no purge; the sidecar that forwards a
/// write is killed. Once Redis goes on, the other sidecar has old hits, until the killed one starts
/// anew.
async fn survives_sigkill(killed: Killed) {
    let folder = TempDir::new().expect("a temporary directory can be made");
    let redis = RedisServer::start();
    let app = Origin::start(versioned());
    let journal = format!("journal = \"{}\"\n", folder.path().join("journal").display());
    let (own, others) = (
        format!("{}{journal}{VERSIONED_RULES}", redis.table()),
        format!("{}{VERSIONED_RULES}", redis.table()),
    );
    let upstream = format!("url = \"http://{}\"", app.address);
    let mut dying = ChildSidecar::spawn(&upstream, &own).await;
    let staying = Sidecar::start(app.address, &others).await;
    let read = async || Client::new(staying.address).get("/v/a", &[]).await;
    for address in [dying.address, staying.address] {
        eventually("it has a hit from Redis", LONG_ENOUGH, async || {
            Client::new(address).get("/v/a", &[]).await.cache() == "HIT"
        })
        .await;
    }

    redis.freeze();
    let hold = (killed == Killed::BeforeTheAnswer).then(|| app.hold("PUT", "/w/a", Point::After));
    let mut client = Client::new(dying.address);
    let write = tokio::spawn(async move { client.try_send("PUT", "/w/a", &[], "").await });
    match &hold {
        Some(hold) => hold.arrived().await,
        None => assert_eq!(
            write.await.expect("the client does not panic").expect("an answer").status,
            200
        ),
    }
    dying.signal("KILL");
    dying.end(LONG_ENOUGH).await;
    drop(hold);
    redis.thaw();
    eventually("the other sidecar has old hits", LONG_ENOUGH, async || {
        let reply = read().await;
        (reply.cache(), reply.text()) == ("HIT", "0")
    })
    .await;

    let _anew = ChildSidecar::spawn(&upstream, &own).await;
    eventually("the purge reaches the other sidecar", LONG_ENOUGH, async || {
        read().await.text() == "1"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_kept_for_redis_survives_sigkill_after_the_answer() {
    survives_sigkill(Killed::AfterTheAnswer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_kept_for_redis_survives_sigkill_between_commit_and_answer() {
    survives_sigkill(Killed::BeforeTheAnswer).await;
}
