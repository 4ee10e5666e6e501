//! Lint of sources against routes.

use super::*;

const FILE: &str = r#"
[[routes]]
path = "/api/items/{id}"
ttl = "5m"
scope = "public"
tags = ["item:{id}"]
[[sources]]
kind = "postgres"
url = "postgres://app@127.0.0.1/app"
tags = ["item:{item_id}"]
"#;

#[test]
fn a_source_that_tells_of_a_route_is_as_good_as_a_purge_rule() {
    silent(FILE);
    let (without, _) = FILE.split_once("[[sources]]").expect("a source");
    one(without, "[\"item:{id}\"]", "no purge rule names any of these tags", "add [[purges]]");
}

#[test]
fn a_webhook_takes_a_path_from_the_app() {
    let (routes, _) = FILE.split_once("[[sources]]").expect("a source");
    let text = format!(
        "{routes}[[sources]]\nkind = \"webhook\"\npath = \"/hooks/x\"\nsignature = \"github\"\n\
         secret = \"0123456789abcdef\"\ntags = [\"item:{{item_id}}\"]\n"
    );
    let found = warnings(&text);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].found.as_str()), (Severity::Note, "\"/hooks/x\""));
    assert!(found[0].message.contains("gets no POST to `/hooks/x` any more"));
}

#[test]
fn a_tag_of_a_source_that_no_route_has() {
    let more = with(FILE, "[\"item:{item_id}\"]", "[\"item:{item_id}\", \"itme:{id}\"]");
    one(&more, "\"itme:{id}\"", "no route has a tag", "did you mean \"item:{id}\"?");
    silent(&format!("{more}[tags]\nresponse_headers = [\"xkey\"]\n"));
}

#[test]
fn a_password_that_may_be_read_on_the_way() {
    let far = |mode: &str| with(FILE, "127.0.0.1/app", &format!("db.internal/app{mode}"));
    silent(&far(""));
    silent(&far("?sslmode=require"));
    for mode in ["disable", "prefer"] {
        let url = format!("\"postgres://***@db.internal/app?sslmode={mode}\"");
        let text = far(&format!("?sslmode={mode}"));
        one(&text, &url, "may be read on the way", "sslmode=require");
    }
    let mysql = |text: String| {
        text.replace("kind = \"postgres\"", "kind = \"mysql\"").replace("postgres://", "mysql://")
    };
    silent(&mysql(far("")));
    let url = "\"mysql://***@db.internal/app?sslmode=disable\"";
    one(&mysql(far("?sslmode=disable")), url, "may be read on the way", "sslmode=require");
}
