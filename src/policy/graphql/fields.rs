//! The root fields of a mutation, by which purge rules tell what it changes. The name of an
//! operation is the client's choice and says nothing.

use std::collections::BTreeSet;

use crate::policy::glob::{Glob, any_matches};

/// The root fields of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenFields {
    /// Nobody can tell: any.
    Unknown,
    /// At most these; at least one.
    These(BTreeSet<Box<str>>),
}

impl WrittenFields {
    /// Whether one of these patterns names one of them, or may.
    #[must_use]
    pub fn may_be_named_by(&self, globs: &[Glob]) -> bool {
        match self {
            Self::Unknown => true,
            Self::These(fields) => fields.iter().any(|field| any_matches(globs, field.as_bytes())),
        }
    }

    /// Whether each of them is named by one of these lists of patterns.
    #[must_use]
    pub fn are_all_named_by<'a>(
        &self,
        mut lists: impl Iterator<Item = &'a [Glob]> + Clone,
    ) -> bool {
        match self {
            Self::Unknown => false,
            Self::These(fields) => {
                fields
                    .iter()
                    .all(|field| lists.clone().any(|globs| any_matches(globs, field.as_bytes())))
                    && lists.next().is_some()
            }
        }
    }

    /// Both.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::These(mut one), Self::These(two)) => {
                one.extend(two);
                Self::These(one)
            }
            _ => Self::Unknown,
        }
    }
}
