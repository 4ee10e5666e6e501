//! Coherence of one sidecar by itself, and what a purge costs it.

use std::time::Duration;

use super::*;

/// How long a purge of this tag takes: the median of many.
async fn purge_takes(coherence: &Coherence, tag: &Tag, clock: &Clock) -> Duration {
    let mut took = Vec::new();
    for _ in 0..201 {
        let began = clock.now();
        coherence.purge(std::slice::from_ref(tag)).await;
        took.push(clock.now() - began);
    }
    took.sort();
    took[took.len() / 2]
}

async fn proofs(coherence: &Coherence, tag: &Tag, many: usize) -> Vec<Proof> {
    let mut proofs = Vec::with_capacity(many);
    let tags = [tag.clone()];
    for _ in 0..many {
        let read = coherence.read_local(&tags);
        proofs.push(coherence.commit(&read, &tags, Duration::from_mins(1)).await.expect("nothing was purged meanwhile"));
    }
    proofs
}

#[tokio::test]
async fn heavy_a_tag_of_a_million_entries_is_purged_as_fast_as_one_of_ten() {
    let clock = Clock::system();
    let coherence = Coherence::new(None, clock.clone());
    let (small, large) = (Tag::new("small"), Tag::new("large"));
    let few = proofs(&coherence, &small, 10).await;
    let many = proofs(&coherence, &large, 1_000_000).await;
    let (of_few, of_many) = (purge_takes(&coherence, &small, &clock).await, purge_takes(&coherence, &large, &clock).await);
    assert!(of_many < of_few * 5 + Duration::from_micros(20), "{of_many:?} beside {of_few:?}");
    for proof in few.iter().chain(&many) {
        let Proof::Local(proof) = proof else { panic!("a proof by the local table") };
        assert_eq!(coherence.judge_local(proof), Err(Reason::Purged));
    }
}

#[test]
fn without_a_lease_nothing_is_held_to_be_current() {
    let coherence = Coherence::new(None, Clock::system());
    assert!(!coherence.has_lease() && coherence.watch_tags(&[Tag::new("a")]).is_none());
}
