//! `[admin]`, compiled.

use std::net::SocketAddr;

use crate::secret::Secret;

/// `[admin]`, compiled.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where to listen. The config must have a token unless this is a loopback address.
    pub address: SocketAddr,
    /// The token that callers must send, except for `/live` and `/ready`.
    pub token: Option<Secret>,
    /// Host names that requests may use, in lower case, besides localhost and the listener's
    /// addresses.
    pub hosts: Box<[Box<str>]>,
    /// What this sidecar is called among those that share its Redis.
    pub name: Option<Box<str>>,
}
