//! Mutations: which tags they purge, however the path and the method are disguised.

use std::time::Duration;

use super::*;
use crate::policy::body_fields::BodyFields;
use crate::policy::purge_rule::MutationGuard;

const RULES: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }
where  = { query = "where" }
named  = { body = "/campaign/id" }
flat   = { body = "/flat" }

[[routes]]
path = "/campaigns/{id}"
ttl  = "5m"
tags = ["campaign:{id}"]

[[purges]]
path = "/campaigns/{id}"
methods = ["PUT", "PATCH"]
tags = ["campaign:{id}", "all:{tenant}"]

[[purges]]
path = "/campaigns/{id}"
methods = ["DELETE"]
tags = ["gone:{id}"]
guard = "bypass"
repurge_after = ["1s", "5s"]

[[purges]]
path = "/batch"
tags = ["campaign:{named}", "flat:{flat}", "place:{where}"]
"#;

fn tags(rules: &PolicyRules, sent: &SentRequest, body: Option<&BodyFields>) -> Vec<String> {
    mutation(rules, sent, body)
        .tags
        .iter()
        .map(ToString::to_string)
        .filter(|tag| !tag.starts_with("uri:") && !tag.starts_with("origin family"))
        .collect()
}

fn mutation(rules: &PolicyRules, sent: &SentRequest, body: Option<&BodyFields>) -> Mutation {
    rules
        .mutation(&sent.view(), &effective(rules, sent), body)
        .unwrap_or_else(|header| panic!("{header} is ambiguous"))
}

/// The method that the plan names.
fn effective(rules: &PolicyRules, sent: &SentRequest) -> Method {
    match rules.plan(&sent.view()) {
        Plan::Mutate(method) => method,
        other => panic!("{sent:?} is not a mutation: {other:?}"),
    }
}

fn put(target: &str) -> SentRequest {
    SentRequest::new("PUT", target).with("x-tenant-id", "acme")
}

#[test]
fn captures_and_fields_make_the_tags() {
    let rules = rules(RULES);
    let purged = mutation(&rules, &put("/campaigns/7"), None);
    assert_eq!(tags(&rules, &put("/campaigns/7"), None), ["all:acme", "campaign:7"]);
    assert!(
        purged.tags.iter().any(|tag| tag.as_str() == "uri:app.test/campaigns/7"),
        "{:?}",
        purged.tags
    );
    assert!(purged.covered && !purged.uncovered_cached_path && purged.missing.is_empty());
    assert_eq!((purged.guard, purged.repurge_after.len()), (MutationGuard::Mark, 0));
    assert_eq!(tags(&rules, &put("/campaigns/a%20b"), None), ["all:acme", "campaign:a%20b"]);
    let delete = mutation(&rules, &SentRequest::new("DELETE", "/campaigns/7"), None);
    assert_eq!(delete.guard, MutationGuard::Bypass);
    assert_eq!(delete.repurge_after, [Duration::from_secs(1), Duration::from_secs(5)]);
}

#[test]
fn the_tags_of_a_write_are_those_of_the_read() {
    let rules = rules(RULES);
    for path in [
        "/campaigns/7",
        "/campaigns/a%20b",
        "/campaigns/%C3%BC",
        "/campaigns/a:b",
        "/campaigns/%41",
    ] {
        let get = SentRequest::get(path);
        let read = lookup(&rules, &get).tags();
        let write = mutation(&rules, &put(path), None).tags;
        assert!(
            read.iter().all(|tag| tag.is_auxiliary() || write.contains(tag)),
            "{path}: {read:?} is not all in {write:?}"
        );
    }
}

#[test]
fn a_missing_field_is_listed_and_the_families_of_its_tags_are_purged() {
    let rules = rules(RULES);
    let sent = SentRequest::new("PUT", "/campaigns/7");
    let purged = mutation(&rules, &sent, None);
    assert_eq!(purged.missing.iter().map(|name| &**name).collect::<Vec<_>>(), ["tenant"]);
    assert_eq!(tags(&rules, &sent, None), ["campaign:7", "family all:{}"]);
    let missing = mutation(&rules, &SentRequest::new("POST", "/batch"), None).missing;
    assert_eq!(missing.iter().map(|name| &**name).collect::<Vec<_>>(), ["flat", "named", "where"]);
    let repeated = SentRequest::new("POST", "/batch?where=x&where=y");
    assert_eq!(
        tags(&rules, &repeated, None),
        ["family campaign:{}", "family flat:{}", "place:x", "place:y"],
        "both are purged, because the origin may read either"
    );
}

#[test]
fn bodies_are_read_where_a_rule_asks_for_it() {
    let rules = rules(RULES);
    let post = SentRequest::new("POST", "/batch?where=rome");
    assert!(rules.mutation_reads_body(&post.view(), &Method::POST));
    assert!(!rules.mutation_reads_body(&put("/campaigns/7").view(), &Method::PUT));
    let json =
        BodyFields::parse(b"application/json", br#"{"campaign":{"id":7},"flat":"x"}"#).unwrap();
    assert_eq!(tags(&rules, &post, Some(&json)), ["campaign:7", "flat:x", "place:rome"]);
    let form =
        BodyFields::parse(b"application/x-www-form-urlencoded", b"flat=y&campaign=1").unwrap();
    assert_eq!(tags(&rules, &post, Some(&form)), ["family campaign:{}", "flat:y", "place:rome"]);
    assert_eq!(tags(&rules, &post, None), ["family campaign:{}", "family flat:{}", "place:rome"]);
}

#[test]
fn a_disguised_path_still_matches_its_rule() {
    let rules = rules(RULES);
    for path in [
        "/campaigns%2f7",
        "/campaigns//7",
        "//campaigns/7",
        "/campaigns;v=2/7;w",
        "/./campaigns/7",
        "/x/../campaigns/7",
        "/campaigns/x/%2e%2e/7",
        "/campaigns%5c7",
        "/campaigns/7/",
        "/campaigns%252f7",
        "/campaigns/7%00.css",
        "/campaigns/%37",
    ] {
        let seen = tags(&rules, &put(path), None);
        assert!(
            ["all:acme", "campaign:7"].iter().all(|tag| seen.iter().any(|seen| seen == tag)),
            "{path}: {seen:?}"
        );
        let purged = mutation(&rules, &put(path), None);
        assert!(
            purged.tags.iter().any(|tag| tag.as_str() == "uri:app.test/campaigns/7"),
            "{path}: {:?}",
            purged.tags
        );
    }
}

#[test]
fn an_overridden_method_counts_as_well_as_the_one_on_the_request_line() {
    let rules = rules(RULES);
    let post = |target: &str| SentRequest::new("POST", target);
    assert_eq!(tags(&rules, &post("/campaigns/7"), None), Vec::<String>::new());
    for sent in [
        post("/campaigns/7").with("x-http-method-override", "DELETE"),
        post("/campaigns/7").with("x-method-override", "delete"),
        post("/campaigns/7").with("x-http-method", "Delete"),
        post("/campaigns/7?_method=DELETE"),
        post("/campaigns/7?x=1&_method=delete"),
        post("/campaigns/7?%5fmethod=delete"),
        post("/campaigns/7?_m%65thod=DELETE"),
        post("/campaigns/7?_METHOD=DELETE"),
        post("/campaigns/7?_method[]=DELETE"),
        post("/campaigns/7?.method=DELETE"),
        post("/campaigns/7?a=1;_method=DELETE"),
        post("/campaigns/7").with("x_http_method_override", "DELETE"),
        SentRequest::new("delete", "/campaigns/7"),
    ] {
        assert_eq!(tags(&rules, &sent, None), ["gone:7"], "{sent:?}");
    }
    // The origin may support the override or not, so both rules apply.
    let both = put("/campaigns/7").with("x-http-method-override", "DELETE");
    assert_eq!(tags(&rules, &both, None), ["all:acme", "campaign:7", "gone:7"]);
}

#[test]
fn a_write_to_a_cached_path_without_a_rule_is_noticed() {
    let rules = rules(RULES);
    let post = mutation(&rules, &SentRequest::new("POST", "/campaigns/7"), None);
    assert!(!post.covered && post.uncovered_cached_path);
    assert_eq!(
        post.tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
        ["uri:app.test/campaigns/7"],
        "a mutation always purges its own URI"
    );
    assert!(!mutation(&rules, &SentRequest::new("POST", "/elsewhere"), None).uncovered_cached_path);
    assert!(
        mutation(&rules, &SentRequest::new("POST", "/campaigns;x/7"), None).uncovered_cached_path
    );
}

#[test]
fn a_repeated_or_removed_header_of_a_rule_refuses_the_mutation() {
    let rules = rules(RULES);
    for sent in [
        put("/campaigns/7").with("x-tenant-id", "b"),
        put("/campaigns/7").with("connection", "x-tenant-id"),
    ] {
        let refused = rules
            .mutation(&sent.view(), &Method::PUT, None)
            .expect_err("it is ambiguous whose data it changes");
        assert_eq!(refused.as_str(), "x-tenant-id");
    }
}

/// A POST with a body of this type.
fn posted(kind: &str) -> SentRequest {
    SentRequest { has_body: true, ..SentRequest::new("POST", "/campaigns/7") }
        .with("x-tenant-id", "acme")
        .with("content-type", kind)
}

const ALL: [&str; 3] = ["all:acme", "campaign:7", "gone:7"];
const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn a_post_whose_body_may_hide_a_method_stands_for_every_method() {
    let rules = rules(RULES);
    let none: [&str; 0] = [];
    for hidden in [
        posted("multipart/form-data; boundary=x"),
        posted("application/x-unheard-of"),
        posted(FORM).with("content-encoding", "gzip"),
        posted(&format!("{FORM}; charset=utf-16")),
        SentRequest { has_body: true, ..SentRequest::new("POST", "/campaigns/7") }
            .with("x-tenant-id", "acme"),
    ] {
        assert_eq!(tags(&rules, &hidden, None), ALL, "{hidden:?}");
        assert!(!rules.mutation_reads_body(&hidden.view(), &Method::POST), "{hidden:?}");
    }
    for opaque in ["image/png", "application/octet-stream", "application/xml"] {
        assert_eq!(tags(&rules, &posted(opaque), None), none, "{opaque}");
    }
    // One that was too long, or broke off.
    for kind in [FORM, "application/json", "text/plain"] {
        assert!(rules.mutation_reads_body(&posted(kind).view(), &Method::POST), "{kind}");
        assert_eq!(tags(&rules, &posted(kind), None), ALL, "{kind}");
    }
    let read = |kind: &str, text: &str| {
        let body = BodyFields::parse(kind.as_bytes(), text.as_bytes()).expect(text);
        tags(&rules, &posted(kind), Some(&body))
    };
    for plain in ["a=1", "method=DELETE", "_method=", "x=_method%3DDELETE"] {
        assert_eq!(read(FORM, plain), none, "{plain}");
    }
    for form in ["_method=delete", "a=1&_m%65thod=DELETE", "_METHOD=DELETE", "a=1;_method=DELETE"] {
        assert_eq!(read(FORM, form), ["gone:7"], "{form}");
    }
    assert_eq!(read(FORM, "_method=%00"), ALL, "it may mean anything");
    for plain in ["{}", "[]", "7", r#"{"a":{"_method":"PUT"}}"#] {
        assert_eq!(read("application/json", plain), none, "{plain}");
    }
    for json in [r#"{"_method":"PUT"}"#, r#"{"_m\u0065thod":"PUT","_method":"POST"}"#] {
        assert_eq!(read("application/json", json), ALL, "{json}");
    }
    // One whose length was not known, and that turned out to be empty.
    for kind in ["multipart/form-data; boundary=x", "", FORM, "application/json"] {
        assert_eq!(tags(&rules, &posted(kind), Some(&BodyFields::nothing())), none, "{kind}");
    }
    // Frameworks read parameters of a POST alone.
    let put = SentRequest { method: Method::PUT, ..posted("multipart/form-data") };
    assert_eq!(tags(&rules, &put, None), ["all:acme", "campaign:7"]);
}

#[test]
fn a_read_that_names_another_method_is_passed_unless_the_origin_obeys() {
    let obeying = rules_with("method_override = true", RULES);
    let rules = rules(RULES);
    for sent in [
        SentRequest::get("/campaigns/7").with("x-http-method-override", "DELETE"),
        SentRequest::get("/campaigns/7?_method=DELETE"),
        SentRequest::get("/campaigns/7?_m%65thod=DELETE"),
        SentRequest::new("HEAD", "/campaigns/7?_method=DELETE"),
    ] {
        assert_eq!(verdict(&rules, &sent), "method override", "{sent:?}");
        assert_eq!(verdict(&obeying, &sent), "mutate DELETE", "{sent:?}");
        assert_eq!(tags(&obeying, &sent, None), ["gone:7"], "{sent:?}");
    }
    for odd in ["/campaigns/7?_method=OPTIONS", "/campaigns/7?_method=a%20b"] {
        assert_eq!(verdict(&rules, &SentRequest::get(odd)), "method override", "{odd}");
        assert_eq!(verdict(&obeying, &SentRequest::get(odd)), "method override", "{odd}");
    }
    for own in ["/campaigns/7?_method=", "/campaigns/7?_method=get", "/campaigns/7?x_method=PUT"] {
        assert_eq!(verdict(&rules, &SentRequest::get(own)), "lookup", "{own}");
    }
    assert_eq!(verdict(&rules, &SentRequest::get("/x?_method=PUT")), "no route");
}

const TRASH: &str = r#"
[[routes]]
path = "/{*rest}"
ttl  = "5m"
tags = ["posts"]

[[purges]]
path = "/wp-admin/post.php"
methods = ["GET"]
match = { query.action = "trash" }
tags = ["posts"]

[[purges]]
path = "/items/{id}/delete"
methods = ["GET", "POST"]
except = ["/items/7/delete"]
tags = ["item:{id}"]

[[purges]]
path = "/do"
methods = ["GET"]
match = { header.x-do = "it", host = "app.test" }
tags = ["done"]

[[purges]]
path = "/{*rest}"
match.query.action = "save"
tags = ["saved"]
"#;

#[test]
fn a_declared_read_is_a_mutation_by_every_reading_of_it() {
    let rules = rules(TRASH);
    for (sent, expected) in [
        (SentRequest::get("/wp-admin/post.php?post=7&action=trash"), "posts"),
        (SentRequest::new("HEAD", "/wp-admin/post.php?action=trash"), "posts"),
        (SentRequest::get("/wp-admin/post.php?action=edit&%61ction=tr%61sh"), "posts"),
        (SentRequest::get("/WP-Admin/post.php/?action=trash"), "posts"),
        (SentRequest::get("/wp-admin//post.php?action=trash"), "posts"),
        (SentRequest::get("/wp-admin%2fpost.php?action=trash"), "posts"),
        (SentRequest::get("/wp-admin/post?action=trash"), "posts"),
        (SentRequest::get("/items/8/delete"), "item:8"),
        (SentRequest::get("/items/7/Delete"), "item:7"),
        (SentRequest::get("/do").with("x-do", "it"), "done"),
        (SentRequest::get("/do").with("x-do", "a").with("x-do", "it"), "done"),
        (SentRequest::get("/items/8/delete?_method=PUT"), "item:8"),
        (SentRequest::new("POST", "/wp-admin/post.php?action=trash&_method=GET"), "posts"),
    ] {
        let method = sent.method.clone();
        assert_eq!(verdict(&rules, &sent), format!("mutate {method}"), "{sent:?}");
        assert_eq!(tags(&rules, &sent, None), [expected], "{sent:?}");
    }
    for target in [
        "/wp-admin/post.php?action=edit",
        "/wp-admin/post.php",
        "/wp-admin/other.php?action=trash",
        "/items/7/delete",
        "/do",
        "/a?action=save",
    ] {
        assert_eq!(verdict(&rules, &SentRequest::get(target)), "lookup", "{target}");
    }
    let elsewhere = SentRequest { headers: HeaderMap::new(), ..SentRequest::get("/do") };
    let elsewhere = elsewhere.with("host", "other.test").with("x-do", "it");
    assert_ne!(verdict(&rules, &elsewhere), "mutate GET");
}

#[test]
fn conditions_and_exceptions_hold_for_unsafe_methods_too() {
    let rules = rules(TRASH);
    let post = |target: &str| SentRequest::new("POST", target);
    assert_eq!(tags(&rules, &post("/a?action=save"), None), ["saved"]);
    assert!(tags(&rules, &post("/a?action=edit"), None).is_empty());
    assert_eq!(tags(&rules, &post("/items/8/delete"), None), ["item:8"]);
    let excluded = mutation(&rules, &post("/items/7/delete"), None);
    assert!(excluded.excluded_by.len() == 1 && !excluded.uncovered_cached_path);
    assert_eq!(excluded.tags.len(), 1, "its own URI: {:?}", excluded.tags);
    // What an origin might read as another path is not excluded.
    for other in ["/items//7/delete", "/items/7/delete/", "/items/7/DELETE", "/x/../items/7/delete"]
    {
        assert!(!mutation(&rules, &post(other), None).rules.is_empty(), "{other}");
    }
}

#[test]
fn rules_match_in_any_case_and_without_slash_or_extension() {
    let rules = rules(
        r#"
[[routes]]
path = "/items/{id}"
ttl  = "5m"
tags = ["Item:{id}"]

[[purges]]
path = "/API/Items/{id}"
tags = ["item:{id}"]

[[purges]]
path = "/straße/list.json"
tags = ["list"]
"#
        .replace("straße", "stra%C3%9Fe")
        .as_str(),
    );
    let entry = |target: &str| lookup(&rules, &SentRequest::get(target)).tags();
    let purged = |target: &str| mutation(&rules, &SentRequest::new("PUT", target), None).tags;
    for (write, read) in [
        ("/api/items/7", "/items/7"),
        ("/Api/ITEMS/7.json", "/items/7"),
        ("/api/items/7/", "/items/7"),
        ("/api/items/7", "/items/7.json"),
        ("/api/items/7.xml", "/items/7.json"),
        ("/api/items/aB", "/items/Ab"),
        ("/api/items/%C3%9C", "/items/%C3%BC"),
        ("/items/7.json", "/items/7"),
        ("/items/7/", "/items/7"),
        ("/items/7", "/items/7.json"),
        ("/ITEMS/7", "/items/7"),
    ] {
        let (purged, entry) = (purged(write), entry(read));
        assert!(
            purged.iter().any(|tag| entry.contains(tag)),
            "{write} {read}: {purged:?} {entry:?}"
        );
    }
    for write in ["/stra%C3%9Fe/list", "/STRASSE/list/", "/stra%c3%9fe/LIST.xml"] {
        assert!(purged(write).contains(&Tag::new("list")), "{write}");
    }
    let other = purged("/api/items/8");
    assert!(!entry("/items/7").iter().any(|tag| other.contains(tag)));
}

#[test]
fn move_and_copy_purge_their_destination() {
    let rules = rules(
        "[[purges]]\npath = \"/files/{name}\"\nmethods = [\"MOVE\", \"COPY\"]\n\
         tags = [\"file:{name}\"]",
    );
    for (method, destination) in [
        ("MOVE", "/files/b"),
        ("COPY", "http://app.test/files/b"),
        ("MOVE", "https://other.test:444/Files/b"),
    ] {
        let sent = SentRequest::new(method, "/files/a").with("destination", destination);
        let purged = mutation(&rules, &sent, None);
        for tag in ["file:a", "file:b", "uri:app.test/files/a", "uri:app.test/files/b"] {
            assert!(purged.tags.contains(&Tag::new(tag)), "{method} {destination}: {tag}");
        }
    }
    let put = SentRequest::new("PUT", "/files/a").with("destination", "/files/b");
    assert_eq!(mutation(&rules, &put, None).tags.len(), 1);
    let by_post = SentRequest::new("POST", "/files/a")
        .with("destination", "/files/b")
        .with("x-http-method-override", "MOVE");
    assert_eq!(tags(&rules, &by_post, None), ["file:a"], "anybody can claim to be a MOVE");
    assert_eq!(mutation(&rules, &by_post, None).tags.len(), 2);
    let lower = SentRequest::new("move", "/files/a").with("destination", "/files/b");
    assert_eq!(tags(&rules, &lower, None), ["file:a", "file:b"]);
}

#[test]
fn the_widest_word_of_the_rules_decides_which_answers_purge() {
    use crate::policy::purge_rule::MutationAnswer::{Ok, Redirect, Refusal, Unknown};
    let rule = |tag: &str, word: &str| {
        format!("[[purges]]\npath = \"/a\"\ntags = [\"{tag}\"]\npurge_on = \"{word}\"\n")
    };
    let text = [
        rule("ok", "2xx"),
        rule("success", "success"),
        rule("any", "any"),
        rule("both", "2xx"),
        rule("both", "any"),
        rule("plain", "2xx"),
        rule("plain", "success"),
    ]
    .concat();
    let rules = rules(&text);
    let purged = mutation(&rules, &SentRequest::new("POST", "/a"), None);
    let by = |answer| {
        let names = purged.tags.iter().filter(|tag| purged.is_purged_by(answer, tag));
        names.map(ToString::to_string).collect::<Vec<_>>()
    };
    let all = ["any", "both", "ok", "plain", "success", "uri:app.test/a"];
    assert_eq!(
        (by(Ok), by(Unknown)),
        (all.map(str::to_owned).into(), all.map(str::to_owned).into())
    );
    assert_eq!(by(Redirect), ["any", "both", "plain", "success", "uri:app.test/a"]);
    assert_eq!(by(Refusal), ["any", "both"]);
}
