//! `sql`: prints what makes a database tell of its changes, for a person to install.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::tags::{ColumnTag, SqlTable};
use super::error::CommandError;
use super::output::print;

mod mysql;
mod postgres;
mod tags;

pub(super) const EXAMPLES: &str = "\
Examples:
  sidecache sql postgres --table campaigns --tags 'campaigns:{tenant_id}' | psql app
  sidecache sql postgres --table shop.orders --tags 'orders:{tenant_id}' 'order:{id}'
  sidecache sql postgres --table campaigns --drop | psql app
  sidecache sql mysql --table campaigns --tags 'campaigns:{tenant_id}' | mariadb app

Nothing is installed by this command: it prints SQL, and reads no file and no database. The fields \
of a tag are columns of the table. A [[sources]] with the same tags, and the same channel or \
table, then hears every statement that changes the table, by whomever.";

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
    /// Print the table to which a table of MySQL (8.0 or later) or MariaDB (10.3 or later) writes
    /// its changes, and the triggers that do so: one for each of INSERT, UPDATE and DELETE, once a
    /// row.
    Mysql(MysqlArgs),
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

#[derive(Args, Debug)]
struct MysqlArgs {
    /// The table, with its database unless that is the one of the connection: as it is stored.
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// The tags that a row stands for: text with columns in braces.
    #[arg(long, value_name = "TAG", num_args = 1.., required_unless_present = "drop")]
    tags: Vec<String>,
    /// The table that is written to; in the database of TABLE, unless another one is named.
    #[arg(long, value_name = "NAME", default_value = crate::config::DEFAULT_TABLE)]
    into: String,
    /// Print what removes the triggers again.
    #[arg(long, conflicts_with = "tags")]
    drop: bool,
}

/// Prints the SQL.
pub(super) fn run(args: &SqlArgs) -> Result<ExitCode, CommandError> {
    let printed = match &args.database {
        Database::Postgres(args) => postgres(args),
        Database::Mysql(args) => mysql(args),
    };
    printed.map(|sql| print(&sql)).map_err(CommandError::Usage)
}

fn parsed(tags: &[String]) -> Result<Vec<ColumnTag>, String> {
    tags.iter().map(|tag| ColumnTag::parse(tag)).collect()
}

fn mysql(args: &MysqlArgs) -> Result<String, String> {
    let table = SqlTable::parse(&args.table, "")?;
    let changes = SqlTable::parse(&args.into, &table.schema)?;
    if args.drop {
        return Ok(mysql::removal(&table, &changes));
    }
    mysql::triggers(&table, &parsed(&args.tags)?, &changes)
}

fn postgres(args: &PostgresArgs) -> Result<String, String> {
    let table = SqlTable::parse(&args.table, "public")?;
    if args.drop {
        return Ok(postgres::removal(&table));
    }
    let tags = parsed(&args.tags)?;
    let channel = tags::checked_name(&args.channel, "channel")?;
    Ok(postgres::triggers(&table, &tags, channel))
}
