//! Tests of what may be stored.

use super::*;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, EXPIRES, HeaderName,
    HeaderValue, LAST_MODIFIED, VARY,
};

mod properties;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const NOW: Wall = Wall(784_111_777_000);
const DATE_NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const DATE_LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
const DATE_EARLIER: &str = "Sun, 06 Nov 1994 08:49:07 GMT";
const RESPECT: StoreRules<'static> = StoreRules {
    ttl: Some(Duration::from_mins(5)),
    status_ttls: &[],
    jitter: Duration::ZERO,
    origin: OriginRule::Respect,
    strip_set_cookie: false,
    may_share_authorized: false,
    has_owner: false,
    stale_while_revalidate: None,
    stale_if_error: None,
    keep_stale: Duration::ZERO,
    targeted: &[],
    expires_at: None,
};
const IGNORE: StoreRules<'static> = StoreRules { origin: OriginRule::Ignore, ..RESPECT };
const PLAIN: StoreRules<'static> = StoreRules { ttl: None, ..RESPECT };
const KEEPING: StoreRules<'static> = StoreRules { keep_stale: Duration::from_mins(10), ..PLAIN };

type HeaderPairs<'a> = &'a [(HeaderName, &'a str)];

fn headers(fields: HeaderPairs<'_>) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn ask(
    rules: &StoreRules<'_>,
    status: u16,
    request: HeaderPairs<'_>,
    response: HeaderPairs<'_>,
) -> Result<StorePolicy, Reason> {
    let (request, response) = (headers(request), headers(response));
    let status = StatusCode::from_u16(status).unwrap();
    store_policy(
        rules,
        &Exchange {
            request: &request,
            status,
            response: &response,
            requested: NOW,
            received: NOW,
            dated: NOW,
        },
    )
}

/// Seconds of freshness at arrival, or the refusal, for a 200 with this `Cache-Control`.
fn ttl(rules: &StoreRules<'_>, cache_control: &str) -> Result<i64, Reason> {
    ask(rules, 200, &[], &[(CACHE_CONTROL, cache_control)])
        .map(|policy| policy.times.ttl_ms(NOW) / 1000)
}

#[test]
fn the_apps_word_on_freshness_is_respected() {
    let cases = [
        ("", Ok(300)),
        ("public", Ok(300)),
        ("must-revalidate", Ok(300)),
        ("max-age=60", Ok(60)),
        ("max-age=60, s-maxage=90", Ok(90)),
        ("max-age=99999999999", Ok(365 * 24 * 60 * 60)),
        ("max-age=0", Err(Reason::StaleOnArrival)),
        ("max-age=soon", Err(Reason::StaleOnArrival)),
        ("s-maxage=0, max-age=60", Err(Reason::StaleOnArrival)),
        ("no-store", Err(Reason::NoStore)),
        ("no-store, max-age=60, public", Err(Reason::NoStore)),
        ("private, max-age=60", Err(Reason::Private)),
        ("private=\"set-cookie\", max-age=60", Err(Reason::Private)),
        ("no-cache, max-age=60", Err(Reason::NoCache)),
        ("no-cache=\"x\", max-age=60", Err(Reason::NoCache)),
    ];
    for (cache_control, expected) in cases {
        assert_eq!(ttl(&RESPECT, cache_control), expected, "{cache_control}");
    }
}

#[test]
fn without_a_ttl_the_app_must_say_how_long() {
    for origin in [OriginRule::Respect, OriginRule::Ignore] {
        let rules = StoreRules { origin, ..PLAIN };
        assert_eq!(ttl(&rules, "public"), Err(Reason::NoFreshness));
        assert_eq!(ttl(&rules, "max-age=60"), Ok(60));
        assert_eq!(
            ttl(&rules, "no-store"),
            Err(Reason::NoStore),
            "there is no ttl to use instead of the stated lifetime"
        );
    }
    let expires = |date| {
        ask(&PLAIN, 200, &[], &[(EXPIRES, date), (DATE, DATE_NOW)])
            .map(|policy| policy.times.ttl_ms(NOW))
    };
    assert_eq!(expires(DATE_LATER), Ok(60_000));
    assert_eq!(expires("0"), Err(Reason::StaleOnArrival));
}

#[test]
fn a_route_that_ignores_the_origin_uses_its_own_ttl() {
    for cache_control in [
        "",
        "no-store",
        "private, no-cache",
        "max-age=0",
        "max-age=9999",
        "no-cache, no-store, must-revalidate",
    ] {
        assert_eq!(ttl(&IGNORE, cache_control), Ok(300), "{cache_control}");
    }
    let aged =
        ask(&IGNORE, 200, &[], &[(AGE, "9999"), (DATE, DATE_EARLIER), (EXPIRES, "0")]).unwrap();
    assert_eq!(
        aged.times,
        Times { received: NOW, initial_age: Duration::ZERO, lifetime: Duration::from_mins(5) }
    );
    assert_eq!(
        ttl(&StoreRules { ttl: Some(Duration::ZERO), ..IGNORE }, ""),
        Err(Reason::StaleOnArrival)
    );
    assert_eq!(ttl(&StoreRules { ttl: Some(Duration::MAX), ..IGNORE }, ""), Ok(365 * 24 * 60 * 60));
}

#[test]
fn age_counts_against_the_apps_freshness_but_not_against_the_routes() {
    let old = [(DATE, DATE_EARLIER), (AGE, "20")];
    let stated = |max_age| {
        ask(&RESPECT, 200, &[], &[old[0].clone(), old[1].clone(), (CACHE_CONTROL, max_age)])
    };
    assert_eq!(stated("max-age=50").unwrap().times.ttl_ms(NOW), 20_000);
    assert_eq!(stated("max-age=30"), Err(Reason::StaleOnArrival));
    let by_route = ask(&RESPECT, 200, &[], &old).unwrap().times;
    assert_eq!((by_route.ttl_ms(NOW), by_route.age(NOW)), (300_000, Duration::from_secs(30)));
    let year_off =
        ask(&RESPECT, 200, &[], &[(DATE, "Sat, 01 Jan 1972 00:00:00 GMT")]).unwrap().times;
    assert_eq!(year_off.ttl_ms(NOW), 300_000, "an origin without a clock");
}

#[test]
fn statuses_are_stored_as_their_freshness_allows() {
    let max_age: HeaderPairs<'_> = &[(CACHE_CONTROL, "max-age=60")];
    for status in 100..=599 {
        // RFC 9111 3: every final status; 206 and 304 are not responses of their own.
        let by_app = if status >= 200 && status != 206 && status != 304 {
            Ok(())
        } else {
            Err(Reason::Status)
        };
        assert_eq!(ask(&RESPECT, status, &[], max_age).map(drop), by_app, "{status}");
        let by_route = if status == 200 { Ok(()) } else { Err(Reason::Status) };
        assert_eq!(ask(&RESPECT, status, &[], &[]).map(drop), by_route, "{status}");
        assert_eq!(ask(&IGNORE, status, &[], max_age).map(drop), by_route, "{status}");
    }
    assert!(
        ask(&RESPECT, 200, &[], &[(CONTENT_RANGE, "bytes 0-1/9")]).is_ok(),
        "it means nothing outside 206 and 416 (RFC 9110 14.4)"
    );
}

#[test]
fn must_understand_overrides_no_store_for_known_statuses_alone() {
    assert_eq!(ttl(&RESPECT, "no-store, must-understand, max-age=60"), Ok(60));
    assert_eq!(
        ttl(&RESPECT, "no-store, must-understand, private, max-age=60"),
        Err(Reason::Private)
    );
    let odd = ask(&RESPECT, 299, &[], &[(CACHE_CONTROL, "no-store, must-understand, max-age=60")]);
    assert_eq!(odd, Err(Reason::Status));
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The stale windows of a 200 with this `Cache-Control`: while revalidating, on errors, when
/// unreachable.
fn windows_of(rules: &StoreRules<'_>, cache_control: &str) -> (Duration, Duration, Duration) {
    let Leeway { while_revalidate, if_error, unreachable, .. } =
        ask(rules, 200, &[], &[(CACHE_CONTROL, cache_control)]).unwrap().leeway;
    (while_revalidate, if_error, unreachable)
}

#[test]
fn rfc9111_4_2_4_and_rfc5861_windows_come_from_the_app_and_then_from_the_route() {
    let (none, ten) = (Duration::ZERO, Duration::from_mins(10));
    let by_route = StoreRules {
        stale_while_revalidate: Some(secs(7)),
        stale_if_error: Some(secs(8)),
        ..KEEPING
    };
    assert_eq!(
        windows_of(&KEEPING, "max-age=60"),
        (none, none, ten),
        "a stale response stands in for an unreachable origin"
    );
    assert_eq!(windows_of(&by_route, "max-age=60"), (secs(7), secs(8), secs(8)));
    assert_eq!(
        windows_of(&by_route, "max-age=60, stale-while-revalidate=1, stale-if-error=2"),
        (secs(1), secs(2), secs(2))
    );
    assert_eq!(
        windows_of(&by_route, "max-age=60, stale-if-error=0"),
        (secs(7), none, none),
        "the origin decides"
    );
    let ignoring = StoreRules { origin: OriginRule::Ignore, ttl: Some(secs(60)), ..by_route };
    assert_eq!(
        windows_of(&ignoring, "must-revalidate, stale-if-error=99"),
        (secs(7), secs(8), secs(8))
    );
}

#[test]
fn rfc9111_5_2_2_some_directives_forbid_what_is_stale() {
    let by_route = StoreRules {
        stale_while_revalidate: Some(secs(7)),
        stale_if_error: Some(secs(8)),
        ..KEEPING
    };
    for directive in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
        let said = format!("max-age=60, stale-while-revalidate=5, stale-if-error=5, {directive}");
        assert_eq!(
            windows_of(&by_route, &said),
            (Duration::ZERO, Duration::ZERO, Duration::ZERO),
            "{directive}"
        );
    }
}

#[test]
fn a_response_with_a_validator_is_stored_for_revalidation() {
    let tagged = |rules: &StoreRules<'_>, cache_control: &str| {
        ask(rules, 200, &[], &[(CACHE_CONTROL, cache_control), (ETAG, "\"1\"")])
    };
    for cache_control in
        ["no-cache", "no-cache, max-age=60", "max-age=0", "max-age=0, must-revalidate", "public"]
    {
        let policy = tagged(&KEEPING, cache_control).unwrap();
        assert!(!policy.times.is_fresh(NOW), "{cache_control}");
        let Leeway { while_revalidate, if_error, unreachable, keep } = policy.leeway;
        assert_eq!(
            (while_revalidate, if_error),
            (Duration::ZERO, Duration::ZERO),
            "{cache_control}"
        );
        let forbidden =
            cache_control.contains("no-cache") || cache_control.contains("must-revalidate");
        assert_eq!(unreachable.is_zero(), forbidden, "{cache_control}");
        assert_eq!(keep, Duration::from_mins(10), "{cache_control}");
    }
    assert_eq!(tagged(&KEEPING, "no-store"), Err(Reason::NoStore));
    assert_eq!(
        tagged(&PLAIN, "no-cache"),
        Err(Reason::NoCache),
        "limits.stale = 0s keeps nothing that is stale"
    );
    assert_eq!(
        ask(&KEEPING, 404, &[], &[(ETAG, "\"1\"")]),
        Err(Reason::NoFreshness),
        "an error page is not revalidated"
    );
    let aged =
        ask(&KEEPING, 200, &[], &[(CACHE_CONTROL, "max-age=60"), (AGE, "100"), (ETAG, "\"1\"")])
            .unwrap();
    assert_eq!(aged.leeway.keep, secs(640), "counted from now, not from the end of its freshness");
}

#[test]
fn what_is_stale_for_longer_than_its_windows_is_not_stored() {
    let aged = |age: &str| {
        let fields = [
            (CACHE_CONTROL, "max-age=60, stale-while-revalidate=30, stale-if-error=20"),
            (AGE, age),
        ];
        ask(&KEEPING, 200, &[], &fields).map(|policy| policy.leeway.keep)
    };
    assert_eq!(aged("80"), Ok(secs(30)), "20 s into its windows");
    assert_eq!(aged("90"), Err(Reason::StaleOnArrival), "beyond the last of them");
}

#[test]
fn what_was_never_fresh_and_has_no_validator_is_stored_only_where_somebody_said_so() {
    assert_eq!(
        ask(&KEEPING, 200, &[], &[(CACHE_CONTROL, "max-age=0")]),
        Err(Reason::StaleOnArrival)
    );
    let said = ask(&KEEPING, 200, &[], &[(CACHE_CONTROL, "max-age=0, stale-while-revalidate=30")])
        .unwrap();
    assert_eq!((said.leeway.while_revalidate, said.times.is_fresh(NOW)), (secs(30), false));
}

#[test]
fn rfc9111_4_2_2_heuristics_are_for_routes_without_a_ttl() {
    let last_modified: HeaderPairs<'_> =
        &[(DATE, DATE_NOW), (LAST_MODIFIED, "Sun, 06 Nov 1994 08:32:57 GMT")];
    let left = |rules: &StoreRules<'_>, status| {
        ask(rules, status, &[], last_modified).map(|policy| policy.times.ttl_ms(NOW))
    };
    assert_eq!(left(&PLAIN, 200), Ok(100_000), "a tenth of its age");
    assert_eq!(left(&PLAIN, 404), Ok(100_000));
    assert_eq!(left(&PLAIN, 302), Err(Reason::Status));
    assert_eq!(left(&RESPECT, 200), Ok(300_000));
}

#[test]
fn rfc9213_a_targeted_field_outranks_cache_control_and_expires() {
    let targeted = [HeaderName::from_static("cdn-cache-control")];
    let rules = StoreRules { targeted: &targeted, ..PLAIN };
    let left = |cdn: &str, cache_control: &str, expires: &str| {
        let fields = [
            (targeted[0].clone(), cdn),
            (CACHE_CONTROL, cache_control),
            (EXPIRES, expires),
            (DATE, DATE_NOW),
        ];
        ask(&rules, 200, &[], &fields).map(|policy| policy.times.ttl_ms(NOW) / 1000)
    };
    assert_eq!(left("max-age=60", "no-store", "0"), Ok(60));
    assert_eq!(left("no-store", "max-age=60", DATE_LATER), Err(Reason::NoStore));
    assert_eq!(left("max-age=0", "max-age=60", DATE_LATER), Err(Reason::StaleOnArrival));
    assert_eq!(left("max-age=\"60\"", "max-age=9", "0"), Ok(9), "malformed, it does not count");
    assert_eq!(
        left("foo", "max-age=9", DATE_LATER),
        Err(Reason::NoFreshness),
        "valid, but without a lifetime"
    );
}

#[test]
fn set_cookie_keeps_a_response_out_unless_it_is_stripped() {
    let response: HeaderPairs<'_> = &[(SET_COOKIE, "a=1"), (CACHE_CONTROL, "public, max-age=60")];
    assert_eq!(ask(&RESPECT, 200, &[], response), Err(Reason::SetCookie));
    assert_eq!(ask(&IGNORE, 200, &[], response), Err(Reason::SetCookie));
    assert!(ask(&StoreRules { strip_set_cookie: true, ..RESPECT }, 200, &[], response).is_ok());
}

#[test]
fn responses_to_authorization_are_shared_only_by_permission() {
    let request: HeaderPairs<'_> = &[(AUTHORIZATION, "Bearer x")];
    let cases = [
        (RESPECT, "max-age=60", false),
        (RESPECT, "max-age=60, public", true),
        (RESPECT, "s-maxage=60", true),
        (RESPECT, "max-age=60, must-revalidate", true),
        (RESPECT, "max-age=60, proxy-revalidate", false),
        (RESPECT, "max-age=60, public=x", false),
        (IGNORE, "", false),
        (IGNORE, "public", true),
        (IGNORE, "s-maxage=60", true),
        (IGNORE, "s-maxage=0", false),
        (IGNORE, "no-store, must-revalidate", false),
        (IGNORE, "max-age=0, must-revalidate", false),
        (IGNORE, "public, private", false),
    ];
    for (rules, cache_control, allowed) in cases {
        let response: HeaderPairs<'_> = &[(CACHE_CONTROL, cache_control)];
        let expected = if allowed { Ok(()) } else { Err(Reason::Authorization) };
        assert_eq!(
            ask(&rules, 200, request, response).map(drop),
            expected,
            "{:?} {cache_control}",
            rules.origin
        );
        assert!(
            ask(&StoreRules { may_share_authorized: true, ..rules }, 200, request, response)
                .is_ok()
        );
        assert!(ask(&rules, 200, &[], response).is_ok());
    }
}

#[test]
fn the_request_and_vary_have_their_say() {
    let no_store: HeaderPairs<'_> = &[(CACHE_CONTROL, "No-Store")];
    for rules in [RESPECT, IGNORE] {
        assert_eq!(ask(&rules, 200, no_store, &[]), Err(Reason::RequestNoStore));
        assert_eq!(ask(&rules, 200, &[], &[(VARY, "accept, *")]), Err(Reason::VaryStar));
        let vary =
            ask(&rules, 200, &[], &[(VARY, "Accept"), (CONTENT_ENCODING, "br")]).unwrap().vary;
        assert!(vary.names().eq(["accept", "accept-encoding"]));
    }
    assert!(
        ask(&RESPECT, 200, &[(CACHE_CONTROL, "no-cache, max-age=0")], &[]).is_ok(),
        "a reload may be stored"
    );
}

#[test]
fn rfc9111_5_2_2_7_private_responses_are_stored_for_their_owner_alone() {
    let owned = StoreRules { has_owner: true, ..RESPECT };
    assert_eq!(ttl(&RESPECT, "private, max-age=60"), Err(Reason::Private));
    assert_eq!(ttl(&owned, "private, max-age=60"), Ok(60));
    assert_eq!(ttl(&owned, "private, no-store"), Err(Reason::NoStore));
}

#[test]
fn a_time_of_day_ends_what_is_stored_by_whatever_word() {
    // Two minutes and 23 seconds after NOW.
    let ends = |rules: StoreRules<'static>| StoreRules {
        expires_at: DailyEnd::parse("08:52").ok(),
        keep_stale: Duration::from_mins(10),
        ..rules
    };
    let left = 143;
    assert_eq!(ttl(&ends(RESPECT), ""), Ok(left), "by `ttl`");
    assert_eq!(ttl(&ends(IGNORE), ""), Ok(left), "by `ttl`, whatever the origin says");
    assert_eq!(ttl(&ends(RESPECT), "max-age=86400"), Ok(left), "by the origin");
    assert_eq!(ttl(&ends(RESPECT), "max-age=60"), Ok(60), "it only shortens");
}
