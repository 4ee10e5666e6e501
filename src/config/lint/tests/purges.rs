//! Lint of purge rules against routes.

use super::*;

#[test]
fn a_route_without_tags() {
    let bare = with(LIST, "tags  = [\"items:{tenant}\"]\n", "");
    one(
        &bare,
        "\"/api/items\"",
        "the purge rule at line 12 covers this path",
        "add tags = [\"items:{tenant}\"]",
    );
    silent(&format!("{bare}[tags]\nresponse_headers = [\"xkey\"]\n"));
    let (routes, _) = LIST.split_once("[[purges]]").expect("a purge rule");
    one(
        &with(routes, "tags  = [\"items:{tenant}\"]\n", ""),
        "\"/api/items\"",
        "no purge rule covers its path",
        "[[purges]]",
    );
    silent(&with(
        &with(routes, "tags  = [\"items:{tenant}\"]\n", ""),
        "ttl   = \"5m\"",
        "mode = \"off\"",
    ));
}

#[test]
fn tags_that_no_rule_names_on_a_path_that_is_written_to() {
    let other = format!(
        "{LIST}[[routes]]\npath = \"/api/items/statistics\"\nttl = \"5m\"\ntags = \
         [\"statistics\"]\n"
    );
    one(
        &other,
        "[\"statistics\"]",
        "the purge rule at line 13 covers this path",
        "tags = [\"statistics\", \"items:{tenant}\"]",
    );
    silent(&format!("{other}[[purges]]\npath = \"/api/admin/recount\"\ntags = [\"statistics\"]\n"));
    silent(&format!("{other}[tags]\nresponse_headers = [\"xkey\"]\n"));
    let elsewhere = with(&other, "\"/api/items/statistics\"", "\"/api/statistics\"");
    one(
        &elsewhere,
        "[\"statistics\"]",
        "no purge rule names any of these tags",
        "path = \"/api/statistics\" and tags = [\"statistics\"]",
    );
    silent(&with(&elsewhere, "[\"statistics\"]", "[\"statistics\"] # check: ok, by a cron job"));
    silent(&with(&elsewhere, "ttl = \"5m\"\ntags = [\"stat", "tags = [\"stat"));
    let finer = with(&other, "tags = [\"statistics\"]", "tags = [\"items:{tenant}:statistics\"]");
    one(
        &finer,
        "[\"items:{tenant}:statistics\"]",
        "the purge rule at line 13 covers this path",
        "tags = [\"items:{tenant}:statistics\", \"items:{tenant}\"]",
    );
}

#[test]
fn a_long_life_without_a_purge_rule() {
    let (routes, _) = LIST.split_once("[[purges]]").expect("a purge rule");
    let mend = "path = \"/api/items\" and tags = [\"items:{tenant}\"]";
    for short in [routes, &with(routes, "\"5m\"", "\"24h\"")] {
        one(short, "[\"items:{tenant}\"]", "no purge rule names any of these tags", mend);
    }
    one(&with(routes, "\"5m\"", "\"2d\""), "\"2d\"", "served for up to 2d", mend);
    one(
        &with(routes, "\"5m\"", "\"5m\"\nstale_if_error = \"1d\""),
        "\"1d\"",
        "served for up to",
        mend,
    );
    silent(&with(LIST, "\"5m\"", "\"2d\""));
}

#[test]
fn a_purge_that_no_route_can_mean() {
    let purging =
        |tag: &str| LIST.replace("tags = [\"items:{tenant}\"]", &format!("tags = [\"{tag}\"]"));
    let nearest = "did you mean \"items:{tenant}\", as in the route at line 7?";
    for tag in ["item:{tenant}", "items:{tenant}:{rest}x:y", "items:all:7"] {
        one(&purging(tag), &format!("\"{tag}\""), "this purges nothing", nearest);
    }
    for tag in ["items:{rest}", "items:acme", "{tenant}:{rest}"] {
        silent(&purging(tag));
    }
    let also =
        LIST.replace("tags = [\"items:{tenant}\"]", "tags = [\"items:{tenant}\", \"forms\"]");
    one(
        &also,
        "\"forms\"",
        "no route has a tag that matches `forms`",
        "response_headers = [\"surrogate-key\", \"cache-tag\"] in [tags]",
    );
    silent(&format!("{also}[tags]\nresponse_headers = [\"surrogate-key\", \"cache-tag\"]\n"));
    let typo = format!("{}[tags]\nresponse_headers = [\"xkey\"]\n", purging("item:{tenant}"));
    one(&typo, "\"item:{tenant}\"", "this purges nothing", nearest);
}

#[test]
fn values_of_the_environment_are_not_shown() {
    let text = LIST.replace("tags = [\"items:{tenant}\"]", "tags = [\"${SECRET}\"]");
    let drawn: String = warnings(&text).iter().map(ToString::to_string).collect();
    assert!(drawn.contains("${SECRET}") && !drawn.contains("hunter2"), "{drawn}");
}

#[test]
fn methods_left_out() {
    let methods = |list: &str| format!("{LIST}methods = {list}\n");
    one(
        &methods("[\"POST\", \"PUT\"]"),
        "[\"POST\", \"PUT\"]",
        "PATCH, DELETE at this path",
        "remove `methods`",
    );
    silent(&methods("[\"POST\", \"PUT\", \"PATCH\", \"DELETE\"]"));
    let rest = "[[purges]]\npath = \"/api/{*rest}\"\ntags = [\"items:{tenant}\"]\n";
    silent(&format!("{}{rest}", methods("[\"POST\", \"PUT\"]")));
    silent(&with(&methods("[\"POST\"]"), "path = \"/api/items/{*rest}\"", "path = \"/login\""));
}

#[test]
fn a_rule_that_makes_every_read_a_write() {
    let reads = with(LIST, "[[purges]]\n", "[[purges]]\nmethods = [\"GET\", \"POST\"]\n");
    let found = warnings(&reads);
    assert!(
        found.iter().any(|warning| warning.message.contains("so it never caches")
            && warning.found == "[\"GET\", \"POST\"]"),
        "{found:?}"
    );
    silent(&with(LIST, "[[purges]]\n", "[[purges]]\nmatch.query.action = \"trash\"\n"));
    let declared = "[[purges]]\npath = \"/api/items/{id}/delete\"\nmethods = [\"GET\"]\ntags = \
                    [\"items:{tenant}\"]\n";
    silent(&format!("{LIST}{declared}"));
    let by_query = with(declared, "/{id}/delete", "").replace(
        "methods = [\"GET\"]",
        "methods = [\"GET\"]\nmatch = { query.action = \"trash\" }",
    );
    silent(&format!("{LIST}{by_query}"));
}

#[test]
fn an_exception_that_excludes_nothing() {
    let except =
        |path: &str| with(LIST, "[[purges]]\n", &format!("[[purges]]\nexcept = [\"{path}\"]\n"));
    one(&except("/api/other"), "\"/api/other\"", "has no effect", "remove it");
    silent(&except("/api/items"));
}

#[test]
fn rules_and_tags_are_compared_in_any_case() {
    silent(&with(
        &with(LIST, "[[purges]]\npath = \"/api", "[[purges]]\npath = \"/API"),
        "[\"items:",
        "[\"Items:",
    ));
}

#[test]
fn writes_that_may_be_carried_out_later_are_noted() {
    let jobs =
        format!("{LIST}[[purges]]\npath = \"/api/jobs/{{id}}\"\ntags = [\"items:{{tenant}}\"]\n");
    let found = warnings(&jobs);
    assert!(
        matches!(&found[..], [note] if note.severity == Severity::Note
            && note.message.contains("202")),
        "{found:?}"
    );
    silent(&format!("{jobs}repurge_after = [\"1s\"]\n"));
}

#[test]
fn a_folder_purges_routes_without_tags_and_an_empty_one_is_told() {
    let (routes, _) = LIST.split_once("[[purges]]").expect("a purge rule");
    let bare = with(routes, "tags  = [\"items:{tenant}\"]\n", "");
    let under = |folder: &str| format!("{bare}[[purges]]\npath = \"/x\"\nunder = \"{folder}\"\n");
    silent(&under("/api/"));
    silent(&under("/api/items/"));
    let empty = format!("{LIST}[[purges]]\npath = \"/x\"\nunder = \"/nowhere/\"\n");
    one(&empty, "\"/nowhere/\"", "no route has a path in it", "name a folder");
}
