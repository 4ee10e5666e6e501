//! The one body type that requests and responses have inside the sidecar: nothing, bytes at hand, or a stream.

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

    /// The bytes, when they are all at hand: such a body can be sent twice.
    #[must_use]
    pub fn replayable(&self) -> Option<Bytes> {
        match &self.content {
            Content::Empty => Some(Bytes::new()),
            Content::Full(bytes) => Some(bytes.clone()),
            Content::Stream(_) => None,
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
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Empty => f.write_str("Body::Empty"),
            Content::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Content::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}
