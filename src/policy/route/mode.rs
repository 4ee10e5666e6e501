//! Whether a route caches: by the file, and by a switch that holds for a time.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a route caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteMode {
    /// It caches.
    On,
    /// It does not cache: every request goes to the origin.
    Off,
    /// It does not cache, and reports what it would have served, and where that would have been
    /// wrong.
    Shadow,
}

impl RouteMode {
    /// The more careful of two modes: `off`, then `shadow`, then `on`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Off, _) | (_, Self::Off) => Self::Off,
            (Self::Shadow, _) | (_, Self::Shadow) => Self::Shadow,
            (Self::On, Self::On) => Self::On,
        }
    }

    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Shadow => "shadow",
        }
    }
}

/// The mode that the switches of a route ask for: `on` without any. Every request of the route
/// reads it, so it is one byte that is read without an order: no other memory depends on it.
#[derive(Debug, Default)]
pub struct SwitchedMode(AtomicU8);

impl SwitchedMode {
    const SHADOW: u8 = 1;
    const OFF: u8 = 2;

    /// The mode that is asked for.
    #[must_use]
    pub fn get(&self) -> RouteMode {
        match self.0.load(Ordering::Relaxed) {
            0 => RouteMode::On,
            Self::SHADOW => RouteMode::Shadow,
            _ => RouteMode::Off,
        }
    }

    /// Asks for another mode.
    pub fn set(&self, mode: RouteMode) {
        let word = match mode {
            RouteMode::On => 0,
            RouteMode::Shadow => Self::SHADOW,
            RouteMode::Off => Self::OFF,
        };
        self.0.store(word, Ordering::Relaxed);
    }
}
