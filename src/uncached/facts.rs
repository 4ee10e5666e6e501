//! What is known of one template. Bounded: counts, and a few names with theirs.

use std::time::Duration;

use http::Method;

use crate::policy::known_headers;
use crate::policy::route::headers::{
    HARMLESS, IMPLICIT, NEGOTIATED, SUBSTITUTED, TRANSPORT, WITHHELD,
};
use crate::telemetry::log::printable;
use crate::uncached::observation::{MAX_HEADER, MAX_PARAMETER, ReadFacts, ResponseFacts};
use crate::uncached::repeats::Seen;

/// The most names of parameters, and of headers, that are counted for one template.
pub const MAX_NAMES: usize = 16;

/// Counts of names that strangers choose. The rarest one gives its place away, with its count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(Box<str>, u64)>);

impl Names {
    fn add(&mut self, name: &str, count: u64) {
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| **known == *name) {
            *known += count;
        } else if self.0.len() < MAX_NAMES {
            self.0.push((name.into(), count));
        } else if let Some(rarest) = self.0.iter_mut().min_by_key(|(_, count)| *count) {
            *rarest = (name.into(), rarest.1 + count);
        }
    }

    /// The names that at least so many requests had, the most frequent first.
    pub fn frequent(&self, least: u64) -> Vec<(&str, u64)> {
        let all = self.0.iter().map(|(name, count)| (&**name, *count));
        let mut all: Vec<(&str, u64)> = all.filter(|(_, count)| *count >= least).collect();
        all.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(two.0)));
        all
    }

    fn halve(&mut self) {
        self.0.retain_mut(|(_, count)| {
            *count /= 2;
            *count > 0
        });
    }

    fn merge(&mut self, other: Self) {
        for (name, count) in other.0 {
            self.add(&name, count);
        }
    }
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What is known of one template. What is older than an hour counts half, than two hours a
        /// quarter, and so on.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Facts {
            $($(#[$doc])* pub $name: u64,)+
            /// The names of query parameters.
            pub parameters: Names,
            /// The names of the requests' headers.
            pub headers: Names,
            /// The methods of writes.
            pub writes: Names,
        }

        impl Facts {
            /// An hour has passed.
            pub fn halve(&mut self) {
                $(self.$name /= 2;)+
                self.parameters.halve();
                self.headers.halve();
                self.writes.halve();
            }

            /// Two templates become one.
            pub fn merge(&mut self, other: Self) {
                $(self.$name += other.$name;)+
                self.parameters.merge(other.parameters);
                self.headers.merge(other.headers);
                self.writes.merge(other.writes);
            }
        }
    };
}

facts! {
    /// Reads; of a sample, those that it stands for. All counts down to `compared` are like that.
    requests,
    /// Those that were looked at.
    observed,
    /// The time that the app took for them, in microseconds.
    micros,
    /// The time, in microseconds, that another template may have had whose place this one took.
    error,
    /// Reads that the app answered with a 2xx, or a 304.
    found,
    /// Those answered with a 206.
    partial,
    /// Those that became a WebSocket.
    upgraded,
    /// Those answered with an event stream.
    streams,
    /// Those that set a cookie.
    set_cookie,
    /// Those that set the session of the request again, and no other cookie.
    renewed_sessions,
    /// Those with a sign of a protected form, unless the page was searched and has none.
    forms,
    /// `Cache-Control: no-store`.
    no_store,
    /// `Cache-Control: no-cache`.
    no_cache,
    /// `Cache-Control: private`.
    private,
    /// `Vary: *`.
    varies_on_all,
    /// Downloads.
    attachments,
    /// Requests with `Authorization`, or a header of `[credential]`.
    credentials,
    /// Requests with cookies.
    cookies,
    /// Requests with a JWT in `Authorization`.
    jwts,
    /// Responses that were compared with what came before. These were looked at, each of them, and
    /// so were those below.
    compared,
    /// Those that the same caller had got within the time of a cache.
    hits,
    /// Those that were others than what the same caller had got.
    changed,
    /// Those that some caller had got.
    shared_hits,
    /// Those that were others than what another caller had got.
    by_caller,
    /// Writes that the app carried out.
    mutations,
}

/// Whether a route has no place for a header unless the file gives it one.
#[must_use]
pub fn is_unkeyed(name: &str) -> bool {
    const KNOWN: [&[&str]; 7] = [
        TRANSPORT,
        SUBSTITUTED,
        HARMLESS,
        NEGOTIATED,
        IMPLICIT,
        WITHHELD,
        &["authorization", "cookie"],
    ];
    !KNOWN.iter().any(|names| names.contains(&name))
        && !known_headers::is_known(name)
        && !name.starts_with("sec-fetch-")
        && !name.starts_with("sec-ch-")
}

impl Facts {
    /// What decides which template loses its place: time, and something for each request, so that
    /// an app that answers at once has a list, too.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.micros + self.error + self.requests + self.mutations
    }

    /// The time that the app took.
    #[must_use]
    pub const fn time(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// A read, and what a cache would have had for it: for this caller, and for all.
    pub fn read(
        &mut self,
        read: &ReadFacts,
        response: &ResponseFacts,
        took: Duration,
        seen: Option<(Seen, Seen)>,
    ) {
        let weight = read.sample.weight;
        if weight > 0 {
            self.observed += 1;
            self.count(read, response, took, weight);
        }
        let add = |count: &mut u64, is: bool| *count += u64::from(is);
        if let Some((own, shared)) = seen {
            self.compared += 1;
            add(&mut self.hits, own == Seen::Same);
            add(&mut self.changed, matches!(own, Seen::Changed { .. }));
            add(&mut self.shared_hits, shared == Seen::Same);
            add(&mut self.by_caller, shared == Seen::Changed { by_caller: true });
        }
    }

    /// Counts a read that stands for so many.
    fn count(&mut self, read: &ReadFacts, response: &ResponseFacts, took: Duration, weight: u64) {
        let add = |count: &mut u64, is: bool| *count += if is { weight } else { 0 };
        self.requests += weight;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 16);
        self.micros = self.micros.saturating_add(micros.saturating_mul(weight));
        add(&mut self.found, matches!(response.status, 200..=299 | 304));
        add(&mut self.partial, response.status == 206);
        add(&mut self.upgraded, response.status == 101);
        add(&mut self.streams, response.is_stream);
        add(&mut self.set_cookie, response.sets_cookie);
        add(&mut self.renewed_sessions, response.renews_session);
        let guards = response.guards_forms || read.guards_forms;
        // A page that sets such a cookie is made for its reader, whatever is in it.
        let has_form = response.guards_forms || !response.has_no_form;
        add(&mut self.forms, guards && response.is_html && has_form);
        add(&mut self.no_store, response.no_store);
        add(&mut self.no_cache, response.no_cache);
        add(&mut self.private, response.private);
        add(&mut self.varies_on_all, response.varies_on_all);
        add(&mut self.attachments, response.is_attachment);
        add(&mut self.credentials, read.has_credential);
        add(&mut self.cookies, read.has_cookies);
        add(&mut self.jwts, read.has_jwt);
        for name in &read.parameters {
            self.parameters.add(&printable(name, MAX_PARAMETER), weight);
        }
        for name in read.headers.iter().filter(|name| is_unkeyed(name.as_str())) {
            self.headers.add(&printable(name.as_str(), MAX_HEADER), weight);
        }
    }

    /// A write that the app has carried out.
    pub fn write(&mut self, method: &Method) {
        self.mutations += 1;
        let known = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let name = if known.contains(method) { method.as_str() } else { "other" };
        self.writes.add(name, 1);
    }
}
