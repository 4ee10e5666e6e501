//! May this response be stored, and for how long (RFC 9111 3). A pure question: what was asked, what came, when, and the route's rules.
//!
//! Owns the order in which a response is refused; each refusal is a [`Reason`]. Knows nothing of tags, tiers and bodies: whether the body
//! is whole and what was purged meanwhile is found out elsewhere.

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, SET_COOKIE};

use crate::cache_control::CacheControl;
use crate::clock::Wall;
use crate::entry::Times;
use crate::freshness::{self, MAX_LIFETIME};
use crate::outcome::Reason;
use crate::vary::VarySpec;

/// Whose word on freshness counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginRule {
    /// The app's `Cache-Control` and `Expires`; the route's `ttl` where the app says nothing.
    #[default]
    Respect,
    /// The route's `ttl`, whatever the app says. Without a `ttl` there is nothing to put in its place, and this is [`Self::Respect`].
    Ignore,
}

/// What the route says about storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How long a response is fresh by the route.
    pub ttl: Option<Duration>,
    /// Whose word on freshness counts.
    pub origin: OriginRule,
    /// `Set-Cookie` is taken off, and so does not keep the response out.
    pub strip_set_cookie: bool,
    /// The entry goes only to requests that may share a response to `Authorization`: the key or the admission sees to it.
    pub may_share_authorized: bool,
}

/// One request to the app and the head of its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's headers as they were sent to the app.
    pub request: &'a HeaderMap,
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers as they came from the app.
    pub response: &'a HeaderMap,
    /// When the request was sent.
    pub requested: Wall,
    /// When the response's head arrived.
    pub received: Wall,
}

/// A response that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// How old it is and how long it is fresh.
    pub times: Times,
    /// Which request headers it varies on.
    pub vary: VarySpec,
}

/// Decides whether a response may be stored.
///
/// # Errors
/// The first reason that forbids it.
pub fn admit(rules: &Rules, exchange: &Exchange<'_>) -> Result<Admission, Reason> {
    // RFC 9111 5.2.1.5.
    if CacheControl::of(exchange.request).no_store {
        return Err(Reason::RequestNoStore);
    }
    // A part of a body is never stored as the whole, whatever the status says.
    if !is_storable(exchange.status) || exchange.response.contains_key(CONTENT_RANGE) {
        return Err(Reason::Status);
    }
    // SECURITY: a stored Set-Cookie would hand one user's session to the next.
    if !rules.strip_set_cookie && exchange.response.contains_key(SET_COOKIE) {
        return Err(Reason::SetCookie);
    }
    let directives = CacheControl::of(exchange.response);
    let (times, permits_sharing) = match (rules.origin, rules.ttl) {
        (OriginRule::Ignore, Some(ttl)) => (by_route_alone(ttl, exchange)?, ignored_origin_permits_sharing(&directives)),
        _ => (by_origin(rules.ttl, &directives, exchange)?, origin_permits_sharing(&directives)),
    };
    // SECURITY: RFC 9111 3.5. The answer to one user's Authorization is not for others unless the app says so.
    if exchange.request.contains_key(AUTHORIZATION) && !rules.may_share_authorized && !permits_sharing {
        return Err(Reason::Authorization);
    }
    let vary = VarySpec::of_response(exchange.request, exchange.response).map_err(|_| Reason::VaryStar)?;
    if !times.is_fresh(exchange.received) {
        return Err(Reason::StaleOnArrival);
    }
    Ok(Admission { times, vary })
}

/// The statuses whose caching rules this cache knows and holds to. 206 and 304 are not responses of their own; a 5xx other than 501 is
/// an accident; 302 and 307 are stored only when the app gives them a freshness, as is everything here but 200.
fn is_storable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 302 | 307 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// `origin = "ignore"`: fresh for the route's `ttl`, from the moment of arrival.
fn by_route_alone(ttl: Duration, exchange: &Exchange<'_>) -> Result<Times, Reason> {
    if exchange.status != StatusCode::OK {
        return Err(Reason::Status);
    }
    Ok(Times { received: exchange.received, initial_age: Duration::ZERO, lifetime: ttl.min(MAX_LIFETIME) })
}

/// `origin = "respect"`: what the app says, and the route's `ttl` for a 200 of which it says nothing.
fn by_origin(ttl: Option<Duration>, directives: &CacheControl, exchange: &Exchange<'_>) -> Result<Times, Reason> {
    // RFC 9111 5.2.2.3: `must-understand` takes the place of `no-store` in a cache that knows the status, as this one knows all it stores.
    if directives.no_store && !directives.must_understand {
        return Err(Reason::NoStore);
    }
    if directives.private {
        return Err(Reason::Private);
    }
    if directives.no_cache {
        return Err(Reason::NoCache);
    }
    let initial_age = freshness::initial_age(exchange.response, exchange.requested, exchange.received);
    let lifetime = match (freshness::lifetime(directives, exchange.response, exchange.received), ttl) {
        (Some(stated), _) => stated,
        (None, None) => return Err(Reason::NoFreshness),
        (None, Some(_)) if exchange.status != StatusCode::OK => return Err(Reason::Status),
        // The route's time counts from arrival: an app's slow clock must not eat it up.
        (None, Some(ttl)) => initial_age.saturating_add(ttl.min(MAX_LIFETIME)),
    };
    Ok(Times { received: exchange.received, initial_age, lifetime })
}

/// Whether the app allows a shared cache to store the answer to an `Authorization` (RFC 9111 3.5).
const fn origin_permits_sharing(directives: &CacheControl) -> bool {
    directives.public || directives.s_maxage.is_some() || directives.must_revalidate
}

/// The same where the app's word on freshness is ignored. `no-store, must-revalidate` and its like come from frameworks that mean the
/// opposite of a permission, and a cache that ignores lifetimes does not revalidate either: only a plain permission counts.
fn ignored_origin_permits_sharing(directives: &CacheControl) -> bool {
    let restricted = directives.no_store || directives.no_cache || directives.private;
    !restricted && (directives.public || directives.s_maxage.is_some_and(|lifetime| !lifetime.is_zero()))
}

#[cfg(test)]
mod tests {
    use http::header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, DATE, EXPIRES, HeaderName, HeaderValue, VARY};
    use proptest::prelude::*;

    use super::*;

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    const NOW: Wall = Wall(784_111_777_000);
    const DATE_NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const DATE_LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";
    const DATE_EARLIER: &str = "Sun, 06 Nov 1994 08:49:07 GMT";
    const RESPECT: Rules =
        Rules { ttl: Some(Duration::from_mins(5)), origin: OriginRule::Respect, strip_set_cookie: false, may_share_authorized: false };
    const IGNORE: Rules = Rules { origin: OriginRule::Ignore, ..RESPECT };
    const PLAIN: Rules = Rules { ttl: None, ..RESPECT };

    type Fields<'a> = &'a [(HeaderName, &'a str)];

    fn headers(fields: Fields<'_>) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn ask(rules: &Rules, status: u16, request: Fields<'_>, response: Fields<'_>) -> Result<Admission, Reason> {
        let (request, response) = (headers(request), headers(response));
        let status = StatusCode::from_u16(status).unwrap();
        admit(rules, &Exchange { request: &request, status, response: &response, requested: NOW, received: NOW })
    }

    /// Seconds of freshness at arrival, or the refusal, for a 200 with this `Cache-Control`.
    fn ttl(rules: &Rules, cache_control: &str) -> Result<i64, Reason> {
        ask(rules, 200, &[], &[(CACHE_CONTROL, cache_control)]).map(|admission| admission.times.ttl_ms(NOW) / 1000)
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
            let rules = Rules { origin, ..PLAIN };
            assert_eq!(ttl(&rules, "public"), Err(Reason::NoFreshness));
            assert_eq!(ttl(&rules, "max-age=60"), Ok(60));
            assert_eq!(ttl(&rules, "no-store"), Err(Reason::NoStore), "nothing to put in the place of the app's word");
        }
        let expires = |date| ask(&PLAIN, 200, &[], &[(EXPIRES, date), (DATE, DATE_NOW)]).map(|admission| admission.times.ttl_ms(NOW));
        assert_eq!(expires(DATE_LATER), Ok(60_000));
        assert_eq!(expires("0"), Err(Reason::StaleOnArrival));
    }

    #[test]
    fn a_route_that_ignores_the_origin_uses_its_own_ttl() {
        for cache_control in ["", "no-store", "private, no-cache", "max-age=0", "max-age=9999", "no-cache, no-store, must-revalidate"] {
            assert_eq!(ttl(&IGNORE, cache_control), Ok(300), "{cache_control}");
        }
        let aged = ask(&IGNORE, 200, &[], &[(AGE, "9999"), (DATE, DATE_EARLIER), (EXPIRES, "0")]).unwrap();
        assert_eq!(aged.times, Times { received: NOW, initial_age: Duration::ZERO, lifetime: Duration::from_mins(5) });
        assert_eq!(ttl(&Rules { ttl: Some(Duration::ZERO), ..IGNORE }, ""), Err(Reason::StaleOnArrival));
        assert_eq!(ttl(&Rules { ttl: Some(Duration::MAX), ..IGNORE }, ""), Ok(365 * 24 * 60 * 60));
    }

    #[test]
    fn age_counts_against_the_apps_freshness_but_not_against_the_routes() {
        let old = [(DATE, DATE_EARLIER), (AGE, "20")];
        let stated = |max_age| ask(&RESPECT, 200, &[], &[old[0].clone(), old[1].clone(), (CACHE_CONTROL, max_age)]);
        assert_eq!(stated("max-age=50").unwrap().times.ttl_ms(NOW), 20_000);
        assert_eq!(stated("max-age=30"), Err(Reason::StaleOnArrival));
        let by_route = ask(&RESPECT, 200, &[], &old).unwrap().times;
        assert_eq!((by_route.ttl_ms(NOW), by_route.age(NOW)), (300_000, Duration::from_secs(30)));
        let year_off = ask(&RESPECT, 200, &[], &[(DATE, "Sat, 01 Jan 1972 00:00:00 GMT")]).unwrap().times;
        assert_eq!(year_off.ttl_ms(NOW), 300_000, "an app without a clock");
    }

    #[test]
    fn statuses_are_stored_as_their_freshness_allows() {
        let max_age: Fields<'_> = &[(CACHE_CONTROL, "max-age=60")];
        let explicit = [200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501];
        for status in 100..=599 {
            let by_app = if explicit.contains(&status) { Ok(()) } else { Err(Reason::Status) };
            assert_eq!(ask(&RESPECT, status, &[], max_age).map(drop), by_app, "{status}");
            let by_route = if status == 200 { Ok(()) } else { Err(Reason::Status) };
            assert_eq!(ask(&RESPECT, status, &[], &[]).map(drop), by_route, "{status}");
            assert_eq!(ask(&IGNORE, status, &[], max_age).map(drop), by_route, "{status}");
        }
        assert_eq!(ask(&RESPECT, 200, &[], &[(CONTENT_RANGE, "bytes 0-1/9")]), Err(Reason::Status));
    }

    #[test]
    fn must_understand_overrides_no_store_for_known_statuses_alone() {
        assert_eq!(ttl(&RESPECT, "no-store, must-understand, max-age=60"), Ok(60));
        assert_eq!(ttl(&RESPECT, "no-store, must-understand, private, max-age=60"), Err(Reason::Private));
        let odd = ask(&RESPECT, 299, &[], &[(CACHE_CONTROL, "no-store, must-understand, max-age=60")]);
        assert_eq!(odd, Err(Reason::Status));
    }

    #[test]
    fn set_cookie_keeps_a_response_out_unless_it_is_stripped() {
        let response: Fields<'_> = &[(SET_COOKIE, "a=1"), (CACHE_CONTROL, "public, max-age=60")];
        assert_eq!(ask(&RESPECT, 200, &[], response), Err(Reason::SetCookie));
        assert_eq!(ask(&IGNORE, 200, &[], response), Err(Reason::SetCookie));
        assert!(ask(&Rules { strip_set_cookie: true, ..RESPECT }, 200, &[], response).is_ok());
    }

    #[test]
    fn answers_to_authorization_are_shared_only_by_permission() {
        let request: Fields<'_> = &[(AUTHORIZATION, "Bearer x")];
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
            let response: Fields<'_> = &[(CACHE_CONTROL, cache_control)];
            let expected = if allowed { Ok(()) } else { Err(Reason::Authorization) };
            assert_eq!(ask(&rules, 200, request, response).map(drop), expected, "{:?} {cache_control}", rules.origin);
            assert!(ask(&Rules { may_share_authorized: true, ..rules }, 200, request, response).is_ok());
            assert!(ask(&rules, 200, &[], response).is_ok());
        }
    }

    #[test]
    fn the_request_and_vary_have_their_say() {
        let no_store: Fields<'_> = &[(CACHE_CONTROL, "No-Store")];
        for rules in [RESPECT, IGNORE] {
            assert_eq!(ask(&rules, 200, no_store, &[]), Err(Reason::RequestNoStore));
            assert_eq!(ask(&rules, 200, &[], &[(VARY, "accept, *")]), Err(Reason::VaryStar));
            let vary = ask(&rules, 200, &[], &[(VARY, "Accept"), (CONTENT_ENCODING, "br")]).unwrap().vary;
            assert!(vary.names().eq(["accept", "accept-encoding"]));
        }
        assert!(ask(&RESPECT, 200, &[(CACHE_CONTROL, "no-cache, max-age=0")], &[]).is_ok(), "a reload may be stored");
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let ttl = prop_oneof![Just(None), (0_u64..400).prop_map(|seconds| Some(Duration::from_secs(seconds))), Just(Some(Duration::MAX))];
        (ttl, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(ttl, ignore, strip_set_cookie, may_share_authorized)| Rules {
            ttl,
            origin: if ignore { OriginRule::Ignore } else { OriginRule::Respect },
            strip_set_cookie,
            may_share_authorized,
        })
    }

    fn directives() -> impl Strategy<Value = String> {
        let directive = prop::sample::select(vec![
            "public",
            "private",
            "no-cache",
            "no-store",
            "max-age=60",
            "max-age=0",
            "max-age=x",
            "s-maxage=60",
            "must-revalidate",
            "must-understand",
            "x=\"y, public\"",
            "public;",
            "\"",
            "immutable",
            "",
        ]);
        prop::collection::vec(directive, 0..5).prop_map(|directives| directives.join(", "))
    }

    fn response() -> impl Strategy<Value = Vec<(HeaderName, String)>> {
        let field = prop_oneof![
            directives().prop_map(|value| (CACHE_CONTROL, value)),
            prop::sample::select(vec![DATE_NOW, DATE_EARLIER, DATE_LATER, "0"]).prop_map(|value| (DATE, value.to_owned())),
            prop::sample::select(vec![DATE_NOW, DATE_EARLIER, DATE_LATER, "0"]).prop_map(|value| (EXPIRES, value.to_owned())),
            prop::sample::select(vec!["0", "10", "99999999999", "x"]).prop_map(|value| (AGE, value.to_owned())),
            prop::sample::select(vec!["accept", "*", ""]).prop_map(|value| (VARY, value.to_owned())),
            Just((SET_COOKIE, "a=1".to_owned())),
        ];
        prop::collection::vec(field, 0..5)
    }

    /// A response and the same with one more `Cache-Control` line.
    fn ask_both(
        rules: &Rules,
        status: u16,
        authorized: bool,
        fields: &[(HeaderName, String)],
        line: &str,
    ) -> [Result<Admission, Reason>; 2] {
        let request: Fields<'_> = if authorized { &[(AUTHORIZATION, "x")] } else { &[] };
        let mut fields: Vec<(HeaderName, &str)> = fields.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
        let before = ask(rules, status, request, &fields);
        fields.push((CACHE_CONTROL, line));
        [before, ask(rules, status, request, &fields)]
    }

    proptest! {
        #[test]
        fn a_further_restriction_never_makes_a_response_storable(
            rules in rules(), status in prop::sample::select(vec![200_u16, 404, 302, 500, 206]), authorized: bool, fields in response(),
            line in prop::sample::select(vec![
                "no-store", "private", "no-cache=\"a\"", "max-age=0", "s-maxage=0", "max-age=-1", "\"", "proxy-revalidate",
            ]),
        ) {
            let [before, after] = ask_both(&rules, status, authorized, &fields, line);
            prop_assert!(before.is_ok() || after.is_err(), "{before:?} {after:?}");
            if let (Ok(before), Ok(after)) = (before, after) {
                prop_assert!(after.times.ttl_ms(NOW) <= before.times.ttl_ms(NOW));
            }
        }

        #[test]
        fn no_store_is_obeyed_unless_understood_or_ignored(rules in rules(), fields in response()) {
            let understood = fields.iter().any(|(_, value)| value.contains("must-understand"));
            let ignored = rules.origin == OriginRule::Ignore && rules.ttl.is_some();
            let [_, after] = ask_both(&rules, 200, false, &fields, "no-store");
            prop_assert!(after.is_err() || understood || ignored);
        }

        #[test]
        fn any_times_are_admitted_without_overflow(
            rules in rules(), requested in any::<u64>(), received in any::<u64>(), fields in response(),
        ) {
            let fields: Vec<(HeaderName, &str)> = fields.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
            let (request, response) = (HeaderMap::new(), headers(&fields));
            let (requested, received) = (Wall(requested), Wall(received));
            let exchange = Exchange { request: &request, status: StatusCode::OK, response: &response, requested, received };
            if let Ok(admission) = admit(&rules, &exchange) {
                let left = admission.times.ttl_ms(received);
                prop_assert!(left > 0 && u128::from(left.unsigned_abs()) <= MAX_LIFETIME.as_millis(), "{left}");
            }
        }
    }
}
