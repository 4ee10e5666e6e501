//! Tests of coherence within one sidecar.

use std::time::Duration;

use super::*;
use crate::coherence::validation::LocalProof;
use crate::outcome::Reason;
use crate::policy::tag::Tag;

async fn proofs(coherence: &Coherence, tag: &Tag, many: usize) -> Vec<Proof> {
    let mut proofs = Vec::with_capacity(many);
    let tags = [tag.clone()];
    for _ in 0..many {
        let read = coherence.read_local(&tags);
        proofs.push(
            coherence
                .commit(&read, &tags, Duration::from_mins(1))
                .await
                .expect("nothing was purged since")
                .proof,
        );
    }
    proofs
}

#[tokio::test]
async fn heavy_a_tag_of_a_million_entries_is_purged_as_one_of_ten_is() {
    let coherence = Coherence::new(None, Clock::system());
    let (small, large) = (Tag::new("small"), Tag::new("large"));
    let few = proofs(&coherence, &small, 10).await;
    let many = proofs(&coherence, &large, 1_000_000).await;
    // How long it takes is measured by `benches/figures.rs`.
    coherence.purge(&[small]).await;
    coherence.purge(&[large]).await;
    for proof in few.iter().chain(&many) {
        let Proof::Local(proof) = proof else { panic!("a proof by the local table") };
        assert_eq!(coherence.validate_local(proof), Err(Reason::Purged));
    }
}

#[test]
fn without_a_lease_nothing_is_watched() {
    let coherence = Coherence::new(None, Clock::system());
    assert!(!coherence.has_lease() && coherence.watch_tags(&[Tag::new("a")]).is_none());
}

fn local(proof: &Proof) -> &LocalProof {
    let Proof::Local(proof) = proof else { panic!("a proof by the local table") };
    proof
}

#[tokio::test]
async fn a_soft_purge_makes_an_entry_stale_from_that_moment_on() {
    let clock = Clock::manual();
    let coherence = Coherence::new(None, clock.clone());
    let (tag, other) = (Tag::new("a"), Tag::new("b"));
    let both = proofs(&coherence, &tag, 1).await.remove(0);
    let bystander = proofs(&coherence, &other, 1).await.remove(0);
    for everything in [false, true] {
        clock.advance(Duration::from_secs(1));
        let began = clock.wall();
        if everything {
            coherence.purge_everything(PurgeKind::Soft).await;
        } else {
            coherence.purge_with(std::slice::from_ref(&tag), PurgeKind::Soft).await;
        }
        assert_eq!(
            coherence.validate_local(local(&both)),
            Err(Reason::Purged),
            "a soft purge ends the proof, too"
        );
        assert!(
            coherence
                .soft_purged_at_local(local(&both))
                .is_ok_and(|at| at.is_some_and(|at| at <= clock.wall()))
        );
        let touched =
            coherence.soft_purged_at_local(local(&bystander)).expect("nothing hard was purged");
        assert_eq!(touched.is_some_and(|at| at >= began), everything);
    }
    coherence.purge(&[tag]).await;
    assert_eq!(
        coherence.soft_purged_at_local(local(&both)),
        Err(Reason::Purged),
        "a hard purge after a soft one makes the entry invalid"
    );
    assert!(coherence.soft_purged_at_local(local(&bystander)).is_ok());
    coherence.purge_everything(PurgeKind::Hard).await;
    assert_eq!(coherence.soft_purged_at_local(local(&bystander)), Err(Reason::Purged));
}

#[tokio::test]
async fn a_soft_purge_ends_the_fill_that_it_overlaps() {
    let (known, named) = (Tag::new("known"), Tag::new("named by the response"));
    let everything = [known.clone(), named.clone()];
    for purged in [Some(&known), Some(&named), None] {
        let coherence = Coherence::new(None, Clock::system());
        let read = coherence.read_local(std::slice::from_ref(&known));
        let released = match purged {
            Some(tag) => coherence.purge_with(std::slice::from_ref(tag), PurgeKind::Soft).await,
            None => coherence.purge_everything(PurgeKind::Soft).await,
        };
        assert_eq!(released, Released::Acknowledged, "there is nobody to tell");
        let late = coherence.read_local(std::slice::from_ref(&known));
        assert!(!late.may_join(&read, true), "no request joins the fill: {purged:?}");
        let killed = coherence.commit(&read, &everything, Duration::from_mins(1)).await;
        assert!(matches!(killed, Err(Reason::PurgedDuringFill)), "{purged:?}");
        let next = coherence
            .commit(&late, &everything, Duration::from_mins(1))
            .await
            .expect("it began after the purge");
        assert_eq!(coherence.validate_local(local(&next.proof)), Ok(()), "{purged:?}");
    }
}
