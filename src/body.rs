//! The one body type that requests and responses have inside the sidecar: nothing, bytes at hand in one piece or several, or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// Why a body broke off. Boxed: bodies come from hyper, from fills and from tests.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Something that is told when the body it rides on is done with, by being dropped.
pub type Rider = Box<dyn Send>;

/// A message's content.
pub struct Body {
    content: Content,
    /// Dropped with the body, whether it was read to its end or not.
    rider: Option<Rider>,
}

enum Content {
    Empty,
    Full(Bytes),
    /// None of them empty, and at least one until the last is read.
    Pieces(std::vec::IntoIter<Bytes>),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// No content.
    #[must_use]
    pub const fn empty() -> Self {
        Self { content: Content::Empty, rider: None }
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() { Content::Empty } else { Content::Full(bytes) };
        Self { content, rider: None }
    }

    /// These bytes, one after the other. Nothing is copied.
    #[must_use]
    pub fn pieces(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        match pieces.pop() {
            None => Self::empty(),
            Some(only) if pieces.is_empty() => Self::full(only),
            Some(last) => {
                pieces.push(last);
                Self { content: Content::Pieces(pieces.into_iter()), rider: None }
            }
        }
    }

    /// Another body, streamed. One that has ended already becomes [`Body::empty`].
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { content: Content::Stream(Box::pin(body.map_err(Into::into))), rider: None }
    }

    /// The same content, with something that is dropped together with it.
    #[must_use]
    pub fn with_rider(self, rider: Rider) -> Self {
        match self.rider {
            None => Self { content: self.content, rider: Some(rider) },
            Some(first) => Self { content: self.content, rider: Some(Box::new((first, rider))) },
        }
    }

    /// Whether there is certainly no content.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    /// The bytes, when they are all at hand in one piece: such a body can be sent twice.
    #[must_use]
    pub fn replayable(&self) -> Option<Bytes> {
        match &self.content {
            Content::Empty => Some(Bytes::new()),
            Content::Full(bytes) => Some(bytes.clone()),
            Content::Pieces(_) | Content::Stream(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Pieces(pieces) => pieces.as_slice().is_empty(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces(pieces) => SizeHint::with_exact(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum()),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Empty => f.write_str("Body::Empty"),
            Content::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Content::Pieces(pieces) => write!(f, "Body::Pieces({})", pieces.len()),
            Content::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn read(body: Body) -> Bytes {
        body.collect().now_or_never().expect("at hand").expect("whole").to_bytes()
    }

    #[test]
    fn pieces_are_sent_one_after_the_other_with_their_exact_size() {
        let mut body = Body::pieces(["ab", "", "c", "def"].map(Bytes::from).to_vec());
        assert!(!body.is_empty() && body.replayable().is_none());
        for (piece, left) in [("ab", 4), ("c", 3), ("def", 0)] {
            let frame = body.frame().now_or_never().expect("at hand").expect("one more").expect("whole");
            assert_eq!(frame.into_data().expect("data"), piece);
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        assert!(body.frame().now_or_never().expect("at hand").is_none());
    }

    #[test]
    fn no_piece_or_one_is_the_plainer_body() {
        assert!(Body::pieces(Vec::new()).is_empty() && Body::pieces(vec![Bytes::new()]).is_empty());
        let one = Body::pieces(vec![Bytes::new(), Bytes::from_static(b"ab")]);
        assert_eq!(one.replayable().as_deref(), Some(&b"ab"[..]));
        assert_eq!(read(one), "ab");
        assert_eq!(read(Body::pieces(["a", "b", "c"].map(Bytes::from).to_vec())), "abc");
    }
}
