//! The one timer of a connection: decides when it has been idle, slow or stalled for too long.
//!
//! Owns the arithmetic of the limits: after each poll of the connection it returns an action. The
//! timer is never moved for a request: when it fires, the state of the connection decides what
//! follows.

use std::time::{Duration, Instant};

use super::connection_state::{ConnectionStage, ConnectionState, StageMark};
use crate::clock::Clock;

/// How often a connection that serves a request is checked: for a client that has gone, and for a
/// request that has ended unnoticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a client has to close after the server has closed its side, and to finish a head that
/// it had begun when the shutdown started.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an HTTP/2 client without a request has to answer the ping that comes with a GOAWAY. One
/// that does not is gone, and nothing is in flight.
const WORD_TIMEOUT: Duration = Duration::from_secs(2);

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeoutLimits {
    pub head: Duration,
    pub idle: Duration,
    pub write: Duration,
    pub half_closed: Duration,
}

/// What a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerAction {
    /// Nothing: wait for the socket, or for the timer as it is set.
    Wait,
    /// Set the timer.
    SetTimer(Duration),
    /// Ask the socket whether the client is gone.
    Probe,
    /// Close when nothing is in flight.
    Retire,
    /// Close now.
    Close(Timeout),
}

/// Which limit a connection has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    Head,
    Idle,
    Write,
    /// The client has closed its side, and the response to it made no progress.
    HalfClosed,
    /// The client did not close after the server had closed its side. Nothing is lost.
    Close,
}

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct ConnectionTimer {
    limits: TimeoutLimits,
    clock: Clock,
    mark: StageMark,
    since: Instant,
    /// When the timer fires. In the past until it is first set.
    deadline: Instant,
    /// The timer has to be set, whether or not it has fired.
    needs_timer: bool,
}

impl ConnectionTimer {
    pub(super) fn new(limits: TimeoutLimits, clock: Clock, state: &ConnectionState) -> Self {
        let now = clock.now();
        Self { limits, clock, mark: state.mark(), since: now, deadline: now, needs_timer: true }
    }

    /// The action for a connection that has just been polled. `fired`: the timer has fired and was
    /// not set since. `leaving`: the connection closes when nothing is in flight.
    pub(super) fn next_action(
        &mut self,
        state: &ConnectionState,
        fired: bool,
        leaving: bool,
    ) -> TimerAction {
        let is_due = fired || self.needs_timer;
        let mark = state.mark();
        if mark == self.mark && !is_due {
            return TimerAction::Wait;
        }
        let now = self.clock.now();
        if mark != self.mark {
            self.mark = mark;
            self.since = now;
        }
        let limit = self.limit(state, leaving);
        let deadline = self.since + limit;
        if deadline <= now {
            self.since = now;
            return self.on_timeout(state, leaving);
        }
        if is_due || deadline < self.deadline {
            self.deadline = deadline;
            self.needs_timer = false;
            return TimerAction::SetTimer(deadline - now);
        }
        TimerAction::Wait
    }

    /// Restarts the present stage with the limits of a connection that is leaving.
    pub(super) fn restart(&mut self) {
        self.since = self.clock.now();
        self.deadline = self.since;
        self.needs_timer = true;
    }

    fn limit(&self, state: &ConnectionState, leaving: bool) -> Duration {
        let limits = &self.limits;
        match self.mark.stage {
            ConnectionStage::Head if leaving => limits.head.min(LINGER_TIMEOUT),
            ConnectionStage::Head => limits.head,
            ConnectionStage::Idle if leaving => LINGER_TIMEOUT,
            ConnectionStage::Quiet if leaving && !state.has_word() => WORD_TIMEOUT,
            // An HTTP/2 connection that got a GOAWAY may still be sending what a small window holds
            // back.
            ConnectionStage::Quiet if leaving => CHECK_INTERVAL,
            ConnectionStage::Idle | ConnectionStage::Quiet => limits.idle,
            ConnectionStage::Busy => CHECK_INTERVAL,
            ConnectionStage::HalfClosed => limits.half_closed,
            ConnectionStage::Blocked => limits.write,
            ConnectionStage::Lingering => LINGER_TIMEOUT,
        }
    }

    fn on_timeout(&self, state: &ConnectionState, leaving: bool) -> TimerAction {
        match self.mark.stage {
            ConnectionStage::Head => TimerAction::Close(Timeout::Head),
            ConnectionStage::Idle if leaving => TimerAction::Close(Timeout::Idle),
            ConnectionStage::Idle => TimerAction::Retire,
            ConnectionStage::Quiet if !leaving => TimerAction::Retire,
            ConnectionStage::Quiet if !state.has_word() => TimerAction::Close(Timeout::Idle),
            ConnectionStage::Quiet | ConnectionStage::Busy => TimerAction::Probe,
            ConnectionStage::Blocked => TimerAction::Close(Timeout::Write),
            ConnectionStage::HalfClosed => TimerAction::Close(Timeout::HalfClosed),
            ConnectionStage::Lingering => TimerAction::Close(Timeout::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::framing::StreamPosition;
    use super::*;

    const LIMITS: TimeoutLimits = TimeoutLimits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        write: Duration::from_mins(1),
        half_closed: Duration::from_secs(5),
    };

    fn timer() -> (ConnectionTimer, Arc<ConnectionState>, Clock) {
        let (clock, state) = (Clock::manual(), Arc::new(ConnectionState::default()));
        let mut timer = ConnectionTimer::new(LIMITS, clock.clone(), &state);
        assert!(matches!(
            timer.next_action(&state, true, false),
            TimerAction::SetTimer(after) if after > Duration::from_secs(74)
        ));
        (timer, state, clock)
    }

    #[test]
    fn the_timer_is_not_moved_for_requests() {
        let (mut timer, state, clock) = timer();
        let busy = state.busy();
        assert!(
            matches!(timer.next_action(&state, false, false), TimerAction::SetTimer(_)),
            "once, for the first round"
        );
        drop(busy);
        for _ in 0..3 {
            drop(state.begin());
            assert_eq!(timer.next_action(&state, false, false), TimerAction::Wait);
        }
        clock.advance(CHECK_INTERVAL);
        assert!(matches!(
            timer.next_action(&state, true, false),
            TimerAction::SetTimer(after) if after > Duration::from_secs(69)
        ));
    }

    #[test]
    fn a_head_has_an_absolute_limit_however_often_a_byte_comes() {
        let (mut timer, state, clock) = timer();
        state.set_position(StreamPosition::Head);
        assert!(matches!(timer.next_action(&state, false, false), TimerAction::SetTimer(_)));
        clock.advance(Duration::from_secs(6));
        assert_eq!(timer.next_action(&state, false, false), TimerAction::Wait);
        clock.advance(Duration::from_secs(6));
        assert_eq!(timer.next_action(&state, true, false), TimerAction::Close(Timeout::Head));
    }

    #[test]
    fn a_request_is_probed_and_never_ended() {
        let (mut timer, state, clock) = timer();
        let _busy = state.busy();
        timer.next_action(&state, false, false);
        for _ in 0..100 {
            clock.advance(CHECK_INTERVAL);
            assert_eq!(timer.next_action(&state, true, false), TimerAction::Probe);
        }
    }

    #[test]
    fn a_half_closed_client_has_its_time_anew_with_each_byte_and_a_write_has_no_limit() {
        let (mut timer, state, clock) = timer();
        let _busy = state.busy();
        state.set_half_closed();
        for _ in 0..10 {
            clock.advance(CHECK_INTERVAL);
            assert!(
                !matches!(timer.next_action(&state, true, false), TimerAction::Close(_)),
                "nothing says that the request may be given up"
            );
        }
        state.departure().set_expendable();
        for _ in 0..3 {
            assert!(matches!(timer.next_action(&state, true, false), TimerAction::SetTimer(_)));
            clock.advance(Duration::from_secs(4));
            state.set_taken();
        }
        assert!(matches!(timer.next_action(&state, true, false), TimerAction::SetTimer(_)));
        clock.advance(Duration::from_secs(5));
        assert_eq!(timer.next_action(&state, true, false), TimerAction::Close(Timeout::HalfClosed));
    }

    #[test]
    fn a_slow_reader_lives_and_one_that_stopped_does_not() {
        let (mut timer, state, clock) = timer();
        for _ in 0..3 {
            state.set_blocked(clock.now());
            timer.next_action(&state, false, false);
            clock.advance(Duration::from_secs(50));
            state.set_unblocked();
        }
        state.set_blocked(clock.now());
        assert!(matches!(timer.next_action(&state, true, false), TimerAction::SetTimer(_)));
        clock.advance(Duration::from_secs(61));
        assert_eq!(timer.next_action(&state, true, false), TimerAction::Close(Timeout::Write));
    }

    #[test]
    fn an_http2_client_that_leaves_has_to_say_a_word() {
        let (mut timer, state, clock) = timer();
        state.set_position(StreamPosition::Opaque);
        timer.restart();
        state.await_word();
        assert!(matches!(timer.next_action(&state, true, true), TimerAction::SetTimer(_)));
        state.note_word();
        for _ in 0..100 {
            clock.advance(CHECK_INTERVAL);
            assert_eq!(timer.next_action(&state, true, true), TimerAction::Probe, "it is slow");
        }
        state.await_word();
        clock.advance(WORD_TIMEOUT);
        assert_eq!(timer.next_action(&state, true, true), TimerAction::Close(Timeout::Idle));
    }
}
