//! Why Redis cannot be used: told once for each change, from its loss until it is in use again.

use parking_lot::Mutex;

use crate::redis::{NothingWrong, RedisFault};

/// How often in a row a call has to fail at a server that answers everything else.
const ENOUGH_DOUBTS: u32 = 3;

/// What is wrong with Redis, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct FaultNotices {
    state: Mutex<FaultState>,
}

#[derive(Debug, Default)]
struct FaultState {
    current: Option<RedisFault>,
    /// Whether the log has it.
    is_told: bool,
    /// How often in a row a call had failed while nothing was wrong with the server.
    doubts: u32,
}

impl FaultNotices {
    /// What is wrong.
    pub(super) fn current(&self) -> Option<RedisFault> {
        self.state.lock().current.clone()
    }

    /// Notes what is wrong. The same at the same server is no news, whatever its words. That a call
    /// fails while nothing is wrong with the server counts when it comes [`ENOUGH_DOUBTS`] times
    /// in a row: a process that is short of CPU makes calls fail.
    pub(super) fn note(&self, found: Result<RedisFault, NothingWrong>) {
        let mut state = self.state.lock();
        let (doubts, fault) = match found {
            Ok(fault) => (0, fault),
            Err(NothingWrong(fault)) => (state.doubts.saturating_add(1), fault),
        };
        state.doubts = doubts;
        if (1..ENOUGH_DOUBTS).contains(&doubts) {
            return;
        }
        let is_same =
            |known: &RedisFault| (known.kind, &known.address) == (fault.kind, &fault.address);
        if !state.current.as_ref().is_some_and(is_same) {
            *state = FaultState { current: Some(fault), is_told: false, doubts };
        }
    }

    /// Tells it, if that is news. Returns whether anything is known.
    pub(super) fn tell(&self) -> bool {
        let mut state = self.state.lock();
        let is_told = std::mem::replace(&mut state.is_told, true);
        let Some(fault) = &state.current else {
            state.is_told = false;
            return false;
        };
        if !is_told {
            let (address, cause, remedy) = (&fault.address, fault.cause(), fault.kind.remedy());
            tracing::warn!(
                address,
                cause,
                remedy,
                "Redis cannot be used; serving without it until it can"
            );
        }
        true
    }

    /// Redis is in use.
    pub(super) fn end(&self) {
        *self.state.lock() = FaultState::default();
    }
}

#[cfg(test)]
mod tests {
    use crate::redis::FaultKind;

    use super::*;

    fn fault(kind: FaultKind) -> RedisFault {
        RedisFault { kind, address: "h:1".to_owned(), detail: String::new() }
    }

    #[test]
    fn a_call_that_fails_at_a_sound_server_is_a_fault_when_it_does_so_again_and_again() {
        let notices = FaultNotices::default();
        let doubt = || Err(NothingWrong(fault(FaultKind::Silent)));
        let known = fault(FaultKind::NoPermission);
        notices.note(doubt());
        notices.note(doubt());
        assert!(notices.current().is_none() && !notices.tell());
        notices.note(Ok(known.clone()));
        notices.note(doubt());
        notices.note(doubt());
        assert_eq!(notices.current(), Some(known));
        notices.note(doubt());
        assert_eq!(notices.current(), Some(fault(FaultKind::Silent)));
        notices.end();
        notices.note(doubt());
        assert!(notices.current().is_none(), "a new loss begins anew");
    }
}
