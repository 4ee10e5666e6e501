//! Reads the body of a mutation for its purge rules, and puts it back in front of the rest.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http_body::Frame;
use http_body_util::BodyExt as _;

use crate::policy::body_fields::BodyFields;
use crate::proxy::active_config::ActiveConfig;
use crate::proxy::context::request_view;
use crate::semantics::body::{Body, BodyError};
use crate::semantics::forward::ClientPeer;

/// Reads the body, up to a limit, where a rule needs a field of it.
pub(super) async fn read_body(
    config: &ActiveConfig,
    parts: &Parts,
    mut body: Body,
    peer: ClientPeer,
    effective: &Method,
) -> (Option<BodyFields>, Body) {
    if body.is_empty()
        || !config
            .rules
            .mutation_reads_body(&request_view(parts, &body, peer, &config.rules), effective)
    {
        return (None, body);
    }
    let mut read = BytesMut::new();
    let limit = usize::try_from(config.settings.purge_body).unwrap_or(usize::MAX);
    while read.len() <= limit {
        match body.frame().await {
            None => {
                let read = read.freeze();
                let kind =
                    parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
                return (BodyFields::parse(kind, &read), Body::full(read));
            }
            Some(Ok(frame)) => {
                // Trailers are the end of a body, which is forwarded without them.
                if let Ok(chunk) = frame.into_data() {
                    read.extend_from_slice(&chunk);
                }
            }
            Some(Err(error)) => {
                return (None, prefixed(read, BodyRest::Broken(Some(error))));
            }
        }
    }
    (None, prefixed(read, BodyRest::Body(body)))
}

fn prefixed(read: BytesMut, rest: BodyRest) -> Body {
    Body::stream(PrefixedBody { read: Some(read.freeze()), rest })
}

/// A body whose beginning was read already.
struct PrefixedBody {
    read: Option<Bytes>,
    rest: BodyRest,
}

enum BodyRest {
    Body(Body),
    Broken(Option<BodyError>),
}

impl http_body::Body for PrefixedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(read) = this.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match &mut this.rest {
            BodyRest::Body(body) => Pin::new(body).poll_frame(cx),
            BodyRest::Broken(error) => Poll::Ready(error.take().map(Err)),
        }
    }
}
