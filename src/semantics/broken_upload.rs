//! Why the body of a request is not whole, in words for its client and for the log.

use std::error::Error;
use std::io;

use super::body::BodyError;

/// What became of a body that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenUpload {
    /// The client reset its connection: nobody is there to be told.
    Left,
    /// The client closed its side in the middle.
    Ended,
    /// It took too long.
    Late,
    /// Its chunks or trailers are not valid.
    Malformed,
    /// Something else.
    Other,
}

impl BrokenUpload {
    /// Reads the error in which the body ended.
    #[must_use]
    pub fn of(error: &BodyError) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, InvalidInput, TimedOut,
            UnexpectedEof,
        };
        let mut next: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        while let Some(error) = next {
            let io_error = error.downcast_ref::<io::Error>();
            match io_error.map(io::Error::kind) {
                Some(BrokenPipe | ConnectionAborted | ConnectionReset) => return Self::Left,
                Some(UnexpectedEof) => return Self::Ended,
                Some(TimedOut) => return Self::Late,
                Some(InvalidData | InvalidInput) => return Self::Malformed,
                // What an I/O error wraps is not its source.
                _ => {
                    next = match io_error.and_then(io::Error::get_ref) {
                        Some(inner) => Some(inner),
                        None => error.source(),
                    };
                }
            }
        }
        Self::Other
    }

    /// What is wrong, for the body of the response. Nothing where the reason says it.
    #[must_use]
    pub const fn why(self) -> Option<&'static str> {
        match self {
            Self::Left => None,
            Self::Ended => Some("the body ended before it was complete"),
            Self::Late => Some("the body did not arrive in time"),
            Self::Malformed => Some("malformed chunks or trailers"),
            Self::Other => Some("the body broke off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_through_what_wraps_it() {
        let of = |kind| BrokenUpload::of(&io::Error::new(kind, "no").into());
        assert_eq!(of(io::ErrorKind::ConnectionReset), BrokenUpload::Left);
        assert_eq!(of(io::ErrorKind::UnexpectedEof), BrokenUpload::Ended);
        assert_eq!(of(io::ErrorKind::TimedOut), BrokenUpload::Late);
        assert_eq!(of(io::ErrorKind::InvalidInput), BrokenUpload::Malformed);
        assert_eq!(BrokenUpload::of(&"no".into()), BrokenUpload::Other);
        let inner = io::Error::new(io::ErrorKind::ConnectionReset, "no");
        assert_eq!(BrokenUpload::of(&io::Error::other(inner).into()), BrokenUpload::Left);
    }
}
