//! Why bytes of Redis are not an entry.

/// Why bytes are not a valid entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They do not have the format of this program.
    Foreign,
    /// They are of another version.
    Version,
    /// They were altered, or written with another secret.
    Integrity,
    /// They are truncated or contain an invalid value.
    Shape,
    /// Their body is longer than is allowed, or its compression is broken.
    Compression,
}

impl DecodeError {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Integrity => "integrity",
            Self::Shape => "shape",
            Self::Compression => "compression",
        }
    }
}
