//! The count of requests by route, disposition and reason: a fixed table of numbers, found by arithmetic.
//!
//! Knows the closed enums of `outcome`, and routes by their index alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::counter::{STRIPES, stripe};
use crate::outcome::{Disposition, Reason};

/// Columns of one disposition: no reason, then each reason.
const REASONS: usize = Reason::ALL.len() + 1;
/// Columns of one route.
const COLUMNS: usize = Disposition::ALL.len() * REASONS;
/// From one row to the next: the columns, and a gap of a cache-line pair, so that the rows of two threads never share a line.
const STRIDE: usize = (COLUMNS + 16).next_multiple_of(16);

/// One count of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The route's index; none for requests without a route.
    pub(super) route: Option<usize>,
    /// What happened to the requests.
    pub(super) disposition: Disposition,
    /// Why.
    pub(super) reason: Option<Reason>,
    /// How many there were.
    pub(super) count: u64,
}

/// The table. About 2 KiB for each route and stripe; there are no more stripes than cores.
pub(super) struct Requests {
    routes: usize,
    stripes: usize,
    // By stripe, then row (0 is "no route"), then disposition and reason.
    counts: Box<[AtomicU64]>,
}

impl Requests {
    pub(super) fn new(routes: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with_stripes(routes, cores.min(STRIPES))
    }

    fn with_stripes(routes: usize, stripes: usize) -> Self {
        let counts = (0..stripes * (routes + 1) * STRIDE).map(|_| AtomicU64::new(0)).collect();
        Self { routes, stripes, counts }
    }

    /// Counts one request. A route that the table does not have counts as none: the number must not get lost, nor a request fail for it.
    #[inline]
    pub(super) fn inc(&self, route: Option<usize>, disposition: Disposition, reason: Option<Reason>) {
        let row = route.filter(|route| *route < self.routes).map_or(0, |route| route + 1);
        let column = disposition as usize * REASONS + reason.map_or(0, |reason| reason as usize + 1);
        self.counts[self.index(stripe() % self.stripes, row, column)].fetch_add(1, Ordering::Relaxed);
    }

    /// Every count that is not zero, in the order of routes, dispositions and reasons.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cell> + '_ {
        (0..=self.routes).flat_map(move |row| {
            Disposition::ALL.iter().enumerate().flat_map(move |(at, disposition)| {
                (0..REASONS).filter_map(move |reason| {
                    let count = self.sum(row, at * REASONS + reason);
                    let reason = reason.checked_sub(1).map(|reason| Reason::ALL[reason]);
                    (count > 0).then_some(Cell { route: row.checked_sub(1), disposition: *disposition, reason, count })
                })
            })
        })
    }

    fn sum(&self, row: usize, column: usize) -> u64 {
        (0..self.stripes).map(|stripe| self.counts[self.index(stripe, row, column)].load(Ordering::Relaxed)).sum()
    }

    const fn index(&self, stripe: usize, row: usize, column: usize) -> usize {
        (stripe * (self.routes + 1) + row) * STRIDE + column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_are_positions_in_all() {
        // `inc` goes by the discriminant, `cells` by the position.
        assert!(Disposition::ALL.iter().enumerate().all(|(at, disposition)| *disposition as usize == at));
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }

    #[test]
    fn every_combination_has_a_place_of_its_own() {
        let requests = Requests::with_stripes(2, 2);
        let reasons = || std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some));
        for route in [None, Some(0), Some(1)] {
            for disposition in Disposition::ALL {
                for reason in reasons() {
                    requests.inc(route, disposition, reason);
                    let counted = |cell: &Cell| (cell.route, cell.disposition, cell.reason) == (route, disposition, reason);
                    assert_eq!(requests.cells().find(counted).map(|cell| cell.count), Some(1));
                }
            }
        }
        assert_eq!(requests.cells().count(), 3 * COLUMNS);
    }

    #[test]
    fn an_unknown_route_counts_as_none() {
        let requests = Requests::with_stripes(1, 1);
        requests.inc(Some(7), Disposition::Hit, None);
        let cell = Cell { route: None, disposition: Disposition::Hit, reason: None, count: 1 };
        assert_eq!(requests.cells().collect::<Vec<_>>(), [cell]);
    }

    #[test]
    fn a_route_costs_little_memory() {
        let per_stripe = STRIDE * size_of::<AtomicU64>();
        assert!(per_stripe <= 4096, "{per_stripe} bytes per route and stripe");
    }
}
