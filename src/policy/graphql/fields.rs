//! The root fields of a mutation, by which purge rules tell what it changes. The name of an
//! operation is the client's choice and says nothing.

use std::collections::BTreeSet;

use crate::policy::body_fields::BodyFields;
use crate::policy::glob::{Glob, any_matches};

/// The root fields of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrittenFields {
    /// Nobody can tell: any.
    Unknown,
    /// At most these.
    These(RootFields),
}

/// Root fields that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFields {
    /// Their names; at least one.
    pub names: BTreeSet<Box<str>>,
    /// The arguments of the only one whose value is the variable of the same name. None if there
    /// is more than one, under whatever alias.
    pub arguments: BTreeSet<Box<str>>,
}

impl WrittenFields {
    /// Whether one of these patterns names one of them, or may.
    #[must_use]
    pub fn may_be_named_by(&self, globs: &[Glob]) -> bool {
        match self {
            Self::Unknown => true,
            Self::These(fields) => {
                fields.names.iter().any(|field| any_matches(globs, field.as_bytes()))
            }
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
                    .names
                    .iter()
                    .all(|field| lists.clone().any(|globs| any_matches(globs, field.as_bytes())))
                    && lists.next().is_some()
            }
        }
    }

    /// Whether what a body has at a pointer is what the mutation is given: a part of an argument of
    /// its only root field. Which variables there are besides, and what they are for, is the
    /// client's choice.
    #[must_use]
    pub fn are_told_at(&self, pointer: &str, body: &BodyFields) -> bool {
        let Self::These(fields) = self else { return false };
        let mut parts = pointer.split('/').skip(1);
        let (Some("variables"), Some(name)) = (parts.next(), parts.next()) else { return false };
        // Where the body says nothing, a default of the document or of the schema may.
        fields.arguments.contains(name)
            && body.names_below("variables").any(|own| own == name)
            && !body.read(pointer).is_missing
    }

    /// Both.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::These(mut one), Self::These(two)) => {
                one.names.extend(two.names);
                one.arguments.clear();
                Self::These(one)
            }
            _ => Self::Unknown,
        }
    }
}
