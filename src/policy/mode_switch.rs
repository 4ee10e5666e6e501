//! Switches: for a time, a route caches less than `proxy.toml` says.
//!
//! Owns what a switch is, and which ones hold. Knows neither Redis nor a clock: times are
//! arguments.
//!
//! Invariants:
//! - A switch takes away and never gives. What holds for a route is the most careful of its mode
//!   in the file, the switch for all routes and the switch of the route ([`RouteMode::and`]). A
//!   route that the file has off stays off, whatever is switched.
//! - A switch ends by itself, after [`MAX_SWITCH_TIME`] at the latest. There is one for each route
//!   and one for all routes at most: another one for the same target takes its place.
//! - Promise 3 does not depend on switches: a route that is switched off goes on purging for its
//!   writes, as one with `mode = "off"` does, so that what is served after the end of the switch
//!   is no older than the last write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Wall;
use crate::policy::route::{RouteMode, Routes};

/// The most switches at a time.
pub const MAX_SWITCHES: usize = 256;

/// How long a switch holds unless something else is asked for.
pub const DEFAULT_SWITCH_TIME: Duration = Duration::from_hours(1);

/// The longest that a switch may hold.
pub const MAX_SWITCH_TIME: Duration = Duration::from_hours(24);

/// What stands for all routes, where switches have names. No route has this name: paths begin with
/// a slash.
const ALL: &str = "*";

/// The routes that a switch is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SwitchTarget {
    /// All of them.
    All,
    /// The one with this path in `proxy.toml`.
    Route(Arc<str>),
}

impl SwitchTarget {
    /// The target of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        if name == ALL { Self::All } else { Self::Route(name.into()) }
    }

    /// Its name: the path of the route, or an asterisk.
    #[must_use]
    pub fn name(&self) -> &str {
        self.route().unwrap_or(ALL)
    }

    /// The path of the route; `None` for all of them.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Route(path) => Some(path),
        }
    }

    /// Whether these routes are there.
    #[must_use]
    pub fn is_known(&self, routes: &Routes) -> bool {
        self.route().is_none_or(|path| routes.iter().any(|route| route.name() == path))
    }
}

/// What a switch makes of a route. There is none that turns a route on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchMode {
    /// Every request goes to the origin.
    Off,
    /// The same, and the sidecar notes what the cache would have done.
    Shadow,
}

impl SwitchMode {
    /// The mode of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Off, Self::Shadow].into_iter().find(|mode| mode.as_str() == word)
    }

    /// The word in the API and in Redis.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.to_mode().as_str()
    }

    /// The mode that it asks of a route.
    #[must_use]
    pub const fn to_mode(self) -> RouteMode {
        match self {
            Self::Off => RouteMode::Off,
            Self::Shadow => RouteMode::Shadow,
        }
    }
}

/// The id of a switch, by which all sidecars know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchId(pub u64);

/// Who has set or ended a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchedBy {
    /// The admin API of this sidecar.
    Admin,
    /// Another sidecar of the namespace, through Redis.
    Peer,
    /// Nobody: its time is over.
    Time,
    /// A reload: the route is gone.
    Reload,
}

impl SwitchedBy {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Peer, Self::Time, Self::Reload];

    /// The word in events, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Peer => "peer",
            Self::Time => "time",
            Self::Reload => "reload",
        }
    }
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeSwitch {
    /// Its id.
    pub id: SwitchId,
    /// The routes that it is for.
    pub target: SwitchTarget,
    /// What it makes of them.
    pub mode: SwitchMode,
    /// When it ends, by this process's own count.
    pub until: Wall,
    /// Who has set it.
    pub by: SwitchedBy,
    /// Whether it is in Redis, where the other sidecars find it.
    pub shared: bool,
}

/// There are [`MAX_SWITCHES`] switches already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySwitches;

/// The switches that hold.
#[derive(Debug, Default)]
pub struct SwitchTable(BTreeMap<SwitchTarget, ModeSwitch>);

impl SwitchTable {
    /// Adds a switch. Returns the one whose place it takes.
    pub fn set(&mut self, switch: ModeSwitch) -> Result<Option<ModeSwitch>, TooManySwitches> {
        if self.0.len() >= MAX_SWITCHES && !self.0.contains_key(&switch.target) {
            return Err(TooManySwitches);
        }
        Ok(self.0.insert(switch.target.clone(), switch))
    }

    /// The switch of this target.
    #[must_use]
    pub fn get(&self, target: &SwitchTarget) -> Option<&ModeSwitch> {
        self.0.get(target)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, target: &SwitchTarget) -> Option<&mut ModeSwitch> {
        self.0.get_mut(target)
    }

    /// All of them: first the one for all routes, then by path.
    pub fn iter(&self) -> impl Iterator<Item = &ModeSwitch> {
        self.0.values()
    }

    /// Takes out those of which this is true.
    pub fn take_if(&mut self, mut is_out: impl FnMut(&ModeSwitch) -> bool) -> Vec<ModeSwitch> {
        let (out, kept) = std::mem::take(&mut self.0).into_iter().partition(|(_, s)| is_out(s));
        self.0 = kept;
        BTreeMap::into_values(out).collect()
    }

    /// Takes out those whose time is over.
    pub fn take_ended(&mut self, now: Wall) -> Vec<ModeSwitch> {
        self.take_if(|switch| switch.until <= now)
    }

    /// When the next one ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Wall> {
        self.iter().map(|switch| switch.until).min()
    }

    /// The switch that decides for a route: the more careful of its own and the one for all; of
    /// two alike, the one that ends later.
    #[must_use]
    pub fn deciding(&self, route: &str) -> Option<&ModeSwitch> {
        let own = self.0.get(&SwitchTarget::from_name(route));
        let all = self.0.get(&SwitchTarget::All);
        all.into_iter().chain(own).max_by_key(|s| (s.mode == SwitchMode::Off, s.until))
    }

    fn mode_of(&self, route: &str) -> RouteMode {
        self.deciding(route).map_or(RouteMode::On, |switch| switch.mode.to_mode())
    }

    /// Whether a route caches more by this table than it does now.
    #[must_use]
    pub fn relaxes(&self, routes: &Routes) -> bool {
        routes.iter().any(|route| {
            let (now, then) = (route.switched.get(), self.mode_of(route.name()));
            now != then && now.and(then) == now
        })
    }

    /// Makes each of these routes do what its switches say.
    pub fn apply(&self, routes: &Routes) {
        for route in routes.iter() {
            route.switch(self.mode_of(route.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(name: &str, mode: SwitchMode, until: u64) -> ModeSwitch {
        ModeSwitch {
            id: SwitchId(until),
            target: SwitchTarget::from_name(name),
            mode,
            until: Wall(until),
            by: SwitchedBy::Admin,
            shared: false,
        }
    }

    #[test]
    fn the_more_careful_of_the_switches_and_the_file_holds() {
        use RouteMode::{Off, On, Shadow};

        let modes = [None, Some(SwitchMode::Shadow), Some(SwitchMode::Off)];
        for file in [On, Shadow, Off] {
            for all in modes {
                for own in modes {
                    let mut table = SwitchTable::default();
                    for (name, mode) in [("*", all), ("/a", own)] {
                        if let Some(mode) = mode {
                            table.set(switch(name, mode, 10)).expect("room");
                        }
                    }
                    let held = file.and(table.mode_of("/a"));
                    let wanted = [Off, Shadow].into_iter().find(|mode| {
                        file == *mode
                            || [all, own].into_iter().flatten().any(|one| one.to_mode() == *mode)
                    });
                    assert_eq!(held, wanted.unwrap_or(On), "{file:?} {all:?} {own:?}");
                    let others = all.map_or(On, SwitchMode::to_mode);
                    assert_eq!(table.mode_of("/b"), others, "{all:?} {own:?}");
                }
            }
        }
    }

    #[test]
    fn the_switch_that_is_told_is_the_one_that_lasts() {
        let mut table = SwitchTable::default();
        table.set(switch("*", SwitchMode::Shadow, 30)).expect("room");
        table.set(switch("/a", SwitchMode::Off, 10)).expect("room");
        assert_eq!(table.deciding("/a").map(|switch| switch.until), Some(Wall(10)));
        table.set(switch("*", SwitchMode::Off, 30)).expect("room");
        assert_eq!(table.deciding("/a").map(|switch| switch.until), Some(Wall(30)));
        assert_eq!(table.next_end(), Some(Wall(10)));
        assert_eq!(table.take_ended(Wall(9)), []);
        assert_eq!(table.take_ended(Wall(10)).len(), 1, "it ends at its end");
        assert_eq!((table.iter().count(), table.next_end()), (1, Some(Wall(30))));
    }

    #[test]
    fn there_is_one_switch_for_each_target_and_a_most_of_them() {
        let mut table = SwitchTable::default();
        for at in 0..MAX_SWITCHES {
            assert_eq!(table.set(switch(&format!("/{at}"), SwitchMode::Off, 9)), Ok(None));
        }
        assert_eq!(table.set(switch("/one-more", SwitchMode::Off, 9)), Err(TooManySwitches));
        let replaced = table.set(switch("/7", SwitchMode::Shadow, 10));
        assert_eq!(replaced, Ok(Some(switch("/7", SwitchMode::Off, 9))));
        assert_eq!(table.iter().count(), MAX_SWITCHES);
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for name in ["*", "/", "/a/{id}"] {
            assert_eq!(SwitchTarget::from_name(name).name(), name);
        }
        assert_eq!(SwitchTarget::from_name("*"), SwitchTarget::All);
        for mode in [SwitchMode::Off, SwitchMode::Shadow] {
            assert_eq!(SwitchMode::from_word(mode.as_str()), Some(mode));
        }
        assert_eq!(SwitchMode::from_word("on"), None, "no switch turns a route on");
    }
}
