//! `/tail`: finished requests as they happen, as server-sent events, filtered here.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{Extensions, StatusCode};
use serde::Deserialize;
use strsim::jaro_winkler;

use super::events::{KEEP_ALIVE, StreamPermit};
use super::response::{ApiError, set_security_headers};
use super::state::AdminState;
use crate::outcome::{Disposition, Reason};
use crate::policy::plan::PolicyRules;
use crate::telemetry::log::printable;
use crate::telemetry::metrics::NONE;
use crate::telemetry::tail::{
    DEFAULT_TAIL_RATE, MAX_TAIL_LISTENERS, MAX_TAIL_RATE, TailFilter, TailItem,
};

/// The longest text of a query that a message repeats, in bytes.
const MAX_SHOWN: usize = 80;

/// The query of `GET /tail`. An empty value filters nothing, as one that is absent, so that a form
/// can send all of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TailQuery {
    route: String,
    disposition: String,
    path: String,
    reason: String,
    status: String,
    rate: String,
}

/// Finished requests from now on.
pub(super) fn stream(
    state: &Arc<AdminState>,
    query: &TailQuery,
    extensions: &Extensions,
) -> Response {
    let rules = Arc::clone(&state.proxy.active_config().rules);
    let (filter, rate) = match query.read(&rules) {
        Ok(read) => read,
        Err(refused) => return refused.into_response(),
    };
    let Some(listener) = state.proxy.tail.listen(state.proxy.clock.now(), filter, rate) else {
        let refused = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_TAIL_LISTENERS} clients read the live tail already"),
        );
        return refused.hint("close another dashboard or `sidecache tail`").into_response();
    };
    if let Some(connection) = extensions.get::<StreamPermit>() {
        connection.set();
    }
    let stop = state.stop.clone();
    let items = stream::unfold((listener, stop), async |(mut listener, stop)| {
        // The drain does not wait for listeners.
        let item = stop.run_until_cancelled(listener.next()).await?;
        Some((Ok::<_, Infallible>(sse_event(&item)), (listener, stop)))
    });
    let mut response =
        Sse::new(items).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    set_security_headers(response.headers_mut());
    response
}

/// The text is made here, in the task of the listener's connection.
fn sse_event(item: &TailItem) -> Sent {
    let (name, data) = match item {
        TailItem::Request(line) => ("request", serde_json::to_string(&**line)),
        TailItem::Missed(missed) => ("missed", serde_json::to_string(missed)),
    };
    Sent::default().event(name).data(data.unwrap_or_default())
}

impl TailQuery {
    fn read(&self, rules: &PolicyRules) -> Result<(TailFilter, u32), ApiError> {
        let filter = TailFilter {
            route: given(&self.route).map(|name| route(name, rules)).transpose()?,
            disposition: given(&self.disposition).map(disposition).transpose()?,
            path: given(&self.path).map(path).transpose()?,
            reason: given(&self.reason).map(reason).transpose()?,
            status: given(&self.status).map(status).transpose()?,
        };
        Ok((filter, given(&self.rate).map_or(Ok(DEFAULT_TAIL_RATE), rate)?))
    }
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn refused(name: &str, value: &str, what: &str, hint: impl Into<String>) -> ApiError {
    let value = printable(value, MAX_SHOWN);
    ApiError::bad_request(format!("`{name}={value}` {what}"), hint)
}

/// A typing mistake would be an empty tail, so the name is one of a route in force.
fn route(name: &str, rules: &PolicyRules) -> Result<String, ApiError> {
    let names = || rules.routes.iter().map(|route| route.name()).chain([NONE]);
    if names().any(|own| own == name) {
        return Ok(name.to_owned());
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean {near}? `{NONE}` is for requests without a route"),
        None => format!("`GET /routes` lists them; `{NONE}` is for requests without a route"),
    };
    Err(refused("route", name, "is no route of proxy.toml", hint))
}

fn disposition(word: &str) -> Result<Disposition, ApiError> {
    let found = Disposition::ALL.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(word));
    let words = Disposition::ALL.map(Disposition::as_str).join(", ");
    found.ok_or_else(|| refused("disposition", word, "is none", format!("write one of {words}")))
}

fn path(text: &str) -> Result<String, ApiError> {
    if text.contains(['?', '#']) {
        let hint = "the tail shows no query, so write a part of the path alone";
        return Err(refused("path", text, "has a query", hint));
    }
    Ok(text.to_owned())
}

/// In the words of headers and logs, or in those of metrics.
fn reason(words: &str) -> Result<Reason, ApiError> {
    let found =
        Reason::ALL.iter().copied().find(|one| one.as_str() == words || one.label() == words);
    found.ok_or_else(|| {
        let near = nearest(words, Reason::ALL.iter().map(|one| one.as_str()));
        let hint = near.map_or_else(
            || "write it as in the access log, such as `missing field`".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        refused("reason", words, "is no reason", hint)
    })
}

/// `404`, or a class: `5xx`.
fn status(text: &str) -> Result<(u16, u16), ApiError> {
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    let range = match (class, text.parse::<u16>()) {
        (Some(class @ 1..=5), _) => Some((class * 100, class * 100 + 99)),
        (None, Ok(status @ 100..=999)) => Some((status, status)),
        _ => None,
    };
    range.ok_or_else(|| refused("status", text, "is no status", "write 404, or 5xx for a class"))
}

fn rate(text: &str) -> Result<u32, ApiError> {
    let hint = format!("write lines a second from 1 to {MAX_TAIL_RATE}");
    match text.parse() {
        Ok(rate @ 1..=MAX_TAIL_RATE) => Ok(rate),
        _ => Err(refused("rate", text, "is out of range", hint)),
    }
}

/// The name that is most like what was written, if one is.
fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.85;
    // SECURITY: comparing takes time that grows with the product of the lengths.
    let written = &written[..written.floor_char_boundary(MAX_SHOWN)];
    names
        .map(|name| (jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_the_forms_that_people_write() {
        assert_eq!(disposition("hit"), Ok(Disposition::Hit));
        assert_eq!(disposition("REVALIDATED"), Ok(Disposition::Revalidated));
        assert_eq!(reason("missing field"), Ok(Reason::MissingField));
        assert_eq!(reason("missing_field"), Ok(Reason::MissingField));
        assert_eq!((status("404"), status("5xx")), (Ok((404, 404)), Ok((500, 599))));
        assert_eq!((rate("1"), rate("1000")), (Ok(1), Ok(MAX_TAIL_RATE)));
        assert_eq!(path("/a b"), Ok("/a b".to_owned()));
    }

    #[test]
    fn what_is_none_of_them_is_refused_with_a_hint() {
        for wrong in ["6xx", "xx", "99", "1000", "4x", "-1"] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "1001", "-1", "all"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(disposition("HITS").is_err() && path("/a?b=c").is_err());
        let wrong = reason("mising field").expect_err("a typing mistake");
        assert!(format!("{wrong:?}").contains("did you mean missing field?"), "{wrong:?}");
        assert!(reason(&"x".repeat(60_000)).is_err());
    }
}
