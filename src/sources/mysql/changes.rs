//! The table that triggers write what has changed to, read so that no row is missed.
//!
//! Ids are given when a row is inserted, and rows are seen when their transactions are committed,
//! in another order. So each reading asks for the rows above the highest id that was seen, and for
//! those of the ids below it that are missing.
//!
//! Invariants:
//! - A row that was committed before a reading began is told by then, or it is one of a transaction
//!   of another server that took longer than `max_transaction`: a missing id is given up when it
//!   has been missing for that long and no open transaction of this server holds it, which a look
//!   at what is not yet committed shows.
//! - The row with the highest id is read again each time. That it is there, and the same, shows
//!   that the ids still count up from there. Nothing here deletes it.
//! - Rows are deleted by their ids, once everything up to them has been read or given up for ten
//!   times `max_transaction`. A source whose readings are [`LONGEST_PAUSE`] apart, which is less,
//!   takes that for a gap.
//! - What is read is bounded, too: of a reading that finds more than [`ROWS_A_STATEMENT`] rows, the
//!   others are counted, and everything is purged in their place.
//! - Missing ids are bounded: above [`MAX_MISSING`] ranges, everything is purged at each reading
//!   for `max_transaction`, and the ids are read anew.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::connection::{MysqlConnection, MysqlError};
use super::missing::{HeldIds, IdRange, MissingIds};
use crate::clock::Clock;
use crate::sources::listener::SourceListener;
use crate::sources::payload::MAX_PAYLOAD;
use crate::sources::settings::MysqlSettings;

/// How many ranges of ids may be missing.
pub const MAX_MISSING: usize = 10_000;

/// How many ranges of missing ids one statement asks for.
const RANGES_A_STATEMENT: usize = 500;

/// How many rows one statement asks for.
const ROWS_A_STATEMENT: usize = 1_000;

/// How many ids one statement asks for.
const IDS_A_STATEMENT: usize = 10_000;

/// How many of the newest ids are read at the start.
const MAX_IDS_AT_START: usize = 1_000_000;

/// How far apart two readings may be, by the clock of the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After how many times `max_transaction` a row is deleted.
const KEPT_FOR: u32 = 10;

/// What is told of a source that has more missing ids than are remembered.
const TOO_MANY: &str = "more ids of the table are missing than are remembered: many transactions \
                        were rolled back, or auto_increment_increment is above 1";

/// The session, whatever the defaults of the server are: each statement sees the newest commits.
const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION autocommit = 1",
];

/// What a row is told apart by from one that another table has under the same id.
const MARK: &str = "CONCAT(UNIX_TIMESTAMP(told_at), ' ', CRC32(payload))";

/// Whether more rows wait than one reading takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Complete,
    Partial,
}

/// Whether rows are told by what they hold, or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowPayload {
    Read,
    Unread,
}

/// The reader of a table.
pub(super) struct ChangesReader {
    connection: MysqlConnection,
    clock: Clock,
    /// The table, quoted.
    table: String,
    max_transaction: Duration,
    /// The highest id that was read, and what its row is told by.
    newest: (u64, Option<String>),
    missing: MissingIds,
    /// More ids are missing than are remembered: until then everything is purged each time.
    is_blind_until: Option<Instant>,
    /// The last reading has found more rows than are told.
    is_storm: bool,
    /// When the last reading was, by the server, in microseconds.
    read_at: Option<u64>,
    cleaning: Cleaning,
}

/// What is known of old rows.
#[derive(Debug, Default)]
struct Cleaning {
    /// Ids up to which everything was read or given up, and since when.
    settled: VecDeque<(Instant, u64)>,
    next: Option<Instant>,
    is_denied: bool,
}

/// What one reading has found.
#[derive(Default)]
struct FoundRows {
    /// What the server says of itself.
    state: Option<(String, u64)>,
    mark: Option<String>,
    new: usize,
    filled: usize,
}

impl ChangesReader {
    /// Prepares the session, and notes which ids are missing.
    pub(super) async fn begin(
        connection: MysqlConnection,
        settings: &MysqlSettings,
        clock: Clock,
        listener: &SourceListener,
    ) -> Result<Self, MysqlError> {
        let mut this = Self {
            connection,
            clock,
            table: quoted_table(&settings.table),
            max_transaction: settings.max_transaction,
            newest: (0, None),
            missing: MissingIds::default(),
            is_blind_until: None,
            is_storm: false,
            read_at: None,
            cleaning: Cleaning::default(),
        };
        for statement in SESSION {
            this.connection.run(statement).await?;
        }
        this.look_back(listener).await?;
        Ok(this)
    }

    /// Notes the highest id, and those that are missing below it.
    async fn look_back(&mut self, listener: &SourceListener) -> Result<(), MysqlError> {
        self.missing.clear();
        self.newest = (0, None);
        let newest = &mut self.newest;
        let sql = format!("SELECT id, {MARK} FROM {} ORDER BY id DESC LIMIT 1", self.table);
        let first = |row: &[Option<&[u8]>]| {
            *newest = (number(*row.first()?)?, Some(text(*row.get(1)?)?));
            Some(())
        };
        self.connection.query(&sql, first).await?;
        let (mut above, mut known) = (self.newest.0, 0);
        let now = self.clock.now();
        let mut ids = Vec::with_capacity(1);
        while above > 0 && known < MAX_IDS_AT_START {
            ids.clear();
            let sql = format!(
                "SELECT id FROM {} WHERE id <= {above} ORDER BY id DESC LIMIT {IDS_A_STATEMENT}",
                self.table
            );
            let next = |row: &[Option<&[u8]>]| {
                ids.push(number(*row.first()?)?);
                Some(())
            };
            self.connection.query(&sql, next).await?;
            for id in &ids {
                self.missing.add((id.saturating_add(1), above), now);
                above = id.saturating_sub(1);
            }
            known += ids.len();
            if self.missing.len() > MAX_MISSING {
                self.be_blind(listener);
                return Ok(());
            }
            if ids.len() < IDS_A_STATEMENT {
                self.missing.add((1, above), now);
                break;
            }
        }
        Ok(())
    }

    /// Reads what is new, and what was missing.
    pub(super) async fn read(&mut self, listener: &SourceListener) -> Result<Reading, MysqlError> {
        let mut asked: Vec<IdRange> = self.missing.ranges().collect();
        let mut later = asked.split_off(asked.len().min(RANGES_A_STATEMENT));
        let found = self.read_rows(&asked, true, listener).await?;
        let Some((read_only, read_at)) = found.state else { return Err(unexpected()) };
        if read_only.split(',').any(|word| !["0", "OFF"].contains(&word)) {
            return Err(MysqlError::Other(
                "the server is read-only: give the URL of the primary, since a replica hears late"
                    .to_owned(),
            ));
        }
        let before = self.read_at.replace(read_at);
        let pause = before.map_or(0, |before| read_at.saturating_sub(before));
        if Duration::from_micros(pause) > LONGEST_PAUSE {
            listener.missed("it did not read for so long that rows may have been deleted unread");
        }
        let mut is_partial = found.new == ROWS_A_STATEMENT || found.filled == ROWS_A_STATEMENT;
        while !later.is_empty() {
            let rest = later.split_off(later.len().min(RANGES_A_STATEMENT));
            is_partial |= self.read_rows(&later, false, listener).await?.filled == ROWS_A_STATEMENT;
            later = rest;
        }
        if self.is_blind_until.is_none() && self.missing.len() > MAX_MISSING {
            self.be_blind(listener);
        }
        self.see_again(listener).await?;
        if is_partial && !self.is_storm {
            listener.note_burst();
        }
        self.is_storm = is_partial;
        Ok(if is_partial { Reading::Partial } else { Reading::Complete })
    }

    /// More is missing than is remembered.
    fn be_blind(&mut self, listener: &SourceListener) {
        self.missing.clear();
        self.is_blind_until = Some(self.clock.now() + self.max_transaction);
        listener.forgot(TOO_MANY);
    }

    /// While it is blind, everything is purged; then it looks which ids are missing now. What was
    /// committed until then is purged by the last time.
    async fn see_again(&mut self, listener: &SourceListener) -> Result<(), MysqlError> {
        let Some(until) = self.is_blind_until else { return Ok(()) };
        if self.clock.now() >= until {
            self.is_blind_until = None;
            self.look_back(listener).await?;
        }
        listener.purge_all();
        Ok(())
    }

    /// Tells the rows with these ids and, if asked to, those above the highest one.
    async fn read_rows(
        &mut self,
        asked: &[IdRange],
        with_new: bool,
        listener: &SourceListener,
    ) -> Result<FoundRows, MysqlError> {
        let mut found = FoundRows::default();
        let Self { connection, table, newest, missing, is_blind_until, clock, .. } = self;
        let (now, highest, known) = (clock.now(), newest.0, newest.1.clone());
        let payload = if self.is_storm { RowPayload::Unread } else { RowPayload::Read };
        let tell = |payload: Option<&[u8]>| match payload {
            Some(payload) => listener.told(&String::from_utf8_lossy(payload)),
            None => listener.told_of_all(),
        };
        let mut last = None;
        let row = |row: &[Option<&[u8]>]| {
            let &[Some(part), Some(id), payload, mark] = row else { return None };
            let id = number(Some(id))?;
            match part {
                b"0" => found.state = Some((text(payload)?, number(mark)?)),
                b"1" => found.mark = text(mark),
                part => {
                    if id > newest.0 {
                        if is_blind_until.is_none() {
                            missing.add((newest.0.saturating_add(1), id - 1), now);
                        }
                        newest.0 = id;
                        last = text(mark);
                        tell(payload);
                    } else if missing.remove(id) {
                        tell(payload);
                    }
                    *if part == b"2" { &mut found.new } else { &mut found.filled } += 1;
                }
            }
            Some(())
        };
        let sql = rows_statement(table, with_new.then_some(highest), asked, payload);
        connection.query(&sql, row).await?;
        if with_new && known.is_some() && found.mark != known {
            return Err(MysqlError::Other(format!(
                "the row with the highest id ({highest}) is gone or another one: the table was \
                 emptied, or made again"
            )));
        }
        if last.is_some() {
            newest.1 = last;
        }
        Ok(found)
    }

    /// Gives up ids that have been missing for long, unless an open transaction holds them.
    pub(super) async fn give_up_overdue(&mut self) -> Result<(), MysqlError> {
        let now = self.clock.now();
        let overdue = self.missing.overdue(self.max_transaction, now, RANGES_A_STATEMENT);
        if overdue.is_empty() {
            return Ok(());
        }
        // For the next statement alone: it sees what is not committed, too.
        self.connection.run("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await?;
        let mut held = HeldIds::default();
        let sql = format!(
            "SELECT id FROM {} WHERE {} ORDER BY id LIMIT {IDS_A_STATEMENT}",
            self.table,
            within(&overdue)
        );
        let next = |row: &[Option<&[u8]>]| {
            held.ids.push(number(*row.first()?)?);
            Some(())
        };
        self.connection.query(&sql, next).await?;
        held.has_more = held.ids.len() == IDS_A_STATEMENT;
        self.missing.give_up(&overdue, &held, now);
        Ok(())
    }

    /// Deletes some of the rows that all sidecars have read long ago.
    pub(super) async fn clean(&mut self, source: &str) -> Result<(), MysqlError> {
        let (now, kept_for) = (self.clock.now(), self.max_transaction * KEPT_FOR);
        if self.cleaning.is_denied || self.cleaning.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        // Not all sidecars at once.
        let pause = kept_for / 10;
        self.cleaning.next = Some(now + pause.mul_f64(0.5 + rand::random::<f64>()));
        if self.is_blind_until.is_none() {
            let settled = self.missing.first().unwrap_or(self.newest.0).saturating_sub(1);
            self.cleaning.settled.push_back((now, settled));
        }
        let is_old = |since: Instant| now.saturating_duration_since(since) >= kept_for;
        while self.cleaning.settled.get(1).is_some_and(|(since, _)| is_old(*since)) {
            self.cleaning.settled.pop_front();
        }
        let Some((_, last)) = self.cleaning.settled.front().filter(|(since, _)| is_old(*since))
        else {
            return Ok(());
        };
        let sql = format!(
            "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM {} WHERE id <= {last} ORDER BY id \
             LIMIT {ROWS_A_STATEMENT}) AS oldest",
            self.table
        );
        let mut oldest = None;
        let read = |row: &[Option<&[u8]>]| {
            oldest = number(*row.first()?).zip(number(*row.get(1)?));
            Some(())
        };
        self.connection.query(&sql, read).await?;
        let Some((last, count)) = oldest else { return Ok(()) };
        // With READ COMMITTED, a server with a log of statements refuses it.
        self.connection.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        let deleted =
            self.connection.run(&format!("DELETE FROM {} WHERE id <= {last}", self.table)).await;
        match deleted {
            Ok(()) if count == ROWS_A_STATEMENT as u64 => self.cleaning.next = Some(now),
            Ok(()) => {}
            Err(error) if error.is_without_right() => {
                self.cleaning.is_denied = true;
                tracing::info!(source, %error, "old rows of the table are left to somebody else");
            }
            // Another sidecar deletes them.
            Err(error) if error.is_locked() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn unexpected() -> MysqlError {
    MysqlError::Other("it does not answer what it was asked".to_owned())
}

/// One statement, so one view of the table: what the server says of itself, the row with the
/// highest id, those above it, and those with these ids.
fn rows_statement(
    table: &str,
    highest: Option<u64>,
    asked: &[IdRange],
    payload: RowPayload,
) -> String {
    let payload = match payload {
        RowPayload::Read => format!("LEFT(payload, {})", MAX_PAYLOAD + 1),
        RowPayload::Unread => "NULL".to_owned(),
    };
    let limit = format!("ORDER BY id LIMIT {ROWS_A_STATEMENT}");
    let mut parts = Vec::new();
    if let Some(highest) = highest {
        parts.push(
            "(SELECT 0 AS part, 0 AS id, CONCAT(@@global.read_only, ',', \
             @@global.innodb_read_only) AS payload, CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS \
             UNSIGNED) AS mark)"
                .to_owned(),
        );
        parts.push(format!("(SELECT 1, id, NULL, {MARK} FROM {table} WHERE id = {highest})"));
        parts.push(format!(
            "(SELECT 2, id, {payload}, {MARK} FROM {table} WHERE id > {highest} {limit})"
        ));
    }
    if !asked.is_empty() {
        let asked = within(asked);
        parts.push(format!("(SELECT 3, id, {payload}, NULL FROM {table} WHERE {asked} {limit})"));
    }
    parts.join(" UNION ALL ")
}

/// The condition that an id is in one of these ranges.
fn within(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for (first, last) in ranges {
        let or = if text.is_empty() { "" } else { " OR " };
        let _ = if first == last {
            write!(text, "{or}id = {first}")
        } else {
            write!(text, "{or}id BETWEEN {first} AND {last}")
        };
    }
    format!("({text})")
}

/// A table, or a database and its table, quoted.
fn quoted_table(name: &str) -> String {
    let parts: Vec<String> =
        name.split('.').map(|part| format!("`{}`", part.replace('`', "``"))).collect();
    parts.join(".")
}

fn number(text: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

fn text(text: Option<&[u8]>) -> Option<String> {
    Some(String::from_utf8_lossy(text?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_ids_are_ranges() {
        assert_eq!(quoted_table("a`; DROP"), "`a``; DROP`");
        assert_eq!(quoted_table("app.changes"), "`app`.`changes`");
        assert_eq!(within(&[(1, 1), (3, 9)]), "(id = 1 OR id BETWEEN 3 AND 9)");
        let sql = rows_statement("`t`", None, &[(1, 2)], RowPayload::Read);
        assert!(sql.starts_with("(SELECT 3") && !sql.contains("UNION"), "{sql}");
    }
}
