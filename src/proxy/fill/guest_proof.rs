//! A fill for guests whose answer sets cookies: the second request that proves the answer to be the
//! same for all.
//!
//! Invariant: no follower gets any byte of an answer that sets cookies before it is proven. What
//! the guest who began the fill gets is [`FillRequest::own_request`].

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::outcome::Reason;
use crate::proxy::fill::origin_response::send;
use crate::proxy::fill::request::FillRequest;
use crate::proxy::guest_proofs::{PROOF_TIMEOUT, ProofResult};
use crate::proxy::resources::Resources;
use crate::semantics::content_coding::note_choice;

/// The response headers by which two answers are compared, besides those that may hold a token.
/// Others say when, where and how fast it was made.
const COMPARED: [&str; 10] = [
    "content-type",
    "content-location",
    "content-encoding",
    "content-language",
    "content-disposition",
    "content-security-policy",
    "location",
    "link",
    "refresh",
    "vary",
];

/// Parts of names of headers that may hold a token of one session.
const TOKEN_PARTS: [&str; 4] = ["csrf", "xsrf", "token", "nonce"];

/// The right to prove an answer.
pub(crate) struct GuestProof {
    _permit: OwnedSemaphorePermit,
}

impl GuestProof {
    /// What an answer needs before it is stored for guests: a proof if it sets cookies, or if the
    /// origin says that it is for one user and the route overrides that.
    ///
    /// # Errors
    /// It needs one, and none can be made now.
    pub(super) fn for_response(
        resources: &Resources,
        request: &FillRequest,
        response: &HeaderMap,
        leads: bool,
    ) -> Result<Option<Self>, Reason> {
        if !request.needs_guest_proof(response) {
            return Ok(None);
        }
        // Those who fetch alone would multiply the requests.
        let permit = if leads { resources.guest_proofs.begin() } else { None };
        permit.map(|permit| Some(Self { _permit: permit })).ok_or(Reason::GuestsUncompared)
    }

    /// Asks the origin a second time, and compares.
    ///
    /// # Errors
    /// The answers differ, or there is no second one.
    pub(super) async fn prove(
        self,
        resources: &Resources,
        request: &FillRequest,
        head: (StatusCode, &HeaderMap),
        body: Option<Vec<Bytes>>,
    ) -> Result<(), Reason> {
        // What outgrew the store is not stored anyway.
        let Some(body) = body else { return Err(Reason::TooLarge) };
        let compared = compare(resources, request, head, body);
        let compared = tokio::time::timeout(PROOF_TIMEOUT, compared).await;
        let result = compared.unwrap_or(ProofResult::Failed);
        resources.guest_proofs.counters.count(result);
        match result {
            ProofResult::Same => Ok(()),
            ProofResult::Failed => Err(Reason::GuestsUncompared),
            ProofResult::Differs => {
                let (key, now) = (request.primary.hash(), resources.clock.wall());
                resources.guest_proofs.mark_differing(key, now);
                tracing::debug!(
                    route = request.route.name(),
                    "guests get different answers, although `signed_in` says that they share one"
                );
                Err(Reason::GuestsDiffer)
            }
        }
    }
}

async fn compare(
    resources: &Resources,
    request: &FillRequest,
    (status, headers): (StatusCode, &HeaderMap),
    body: Vec<Bytes>,
) -> ProofResult {
    let Ok(second) = send(resources, request, request.sent.clone()).await else {
        return ProofResult::Failed;
    };
    let (mut second, mut second_body) = second.response.into_parts();
    if second.status.is_server_error() && !status.is_server_error() {
        return ProofResult::Failed;
    }
    if request.coding().is_some() {
        note_choice(second.status, &mut second.headers);
    }
    if second.status != status
        || request.sets_cookie(&second.headers)
        || !is_same_head(headers, &second.headers)
    {
        return ProofResult::Differs;
    }
    let mut expected = Expected { chunks: body, chunk: 0, at: 0 };
    loop {
        match second_body.frame().await {
            None if expected.is_over() => return ProofResult::Same,
            None => return ProofResult::Differs,
            Some(Err(_)) => return ProofResult::Failed,
            Some(Ok(frame)) => {
                if frame.data_ref().is_some_and(|data| !expected.takes(data)) {
                    return ProofResult::Differs;
                }
            }
        }
    }
}

fn is_same_head(first: &HeaderMap, second: &HeaderMap) -> bool {
    let counts = |name: &HeaderName| {
        COMPARED.contains(&name.as_str())
            || TOKEN_PARTS.iter().any(|part| name.as_str().contains(part))
    };
    first.keys().chain(second.keys()).filter(|name| counts(name)).all(|name| {
        let (one, two) = (first.get_all(name), second.get_all(name));
        one.iter().eq(two.iter())
    })
}

/// The bytes of a first answer, of which a second one takes away what it has as well.
struct Expected {
    chunks: Vec<Bytes>,
    /// The chunk that comes next, and the place in it.
    chunk: usize,
    at: usize,
}

impl Expected {
    /// Whether these bytes come next.
    fn takes(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            let Some(chunk) = self.chunks.get(self.chunk) else { return false };
            let left = &chunk[self.at..];
            let length = left.len().min(data.len());
            if left[..length] != data[..length] {
                return false;
            }
            data = &data[length..];
            self.at += length;
            if self.at == chunk.len() {
                (self.chunk, self.at) = (self.chunk + 1, 0);
            }
        }
        true
    }

    fn is_over(&self) -> bool {
        self.chunks[self.chunk.min(self.chunks.len())..].iter().all(Bytes::is_empty) && self.at == 0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn is_same(first: &[&[u8]], second: &[&[u8]]) -> bool {
        let chunks = first.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
        let mut expected = Expected { chunks, chunk: 0, at: 0 };
        second.iter().all(|data| expected.takes(data)) && expected.is_over()
    }

    proptest! {
        #[test]
        fn bodies_are_compared_whatever_their_chunks(
            first in proptest::collection::vec("[ab]{0,3}", 0..5),
            second in proptest::collection::vec("[ab]{0,3}", 0..5),
        ) {
            let bytes = |chunks: &[String]| chunks.concat();
            let parts = |chunks: &'_ [String]| -> Vec<Vec<u8>> {
                chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect()
            };
            let (one, two) = (parts(&first), parts(&second));
            let one: Vec<&[u8]> = one.iter().map(Vec::as_slice).collect();
            let two: Vec<&[u8]> = two.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(is_same(&one, &two), bytes(&first) == bytes(&second));
        }
    }

    #[test]
    fn heads_are_compared_by_what_describes_the_body_and_by_tokens() {
        let head = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
            let line = |&(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            lines.iter().map(line).collect()
        };
        let first = head(&[("content-type", "text/html"), ("date", "1"), ("set-cookie", "a=1")]);
        let same = head(&[("content-type", "text/html"), ("date", "2"), ("set-cookie", "a=2")]);
        assert!(is_same_head(&first, &same));
        for (name, value) in [("location", "/a"), ("x-csrf-token", "1"), ("vary", "cookie")] {
            let mut other = same.clone();
            other.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert!(!is_same_head(&first, &other) && !is_same_head(&other, &first), "{name}");
        }
    }
}
