//! The first bytes of the latest head, for the line that tells which request hyper refused.

/// How many bytes of a head are kept: enough for a method and the start of a target.
const KEPT: usize = 192;

/// The first bytes of the latest head.
#[derive(Debug)]
pub(super) struct HeadStart {
    number: u32,
    bytes: [u8; KEPT],
    kept: usize,
    /// How many bytes of it hyper has been given.
    length: usize,
}

impl HeadStart {
    pub(super) const fn new() -> Self {
        Self { number: 0, bytes: [0; KEPT], kept: 0, length: 0 }
    }

    /// More bytes of this head; those behind its end do no harm.
    pub(super) fn add(&mut self, number: u32, bytes: &[u8]) {
        let is_new = number != self.number;
        // Empty lines before a head mean nothing (RFC 9112 section 2.2).
        let skipped = if is_new || self.kept == 0 {
            bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
        } else {
            0
        };
        let bytes = &bytes[skipped..];
        if bytes.is_empty() {
            return;
        }
        if is_new {
            (self.number, self.kept, self.length) = (number, 0, 0);
        }
        self.length = self.length.saturating_add(bytes.len());
        let here = bytes.len().min(KEPT - self.kept);
        self.bytes[self.kept..self.kept + here].copy_from_slice(&bytes[..here]);
        self.kept += here;
    }

    /// Its bytes have become so many more.
    pub(super) fn grow(&mut self, by: usize) {
        self.length = self.length.saturating_add(by);
    }

    /// So many bytes at its end come again.
    pub(super) fn shrink(&mut self, by: usize) {
        self.length = self.length.saturating_sub(by);
        self.kept = self.kept.min(self.length);
    }

    /// The first bytes of the head with this number, if it is the latest.
    pub(super) fn of(&self, number: u32) -> &[u8] {
        if number == self.number { &self.bytes[..self.kept] } else { &[] }
    }

    /// How many bytes of it have arrived, if it is the latest.
    pub(super) fn length(&self, number: u32) -> Option<usize> {
        (number == self.number).then_some(self.length)
    }
}
