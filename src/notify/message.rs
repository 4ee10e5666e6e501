//! The requests by which purges are told: one for each kind, pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::settings::{NotifyKind, NotifySettings};
use crate::clock::Wall;
use crate::policy::surrogate::{MANY_TAGS, surrogate_name};
use crate::policy::tag::{Tag, TagNature};
use crate::secret::Secret;

/// Tags that are told together, or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotifyBatch {
    /// These.
    Tags(Vec<Tag>),
    /// All that there is.
    Everything,
}

impl NotifyBatch {
    /// How many tags it has; one for everything.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Tags(tags) => tags.len(),
            Self::Everything => 1,
        }
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct NotifyMessage {
    /// The path, with the query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The request that tells of a batch. `id` is the same for each attempt; `None` if a secret cannot
/// be sent.
pub(super) fn message(
    settings: &NotifySettings,
    batch: &NotifyBatch,
    (id, now): (&str, Wall),
) -> Option<NotifyMessage> {
    let base = settings.url.path.trim_end_matches('/');
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (path, body) = match &settings.kind {
        NotifyKind::Webhook { key } => {
            let body = webhook_body(batch, id, now).to_string();
            let at = (now.0 / 1000).to_string();
            let signature = key.sign(&[id, ".", &at, ".", &body]);
            let signature = format!("v1,{}", BASE64.encode(signature));
            for (name, value) in
                [("webhook-id", id), ("webhook-timestamp", &at), ("webhook-signature", &signature)]
            {
                headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).ok()?);
            }
            (settings.url.path.to_string(), body)
        }
        NotifyKind::Cloudflare { zone, token } => {
            headers.insert(AUTHORIZATION, secret_value("Bearer ", token)?);
            let body = match batch {
                NotifyBatch::Tags(tags) => json!({ "tags": names(tags) }),
                NotifyBatch::Everything => json!({ "purge_everything": true }),
            };
            (format!("{base}/zones/{zone}/purge_cache"), body.to_string())
        }
        NotifyKind::Fastly { service, token, soft } => {
            headers.insert(HeaderName::from_static("fastly-key"), secret_value("", token)?);
            match batch {
                NotifyBatch::Tags(tags) => {
                    if *soft {
                        let name = HeaderName::from_static("fastly-soft-purge");
                        headers.insert(name, HeaderValue::from_static("1"));
                    }
                    let body = json!({ "surrogate_keys": names(tags) }).to_string();
                    (format!("{base}/service/{service}/purge"), body)
                }
                // There is no soft form of it.
                NotifyBatch::Everything => {
                    (format!("{base}/service/{service}/purge_all"), String::new())
                }
            }
        }
    };
    Some(NotifyMessage { path, headers, body: body.into() })
}

/// SECURITY: marked, so that no log of headers shows it.
fn secret_value(before: &str, token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("{before}{}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The names that a CDN knows, with the one that stands for those that a header had no room for.
fn names(tags: &[Tag]) -> Vec<String> {
    tags.iter().filter_map(surrogate_name).chain([MANY_TAGS.to_owned()]).collect()
}

/// What a webhook says, by what the tags stand for.
fn webhook_body(batch: &NotifyBatch, id: &str, now: Wall) -> Value {
    let tags = match batch {
        NotifyBatch::Tags(tags) => tags.as_slice(),
        NotifyBatch::Everything => &[],
    };
    let of = |wanted: fn(&TagNature<'_>) -> Option<String>| -> Vec<String> {
        tags.iter().filter_map(|tag| wanted(&tag.nature())).collect()
    };
    json!({
        "type": "purge",
        "id": id,
        "at_ms": now.0,
        "everything": matches!(batch, NotifyBatch::Everything),
        "tags": of(|nature| match nature {
            TagNature::Named(name) => Some((*name).to_owned()),
            _ => None,
        }),
        "families": of(|nature| match nature {
            TagNature::Family(shape) => Some((*shape).to_owned()),
            _ => None,
        }),
        "uris": of(|nature| match nature {
            TagNature::Uri(uri) => Some((*uri).to_owned()),
            _ => None,
        }),
        "folders": of(|nature| match nature {
            TagNature::Folder(folder) => Some((*folder).to_owned()),
            _ => None,
        }),
    })
}
