//! Lint of routes that answer requests with a body.

use super::*;

#[test]
fn a_purge_rule_takes_for_a_write_what_a_route_takes_for_a_read() {
    let with = |rule: &str| {
        format!(
            "[[routes]]\npath = \"/search\"\nttl = \"5m\"\nscope = \"public\"\n\
             methods = [\"POST\"]\nread_only = true\nkey = [\"body\"]\ntags = [\"x\"]\n\
             [[purges]]\npath = \"/{{*rest}}\"\ntags = [\"x\"]\n{rule}\n"
        )
    };
    silent(&with(""));
    silent(&with("methods = [\"PUT\", \"PATCH\", \"DELETE\"]"));
    let both = "methods = [\"PUT\", \"PATCH\", \"DELETE\", \"POST\"]";
    one(&with(both), "[\"POST\"]", "names POST", "`except`");
    silent(&with(&format!("{both}\nexcept = [\"/search\"]")));
}

#[test]
fn r1266_a_rule_for_mutations_is_for_post() {
    let with = |methods: &str| {
        format!(
            "[[routes]]\npath = \"/graphql\"\nttl = \"5m\"\nscope = \"public\"\n\
             graphql = true\ntags = [\"x\"]\n\
             [[purges]]\npath = \"/graphql\"\ntags = [\"x\"]\nmutations = [\"a\"]\n{methods}\n"
        )
    };
    silent(&with(""));
    silent(&with("methods = [\"PUT\", \"POST\"]"));
    one(&with("methods = [\"PUT\"]"), "[\"PUT\"]", "come by POST", "\"POST\"");
}
