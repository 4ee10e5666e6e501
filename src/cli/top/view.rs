//! A frame as lines of text that fit a terminal: columns that do not fit are left out, the least
//! important ones first, and the names of routes are cut.

use super::frame::{Frame, RouteFrame};
use crate::cli::api_types::{ApiTag, ApiTimes};
use crate::cli::format::sum;
use crate::cli::format::{clean, millis, percent, seconds};
use crate::cli::stats::{apps, memory, readiness, redis};
use crate::cli::terminal::{cut, width};

/// The columns between two columns.
const GAP: usize = 2;
/// The least that is shown of a name before columns are left out.
const LEAST_NAME: usize = 24;
/// How many tags are shown, if there is room for them.
const MAX_TAGS: usize = 8;
/// How many routes are shown at least before there is room for tags.
const LEAST_ROUTES: usize = 5;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// As much as is needed.
    Any,
    Columns(usize),
}

/// The room for a frame.
pub(super) struct View {
    pub(super) width: Width,
    pub(super) rows: usize,
    /// A line to show on top: what the keys do, or what is wrong.
    pub(super) notice: Option<String>,
}

/// One column.
struct TableColumn {
    head: &'static str,
    /// Which ones are left out first: those of the greatest number.
    rank: usize,
    is_number: bool,
    cells: Vec<String>,
}

impl View {
    pub(super) fn lines(&self, frame: &Frame<'_>) -> Vec<String> {
        let mut lines = summary(frame);
        lines.extend(self.notice.iter().map(|notice| clean(notice).into_owned()));
        lines.push(String::new());
        let left = self.rows.saturating_sub(lines.len() + 1);
        let tags = frame.stats.tags.len().min(MAX_TAGS);
        // A gap, the head, and the tags.
        let tag_rows = if tags == 0 { 0 } else { tags + 2 };
        let has_tags = tag_rows > 0 && left >= tag_rows + LEAST_ROUTES.min(frame.routes.len());
        let routes = if has_tags { left - tag_rows } else { left };
        if frame.routes.is_empty() {
            lines.push("no routes".to_owned());
        } else {
            lines.extend(
                self.table(&route_columns(&frame.routes[..routes.min(frame.routes.len())])),
            );
        }
        if has_tags {
            lines.push(String::new());
            lines.extend(self.table(&tag_columns(&frame.stats.tags[..tags])));
        }
        if let Width::Columns(columns) = self.width {
            lines = lines.iter().map(|line| cut(line, columns)).collect();
        }
        lines
    }

    /// A table of those columns that fit. The first one is a name, which may be cut.
    fn table(&self, columns: &[TableColumn]) -> Vec<String> {
        let mut shown: Vec<&TableColumn> = columns.iter().collect();
        let rest = |shown: &[&TableColumn]| -> usize {
            shown[1..].iter().map(|column| column.width() + GAP).sum()
        };
        let mut name = columns[0].width();
        if let Width::Columns(room) = self.width {
            while room < rest(&shown) + name.min(LEAST_NAME) {
                let last = (1..shown.len()).max_by_key(|at| shown[*at].rank);
                let Some(last) = last else { break };
                shown.remove(last);
            }
            name = name.min(room.saturating_sub(rest(&shown)));
        }
        let head = shown.iter().map(|column| (*column, column.head.to_owned())).collect::<Vec<_>>();
        let row = |at: usize| -> Vec<(&TableColumn, String)> {
            shown.iter().map(|column| (*column, column.cells[at].clone())).collect()
        };
        let rows = (0..columns[0].cells.len()).map(row);
        std::iter::once(head).chain(rows).map(|cells| line(&cells, name)).collect()
    }
}

fn line(cells: &[(&TableColumn, String)], name: usize) -> String {
    let mut line = String::new();
    for (at, (column, cell)) in cells.iter().enumerate() {
        let columns = if at == 0 { name } else { column.width() };
        let cell = cut(cell, columns);
        let padding = " ".repeat(columns - width(&cell).min(columns));
        if at > 0 {
            line.push_str(&" ".repeat(GAP));
        }
        if column.is_number {
            line.push_str(&padding);
            line.push_str(&cell);
        } else {
            line.push_str(&cell);
            line.push_str(&padding);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

impl TableColumn {
    fn new(
        head: &'static str,
        rank: usize,
        is_number: bool,
        cells: impl Iterator<Item = String>,
    ) -> Self {
        // SECURITY: names come from clients and from the app.
        let cells = cells.map(|cell| clean(&cell).into_owned()).collect();
        Self { head, rank, is_number, cells }
    }

    fn width(&self) -> usize {
        self.cells.iter().map(|cell| width(cell)).max().unwrap_or(0).max(self.head.len())
    }
}

fn summary(frame: &Frame<'_>) -> Vec<String> {
    let stats = frame.stats;
    let totals = &stats.totals;
    let all = totals.hit_ratio_all.map(|ratio| format!(", {} of all", percent(Some(ratio))));
    let redis = stats.redis.as_ref().map_or_else(|| "none".to_owned(), redis);
    let app = apps(stats).unwrap_or_else(|| "no failures".to_owned());
    let lines = [
        format!(
            "sidecache {}, up for {}, mode {}, {}",
            stats.version,
            seconds(stats.uptime_s),
            stats.mode,
            readiness(&stats.ready)
        ),
        format!(
            "requests  {}/s, {} in all; hit ratio {}{}; {} saved",
            rate(frame.requests_per_s),
            sum(&totals.requests),
            percent(totals.hit_ratio),
            all.unwrap_or_default(),
            seconds(totals.time_saved_s)
        ),
        format!("memory    {}", memory(&stats.memory)),
        format!("redis     {redis}"),
        format!("app       {app}"),
    ];
    lines.iter().map(|line| clean(line).into_owned()).collect()
}

fn route_columns(routes: &[RouteFrame<'_>]) -> Vec<TableColumn> {
    let number = |head, rank, cell: fn(&RouteFrame<'_>) -> String| {
        TableColumn::new(head, rank, true, routes.iter().map(cell))
    };
    let mut columns = vec![
        TableColumn::new("ROUTE", 0, false, routes.iter().map(|it| it.route.path.clone())),
        number("REQ/S", 1, |it| rate(it.requests_per_s)),
        number("MISS/S", 6, |it| rate(it.misses_per_s)),
        number("REQUESTS", 9, |it| sum(&it.route.requests).to_string()),
        number("HIT RATIO", 2, |it| percent(it.route.hit_ratio)),
        number("OF ALL", 8, |it| percent(it.route.hit_ratio_all)),
        number("HIT P50", 4, |it| p50(it.route.latency.hit.as_ref())),
        number("HIT P95", 10, |it| p95(it.route.latency.hit.as_ref())),
        number("ORIGIN P50", 5, |it| p50(it.route.latency.app.as_ref())),
        number("ORIGIN P95", 11, |it| p95(it.route.latency.app.as_ref())),
        number("SAVED", 7, |it| seconds(it.route.time_saved_s)),
    ];
    // A sidecar of an earlier version does not tell it.
    if routes.iter().all(|it| it.route.hit_ratio_all.is_none()) {
        columns.retain(|column| column.head != "OF ALL");
    }
    let reason = |it: &RouteFrame<'_>| {
        it.top_reason().map_or_else(String::new, |(reason, share)| {
            format!("{} {reason}", percent(Some(share)))
        })
    };
    columns.push(TableColumn::new("TOP REASON", 3, false, routes.iter().map(reason)));
    columns
}

fn tag_columns(tags: &[ApiTag]) -> Vec<TableColumn> {
    let number = |head, rank, cell: fn(&ApiTag) -> u64| {
        TableColumn::new(head, rank, true, tags.iter().map(cell).map(|count| count.to_string()))
    };
    vec![
        TableColumn::new("TAG", 0, false, tags.iter().map(|tag| tag.tag.clone())),
        number("STORED", 3, |tag| tag.stored),
        number("HITS", 1, |tag| tag.hits),
        number("PURGED", 2, |tag| tag.purged),
    ]
}

fn p50(times: Option<&ApiTimes>) -> String {
    times.map_or_else(|| "-".to_owned(), |times| millis(times.p50_ms))
}

fn p95(times: Option<&ApiTimes>) -> String {
    times.map_or_else(|| "-".to_owned(), |times| millis(times.p95_ms))
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
}

#[cfg(test)]
mod tests {
    use super::super::frame::TopSort;
    use super::super::frame::tests::sample;
    use super::*;
    use crate::cli::terminal::width;

    fn lines(room: Width, rows: usize) -> Vec<String> {
        let (before, now) = (sample(1000, (10, 0), (5, 1)), sample(3000, (14, 0), (15, 3)));
        let frame = Frame::new(&now, Some(&before), TopSort::Requests);
        View { width: room, rows, notice: Some("keys".to_owned()) }.lines(&frame)
    }

    #[test]
    fn a_frame_has_all_numbers_and_nothing_that_a_terminal_obeys() {
        let text = lines(Width::Any, usize::MAX).join("\n");
        for part in [
            "requests  8.0/s, 32 in all; hit ratio 50.0%",
            "/other/{id}    6.0     1.0        18      10.0%  0.050 ms  0.20 ms",
            "27.8% missing field te\\u{1b}[2Jnant",
            "a\\u{1b}[2J       1     2       3",
            "redis     none",
            "app       no failures",
        ] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains("OF ALL"), "no route has that number");
    }

    #[test]
    fn a_frame_fits_any_terminal() {
        for columns in [1, 10, 24, 40, 60, 80, 120, 300] {
            for rows in [1, 5, 8, 12, 24, 100] {
                let lines = lines(Width::Columns(columns), rows);
                for line in &lines {
                    assert!(width(line) <= columns, "{columns}: {line:?}");
                }
                if rows >= 8 {
                    assert!(lines.len() <= rows, "{rows}: {lines:#?}");
                }
            }
        }
        let narrow = lines(Width::Columns(44), 24).join("\n");
        assert!(narrow.contains("REQ/S") && narrow.contains("HIT RATIO"), "{narrow}");
        assert!(!narrow.contains("ORIGIN P95"), "{narrow}");
    }
}
