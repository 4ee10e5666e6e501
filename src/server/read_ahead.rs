//! What a client sends while its request is served: read and kept, so that its end is seen, and
//! a reset. hyper reads only when it has served the request.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// How much of the next requests is read ahead. Beyond it the end is not seen before hyper reads.
const MOST: usize = 16 * 1024;

/// Bytes of the client that hyper has not read yet.
#[derive(Debug)]
pub(super) struct ReadAhead {
    bytes: Vec<u8>,
    ended: bool,
}

/// What has become of the client's side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientReading {
    /// There may be more to come.
    Open,
    /// The client has closed its side.
    JustEnded,
    /// It was known that it has.
    Ended,
}

impl ReadAhead {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), ended: false }
    }

    /// Whether the client has closed its side.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves what was read ahead into the buffer. Returns whether there was anything.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let count = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            // A connection that idles keeps no buffer.
            self.bytes = Vec::new();
        }
        count > 0
    }

    /// Reads what there is, and has the task woken for what comes later.
    ///
    /// # Errors
    /// When the client has reset the connection.
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> io::Result<ClientReading> {
        if self.ended {
            return Ok(ClientReading::Ended);
        }
        let mut scratch = [MaybeUninit::uninit(); 2048];
        while self.bytes.len() < MOST {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    self.ended = true;
                    return Ok(ClientReading::JustEnded);
                }
                Poll::Ready(Ok(())) => self.bytes.extend_from_slice(buf.filled()),
            }
        }
        Ok(ClientReading::Open)
    }
}
