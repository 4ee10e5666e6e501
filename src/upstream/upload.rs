//! A request's body on its way to the origin, watched for progress.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::socket::SocketHandle;
use super::trailers::without_forbidden_trailers;
use crate::semantics::body::{Body, BodyError};

/// A request's body as hyper reads it.
pub(super) struct Upload {
    body: Body,
    progress: Option<Arc<UploadProgress>>,
    /// The socket that it goes out on; none where there is no body.
    socket: Option<SocketHandle>,
}

/// How much of a streamed request body has been sent.
#[derive(Default)]
pub(super) struct UploadProgress {
    // Frames that hyper has read. It reads one only when it has room, so that this stops when the
    // origin stops reading.
    frames: AtomicU32,
    failed: AtomicBool,
    over: AtomicBool,
}

impl UploadProgress {
    pub(super) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Whether the body ended in an error.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether hyper has finished with the body.
    pub(super) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Upload {
    /// The body, and a view of its progress where it is a stream.
    pub(super) fn new(body: Body) -> (Self, Option<Arc<UploadProgress>>) {
        let progress = if body.replayable().is_some() { None } else { Some(Arc::default()) };
        (Self { body, progress: progress.clone(), socket: None }, progress)
    }

    /// A body whose progress is not tracked.
    pub(super) const fn unwatched(body: Body) -> Self {
        Self { body, progress: None, socket: None }
    }

    /// Tells the socket that this body goes out on it.
    pub(super) fn begin(&mut self, socket: &SocketHandle) {
        if !self.body.is_empty() {
            socket.begin_body();
            self.socket = Some(socket.clone());
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(progress) = &this.progress else { return polled };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                progress.frames.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(Some(Ok(without_forbidden_trailers(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                progress.failed.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(error)))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.over.store(true, Ordering::Relaxed);
        }
        if let Some(socket) = &self.socket {
            socket.end_body();
        }
    }
}
