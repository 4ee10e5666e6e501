//! A URL that is fetched now and then: when its value changes, everything that the source can name
//! may have changed.
//!
//! The value is what a JSON pointer finds in the answer; without a pointer the `ETag` of the
//! answer, or its body where it has none.

use sha2::{Digest as _, Sha256};

use super::listener::SourceListener;
use super::settings::PollSettings;
use crate::clock::Clock;
use crate::upstream::{Fetched, UrlClient};

/// The largest answer that is read, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Fetches until that fails, and says why it did.
pub(super) async fn listen(
    settings: &PollSettings,
    listener: &SourceListener,
    clock: Clock,
) -> String {
    let client = match UrlClient::new(settings.url.clone(), MAX_BODY, clock) {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let mut known = None;
    loop {
        let fetched = match client.fetch("application/json, */*").await {
            Ok(fetched) => fetched,
            Err(error) => return error.to_string(),
        };
        let value = match value(&fetched, settings.pointer.as_deref()) {
            Ok(value) => value,
            Err(why) => return why,
        };
        // What has changed before the first answer is a gap, and purged as such.
        if known.as_ref().is_some_and(|known| *known != value) {
            listener.told_of_all();
        }
        known = Some(value);
        listener.heard();
        tokio::time::sleep(settings.every).await;
    }
}

/// A digest of the value of an answer.
fn value(fetched: &Fetched, pointer: Option<&str>) -> Result<[u8; 32], String> {
    let Some(pointer) = pointer else {
        let etag = fetched.headers.get(http::header::ETAG).map(http::HeaderValue::as_bytes);
        return Ok(Sha256::digest(etag.unwrap_or(&fetched.body)).into());
    };
    let answer: serde_json::Value =
        serde_json::from_slice(&fetched.body).map_err(|_| "the answer is no JSON".to_owned())?;
    let found = answer.pointer(pointer).ok_or("the answer has nothing at `pointer`")?;
    Ok(Sha256::digest(found.to_string()).into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use http::header::{ETAG, HeaderValue};

    use super::*;

    fn answer(etag: Option<&'static str>, body: &'static str) -> Fetched {
        let etag = etag.map(|etag| (ETAG, HeaderValue::from_static(etag)));
        Fetched { headers: HeaderMap::from_iter(etag), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn the_value_is_what_the_pointer_finds_or_the_etag_or_the_body() {
        let of = |etag, body, pointer| value(&answer(etag, body), pointer);
        let run = Some("/sync/last_run");
        let one = of(None, r#"{"sync": {"last_run": 7, "now": 1}}"#, run);
        assert_eq!(one, of(Some("\"x\""), r#"{"sync": {"now": 2, "last_run": 7}}"#, run));
        assert_ne!(one, of(None, r#"{"sync": {"last_run": 8}}"#, run));
        assert_ne!(one, of(None, r#"{"sync": {"last_run": "7"}}"#, run));
        assert!(of(None, r#"{"sync": {}}"#, run).is_err() && of(None, "<p>", run).is_err());
        assert_eq!(of(Some("\"a\""), "1", None), of(Some("\"a\""), "2", None));
        assert_ne!(of(Some("\"a\""), "1", None), of(Some("\"b\""), "1", None));
        assert_ne!(of(None, "1", None), of(None, "2", None));
    }
}
