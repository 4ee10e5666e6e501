//! A range of addresses in CIDR notation, or the peers of a Unix socket, for the list of trusted
//! proxies.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::peer_address::PeerAddress;

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address. Or `unix`: whatever
/// connects to a Unix socket, which has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(NetworkKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum NetworkKind {
    Range { addr: IpAddr, prefix: u8 },
    Unix,
}

/// How the peers of a Unix socket are written.
const UNIX: &str = "unix";

/// Why a text is not a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// The part before the slash is not an IP address.
    #[error(
        "`{0}` is not an IP address; write an address (`10.1.2.3`) or a network (`10.0.0.0/8`)"
    )]
    Address(String),
    /// The part after the slash is not a prefix length of this address family.
    #[error("`/{found}` is not a prefix length; allowed is 0 to {most}")]
    Prefix {
        /// The text after the slash.
        found: String,
        /// The longest prefix of the address family.
        most: u8,
    },
    /// The address has bits set beyond its prefix, so its meaning is unclear.
    #[error("the address has bits set beyond its prefix; write `{0}` for the whole network")]
    HostBits(Network),
}

impl Network {
    /// Whether what connects from there is of this network.
    #[must_use]
    pub fn includes(&self, peer: PeerAddress) -> bool {
        match (self.0, peer) {
            (NetworkKind::Range { .. }, PeerAddress::Ip(addr)) => self.contains(addr),
            (NetworkKind::Unix, PeerAddress::Unix) => true,
            _ => false,
        }
    }

    /// Whether the address lies in this network. An IPv4 address counts the same if it is mapped
    /// into IPv6, as on a socket that listens to both.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        let NetworkKind::Range { addr: network, prefix } = self.0 else { return false };
        match (network, addr.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                network.to_bits() == addr.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                network.to_bits() == addr.to_bits() & mask
            }
            _ => false,
        }
    }

    fn new(addr: IpAddr, prefix: u8) -> Result<Self, BadNetwork> {
        let (first, prefix) = match addr {
            IpAddr::V4(v4) => (IpAddr::V4(first_v4(v4, prefix)), prefix),
            // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
            IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), prefix.checked_sub(96)) {
                (Some(v4), Some(prefix)) => return Self::new(IpAddr::V4(v4), prefix),
                _ => (IpAddr::V6(first_v6(v6, prefix)), prefix),
            },
        };
        let network = Self(NetworkKind::Range { addr: first, prefix });
        if first == addr { Ok(network) } else { Err(BadNetwork::HostBits(network)) }
    }
}

fn first_v4(addr: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(addr.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

fn first_v6(addr: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(
        addr.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0),
    )
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        if text == UNIX {
            return Ok(Self(NetworkKind::Unix));
        }
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, Some(prefix)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| BadNetwork::Address(addr.to_owned()))?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            // `+8` and `08` parse as numbers, but are most likely mistakes.
            Some(digits) => match digits.parse::<u8>() {
                Ok(prefix) if prefix <= most && prefix.to_string() == digits => prefix,
                _ => return Err(BadNetwork::Prefix { found: digits.to_owned(), most }),
            },
        };
        Self::new(addr, prefix)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NetworkKind::Range { addr, prefix } => write!(f, "{addr}/{prefix}"),
            NetworkKind::Unix => f.write_str(UNIX),
        }
    }
}
