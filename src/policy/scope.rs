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
    /// Whether fewer callers share an entry than in the other scope.
    #[must_use]
    pub const fn is_narrower(self, other: Self) -> bool {
        match (self, other) {
            (Self::Private, Self::Shared | Self::Public) | (Self::Shared, Self::Public) => true,
            (Self::Private | Self::Shared | Self::Public, _) => false,
        }
    }

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
