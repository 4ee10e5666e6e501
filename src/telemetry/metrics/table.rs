//! Maps the routes of one set of rules, by their index, to the rows that they count in.
//!
//! Rows outlive the rules. After a reload a route finds its row by its name and continues to count.
//! The counts of a removed route stay, because Prometheus would take a counter that vanishes or
//! restarts for a restart of the process. There are at most [`MAX_ROWS`], so that endless reloads
//! do not grow this without limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::row::{BodySource, RequestRecord, Row};
use crate::outcome::{Disposition, LifetimeSource};

/// The most routes that have a row of their own in the life of a process. Further routes share one
/// row, named `other`.
pub const MAX_ROWS: usize = 4096;

/// The name for requests without a route. Routes' names are patterns, which begin with `/`, so they
/// cannot collide with it.
pub const NONE: &str = "none";
/// The name of the row that routes beyond [`MAX_ROWS`] share.
const OTHER: &str = "other";

/// All rows.
#[derive(Debug)]
pub(super) struct Rows {
    none: Arc<Row>,
    by_name: HashMap<Arc<str>, Arc<Row>>,
    other: Option<Arc<Row>>,
    limit: usize,
}

impl Rows {
    pub(super) fn new(limit: usize) -> Self {
        Self { none: Arc::new(Row::new(NONE.into())), by_name: HashMap::new(), other: None, limit }
    }

    pub(super) fn table(&mut self, names: impl IntoIterator<Item = String>) -> RouteTable {
        let rows = names.into_iter().map(|name| self.row(&name)).collect();
        RouteTable { none: Arc::clone(&self.none), rows }
    }

    /// `none` first, then by name, then `other`.
    pub(super) fn all(&self) -> Vec<Arc<Row>> {
        let mut named: Vec<_> = self.by_name.values().collect();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        std::iter::once(&self.none).chain(named).chain(&self.other).cloned().collect()
    }

    fn row(&mut self, name: &str) -> Arc<Row> {
        if let Some(row) = self.by_name.get(name) {
            return Arc::clone(row);
        }
        if self.by_name.len() >= self.limit {
            return Arc::clone(self.other.get_or_insert_with(|| Arc::new(Row::new(OTHER.into()))));
        }
        let name: Arc<str> = name.into();
        let row = Arc::new(Row::new(Arc::clone(&name)));
        self.by_name.insert(name, Arc::clone(&row));
        row
    }
}

/// Counts for the routes of one set of rules. A route's index is its position in the rules. Two
/// routes of one name count together.
///
/// Counting needs no lock, no lookup and no allocation. A route that is not in the table counts as
/// `none`, so that neither the count is lost nor the request fails.
#[derive(Debug)]
pub struct RouteTable {
    none: Arc<Row>,
    rows: Box<[Arc<Row>]>,
}

impl RouteTable {
    /// Counts a request.
    #[inline]
    pub fn request(&self, route: Option<usize>, record: &RequestRecord) {
        self.row(route).request(record);
    }

    /// Counts a response of the origin, with the time from sending the request to the head of the
    /// response.
    #[inline]
    pub fn origin(&self, route: Option<usize>, duration: Duration) {
        self.row(route).origin(duration);
    }

    /// Notes how long a response that is being stored is fresh, and by whose word.
    pub fn stored(&self, route: Option<usize>, lifetime: Duration, from: LifetimeSource) {
        self.row(route).stored(lifetime, from);
    }

    /// How long the response that was stored last is fresh, and by whose word; `None` if none was.
    #[must_use]
    pub fn lifetime(&self, route: Option<usize>) -> Option<(Duration, LifetimeSource)> {
        self.row(route).lifetime()
    }

    /// Counts the bytes of a response body that is in memory.
    #[inline]
    pub fn bytes(&self, route: Option<usize>, source: BodySource, bytes: u64) {
        self.row(route).bytes(source, bytes);
    }

    /// Counts the bytes of a response body as they arrive.
    #[must_use]
    pub fn meter(&self, route: Option<usize>, source: BodySource) -> Meter {
        Meter { row: Arc::clone(self.row(route)), source }
    }

    /// How many requests of a route ended in this disposition. Adds up a hundred numbers.
    #[must_use]
    pub fn total(&self, route: usize, disposition: Disposition) -> u64 {
        self.row(Some(route)).count(disposition)
    }

    #[inline]
    fn row(&self, route: Option<usize>) -> &Arc<Row> {
        route.and_then(|route| self.rows.get(route)).unwrap_or(&self.none)
    }
}

/// Counts the bytes of one response's body.
#[derive(Debug)]
pub struct Meter {
    row: Arc<Row>,
    source: BodySource,
}

impl Meter {
    /// Adds bytes.
    #[inline]
    pub fn add(&self, bytes: u64) {
        self.row.bytes(self.source, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIT: RequestRecord = RequestRecord {
        disposition: Disposition::Hit,
        reason: None,
        status: http::StatusCode::OK,
        duration: Duration::ZERO,
        saved: None,
    };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn hits(rows: &Rows) -> Vec<(String, u64)> {
        rows.all().iter().map(|row| (row.name.to_string(), row.count(Disposition::Hit))).collect()
    }

    #[test]
    fn a_route_continues_its_counts_in_the_next_table_at_another_index() {
        let mut rows = Rows::new(MAX_ROWS);
        let first = rows.table(names(&["/b", "/a"]));
        first.request(Some(0), &HIT);
        let second = rows.table(names(&["/c", "/a", "/b"]));
        second.request(Some(2), &HIT);
        // A request that began under the old rules still counts for its own route.
        first.request(Some(0), &HIT);
        second.request(Some(0), &HIT);
        let expected = [("none", 0), ("/a", 0), ("/b", 3), ("/c", 1)]
            .map(|(name, hits)| (name.to_owned(), hits));
        assert_eq!(hits(&rows), expected);
    }

    #[test]
    fn the_counts_of_a_removed_route_stay() {
        let mut rows = Rows::new(MAX_ROWS);
        rows.table(names(&["/a"])).request(Some(0), &HIT);
        let _ = rows.table(Vec::new());
        assert_eq!(hits(&rows)[1], ("/a".to_owned(), 1));
    }

    #[test]
    fn routes_beyond_the_limit_share_a_row() {
        let mut rows = Rows::new(2);
        for round in 0..10 {
            let table = rows.table(names(&["/a", &format!("/{round}"), &format!("/{round}x")]));
            (0..3).for_each(|route| table.request(Some(route), &HIT));
        }
        let expected = [("none", 0), ("/0", 1), ("/a", 10), ("other", 19)]
            .map(|(name, hits)| (name.to_owned(), hits));
        assert_eq!(hits(&rows), expected);
    }

    #[test]
    fn an_unknown_route_counts_as_none() {
        let mut rows = Rows::new(MAX_ROWS);
        let table = rows.table(names(&["/a"]));
        table.request(Some(7), &HIT);
        table.request(None, &HIT);
        assert_eq!(hits(&rows), [("none".to_owned(), 2), ("/a".to_owned(), 0)]);
    }

    #[test]
    fn a_meter_counts_for_its_route_and_source() {
        let mut rows = Rows::new(MAX_ROWS);
        let table = rows.table(names(&["/a"]));
        let meter = table.meter(Some(0), BodySource::Origin);
        meter.add(5);
        meter.add(6);
        table.bytes(Some(0), BodySource::Cache, 7);
        let view = rows.all()[1].view();
        assert_eq!((view.bytes_from_origin, view.bytes_from_cache), (11, 7));
    }
}
