//! How to find the servers of one Redis, and how to connect to them.

use std::sync::Arc;

use fred::prelude::TlsConnector;
use parking_lot::Mutex;

use crate::error::SetupError;
use crate::redis::cluster;
use crate::redis::node::{ConnectOptions, NodeAddress, RedisNode};
use crate::redis::settings::RedisSettings;

/// How to find the servers, and which ones were found before.
pub(super) struct Topology {
    settings: RedisSettings,
    /// The slot of the metadata.
    pub(super) home: u16,
    access: ConnectOptions,
    tls: Option<TlsConnector>,
    /// Members of the cluster seen before: those in the settings may all be gone.
    seen: Mutex<Vec<NodeAddress>>,
}

impl Topology {
    pub(super) fn new(settings: RedisSettings, tls: Option<TlsConnector>) -> Self {
        let home = cluster::slot(format!("{{{}}}", settings.namespace).as_bytes());
        let access = ConnectOptions::to_data(&settings, tls.as_ref());
        Self { settings, home, access, tls, seen: Mutex::default() }
    }

    pub(super) const fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    pub(super) const fn tls(&self) -> Option<&TlsConnector> {
        self.tls.as_ref()
    }

    /// How to connect to the servers that hold data.
    pub(super) const fn access(&self) -> &ConnectOptions {
        &self.access
    }

    pub(super) fn primary(&self, address: NodeAddress) -> Result<Arc<RedisNode>, SetupError> {
        RedisNode::open(
            address,
            &self.access,
            self.settings.connections,
            self.settings.wait_replicas > 0,
        )
        .map(Arc::new)
    }

    /// Opens a node that holds only entries; `None` if its client cannot be made.
    pub(super) fn shard(&self, address: NodeAddress) -> Option<Arc<RedisNode>> {
        RedisNode::open(address, &self.access, self.settings.connections, false).map(Arc::new).ok()
    }

    pub(super) fn seen(&self) -> parking_lot::MutexGuard<'_, Vec<NodeAddress>> {
        self.seen.lock()
    }
}
