//! Properties of every response.

use proptest::prelude::*;

use super::*;

fn rules() -> impl Strategy<Value = StoreRules<'static>> {
    let ttl = prop_oneof![
        Just(None),
        (0_u64..400).prop_map(|seconds| Some(Duration::from_secs(seconds))),
        Just(Some(Duration::MAX))
    ];
    (ttl, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(ttl, ignore, strip_set_cookie, may_share_authorized)| StoreRules {
            ttl,
            origin: if ignore { OriginRule::Ignore } else { OriginRule::Respect },
            strip_set_cookie,
            may_share_authorized,
            ..RESPECT
        },
    )
}

fn directives() -> impl Strategy<Value = String> {
    let directive = prop::sample::select(
        "public|private|no-cache|no-store|max-age=60|max-age=0|max-age=x|s-maxage=60|\
         must-revalidate|must-understand|x=\"y, public\"|public;|\"|immutable|"
            .split('|')
            .collect::<Vec<_>>(),
    );
    prop::collection::vec(directive, 0..5).prop_map(|directives| directives.join(", "))
}

fn response() -> impl Strategy<Value = Vec<(HeaderName, String)>> {
    let field = prop_oneof![
        directives().prop_map(|value| (CACHE_CONTROL, value)),
        prop::sample::select(vec![DATE_NOW, DATE_EARLIER, DATE_LATER, "0"])
            .prop_map(|value| (DATE, value.to_owned())),
        prop::sample::select(vec![DATE_NOW, DATE_EARLIER, DATE_LATER, "0"])
            .prop_map(|value| (EXPIRES, value.to_owned())),
        prop::sample::select(vec!["0", "10", "99999999999", "x"])
            .prop_map(|value| (AGE, value.to_owned())),
        prop::sample::select(vec!["accept", "*", ""]).prop_map(|value| (VARY, value.to_owned())),
        Just((SET_COOKIE, "a=1".to_owned())),
    ];
    prop::collection::vec(field, 0..5)
}

/// The policy for a response, and for the same response with one more `Cache-Control` line.
fn ask_both(
    rules: &StoreRules<'_>,
    status: u16,
    authorized: bool,
    fields: &[(HeaderName, String)],
    line: &str,
) -> [Result<StorePolicy, Reason>; 2] {
    let request: HeaderPairs<'_> = if authorized { &[(AUTHORIZATION, "x")] } else { &[] };
    let mut fields: Vec<(HeaderName, &str)> =
        fields.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
    let before = ask(rules, status, request, &fields);
    fields.push((CACHE_CONTROL, line));
    [before, ask(rules, status, request, &fields)]
}

proptest! {
    #[test]
    fn a_further_restriction_never_makes_a_response_storable(
        rules in rules(),
        status in prop::sample::select(vec![200_u16, 404, 302, 500, 206]),
        authorized: bool,
        fields in response(),
        line in prop::sample::select(vec![
            "no-store", "private", "no-cache=\"a\"", "max-age=0", "s-maxage=0",
            "max-age=-1", "\"", "proxy-revalidate",
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
        let fields: Vec<(HeaderName, &str)> =
            fields.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
        let (request, response) = (HeaderMap::new(), headers(&fields));
        let (requested, received) = (Wall(requested), Wall(received));
        let exchange = Exchange {
            request: &request,
            status: StatusCode::OK,
            response: &response,
            requested,
            received,
            dated: received,
        };
        if let Ok(policy) = store_policy(&rules, &exchange) {
            let left = policy.times.ttl_ms(received);
            prop_assert!(
                left > 0 && u128::from(left.unsigned_abs()) <= MAX_LIFETIME.as_millis(),
                "{left}"
            );
        }
    }
}
