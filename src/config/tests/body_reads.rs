//! `methods` and `read_only` of routes: which belong together, and what a key may have of a body.

use super::cases::route;
use super::{diagnostics, parse};
use crate::policy::field::FieldSource;

fn route_of(keys: &str) -> crate::policy::route::RouteSpec {
    let text = format!(
        "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\nid = {{ body = \"/f/id\" }}\n\
         [[routes]]\npath = \"/a\"\n{keys}\n"
    );
    let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    config.routes.get(0).expect("a route").spec.clone()
}

#[test]
fn methods_and_read_only_go_together() {
    let key = "key = [\"body\"]";
    route(&format!("methods = [\"POST\"]\n{key}"), 1, 11, "add read_only = true");
    route(&format!("methods = [\"GET\", \"QUERY\"]\n{key}"), 1, 11, "a QUERY may change data");
    route(&format!("methods = [\"POST\"]\nread_only = false\n{key}"), 1, 11, "read_only = true");
    route("read_only = true", 1, 13, "add methods = [\"POST\"], or remove it");
    route("methods = [\"GET\"]\nread_only = true", 2, 13, "no effect");
    route("methods = []", 1, 11, "answers nothing");
    route("methods = [\"HEAD\"]", 1, 12, "\"GET\", which is for both");
    route("methods = [\"Get\"]", 1, 12, "write \"GET\"");
    route("methods = [\"DELETE\"]", 1, 12, "is no method of a read");
    route("methods = [\"GET\", \"GET\"]", 1, 19, "listed twice");
    route("methods = \"POST\"", 1, 11, "list");
}

#[test]
fn a_key_has_the_body_or_a_member_of_it() {
    let reads = "methods = [\"POST\"]\nread_only = true\n";
    route(reads, 1, 11, "write key = [\"body\"]");
    route(&format!("{reads}key = [\"tenant\"]"), 3, 7, "write key = [\"body\"]");
    route(&format!("{reads}key = [\"body?\"]"), 3, 9, "is not a field");
    route(&format!("{reads}key = [\"body\"]\ntags = [\"x:{{body}}\"]"), 4, 13, "is not a field");
    route(&format!("{reads}key = [\"body\"]\npass_headers = [\"content-type\"]"), 4, 17, "type");
    route("key = [\"body\"]", 1, 9, "is not a field");
    route("key = [\"form\"]", 1, 9, "which this route does not read");
    let spec = route_of(&format!("{reads}key = [\"body\"]"));
    assert_eq!(spec.key[0].source, FieldSource::Body("".into()));
    assert!(!spec.methods.get);
    let spec = route_of(&format!("{reads}key = [\"id?\"]\ntags = [\"x:{{id?}}\"]"));
    assert!(spec.key[0].is_optional);
    assert_eq!(route_of("").methods, crate::policy::route::ReadMethods::default());
}

#[test]
fn a_field_of_this_name_is_meant_where_there_is_one() {
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
                [fields]\nbody = { body = \"/x\" }\n\
                [[routes]]\npath = \"/a\"\nmethods = [\"POST\"]\nread_only = true\n\
                key = [\"body\"]\n";
    let config = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    let spec = &config.routes.get(0).expect("a route").spec;
    assert_eq!(spec.key[0].source, FieldSource::Body("/x".into()));
}

#[test]
fn a_key_takes_one_value_and_not_every_element() {
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n\
                [fields]\nids = { body = \"/ids/*\" }\n\
                [[routes]]\npath = \"/a\"\nmethods = [\"POST\"]\nread_only = true\n\
                key = [\"ids\"]\n";
    assert!(diagnostics(text).to_string().contains("has several values"));
}

#[test]
fn defaults_give_no_word_for_all_routes() {
    for keys in ["read_only = true", "methods = [\"POST\"]\nread_only = true"] {
        let text = format!(
            "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[defaults]\n{keys}\n\
             [[routes]]\npath = \"/a\"\nkey = [\"body\"]\n"
        );
        let found = diagnostics(&text).to_string();
        assert!(found.contains("is said for one route"), "{found}");
    }
}

#[test]
fn a_limit_has_bounds() {
    let with = |limit: &str| {
        format!("[upstream]\nurl = \"http://127.0.0.1:8000\"\n[limits]\nread_body = \"{limit}\"\n")
    };
    assert!(parse(&with("1MiB")).is_ok());
    for bad in ["0", "2MiB"] {
        assert!(diagnostics(&with(bad)).to_string().contains("1MiB"), "{bad}");
    }
}

#[test]
fn a_graphql_endpoint_needs_no_other_word() {
    let graphql = "graphql = true\n";
    route(&format!("{graphql}methods = [\"POST\"]"), 2, 11, "has no place beside `graphql`");
    route(&format!("{graphql}read_only = true"), 2, 13, "has no place beside `graphql`");
    route(
        &format!("{graphql}scope = \"shared\"\nadmit = \"route\""),
        3,
        9,
        "answers 200 to callers whom it refuses",
    );
    route(&format!("{graphql}pass_headers = [\"content-type\"]"), 2, 17, "type of a body");
    route("grapql = true", 1, 1, "graphql");
    let spec = route_of(&format!("{graphql}query = \"none\""));
    assert!(spec.graphql && spec.methods.get && spec.methods.with_body.len() == 1);
    assert_eq!(spec.key[0].source, FieldSource::Body("".into()));
    let spec = route_of(&format!("{graphql}key = [\"body\", \"id?\"]"));
    assert_eq!(spec.key.len(), 2);
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[defaults]\ngraphql = true\n\
                [[routes]]\npath = \"/a\"\n";
    assert!(diagnostics(text).to_string().contains("is said for one route"));
}

#[test]
fn a_purge_rule_names_root_fields_of_mutations() {
    let with = |mutations: &str| {
        format!(
            "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[[routes]]\npath = \"/a\"\n\
             graphql = true\ntags = [\"x\"]\n[[purges]]\npath = \"/a\"\ntags = [\"x\"]\n\
             mutations = {mutations}\n"
        )
    };
    let config = parse(&with("[\"createOrder\", \"update*\"]")).expect("a file");
    assert_eq!(config.purges[0].mutations.as_ref().map(|globs| globs.len()), Some(2));
    assert!(config.purges[0].reads_body());
    for (mutations, what) in [
        ("[]", "never applies"),
        ("[\"createOrder(id)\"]", "is no name of a field"),
        ("[\"\"]", "this name is empty"),
        ("[\"a\", \"a\"]", "twice"),
        ("\"a\"", "list"),
    ] {
        let found = diagnostics(&with(mutations)).to_string();
        assert!(found.contains(what), "{mutations}: {found}");
    }
}

/// Clients choose the names of variables and the aliases of fields.
#[test]
fn r1263_tags_of_an_endpoint_read_neither_bodies_nor_answers() {
    let fields = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[fields]\n\
                  id = { body = \"/variables/id\" }\ntenant = { header = \"x-tenant\" }\n";
    let with = |tags: &str| {
        format!("{fields}[[routes]]\npath = \"/{{part}}/graphql\"\ngraphql = true\ntags = {tags}\n")
    };
    let fits = with("[\"orders:{tenant}:{part}\", \"all\"]");
    parse(&fits).unwrap_or_else(|problems| panic!("{problems}"));
    for tags in ["[\"all\", \"order:{id}\"]", "[\"order:{id?}\"]"] {
        let found = diagnostics(&with(tags)).to_string();
        assert!(found.contains("`id` comes from the body of a GraphQL request"), "{found}");
        assert!(found.contains("header, cookie, token or path"), "{found}");
    }
    let found = diagnostics(&with("[\"order:{response:/data/orders/*/id}\"]")).to_string();
    assert!(found.contains("comes from the answer of a GraphQL server"), "{found}");
}

#[test]
fn r1264_a_rule_with_mutations_reads_no_answer() {
    let text = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[[routes]]\npath = \"/a\"\n\
                graphql = true\ntags = [\"x\"]\n[[purges]]\npath = \"/a\"\n\
                tags = [\"x\", \"o:{response:/data/setOrder/id}\"]\nmutations = [\"setOrder\"]\n";
    let found = diagnostics(text).to_string();
    assert!(found.contains("comes from the answer of a GraphQL server"), "{found}");
    assert!(found.contains("/variables/"), "{found}");
    assert!(parse(&text.replace("mutations = [\"setOrder\"]\n", "")).is_ok());
}
