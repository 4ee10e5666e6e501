//! A request whose client leaves before its response begins: it is dropped where it stands, and
//! here it is counted, logged and traced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use http::HeaderMap;

use crate::outcome::{Outcome, Reason};
use crate::policy::route::Route;
use crate::proxy::access_log::AccessRecord;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::resources::Resources;
use crate::proxy::response;
use crate::proxy::response::ProxyResponse;
use crate::semantics::body::Body;
use crate::shares::Departure;
use crate::telemetry::metrics::RequestRecord;

/// A request that has no response yet. Dropping it says that its client has left.
pub(super) struct PendingRequest<'a> {
    resources: &'a Resources,
    config: &'a ActiveConfig,
    departure: &'a Departure,
    record: Option<AccessRecord>,
    since: Instant,
    /// One more than the index of its route, where that is known.
    route: AtomicUsize,
    /// Whether it goes by the policy for guests.
    guest: AtomicBool,
    answered: bool,
}

impl<'a> PendingRequest<'a> {
    pub(super) const fn new(
        resources: &'a Resources,
        config: &'a ActiveConfig,
        departure: &'a Departure,
        record: Option<AccessRecord>,
        since: Instant,
    ) -> Self {
        let (route, answered) = (AtomicUsize::new(0), false);
        let guest = AtomicBool::new(false);
        Self { resources, config, departure, record, since, route, guest, answered }
    }

    /// It is known whether a route matches, and which.
    pub(super) fn set_route(&self, route: Option<usize>) {
        self.route.store(route.map_or(0, |route| route + 1), Relaxed);
    }

    /// It goes by this route's policy.
    pub(super) fn set_guest(&self, route: Option<&Arc<Route>>) {
        if route.is_some_and(|route| route.is_for_guests()) {
            self.guest.store(true, Relaxed);
        }
    }

    /// Whether it goes by the policy for guests, so that its response says nothing of its caller.
    pub(super) fn is_guest(&self) -> bool {
        self.guest.load(Relaxed)
    }

    /// There is a response. Returns what its line in the log needs.
    pub(super) fn answer(&mut self) -> Option<AccessRecord> {
        self.answered = true;
        self.record.take()
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        // A panic is answered with a 500, and has a line of its own.
        if !self.answered && !std::thread::panicking() {
            self.abandon();
        }
    }
}

impl PendingRequest<'_> {
    #[cold]
    fn abandon(&mut self) {
        let Self { resources, config, departure, since, .. } = *self;
        let duration = resources.clock.now().duration_since(since);
        let route = self.route.load(Relaxed).checked_sub(1);
        let (reason, subject) = (Reason::ClientGone, departure.why_ended().map(Into::into));
        let outcome = Outcome { subject, ..Outcome::bypass(reason) };
        resources.counters.abandoned.inc();
        let (disposition, saved) = (outcome.disposition, None);
        let status = reason.failure_status();
        let counted = RequestRecord { disposition, reason: Some(reason), status, duration, saved };
        config.table.request(route, &counted);
        if let Some(record) = self.record.take() {
            let (headers, body) = (HeaderMap::new(), Body::empty());
            let response = response::assemble(status, headers, body);
            let answered = ProxyResponse { response, outcome, route };
            record.write(&answered, &config.rules, duration, resources);
        }
    }
}
