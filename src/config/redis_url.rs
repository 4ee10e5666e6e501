//! Parses the URL of Redis: TCP, TLS, Unix sockets, Sentinel and Cluster. SECURITY: the text may
//! contain a password, so no message repeats any of it.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use super::decode::{Located, TomlString};
use super::diagnostics::DiagnosticCollector;
use super::diagnostics::diagnostic::DiagnosticBuilder;
use crate::redis::{RedisAddress, Sentinel};
use crate::secret::Secret;

const FORM: &str = "redis://[user:password@]host[:port][/database], \
                    redis-sentinel://…?sentinelServiceName=NAME, redis-cluster://…, \
                    rediss://… (rediss-sentinel, rediss-cluster) for TLS, or unix:///path?db=0";
const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How many servers a URL may name.
const MAX_NODES: usize = 64;

/// A parsed URL.
pub struct Location {
    /// Where Redis is.
    pub address: RedisAddress,
    /// The database.
    pub database: u8,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

/// The message and the hint of an invalid URL.
type UrlFault = (&'static str, &'static str);

/// Parses a URL, or reports why it is invalid.
pub fn parse(text: &Located<TomlString>, report: &mut DiagnosticCollector) -> Option<Location> {
    if text.value.as_str().is_empty() {
        let hint = "write url = \"${REDIS_URL:-}\" to leave [redis] out while the variable is \
                    empty, or remove the section";
        report.push(
            DiagnosticBuilder::error(text.span.clone(), "the URL of Redis is empty")
                .allowed(FORM)
                .hint(hint),
        );
        return None;
    }
    match read(text.value.as_str()) {
        Ok(location) => Some(location),
        Err((what, hint)) => {
            report.malformed(text, "a Redis URL", what, Some(FORM), hint);
            None
        }
    }
}

/// The servers that a URL names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UrlKind {
    Server,
    Sentinel,
    Cluster,
}

fn read(value: &str) -> Result<Location, UrlFault> {
    let Some((scheme, _)) = value.split_once("://") else {
        return Err(("this is not a URL", "put redis:// before it"));
    };
    let (kind, tls) = match scheme.to_ascii_lowercase().as_str() {
        "redis" => (UrlKind::Server, false),
        "rediss" => (UrlKind::Server, true),
        "redis-sentinel" => (UrlKind::Sentinel, false),
        "rediss-sentinel" => (UrlKind::Sentinel, true),
        "redis-cluster" => (UrlKind::Cluster, false),
        "rediss-cluster" => (UrlKind::Cluster, true),
        "unix" | "redis+unix" => return unix(value),
        _ => {
            return Err((
                "this is not the scheme of a Redis URL",
                "write it as \"redis://127.0.0.1:6379/0\"",
            ));
        }
    };
    let url = Url::parse(value).map_err(|_| {
        (
            "this URL cannot be parsed",
            "in a password, write `/`, `@`, `:`, `#` and `%` as %2F, %40, %3A, %23, %25",
        )
    })?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or(("the URL has no host", "write redis://HOST:PORT"))?;
    if (url.query().is_some() && kind == UrlKind::Server) || url.fragment().is_some() {
        return Err((
            "the URL has a query or a fragment",
            "write other settings as keys of [redis]",
        ));
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| {
            (
                "the path of the URL is not the number of a database",
                "write a number from 0 to 255, as in …:6379/0",
            )
        })?,
    };
    let port =
        url.port().unwrap_or(if kind == UrlKind::Sentinel { SENTINEL_PORT } else { DEFAULT_PORT });
    if port == 0 {
        return Err(("the URL has port 0", "Redis usually listens on 6379"));
    }
    let host = bare(host);
    let decoded =
        |part: &str| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned);
    let user = decoded(url.username())
        .map_err(|_| ("the user in the URL is not UTF-8", "percent-encode it as UTF-8"))?;
    let password = url
        .password()
        .map(decoded)
        .transpose()
        .map_err(|_| ("the password in the URL is not UTF-8", "percent-encode it as UTF-8"))?;
    if !user.is_empty() && password.is_none() {
        return Err((
            "the URL has a user but no password",
            "write user:password@host, or :password@host for a password alone",
        ));
    }
    let address = match kind {
        UrlKind::Server => RedisAddress::Tcp { host, port, tls },
        UrlKind::Sentinel => RedisAddress::Sentinel(sentinel(&url, (host, port), tls)?),
        UrlKind::Cluster if database != 0 => {
            return Err(("a cluster has only database 0", "write database 0, or none"));
        }
        UrlKind::Cluster => RedisAddress::Cluster { nodes: cluster(&url, (host, port))?, tls },
    };
    Ok(Location {
        address,
        database,
        username: Some(user).filter(|user| !user.is_empty()),
        password: password.filter(|password| !password.is_empty()).map(Secret::new),
    })
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// `redis-sentinel://host:port[/database]?sentinelServiceName=NAME&node=host2:port2…`
fn sentinel(url: &Url, first: (String, u16), tls: bool) -> Result<Sentinel, UrlFault> {
    let (mut nodes, mut service, mut username, mut password) = (vec![first], None, None, None);
    for (name, value) in url.query_pairs() {
        let place = match name.as_ref() {
            "node" => {
                add(&mut nodes, &value, SENTINEL_PORT)?;
                continue;
            }
            "sentinelServiceName" => &mut service,
            "sentinelUsername" => &mut username,
            "sentinelPassword" => &mut password,
            _ => {
                let hint = "use node, sentinelServiceName, sentinelUsername, sentinelPassword; \
                            write other settings as keys of [redis]";
                return Err(("the Sentinel URL has an unknown parameter", hint));
            }
        };
        if value.is_empty() || place.replace(value.into_owned()).is_some() {
            return Err(("a parameter of the URL is empty or given twice", "give it one value"));
        }
    }
    let hint =
        "add ?sentinelServiceName=NAME, the name under which the sentinels monitor the primary";
    let service = service.ok_or(("the Sentinel URL does not name the primary", hint))?;
    if username.is_some() && password.is_none() {
        return Err((
            "the URL has a user for the sentinels but no password",
            "add &sentinelPassword=PASSWORD",
        ));
    }
    Ok(Sentinel { service, nodes, tls, username, password: password.map(Secret::new) })
}

/// `redis-cluster://host:port?node=host2:port2…`
fn cluster(url: &Url, first: (String, u16)) -> Result<Vec<(String, u16)>, UrlFault> {
    let mut nodes = vec![first];
    for (name, value) in url.query_pairs() {
        if name != "node" {
            return Err((
                "the cluster URL has a parameter other than `node`",
                "write other settings as keys of [redis]",
            ));
        }
        add(&mut nodes, &value, DEFAULT_PORT)?;
    }
    Ok(nodes)
}

/// Adds the server of a `node` parameter, unless it is already in the list.
fn add(nodes: &mut Vec<(String, u16)>, value: &str, default_port: u16) -> Result<(), UrlFault> {
    let fault = (
        "a `node` of the URL is not a host with a port",
        "write node=HOST:PORT, and an IPv6 address as [::1]:6379",
    );
    let (host, port) = match value.rsplit_once(':') {
        // Without brackets an IPv6 address is ambiguous.
        Some((host, port)) if !value.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port > 0).ok_or(fault)?)
        }
        _ => (value, default_port),
    };
    let host = url::Host::parse(host).map_err(|_| fault)?;
    let node = (bare(&host.to_string()), port);
    if !nodes.contains(&node) {
        nodes.push(node);
    }
    if nodes.len() > MAX_NODES {
        return Err((
            "the URL names too many servers",
            "name at most 64: the sidecar learns the others from them",
        ));
    }
    Ok(())
}

/// `unix:///path?db=0`.
fn unix(value: &str) -> Result<Location, UrlFault> {
    let rest = value.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.len() < 2 {
        return Err((
            "the URL of a Unix socket needs an absolute path",
            "write it with three slashes: unix:///run/redis.sock",
        ));
    }
    let mut database = 0;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "db" => {
                database = value.parse().map_err(|_| {
                    ("`db` is not the number of a database", "write ?db=0, a number from 0 to 255")
                })?;
            }
            _ => {
                return Err((
                    "the URL of a Unix socket has a parameter other than `db`",
                    "write user and password as keys of [redis]",
                ));
            }
        }
    }
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| ("the path is not UTF-8", "percent-encode it as UTF-8"))?;
    Ok(Location {
        address: RedisAddress::Unix(PathBuf::from(path.into_owned())),
        database,
        username: None,
        password: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_kinds_are_read() {
        let location = read("redis://app:p%40ss@[::1]/3").ok().unwrap();
        let RedisAddress::Tcp { host, port: 6379, tls: false } = &location.address else {
            panic!("{:?}", location.address)
        };
        assert_eq!(host, "::1");
        assert_eq!((location.database, location.username.as_deref()), (3, Some("app")));
        assert_eq!(location.password.as_ref().map(Secret::expose), Some("p@ss"));
        let location = read("rediss://:pw@redis.internal:6380").ok().unwrap();
        assert!(matches!(&location.address, RedisAddress::Tcp { port: 6380, tls: true, .. }));
        assert_eq!(
            (location.username, location.password.as_ref().map(Secret::expose)),
            (None, Some("pw"))
        );
        for url in ["unix:///run/redis.sock?db=2", "redis+unix:///run/redis.sock?db=2"] {
            let location = read(url).ok().unwrap();
            let RedisAddress::Unix(path) = &location.address else {
                panic!("{:?}", location.address)
            };
            assert_eq!(path.as_os_str(), "/run/redis.sock");
            assert_eq!(location.database, 2);
        }
    }

    #[test]
    fn urls_of_sentinels_and_clusters_name_several_servers() {
        let node = |host: &str, port| (host.to_owned(), port);
        let url = "rediss-sentinel://app:pw@s1/2?node=s2:1&sentinelServiceName=my%20master&\
                   node=[::1]&node=s1&sentinelUsername=u&sentinelPassword=p%26q";
        let location = read(url).ok().unwrap();
        assert_eq!((location.database, location.username.as_deref()), (2, Some("app")));
        let RedisAddress::Sentinel(sentinel) = location.address else { panic!("sentinels") };
        assert_eq!((sentinel.service.as_str(), sentinel.tls), ("my master", true));
        assert_eq!(sentinel.nodes, [node("s1", 26379), node("s2", 1), node("::1", 26379)]);
        assert_eq!(
            (sentinel.username.as_deref(), sentinel.password.as_ref().map(Secret::expose)),
            (Some("u"), Some("p&q"))
        );
        let location = read("redis-cluster://:pw@c1?node=c2:7001&node=c3").ok().unwrap();
        let nodes = vec![node("c1", 6379), node("c2", 7001), node("c3", 6379)];
        assert_eq!(
            (location.address, location.database),
            (RedisAddress::Cluster { nodes, tls: false }, 0)
        );
        assert!(matches!(
            read("rediss-cluster://c1").ok().unwrap().address,
            RedisAddress::Cluster { tls: true, .. }
        ));
    }

    #[test]
    fn what_leads_nowhere_is_refused_without_being_repeated() {
        for (url, hint) in [
            ("127.0.0.1:6379", "redis://"),
            ("http://u:hunter2@h", "redis://"),
            ("redis-cluster://hunter2:1/1", "database 0"),
            ("redis-cluster://h?node=hunter2:x", "HOST:PORT"),
            ("redis-cluster://h?node=hunter2:0", "HOST:PORT"),
            ("redis-cluster://h?node=", "HOST:PORT"),
            ("redis-cluster://h?node=::1", "[::1]"),
            ("redis-cluster://h?hunter2=1", "keys of [redis]"),
            ("redis-sentinel://hunter2:1", "sentinelServiceName"),
            ("redis-sentinel://h?sentinelServiceName=", "one value"),
            ("redis-sentinel://h?sentinelServiceName=a&sentinelServiceName=hunter2", "one value"),
            ("redis-sentinel://h?sentinelServiceName=a&hunter2=1", "sentinelPassword"),
            (
                "redis-sentinel://h?sentinelServiceName=a&sentinelUsername=hunter2",
                "sentinelPassword",
            ),
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
