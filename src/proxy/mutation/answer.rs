//! What the origin's answer says of a mutation: carried out, refused, or nobody knows.

use http::StatusCode;
use http::header::{HeaderMap, LOCATION};

use crate::clock::Wall;
use crate::policy::plan::Mutation;
use crate::policy::purge_rule::MutationAnswer;
use crate::policy::tag::Tag;
use crate::proxy::mutation::new_rules::MutationContext;

/// Which of a mutation's tags are purged.
pub(super) enum PurgedShare {
    All,
    /// These, and the others not; perhaps none.
    Some(Vec<Tag>),
}

impl PurgedShare {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Some(purged) if purged.is_empty())
    }

    /// The tags that are purged, of all these.
    pub(super) fn of(&self, tags: &[Tag]) -> Vec<Tag> {
        match self {
            Self::All => tags.to_vec(),
            Self::Some(purged) => purged.clone(),
        }
    }
}

impl MutationContext {
    /// What this head of an answer says.
    ///
    /// A redirect to a login page refuses strangers. To callers whom the origin has lately accepted
    /// it may be the end of a logout or of a change of the password.
    pub(super) fn answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: Wall,
    ) -> MutationAnswer {
        if status.is_success() {
            MutationAnswer::Ok
        } else if status.is_client_error() {
            MutationAnswer::Refusal
        } else if status.is_redirection() {
            let is_refusal = self.config.known_callers.as_ref().is_some_and(|known| {
                let rules = &self.config.rules;
                let (credential, hasher) = (&rules.credential, &rules.hasher);
                headers.get(LOCATION).is_some_and(|to| credential.refuses_writes(to)) && {
                    let headers = &self.parts.headers;
                    !known.is_known(&known.parts(self.app, credential, headers, hasher), now)
                }
            });
            if is_refusal { MutationAnswer::Refusal } else { MutationAnswer::Redirect }
        } else {
            MutationAnswer::Unknown
        }
    }
}

/// Which of these tags of a mutation this answer purges.
pub(super) fn purged_share(
    mutation: &Mutation,
    tags: &[Tag],
    answer: MutationAnswer,
) -> PurgedShare {
    let purged: Vec<Tag> =
        tags.iter().filter(|tag| mutation.is_purged_by(answer, tag)).cloned().collect();
    if purged.len() == tags.len() { PurgedShare::All } else { PurgedShare::Some(purged) }
}
