//! A model of Redis, as far as the scripts of `src/coherence` use it: one tag, one entry, the list
//! of peers, and their marks.
//!
//! Each function is one script, and as atomic. Left out: deadlines of marks (longer than any run),
//! guards, and memory.

use std::collections::{BTreeMap, BTreeSet};

use sidecache::internals::core::{HeartbeatReply, RegisteredPeer, Registration, Subscribers};
use sidecache::internals::message::{OperationId, PeerId};

/// The tag's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub nonce: u16,
    pub seq: u16,
    pub fence: u8,
}

/// The entry under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub version: u8,
    pub generation: u16,
    pub nonce: u16,
}

/// What a fill read before its request to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    pub generation: u16,
    pub seq: u16,
    pub nonce: Option<u16>,
    pub fence: u8,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    pub fence: u8,
    pub generation: u16,
    pub seq: u16,
    pub record: Option<Record>,
    pub entry: Option<Stored>,
    pub registrations: BTreeMap<PeerId, bool>,
    pub marks: BTreeMap<PeerId, BTreeSet<OperationId>>,
}

pub fn fence_name(fence: u8) -> Box<str> {
    format!("primary {fence}").into()
}

impl Redis {
    pub fn new() -> Self {
        Self {
            fence: 0,
            generation: 0,
            seq: 0,
            record: None,
            entry: None,
            registrations: BTreeMap::new(),
            marks: BTreeMap::new(),
        }
    }

    fn valid(&self, fence: u8) -> Option<Record> {
        self.record.filter(|record| record.fence == fence)
    }

    fn peers(&self) -> Vec<RegisteredPeer> {
        self.registrations
            .iter()
            .map(|(peer, alive)| RegisteredPeer { peer: *peer, evicted: !alive })
            .collect()
    }

    /// `heartbeat.lua`
    pub fn heartbeat(&mut self, peer: PeerId, register: bool) -> HeartbeatReply {
        let mut peers = self.peers();
        let registration = match self.registrations.get(&peer) {
            _ if !register => Registration::Absent,
            Some(true) => Registration::Known,
            Some(false) => Registration::Evicted,
            None => {
                self.registrations.insert(peer, true);
                peers.push(RegisteredPeer { peer, evicted: false });
                Registration::New
            }
        };
        HeartbeatReply { fence: fence_name(self.fence), registration, peers, is_mixed: false }
    }

    /// `mark.lua`
    pub fn mark(&mut self, fence: u8, id: OperationId, peer: PeerId, nonce: &mut u16) {
        self.seed(fence, nonce);
        self.marks.entry(peer).or_default().insert(id);
    }

    /// `seed.lua`
    pub fn seed(&mut self, fence: u8, nonce: &mut u16) -> u16 {
        if let Some(record) = self.valid(fence) {
            return record.nonce;
        }
        *nonce += 1;
        self.record = Some(Record { nonce: *nonce, seq: self.seq, fence });
        *nonce
    }

    /// `purge.lua`; the caller says how many subscribers there are.
    pub fn purge(
        &mut self,
        fence: u8,
        mark: Option<(OperationId, PeerId)>,
        nonce: &mut u16,
        listeners: usize,
    ) -> Subscribers {
        self.seq += 1;
        *nonce += 1;
        self.record = Some(Record { nonce: *nonce, seq: self.seq, fence });
        if let Some((id, peer)) = mark
            && let Some(marks) = self.marks.get_mut(&peer)
        {
            marks.remove(&id);
            if marks.is_empty() {
                self.marks.remove(&peer);
            }
        }
        Subscribers { peers: self.peers(), listeners, is_mixed: false }
    }

    /// `evict.lua`
    pub fn evict(&mut self, peer: PeerId) -> Vec<OperationId> {
        if let Some(alive) = self.registrations.get_mut(&peer) {
            *alive = false;
        }
        self.marks.get(&peer).into_iter().flatten().copied().collect()
    }

    /// `forget.lua`, with a message or without.
    pub fn forget(&mut self, peer: PeerId, published: bool) {
        self.registrations.remove(&peer);
        if !published {
            self.marks.remove(&peer);
        }
    }

    /// `MGET` of the generation, the step and the record, by a sidecar that trusts this fence.
    pub fn read(&self, fence: u8) -> Reading {
        Reading {
            generation: self.generation,
            seq: self.seq,
            nonce: self.valid(fence).map(|record| record.nonce),
            fence,
        }
    }

    /// `commit.lua`
    pub fn commit(&mut self, reading: &Reading, nonce: &mut u16) -> Option<u16> {
        let mut clean = self.generation == reading.generation;
        let current = match (self.valid(reading.fence), reading.nonce) {
            (None, known) => {
                clean &= known.is_none() && self.seq == reading.seq;
                self.seed(reading.fence, nonce)
            }
            (Some(record), Some(known)) => {
                clean &= record.nonce == known;
                record.nonce
            }
            (Some(record), None) => {
                clean &= record.seq <= reading.seq;
                record.nonce
            }
        };
        clean.then_some(current)
    }
}
