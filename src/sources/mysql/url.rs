//! The URL of a MySQL or MariaDB.

use std::net::IpAddr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::secret::Secret;

/// The port where none is written.
const DEFAULT_PORT: u16 = 3306;

/// The URLs that are accepted.
pub const MYSQL_URL_FORM: &str = "mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE, with ?sslmode= \
                                  disable or require, or ?socket=PATH";

/// Where a server is, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlUrl {
    pub(super) place: MysqlPlace,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) database: String,
    /// Whether the connection has TLS.
    pub(super) has_tls: bool,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MysqlPlace {
    /// A host and a port.
    Tcp(String, u16),
    /// A socket of this machine.
    Socket(PathBuf),
}

/// Why a URL is not accepted. SECURITY: no part of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MysqlUrlFault {
    /// It does not begin with `mysql://` or `mariadb://`.
    Scheme,
    /// `sslmode` is none of those that there are.
    SslMode,
    /// A parameter that says nothing here.
    Parameter,
    /// Something else.
    Malformed,
    /// No host.
    NoHost,
    /// No user.
    NoUser,
    /// No database.
    NoDatabase,
}

impl MysqlUrlFault {
    /// What is wrong, and what to do.
    #[must_use]
    pub const fn texts(self) -> (&'static str, &'static str) {
        const WHOLE: &str = "write mysql://USER:PASSWORD@HOST:PORT/DATABASE";
        match self {
            Self::Scheme => (
                "this is not the scheme of a MySQL URL",
                "write it as \"mysql://sidecache:${DATABASE_PASSWORD}@127.0.0.1:3306/app\"",
            ),
            Self::SslMode => (
                "`sslmode` is none of disable and require",
                "write sslmode=require: the certificate and its name are always verified, by \
                 `ca_file` or by the authorities of the system",
            ),
            Self::Parameter => {
                ("the URL has a parameter that is none of sslmode and socket", "remove it")
            }
            Self::Malformed => (
                "this URL cannot be parsed",
                "in a password, write `/`, `@`, `:`, `#` and `%` as %2F, %40, %3A, %23, %25",
            ),
            Self::NoHost => ("the URL has no host", WHOLE),
            Self::NoUser => ("the URL has no user", WHOLE),
            Self::NoDatabase => ("the URL names no database, or more than one", WHOLE),
        }
    }
}

impl MysqlUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, MysqlUrlFault> {
        if !text.starts_with("mysql://") && !text.starts_with("mariadb://") {
            return Err(MysqlUrlFault::Scheme);
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => MysqlUrlFault::NoHost,
            _ => MysqlUrlFault::Malformed,
        })?;
        let decoded = |part: &str| {
            let text = percent_decode_str(part).decode_utf8();
            text.map(String::from).map_err(|_| MysqlUrlFault::Malformed)
        };
        let host = decoded(url.host_str().ok_or(MysqlUrlFault::NoHost)?)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port().unwrap_or(DEFAULT_PORT);
        if host.is_empty() {
            return Err(MysqlUrlFault::NoHost);
        }
        if port == 0 || url.fragment().is_some() {
            return Err(MysqlUrlFault::Malformed);
        }
        let (user, database) =
            (decoded(url.username())?, decoded(url.path().trim_start_matches('/'))?);
        if user.is_empty() {
            return Err(MysqlUrlFault::NoUser);
        }
        if database.is_empty() || database.contains('/') {
            return Err(MysqlUrlFault::NoDatabase);
        }
        let (mut mode, mut socket) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" if value == "disable" => mode = Some(false),
                "sslmode" if value == "require" => mode = Some(true),
                "sslmode" => return Err(MysqlUrlFault::SslMode),
                "socket" => socket = Some(PathBuf::from(&*value)),
                _ => return Err(MysqlUrlFault::Parameter),
            }
        }
        let is_here = socket.is_some() || is_on_this_machine(&host);
        Ok(Self {
            place: socket.map_or(MysqlPlace::Tcp(host, port), MysqlPlace::Socket),
            user,
            password: Secret::new(decoded(url.password().unwrap_or_default())?),
            database,
            has_tls: mode.unwrap_or(!is_here),
        })
    }

    /// Whether what is sent in the clear may be read on the way: for lint.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        match &self.place {
            MysqlPlace::Tcp(host, _) => !self.has_tls && !is_on_this_machine(host),
            MysqlPlace::Socket(_) => false,
        }
    }
}

fn is_on_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let tls = |url: &str| MysqlUrl::parse(url).map(|url| url.has_tls);
        assert_eq!(tls("mysql://u:p@127.0.0.1/app"), Ok(false));
        assert_eq!(tls("mariadb://u@localhost:3307/app"), Ok(false));
        assert_eq!(tls("mysql://u@[::1]/app"), Ok(false));
        assert_eq!(tls("mysql://u@db.example.com/app"), Ok(true));
        assert_eq!(tls("mysql://u@db.example.com/app?sslmode=disable"), Ok(false));
        assert_eq!(tls("mysql://u@127.0.0.1/app?sslmode=require"), Ok(true));
        assert_eq!(tls("mysql://u@db/app?socket=/run/mysqld/mysqld.sock"), Ok(false));
        let url = MysqlUrl::parse("mysql://u%40x:p%2Fq@[::1]/a%20b").expect("a URL");
        assert_eq!((&*url.user, url.password.expose(), &*url.database), ("u@x", "p/q", "a b"));
        assert_eq!(url.place, MysqlPlace::Tcp("::1".to_owned(), 3306));
        for (url, fault) in [
            ("postgres://u@127.0.0.1/app", MysqlUrlFault::Scheme),
            ("mysql://u@127.0.0.1/app?sslmode=verify", MysqlUrlFault::SslMode),
            ("mysql://u@127.0.0.1/app?charset=x", MysqlUrlFault::Parameter),
            ("mysql://u@127.0.0.1:port/app", MysqlUrlFault::Malformed),
            ("mysql://u@127.0.0.1/app#x", MysqlUrlFault::Malformed),
            ("mysql://127.0.0.1/app", MysqlUrlFault::NoUser),
            ("mysql://u@127.0.0.1", MysqlUrlFault::NoDatabase),
            ("mysql://u@127.0.0.1/a/b", MysqlUrlFault::NoDatabase),
            ("mysql:///app", MysqlUrlFault::NoHost),
        ] {
            assert_eq!(tls(url), Err(fault), "{url}");
        }
    }

    #[test]
    fn a_password_in_the_clear_is_seen() {
        let clear = |url: &str| MysqlUrl::parse(url).expect("a URL").is_in_the_clear();
        assert!(clear("mysql://u@db/app?sslmode=disable"));
        assert!(!clear("mysql://u@db/app") && !clear("mysql://u@127.0.0.1/app"));
        assert!(!clear("mysql://u@db/app?socket=/s&sslmode=disable"));
        assert!(!format!("{:?}", MysqlUrl::parse("mysql://u:hunter@h/d")).contains("hunter"));
    }
}
