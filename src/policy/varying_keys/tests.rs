//! What is told of parts of keys, and that it stays bounded.

use std::hash::BuildHasher as _;

use smallvec::SmallVec;

use super::*;

const NOW: Wall = Wall(1_000_000);
const LATER: Wall = Wall(1_300_000);

/// A part with this value; credentials tell who asks.
fn part(kind: PartKind, name: &str, value: u64, is_made: bool) -> VaryingPart<'_> {
    let hash = hasher().hash_one((kind, name, value));
    let identifies = kind == PartKind::Cookie;
    VaryingPart { kind, name: Cow::Borrowed(name.as_bytes()), hash, is_made, identifies }
}

fn hasher() -> &'static RandomState {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new)
}

fn observe(keys: &VaryingKeys, parts: Vec<VaryingPart<'_>>, times: (Wall, Wall)) {
    let parts = SmallVec::from_vec(parts);
    let parts = KeyParts { base: 1, anchor: 2, has_anchor: false, parts };
    keys.observe(0, &parts, times, &|_| false, || 5);
}

fn told(keys: &VaryingKeys, hits: u64) -> Vec<String> {
    keys.findings(0, hits).into_iter().map(|finding| finding.name.into()).collect()
}

#[test]
fn what_never_repeats_is_told_and_what_does_is_not() {
    use PartKind::{Cookie, Parameter};
    let keys = VaryingKeys::new(1);
    for at in 0..20 {
        let parts = vec![
            part(Parameter, "_", at, false),
            part(Parameter, "page", at % 3, false),
            part(Cookie, "sid", 1, true),
            part(Cookie, "csrf", at, true),
        ];
        observe(&keys, parts, (NOW, LATER));
    }
    assert_eq!(told(&keys, 5), ["_", "csrf"], "both, since one alone would not help");
    assert_eq!(told(&keys, 100), Vec::<String>::new(), "a route that hits is well");
    assert_eq!(keys.other_parameters(0), Some(vec!["page".into()]));
}

#[test]
fn only_what_would_have_been_a_hit_counts() {
    let keys = VaryingKeys::new(1);
    for at in 0..100 {
        // Each response is stale when the next request comes.
        let at = Wall(NOW.0 + at * 10_000);
        let parts = vec![part(PartKind::Parameter, "_", at.0, true)];
        observe(&keys, parts, (at, Wall(at.0 + 5_000)));
    }
    for at in 0..100 {
        // Another part differs from page to page.
        let parts = vec![
            part(PartKind::Parameter, "ts", at, true),
            part(PartKind::Parameter, "id", at, false),
        ];
        observe(&keys, parts, (NOW, LATER));
    }
    assert_eq!(told(&keys, 0), Vec::<String>::new());
}

#[test]
fn a_cookie_alone_may_be_that_of_many_callers() {
    let keys = VaryingKeys::new(1);
    for at in 0..100 {
        observe(&keys, vec![part(PartKind::Cookie, "sid", at, true)], (NOW, LATER));
    }
    assert_eq!(told(&keys, 0), Vec::<String>::new());
    let parts = |at| KeyParts {
        base: 1,
        anchor: 2,
        has_anchor: false,
        parts: SmallVec::from_vec(vec![part(PartKind::Cookie, "sid", at, true)]),
    };
    for at in 200..300 {
        keys.observe(0, &parts(at), (NOW, LATER), &|name| name == "sid", || 0);
    }
    assert_eq!(told(&keys, 0).len(), 0, "not for half of all that had it");
    for at in 300..500 {
        keys.observe(0, &parts(at), (NOW, LATER), &|name| name == "sid", || 0);
    }
    assert_eq!(told(&keys, 0), ["sid"], "the origin replaces it");
}

#[test]
fn any_number_of_names_takes_fixed_room_and_hides_no_frequent_one() {
    let keys = VaryingKeys::new(1);
    let long = "n".repeat(200);
    for at in 0..10_000_u64 {
        let names: Vec<String> = (0..20).map(|number| format!("c{at}x{number}{long}")).collect();
        let names = names.iter().map(|name| part(PartKind::Cookie, name, at, true));
        let busy = part(PartKind::Parameter, "_", at, true);
        let parts: Vec<_> = if at % 3 == 0 { names.collect() } else { vec![busy] };
        observe(&keys, parts, (NOW, LATER));
    }
    let state = keys.routes[0].get().expect("it is observed").lock();
    assert!(state.names.len() <= MAX_NAMES);
    assert!(state.names.iter().all(|count| count.name.len() <= MAX_NAME_BYTES));
    assert_eq!((state.values.len(), state.entries.len()), (VALUES, ENTRIES));
    drop(state);
    assert_eq!(told(&keys, 0), ["_"]);
    assert_eq!(keys.other_parameters(0), None, "nobody knows all of them");
}

#[test]
fn no_more_routes_are_observed_than_there_is_room_for() {
    let keys = VaryingKeys::new(2 * MAX_ROUTES);
    for route in 0..2 * MAX_ROUTES {
        keys.observe_unkeyed(route, &[part(PartKind::Unkeyed, "x-a", 1, false)]);
    }
    let observed = keys.routes.iter().filter(|route| route.get().is_some()).count();
    assert_eq!(observed, MAX_ROUTES);
    keys.observe_unkeyed(usize::MAX, &[]);
}

#[test]
fn names_are_cut_where_a_character_ends() {
    assert_eq!(shortened(&[0xff; 100]).len(), 63);
    assert_eq!(shortened("ä".repeat(100).as_bytes()).len(), 64);
}
