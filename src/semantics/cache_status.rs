//! `X-Cache` and `Cache-Status` (RFC 9211): what a response says of how it came to be.
//!
//! Owns both lines, and which fields of a stored head are filled in for each hit.

use std::cell::RefCell;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{AGE, HeaderMap, HeaderName, HeaderValue};

use crate::outcome::{Disposition, Outcome, Reason, Tier};
use crate::semantics::recent_values::RecentValues;

/// `X-Cache`: one word that says what happened.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// `Cache-Status` (RFC 9211): the same in full.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Whether a field of a prepared head belongs to the response. The others are placeholders that
/// each hit fills in.
pub(crate) fn is_own(name: &HeaderName, value: &HeaderValue) -> bool {
    !(*name == AGE || *name == X_CACHE || (*name == CACHE_STATUS && value.is_empty()))
}

/// The line of a stored response. `upstream` is the `Cache-Status` that was stored with it.
pub(crate) fn stored_status(upstream: Option<&HeaderValue>, outcome: &Outcome) -> HeaderValue {
    match outcome.disposition {
        Disposition::Hit => hit_status(upstream, outcome),
        _ => appended_status(upstream, outcome),
    }
}

/// Sets `X-Cache` in the head of a stored response, in which it is `HIT`.
pub(crate) fn set_stored_word(headers: &mut HeaderMap, outcome: &Outcome) {
    if outcome.disposition != Disposition::Hit {
        headers.insert(X_CACHE, HeaderValue::from_static(outcome.disposition.as_str()));
    }
}

/// Marks a response of the origin. What the origin, or another cache before it, says in
/// `Cache-Status` stays in front.
pub fn set_cache_status(headers: &mut HeaderMap, outcome: &Outcome) {
    let status = bypass_status(outcome).unwrap_or_else(|| appended_status(None, outcome));
    headers.append(CACHE_STATUS, status);
    headers.insert(X_CACHE, HeaderValue::from_static(outcome.disposition.as_str()));
}

/// Adds the key to the sidecar's own line of `Cache-Status` (RFC 9211 2.7).
pub fn set_cache_key_header(headers: &mut HeaderMap, key: &str) {
    if let Some(own) = take_own_cache_status(headers) {
        headers.append(
            CACHE_STATUS,
            value(Bytes::from([own.as_bytes(), b"; key=\"", key.as_bytes(), b"\""].concat())),
        );
    }
}

/// Removes the last line of `Cache-Status`, which is the sidecar's own: it is the nearest to the
/// client (RFC 9211 2).
fn take_own_cache_status(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut lines: Vec<HeaderValue> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
    let own = lines.pop();
    headers.remove(CACHE_STATUS);
    for line in lines {
        headers.append(CACHE_STATUS, line);
    }
    own
}

/// The most frequent line, written without the formatting machinery: `sidecache; hit; ttl=243;
/// detail=memory`.
fn hit_status(upstream: Option<&HeaderValue>, outcome: &Outcome) -> HeaderValue {
    let upstream = upstream.filter(|value| !value.is_empty());
    let (Some(tier), Some(ttl), None) = (outcome.tier, outcome.ttl, upstream) else {
        return appended_status(upstream, outcome);
    };
    HIT_LINES.with_borrow_mut(|lines| {
        lines.get(ttl, (ttl, Some(tier)), || {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(ttl).as_bytes();
            let (start, middle) = (b"sidecache; hit; ttl=", b"; detail=");
            let line = [&start[..], digits, middle, tier.as_str().as_bytes()].concat();
            value(Bytes::from(line))
        })
    })
}

/// The value of `Age`.
pub(crate) fn age(seconds: u64) -> HeaderValue {
    let Ok(known_by) = i64::try_from(seconds) else { return HeaderValue::from(seconds) };
    AGES.with_borrow_mut(|ages| ages.get(known_by, (known_by, None), || HeaderValue::from(seconds)))
}

/// The line of a request that passes for a reason without a subject.
fn bypass_status(outcome: &Outcome) -> Option<HeaderValue> {
    let &Outcome { reason: Some(reason), fwd_status: Some(status), .. } = outcome else {
        return None;
    };
    // Every field of it is named, so that none can be added that the line shows and this forgets.
    let Outcome {
        disposition: Disposition::Bypass,
        reason: _,
        subject: None,
        tier: None,
        ttl: None,
        fwd_status: _,
        fwd_reason: _,
        forwarded: _,
        stored: false,
        collapsed: false,
        date_skew: 0,
        saved: _,
        origin: _,
    } = outcome
    else {
        return None;
    };
    let number = i64::from(reason as u8) << 16 | i64::from(status);
    Some(BYPASS_LINES.with_borrow_mut(|lines| {
        lines.get(number, (number, None), || appended_status(None, outcome))
    }))
}

/// The number in a value, and the tier where the value names it.
type ValueKey = (i64, Option<Tier>);

type Lines = RefCell<RecentValues<ValueKey>>;

thread_local! {
    static BYPASS_LINES: Lines = const { RefCell::new(RecentValues::new()) };
    static HIT_LINES: Lines = const { RefCell::new(RecentValues::new()) };
    static AGES: Lines = const { RefCell::new(RecentValues::new()) };
}

fn appended_status(upstream: Option<&HeaderValue>, outcome: &Outcome) -> HeaderValue {
    let mut line = String::with_capacity(96);
    if let Some(upstream) =
        upstream.filter(|value| !value.is_empty()).and_then(|value| value.to_str().ok())
    {
        line.push_str(upstream);
        line.push_str(", ");
    }
    line.push_str("sidecache");
    match outcome.disposition {
        Disposition::Hit => line.push_str("; hit"),
        // RFC 9211 2.1, 2.2: `hit` only where the origin was not asked.
        Disposition::Stale => {
            line.push_str(if outcome.forwarded { "; fwd=stale" } else { "; hit" });
        }
        Disposition::Revalidated | Disposition::Miss => {
            line.push_str(match outcome.fwd_reason.or(outcome.reason) {
                Some(Reason::Expired | Reason::StaleWhileRevalidate) => "; fwd=stale",
                Some(Reason::VaryMiss) => "; fwd=vary-miss",
                Some(Reason::RequestNoCache) => "; fwd=request",
                Some(Reason::NotAdmitted | Reason::CredentialUnconfirmed | Reason::Purged) => {
                    "; fwd=miss"
                }
                _ => "; fwd=uri-miss",
            });
        }
        Disposition::Bypass => line.push_str(match outcome.reason {
            Some(Reason::Method | Reason::MethodOverride | Reason::DeclaredWrite) => "; fwd=method",
            Some(Reason::RequestNoStore) => "; fwd=request",
            _ => "; fwd=bypass",
        }),
    }
    if let Some(status) = outcome.fwd_status {
        let _ = write!(line, "; fwd-status={status}");
    }
    if let Some(ttl) = outcome.ttl {
        let _ = write!(line, "; ttl={ttl}");
    }
    if outcome.stored {
        line.push_str("; stored");
    }
    if outcome.collapsed {
        line.push_str("; collapsed");
    }
    match (outcome.tier, outcome.detail()) {
        (Some(tier), None) => {
            let _ = write!(line, "; detail={}", tier.as_str());
        }
        (_, Some(detail)) => {
            line.push_str("; detail=\"");
            // What may stand in a string of RFC 9651; header and field names need no more.
            line.extend(detail.to_string().chars().map(|c| {
                if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' }
            }));
            line.push('"');
        }
        (None, None) => {}
    }
    value(Bytes::from(line))
}

fn value(line: Bytes) -> HeaderValue {
    // Made of visible ASCII above; the fallback keeps a mistake there from becoming a panic.
    HeaderValue::from_maybe_shared(line).unwrap_or_else(|_| HeaderValue::from_static("sidecache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(outcome: &Outcome) -> String {
        let mut headers = HeaderMap::new();
        set_cache_status(&mut headers, outcome);
        headers[CACHE_STATUS].to_str().expect("ascii").to_owned()
    }

    #[test]
    fn every_outcome_is_a_line_of_rfc_9211() {
        assert_eq!(
            status(&Outcome::bypass(Reason::NoRoute)),
            "sidecache; fwd=bypass; detail=\"no route\""
        );
        assert_eq!(
            status(&Outcome::bypass_with(Reason::UnkeyedHeader, "x-account-id")),
            "sidecache; fwd=bypass; detail=\"unkeyed header x-account-id\""
        );
        assert_eq!(
            status(&Outcome::bypass(Reason::Method)),
            "sidecache; fwd=method; detail=\"method\""
        );
        let miss = Outcome {
            stored: true,
            fwd_status: Some(200),
            ttl: Some(300),
            ..Outcome::miss(Reason::NotStored)
        };
        assert_eq!(
            status(&miss),
            "sidecache; fwd=uri-miss; fwd-status=200; ttl=300; stored; detail=\"not stored\""
        );
        assert_eq!(
            status(&Outcome::bypass_with(Reason::MissingField, "a\"\n\\b")),
            "sidecache; fwd=bypass; detail=\"missing field a???b\""
        );
    }

    #[test]
    fn r1331_what_a_thread_has_written_before_is_what_it_would_write() {
        let hit = |tier, ttl| {
            let outcome =
                Outcome { tier: Some(tier), ttl: Some(ttl), ..Outcome::new(Disposition::Hit) };
            hit_status(None, &outcome).to_str().expect("ascii").to_owned()
        };
        // Those that share a place take it from each other, again and again.
        for _ in 0..3 {
            for ttl in [0, 7, 7 + 64, 7 - 64, -1, 63, i64::MAX, i64::MIN, 7] {
                for tier in [Tier::Memory, Tier::Redis] {
                    let expected = format!("sidecache; hit; ttl={ttl}; detail={}", tier.as_str());
                    assert_eq!(hit(tier, ttl), expected);
                }
            }
            for seconds in [0, 5, 5 + 64, u64::MAX, 5] {
                assert_eq!(age(seconds), seconds.to_string());
            }
            for reason in Reason::ALL {
                for status in [200, 264, 404] {
                    let passed = Outcome { fwd_status: Some(status), ..Outcome::bypass(*reason) };
                    let line = bypass_status(&passed).expect("it has no subject");
                    assert_eq!(line, appended_status(None, &passed));
                }
            }
        }
    }
}
