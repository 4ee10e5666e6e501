//! Who may share a stored response: the `scope` of a route.

/// Who may share a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Requests with the same credential.
    Private,
    /// Every client that the origin has authorized for the same key fields.
    Shared,
    /// Everyone. Fills are sent without credentials.
    Public,
}

impl Scope {
    /// The word in `proxy.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Public => "public",
        }
    }
}
