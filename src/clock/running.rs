//! Waits that count only the time in which this process runs.

use std::time::{Duration, Instant};

/// How often a [`wait_while_running`] looks, and the most that one look counts for.
pub const RUNNING_STEP: Duration = Duration::from_millis(50);

/// The shortest step: what timers can tell apart.
const SHORTEST_STEP: Duration = Duration::from_millis(1);

/// How many limits of wall-clock time a [`wait_while_running`] may take.
const WALL_LIMITS: u32 = 10;

/// Waits for a future for this long, counting only time in which this process ran; `None` if it was
/// not ready by then.
///
/// A process that was stopped, or that gets little of the processor, finds its timers late and the
/// replies that came meanwhile unread. So the wait is made of steps (of [`RUNNING_STEP`], or half
/// the limit if that is shorter), and one that took longer counts as one. The wait as a whole ends
/// after ten limits by the clock, of which one step is at most one.
pub async fn wait_while_running<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let length = RUNNING_STEP.min(limit / 2).max(SHORTEST_STEP);
    let (mut ran, mut passed) = (Duration::ZERO, Duration::ZERO);
    while ran < limit && passed < limit.saturating_mul(WALL_LIMITS) {
        let began = Instant::now();
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = tokio::time::sleep(length) => {}
        }
        let step = began.elapsed();
        ran += step.min(length);
        passed += step.min(limit);
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_stop_of_the_process_does_not_end_a_wait_for_what_came_meanwhile() {
        let (sender, receiver) = oneshot::channel();
        // The one thread of this runtime stands still for longer than the limit.
        tokio::spawn(async move {
            std::thread::sleep(LIMIT * 3);
            let _ = sender.send("came");
        });
        assert_eq!(wait_while_running(LIMIT, receiver).await, Some(Ok("came")));
    }

    #[tokio::test]
    async fn silence_while_the_process_runs_ends_a_wait() {
        let began = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(wait_while_running(LIMIT, never).await, None);
        assert!(began.elapsed() >= LIMIT, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_process_that_hardly_runs_waits_for_ten_limits_at_most() {
        let began = Instant::now();
        let limit = Duration::from_millis(20);
        // Every step is late by more than the limit, and counts as half of one.
        tokio::spawn(async {
            loop {
                std::thread::sleep(Duration::from_millis(50));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(wait_while_running(limit, std::future::pending::<()>()).await, None);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
