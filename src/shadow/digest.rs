//! A body that is digested while it is streamed. Nothing of it is kept, and the stream is not
//! slowed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::outcome::Reason;
use crate::semantics::body::{Body, BodyError};
use crate::semantics::digest::{Digest, Digester};

/// The digest of a body, or why it has none.
pub type DigestResult = Result<Digest, Reason>;

/// What reads a body along.
pub trait BodyDigester: Send + Unpin + 'static {
    /// What it has made of the whole body.
    type Output;
    /// The next bytes.
    fn update(&mut self, bytes: &[u8]);
    /// The body has ended.
    fn finish(self) -> Self::Output;
}

impl BodyDigester for Digester {
    type Output = Digest;

    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn finish(self) -> Digest {
        Self::finish(self)
    }
}

type DigestListener<R> = Box<dyn FnOnce(Result<<R as BodyDigester>::Output, Reason>) + Send>;

/// A body in transit.
struct DigestingBody<R: BodyDigester> {
    body: Body,
    digester: Option<R>,
    left: u64,
    listener: Option<DigestListener<R>>,
}

/// Wraps a body, which `digester` reads along. When it has ended, and before its reader notices,
/// `listener` receives the result; it must not block. A body of more than `most` bytes is too
/// large.
pub fn digesting<R: BodyDigester>(
    body: Body,
    digester: R,
    most: u64,
    listener: impl FnOnce(Result<R::Output, Reason>) + Send + 'static,
) -> Body {
    if HttpBody::is_end_stream(&body) {
        listener(Ok(digester.finish()));
        return body;
    }
    Body::stream(DigestingBody {
        body,
        digester: Some(digester),
        left: most,
        listener: Some(Box::new(listener)),
    })
}

impl<R: BodyDigester> DigestingBody<R> {
    fn end(&mut self, failed: Option<Reason>) {
        let Some(listener) = self.listener.take() else { return };
        let digester = self.digester.take();
        listener(match (failed, digester) {
            (None, Some(digester)) => Ok(digester.finish()),
            (failed, _) => Err(failed.unwrap_or(Reason::Truncated)),
        });
    }

    fn read(&mut self, bytes: &Bytes) {
        let length = bytes.len() as u64;
        if length > self.left {
            self.end(Some(Reason::TooLarge));
        } else if let Some(digester) = &mut self.digester {
            self.left -= length;
            digester.update(bytes);
        }
    }
}

impl<R: BodyDigester> HttpBody for DigestingBody<R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(bytes) => {
                    this.read(bytes);
                    // A reader that knows the length does not poll again after the last chunk.
                    if this.body.is_end_stream() {
                        this.end(None);
                    }
                }
                None => this.end(Some(Reason::Trailers)),
            },
            Poll::Ready(Some(Err(_))) => this.end(Some(Reason::Truncated)),
            Poll::Ready(None) => this.end(None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<R: BodyDigester> Drop for DigestingBody<R> {
    fn drop(&mut self) {
        self.end(Some(Reason::ClientGone));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use http::StatusCode;

    use super::*;

    fn ended(body: Body, most: u64, read: impl FnOnce(Body)) -> Option<DigestResult> {
        let result = Arc::new(Mutex::new(None));
        let sender = Arc::clone(&result);
        read(digesting(body, Digester::new(StatusCode::OK), most, move |ended| {
            *sender.lock().expect("a lock") = Some(ended);
        }));
        let result = result.lock().expect("a lock");
        *result
    }

    fn whole(body: Body) {
        body.collect().now_or_never().expect("at hand").expect("whole");
    }

    fn digest_of(status: StatusCode, bytes: &[u8]) -> Digest {
        let mut digester = Digester::new(status);
        digester.update(bytes);
        digester.finish()
    }

    #[test]
    fn a_body_has_one_digest_however_it_is_cut() {
        let pieces = || Body::pieces(["ab", "c"].map(Bytes::from).to_vec());
        let digest = digest_of(StatusCode::OK, b"abc");
        assert_eq!(ended(pieces(), 100, whole), Some(Ok(digest)));
        assert_eq!(ended(Body::full("abc"), 3, whole), Some(Ok(digest)));
        assert_eq!(ended(Body::empty(), 0, whole), Some(Ok(digest_of(StatusCode::OK, b""))));
        assert_ne!(digest, digest_of(StatusCode::NOT_FOUND, b"abc"));
    }

    #[test]
    fn an_incomplete_body_has_no_digest() {
        assert_eq!(ended(Body::full("abcd"), 3, whole), Some(Err(Reason::TooLarge)));
        assert_eq!(ended(Body::full("abcd"), 9, drop), Some(Err(Reason::ClientGone)));
        let broken = || {
            Body::stream(http_body_util::StreamBody::new(futures_util::stream::iter([
                Ok(Frame::data(Bytes::from_static(b"a"))),
                Err(BodyError::from("broken")),
            ])))
        };
        let read = |body: Body| assert!(body.collect().now_or_never().expect("at hand").is_err());
        assert_eq!(ended(broken(), 9, read), Some(Err(Reason::Truncated)));
    }

    #[test]
    fn the_end_is_reported_with_the_last_chunk() {
        let result = Arc::new(Mutex::new(None));
        let sender = Arc::clone(&result);
        let mut body =
            digesting(Body::full("abc"), Digester::new(StatusCode::OK), 9, move |ended| {
                *sender.lock().expect("a lock") = Some(ended);
            });
        assert_eq!(body.size_hint().exact(), Some(3));
        body.frame().now_or_never().expect("at hand").expect("a frame").expect("whole");
        assert!(result.lock().expect("a lock").is_some());
    }
}
