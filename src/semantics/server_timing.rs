//! `Server-Timing` of responses (W3C Server Timing): how the cache answered, and how long it and
//! the origin took. Browsers show it beside each request.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::outcome::Outcome;

/// The field.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds a line. `duration` is the time to the head of the response; what the origin took of it is a
/// metric of its own, and not in that of the cache. Lines of the origin stay.
pub fn add(headers: &mut HeaderMap, outcome: &Outcome, duration: Duration) {
    let app = outcome.origin.as_ref().and_then(|call| call.took);
    let own = duration.saturating_sub(app.unwrap_or_default());
    let cache = format!("cache;desc={};dur={:.3}", outcome.disposition.as_str(), milliseconds(own));
    let line = match app {
        None => cache,
        Some(app) => format!("{cache}, app;dur={:.3}", milliseconds(app)),
    };
    if let Ok(value) = HeaderValue::try_from(line) {
        headers.append(SERVER_TIMING, value);
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::outcome::{Disposition, OriginCall, Reason};

    fn lines(outcome: &Outcome, before: Option<&'static str>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        if let Some(before) = before {
            headers.insert(SERVER_TIMING, HeaderValue::from_static(before));
        }
        add(&mut headers, outcome, Duration::from_micros(12_500));
        let lines = headers.get_all(SERVER_TIMING).iter();
        lines.map(|line| line.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn a_hit_is_the_cache_alone() {
        let outcome = Outcome::new(Disposition::Hit);
        assert_eq!(lines(&outcome, None), ["cache;desc=HIT;dur=12.500"]);
    }

    #[test]
    fn what_the_origin_took_is_told_apart_and_its_own_lines_stay() {
        let call = OriginCall { took: Some(Duration::from_millis(12)), ..OriginCall::default() };
        let outcome = Outcome { origin: Some(Arc::new(call)), ..Outcome::miss(Reason::NotStored) };
        assert_eq!(
            lines(&outcome, Some("db;dur=7")),
            ["db;dur=7", "cache;desc=MISS;dur=0.500, app;dur=12.000"]
        );
    }

    #[test]
    fn an_origin_that_took_longer_than_the_request_leaves_nothing_to_the_cache() {
        let call = OriginCall { took: Some(Duration::from_secs(1)), ..OriginCall::default() };
        let outcome = Outcome { origin: Some(Arc::new(call)), ..Outcome::bypass(Reason::NoRoute) };
        assert_eq!(lines(&outcome, None), ["cache;desc=BYPASS;dur=0.000, app;dur=1000.000"]);
    }
}
