//! Reads the body of a mutation before anything is marked, taken or sent for it: an upload that
//! breaks off so far was never sent, and purges nothing.
//!
//! Small bodies are read whole, for the purge rules too, and are then forwarded with the framing
//! that they came with. What is longer, or where there is no room, is streamed.

use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use crate::policy::body_fields::BodyFields;
use crate::proxy::context::{RequestContext, request_view};
use crate::proxy::mutation::body::bodies::{PrefixedBody, WholeUpload};
use crate::proxy::mutation::body::timed::{TimedUpload, UploadLimit};
use crate::proxy::mutation::permit::take_permit;
use crate::proxy::resources::Resources;
use crate::proxy::upload_budget::ReservedBytes;
use crate::semantics::body::{Body, BodyError};
use crate::shares::{FairPermit, Requester};

pub(crate) mod bodies;
pub(super) mod held;
pub(crate) mod timed;

/// How long a body of unknown length is waited for, where no rule reads it: it may have no end
/// before the origin has answered its beginning.
const CHUNKED_WAIT: Duration = Duration::from_secs(1);

/// A body, as far as it was read.
pub(super) struct ReadBody {
    /// What purge rules read of it, if they need it.
    pub(super) fields: Option<BodyFields>,
    /// All of it, to be forwarded.
    pub(super) body: Body,
    /// Whether all of it is in memory.
    pub(super) is_whole: bool,
    /// Where rules need a body for which the budget has no room, a permit holds it.
    pub(super) permit: Option<FairPermit>,
}

/// Why there is nothing to forward.
pub(super) enum ReadFailure {
    /// The upload broke off, or took too long.
    Broken(BodyError),
    /// Too many mutations are in flight.
    Busy,
}

/// What has arrived of a body.
struct PartRead {
    data: BytesMut,
    reserved: ReservedBytes,
    permit: Option<FairPermit>,
}

/// How far a body was read.
enum Progress {
    Ended(Option<HeaderMap>),
    /// The rest is streamed.
    More,
}

/// Reads the body if it is short, and its path is on a route or a purge rule, or a rule needs a
/// field of it.
pub(super) async fn read_body(
    resources: &Resources,
    context: RequestContext<'_>,
    requester: &Requester,
    parts: &Parts,
    body: Body,
    effective: &Method,
) -> Result<ReadBody, ReadFailure> {
    let (config, peer) = (context.config, context.peer);
    let is_whole = body.buffered_len().is_some();
    let view = request_view(context.app(), parts, &body, peer, &config.rules, context.now);
    let needed = !body.is_empty() && config.rules.mutation_reads_body(&view, effective);
    if body.is_empty()
        || !(needed || !is_whole && config.rules.has_path(context.app(), parts.uri.path()))
    {
        return Ok(ReadBody { fields: None, body, is_whole, permit: None });
    }
    let length = body.size_hint().exact();
    let limit = UploadLimit {
        time: config.settings.upload_time,
        exceeded: resources.counters.uploads_too_slow.clone(),
        clock: resources.clock.clone(),
    };
    let mut body = if is_whole { body } else { Body::stream(TimedUpload::new(body, limit)) };
    if length.is_some_and(|length| length > config.settings.purge_body) {
        return Ok(ReadBody { fields: None, body, is_whole, permit: None });
    }
    let reserved = resources.upload_budget.reserve(requester.peer);
    let mut read = PartRead { data: BytesMut::new(), reserved, permit: None };
    let most = usize::try_from(config.settings.purge_body).unwrap_or(usize::MAX);
    let reading = read.fill((resources, requester), &mut body, most, needed);
    let progress = if needed || length.is_some() {
        reading.await?
    } else {
        match tokio::time::timeout(CHUNKED_WAIT, reading).await {
            Ok(progress) => progress?,
            Err(_) => Progress::More,
        }
    };
    let PartRead { data, reserved, permit } = read;
    let (fields, body, is_whole) = match progress {
        Progress::Ended(trailers) => {
            let data = data.freeze();
            let kind =
                parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            let fields = match (data.is_empty(), needed) {
                (true, _) => Some(BodyFields::nothing()),
                (false, true) => BodyFields::parse(kind, &data),
                (false, false) => None,
            };
            let whole = if length.is_some() {
                Body::full(data)
            } else {
                Body::stream(WholeUpload::new(data, trailers))
            };
            (fields, whole, true)
        }
        Progress::More => (None, Body::stream(PrefixedBody::new(data.freeze(), body)), false),
    };
    let body = body.with_on_drop(Box::new(reserved));
    Ok(ReadBody { fields, body, is_whole, permit })
}

impl PartRead {
    /// Reads up to the end, or up to the first frame that makes it longer than `most` bytes. It may
    /// be dropped and leaves what it has read.
    async fn fill(
        &mut self,
        whose: (&Resources, &Requester),
        body: &mut Body,
        most: usize,
        needed: bool,
    ) -> Result<Progress, ReadFailure> {
        while self.data.len() <= most {
            match body.frame().await {
                None => return Ok(Progress::Ended(None)),
                Some(Ok(frame)) => match frame.into_data().map_err(Frame::into_trailers) {
                    Ok(chunk) => {
                        self.data.extend_from_slice(&chunk);
                        if !self.has_room(whose, chunk.len(), needed).await? {
                            return Ok(Progress::More);
                        }
                    }
                    Err(trailers) => return Ok(Progress::Ended(trailers.ok())),
                },
                Some(Err(error)) => return Err(ReadFailure::Broken(error)),
            }
        }
        Ok(Progress::More)
    }

    /// Whether more may be read. What a rule needs is read in any case: where the budget is spent,
    /// the permits of mutations bound it.
    async fn has_room(
        &mut self,
        (resources, requester): (&Resources, &Requester),
        more: usize,
        needed: bool,
    ) -> Result<bool, ReadFailure> {
        if self.permit.is_some() || self.reserved.grow(more as u64) {
            return Ok(true);
        }
        if needed {
            let permit = take_permit(resources, requester).await;
            self.permit = Some(permit.ok_or(ReadFailure::Busy)?);
        }
        Ok(needed)
    }
}
