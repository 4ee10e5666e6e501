//! `/history`: the numbers of the last hour and the last seven days, with what happened.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::response::{ApiError, json_response};
use super::state::AdminState;
use crate::telemetry::events::truncate;
use crate::telemetry::history::{HistoryRange, HistoryView};

/// The query of `/history`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    range: Option<String>,
}

#[derive(Serialize)]
struct HistoryAnswer {
    /// When the process started: nothing is known of the time before.
    started_ms: u64,
    #[serde(flatten)]
    view: HistoryView,
}

/// The history of the range that the query names; one hour if it names none. `None` is a query that
/// cannot be read.
pub(super) fn answer(state: &AdminState, query: Option<&HistoryQuery>) -> Response {
    let Some(HistoryQuery { range }) = query else {
        return refuse("the query must be `range` alone");
    };
    let word = range.as_deref().unwrap_or(HistoryRange::Hour.as_str());
    let Some(range) = HistoryRange::from_word(word) else {
        return refuse(format!("{:?} is no range", truncate(word)));
    };
    let now = state.proxy.clock.wall();
    // The lock ends before anything is written as JSON.
    let view = state.proxy.history.lock().view(range, now);
    json_response(StatusCode::OK, &HistoryAnswer { started_ms: state.started.0, view })
}

fn refuse(error: impl Into<String>) -> Response {
    let ranges: Vec<String> =
        HistoryRange::ALL.iter().map(|range| format!("/history?range={range}")).collect();
    ApiError::bad_request(error, format!("write {}", ranges.join(", "))).into_response()
}
