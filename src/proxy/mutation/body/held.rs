//! The end of an upload is held back until hits are kept away: who sends a body slowly keeps hits
//! away only from its end on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::semantics::body::{Body, BodyError};

/// What the mutation knows of the end of its upload.
pub struct UploadEnd {
    /// Resolves when all but the end was sent. An error: it will not come.
    pub reached: oneshot::Receiver<()>,
    /// Lets the end go. Dropping it breaks the upload off.
    pub release: oneshot::Sender<()>,
}

/// The upload. An origin that needs all of it cannot act before it has the end: the last bytes of
/// a body of known length, and what says that the body is over otherwise.
pub struct HeldUpload {
    body: Body,
    /// How many bytes are to come, if that is known.
    left: Option<u64>,
    reached: Option<oneshot::Sender<()>>,
    release: oneshot::Receiver<()>,
    state: EndState,
}

enum EndState {
    Streaming,
    /// The last frame, or the end itself.
    Held(Option<Frame<Bytes>>),
    Released,
}

impl HeldUpload {
    pub fn new(body: Body) -> (Self, UploadEnd) {
        let (reached, on_reached) = oneshot::channel();
        let (release, on_release) = oneshot::channel();
        let left = body.size_hint().exact();
        let state = EndState::Streaming;
        let upload = Self { body, left, reached: Some(reached), release: on_release, state };
        (upload, UploadEnd { reached: on_reached, release })
    }

    fn hold(&mut self, end: Option<Frame<Bytes>>) {
        self.state = EndState::Held(end);
        if let Some(reached) = self.reached.take() {
            // Nobody waits for it once the origin has answered.
            let _ = reached.send(());
        }
    }
}

impl http_body::Body for HeldUpload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                EndState::Released => return Pin::new(&mut this.body).poll_frame(cx),
                EndState::Held(end) => {
                    if ready!(Pin::new(&mut this.release).poll(cx)).is_err() {
                        let error = BodyError::from("hits could not be kept away");
                        return Poll::Ready(Some(Err(error)));
                    }
                    let end = end.take();
                    this.state = EndState::Released;
                    return Poll::Ready(end.map(Ok));
                }
                EndState::Streaming => {}
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose()? else {
                this.hold(None);
                continue;
            };
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            this.left = this.left.map(|left| left.saturating_sub(bytes));
            if frame.is_trailers() || this.left == Some(0) {
                this.hold(Some(frame));
            } else {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, EndState::Released) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.state, self.left) {
            (EndState::Streaming, _) => self.body.size_hint(),
            (EndState::Held(Some(end)), Some(_)) => {
                SizeHint::with_exact(end.data_ref().map_or(0, |data| data.len() as u64))
            }
            _ => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    fn pieces(pieces: &'static [&'static str]) -> Body {
        let frames = pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
        let frames = futures_util::stream::iter(frames.map(Ok::<_, BodyError>));
        Body::stream(StreamBody::new(frames))
    }

    /// What comes next: nothing yet, a piece, or the end.
    fn next(upload: &mut HeldUpload) -> String {
        match upload.frame().now_or_never() {
            None => "held".to_owned(),
            Some(None) => "end".to_owned(),
            Some(Some(frame)) => {
                let data = frame.expect("no error").into_data().expect("data");
                String::from_utf8_lossy(&data).into_owned()
            }
        }
    }

    #[test]
    fn the_last_bytes_of_a_body_of_known_length_are_held() {
        let body = Body::stream(Full::new(Bytes::from_static(b"abc")));
        let (mut upload, mut end) = HeldUpload::new(body);
        assert!(end.reached.try_recv().is_err());
        assert_eq!(next(&mut upload), "held");
        assert!(end.reached.try_recv().is_ok() && !upload.is_end_stream());
        assert_eq!(upload.size_hint().exact(), Some(3));
        assert!(end.release.send(()).is_ok());
        assert_eq!(next(&mut upload), "abc");
        assert!(upload.is_end_stream());
        assert_eq!(next(&mut upload), "end");
    }

    #[test]
    fn the_end_of_a_body_of_unknown_length_is_held_and_nothing_else() {
        let (mut upload, mut end) = HeldUpload::new(pieces(&["ab", "c"]));
        for piece in ["ab", "c"] {
            assert_eq!(next(&mut upload), piece);
            assert!(end.reached.try_recv().is_err(), "{piece}");
        }
        assert_eq!(next(&mut upload), "held");
        assert!(end.reached.try_recv().is_ok() && !upload.is_end_stream());
        assert!(end.release.send(()).is_ok());
        assert_eq!(next(&mut upload), "end");
    }

    #[test]
    fn an_end_that_is_never_released_breaks_the_upload_off() {
        let (mut upload, end) = HeldUpload::new(pieces(&["ab"]));
        assert_eq!(next(&mut upload), "ab");
        drop(end);
        let end = upload.frame().now_or_never().flatten().expect("an end");
        assert!(end.is_err());
    }
}
