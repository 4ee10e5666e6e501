//! The response of a mutation that is still on its way when the mutation's tags are purged: they
//! are purged once more at its end. An origin that streams its response may commit as late as that,
//! and what was filled in between may be older.
//!
//! Invariants:
//! - Each such response is purged for at its end, however it ends: complete, or broken off. Where
//!   its client has left, the rest is read in its place, since the origin may not have committed
//!   yet.
//! - The client waits for nothing but the end itself, and for that not long.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::policy::tag::Tag;
use crate::proxy::late_purges::{READ_OUT, ReadOut};
use crate::proxy::mutation::new_rules::{MutationContext, NewRulePurges};
use crate::proxy::resources::Resources;
use crate::semantics::body::{Body, BodyError};

/// How long a response may take to arrive whole, so that one purge is enough.
const WHOLE_WITHIN: Duration = Duration::from_millis(10);

/// How much of a response is read ahead in that time, in bytes.
pub(super) const READ_AHEAD: u64 = 64 * 1024;

/// How long the end of a response waits for its purge.
const END_HOLD: Duration = Duration::from_millis(100);

/// How much is read of an answer before anything is purged.
pub(super) struct ReadFor {
    pub(super) most: u64,
    pub(super) within: Duration,
}

/// A response, as far as it has come.
pub(super) struct Arrived {
    response: Response<()>,
    read: VecDeque<Frame<Bytes>>,
    rest: Rest,
}

/// What follows.
enum Rest {
    /// There is more to come.
    Body(Body),
    /// Nothing, or that it has broken off.
    Ended(Option<BodyError>),
}

/// Reads what is about to arrive of a response, or as much as is needed of it.
pub(super) async fn read_ahead(response: Response<Body>, needed: Option<&ReadFor>) -> Arrived {
    let (most, within) = match needed {
        Some(needed) => (needed.most.max(READ_AHEAD), needed.within),
        None => (READ_AHEAD, WHOLE_WITHIN),
    };
    let (parts, mut body) = response.into_parts();
    let mut read = VecDeque::new();
    let mut end = None;
    if body.size_hint().lower() <= most {
        let reading = async {
            let mut bytes = 0;
            while bytes <= most && end.is_none() {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                        read.push_back(frame);
                    }
                    Some(Err(error)) => end = Some(Some(error)),
                    None => end = Some(None),
                }
            }
        };
        // What has come is kept: the rest is read later.
        let _ = tokio::time::timeout(within, reading).await;
    }
    let rest = end.map_or(Rest::Body(body), Rest::Ended);
    Arrived { response: Response::from_parts(parts, ()), read, rest }
}

impl Arrived {
    /// The head, and what has arrived of the body.
    pub(super) fn head(&self) -> &Response<()> {
        &self.response
    }

    /// The body, if all of it has arrived.
    pub(super) fn whole(&self) -> Option<Vec<u8>> {
        if !matches!(self.rest, Rest::Ended(None)) {
            return None;
        }
        Some(self.read.iter().filter_map(Frame::data_ref).flatten().copied().collect())
    }

    /// Whether the body is known to have more bytes than this.
    pub(super) fn is_longer_than(&self, most: u64) -> bool {
        let rest = match &self.rest {
            Rest::Body(body) => body.size_hint().lower(),
            Rest::Ended(_) => 0,
        };
        let here = self.read.iter().filter_map(Frame::data_ref).map(Bytes::len);
        here.sum::<usize>() as u64 + rest > most
    }

    /// The response, and what there is to do with it if it is whole. The end of another one brings
    /// this purge.
    pub(super) fn into_response<T>(
        self,
        when_whole: Option<T>,
        purge: impl FnOnce() -> EndPurge,
    ) -> (Response<Body>, Option<T>) {
        let Self { response, read, rest } = self;
        let (body, when_whole) = match rest {
            Rest::Ended(None) if read.iter().all(Frame::is_data) => {
                let pieces = read.into_iter().filter_map(|frame| frame.into_data().ok());
                (Body::pieces(pieces.collect()), when_whole)
            }
            Rest::Ended(_) => {
                (Body::stream(StreamedBody { read, rest, end: ReplyEndState::Over }), when_whole)
            }
            Rest::Body(_) => {
                let end = ReplyEndState::Ahead(Box::new(purge()));
                (Body::stream(StreamedBody { read, rest, end }), None)
            }
        };
        (response.map(|()| body), when_whole)
    }
}

/// The purge at the end of a response.
pub(super) struct EndPurge {
    pub(super) resources: Arc<Resources>,
    pub(super) context: MutationContext,
    pub(super) tags: Vec<Tag>,
    pub(super) repurge_after: Vec<Duration>,
    /// The client may leave while the process stops, outside of the runtime.
    pub(super) runtime: Handle,
}

impl EndPurge {
    fn make(self) -> oneshot::Receiver<()> {
        let Self { resources, context, mut tags, repurge_after, runtime } = self;
        let late = &resources.late_purges;
        match context.new_rule_purges(&tags) {
            NewRulePurges::Nothing => {}
            NewRulePurges::Tags(more) => tags.extend(more),
            NewRulePurges::Everything => return late.purge_at_end(&runtime, None),
        }
        late.purge_after(&runtime, &tags, &repurge_after);
        late.purge_at_end(&runtime, Some(tags))
    }
}

impl EndPurge {
    /// Makes the purge when the rest of the response has come.
    fn make_after(mut self, rest: Body) {
        let late = Arc::clone(&self.resources.late_purges);
        let (runtime, departure) = (self.runtime.clone(), Arc::clone(&self.context.departure));
        late.read_out(&runtime, rest, departure, move |end| {
            if end == ReadOut::BrokenOff {
                // What the origin commits after all is found by this one.
                self.repurge_after.push(READ_OUT);
            }
            drop(self.make());
        });
    }
}

/// A body whose end is held back until its purge is made.
struct StreamedBody {
    /// What was read before.
    read: VecDeque<Frame<Bytes>>,
    rest: Rest,
    end: ReplyEndState,
}

enum ReplyEndState {
    Ahead(Box<EndPurge>),
    Held {
        /// The frame that the client does not have yet; none if only the end itself is held back.
        last: Option<Frame<Bytes>>,
        purged: oneshot::Receiver<()>,
        until: Pin<Box<Sleep>>,
    },
    Over,
}

impl StreamedBody {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (self.read.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Rest::Body(body)) => Pin::new(body).poll_frame(cx),
            (None, Rest::Ended(error)) => Poll::Ready(error.take().map(Err)),
        }
    }

    fn has_more(&self) -> bool {
        !self.read.is_empty()
            || match &self.rest {
                Rest::Body(body) => !body.is_end_stream(),
                Rest::Ended(error) => error.is_some(),
            }
    }

    /// Begins the purge, if it has not begun yet.
    fn purge(&mut self) -> Option<oneshot::Receiver<()>> {
        match std::mem::replace(&mut self.end, ReplyEndState::Over) {
            ReplyEndState::Ahead(purge) => Some(purge.make()),
            ReplyEndState::Held { .. } | ReplyEndState::Over => None,
        }
    }
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let ReplyEndState::Ahead(_) = &this.end {
            let last = match ready!(this.poll_next(cx)) {
                Some(Ok(frame)) if frame.is_data() && this.has_more() => {
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => {
                    this.purge();
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(last)) => Some(last),
                None => None,
            };
            if let Some(purged) = this.purge() {
                let until = Box::pin(tokio::time::sleep(END_HOLD));
                this.end = ReplyEndState::Held { last, purged, until };
            }
        }
        if let ReplyEndState::Held { last, purged, until } = &mut this.end {
            if Pin::new(purged).poll(cx).is_pending() {
                ready!(until.as_mut().poll(cx));
            }
            let last = last.take();
            this.end = ReplyEndState::Over;
            return Poll::Ready(last.map(Ok));
        }
        this.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, ReplyEndState::Over) && !self.has_more()
    }

    fn size_hint(&self) -> SizeHint {
        let held = match &self.end {
            ReplyEndState::Held { last, .. } => last.as_ref(),
            ReplyEndState::Ahead(_) | ReplyEndState::Over => None,
        };
        let here = self.read.iter().chain(held).filter_map(Frame::data_ref);
        let bytes: u64 = here.map(|bytes| bytes.len() as u64).sum();
        let rest = match &self.rest {
            Rest::Body(body) => body.size_hint(),
            // With a length there would be no trailers, and nobody would see that it is broken off.
            Rest::Ended(_) => SizeHint::new(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + bytes);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + bytes);
        }
        hint
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        // The client has left, or the process stops: nobody waits for the purge.
        let ReplyEndState::Ahead(purge) = std::mem::replace(&mut self.end, ReplyEndState::Over)
        else {
            return;
        };
        match std::mem::replace(&mut self.rest, Rest::Ended(None)) {
            Rest::Body(body) => purge.make_after(body),
            Rest::Ended(_) => drop(purge.make()),
        }
    }
}
