//! What a verified session cookie says.

use crate::policy::session::fault::SessionFault;
use crate::units::hex;

/// What a verified cookie says.
#[derive(Debug)]
pub struct VerifiedSession {
    /// A keyed hash of the whole payload.
    pub whole: [u8; 32],
    /// A keyed hash of what counts: what the pointer names, or the payload without what is ignored.
    pub kept: [u8; 32],
    /// The text of the value at the pointer, if there is one.
    pub(super) value: Result<Box<str>, SessionFault>,
    /// Whether members count beside the pointer.
    pub(super) has_others: bool,
    /// Keyed hashes of members that probably name the caller.
    pub callers: Box<[[u8; 32]]>,
    /// When it was signed, in seconds since the epoch.
    pub(super) signed: Option<u64>,
    /// Whether the value at a pointer counts.
    pub(super) has_pointer: bool,
}

impl VerifiedSession {
    /// What identifies its entries: of the pointer the value, without a pointer the hash of what
    /// counts.
    ///
    /// # Errors
    /// There is no such value, or members count beside it.
    pub fn keyed(&self) -> Result<&[u8], SessionFault> {
        if self.has_others {
            return Err(SessionFault::OtherMembers);
        }
        if self.has_pointer {
            self.value.as_ref().map_err(|fault| *fault)?;
        }
        Ok(&self.kept)
    }

    /// The text that tags have of it: the value at the pointer, or the hash of what counts.
    ///
    /// # Errors
    /// There is no such value. Other members do not matter.
    pub fn text(&self) -> Result<String, SessionFault> {
        if !self.has_pointer {
            return Ok(hex(&self.kept[..16]));
        }
        self.value.as_ref().map(ToString::to_string).map_err(|fault| *fault)
    }

    /// Whether members count that neither the pointer nor `ignore` names.
    #[must_use]
    pub const fn has_others(&self) -> bool {
        self.has_others
    }
}
