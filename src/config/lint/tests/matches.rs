//! Lint of routes that can never match.

use super::*;

fn file(rules: &str) -> String {
    format!(
        "{rules}[[purges]]\npath = \"/w\"\ntags = [\"x\"]\n[tags]\nresponse_headers = [\"xkey\"]\n"
    )
}

fn route(conditions: &str) -> String {
    format!("[[routes]]\npath = \"/a\"\nttl = \"5m\"\nscope = \"public\"\nmatch = {conditions}\n")
}

#[test]
fn a_route_of_which_others_take_all_requests() {
    let (list, show) = (route("{ query.a = \"list\" }"), route("{ query.a = \"show\" }"));
    let both = route("{ query.a = [\"list\", \"show\"] }");
    one(
        &file(&[both.clone(), list.clone(), show].concat()),
        "{ query.a = [\"list\", \"show\"] }",
        "this route can never match",
        "remove it",
    );
    silent(&file(&[both, list].concat()));
}

#[test]
fn a_route_whose_requests_are_all_writes() {
    let purge = |conditions: &str| {
        format!(
            "[[purges]]\npath = \"/{{*rest}}\"\nmethods = [\"GET\"]\ntags = [\"x\"]\n\
             match = {conditions}\n"
        )
    };
    let list = route("{ query.a = \"list\" }");
    one(
        &file(&(list.clone() + &purge("{ query.a = [\"save\", \"list\"] }"))),
        "{ query.a = \"list\" }",
        "is a write by the purge rule at line 9",
        "different values",
    );
    silent(&file(&(list + &purge("{ query.a = \"save\" }"))));
}
