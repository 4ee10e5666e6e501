//! Whether the sidecar can serve: the interface through which `/ready` and the events ask.

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
    /// Why the sidecar is degraded or not ready. A sidecar without its Redis still serves: it is
    /// ready but degraded.
    pub degraded: Vec<String>,
}

impl Ready {
    /// The state as one word.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (self.ready, self.degraded.is_empty()) {
            (true, true) => "ready",
            (true, false) => "degraded",
            (false, _) => "unready",
        }
    }
}
