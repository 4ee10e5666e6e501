//! Whether the sidecar can serve: the interface through which `/ready` and the events ask.

use http::StatusCode;

/// Reports whether the sidecar can serve.
pub trait Readiness: Send + Sync {
    /// The current state. Must not block.
    fn state(&self) -> Ready;
}

/// Whether the sidecar can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// False while the sidecar drains: traffic should go elsewhere.
    pub ready: bool,
    /// Why the sidecar is degraded or not ready. A sidecar without its Redis, or whose origin does
    /// not answer, still serves: it is ready but degraded.
    pub degraded: Vec<String>,
}

/// Whether the sidecar can serve, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// All is well.
    Ready,
    /// It serves, with restrictions.
    Degraded,
    /// Traffic should go elsewhere.
    Unready,
}

impl ReadyState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Degraded, Self::Unready];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unready => "unready",
        }
    }

    /// The status of `/ready`.
    #[must_use]
    pub const fn http_status(self) -> StatusCode {
        match self {
            Self::Ready | Self::Degraded => StatusCode::OK,
            Self::Unready => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What it means, for the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "All is well, or no request has found out otherwise.",
            Self::Degraded => {
                "It serves, with restrictions: the app does not answer (hits are served, the rest \
                 gets a 502 or 504), Redis is lost, is trusted again soon or is slower than \
                 `deadline`, there is no lease, or a changed file was rejected. `reasons` says \
                 which."
            }
            Self::Unready => "It drains: traffic should go elsewhere.",
        }
    }
}

impl Ready {
    /// The state.
    #[must_use]
    pub const fn state(&self) -> ReadyState {
        match (self.ready, self.degraded.is_empty()) {
            (true, true) => ReadyState::Ready,
            (true, false) => ReadyState::Degraded,
            (false, _) => ReadyState::Unready,
        }
    }

    /// The state as one word.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        self.state().as_str()
    }
}
