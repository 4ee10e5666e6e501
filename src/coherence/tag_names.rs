//! The names of the tags behind proofs by the local table, and proofs that begin now: for entries
//! that are carried from one process to the next.
//!
//! A proof holds the states of its tags and not their names, because a hit needs no names.

use std::collections::HashMap;
use std::sync::Arc;

use crate::coherence::Coherence;
use crate::coherence::tag_table::TagState;
use crate::coherence::validation::LocalProof;
use crate::policy::tag::Tag;

/// The names of the states that the table held at one moment.
#[derive(Debug)]
pub struct TagNames {
    /// By the address of the state. The state is held, so that no other one gets its address.
    names: HashMap<usize, (Tag, Arc<TagState>)>,
}

impl TagNames {
    /// The names of the tags of a proof, in its order; `None` if it is newer than these names.
    #[must_use]
    pub fn of_proof(&self, proof: &LocalProof) -> Option<Vec<Tag>> {
        let name = |state: &Arc<TagState>| Some(self.names.get(&address(state))?.0.clone());
        proof.states.iter().map(|(state, _)| name(state)).collect()
    }
}

impl Coherence {
    /// The names of all tags that entries and fills of this process hold.
    #[must_use]
    pub fn tag_names(&self) -> TagNames {
        let held = self.table.held().into_iter();
        TagNames { names: held.map(|(tag, state)| (address(&state), (tag, state))).collect() }
    }

    /// A proof that holds until one of these tags is purged. It says nothing of what was purged
    /// before now, so what it is for must be confirmed in another way.
    #[must_use]
    pub fn prove_from_now(&self, tags: &[Tag]) -> LocalProof {
        // The epoch comes first, as in `read_local`.
        let (epoch, generation) = (self.epoch(), self.table.generation());
        let states = tags.iter().map(|tag| self.table.snapshot(tag));
        let states = states.map(|(_, state, purged)| (state, purged)).collect();
        LocalProof { epoch, generation, states, until: None }
    }
}

fn address(state: &Arc<TagState>) -> usize {
    Arc::as_ptr(state).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::coherence::PurgeKind;
    use crate::outcome::Reason;

    #[tokio::test]
    async fn a_proof_names_its_tags_and_ends_with_the_next_purge_of_one() {
        let coherence = Coherence::new(None, Clock::manual());
        let tags = [Tag::new("b"), Tag::new("a")];
        coherence.purge(&tags).await;
        let proof = coherence.prove_from_now(&tags);
        assert_eq!(coherence.validate_local(&proof), Ok(()), "what was purged before is past");
        let names = coherence.tag_names();
        assert_eq!(names.of_proof(&proof).as_deref(), Some(&tags[..]));
        let newer = coherence.prove_from_now(&[Tag::new("c")]);
        assert_eq!(names.of_proof(&newer), None);
        coherence.purge(&tags[1..]).await;
        assert_eq!(coherence.validate_local(&proof), Err(Reason::Purged));
        assert_eq!(coherence.validate_local(&newer), Ok(()));
        coherence.purge_everything(PurgeKind::Hard).await;
        assert_eq!(coherence.validate_local(&newer), Err(Reason::Purged));
    }
}
