//! What is stored for a request, and what would be done with it: for `explain`, by the code that
//! answers requests.

use http::HeaderMap;
use serde::Serialize;

use crate::cache::store::LookupResult;
use crate::cache::store::memory::{CachedEntry, MemorySlot};
use crate::outcome::{Disposition, Reason};
use crate::policy::plan::Lookup;
use crate::policy::request_directives::RequestDirectives;
use crate::proxy::{Proxy, Serve};

/// A stored response, as `explain` tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    tier: &'static str,
    status: u16,
    bytes: usize,
    age_s: f64,
    ttl_s: f64,
    fresh: bool,
    tags: Vec<InspectedTag>,
    verdict: &'static str,
    reason: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct InspectedTag {
    tag: String,
    current: bool,
}

impl Proxy {
    /// What is stored for a request, and what it would be answered with. Nothing where nothing is
    /// stored.
    pub async fn inspect(&self, lookup: &Lookup<'_>, headers: &HeaderMap) -> Option<Inspected> {
        let now = self.clock.wall();
        let wish = RequestDirectives::new(lookup.route, headers);
        let LookupResult { key, candidate: found, miss_reason: why, .. } =
            self.store.lookup(lookup, now).await;
        let (resident, tier, fresh, verdict) = match &found {
            Some(found) => {
                let verdict = match (wish.bypass, self.uncovered_header(lookup)) {
                    (Some(reason), _) => (Disposition::Bypass, Some(reason)),
                    (_, Some(_)) => (Disposition::Bypass, Some(Reason::UnkeyedHeader)),
                    _ => match self.may_serve(lookup, found, &wish, now) {
                        Ok(Serve::Fresh) => (Disposition::Hit, None),
                        Ok(Serve::WhileRevalidate) => {
                            (Disposition::Stale, Some(Reason::StaleWhileRevalidate))
                        }
                        Err(reason) => (Disposition::Miss, Some(reason)),
                    },
                };
                (found.cached.clone(), found.tier.as_str(), found.fresh, verdict)
            }
            // What was refused is still in memory, for a while.
            None => match self.store.memory.peek(key.hash())? {
                MemorySlot::Entry(resident) if resident.entry.key[..] == *key.canonical() => {
                    (resident, "memory", false, (Disposition::Miss, Some(why)))
                }
                _ => return None,
            },
        };
        let CachedEntry { entry, proof } = &*resident;
        let names = lookup
            .tags()
            .into_iter()
            .chain(entry.response_tags.iter().cloned())
            .collect::<Vec<_>>();
        let tags = self.coherence.current_tags(proof, &names).await;
        let left =
            found.as_ref().map_or_else(|| entry.times.ttl_ms(now), |found| found.ttl_ms(now));
        #[allow(clippy::cast_precision_loss, reason = "seconds for people to read")]
        let ttl_s = left as f64 / 1e3;
        Some(Inspected {
            tier,
            status: entry.status.as_u16(),
            bytes: entry.body.len(),
            age_s: entry.times.age(now).as_secs_f64(),
            ttl_s,
            fresh,
            tags: tags
                .into_iter()
                .map(|(tag, current)| InspectedTag { tag: tag.as_str().to_owned(), current })
                .collect(),
            verdict: verdict.0.as_str(),
            reason: verdict.1.map(Reason::as_str),
        })
    }
}
