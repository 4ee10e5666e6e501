//! Hits are kept away for a streamed upload only from its end on. Nobody knows how long an upload
//! takes but its client, who could keep hits away for as long as it likes.
//!
//! Invariant: the origin gets the end of the upload only once hits are kept away. An origin that
//! acts on a part of an upload does so while hits go on; its answer still waits for the purge.

use std::future;
use std::time::Duration;

use http::Request;

use crate::coherence::{Coherence, HitGuard, PendingMutation};
use crate::proxy::mutation::body::held::{HeldUpload, UploadEnd};
use crate::semantics::body::Body;

/// When a mutation begins to keep hits away.
pub(super) struct LateGuard {
    guard: HitGuard,
    /// The end of the upload, if it is held back.
    end: Option<UploadEnd>,
    /// Whether hits could not be kept away, so that the upload was broken off.
    pub(super) refused: bool,
}

impl LateGuard {
    /// Holds back the end of the upload where it is streamed and hits are kept away.
    pub(super) fn new(
        coherence: &Coherence,
        guard: HitGuard,
        request: Request<Body>,
        is_whole: bool,
    ) -> (Self, Request<Body>) {
        if is_whole || !coherence.keeps_hits_away(guard) {
            return (Self { guard, end: None, refused: false }, request);
        }
        let (parts, body) = request.into_parts();
        let (body, end) = HeldUpload::new(body);
        let request = Request::from_parts(parts, Body::stream(body));
        (Self { guard, end: Some(end), refused: false }, request)
    }

    /// What the mutation begins with.
    pub(super) const fn first(&self) -> HitGuard {
        if self.end.is_some() { HitGuard::Never } else { self.guard }
    }

    /// Returns when all but the end of the upload was sent; never, if it is not held back.
    pub(super) async fn end_is_held(&mut self) {
        if let Some(end) = &mut self.end {
            if (&mut end.reached).await.is_ok() {
                return;
            }
            self.end = None;
        }
        future::pending::<()>().await;
    }

    /// Keeps hits away, then lets the end of the upload go. After [`Self::end_is_held`].
    pub(super) async fn begin(
        &mut self,
        coherence: &Coherence,
        pending: &mut PendingMutation,
        within: Duration,
    ) {
        let Some(end) = self.end.take() else { return };
        let Ok(guarded) = coherence.mark(pending.tags().to_vec(), self.guard, within).await else {
            // Without its end, the origin gets no whole mutation.
            self.refused = true;
            return;
        };
        coherence.refused(std::mem::replace(pending, guarded)).await;
        let _ = end.release.send(());
    }

    /// Lets the end go: the origin has answered before it.
    pub(super) fn release(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.release.send(());
        }
    }
}
