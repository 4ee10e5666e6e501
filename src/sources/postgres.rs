//! Notifications of a PostgreSQL (`LISTEN`), on a connection of its own.
//!
//! Invariants:
//! - Hearing is proven by a notification that this connection has sent itself, on a channel of its
//!   own: PostgreSQL delivers those of all channels in the order of their commits. One that does
//!   not come back within [`DEAF_AFTER`] ends the connection.
//! - Nothing that a server sends is kept: a notification is told and dropped.
//! - SECURITY: outside of this machine, a connection has TLS with a certificate that is verified,
//!   unless the URL says otherwise.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket};

use self::tls::{PostgresTls, TlsStream};
use super::listener::SourceListener;
use super::settings::PostgresSettings;
use crate::clock::wait_while_running;

mod tls;

/// How long a connection may take to become usable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection sends itself a notification.
const MARKER_INTERVAL: Duration = Duration::from_millis(250);

/// How long such a notification may take to come back.
const DEAF_AFTER: Duration = Duration::from_secs(1);

/// The URLs that are accepted.
pub const URL_FORM: &str = "postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE, with parameters such \
                            as ?sslmode=disable";

/// Why a URL is not accepted. SECURITY: no part of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresUrlFault {
    /// It does not begin with `postgres://` or `postgresql://`.
    Scheme,
    /// `sslmode` is one that only other clients know.
    SslMode,
    /// Something else.
    Malformed,
    /// No host.
    NoHost,
    /// No user.
    NoUser,
}

impl PostgresUrlFault {
    /// What is wrong, and what to do.
    #[must_use]
    pub const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Scheme => (
                "this is not the scheme of a PostgreSQL URL",
                "write it as \"postgres://sidecache:${DATABASE_PASSWORD}@127.0.0.1:5432/app\"",
            ),
            Self::SslMode => (
                "`sslmode` is none of disable, prefer and require",
                "write sslmode=require: the certificate and its name are always verified, by \
                 `ca_file` or by the authorities of the system",
            ),
            Self::Malformed => (
                "this URL cannot be parsed",
                "in a password, write `/`, `@`, `:`, `#` and `%` as %2F, %40, %3A, %23, %25",
            ),
            Self::NoHost => ("the URL has no host", "write postgres://USER@HOST:PORT/DATABASE"),
            Self::NoUser => ("the URL has no user", "write postgres://USER@HOST:PORT/DATABASE"),
        }
    }
}

/// Reads a URL.
///
/// # Errors
/// What is wrong with it.
pub fn parse(url: &str) -> Result<Config, PostgresUrlFault> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(PostgresUrlFault::Scheme);
    }
    let mut config: Config = url.parse().map_err(|_| {
        let is_known = |mode: &&str| url.contains(&format!("sslmode={mode}"));
        let names_mode = url.contains("sslmode=");
        if names_mode && !["disable", "prefer", "require"].iter().any(is_known) {
            PostgresUrlFault::SslMode
        } else {
            PostgresUrlFault::Malformed
        }
    })?;
    if config.get_hosts().is_empty() {
        return Err(PostgresUrlFault::NoHost);
    }
    if config.get_user().is_none_or(str::is_empty) {
        return Err(PostgresUrlFault::NoUser);
    }
    if !url.contains("sslmode=") {
        let is_here = config.get_hosts().iter().all(is_on_this_machine);
        config.ssl_mode(if is_here { SslMode::Disable } else { SslMode::Require });
    }
    if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        // A standby tells of nothing.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name("sidecache");
    }
    config.connect_timeout(CONNECT_TIMEOUT);
    Ok(config)
}

/// Whether what is sent in the clear may be read on the way: for lint.
#[must_use]
pub fn is_in_the_clear(config: &Config) -> bool {
    config.get_ssl_mode() != SslMode::Require && !config.get_hosts().iter().all(is_on_this_machine)
}

fn is_on_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

type PostgresConnection = Connection<Socket, TlsStream<Socket>>;

/// Listens until something goes wrong, and says what that was.
pub(super) async fn listen(settings: &PostgresSettings, listener: &SourceListener) -> String {
    let Ok(config) = parse(settings.url.expose()) else {
        return "its URL is none of a PostgreSQL".to_owned();
    };
    let tls = match PostgresTls::new(&config, settings.ca_file.as_deref()) {
        Ok(tls) => tls,
        Err(why) => return why,
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, config.connect(tls)).await {
        Ok(Ok((client, connection))) => {
            Box::pin(listen_on(client, connection, &settings.channel, listener)).await
        }
        Ok(Err(error)) => reason(&error),
        Err(_) => format!("it did not answer within {} s", CONNECT_TIMEOUT.as_secs()),
    }
}

async fn listen_on(
    client: Client,
    mut connection: PostgresConnection,
    channel: &str,
    listener: &SourceListener,
) -> String {
    let own = format!("sidecache_{}", crate::units::hex(&rand::random::<[u8; 8]>()));
    let echo = Notify::new();
    let receive = async {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(told))) if told.channel() == own => {
                    listener.heard();
                    echo.notify_one();
                }
                Some(Ok(AsyncMessage::Notification(told))) if told.channel() == channel => {
                    listener.told(told.payload());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return reason(&error),
                None => return "the connection was closed".to_owned(),
            }
        }
    };
    // Dropping the client ends the connection, so it is kept by what runs beside it.
    tokio::select! {
        why = receive => why,
        why = send_markers(&client, channel, &own, &echo) => why,
    }
}

/// Subscribes, and sends itself a notification now and then. Returns when one does not come back.
async fn send_markers(client: &Client, channel: &str, own: &str, echo: &Notify) -> String {
    // In this order: what comes on the second channel proves the first one.
    let listen = format!("LISTEN {}; LISTEN {}", quoted(channel), quoted(own));
    let notify = format!("NOTIFY {}", quoted(own));
    let mut command = listen;
    loop {
        match wait_while_running(DEAF_AFTER, client.batch_execute(&command)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return reason(&error),
            None => return "it does not answer".to_owned(),
        }
        if command == notify {
            if wait_while_running(DEAF_AFTER, echo.notified()).await.is_none() {
                return "its notifications do not come back: is there a pooler in between that \
                        gives each transaction another connection?"
                    .to_owned();
            }
            tokio::time::sleep(MARKER_INTERVAL).await;
        }
        command.clone_from(&notify);
    }
}

/// An identifier of SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What an error says, for people. It holds no part of the URL but names.
fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let mode = |url: &str| parse(url).map(|config| config.get_ssl_mode());
        assert_eq!(mode("postgres://u:p@127.0.0.1/app"), Ok(SslMode::Disable));
        assert_eq!(mode("postgresql://u@localhost:5433/app"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://u@%2Frun%2Fpostgresql/app"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://u@db.example.com/app"), Ok(SslMode::Require));
        assert_eq!(mode("postgres://u@db.example.com/app?sslmode=disable"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://u@127.0.0.1/app?sslmode=require"), Ok(SslMode::Require));
        for (url, fault) in [
            ("mysql://u@127.0.0.1/app", PostgresUrlFault::Scheme),
            ("postgres://u@127.0.0.1/app?sslmode=verify-full", PostgresUrlFault::SslMode),
            ("postgres://u@127.0.0.1:port/app", PostgresUrlFault::Malformed),
            ("postgres://127.0.0.1/app", PostgresUrlFault::NoUser),
            ("postgres:///app?user=u", PostgresUrlFault::NoHost),
        ] {
            assert_eq!(mode(url), Err(fault), "{url}");
        }
        let several = parse("postgres://u@a,b/app").expect("two hosts");
        assert_eq!(several.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert!(!is_in_the_clear(&several));
        assert!(is_in_the_clear(&parse("postgres://u@a/app?sslmode=prefer").expect("a URL")));
        assert!(!is_in_the_clear(&parse("postgres://u@127.0.0.1/app").expect("a URL")));
    }

    #[test]
    fn a_channel_is_an_identifier_whatever_its_name() {
        assert_eq!(quoted("side\"; DROP TABLE x; --"), "\"side\"\"; DROP TABLE x; --\"");
    }
}
