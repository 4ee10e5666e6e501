//! Reads the url of Redis: TCP, TLS and Unix sockets. Its text may hold a password, so no message repeats any of it.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::read::{Located, Text};
use super::report::Report;
use crate::store::redis::Address;
use crate::units::Secret;

const FORM: &str = "redis://[user:password@]host[:port][/database], rediss://… for TLS, or unix:///path?db=0";
const DEFAULT_PORT: u16 = 6379;

/// What a url says.
pub struct Location {
    /// Where Redis is.
    pub address: Address,
    /// Which of its databases.
    pub database: u8,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

/// What is wrong with a url, and how to mend it.
type Fault = (&'static str, &'static str);

/// Reads a url, or reports why not.
pub fn parse(text: &Located<Text>, report: &mut Report) -> Option<Location> {
    match read(text.value.as_str()) {
        Ok(location) => Some(location),
        Err((what, hint)) => {
            report.malformed(text, "the url of a Redis", what, Some(FORM), hint);
            None
        }
    }
}

fn read(value: &str) -> Result<Location, Fault> {
    let Some((scheme, _)) = value.split_once("://") else { return Err(("this is not a url", "put redis:// before it")) };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "redis" => false,
        "rediss" => true,
        "unix" | "redis+unix" => return unix(value),
        "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => {
            return Err(("Redis Cluster and Sentinel are not supported by this version", "use redis:// with the address of the primary"));
        }
        _ => return Err(("this is no kind of url that leads to a Redis", "write it as \"redis://127.0.0.1:6379/0\"")),
    };
    let url = Url::parse(value)
        .map_err(|_| ("this url cannot be read", "in a password, write `/`, `@`, `:`, `#` and `%` as %2F, %40, %3A, %23, %25"))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(("the url has no host", "write redis://HOST:PORT"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(("the url has a query or a fragment", "other settings are keys of [redis]"));
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| ("the url's path is not the number of a database", "write a number from 0 to 255, as in …:6379/0"))?,
    };
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if port == 0 {
        return Err(("the url has port 0", "Redis usually listens on 6379"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned);
    let user = decoded(url.username()).map_err(|_| ("the url's user is not UTF-8", "percent-encode it as UTF-8"))?;
    let password =
        url.password().map(decoded).transpose().map_err(|_| ("the url's password is not UTF-8", "percent-encode it as UTF-8"))?;
    if !user.is_empty() && password.is_none() {
        return Err(("the url has a user but no password", "write user:password@host, or :password@host for a password alone"));
    }
    Ok(Location {
        address: Address::Tcp { host, port, tls },
        database,
        username: Some(user).filter(|user| !user.is_empty()),
        password: password.filter(|password| !password.is_empty()).map(Secret::new),
    })
}

/// `unix:///path?db=0`.
fn unix(value: &str) -> Result<Location, Fault> {
    let rest = value.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.len() < 2 {
        return Err(("the url of a Unix socket needs an absolute path", "write it with three slashes: unix:///run/redis.sock"));
    }
    let mut database = 0;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "db" => {
                database = value.parse().map_err(|_| ("`db` is not the number of a database", "write ?db=0, a number from 0 to 255"))?;
            }
            _ => return Err(("the url of a Unix socket has a parameter other than `db`", "user and password are keys of [redis]")),
        }
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| ("the path is not UTF-8", "percent-encode it as UTF-8"))?;
    Ok(Location { address: Address::Unix(PathBuf::from(path.into_owned())), database, username: None, password: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_kinds_are_read() {
        let location = read("redis://app:p%40ss@[::1]/3").ok().unwrap();
        assert!(matches!(&location.address, Address::Tcp { host, port: 6379, tls: false } if host == "::1"));
        assert_eq!((location.database, location.username.as_deref()), (3, Some("app")));
        assert_eq!(location.password.as_ref().map(Secret::expose), Some("p@ss"));
        let location = read("rediss://:pw@redis.internal:6380").ok().unwrap();
        assert!(matches!(&location.address, Address::Tcp { port: 6380, tls: true, .. }));
        assert_eq!((location.username, location.password.as_ref().map(Secret::expose)), (None, Some("pw")));
        for url in ["unix:///run/redis.sock?db=2", "redis+unix:///run/redis.sock?db=2"] {
            let location = read(url).ok().unwrap();
            assert!(matches!(&location.address, Address::Unix(path) if path.as_os_str() == "/run/redis.sock"));
            assert_eq!(location.database, 2);
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_without_being_repeated() {
        for (url, hint) in [
            ("127.0.0.1:6379", "redis://"),
            ("http://u:hunter2@h", "redis://"),
            ("redis-cluster://hunter2:1", "primary"),
            ("redis-sentinel://hunter2:1", "primary"),
            ("redis:///0", "HOST"),
            ("redis://u:hun/ter2@h", "%2F"),
            ("redis://hunter2@h", ":password@"),
            ("redis://h/x", "0 to 255"),
            ("redis://h/256", "0 to 255"),
            ("redis://h?timeout=1", "keys of [redis]"),
            ("redis://h:0", "6379"),
            ("unix://run/redis.sock", "three slashes"),
            ("unix:///s?db=x", "?db=0"),
            ("unix:///s?password=hunter2", "keys of [redis]"),
        ] {
            let (what, how) = read(url).err().expect(url);
            assert!(how.contains(hint), "{url}: {how}");
            assert!(!what.contains("hunter2") && !how.contains("hunter2"));
        }
    }
}
