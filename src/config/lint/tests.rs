//! Each finding in a file that has it, and the same file mended, which has none.

use crate::config::{Config, Diagnostic, Severity};

/// A file that nothing is said of. What is in angle brackets differs from case to case.
const HEAD: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n";

fn warnings(text: &str) -> Vec<Diagnostic> {
    let text = format!("{HEAD}{text}");
    let env = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
    Config::parse(&text, "proxy.toml", &env)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .warnings
}

fn silent(text: &str) {
    let warnings = warnings(text);
    assert!(
        warnings.is_empty(),
        "{text}\n{}",
        warnings.iter().map(ToString::to_string).collect::<String>()
    );
}

/// Expects exactly one warning, at this text of the file, with these words in it and in its hint.
fn one(text: &str, at: &str, message: &str, hint: &str) {
    let warnings = warnings(text);
    let drawn: String = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{text}\n{drawn}");
    let found = &warnings[0];
    assert_eq!((found.severity, found.found.as_str()), (Severity::Warning, at), "{drawn}");
    assert!(found.line > 0 && found.column > 0, "{drawn}");
    assert!(found.message.contains(message), "{message}: {drawn}");
    assert!(found.hint.as_deref().is_some_and(|told| told.contains(hint)), "{hint}: {drawn}");
}

/// Replaces one text by another; both files differ in that alone.
fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in {text}");
    text.replacen(old, new, 1)
}

/// A tenant's list, purged as it should be.
const LIST: &str = r#"
[fields]
tenant = { header = "x-tenant-id" }
[[routes]]
path  = "/api/items"
ttl   = "5m"
scope = "shared"
key   = ["tenant"]
tags  = ["items:{tenant}"]
[[purges]]
path = "/api/items/{*rest}"
tags = ["items:{tenant}"]
"#;

#[test]
fn a_file_as_it_should_be_is_silent() {
    silent(LIST);
    silent(&with(LIST, "scope = \"shared\"\n", ""));
}

#[test]
fn the_shipped_file_is_silent() {
    let text = include_str!("../../../proxy.toml");
    let config = Config::parse(text, "proxy.toml", &|_| None)
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

/// The TOML blocks of each document, with its page, without indents.
fn blocks_of_the_documents() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = ["README.md", "deploy/README.md", "deploy/nginx/README.md"]
        .map(|page| root.join(page))
        .to_vec();
    let mut folders = vec![root.join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the manual") {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path);
            }
        }
    }
    let mut blocks = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a page of the manual");
        let mut block: Option<String> = None;
        for line in text.lines().map(str::trim_start) {
            match &mut block {
                Some(_) if line.starts_with("```") => {
                    blocks.extend(block.take().map(|block| (page.display().to_string(), block)))
                }
                Some(block) => block.extend([line, "\n"]),
                None if line == "```toml" => block = Some(String::new()),
                None => {}
            }
        }
        assert!(block.is_none(), "{}: a block of TOML without an end", page.display());
    }
    blocks
}

/// Whether a block is a file of its own, and not lines to add to one.
fn is_whole(block: &str) -> bool {
    block.contains("[upstream]") && block.contains("[[routes]]")
}

#[test]
fn the_files_of_the_documents_are_silent() {
    let blocks = blocks_of_the_documents();
    for page in ["README.md", "start/your-app.md"] {
        assert!(
            blocks.iter().any(|(at, block)| at.ends_with(page) && is_whole(block)),
            "{page} shows a whole file"
        );
    }
    for (page, text) in blocks.iter().filter(|(_, block)| is_whole(block)) {
        let config = Config::parse(text, "proxy.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{page}: {problems}"));
        assert!(config.warnings.is_empty(), "{page}: {text}\n{:?}", config.warnings);
    }
}

#[test]
fn the_lines_that_the_documents_show_have_no_mistakes() {
    let blocks = blocks_of_the_documents();
    let parts: Vec<_> = blocks.iter().filter(|(_, block)| !is_whole(block)).collect();
    assert!(parts.len() > 10, "the manual shows lines to add: {}", parts.len());
    for (page, text) in parts {
        let text = if text.contains("[upstream]") { text.clone() } else { format!("{HEAD}{text}") };
        let env =
            |name: &str| (name == "SIDECACHE_SECRET").then(|| "sixteen-characters".to_owned());
        let problems = Config::parse(&text, "proxy.toml", &env).err();
        assert!(
            problems.is_none(),
            "{page}: {text}\n{}",
            problems.map(|problems| problems.to_string()).unwrap_or_default()
        );
    }
}

#[test]
fn a_warning_that_is_right_as_it_is_can_be_said_to_be() {
    let long = with(
        &with(LIST, "ttl   = \"5m\"", "ttl   = \"9d\""),
        "tags = [\"items:{tenant}\"]\n",
        "tags = [\"items:{tenant}\"]\nmethods = [\"POST\"]\n",
    );
    one(&long, "[\"POST\"]", "PUT, PATCH, DELETE", "`# check: ok`");
    for comment in ["# check: ok", "#check: ok, the app knows no others (see #12)"] {
        silent(&with(&long, "[\"POST\"]", &format!("[\"POST\"] {comment}")));
    }
    one(
        &with(&long, "[\"POST\"]", "[\"POST\"] # checked"),
        "[\"POST\"]",
        "PUT",
        "remove `methods`",
    );
    let bad = format!("{HEAD}[memory]\nsize = \"5\" # check: ok\n");
    assert!(Config::parse(&bad, "proxy.toml", &|_| None).is_err(), "an error stays one");
}

mod scopes {
    use super::*;

    #[test]
    fn a_route_for_everyone_that_tells_callers_apart() {
        let public = with(LIST, "\"shared\"", "\"public\"");
        silent(&public);
        one(
            &with(&public, "x-tenant-id", "x-user-id"),
            "\"public\"",
            "the field `tenant` tells one caller from another",
            "scope = \"private\"",
        );
        one(
            &with(
                &public,
                "{ header = \"x-tenant-id\" }\n",
                "{ cookie = \"who\" }\n[credential]\ncookies = [\"who\"]\n",
            ),
            "\"public\"",
            "asks nobody",
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
                "the one in line 7 shows data of the same tag",
                "scope = \"shared\"",
            );
        }
        silent(&beside("/web/areas"));
        silent(&beside("/api/items/{id}").replace("\"public\"", "\"shared\""));
        silent(
            &beside("/api/items/{id}").replace("tags = [\"areas\"]\n", "tags = [\"items:{id}\"]\n"),
        );
    }

    #[test]
    fn the_apps_private_overridden_for_several_callers() {
        let ignore = with(LIST, "ttl   = \"5m\"", "ttl = \"5m\"\norigin = \"ignore\"");
        one(&ignore, "\"ignore\"", "goes to every admitted caller", "origin = \"respect\"");
        one(
            &with(&ignore, "\"shared\"", "\"public\""),
            "\"ignore\"",
            "goes to everyone",
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
        let told = warnings(&keyed);
        assert_eq!(told.len(), 2, "at the field, and where callers share: {told:?}");
        assert!(
            told[0]
                .hint
                .as_deref()
                .is_some_and(|hint| hint.contains("token = { auth = \"token\" }")),
            "{told:?}"
        );
        assert!(
            told[1].message.contains("begin alike share an entry") && told[1].found == "\"token\"",
            "{told:?}"
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
            "not as a hash",
            "headers = [\"x-api-key\"]",
        );
        one(
            &with(LIST, "header = \"x-tenant-id\"", "cookie = \"session\""),
            "\"session\"",
            "not as a hash",
            "cookies = [\"session\"]",
        );
        silent(&with(LIST, "header = \"x-tenant-id\"", "cookie = \"theme\""));
    }
}

mod headers {
    use super::*;

    fn passing(header: &str) -> String {
        with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\npass_headers = [\"{header}\"]"))
    }

    #[test]
    fn what_changes_answers_reaches_the_app_unkeyed() {
        for (header, hint) in [
            ("x-user-id", "user_id = { header = \"x-user-id\" } in [fields]"),
            ("accept-language", "\"accept_language\" in `key`"),
            ("x-forwarded-host", "or name it in drop_headers"),
            ("x-api-key", "drop_headers = [\"x-api-key\"]"),
        ] {
            one(&passing(header), &format!("\"{header}\""), "without being in the key", hint);
        }
        silent(&passing("x-client-version"));
        silent(&passing("x-tenant-id"));
        silent(&format!("{}[credential]\nheaders = [\"x-api-key\"]\n", passing("x-api-key")));
        silent(&passing("cookie"));
    }

    #[test]
    fn a_cookie_beside_the_identity_that_the_key_names() {
        let token = with(
            &with(&passing("cookie"), "[\"tenant\"]", "[\"tenant\", \"token\"]"),
            "[fields]\n",
            "[fields]\ntoken = { auth = \"token\" }\n",
        );
        one(&token, "\"cookie\"", "identifies the caller", "drop_headers = [\"cookie\"]");
        silent(&with(&token, "pass_headers", "drop_headers"));
    }

    #[test]
    fn all_unknown_headers_let_through() {
        let unknown = |word: &str| {
            with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\nunknown_headers = \"{word}\""))
        };
        one(
            &unknown("pass"),
            "\"pass\"",
            "every header that no key has seen",
            "unknown_headers = \"drop\"",
        );
        silent(&unknown("drop"));
        silent(&unknown("bypass"));
    }

    #[test]
    fn a_parameter_that_a_tag_reads_is_in_the_key_whatever_the_query_list_says() {
        let text = with(
            &with(LIST, "header = \"x-tenant-id\"", "query = \"tenant\""),
            "ttl   = \"5m\"",
            "ttl = \"5m\"\nquery = \"none\"",
        );
        silent(&text);
        let config = Config::parse(&format!("{HEAD}{text}"), "proxy.toml", &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (route, _) = config.routes.find("/api/items").expect("the route");
        assert_eq!(
            route.spec.query,
            crate::policy::route::QueryRule::Only(["tenant".into()].into())
        );
    }
}

mod purges {
    use super::*;

    #[test]
    fn a_route_without_tags() {
        let bare = with(LIST, "tags  = [\"items:{tenant}\"]\n", "");
        one(
            &bare,
            "\"/api/items\"",
            "the purge rule in line 12 covers this path",
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
            "{LIST}[[routes]]\npath = \"/api/items/statistics\"\nttl = \"5m\"\ntags = [\"statistics\"]\n"
        );
        one(
            &other,
            "[\"statistics\"]",
            "the purge rule in line 13 covers this path",
            "tags = [\"statistics\", \"items:{tenant}\"]",
        );
        silent(&format!(
            "{other}[[purges]]\npath = \"/api/admin/recount\"\ntags = [\"statistics\"]\n"
        ));
        silent(&format!("{other}[tags]\nresponse_headers = [\"xkey\"]\n"));
        silent(&with(&other, "\"/api/items/statistics\"", "\"/api/statistics\""));
        let finer =
            with(&other, "tags = [\"statistics\"]", "tags = [\"items:{tenant}:statistics\"]");
        one(
            &finer,
            "[\"items:{tenant}:statistics\"]",
            "the purge rule in line 13 covers this path",
            "tags = [\"items:{tenant}:statistics\", \"items:{tenant}\"]",
        );
    }

    #[test]
    fn a_long_life_without_a_purge_rule() {
        let (routes, _) = LIST.split_once("[[purges]]").expect("a purge rule");
        silent(routes);
        silent(&with(routes, "\"5m\"", "\"24h\""));
        let mend = "path = \"/api/items\" and tags = [\"items:{tenant}\"]";
        one(&with(routes, "\"5m\"", "\"2d\""), "\"2d\"", "shown for up to 2d", mend);
        one(
            &with(routes, "\"5m\"", "\"5m\"\nstale_if_error = \"1d\""),
            "\"1d\"",
            "shown for up to",
            mend,
        );
        silent(&with(LIST, "\"5m\"", "\"2d\""));
    }

    #[test]
    fn a_purge_that_no_route_can_mean() {
        let purging =
            |tag: &str| LIST.replace("tags = [\"items:{tenant}\"]", &format!("tags = [\"{tag}\"]"));
        let nearest = "did you mean \"items:{tenant}\", as the route in line 7 has it?";
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
            "no route has a tag that could be `forms`",
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
}

mod times {
    use super::*;

    #[test]
    fn an_admission_that_outlives_the_entry() {
        let admit = |time: &str| {
            with(LIST, "ttl   = \"5m\"", &format!("ttl = \"5m\"\nadmit_for = \"{time}\""))
        };
        one(&admit("1h"), "\"1h\"", "`admit_for` is longer than `ttl`", "admit_for = \"5m\"");
        silent(&admit("5m"));
        silent(&with(LIST, "\"5m\"", "\"5s\""));
    }

    #[test]
    fn the_times_of_redis() {
        let redis = |keys: &str| format!("{LIST}[redis]\nurl = \"redis://127.0.0.1\"\n{keys}\n");
        silent(&redis(""));
        one(
            &redis("degraded_ttl = \"5m\""),
            "\"5m\"",
            "without Redis this sidecar shows for 5m",
            "degraded_ttl = \"2s\"",
        );
        silent(&redis("degraded_ttl = \"10s\""));
        one(
            &redis("on_redis_loss = \"bypass\"\ndegraded_ttl = \"1s\""),
            "\"1s\"",
            "no effect",
            "remove one",
        );
        one(
            &redis("deadline = \"1s\"\nlease = \"1s\""),
            "\"1s\"",
            "cannot renew a lease of 1s",
            "lease = \"4s\"",
        );
        one(&redis("lease = \"100ms\""), "\"100ms\"", "its deadline of 100ms", "lease = \"400ms\"");
        silent(&redis("deadline = \"1s\"\nlease = \"2s\""));
        one(
            &redis("rejoin_grace = \"0s\""),
            "\"0s\"",
            "what they purged meanwhile",
            "rejoin_grace = \"1s\"",
        );
        silent(&redis("rejoin_grace = \"500ms\""));
    }
}

mod sections {
    use super::*;

    #[test]
    fn everybody_is_trusted() {
        let trusted =
            |network: &str| format!("{LIST}[listen]\ntrusted_proxies = [\"{network}\"]\n");
        one(
            &trusted("0.0.0.0/0"),
            "\"0.0.0.0/0\"",
            "every address",
            "trusted_proxies = [\"127.0.0.1\"]",
        );
        one(&trusted("::/0"), "\"::/0\"", "every address", "trusted_proxies");
        silent(&trusted("10.0.0.0/8"));
    }

    #[test]
    fn strangers_are_told_keys_and_tags() {
        let debug = |address: &str, headers: bool| {
            format!("{LIST}[listen]\naddress = \"{address}:8080\"\n[debug]\nheaders = {headers}\n")
        };
        one(&debug("0.0.0.0", true), "true", "open beyond this machine", "headers = false");
        silent(&debug("127.0.0.1", true));
        silent(&debug("0.0.0.0", false));
    }

    #[test]
    fn no_room_for_the_apps_tags() {
        let most = |most: u8| format!("{LIST}[limits]\ntags = {most}\n");
        one(
            &most(2),
            "[\"items:{tenant}\"]",
            "these are 2 tags, and [limits] tags is 2",
            "tags = 64 in [limits]",
        );
        silent(&most(3));
    }
}
