//! Lookups in the shared mode: an entry of either tier is validated by the records of its tags,
//! read from Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::entry::Entry;
use crate::cache::entry::packed::Unpacked;
use crate::cache::store::counters::StoreCounters;
use crate::cache::store::lookup::{Candidate, LookupKey, LookupResult, find_in_memory, not_stored};
use crate::cache::store::memory::{CachedEntry, Memory};
use crate::cache::store::packing::Packing;
use crate::clock::Wall;
use crate::coherence::redis_records::RecordStore;
use crate::coherence::stamp::Stamp;
use crate::coherence::tag_record::{EntryVerdict, RecordSnapshot};
use crate::coherence::{Coherence, Proof, SharedProof, TagSnapshot, TagWatch};
use crate::outcome::{Reason, Tier};
use crate::policy::key::Key;
use crate::policy::tag::Tag;
use crate::redis::{CallError, ReplyWait};

/// What a lookup in the shared mode works with.
pub(super) struct SharedLookup<'a> {
    pub(super) memory: &'a Memory,
    pub(super) coherence: &'a Coherence,
    pub(super) records: &'a RecordStore,
    pub(super) packing: &'a Packing,
    pub(super) counters: &'a StoreCounters,
    /// How long Redis may take.
    pub(super) wait: ReplyWait,
}

/// What a lookup found in one tier, and the records that validated it.
struct TierLookup {
    key: Key,
    candidate: Option<Candidate>,
    miss_reason: Reason,
    reading: Option<RecordSnapshot>,
}

impl SharedLookup<'_> {
    pub(super) async fn lookup(&self, request: &impl LookupKey, now: Wall) -> LookupResult {
        let epoch = self.coherence.epoch();
        let (key, cached, varies) = find_in_memory(self.memory, request);
        if !self.coherence.has_contact().await {
            return LookupResult {
                key,
                candidate: None,
                miss_reason: Reason::CacheUnavailable,
                snapshot: TagSnapshot::Unverifiable,
            };
        }
        let found = match cached {
            Some(cached) if cached.entry.times.is_fresh(now) => {
                self.lookup_memory(request, key, cached, now).await
            }
            _ => self.lookup_redis(request, key, varies, now).await,
        };
        match found {
            // The connection may have changed, to a promoted replica that has not received the
            // latest purges.
            Some(TierLookup { key, .. }) if self.coherence.epoch() != epoch => LookupResult {
                key,
                candidate: None,
                miss_reason: Reason::Unverifiable,
                snapshot: TagSnapshot::Unverifiable,
            },
            Some(TierLookup { key, candidate, miss_reason, mut reading }) => {
                if let (false, Some(reading)) =
                    (candidate.as_ref().is_some_and(|candidate| candidate.fresh), &mut reading)
                {
                    // Fail open: without seeded records, the fill is stored only if nothing at all
                    // is purged during it.
                    let _ =
                        self.coherence.record_result(self.records.seed(reading, self.wait).await);
                }
                let snapshot = reading.map_or(TagSnapshot::Unverifiable, |reading| {
                    TagSnapshot::Shared(epoch, reading)
                });
                LookupResult { key, candidate, miss_reason, snapshot }
            }
            // Fail open: Redis did not reply in time, so this request goes to the origin, and its
            // response is not stored.
            None => LookupResult {
                // Made again here, so that nobody else copies it.
                key: find_in_memory(self.memory, request).0,
                candidate: None,
                miss_reason: Reason::CacheUnavailable,
                snapshot: TagSnapshot::Unverifiable,
            },
        }
    }

    /// Validates an entry of the memory tier by one read of the records.
    async fn lookup_memory(
        &self,
        request: &impl LookupKey,
        key: Key,
        cached: Arc<CachedEntry>,
        now: Wall,
    ) -> Option<TierLookup> {
        let mut tags = request.tags();
        if let Proof::Shared(proof) = &cached.proof {
            let of_request = tags.len();
            for (tag, _) in &proof.stamp.tags {
                if !tags[..of_request].contains(tag) {
                    tags.push(tag.clone());
                }
            }
            let watch = self.coherence.watch_tags(&tags);
            let reading = self.record(self.records.fetch(None, &tags, self.wait).await)?.reading;
            let verdict =
                reading.as_ref().map_or(EntryVerdict::Refused(Reason::Purged), |reading| {
                    reading.validate(&proof.stamp)
                });
            match self.settle_verdict(verdict, &tags).await {
                Ok(None) => {
                    proof.renew(watch.as_ref());
                    let candidate =
                        Candidate { cached, tier: Tier::Memory, fresh: true, soft_purged_at: None };
                    return Some(TierLookup {
                        key,
                        candidate: Some(candidate),
                        miss_reason: Reason::NotStored,
                        reading,
                    });
                }
                Err(Reason::MutationPending) => {
                    return Some(TierLookup {
                        key,
                        candidate: None,
                        miss_reason: Reason::MutationPending,
                        reading,
                    });
                }
                Ok(Some(_)) | Err(_) => {}
            }
        }
        // Another sidecar may have stored a newer entry.
        self.lookup_redis(request, key, false, now).await
    }

    async fn lookup_redis(
        &self,
        request: &impl LookupKey,
        key: Key,
        varies: bool,
        now: Wall,
    ) -> Option<TierLookup> {
        let tags = request.tags();
        let mut watch = self.coherence.watch_tags(&tags);
        let fetched = self.record(self.records.fetch(Some(key.hash()), &tags, self.wait).await)?;
        let Some(reading) = fetched.reading else {
            return Some(TierLookup {
                key,
                candidate: None,
                miss_reason: Reason::NotStored,
                reading: None,
            });
        };
        let (mut key, mut bytes, mut varies) = (key, fetched.entry, varies);
        // Once for the vary mark, and once for the variant.
        for _ in 0..2 {
            let miss_reason = match self.unpack(bytes.take()).await {
                None => not_stored(varies),
                Some(Unpacked::Vary(mark)) if mark.key[..] == *key.canonical() && !varies => {
                    key = request.variant(&mark.spec);
                    self.memory.insert_vary(request.key().hash(), Arc::new(mark));
                    varies = true;
                    bytes = self.record(self.records.fetch_entry(key.hash(), self.wait).await)?;
                    continue;
                }
                // SECURITY: two keys with one hash never share an entry, whoever wrote it.
                Some(Unpacked::Entry(entry, stamp)) if entry.key[..] == *key.canonical() => {
                    match self
                        .promote_from_redis((&reading, watch.take()), *entry, stamp, now)
                        .await?
                    {
                        Ok(candidate) => {
                            if candidate.fresh {
                                self.memory.insert(key.hash(), Arc::clone(&candidate.cached));
                            }
                            let miss_reason =
                                if candidate.fresh { Reason::NotStored } else { Reason::Expired };
                            return Some(TierLookup {
                                key,
                                candidate: Some(candidate),
                                miss_reason,
                                reading: Some(reading),
                            });
                        }
                        Err(reason) => reason,
                    }
                }
                Some(_) => Reason::NotStored,
            };
            return Some(TierLookup { key, candidate: None, miss_reason, reading: Some(reading) });
        }
        Some(TierLookup {
            key,
            candidate: None,
            miss_reason: Reason::VaryMiss,
            reading: Some(reading),
        })
    }

    async fn promote_from_redis(
        &self,
        (reading, mut watch): (&RecordSnapshot, Option<TagWatch>),
        mut entry: Entry,
        stamp: Stamp,
        now: Wall,
    ) -> Option<Result<Candidate, Reason>> {
        match self.records.local_time(entry.times.received) {
            Some(received) => entry.times.received = received,
            None => return Some(Err(Reason::Expired)),
        }
        let unread = reading.unread_tags(&stamp);
        let mut complete = reading.clone();
        if !unread.is_empty() {
            let more_watch = self.coherence.watch_tags(&unread);
            let more = self.record(self.records.fetch(None, &unread, self.wait).await)?.reading?;
            if more.generation != reading.generation {
                return Some(Err(Reason::Purged));
            }
            complete.records.extend(more.records);
            watch = watch.zip(more_watch).and_then(|(one, more)| one.merge(more));
        }
        let tags: Vec<Tag> = stamp.tags.iter().map(|(tag, _)| tag.clone()).collect();
        let soft_purged_at = match self.settle_verdict(complete.validate(&stamp), &tags).await {
            Ok(ago) => ago.map(|ago| now.before(ago)),
            Err(reason) => return Some(Err(reason)),
        };
        // A lease must not vouch for an entry that Redis no longer considers fresh.
        let watch = watch.filter(|_| soft_purged_at.is_none());
        let proof = Proof::Shared(SharedProof::new(stamp, watch.as_ref()));
        Some(Candidate::new(
            Arc::new(CachedEntry::new(entry, proof)),
            Tier::Redis,
            soft_purged_at,
            now,
        ))
    }

    /// Acts on a verdict: orphaned mutations are settled before the entry is refused. Returns how
    /// long ago a soft purge made the entry stale.
    async fn settle_verdict(
        &self,
        verdict: EntryVerdict,
        tags: &[Tag],
    ) -> Result<Option<Duration>, Reason> {
        match verdict {
            EntryVerdict::Current => Ok(None),
            EntryVerdict::SoftPurged(ago) => Ok(Some(ago)),
            EntryVerdict::Refused(reason) => {
                self.counters.refused_stale.inc();
                Err(reason)
            }
            EntryVerdict::Incomplete => Err(Reason::NotStored),
            EntryVerdict::Orphaned => {
                // Boxed: it is rare, and every lookup would carry its future.
                Box::pin(self.coherence.settle(tags)).await;
                Err(Reason::Purged)
            }
        }
    }

    fn record<T>(&self, result: Result<T, CallError>) -> Option<T> {
        self.coherence.record_result(result).ok()
    }

    async fn unpack(&self, bytes: Option<Bytes>) -> Option<Unpacked> {
        self.packing.unpack(&bytes?, self.memory.is_on()).await
    }
}
