//! Why Redis cannot be used: told once for each change, from its loss until it is in use again.

use parking_lot::Mutex;

use crate::redis::RedisFault;

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
}

impl FaultNotices {
    /// What is wrong.
    pub(super) fn current(&self) -> Option<RedisFault> {
        self.state.lock().current.clone()
    }

    /// Notes what is wrong. The same at the same server is no news, whatever its words.
    pub(super) fn note(&self, fault: RedisFault) {
        let mut state = self.state.lock();
        let is_same =
            |known: &RedisFault| (known.kind, &known.address) == (fault.kind, &fault.address);
        if !state.current.as_ref().is_some_and(is_same) {
            *state = FaultState { current: Some(fault), is_told: false };
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
