//! A change of `proxy.toml` that may help, before it has been tried.

use crate::policy::edit::Edit;

/// A change that has not been tried.
pub(crate) struct Proposal {
    pub(crate) edits: Vec<Edit>,
    pub(crate) does: String,
    pub(crate) risks: String,
}
