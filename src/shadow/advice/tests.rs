//! Tests of the advice for given findings.

use std::sync::Arc;

use crate::clock::Wall;
use crate::config::Config;
use crate::policy::route::Routes;
use crate::policy::rule_place::RulePlace;
use crate::shadow::findings::{ScopeEvidence, Sighting};
use crate::shadow::mutations::Suspect;

use super::*;

const FIELDS: &str = "
[upstream]
url = \"http://127.0.0.1:8000\"
[fields]
tenant = { header = \"x-tenant-id\" }
token = { auth = \"token\" }
";

fn routes(text: &str) -> Routes {
    let config = Config::parse(&format!("{FIELDS}{text}"), "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    config.routes
}

/// The findings of a route: each change with the writes before it.
struct RouteFindings<'a> {
    path: &'a str,
    changes: &'a [&'a [&'a str]],
}

fn findings(changes: &[&[&str]]) -> Findings {
    let mut findings = Findings::default();
    for (key, after) in (0u128..).zip(changes) {
        let suspect =
            |path: &&str| Suspect { method: Method::PUT, path: (*path).into(), at: Wall(0) };
        let after = after.iter().map(suspect).collect();
        let change = StaleChange {
            id: 0,
            key,
            path: "/seen".into(),
            at: Wall(9),
            age: Duration::ZERO,
            after,
            responses: 0,
            tags: Box::default(),
            late: None,
        };
        findings.change(change);
    }
    findings
}

fn advice(text: &str, found: &[RouteFindings<'_>]) -> Vec<Advice> {
    let routes = routes(text);
    let subjects: Vec<Subject<'_>> = routes
        .iter()
        .filter_map(|route: &Arc<Route>| {
            let found = found.iter().find(|found| found.path == route.name())?;
            Some(Subject {
                route,
                findings: findings(found.changes),
                place: Some(RulePlace::in_main(route.id + 1)),
            })
        })
        .collect();
    let advice = advise(&subjects);
    for advice in &advice {
        assert!(advice.toml.parse::<toml::Table>().is_ok(), "{}", advice.toml);
    }
    advice
}

fn rule(path: &str, tags: &str) -> String {
    format!("[[purges]]\npath = \"{path}\"\ntags = {tags}\n")
}

fn tomls(advice: &[Advice]) -> Vec<&str> {
    advice.iter().map(|advice| &*advice.toml).collect()
}

const DEMO: &str = "
[[routes]]
path = \"/api/v1/forms/{*rest}\"
ttl = \"5m\"
key = [\"tenant\"]
tags = [\"forms:{tenant}\"]
[[routes]]
path = \"/api/v1/dashboard\"
ttl = \"30s\"
key = [\"tenant\"]
tags = [\"campaigns:{tenant}\", \"forms:{tenant}\"]
";

#[test]
fn a_missing_rule_is_written_out_once_for_all_routes_that_need_it() {
    let forms = RouteFindings {
        path: "/api/v1/forms/{*rest}",
        changes: &[&["/api/v1/forms/7"], &["/api/v1/forms/8"]],
    };
    let dashboard = RouteFindings { path: "/api/v1/dashboard", changes: &[&["/api/v1/forms/7"]] };
    let expected = rule("/api/v1/forms/{*rest}", "[\"forms:{tenant}\"]");
    let both = advice(DEMO, &[forms, dashboard]);
    assert_eq!(tomls(&both), [&*expected]);
    assert_eq!(
        both[0].why,
        "3 responses would have been stale after PUT /api/v1/forms/8: 2 of /api/v1/forms/{*rest}, \
         1 of /api/v1/dashboard"
    );
    assert_eq!((&*both[0].route, both[0].line), ("/api/v1/forms/{*rest}", Some(1)));
    // If several tags would do, the one named like the path.
    let alone = advice(
        DEMO,
        &[RouteFindings { path: "/api/v1/dashboard", changes: &[&["/api/v1/forms/7"]] }],
    );
    assert_eq!(tomls(&alone), [&*expected]);
    assert_eq!(alone[0].why, "1 response would have been stale after PUT /api/v1/forms/7");
}

#[test]
fn the_write_that_explains_most_is_blamed() {
    let busy: &[&[&str]] = &[
        &["/log/1", "/api/v1/forms/7"],
        &["/api/v1/forms/8", "/metrics"],
        &["/log/2", "/api/v1/forms"],
        &["/api/v1/forms/1", "/log/3"],
    ];
    let found = advice(DEMO, &[RouteFindings { path: "/api/v1/dashboard", changes: busy }]);
    assert_eq!(tomls(&found), [&*rule("/api/v1/forms/{*rest}", "[\"forms:{tenant}\"]")]);
    // If two writes explain equally many changes, the one closer to the route.
    let either = advice(
        DEMO,
        &[RouteFindings {
            path: "/api/v1/forms/{*rest}",
            changes: &[&["/log", "/api/v1/forms/7"]],
        }],
    );
    assert_eq!(tomls(&either), [&*rule("/api/v1/forms/{*rest}", "[\"forms:{tenant}\"]")]);
}

#[test]
fn paths_are_cut_at_ids() {
    let route = |path: &str| {
        format!(
            "[[routes]]\npath = \"{path}\"\nttl = \"1m\"\nkey = [\"tenant\"]\n\
             tags = [\"x:{{tenant}}\"]\n"
        )
    };
    let elsewhere = [
        (&["/orders/12/lines/3"][..], "/orders/{*rest}"),
        (&["/orders"], "/orders/{*rest}"),
        (&["/orders/3f2504e0-4f89-11d3-9a0c-0305e82c3301/pay"], "/orders/{*rest}"),
        (&["/orders/5f43a2b1c9"], "/orders/{*rest}"),
        (&["/orders/12-blue-shoes"], "/orders/{*rest}"),
        (&["/v2/orders/cancel"], "/v2/orders/cancel/{*rest}"),
        (&["/pages/home", "/pages/about", "/pages/team"], "/pages/{*rest}"),
        (&["/7/x"], "/{*rest}"),
        (&["/a/{b}"], "/a/{*rest}"),
        (&["/a%2F../b/%7Bx"], "/b/{*rest}"),
    ];
    for (writes, expected) in elsewhere {
        let changes: Vec<&[&str]> = writes.iter().map(std::slice::from_ref).collect();
        let found =
            advice(&route("/board"), &[RouteFindings { path: "/board", changes: &changes }]);
        assert_eq!(tomls(&found), [&*rule(expected, "[\"x:{tenant}\"]")], "{writes:?}");
    }
    let near = [
        ("/api/pages", "/api/pages/home/edit", "/api/pages/{*rest}"),
        ("/api/pages/{id}", "/api/pages/9", "/api/pages/{*rest}"),
        ("/t/{t}/pages/{*rest}", "/t/acme/pages/home", "/t/{t}/pages/{*rest}"),
        ("/{slug}", "/home", "/home/{*rest}"),
    ];
    for (path, write, expected) in near {
        let found = advice(&route(path), &[RouteFindings { path, changes: &[&[write]] }]);
        assert_eq!(tomls(&found), [&*rule(expected, "[\"x:{tenant}\"]")], "{path} {write}");
    }
}

#[test]
fn tags_that_a_write_cannot_name_are_not_advised() {
    let route = |tags: &str| {
        format!(
            "[[routes]]\npath = \"/api/pages/{{id}}\"\nttl = \"1m\"\nkey = [\"tenant\"]\n{tags}\n"
        )
    };
    let changes: &[&[&str]] = &[&["/api/pages/9"]];
    let found =
        |tags: &str| advice(&route(tags), &[RouteFindings { path: "/api/pages/{id}", changes }]);
    let expected = rule("/api/pages/{*rest}", "[\"all:{tenant}\"]");
    assert_eq!(tomls(&found("tags = [\"page:{tenant}:{id}\", \"all:{tenant}\"]")), [&*expected]);
    // The route has no tag yet.
    let new = rule("/api/pages/{*rest}", "[\"pages:{tenant}\"]");
    let both = found("");
    assert_eq!(tomls(&both), ["tags = [\"pages:{tenant}\"]\n", &new]);
    assert_eq!(both[0].line, Some(1));
    assert_eq!(
        tomls(&found("tags = [\"page:{id}\"]")),
        ["tags = [\"page:{id}\", \"pages:{tenant}\"]\n", &new]
    );
}

fn advice_for(text: &str, findings: &Findings) -> Vec<Advice> {
    let routes = routes(text);
    let subjects: Vec<Subject<'_>> = routes
        .iter()
        .map(|route| Subject {
            route,
            findings: findings.clone(),
            place: Some(RulePlace::in_main(4)),
        })
        .collect();
    advise(&subjects)
}

#[test]
fn a_scope_that_mixes_callers_is_made_private() {
    let mut findings = Findings::default();
    findings.record_scope(Sighting {
        key: 1,
        path: "/d".into(),
        evidence: ScopeEvidence::Bodies,
        at: Wall(0),
    });
    for scope in ["shared", "public"] {
        let text = format!(
            "[[routes]]\npath = \"/d\"\nttl = \"1m\"\nscope = \"{scope}\"\nkey = [\"tenant\"]\n"
        );
        let found = advice_for(&text, &findings);
        assert_eq!((tomls(&found), found[0].line), (vec!["scope = \"private\"\n"], Some(4)));
        assert!(
            found[0]
                .why
                .starts_with("1 response would have been another caller's: the body of /d differs"),
            "{}",
            found[0].why
        );
    }
    let chosen = advice_for(
        "[[routes]]\npath = \"/d\"\nttl = \"1m\"\nkey = [\"tenant\", \"token\"]\n",
        &findings,
    );
    // A field leaves a key by the operator's hand alone.
    assert_eq!(tomls(&chosen), [""]);
    assert!(chosen[0].why.contains("identity field in its key (token)"), "{}", chosen[0].why);
}

#[test]
fn volatile_routes_are_turned_off_and_unexplained_changes_shorten_the_ttl() {
    let text = "[[routes]]\npath = \"/d\"\nttl = \"1m\"\nkey = [\"tenant\"]\n";
    let mut volatile = findings(&[&[]]);
    volatile.turn_volatile(0, 0, 0);
    let found = advice_for(text, &volatile);
    assert_eq!(tomls(&found), ["mode = \"off\"\n"]);
    assert!(found[0].why.contains("changes what clients see"), "{}", found[0].why);
    assert_eq!(tomls(&advice_for(text, &findings(&[&[]]))), ["ttl = \"10s\"\n"]);
    assert!(advice_for(&text.replace("1m", "5s"), &findings(&[&[]])).is_empty());
    assert!(advice_for(text, &Findings::default()).is_empty());
}
