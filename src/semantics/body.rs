//! The body type of all requests and responses inside the sidecar: empty, bytes in memory in one or
//! more pieces, or a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::telemetry::metrics::Meter;

/// Why a body broke off. Boxed: errors come from hyper, from fills and from tests.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A guard that is dropped with the body, which tells its owner that the body is done.
pub type OnDrop = Box<dyn Send>;

/// The content of a message.
pub struct Body {
    content: Content,
    /// Dropped with the body, whether it was read to its end or not.
    on_drop: Option<OnDrop>,
}

enum Content {
    Empty,
    Full(Bytes),
    /// None of them is empty, and there is at least one until the last is read.
    Pieces(std::vec::IntoIter<Bytes>),
    /// Its bytes are counted as they are read, if there is a meter.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>, Option<Meter>),
}

impl Body {
    /// No content.
    #[must_use]
    pub const fn empty() -> Self {
        Self { content: Content::Empty, on_drop: None }
    }

    /// A body of these bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() { Content::Empty } else { Content::Full(bytes) };
        Self { content, on_drop: None }
    }

    /// A body of these bytes, one after the other. Nothing is copied.
    #[must_use]
    pub fn pieces(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        match pieces.pop() {
            None => Self::empty(),
            Some(only) if pieces.is_empty() => Self::full(only),
            Some(last) => {
                pieces.push(last);
                Self { content: Content::Pieces(pieces.into_iter()), on_drop: None }
            }
        }
    }

    /// A body that streams another. One that has already ended becomes [`Body::empty`].
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { content: Content::Stream(Box::pin(body.map_err(Into::into)), None), on_drop: None }
    }

    /// The same content, with a guard that is dropped together with it.
    #[must_use]
    pub fn with_on_drop(self, rider: OnDrop) -> Self {
        match self.on_drop {
            None => Self { content: self.content, on_drop: Some(rider) },
            Some(first) => Self { content: self.content, on_drop: Some(Box::new((first, rider))) },
        }
    }

    /// The number of bytes, if all of them are in memory; `None` for a stream.
    #[must_use]
    pub fn buffered_len(&self) -> Option<u64> {
        match &self.content {
            Content::Empty => Some(0),
            Content::Full(bytes) => Some(bytes.len() as u64),
            Content::Pieces(pieces) => {
                Some(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum())
            }
            Content::Stream(..) => None,
        }
    }

    /// Counts the bytes of a stream as they are read. For other bodies the number is known: see
    /// [`Body::buffered_len`].
    pub fn count(&mut self, by: Meter) {
        if let Content::Stream(_, meter) = &mut self.content {
            *meter = Some(by);
        }
    }

    /// Whether the body is certainly empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    /// The bytes, if they are all in memory in one piece: such a body can be sent twice.
    #[must_use]
    pub fn replayable(&self) -> Option<Bytes> {
        match &self.content {
            Content::Empty => Some(Bytes::new()),
            Content::Full(bytes) => Some(bytes.clone()),
            Content::Pieces(_) | Content::Stream(..) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => {
                Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece))))
            }
            Content::Stream(stream, meter) => {
                let polled = stream.as_mut().poll_frame(cx);
                if let (Some(meter), Poll::Ready(Some(Ok(frame)))) = (meter, &polled)
                    && let Some(bytes) = frame.data_ref()
                {
                    meter.add(bytes.len() as u64);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Pieces(pieces) => pieces.as_slice().is_empty(),
            Content::Stream(stream, _) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Stream(stream, _) => stream.size_hint(),
            Content::Empty | Content::Full(_) | Content::Pieces(_) => {
                self.buffered_len().map_or_else(SizeHint::new, SizeHint::with_exact)
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Empty => f.write_str("Body::Empty"),
            Content::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            Content::Pieces(pieces) => write!(f, "Body::Pieces({})", pieces.len()),
            Content::Stream(..) => f.write_str("Body::Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::telemetry::metrics::{BodySource, Metrics};

    fn read(body: Body) -> Bytes {
        body.collect().now_or_never().expect("at hand").expect("whole").to_bytes()
    }

    #[test]
    fn pieces_are_sent_one_after_the_other_with_their_exact_size() {
        let mut body = Body::pieces(["ab", "", "c", "def"].map(Bytes::from).to_vec());
        assert!(!body.is_empty() && body.replayable().is_none());
        for (piece, left) in [("ab", 4), ("c", 3), ("def", 0)] {
            let frame =
                body.frame().now_or_never().expect("at hand").expect("one more").expect("whole");
            assert_eq!(frame.into_data().expect("data"), piece);
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        assert!(body.frame().now_or_never().expect("at hand").is_none());
    }

    #[test]
    fn a_stream_is_counted_as_it_is_read() {
        let metrics = Metrics::new();
        let table = metrics.table([]);
        let counted = || metrics.rows()[0].bytes_from_origin;
        let mut body = Body::stream(Body::pieces(["ab", "cde", "f"].map(Bytes::from).to_vec()));
        assert_eq!(body.buffered_len(), None);
        body.count(table.meter(None, BodySource::Origin));
        for so_far in [2, 5] {
            assert!(body.frame().now_or_never().expect("at hand").is_some());
            assert_eq!(counted(), so_far);
        }
        // A client that leaves has not been sent the rest.
        drop(body);
        assert_eq!(counted(), 5);
    }

    #[test]
    fn what_is_at_hand_is_known_at_once_and_not_counted_again() {
        let metrics = Metrics::new();
        let table = metrics.table([]);
        for (mut body, length) in [
            (Body::empty(), 0),
            (Body::full("abc"), 3),
            (Body::pieces(["ab", "c"].map(Bytes::from).to_vec()), 3),
        ] {
            assert_eq!(body.buffered_len(), Some(length));
            body.count(table.meter(None, BodySource::Origin));
            assert_eq!(read(body).len() as u64, length);
        }
        assert_eq!(metrics.rows()[0].bytes_from_origin, 0);
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
