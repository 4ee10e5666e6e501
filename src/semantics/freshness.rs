//! How old a response is and how long it is fresh (RFC 9111 4.2), and the dates from which both are
//! computed.
//!
//! Pure arithmetic in whole milliseconds: `now` is an argument, and nothing overflows. A doubtful
//! field makes a response older or staler, never younger or fresher. Whether a response may be
//! stored at all is decided in `storability`.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, HeaderMap, HeaderValue, LAST_MODIFIED};

use crate::clock::{Wall, millis};
use crate::semantics::cache_control::{CacheControl, delta_seconds};

/// The longest freshness lifetime, whatever its source: one year.
pub const MAX_LIFETIME: Duration = Duration::from_hours(8760);

/// The longest heuristic freshness lifetime: one day.
pub const MAX_HEURISTIC: Duration = Duration::from_hours(24);

/// How many seconds the clocks of the origin and of this machine may differ before it is told.
const MAX_DATE_SKEW: i64 = 2;

/// The longest HTTP-date: `Wednesday, 09-Nov-94 08:49:37 GMT`.
const LONGEST_DATE: usize = 33;

/// Parses an HTTP-date in any of its three forms (RFC 9110 5.6.7). Unusual letter case is accepted;
/// anything else that is not a date is `None`.
#[must_use]
pub fn parse_date(value: &HeaderValue) -> Option<Wall> {
    let text = value.to_str().ok()?;
    let time = match httpdate::parse_http_date(text) {
        Ok(time) => time,
        Err(_) => httpdate::parse_http_date(&recased(text)?).ok()?,
    };
    time.duration_since(UNIX_EPOCH).ok().map(|since| Wall(millis(since)))
}

/// The same date with its names in the letter case of the grammar: `sun, 06 NOV 1994 08:49:37 gmt`
/// becomes `Sun, 06 Nov 1994 08:49:37 GMT`.
fn recased(text: &str) -> Option<String> {
    if text.len() > LONGEST_DATE {
        return None;
    }
    let mut inside_word = false;
    let mut names: String = text
        .chars()
        .map(|letter| {
            let first = !std::mem::replace(&mut inside_word, letter.is_ascii_alphabetic());
            if first { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
        })
        .collect();
    if let Some(start) = names.strip_suffix("Gmt").map(str::len) {
        names.replace_range(start.., "GMT");
    }
    Some(names)
}

/// The earliest and the latest of a message's valid `Date` lines. There should be one; if there are
/// more, each caller uses the stricter one.
fn dates(response: &HeaderMap) -> Option<(Wall, Wall)> {
    response.get_all(DATE).iter().filter_map(parse_date).fold(None, |range, date| match range {
        None => Some((date, date)),
        Some((earliest, latest)) => Some((date.min(earliest), date.max(latest))),
    })
}

/// The value of `Age`: its first valid member (RFC 9111 5.1). Parameters are dropped; a field
/// without a valid member is ignored.
fn age_value(response: &HeaderMap) -> Duration {
    let members =
        response.get_all(AGE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut values = members.filter_map(|member| {
        let number = member.split(|byte| *byte == b';').next().unwrap_or_default();
        delta_seconds(number.trim_ascii())
    });
    values.next().unwrap_or_default()
}

/// The corrected initial age of a response (RFC 9111 4.2.3): its age when its head arrived.
/// `dated` is the time of its arrival by the clock that dates are compared with.
#[must_use]
pub fn initial_age(response: &HeaderMap, requested: Wall, received: Wall, dated: Wall) -> Duration {
    // In whole seconds: `Date` has no fractions, and half a second of rounding is not age.
    let apparent = dates(response)
        .map_or(0, |(earliest, _)| dated.seconds().saturating_sub(earliest.seconds()));
    let corrected = age_value(response).saturating_add(received.since(requested));
    corrected.max(Duration::from_secs(apparent))
}

/// How many seconds a response's `Date` is ahead of this clock; negative where it is behind. Zero
/// if they agree, or if there is no `Date`. What the response says of its age, and the time that it
/// took to arrive, explain a `Date` in the past.
#[must_use]
pub fn date_skew(response: &HeaderMap, on_the_way: Duration, dated: Wall) -> i64 {
    let Some((earliest, latest)) = dates(response) else { return 0 };
    let clock = i64::try_from(dated.seconds()).unwrap_or(i64::MAX);
    let against = |date: Wall| i64::try_from(date.seconds()).unwrap_or(i64::MAX) - clock;
    let explained = age_value(response).saturating_add(on_the_way).as_secs();
    let behind = against(earliest).saturating_add_unsigned(explained);
    match (against(latest), behind) {
        (ahead, _) if ahead > MAX_DATE_SKEW => ahead,
        (_, behind) if behind < -MAX_DATE_SKEW => behind,
        _ => 0,
    }
}

/// The freshness lifetime that a response states (RFC 9111 4.2.1, for a shared cache), or `None` if
/// it states none. At most [`MAX_LIFETIME`].
#[must_use]
pub fn lifetime(
    directives: &CacheControl,
    response: &HeaderMap,
    received: Wall,
) -> Option<Duration> {
    stated(directives)
        .or_else(|| expires_lifetime(response, received).map(|lifetime| lifetime.min(MAX_LIFETIME)))
}

/// The freshness lifetime that directives state, for a shared cache. At most [`MAX_LIFETIME`].
#[must_use]
pub fn stated(directives: &CacheControl) -> Option<Duration> {
    directives.s_maxage.or(directives.max_age).map(|lifetime| lifetime.min(MAX_LIFETIME))
}

/// `Expires` minus `Date`, or minus the time of arrival if there is no `Date` (RFC 9110 6.6.1).
fn expires_lifetime(response: &HeaderMap, received: Wall) -> Option<Duration> {
    let mut lines = response.get_all(EXPIRES).iter();
    let first = lines.next()?;
    // RFC 9111 4.2.1: a repeated field makes the response stale. 5.3: a value that is not a date,
    // especially `0`, is a time in the past.
    if lines.next().is_some() {
        return Some(Duration::ZERO);
    }
    let Some(expires) = parse_date(first) else { return Some(Duration::ZERO) };
    let generated = dates(response).map_or(received, |(_, latest)| latest);
    Some(expires.since(generated))
}

/// The heuristic lifetime of a response that states none (RFC 9111 4.2.2): a tenth of the time
/// since it was last modified, at most [`MAX_HEURISTIC`]. `None` if there is no usable
/// `Last-Modified`, or if the status forbids a heuristic.
///
/// Call it only if [`lifetime`] is `None`: the RFC forbids a heuristic for a response that states a
/// lifetime. `directives` are those that apply to this cache, from a targeted field if there is
/// one: `public` allows a heuristic for any status (RFC 9111 3 and 4.2.2) except 206, 304 and
/// interim responses.
#[must_use]
pub fn heuristic(
    status: StatusCode,
    directives: &CacheControl,
    response: &HeaderMap,
    received: Wall,
) -> Option<Duration> {
    let whole = !status.is_informational()
        && !matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    let allowed = is_heuristically_cacheable(status) || (directives.public && whole);
    if !allowed {
        return None;
    }
    let mut lines = response.get_all(LAST_MODIFIED).iter();
    let modified = lines.next().and_then(parse_date)?;
    if lines.next().is_some() {
        return None;
    }
    // A `Date` in the future would lengthen the interval: the origin's clock is wrong, or it wants
    // a longer lifetime.
    let generated = dates(response).map_or(received, |(earliest, _)| earliest.min(received));
    let unchanged = generated.seconds().checked_sub(modified.seconds())?;
    Some((Duration::from_secs(unchanged) / 10).min(MAX_HEURISTIC))
}

/// Whether responses of this status may have a heuristic lifetime (RFC 9110 15.1). The RFC lists
/// 206 too, but partial content is never stored.
#[must_use]
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    /// `Sun, 06 Nov 1994 08:49:37 GMT`, the RFC's own example.
    const EXAMPLE: Wall = Wall(784_111_777_000);

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    fn date(at: Wall) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.seconds()))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn dates_of_all_three_forms_and_odd_case_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "SUN, 06 nov 1994 08:49:37 gMt",
            "sunday, 06-NOV-94 08:49:37 gmt",
            "sun NOV  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(&HeaderValue::from_static(text)), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_none() {
        for text in [
            "0",
            "-1",
            "",
            "never",
            "784111777",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Mon, 01 Jan 1900 00:00:00 GMT",
            "2050-08-18T02:01:18Z",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(parse_date(&HeaderValue::from_static(text)), None, "{text}");
        }
        assert_eq!(
            parse_date(&HeaderValue::from_bytes(b"Sun, 06 Nov 1994 08:49:37 GM\xff").unwrap()),
            None
        );
    }

    #[test]
    fn age_is_the_first_valid_member() {
        let cases = [
            (&["7200"][..], 7200),
            (&["0, 7200"], 0),
            (&["7200, 0"], 7200),
            (&["7200", "0"], 7200),
            (&["abc, 100"], 100),
            (&["abc", "100"], 100),
            (&["7200;foo=bar"], 7200),
            (&[" 007 "], 7),
            (&["abc"], 0),
            (&["-7200"], 0),
            (&["7200.0"], 0),
            (&[""], 0),
            (&[], 0),
            (&["2147483649"], 1 << 31),
            (&["99999999999999999999999999999"], 1 << 31),
        ];
        for (lines, expected) in cases {
            let fields: Vec<_> = lines.iter().map(|line| (AGE, *line)).collect();
            assert_eq!(age_value(&headers(&fields)), secs(expected), "{lines:?}");
        }
    }

    #[test]
    fn initial_age_is_the_greater_of_apparent_and_corrected() {
        let received = Wall(EXAMPLE.0 + 10_900);
        let dated = date(EXAMPLE);
        // Ten seconds by Date; the fraction is not age.
        assert_eq!(
            initial_age(&headers(&[(DATE, &dated)]), received, received, received),
            secs(10)
        );
        // Age and the response's delay add up.
        let requested = Wall(received.0 - 2_500);
        assert_eq!(
            initial_age(&headers(&[(DATE, &dated), (AGE, "9")]), requested, received, received),
            Duration::from_millis(11_500)
        );
        assert_eq!(
            initial_age(&headers(&[(AGE, "3")]), requested, received, received),
            Duration::from_millis(5_500)
        );
        // An origin whose clock is ahead, an invalid date, a clock that went back during the
        // request.
        assert_eq!(
            initial_age(
                &headers(&[(DATE, &date(Wall(EXAMPLE.0 + 99_000)))]),
                received,
                received,
                received
            ),
            secs(0)
        );
        assert_eq!(
            initial_age(&headers(&[(DATE, "yesterday")]), received, received, received),
            secs(0)
        );
        assert_eq!(
            initial_age(&headers(&[]), Wall(received.0 + 5_000), received, received),
            secs(0)
        );
        // The oldest of several dates counts.
        let newer = date(Wall(EXAMPLE.0 + 8_000));
        assert_eq!(
            initial_age(&headers(&[(DATE, &newer), (DATE, &dated)]), received, received, received),
            secs(10)
        );
    }

    #[test]
    fn lifetime_prefers_s_maxage_then_max_age_then_expires() {
        use http::header::CACHE_CONTROL;
        let (now, later) = (date(EXAMPLE), date(Wall(EXAMPLE.0 + 100_000)));
        let cases = [
            (vec![(CACHE_CONTROL, "max-age=5, s-maxage=7"), (EXPIRES, &later)], Some(7)),
            (vec![(CACHE_CONTROL, "s-maxage=x, max-age=5")], Some(0)),
            (vec![(CACHE_CONTROL, "max-age=5"), (EXPIRES, &later)], Some(5)),
            (vec![(CACHE_CONTROL, "max-age=5"), (EXPIRES, "0")], Some(5)),
            (vec![(CACHE_CONTROL, "max-age=0"), (EXPIRES, &later)], Some(0)),
            (vec![(CACHE_CONTROL, "max-age=9999999999")], Some(MAX_LIFETIME.as_secs())),
            (vec![(EXPIRES, &later), (DATE, &now)], Some(100)),
            (vec![(EXPIRES, &later)], Some(90)),
            (vec![(EXPIRES, &later), (DATE, "no date")], Some(90)),
            (vec![(EXPIRES, &now), (DATE, &later)], Some(0)),
            (vec![(EXPIRES, &later), (DATE, &now), (DATE, &later)], Some(0)),
            (vec![(EXPIRES, "0"), (DATE, &now)], Some(0)),
            (vec![(EXPIRES, &later), (EXPIRES, &later), (DATE, &now)], Some(0)),
            (vec![(CACHE_CONTROL, "public"), (DATE, &now)], None),
            (vec![], None),
        ];
        for (fields, expected) in cases {
            let response = headers(
                &fields.iter().map(|(name, value)| (name.clone(), &**value)).collect::<Vec<_>>(),
            );
            let found = lifetime(
                &CacheControl::from_headers(&response),
                &response,
                Wall(EXAMPLE.0 + 10_000),
            );
            assert_eq!(found, expected.map(secs), "{fields:?}");
        }
    }

    const GUESSABLE: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

    /// The heuristic lifetime of a 200 that arrived at [`EXAMPLE`].
    fn guess(fields: &[(HeaderName, &str)]) -> Option<Duration> {
        heuristic(StatusCode::OK, &CacheControl::default(), &headers(fields), EXAMPLE)
    }

    #[test]
    fn rfc_9111_4_2_2_a_guess_is_a_tenth_of_the_time_since_the_last_change_up_to_a_day() {
        let ago = |seconds: u64| date(Wall(EXAMPLE.0 - seconds * 1000));
        for (seconds, expected) in [
            (0, 0),
            (5, 500),
            (600, 60_000),
            (86_400, 8_640_000),
            (864_000, 86_400_000),
            (9_999_999, 86_400_000),
        ] {
            let fields = [(LAST_MODIFIED, &*ago(seconds)), (DATE, &*ago(0))];
            assert_eq!(guess(&fields), Some(Duration::from_millis(expected)), "{seconds}");
            assert_eq!(
                guess(&fields[..1]),
                Some(Duration::from_millis(expected)),
                "without a Date: {seconds}"
            );
        }
        // Counted from Date, or from the earliest of several, but not from a date in the future.
        assert_eq!(guess(&[(LAST_MODIFIED, &ago(600)), (DATE, &ago(500))]), Some(secs(10)));
        assert_eq!(
            guess(&[(LAST_MODIFIED, &ago(600)), (DATE, &ago(100)), (DATE, &ago(500))]),
            Some(secs(10))
        );
        let ahead = date(Wall(EXAMPLE.0 + 86_400_000));
        assert_eq!(guess(&[(LAST_MODIFIED, &ago(600)), (DATE, &ahead)]), Some(secs(60)));
        assert_eq!(guess(&[(LAST_MODIFIED, &ago(600)), (DATE, "today")]), Some(secs(60)));
    }

    #[test]
    fn rfc_9111_4_2_2_there_is_no_guess_without_one_valid_last_modified_of_the_past() {
        let (now, later) = (date(EXAMPLE), date(Wall(EXAMPLE.0 + 1_000)));
        for fields in [
            vec![],
            vec![(DATE, &*now)],
            vec![(LAST_MODIFIED, "yesterday")],
            vec![(LAST_MODIFIED, "0"), (DATE, &now)],
            vec![(LAST_MODIFIED, &*later)],
            vec![(LAST_MODIFIED, &*later), (DATE, &now)],
            vec![(LAST_MODIFIED, &*later), (DATE, &later)],
            vec![
                (LAST_MODIFIED, "Sat, 01 Jan 1994 00:00:00 GMT"),
                (LAST_MODIFIED, "Sat, 01 Jan 1994 00:00:00 GMT"),
            ],
        ] {
            assert_eq!(guess(&fields), None, "{fields:?}");
        }
    }

    #[test]
    fn rfc_9110_15_1_only_some_statuses_are_guessed_at_unless_the_response_says_public() {
        let response =
            headers(&[(LAST_MODIFIED, "Sat, 05 Nov 1994 08:49:37 GMT"), (DATE, &date(EXAMPLE))]);
        let public = CacheControl { public: true, ..CacheControl::default() };
        for code in 100..=599 {
            let status = StatusCode::from_u16(code).unwrap();
            let guessable = GUESSABLE.contains(&code);
            assert_eq!(is_heuristically_cacheable(status), guessable, "{code}");
            let expected = guessable.then_some(secs(8_640));
            assert_eq!(
                heuristic(status, &CacheControl::default(), &response, EXAMPLE),
                expected,
                "{code}"
            );
            let expected = (code >= 200 && code != 206 && code != 304).then_some(secs(8_640));
            assert_eq!(heuristic(status, &public, &response, EXAMPLE), expected, "public {code}");
        }
    }

    proptest! {
        #[test]
        fn dates_never_panic_and_formatted_ones_round_trip(
            bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0_u64..253_402_300_800,
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = parse_date(&value);
            }
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at));
            let scrambled = [text.to_lowercase(), text.to_uppercase(), text];
            for text in scrambled {
                prop_assert_eq!(
                    parse_date(&HeaderValue::from_str(&text).unwrap()),
                    Some(Wall(at * 1000))
                );
            }
        }

        #[test]
        fn a_guess_is_bounded_and_a_later_change_never_lengthens_it(
            code in 100_u16..1000,
            public: bool,
            received in any::<u64>(),
            at in 0_u64..253_402_300_800,
            modified in 0_u64..253_402_300_800, by in 0_u64..1_000_000,
        ) {
            let directives = CacheControl { public, ..CacheControl::default() };
            let guess = |modified: u64| {
                let modified = date(Wall(modified.min(253_402_300_799) * 1000));
                let response =
                    headers(&[(LAST_MODIFIED, &modified), (DATE, &date(Wall(at * 1000)))]);
                heuristic(
                    StatusCode::from_u16(code).unwrap(),
                    &directives,
                    &response,
                    Wall(received),
                )
            };
            let (before, after) = (guess(modified), guess(modified + by));
            prop_assert!(before.unwrap_or_default() <= MAX_HEURISTIC);
            prop_assert!(before.is_none_or(|before| before <= secs(at.saturating_sub(modified))));
            prop_assert!(after <= before, "{after:?} {before:?}");
        }

        #[test]
        fn initial_age_covers_age_delay_and_date(
            age in any::<u64>(),
            at in 0_u64..253_402_300_800,
            requested in any::<u64>(),
            received in any::<u64>(),
        ) {
            let response = headers(&[(AGE, &age.to_string()), (DATE, &date(Wall(at * 1000)))]);
            let found = initial_age(&response, Wall(requested), Wall(received), Wall(received));
            prop_assert!(found >= secs(age.min(1 << 31)));
            prop_assert!(found >= Wall(received).since(Wall(requested)));
            prop_assert!(found >= secs((received / 1000).saturating_sub(at)));
            prop_assert!(lifetime(&CacheControl::default(), &response, Wall(received)).is_none());
        }
    }
}
