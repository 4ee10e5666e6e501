//! `match` of a route.

use super::cases::{one, route};
use super::parse;

const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";

fn matched(conditions: &str) -> String {
    format!("[[routes]]\npath = \"/a\"\nttl = \"5m\"\nmatch = {conditions}\n")
}

#[test]
fn values_are_one_or_a_list_and_have_one_order() {
    let text = matched(
        "{ query.b = [\"2\", \"1\"], query.a = \"x\", host = \"A.test\", header.X-Y = \"z, \" }",
    );
    let text = text.replace("z, ", "z");
    let config = parse(&format!("{HEAD}{text}")).unwrap_or_else(|problems| panic!("{problems}"));
    let route = config.routes.iter().next().expect("a route");
    assert_eq!(route.name(), "/a [header.X-Y=z, host=A.test, query.a=x, query.b=1|2]");
    let conditions = &route.spec.conditions;
    let values: Vec<(String, Vec<&str>)> = conditions
        .conditions()
        .map(|(condition, values)| {
            (condition.to_string(), values.iter().map(|value| &**value).collect())
        })
        .collect();
    let expected = [
        ("query.a", vec!["x"]),
        ("query.b", vec!["1", "2"]),
        ("header.x-y", vec!["z"]),
        ("host", vec!["a.test"]),
    ];
    assert_eq!(values, expected.map(|(name, values)| (name.to_owned(), values)));
}

#[test]
fn conditions_that_no_key_can_hold_are_refused() {
    let rejected = |conditions: &str, column: usize, text: &str| {
        route(&format!("match = {conditions}"), 1, column, text);
    };
    rejected("{}", 9, "has no conditions");
    rejected("{ query.a = [] }", 21, "the list has no value");
    rejected("{ query.a = [\"x\", \"x\"] }", 27, "listed twice");
    rejected("{ query.a = \"x*\" }", 21, "`*` stands for no other text");
    rejected("{ query.a = 5 }", 21, "a string is needed");
    rejected("{ header.Cookie = \"a\" }", 18, "says who asks");
    rejected("{ header.authorization = \"a\" }", 18, "says who asks");
    rejected("{ header.host = \"a\" }", 18, "write match = { host");
    rejected("{ header.accept = \"a\" }", 18, "in a normal form");
    rejected("{ header.x-forwarded-host = \"a\" }", 18, "trusted proxies alone");
    rejected("{ header.x-real-ip = \"a\" }", 18, "does not reach the origin");
    rejected("{ header.range = \"a\" }", 18, "does not reach the origin");
    rejected("{ header.x-a = \"a, b\" }", 24, "no request can match this");
    rejected("{ host = \"a.test.\" }", 18, "no request can match this");
    route(
        "match = { header.x-a = \"1\" }\ndrop_headers = [\"x-a*\"]",
        2,
        17,
        "`match` chooses the route by it",
    );
    route(
        "match = { header.x-a = \"1\" }\npass_headers = [\"x-a\"]",
        2,
        17,
        "`match` chooses the route by it",
    );
    route(
        "match = { query.a = \"1\" }\nquery = { except = [\"a\"] }",
        2,
        21,
        "`match` chooses the route by it",
    );
    let many: Vec<String> = (0..17).map(|at| format!("query.a{at} = \"1\"")).collect();
    rejected(&format!("{{ {} }}", many.join(", ")), 9, "more than 16 conditions");
    let many: Vec<String> = (0..65).map(|at| format!("\"{at}\"")).collect();
    rejected(&format!("{{ query.a = [{}] }}", many.join(", ")), 21, "more than 64 values");
}

#[test]
fn a_host_is_not_matched_where_all_hosts_are_one() {
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\nhost_key = \"app\"\n".to_owned()
        + &matched("{ host = \"a.test\" }");
    let problems = parse(&text).expect_err("both cannot be");
    let shown = problems.to_string();
    assert!(shown.contains("makes all hosts one") && shown.contains(":7:18"), "{shown}");
}

#[test]
fn two_routes_that_one_request_may_meet_are_an_error() {
    let two = |one: &str, other: &str| matched(one) + &matched(other);
    for (first, second, text) in [
        ("{ query.a = \"1\" }", "{ query.a = \"1\" }", "neither is narrower"),
        ("{ query.a = \"1\" }", "{ query.b = \"1\" }", "neither is narrower"),
        ("{ query.a = [\"1\", \"2\"] }", "{ query.a = [\"2\", \"3\"] }", "neither is narrower"),
    ] {
        one(&two(first, second), 6, 8, text);
    }
    for (first, second) in [
        ("{ query.a = \"1\" }", "{ query.a = \"2\" }"),
        ("{ query.a = \"1\" }", "{ query = { a = \"1\", b = \"1\" } }"),
        ("{ host = \"a.test\" }", "{ host = \"b.test\" }"),
    ] {
        let text = format!("{HEAD}{}", two(first, second));
        parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    }
    let plain = "[[routes]]\npath = \"/a\"\nttl = \"5m\"\n";
    assert!(parse(&format!("{HEAD}{}{plain}", matched("{ query.a = \"1\" }"))).is_ok());
    one(&plain.repeat(2), 5, 8, "tell their requests apart by `match`");
}

#[test]
fn a_path_has_a_limited_number_of_routes() {
    let text = |count: usize| -> String {
        (0..count).map(|at| matched(&format!("{{ query.a = \"{at}\" }}"))).collect()
    };
    assert!(parse(&format!("{HEAD}{}", text(128))).is_ok());
    one(&text(129), 128 * 4 + 2, 8, "more than 128 routes");
}
