//! Lint of what a route makes of callers.

use super::*;

fn keyed(keys: &str) -> String {
    with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\n{keys}"))
}

#[test]
fn every_cookie_removed_from_stored_responses() {
    let stripping = keyed("strip_set_cookie = true");
    let hint = "strip_set_cookie = [\"_ga\", \"pref_*\"]";
    one(&stripping, "true", "also one that a form in its body needs", hint);
    one(&with(&stripping, "\"shared\"", "\"public\""), "true", "has no effect", hint);
    silent(&keyed("strip_set_cookie = [\"_ga\"]"));
    let token = keyed("strip_set_cookie = [\"_ga\", \"csrftoken\"]");
    one(
        &token,
        "[\"_ga\", \"csrftoken\"]",
        "looks like the cookie of a token",
        "take it out of the list",
    );
    silent(&keyed("strip_set_cookie = false"));
    // Of a session that a field verifies, only the same payload is stripped.
    let session = with(
        &keyed("strip_set_cookie = [\"session\"]"),
        "[fields]",
        "[fields]\nown = { cookie = \"session\", format = \"flask\", \
         secret = \"0123456789abcdef\", max_age = \"1h\" }",
    );
    silent(&with(&session, "key   = [\"tenant\"]", "key = [\"tenant\", \"own\"]"));
}

#[test]
fn a_route_that_admits_to_entries_that_the_app_may_refuse() {
    let admitting = keyed("admit = \"route\"\nquery = \"none\"");
    silent(&admitting);
    one(
        &with(&admitting, "query = \"none\"\n", ""),
        "\"route\"",
        "each query selects another entry",
        "admit = \"entry\"",
    );
    let listed = with(&admitting, "\"none\"", "[\"page\"]");
    one(&listed, "\"route\"", "the query parameter `page`", "add a field that reads it to `key`");
    let page = with(&listed, "[fields]", "[fields]\npage = { query = \"page\" }");
    silent(&with(&page, "[\"tenant\"]", "[\"tenant\", \"page\"]"));
    for path in ["/api/items/{id}", "/api/items/{*rest}"] {
        let several = with(&admitting, "\"/api/items\"", &format!("\"{path}\""));
        one(&several, "\"route\"", "of the path selects another entry", "admit = \"entry\"");
        silent(&with(&several, "admit = \"route\"", "admit = \"entry\""));
        let name = if path.contains("rest") { "rest" } else { "id" };
        silent(&with(&several, "[\"tenant\"]", &format!("[\"tenant\", \"{name}\"]")));
    }
}

#[test]
fn a_shared_route_whose_key_tells_nobody_apart() {
    let alone = LIST
        .replace("[fields]\ntenant = { header = \"x-tenant-id\" }\n", "")
        .replace("key   = [\"tenant\"]\n", "")
        .replace(":{tenant}", "");
    one(&alone, "\"shared\"", "no field tells callers apart", "# check: ok");
    silent(&with(&alone, "\"shared\"\n", "\"shared\" # check: ok\n"));
    silent(&with(&alone, "\"shared\"", "\"private\""));
    silent(&with(&alone, "\"shared\"", "\"public\""));
    silent(LIST);
}

#[test]
fn keys_about_callers_that_have_no_effect() {
    for scope in ["shared", "private"] {
        let text = with(&keyed("vary_cookie = \"ignore\""), "\"shared\"", &format!("\"{scope}\""));
        one(&text, "\"ignore\"", "outside scope \"public\"", "remove it");
    }
    silent(&with(&keyed("vary_cookie = \"ignore\""), "\"shared\"", "\"public\""));
    for scope in ["public", "private"] {
        let text = with(&keyed("admit = \"entry\""), "\"shared\"", &format!("\"{scope}\""));
        one(&text, "\"entry\"", "outside scope \"shared\"", "remove it");
    }
    let confirmed = keyed("revalidate_after = \"30s\"");
    silent(&confirmed);
    silent(&with(&confirmed, "\"shared\"", "\"private\""));
    let public = with(&confirmed, "\"shared\"", "\"public\"");
    one(&public, "\"30s\"", "no credential counts", "remove it");
    let late = keyed("revalidate_after = \"2m\"");
    one(&late, "\"2m\"", "`admit_for` ends before, after 1m", "remove it");
    let token =
        with(&keyed("admit = \"route\""), "[fields]", "[fields]\nme = { auth = \"token\" }");
    one(&with(&token, "[\"tenant\"]", "[\"me\"]"), "\"route\"", "by the field `me`", "remove it");
    let languages = |list: &str| keyed(&format!("languages = [\"en\"]\n{list} = [\"cf-ray\"]"));
    for list in ["drop_headers", "pass_headers"] {
        let named = with(&languages(list), "\"cf-ray\"", "\"Accept-Language\"");
        if list == "drop_headers" {
            one(&named, "[\"en\"]", "because drop_headers names `accept-language`", "remove it");
        } else {
            let found = warnings(&named);
            assert!(found.iter().any(|one| one.message.contains("pass_headers names")), "{named}");
        }
        silent(&languages(list));
    }
}

#[test]
fn ignored_cookies_by_which_callers_are_known() {
    let ignoring = |entry: &str| format!("{LIST}[credential]\nignore_cookies = [\"{entry}\"]\n");
    for entry in ["*", "**"] {
        one(&ignoring(entry), &format!("\"{entry}\""), "ignores all cookies", "remove it");
    }
    for entry in ["session", "connect.sid", "auth_token"] {
        one(&ignoring(entry), &format!("\"{entry}\""), "knows its callers", "remove it");
    }
    for entry in ["@consent", "promo_*", "!session", "theme"] {
        silent(&ignoring(entry));
    }
}
