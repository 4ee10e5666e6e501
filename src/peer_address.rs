//! Where the other end of a client's connection is.

use std::fmt;
use std::net::IpAddr;

/// Where the other end of a client's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address.
    Ip(IpAddr),
    /// A Unix socket of this machine, whose peers have no address.
    Unix,
}

impl PeerAddress {
    /// The address, if it has one; an IPv4 address in its own form, also if it was mapped into
    /// IPv6.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip.to_canonical()),
            Self::Unix => None,
        }
    }
}

impl<T: Into<IpAddr>> From<T> for PeerAddress {
    fn from(ip: T) -> Self {
        Self::Ip(ip.into())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
