//! `query` of a route as a table.

use super::cases::{one, route, warning};
use super::parse;
use crate::policy::query_rule::{QueryOrder, QueryRule};

fn rule(query: &str) -> QueryRule {
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[[routes]]\npath = \"/a\"\nquery = {query}\n"
    );
    let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    config.routes.iter().next().expect("a route").spec.query.clone()
}

#[test]
fn words_lists_and_tables_say_what_counts() {
    assert_eq!(rule("\"all\""), QueryRule::All);
    assert_eq!(rule("\"none\""), QueryRule::None);
    assert_eq!(rule("{ only = [\"a\"] }"), rule("[\"a\"]"));
    assert_eq!(rule("{ except = [] }"), QueryRule::All);
    let QueryRule::Most(most) = rule("{ except = [\"utm_*\"], order = \"ignore\" }") else {
        panic!("it has exceptions")
    };
    assert!(most.leaves_out("utm_source") && !most.leaves_out("utm"));
    assert_eq!(most.order, QueryOrder::Ignore);
}

#[test]
fn mistakes_in_a_table_are_pointed_at() {
    route("query = { except = [\"*\"] }", 1, 21, "query = \"none\"");
    route("query = { except = [\"?a\"] }", 1, 21, "write only the name");
    route("query = { except = [\"a\", \"a\"] }", 1, 26, "listed twice");
    route("query = { only = [\"a*\"] }", 1, 19, "leave out what matches");
    route("query = { only = [\"a\"], except = [\"b\"] }", 1, 34, "contradict each other");
    route("query = { order = \"any\" }", 1, 19, "\"keep\" or \"ignore\"");
    route("query = { expect = [\"a\"] }", 1, 11, "did you mean `except`?");
    route("query = 5", 1, 9, "or a table such as");
    one(
        "[[routes]]\npath = \"/b\"\nquery = { except = [\"page\"] }\nkey = [\"page\"]\n\
         [fields.page]\nquery = \"page\"\n",
        3,
        21,
        "the field `page` in the key or tags reads it",
    );
    warning(
        "[[routes]]\npath = \"/b\"\nquery = { only = [\"a\"], order = \"ignore\" }\n",
        3,
        "no effect with `only`",
    );
}
