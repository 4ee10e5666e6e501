//! `[compress]`: in which codings a route offers its responses to clients.

use crate::semantics::content_coding::Coding;

/// In which codings a route offers its responses, and how they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressRule {
    /// The codings, the preferred one first.
    pub codings: Box<[Coding]>,
    /// How thorough each coding is, in the order of [`Coding::ALL`].
    pub levels: [u8; Coding::ALL.len()],
    /// The shortest body that is coded.
    pub min_size: u64,
    /// Whether what is for one caller is coded as well.
    ///
    /// SECURITY: the length of a coded body tells whether a text that somebody else has put into it
    /// is like a secret beside it (BREACH). What many share has no secret of one of them.
    pub private: bool,
}

impl CompressRule {
    /// How thorough a coding is.
    #[must_use]
    pub const fn level(&self, coding: Coding) -> u8 {
        self.levels[coding as usize]
    }
}
