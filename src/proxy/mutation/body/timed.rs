//! An upload whose client has a limited time for the whole of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::semantics::body::{Body, BodyError};
use crate::telemetry::metrics::Counter;

/// A second more is given for each of so many bytes that have arrived, so that a large upload over
/// a slow line comes to its end.
const BYTES_PER_SECOND: u64 = 16 * 1024;

/// How long the client may take.
pub(crate) struct UploadLimit {
    pub(crate) time: Duration,
    pub(crate) exceeded: Arc<Counter>,
    pub(crate) clock: Clock,
}

/// The upload. Only the time in which the sidecar waits for the client counts: not that in which
/// the origin does not read.
pub(crate) struct TimedUpload {
    body: Body,
    limit: UploadLimit,
    arrived: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedUpload {
    pub(crate) const fn new(body: Body, limit: UploadLimit) -> Self {
        Self { body, limit, arrived: 0, waited: Duration::ZERO, waiting_since: None, timer: None }
    }

    /// How long the client may still take; zero if its time is over.
    fn left(&self, now: Instant) -> Duration {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| now - since);
        let allowed = self.limit.time + Duration::from_secs(self.arrived / BYTES_PER_SECOND);
        allowed.saturating_sub(self.waited + waiting)
    }
}

impl http_body::Body for TimedUpload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let now = this.limit.clock.now();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(since) = this.waiting_since.take() {
                this.waited += now - since;
            }
            if let Some(Ok(frame)) = &frame {
                this.arrived += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame);
        }
        if this.waiting_since.is_none() {
            this.waiting_since = Some(now);
            this.timer = None;
        }
        loop {
            let left = this.left(this.limit.clock.now());
            if left.is_zero() {
                this.limit.exceeded.inc();
                let why = "the client took too long for its request body";
                let error = io::Error::new(io::ErrorKind::TimedOut, why);
                return Poll::Ready(Some(Err(error.into())));
            }
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            ready!(timer.as_mut().poll(cx));
            this.timer = None;
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// An upload of these pieces, after which nothing comes.
    fn upload(pieces: Vec<usize>, time: Duration) -> (TimedUpload, Clock, Arc<Counter>) {
        let frames = pieces.into_iter().map(|length| Frame::data(Bytes::from(vec![0; length])));
        let frames = futures_util::stream::iter(frames.map(Ok::<_, io::Error>));
        let endless = futures_util::StreamExt::chain(frames, futures_util::stream::pending());
        let (clock, exceeded) = (Clock::manual(), Arc::<Counter>::default());
        let limit = UploadLimit { time, exceeded: Arc::clone(&exceeded), clock: clock.clone() };
        (TimedUpload::new(Body::stream(StreamBody::new(endless)), limit), clock, exceeded)
    }

    #[tokio::test]
    async fn the_time_of_the_whole_is_limited_and_grows_with_what_arrives() {
        let second = Duration::from_secs(1);
        let (mut body, clock, exceeded) = upload(vec![1, 3 * 16 * 1024], 5 * second);
        assert!(body.frame().await.expect("a frame").is_ok());
        assert!(body.left(clock.now()) > 4 * second);
        // The origin did not ask for more for a while: that is not the client's time.
        clock.advance(60 * second);
        assert!(body.frame().await.expect("a frame").is_ok());
        assert!(body.frame().now_or_never().is_none());
        clock.advance(7 * second);
        assert!(body.frame().now_or_never().is_none(), "five seconds and three");
        clock.advance(2 * second);
        let error = body.frame().now_or_never().flatten().expect("the end").expect_err("too long");
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!((kind, exceeded.get()), (Some(io::ErrorKind::TimedOut), 1));
    }

    #[tokio::test]
    async fn a_silent_client_is_given_up_without_being_polled_for_it() {
        let (mut body, _clock, exceeded) = upload(Vec::new(), Duration::from_millis(20));
        let end = body.frame().await.expect("an end");
        assert!(end.is_err() && exceeded.get() == 1);
    }
}
