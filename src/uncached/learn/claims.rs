//! Rules for callers with tokens: a claim tells apart what several of them share.
//!
//! Invariants:
//! 1. *Callers with one value of the claim got the same*, several times, and none got another
//!    response. Each is admitted by the app before it is given what another one got.
//! 2. *A token that the app refuses says nothing*, so that nobody learns from forged ones: the
//!    trail has no claims of it. Reads without the claim pass.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rehearsal::Visit;
use super::super::trail::TrailRead;

/// The most claims that are tried for one route.
const MAX_CANDIDATES: usize = 8;

/// The reads of a template, in groups by the value of a claim.
#[derive(Clone, Debug)]
pub struct ClaimReads {
    /// A keyed hash of the name of the claim.
    pub claim: u64,
    /// Which of all reads have it, and those with their groups.
    reads: Vec<(usize, TrailRead)>,
}

impl ClaimReads {
    /// The reads by each claim that most of them have, and that puts several callers into one of
    /// several groups: those with the fewest groups first.
    #[must_use]
    pub fn all(visits: &[Visit<'_>]) -> Vec<Self> {
        let mut seen: BTreeMap<u64, ClaimUse> = BTreeMap::new();
        for visit in visits {
            for (claim, value) in &visit.read.claims {
                let used = seen.entry(*claim).or_default();
                used.reads += 1;
                used.values.insert(*value);
                used.callers.insert(visit.read.caller);
            }
        }
        let is_candidate = |used: &ClaimUse| {
            2 * used.reads >= visits.len()
                && used.values.len() > 1
                && used.callers.len() > used.values.len()
        };
        let mut candidates: Vec<(usize, u64)> = seen
            .iter()
            .filter(|(_, used)| is_candidate(used))
            .map(|(claim, used)| (used.values.len(), *claim))
            .collect();
        candidates.sort_unstable();
        let grouped = |claim: u64| {
            let reads = visits.iter().enumerate().filter_map(|(at, visit)| {
                let own = visit.read.claims.iter().find(|(name, _)| *name == claim)?;
                Some((at, TrailRead { group: own.1, ..visit.read.clone() }))
            });
            Self { claim, reads: reads.collect() }
        };
        candidates.into_iter().take(MAX_CANDIDATES).map(|(_, claim)| grouped(claim)).collect()
    }

    /// The reads with the claim, in their order.
    #[must_use]
    pub fn visits<'a>(&'a self, visits: &[Visit<'a>]) -> Vec<Visit<'a>> {
        self.reads.iter().map(|(at, read)| Visit { event: visits[*at].event, read }).collect()
    }
}

/// How a claim was seen.
#[derive(Debug, Default)]
struct ClaimUse {
    reads: usize,
    values: BTreeSet<u64>,
    callers: BTreeSet<u64>,
}
