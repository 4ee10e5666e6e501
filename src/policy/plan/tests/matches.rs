//! Routes and purges that `match` chooses.

use super::*;
use crate::outcome::Outcome;

const LIST: &str = "[[routes]]\npath = \"/index.php\"\nttl = \"5m\"\nscope = \"public\"\n\
    query = [\"page\"]\nmatch = { query.action = [\"list\", \"show\"] }\ntags = [\"list\"]\n";
const SAVE: &str = "[[purges]]\npath = \"/index.php\"\ntags = [\"list\"]\n\
    match = { query.action = [\"save\", \"delete\"] }\n";

fn name(rules: &PolicyRules, sent: &SentRequest) -> String {
    match rules.plan(&sent.view()) {
        Plan::Lookup(lookup) => lookup.route.name().to_owned(),
        Plan::Pass(_, Outcome { reason, subject, .. }) => {
            format!("{} {}", reason.map_or("", Reason::as_str), subject.unwrap_or_default())
        }
        other => panic!("{sent:?}: {other:?}"),
    }
}

#[test]
fn a_route_takes_the_requests_that_meet_its_match() {
    let rules = rules(LIST);
    let of = |target: &str| verdict(&rules, &SentRequest::get(target));
    for target in ["/index.php?action=list", "/index.php?page=2&action=show&x=%2B"] {
        assert_eq!(of(target), "lookup", "{target}");
    }
    for target in ["/index.php", "/index.php?action=save", "/index.php?action="] {
        assert_eq!(of(target), "match not met", "{target}");
    }
    for query in [
        "action=list&action=save",
        "action=save&action=list",
        "%61ction=list",
        "action[]=list",
        "Action=list",
        "action=save&Action=list",
        "action=l%69st",
        "action=list;page=2",
        "action=list%00",
        "action=%FF",
    ] {
        let target = format!("/index.php?{query}");
        assert_eq!(of(&target), "ambiguous match query.action", "{query}");
    }
    assert_eq!(of("/other?action=list"), "no route");
}

#[test]
fn a_parameter_that_is_matched_is_in_the_key_and_reaches_the_origin() {
    let rules = rules(LIST);
    let keys: std::collections::BTreeSet<Vec<u8>> =
        ["action=list", "action=show", "action=list&page=2", "action=show&page=2"]
            .iter()
            .map(|query| key(&rules, &SentRequest::get(&format!("/index.php?{query}"))))
            .collect();
    assert_eq!(keys.len(), 4);
    let sent = SentRequest::get("/index.php?utm=1&action=show&page=2");
    assert_eq!(target(&rules, &sent), "/index.php?page=2&action=show");
    // The next route, too, tells apart by what it is not chosen for.
    let wide = format!(
        "{LIST}[[routes]]\npath = \"/{{*rest}}\"\nttl = \"5m\"\nscope = \"public\"\n\
         query = \"none\"\n"
    );
    let rules = super::rules(&wide);
    let save = SentRequest::get("/index.php?action=save&x=1");
    assert_eq!(name(&rules, &save), "/{*rest}");
    assert_eq!(target(&rules, &save), "/index.php?action=save");
    assert_ne!(key(&rules, &save), key(&rules, &SentRequest::get("/index.php")));
    assert_eq!(
        name(&rules, &SentRequest::get("/index.php?action=list&action=save")),
        "ambiguous match query.action",
        "nobody knows which of the two routes it is for"
    );
}

#[test]
fn a_header_that_is_matched_is_in_the_key_and_reaches_the_origin() {
    let route = |path: &str, more: &str| {
        format!("[[routes]]\npath = \"{path}\"\nttl = \"5m\"\nscope = \"public\"\n{more}\n")
    };
    let text = route("/a", "match = { header.x-flavor = [\"new\", \"old\"] }")
        + &route("/{*rest}", "unknown_headers = \"drop\"");
    let rules = rules(&text);
    let sent = |value: &str| SentRequest::get("/a").with("x-flavor", value);
    assert_eq!(name(&rules, &sent("new")), "/a [header.x-flavor=new|old]");
    assert_ne!(key(&rules, &sent("new")), key(&rules, &sent("old")));
    assert_eq!(filled(&rules, &sent("old"), "x-flavor").as_deref(), Some("old"));
    // Another value goes to the next route, which has it in the key as well.
    assert_eq!(name(&rules, &sent("odd")), "/{*rest}");
    assert_eq!(filled(&rules, &sent("odd"), "x-flavor").as_deref(), Some("odd"));
    assert_ne!(key(&rules, &sent("odd")), key(&rules, &SentRequest::get("/a")));
    for request in [
        sent("new").with("x-flavor", "odd"),
        sent("new, odd"),
        SentRequest::get("/a").with("x_flavor", "new"),
    ] {
        assert_eq!(name(&rules, &request), "ambiguous match header.x-flavor");
    }
    let hidden = sent("new").with("connection", "x-flavor");
    assert_eq!(name(&rules, &hidden), "unkeyed header x-flavor");
}

#[test]
fn a_host_that_is_matched_is_the_one_that_every_program_sees() {
    let rules = rules(
        "[[routes]]\npath = \"/a\"\nttl = \"5m\"\nmatch.host = \"APP.test\"\n\
         [[routes]]\npath = \"/a\"\nttl = \"5m\"\nmatch.host = [\"b.test\", \"c.test\"]\n",
    );
    let get = || SentRequest::get("/a");
    assert_eq!(name(&rules, &get()), "/a [host=APP.test]");
    let other = |host: &str| {
        let mut sent = get();
        sent.headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        name(&rules, &sent)
    };
    assert_eq!(other("c.test:8080"), "/a [host=b.test|c.test]");
    assert_eq!(other("d.test"), "match not met ");
    assert_eq!(other("b.test."), "ambiguous match host");
    assert_eq!(
        name(&rules, &get().with("x-forwarded-host", "b.test").trusted()),
        "ambiguous match host"
    );
}

#[test]
fn routes_are_tried_in_the_order_of_precedence() {
    let route =
        |path: &str, more: &str| format!("[[routes]]\npath = \"{path}\"\nttl = \"5m\"\n{more}\n");
    let routes = [
        route("/{*rest}", ""),
        route("/{page}", "match.query.a = \"1\""),
        route("/x", "match.query.a = [\"1\", \"2\", \"3\"]"),
        route("/x", "match.query = { a = \"1\", b = \"1\" }"),
        route("/x", "match.query.a = \"1\""),
        route("/X", "case = \"ignore\"\nmatch.query.a = \"9\""),
        route("/x", "match.query.a = \"7\""),
    ];
    for turn in 0..routes.len() {
        let mut turned = routes.clone();
        turned.rotate_left(turn);
        let rules = rules(&turned.concat());
        for (target, expected) in [
            ("/x?a=1&b=1", "/x [query.a=1, query.b=1]"),
            ("/x?a=1", "/x [query.a=1]"),
            ("/x?a=2", "/x [query.a=1|2|3]"),
            ("/x?a=7", "/x [query.a=7]"),
            ("/x?a=9", "/X [query.a=9]"),
            ("/X?a=9", "/X [query.a=9]"),
            ("/X?a=1", "/{page} [query.a=1]"),
            ("/x", "/{*rest}"),
            ("/x?a=8", "/{*rest}"),
            ("/y?a=1", "/{page} [query.a=1]"),
            ("/y/z?a=1", "/{*rest}"),
            ("/x?a=1&b=1&b=2", "ambiguous match query.b"),
        ] {
            assert_eq!(name(&rules, &SentRequest::get(target)), expected, "{target}");
        }
    }
}

#[test]
fn what_may_be_a_write_purges_by_any_reading() {
    let rules = rules(&format!("{LIST}{SAVE}"));
    let purged = |target: &str| {
        let sent = SentRequest::new("POST", target);
        let mutation = rules.mutation(&sent.view(), &sent.method, None).unwrap();
        mutation.tags.contains(&Tag::new("list"))
    };
    for query in [
        "action=save",
        "action=list&action=save",
        "action[]=delete",
        "%61ction=s%61ve",
        "ACTION=save",
        "action=save%00x",
        "action=+save",
        "action=%2573ave",
        "action=%FF",
        "x=1;action=save",
    ] {
        assert!(purged(&format!("/index.php?{query}")), "{query}");
    }
    for query in ["", "action=list", "action=saved", "x=save"] {
        assert!(!purged(&format!("/index.php?{query}")), "{query}");
    }
}

#[test]
fn a_match_is_part_of_what_entries_mean() {
    let print = |values: &str| {
        let rules = rules(&format!("[[routes]]\npath = \"/a\"\nttl = \"5m\"\n{values}\n"));
        rules.routes.get(0).expect("a route").fingerprint
    };
    let one = print("match.query.a = [\"1\", \"2\"]");
    assert_eq!(one, print("match.query.a = [\"2\", \"1\"]"));
    for other in ["", "match.query.a = \"1\"", "match.header.a = [\"1\", \"2\"]"] {
        assert_ne!(one, print(other), "{other}");
    }
}

/// What an app finds under `action`: how it splits a query, compares names, decodes, and which of
/// several values it takes.
fn seen_by(app: usize, query: &str) -> Option<String> {
    let decoded = |text: &str, plus: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', plus))
            .decode_utf8_lossy()
            .into_owned()
    };
    let separators: &[char] = if app == 4 { &['&', ';'] } else { &['&'] };
    let values: Vec<String> = query
        .split(separators)
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_named = match app {
                // A web server's own variables.
                0 => name.eq_ignore_ascii_case("action"),
                1 | 4 => decoded(name, " ") == "action",
                2 => decoded(name, " ").eq_ignore_ascii_case("action"),
                // PHP, arrays too.
                _ => {
                    let name = decoded(name, " ");
                    name.trim_start_matches(' ').split(['[', '\0']).next() == Some("action")
                }
            };
            is_named.then(|| match app {
                0 => value.to_owned(),
                3 => decoded(value, "+").split('\0').next().unwrap_or_default().to_owned(),
                5 => decoded(value, " ").trim().to_owned(),
                _ => decoded(value, " "),
            })
        })
        .collect();
    match app {
        0 | 1 => values.first().cloned(),
        2 => (!values.is_empty()).then(|| values.join(",")),
        _ => values.last().cloned(),
    }
}

fn is_on_list(action: &str) -> bool {
    ["list", "show"].contains(&action)
}

proptest::proptest! {
    #[test]
    fn no_app_reads_another_action_than_the_route(
        pairs in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    "action", "Action", "%61ction", "action[]", "+action", "page", "action%00",
                ]),
                proptest::sample::select(vec![
                    "list", "save", "l%69st", "list%00", "list+", "list,save", "LIST", "",
                    "list%2500", "+list", "%20list",
                ]),
                proptest::sample::select(vec!["&", ";", "&&"]),
            ),
            0..4,
        ),
    ) {
        let rules = rules(LIST);
        let query = pairs.iter().map(|(name, value, end)| [name, "=", value, end].concat());
        let query = query.collect::<Vec<_>>().concat();
        let sent = SentRequest::get(&format!("/index.php?{query}"));
        match rules.plan(&sent.view()) {
            Plan::Lookup(lookup) => {
                let FillHead { target, .. } = lookup.fill_request(request_id());
                for app in 0..6 {
                    let seen = seen_by(app, target.query().unwrap_or_default());
                    let is_listed = seen.as_deref().is_some_and(is_on_list);
                    proptest::prop_assert!(is_listed, "{} to app {}: {:?}", query, app, seen);
                    proptest::prop_assert_eq!(&seen, &seen_by(app, &query), "{}", query);
                }
            }
            Plan::Pass(_, outcome) if outcome.reason == Some(Reason::UnmetMatch) => {
                for app in 0..6 {
                    let seen = seen_by(app, &query);
                    let is_listed = seen.as_deref().is_some_and(is_on_list);
                    proptest::prop_assert!(!is_listed, "{} to app {}: {:?}", query, app, seen);
                }
            }
            Plan::Pass(_, outcome) => proptest::prop_assert!(matches!(
                outcome.reason,
                Some(Reason::AmbiguousMatch | Reason::AmbiguousQuery)
            )),
            other => panic!("{query}: {other:?}"),
        }
    }
}
