//! The apps behind one sidecar, and which of them a request is for.
//!
//! Invariants:
//! 1. *A request is for one app.* It is found from the authority that the request was sent to, and
//!    from nothing else, so that every look finds the same one. What names no host is for the app
//!    of `[upstream]`.
//! 2. *An app has its own routes and purge rules.* A rule is for one app, and is not even looked at
//!    for a request of another one.
//! 3. *No app is given what another one has answered.* The name of the app is in the fingerprint of
//!    each route, with which every key begins; its origin's identity is in the key as well, once a
//!    reload has put another one in its place.
//! 4. Tags are common to all apps: a write of one app may purge what another one shows, where its
//!    rule says so.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use crate::policy::fill_constants::FillConstants;
use crate::policy::request_match::split_port;
use crate::semantics::forward;
use crate::semantics::request_fields::host_line;

/// The most apps beside that of `[upstream]`.
pub const MAX_APPS: usize = 32;

/// The most hosts of one app.
pub const MAX_HOSTS: usize = 64;

/// The place of an app in its file: 0 is that of `[upstream]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(u8);

impl AppId {
    /// The app of `[upstream]`, to which every host goes that no other app has.
    pub const FIRST: Self = Self(0);

    /// The app with this place among all.
    #[must_use]
    pub fn at(place: usize) -> Self {
        Self(u8::try_from(place).unwrap_or(u8::MAX))
    }

    /// The app with this place among `[[apps]]`, from 0.
    #[must_use]
    pub fn of_listed(place: usize) -> Self {
        Self::at(place + 1)
    }

    /// Its place among all apps.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The app that a rule is for.
#[derive(Clone, Debug, Default)]
pub struct RuleApp {
    /// Its place in the file.
    pub id: AppId,
    /// Its name; none for that of `[upstream]`.
    pub name: Option<Arc<str>>,
}

/// What the rules know of one app.
#[derive(Clone, Debug, Default)]
pub struct AppRules {
    /// Its name; none for that of `[upstream]`.
    pub name: Option<Arc<str>>,
    /// What the requests of all its fills have in common.
    pub fill: FillConstants,
    /// The host that all its requests count for, lower-case. None: each for its own.
    pub host_key: Option<Box<str>>,
    /// Which origin answers for it, if a reload has put another one in the place of the first. It
    /// is part of the key, so that what one has answered is never served for another.
    pub origin: Option<[u8; 8]>,
}

/// Which hosts are of which app.
#[derive(Clone, Debug, Default)]
pub struct AppHosts {
    exact: HashMap<Box<str>, AppId>,
    /// By what follows the `*.`.
    below: HashMap<Box<str>, AppId>,
}

impl AppHosts {
    /// Gives a host to an app: a name or an address without a port, lower-case; or `*.` and a name,
    /// for every host below that. Returns the app that has it already.
    pub fn insert(&mut self, host: &str, app: AppId) -> Option<AppId> {
        let (list, host) = match host.strip_prefix("*.") {
            Some(parent) => (&mut self.below, Cow::Borrowed(parent)),
            None => (&mut self.exact, one_spelling(host)),
        };
        if let Some(known) = list.get(&*host) {
            return Some(*known);
        }
        list.insert(host.into(), app);
        None
    }

    /// The app of a host in lower case: the one that names it, else the one with the longest name
    /// above it, else that of `[upstream]`. Neither the port nor a final dot counts.
    #[must_use]
    pub fn of(&self, host: &str) -> AppId {
        if self.exact.is_empty() && self.below.is_empty() {
            return AppId::FIRST;
        }
        let (name, _) = split_port(host);
        if let Some(app) = self.exact.get(&*one_spelling(name)) {
            return *app;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(app) = self.below.get(parent) {
                return *app;
            }
            rest = parent;
        }
        AppId::FIRST
    }

    /// A host of each kind that these tell apart.
    pub fn samples(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let below = self.below.keys().map(|parent| Cow::Owned(format!("any.{parent}")));
        self.exact.keys().map(|host| Cow::Borrowed(&**host)).chain(below)
    }

    /// Whether some host is of the app `now` here, and of `then` by others.
    #[must_use]
    pub fn meets(&self, now: AppId, others: &Self, then: AppId) -> bool {
        // What no app names is of the first one.
        (now == AppId::FIRST && then == AppId::FIRST)
            || self
                .samples()
                .chain(others.samples())
                .any(|host| self.of(&host) == now && others.of(&host) == then)
    }
}

/// A host in the one spelling that it has here: addresses of IPv6 have many.
fn one_spelling(host: &str) -> Cow<'_, str> {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        Some(address) => Cow::Owned(format!("[{address}]")),
        None => Cow::Borrowed(host),
    }
}

/// All apps of a file.
#[derive(Clone, Debug, Default)]
pub struct Apps {
    hosts: Arc<AppHosts>,
    first: AppRules,
    /// Those of `[[apps]]`.
    listed: Box<[AppRules]>,
}

impl Apps {
    /// Of a file with these apps: that of `[upstream]`, and those of `[[apps]]`.
    #[must_use]
    pub fn new(hosts: Arc<AppHosts>, first: AppRules, listed: Box<[AppRules]>) -> Self {
        Self { hosts, first, listed }
    }

    /// The app of one origin alone.
    #[must_use]
    pub fn single(first: AppRules) -> Self {
        Self { first, ..Self::default() }
    }

    /// The app that a request is for.
    #[must_use]
    pub fn of(&self, uri: &Uri, headers: &HeaderMap) -> AppId {
        if self.listed.is_empty() {
            return AppId::FIRST;
        }
        self.hosts.of(&authority(uri, headers))
    }

    /// The app of a host, as a client may write it.
    #[must_use]
    pub fn of_host(&self, host: &str) -> AppId {
        self.hosts.of(&host.to_ascii_lowercase())
    }

    /// What is known of an app.
    #[must_use]
    pub fn get(&self, app: AppId) -> &AppRules {
        match app.index().checked_sub(1) {
            None => &self.first,
            Some(place) => self.listed.get(place).unwrap_or(&self.first),
        }
    }

    /// All of them, that of `[upstream]` first.
    pub fn iter(&self) -> impl Iterator<Item = &AppRules> {
        std::iter::once(&self.first).chain(&self.listed)
    }

    /// Whether there are more than that of `[upstream]`.
    #[must_use]
    pub fn are_several(&self) -> bool {
        !self.listed.is_empty()
    }
}

/// The authority that the request was sent to, lower-case and without the default port.
#[must_use]
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Cow<'a, str> {
    let host = uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| host_line(headers)?.to_str().ok())
        .unwrap_or_default();
    let host = forward::without_default_port(host, uri);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[(&str, usize)]) -> AppHosts {
        let mut hosts = AppHosts::default();
        for (host, place) in list {
            assert_eq!(hosts.insert(host, AppId::of_listed(*place)), None, "{host}");
        }
        hosts
    }

    #[test]
    fn a_host_is_of_the_app_that_names_it_most_exactly() {
        let all = hosts(&[
            ("shop.test", 0),
            ("*.shop.test", 1),
            ("old.shop.test", 0),
            ("*.eu.shop.test", 2),
            ("[0:0::1]", 2),
        ]);
        for (host, place) in [
            ("shop.test", Some(0)),
            ("shop.test:8080", Some(0)),
            ("shop.test.", Some(0)),
            ("shop.test.:81", Some(0)),
            ("old.shop.test", Some(0)),
            ("a.shop.test", Some(1)),
            ("a.b.shop.test:1", Some(1)),
            ("eu.shop.test", Some(1)),
            ("a.eu.shop.test", Some(2)),
            ("[::1]:80", Some(2)),
            ("[0:0:0:0:0:0:0:1]", Some(2)),
            ("[::2]", None),
            ("", None),
            ("test", None),
            ("xshop.test", None),
            ("shop.test.evil", None),
            ("shop.test:80.evil", None),
            ("*.shop.test", Some(1)),
        ] {
            let expected = place.map_or(AppId::FIRST, AppId::of_listed);
            assert_eq!(all.of(host), expected, "{host}");
        }
        assert_eq!(AppHosts::default().of("shop.test"), AppId::FIRST);
    }

    #[test]
    fn a_host_is_of_one_app() {
        let mut all = hosts(&[("a.test", 0), ("*.a.test", 1)]);
        assert_eq!(all.insert("a.test", AppId::of_listed(2)), Some(AppId::of_listed(0)));
        assert_eq!(all.insert("*.a.test", AppId::of_listed(2)), Some(AppId::of_listed(1)));
        assert_eq!(all.of("a.test"), AppId::of_listed(0));
    }

    #[test]
    fn apps_of_two_files_meet_where_a_host_is_of_both() {
        let [one, two] = [0, 1].map(AppId::of_listed);
        let now = hosts(&[("a.test", 0), ("*.b.test", 1)]);
        let then = hosts(&[("*.b.test", 0)]);
        for (new, old, is) in [
            (AppId::FIRST, AppId::FIRST, true),
            (one, AppId::FIRST, true),
            (one, one, false),
            (two, one, true),
            (two, AppId::FIRST, false),
            (AppId::FIRST, one, false),
        ] {
            assert_eq!(now.meets(new, &then, old), is, "{new:?} {old:?}");
            assert_eq!(then.meets(old, &now, new), is, "{old:?} {new:?}");
        }
    }
}
