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
        SentRequest::get("/campaigns/7").with("x-http-method-override", "DELETE"),
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
