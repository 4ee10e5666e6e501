//! Where a chunked body ends (RFC 9112 section 7.1): hyper's own steps, byte for byte, so that both
//! find the next head at the same place. Limits on extensions and trailers are left to hyper, which
//! closes the connection.

/// Where in a chunked body the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    step: ChunkStep,
    /// The size that is being read, or what is left of the chunk.
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkStep {
    FirstDigit,
    Digit,
    WhiteSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    EndCr,
    EndLf,
    Trailer,
    TrailerLf,
}

/// What the bytes of one read came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkProgress<'a> {
    /// The body goes on.
    More,
    /// The body has ended, before these bytes.
    End(&'a [u8]),
    /// hyper rejects this and closes the connection.
    Malformed,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { step: ChunkStep::FirstDigit, size: 0 }
    }

    pub(super) fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> ChunkProgress<'a> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.step == ChunkStep::Data {
                let here =
                    usize::try_from(self.size).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.size -= here as u64;
                if self.size == 0 {
                    self.step = ChunkStep::DataCr;
                }
                bytes = &bytes[here..];
                continue;
            }
            bytes = rest;
            if self.step == ChunkStep::EndLf && byte == b'\n' {
                return ChunkProgress::End(bytes);
            }
            match self.next(byte) {
                Some(step) => self.step = step,
                None => return ChunkProgress::Malformed,
            }
        }
        ChunkProgress::More
    }

    /// The step after this byte; none where hyper rejects it.
    fn next(&mut self, byte: u8) -> Option<ChunkStep> {
        Some(match (self.step, byte) {
            (ChunkStep::FirstDigit | ChunkStep::Digit, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                self.size = self.size.checked_mul(16)?.checked_add(u64::from(digit))?;
                ChunkStep::Digit
            }
            (ChunkStep::Digit | ChunkStep::WhiteSpace, b'\t' | b' ') => ChunkStep::WhiteSpace,
            (ChunkStep::Digit | ChunkStep::WhiteSpace, b';') => ChunkStep::Extension,
            (ChunkStep::Digit | ChunkStep::WhiteSpace | ChunkStep::Extension, b'\r') => {
                ChunkStep::SizeLf
            }
            (ChunkStep::Extension, other) if other != b'\n' => ChunkStep::Extension,
            (ChunkStep::SizeLf, b'\n') if self.size == 0 => ChunkStep::EndCr,
            (ChunkStep::SizeLf, b'\n') => ChunkStep::Data,
            (ChunkStep::DataCr, b'\r') => ChunkStep::DataLf,
            (ChunkStep::DataLf, b'\n') => ChunkStep::FirstDigit,
            (ChunkStep::EndCr, b'\r') => ChunkStep::EndLf,
            (ChunkStep::Trailer, b'\r') => ChunkStep::TrailerLf,
            (ChunkStep::EndCr | ChunkStep::Trailer, _) => ChunkStep::Trailer,
            (ChunkStep::TrailerLf, b'\n') => ChunkStep::EndCr,
            _ => return None,
        })
    }
}
