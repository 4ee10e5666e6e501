//! A mutation that ends under other rules than it began under purges by both: a response that was
//! filled by the new rules while the origin worked on the mutation has tags that the old ones may
//! not know.
//!
//! This is the one place in the flow that loads the configuration anew, and nothing but the tags to
//! purge depends on it.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::clock::Wall;
use crate::policy::apps::AppId;
use crate::policy::body_fields::BodyFields;
use crate::policy::field::AnsweredBody;
use crate::policy::plan::{Mutation, PolicyRules, RequestView};
use crate::policy::tag::Tag;
use crate::proxy::active_config::{ActiveConfig, LiveConfig};
use crate::proxy::context::{RequestContext, request_view};
use crate::proxy::identity::CallerWrite;
use crate::semantics::body::Body;
use crate::semantics::forward::ClientPeer;
use crate::shares::Departure;

/// What the rules have seen of a mutation, for those that are in force when it ends.
pub(super) struct MutationContext {
    /// The configuration that it began under.
    pub(super) config: Arc<ActiveConfig>,
    /// The app that it is for by that.
    pub(super) app: AppId,
    lacks_host: bool,
    live: Arc<LiveConfig>,
    pub(super) parts: Parts,
    peer: ClientPeer,
    arrived: Wall,
    has_body: bool,
    effective: Method,
    fields: Option<BodyFields>,
    /// Left once nothing but the end of its response is awaited, and its client is gone.
    pub(super) departure: Arc<Departure>,
    /// Whoever the caller was before may be another one after it.
    pub(super) caller: CallerWrite,
    /// The mutation lasts at least as long as this.
    _write: Option<TaskTrackerToken>,
}

/// What new rules purge beside those that the mutation began under.
pub(super) enum NewRulePurges {
    Nothing,
    Tags(Vec<Tag>),
    /// They cannot tell.
    Everything,
}

impl MutationContext {
    pub(super) fn new(
        context: RequestContext<'_>,
        live: &Arc<LiveConfig>,
        parts: &Parts,
        has_body: bool,
        effective: Method,
        fields: Option<BodyFields>,
    ) -> Self {
        Self {
            config: Arc::clone(context.config),
            app: context.app(),
            lacks_host: context.connection.lacks_host,
            live: Arc::clone(live),
            parts: head_of(parts),
            peer: context.peer,
            arrived: context.now,
            has_body,
            effective,
            fields,
            departure: Arc::new(Departure::from_response()),
            caller: CallerWrite::begin(context.config, live, &parts.headers),
            _write: None,
        }
    }

    /// The same, which holds the token of the mutation in progress.
    pub(super) fn lasting(self, write: TaskTrackerToken) -> Self {
        Self { _write: Some(write), ..self }
    }

    /// What the rules in force by now purge beside these tags, if they are not those that the
    /// mutation began under.
    pub(super) fn new_rule_purges(&self, tags: &[Tag]) -> NewRulePurges {
        let config = self.live.load();
        let view = self.view(&config.rules);
        if Arc::ptr_eq(&config, &self.config) {
            return NewRulePurges::Nothing;
        }
        if self.fields.is_none()
            && self.has_body
            && config.rules.mutation_reads_body(&view, &self.effective)
        {
            // The old rules did not read the body, and it is gone.
            return NewRulePurges::Everything;
        }
        match config.rules.mutation(&view, &self.effective, self.fields.as_ref()) {
            Ok(mutation) => NewRulePurges::Tags(
                mutation.tags.into_iter().filter(|tag| !tags.contains(tag)).collect(),
            ),
            // The new rules would have refused it, for a header that they cannot read.
            Err(_) => NewRulePurges::Everything,
        }
    }

    /// What the rules that it began under purge, now that there is an answer; `None` if they would
    /// refuse it.
    pub(super) fn answered(&self, response: AnsweredBody<'_>) -> Option<Mutation> {
        let rules = &self.config.rules;
        let (view, fields) = (self.view(rules), self.fields.as_ref());
        rules.mutation_with(&view, &self.effective, fields, response).ok()
    }

    fn view(&self, rules: &PolicyRules) -> RequestView<'_> {
        // By other rules, the host may be that of another app.
        let app = if self.lacks_host {
            AppId::FIRST
        } else {
            rules.apps.of(&self.parts.uri, &self.parts.headers)
        };
        RequestView {
            has_body: self.has_body,
            ..request_view(app, &self.parts, &Body::empty(), self.peer, rules, self.arrived)
        }
    }
}

/// The head of a request, without its extensions.
fn head_of(parts: &Parts) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = parts.method.clone();
    head.uri = parts.uri.clone();
    head.version = parts.version;
    head.headers = parts.headers.clone();
    head
}
