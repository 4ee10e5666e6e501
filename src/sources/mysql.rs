//! A table of a MySQL or MariaDB, to which triggers write what has changed.
//!
//! Nothing is told there as PostgreSQL tells: the table is read again and again. Invariant: a
//! reading proves the hearing, because it shows everything that was committed before it. See
//! [`changes`] for what that rests on.

use self::changes::{ChangesReader, Reading};
use self::connection::{MysqlConnection, MysqlError};
use super::listener::SourceListener;
use super::settings::MysqlSettings;
use crate::clock::Clock;

mod changes;
mod connection;
mod missing;
mod url;

pub use self::url::{MYSQL_URL_FORM, MysqlUrl};

/// Reads until something goes wrong, and says what that was.
pub(super) async fn listen(
    settings: &MysqlSettings,
    listener: &SourceListener,
    clock: Clock,
) -> String {
    match read(settings, listener, clock).await {
        Ok(never) => match never {},
        Err(error) => error.to_string(),
    }
}

async fn read(
    settings: &MysqlSettings,
    listener: &SourceListener,
    clock: Clock,
) -> Result<std::convert::Infallible, MysqlError> {
    let url = MysqlUrl::parse(settings.url.expose())
        .map_err(|_| MysqlError::Other("its URL is none of a MySQL".to_owned()))?;
    let connection = MysqlConnection::open(url, settings.ca_file.as_deref()).await?;
    let mut reader = ChangesReader::begin(connection, settings, clock, listener).await?;
    let mut ticks = tokio::time::interval(settings.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while reader.read(listener).await? == Reading::Partial {}
        listener.heard();
        reader.give_up_overdue().await?;
        reader.clean(listener.source()).await?;
    }
}
