//! The one timer of a connection: says when it has idled, dawdled or stalled for too long.
//!
//! Owns the arithmetic of limits; it is asked after each turn of the connection and answers with an order. A timer is never
//! moved for a request: it rings when it rings, and what the connection does then decides what is next.

use std::time::{Duration, Instant};

use super::connection_state::{Mark, Stage, State};
use crate::clock::Clock;

/// How often a connection that serves a request is looked at: for a client that is gone, and for a request that has ended unnoticed.
const ROUND: Duration = Duration::from_secs(5);

/// How long a client has to close after us, and to finish a head that it had begun when the server was told to stop.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The limits that the patrol knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub head: Duration,
    pub idle: Duration,
    pub write: Duration,
}

/// What a connection shall do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing: wait for the socket, or for the timer as it is set.
    Rest,
    /// Set the timer anew.
    Ring(Duration),
    /// Ask the socket whether the client is gone.
    Probe,
    /// Close when nothing is under way.
    Retire,
    /// Close now.
    End(Overdue),
}

/// Which limit a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Head,
    Idle,
    Write,
    /// A client that did not close after us. Nothing is lost.
    Close,
}

/// The patrol of one connection.
#[derive(Debug)]
pub(super) struct Patrol {
    limits: Limits,
    clock: Clock,
    mark: Mark,
    since: Instant,
    /// When the timer rings. In the past until it is first set.
    armed: Instant,
}

impl Patrol {
    pub(super) fn new(limits: Limits, clock: Clock, state: &State) -> Self {
        let now = clock.now();
        Self { limits, clock, mark: state.mark(), since: now, armed: now }
    }

    /// The order for a connection that has had its turn. `rang`: the timer has run out and was not set since.
    /// `leaving`: it was told to close when nothing is under way.
    pub(super) fn inspect(&mut self, state: &State, rang: bool, leaving: bool) -> Order {
        let mark = state.mark();
        if mark == self.mark && !rang {
            return Order::Rest;
        }
        let now = self.clock.now();
        if mark != self.mark {
            self.mark = mark;
            self.since = now;
        }
        let limit = self.limit(leaving);
        let deadline = self.since + limit;
        if deadline <= now {
            self.since = now;
            return self.overdue(leaving);
        }
        if rang || deadline < self.armed {
            self.armed = deadline;
            return Order::Ring(deadline - now);
        }
        Order::Rest
    }

    /// Counts the present stage from now on, with the limits of a connection that is leaving, and sets the timer by them.
    pub(super) fn restart(&mut self) {
        self.since = self.clock.now();
        self.armed = self.since;
    }

    fn limit(&self, leaving: bool) -> Duration {
        let limits = &self.limits;
        match self.mark.stage {
            Stage::Head if leaving => limits.head.min(LAST_WORDS),
            Stage::Head => limits.head,
            Stage::Idle if leaving => LAST_WORDS,
            // An HTTP/2 connection that was told to go away may still be sending what a small window holds back.
            Stage::Quiet if leaving => ROUND,
            Stage::Idle | Stage::Quiet => limits.idle,
            Stage::Busy => ROUND,
            Stage::Blocked => limits.write,
            Stage::Lingering => LAST_WORDS,
        }
    }

    const fn overdue(&self, leaving: bool) -> Order {
        match self.mark.stage {
            Stage::Head => Order::End(Overdue::Head),
            Stage::Idle if leaving => Order::End(Overdue::Idle),
            Stage::Idle => Order::Retire,
            Stage::Quiet if !leaving => Order::Retire,
            Stage::Quiet | Stage::Busy => Order::Probe,
            Stage::Blocked => Order::End(Overdue::Write),
            Stage::Lingering => Order::End(Overdue::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::framing::Place;
    use super::*;

    const LIMITS: Limits = Limits { head: Duration::from_secs(10), idle: Duration::from_secs(75), write: Duration::from_mins(1) };

    fn patrol() -> (Patrol, Arc<State>, Clock) {
        let (clock, state) = (Clock::manual(), Arc::new(State::default()));
        let mut patrol = Patrol::new(LIMITS, clock.clone(), &state);
        assert!(matches!(patrol.inspect(&state, true, false), Order::Ring(after) if after > Duration::from_secs(74)));
        (patrol, state, clock)
    }

    #[test]
    fn the_timer_is_not_moved_for_requests() {
        let (mut patrol, state, clock) = patrol();
        let busy = state.busy();
        assert!(matches!(patrol.inspect(&state, false, false), Order::Ring(_)), "once, for the first round");
        drop(busy);
        for _ in 0..3 {
            drop(state.begin());
            assert_eq!(patrol.inspect(&state, false, false), Order::Rest);
        }
        clock.advance(ROUND);
        assert!(matches!(patrol.inspect(&state, true, false), Order::Ring(after) if after > Duration::from_secs(69)));
    }

    #[test]
    fn a_head_has_an_absolute_limit_however_often_a_byte_comes() {
        let (mut patrol, state, clock) = patrol();
        state.set_place(Place::Head);
        assert!(matches!(patrol.inspect(&state, false, false), Order::Ring(_)));
        clock.advance(Duration::from_secs(6));
        assert_eq!(patrol.inspect(&state, false, false), Order::Rest);
        clock.advance(Duration::from_secs(6));
        assert_eq!(patrol.inspect(&state, true, false), Order::End(Overdue::Head));
    }

    #[test]
    fn a_request_is_probed_and_never_ended() {
        let (mut patrol, state, clock) = patrol();
        let _busy = state.busy();
        patrol.inspect(&state, false, false);
        for _ in 0..100 {
            clock.advance(ROUND);
            assert_eq!(patrol.inspect(&state, true, false), Order::Probe);
        }
    }

    #[test]
    fn a_slow_reader_lives_and_one_that_stopped_does_not() {
        let (mut patrol, state, clock) = patrol();
        for _ in 0..3 {
            state.set_blocked();
            patrol.inspect(&state, false, false);
            clock.advance(Duration::from_secs(50));
            state.set_unblocked();
        }
        state.set_blocked();
        assert!(matches!(patrol.inspect(&state, true, false), Order::Ring(_)));
        clock.advance(Duration::from_secs(61));
        assert_eq!(patrol.inspect(&state, true, false), Order::End(Overdue::Write));
    }
}
