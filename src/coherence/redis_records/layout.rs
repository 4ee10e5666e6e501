//! The names of the keys in Redis, and the scripts that read and change their values.

use bytes::Bytes;

use crate::coherence::message::PeerId;
use crate::policy::tag::Tag;
use crate::redis::Script;

/// The names of the keys.
#[derive(Debug)]
pub(super) struct RecordKeys {
    pub(super) entry: String,
    pub(super) tag: String,
    pub(super) generation: Bytes,
    pub(super) seq: Bytes,
    pub(super) peers: Bytes,
    pub(super) clock: Bytes,
    pub(super) marks: String,
    pub(super) bus: String,
    pub(super) switches: Bytes,
}

impl RecordKeys {
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            entry: format!("{namespace}:e:"),
            tag: format!("{{{namespace}}}:t:"),
            generation: format!("{{{namespace}}}:gen").into(),
            seq: format!("{{{namespace}}}:seq").into(),
            peers: format!("{{{namespace}}}:nodes").into(),
            clock: format!("{{{namespace}}}:clock").into(),
            marks: format!("{{{namespace}}}:m:"),
            bus: format!("{{{namespace}}}:bus"),
            switches: format!("{{{namespace}}}:modes").into(),
        }
    }

    pub(super) fn tag(&self, tag: &Tag) -> Bytes {
        [&self.tag, tag.as_str()].concat().into()
    }

    pub(super) fn marks(&self, peer: PeerId) -> Bytes {
        [&self.marks, peer.to_string().as_str()].concat().into()
    }
}

#[derive(Debug)]
pub(super) struct RecordScripts {
    pub(super) init: Script,
    pub(super) role: Script,
    pub(super) heartbeat: Script,
    pub(super) mark: Script,
    pub(super) purge: Script,
    pub(super) purge_oom: Script,
    pub(super) unmark: Script,
    pub(super) purge_all: Script,
    pub(super) evict: Script,
    pub(super) forget: Script,
    pub(super) seed: Script,
    pub(super) commit: Script,
    pub(super) switch_keep: Script,
    pub(super) switch_end: Script,
    pub(super) switch_read: Script,
}

impl Default for RecordScripts {
    fn default() -> Self {
        let script = |text: &str| Script::new(&[include_str!("../lua/lib.lua"), text]);
        let switch_script = |text: &str| {
            let libraries = [include_str!("../lua/lib.lua"), include_str!("../lua/switch_lib.lua")];
            Script::new(&[libraries[0], libraries[1], text])
        };
        Self {
            init: script(include_str!("../lua/init.lua")),
            role: script(include_str!("../lua/role.lua")),
            heartbeat: script(include_str!("../lua/heartbeat.lua")),
            mark: script(include_str!("../lua/mark.lua")),
            purge: script(include_str!("../lua/purge.lua")),
            purge_oom: script(include_str!("../lua/purge_oom.lua")),
            unmark: script(include_str!("../lua/unmark.lua")),
            purge_all: script(include_str!("../lua/purge_all.lua")),
            evict: script(include_str!("../lua/evict.lua")),
            forget: script(include_str!("../lua/forget.lua")),
            seed: script(include_str!("../lua/seed.lua")),
            commit: script(include_str!("../lua/commit.lua")),
            switch_keep: switch_script(include_str!("../lua/switch_keep.lua")),
            switch_end: switch_script(include_str!("../lua/switch_end.lua")),
            switch_read: switch_script(include_str!("../lua/switch_read.lua")),
        }
    }
}
