//! The parts of a sidecar that the admin API reads and controls.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::readiness::{Readiness, Ready};
use super::reload::ReloadHandle;
use super::remedies;
use super::remedies::{KeyEvidence, Remedy};
use super::response::ApiError;
use super::under;
use crate::clock::Wall;
use crate::coherence::{PurgeKind, Released};
use crate::policy::apps::Apps;
use crate::policy::edit::EditTrial;
use crate::policy::explain;
use crate::policy::explain::{ExplainLine, ExplainRequest};
use crate::policy::glob::Glob;
use crate::policy::plan::Plan;
use crate::policy::purge_url::not_one_path;
use crate::policy::request_target;
use crate::policy::route::Route;
use crate::policy::tag::Tag;
use crate::proxy::Proxy;
use crate::shadow::report::{Advice, ShadowReport};
use crate::telemetry::events::{EventKind, PurgeEvent};
use crate::telemetry::hot_tags::TagEvent;
use crate::telemetry::metrics::ScrapeFormat;

/// How many clients may subscribe to events at once.
pub(super) const MAX_SUBSCRIBERS: usize = 16;
/// How many scans of the memory tier may run at once.
pub(super) const MAX_SCANS: usize = 2;
/// How many tags and URLs one purge may name.
const MAX_PURGED: usize = 1000;

/// The parts of one sidecar that the admin API uses.
pub struct AdminState {
    /// The request flow and its parts.
    pub proxy: Arc<Proxy>,
    /// Reloads the config file.
    pub reloader: Arc<dyn ReloadHandle>,
    /// When the sidecar started.
    pub started: Wall,
    readiness: Arc<dyn Readiness>,
    pub(super) subscribers: Arc<Semaphore>,
    /// One permit for each scan of the memory tier.
    pub(super) scans: Semaphore,
    pub(super) stop: CancellationToken,
}

/// The body of `POST /purge`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeRequest {
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    urls: Vec<String>,
    /// URLs of folders: what is below them is purged.
    #[serde(default)]
    under: Vec<String>,
    #[serde(default)]
    everything: bool,
    #[serde(default)]
    soft: bool,
}

/// The response to `POST /purge`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PurgeSummary {
    tags: Vec<String>,
    everything: bool,
    soft: bool,
    took_ms: f64,
    /// Whether Redis could not be told: the other sidecars follow when it can be reached.
    pending: bool,
    /// The tags and URLs that nothing carries, as far as this sidecar knows.
    unused: Vec<String>,
}

impl AdminState {
    /// Cancelling `stop` ends the streams of events.
    #[must_use]
    pub fn new(
        proxy: Arc<Proxy>,
        reloader: Arc<dyn ReloadHandle>,
        readiness: Arc<dyn Readiness>,
        stop: CancellationToken,
    ) -> Self {
        let started = proxy.clock.wall();
        Self {
            proxy,
            reloader,
            started,
            readiness,
            subscribers: Arc::new(Semaphore::new(MAX_SUBSCRIBERS)),
            scans: Semaphore::new(MAX_SCANS),
            stop,
        }
    }

    /// Whether the sidecar can serve.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.readiness.state()
    }

    /// All metrics in the format that `Accept` selects, with its media type.
    pub(super) fn metrics(&self, accept: Option<&str>) -> (&'static str, Vec<u8>) {
        let format = ScrapeFormat::negotiate(accept);
        (format.content_type(), self.proxy.metrics.encode(format))
    }

    pub(super) fn shadow(&self) -> ShadowReport {
        let live = self.proxy.active_config();
        let mut report = self.proxy.shadow.report(&live.rules);
        // What must not be pasted is not shown.
        report.advice.retain_mut(|advice| {
            if advice.edits.is_empty() {
                return true;
            }
            advice.diff = match self.reloader.try_edits(&advice.edits) {
                EditTrial::Passed(tried) => Some(tried.diff),
                // What has not been tried yet is shown next time.
                EditTrial::Failed | EditTrial::Pending => None,
            };
            advice.diff.is_some()
        });
        for route in live.rules.routes.iter() {
            let evidence = KeyEvidence::new(&self.proxy, &live, route);
            let remedies = remedies::key_remedies(route, &evidence, &*self.reloader);
            report.advice.extend(remedies.into_iter().map(|remedy| key_advice(route, remedy)));
        }
        report
    }

    /// What is known of the keys of a route.
    pub(super) fn key_evidence(&self, route: &Route) -> KeyEvidence {
        let live = self.proxy.active_config();
        // A reload may have come in between: then nothing is known yet.
        let is_same = live.rules.routes.get(route.id).is_some_and(|own| own.name() == route.name());
        if is_same { KeyEvidence::new(&self.proxy, &live, route) } else { KeyEvidence::default() }
    }

    pub(super) fn shadow_summary(&self) -> Value {
        let (findings, audited, stale) = self.proxy.shadow.totals();
        let (never, differs) = self.proxy.shadow.language_totals();
        json!({
            "findings": findings,
            "audited": audited,
            "audited_stale": stale,
            "languages": { "never": never, "differs": differs },
        })
    }

    /// Purges, and returns when no sidecar serves the purged entries any more, or it is pending.
    pub(super) async fn purge(&self, order: &PurgeRequest) -> Result<PurgeSummary, ApiError> {
        let live = self.proxy.active_config();
        let mut tags = requested_tags(order, &live.rules.apps)?;
        for url in &order.under {
            tags.extend(under::tags_of_folder(url, &live.rules)?);
        }
        // The purge makes no difference to what carries a tag, but entries may go meanwhile.
        let unused = self.unused(order);
        let kind = if order.soft { PurgeKind::Soft } else { PurgeKind::Hard };
        let began = self.proxy.clock.now();
        let released = if order.everything {
            self.proxy.coherence.purge_everything(kind).await
        } else {
            self.proxy.coherence.purge_with(&tags, kind).await
        };
        let ended = self.proxy.clock.now();
        let took = ended.saturating_duration_since(began);
        if live.rules.routes.iter().next().is_none() && !order.everything && !order.soft {
            let named: Vec<&str> = order.tags.iter().map(String::as_str).collect();
            self.proxy.uncached.purged(&named, ended);
        }
        let names: Vec<String> = tags.iter().map(|tag| tag.as_str().to_owned()).collect();
        // Audit trail: anyone with the token may purge, so every purge is logged.
        tracing::info!(
            tags = names.join(" "),
            everything = order.everything,
            soft = order.soft,
            "purged by the admin API"
        );
        self.proxy.hot_tags.record(names.iter().map(String::as_str), TagEvent::Purged);
        self.proxy.counters.purges.admin(kind);
        let purged = PurgeEvent {
            by: "admin",
            everything: order.everything,
            soft: order.soft,
            ..PurgeEvent::default()
        };
        self.proxy.events.publish(
            self.proxy.clock.wall(),
            EventKind::Purge(purged.with_tags(names.iter().map(String::as_str))),
        );
        Ok(PurgeSummary {
            tags: names,
            everything: order.everything,
            soft: order.soft,
            took_ms: took.as_secs_f64() * 1e3,
            pending: released == Released::PublishFailed,
            unused,
        })
    }

    /// The tags and URLs of a purge that nothing carries. Other sidecars may have stored more in
    /// Redis than this one knows, so with Redis only tags count that no route can render.
    fn unused(&self, order: &PurgeRequest) -> Vec<String> {
        let coherence = &self.proxy.coherence;
        let is_alone = coherence.records().is_none();
        let live = self.proxy.active_config();
        let is_rendered = |tag: &Tag| {
            let mut templates = live.rules.routes.iter().flat_map(|route| &route.spec.tags);
            templates
                .any(|template| Glob::new(&template.shape("*")).matches(tag.as_str().as_bytes()))
        };
        let is_unused_tag = |name: &&String| {
            let tag = Tag::new(name);
            !coherence.is_held(&tag) && (is_alone || !is_rendered(&tag))
        };
        let is_unused_url = |url: &&String| {
            is_alone
                && tags_of_url(url, &live.rules.apps)
                    .is_ok_and(|tags| !tags.iter().any(|tag| coherence.is_held(tag)))
        };
        let tags = order.tags.iter().filter(is_unused_tag);
        tags.chain(order.urls.iter().filter(is_unused_url)).cloned().collect()
    }

    /// How the rules in force treat a request, and the stored response for it.
    pub(super) async fn explain(&self, question: &ExplainRequest) -> Result<Value, String> {
        let request = question.read()?;
        let live = self.proxy.active_config();
        let mut explained = explain::explain(&live.rules, &request, self.proxy.clock.wall());
        let asked = request.view(&live.rules, self.proxy.clock.wall());
        let plan = live.rules.plan(&asked);
        explained.lines.extend(plan.route().and_then(|route| self.explain_switch(route)));
        let stored = match plan {
            Plan::Lookup(lookup) => {
                explained.add_lifetime(live.table.lifetime(Some(lookup.route.id)));
                let evidence = KeyEvidence::new(&self.proxy, &live, lookup.route);
                let remedies = remedies::key_remedies(lookup.route, &evidence, &*self.reloader);
                explained.lines.extend(remedies.into_iter().map(|remedy| ExplainLine {
                    name: "seen on this route".to_owned(),
                    value: remedy.why,
                }));
                let sources = self.proxy.sources.telling_of(&lookup.tags());
                explained.lines.extend(sources.iter().map(|source| ExplainLine {
                    name: "changes told by".to_owned(),
                    value: format!("{} ({}), {}", source.name, source.kind, source.state()),
                }));
                self.proxy.inspect(&lookup, asked.headers).await
            }
            _ => None,
        };
        Ok(json!({ "request": explained.request, "lines": explained.lines, "stored": stored }))
    }
}

/// Advice about what keeps requests of a route from the cache besides its rules.
fn key_advice(route: &Route, remedy: Remedy) -> Advice {
    let tried = remedy.change.map(|change| change.tried);
    let (line, file) = Advice::place(Some(&route.spec.place));
    Advice {
        route: route.name().to_owned(),
        why: remedy.why,
        toml: tried.as_ref().map(|tried| tried.lines.clone()).unwrap_or_default(),
        line,
        file,
        diff: tried.map(|tried| tried.diff),
        edits: Vec::new(),
    }
}

/// The tags that a request names, including those of its URLs.
fn requested_tags(order: &PurgeRequest, apps: &Apps) -> Result<Vec<Tag>, ApiError> {
    const FORM: &str = "{\"tags\":[\"campaigns:acme\"]}, {\"urls\":[\"http://host/path\"]}, \
                        {\"under\":[\"http://host/folder/\"]} or \
                        {\"everything\":true}; with \"soft\":true entries are \
                        stale, not gone";
    let named = order.tags.len() + order.urls.len() + order.under.len();
    if order.everything == (named > 0) {
        let error = if order.everything {
            "`everything` cannot be combined with tags, URLs or folders"
        } else {
            "the request names nothing to purge"
        };
        return Err(ApiError::bad_request(error, FORM));
    }
    if named > MAX_PURGED {
        let refused = ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{named} tags, URLs and folders are too many for one purge"),
        );
        return Err(refused.hint(format!("send at most {MAX_PURGED} per request")));
    }
    if order.tags.iter().any(String::is_empty) {
        return Err(ApiError::bad_request("a tag is empty", FORM));
    }
    let mut tags: Vec<Tag> = order.tags.iter().map(|tag| Tag::new(tag)).collect();
    for url in &order.urls {
        tags.extend(tags_of_url(url, apps)?);
    }
    tags.sort();
    tags.dedup();
    Ok(tags)
}

/// The tags of a URL, one for each spelling of its host and path that clients may use, and for the
/// host that all requests of its app count for, if there is one.
pub(super) fn tags_of_url(text: &str, apps: &Apps) -> Result<Vec<Tag>, ApiError> {
    const FORM: &str = "write it with the host that clients use, as in \
                        http://app.example.com/api/v1/forms; the query does not matter";
    let refused =
        || ApiError::bad_request(format!("{text:?} is not a URL that can be stored"), FORM);
    if let Some(why) = not_one_path(text) {
        return Err(ApiError::bad_request(format!("{text:?} {why}"), FORM));
    }
    let url = Url::parse(text).map_err(|_| refused())?;
    let host =
        url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")).ok_or_else(refused)?;
    let hosts = under::hosts_of_url(&url, host, apps);
    let paths = request_target::readings(url.path());
    Ok(hosts
        .iter()
        .flat_map(|host| paths.iter().map(move |path| Tag::for_uri(host, path)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::apps::AppRules;

    fn order(json: &str) -> Result<Vec<String>, ApiError> {
        let order: PurgeRequest = serde_json::from_str(json).expect("an order");
        requested_tags(&order, &Apps::default())
            .map(|tags| tags.iter().map(|tag| tag.as_str().to_owned()).collect())
    }

    #[test]
    fn a_url_is_purged_under_the_host_that_stands_for_all() {
        let first = AppRules { host_key: Some("app.test".into()), ..AppRules::default() };
        let apps = Apps::single(first);
        let tags = tags_of_url("http://localhost:8081/a", &apps).expect("a URL");
        assert!(tags.contains(&Tag::for_uri("app.test", "/a")), "{tags:?}");
        assert!(tags.contains(&Tag::for_uri("localhost:8081", "/a")), "{tags:?}");
    }

    #[test]
    fn a_url_is_the_tag_of_its_path_on_its_host() {
        assert_eq!(
            order(r#"{"urls":["http://App:8080/a/b?x=1#y"]}"#).expect("tags"),
            ["uri:app:8080/a/b"]
        );
        assert_eq!(
            order(r#"{"urls":["https://app/a/"]}"#).expect("tags"),
            ["uri:app/a", "uri:app:443/a"]
        );
        assert_eq!(order(r#"{"tags":["b","a","a"]}"#).expect("tags"), ["a", "b"]);
        assert_eq!(order(r#"{"everything":true}"#).expect("tags"), [""; 0]);
    }

    #[test]
    fn what_names_nothing_or_too_much_is_refused() {
        for bad in [
            "{}",
            r#"{"soft":true}"#,
            r#"{"everything":true,"tags":["a"]}"#,
            r#"{"tags":[""]}"#,
            r#"{"urls":["/a"]}"#,
            r#"{"urls":["ftp://app/a"]}"#,
            r#"{"urls":["http://"]}"#,
        ] {
            assert!(order(bad).is_err(), "{bad}");
        }
        let tags: Vec<String> = (0..=MAX_PURGED).map(|number| number.to_string()).collect();
        let many = serde_json::json!({ "tags": tags });
        assert!(order(&many.to_string()).is_err());
        assert!(
            serde_json::from_str::<PurgeRequest>(r#"{"tag":["a"]}"#).is_err(),
            "a typo is no purge of nothing"
        );
    }
}
