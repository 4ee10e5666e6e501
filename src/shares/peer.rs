//! Who a share belongs to.

use std::net::IpAddr;

use crate::peer_address::PeerAddress;

/// Who a share belongs to: an address, or all those together whose address is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShareOwner {
    /// Clients behind a trusted proxy that names no address, and untrusted peers of a Unix socket.
    #[default]
    Unnamed,
    /// A trusted proxy itself, which connects for many clients. Its connections count for nothing
    /// against it.
    TrustedProxy,
    /// An IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address: one customer has all of the addresses below.
    V6(u64),
}

impl ShareOwner {
    /// The peer at this address.
    #[must_use]
    pub const fn from_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// The peer that connects from there.
    #[must_use]
    pub const fn from_peer(peer: PeerAddress) -> Self {
        match peer {
            PeerAddress::Ip(address) => Self::from_address(address),
            PeerAddress::Unix => Self::Unnamed,
        }
    }

    /// How much a peer that holds so many permits has of its share.
    pub(super) const fn rank(self, held: usize) -> usize {
        match self {
            Self::TrustedProxy => 0,
            Self::Unnamed | Self::V4(_) | Self::V6(_) => held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> ShareOwner {
        ShareOwner::from_address(address.parse().expect("an address"))
    }

    #[test]
    fn an_ipv6_customer_is_one_peer() {
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"), "the same address, mapped");
    }
}
