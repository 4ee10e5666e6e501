//! `expires_at` of a route: a time of day at which everything that is stored ends, because a job
//! makes it anew.
//!
//! - It counts from when the request was sent: what was asked for before that time may be of before
//!   it, even if it arrives afterwards.
//! - It only shortens. What ends earlier ends earlier.
//! - Stale responses end there, too, unless `stale_if_error` asks for them: one that is served
//!   while it is refreshed would be yesterday's.
//! - Clients are told no more: a browser that may use a response for a day would show it past that
//!   time.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{AGE, CACHE_CONTROL, EXPIRES, HeaderMap, HeaderName, HeaderValue};

use crate::clock::{Wall, millis};
use crate::error::Malformed;
use crate::semantics::freshness;
use crate::semantics::times::{Leeway, Times};

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u16 = 24 * 60;

/// The furthest that a place is ahead of UTC, or behind it, in minutes.
const MAX_OFFSET: u16 = 14 * 60;

/// A time of day, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyEnd {
    /// By UTC.
    utc: u16,
    /// How far the place is ahead of UTC whose time the operator wrote.
    ahead: i16,
}

/// As it stands in `proxy.toml`: `03:00`, `03:00+01:00`.
impl fmt::Display for DailyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = i32::from(DAY_MINUTES);
        let there = (i32::from(self.utc) + i32::from(self.ahead)).rem_euclid(day);
        write!(f, "{:02}:{:02}", there / 60, there % 60)?;
        if self.ahead == 0 {
            return Ok(());
        }
        let (sign, ahead) = (if self.ahead < 0 { '-' } else { '+' }, self.ahead.unsigned_abs());
        write!(f, "{sign}{:02}:{:02}", ahead / 60, ahead % 60)
    }
}

impl DailyEnd {
    /// Reads `03:00` by UTC, or `03:00+01:00`.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (time, zone) = text.split_at_checked(5).unwrap_or((text, ""));
        let Some(there) = minutes(time, DAY_MINUTES - 1) else {
            let hint = "write hours and minutes from \"00:00\" to \"23:59\", as in \"03:00\"";
            return Err(Malformed::new(format!("`{text}` does not begin with a time"), hint));
        };
        let ahead = match zone {
            "" | "Z" => 0,
            _ => {
                let sign = zone.as_bytes().first();
                let offset = zone.get(1..).and_then(|offset| minutes(offset, MAX_OFFSET));
                match (sign, offset) {
                    (Some(b'+'), Some(offset)) => i32::from(offset),
                    (Some(b'-'), Some(offset)) => -i32::from(offset),
                    _ => return Err(no_offset(text, zone)),
                }
            }
        };
        let utc = (i32::from(there) - ahead).rem_euclid(i32::from(DAY_MINUTES));
        // Both are below a day.
        let (utc, ahead) = (u16::try_from(utc), i16::try_from(ahead));
        Ok(Self { utc: utc.unwrap_or_default(), ahead: ahead.unwrap_or_default() })
    }

    /// The first such time after this one.
    #[must_use]
    pub fn next(self, after: Wall) -> Wall {
        let day = u64::from(DAY_MINUTES) * MINUTE_MS;
        let end = u64::from(self.utc) * MINUTE_MS;
        let passed = (after.0 % day + day - end) % day;
        Wall(after.0.saturating_add(day - passed))
    }

    /// When a response ends that was requested at this time.
    fn left(self, requested: Wall, now: Wall) -> Duration {
        self.next(requested).since(now)
    }

    /// Whether nothing that is fetched now would be fresh for longer than what ends in `ttl_ms`.
    #[must_use]
    pub fn ends_with(self, ttl_ms: i64, now: Wall) -> bool {
        let left = i64::try_from(millis(self.left(now, now))).unwrap_or(i64::MAX);
        // Times are counted by two clocks, and in whole seconds by origins.
        left <= ttl_ms.saturating_add(1000)
    }

    /// Shortens the times of a response that was requested and has arrived at these times, by the
    /// clock of dates.
    pub(super) fn shorten(
        self,
        (requested, arrived): (Wall, Wall),
        times: &mut Times,
        leeway: &mut Leeway,
    ) {
        let left = self.left(requested, arrived);
        times.lifetime = times.lifetime.min(times.initial_age.saturating_add(left));
        let fresh_for = times.lifetime.saturating_sub(times.initial_age);
        let stale_for = left.saturating_sub(fresh_for);
        leeway.while_revalidate = leeway.while_revalidate.min(stale_for);
        if leeway.if_error.is_zero() {
            // Nobody has asked for it.
            leeway.unreachable = leeway.unreachable.min(stale_for);
        }
    }

    /// Tells clients no more than that a response is fresh until then. `is_fresh`: the cache's own
    /// copy is. `targeted`: the headers for caches that count as `Cache-Control` does.
    pub fn tell(self, headers: &mut HeaderMap, is_fresh: bool, targeted: &[HeaderName], now: Wall) {
        let end = if is_fresh { self.next(now) } else { now };
        // RFC 9111 4.2: clients take the age off.
        let age: u64 = headers
            .get(AGE)
            .and_then(|age| age.to_str().ok()?.trim().parse().ok())
            .unwrap_or_default();
        let most = age.saturating_add(end.since(now).as_secs());
        for name in [&CACHE_CONTROL].into_iter().chain(targeted) {
            if headers.get_all(name).iter().any(|line| is_longer(line, most)) {
                let lines: Vec<HeaderValue> =
                    headers.get_all(name).iter().map(|line| shortened(line, most)).collect();
                headers.remove(name);
                for line in lines {
                    headers.append(name, line);
                }
            }
        }
        let expires = headers.get(EXPIRES).and_then(freshness::parse_date);
        if expires.is_some_and(|expires| expires > end) {
            let date = UNIX_EPOCH + Duration::from_secs(end.seconds());
            let date = HeaderValue::try_from(httpdate::fmt_http_date(date));
            headers.insert(EXPIRES, date.unwrap_or(HeaderValue::from_static("0")));
        }
    }
}

/// The minutes of `HH:MM`, at most so many.
fn minutes(text: &str, most: u16) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let minutes = two(minutes).filter(|minutes| *minutes < 60)?;
    Some(two(hours)? * 60 + minutes).filter(|minutes| *minutes <= most)
}

fn no_offset(text: &str, zone: &str) -> Malformed {
    let is_name =
        zone.trim_start_matches([' ', '[']).starts_with(|c: char| c.is_ascii_alphabetic());
    if is_name {
        let hint = "the sidecar does not know when zones change their clocks: write the offset \
                    from UTC, as in \"03:00+01:00\"";
        return Malformed::new(format!("`{text}` names a time zone"), hint);
    }
    let hint = "write it as \"03:00\" by UTC, or with an offset of up to 14 hours: \"03:00+01:00\"";
    Malformed::new(format!("`{text}` does not end in an offset from UTC"), hint)
}

/// The name and the number of a directive that says how long a response is fresh.
fn lifetime_of(directive: &str) -> Option<(&str, u64)> {
    let (name, value) = directive.split_once('=')?;
    let name = name.trim();
    let counts = ["max-age", "s-maxage"].iter().any(|known| name.eq_ignore_ascii_case(known));
    let digits = value.trim().trim_matches('"');
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    // More digits than a number has: for ever.
    (counts && is_number).then(|| (name, digits.parse().unwrap_or(u64::MAX)))
}

fn is_longer(line: &HeaderValue, most: u64) -> bool {
    let text = line.to_str().unwrap_or_default();
    text.split(',').filter_map(lifetime_of).any(|(_, seconds)| seconds > most)
}

fn shortened(line: &HeaderValue, most: u64) -> HeaderValue {
    let Ok(text) = line.to_str() else { return line.clone() };
    let directives: Vec<String> = text
        .split(',')
        .map(|directive| match lifetime_of(directive) {
            Some((name, seconds)) if seconds > most => {
                let space = if directive.starts_with(' ') { " " } else { "" };
                format!("{space}{name}={most}")
            }
            _ => directive.to_owned(),
        })
        .collect();
    HeaderValue::try_from(directives.join(",")).unwrap_or_else(|_| line.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 60 * MINUTE_MS;
    const DAY: u64 = 24 * HOUR;

    fn end(text: &str) -> DailyEnd {
        DailyEnd::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_time_is_read_with_its_offset() {
        for (text, utc, shown) in [
            ("03:00", 180, "03:00"),
            ("00:00", 0, "00:00"),
            ("23:59Z", 1439, "23:59"),
            ("03:00+01:00", 120, "03:00+01:00"),
            ("00:30+05:45", 1125, "00:30+05:45"),
            ("23:00-08:00", 420, "23:00-08:00"),
            ("03:00+00:00", 180, "03:00"),
        ] {
            assert_eq!((end(text).utc, end(text).to_string()), (utc, shown.to_owned()), "{text}");
        }
        for (text, problem) in [
            ("", "does not begin with a time"),
            ("3:00", "does not begin with a time"),
            ("24:00", "does not begin with a time"),
            ("03:60", "does not begin with a time"),
            ("+3:00", "does not begin with a time"),
            ("0300", "does not begin with a time"),
            ("noon", "does not begin with a time"),
            ("03:00:00", "does not end in an offset"),
            ("03:00+1", "does not end in an offset"),
            ("03:00+15:00", "does not end in an offset"),
            ("03:00 ", "does not end in an offset"),
            ("03:00 Europe/Vienna", "names a time zone"),
            ("03:00 CET", "names a time zone"),
            ("03:00[Europe/Vienna]", "names a time zone"),
            ("03:\u{e9}0", "does not begin with a time"),
        ] {
            let found = DailyEnd::parse(text).expect_err(text);
            assert!(found.what.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn the_next_one_is_after_the_time_and_within_a_day() {
        let three = end("03:00");
        let day = 20_000 * DAY;
        for (after, next) in [
            (day, day + 3 * HOUR),
            (day + 3 * HOUR - 1, day + 3 * HOUR),
            (day + 3 * HOUR, day + DAY + 3 * HOUR),
            (day + 23 * HOUR, day + DAY + 3 * HOUR),
        ] {
            assert_eq!(three.next(Wall(after)), Wall(next), "{after}");
        }
        assert_eq!(end("01:00+02:00").next(Wall(day)), Wall(day + 23 * HOUR));
    }

    proptest! {
        #[test]
        fn the_next_one_is_such_a_time(after in 0..u64::MAX / 2, utc in 0..DAY_MINUTES) {
            let end = DailyEnd { utc, ahead: 0 };
            let next = end.next(Wall(after));
            prop_assert!(next.0 > after && next.0 - after <= DAY);
            prop_assert_eq!(next.0 % DAY, u64::from(utc) * MINUTE_MS);
        }
    }

    #[test]
    fn it_shortens_and_never_lengthens() {
        let day = 20_000 * DAY;
        let at = |hour: u64| Wall(day + hour * HOUR);
        let shorten = |(requested, arrived): (Wall, Wall), age: u64, ttl: u64, leeway: Leeway| {
            let (mut times, mut leeway) = (
                Times { received: Wall(5), initial_age: secs(age), lifetime: secs(age + ttl) },
                leeway,
            );
            end("03:00").shorten((requested, arrived), &mut times, &mut leeway);
            (times.lifetime.as_secs() - age.min(times.lifetime.as_secs()), leeway)
        };
        let leeway = |while_revalidate, if_error, unreachable| Leeway {
            while_revalidate: secs(while_revalidate),
            if_error: secs(if_error),
            unreachable: secs(unreachable),
            keep: secs(9),
        };
        let hour = 3600;
        let both = |time: Wall| (time, time);
        // Two hours are left.
        assert_eq!(shorten(both(at(1)), 7, 9 * hour, leeway(60, 0, 60)).0, 2 * hour);
        assert_eq!(shorten(both(at(1)), 7, 9 * hour, leeway(60, 0, 60)).1, leeway(0, 0, 0));
        assert_eq!(shorten(both(at(1)), 7, hour, leeway(60, 0, 60)), (hour, leeway(60, 0, 60)));
        let long = leeway(9 * hour, 0, 9 * hour);
        assert_eq!(shorten(both(at(1)), 0, hour, long), (hour, leeway(hour, 0, hour)));
        // `stale_if_error` asks for more.
        let asked = leeway(60, 300, 300);
        assert_eq!(shorten(both(at(1)), 0, 9 * hour, asked).1, leeway(0, 300, 300));
        // Asked for before, arrived afterwards: it may be yesterday's.
        let across = (Wall(at(3).0 - 1), at(3));
        assert_eq!(shorten(across, 0, hour, asked), (0, leeway(0, 300, 300)));
        assert_eq!(shorten(both(at(3)), 0, 99 * hour, asked).0, 24 * hour);
    }

    #[test]
    fn a_refresh_that_would_end_with_the_old_one_is_known() {
        let (three, day) = (end("03:00"), 20_000 * DAY);
        let now = Wall(day + 2 * HOUR);
        assert!(three.ends_with(3_600_000, now) && three.ends_with(3_599_500, now));
        assert!(!three.ends_with(60_000, now));
    }

    #[test]
    fn clients_are_told_no_more() {
        let now = Wall(20_000 * DAY + 2 * HOUR);
        let told = |is_fresh: bool, lines: &[(&'static str, &str)]| {
            let mut headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
                })
                .collect();
            let targeted = [HeaderName::from_static("cdn-cache-control")];
            end("03:00").tell(&mut headers, is_fresh, &targeted, now);
            let mut lines: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
                .collect();
            lines.sort();
            lines.join("\n")
        };
        let long = [("age", "100"), ("cache-control", "public, max-age=86400, S-MaxAge=\"90000\"")];
        assert_eq!(
            told(true, &long),
            "age: 100\ncache-control: public, max-age=3700, S-MaxAge=3700"
        );
        assert_eq!(
            told(false, &long),
            "age: 100\ncache-control: public, max-age=100, S-MaxAge=100"
        );
        for short in ["max-age=60", "no-store", "private=\"a, b\"", "max-age=x"] {
            let line = format!("cache-control: {short}");
            assert_eq!(told(true, &[("cache-control", short)]), line);
        }
        let forever = [("cdn-cache-control", "max-age=99999999999999999999999")];
        assert_eq!(told(true, &forever), "cdn-cache-control: max-age=3600");
        let expires = |at: u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(at));
        let (late, soon) = (expires(now.0 + DAY), expires(now.0 + 60_000));
        let three = expires(now.0 + HOUR);
        assert_eq!(told(true, &[("expires", &late)]), format!("expires: {three}"));
        assert_eq!(told(true, &[("expires", &soon)]), format!("expires: {soon}"));
        assert_eq!(told(false, &[("expires", &late)]), format!("expires: {}", expires(now.0)));
        assert_eq!(told(true, &[]), "");
    }
}
