//! The trailers of either body.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::semantics::forward;

/// SECURITY: what frames, routes or authenticates a message must not come after it (RFC 9110
/// 6.5.1).
pub(super) fn without_forbidden_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Err(data) => data,
        Ok(trailers) if trailers.keys().any(forward::is_forbidden_trailer) => {
            let mut kept = HeaderMap::with_capacity(trailers.len());
            for (name, value) in
                trailers.iter().filter(|(name, _)| !forward::is_forbidden_trailer(name))
            {
                kept.append(name.clone(), value.clone());
            }
            Frame::trailers(kept)
        }
        Ok(trailers) => Frame::trailers(trailers),
    }
}
