//! Bytes of a client on their way to hyper that are not as the client sent them: those of a request
//! target with characters that hyper refuses, and the start of a character whose rest is missing.
//!
//! Exists for such reads alone, so that others cost nothing.

use tokio::io::ReadBuf;

use super::framing::ReadScan;
use crate::semantics::forward;

/// What hyper has not been given yet.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// Scanned and escaped.
    ready: Vec<u8>,
    /// How many of those hyper has.
    given: usize,
    /// Not scanned: the start of a character.
    unfinished: Vec<u8>,
}

impl Carry {
    /// Whether hyper can have these bytes as they are.
    pub(super) fn is_needless(scan: &ReadScan) -> bool {
        scan.escapes.is_empty() && scan.unfinished == 0
    }

    /// Takes the bytes of a read that was scanned.
    pub(super) fn add(&mut self, bytes: &[u8], scan: &ReadScan) {
        let (scanned, unfinished) = bytes.split_at(bytes.len() - scan.unfinished);
        self.ready.extend(forward::escaped(scanned, &scan.escapes));
        self.unfinished = unfinished.to_vec();
    }

    /// What is to be scanned before the bytes that come next.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.unfinished
    }

    /// Whether nothing is left for hyper, and nothing that waits for more bytes.
    pub(super) fn is_over(&self) -> bool {
        self.given == self.ready.len() && self.unfinished.is_empty()
    }

    /// Gives hyper what fits. False where there is nothing to give.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = &self.ready[self.given..];
        let here = left.len().min(buf.remaining());
        buf.put_slice(&left[..here]);
        self.given += here;
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
        }
        here > 0
    }
}
