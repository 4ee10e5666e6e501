//! Lint of `encoded_slash`.

use super::*;

#[test]
fn a_slash_is_kept_where_there_is_none() {
    let route = |path: &str, more: &str| {
        format!(
            "[[routes]]\npath = \"{path}\"\nttl = \"5m\"\nscope = \"public\"\n\
             encoded_slash = \"keep\"\ntags = [\"x\"]\n{more}\n\
             [[purges]]\npath = \"/{{*rest}}\"\ntags = [\"x\"]\n"
        )
    };
    silent(&route("/{package}", ""));
    silent(&route("/files/{*rest}", ""));
    one(&route("/files", ""), "\"keep\"", "only a capture", "remove it");
    silent(&route("/files", "").replace("keep", "pass"));
    one(&route("/{package}", "mode = \"off\""), "\"keep\"", "caches nothing", "remove it");
}
