//! One source: the task that connects and listens, again and again, beside that which purges.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::due::TemplateSet;
use super::listener::SourceListener;
use super::queue::PurgeQueue;
use super::settings::SourceKind;
use super::status::SourceState;
use crate::clock::Clock;

/// The pause before the next attempt: it starts here, doubles up to the longest, and starts again
/// once a source has listened for [`STEADY`].
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a source has listened for its connection to count as a good one.
const STEADY: Duration = Duration::from_secs(10);

/// Runs a source until it is ended.
pub(super) async fn run(queue: Arc<PurgeQueue>, end: CancellationToken) {
    let purging = tokio::spawn(Arc::clone(&queue).purge_until(end.clone()));
    let _ = end.run_until_cancelled(listen(&queue)).await;
    queue.status.end_session(SourceState::Stopped, None, queue.context.clock.wall());
    // What was told before the end is purged.
    let _ = purging.await;
}

/// Connects and listens for ever.
async fn listen(queue: &Arc<PurgeQueue>) {
    let clock = &queue.context.clock;
    let (mut session, mut pause) = (0, RETRY.0);
    loop {
        session += 1;
        queue.status.begin_session(session);
        let began = clock.now();
        let listener = SourceListener::new(Arc::clone(queue), session);
        let why = hear(&queue.settings.kind, &listener, clock).await;
        deafen(queue, &why);
        if clock.now().saturating_duration_since(began) >= STEADY {
            pause = RETRY.0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Listens on one connection, and says why that has ended.
async fn hear(kind: &SourceKind, listener: &SourceListener, clock: &Clock) -> String {
    match kind {
        SourceKind::RedisStream(settings) => {
            Box::pin(super::stream::listen(settings, listener)).await
        }
        SourceKind::Poll(settings) => {
            Box::pin(super::poll::listen(settings, listener, clock.clone())).await
        }
        SourceKind::File(settings) => super::file::listen(settings, listener).await,
        #[cfg(feature = "mysql")]
        SourceKind::Mysql(settings) => {
            Box::pin(super::mysql::listen(settings, listener, clock.clone())).await
        }
        #[cfg(not(feature = "mysql"))]
        SourceKind::Mysql(_) => {
            let _ = listener;
            std::future::pending().await
        }
        SourceKind::Webhook(_) => {
            listener.receives();
            std::future::pending().await
        }
        #[cfg(feature = "postgres")]
        SourceKind::Postgres(settings) => super::postgres::listen(settings, listener).await,
        #[cfg(not(feature = "postgres"))]
        SourceKind::Postgres(_) => {
            let _ = listener;
            std::future::pending().await
        }
    }
}

/// Nothing is heard from now on.
fn deafen(queue: &PurgeQueue, why: &str) {
    let now = queue.context.clock.wall();
    let before = queue.status.end_session(SourceState::Deaf, Some(why), now);
    let source = &*queue.settings.name;
    if before == SourceState::Deaf {
        tracing::debug!(source, why, "a source is still deaf");
        return;
    }
    tracing::warn!(
        source,
        why,
        "a source is deaf: what it could purge is purged, and stored for `degraded_ttl` at most"
    );
    // In this order: see the invariant of `unheard`.
    queue.publish_unheard();
    if before == SourceState::Listening {
        queue.status.counters.gaps.inc();
    }
    queue.add(Vec::new(), TemplateSet::ALL);
}
