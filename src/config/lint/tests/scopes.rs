//! Lint of who may share an entry.

use super::*;

#[test]
fn a_route_for_everyone_that_tells_callers_apart() {
    let public = with(LIST, "\"shared\"", "\"public\"");
    silent(&public);
    one(
        &with(&public, "x-tenant-id", "x-user-id"),
        "\"public\"",
        "but the field `tenant` tells them apart",
        "scope = \"private\"",
    );
    one(
        &with(
            &public,
            "{ header = \"x-tenant-id\" }\n",
            "{ cookie = \"who\" }\n[credential]\ncookies = [\"who\"]\n",
        ),
        "\"public\"",
        "does not authenticate callers",
        "\"shared\"",
    );
    silent(&with(LIST, "x-tenant-id", "x-user-id"));
}

#[test]
fn a_route_for_everyone_beside_a_guarded_one_with_the_same_tag() {
    let beside = |path: &str| {
        let route = format!(
            "[[routes]]\npath = \"{path}\"\nttl = \"5m\"\nscope = \"public\"\ntags = [\"areas\"]\n"
        );
        LIST.replace("items:{tenant}\"]", "items:{tenant}\", \"areas\"]") + &route
    };
    for path in ["/api/items/{id}", "/api/{kind}"] {
        one(
            &beside(path),
            "\"public\"",
            "the route at line 7 has the same tag",
            "scope = \"shared\"",
        );
    }
    silent(&beside("/web/areas"));
    let shared = "scope = \"shared\"\nkey = [\"tenant\"]";
    silent(&beside("/api/items/{id}").replace("scope = \"public\"", shared));
    silent(&beside("/api/items/{id}").replace("tags = [\"areas\"]\n", "tags = [\"items:{id}\"]\n"));
}

#[test]
fn the_apps_private_overridden_for_several_callers() {
    let ignore = with(LIST, "ttl   = \"5m\"", "ttl = \"5m\"\norigin = \"ignore\"");
    one(&ignore, "\"ignore\"", "is served to every authorized caller", "origin = \"respect\"");
    one(
        &with(&ignore, "\"shared\"", "\"public\""),
        "\"ignore\"",
        "is served to everyone",
        "`# check: ok`",
    );
    silent(&with(&ignore, "\"shared\"", "\"private\""));
    let token = with(&ignore, "[\"tenant\"]", "[\"tenant\", \"token\"]");
    silent(&with(&token, "[fields]\n", "[fields]\ntoken = { auth = \"token\" }\n"));
}

#[test]
fn the_start_of_a_token() {
    let keyed = with(
        &with(LIST, "[\"tenant\"]", "[\"tenant\", \"token\"]"),
        "[fields]\n",
        "[fields]\ntoken = { auth = \"prefix\", length = 20 }\n",
    );
    let stated = warnings(&keyed);
    assert_eq!(stated.len(), 2, "at the field, and where callers share: {stated:?}");
    assert!(
        stated[0].hint.as_deref().is_some_and(|hint| hint.contains("token = { auth = \"token\" }")),
        "{stated:?}"
    );
    assert!(
        stated[1].message.contains("start alike share an entry") && stated[1].found == "\"token\"",
        "{stated:?}"
    );
    one(
        &with(&keyed, "\"shared\"", "\"private\""),
        "token",
        "48 to 155",
        "token = { auth = \"token\" }",
    );
    silent(&with(&keyed, "auth = \"prefix\", length = 20", "auth = \"token\""));
}

#[test]
fn a_credential_as_a_plain_field() {
    one(
        &with(LIST, "x-tenant-id", "x-api-key"),
        "\"x-api-key\"",
        "in keys and tags unhashed",
        "headers = [\"x-api-key\"]",
    );
    one(
        &with(LIST, "header = \"x-tenant-id\"", "cookie = \"session\""),
        "\"session\"",
        "in keys and tags unhashed",
        "cookies = [\"session\"]",
    );
    silent(&with(LIST, "header = \"x-tenant-id\"", "cookie = \"theme\""));
}
