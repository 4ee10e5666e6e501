//! `sql`: prints what makes a database tell of its changes, for a person to install.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::tags::{ColumnTag, SqlTable};
use super::error::CommandError;
use super::output::print;

mod postgres;
mod tags;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache sql postgres --table campaigns --tags 'campaigns:{tenant_id}' | psql app
  sidecache sql postgres --table shop.orders --tags 'orders:{tenant_id}' 'order:{id}'
  sidecache sql postgres --table campaigns --drop | psql app

Nothing is installed by this command: it prints SQL, and reads no file and no database. The fields \
of a tag are columns of the table. A [[sources]] with the same tags and channel then hears every \
statement that changes the table, by whomever.";

#[derive(Args, Debug)]
pub(super) struct SqlArgs {
    #[command(subcommand)]
    database: Database,
}

#[derive(Debug, Subcommand)]
enum Database {
    /// Print the triggers that make a table of PostgreSQL (11 or later) notify: one for each of
    /// INSERT, UPDATE, DELETE and TRUNCATE, once a statement.
    Postgres(PostgresArgs),
}

#[derive(Args, Debug)]
struct PostgresArgs {
    /// The table, with its schema unless that is `public`: as it is stored, so in lower case as a
    /// rule.
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// The tags that a row stands for: text with columns in braces.
    #[arg(long, value_name = "TAG", num_args = 1.., required_unless_present = "drop")]
    tags: Vec<String>,
    /// The channel that is notified.
    #[arg(long, value_name = "NAME", default_value = crate::config::DEFAULT_CHANNEL)]
    channel: String,
    /// Print what removes the triggers again.
    #[arg(long, conflicts_with = "tags")]
    drop: bool,
}

/// Prints the SQL.
pub(super) fn run(args: &SqlArgs) -> Result<ExitCode, CommandError> {
    let Database::Postgres(args) = &args.database;
    let table = SqlTable::parse(&args.table, "public").map_err(CommandError::Usage)?;
    if args.drop {
        return Ok(print(&postgres::removal(&table)));
    }
    let tags: Result<Vec<ColumnTag>, String> =
        args.tags.iter().map(|tag| ColumnTag::parse(tag)).collect();
    let tags = tags.map_err(CommandError::Usage)?;
    let channel = tags::checked_name(&args.channel, "channel").map_err(CommandError::Usage)?;
    Ok(print(&postgres::triggers(&table, &tags, channel)))
}
